"""What a field must obey: equations inside, conditions at points, data; and its parameters."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike

from learn.pinn.taylor import Index, Series
from mrphys.bounds import Bounds
from mrphys.errors import InputError, Problem

At = Mapping[str, Array]
"""Coordinates of one point by name, and what is known there beside them."""


class Local:
    """u at one point: u() its value, u("x") ∂u/∂x, u("x", "x") ∂²u/∂x², u("t", "x") ...

    A number where the field is one, else a vector.
    """

    def __init__(self, names: tuple[str, ...], series: Series, outputs: int):
        self.names, self.series, self.outputs = names, series, outputs

    def __call__(self, *by: str) -> Array:
        index = _index(self.names, by)
        term = self.series.get(index, jnp.zeros_like(self.series[()]))
        return term[0] if self.outputs == 1 else term


class Asked(Local):
    """Notes which derivatives are asked for."""

    def __init__(self, names: tuple[str, ...], outputs: int, dtype: Any):
        super().__init__(names, {(): jnp.ones(outputs, dtype)}, outputs)
        self.found: set[Index] = set()

    def __call__(self, *by: str) -> Array:
        self.found.add(_index(self.names, by))
        return super().__call__(*by)


def _index(names: tuple[str, ...], by: tuple[str, ...]) -> Index:
    unknown = [name for name in by if name not in names]
    if unknown:
        raise InputError(Problem("PINN: derivative of u", f"by {unknown[0]!r}", f"one of {names}"))
    return tuple(sorted(names.index(name) for name in by))


Points = Mapping[str, ArrayLike | Sequence[float]]
"""Coordinates of many by name."""

Residual = Callable[[Local, At, Mapping[str, Any]], Array]
"""residual(u, at, p) at one point: a number, or a vector of several equations; 0 when obeyed."""


def _value(u: Local, at: At, p: Mapping[str, Any]) -> Array:
    del at, p
    return u()


@dataclass(frozen=True)
class Parameter:
    """An unknown number p between bounds, with a normal prior (mean, sd) or without."""

    start: float
    bounds: tuple[float, float]
    prior: tuple[float, float] | None = None

    def __post_init__(self):
        low, high = self.bounds
        if not low < self.start < high:
            raise InputError(
                Problem("Parameter: start", f"{self.start:g}", f"in ({low:g}, {high:g})")
            )
        if self.prior is not None and not self.prior[1] > 0:
            raise InputError(Problem("Parameter: prior", f"sd {self.prior[1]:g}", "positive"))

    @property
    def coordinate(self) -> Bounds:
        """In which it is sought."""
        return Bounds(*self.bounds)


@dataclass(frozen=True)
class Condition:
    """residual(u, at, p) = 0 at given points: initial and boundary conditions, interfaces.

    `at` has every input and whatever else the residual reads, one number a point.
    """

    at: Points
    residual: Residual


@dataclass(frozen=True)
class Data:
    """Readings at points, with the standard deviation of their noise.

    observe(u, at, p) is what a reading would be without noise: u itself unless given. Where a
    training has several members, `value` may have one row for each, and so may what is in `at`.
    """

    at: Points
    value: ArrayLike | Sequence[float]
    sd: ArrayLike | Sequence[float]
    observe: Residual = field(default=_value)

    @property
    def readings(self) -> int:
        """How many a member has."""
        return int(np.shape(self.value)[-1])

    def places(self, member: int) -> dict[str, np.ndarray]:
        """Points of one member."""
        given = {name: np.asarray(v, float) for name, v in self.at.items()}
        return {name: v[member] if v.ndim == 2 else v for name, v in given.items()}

    def residual(self, u: Local, at: At, p: Mapping[str, Any]) -> Array:
        """(û - y) / sd of a reading."""
        return (self.observe(u, at, p) - at["_value"]) / at["_sd"]


Rows = dict[str, Array]
"""Of a term: "_x" every input, what is known beside, "_share" of each point in the mean."""


def rows(where: str, inputs: Mapping[str, tuple[float, float]], at: Points, dtype: Any) -> Rows:
    """Of points given by name. Raises InputError where an input is missing, not finite or outside
    the domain."""
    missing = [name for name in inputs if name not in at]
    if missing:
        raise InputError(Problem(where, f"no {missing[0]!r}", f"{', '.join(inputs)} of each point"))
    shape = np.broadcast_shapes(*(np.shape(value) for value in at.values()))
    if len(shape) != 1 or shape[0] == 0:
        raise InputError(Problem(where, f"points of shape {shape}", "a list of one point or more"))
    known = {name: np.broadcast_to(np.asarray(v, float), shape) for name, v in at.items()}
    problems = []
    for name, (low, high) in inputs.items():
        slack = 1e-6 * (high - low)
        out = ~((known[name] >= low - slack) & (known[name] <= high + slack))
        if out.any():
            worst = known[name][out][0]
            found = f"{name} = {worst:g} and {out.sum() - 1} more outside"
            cause = "other units, or a domain too small"
            problems.append(Problem(where, found, f"{low:g} to {high:g}", cause))
    if problems:
        raise InputError(*problems)
    x = np.stack([known[name] for name in inputs], -1)
    beside = {name: v for name, v in known.items() if name not in inputs}
    share = np.full(shape, 1 / shape[0])
    return {k: jnp.asarray(v, dtype) for k, v in {"_x": x, **beside, "_share": share}.items()}


def derivatives_asked(
    where: str,
    residual: Residual,
    names: tuple[str, ...],
    outputs: int,
    known: Sequence[str],
    p: Mapping[str, Any],
    dtype: Any,
) -> set[Index]:
    """By the residual, found by a run on no numbers. Raises InputError where it does not return
    a number or a vector."""
    asked = Asked(names, outputs, dtype)
    number = jax.ShapeDtypeStruct((), dtype)
    at = {name: number for name in (*names, *known)}
    told = jax.eval_shape(lambda at, p: residual(asked, at, p), at, p)
    if not hasattr(told, "shape") or len(told.shape) > 1 or (outputs == 1 and told.shape):
        found = f"shape {told.shape}" if hasattr(told, "shape") else type(told).__name__
        expected = "a number" if outputs == 1 else "a number or a vector of equations"
        cause = "it is a function of one point, not of many"
        raise InputError(Problem(where, found, expected, cause))
    return asked.found
