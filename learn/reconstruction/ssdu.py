"""Learning without images: from one part of the samples, the other."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray

from learn.reconstruction.scans import Scan
from learn.reconstruction.supervised import normalised_distance
from mrphys.encoding import Encoding
from mrphys.encoding.sampling import Cartesian

SPREAD = 0.5
"""Of the chance to be held out, in parts of the largest |k|."""
CENTRE = 2
"""Within so many samples of the centre none is held out."""


def split(A: Encoding, held: float, key: PRNGKeyArray) -> tuple[Encoding, Encoding]:
    """A of the samples that are shown, and A of those held out, which are all others.

    About the part `held` of samples is held out, at random, the chance a normal function of |k|;
    next to the centre none is.
    """
    sampling = A.sampling
    radius, centre = _radii(A)
    chance = jnp.exp(-(radius**2) / (2 * SPREAD**2)) * ~centre
    taken = jnp.broadcast_to(sampling.weight != 0, (*sampling.frames, *sampling.samples))
    mean = jnp.sum(chance * taken) / jnp.maximum(jnp.sum(taken), 1)
    chance = jnp.minimum(1.0, held * chance / jnp.maximum(mean, 1e-12))
    out = jax.random.uniform(key, taken.shape) < jnp.broadcast_to(chance, taken.shape)
    return A.weighted(1.0 - out), A.weighted(out.astype(radius.dtype))


def _radii(A: Encoding) -> tuple[Array, Array]:
    """|k| / kmax of each sample, and which lie at the centre; of frames, axes of one entry."""
    sampling, shape = A.sampling, np.array(A.sampling.shape)
    if isinstance(sampling, Cartesian):
        each = np.stack(np.meshgrid(*[np.arange(n) - n // 2 for n in shape], indexing="ij"), -1)
        k = jnp.asarray(each, sampling.weight.dtype)
        k = k.reshape(*[1] * len(sampling.frames), *k.shape)
    else:
        k = sampling.k
    half = jnp.asarray(shape / 2, k.dtype).reshape(*[1] * (k.ndim - 1), -1)
    return jnp.sqrt(jnp.mean((k / half) ** 2, axis=-1)), jnp.max(jnp.abs(k), axis=-1) <= CENTRE


def ssdu_loss(net: Any, scans: Scan, key: PRNGKeyArray, *, held: float = 0.4) -> Float[Array, ""]:
    """The mean distance of held-out data from what the image of the others foretells:

        ‖A_Λ net(A_Θ, y) - y_Λ‖ in the norms of `normalised_distance`,   Θ ∪ Λ all samples

    x of the scans is not looked at.

    Yaman et al. 2020, doi:10.1002/mrm.28378.
    """

    def one(scan: Scan, key: PRNGKeyArray) -> Float[Array, ""]:
        shown, out = split(scan.A, held, key)
        foretold = out(net(shown, scan.y))
        weight = out.sampling.weight
        at = -len(out.sampling.samples) - 1
        weight = weight if out.coils is None else jnp.expand_dims(weight, at)
        return normalised_distance(foretold, scan.y * (weight != 0))

    return jnp.mean(jax.vmap(one)(scans, jax.random.split(key, scans.noise_sd.shape[0])))
