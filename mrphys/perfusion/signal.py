"""Between signal and concentration: T1-weighted gradient echoes, and decay by T2*."""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from mrphys.units import Values, check_range, check_time_s

STEEPEST = 0.25
"""Share of the whole change of signal that may happen within the baseline."""


class SpoiledEcho(NamedTuple):
    """How a spoiled gradient echo sees an agent: numbers, or maps for all but TR.

    flip_rad                 as played, B1 included
    tr_s
    t1_s                     before the agent
    relaxivity_l_per_mmol_s  r1: R1 = 1 / T1 + r1 C. 3.3 to 4.5 at 1.5 and 3 T
    """

    flip_rad: Values
    tr_s: Values
    t1_s: Values
    relaxivity_l_per_mmol_s: Values = 4.5


def signal_of_concentration(
    theta: SpoiledEcho,
    c: Float[Array, "*voxels readouts"],
    baseline_signal: Values = 1.0,
) -> Float[Array, "*voxels readouts"]:
    """S(C) = S_0 g(R1) / g(1 / T1),  g(R1) = (1 - E) / (1 - E cos α),  E = exp(-TR R1).

    The steady state of each image (Ernst, Anderson 1966, doi:10.1063/1.1719961); T2* of the agent
    is neglected. S_0 is the signal without agent. Raises InputError as `concentration_of_signal`.
    """
    voxels = c.shape[:-1]
    _check("signal_of_concentration", theta)
    cosine, e0, r1, scale = _prepared(theta, baseline_signal, voxels)
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
    s = _real(signal)
    before = baseline_mean(where, s, baseline)
    _check(where, theta)
    return _inverted(theta, s, before)


@jax.jit
def _inverted(
    theta: SpoiledEcho, s: Float[Array, "*voxels readouts"], before: Float[Array, "*voxels"]
) -> Float[Array, "*voxels readouts"]:
    cosine, e0, r1, s0 = _prepared(theta, before, s.shape[:-1])
    m = s * (1 - e0) / (jnp.where(s0 > 0, s0, 1.0) * (1 - e0 * cosine))
    possible = (s0 > 0) & (m < 1)
    m = jnp.where(possible, m, 0.0)
    ratio = (1 - m) / ((1 - m * cosine) * e0)
    return jnp.where(possible, -jnp.log(ratio) / (jnp.asarray(theta.tr_s) * r1), jnp.nan)


def relaxation_change_per_s(
    signal: Float[Array | np.ndarray, "*voxels readouts"], te_s: Values, baseline: slice
) -> Float[Array, "*voxels readouts"]:
    """ΔR2* = -log(S / S_0) / TE, in proportion to the concentration of an agent in vessels; S_0 the
    mean of the images `baseline`. NaN where a signal is not above 0.

    Rosen et al. 1990, doi:10.1002/mrm.1910140211. Raises InputError for TE in ms, and a baseline
    that is empty or inside the bolus.
    """
    where = "relaxation_change_per_s"
    check_time_s(f"{where}: te_s", te_s, low=1e-5, high=0.5)
    s = _real(signal)
    before = baseline_mean(where, s, baseline)[..., None]
    possible = (s > 0) & (before > 0)
    ratio = jnp.where(possible, s, 1.0) / jnp.where(possible, before, 1.0)
    return jnp.where(possible, -jnp.log(ratio) / jnp.asarray(te_s), jnp.nan)


class ConcentrationErrors(eqx.Module):
    """How concentrations made from signals err, to first order.

    modes  by one standard deviation of what is alike in all images of a voxel: T1, and B1
    gain   ∂C_i / ∂S_i of each image, of which the root mean square is `scale`, divided by it
    shift  ∂C_i / ∂S_0, divided by `scale`
    share  of each image in S_0
    scale  mmol/l a unit of signal: noise of sd σ in the signals has an rms sd of scale · σ
    """

    modes: Float[Array, "modes *voxels readouts"]
    gain: Float[Array, "*voxels readouts"]
    shift: Float[Array, "*voxels readouts"]
    share: Float[Array, " readouts"]
    scale: Float[Array, "*voxels"]


def concentration_errors(
    theta: SpoiledEcho,
    signal: Float[Array | np.ndarray, "*voxels readouts"],
    baseline: slice,
    t1_sd_s: Values,
    b1_sd: Values = 0.0,
    t1_per_b1_s: Values = 0.0,
) -> ConcentrationErrors:
    """What makes the concentrations of `concentration_of_signal` uncertain, as `fit_kinetics` takes
    it: the noise of signals, of the baseline among them; T1; and B1, relative to what was played.

    t1_sd_s      of T1, B1 apart
    t1_per_b1_s  by how much T1 changes with B1 (relative), when it was found with the same B1: by
                 variable flip angles about -2 T1
    """
    s = _real(signal)
    share = jnp.zeros(s.shape[-1], s.dtype).at[baseline].set(1.0)
    voxels = s.shape[:-1]

    def rows(value: Values) -> Array:
        return jnp.broadcast_to(jnp.asarray(value, s.dtype), voxels)

    here = theta._replace(t1_s=rows(theta.t1_s), flip_rad=rows(theta.flip_rad))
    return _errors(here, s, share / jnp.sum(share), rows(t1_sd_s), rows(b1_sd), rows(t1_per_b1_s))


@jax.jit
def _errors(
    theta: SpoiledEcho, s: Array, share: Array, t1_sd_s: Array, b1_sd: Array, t1_per_b1_s: Array
) -> ConcentrationErrors:
    def curve(t1: Array, flip: Array, s: Array, before: Array) -> Array:
        return _inverted(theta._replace(t1_s=t1, flip_rad=flip), s, before)

    t1, flip, before = jnp.asarray(theta.t1_s), jnp.asarray(theta.flip_rad), s @ share

    def along(*moves: Array) -> Array:
        return jax.jvp(curve, (t1, flip, s, before), moves)[1]

    still, flat = jnp.zeros_like(t1), jnp.zeros_like(s)
    modes = [
        along(t1_sd_s, still, flat, still),
        along(b1_sd * t1_per_b1_s, b1_sd * flip, flat, still),
    ]
    gain = along(still, still, jnp.ones_like(s), still)
    shift = along(still, still, flat, jnp.ones_like(t1))
    scale = jnp.sqrt(jnp.mean(gain**2, axis=-1))
    return ConcentrationErrors(
        jnp.stack(modes), gain / scale[..., None], shift / scale[..., None], share, scale
    )


def baseline_mean(
    where: str, s: Float[Array, "*voxels readouts"], baseline: slice
) -> Float[Array, "*voxels"]:
    """The mean of the images before the bolus. Raises InputError where there are none, or the
    agent arrives within: where the mean curve of all voxels leaves the baseline's median by a
    quarter of all it ever changes, and by more than its noise."""
    if not isinstance(baseline, slice):
        expected = "a slice of the images, such as slice(0, 5) for the first five"
        raise InputError(Problem(f"{where}: baseline", repr(baseline), expected))
    chosen = s[..., baseline]
    images = s.shape[-1]
    if not chosen.shape[-1]:
        found = f"no image in {baseline} of {images}"
        raise InputError(Problem(f"{where}: baseline", found, "images before the bolus"))
    if chosen.shape[-1] > 1 and not isinstance(s, Tracer):
        rows = np.asarray(s, float).reshape(-1, images)
        rows = rows[np.isfinite(rows).all(axis=1)]
        if not len(rows):
            found = f"no voxel of {s.size // images} finite in all images"
            raise InputError(Problem(f"{where}: signal", found, "finite signals"))
        curve = rows.mean(axis=0)
        quiet = curve[baseline]
        left = float(np.max(np.abs(quiet - np.median(quiet))))
        noise = float(np.median(np.abs(np.diff(curve))))
        if left > max(STEEPEST * np.ptp(curve), 5 * noise):
            found = f"{left / np.ptp(curve):.0%} of all change of signal within the baseline"
            cause = "a baseline that reaches into the bolus, or images before the steady state"
            raise InputError(Problem(f"{where}: baseline", found, "a level baseline", cause))
    return jnp.mean(chosen, axis=-1)


def _check(where: str, theta: SpoiledEcho) -> None:
    check_time_s(f"{where}: tr_s", theta.tr_s, low=1e-5, high=5.0)
    check_time_s(f"{where}: t1_s", theta.t1_s, low=1e-3)
    check_range(f"{where}: flip_rad", theta.flip_rad, 1e-3, np.pi, "rad", "degrees for radians")
    r1, cause = theta.relaxivity_l_per_mmol_s, "per mol, or in ms"
    check_range(f"{where}: relaxivity_l_per_mmol_s", r1, 0.1, 100.0, "l/mmol/s", cause)


def _prepared(theta: SpoiledEcho, baseline: Values, voxels: tuple[int, ...]) -> tuple[Array, ...]:
    """cos α, E_0, r1 and S_0 of every voxel, with an axis for readouts."""
    flip, t1, r1, s0 = (
        jnp.broadcast_to(jnp.asarray(value, float), voxels)[..., None]
        for value in (theta.flip_rad, theta.t1_s, theta.relaxivity_l_per_mmol_s, baseline)
    )
    return jnp.cos(flip), jnp.exp(-jnp.asarray(theta.tr_s) / t1), r1, s0


def _real(signal: Values) -> Float[Array, "..."]:
    s = jnp.asarray(signal)
    return s if jnp.issubdtype(s.dtype, jnp.floating) else s.astype(float)
