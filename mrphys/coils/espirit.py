"""ESPIRiT: sensitivities from the middle of k-space, without a model of the coils."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Inexact

from mrphys.coils.principal import principal
from mrphys.errors import InputError, Problem
from mrphys.units import check_finite

ITERATIONS = 12


def espirit(
    calibration: Inexact[Array | np.ndarray, "coils ..."],
    shape: tuple[int, ...],
    *,
    kernel: int = 6,
    null_space: float = 0.02,
    crop: float = 0.85,
) -> Complex[Array, "coils ..."]:
    """Sensitivities c (coils, *shape), Σ|c|² = 1 in the object and 0 outside.

    Patches of k-space, `kernel` wide in every coil, span a space of few dimensions; P projects on
    it. Patches of the image's spectrum are left as they are by P, and the mean of all patches of
    one place is, in the image, a matrix of coils in each voxel,

        G_ij(r) = Σ_pq P_ip,jq exp(2πi (p - q)·r) / kernelᵈ,    G c = c,

    whose eigenvector of eigenvalue 1 is c. Its phase, which no data know, is such that the coils'
    principal combination is real.

    calibration  (coils, *region), every sample of the middle of centred k-space
    null_space   singular values below this part of the largest are noise
    crop         eigenvalues below are not of the object

    Line after line of the image: what is held at once is coils² numbers for each voxel of a line.
    Raises InputError for a region narrower than the kernel, or wider than the image, for samples
    that are not finite and for none but zeros.

    Source: Uecker et al. 2014, doi:10.1002/mrm.24751.
    """
    data = jnp.asarray(calibration)
    region, size = data.shape[1:], tuple(int(n) for n in shape)
    if len(region) != len(size) or not 1 <= len(size) <= 3:
        found = f"calibration {data.shape} of images {size}"
        raise InputError(Problem("espirit", found, "(coils, *region), one to three axes"))
    if any(not kernel <= n <= m for n, m in zip(region, size, strict=True)):
        found = f"a region of {region} in images of {size}, a kernel of {kernel}"
        cause = "too few lines in the middle of k-space taken without gaps"
        raise InputError(Problem("espirit", found, "kernel <= region <= image", cause))
    check_finite("espirit: calibration", data)
    if not isinstance(data, Tracer) and not np.any(np.asarray(data)):
        raise InputError(Problem("espirit: calibration", "zeros", "signal", "an empty region"))
    data = data.astype(jnp.result_type(data.dtype, jnp.complex64))
    return _maps(data, size, kernel, null_space, crop)


@partial(jax.jit, static_argnames=("shape", "kernel", "null_space", "crop"))
def _maps(
    data: Complex[Array, "coils ..."],
    shape: tuple[int, ...],
    kernel: int,
    null_space: float,
    crop: float,
) -> Complex[Array, "coils ..."]:
    coils = data.shape[0]
    flat = data.reshape(coils, -1)
    _, turned = jnp.linalg.eigh(flat @ jnp.conj(flat.T))
    kernels = _kernels(data, kernel, null_space)
    waves = [_waves(n, kernel, data.dtype) for n in shape]

    def voxels(h: Array, waves: list[Array]) -> tuple[Array, Array]:
        """Of kernels (coils, coils, *offsets) along the axes that are left, voxels last."""
        if len(waves) == 1:
            g = jnp.einsum("ijd,dn->ijn", h, waves[0])
            return principal(g, turned[:, -1], ITERATIONS)

        def line(wave: Array) -> tuple[Array, Array]:
            return voxels(jnp.tensordot(h, wave, axes=([2], [0])), waves[1:])

        return jax.lax.map(line, waves[0].T)

    value, c = voxels(kernels, waves)
    c = jnp.moveaxis(c, -2, 0)
    return jnp.where((value > crop)[None], c, 0)


def _kernels(
    data: Complex[Array, "coils ..."], kernel: int, null_space: float
) -> Complex[Array, "coils coils ..."]:
    """P summed along its diagonals, (coils, coils, *offsets), offsets p - q from 1 - kernel on."""
    coils, axes = data.shape[0], data.ndim - 1
    region = data.shape[1:]
    inside = tuple(n - kernel + 1 for n in region)
    offsets = np.stack(np.meshgrid(*[np.arange(kernel)] * axes, indexing="ij"), -1)
    offsets = offsets.reshape(-1, axes)
    patches = jnp.stack(
        [
            data[(slice(None), *[slice(o, o + n) for o, n in zip(offset, inside, strict=True)])]
            for offset in offsets
        ],
        axis=1,
    ).reshape(coils * len(offsets), -1)
    many = patches.shape[0] > patches.shape[1]
    gram = jnp.conj(patches.T) @ patches if many else patches @ jnp.conj(patches.T)
    values, vectors = jnp.linalg.eigh(gram)
    kept = jnp.where(values > null_space**2 * values[-1], 1.0, 0.0).astype(values.dtype)
    if many:
        vectors, kept = patches @ vectors, kept / jnp.where(kept > 0, values, 1.0)
    p = (vectors * kept[None]) @ jnp.conj(vectors.T)
    p = p.reshape(coils, len(offsets), coils, len(offsets))
    between = offsets[:, None] - offsets[None] + kernel - 1
    wide = 2 * kernel - 1
    where = between @ wide ** np.arange(axes - 1, -1, -1)
    flat = p.transpose(1, 3, 0, 2).reshape(-1, coils * coils)
    summed = jax.ops.segment_sum(flat, jnp.asarray(where.ravel()), wide**axes)
    return summed.T.reshape(coils, coils, *[wide] * axes) / math.prod([kernel] * axes)


def _waves(n: int, kernel: int, dtype: jnp.dtype) -> Complex[Array, "offsets n"]:
    """exp(2πi d r), d from 1 - kernel to kernel - 1, r of a voxel in fields of view."""
    d = np.arange(1 - kernel, kernel)
    return jnp.asarray(np.exp(2j * np.pi * np.outer(d, (np.arange(n) - n // 2) / n)), dtype)
