"""Maps of kinetic parameters, each with its standard deviation, from concentrations."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float

from mrphys.errors import InputError, Problem
from mrphys.least_squares import solve
from mrphys.mapping import FAILED, ILL_DETERMINED, MASKED, Estimate, fit
from mrphys.perfusion.conversion import AMPLITUDES, RATES, compartments, exponentials
from mrphys.perfusion.series import DynamicSeries
from mrphys.perfusion.subspace import Subspace, subspace
from mrphys.perfusion.tracer_kinetics import Exponentials, Kinetics
from mrphys.simulate import over_voxels
from mrphys.voxelwise import with_fields

SLOWEST, FASTEST = 0.01, 5.0
"""Rates searched: from 1 % washed out over the series to five times as fast as images come."""
CHUNK = 1024


def fit_kinetics(
    theta: DynamicSeries,
    x: Float[Array | np.ndarray, "*voxels readouts"],
    model: type[Kinetics],
    noise_sd: ArrayLike | None = None,
    *,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    delay_s: tuple[float, float] | None = None,
    errors: Float[Array | np.ndarray, "modes *voxels readouts"] | None = None,
    arterial_sd: float = 0.0,
    arterial_scale_sd: float = 0.0,
    chunk: int = CHUNK,
) -> Estimate:
    """The parameters of a kinetic model that explain concentrations best.

    theta     the series with its arterial input
    x         concentrations, mmol/l, with noise of equal sd in all images
    model     Tofts, ExtendedTofts, Patlak, TwoCompartmentUptake or TwoCompartmentExchange
    noise_sd  of x: a number, a map, or None: each voxel's residual
    mask      True where to fit; voxels not finite are left out in any case (MASKED)
    delay_s   (earliest, latest) arrival after the input's, when it is to be found in each voxel
    errors    of x beyond noise: curves of one sd each, alike in all images of a voxel, such as what
              `t1_errors` gives for an uncertain T1
    arterial_sd, arterial_scale_sd  of the noise of the input's samples, mmol/l, and of a factor by
              which all of it may be wrong (relative)

    Least squares by `mrphys.fit`, in exponentials: amplitudes are solved for and may be negative,
    so that they are not biased where they are small; only rates are searched. Data are first
    projected on the space of all curves of the input (`mrphys.perfusion.subspace`), which loses
    nothing; where a delay is sought, the input is being traced, or images are few, they are not.
    The sds are Cramér-Rao's carried into the compartments, with the parts of `errors` and of the
    input added as the estimate follows them to first order:

        Σ = P (σ² 1 + Σ_m e_m e_mᵀ + F Σ_a Fᵀ) Pᵀ,   P = (JᵀJ)⁻¹ Jᵀ,  F = ∂x/∂c_a

    A parameter whose rate is not determined has sd infinity. Raises InputError for a model without
    a fit, shapes that do not match, concentrations in another unit than the input's, or negative
    almost everywhere, and as `mrphys.fit`.

    >>> import mrphys as mr
    >>> times_s = np.arange(0.0, 300.0, 2.0)
    >>> artery = mr.perfusion.arterial_input(times_s, mr.perfusion.parker_2006(times_s, 20.0))
    >>> theta = mr.perfusion.dynamic_series(times_s, artery)
    >>> q = mr.perfusion.ExtendedTofts(ktrans_per_s=[0.001, 0.004], ve=0.2, vp=0.05)
    >>> x = mr.perfusion.concentration(theta, q)
    >>> fit_kinetics(theta, x, mr.perfusion.ExtendedTofts, 0.01).value.ktrans_per_s.round(6)
    Array([0.001, 0.004], dtype=float64)
    """
    dtype = theta.arterial.plasma_mmol_per_l.dtype
    data = jnp.asarray(x, dtype)
    usable = _usable(theta, data, model, mask)
    names = AMPLITUDES[model] + RATES[model] + (("delay_s",) if delay_s else ())
    known = exponentials(model, 1.0, sum(delay_s) / 2 if delay_s else None)
    slowest, fastest = _rates(theta)
    bounds = {name: (slowest, fastest) for name in RATES[model]}
    bounds |= {"delay_s": delay_s} if delay_s else {}
    small = None
    traced = any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(theta))
    if not traced and not delay_s:
        small = subspace(theta, slowest, fastest)
        small = small if 2 * small.plasma.size <= data.shape[-1] else None
    wanted = {"known": known, "linear": AMPLITUDES[model], "bounds": bounds, "chunk": chunk}
    spare = data.shape[-1] - len(names)
    if small is None:
        found = fit(theta, data, names, noise_sd, mask=usable, **wanted)
        residual, noise = found.residual, found.noise_sd
    else:
        inside, outside = small.project(data)
        count = inside.shape[-1]
        noise = jnp.sqrt(outside / (data.shape[-1] - count)) if noise_sd is None else noise_sd
        smallest = float(jnp.finfo(jnp.float32).tiny)
        noise = jnp.where(usable, jnp.maximum(noise, smallest), 1.0)
        found = fit(small, inside, names, noise, mask=usable, **wanted)
        square = found.residual**2 * (count - len(names)) + outside
        residual = jnp.where(found.status < MASKED, jnp.sqrt(square / max(spare, 1)), 0.0)
        noise = residual if noise_sd is None else found.noise_sd
    ask = _Asked(model, names, arterial_sd, arterial_scale_sd)
    shape = data.shape[:-1]
    rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape).reshape(-1), found.value)
    modes = None if errors is None else jnp.moveaxis(jnp.asarray(errors, dtype), 0, -2)
    if modes is not None and small is not None:
        modes = small.project(modes)[0]
    if modes is not None:
        modes = modes.reshape(-1, *modes.shape[-2:])
    lost = [~jnp.isfinite(getattr(found.sd, name)).reshape(-1) for name in RATES[model]]
    given = _Optimum(
        rows,
        noise.reshape(-1),
        found.status.reshape(-1),
        jnp.stack(lost, -1) if lost else None,
        modes,
    )
    models = theta if small is None else small, theta
    values, sds, status = over_voxels(eqx.Partial(_described, ask), models, given, chunk)
    maps = [[part.reshape(shape) for part in parts] for parts in (values, sds)]
    return Estimate(
        value=model(*maps[0]),
        sd=model(*maps[1]),
        phase_rad={},
        residual=residual,
        noise_sd=noise,
        status=status.reshape(shape),
    )


class _Asked(NamedTuple):
    model: type[Kinetics]
    names: tuple[str, ...]
    arterial_sd: float
    arterial_scale_sd: float


class _Optimum(NamedTuple):
    """Of a row of voxels; `lost` tells which rates are not determined."""

    rows: Exponentials
    noise_sd: Float[Array, " voxels"]
    status: Array
    lost: Bool[Array, "voxels rates"] | None
    modes: Float[Array, "voxels modes numbers"] | None


def _rates(theta: DynamicSeries) -> tuple[float, float]:
    """Slowest and fastest that the series can tell."""
    if isinstance(theta.times_s, Tracer):
        found, cause = "times being traced", "a series made inside jit or grad"
        raise InputError(Problem("fit_kinetics: theta", found, "times as numbers", cause))
    times = np.asarray(theta.times_s, float)
    return float(SLOWEST / (times[-1] - times[0])), float(FASTEST / np.median(np.diff(times)))


def _described(
    ask: _Asked, models: tuple[DynamicSeries | Subspace, DynamicSeries], at: _Optimum
) -> tuple[list[Array], list[Array], Array]:
    """Values and standard deviations of compartments, and the status."""
    model, theta = models
    fine = at.status < ILL_DETERMINED
    there = (at.status < MASKED) & (at.status != FAILED)
    rows = jax.tree.map(lambda leaf: jnp.where(there, leaf, 1.0), at.rows)
    still = jax.tree.map(jnp.zeros_like, rows)
    one = jnp.ones_like(at.noise_sd)

    def fields(rows: Exponentials) -> tuple[Array, ...]:
        delay = () if rows.delay_s is None else (rows.delay_s,)
        return (*compartments(ask.model, rows), *delay)

    slopes, moves = [], []
    for name in ask.names:
        direction = with_fields(still, (name,), (one,))
        slopes.append(jax.jvp(model.signals, (rows,), (direction,))[1])
        moves.append(jax.jvp(fields, (rows,), (direction,))[1])
    slopes, moves = jax.lax.optimization_barrier((slopes, moves))
    values = fields(rows)
    count = len(ask.names)
    information = [
        [jnp.sum(slopes[i] * slopes[j], axis=-1) for j in range(i + 1)] for i in range(count)
    ]
    errors = [at.modes[:, m] for m in range(at.modes.shape[1])] if at.modes is not None else []
    if ask.arterial_scale_sd:
        errors.append(ask.arterial_scale_sd * model.signals(rows))
    seen = [[jnp.sum(slope * error, axis=-1) for slope in slopes] for error in errors]
    information, seen = jax.lax.optimization_barrier((information, seen))
    sds = []
    for m, value in enumerate(values):
        gradient = [move[m] for move in moves]
        weights = solve(information, gradient)
        variance = at.noise_sd**2 * _dot(gradient, weights)
        for part in seen:
            variance = variance + _dot(weights, part) ** 2
        if ask.arterial_sd:
            together = zip(weights, slopes, strict=True)
            follows = jnp.sum(jnp.stack([w[:, None] * slope for w, slope in together]), axis=0)
            sensed = _input_sensitivity(theta, model, rows, follows)
            variance = variance + ask.arterial_sd**2 * jnp.sum(sensed**2, axis=-1)
        hidden = ~jnp.isfinite(value + variance) | ~(variance >= 0)
        if at.lost is not None:
            rate_names = RATES[ask.model]
            for i, name in enumerate(rate_names):
                hidden |= at.lost[:, i] & (gradient[ask.names.index(name)] != 0)
        sds.append(jnp.where(hidden | ~there, jnp.inf, jnp.sqrt(jnp.where(hidden, 1.0, variance))))
    finite = jnp.stack([jnp.isfinite(value) for value in values]).all(axis=0)
    kept = [jnp.where(there & finite, value, 0.0) for value in values]
    told = jnp.stack([jnp.isfinite(sd) for sd in sds]).all(axis=0)
    status = jnp.where(fine & ~told, ILL_DETERMINED, at.status)
    return kept, sds, status


def _dot(left: list[Array], right: list[Array]) -> Array:
    total = left[0] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        total = total + a * b
    return total


def _input_sensitivity(
    theta: DynamicSeries,
    model: DynamicSeries | Subspace,
    rows: Exponentials,
    follows: Float[Array, "voxels numbers"],
) -> Float[Array, "voxels nodes"]:
    """∂(follows · x) / ∂(each sample of the input)."""
    if isinstance(model, Subspace):
        follows = follows @ model.basis.T

    def one(row: Exponentials, weights: Array) -> Array:
        def total(c: Array) -> Array:
            moved = eqx.tree_at(lambda t: t.arterial.plasma_mmol_per_l, theta, c)
            return jnp.sum(weights * moved.signals(row)[0])

        return jax.grad(total)(theta.arterial.plasma_mmol_per_l)

    return jax.vmap(one)(rows, follows)


def _usable(theta: DynamicSeries, data: Array, model: Any, mask: Any) -> Array:
    """The voxels to fit, after checks."""
    where = "fit_kinetics"
    if model not in AMPLITUDES:
        known = ", ".join(kind.__name__ for kind in AMPLITUDES)
        raise InputError(Problem(f"{where}: model", getattr(model, "__name__", repr(model)), known))
    if data.ndim < 1 or data.shape[-1] != theta.times_s.size:
        expected = f"a last axis of {theta.times_s.size} images"
        raise InputError(Problem(f"{where}: x", f"shape {data.shape}", expected, "time not last"))
    if mask is not None and mask.shape != data.shape[:-1]:
        expected = f"shape {data.shape[:-1]}"
        raise InputError(
            Problem(f"{where}: mask", f"shape {mask.shape}", expected, "another image")
        )
    usable, *told = _summary(data, None if mask is None else jnp.asarray(mask))
    if not isinstance(usable, Tracer):
        _check_concentrations(where, theta, *map(float, told))
    return usable


@jax.jit
def _summary(data: Array, mask: Array | None) -> tuple[Array, Array, Array, Array]:
    """Voxels to fit, how many, how many significantly negative on average, the largest value."""
    usable = jnp.isfinite(data).all(axis=-1)
    usable = usable if mask is None else usable & mask
    fine = jnp.where(usable[..., None], data, 0.0)
    mean = jnp.mean(fine, axis=-1)
    spread = jnp.sqrt(jnp.mean(jnp.diff(fine, axis=-1) ** 2, axis=-1) / 2 / data.shape[-1])
    negative = jnp.sum((mean < -3 * spread) & usable)
    return usable, jnp.sum(usable), negative, jnp.max(jnp.abs(fine))


def _check_concentrations(
    where: str, theta: DynamicSeries, voxels: float, negative: float, largest: float
) -> None:
    if not voxels:
        raise InputError(Problem(f"{where}: x", "no voxel to fit", "finite voxels in the mask"))
    if negative > 0.9 * voxels:
        found = f"{int(negative)} of {int(voxels)} voxels negative on average"
        cause = "a baseline taken after the bolus, signals in place of concentrations, or a sign"
        raise InputError(Problem(f"{where}: x", found, "concentrations of 0 or more", cause))
    if isinstance(theta.arterial.plasma_mmol_per_l, Tracer):
        return
    peak = float(jnp.max(theta.arterial.plasma_mmol_per_l))
    if not 3e-4 * peak <= largest <= 30 * peak:
        found = f"a largest of {largest:g} mmol/l, the input's being {peak:g} mmol/l"
        cause = "mol/l given for mmol/l" if largest < peak else "µmol/l, or signals, for mmol/l"
        raise InputError(Problem(f"{where}: x", found, "tissue and artery in one unit", cause))
