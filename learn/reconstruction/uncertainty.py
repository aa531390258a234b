"""Whether an image's sd tells where it errs."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Complex, Float, PRNGKeyArray
from scipy.stats import rankdata

from learn.reconstruction.posterior import Posterior
from learn.reconstruction.scans import add_noise
from mrphys.encoding import Encoding
from mrphys.errors import InputError, Problem
from mrphys.units import check_count

WORST = 0.1


def replicas(
    method: Callable[[Encoding, Array], Array],
    A: Encoding,
    y: Complex[Array, "..."],
    noise_sd: ArrayLike,
    key: PRNGKeyArray,
    *,
    count: int = 8,
) -> Posterior:
    """Images of y with noise once more, by any method of (A, y), a network too; their mean and sd.

    The sd is the image's answer to noise. It knows nothing of what is missed or made up alike in
    all of them: `mrphys.reconstruction.pseudo_replicas` of what needs no training.
    """
    check_count("replicas: count", count, 2)
    sd = jnp.asarray(noise_sd, y.real.dtype)
    taken = A.taken

    def again(key: PRNGKeyArray) -> Array:
        return method(A, jnp.where(taken, add_noise(y, sd, key), 0))

    drawn = jax.lax.map(again, jax.random.split(key, count))
    mean = jnp.mean(drawn, axis=0)
    square = jnp.sum(jnp.abs(drawn - mean[None]) ** 2, axis=0) / (count - 1)
    return Posterior(drawn, mean, jnp.sqrt(square))


def flags_errors(
    sd: Float[Array | np.ndarray, "..."],
    error: Float[Array | np.ndarray, "..."],
    where: Bool[Array | np.ndarray, "..."],
    worst: float = WORST,
) -> float:
    """The chance that, of two voxels, one of the `worst` part of errors and one of the rest, the
    former has the larger sd: the area under the receiver operating characteristic (AUROC). ½ for an
    sd that knows nothing, 1 for one that orders voxels as errors do.

    where  voxels that count

    Mann, Whitney 1947, doi:10.1214/aoms/1177730491. Raises InputError where there are not voxels of
    both kinds.
    """
    inside = np.asarray(where)
    size, spread = np.asarray(error)[inside], np.asarray(sd)[inside]
    bad = size > np.quantile(size, 1 - worst) if size.size else size > 0
    count = int(bad.sum())
    if not 0 < count < size.size:
        found = f"{count} of {size.size} voxels are the worst"
        raise InputError(
            Problem("flags_errors", found, "some, not all", "an error alike everywhere")
        )
    above = rankdata(spread)[bad].sum() - count * (count + 1) / 2
    return float(above / (count * (size.size - count)))
