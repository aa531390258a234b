"""What unfolding costs: the noise of SENSE, in closed form where aliases are few."""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from mrphys.encoding import Encoding
from mrphys.encoding.sampling import Cartesian
from mrphys.errors import InputError, Problem

TOGETHER = 4096
"""Voxels whose matrices are made at once."""


def g_factor(A: Encoding) -> Float[Array, "*shape"]:
    """g = sqrt((SᴴS)⁻¹_rr (SᴴS)_rr), S the coils at a voxel r and its aliases.

    The noise of SENSE without regularisation, over sqrt(R) times that of all samples: 1 where coils
    tell aliases apart as if there were none. 0 where no coil receives. For every mask whose samples
    are a lattice: each Rth line, in two directions, shifted as in CAIPIRINHA. Others, trajectories
    too, by replicas: `g_of(A, pseudo_replicas(...).sd, noise_sd)`.

    Noise is white: prewhitened. Raises InputError for another mask, and without coils.

    Pruessmann et al. 1999, doi:10.1002/(SICI)1522-2594(199911)42:5<952::AID-MRM16>3.0.CO;2-S.
    """
    maps, where = _aliases(A)
    received = jnp.sum(maps.real**2 + maps.imag**2, axis=0)
    variance = _inverse_diagonal(maps, where)
    return jnp.sqrt(jnp.maximum(variance * received, 0))


def noise_map(A: Encoding, noise_sd: float) -> Float[Array, "*shape"]:
    """sd of the real part of SENSE without regularisation, noise_sd sqrt((AᴴA)⁻¹_rr), of data whose
    real part has the sd noise_sd; 0 where no coil receives. For masks as `g_factor` takes them."""
    maps, where = _aliases(A)
    return noise_sd * jnp.sqrt(_inverse_diagonal(maps, where) * len(where))


def g_of(A: Encoding, sd: Float[Array, "..."], noise_sd: float) -> Float[Array, "..."]:
    """g of an sd map, by replicas say: over noise_sd sqrt(R / Σ|c|²), R voxels per sample. Of
    trajectories R is so too: 1 is what as many samples of full grids would leave."""
    if A.coils is None or A.coils.ndim != len(A.sampling.shape) + 1:
        raise InputError(Problem("g_of", "no coils, or several slices'", "(coils, *shape)"))
    each = (*A.sampling.frames, *A.sampling.samples)
    samples = jnp.sum(jnp.broadcast_to(A.sampling.weight != 0, each))
    ratio = math.prod((*A.sampling.frames, *A.sampling.shape)) / samples
    received = jnp.sum(A.coils.real**2 + A.coils.imag**2, axis=0)
    return sd * jnp.sqrt(received / ratio) / noise_sd


def _aliases(A: Encoding) -> tuple[Complex[Array, "coils *shape"], np.ndarray]:
    """Coils, and how far the aliases of a voxel are, itself first."""
    sampling = A.sampling
    plain = isinstance(sampling, Cartesian) and not sampling.frames and A.terms is None
    if not plain or A.coils is None or isinstance(sampling.weight, Tracer):
        expected = "a mask on a grid, with coils; others by replicas"
        raise InputError(Problem("g_factor", "another encoding", expected))
    mask = np.broadcast_to(np.asarray(sampling.weight), sampling.shape)
    spread = np.abs(np.fft.ifftn(mask))
    where = np.argwhere(spread > 1e-5 * spread.flat[0])
    samples = np.count_nonzero(mask)
    if len(where) * samples != mask.size or np.ptp(mask[mask != 0]) > 0:
        found = f"{samples} of {mask.size} samples, {len(where)} aliases"
        expected = "a lattice, each Rth line; others by replicas"
        cause = "calibration lines among the samples, or R that does not divide the matrix"
        raise InputError(Problem("g_factor", found, expected, cause))
    return A.coils * mask.max(), where


def _inverse_diagonal(
    maps: Complex[Array, "coils *shape"], where: np.ndarray
) -> Float[Array, "*shape"]:
    """(SᴴS)⁻¹_rr at each voxel. Phases of a lattice's spread turn whole columns of S: they do not
    matter. Aliases that no coil receives are no unknowns."""
    shape = maps.shape[1:]
    flat = maps.reshape(maps.shape[0], -1)
    place = np.stack(np.unravel_index(np.arange(flat.shape[1]), shape))
    shifts = [tuple((p + w) % n for p, w, n in zip(place, at, shape, strict=True)) for at in where]
    indices = jnp.asarray(np.stack([np.ravel_multi_index(at, shape) for at in shifts], axis=1))
    first = jnp.zeros(len(where), flat.dtype).at[0].set(1)

    def variance(index):
        S = flat[:, index]
        gram = jnp.conj(S).T @ S
        size = jnp.real(jnp.diagonal(gram))
        gram = gram + jnp.diag(jnp.where(size > 0, 0, 1).astype(gram.dtype))
        return jnp.where(size[0] > 0, jnp.linalg.solve(gram, first)[0].real, 0)

    return jax.lax.map(variance, indices, batch_size=TOGETHER).reshape(shape)
