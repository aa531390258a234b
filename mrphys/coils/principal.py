"""The largest eigenvalue of many small Hermitian matrices at once."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

TINY = 1e-30


def principal(
    matrices: Complex[Array, "coils coils voxels"],
    start: Complex[Array, " coils"],
    iterations: int,
) -> tuple[Float[Array, " voxels"], Complex[Array, "coils voxels"]]:
    """Largest eigenvalues and their unit eigenvectors, whose inner product with `start` is real
    and not negative; 0 where the matrix is 0.

    Power iteration of the squared matrix: the error falls as (λ₂ / λ₁)^(2 iterations), and that of
    the eigenvalue, a Rayleigh quotient, as its square. Voxels lie last, so that arithmetic runs
    along them.
    """
    weight = jnp.sum(matrices.real**2 + matrices.imag**2, axis=0)
    scaled = matrices * jax.lax.rsqrt(jnp.sum(weight, axis=0) + TINY)[None, None]
    squared = jnp.einsum("ijv,jkv->ikv", scaled, scaled)
    # the matrix's own heaviest column is never orthogonal to what is sought, `start` may be
    first = jnp.take_along_axis(scaled, jnp.argmax(weight, axis=0)[None, None], axis=1)[:, 0]

    def step(_: Any, v: Array) -> Array:
        return _unit(_applied(squared, v))

    v = jax.lax.fori_loop(0, iterations, step, _unit(first))
    value = jnp.sum((jnp.conj(v) * _applied(matrices, v)).real, axis=0)
    inner = jnp.sum(jnp.conj(start)[:, None] * v, axis=0)
    size = jnp.sqrt(inner.real**2 + inner.imag**2 + TINY)
    return value, v * (jnp.conj(inner) / size)[None]


def _applied(matrices: Array, v: Array) -> Array:
    return jnp.sum(matrices * v[None], axis=1)


def _unit(v: Array) -> Array:
    return v * jax.lax.rsqrt(jnp.sum(v.real**2 + v.imag**2, axis=0) + TINY)[None]
