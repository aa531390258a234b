"""Signals whose logarithm is linear in what is sought: weighted least squares, in closed form.

    log S_i = Σ_k X_ik β_k,   the noise of log S_i being noise_sd / (sqrt(averages_i) S_i)

Every array has the voxels on its last axis. The design X = Q R is made orthonormal once, so that
the normal equations of a voxel keep their digits in float32.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem

DEEPEST = 1e-4
"""Of a voxel's largest signal: what is below counts as this much in the first, unweighted fit, and
not at all after it."""


class Design(NamedTuple):
    """Q and R⁻¹ of X = Q R, and the averages of each readout."""

    q: Float[Array, "readouts unknowns"]
    r_inverse: Float[Array, "unknowns unknowns"]
    averages: Float[Array, " readouts"]


class LogLinear(NamedTuple):
    """What was found: β; the covariance of R β, the noise being the voxel's `unit`; the sd of what
    is left over, in the signal's units."""

    beta: Float[Array, "unknowns voxels"]
    covariance: Float[Array, "unknowns unknowns voxels"]
    unit: Float[Array, " voxels"]
    residual: Float[Array, " voxels"]


def design(
    where: str, x: Float[Array, "readouts unknowns"], averages: Float[Array, " readouts"], lost: str
) -> Design:
    """Raises InputError where readouts do not determine the unknowns; `lost` says the likely cause.
    A design being traced is not looked at."""
    if not isinstance(x, Tracer):
        matrix = np.asarray(x, np.float64)
        size = np.linalg.norm(matrix, axis=0)
        rank = np.linalg.matrix_rank(matrix / np.where(size > 0, size, 1.0), tol=1e-5)
        if rank < matrix.shape[1]:
            found = (
                f"{matrix.shape[0]} readouts that determine {rank} of {matrix.shape[1]} unknowns"
            )
            raise InputError(Problem(where, found, "readouts that determine all", lost))
    q, r = jnp.linalg.qr(x)
    return Design(
        q, jax.scipy.linalg.solve_triangular(r, jnp.eye(r.shape[0], dtype=r.dtype)), averages
    )


def fit_logarithm(design: Design, x: Float[Array, "readouts voxels"]) -> LogLinear:
    """β of magnitudes, not all of a voxel 0: unweighted, then by the signals so found.

        β = (Xᵀ W X)⁻¹ Xᵀ W log S,   W = averages S²

    Salvador et al. 2005, doi:10.1002/hbm.20076.
    """
    q, averages = design.q, design.averages[:, None]
    unit = jax.lax.stop_gradient(jnp.max(x, axis=0))
    x = x / unit[None]
    seen = x > DEEPEST
    log = jnp.log(jnp.where(seen, x, DEEPEST))
    first = q @ (q.T @ log)
    weight = jnp.where(seen, averages * jnp.exp(2 * jnp.minimum(first, 1.0)), 0.0)
    count = q.shape[1]
    i, j = np.tril_indices(count)
    entries = (q[:, i] * q[:, j]).T @ weight
    square = jnp.zeros((count, count), int).at[i, j].set(np.arange(i.size))
    square = jnp.maximum(square, square.T)
    covariance = inverse(entries[square])
    left = log - first
    step = jnp.sum(covariance * (q.T @ (weight * left))[None], axis=1)
    gamma = q.T @ log + step
    left = left - q @ step
    spare = x.shape[0] - count
    positive = jnp.sum(weight * left**2, axis=0)
    some = positive > 0
    residual = jnp.sqrt(jnp.where(some, positive, 1.0) / max(spare, 1)) * unit
    beta = design.r_inverse @ gamma
    return LogLinear(
        beta.at[0].add(jnp.log(unit)),
        covariance,
        unit,
        jnp.where(some & (spare > 0), residual, 0.0),
    )


def deviations(
    design: Design,
    fit: LogLinear,
    noise_sd: Float[Array, " voxels"],
    slopes: Float[Array, "some unknowns voxels"],
) -> Float[Array, "some voxels"]:
    """Standard deviations of functions of β, of the given slopes."""
    turned = jnp.sum(design.r_inverse[None, :, :, None] * slopes[:, :, None], axis=1)
    # In one sum: of two nested ones jaxlib 0.10.2 makes wrong float32 numbers here on processors.
    both = turned[:, :, None] * fit.covariance[None] * turned[:, None]
    return jnp.sqrt(jnp.sum(both, axis=(1, 2))) * (noise_sd / fit.unit)[None]


@jax.custom_jvp
def inverse(matrix: Float[Array, "n n voxels"]) -> Float[Array, "n n voxels"]:
    """Of symmetric positive matrices, each row and column in turn swept to the other side. A pivot
    lost to rounding is held at its size: what is not determined gets a huge inverse.

    Beaton 1964; Goodnight 1979, doi:10.1080/00031305.1979.10482685 (sweep).
    """
    index = jnp.arange(matrix.shape[0])
    rounding = jnp.finfo(matrix.dtype)
    least = jnp.einsum("iiv->iv", matrix) * rounding.eps + rounding.tiny

    def sweep(k: Array, now: Array) -> Array:
        here = (index == k)[:, None]
        pivot = jnp.maximum(now[k, k], least[k])
        row = jnp.where(here, -1.0, now[k])
        rest = jnp.where(here[:, None] | here[None], 0.0, now)
        return rest - row[:, None] * (row / pivot[None])[None]

    return -jax.lax.fori_loop(0, index.size, sweep, matrix)


@inverse.defjvp
def _(primals, tangents):
    found = inverse(*primals)
    half = jnp.sum(found[:, :, None] * tangents[0][None], axis=1)
    return found, -jnp.sum(half[:, :, None] * found[None], axis=1)
