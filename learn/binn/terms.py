"""Unknown terms of an equation: networks with bounds and monotonicity by construction, or sums of
functions from a library."""

from collections.abc import Callable, Mapping
from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem

LIBRARY: Mapping[str, Callable[[Array], Array]] = {
    "1": jnp.ones_like,
    "z": lambda z: z,
    "z²": lambda z: z**2,
    "z³": lambda z: z**3,
}
"""Functions of z by the name a person reads, z standing for the term's own variable."""


class Term(nnx.Module):
    """An unknown function of one number z, called with it.

    of      what z is, "u" the state, "t" time, or what `solve` gives it
    reach   low and high of z that are expected; scaled to [-1, 1] inside
    """

    of: str
    reach: tuple[float, float]

    def prior(self) -> Float[Array, " numbers"]:
        """Its numbers in standard deviations of their prior; none has one unless said."""
        return jnp.zeros(0)


class Learned(Term):
    """low + (high - low) s(v·tanh(w ẑ + b) + c ẑ + d), s the logistic function, ẑ in [-1, 1].

    monotone  "rising" or "falling": the signs of all slopes are then held by |v|, |w|, |c|
    start     the value everywhere before anything is learned
    Sign is a bound at 0. Raises InputError for bounds that are not in order.
    """

    def __init__(
        self,
        of: str,
        reach: tuple[float, float],
        low: float,
        high: float,
        monotone: Literal["rising", "falling"] | None = None,
        start: float | None = None,
        width: int = 6,
        *,
        rngs: nnx.Rngs,
    ):
        start = (low + high) / 2 if start is None else start
        if not (low < start < high and reach[0] < reach[1]):
            found = f"low {low:g}, start {start:g}, high {high:g}, reach {reach}"
            raise InputError(Problem("binn.Learned", found, "low < start < high, reach in order"))
        self.of, self.reach, self.low, self.high = of, reach, low, high
        self.monotone = monotone
        share = (start - low) / (high - low)
        dtype = jnp.result_type(float)
        draw = rngs.params.normal
        self.w = nnx.Param(2.0 * draw((width,), dtype))  # pyright: ignore[reportCallIssue]
        self.b = nnx.Param(draw((width,), dtype))  # pyright: ignore[reportCallIssue]
        self.v = nnx.Param(0.1 * draw((width,), dtype))  # pyright: ignore[reportCallIssue]
        self.c = nnx.Param(jnp.zeros((), dtype))
        self.d = nnx.Param(jnp.log(jnp.asarray(share / (1 - share), dtype)))

    def prior(self) -> Float[Array, " numbers"]:
        """Normal about 0, w with a standard deviation of 2, v, b and c of 1: functions without more
        bends than data ask for."""
        c = self.c[...][None]
        return jnp.concatenate([self.w[...] / 2, self.b[...], self.v[...], c])

    def __call__(self, z: Array) -> Array:
        """Its value at each z."""
        low, high = self.reach
        z = (2 * jnp.asarray(z) - low - high) / (high - low)
        w, v, c = self.w[...], self.v[...], self.c[...]
        if self.monotone is not None:
            sign = 1.0 if self.monotone == "rising" else -1.0
            w, v, c = _size(w), sign * _size(v), sign * _size(c)
        h = jnp.multiply.outer(z, w)
        h = jnp.tanh(h + jnp.broadcast_to(self.b[...], h.shape))
        inner = h @ v + c * z + self.d[...]
        return self.low + (self.high - self.low) * jax.nn.sigmoid(inner)


def _size(x: Array) -> Array:
    """|x|, smooth."""
    return jnp.sqrt(x**2 + 1e-4)


class Combination(Term):
    """Σ_k c_k φ_k(z), of functions of a library; z in units of `unit`, coefficients in its own."""

    def __init__(
        self,
        of: str,
        reach: tuple[float, float],
        functions: Mapping[str, Callable[[Array], Array]],
        start: Mapping[str, float],
        unit: float = 1.0,
    ):
        dtype = jnp.result_type(float)
        self.of, self.reach, self.unit = of, reach, unit
        self.names, self.functions = tuple(functions), tuple(functions.values())
        self.c = nnx.Param(jnp.array([start[name] for name in functions], dtype))

    def __call__(self, z: Array) -> Array:
        """Its value at each z."""
        z = jnp.asarray(z) / self.unit
        parts = [f(z) * c for f, c in zip(self.functions, self.c[...], strict=True)]
        return jnp.asarray(sum(parts[1:], parts[0]))


class Switch(Term):
    """1 / (1 + exp(-(z - delay) / spread)): what begins after a delay."""

    def __init__(self, of: str, reach: tuple[float, float], delay: float, spread: float):
        dtype = jnp.result_type(float)
        self.of, self.reach = of, reach
        self.delay = nnx.Param(jnp.asarray(delay, dtype))
        self.log_spread = nnx.Param(jnp.log(jnp.asarray(spread, dtype)))

    def __call__(self, z: Array) -> Array:
        """Its value at each z."""
        return jax.nn.sigmoid((jnp.asarray(z) - self.delay[...]) * jnp.exp(-self.log_spread[...]))
