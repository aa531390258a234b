"""Between signal and concentration: T1-weighted gradient echoes, and decay by T2*."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from mrphys.units import check_range, check_time_s

STEEPEST = 0.25
"""Share of the whole change of signal that may happen within the baseline."""


class SpoiledEcho(NamedTuple):
    """How a spoiled gradient echo sees an agent: numbers, or maps for all but TR.

    flip_rad                 as played, B1 included
    tr_s
    t1_s                     before the agent
    relaxivity_l_per_mmol_s  r1: R1 = 1 / T1 + r1 C. 3.3 to 4.5 at 1.5 and 3 T
    """

    flip_rad: ArrayLike
    tr_s: ArrayLike
    t1_s: ArrayLike
    relaxivity_l_per_mmol_s: ArrayLike = 4.5


def signal_of_concentration(
    theta: SpoiledEcho,
    c: Float[Array, "*voxels readouts"],
    baseline_signal: ArrayLike = 1.0,
) -> Float[Array, "*voxels readouts"]:
    """S(C) = S_0 g(R1) / g(1 / T1),  g(R1) = (1 - E) / (1 - E cos α),  E = exp(-TR R1).

    The steady state of each image (Ernst, Anderson 1966, doi:10.1063/1.1719961); T2* of the agent
    is neglected. S_0 is the signal without agent. Raises InputError as `concentration_of_signal`.
    """
    voxels = c.shape[:-1]
    cosine, e0, r1, scale = _prepared("signal_of_concentration", theta, baseline_signal, voxels)
    e = e0 * jnp.exp(-jnp.asarray(theta.tr_s) * r1 * c)
    return scale * (1 - e) * (1 - e0 * cosine) / ((1 - e * cosine) * (1 - e0))


def concentration_of_signal(
    theta: SpoiledEcho, signal: Float[Array | np.ndarray, "*voxels readouts"], baseline: slice
) -> Float[Array, "*voxels readouts"]:
    """The inverse of `signal_of_concentration`, in closed form, mmol/l:

        m = S / S_0 (1 - E_0) / (1 - E_0 cos α),   E = (1 - m) / (1 - m cos α),
        C = -log(E / E_0) / (TR r1)

    with S_0 the mean of the images `baseline`, E_0 = exp(-TR / T1). NaN where no concentration
    gives the signal: m >= 1, beyond full relaxation, or a baseline of 0. Differentiable elsewhere.
    Raises InputError for times in ms, flips in degrees, r1 out of range, and a baseline that is
    empty or inside the bolus.

    >>> theta = SpoiledEcho(flip_rad=0.26, tr_s=0.004, t1_s=1.4)
    >>> c = jnp.array([0.0, 0.0, 1.5, 0.5])
    >>> s = signal_of_concentration(theta, c, 30.0)
    >>> concentration_of_signal(theta, s, slice(0, 2)).round(6) + 0.0
    Array([0. , 0. , 1.5, 0.5], dtype=float64)
    """
    where = "concentration_of_signal"
    s = jnp.asarray(signal)
    s = s if jnp.issubdtype(s.dtype, jnp.floating) else s.astype(float)
    before = baseline_mean(where, s, baseline)
    cosine, e0, r1, s0 = _prepared(where, theta, before, s.shape[:-1])
    m = s * (1 - e0) / (jnp.where(s0 > 0, s0, 1.0) * (1 - e0 * cosine))
    possible = (s0 > 0) & (m < 1)
    m = jnp.where(possible, m, 0.0)
    ratio = (1 - m) / ((1 - m * cosine) * e0)
    return jnp.where(possible, -jnp.log(ratio) / (jnp.asarray(theta.tr_s) * r1), jnp.nan)


def relaxation_change_per_s(
    signal: Float[Array | np.ndarray, "*voxels readouts"], te_s: ArrayLike, baseline: slice
) -> Float[Array, "*voxels readouts"]:
    """ΔR2* = -log(S / S_0) / TE, in proportion to the concentration of an agent in vessels; S_0 the
    mean of the images `baseline`. NaN where a signal is not above 0.

    Rosen et al. 1990, doi:10.1002/mrm.1910140211. Raises InputError for TE in ms, and a baseline
    that is empty or inside the bolus.
    """
    where = "relaxation_change_per_s"
    check_time_s(f"{where}: te_s", te_s, low=1e-5, high=0.5)
    s = jnp.asarray(signal)
    s = s if jnp.issubdtype(s.dtype, jnp.floating) else s.astype(float)
    before = baseline_mean(where, s, baseline)[..., None]
    possible = (s > 0) & (before > 0)
    ratio = jnp.where(possible, s, 1.0) / jnp.where(possible, before, 1.0)
    return jnp.where(possible, -jnp.log(ratio) / jnp.asarray(te_s), jnp.nan)


def t1_errors(
    theta: SpoiledEcho,
    signal: Float[Array | np.ndarray, "*voxels readouts"],
    baseline: slice,
    t1_sd_s: ArrayLike,
) -> Float[Array, "1 *voxels readouts"]:
    """What one standard deviation of T1 does to each concentration, as `fit_kinetics` takes it."""
    t1 = jnp.broadcast_to(jnp.asarray(theta.t1_s, float), jnp.shape(signal)[:-1])

    def curve(t1: Array) -> Array:
        return concentration_of_signal(theta._replace(t1_s=t1), signal, baseline)

    move = jnp.broadcast_to(jnp.asarray(t1_sd_s, t1.dtype), t1.shape)
    return jax.jvp(curve, (t1,), (move,))[1][None]


def baseline_mean(
    where: str, s: Float[Array, "*voxels readouts"], baseline: slice
) -> Float[Array, "*voxels"]:
    """The mean of the images before the bolus. Raises InputError where there are none, or the
    agent arrives within: where the mean curve of all voxels changes between the baseline's halves
    by a quarter of all it ever changes, and by more than its noise."""
    chosen = s[..., baseline]
    images = s.shape[-1]
    if not chosen.shape[-1]:
        found = f"no image in {baseline} of {images}"
        raise InputError(Problem(f"{where}: baseline", found, "images before the bolus"))
    if chosen.shape[-1] > 1 and not isinstance(s, Tracer):
        curve = np.nanmean(np.asarray(s, float).reshape(-1, images), axis=0)
        quiet = curve[baseline]
        half = len(quiet) // 2
        drift = abs(quiet[-half:].mean() - quiet[:half].mean())
        noise = float(np.median(np.abs(np.diff(curve))))
        if drift > max(STEEPEST * np.ptp(curve), 5 * noise):
            found = f"{drift / np.ptp(curve):.0%} of all change of signal within the baseline"
            cause = "a baseline that reaches into the bolus; end it earlier"
            raise InputError(Problem(f"{where}: baseline", found, "a level baseline", cause))
    return jnp.mean(chosen, axis=-1)


def _prepared(
    where: str, theta: SpoiledEcho, baseline: ArrayLike, voxels: tuple[int, ...]
) -> tuple[Array, ...]:
    """cos α, E_0, r1 and S_0 of every voxel, with an axis for readouts."""
    check_time_s(f"{where}: tr_s", theta.tr_s, low=1e-5, high=5.0)
    check_time_s(f"{where}: t1_s", theta.t1_s, low=1e-3)
    check_range(f"{where}: flip_rad", theta.flip_rad, 1e-3, np.pi, "rad", "degrees for radians")
    cause = "per mol, or in ms"
    r1 = theta.relaxivity_l_per_mmol_s
    check_range(f"{where}: relaxivity_l_per_mmol_s", r1, 0.1, 100.0, "l/mmol/s", cause)
    flip, t1, r1, s0 = (
        jnp.broadcast_to(jnp.asarray(value, float), voxels)[..., None]
        for value in (theta.flip_rad, theta.t1_s, r1, baseline)
    )
    return jnp.cos(flip), jnp.exp(-jnp.asarray(theta.tr_s) / t1), r1, s0
