"""Patterns of lines (1, n) and points (n, n) on a grid, of exactly so many samples."""

from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from learn.reconstruction.scans import CENTRE
from mrphys.errors import InputError, Problem

Pattern = Bool[Array, "x y"]
FLOOR = 0.05
"""Of the chance at the edge of k-space, beside that of the centre."""


def shape_of(size: int, kind: Literal["lines", "points"]) -> tuple[int, int]:
    """Lines along the first axis are one entry of it."""
    return (1, size) if kind == "lines" else (size, size)


def radius(shape: tuple[int, int]) -> Float[np.ndarray, "x y"]:
    """|k| / kmax of each entry, along the axes that have more than one."""
    at = [np.abs(np.arange(n) - n // 2) / max(n / 2, 1) for n in shape]
    return np.hypot(at[0][:, None], at[1][None])


def centre_of(shape: tuple[int, int], part: float | int = CENTRE) -> Bool[np.ndarray, "x y"]:
    """The middle of k-space: |k| below `part` of the largest, three lines across at the least."""
    return radius(shape) < max(part, 2 / max(shape))


def first(score: Float[Array, "x y"], count: int | Int[Array, ""]) -> Pattern:
    """The `count` entries of the largest scores; of equals those that come first."""
    rank = jnp.argsort(jnp.argsort(-score.ravel(), stable=True))
    return (rank < count).reshape(score.shape)


def variable_density(
    shape: tuple[int, int], count: int, key: PRNGKeyArray, *, centre: float | int = CENTRE
) -> Pattern:
    """At random without replacement, chances as (1 - |k| / kmax)² + 0.05, the centre whole.

    Of lines it is `learn.reconstruction.line_mask`. Raises InputError for fewer samples than the
    centre's or more than all.
    """
    r, middle = radius(shape), _checked("variable_density", shape, count, centre)
    chance = np.maximum(1 - r, 0) ** 2 + FLOOR
    score = jnp.asarray(np.log(chance)) + jax.random.gumbel(key, (r.size,)).reshape(shape)
    return first(jnp.where(jnp.asarray(middle), jnp.inf, score), count)


def lowest(shape: tuple[int, int], count: int) -> Pattern:
    """The `count` entries nearest to the centre of k-space, and none beyond: an image without
    aliases, blurred. Raises InputError for fewer than three across, or more than all."""
    _checked("lowest", shape, count, 0)
    return first(jnp.asarray(-radius(shape)), count)


def equispaced(shape: tuple[int, int], count: int, *, centre: float | int = CENTRE) -> Pattern:
    """As evenly as the number allows, the centre whole: lines at steps rounded to the grid; points
    a lattice (every fourth is every other along both axes), what does not fill one from inside
    outwards. Raises InputError as `variable_density`.

    Bayer 1973, IEEE Int. Conf. Commun. 1, 11-15 (the order in which lattices are filled).
    """
    middle = _checked("equispaced", shape, count, centre)
    if 1 in shape:
        free = np.flatnonzero(~middle.ravel())
        others = count - int(middle.sum())
        mask = middle.ravel().copy()
        mask[free[((np.arange(others) + 0.5) * free.size / max(others, 1)).astype(int)]] = True
        return jnp.asarray(mask.reshape(shape))
    order = -_lattices(shape) - 0.5 * radius(shape) / 2
    return first(jnp.asarray(np.where(middle, np.inf, order)), count)


def _lattices(shape: tuple[int, int], bits: int = 4) -> Float[np.ndarray, "x y"]:
    """Of each point, in which turn of 4^bits a lattice that is halved again and again takes it."""
    x, y = (np.arange(n) - n // 2 for n in shape)
    x, y = np.broadcast_arrays(x[:, None], y[None])
    turn = np.zeros(shape)
    for i in range(bits):
        one, other = (x >> i) & 1, (y >> i) & 1
        turn += (2 * (one ^ other) + other) * 4.0 ** (bits - 1 - i)
    return turn


def _checked(
    where: str, shape: tuple[int, int], count: int, centre: float | int
) -> Bool[np.ndarray, "x y"]:
    middle = centre_of(shape, centre)
    least, most = int(middle.sum()), int(np.prod(shape))
    if not least <= count <= most:
        expected = f"{least} (the centre's) to {most}"
        raise InputError(Problem(f"{where}: count", str(count), expected, "an acceleration given"))
    return middle
