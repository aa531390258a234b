"""Patterns as chances, which gradients can move."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from learn.reconstruction.scans import CENTRE, Scan
from learn.reconstruction.supervised import normalised_distance
from learn.sampling.chosen import chosen
from learn.sampling.patterns import centre_of, first

Chances = Float[Array, "x y"]
SLOPE = 5.0


@jax.custom_jvp
def straight_through(hard: Chances, chance: Chances) -> Chances:
    """`hard`, which has the derivative of `chance`.

    Of a loss linear in each sample the mean derivative is that of the mean loss.

    Bengio, Léonard, Courville 2013, arXiv:1308.3432.
    """
    del chance
    return hard


@straight_through.defjvp
def _(primals, tangents):
    return primals[0], tangents[1]


def with_budget(p: Chances, count: float | int) -> Chances:
    """Chances that sum to `count`, 0 <= p <= 1: scaled down, or what is missing to 1 is.

    Bahadir et al. 2020, eq. 5.
    """
    total, size = jnp.sum(p), p.size
    down = p * (count / jnp.maximum(total, 1e-12))
    up = 1 - (1 - p) * ((size - count) / jnp.maximum(size - total, 1e-12))
    return jnp.where(total >= count, down, up)


class Relaxed(nnx.Module):
    """Each sample of a grid with a chance p, Σ p = count; a centre is always taken.

        p = budget(sigmoid(5 u)),   u learned

    shape  (1, n) lines, (n, n) points; `key` gives u of first chances between 0 and 1

    Bahadir, Wang, Dalca, Sabuncu 2020, doi:10.1109/TCI.2020.3006727 (LOUPE).
    """

    def __init__(
        self, shape: tuple[int, int], count: int, *, centre: float | int = CENTRE,
        key: PRNGKeyArray,
    ):  # fmt: skip
        start = jax.random.uniform(key, shape, minval=0.01, maxval=0.99)
        self.u = nnx.Param((jnp.log(start) - jnp.log1p(-start)) / SLOPE)
        self.shape, self.count, self.centre = shape, count, float(centre)

    @property
    def middle(self) -> Bool[np.ndarray, "x y"]:
        """What is always taken."""
        return centre_of(self.shape, self.centre)

    def chances(self) -> Chances:
        """p, the centre's 1."""
        middle = self.middle
        free = np.flatnonzero(~middle.ravel())
        p = jax.nn.sigmoid(SLOPE * self.u[...].ravel()[free])[None]
        p = with_budget(p, self.count - int(middle.sum()))[0]
        every = jnp.ones(middle.size, p.dtype).at[free].set(p)
        return every.reshape(self.shape)

    def draw(self, key: PRNGKeyArray) -> Chances:
        """A pattern of exactly `count` ones, each entry with its chance, as `straight_through`.

        The largest of logit p + logistic noise: independent draws would be those above 0. Of these
        fixed numbers chances are p but for a few per cent of p (1 - p).

        Rosén 1997, doi:10.1016/S0378-3758(96)00186-3 (Pareto sampling).
        """
        p = self.chances()
        score = jnp.log(jnp.maximum(p, 1e-12)) - jnp.log(jnp.maximum(1 - p, 1e-12))
        score = jnp.where(jnp.asarray(self.middle), jnp.inf, score)
        score = score + jax.random.logistic(key, (p.size,), p.dtype).reshape(p.shape)
        hard = first(jax.lax.stop_gradient(score), self.count)
        return straight_through(hard.astype(p.dtype), p)

    def pattern(self) -> Bool[Array, "x y"]:
        """The `count` likeliest."""
        return first(jnp.where(jnp.asarray(self.middle), 2.0, self.chances()), self.count)


class Joint(nnx.Module):
    """A pattern and the network that is to make images of its samples.

    Aggarwal, Jacob 2020, doi:10.1109/JSTSP.2020.3004094 (J-MoDL), there with places of samples
    instead of chances.
    """

    def __init__(self, sampling: Relaxed, net: nnx.Module):
        self.sampling, self.net = sampling, net


def joint_loss(joint: Any, scans: Scan, key: PRNGKeyArray) -> Float[Array, ""]:
    """The mean distance of images from the truth, each scan by a pattern of its own: of a batch of
    scans of all samples (`learn.reconstruction.draw_scan` of acceleration 1)."""

    def one(scan: Scan, key: PRNGKeyArray) -> Float[Array, ""]:
        seen = chosen(scan, joint.sampling.draw(key))
        return normalised_distance(joint.net(seen.A, seen.y), scan.x)

    return jnp.mean(jax.vmap(one)(scans, jax.random.split(key, scans.noise_sd.shape[0])))
