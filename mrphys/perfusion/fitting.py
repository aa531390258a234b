"""Maps of kinetic parameters, each with its standard deviation, from concentrations."""

from dataclasses import fields
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float
from scipy.interpolate import PchipInterpolator

from mrphys.errors import InputError, Problem
from mrphys.mapping import AT_BOUNDARY, MASKED, Estimate, fit
from mrphys.perfusion.arterial_input import ArterialInput
from mrphys.perfusion.conversion import AMPLITUDES, RATES, exponentials
from mrphys.perfusion.propagation import Asked, Known, Optimum, described
from mrphys.perfusion.series import DynamicSeries
from mrphys.perfusion.signal import ConcentrationErrors
from mrphys.perfusion.subspace import Subspace, subspace
from mrphys.perfusion.tracer_kinetics import Kinetics
from mrphys.simulate import over_voxels

SLOWEST, FASTEST = 0.01, 5.0
"""Rates searched: from 1 % washed out over the series to five times as fast as images come, and on
to whole decades, so that series of many kinds are fitted by one compiled program."""
PHYSICAL = {
    "ktrans_per_s": (1e-7, 1.0),
    "ps_per_s": (1e-7, 1.0),
    "fp_per_s": (1e-7, 1.0),
    "ve": (1e-4, 1.0),
    "vp": (1e-4, 1.0),
}
"""Where compartments may lie, unless told otherwise, once a fit is bounded."""
DELAY_STEP_S, DELAYS = 2.0, 24
"""Between delays from which a search begins, and how many at most."""
SMOOTH = 4.3
"""Nodes of a smooth input for each image."""
CHUNK = 1024
ITERATIONS = 200
"""Two exponentials of nearly one rate are told apart slowly."""


def fit_kinetics(
    theta: DynamicSeries,
    x: Float[Array | np.ndarray, "*voxels readouts"],
    model: type[Kinetics],
    noise_sd: ArrayLike | None = None,
    *,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    bounds: dict[str, tuple[float, float]] | None = None,
    delay_s: tuple[float, float] | None = None,
    errors: ConcentrationErrors | None = None,
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
    bounds    (low, high) of the model's fields, by name; of those not named, `PHYSICAL`. Unless
              given, nothing is bounded and noise may make a volume negative, or above 1
    delay_s   (earliest, latest) arrival after the input's, when it is to be found in each voxel
    errors    of concentrations made from signals (`concentration_errors`): T1, B1, the baseline
    arterial_sd, arterial_scale_sd  of the noise of the input's samples, mmol/l, and of a factor by
              which all of it may be wrong (relative)

    Least squares by `mrphys.fit`, in exponentials: amplitudes are solved for and may be negative,
    so that they are not biased where they are small; only rates are searched. Data are first
    projected on the space of all curves of the input (`mrphys.perfusion.subspace`), which loses
    nothing; where the input is being traced, or images are few, they are not. A delay is sought
    from the best of several. Voxels that end outside the bounds are searched again within, in the
    model's own fields. The sds are Cramér-Rao's carried into the compartments, with the parts of
    `errors` and of the input added as the estimate follows them to first order
    (`mrphys.perfusion.propagation`). A parameter whose rate is not determined has sd infinity.

    Raises InputError for a model without a fit, shapes that do not match, concentrations in another
    unit than the input's, or negative almost everywhere, and as `mrphys.fit`.

    >>> import mrphys as mr
    >>> times_s = np.arange(0.0, 300.0, 2.0)
    >>> artery = mr.perfusion.arterial_input(times_s, mr.perfusion.parker_2006(times_s, 20.0))
    >>> theta = mr.perfusion.dynamic_series(times_s, artery)
    >>> q = mr.perfusion.ExtendedTofts(ktrans_per_s=[0.001, 0.004], ve=0.2, vp=0.05)
    >>> x = mr.perfusion.concentration(theta, q)
    >>> fit_kinetics(theta, x, mr.perfusion.ExtendedTofts, 0.01).value.ktrans_per_s.round(6)
    Array([0.001, 0.004], dtype=float64)
    """
    data = jnp.asarray(x, theta.arterial.plasma_mmol_per_l.dtype)
    usable = _usable(theta, data, model, mask)
    smooth = _smooth(theta) if delay_s else theta
    ask = _Question(model, noise_sd, delay_s, arterial_sd, arterial_scale_sd, chunk)
    found = _at_delays(ask, smooth, data, usable) if delay_s else _at_once(ask, theta, data, usable)
    names = AMPLITUDES[model] + RATES[model] + (("delay_s",) if delay_s else ())
    free = _compartments(ask, names, theta, found, errors)
    if bounds is None:
        return free
    limits = _limits(ask, bounds)
    outside = jnp.zeros(data.shape[:-1], bool)
    for name, (low, high) in limits.items():
        value = getattr(free.value, name)
        outside |= (value < low) | (value > high)
    outside &= free.status < MASKED
    if not isinstance(outside, Tracer) and not outside.any():
        return free
    start = model(**{name: jnp.clip(getattr(free.value, name), *limits[name]) for name in limits})
    known = model(**dict.fromkeys(limits, 1.0))
    inside = fit(
        smooth, data, tuple(limits), noise_sd, known=known, linear=(), bounds=limits,
        mask=outside, start=start, chunk=chunk, iterations=ITERATIONS,
    )  # fmt: skip
    bounded = _compartments(
        ask, tuple(limits), theta, _Found(inside, inside.residual, inside.noise_sd, smooth), errors
    )
    return jax.tree.map(lambda new, old: jnp.where(outside, new, old), bounded, free)


class _Question(NamedTuple):
    model: type[Kinetics]
    noise_sd: ArrayLike | None
    delay_s: tuple[float, float] | None
    arterial_sd: float
    arterial_scale_sd: float
    chunk: int


class _Found(NamedTuple):
    """In exponentials or compartments; `seen` is the series, or the space of its curves, in which
    it was found."""

    estimate: Estimate
    residual: Float[Array, "*voxels"]
    noise_sd: Float[Array, "*voxels"]
    seen: DynamicSeries | Subspace


def _at_once(
    ask: _Question, theta: DynamicSeries, data: Array, usable: Array, numbers: int | None = None
) -> _Found:
    """The exponentials that fit best, without a delay."""
    slowest, fastest = _rates(theta)
    amplitudes, rates = AMPLITUDES[ask.model], RATES[ask.model]
    wanted: Any = {
        "known": exponentials(ask.model, 1.0, None),
        "linear": amplitudes,
        "bounds": {name: (slowest, fastest) for name in rates},
        "chunk": ask.chunk,
        "iterations": ITERATIONS,
        "mask": usable,
    }
    images, names, noise = data.shape[-1], amplitudes + rates, ask.noise_sd
    small = None
    if not any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(theta)):
        small = subspace(theta, slowest, fastest, numbers)
        small = small if 2 * small.plasma.size <= images else None
    if small is None:
        found = fit(theta, data, names, noise, **wanted)
        return _Found(found, found.residual, found.noise_sd, theta)
    inside, left = small.project(data)
    count = inside.shape[-1]
    noise = jnp.sqrt(left / (images - count)) if noise is None else jnp.asarray(noise, data.dtype)
    smallest = float(jnp.finfo(jnp.float32).tiny)
    noise = jnp.where(usable, jnp.maximum(noise, smallest), 1.0)
    found = fit(small, inside, names, noise, **wanted)
    square = found.residual**2 * (count - len(names)) + left
    spare = max(images - len(names), 1)
    residual = jnp.where(found.status < MASKED, jnp.sqrt(square / spare), 0.0)
    return _Found(found, residual, residual if ask.noise_sd is None else found.noise_sd, small)


def _at_delays(ask: _Question, theta: DynamicSeries, data: Array, usable: Array) -> _Found:
    """And with the delay that fits best, from the best of several that are tried first; and from
    the best that leaves no amplitude negative, where that is another: an input too early, with
    some of it taken away again, is a minimum too."""
    (low, high), model = ask.delay_s or (0.0, 0.0), ask.model
    between_s = max(DELAY_STEP_S, (high - low) / DELAYS)
    tried_s = np.arange(low + between_s / 2, high, between_s) if high - low > between_s else [low]
    numbers, lowest, start, lowest_above, above = None, jnp.inf, None, jnp.inf, None
    for late_s in tried_s:
        nodes = theta.arterial.times_s + late_s
        moved = eqx.tree_at(lambda t: t.arterial.times_s, theta, nodes)
        moved = DynamicSeries(moved.times_s, moved.arterial, aligned=False)
        found = _at_once(ask, moved, data, usable, numbers)
        numbers = found.seen.plasma.size if isinstance(found.seen, Subspace) else None
        cost = jnp.where(found.estimate.status < MASKED, found.residual, jnp.inf)
        here = found.estimate.value
        here = eqx.tree_at(
            lambda q: q.delay_s, here, jnp.asarray(late_s, cost.dtype), is_leaf=_is_none
        )
        start = here if start is None else start
        better = cost < lowest
        start = jax.tree.map(partial(jnp.where, better), here, start)
        lowest = jnp.where(better, cost, lowest)
        negative = sum(getattr(here, name) < 0 for name in AMPLITUDES[model])
        cost_above = jnp.where(negative > 0, jnp.inf, cost)
        better = cost_above < lowest_above
        above = here if above is None else jax.tree.map(partial(jnp.where, better), here, above)
        lowest_above = jnp.where(better, cost_above, lowest_above)
    slowest, fastest = _rates(theta)
    wanted: Any = {
        "free": AMPLITUDES[model] + RATES[model] + ("delay_s",),
        "known": exponentials(model, 1.0, 0.0),
        "linear": AMPLITUDES[model],
        "bounds": {name: (slowest, fastest) for name in RATES[model]} | {"delay_s": (low, high)},
        "chunk": ask.chunk,
        "iterations": ITERATIONS,
    }
    found = fit(theta, data, noise_sd=ask.noise_sd, mask=usable, start=start, **wanted)
    other = usable & jnp.isfinite(lowest_above) & (lowest_above > lowest)
    if isinstance(other, Tracer) or other.any():
        second = fit(theta, data, noise_sd=ask.noise_sd, mask=other, start=above, **wanted)
        lost = (found.status >= MASKED) | (second.residual < found.residual)
        better = other & (second.status < MASKED) & lost
        found = jax.tree.map(partial(jnp.where, better), second, found)
    return _Found(found, found.residual, found.noise_sd, theta)


def _smooth(theta: DynamicSeries) -> DynamicSeries:
    """The series with an input that has no corners, where it is seen no more often than the tissue.

    Between its samples the input is linear; where all images meet corners at one delay the cost has
    one too, and estimates stay in it. So cubic pieces that do not overshoot (Fritsch, Butland 1984,
    doi:10.1137/0905021) are put through the samples, and read the closer the more they bend.
    """
    nodes = theta.arterial.times_s
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(theta)):
        return theta
    times_s, plasma = (np.asarray(v, float) for v in (nodes, theta.arterial.plasma_mmol_per_l))
    step_s = float(np.median(np.diff(np.asarray(theta.times_s, float)))) / SMOOTH
    if np.median(np.diff(times_s)) <= step_s:
        return theta
    curve = PchipInterpolator(times_s, plasma)
    count = int(np.ceil((times_s[-1] - times_s[0]) / step_s)) + 1
    dense_s = np.linspace(times_s[0], times_s[-1], 20 * count)
    bend = np.abs(curve(dense_s, 2))
    crowd = np.cumsum(1 + bend / bend.mean())
    fine_s = np.interp(np.linspace(crowd[0], crowd[-1], count), crowd, dense_s)
    fine = [jnp.asarray(v, nodes.dtype) for v in (fine_s, curve(fine_s))]
    return DynamicSeries(theta.times_s, ArterialInput(*fine), aligned=False)


def _is_none(leaf: Any) -> bool:
    return leaf is None


def _compartments(
    ask: _Question,
    names: tuple[str, ...],
    theta: DynamicSeries,
    found: _Found,
    errors: ConcentrationErrors | None,
) -> Estimate:
    """The model's fields of what was found in `names`, with their sds."""
    estimate, residual, noise_sd, seen = found
    shape = residual.shape

    def rows(value: Array) -> Array:
        return jnp.broadcast_to(value, shape).reshape(-1)

    modes = gain = shift = share = None
    if errors is not None:
        along = jnp.moveaxis(errors.modes, 0, -2)
        along = seen.project(along)[0] if isinstance(seen, Subspace) else along
        modes = along.reshape(-1, *along.shape[-2:])
        gain, shift = (part.reshape(-1, part.shape[-1]) for part in (errors.gain, errors.shift))
        share = errors.share
    searched = [name for name in names if name not in AMPLITUDES[ask.model]]
    own = isinstance(estimate.value, ask.model) & (estimate.status == AT_BOUNDARY)
    lost = {name: ~jnp.isfinite(getattr(estimate.sd, name)) & ~own for name in searched}
    given = Optimum(
        jax.tree.map(rows, estimate.value),
        rows(noise_sd),
        rows(estimate.status),
        {name: rows(part) for name, part in lost.items()},
        modes,
        gain,
        shift,
    )
    asked = Asked(ask.model, names, ask.arterial_sd, ask.arterial_scale_sd)
    known = Known(seen, theta if ask.arterial_sd else None, share)
    values, sds, status = over_voxels(eqx.Partial(described, asked), known, given, ask.chunk)
    maps = [[part.reshape(shape) for part in parts] for parts in (values, sds)]
    return Estimate(
        value=ask.model(*maps[0]),
        sd=ask.model(*maps[1]),
        phase_rad={},
        residual=residual,
        noise_sd=noise_sd,
        status=status.reshape(shape),
    )


def _limits(
    ask: _Question, bounds: dict[str, tuple[float, float]]
) -> dict[str, tuple[float, float]]:
    """Of every field of the model."""
    names: list[str] = [field.name for field in fields(ask.model)]  # pyright: ignore[reportArgumentType]
    unknown = [name for name in bounds if name not in names[:-1]]
    if unknown:
        expected = f"of {', '.join(names[:-1])}"
        raise InputError(Problem("fit_kinetics: bounds", f"{', '.join(unknown)}", expected))
    limits = {name: bounds.get(name, PHYSICAL[name]) for name in names[:-1]}
    return limits | ({"delay_s": ask.delay_s} if ask.delay_s else {})


def _rates(theta: DynamicSeries) -> tuple[float, float]:
    """Slowest and fastest that the series can tell."""
    if isinstance(theta.times_s, Tracer):
        found, cause = "times being traced", "a series made inside jit or grad"
        raise InputError(Problem("fit_kinetics: theta", found, "times as numbers", cause))
    times = np.asarray(theta.times_s, float)
    slowest, fastest = SLOWEST / (times[-1] - times[0]), FASTEST / np.median(np.diff(times))
    return 10.0 ** np.floor(np.log10(slowest)), 10.0 ** np.ceil(np.log10(fastest))


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
    if not any(isinstance(value, Tracer) for value in (usable, *told)):
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
    if largest == 0:
        found = f"0 in every image of {int(voxels)} voxels"
        raise InputError(Problem(f"{where}: x", found, "concentrations", "an empty image or mask"))
    if isinstance(theta.arterial.plasma_mmol_per_l, Tracer):
        return
    peak = float(jnp.max(theta.arterial.plasma_mmol_per_l))
    if not 3e-4 * peak <= largest <= 30 * peak:
        found = f"a largest of {largest:g} mmol/l, the input's being {peak:g} mmol/l"
        cause = "mol/l given for mmol/l" if largest < peak else "µmol/l, or signals, for mmol/l"
        raise InputError(Problem(f"{where}: x", found, "tissue and artery in one unit", cause))
