"""The U-Net: of images, and from data at once."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Complex, Float, Inexact

from learn.reconstruction.scans import level
from mrphys.encoding import Linear

Features = Float[Array, "..."]
"""(x, y, channels)"""


def as_channels(x: Inexact[Array, "x y"]) -> Float[Array, "x y 2"]:
    """The real and the imaginary part."""
    return jnp.stack([x.real, x.imag], axis=-1)


def as_image(h: Float[Array, "x y 2"]) -> Complex[Array, "x y"]:
    """The complex image of two channels."""
    return jax.lax.complex(h[..., 0], h[..., 1])


class Block(nnx.Module):
    """Two convolutions of 3 x 3, each with its channels normalised over the image, then scaled and
    shifted by what is known of the noise, and silu."""

    def __init__(self, inputs: int, outputs: int, embedded: int, *, rngs: nnx.Rngs):
        conv = partial(
            nnx.Conv, kernel_size=(3, 3), use_bias=False, rngs=rngs,
            kernel_init=nnx.initializers.he_normal(), param_dtype=jnp.result_type(float),
        )  # fmt: skip
        dtype = jnp.result_type(float)
        self.first, self.second = conv(inputs, outputs), conv(outputs, outputs)
        self.scale = nnx.Param(jnp.ones((2, outputs), dtype))
        self.shift = nnx.Param(jnp.zeros((2, outputs), dtype))
        zeros = nnx.initializers.zeros
        self.told = (
            nnx.Linear(embedded, 4 * outputs, kernel_init=zeros, param_dtype=dtype, rngs=rngs)
            if embedded
            else None
        )

    def __call__(self, h: Features, noise: Float[Array, " embedded"] | None) -> Features:
        scale, shift = self.scale[...], self.shift[...]
        if self.told is not None and noise is not None:
            more = self.told(noise).reshape(2, *scale.shape)
            scale, shift = scale + more[0], shift + more[1]
        for i, conv in enumerate((self.first, self.second)):
            h = normalised(conv(h)) * scale[i][None, None] + shift[i][None, None]
            h = nnx.silu(h)
        return h


def normalised(h: Features, eps: float = 1e-5) -> Features:
    """Each channel of mean 0 and variance 1 over the image."""
    mean = jnp.mean(h, axis=(0, 1), keepdims=True)
    h = h - mean
    return h * jax.lax.rsqrt(jnp.mean(h * h, axis=(0, 1), keepdims=True) + eps)


def halved(h: Features) -> Features:
    """Means of 2 x 2."""
    x, y, c = h.shape
    return jnp.mean(h.reshape(x // 2, 2, y // 2, 2, c), axis=(1, 3))


def doubled(h: Features) -> Features:
    """Each voxel as 2 x 2."""
    x, y, c = h.shape
    return jnp.broadcast_to(h[:, None, :, None], (x, 2, y, 2, c)).reshape(2 * x, 2 * y, c)


class UNet(nnx.Module):
    """x ↦ u(x), or u(x, noise level): blocks at `depth` + 1 resolutions, each of twice the
    channels of the one above, joined to those of its own size on the way up.

    x complex, or of `channels` real channels; both axes multiples of 2^depth. The last convolution
    begins at 0.

    noisy  whether the logarithm of a noise level is told, by cosines and sines of 16 frequencies

    Ronneberger, Fischer, Brox 2015, doi:10.1007/978-3-319-24574-4_28; Ulyanov et al. 2016,
    arXiv:1607.08022 (each image normalised for itself).
    """

    def __init__(
        self, width: int = 32, depth: int = 3, *, channels: int = 2, noisy: bool = False,
        rngs: nnx.Rngs,
    ):  # fmt: skip
        self.noisy, self.depth, embedded = noisy, depth, 32 * noisy
        widths = [width * 2**i for i in range(depth + 1)]
        block = partial(Block, embedded=embedded, rngs=rngs)
        befores = [channels, *widths[:-1]]
        self.down = nnx.List([block(i, o) for i, o in zip(befores, widths, strict=True)])
        self.up = nnx.List([block(3 * w, w) for w in widths[:-1]])
        dtype = jnp.result_type(float)
        self.last = nnx.Conv(
            width, channels, (1, 1), kernel_init=nnx.initializers.zeros, param_dtype=dtype,
            rngs=rngs,
        )  # fmt: skip

    def __call__(
        self, x: Inexact[Array, "x y *c"], noise: Float[Array, ""] | None = None
    ) -> Inexact[Array, "x y *c"]:
        h = as_channels(x) if x.ndim == 2 else x
        told = None
        if self.noisy and noise is not None:
            turns = jnp.asarray(np.geomspace(0.25, 16, 16), h.dtype) * noise
            told = jnp.concatenate([jnp.cos(turns), jnp.sin(turns)])
        kept = []
        for i, block in enumerate(self.down):
            h = block(halved(h) if i else h, told)
            kept.append(h)
        for i in reversed(range(self.depth)):
            h = self.up[i](jnp.concatenate([kept[i], doubled(h)], axis=-1), told)
        h = self.last(h)
        return as_image(h) if x.ndim == 2 else h


class UNetReconstruction(nnx.Module):
    """x = Aᴴy + u(Aᴴy): the image without aliasing, found without A."""

    def __init__(self, width: int = 32, depth: int = 3, *, rngs: nnx.Rngs):
        self.unet = UNet(width, depth, rngs=rngs)

    def __call__(self, A: Linear, y: Complex[Array, "..."]) -> Complex[Array, "x y"]:
        size = level(A, y)
        x = A.H(y) / size
        return size * (x + self.unet(x))
