"""What images look like, learned as what is left of them in noise of any level."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from learn.reconstruction.scans import add_noise
from learn.reconstruction.unet import UNet

DATA_SD = float(np.sqrt(0.5))
"""Of the real part of images with mean |x|² = 1."""
MEAN_LOG, SD_LOG = -1.5, 1.5
"""Of the logarithm of levels learned from."""
LEVELS = 0.15
"""Images come larger and smaller by a factor of this sd in its logarithm."""


class Denoiser(nnx.Module):
    """D(x, σ) ≈ E[x₀ | x = x₀ + σ ε], ε complex, each part normal:

        D = c_skip x + c_out u(c_in x, ln σ / 4)
        c_skip = s² / (σ² + s²),   c_out = σ s / sqrt(σ² + s²),   c_in = 1 / sqrt(σ² + s²)

    with s the sd of the images, so that u, a U-Net, reads and answers numbers of sd 1 at any level.

    Karras, Aittala, Aila, Laine 2022, arXiv:2206.00364, table 1.
    """

    def __init__(
        self, width: int = 32, depth: int = 3, data_sd: float = DATA_SD, *, rngs: nnx.Rngs
    ):
        self.unet = UNet(width, depth, noisy=True, rngs=rngs)
        self.data_sd = data_sd

    def __call__(self, x: Complex[Array, "x y"], sigma: Float[Array, ""]) -> Complex[Array, "x y"]:
        s, total = self.data_sd, jnp.sqrt(sigma**2 + self.data_sd**2)
        found = self.unet(x / total, jnp.log(sigma) / 4)
        return x * (s / total) ** 2 + found * (sigma * s / total)


def denoising_loss(
    net: Any, images: Complex[Array, "batch x y"], key: PRNGKeyArray
) -> Float[Array, ""]:
    """The mean of |D(x₀ + σ ε, σ) - x₀|² / 2 c_out², ln σ normal: 1 at every level for a D that
    knows nothing but s."""

    def one(x: Complex[Array, "x y"], key: PRNGKeyArray) -> Float[Array, ""]:
        keys = jax.random.split(key, 3)
        x = x * jnp.exp(LEVELS * jax.random.normal(keys[0]))
        sigma = jnp.exp(MEAN_LOG + SD_LOG * jax.random.normal(keys[1]))
        away = net(add_noise(x, sigma, keys[2]), sigma) - x
        weight = (sigma**2 + net.data_sd**2) / (sigma * net.data_sd) ** 2
        return weight * jnp.mean(away.real**2 + away.imag**2) / 2

    return jnp.mean(jax.vmap(one)(images, jax.random.split(key, images.shape[0])))
