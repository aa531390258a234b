"""Criteria against exact evidence and loose ends, weights, and mixtures."""

from dataclasses import replace

import jax
import numpy as np
import pytest
from scipy import special, stats

from mrphys.errors import InputError
from oncology.calibration import Calibrated
from oncology.cohort import Patient
from oncology.comparison import Compared, average, compared, held_out, log_evidence, waic, weights
from oncology.forecast import TOTAL, VOLUME, Forecast
from tests.oncology.formula import MATRIX, SEEN, Formula, laplace


@pytest.fixture(scope="module")
def found():
    return laplace(Formula())


def test_evidence_of_a_linear_model_is_exact(found):
    """seen ~ N(0, M Mᵀ + 1): Laplace's approximation errs by the constant that is left out."""
    exact = stats.multivariate_normal.logpdf(SEEN, np.zeros(3), MATRIX @ MATRIX.T + np.eye(3))
    left_out = -1.5 * np.log(2 * np.pi)
    assert log_evidence(found) == pytest.approx(exact - left_out, rel=1e-9)


def test_bic_and_waic_of_a_linear_model(found):
    """The likelihood at the optimum, and the effective number of parameters, by hand."""
    one = compared(found, jax.random.key(0), draws=20000)
    misfit = MATRIX @ np.asarray(found.z) - SEEN
    assert one.bic == pytest.approx(2 * np.log(3) + misfit @ misfit)
    spread = MATRIX @ np.asarray(found.covariance) @ MATRIX.T
    variance = np.diag(spread)
    freedom = np.sum(misfit**2 * variance + variance**2 / 2)
    assert one.effective_parameters == pytest.approx(freedom, rel=0.05)
    level = np.sum(-np.log1p(variance) / 2 - misfit**2 / (1 + variance) / 2)
    assert one.waic == pytest.approx(-2 * (level - freedom), rel=0.05)


def test_waic_is_the_sum_of_what_each_number_says():
    each = np.log(np.random.default_rng(0).uniform(0.1, 1.0, (50, 4)))
    value, freedom = waic(each)
    level = special.logsumexp(each, axis=0) - np.log(50)
    assert freedom == pytest.approx(each.var(axis=0, ddof=1).sum())
    assert value == pytest.approx(-2 * (level.sum() - freedom))


def test_weights():
    models = {
        "a": Compared(-10.0, 30.0, 25.0, 2.0, 0.1),
        "b": Compared(-12.0, 30.0, 21.0, 3.0, 0.2),
    }
    assert weights(models)["a"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert weights(models, "bic")["a"] == pytest.approx(0.5)
    assert weights(models, "waic")["b"] == pytest.approx(1 / (1 + np.exp(-2)))
    assert weights(models, "held_out")["a"] == pytest.approx(0.8)
    with pytest.raises(InputError, match="no held-out score of a"):
        weights({"a": replace(models["a"], held_out=None)}, "held_out")
    with pytest.raises(InputError, match="no models"):
        weights({})
    with pytest.raises(InputError, match="three visits"):
        held_out(Patient("sub-01", ()), (1, 2), jax.random.key(0))


def made(level: float, sd: float, day: float = 3.0) -> Forecast:
    days = np.array([0.0, day])
    values = level + sd * np.random.default_rng(int(level)).standard_normal((500, 2))
    grid = np.full((2, 2, 1), level)
    course = {VOLUME: values, TOTAL: values}
    nobody = object.__new__(Calibrated)
    sds, z = np.full(grid.shape, sd), np.zeros((500, 1))
    return Forecast(nobody, day, grid, sds, 0.1, days, course, z)


def test_an_average_is_the_mixture():
    both = {"a": made(1.0, 0.5), "b": made(5.0, 0.2)}
    mixed = average(both, {"a": 0.25, "b": 0.75}, jax.random.key(0), draws=2000)
    assert isinstance(mixed, Forecast)
    np.testing.assert_allclose(mixed.mean, 4.0)
    variance = 0.25 * (0.25 + 9.0) + 0.75 * (0.04 + 1.0)
    np.testing.assert_allclose(mixed.sd**2, variance)
    samples = mixed.samples[TOTAL]
    assert np.mean(samples > 3) == pytest.approx(0.75, abs=1e-3)
    assert samples.var() == pytest.approx(variance, rel=0.1)
    with pytest.raises(InputError, match="b: day 4"):
        average({"a": both["a"], "b": made(5.0, 0.2, 4.0)}, {"a": 0.6, "b": 0.4}, jax.random.key(0))
