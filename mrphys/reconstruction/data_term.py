"""½|A x - y|², as what is asked of it again and again."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from mrphys.encoding import Encoding, Linear
from mrphys.encoding.encoding import Gram, turned
from mrphys.encoding.sampling import Cartesian

MARGIN = 1.05
"""Of the largest eigenvalue, which power iteration approaches from below."""


class DataTerm(eqx.Module):
    """½⟨x, N x⟩ - Re⟨b, x⟩ + ½|y|², N = AᴴA, b = Aᴴ y, its gradient N x - b.

    Axes of space are in the order in which N costs least: it is for `turned` images, and what is
    found is turned `back`. No regularisation here knows one axis of space from another.

    normal   N
    b        Aᴴ y
    squares  |y|², of what was sampled
    count    M, how many data that is
    bound    no eigenvalue of N is larger
    axes     how many of the last axes of x are of space
    order    of them
    """

    normal: Callable[[Complex[Array, "..."]], Complex[Array, "..."]]
    b: Complex[Array, "..."]
    squares: Float[Array, ""]
    count: Float[Array, ""]
    bound: Float[Array, ""]
    axes: int = eqx.field(static=True)
    order: tuple[int, ...] = eqx.field(static=True)

    def turned(self, x: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """From the order of A's axes to this one."""
        return turned(x, self.order)

    def back(self, x: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """From this order to that of A's axes."""
        return turned(x, tuple(sorted(range(len(self.order)), key=self.order.__getitem__)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of images, as A has them."""
        return jax.eval_shape(self.back, self.b).shape


def data_term(A: Linear, y: Complex[Array, "..."]) -> DataTerm:
    """Of data y."""
    b, normal = A.H(y), A.normal
    squares = power(A, y)
    count = jnp.sum(jnp.broadcast_to(sampled(A, y), y.shape), dtype=squares.dtype)
    axes = b.ndim if A.axes is None else A.axes
    order = tuple(range(axes))
    if isinstance(normal, Gram):
        normal, order = normal.in_order, normal.order
    b = turned(b, order)
    return DataTerm(normal, b, squares, count, largest(A, normal, b), axes, order)


def misfit(A: Linear, x: Complex[Array, "..."], y: Complex[Array, "..."]) -> Float[Array, ""]:
    """|A x - y|², where samples were taken."""
    return power(A, A(x) - y)


def power(A: Linear, y: Complex[Array, "..."]) -> Float[Array, ""]:
    """|y|², where samples were taken; not finite where any number is not, a sample or none."""
    each = y.real**2 + y.imag**2
    return jnp.sum(jnp.where(sampled(A, y), each, 0 * each))


def sampled(A: Linear, y: Complex[Array, "..."]) -> Bool[Array, "..."]:
    """Which data are samples: all but those that the operator says are none."""
    taken = A.taken
    return taken.reshape(*[1] * (y.ndim - taken.ndim), *taken.shape)


def largest(
    A: Linear,
    normal: Callable[[Complex[Array, "..."]], Complex[Array, "..."]],
    like: Complex[Array, "..."],
    iterations: int = 15,
) -> Float[Array, ""]:
    """A bound of the eigenvalues of AᴴA: on a grid max w² max_r Σ|c|², which holds for any mask,
    else by power iteration from noise, with a margin of 5 %."""
    if isinstance(A, Encoding) and A.terms is None and isinstance(A.sampling, Cartesian):
        power = jnp.max(A.sampling.weight**2)
        if A.coils is None:
            return power
        return power * jnp.max(jnp.sum(A.coils.real**2 + A.coils.imag**2, axis=0))
    real, imaginary = jax.random.normal(jax.random.key(0), (2, *like.shape), like.real.dtype)

    def turn(_, v):
        v = normal(v)
        return v / jnp.linalg.norm(v.ravel())

    v = jax.lax.fori_loop(0, iterations, turn, jax.lax.complex(real, imaginary))
    return MARGIN * jnp.linalg.norm(normal(v).ravel())
