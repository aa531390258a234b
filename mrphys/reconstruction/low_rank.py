"""Low rank: series whose voxels' courses are alike, everywhere or from block to block."""

import math
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from mrphys.errors import InputError, Problem
from mrphys.reconstruction.method import Method
from mrphys.reconstruction.proximal import fista
from mrphys.units import check_count

Images = Complex[Array, "..."]
Matrices = Complex[Array, "blocks frames voxels"]


class LowRank(Method):
    """x = argmin ½|A x - y|² + λ Σ_b |x_b|_*, by FISTA.

    x_b are the frames × voxels of blocks of space, |·|_* the sum of singular values. Frames, or
    images of a subspace, are the axis before those of space.

    block   voxels along each axis; None: all of space one block, globally low rank
    shifts  whether each iteration moves the blocks by chance, which takes their edges away and
            leaves a series of a little more than the least energy

    Trzasko, Manduca 2011, Proc. ISMRM 19:4371; Zhang, Pauly, Levesque 2015, doi:10.1002/mrm.25161.
    """

    block: int | None = 8
    shifts: bool = True

    needs_weight: ClassVar[bool] = True
    iterations: ClassVar[int] = 100
    tolerance: ClassVar[float] = 1e-4

    def __check_init__(self):
        if self.block is not None:
            check_count("LowRank: block", self.block, 2)

    def check(self, shape, axes):
        if len(shape) <= axes or shape[-axes - 1] < 2:
            found = f"images of shape {shape}, {axes} axes of space"
            raise InputError(Problem("low-rank", found, "two frames or more before those of space"))

    def energy(self, x, axes):
        return jnp.sum(jnp.linalg.svd(self._blocks(x, axes), compute_uv=False))

    def proximal(self, x: Images, axes: int, by: Float[Array, ""], key: PRNGKeyArray) -> Images:
        """Singular values of each block shrunk."""
        where = tuple(range(-axes, 0))
        moves = self.shifts and self.block is not None
        by_voxels = jax.random.randint(key, (axes,), 0, self.block or 1)
        moved = jnp.roll(x, by_voxels, where) if moves else x
        made = self._whole(shrink_singular(self._blocks(moved, axes), by), x.shape, axes)
        return jnp.roll(made, -by_voxels, where) if moves else made

    def search(self, data, weight, start, stop, key):
        def proximal(x, by, key):
            return self.proximal(x, data.axes, by, key)

        return fista(data, proximal, weight, start, stop, key)

    def _sides(self, shape: tuple[int, ...]) -> tuple[tuple[int, int], ...]:
        """Blocks along each axis, and voxels of one."""
        sides = [min(self.block or n, n) for n in shape]
        return tuple((-(-n // side), side) for n, side in zip(shape, sides, strict=True))

    def _blocks(self, x: Images, axes: int) -> Matrices:
        """Of all before frames too; where space ends within a block, zeros."""
        frames, shape = x.shape[-axes - 1], x.shape[-axes:]
        sides = self._sides(shape)
        more = [(0, count * side - n) for (count, side), n in zip(sides, shape, strict=True)]
        x = jnp.pad(x.reshape(-1, frames, *shape), [(0, 0), (0, 0), *more])
        x = x.reshape(-1, frames, *(n for pair in sides for n in pair))
        counts, inner = range(2, 2 + 2 * axes, 2), range(3, 2 + 2 * axes, 2)
        x = jnp.transpose(x, (0, *counts, 1, *inner))
        return x.reshape(-1, frames, math.prod(side for _, side in sides))

    def _whole(self, blocks: Matrices, shape: tuple[int, ...], axes: int) -> Images:
        """The inverse of `_blocks`."""
        frames, space = shape[-axes - 1], shape[-axes:]
        counts, inner = zip(*self._sides(space), strict=True)
        x = blocks.reshape(-1, *counts, frames, *inner)
        order = [n for i in range(axes) for n in (1 + i, 2 + axes + i)]
        x = jnp.transpose(x, (0, 1 + axes, *order))
        x = x.reshape(-1, frames, *(n * m for n, m in zip(counts, inner, strict=True)))
        return x[(..., *(slice(0, n) for n in space))].reshape(shape)


def shrink_singular(m: Matrices, by: Float[Array, ""]) -> Matrices:
    """U max(S - s, 0) Vᴴ of each U S Vᴴ, by eigenvalues of the smaller of M Mᴴ and Mᴴ M: of
    singular values below the square root of rounding, of the largest, little is known."""
    if m.shape[1] <= m.shape[2]:
        gram = jnp.einsum("bfv,bgv->bfg", m, jnp.conj(m))
        return jnp.einsum("bfg,bgv->bfv", _share_kept(gram, by), m)
    gram = jnp.einsum("bfv,bfw->bvw", jnp.conj(m), m)
    return jnp.einsum("bfv,bvw->bfw", m, _share_kept(gram, by))


@jax.custom_jvp
def _share_kept(gram: Complex[Array, "blocks n n"], by: Float[Array, ""]) -> Array:
    """f(G) = max(1 - s / sqrt(G), 0) of Hermitian matrices."""
    values, vectors = jnp.linalg.eigh(gram)
    return _made(vectors, _kept(values, by)[0].astype(gram.dtype)[..., None, :])


def _kept(w: Array, by: Array) -> tuple[Array, Array, Array]:
    """f, df/dw and df/ds of eigenvalues."""
    inside = w > by**2
    root = jnp.sqrt(jnp.where(inside, w, 1))
    parts = 1 - by / root, by / (2 * root**3), -1 / root
    share, slope, in_threshold = (jnp.where(inside, part, 0) for part in parts)
    return share, slope, in_threshold


def _made(vectors: Array, scale: Array) -> Array:
    return jnp.einsum("bij,bkj->bik", vectors * scale, jnp.conj(vectors))


@_share_kept.defjvp
def _share_kept_jvp(primals, tangents):
    """U (K ∘ Uᴴ dG U) Uᴴ, K the divided differences of f: finite where eigenvalues meet too.

    Higham 2008, Functions of Matrices, theorem 3.11.
    """
    (gram, by), (d_gram, d_by) = primals, tangents
    w, u = jnp.linalg.eigh(gram)
    share, slope, in_threshold = _kept(w, by)
    apart = w[:, :, None] - w[:, None, :]
    near = jnp.abs(apart) <= 1e-6 * jnp.max(jnp.abs(w), axis=1)[:, None, None]
    middle = (slope[:, :, None] + slope[:, None, :]) / 2
    ratio = (share[:, :, None] - share[:, None, :]) / jnp.where(near, 1, apart)
    turned = jnp.einsum("bji,bjk,bkl->bil", jnp.conj(u), d_gram, u)
    moved = jnp.where(near, middle, ratio) * turned
    moved = moved + jnp.eye(w.shape[1])[None] * (in_threshold * d_by)[:, None, :]
    found = jnp.einsum("bij,bjk,blk->bil", u, moved, jnp.conj(u))
    return _made(u, share.astype(gram.dtype)[:, None, :]), found
