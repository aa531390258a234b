"""q from x: maps of any field of a tissue, each with its standard deviation."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Int, Num

from mrphys.acquisitions import FunctionModel, Selected, Together
from mrphys.bounds import TISSUE, Bounds
from mrphys.errors import InputError, Problem
from mrphys.image import Image
from mrphys.joint import Prior, fit_image, unmixed
from mrphys.neighbours import Neighbours
from mrphys.nested_laplace import marginal
from mrphys.signal_table import tabulated
from mrphys.simulate import over_voxels
from mrphys.tabulated_posterior import by_table
from mrphys.tissue import Tissue
from mrphys.units import check_range
from mrphys.voxelwise import (
    AT_BOUNDARY,
    CONVERGED,
    FAILED,
    ILL_DETERMINED,
    MASKED,
    Found,
    Given,
    Model,
    Question,
    fit_rows,
    still,
    with_fields,
)

__all__ = [
    "AT_BOUNDARY",
    "CONVERGED",
    "FAILED",
    "ILL_DETERMINED",
    "MASKED",
    "Estimate",
    "FunctionModel",
    "Selected",
    "Together",
    "fit",
]

CHUNK = 1024
"""Voxels fitted together."""
ITERATIONS = 40
T1_S, T2_S = 1.0, 0.1
"""Of tissue of which nothing is said."""


class Estimate(eqx.Module):
    """What a fit found, and how far to trust it. Maps have the voxels' shape.

    value      q: free fields estimated, the others as they were given. 0 where masked or failed
    sd         the standard deviation of each free field of q, infinite where it is not determined;
               0 of the fields given
    phase_rad  of each complex amplitude by name; none for magnitudes
    residual   sd of what the model leaves over, in the signal's units and for its degrees of
               freedom: near noise_sd where the model holds. 0 where nothing can be left over
    noise_sd   as given, or the residual where it was not
    status     CONVERGED; AT_BOUNDARY: the best value is at a bound, its sd that of a fit without;
               ILL_DETERMINED: some sd is infinite, its value arbitrary; MASKED; FAILED: no signal,
               not finite, or no convergence
    """

    value: Any
    sd: Any
    phase_rad: dict[str, Float[Array, "*voxels"]]
    residual: Float[Array, "*voxels"]
    noise_sd: Float[Array, "*voxels"]
    status: Int[Array, "*voxels"]


def fit(
    theta: Model | Sequence[Model],
    x: Num[Array | np.ndarray, "*voxels readouts"] | Sequence[Num[Array | np.ndarray, "..."]],
    free: Sequence[str],
    noise_sd: ArrayLike | None = None,
    *,
    known: eqx.Module | None = None,
    linear: Sequence[str] = ("m0",),
    bounds: dict[str, tuple[float, float]] | None = None,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    rician: bool | None = None,
    start: eqx.Module | None = None,
    operator: Callable[[Array], Array] | None = None,
    prior: Mapping[str, Prior] | None = None,
    posterior: bool = False,
    chunk: int = CHUNK,
    iterations: int = ITERATIONS,
) -> Estimate:
    """The parameters of every voxel that make x = f(θ, q) most probable.

        q = argmax over free fields of p(x | f(θ, q), noise_sd)

    theta     a Sequence, several that share the tissue (x then one array for each), or any module
              with `averages` and `signals(rows)`, such as `FunctionModel`
    x         complex signals, magnitudes, or real data of a real model
    free      fields of q that are unknown; a dotted name reaches a field's field
    noise_sd  of the real part of one average: a number, a map, or None: each voxel's residual
    known     q, its free fields of no account: a Tissue with T1 1 s and T2 0.1 s when None
    linear    fields in which the signal is linear, and 0 when all are 0. Those that are free are
              solved for, not searched: complex where x is, with a phase of their own that is
              found too; magnitudes have one at most
    bounds    (low, high) of free fields not linear; `mrphys.bounds.TISSUE` unless given
    mask      True where to fit; of x's shape, which readouts count besides (clipped or moved ones
              do not)
    rician    whether x are magnitudes of complex noise, rather than Gaussian. Unless given, they
              are when x is real and f is complex
    start     q from which to search, such as `Dictionary.match` finds (`mrphys.fingerprint`); the
              nearest entry of a small dictionary of its own when None

    operator  A of data x = A f + noise, any linear function of all signals, voxels x readouts: raw
              data of several coils, say. The voxels' shape is that of the mask or of known
    prior     of fields not linear, what differences between neighbours are like
              (`mrphys.joint.Quadratic`, `TotalVariation`); needs noise_sd
    posterior whether voxels over whose sd the model is not straight are told by the mean and sd of
              q rather than the most probable q (`mrphys.nested_laplace`): T2 and B1 of echoes at
              SNR below 50, say. Before the data any value within `bounds` is as probable, so that
              these matter; a value at a bound, too, gets its mean and sd. Of two unknowns and one
              amplitude, all else known and alike in every voxel, all voxels are told so, by a table
              of signals, faster than they are searched (`mrphys.tabulated_posterior`), unless they
              are traced, noise_sd is None or a start is given. Otherwise an eighth as fast, where
              all voxels are bent

    With an operator or a prior all voxels are fitted at once (`mrphys.joint`): noise_sd is one
    number, of each datum where there is an operator, whose noise is Gaussian; the sds are of the
    inverse information of the whole image (with a prior the posterior's), beyond a few hundred
    voxels estimated to 13 %; `residual` is one number; data that no signal reaches, such as
    zeros of lines left out, do not count in it.

    Levenberg-Marquardt with variable projection. The sds are Cramér-Rao's at the optimum, for
    magnitudes by the Rician information: right where the signal's noise is small enough for the
    model to be straight over it. Where noise_sd is None, (value - truth) / sd is Student's t of as
    many degrees of freedom as are left over; where noise is alike everywhere, fit again with the
    root mean square of `residual`.

    Differentiable in x, θ, noise_sd, known fields, priors and arrays of an operator that is a
    module, forward and reverse, by the implicit function theorem with the full Hessian; where the
    status is AT_BOUNDARY, MASKED or FAILED derivatives of the values are 0. Estimated sds have
    none. In chunks and over devices as `mrphys.simulate`. Values that are being traced are not
    checked. Raises InputError for names that are no field, shapes that do not match, numbers not
    finite in the mask, an empty mask, noise_sd <= 0, negative magnitudes, fewer data than unknowns.

    Golub, Pereyra 1973, doi:10.1137/0710036 (variable projection).

    >>> import mrphys as mr
    >>> theta = mr.sequence.multi_echo_gradient_echo([0.005, 0.02, 0.05])
    >>> x = mr.simulate(theta, mr.Tissue(t1_s=1.0, t2_s=[0.03, 0.06]))
    >>> est = fit(theta, x, free=("t2_s", "m0"), noise_sd=0.01)
    >>> est.value.t2_s.round(6)
    Array([0.03, 0.06], dtype=float64)
    """
    known = Tissue(t1_s=T1_S, t2_s=T2_S) if known is None else known
    if operator is not None or prior:
        if posterior:
            found = "with an operator or a prior of neighbours"
            raise InputError(Problem("fit: posterior", found, "each voxel by itself"))
        options = {"linear": linear, "bounds": bounds, "mask": mask, "chunk": chunk}
        options |= {"iterations": iterations, "known": known}
        return _fit_image(theta, x, free, noise_sd, rician, start, operator, prior or {}, options)
    model, data = _joined(theta, x)
    shape, dtype, names = data.shape[:-1], data.real.dtype, tuple(free)
    limits = TISSUE | {name: Bounds(*map(float, pair)) for name, pair in (bounds or {}).items()}
    amplitudes = tuple(name for name in names if name in linear)
    unknowns = tuple(name for name in names if name not in linear)
    _check_names(names, unknowns, known, limits)
    fixed = with_fields(known, names, [jnp.ones(()) for _ in names])
    _check_shapes(data.shape, fixed, noise_sd, mask, start)
    kind = _kind(model, fixed, data, rician)
    varies = any(jnp.size(leaf) > 1 for leaf in jax.tree.leaves(fixed))
    ask = Question(
        unknowns,
        tuple(limits[name] for name in unknowns),
        amplitudes,
        kind,
        kind == "magnitude" if rician is None else rician,
        kind == "complex" and varies and len(amplitudes) == 1,
        iterations,
    )
    _check_question(ask, data.shape[-1], noise_sd)
    chosen, used = None, None
    if mask is not None and mask.ndim == data.ndim:
        used = jnp.asarray(mask).reshape(-1, data.shape[-1])
        mask = jnp.any(jnp.asarray(mask), axis=-1)
    if mask is not None and not isinstance(mask, Tracer):
        chosen = np.flatnonzero(np.asarray(mask))

    def rows(value: ArrayLike) -> Array:
        flat = jnp.broadcast_to(jnp.asarray(value), shape).reshape(-1)
        return flat if chosen is None else flat[chosen]

    measured = data.reshape(-1, data.shape[-1])
    measured = measured if chosen is None else measured[chosen]
    if used is not None:
        used = used if chosen is None else used[chosen]
        measured = jnp.where(used, measured, 0.0)
    _check_values(ask, measured, mask if chosen is None else None)
    wanted = None if start is None else tuple(rows(attrgetter(n)(start)) for n in unknowns)
    noise = None if noise_sd is None else rows(noise_sd)
    given = Given(measured, noise, jax.tree.map(rows, fixed), wanted, used)
    model, given = _in_precision((model, given), dtype)
    found = _found(ask, model, given, chunk, posterior and bool(unknowns))

    def image(flat: Array, outside: float | int) -> Array:
        if chosen is not None:
            blank = jnp.full(int(np.prod(shape)), outside, flat.dtype)
            return blank.at[chosen].set(flat).reshape(shape)
        flat = flat.reshape(shape)
        return flat if mask is None else jnp.where(mask, flat, jnp.asarray(outside, flat.dtype))

    order = (*unknowns, *amplitudes)
    nothing = jax.tree.map(jnp.zeros_like, known)
    return Estimate(
        value=with_fields(known, order, [image(value, 0.0) for value in found.values]),
        sd=with_fields(nothing, order, [image(sd, jnp.inf) for sd in found.sds]),
        phase_rad={
            name: image(phase, 0.0)
            for name, phase in zip(amplitudes, found.phases_rad, strict=False)
        },
        residual=image(found.residual, 0.0),
        noise_sd=image(found.noise_sd, 0.0),
        status=image(found.status, MASKED),
    )


def _found(ask: Question, model: Model, given: Given, chunk: int, posterior: bool) -> Found:
    """Of every voxel by itself."""

    def searched(given: Given) -> Found:
        found = over_voxels(eqx.Partial(fit_rows, ask), model, given, chunk)
        return marginal(ask, model, given, found) if posterior else found

    if not posterior or given.noise_sd is None or given.start is not None:
        return searched(given)
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(given)):
        return searched(given)
    table = tabulated(ask, model, given.known)
    return searched(given) if table is None else by_table(ask, table, model, given, searched)


def _fit_image(
    theta: Any,
    x: Any,
    free: Sequence[str],
    noise_sd: ArrayLike | None,
    rician: bool | None,
    start: Any,
    operator: Callable[[Array], Array] | None,
    prior: Mapping[str, Prior],
    options: dict[str, Any],
) -> Estimate:
    """`fit` of all voxels at once."""
    known, mask = options["known"], options["mask"]
    if operator is None:
        model, data = _joined(theta, x)
        shape = data.shape[:-1]
    else:
        model = Together(tuple(theta)) if isinstance(theta, list | tuple) else theta
        data = jnp.asarray(x)
        shape = jnp.shape(mask) if mask is not None else _shape_of_maps(known, start)
    fixed = with_fields(known, (*free,), [jnp.ones(()) for _ in free])
    kind = "complex" if operator is not None else _kind(model, fixed, data, rician)
    rician = bool(rician or (rician is None and kind == "magnitude"))
    _check_image(
        data, shape, noise_sd, rician and operator is not None, free, options["linear"], prior
    )
    signals = data
    if operator is not None:
        like = _signals_of(model, known, shape, data)
        _check_operator(operator, like, data)
        signals = jax.lax.stop_gradient(unmixed(operator, still(data), like))
    noise = noise_sd if rician else None
    options |= {"rician": rician, "start": start}
    first = fit(still(model), still(signals), free, still(noise), **still(options))
    limits = TISSUE | {n: Bounds(*map(float, b)) for n, b in (options["bounds"] or {}).items()}
    amplitudes = tuple(name for name in free if name in options["linear"])
    unknowns = tuple(name for name in free if name not in amplitudes)
    kind = "complex" if jnp.iscomplexobj(signals) else _kind(model, fixed, signals, rician)
    ask = Question(unknowns, tuple(limits[n] for n in unknowns), amplitudes, kind, rician, False, 0)

    def rows(value: ArrayLike) -> Array:
        return jnp.broadcast_to(jnp.asarray(value), shape).reshape(-1)

    good = rows(first.status == CONVERGED)

    def begun(name: str) -> Array:
        value = rows(attrgetter(name)(first.value))
        middle = jnp.nanmedian(jnp.where(good, value, jnp.nan))
        return jnp.where(good, value, jnp.where(jnp.isfinite(middle), middle, value))

    begin = [begun(name) for name in unknowns]
    weight = jnp.ones(()) if noise_sd is None else 1 / jnp.asarray(noise_sd)
    if operator is None:
        weight = weight * jnp.sqrt(model.averages).reshape(*[1] * len(shape), -1)
        if mask is not None and jnp.ndim(mask) == data.ndim:
            weight, mask = jnp.where(mask, weight, 0.0), jnp.any(mask, axis=-1)
    inside = jnp.ones(int(np.prod(shape)), bool) if mask is None else rows(mask)
    image = Image(
        model,
        jax.tree.map(rows, fixed),
        data,
        weight,
        inside,
        _same if operator is None else operator,
        ask,
        tuple(shape),
        tuple(
            (i, Neighbours(prior[name], inside, limits[name], tuple(shape)))
            for i, name in enumerate(unknowns)
            if name in prior
        ),
        options["chunk"],
    )
    signals = signals.reshape(-1, signals.shape[-1])
    image, begin, signals = _in_precision((image, begin, signals), data.real.dtype)
    noise = None if noise_sd is None else jnp.asarray(noise_sd, data.real.dtype)
    found = jax.tree.map(
        lambda flat: flat.reshape(shape),
        fit_image(image, begin, still(signals), noise, options["iterations"]),
    )
    order, nothing = (*unknowns, *amplitudes), jax.tree.map(jnp.zeros_like, known)
    return Estimate(
        value=with_fields(known, order, found.values),
        sd=with_fields(nothing, order, found.sds),
        phase_rad=dict(zip(amplitudes, found.phases_rad, strict=False)),
        residual=found.residual,
        noise_sd=found.noise_sd,
        status=found.status,
    )


def _same(x: Array) -> Array:
    return x


def _signals_of(model: Model, known: Any, shape: tuple[int, ...], data: Array) -> Any:
    row = jax.tree.map(lambda leaf: jnp.zeros((1,), leaf.dtype), known)
    kind = eqx.filter_eval_shape(lambda model, row: model.signals(row), model, row).dtype
    kind = jnp.result_type(kind, data.real.dtype)
    return jax.ShapeDtypeStruct((*shape, model.averages.size), kind)


def _shape_of_maps(known: Any, start: Any) -> tuple[int, ...]:
    return np.broadcast_shapes(*(jnp.shape(leaf) for leaf in jax.tree.leaves((known, start))))


def _check_image(
    data: Array,
    shape: tuple[int, ...],
    noise_sd: Any,
    mixed_magnitudes: bool,
    free: Sequence[str],
    linear: Sequence[str],
    prior: Mapping[str, Prior],
) -> None:
    problems = []
    if not shape or 0 in shape:
        expected = "a mask, or maps in known: an operator does not tell the voxels' shape"
        problems.append(Problem("fit: voxels", f"shape {shape}", expected))
    if noise_sd is not None and jnp.size(noise_sd) != 1:
        problems.append(Problem("fit: noise_sd", f"shape {jnp.shape(noise_sd)}", "one number"))
    if mixed_magnitudes:
        problems.append(Problem("fit: rician", "an operator", "Gaussian noise"))
    for name in prior:
        if name not in free or name in linear:
            expected = "fields that are free and not linear"
            problems.append(Problem("fit: prior", repr(name), expected))
    if prior and noise_sd is None:
        expected = "noise_sd: against what the prior is weighed"
        problems.append(Problem("fit: prior", "no noise_sd", expected))
    if problems:
        raise InputError(*problems)
    if not isinstance(data, Tracer) and not np.isfinite(np.asarray(data)).all():
        raise InputError(Problem("fit: x", "NaN or infinite values", "finite numbers"))


def _check_operator(operator: Callable, like: Any, data: Array) -> None:
    found = jax.eval_shape(operator, like)
    if found.shape != data.shape:
        where = f"operator: signals {like.shape} become"
        raise InputError(Problem(f"fit: {where}", f"{found.shape}", f"x's {data.shape}"))
    if jnp.iscomplexobj(data) != jnp.issubdtype(found.dtype, jnp.complexfloating):
        raise InputError(Problem("fit: x", f"{data.dtype}", f"the operator's {found.dtype}"))
    cause = "magnitudes or a bias in it"
    problem = Problem("fit: operator", "one not linear", "a linear function", cause)
    try:
        jax.linear_transpose(operator, like)(jnp.zeros(found.shape, found.dtype))
    except (NotImplementedError, TypeError, AssertionError, ValueError) as error:
        raise InputError(problem) from error
    of_nothing = operator(jnp.zeros(like.shape, like.dtype))
    if not isinstance(of_nothing, Tracer) and bool(jnp.any(of_nothing != 0)):
        raise InputError(problem)


def _joined(theta: Any, x: Any) -> tuple[Model, Array]:
    """One model and one array of several acquisitions."""
    if not isinstance(theta, list | tuple):
        return theta, _inexact(x)
    if not isinstance(x, list | tuple) or len(x) != len(theta):
        found = f"{len(theta)} acquisitions and {len(x) if isinstance(x, list | tuple) else 'an'}"
        raise InputError(Problem("fit: x", f"{found} array(s)", "one array for each acquisition"))
    parts = [_inexact(part) for part in x]
    shapes = {part.shape[:-1] for part in parts}
    if len(shapes) > 1:
        found = ", ".join(str(part.shape) for part in parts)
        raise InputError(Problem("fit: x", f"shapes {found}", "one voxel shape", "other grids"))
    if len({jnp.iscomplexobj(part) for part in parts}) > 1:
        raise InputError(Problem("fit: x", "complex and real arrays", "one kind of data"))
    return Together(tuple(theta)), jnp.concatenate(parts, axis=-1)


def _inexact(x: ArrayLike) -> Inexact[Array, "..."]:
    """Data as scanners store them are integers."""
    data = jnp.asarray(x)
    return data if jnp.issubdtype(data.dtype, jnp.inexact) else data.astype(float)


def _in_precision(tree: Any, dtype: Any) -> Any:
    def cast(leaf: Any) -> Any:
        if not eqx.is_inexact_array(leaf):
            return leaf
        return (
            leaf.astype(jnp.result_type(dtype, jnp.complex64))
            if jnp.iscomplexobj(leaf)
            else (leaf.astype(dtype))
        )

    return jax.tree.map(cast, tree)


def _kind(model: Model, known: eqx.Module, data: Array, rician: bool | None) -> Any:
    """Of the data; raises InputError for another number of readouts than the model's."""
    row = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((1,), leaf.dtype), known)
    arrays, rest = eqx.partition((model, row), lambda leaf: hasattr(leaf, "dtype"))
    leaves, tree = jax.tree.flatten(rest)
    signal = _signals.eval_shape((tree, tuple(leaves)), arrays)
    if data.ndim < 1 or data.shape[-1] != signal.shape[-1]:
        expected = f"a last axis of {signal.shape[-1]} readouts"
        raise InputError(
            Problem("fit: x", f"shape {data.shape}", expected, "readouts not on the last axis")
        )
    if jnp.iscomplexobj(data):
        return "complex"
    return "magnitude" if rician or jnp.issubdtype(signal.dtype, jnp.complexfloating) else "real"


@partial(jax.jit, static_argnums=0)
def _signals(rest: Any, arrays: Any) -> Array:
    """Of a row of voxels: traced once for models alike."""
    tree, leaves = rest
    model, row = eqx.combine(arrays, jax.tree.unflatten(tree, leaves))
    return model.signals(row)


def _check_names(
    names: tuple[str, ...], unknowns: tuple[str, ...], known: eqx.Module, limits: dict[str, Bounds]
) -> None:
    problems = []
    if not names or len(set(names)) < len(names):
        problems.append(Problem("fit: free", str(names), "names, each once"))
    has = ", ".join(field.name for field in fields(known))  # pyright: ignore[reportArgumentType]
    for name in names:
        try:
            value = attrgetter(name)(known)
        except AttributeError:
            problems.append(Problem("fit: free", repr(name), f"a field: {has}"))
            continue
        if name == "t2star_s":
            expected = "t2_s with infinite t2prime_s, which then is T2*; or t2prime_s with known T2"
            problems.append(Problem("fit: free", repr(name), expected))
        elif not eqx.is_inexact_array(value):
            problems.append(Problem("fit: free", repr(name), "a field that holds numbers"))
        elif jnp.iscomplexobj(value):
            cause = "a complex b1 as known; give its magnitude"
            problems.append(Problem("fit: free", f"complex {name}", "a real field", cause))
    for name in unknowns:
        if name not in limits:
            problems.append(Problem("fit: bounds", f"none of {name}", "(low, high)"))
        elif not -np.inf < limits[name].low < limits[name].high < np.inf:
            found = f"{tuple(limits[name])} of {name}"
            problems.append(Problem("fit: bounds", found, "finite, low < high"))
    if problems:
        raise InputError(*problems)


def _check_shapes(
    whole: tuple[int, ...], fixed: eqx.Module, noise_sd: Any, mask: Any, start: Any
) -> None:
    problems, shape = [], whole[:-1]
    maps = {"fit: noise_sd": jnp.shape(noise_sd) if noise_sd is not None else ()}
    for leaf in jax.tree.leaves((fixed, start)):
        maps[f"fit: a field of known or start of shape {jnp.shape(leaf)}"] = jnp.shape(leaf)
    for where, found in maps.items():
        try:
            fits = np.broadcast_shapes(found, shape) == shape
        except ValueError:
            fits = False
        if not fits:
            expected = f"one number or voxels {shape}"
            problems.append(Problem(where, f"shape {found}", expected, "another image"))
    if mask is not None and mask.shape not in (shape, whole):
        found = f"shape {mask.shape}"
        problems.append(Problem("fit: mask", found, f"shape {shape}", "another image"))
    elif mask is not None and not isinstance(mask, Tracer) and not np.any(np.asarray(mask)):
        problems.append(Problem("fit: mask", "no voxel", "voxels to fit"))
    if 0 in shape:
        problems.append(Problem("fit: x", f"voxels {shape}", "voxels to fit"))
    if problems:
        raise InputError(*problems)
    if noise_sd is not None:
        smallest = float(jnp.finfo(jnp.float32).tiny)
        check_range("fit: noise_sd", noise_sd, smallest, float("inf"), "(signal units)")


def _check_question(ask: Question, readouts: int, noise_sd: Any) -> None:
    problems = []
    rows = readouts * (2 if ask.data == "complex" else 1)
    needed = ask.count + (noise_sd is None)
    if rows < needed:
        what = "unknown numbers" + (" and the noise" if noise_sd is None else "")
        found = f"{readouts} readouts ({rows} real numbers) for {needed} {what}"
        problems.append(Problem("fit", found, "as many data as unknowns", "too many fields free"))
    if ask.rician and ask.data == "complex":
        problems.append(Problem("fit: rician", "complex data", "their magnitudes"))
    if ask.data == "magnitude" and len(ask.amplitudes) > 1:
        found = f"magnitudes with {len(ask.amplitudes)} amplitudes"
        problems.append(Problem("fit: linear", found, "one amplitude, or complex data"))
    if problems:
        raise InputError(*problems)


@jax.jit
def _finite_and_least(measured: Array) -> tuple[Array, Array]:
    return jnp.sum(~jnp.isfinite(measured)), jnp.min(measured.real)


def _check_values(ask: Question, measured: Array, mask: Any) -> None:
    """Of the voxels to be fitted; traced values pass."""
    if isinstance(measured, Tracer) or mask is not None:
        return
    infinite, least = _finite_and_least(measured)
    if int(infinite):
        found = f"{int(infinite)} NaN or infinite among {measured.size} values"
        cause = "voxels blanked with NaN; leave them out by the mask"
        raise InputError(Problem("fit: x", found, "finite numbers", cause))
    if ask.data == "magnitude" and float(least) < 0:
        cause = "real images with their sign; give them as complex numbers"
        raise InputError(Problem("fit: x", f"a magnitude of {float(least):g}", "0 or more", cause))
