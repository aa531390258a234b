"""Scans to learn from: an image, what a scanner made of it, and how."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float, Inexact, PRNGKeyArray

from mrphys.coils import loop_array
from mrphys.encoding import Encoding, Linear
from mrphys.units import check_count, check_range

CENTRE = 0.06
"""Of all lines, sampled without gaps."""
ACCELERATIONS = (4.0, 8.0)
NOISE_SD = (0.01, 0.05)
"""Of the real part of a sample, of images with mean |x|² = 1."""
RADIUS_MM, COARSE, FOV_MM = 200.0, 24, 240.0


class Scan(NamedTuple):
    """y = A x + η; a batch of scans has leaves with a leading axis: `jax.vmap(net)(A, y)`.

    A         the operator
    y         its data
    x         the image
    noise_sd  of the real part of a sample
    """

    A: Encoding
    y: Complex[Array, "..."]
    x: Complex[Array, "..."]
    noise_sd: Float[Array, "..."]


def level(A: Linear, y: Complex[Array, "..."]) -> Float[Array, ""]:
    """The root mean square of Aᴴ y, in which networks measure: what they make of 2 y is twice what
    they make of y."""
    mean = jnp.mean(jnp.abs(A.H(y)) ** 2)
    return jnp.sqrt(jnp.where(mean > 0, mean, 1.0))


def line_mask(
    size: int, acceleration: float | Float[Array, ""], key: PRNGKeyArray
) -> Bool[Array, "1 size"]:
    """One line of `acceleration`: those of the centre, others at random, denser inside.

    Chances fall as (1 - |k| / kmax)² + 0.05; drawn without replacement, size / acceleration of all.
    """
    at = np.abs(np.arange(size) - size // 2) / (size / 2)
    chance = (1 - at) ** 2 + 0.05
    score = jnp.asarray(np.log(chance)) + jax.random.gumbel(key, (size,))
    centre = at < max(CENTRE, 2 / size)
    score = jnp.where(centre, np.inf, score)
    rank = jnp.argsort(jnp.argsort(-score))
    count = jnp.maximum(jnp.round(size / jnp.asarray(acceleration)), np.sum(centre))
    return (rank < count)[None]


def draw_coils(coils: int, size: int, key: PRNGKeyArray) -> Complex[Array, "coils size size"]:
    """Loops round a cylinder, of which the slice lies anywhere within ± 40 mm along and 25 mm
    across, turned, in any of three planes; divided so that Σ|c|² = 1.

    Found on a coarse grid, cubic between its points.
    """
    keys = jax.random.split(key, 4)
    across = (np.arange(COARSE) + 0.5) / COARSE * FOV_MM - FOV_MM / 2
    u, v = np.meshgrid(across, across, indexing="ij")
    zero = np.zeros_like(u)
    planes = np.stack([np.stack(p, -1) for p in ((u, v, zero), (u, zero, v), (zero, u, v))])
    points = jnp.asarray(planes)[jax.random.randint(keys[0], (), 0, 3)].reshape(-1, 3)
    turn = jax.random.uniform(keys[1], maxval=2 * np.pi)
    middle = jax.random.uniform(keys[2], (3,), minval=-1.0) * jnp.asarray([25.0, 25.0, 40.0])
    c, s = jnp.cos(turn), jnp.sin(turn)
    x, y, z = (points + middle[None]).T
    inside = jnp.minimum(1.0, 0.899 * RADIUS_MM / jnp.hypot(x, y))
    turned = jnp.stack([(c * x - s * y) * inside, (s * x + c * y) * inside, z], axis=1)
    maps = loop_array(turned, coils, radius_mm=RADIUS_MM).reshape(coils, COARSE, COARSE)
    parts = [
        jax.image.resize(part, (coils, size, size), "cubic") for part in (maps.real, maps.imag)
    ]
    maps = jax.lax.complex(*parts)
    phase = jax.random.uniform(keys[3], (coils,), maxval=2 * np.pi)[:, None, None]
    maps = maps * jax.lax.complex(jnp.cos(phase), jnp.sin(phase))
    return maps / jnp.sqrt(jnp.sum(jnp.abs(maps) ** 2, axis=0, keepdims=True))


def add_noise(
    y: Inexact[Array, "..."], noise_sd: Float[Array, ""], key: PRNGKeyArray
) -> Complex[Array, "..."]:
    """y + η, real and imaginary part normal of sd noise_sd."""
    real, imaginary = jax.random.normal(key, (2, *y.shape), y.real.dtype)
    return y + noise_sd * jax.lax.complex(real, imaginary)


def draw_scan(
    x: Complex[Array, "size size"],
    key: PRNGKeyArray,
    *,
    coils: int = 4,
    accelerations: tuple[float, ...] = ACCELERATIONS,
    noise_sd: tuple[float, float] = NOISE_SD,
) -> Scan:
    """A scan of an image: one of the accelerations, coils somewhere, noise between two sds.

    Raises InputError for fewer than one coil, accelerations below 1 and a negative sd.
    """
    check_count("draw_scan: coils", coils)
    check_range("draw_scan: accelerations", accelerations, 1.0, x.shape[-1], "")
    check_range("draw_scan: noise_sd", noise_sd, 1e-12, np.inf, "")
    keys, size = jax.random.split(key, 5), x.shape[-1]
    low, high = noise_sd
    sd = jnp.exp(np.log(low) + jax.random.uniform(keys[0]) * np.log(high / low))
    which = jax.random.randint(keys[1], (), 0, len(accelerations))
    mask = line_mask(size, jnp.asarray(accelerations)[which], keys[2])
    A = Encoding.cartesian(mask, draw_coils(coils, size, keys[3]))
    y = add_noise(A(x), sd, keys[4]) * mask[None]
    return Scan(A, y, x, sd)
