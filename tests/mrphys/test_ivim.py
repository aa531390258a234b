import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError, mapping
from mrphys.ivim import IvimSignal, IvimTissue, fit_ivim, segmented
from mrphys.noise import complex_gaussian
from mrphys.sequence import diffusion_weighted
from tests.laws import check_gradient

B = [0.0, 800, 10, 600, 20, 400, 50, 300, 75, 200, 100, 500, 150, 30, 0, 0]
THETA = diffusion_weighted(B, te_s=0.06)
NAMES = ("adc_mm2_per_s", "perfusion_fraction", "pseudo_adc_mm2_per_s", "m0")
VOXELS = 4000


def tissue(voxels=VOXELS):
    rng = np.random.default_rng(0)
    ranges = ((0.8, 1.2), (0.7e-3, 1.5e-3), (0.1, 0.35), (0.01, 0.08))
    return IvimTissue(*[jnp.asarray(rng.uniform(*pair, voxels)) for pair in ranges])


def signal(q):
    return jax.vmap(IvimSignal(THETA.b_s_per_mm2))(q)


@pytest.mark.core
def test_noiseless_signals_are_inverted(rtol):
    q = tissue()
    est = fit_ivim(THETA, signal(q), 1e-3)
    assert (est.status == mapping.CONVERGED).all()
    for name in NAMES:
        found, truth = getattr(est.value, name), getattr(q, name)
        np.testing.assert_allclose(found, truth, rtol=rtol(1e-4, 3e-2))


@pytest.mark.core
def test_standard_deviations_are_calibrated():
    q = tissue()
    noise_sd = 1 / 50
    y = jnp.abs(complex_gaussian(THETA, signal(q) + 0j, noise_sd, jax.random.key(0)))
    est = fit_ivim(THETA, y, noise_sd)
    good = np.asarray(est.status) == mapping.CONVERGED
    assert good.mean() > 0.95
    for name in NAMES:
        value, sd, truth = (np.asarray(getattr(t, name))[good] for t in (est.value, est.sd, q))
        # D* is known by its logarithm: its errors are wider upwards.
        error = value * np.log(value / truth) if name.startswith("pseudo") else value - truth
        assert abs((error / sd).std() - 1) < 0.06, name
        assert abs((error / sd).mean()) < 0.15, name


def test_segments_come_near():
    q = tissue()
    start = segmented(THETA.b_s_per_mm2, signal(q))
    np.testing.assert_allclose(start.adc_mm2_per_s, q.adc_mm2_per_s, rtol=0.2)
    np.testing.assert_allclose(start.perfusion_fraction, q.perfusion_fraction, atol=0.1)
    np.testing.assert_allclose(start.pseudo_adc_mm2_per_s, q.pseudo_adc_mm2_per_s, rtol=0.6)
    broken = segmented(THETA.b_s_per_mm2, jnp.array([[0.0] * 16, [jnp.nan] * 16]))
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(broken))


def test_derivatives_are_those_of_the_optimum():
    y = signal(tissue(1)) * (1 + 0.02 * jnp.cos(jnp.arange(16.0)))[None]

    def f(p):
        est = fit_ivim(diffusion_weighted(p["b"], te_s=0.06), p["x"], 0.02)
        return [1e3 * est.value.adc_mm2_per_s, est.value.perfusion_fraction, est.value.m0]

    check_gradient(f, {"b": jnp.asarray(B), "x": y}, rtol=1e-5, atol=1e-6, directions=4)


def test_bad_input_is_refused():
    x = jnp.ones((3, 4))
    with pytest.raises(InputError, match=r"1 b-values below 200.*low b"):
        fit_ivim(diffusion_weighted([0, 0, 500, 800], 0.06), x, 0.1)
    with pytest.raises(InputError, match="4 readouts"):
        fit_ivim(diffusion_weighted([0, 50, 500, 800], 0.06), x.T, 0.1)
