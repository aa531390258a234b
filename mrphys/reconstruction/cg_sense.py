"""CG-SENSE: least squares by conjugate gradients."""

from collections.abc import Callable
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mrphys.reconstruction.data_term import DataTerm
from mrphys.reconstruction.method import Found, Method, Stop

Images = Complex[Array, "..."]


class CGSense(Method):
    """x = argmin ½|A x - y|² + ½λ|x|², the solution of (AᴴA + λ) x = Aᴴ y.

    λ = 0 unless given or found. Ends where |(AᴴA + λ) x - Aᴴ y| is the tolerance times |Aᴴ y|: few
    iterations regularise by themselves. R = ½|x|². Differentiable in y and all that A is made of,
    in both modes, as the solution is (by the implicit function theorem: right where the tolerance
    is met).

    Pruessmann et al. 2001, doi:10.1002/mrm.1241; Hestenes, Stiefel 1952, doi:10.6028/jres.049.044.
    """

    needs_weight: ClassVar[bool] = False
    iterations: ClassVar[int] = 30
    tolerance: ClassVar[float] = 1e-4

    def check(self, shape, axes):
        pass

    def energy(self, x, axes):
        return jnp.sum(x.real**2 + x.imag**2) / 2

    def search(self, data, weight, start, stop, key):
        return solve(data, weight, start, stop, 0.0)


def solve(
    data: DataTerm,
    weight: Float[Array, ""],
    start: Images | None,
    stop: Stop,
    enough: float | Float[Array, ""],
) -> Found:
    """(N + λ) x = b from a start; ends too where |A x - y|² is no more than `enough`, which is
    known from 0 and with λ = 0 only: each step lowers it by α |r|²."""

    def matrix(pair):
        x = jax.lax.complex(*pair)
        return _pair(data.normal(x) + weight * x)

    squares, start, enough = jax.lax.stop_gradient((data.squares, start, jnp.asarray(enough)))

    def forward(matrix, pair):
        found = conjugate_gradients(matrix, pair, start, stop, squares - enough)
        return _pair(found.x), found[1:]

    def backward(matrix, pair):
        found = conjugate_gradients(matrix, pair, None, stop, jnp.inf)
        return _pair(found.x), found[1:]

    x, rest = jax.lax.custom_linear_solve(
        matrix, _pair(data.b), forward, backward, symmetric=True, has_aux=True
    )
    return Found(jax.lax.complex(*x), *rest)


def conjugate_gradients(
    matrix: Callable,
    b: tuple[Float[Array, "..."], Float[Array, "..."]],
    start: Images | None,
    stop: Stop,
    fall: float | Float[Array, ""],
) -> Found:
    """matrix(x) = b, of pairs of real and imaginary parts, until |r| <= tolerance |b|, or Σ α |r|²
    is `fall`."""
    wanted = jax.lax.complex(*b)

    def normal(x: Images) -> Images:
        return jax.lax.complex(*matrix(_pair(x)))

    r = wanted if start is None else wanted - normal(start)
    start = jnp.zeros_like(wanted) if start is None else start
    scale, rr = _squares(wanted), _squares(r)
    tiny = jnp.finfo(rr.dtype).tiny
    limit = stop.tolerance**2 * scale
    history = jnp.full(stop.iterations, jnp.nan, rr.dtype)

    def unfinished(now):
        count, _, _, _, rr, fallen, _ = now
        return (count < stop.iterations) & (rr > limit) & (fallen < fall)

    def step(now):
        count, x, r, p, rr, fallen, history = now
        q = normal(p)
        alpha = rr / jnp.maximum(jnp.sum(p.real * q.real + p.imag * q.imag), tiny)
        x, r = x + alpha * p, r - alpha * q
        new = _squares(r)
        history = history.at[count].set(jnp.sqrt(new / jnp.maximum(scale, tiny)))
        return (
            count + 1,
            x,
            r,
            r + (new / jnp.maximum(rr, tiny)) * p,
            new,
            fallen + alpha * rr,
            history,
        )

    begin = jnp.zeros((), int), start, r, r, rr, jnp.zeros_like(rr), history
    count, x, _, _, rr, fallen, history = jax.lax.while_loop(unfinished, step, begin)
    return Found(x, count, history, (rr <= limit) | (fallen >= fall))


def _pair(x: Images) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    return x.real, x.imag


def _squares(x: Images) -> Float[Array, ""]:
    return jnp.sum(x.real**2 + x.imag**2)
