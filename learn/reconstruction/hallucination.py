"""What a reconstruction takes away and what it makes up: lesions of known place and contrast."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.signal import convolve
from jaxtyping import Array, Float, Inexact, Int, PRNGKeyArray

from mrphys.errors import InputError, Problem
from mrphys.units import check_count, check_range

Image = Inexact[Array, "x y"]
Map = Float[Array, "x y"]

TISSUE = 0.4
"""Of an image's root mean square: what is brighter is tissue."""
GAP, RING = 2.0, 2.0
"""Voxels between a lesion and the ring that it is compared with, and the ring's width."""
EDGE = 4.0
"""Steepness of outlines, 1/voxels."""
HALF = 0.5
"""A lesion of which less than this is left is removed; of which more is there is invented."""


class Lesions(NamedTuple):
    """Spots in which an image is 1 + contrast times itself, sharp but for half a voxel.

    at        voxels of their centres
    radius    voxels
    contrast  above 0 brighter, -1 a void
    rim       signal piled up within a voxel or so outside, in parts of what was there: as metal
              displaces what it does not let be seen
    """

    at: Int[Array, "lesions 2"]
    radius: float
    contrast: float
    rim: float = 0.0


def draw_lesions(
    x: Image, key: PRNGKeyArray, *, count: int = 3, radius: float = 1.5, contrast: float = 0.6,
    rim: float = 0.0,
) -> Lesions:  # fmt: skip
    """Lesions at random places of an image whose neighbourhood, ring included, is all tissue, their
    neighbourhoods apart; where there is no such place left, at the one that is most so.

    Raises InputError for fewer than one lesion, radii below half a voxel, contrasts below -1 or 0.
    """
    check_count("draw_lesions: count", count)
    check_range("draw_lesions: radius", radius, 0.5, min(x.shape) / 4, "voxels", "millimetres")
    check_range("draw_lesions: contrast", contrast, -1.0, 100.0, "(ratio)", "per cent")
    if contrast == 0:
        raise InputError(Problem("draw_lesions: contrast", "0", "a lesion that can be seen"))
    reach = _reach(radius)
    least, enough = _least_around(jnp.abs(x), reach), _bright(x)
    chance = jax.random.gumbel(key, x.shape, least.dtype)
    score = jnp.where(least > enough, 1e3 + chance, least / enough)
    axes = [jnp.arange(n) for n in x.shape]

    def place(score: Map, _) -> tuple[Map, Int[Array, "2"]]:
        best = jnp.argmax(score)
        at = jnp.stack([best // x.shape[1], best % x.shape[1]])
        near = [jnp.abs(axis - i) <= 2 * reach for axis, i in zip(axes, at, strict=True)]
        return jnp.where(near[0][:, None] & near[1][None], score - 2e3, score), at

    return Lesions(jax.lax.scan(place, score, length=count)[1], radius, contrast, rim)


def insert_lesions(x: Image, lesions: Lesions) -> Image:
    """The image with them, one upon the other."""
    axes = [jnp.arange(n, dtype=x.real.dtype) for n in x.shape]

    def one(x: Image, at: Int[Array, "2"]) -> tuple[Image, None]:
        far = jnp.hypot(
            *jnp.meshgrid(*(axis - i for axis, i in zip(axes, at, strict=True)), indexing="ij")
        )
        inside = jax.nn.sigmoid(EDGE * (lesions.radius - far))
        outside = jnp.exp(-2 * (far - lesions.radius - 0.75) ** 2)
        factor = 1 + lesions.contrast * inside + lesions.rim * outside
        return x * factor.astype(x.real.dtype), None

    return jax.lax.scan(one, x, lesions.at)[0]


def visibility(x: Image, radius: float) -> tuple[Map, Map]:
    """Of a spot at each voxel: the mean of |x| within `radius` less that of a ring around it, and
    the ring's."""
    reach = _reach(radius)
    at = np.arange(-reach, reach + 1)
    far = np.hypot(at[:, None], at[None])
    spot = far <= radius + 0.25
    ring = (far >= radius + GAP) & (far <= radius + GAP + RING)
    spot, ring = (jnp.asarray(part / part.sum(), x.real.dtype) for part in (spot, ring))
    inside, around = (convolve(jnp.abs(x), k, "same", method="direct") for k in (spot, ring))
    return inside - around, around


def recovered(
    found: Image, truth: Image, without: Image, lesions: Lesions
) -> Float[Array, " lesions"]:
    """The part of each lesion that a reconstruction shows: 1 as in the truth, 0 as where it is not,

        (v(found) - v(without)) / (v(truth) - v(without)),   v the `visibility` at its place

    of a reconstruction `found` of data of `truth`, which is `without` with lesions inserted. Below
    a half it is removed.
    """
    seen, there, absent = (
        visibility(image, lesions.radius)[0][tuple(lesions.at.T)]
        for image in (found, truth, without)
    )
    return (seen - absent) / (there - absent)


def invented(found: Image, truth: Image, like: Lesions) -> Int[Array, ""]:
    """How many lesions a reconstruction shows, of the radius, contrast and rim of some, that the
    truth does not have: places of tissue, a radius apart or more, where

        v(found) - v(truth) is half or more of what v of such a lesion would be

    in level tissue as bright as the truth's ring there, v the `visibility`.
    """
    radius, reach = like.radius, _reach(like.radius)
    flat = jnp.ones((2 * reach + 1,) * 2, truth.real.dtype)
    middle = jnp.full((1, 2), reach)
    whole = visibility(insert_lesions(flat, like._replace(at=middle)), radius)[0][reach, reach]
    (seen, _), (there, around) = (visibility(image, radius) for image in (found, truth))
    tissue = _least_around(jnp.abs(truth), reach) > _bright(truth)
    part = jnp.where(tissue, (seen - there) / (whole * jnp.where(tissue, around, 1.0)), 0.0)
    window = (2 * int(np.ceil(radius)) + 1,) * 2
    highest = jax.lax.reduce_window(part, -jnp.inf, jax.lax.max, window, (1, 1), "same")
    return jnp.sum((part >= HALF) & (part == highest))


def _reach(radius: float) -> int:
    """Voxels from a lesion's centre to the end of its ring."""
    return int(np.ceil(radius + GAP + RING))


def _bright(x: Image) -> Float[Array, ""]:
    return TISSUE * jnp.sqrt(jnp.mean(jnp.abs(x) ** 2))


def _least_around(size: Map, reach: int) -> Map:
    """The lowest within so many voxels; 0 beyond the edges."""
    padded = jnp.pad(size, reach)
    window = (2 * reach + 1,) * 2
    return jax.lax.reduce_window(padded, jnp.inf, jax.lax.min, window, (1, 1), "valid")
