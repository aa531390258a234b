import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from mrphys import noise
from mrphys.sequence import diffusion_weighted
from tests.laws import check_gradient

pytestmark = pytest.mark.core
SNR = np.array([0.0, 1e-3, 0.3, 1.0, 3.0, 8.0, 11.9, 12.1, 30.0])


def test_moments_are_those_of_scipy(rtol):
    amplitude, sd = 2.5 * SNR, 2.5
    mean, variance = stats.rice.stats(SNR, scale=sd)
    ours = noise.rician_mean(amplitude, jnp.full(SNR.shape, sd))
    np.testing.assert_allclose(ours, mean, rtol=rtol(1e-11, 1e-6))
    ours = noise.rician_variance(amplitude, jnp.full(SNR.shape, sd))
    np.testing.assert_allclose(ours, variance, rtol=rtol(1e-9, 1e-4))


def test_rayleigh_and_gaussian_limits(rtol):
    zero = jnp.zeros(())
    np.testing.assert_allclose(noise.rician_mean(zero, 2.0), 2 * np.sqrt(np.pi / 2), rtol=1e-6)
    np.testing.assert_allclose(noise.rician_variance(zero, 2.0), 4 * (2 - np.pi / 2), rtol=1e-6)
    snr = jnp.array([1e2, 1e3, 1e4])
    mean = noise.rician_mean(snr, jnp.ones(3))
    np.testing.assert_allclose(mean, snr + 1 / (2 * snr) + 1 / (8 * snr**3), rtol=rtol(1e-12, 3e-7))
    variance = noise.rician_variance(snr, jnp.ones(3))
    np.testing.assert_allclose(variance, 1 - 1 / (2 * snr**2), rtol=rtol(1e-8, 1e-6))


def test_slope_and_curvature_are_derivatives_of_the_mean(rtol):
    amplitude = jnp.asarray(SNR) * 1.7
    first = jax.vmap(jax.grad(noise.rician_mean), (0, None))
    second = jax.vmap(jax.grad(jax.grad(noise.rician_mean)), (0, None))
    slope = noise.rician_mean_slope(amplitude, 1.7)
    np.testing.assert_allclose(slope, first(amplitude, 1.7), rtol=rtol(1e-10, 2e-5), atol=1e-7)
    curvature = noise.rician_mean_curvature(amplitude, 1.7)
    expected = second(amplitude, 1.7)
    np.testing.assert_allclose(curvature, expected, rtol=rtol(1e-8, 1e-4), atol=rtol(0, 2e-4))


@pytest.mark.parametrize("snr", [0.0, 0.5, 4.0, 40.0])
def test_likelihood_is_the_density(snr, rtol):
    m = np.linspace(max(snr - 3, 0.05), snr + 4, 20)
    ours = noise.rician_log_likelihood(m, jnp.full(20, snr), jnp.ones(20))
    np.testing.assert_allclose(ours, stats.rice.logpdf(m, snr), rtol=rtol(1e-9, 1e-4), atol=1e-4)
    total, _ = integrate.quad(
        lambda m: float(jnp.exp(noise.rician_log_likelihood(m, snr, 1.0))),
        max(snr - 9, 0),
        snr + 9,
        epsabs=1e-6,
        limit=100,
    )
    np.testing.assert_allclose(total, 1, atol=1e-4)


def test_likelihood_is_finite_where_the_density_underflows():
    assert np.isfinite(noise.rician_log_likelihood(1e4, 9e3, 1.0))
    assert noise.rician_log_likelihood(0.0, 1.0, 1.0) == -np.inf


def test_simulated_noise_has_the_moments_and_respects_averages():
    theta = diffusion_weighted([0.0, 1000.0], te_s=0.08, averages=[1.0, 4.0])
    x = jnp.full((100_000, 2), 1.0 + 1.0j)
    y = noise.complex_gaussian(theta, x, 0.6, jax.random.key(1))
    error = y - x
    np.testing.assert_allclose(error.real.std(0), [0.6, 0.3], rtol=0.01)
    np.testing.assert_allclose(error.imag.std(0), [0.6, 0.3], rtol=0.01)
    np.testing.assert_allclose(np.corrcoef(error.real.T, error.imag.T), np.eye(4), atol=0.02)
    amplitude, sd = jnp.full(2, np.sqrt(2)), jnp.array([0.6, 0.3])
    m = noise.magnitude(y)
    np.testing.assert_allclose(m.mean(0), noise.rician_mean(amplitude, sd), rtol=5e-3)
    np.testing.assert_allclose(m.var(0), noise.rician_variance(amplitude, sd), rtol=0.02)


def test_noise_may_differ_between_voxels():
    theta = diffusion_weighted([0.0, 1000.0], te_s=0.08)
    sd = jnp.array([0.0, 1.0])
    y = noise.complex_gaussian(theta, jnp.zeros((2, 2), complex), sd, jax.random.key(0))
    assert (y[0] == 0).all() and (y[1] != 0).all()


def test_background_gives_the_noise(dtype):
    m = stats.rayleigh.rvs(scale=3.0, size=40_000, random_state=0)
    np.testing.assert_allclose(noise.background_sd(jnp.asarray(m, dtype)), 3.0, rtol=0.01)


def test_gradients(dtype):
    if dtype != jnp.float64:
        pytest.skip("finite differences need float64")
    snr = jnp.array([0.2, 2.0, 11.0, 13.0, 200.0])
    for f in (noise.rician_mean, noise.rician_variance, noise.rician_mean_slope):
        check_gradient(lambda p, f=f: f(p["a"], p["sd"]), {"a": 1.5 * snr, "sd": jnp.full(5, 1.5)})
    check_gradient(
        lambda p: noise.rician_log_likelihood(p["m"], p["a"], p["sd"]),
        {"m": jnp.array([0.5, 20.0]), "a": jnp.array([1.0, 19.0]), "sd": jnp.array([1.0, 0.7])},
    )

    def noisy(p):
        theta = diffusion_weighted([0.0, 1000.0], te_s=0.08, averages=p["averages"])
        y = noise.complex_gaussian(theta, p["x"] + 0j, p["sd"], jax.random.key(3))
        return y, noise.magnitude(y)

    p = {"averages": jnp.array([1.0, 3.0]), "x": jnp.ones((2, 2)), "sd": jnp.array(0.3)}
    check_gradient(noisy, p)


def test_derivatives_are_finite_on_the_floor():
    assert np.isfinite(jax.grad(noise.rician_mean)(0.0, 1.0))
    assert np.isfinite(jax.grad(noise.rician_variance)(0.0, 1.0))
    assert jax.grad(lambda x: noise.magnitude(x + 0j))(0.0) == 0
