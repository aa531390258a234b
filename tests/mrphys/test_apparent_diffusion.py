import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys import apparent_diffusion as mapping
from mrphys.apparent_diffusion import fit_adc
from mrphys.information import cramer_rao
from mrphys.noise import complex_gaussian, magnitude
from mrphys.sequence import diffusion_weighted
from mrphys.simulate import simulate
from mrphys.tissue import Tissue
from tests.laws import check_gradient

THETA = diffusion_weighted([0, 300, 700, 1000], te_s=0.08, averages=[1, 1, 2, 3])


def measured(snr, voxels=40_000, adc=1e-3, theta=THETA, seed=0):
    """Voxels of one tissue at a given SNR at b = 0: the truth, the data and the noise."""
    q = Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=jnp.full((voxels,), adc))
    x = simulate(theta, q)
    noise_sd = float(jnp.abs(x[0, 0])) / snr
    return q, complex_gaussian(theta, x, noise_sd, jax.random.key(seed)), noise_sd


def plain_log_linear(theta, y):
    """The rival: unweighted regression of log magnitude on b."""
    return -np.polyfit(theta.b_s_per_mm2, np.log(np.abs(y)).T, 1)[0]


@pytest.mark.core
def test_noiseless_data_are_fitted_exactly(rtol):
    adc = np.array([[0.0, 0.3e-3, 0.7e-3], [1e-3, 2e-3, 3e-3]])
    q = Tissue(t1_s=1.0, t2_s=0.08, m0=5.0, adc_mm2_per_s=adc)
    x = simulate(THETA, q)
    noise_sd = 1e-5
    estimate = fit_adc(THETA, x, noise_sd)
    atol = rtol(1e-11, 2e-8)
    np.testing.assert_allclose(estimate.adc_mm2_per_s, adc, rtol=rtol(1e-8, 1e-4), atol=atol)
    np.testing.assert_allclose(estimate.m0, x[..., 0].real, rtol=rtol(1e-8, 1e-5))
    assert (estimate.status == mapping.OK).all()


@pytest.mark.core
@pytest.mark.parametrize(("snr", "mean_tolerance"), [(10, 0.04), (20, 0.03), (100, 0.03)])
def test_standard_deviations_are_calibrated(snr, mean_tolerance):
    _, y, noise_sd = measured(snr)
    estimate = fit_adc(THETA, y, noise_sd)
    assert (estimate.status == mapping.OK).mean() > 0.95
    pull = (estimate.adc_mm2_per_s - 1e-3) / estimate.adc_sd_mm2_per_s
    assert abs(pull.mean()) < mean_tolerance
    assert abs(pull.std() - 1) < 0.05
    np.testing.assert_allclose(estimate.residual.mean(), 1, rtol=0.03)


def test_spread_reaches_the_cramer_rao_bound():
    q, y, noise_sd = measured(50)
    estimate = fit_adc(THETA, y, noise_sd)
    one = jax.tree.map(lambda value: value[0] if value.ndim else value, q)
    bound = cramer_rao(THETA, one, noise_sd=noise_sd)
    np.testing.assert_allclose(estimate.adc_mm2_per_s.std(), bound["adc_mm2_per_s"], rtol=0.02)
    np.testing.assert_allclose(estimate.adc_sd_mm2_per_s.mean(), bound["adc_mm2_per_s"], rtol=0.02)
    relative = estimate.m0.std() / estimate.m0.mean()  # q.m0 is 1 before relaxation
    np.testing.assert_allclose(relative, bound["m0"], rtol=0.02)


def test_noise_floor_is_part_of_the_model():
    theta = diffusion_weighted([0, 500, 1000, 2000], te_s=0.08)
    _, y, noise_sd = measured(8, adc=1.5e-3, theta=theta)
    estimate = fit_adc(theta, y, noise_sd)
    good = estimate.status != mapping.ILL_DETERMINED
    assert good.mean() > 0.99
    ours = abs(float(np.median(estimate.adc_mm2_per_s[good])) / 1.5e-3 - 1)
    plain = abs(float(np.mean(plain_log_linear(theta, y))) / 1.5e-3 - 1)
    assert plain > 0.25
    assert ours < 0.01
    assert (estimate.status[good] == mapping.NOISE_FLOOR).mean() > 0.9


@pytest.mark.core
@pytest.mark.parametrize("snr", [0.1, 1, 2, 3])
def test_on_the_noise_floor_a_voxel_is_solved_or_says_it_is_not(snr):
    _, y, noise_sd = measured(snr)
    estimate = fit_adc(THETA, y, noise_sd)
    ill = np.asarray(estimate.status == mapping.ILL_DETERMINED)
    assert (np.isinf(estimate.adc_sd_mm2_per_s) == ill).all()
    assert np.isfinite(estimate.adc_mm2_per_s).all() and np.isfinite(estimate.residual).all()
    assert (abs(estimate.adc_mm2_per_s) <= 0.0101).all()
    pull = (estimate.adc_mm2_per_s - 1e-3)[~ill] / estimate.adc_sd_mm2_per_s[~ill]
    assert snr < 2 or pull.std() < 1


@pytest.mark.parametrize("snr", [3, 8, 20])
def test_reported_bias_is_that_of_the_plain_fit(snr):
    theta = diffusion_weighted([0, 500, 1000, 2000], te_s=0.08)
    q, y, noise_sd = measured(snr, adc=1.5e-3, theta=theta)
    error = plain_log_linear(theta, y) - 1.5e-3
    noiseless = simulate(theta, q)[0, 0].real * np.exp(-1.5e-3 * np.array([0, 500, 1000, 2000]))
    expected = np.asarray(mapping._log_excess(noiseless / noise_sd))
    bias = -np.polyfit(theta.b_s_per_mm2, expected, 1)[0]
    assert abs(error.mean() - bias) < 4 * error.std() / np.sqrt(error.size)
    estimate = fit_adc(theta, y, noise_sd)
    good = estimate.status != mapping.ILL_DETERMINED
    reported = float(np.median(estimate.noise_floor_bias_mm2_per_s[good]))
    assert snr < 5 or abs(reported - bias) < 0.2 * abs(bias)


def test_derivatives_are_those_of_the_solution():
    (_, noisy, sd), (_, clear, less) = (measured(snr, voxels=2, seed=2) for snr in (4.0, 30.0))
    y, noise_sd = jnp.concatenate([noisy, clear]), np.array([sd, sd, less, less])

    def f(p):
        theta = diffusion_weighted(p["b"], te_s=0.08, averages=p["averages"])
        a = fit_adc(theta, p["x"] + 0j, p["noise_sd"])
        return {
            "adc": 1e3 * a.adc_mm2_per_s, "sd": 1e3 * a.adc_sd_mm2_per_s, "m0": a.m0,
            "m0_sd": a.m0_sd, "residual": a.residual,
        }  # fmt: skip

    b = jnp.array([20.0, 300.0, 700.0, 1000.0])
    p = {"b": b, "averages": THETA.averages, "x": jnp.abs(y), "noise_sd": jnp.asarray(noise_sd)}
    assert (fit_adc(THETA, y, noise_sd).status != mapping.ILL_DETERMINED).all()
    check_gradient(f, p, rtol=1e-7, atol=1e-8, directions=8)


@pytest.mark.long
def test_second_derivatives_are_right():
    _, y, noise_sd = measured(10, voxels=2, seed=4)

    def gradient(averages):
        def total(averages):
            theta = dataclasses.replace(THETA, averages=averages)
            return 1e3 * fit_adc(theta, y, noise_sd).adc_mm2_per_s.sum()

        return jax.grad(total)(averages)

    check_gradient(gradient, THETA.averages, rtol=1e-6, atol=1e-8)


@pytest.mark.core
def test_ill_determined_voxels_say_so_and_keep_derivatives_finite():
    _, y, noise_sd = measured(30, voxels=5)
    y = y.at[1].set(0).at[2, 0].set(jnp.nan).at[3].set(y[3, ::-1] * 1e-8)
    mask = np.array([True, True, True, True, False])
    estimate = fit_adc(THETA, y, noise_sd, mask)
    np.testing.assert_array_equal(estimate.status, [0, 2, 2, 2, 2])
    assert np.isinf(estimate.adc_sd_mm2_per_s[1:]).all() and np.isinf(estimate.m0_sd[1:]).all()
    assert (estimate.adc_mm2_per_s[1:] == 0).all() and (estimate.m0[1:] == 0).all()

    def loss(b, averages, x):
        theta = dataclasses.replace(THETA, b_s_per_mm2=b, averages=averages)
        a = fit_adc(theta, x + 0j, noise_sd, mask)
        return 1e3 * a.adc_mm2_per_s.sum() + a.m0.sum() + (1 / a.adc_sd_mm2_per_s).sum()

    x = jnp.where(jnp.isnan(y), jnp.nan, magnitude(y))
    for gradient in jax.jit(jax.grad(loss, (0, 1, 2)))(THETA.b_s_per_mm2, THETA.averages, x):
        assert np.isfinite(gradient).all()


@pytest.mark.core
@pytest.mark.long
def test_shape_of_the_volume_and_of_the_blocks_does_not_matter(rtol):
    _, y, noise_sd = measured(20, voxels=5000)
    flat = fit_adc(THETA, y, noise_sd).adc_mm2_per_s
    cube = jax.jit(fit_adc)(THETA, y.reshape(50, 4, 25, 4), jnp.full((50, 4, 25), noise_sd))
    np.testing.assert_allclose(cube.adc_mm2_per_s.ravel(), flat, rtol=rtol(1e-10, 2e-3))


def test_two_readouts_leave_no_residual():
    theta = diffusion_weighted([0, 1000], te_s=0.08)
    _, y, noise_sd = measured(20, voxels=100, theta=theta)
    assert (fit_adc(theta, y, noise_sd).residual == 0).all()


def test_bad_input_is_refused():
    _, y, noise_sd = measured(20, voxels=4)
    with pytest.raises(InputError, match="4 readouts"):
        fit_adc(THETA, y[:, :3], noise_sd)
    with pytest.raises(InputError, match="two or more different"):
        fit_adc(diffusion_weighted([500, 500], te_s=0.08), y[:, :2], noise_sd)
    with pytest.raises(InputError, match="noise_sd"):
        fit_adc(THETA, y, 0.0)
    with pytest.raises(InputError, match="another image"):
        fit_adc(THETA, y, noise_sd, np.ones(3, bool))
