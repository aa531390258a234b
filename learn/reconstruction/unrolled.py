"""Iterations learned: what data say and what images look like, by turns."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Complex, Float, Inexact

from learn.reconstruction.scans import level
from learn.reconstruction.unet import UNet
from mrphys.encoding import Linear

Image = Inexact[Array, "..."]


def conjugate_gradients(matvec: Callable[[Image], Image], b: Image, iterations: int) -> Image:
    """So many steps from 0 towards the x of matvec(x) = b, matvec Hermitian, positive definite."""

    def squared(r: Image) -> Float[Array, ""]:
        return jnp.sum(jnp.abs(r) ** 2)

    def step(_, state):
        x, r, p, rr = state
        q = matvec(p)
        curvature = jnp.sum((jnp.conj(p) * q).real)
        some = (rr > 0) & (curvature > 0)
        alpha = jnp.where(some, rr / jnp.where(some, curvature, 1.0), 0.0)
        x, r = x + alpha * p, r - alpha * q
        new = squared(r)
        beta = jnp.where(rr > 0, new / jnp.where(rr > 0, rr, 1.0), 0.0)
        return x, r, r + beta * p, new

    start = (jnp.zeros_like(b), b, b, squared(b))
    return jax.lax.fori_loop(0, iterations, step, start)[0]


def solve(matvec: Callable[[Image], Image], b: Image, iterations: int) -> Image:
    """`conjugate_gradients`, differentiated as the solution it approaches: with u the solution of
    matvec(u) = x̄, b̄ = u, and what matvec depends on takes -⟨u, ∂matvec(x)⟩. Nothing is kept of the
    steps.
    """

    def by_steps(matvec: Callable[[Image], Image], b: Image) -> Image:
        return conjugate_gradients(matvec, b, iterations)

    return jax.lax.custom_linear_solve(matvec, b, by_steps, transpose_solve=by_steps)


class MoDL(nnx.Module):
    """x_{k+1} = (AᴴA + λ)⁻¹ (Aᴴy + λ D(x_k)), D(x) = x + u(x) one U-Net in all `unrolls`.

    λ is learned; x_0 = Aᴴy.

    Aggarwal, Mani, Jacob 2019, doi:10.1109/TMI.2018.2865356.
    """

    def __init__(
        self, width: int = 32, depth: int = 2, unrolls: int = 5, iterations: int = 8, *,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.unet = UNet(width, depth, rngs=rngs)
        self.log_weight = nnx.Param(jnp.asarray(-3.0, jnp.result_type(float)))
        self.unrolls, self.iterations = unrolls, iterations

    def __call__(self, A: Linear, y: Complex[Array, "..."]) -> Complex[Array, "x y"]:
        size, normal = level(A, y), A.normal
        weight = jnp.exp(self.log_weight[...])
        x = back = A.H(y) / size
        for _ in range(self.unrolls):
            b = back + weight * (x + self.unet(x))
            x = solve(lambda v: normal(v) + weight * v, b, self.iterations)
        return size * x


class VariationalNetwork(nnx.Module):
    """x_{k+1} = x_k - η_k Aᴴ(A x_k - y) + u_k(x_k), a U-Net and a step for each of the `unrolls`.

    x_0 is what `start` steps of conjugate gradients make of Aᴴy, unfolded already.

    Sriram et al. 2020, doi:10.1007/978-3-030-59713-9_7, whose steps in k-space these are, seen
    from the image; coils are given with A.
    """

    def __init__(
        self, width: int = 12, depth: int = 2, unrolls: int = 8, start: int = 8, *, rngs: nnx.Rngs
    ):
        self.start = start
        self.unets = nnx.List([UNet(width, depth, rngs=rngs) for _ in range(unrolls)])
        self.steps = nnx.Param(jnp.ones((unrolls,), jnp.result_type(float)))

    def __call__(self, A: Linear, y: Complex[Array, "..."]) -> Complex[Array, "x y"]:
        size, normal = level(A, y), A.normal
        back = A.H(y) / size
        x = conjugate_gradients(normal, back, self.start)
        for i, unet in enumerate(self.unets):
            x = x - self.steps[...][i] * (normal(x) - back) + unet(x)
        return size * x
