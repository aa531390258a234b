"""Images to learn from: heads that differ, with lesions, in any contrast, from maps at hand."""

from functools import cache
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Complex, Float, Int, PRNGKeyArray
from scipy import ndimage

from mrphys import phantom, steady_state
from mrphys.encoding import fft, ifft
from mrphys.tissue import literature_entry
from mrphys.units import check_count

FOV_MM = 240.0
SPACING, BLOCK, GAP = 3, 5, 1
"""mm between slices; slices of a block, and of the gap after it."""
ROLES = ("test", "train", "train", "validation", "train", "train")
"""Of one block after the other."""
LEAST_MM2 = 2500
"""Of brain in a slice."""
FARTHEST_MM = 31.0
NAMES = ("white_matter", "grey_matter", "csf", "adipose", "glioma", "oedema")
MAPS = ("white_matter", "grey_matter", "csf")

Image = Float[Array, "n n"]


class Atlas(NamedTuple):
    """Slices of a head on a grid twice as fine as the images made of them.

    fractions    of white and grey matter and CSF, in 255ths
    distance     from the brain, in eighths of a mm, at most 31 mm
    """

    fractions: Int[Array, "slices 3 n n"]
    distance: Int[Array, "slices n n"]


def atlas(size: int, role: Literal["train", "validation", "test"] = "train") -> Atlas:
    """Slices of the MNI brain (`mrphys.phantom.brain`), axial, coronal and sagittal, for images of
    size² voxels in a field of view of 240 mm.

    Blocks of slices belong to one role, 6 mm or more apart; of the symmetric template's halves one
    is used, so that no test slice is a training slice mirrored.
    """
    check_count("atlas: size", size, 16)
    volumes, fine = _volumes(), 2 * size
    fractions, distances = [], []
    for axis in range(3):
        stop = volumes[0].shape[axis] if axis else volumes[0].shape[0] // 2
        for i, at in enumerate(range(0, stop, SPACING)):
            block, place = divmod(i, BLOCK + GAP)
            if place >= BLOCK or ROLES[block % len(ROLES)] != role:
                continue
            maps = np.stack([volume.take(at, axis) for volume in volumes])
            if maps.sum() < LEAST_MM2:
                continue
            maps = np.stack([_on_grid(each, fine) for each in maps])
            away = np.asarray(ndimage.distance_transform_edt(maps.sum(0) < 0.5)) * FOV_MM / fine
            fractions.append(np.round(255 * np.clip(maps, 0, 1)).astype(np.uint8))
            distances.append(np.round(8 * np.minimum(away, FARTHEST_MM)).astype(np.uint8))
    return Atlas(jnp.asarray(np.stack(fractions)), jnp.asarray(np.stack(distances)))


@cache
def _volumes() -> list[np.ndarray]:
    brain = phantom.brain(1)
    return [np.asarray(getattr(brain, name).data) for name in MAPS]


def _on_grid(image: np.ndarray, n: int) -> np.ndarray:
    """Of 1 mm voxels, in the middle of the field of view."""
    width = FOV_MM / n
    axes = [(np.arange(n) - (n - 1) / 2) * width + (length - 1) / 2 for length in image.shape]
    smooth = ndimage.gaussian_filter(image, 0.3 * max(width, 1.0))
    return ndimage.map_coordinates(smooth, np.meshgrid(*axes, indexing="ij"), order=1)


def draw_image(of: Atlas, key: PRNGKeyArray) -> Complex[Array, "size size"]:
    """A slice, warped, with lesions in half of all, in a contrast, with a phase; of mean |x|² = 1.

    The warp is the flow of a smooth random velocity, after an affine map; relaxation times are the
    literature's with its spread; the contrast is a spin echo's, gradient echo's or inversion
    recovery's of random timing. What is seen is the spectrum of a grid twice as fine, cut off.
    """
    parts, modulation, rest = _head(of, key)
    signals = contrast(rest)
    x = _cut_off(sum(parts[name] * signals[j] for j, name in enumerate(NAMES)) * modulation)
    return x / jnp.sqrt(jnp.mean(jnp.abs(x) ** 2))


class Spins(NamedTuple):
    """What a sequence is played to: x(r) = Σ_t parts_t(r) signal(m0_t, T1_t, T2_t).

    parts  how much of each voxel is a tissue of `NAMES`, with the phase and bias of its place
    """

    parts: Complex[Array, "tissues size size"]
    m0: Float[Array, " tissues"]
    t1_s: Float[Array, " tissues"]
    t2_s: Float[Array, " tissues"]


def draw_spins(of: Atlas, key: PRNGKeyArray) -> Spins:
    """The head of `draw_image`, before a contrast is chosen, its tissues as they vary at 3 T."""
    parts, modulation, rest = _head(of, key)
    seen = jnp.stack([_cut_off(parts[name] * modulation) for name in NAMES])
    return Spins(seen, *_relaxation(rest))


def _head(
    of: Atlas, key: PRNGKeyArray
) -> tuple[dict[str, Image], Complex[Array, "n n"], PRNGKeyArray]:
    """Tissues on the fine grid, what multiplies their signals, and a key for these."""
    n = of.distance.shape[-1]
    keys = iter(jax.random.split(key, 8))
    i = jax.random.randint(next(keys), (), 0, of.distance.shape[0])
    where = warp(n, next(keys))
    maps = jnp.concatenate([of.fractions[i], of.distance[i][None]]).astype(float)
    maps = _sampled(maps, where)
    parts: dict[str, Image] = dict(zip(MAPS, _sharper(maps[:3] / 255, next(keys)), strict=True))
    parts["adipose"] = _scalp(maps[3] / 8, next(keys))
    parts = with_lesions(parts, next(keys))
    rest = next(keys)
    bias = jnp.exp(0.15 * smooth(next(keys), n, 4))
    across = (jnp.arange(n) - n / 2) / n
    turns = jax.random.normal(next(keys), (3,))
    phase = turns[0] * across[:, None] + turns[1] * across[None] + 9 * turns[2]
    phase = phase + smooth(jax.random.fold_in(key, 9), n, 4)
    return parts, jax.lax.complex(bias * jnp.cos(phase), bias * jnp.sin(phase)), rest


def _cut_off(x: Complex[Array, "n n"]) -> Complex[Array, "size size"]:
    """The inner half of the spectrum of a grid twice as fine."""
    n = x.shape[0]
    return ifft(fft(x, 2)[n // 4 : 3 * n // 4, n // 4 : 3 * n // 4], 2)


def smooth(key: PRNGKeyArray, n: int, knots: int) -> Image:
    """A random field of sd about 1, cubic between knots² normal numbers."""
    return jax.image.resize(jax.random.normal(key, (knots, knots)), (n, n), "cubic")


def warp(
    n: int, key: PRNGKeyArray, knots: int = 5, strength: float = 0.025
) -> Float[Array, "2 n n"]:
    """Where each voxel of an n² image is taken from, in voxels: smooth, and one to one.

    A rotation of up to 17°, sizes of 0.75 to 1.15, mirrored in half of all, after exp(v) of a
    velocity v, sd `strength` fields of view between knots 1 / (knots - 1) apart, by scaling and
    squaring of 2⁶ steps.

    Arsigny et al. 2006, doi:10.1007/11866565_113.
    """
    keys, m = jax.random.split(key, 4), 32
    velocity = jnp.stack([smooth(k, m, knots) for k in jax.random.split(keys[0])])
    grid = jnp.stack(jnp.meshgrid(*[jnp.arange(m, dtype=float)] * 2, indexing="ij"))
    move = velocity * strength * m / 2**6

    def squared(_, move: Float[Array, "2 m m"]) -> Float[Array, "2 m m"]:
        return move + _sampled(move, grid + move)

    move = jax.lax.fori_loop(0, 6, squared, move)
    move = jax.image.resize(move, (2, n, n), "linear") * n / m
    turn = 0.15 * jax.random.truncated_normal(keys[1], -2.0, 2.0)
    u = jax.random.uniform(keys[2], (3,))
    sizes = jnp.exp(np.log(0.75) + np.log(1.15 / 0.75) * u[0]) * (0.92 + 0.16 * u[1:])
    flip = jnp.where(jax.random.bernoulli(keys[3]), 1.0, -1.0)
    rotation = jnp.stack([jnp.cos(turn), -jnp.sin(turn), jnp.sin(turn), jnp.cos(turn)]).reshape(
        2, 2
    )
    linear = rotation * (sizes * jnp.stack([flip, jnp.ones(())]))[None]
    centre = (n - 1) / 2
    fine = jnp.stack(jnp.meshgrid(*[jnp.arange(n, dtype=float)] * 2, indexing="ij"))
    return jnp.tensordot(linear, fine + move - centre, 1) + centre


def _sampled(
    maps: Float[Array, "maps x y"], where: Float[Array, "2 u v"]
) -> Float[Array, "maps u v"]:
    """By straight lines between voxels, beyond the edges what is there."""
    return jax.vmap(lambda m: map_coordinates(m, [*where], order=1, mode="nearest"))(maps)


def _sharper(parts: Float[Array, "3 n n"], key: PRNGKeyArray) -> Float[Array, "3 n n"]:
    """An average brain's soft boundaries as those of one: f^γ / Σ f^γ, γ from 1 to 4."""
    total = jnp.sum(parts, axis=0, keepdims=True)
    power = parts ** jax.random.uniform(key, minval=1.0, maxval=4.0)
    return total * power / jnp.maximum(jnp.sum(power, axis=0, keepdims=True), 1e-6)


def _scalp(away_mm: Image, key: PRNGKeyArray) -> Image:
    """Beyond bone of 3 to 8 mm, 2 to 15 mm thick, its density and edges uneven."""
    n, keys = away_mm.shape[0], jax.random.split(key, 5)
    inner = jax.random.uniform(keys[0], minval=3.0, maxval=8.0) + 0.7 * smooth(keys[1], n, 6)
    outer = (
        inner + jax.random.uniform(keys[2], minval=2.0, maxval=15.0) + 0.7 * smooth(keys[3], n, 6)
    )
    density = 0.15 + 0.85 * jax.nn.sigmoid(2 * smooth(keys[4], n, 8))
    return density * jax.nn.sigmoid(2 * (away_mm - inner)) * jax.nn.sigmoid(2 * (outer - away_mm))


def with_lesions(parts: dict[str, Image], key: PRNGKeyArray) -> dict[str, Image]:
    """A tumour in the brain in half of all: 3 to 20 mm in radius, of uneven outline, with oedema,
    some with a core of fluid; and up to three small round ones."""
    brain = jnp.sum(jnp.stack([parts[name] for name in MAPS]), axis=0)
    n, keys = brain.shape[0], jax.random.split(key, 7)
    place = (jnp.arange(n) - (n - 1) / 2) * FOV_MM / n

    def depth(key: PRNGKeyArray, radius_mm: Array, uneven: float) -> Image:
        """Distance from a random place of the brain, in radii."""
        where, rough = jax.random.split(key)
        at = jax.random.categorical(where, jnp.log(jnp.maximum(brain.ravel(), 1e-9)))
        away = jnp.hypot(place[:, None] - place[at // n], place[None] - place[at % n])
        return away / radius_mm + uneven * smooth(rough, n, 16)

    def inside(depth: Image, edge: Array | float) -> Image:
        return jax.nn.sigmoid(12 * (edge - depth))

    def some(key: PRNGKeyArray) -> Array:
        return jax.random.bernoulli(key).astype(brain.dtype)

    radius = 3.0 + 17.0 * jax.random.uniform(keys[0]) ** 2
    tumour, present = depth(keys[1], radius, 0.15), some(keys[2]) * brain
    halo = present * inside(tumour, jax.random.uniform(keys[3], minval=1.0, maxval=2.2)) * 0.8
    core = jax.random.uniform(keys[4], minval=0.4, maxval=0.8)
    made = phantom.with_lesion(parts, "oedema", halo)
    made = phantom.with_lesion(made, "glioma", present * inside(tumour, 1.0))
    made = phantom.with_lesion(made, "csf", some(keys[5]) * present * inside(tumour, core))

    def spot(key: PRNGKeyArray) -> Image:
        there, size, where = jax.random.split(key, 3)
        radius = jax.random.uniform(size, minval=1.5, maxval=4.0)
        return some(there) * inside(depth(where, radius, 0.0), 1.0)

    spots = jnp.max(jax.vmap(spot)(jax.random.split(keys[6], 3)), axis=0)
    made = phantom.with_lesion(made, "glioma", spots * brain)
    return {name: jnp.asarray(part) for name, part in made.items()}


def contrast(key: PRNGKeyArray) -> Float[Array, " tissues"]:
    """|signal| of each tissue of `NAMES` at 3 T, in an acquisition drawn at random."""
    keys = iter(jax.random.split(key, 12))
    m0, t1, t2 = _relaxation(next(keys))

    def between(low: float, high: float) -> Array:
        u = jax.random.uniform(next(keys))
        return jnp.exp(np.log(low) + u * np.log(high / low))

    spin = steady_state.spin_echo(between(0.01, 0.12), between(0.35, 6.0), t1, t2, m0=m0)
    flip, echo = jnp.deg2rad(between(5.0, 70.0)), between(0.002, 0.02)
    gradient = steady_state.ernst(flip, echo, between(0.008, 0.5), t1, 0.6 * t2, m0=m0)
    inversion = steady_state.inversion_recovery(
        between(0.4, 2.6), between(0.01, 0.1), between(5.0, 10.0), t1, t2, m0=m0
    )
    signals = jnp.abs(jnp.stack([spin, gradient, inversion]))
    return signals[jax.random.randint(next(keys), (), 0, 3)]


def _relaxation(key: PRNGKeyArray) -> Float[Array, "3 tissues"]:
    """m0, T1 and T2 of each tissue: the literature's with its sd between subjects, 10 % where none
    is given. Half of all lesions take up an agent, which shortens T1 to between 0.25 and 1 of its
    own. Oedema is grey matter with 30 % fluid."""
    keys = jax.random.split(key, 3)
    rows = []
    for name in NAMES[:-1]:
        entry = literature_entry(name, 3.0)
        rows.append([
            (value.value, value.sd or 0.1 * value.value) if value else (0.85, 0.05)
            for value in (entry.m0, entry.t1_s, entry.t2_s)
        ])  # fmt: skip
    mean, sd = np.moveaxis(np.array(rows), -1, 0)
    drawn = jnp.asarray(mean) + jnp.asarray(sd) * jax.random.truncated_normal(
        keys[0], -2.0, 2.0, mean.shape
    )
    share = jnp.asarray([[0.0, 0.7, 0.3, 0.0, 0.0]])
    drawn = jnp.concatenate([drawn, 1 / (share @ (1 / drawn))])
    taken = jnp.where(
        jax.random.bernoulli(keys[1]), jax.random.uniform(keys[2], minval=0.25, maxval=1.0), 1.0
    )
    lesion = jnp.asarray([name == "glioma" for name in NAMES])
    drawn = drawn.at[:, 1].multiply(jnp.where(lesion, taken, 1.0))
    return drawn.at[:, 2].set(jnp.minimum(drawn[:, 2], drawn[:, 1])).T
