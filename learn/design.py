"""Choose an acquisition for what it is for: least uncertainty within time, power and hardware."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array

from learn.augmented_lagrangian import TOLERANCE, kept, minimise, nearest
from learn.constraints import Constraint, Variables
from mrphys.errors import InputError, Problem
from mrphys.optimality import Uncertainty
from mrphys.units import Values, check_finite


class Held(NamedTuple):
    """A constraint, and its value furthest on the wrong side or nearest to it."""

    constraint: Constraint
    before: float
    after: float


class Design(NamedTuple):
    """What an optimisation found.

    theta, variables  the design, on the hardware's raster where there is one, and what it was built
                      from; start is the θ it began with
    before, after     the loss of either; unrounded, that of the design before the raster
    history           the loss at each step of the start that won; of_starts, where each start ended
    held              every constraint before and after
    """

    theta: Any
    start: Any
    variables: Variables
    before: float
    after: float
    unrounded: float
    history: list[float]
    of_starts: list[float]
    held: list[Held]


def optimise_design(
    build: Callable[[Variables], Any],
    variables: Mapping[str, Values],
    loss: Callable[[Any], Array],
    *,
    limits: Mapping[str, tuple[Values, Values]],
    constraints: Sequence[Constraint] = (),
    raster: Mapping[str, float] | None = None,
    starts: int = 1,
    steps: int = 300,
    seed: int = 0,
    progress: Callable[[int, int, float], None] = lambda step, of, value: None,
) -> Design:
    """The θ = build(p) that makes loss(θ) least.

        min over p of loss(build(p)),   low <= p <= high,   constraints kept

    variables    p by name, as the search begins: arrays of any shape
    loss         any differentiable number of θ; `mrphys.uncertainty` makes one from Cramér-Rao
    limits       (low, high) of each variable, numbers or arrays: flips, echo times, spacings
    constraints  `learn.constraints`: scan time, pulse energy, smoothness, spacing, or any function
    raster       steps of the hardware by name: the design is rounded to them, down where rounding
                 to the nearest would break a constraint
    starts       searches, the first from `variables`, others from random changes of them
    steps        of each search, fewer when it converges

    L-BFGS-B within the limits, an augmented Lagrangian for the constraints
    (`learn.augmented_lagrangian`): inequalities hold, equalities within 1e-4. The gradient is by
    reverse mode; θ is built inside a trace, so that builders check nothing while the search runs.
    `progress(step, of, value)` is called at every step.

    Raises InputError for a start outside the limits or that determines nothing (which combination
    of parameters, where the loss is an `Uncertainty`), and for constraints that nothing near the
    start keeps together: which, and by how much they are missed.

    >>> parabola = lambda p: jnp.sum((p["x"] - 2.0) ** 2)
    >>> made = optimise_design(lambda p: p, {"x": 0.5}, parabola, limits={"x": (0.0, 1.5)})
    >>> float(made.theta["x"])
    1.5
    """
    start = {name: jnp.asarray(value, float) for name, value in variables.items()}
    low, high = _limits(start, limits)
    flat, unravel = ravel_pytree(start)
    span = jnp.where(high > low, high - low, 1.0)
    everything = tuple(constraints)
    begun = build(start)
    before = float(loss(begun))
    if not np.isfinite(before):
        raise InputError(_says_nothing(loss, begun, before))
    sizes = [constraint.excess(begun, start).size for constraint in everything]
    equal = np.repeat([c.side == "equal to" for c in everything], sizes).astype(bool)
    margin = np.where(equal, 0.0, TOLERANCE)

    def variables_of(u: Array) -> Variables:
        return unravel(low + span * u)

    def excess(u: Array) -> Array:
        p = variables_of(u)
        return _excess(everything, build(p), p, low.dtype)

    def objective(u: Array) -> tuple[Array, Array]:
        p = variables_of(u)
        theta = build(p)
        return loss(theta), _excess(everything, theta, p, low.dtype)

    def restored(u: np.ndarray) -> np.ndarray:
        return nearest(excess, u, equal, margin)[0]

    first = np.clip(np.asarray((flat - low) / span, np.float64), 0.0, 1.0)
    rng = np.random.default_rng(seed)
    found = []
    for i in range(starts):
        u = first if i == 0 else _changed(first, start, rng)
        if everything:
            u, missed = nearest(excess, u, equal, margin)
            if i == 0 and not kept(missed, equal):
                raise InputError(*_infeasible(everything, np.split(missed, np.cumsum(sizes)[:-1])))

        def told(step: int, of: int, value: float, done: int = i * steps) -> None:
            progress(done + step, starts * of, value)

        found.append(
            minimise(objective, u, equal, margin, restore=restored, steps=steps, progress=told)
        )
    won = min(found, key=lambda minimum: minimum.value)
    p = variables_of(jnp.asarray(won.u, float))
    unrounded = float(loss(build(p)))
    for rounding in (np.round, np.floor) if raster else ():
        p = _on_raster(variables_of(jnp.asarray(won.u, float)), raster or {}, low, high, rounding)
        if kept(np.asarray(_excess(everything, build(p), p, low.dtype)), equal):
            break
    theta = build(p)
    held = [Held(c, _worst(c, begun, start), _worst(c, theta, p)) for c in everything]
    after = float(loss(theta))
    progress(starts * steps, starts * steps, after)
    ends = [minimum.value for minimum in found]
    return Design(theta, begun, p, before, after, unrounded, won.history, ends, held)


def _limits(start: Variables, limits: Mapping[str, tuple[Values, Values]]) -> tuple[Array, Array]:
    """All limits in a row. Raises InputError for what is missing, empty or not kept at first."""
    problems, rows = [], ({}, {})
    for name in set(start) ^ set(limits):
        found = "a variable without limits" if name in start else "limits of no variable"
        problems.append(Problem(f"optimise_design: {name}", found, "limits of every variable"))
    for name, value in start.items():
        if name not in limits:
            continue
        low, high = (jnp.broadcast_to(jnp.asarray(v, float), value.shape) for v in limits[name])
        check_finite(f"optimise_design: limits of {name}", jnp.stack([low, high]))
        slack = 1e-6 * jnp.maximum(jnp.abs(low), jnp.abs(high))
        if bool(jnp.any(low > high)):
            where = f"optimise_design: limits of {name}"
            problems.append(Problem(where, f"{low} above {high}", "low <= high"))
        elif not bool(jnp.all((value >= low - slack) & (value <= high + slack))):
            found = f"a start from {float(value.min()):g} to {float(value.max()):g}"
            expected = f"within {float(low.min()):g} to {float(high.max()):g}"
            problems.append(Problem(f"optimise_design: {name}", found, expected))
        for row, limit in zip(rows, (low, high), strict=True):
            row[name] = limit
    if problems:
        raise InputError(*problems)
    return ravel_pytree(rows[0])[0], ravel_pytree(rows[1])[0]


def _excess(constraints: tuple[Constraint, ...], theta: Any, p: Variables, dtype) -> Array:
    parts = [constraint.excess(theta, p) for constraint in constraints]
    return jnp.concatenate(parts).astype(dtype) if parts else jnp.zeros(0, dtype)


def _worst(constraint: Constraint, theta: Any, p: Variables) -> float:
    """Of all numbers of a constraint the one that matters."""
    excess = np.asarray(constraint.excess(theta, p))
    furthest = excess[np.argmax(np.abs(excess) if constraint.side == "equal to" else excess)]
    sign = -1 if constraint.side == "at least" else 1
    return constraint.limit + sign * constraint.scale * float(furthest)


def _says_nothing(loss: Callable, theta: Any, value: float) -> Problem:
    named = loss.undetermined(theta) if isinstance(loss, Uncertainty) else []
    found = f"a loss of {value} at the start"
    if named:
        found += f": no readout tells {'; nor '.join(named)}"
    return Problem("optimise_design", found, "a finite loss", "a design that determines nothing")


def _infeasible(constraints: tuple[Constraint, ...], excess: list[np.ndarray]) -> list[Problem]:
    """Every constraint missed where all together are missed least."""
    missed = [(c, c.missed(e)) for c, e in zip(constraints, excess, strict=True)]
    return [
        Problem(
            f"optimise_design: {constraint.name}",
            f"{by:.4g} {constraint.unit}".rstrip() + " beyond its limit at best",
            str(constraint),
            "constraints or limits that cannot be kept together",
        )
        for constraint, by in missed
        if by > TOLERANCE * constraint.scale
    ] or [Problem("optimise_design", "no point that keeps all constraints", "room inside them")]


def _changed(u: np.ndarray, like: Variables, rng: np.random.Generator) -> np.ndarray:
    """Another start: trains changed by a few slow waves, single numbers drawn anew."""
    parts, at = [], 0
    for name in sorted(like):
        size = like[name].size
        part = u[at : at + size]
        if size > 8:
            waves = np.cos(np.pi * np.outer((np.arange(size) + 0.5) / size, np.arange(8)))
            part = part + waves @ (0.15 * rng.standard_normal(8) / np.sqrt(1 + np.arange(8)))
        else:
            part = rng.uniform(0.05, 0.95, size)
        parts.append(np.clip(part, 0.0, 1.0))
        at += size
    return np.concatenate(parts)


def _on_raster(
    p: Variables, raster: Mapping[str, float], low: Array, high: Array, rounding: Callable
) -> Variables:
    """Variables in whole steps of the hardware, inside the limits."""
    strange = [name for name in raster if name not in p]
    if strange:
        problem = Problem("optimise_design: raster", ", ".join(strange), f"of {', '.join(p)}")
        raise InputError(problem)
    _, unravel = ravel_pytree(p)
    lows, highs = unravel(low), unravel(high)
    rounded = dict(p)
    for name, step in raster.items():
        whole = rounding(np.asarray(p[name], np.float64) / step + (rounding is np.floor) * 1e-4)
        least = np.ceil(np.asarray(lows[name], np.float64) / step - 1e-4)
        most = np.floor(np.asarray(highs[name], np.float64) / step + 1e-4)
        rounded[name] = jnp.asarray(step * np.clip(whole, least, most), p[name].dtype)
    return rounded
