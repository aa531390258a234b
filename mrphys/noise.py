"""η, the noise: complex Gaussian in the signal, Rician in its magnitude."""

import math

import jax
import jax.numpy as jnp
from jax.scipy.special import i0e, i1e
from jaxtyping import Array, ArrayLike, Complex, Float, Inexact, PRNGKeyArray

from mrphys.sequence.base import Sequence

# From this SNR on, an asymptotic series replaces a difference that would cancel.
_HIGH_SNR = 12.0
# ((-1/2)_k)² / k!, the asymptotic series of 1F1(-1/2; 1; -x) (Abramowitz, Stegun 1964, 13.5.1)
_SERIES = (1 / 4, 1 / 32, 3 / 128, 75 / 2048, 735 / 8192, 19845 / 65536, 343035 / 262144)


def complex_gaussian(
    theta: Sequence,
    x: Inexact[Array, "*voxels readouts"],
    noise_sd: ArrayLike,
    key: PRNGKeyArray,
) -> Complex[Array, "*voxels readouts"]:
    """x + η, the real and the imaginary part of η normal with sd noise_sd / sqrt(averages).

    noise_sd is that of a single average, one number or one for each voxel. With the draw fixed by
    `key`, differentiable in x, noise_sd and the averages.
    """
    sd = jnp.broadcast_to(theta.readout_sd(noise_sd), x.shape)
    real, imaginary = jax.random.normal(key, (2, *x.shape), sd.dtype)
    return x + jax.lax.complex(sd * real, sd * imaginary)


def receiver_noise(
    y: Inexact[Array, "..."],
    covariance: Inexact[Array, "coils coils"],
    key: PRNGKeyArray,
    *,
    axis: int = -2,
) -> Complex[Array, "..."]:
    """y + η of coils that hear the same noise: Ψ = E[η ηᴴ], samples independent of one another.

    η = L n with L Lᴴ = Ψ and n complex Gaussian, E|n|² = 1: independent coils of sd σ in each part
    have Ψ = 2 σ² I. `axis` is that of the coils. Differentiable in y and Ψ, which is positive
    definite: elsewhere the result is not a number.
    """
    z = y.astype(jnp.result_type(y.dtype, jnp.complex64))
    covariance = jnp.asarray(covariance, z.dtype)
    real, imaginary = jax.random.normal(key, (2, *y.shape), z.real.dtype) * math.sqrt(0.5)
    mixed = jnp.tensordot(
        jnp.linalg.cholesky(covariance), jax.lax.complex(real, imaginary), axes=(1, axis)
    )
    return z + jnp.moveaxis(mixed, 0, axis)


def magnitude(x: Inexact[Array, "..."]) -> Float[Array, "..."]:
    """|x|, with derivative 0 where x is 0."""
    zero = x == 0
    return jnp.where(zero, 0.0, jnp.abs(jnp.where(zero, 1.0, x)))


def rician_mean(amplitude: ArrayLike, sd: ArrayLike) -> Float[Array, "..."]:
    """E[M] of M = |A + η|, η complex Gaussian with sd σ in each part.

        E[M] = σ sqrt(π/2) ((1 + 2z) I0(z) + 2z I1(z)) exp(-z),    z = A² / 4σ²

    For A, σ > 0 of one shape, or numbers. Valid from SNR A/σ = 0 (Rayleigh, σ sqrt(π/2)) to 1e4
    in float32. Source: Rice 1944, doi 10.1002/j.1538-7305.1944.tb00874.x.

    >>> float(rician_mean(0.0, 1.0).round(6))
    1.253314
    """
    amplitude, sd = jnp.asarray(amplitude), jnp.asarray(sd)
    return amplitude + sd * _excess(amplitude / sd)


def rician_variance(amplitude: ArrayLike, sd: ArrayLike) -> Float[Array, "..."]:
    """Var[M] = 2σ² + A² - E[M]², free of cancellation at high SNR, where it tends to σ².

    Arguments, range and source as `rician_mean`; at A = 0 it is (2 - π/2) σ².
    """
    snr = jnp.asarray(amplitude) / jnp.asarray(sd)
    excess = _excess(snr)
    return (2 - 2 * snr * excess - excess**2) * jnp.asarray(sd) ** 2


def rician_mean_slope(amplitude: ArrayLike, sd: ArrayLike) -> Float[Array, "..."]:
    """dE[M]/dA = sqrt(π/8) (A/σ) (I0(z) + I1(z)) exp(-z), from 0 on the noise floor to 1."""
    return _slope(jnp.asarray(amplitude) / jnp.asarray(sd))


def rician_mean_curvature(amplitude: ArrayLike, sd: ArrayLike) -> Float[Array, "..."]:
    """d²E[M]/dA² = sqrt(π/8) (I0(z) - I1(z)) exp(-z) / σ."""
    sd = jnp.asarray(sd)
    return _curvature(jnp.asarray(amplitude) / sd) / sd


def rician_log_likelihood(m: ArrayLike, amplitude: ArrayLike, sd: ArrayLike) -> Float[Array, "..."]:
    """log p(M | A, σ) = log(M/σ²) - (M - A)²/2σ² + log(I0(MA/σ²) exp(-MA/σ²)).

    -inf for M <= 0. Arguments of one shape, or numbers; finite where the density underflows.
    Source: as `rician_mean`.
    """
    m, amplitude, sd = jnp.asarray(m), jnp.asarray(amplitude), jnp.asarray(sd)
    positive = m > 0
    m = jnp.where(positive, m, 1.0)
    bessel = i0e((m / sd) * (amplitude / sd))
    density = jnp.log(m / sd) - jnp.log(sd) - ((m - amplitude) / sd) ** 2 / 2 + jnp.log(bessel)
    return jnp.where(positive, density, -jnp.inf)


def background_sd(m: Float[Array, "..."]) -> Float[Array, ""]:
    """Noise sd from magnitudes M of air, where M is Rayleigh: σ² = mean(M²) / 2.

    The maximum-likelihood estimate, its relative standard error 1 / (2 sqrt(N)).
    Source: Sijbers et al. 2007, doi 10.1088/0031-9155/52/5/009.
    """
    return jnp.sqrt(jnp.mean(m**2) / 2)


@jax.custom_jvp
def _excess(snr: Float[Array, "..."]) -> Float[Array, "..."]:
    """(E[M] - A) / σ, which falls from sqrt(π/2) as 1 / 2 SNR."""
    z = snr**2 / 4
    exact = jnp.sqrt(jnp.pi / 2) * ((1 + 2 * z) * i0e(z) + 2 * z * i1e(z)) - snr
    high_snr = jnp.maximum(snr, _HIGH_SNR)
    y = 2 / high_snr**2
    series = jnp.zeros_like(y)
    for coefficient in reversed(_SERIES):
        series = (series + coefficient) * y
    return jnp.where(snr > _HIGH_SNR, high_snr * series, exact)


@jax.custom_jvp
def _slope(snr: Float[Array, "..."]) -> Float[Array, "..."]:
    z = snr**2 / 4
    return jnp.sqrt(jnp.pi / 8) * snr * (i0e(z) + i1e(z))


def _curvature(snr: Float[Array, "..."]) -> Float[Array, "..."]:
    z = snr**2 / 4
    return jnp.sqrt(jnp.pi / 8) * (i0e(z) - i1e(z))


# JAX takes the derivative of exp(-|z|) as 0 at z = 0; these are right there too.
_excess.defjvps(lambda tangent, _, snr: (_slope(snr) - 1) * tangent)
_slope.defjvps(lambda tangent, _, snr: _curvature(snr) * tangent)
