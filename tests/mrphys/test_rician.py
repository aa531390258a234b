"""The information of a magnitude, against quadrature and its limits."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad
from scipy.special import i0e, i1e

from mrphys.rician import information_per_power
from tests.laws import check_gradient


def by_quadrature(snr):
    def integrand(m):
        density = m * np.exp(-((m - snr) ** 2) / 2) * i0e(m * snr)
        return density * (m * i1e(m * snr) / i0e(m * snr) - snr) ** 2

    return quad(integrand, max(0, snr - 12), snr + 12, epsabs=1e-13, epsrel=1e-12, limit=200)[0]


@pytest.mark.core
def test_is_the_variance_of_the_score(rtol):
    snr = np.array([0.01, 0.3, 1.0, 2.0, 4.0, 9.0, 40.0])
    expected = [by_quadrature(s) / s**2 for s in snr]
    found = information_per_power(jnp.asarray(snr**2, float))
    np.testing.assert_allclose(found, expected, rtol=rtol(2e-9, 3e-6))


@pytest.mark.core
def test_limits(rtol):
    found = information_per_power(jnp.array([0.0, 1e8]))
    np.testing.assert_allclose(found * jnp.array([1.0, 1e8]), 1, rtol=rtol(1e-8, 3e-6))


def test_gradient_from_the_noise_floor_up():
    check_gradient(information_per_power, jnp.array([0.0, 0.2, 3.0, 50.0]), rtol=1e-7)
    assert float(jax.grad(information_per_power)(0.0)) == pytest.approx(-1.0, abs=1e-6)
