import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import ive

from mrphys.likelihood import bessel_ratio, log_i0e, rician_cost, rician_information
from mrphys.noise import rician_log_likelihood
from tests.laws import check_gradient


@pytest.mark.parametrize("snr", [0.02, 0.5, 1.0, 2.0, 5.0, 20.0, 50.0])
def test_information_is_the_variance_of_the_score(snr):
    m = np.linspace(max(0.0, snr - 12), snr + 12, 40_001)
    density = m * np.exp(-((m - snr) ** 2) / 2) * ive(0, m * snr)
    score = m * ive(1, m * snr) / ive(0, m * snr) - snr
    expected = np.sum(density * score**2) * (m[1] - m[0])
    np.testing.assert_allclose(rician_information(jnp.asarray(snr)), expected, rtol=1e-5)


@pytest.mark.core
def test_limits_of_the_information(rtol):
    snr = jnp.array([1e-3, 1e3])
    np.testing.assert_allclose(rician_information(snr), [1e-6, 1 - 5e-7], rtol=rtol(2e-6, 1e-5))


def test_cost_is_the_likelihood():
    m, a = jnp.array([0.3, 2.0, 9.0]), jnp.array([0.5, 1.0, 8.0])
    constant = rician_cost(m, a) + rician_log_likelihood(m, a, 1.0)
    np.testing.assert_allclose(constant, jnp.log(m), rtol=1e-12)


def test_derivatives_near_zero_and_far():
    z = jnp.array([1e-3, 0.1, 3.0, 299.0, 301.0, 1e4])
    check_gradient(lambda z: (bessel_ratio(z), log_i0e(z)), z, rtol=1e-6, atol=1e-13)
    zero = jnp.zeros(())
    assert jax.grad(bessel_ratio)(zero) == 0.5 and jax.grad(log_i0e)(zero) == -1


@pytest.mark.core
def test_bessel_functions_in_float32():
    z = np.concatenate([[0.0], np.logspace(-6, 6, 2000)])
    at = jnp.asarray(z, jnp.float32)
    exact = np.asarray(at, float)
    np.testing.assert_allclose(bessel_ratio(at), ive(1, exact) / ive(0, exact), rtol=1e-6)
    np.testing.assert_allclose(log_i0e(at), np.log(ive(0, exact)), rtol=2e-6, atol=6e-7)
