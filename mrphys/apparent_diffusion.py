"""q from x: the apparent diffusion coefficient of magnitude images, with its standard deviation."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Int

from mrphys.errors import InputError, Problem
from mrphys.noise import (
    magnitude,
    rician_mean,
    rician_mean_curvature,
    rician_mean_slope,
    rician_variance,
)
from mrphys.sequence.diffusion import DiffusionWeighted
from mrphys.simulate import over_voxels
from mrphys.units import check_range

OK, NOISE_FLOOR, ILL_DETERMINED = 0, 1, 2

# The fit counts b in ms/µm² and ADC in µm²/ms, so that both are near 1 in float32.
_PER_MS = 1e3
_IMPLAUSIBLE_ADC = 10.0
_ITERATIONS = 20
_BLOCK = 1024


class AdcMap(eqx.Module):
    """An ADC map and how far to trust it. All fields have the voxels' shape.

    adc_mm2_per_s, adc_sd_mm2_per_s  estimate and standard deviation
    m0, m0_sd                        amplitude at b = 0, relaxation included
    residual                         reduced χ²; 0 with two readouts, where nothing is left over
    status                           OK; NOISE_FLOOR: an amplitude is below twice its noise, the
                                     estimate stands; ILL_DETERMINED: outside the mask, not finite,
                                     no signal, or no solution with |ADC| < 0.01 mm²/s;
                                     values 0 and sd infinite
    noise_floor_bias_mm2_per_s       what an unweighted log-linear fit of the magnitudes would err
                                     by, in expectation, had the voxel this estimate
    """

    adc_mm2_per_s: Float[Array, "*voxels"]
    adc_sd_mm2_per_s: Float[Array, "*voxels"]
    m0: Float[Array, "*voxels"]
    m0_sd: Float[Array, "*voxels"]
    residual: Float[Array, "*voxels"]
    status: Int[Array, "*voxels"]
    noise_floor_bias_mm2_per_s: Float[Array, "*voxels"]


def fit_adc(
    theta: DiffusionWeighted,
    x: Inexact[Array, "*voxels readouts"],
    noise_sd: ArrayLike,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
) -> AdcMap:
    """The ADC of every voxel, from the magnitudes |x| of at least two different b-values.

    With A_i = m0 exp(-b_i ADC), σ_i = noise_sd / sqrt(averages_i), µ and v the mean and variance of
    a Rician magnitude, the estimate solves the quasi-likelihood equations

        Σ_i (|x_i| - µ(A_i, σ_i)) / v(A_i, σ_i) ∂µ_i/∂(log m0, ADC) = 0

    so that the noise floor is part of the model. The standard deviations are from the information
    Σ (∂µ)(∂µ)ᵀ / v; at high SNR all this is maximum likelihood and the Cramér-Rao bound. Valid for
    an SNR of about 5 or more at b = 0; below, the estimates skew upwards, the standard deviations
    are too large, and ever more voxels have no solution (b to 1000 s/mm²: 3 % at SNR 3, 16 % at 2).

    noise_sd is the sd of the real part of one average, one number or one for each voxel, > 0.
    Derivatives with respect to θ.b_s_per_mm2, θ.averages, x and noise_sd, forward and reverse, are
    those of the solution (implicit function theorem, exact Jacobian), not of the iterations, and
    exact to third order; ill-determined voxels have derivative 0. Raises InputError for shapes
    that do not match, fewer than two b-values and noise_sd <= 0.

    Source: Wedderburn 1974, doi 10.1093/biomet/61.3.439; Koay, Basser 2006,
    doi 10.1016/j.jmr.2006.01.016 (the moments).
    """
    _check(theta, x, noise_sd, mask)
    return _map(theta, x, jnp.asarray(noise_sd), mask)


@eqx.filter_jit
def _map(theta: DiffusionWeighted, x: Array, noise_sd: Array, mask: Any) -> AdcMap:
    voxels, readouts = x.shape[:-1], x.shape[-1]
    usable = jnp.isfinite(x).all(-1) & (x != 0).any(-1)
    if mask is not None:
        usable &= mask
    noise = jnp.broadcast_to(noise_sd, voxels)
    snr = magnitude(jnp.where(usable[..., None], x, 1.0)) / noise[..., None]

    b, gain = theta.b_s_per_mm2[:, None] / _PER_MS, jnp.sqrt(theta.averages)[:, None]
    fits = over_voxels(_fit_rows, (b, gain), snr.reshape(-1, readouts), _BLOCK)
    log_m0, adc, log_m0_sd, adc_sd, residual, bias, weakest, solved = (
        value.reshape(voxels) for value in fits
    )
    good = usable & solved
    m0 = jnp.exp(jnp.where(good, log_m0, 0.0)) * noise
    status = jnp.where(weakest < 2, NOISE_FLOOR, OK)
    return AdcMap(
        adc_mm2_per_s=jnp.where(good, adc / _PER_MS, 0.0),
        adc_sd_mm2_per_s=jnp.where(good, adc_sd / _PER_MS, jnp.inf),
        m0=jnp.where(good, m0, 0.0),
        m0_sd=jnp.where(good, m0 * log_m0_sd, jnp.inf),
        residual=jnp.where(good, residual, 0.0),
        status=jnp.where(good, status, ILL_DETERMINED),
        noise_floor_bias_mm2_per_s=jnp.where(good, bias / _PER_MS, 0.0),
    )


def _check(theta, x, noise_sd, mask):
    b, voxels, problems = theta.b_s_per_mm2, x.shape[:-1], []
    if x.shape[-1:] != b.shape:
        expected = f"a last axis of {b.size} readouts"
        problems.append(Problem("fit_adc: x", f"shape {x.shape}", expected, "b-values not last"))
    concrete = not isinstance(b, Tracer)
    if b.size < 2 or (concrete and np.unique(np.asarray(b)).size < 2):
        problems.append(Problem("fit_adc", f"b-values {b} s/mm²", "two or more different b-values"))
    if mask is not None and mask.shape != voxels:
        expected = f"shape {voxels}"
        problems.append(Problem("fit_adc: mask", f"shape {mask.shape}", expected, "another image"))
    if jnp.shape(noise_sd) not in ((), voxels):
        found = f"shape {jnp.shape(noise_sd)}"
        problems.append(Problem("fit_adc: noise_sd", found, f"one number or shape {voxels}"))
    if problems:
        raise InputError(*problems)
    smallest = float(jnp.finfo(x.real.dtype).tiny)
    check_range("fit_adc: noise_sd", noise_sd, smallest, float("inf"), "(signal units)")


# From here on arrays are (readouts, voxels), or (voxels,) for what a voxel has one of: laid out so,
# a block of voxels stays in cache and the processor's vectors run along it.


def _fit_rows(theta, rows):
    b, gain = theta
    return _fit(b, gain, gain * rows.T)


def _fit(b, gain, observed):
    """log m0 (in units of noise) and ADC of a block of voxels, with all that AdcMap reports.

    The iterations are not differentiated. Two Newton steps with the exact Jacobian follow from
    their root: they leave it where it is and, each step squaring the error, carry its derivatives
    exactly to third order. Unsolved voxels are first replaced by one that fits, whose derivatives
    are finite.
    """
    beta, solved = _root(*jax.lax.stop_gradient((b, gain, observed)))
    beta = tuple(jnp.where(solved, value, 1.0) for value in beta)
    observed = jnp.where(solved[None], observed, rician_mean(_snr(beta, b, gain), 1.0))
    for _ in range(2):
        force, _, newton = _equations(beta, b, gain, observed)
        steps = _times(_inverse(newton)[0], *force)
        beta = (beta[0] + steps[0], beta[1] + steps[1])
    snr = _snr(beta, b, gain)
    _, information, _ = _equations(beta, b, gain, observed)
    variances, _ = _inverse(information)
    departure = (observed - rician_mean(snr, 1.0)) ** 2 / rician_variance(snr, 1.0)
    residual = departure.sum(0) / max(b.size - 2, 1) * (b.size > 2)
    spread = b - b.mean()
    bias = -(spread * _log_excess(snr)).sum(0) / (spread**2).sum()
    sds = jnp.sqrt(variances[0]), jnp.sqrt(variances[2])
    return *beta, *sds, residual, bias, snr.min(0), solved


def _root(b, gain, observed):
    """The root of the score, and where there is one.

    By Newton's method, and by Fisher scoring where Newton's would not ascend.
    """

    def improve(state):
        count, _, (log_m0, adc) = state
        force, fisher, newton = _equations((log_m0, adc), b, gain, observed)
        ascends = (_determinant(newton) > 0.5 * _determinant(fisher)) & (newton[0] > 0)
        curvature = (jnp.where(ascends, n, f) for n, f in zip(newton, fisher, strict=True))
        inverse, _ = _inverse(tuple(curvature))
        steps = [jnp.clip(step, -1.0, 1.0) for step in _times(inverse, *force)]
        largest = jnp.where(jnp.abs(adc) < _IMPLAUSIBLE_ADC, jnp.abs(jnp.stack(steps)).max(0), 0.0)
        return count + 1, largest.max(), (log_m0 + steps[0], adc + steps[1])

    def unfinished(state):
        count, largest, _ = state
        return (count < _ITERATIONS) & (largest > jnp.sqrt(jnp.finfo(largest.dtype).eps))

    start = 0, jnp.full((), jnp.inf, observed.dtype), _start(b, gain, observed)
    beta = jax.lax.while_loop(unfinished, improve, start)[2]
    force, fisher, newton = _equations(beta, b, gain, observed)
    inverse, regular = _inverse(newton)
    stable = regular & (_determinant(newton) > 0) & (newton[0] > 0)
    arrived = jnp.abs(jnp.stack(_times(inverse, *force))).max(0) < 1e-3
    informed = _inverse(fisher)[1] & (jnp.abs(beta[1]) < _IMPLAUSIBLE_ADC)
    return beta, stable & arrived & informed


def _snr(beta, b, gain):
    """The amplitude of each readout in units of its noise."""
    return gain * jnp.exp(beta[0][None] - b * beta[1][None])


def _equations(beta, b, gain, observed):
    """The score, and its negative Jacobian: expected (the information) and exact."""
    snr = _snr(beta, b, gain)
    mean, variance = rician_mean(snr, 1.0), rician_variance(snr, 1.0)
    slope, curvature = rician_mean_slope(snr, 1.0), rician_mean_curvature(snr, 1.0)
    weight = snr * slope / variance
    variance_slope = 2 * snr - 2 * mean * slope
    weight_slope = (slope + snr * curvature - weight * variance_slope) / variance
    departure = observed - mean
    pull, expected = departure * weight, snr * slope * weight
    exact = expected - departure * snr * weight_slope
    return (pull.sum(0), -(b * pull).sum(0)), _normal(expected, b), _normal(exact, b)


def _start(b, gain, observed):
    """Weighted log-linear least squares of the magnitudes, their noise floor subtracted."""
    squared = jnp.maximum(observed**2 - 2, 0.25)
    log_signal = squared * (jnp.log(squared) / 2 - jnp.log(gain))
    inverse, _ = _inverse(_normal(squared, b))
    return _times(inverse, log_signal.sum(0), -(b * log_signal).sum(0))


def _normal(weight, b):
    """The matrix Σ weight (1, -b)(1, -b)ᵀ by its entries 00, 01 and 11."""
    return weight.sum(0), -(b * weight).sum(0), (b**2 * weight).sum(0)


def _determinant(matrix):
    return matrix[0] * matrix[2] - matrix[1] ** 2


def _inverse(matrix):
    """The inverse of symmetric 2x2 matrices, and whether there is one; 0 where there is none."""
    determinant = _determinant(matrix)
    size = jnp.abs(matrix[0] * matrix[2]) + matrix[1] ** 2
    regular = jnp.abs(determinant) > 8 * jnp.finfo(size.dtype).eps * size
    scale = jnp.where(regular, 1 / jnp.where(regular, determinant, 1.0), 0.0)
    return (matrix[2] * scale, -matrix[1] * scale, matrix[0] * scale), regular


def _times(matrix, first, second):
    return matrix[0] * first + matrix[1] * second, matrix[1] * first + matrix[2] * second


def _log_excess(snr):
    """E[log M] - log A = E1(A² / 2σ²) / 2 for a Rician magnitude.

    E1 to 2e-7 by Abramowitz, Stegun 1964, 5.1.53 and 5.1.56.
    """
    y = jnp.maximum(snr**2 / 2, jnp.finfo(snr.dtype).tiny)
    low = jnp.minimum(y, 1.0)
    near = (-0.57721566, 0.99999193, -0.24991055, 0.05519968, -0.00976004, 0.00107857)
    series = jnp.polyval(jnp.asarray(near[::-1], y.dtype), low) - jnp.log(low)
    high = jnp.clip(y, 1.0, 80.0)
    above = (1.0, 8.5733287401, 18.0590169730, 8.6347608925, 0.2677737343)
    below = (1.0, 9.5733223454, 25.6329561486, 21.0996530827, 3.9584969228)
    ratio = jnp.polyval(jnp.asarray(above, y.dtype), high) / jnp.polyval(
        jnp.asarray(below, y.dtype), high
    )
    return jnp.where(y < 1, series, ratio * jnp.exp(-high) / high) / 2
