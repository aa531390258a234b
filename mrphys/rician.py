"""What a magnitude tells of its amplitude, beside what the complex datum tells."""

from functools import lru_cache

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev
from scipy.special import i0e, i1e

_MIDDLE = 4.0
_DEGREE = 32


def information_per_power(power: Float[Array, "..."]) -> Float[Array, "..."]:
    """ρ(s) / s² of a magnitude M of SNR s, given s².

        ρ(s) = E[(M I1(M s) / I0(M s) - s)²]

    is the Fisher information of M about its amplitude relative to that of a Gaussian datum: s² on
    the noise floor, 1 - 1/2s² - ... far above. The quotient runs smoothly from 1 to 1/s², so that
    ρ/s² (Re x* dx)² is differentiable also where x is 0. By Chebyshev's series of ρ (s² + 4) / s²
    in s²/(s² + 4), within 1e-9 of itself in float64. Any number of derivatives, s² from 0 to 1e8.

    Source: Karlsen, Verhagen, Bovée 1999, Magnetic Resonance in Medicine 41:614-623.

    >>> information_per_power(jnp.array([0.0, 1.0])).round(6)
    Array([1.      , 0.521447], dtype=float64)
    """
    y = (power - _MIDDLE) / (power + _MIDDLE)
    highest, *others = jnp.asarray(_coefficients(), y.dtype)[::-1]
    now, before = jnp.full_like(y, highest), jnp.zeros_like(y)
    for coefficient in others[:-1]:
        now, before = 2 * y * now - before + coefficient, now
    return (y * now - before + others[-1]) / (power + _MIDDLE)


@lru_cache
def _coefficients() -> np.ndarray:
    nodes, weights = np.polynomial.legendre.leggauss(200)

    def scaled(y: np.ndarray) -> np.ndarray:
        snr = np.sqrt(_MIDDLE * (1 + y) / (1 - y))[:, None]
        low, high = np.maximum(snr - 10, 0), snr + 10
        m = low + (high - low) * (nodes + 1) / 2
        bessel = i0e(m * snr)
        density = m * np.exp(-((m - snr) ** 2) / 2) * bessel
        score = m * i1e(m * snr) / bessel - snr
        rho = np.sum(weights * (high - low) / 2 * density * score**2, axis=1)
        return rho * (1 + _MIDDLE / snr[:, 0] ** 2)

    points = chebyshev.chebpts1(_DEGREE + 1)
    return chebyshev.chebfit(points, scaled(points), _DEGREE)
