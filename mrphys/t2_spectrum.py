"""q from x: how much of a voxel decays at each T2, and the share of water that decays fast."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Int

from mrphys.errors import InputError, Problem
from mrphys.noise import magnitude
from mrphys.nonnegative import Nonnegative, nonnegative
from mrphys.sequence.base import Sequence
from mrphys.simulate import over_voxels, simulate
from mrphys.tissue import Tissue
from mrphys.units import Values, check_range, check_time_s
from mrphys.voxelwise import CONVERGED, FAILED, ILL_DETERMINED, MASKED
from mrphys.water_pools import LEAST_NOISE, nodes_s, series, share

T2_S = tuple(np.geomspace(0.01, 2.0, 40))
SHORT_S = 0.04
LONG_S = 0.2
CHI2 = 1.02
B1_STEP = 0.02
"""Between the trains that are simulated; between them signals are interpolated."""
HALVINGS = 8
CHUNK = 128
LEAST_WEIGHT = {4: 1e-3, 8: 1e-6}
"""Bytes of a number: µ of a fit that is not regularised, of the basis' size: as far as its digits
go."""
LEAST_POINTS = 16
"""Of the posterior's, below which it has not been found."""
KNOWN_BEFORE = 0.23
"""The share's sd that is little below that of no data, 0.24."""


class T2Spectrum(eqx.Module):
    """Spectra and how far to trust them.

    t2_s        T2 of each part;  spectrum (..., t2), its sum the signal's amplitude
    fast, fast_sd  mean and sd of the share of T2 below `short_s`, the myelin water fraction of
                white matter, given the data: of three pools (`mrphys.water_pools`), not of the
                spectrum, which regularisation draws together and whose share is its sum there
    mean_t2_s   geometric mean of the spectrum above `short_s`; 0 where there is none
    weight      µ of the regularisation, relative to the basis' greatest singular value
    residual    sd of what is left over, in the signal's units, for the readouts that a fit without
                regularisation has to spare: near noise_sd where the model holds
    noise_sd    as given, or the residual where it was not
    status      CONVERGED; ILL_DETERMINED: the data say next to nothing of the share, or its
                posterior was not found; MASKED; FAILED: no signal, not finite, or a search that did
                not end
    """

    t2_s: Float[Array, " t2"]
    spectrum: Float[Array, "*voxels t2"]
    fast: Float[Array, "*voxels"]
    fast_sd: Float[Array, "*voxels"]
    mean_t2_s: Float[Array, "*voxels"]
    weight: Float[Array, "*voxels"]
    residual: Float[Array, "*voxels"]
    noise_sd: Float[Array, "*voxels"]
    status: Int[Array, "*voxels"]


class _Table(eqx.Module):
    """Signals of each T2 at each B1, in units of their greatest singular value; and as series."""

    signals: Float[Array, "b1 readouts t2"]
    pools: Float[Array, "b1 readouts terms"]
    low: Float[Array, ""]
    step: Float[Array, ""]
    t2_s: Float[Array, " t2"]
    long: Bool[Array, " t2"]
    gain: Float[Array, " readouts"]
    size: Float[Array, ""]
    chi2: Float[Array, ""]


def fit_t2_spectrum(
    theta: Sequence,
    x: Inexact[Array, "*voxels readouts"],
    noise_sd: ArrayLike | None = None,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    *,
    b1: ArrayLike = 1.0,
    t1_s: float = 1.0,
    t2_s: Values = T2_S,
    short_s: float = SHORT_S,
    long_s: float = LONG_S,
    chi2: float = CHI2,
) -> T2Spectrum:
    """The spectrum s >= 0 of every voxel, from the magnitudes |x| of a train of echoes.

        argmin |K s - x|² + µ² |s|²,   K_ij the signal of T2_j,   µ: |K s - x|² = χ² |K s_0 - x|²

    with s_0 that of no regularisation. K is simulated: of `theta` any sequence, so that stimulated
    echoes at b1 below 1 are counted (a number or a map, such as `mrphys.fit` finds of T2 and B1).
    Each voxel's s is found by an active set (`mrphys.nonnegative`). For s, magnitudes are taken as
    Gaussian: valid while the last echoes are above their noise, or baseline collects at the longest
    T2; in float32 for an SNR up to about 300, the least µ being that of its digits.

    The share that decays fast is told by its posterior, Rice's distribution counted: of a pool
    below `short_s`, one up to `long_s` and one above, every T2 within these and the ends of `t2_s`
    as probable on a logarithmic scale. Over voxels such as that its sd is the error's; where shares
    and T2 are known to vary less, it is too careful. Noise below a thousandth of the greatest echo
    is taken as that.

    Differentiable in x and noise_sd, µ and the active set not moving. Raises InputError for shapes
    that do not match, T2 that do not rise from below `short_s` to above `long_s`, b1 out of range,
    χ² below 1.

    Whittall, MacKay 1989, doi:10.1016/0022-2364(89)90011-5; Prasloski et al. 2012,
    doi:10.1002/mrm.23157 (stimulated echoes).
    """
    shape = x.shape[:-1]
    _check(theta, x, noise_sd, mask, b1, t2_s, (short_s, long_s), chi2)
    size = magnitude(x)
    table = _table(theta, np.asarray(b1), t1_s, np.asarray(t2_s, float), (short_s, long_s), chi2)
    table = jax.tree.map(lambda v: v.astype(size.dtype) if eqx.is_inexact_array(v) else v, table)
    inside = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask)
    field = jnp.broadcast_to(jnp.asarray(b1, size.dtype), shape)
    noise = None if noise_sd is None else jnp.broadcast_to(jnp.asarray(noise_sd), shape).ravel()
    rows = size.reshape(-1, x.shape[-1]), field.ravel(), noise, inside.ravel()
    found = over_voxels(_spectra, table, rows, CHUNK)
    maps = [value.reshape(*shape, *value.shape[1:]) for value in found]
    return T2Spectrum(table.t2_s, *maps)


def _table(
    theta: Sequence,
    b1: np.ndarray,
    t1_s: float,
    t2_s: np.ndarray,
    edges_s: tuple[float, float],
    chi2: float,
) -> _Table:
    low = float(b1.min())
    count = int(np.ceil((float(b1.max()) - low) / B1_STEP)) + 1
    fields = low + B1_STEP * np.arange(count)
    pools_s = nodes_s((t2_s[0], *edges_s, t2_s[-1]))
    t2, field = np.meshgrid(np.concatenate([t2_s, pools_s.ravel()]), fields)
    # T2 above T1 is no tissue's; T1 hardly matters to a train.
    q = Tissue(t1_s=np.maximum(t1_s, t2), t2_s=t2, b1=field)
    gain = jnp.sqrt(theta.averages)
    signals = jnp.abs(simulate(theta, q)) * gain[None, None]
    pools = series(signals[:, t2_s.size :].reshape(count, *pools_s.shape, -1))
    signals = jnp.moveaxis(signals[:, : t2_s.size], 1, 2)
    size = jnp.max(jnp.linalg.svd(signals, compute_uv=False))
    low_b1, step, times, rise = (jnp.asarray(v, float) for v in (low, B1_STEP, t2_s, chi2))
    long = jnp.asarray(t2_s >= edges_s[0])
    return _Table(signals / size, pools, low_b1, step, times, long, gain, size, rise)


def _spectra(table: _Table, rows: tuple) -> tuple[Array, ...]:
    x, b1, noise, inside = rows
    usable = jnp.isfinite(x).all(axis=1) & (x > 0).any(axis=1) & inside & jnp.isfinite(b1)
    x = (jnp.where(usable[:, None], x, 1.0) * table.gain[None]).T
    unit = jax.lax.stop_gradient(jnp.max(x, axis=0))
    x = x / unit[None]
    basis, pools = (_between(table, signals, b1) for signals in (table.signals, table.pools))
    square = jnp.sum(basis[:, :, None] * basis[:, None], axis=0)
    right = jnp.sum(basis * x[:, None], axis=0)
    eye = jnp.eye(square.shape[0], dtype=x.dtype)[:, :, None]

    still = jax.lax.stop_gradient((basis, square, right, x))

    def fitted(weight: Array) -> tuple[Nonnegative, Array]:
        basis, square, right, x = still
        found = nonnegative(square + eye * (weight**2)[None, None], right)
        return found, _left(basis, found.at, x)

    least = jnp.full_like(b1, LEAST_WEIGHT[x.dtype.itemsize])
    plain, chi2 = fitted(least)
    wanted = table.chi2 * chi2

    def halve(_: Array, between: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = between
        middle = jnp.sqrt(low * high)
        above = fitted(middle)[1] > wanted
        return jnp.where(above, low, middle), jnp.where(above, middle, high)

    weight, _ = jax.lax.fori_loop(0, HALVINGS, halve, (least, jnp.ones_like(least)))
    found, _ = fitted(weight)
    matrix = square + eye * (weight**2)[None, None]
    # One Newton step from the optimum stays there, and carries its derivative.
    slope = right - jnp.sum(matrix * found.at[None], axis=1)
    s = found.at + jnp.sum(found.inverse * slope[None], axis=1)
    free = jnp.maximum(x.shape[0] - jnp.sum(plain.passive, axis=0), 1).astype(x.dtype)
    left = _left(basis, s, x)
    residual = jnp.where(left > 0, jnp.sqrt(jnp.where(left > 0, left, 1.0) / free), 0.0) * unit
    noise = residual if noise is None else noise
    there = usable & found.solved & plain.solved & (jnp.sum(s, axis=0) > 0)
    sure = jnp.maximum(noise / unit, LEAST_NOISE)
    found_share = jax.vmap(share, in_axes=(-1, -1, -1))(pools, x, sure)
    fast, sd = found_share.mean, found_share.sd
    slow = jnp.where(table.long[:, None], s, 0.0)
    amount = jnp.sum(slow, axis=0)
    log_t2 = jnp.sum(slow * jnp.log(table.t2_s)[:, None], axis=0)
    mean = jnp.where(amount > 0, jnp.exp(log_t2 / jnp.where(amount > 0, amount, 1.0)), 0.0)
    told = (found_share.points > LEAST_POINTS) & (sd < KNOWN_BEFORE)
    status = jnp.where(told, CONVERGED, ILL_DETERMINED)
    status = jnp.where(there, status, jnp.where(inside, FAILED, MASKED))

    def shown(value: Array) -> Array:
        return jnp.where(there, value, 0.0)

    return (
        jnp.where(there[:, None], (s * (unit / table.size)[None]).T, 0.0),
        shown(fast),
        jnp.where(status == CONVERGED, sd, jnp.inf),
        shown(mean),
        shown(weight),
        shown(residual),
        shown(noise),
        status,
    )


def _between(
    table: _Table, signals: Float[Array, "b1 readouts n"], b1: Array
) -> Float[Array, "readouts n voxels"]:
    at = (b1 - table.low) / table.step
    last = signals.shape[0] - 1
    at = jnp.clip(jnp.where(jnp.isfinite(at), at, 0.0), 0.0, last)
    low = jnp.minimum(at.astype(int), max(last - 1, 0))
    share = at - low.astype(at.dtype)
    pair = [jnp.moveaxis(signals[i], 0, -1) for i in (low, jnp.minimum(low + 1, last))]
    return pair[0] + share[None, None] * (pair[1] - pair[0])


def _left(basis: Array, s: Array, x: Array) -> Array:
    return jnp.sum((jnp.sum(basis * s[None], axis=1) - x) ** 2, axis=0)


def _check(theta, x, noise_sd, mask, b1, t2_s, edges_s, chi2) -> None:
    where, shape, problems = "fit_t2_spectrum", x.shape[:-1], []
    readouts = theta.averages.size
    if x.shape[-1:] != (readouts,):
        expected = f"a last axis of {readouts} readouts"
        problems.append(Problem(f"{where}: x", f"shape {x.shape}", expected, "echoes not last"))
    for name, value in (("mask", mask), ("noise_sd", noise_sd), ("b1", b1)):
        found = shape if value is None else jnp.shape(value)
        if found != shape and (name == "mask" or found):
            problems.append(
                Problem(f"{where}: {name}", f"shape {found}", f"shape {shape}", "another image")
            )
    if isinstance(b1, Tracer):
        problems.append(Problem(f"{where}: b1", "a value being traced", "numbers"))
    if problems:
        raise InputError(*problems)
    check_range(f"{where}: b1", b1, 0.1, 2.0, "of nominal", "per cent given for a ratio")
    check_time_s(f"{where}: t2_s", t2_s, low=1e-3)
    for name, edge in zip(("short_s", "long_s"), edges_s, strict=True):
        check_time_s(f"{where}: {name}", edge, low=1e-3)
    check_range(f"{where}: chi2", chi2, 1.0001, 10.0, "of the least", "the rise given alone")
    t2 = np.asarray(t2_s)
    if t2.ndim != 1 or t2.size < 2 or np.any(np.diff(t2) <= 0):
        raise InputError(Problem(f"{where}: t2_s", f"{t2}", "two or more, each above the last"))
    ends = (float(t2[0]), *edges_s, float(t2[-1]))
    if np.any(np.diff(ends) <= 0):
        expected = "a first T2 below short_s below long_s below the last"
        raise InputError(Problem(f"{where}: t2_s, short_s, long_s", f"{ends} s", expected))
    if noise_sd is not None:
        least = float(jnp.finfo(jnp.float32).tiny)
        check_range(f"{where}: noise_sd", noise_sd, least, float("inf"), "(signal units)")
