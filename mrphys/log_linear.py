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
from jaxtyping import Array, Bool, Float

from mrphys.errors import InputError, Problem
from mrphys.likelihood import bessel_ratio, rician_information
from mrphys.noise import rician_mean, rician_variance

DEEPEST = 1e-4
"""Of a voxel's largest signal: what is below counts as this much in the first, unweighted fit, and
not at all after it."""
SCORINGS, SMALL, MOVING = 20, 1e-3, 0.05
"""Steps at most; the change of a signal's logarithm at which they end, and that at which a search
has not."""
BEYOND = 3.0
"""By how much the logarithm of a signal on the way may pass that of the largest datum."""


class Design(NamedTuple):
    """Q and R⁻¹ of X = Q R, and the averages of each readout."""

    q: Float[Array, "readouts unknowns"]
    r_inverse: Float[Array, "unknowns unknowns"]
    averages: Float[Array, " readouts"]


class LogLinear(NamedTuple):
    """What was found: γ = R β of signals in a voxel's `unit`; β; the covariance of γ, the noise
    being the unit; the sd of what is left over, in the signal's units; whether a search ended."""

    gamma: Float[Array, "unknowns voxels"]
    beta: Float[Array, "unknowns voxels"]
    covariance: Float[Array, "unknowns unknowns voxels"]
    unit: Float[Array, " voxels"]
    residual: Float[Array, " voxels"]
    arrived: Bool[Array, " voxels"]


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
    covariance = inverse(_information(q, weight))
    left = log - first
    step = jnp.sum(covariance * (q.T @ (weight * left))[None], axis=1)
    gamma = q.T @ log + step
    left = left - q @ step
    spare = x.shape[0] - q.shape[1]
    positive = jnp.sum(weight * left**2, axis=0)
    some = positive > 0
    residual = jnp.sqrt(jnp.where(some, positive, 1.0) / max(spare, 1)) * unit
    residual = jnp.where(some & (spare > 0), residual, 0.0)
    return LogLinear(
        gamma, _beta(design, gamma, unit), covariance, unit, residual, jnp.ones_like(some)
    )


def _beta(design: Design, gamma: Array, unit: Array) -> Float[Array, "unknowns voxels"]:
    return (design.r_inverse @ gamma).at[0].add(jnp.log(unit))


def _information(
    q: Float[Array, "readouts unknowns"], weight: Float[Array, "readouts voxels"]
) -> Float[Array, "unknowns unknowns voxels"]:
    """Qᵀ W Q of each voxel."""
    count = q.shape[1]
    i, j = np.tril_indices(count)
    entries = (q[:, i] * q[:, j]).T @ weight
    square = jnp.zeros((count, count), int).at[i, j].set(np.arange(i.size))
    return entries[jnp.maximum(square, square.T)]


def fit_magnitude(
    design: Design,
    x: Float[Array, "readouts voxels"],
    noise_sd: Float[Array, " voxels"],
    start: LogLinear,
) -> LogLinear:
    """β of greatest likelihood of magnitudes x (Rice), from that of the logarithm, by Fisher
    scoring: with A_i and M_i the signal and the datum in units of their noise

        Qᵀ W Q δ = Qᵀ (A (M I1(M A) / I0(M A) - A)),   W = A² ρ(A)

    and ρ of `rician_information`. The last step is Newton's: it leaves the root where it is and
    carries its derivative.
    """
    q, spare = design.q, x.shape[0] - design.q.shape[1]
    gain = jnp.sqrt(design.averages)[:, None] / noise_sd[None]
    m, scale = gain * x, jnp.log(gain * start.unit[None])

    highest = jax.lax.stop_gradient(jnp.log(jnp.maximum(jnp.max(m, axis=0), 1.0)) + BEYOND)[None]

    def amplitude(scale: Array, gamma: Array) -> Array:
        return jnp.exp(jnp.minimum(scale + q @ gamma, highest))

    def pull(log_a: Array, m: Array) -> Array:
        a = jnp.exp(log_a)
        return a * (m * bessel_ratio(m * a) - a)

    def covariance(a: Array) -> Array:
        return inverse(_information(q, a**2 * rician_information(a)))

    still_m, still_scale, begin = jax.lax.stop_gradient((m, scale, start.gamma))

    def improve(now: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
        count, _, gamma = now
        a = amplitude(still_scale, gamma)
        toward = q.T @ pull(jnp.log(a), still_m)
        step = jnp.sum(covariance(a) * toward[None], axis=1)
        moved = jnp.max(jnp.abs(q @ step), axis=0)
        return count + 1, moved, gamma + step / jnp.maximum(moved, 1.0)[None]

    def unfinished(now: tuple[Array, Array, Array]) -> Array:
        return (now[0] < SCORINGS) & (jnp.max(now[1]) > SMALL)

    _, moved, gamma = jax.lax.while_loop(
        unfinished, improve, (jnp.zeros((), int), jnp.full_like(start.unit, jnp.inf), begin)
    )
    arrived = moved < MOVING
    log_a = scale + q @ gamma
    force, bend = jax.jvp(lambda log_a: pull(log_a, m), (log_a,), (jnp.ones_like(log_a),))
    newton = jnp.sum(inverse(_information(q, -bend)) * (q.T @ force)[None], axis=1)
    near = arrived & (jnp.max(jnp.abs(q @ newton), axis=0) < MOVING)
    gamma = gamma + jnp.where(near[None], newton, 0.0)
    a = amplitude(scale, gamma)
    left = jnp.sum((m - rician_mean(a, 1.0)) ** 2 / rician_variance(a, 1.0), axis=0)
    residual = jnp.sqrt(jnp.where(left > 0, left, 1.0) / max(spare, 1)) * noise_sd
    return LogLinear(
        gamma,
        _beta(design, gamma, start.unit),
        covariance(a) * (start.unit / noise_sd)[None, None] ** 2,
        start.unit,
        jnp.where((left > 0) & (spare > 0), residual, 0.0),
        arrived,
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


def covariance(
    design: Design, fit: LogLinear, noise_sd: Float[Array, " voxels"]
) -> Float[Array, "unknowns unknowns voxels"]:
    """Of β."""
    half = jnp.einsum("ik,klv->ilv", design.r_inverse, fit.covariance)
    whole = jnp.einsum("ilv,jl->ijv", half, design.r_inverse)
    return whole * (noise_sd / fit.unit)[None, None] ** 2


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
