import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

import mrphys as mr
from mrphys import InputError
from mrphys.noise import complex_gaussian
from mrphys.t2_spectrum import CONVERGED, FAILED, ILL_DETERMINED, MASKED, fit_t2_spectrum
from tests.laws import check_gradient

THETA = mr.sequence.spin_echo_train(np.full(24, np.pi), 0.01)
T2_S = np.geomspace(0.01, 1.0, 20)
VOXELS = 300
RNG = np.random.default_rng(0)
FAST, B1 = RNG.uniform(0.12, 0.3, VOXELS), RNG.uniform(0.8, 1.0, VOXELS)


def signals(fast=FAST, b1=B1):
    parts = [mr.simulate(THETA, mr.Tissue(t1_s=1.0, t2_s=t2, b1=b1)) for t2 in (0.02, 0.08)]
    return fast[:, None] * parts[0] + (1 - fast)[:, None] * parts[1]


X = signals()


def fitted(y, noise_sd=None, **options):
    return fit_t2_spectrum(THETA, y, noise_sd, **({"b1": B1, "t2_s": T2_S} | options))


def share_below(est):
    part = np.asarray(est.spectrum)
    return part[:, T2_S < 0.04].sum(axis=-1) / part.sum(axis=-1)


def test_it_is_what_scipy_finds_at_the_weight_that_chi_square_wants():
    y = np.abs(complex_gaussian(THETA, X, 0.01, jax.random.key(0)))
    est = fitted(jnp.asarray(y))
    for i in range(4):
        # Between the trains that are simulated, signals are interpolated.
        q = mr.Tissue(t1_s=np.maximum(1.0, T2_S), t2_s=T2_S, b1=B1[i])
        basis = np.abs(mr.simulate(THETA, q)).T
        scale = np.linalg.norm(np.abs(mr.simulate(THETA, mr.Tissue(
            t1_s=np.maximum(1.0, T2_S), t2_s=T2_S, b1=B1.min() + 0.02 * np.ceil((np.ptp(B1)) / 0.02)
        ))), 2)  # fmt: skip
        free = nnls(basis, y[i])[1] ** 2
        tall = np.concatenate([basis, float(est.weight[i]) * scale * np.eye(20)])
        s = nnls(tall, np.concatenate([y[i], np.zeros(20)]))[0]
        np.testing.assert_allclose(est.spectrum[i], s, atol=0.02)
        np.testing.assert_allclose(((basis @ s - y[i]) ** 2).sum() / free, 1.02, atol=5e-3)


@pytest.mark.core
def test_the_share_that_decays_fast_is_found_and_its_spread_told():
    y = jnp.abs(complex_gaussian(THETA, X, 1 / 150, jax.random.key(1)))
    est = fitted(y)
    np.testing.assert_allclose(np.sqrt(np.mean(np.square(est.noise_sd))), 1 / 150, rtol=0.06)
    assert (np.asarray(est.status) == CONVERGED).all()
    # Regularisation draws the fast part to the slow one.
    assert -0.06 < (share_below(est) - FAST).mean() < 0.01
    error = np.asarray(est.fast) - FAST
    assert abs(error.mean()) < np.median(est.fast_sd)
    # Shares and T2 of these voxels vary less than the posterior knows.
    assert 0.4 < error.std() / np.median(est.fast_sd) < 1.05
    np.testing.assert_allclose(est.spectrum.sum(axis=-1), 1.0, atol=0.1)
    np.testing.assert_allclose(np.median(est.mean_t2_s), 0.078, rtol=0.06)


def test_stimulated_echoes_must_be_counted():
    naive = fitted(jnp.abs(X), b1=1.0)
    aware = fitted(jnp.abs(X))
    shares = [share_below(est) for est in (naive, aware)]
    off = [np.abs(fast - FAST).mean() for fast in shares]
    assert off[0] > 3 * off[1] and off[1] < 0.03


def test_derivatives_are_right():
    y = jnp.abs(complex_gaussian(THETA, X[:2], 0.01, jax.random.key(2)))

    def f(y):
        est = fitted(y, 0.01, b1=1.0)
        return est.spectrum, est.mean_t2_s

    # The weight does not move with the data in derivatives, and by halvings in differences.
    jacobian = jax.jvp(f, (y,), (y,))[1]
    np.testing.assert_allclose(jacobian[0], f(y)[0], rtol=1e-6, atol=1e-9)
    check_gradient(lambda y: f(y)[:2], y, scale=1e-4, rtol=1e-4, atol=1e-4, directions=3)


@pytest.mark.core
def test_a_voxel_says_what_became_of_it():
    y = jnp.abs(X).at[1].set(0.0).at[2, 3].set(jnp.nan)
    slow = signals(np.zeros(VOXELS))[4]
    y = y.at[4].set(jnp.abs(slow))
    est = fitted(y, 0.01, mask=np.arange(VOXELS) != 3)
    expected = [CONVERGED, FAILED, FAILED, MASKED, CONVERGED]
    np.testing.assert_array_equal(est.status[:5], expected)
    assert np.isinf(est.fast_sd[1:4]).all() and np.isfinite(est.fast).all()
    assert est.fast[4] < 2 * est.fast_sd[4] < 0.1
    silent = fitted(y[:1], 3.0, b1=1.0)
    assert silent.status[0] == ILL_DETERMINED and np.isinf(silent.fast_sd[0])


def test_bad_input_is_refused():
    y = jnp.ones((3, 24))
    for says, options in (
        ("last axis of 24", {"x": y.T}),
        ("another image", {"b1": np.ones(4)}),
        ("another image", {"mask": np.ones(4, bool)}),
        ("per cent", {"b1": 90.0}),
        ("milliseconds", {"t2_s": [10.0, 2000.0]}),
        ("each above the last", {"t2_s": [0.1, 0.01]}),
        ("short_s below long_s below", {"short_s": 0.3}),
        ("the rise given alone", {"chi2": 0.02}),
        ("noise_sd", {"noise_sd": 0.0}),
    ):
        with pytest.raises(InputError, match=says):
            fit_t2_spectrum(**({"theta": THETA, "x": y} | options))
