"""Noise of the coils made independent and equal, by a scan without signal."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Inexact

from mrphys.errors import InputError, Problem
from mrphys.units import check_finite


def whitening(
    noise: Inexact[Array | np.ndarray, "coils samples"] | None, *, ratio: float = 1.0
) -> tuple[Complex[Array, "coils coils"], float]:
    """W and σ: the noise of W y is independent from coil to coil, its real and its imaginary part
    of sd σ.

        Ψ = E[η ηᴴ] = L Lᴴ,   W = sqrt(2) σ L⁻¹,   σ² = tr Ψ / (2 coils)

    so that numbers keep their size. W is lower triangular.

    ratio  variance of the image's noise over that of the scan of noise, as the dwell times of both

    Raises InputError where there is no scan of noise, fewer samples than twice the coils, samples
    that are not finite, or a coil (or combination of coils) without noise.

    Source: Pruessmann et al. 2001, doi:10.1002/mrm.1241.
    """
    if noise is None:
        cause = "it was not recorded or not exported; noise can't be told from signal without"
        raise InputError(Problem("whitening", "no noise scan", "(coils, samples) of noise", cause))
    n = np.asarray(noise)
    if n.ndim != 2 or n.shape[1] < 2 * n.shape[0]:
        expected = "(coils, samples), at least two samples for each coil"
        raise InputError(Problem("whitening: noise", f"shape {n.shape}", expected))
    check_finite("whitening: noise", n)
    psi = (n @ n.conj().T) * (ratio / n.shape[1])
    values = np.linalg.eigvalsh(psi)
    if values[0] <= 1e-12 * values[-1] or values[-1] == 0:
        rank = int(np.sum(values > 1e-12 * max(values[-1], 1e-300)))
        cause = "a coil unplugged, or virtual coils of fewer real ones"
        found = f"noise of {rank} independent coils of {n.shape[0]}"
        raise InputError(Problem("whitening: noise", found, "noise in every coil", cause))
    sd = float(np.sqrt(np.trace(psi).real / (2 * n.shape[0])))
    w = np.sqrt(2) * sd * np.linalg.inv(np.linalg.cholesky(psi))
    return jnp.asarray(w.astype(np.result_type(n.dtype, np.complex64))), sd


def mixed(
    y: Inexact[Array | np.ndarray, "..."],
    matrix: Inexact[Array | np.ndarray, "virtual coils"],
    *,
    axis: int = 0,
) -> Complex[Array, "..."]:
    """M y along the axis of coils, by `whitening` or `compression`, of data or of sensitivities:
    of both, or of neither.

    Raises InputError for another number of coils.
    """
    values = jnp.asarray(y)
    if values.shape[axis] != matrix.shape[1]:
        found = f"{values.shape[axis]} coils, a matrix for {matrix.shape[1]}"
        raise InputError(Problem("coils.mixed", found, "as many coils"))
    z = jnp.moveaxis(jnp.tensordot(jnp.asarray(matrix), values, axes=(1, axis)), 0, axis)
    return z.astype(jnp.result_type(z.dtype, jnp.complex64))
