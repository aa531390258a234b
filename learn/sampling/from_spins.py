"""θ, φ and w at once, from spins to an image or a map."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Complex, Float, Int, PRNGKeyArray

import mrphys as mr
from learn.reconstruction.anatomy import NAMES, Spins
from learn.reconstruction.scans import add_noise
from learn.reconstruction.supervised import normalised_distance
from learn.reconstruction.unet import UNet
from mrphys.encoding import Linear
from mrphys.encoding.linear import Numbers
from mrphys.errors import InputError, Problem

Images = Complex[Array, "images size size"]
T2_S = 0.08
"""About which T2 is told."""
LIQUID = NAMES.index("csf")


class Rows(Linear):
    """Lines along x at any k_y, in cycles per field of view, with coils:

        y_cxl = Σ_y exp(-2πi k_l y) c_c(x, y) x(x, y) / sqrt(n)

    Along x all of k-space is there, its transform, which is unitary, undone.
    """

    ky: Float[Array, " lines"]
    coils: Complex[Array, "coils size size"]

    @property
    def waves(self) -> Complex[Array, "lines size"]:
        """exp(-2πi k y) / sqrt(n), y in fields of view."""
        n = self.coils.shape[-1]
        turns = self.ky[:, None] * jnp.asarray((np.arange(n) - n // 2) / n, self.ky.dtype)[None]
        angle = -2 * jnp.pi * turns
        return jax.lax.complex(jnp.cos(angle), jnp.sin(angle)) / np.sqrt(n)

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        return jnp.einsum("ly,cxy,xy->cxl", self.waves, self.coils, jnp.asarray(x))

    def adjoint(self, y: Numbers, /) -> Complex[Array, "..."]:
        return jnp.einsum("ly,cxy,cxl->xy", jnp.conj(self.waves), jnp.conj(self.coils), y)

    def of_each(self, x: Complex[Array, "lines size size"]) -> Complex[Array, "coils size lines"]:
        """Data of which each line sees an image of its own."""
        return jnp.einsum("ly,cxy,lxy->cxl", self.waves, self.coils, x)


class Played(nnx.Module):
    """A sequence θ and the lines φ that its readouts take.

        y_l = line k_l of x_r(l) + η,   x_r = Σ_t parts_t signal_r(θ, q_t),   θ = build(v)

    build    a Sequence of one array v, such as flip angles, which stays between `low` and `high`
    ky       (images, lines), where each line lies at first: cycles per field of view, |k| <= n / 2
    readout  (images, lines), which readout of the sequence takes it
    power    most of Σ v², to which v is scaled; None for any

    What changes within an image (T2 along an echo train) is in its data; what reconstructs it,
    `Rows`, does not know.

    Loktyushin et al. 2021, doi:10.1002/mrm.28727 (MR-zero).
    """

    def __init__(
        self,
        build: Callable[[Array], mr.sequence.Sequence],
        start: Float[Array | np.ndarray, " values"],
        limits: tuple[float, float],
        ky: Float[Array | np.ndarray, "images lines"],
        readout: Int[np.ndarray, "images lines"],
        *,
        power: float | None = None,
    ):
        v, (low, high) = jnp.asarray(start, float), limits
        if not bool(jnp.all((v > low) & (v < high))):
            found, expected = f"{float(v.min()):g} to {float(v.max()):g}", f"between {limits}"
            raise InputError(Problem("Played: start", found, expected))
        part = (v - low) / (high - low)
        self.theta = nnx.Param(jnp.log(part) - jnp.log1p(-part))
        self.ky = nnx.Param(jnp.asarray(ky, float))
        self.build, self.limits, self.power = build, limits, power
        self.readout = nnx.Variable(jnp.asarray(readout))

    def values(self) -> Float[Array, " values"]:
        """v, within its limits and power."""
        low, high = self.limits
        v = low + (high - low) * jax.nn.sigmoid(self.theta[...])
        if self.power is None:
            return v
        return v * jnp.minimum(1.0, jnp.sqrt(self.power / jnp.sum(v**2)))

    def sequence(self) -> mr.sequence.Sequence:
        """θ."""
        return self.build(self.values())

    def lines(self, size: int) -> Float[Array, "images lines"]:
        """φ, inside k-space."""
        return jnp.clip(self.ky[...], -size / 2, size / 2 - 1)

    def __call__(
        self, spins: Spins, coils: Complex[Array, "coils size size"], noise_sd: Array | float,
        key: PRNGKeyArray,
    ) -> tuple[Rows, Complex[Array, "images coils size lines"]]:  # fmt: skip
        """A and y of every image."""
        signal = signals(self.sequence(), spins)
        ky = self.lines(coils.shape[-1])
        keys = jax.random.split(key, ky.shape[0])

        def one(ky: Array, readout: Array, key: PRNGKeyArray) -> tuple[Rows, Array]:
            A = Rows(ky, coils)
            seen = jnp.einsum("tl,txy->lxy", signal[:, readout], spins.parts)
            return A, add_noise(A.of_each(seen), jnp.asarray(noise_sd, ky.dtype), key)

        return jax.vmap(one)(ky, self.readout[...], keys)


def signals(theta: mr.sequence.Sequence, spins: Spins) -> Complex[Array, "tissues readouts"]:
    """Of every tissue, in the phase of an excitation about x turned back: real where all is
    refocused."""
    q = mr.Tissue(t1_s=spins.t1_s, t2_s=spins.t2_s, m0=spins.m0)
    return mr.simulate(theta, q) * -1j


class Asked(NamedTuple):
    """What a scan is to show, and what there is to find it: a head, coils, noise.

    noise_sd  of the real part of a sample
    """

    spins: Spins
    coils: Complex[Array, "coils size size"]
    noise_sd: Float[Array, ""]


def target_image(theta: mr.sequence.Sequence, spins: Spins) -> Complex[Array, "size size"]:
    """The image of one readout of a sequence, of spins without coils, noise or blur."""
    return jnp.einsum("t,txy->xy", signals(theta, spins)[:, 0], spins.parts)


def target_log_t2(spins: Spins) -> tuple[Float[Array, "size size"], Float[Array, "size size"]]:
    """ln(T2 / 80 ms) of the mean rate of each voxel's tissues, and where in the head that counts:
    the amount of them, liquid apart, whose T2 is beyond the train."""
    amount = jnp.abs(spins.parts)
    total = jnp.maximum(jnp.sum(amount, axis=0), 1e-3)
    rate = jnp.einsum("t,txy->xy", 1 / spins.t2_s, amount) / total
    counts = jnp.clip(total, 0, 1) * (amount[LIQUID] < 0.5 * total)
    return -jnp.log(jnp.maximum(rate, 0.1) * T2_S), counts


class Learner(nnx.Module):
    """A sequence with its lines, and the networks that make images and a map of what they see.

    net   x of (A, y), the same for every image
    maps  a U-Net from images to ln(T2 / 80 ms), where a map is asked for
    """

    def __init__(self, sampling: Played, net: nnx.Module, maps: UNet | None = None):
        self.sampling, self.net, self.maps = sampling, net, maps

    def images(self, asked: Asked, key: PRNGKeyArray) -> Images:
        """Of a scan of spins."""
        A, y = self.sampling(*asked, key)
        net: Any = self.net
        return jax.vmap(lambda A, y: net(A, y))(A, y)

    def log_t2(self, asked: Asked, key: PRNGKeyArray) -> Float[Array, "size size"]:
        """ln(T2 / 80 ms)."""
        x = jnp.abs(self.images(asked, key))
        assert self.maps is not None
        size = jnp.sqrt(jnp.mean(x**2))
        return self.maps(jnp.moveaxis(x / size, 0, -1))[..., 0]


def map_network(images: int, width: int, depth: int, *, rngs: nnx.Rngs) -> UNet:
    """Of `Learner.maps`."""
    return UNet(width, depth, channels=images, rngs=rngs)


def image_loss(
    learner: Any, batch: Asked, key: PRNGKeyArray, *, target: mr.sequence.Sequence
) -> Float[Array, ""]:
    """The mean distance of the first image from the target sequence's, of a batch of heads."""

    def one(asked: Asked, key: PRNGKeyArray) -> Float[Array, ""]:
        return normalised_distance(learner.images(asked, key)[0], target_image(target, asked.spins))

    return jnp.mean(jax.vmap(one)(batch, jax.random.split(key, batch.noise_sd.shape[0])))


def map_error(learner: Any, asked: Asked, key: PRNGKeyArray) -> Float[Array, ""]:
    """The mean |Δ ln T2| of a head, its relative error."""
    truth, counts = target_log_t2(asked.spins)
    away = jnp.abs(learner.log_t2(asked, key) - truth)
    return jnp.sum(counts * away) / jnp.sum(counts)


def map_loss(learner: Any, batch: Asked, key: PRNGKeyArray) -> Float[Array, ""]:
    """The mean of `map_error` over a batch of heads."""
    keys = jax.random.split(key, batch.noise_sd.shape[0])
    return jnp.mean(jax.vmap(lambda asked, key: map_error(learner, asked, key))(batch, keys))
