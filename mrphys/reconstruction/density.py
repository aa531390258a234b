"""How much of k-space each sample of a trajectory stands for."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mrphys.encoding import Encoding
from mrphys.encoding.sampling import Along, Cartesian
from mrphys.errors import InputError, Problem
from mrphys.fourier import density_weights


def density(
    A: Encoding, kind: str = "iterative", iterations: int = 20
) -> Float[Array, "*frames samples"]:
    """w, the part of k-space that belongs to each sample, 1 on a full grid.

    iterative  w ← w / (w ∗ K) at the samples, to w ∗ K = 1, of the kernel K = Π sinc² that an
               image's autocorrelation leaves: positive, 0 at all other places of the grid
    areas      Voronoi areas and spacings (`mrphys.fourier.density_weights`), of a trajectory that
               is not traced
    none       1

    Frames have their own, or one together where all are of the same images. A grid has 1.

    Pipe, Menon 1999, doi:10.1002/(SICI)1522-2594(199901)41:1<179::AID-MRM25>3.0.CO;2-V.
    """
    sampling = A.sampling
    if isinstance(sampling, Cartesian) or kind == "none":
        return jnp.ones_like(sampling.weight)
    k = sampling.k
    together = A.terms is not None and A.terms.mixes
    apart = k.reshape(1 if together else math.prod(k.shape[:-2]), -1, k.shape[-1])
    if kind == "areas":
        if isinstance(k, Tracer):
            raise InputError(Problem("density", "areas of a traced trajectory", "'iterative'"))
        fov = (1.0,) * k.shape[-1]
        areas = [density_weights(np.asarray(frame, float), fov) for frame in apart]
        w = jnp.asarray(np.stack(areas), k.dtype)
    elif kind == "iterative":
        w = jax.lax.map(lambda frame: _pipe_menon(frame, sampling, iterations), apart)
    else:
        raise InputError(Problem("density", repr(kind), "iterative, areas or none"))
    return w.reshape(k.shape[:-1])


def _pipe_menon(
    k: Float[Array, "samples axes"], sampling: Along, iterations: int
) -> Float[Array, " samples"]:
    twice = tuple(2 * n for n in sampling.shape)
    ones = jnp.ones(k.shape[0], k.dtype)
    F = Along(2 * k, ones, twice, sampling.tolerance)
    triangle = jnp.ones((1,) * len(twice), k.dtype)
    for axis, n in enumerate(sampling.shape):
        along = np.maximum(1 - np.abs(np.arange(2 * n) - n) / n, 0) * 2
        shape = [1] * len(twice)
        shape[axis] = 2 * n
        triangle = triangle * jnp.asarray(along, k.dtype).reshape(shape)

    def improve(_, w):
        image = F.image(w.astype(jnp.result_type(w.dtype, jnp.complex64)), 0, False)
        met = F.spectrum(triangle * image, 0, False).real
        return w / jnp.maximum(met, 0.1 * w)

    return jax.lax.fori_loop(0, iterations, improve, ones)
