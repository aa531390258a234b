"""Eigenvalues and eigenvectors of symmetric 3 x 3 matrices, a matrix to a processor lane."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

SWEEPS = 5
"""Of three rotations each: the off-diagonal squares at every one, to nothing in float64."""
PAIRS = ((0, 1), (0, 2), (1, 2))


@jax.custom_jvp
def principal_axes(
    matrix: Float[Array, "6 voxels"],
) -> tuple[Float[Array, "3 voxels"], Float[Array, "3 3 voxels"]]:
    """Eigenvalues, the greatest first, and their eigenvectors (which, xyz, voxels), of matrices
    given as xx, yy, zz, xy, xz, yz.

    By Jacobi's rotations. Differentiable everywhere: where eigenvalues are equal their vectors are
    arbitrary, and what would turn one into the other has derivative 0.

    >>> principal_axes(jnp.array([[1.0], [2.0], [2.0], [0.0], [0.0], [1.0]]))[0].ravel()
    Array([3., 1., 1.], dtype=float64)
    """
    one, zero = jnp.ones_like(matrix[0]), jnp.zeros_like(matrix[0])
    axes = [[one if i == j else zero for j in range(3)] for i in range(3)]
    rows = _rows([*matrix])
    (rows, axes), _ = jax.lax.scan(lambda now, _: (_sweep(*now), None), (rows, axes), length=SWEEPS)
    values = [rows[i][i] for i in range(3)]
    for i, j in ((0, 1), (1, 2), (0, 1)):
        swap = values[i] < values[j]
        values[i], values[j] = _swapped(swap, values[i], values[j])
        pairs = [_swapped(swap, a, b) for a, b in zip(axes[i], axes[j], strict=True)]
        axes[i], axes[j] = [a for a, _ in pairs], [b for _, b in pairs]
    return jnp.stack(values), jnp.stack([jnp.stack(axis) for axis in axes])


@principal_axes.defjvp
def _(primals, tangents):
    values, axes = principal_axes(*primals)
    moved = jnp.stack([jnp.stack(row) for row in _rows([*tangents[0]])])
    half = jnp.sum(axes[:, :, None] * moved[None], axis=1)
    seen = jnp.sum(half[:, None] * axes[None], axis=2)
    gap = values[:, None] - values[None]
    apart = gap != 0
    turn = jnp.where(apart, seen / jnp.where(apart, gap, 1.0), 0.0)
    slopes = jnp.stack([seen[i, i] for i in range(3)])
    return (values, axes), (slopes, jnp.sum(turn[:, :, None] * axes[None], axis=1))


def _rows(six: list[Array]) -> list[list[Array]]:
    xx, yy, zz, xy, xz, yz = six
    return [[xx, xy, xz], [xy, yy, yz], [xz, yz, zz]]


def _swapped(swap: Array, a: Array, b: Array) -> tuple[Array, Array]:
    return jnp.where(swap, b, a), jnp.where(swap, a, b)


def _sweep(rows: list[list[Array]], axes: list[list[Array]]) -> tuple:
    """Each off-diagonal once turned to 0."""
    rows, axes = [[*row] for row in rows], [[*axis] for axis in axes]
    for p, q in PAIRS:
        r = 3 - p - q
        off = rows[p][q]
        there = off != 0
        half = (rows[q][q] - rows[p][p]) / jnp.where(there, 2 * off, 1.0)
        sign = jnp.where(half < 0, -1.0, 1.0).astype(off.dtype)
        tangent = jnp.where(there, sign / (jnp.abs(half) + jnp.sqrt(1 + half**2)), 0.0)
        cosine = 1 / jnp.sqrt(1 + tangent**2)
        sine = tangent * cosine
        rows[p][p], rows[q][q] = rows[p][p] - tangent * off, rows[q][q] + tangent * off
        rows[p][q] = rows[q][p] = jnp.zeros_like(off)
        a, b = rows[p][r], rows[q][r]
        rows[p][r] = rows[r][p] = cosine * a - sine * b
        rows[q][r] = rows[r][q] = sine * a + cosine * b
        first, second = axes[p], axes[q]
        axes[p] = [cosine * x - sine * y for x, y in zip(first, second, strict=True)]
        axes[q] = [sine * x + cosine * y for x, y in zip(first, second, strict=True)]
    return rows, axes
