"""Scores against direct formulas, closed forms and the cases at their edges."""

import numpy as np
import pytest
from scipy import stats

from oncology.scores import concordance, crps, dice, pearson, percent_error, scored_region


@pytest.fixture
def pair():
    rng = np.random.default_rng(0)
    a = rng.normal(size=400)
    return a, 0.7 * a + 0.4 * rng.normal(size=400) + 0.2


def test_concordance_is_pearson_times_the_bias_correction_factor(pair):
    """Lin 1989: ρc = ρ Cb, with Cb = 2 / (v + 1/v + w²) from scale ratio v and location shift w."""
    a, b = pair
    scale = a.std() / b.std()
    location = (a.mean() - b.mean()) / np.sqrt(a.std() * b.std())
    correction = 2 / (scale + 1 / scale + location**2)
    expected = stats.pearsonr(a, b).statistic * correction
    assert concordance(a, b) == pytest.approx(expected, rel=1e-12)


def test_concordance_of_a_shift_and_of_a_factor(pair):
    a = (pair[0] - pair[0].mean()) / pair[0].std()
    assert concordance(a, a + 3) == pytest.approx(2 / (2 + 9))
    assert concordance(a, 2 * a) == pytest.approx(2 * 2 / (1 + 4))
    assert concordance(a, -a) == pytest.approx(-1)
    assert concordance(a, a) == pytest.approx(1)


def test_concordance_with_constants():
    assert concordance(np.ones(5), np.zeros(5)) == 0
    assert np.isnan(concordance(np.ones(5), np.ones(5)))


def test_pearson_against_scipy(pair):
    assert pearson(*pair) == pytest.approx(stats.pearsonr(*pair).statistic, rel=1e-12)
    assert np.isnan(pearson(pair[0], np.ones_like(pair[0])))


@pytest.mark.parametrize("observed", [-1.5, 0.0, 0.3, 4.0])
def test_crps_of_a_normal(observed):
    """Gneiting & Raftery 2007, eq. 21: σ [z (2Φ(z) - 1) + 2φ(z) - 1/√π]."""
    mean, sd = 0.5, 1.3
    z = (observed - mean) / sd
    expected = sd * (z * (2 * stats.norm.cdf(z) - 1) + 2 * stats.norm.pdf(z) - np.pi**-0.5)
    samples = mean + sd * stats.norm.ppf((np.arange(20_000) + 0.5) / 20_000)
    assert crps(samples, observed) == pytest.approx(expected, abs=2e-4)


def test_crps_is_half_the_mean_difference_below_the_absolute_error():
    samples, observed = np.array([0.3, -1.0, 2.2, 0.9]), 0.5
    differences = np.abs(samples[:, None] - samples[None, :])
    expected = np.abs(samples - observed).mean() - differences.mean() / 2
    assert crps(samples, observed) == pytest.approx(expected, rel=1e-12)
    assert crps(np.full(7, 2.0), 5.0) == pytest.approx(3.0)


def test_dice():
    empty, whole = np.zeros((4, 4, 1), bool), np.ones((4, 4, 1), bool)
    half = whole.copy()
    half[:2] = False
    assert dice(empty, empty) == 1
    assert dice(empty, whole) == 0
    assert dice(half, ~half) == 0
    assert dice(half, half) == 1
    assert dice(half, whole) == pytest.approx(2 * 8 / (8 + 16))


def test_scored_region_is_tissue_within_ten_millimetres():
    mask = np.zeros((21, 9, 1), bool)
    mask[10, 4, 0] = True
    other = np.zeros_like(mask)
    other[0, 0, 0] = True
    tissue = np.ones_like(mask)
    tissue[:, 8] = False
    spacing = (2.0, 5.0, 6.0)
    region = scored_region((mask, other), tissue, spacing)
    x, y = np.meshgrid(2.0 * np.arange(21), 5.0 * np.arange(9), indexing="ij")
    near = (np.hypot(x - 20, y - 20) <= 10) | (np.hypot(x, y) <= 10)
    np.testing.assert_array_equal(region[..., 0], near & (y < 40))


def test_percent_error():
    assert percent_error(150.0, 100.0) == pytest.approx(50)
    assert percent_error(80.0, 100.0) == pytest.approx(-20)
    assert percent_error(1.0, 0.0) == np.inf
