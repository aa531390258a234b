"""What the methods have in common: min ½|A x - y|² + λ R(x), a search, where it ends."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float, Int, PRNGKeyArray

from mrphys.reconstruction.data_term import DataTerm


class Stop(NamedTuple):
    """Where a search ends: at a tolerance of what it watches, or after so many iterations. One
    that is to be differentiated in reverse mode takes all of them, at rest once it has arrived, its
    steps computed again on the way back."""

    iterations: int
    tolerance: float
    differentiable: bool = False


class Found(NamedTuple):
    """Where a search ended."""

    x: Complex[Array, "..."]
    iterations: Int[Array, ""]
    history: Float[Array, " iterations"]
    arrived: Bool[Array, ""]


class Method(eqx.Module):
    """A regularisation R with a search for x = argmin ½|A x - y|² + λ R(x). `needs_weight` says
    that there is no estimate without λ."""

    needs_weight: eqx.AbstractClassVar[bool]
    iterations: eqx.AbstractClassVar[int]
    tolerance: eqx.AbstractClassVar[float]

    @abstractmethod
    def check(self, shape: tuple[int, ...], axes: int) -> None:
        """Raises InputError unless made for images of this shape, `axes` of it of space."""

    @abstractmethod
    def energy(self, x: Complex[Array, "..."], axes: int) -> Float[Array, ""]:
        """R(x)."""

    @abstractmethod
    def search(
        self,
        data: DataTerm,
        weight: Float[Array, ""],
        start: Complex[Array, "..."] | None,
        stop: Stop,
        key: PRNGKeyArray,
    ) -> Found:
        """x of weight λ, from a start, or from 0."""


def iterate(
    step: Callable[[Any, Int[Array, ""]], tuple[Any, Float[Array, ""]]], start: Any, stop: Stop
) -> tuple[Any, Int[Array, ""], Float[Array, " iterations"], Bool[Array, ""]]:
    """step(state, k) → state, what is watched; until that is no more than the tolerance."""
    watched = jax.eval_shape(lambda: step(start, jnp.zeros((), int))[1])
    history = jnp.full(stop.iterations, jnp.nan, watched.dtype)
    begin = start, jnp.zeros((), int), history, jnp.zeros((), bool)

    def advance(now):
        state, count, history, _ = now
        state, value = step(state, count)
        return state, count + 1, history.at[count].set(value), value <= stop.tolerance

    if not stop.differentiable:
        return jax.lax.while_loop(lambda now: (now[1] < stop.iterations) & ~now[3], advance, begin)

    @jax.checkpoint
    def maybe(now, _):
        return jax.lax.cond(now[3], lambda now: now, advance, now), None

    return jax.lax.scan(maybe, begin, length=stop.iterations)[0]


def relative_change(new: Complex[Array, "..."], old: Complex[Array, "..."]) -> Float[Array, ""]:
    """|new - old| / |new|, which is watched only."""
    new, old = jax.lax.stop_gradient((new, old))
    size = jnp.linalg.norm(new.ravel())
    return jnp.linalg.norm((new - old).ravel()) / jnp.maximum(size, jnp.finfo(size.dtype).tiny)
