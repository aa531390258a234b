"""Where a search begins: the nearest of a dictionary of signals, made for each chunk of voxels."""

from typing import TYPE_CHECKING

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

if TYPE_CHECKING:
    from mrphys.voxelwise import Chunk

ENTRIES = {1: 64, 2: 24, 3: 10, 4: 6}
"""Of a dictionary along each of so many unknowns; 4 for more."""


def nearest_start(
    chunk: "Chunk", measured: tuple[Float[Array, "readouts voxels"], ...]
) -> list[Float[Array, " voxels"]]:
    """For each voxel the entry whose signals, in the best combination, come closest; of one
    unknown, the place between entries.

        argmax over p of Σ_k (q_k(p) · x)²,   q_k the basis at p made orthonormal

    by one matrix product. The dictionary is of the chunk's mean known parameters; where they vary
    between voxels and data are complex, magnitudes are compared, which know nothing of phases.
    """
    ask = chunk.ask
    if not ask.unknowns:
        return []
    shares = _grid(len(ask.unknowns))
    p = [
        bound.at_share(jnp.asarray(share, chunk.unit.dtype))
        for bound, share in zip(ask.bounds, shares, strict=True)
    ]
    entries = shares.shape[1]
    mean = jax.tree.map(lambda leaf: jnp.mean(leaf, axis=0, keepdims=True), chunk.known)
    known = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (entries, *leaf.shape[1:])), mean)
    data = ask.data
    if ask.start_by_magnitude:
        data, measured = "magnitude", (jnp.hypot(*measured),)
    one = jnp.ones(entries, p[0].dtype)
    alike = type(chunk)(chunk.theta, known, one, ask._replace(data=data))
    basis = [jnp.concatenate(rows) for rows in alike.directions(alike.basis(p))]
    x = jnp.concatenate(measured)
    if ask.amplitudes:
        seen = [part.T @ x for part in _orthonormal(basis)]
        score = sum((s**2 for s in seen[1:]), seen[0] ** 2)
        if chunk.used is not None and len(ask.amplitudes) == 1:
            used = jnp.concatenate([chunk.used] * len(measured))
            score = score / (_orthonormal(basis)[0].T ** 2 @ used)
    else:
        size = jnp.sum(basis[0] ** 2, axis=0)[:, None]
        score = 2 * (basis[0].T @ (x * chunk.unit[None])) - size
    # `argmax` compares one number at a time (jaxlib 0.10.2, processors).
    best = jnp.max(score, axis=0)[None]
    nearest = jnp.min(jnp.where(score == best, jnp.arange(entries)[:, None], entries - 1), axis=0)
    share = [jnp.asarray(row, chunk.unit.dtype)[nearest] for row in shares]
    if len(share) == 1:
        share = [share[0] + _beside(score, nearest) / entries]
    return [jnp.log(s) - jnp.log1p(-s) for s in share]


def _beside(score: Float[Array, "entries voxels"], at: Array) -> Float[Array, " voxels"]:
    """Where between entries the parabola through the highest score and its neighbours' peaks."""
    last = score.shape[0] - 1
    lower, here, upper = (
        jnp.take_along_axis(score, jnp.clip(at + i, 0, last)[None], axis=0)[0] for i in (-1, 0, 1)
    )
    bend = 2 * here - lower - upper
    inner = (at > 0) & (at < last) & (bend > 0)
    return jnp.where(inner, 0.5 * (upper - lower) / jnp.where(inner, bend, 1.0), 0.0)


def _grid(unknowns: int) -> np.ndarray:
    """(unknowns, entries): every combination of evenly spaced shares of the bounds' ranges."""
    each = ENTRIES.get(unknowns, 4)
    line = (np.arange(each) + 0.5) / each
    return np.stack(np.meshgrid(*[line] * unknowns, indexing="ij")).reshape(unknowns, -1)


def _orthonormal(parts: list[Array]) -> list[Array]:
    """Of each column of equal-sized arrays, by Gram and Schmidt."""
    found: list[Array] = []
    for part in parts:
        left = part
        for other in found:
            left = left - jnp.sum(other * left, axis=0)[None] * other
        norm = jnp.sqrt(jnp.sum(left**2, axis=0))
        kept = (norm > jnp.sqrt(jnp.finfo(norm.dtype).eps) * jnp.max(norm))[None]
        found.append(jnp.where(kept, left / jnp.where(kept, norm[None], 1.0), 0.0))
    return found
