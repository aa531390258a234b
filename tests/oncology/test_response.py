"""Response read-outs: closed forms, and the rules against each other on balls."""

import numpy as np
import pytest

from mrphys.errors import InputError
from oncology import response
from oncology.response import CATEGORIES, RANO_2, RANO_2010, RECIST_1_1

DAYS = np.linspace(0.0, 200.0, 801)


def exponential(*rates, start_mm3=2e4):
    return start_mm3 * np.exp(np.outer(rates, DAYS))


def test_doubling_time_of_exponential_growth():
    volume = exponential(0.01, -0.02)
    found = response.doubling_days((0.0, 200.0), volume[:, 0], volume[:, -1])
    np.testing.assert_allclose(found, np.log(2) / np.array([0.01, -0.02]))
    none = response.doubling_days((0.0, 1.0), np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    assert np.isinf(none[0]) and np.isnan(none[1])
    with pytest.raises(InputError, match="in order"):
        response.doubling_days((5.0, 5.0), volume[:, 0], volume[:, 0])


@pytest.mark.parametrize("rule", [RECIST_1_1, RANO_2010, RANO_2])
def test_progression_of_exponential_growth(rule):
    """ln(1 + threshold) / k for the power of volume that the rule takes."""
    until = response.progression_days(DAYS, exponential(0.01, 0.03, -0.01), rule)
    expected = 3 / rule.dimension * np.log1p(rule.progression) / np.array([0.01, 0.03])
    np.testing.assert_allclose(until[:2], expected, rtol=1e-3)
    assert np.isinf(until[2])


def test_progression_counts_from_the_nadir():
    volume = 2e4 * np.exp(-0.02 * DAYS + np.where(DAYS > 50, 0.05 * (DAYS - 50), 0.0))
    until = response.progression_days(DAYS, volume[None], RANO_2)
    np.testing.assert_allclose(until, 50 + np.log(1.4) / 0.03, rtol=1e-3)


def test_five_millimetres_are_asked_of_small_tumours():
    """RECIST 1.1: 20 % of 10 mm would be 2 mm."""
    volume = exponential(0.01, start_mm3=1000 * np.pi / 6)
    until = response.progression_days(DAYS, volume, RECIST_1_1)
    np.testing.assert_allclose(until, 3 * np.log(1.5) / 0.01, rtol=1e-3)


def test_rules_agree_on_balls():
    """The volumes of RANO 2.0 are those of balls whose products of diameters RANO names."""
    assert pytest.approx(RANO_2.progression, abs=0.005) == 1.25**1.5 - 1
    assert pytest.approx(RANO_2.response, abs=0.005) == 1 - 0.5**1.5
    rng = np.random.default_rng(0)
    volume = 2e4 * np.exp(np.cumsum(rng.normal(0, 0.5, (4000, 3)), axis=1))
    both = [response.categories(volume, rule) for rule in (RANO_2, RANO_2010)]
    assert np.mean(both[0] == both[1]) > 0.99


@pytest.mark.parametrize(
    ("volumes", "said"),
    [
        ((9e3, 3.0, 0.1), "CR"),
        ((9e3, 5e3, 3e3), "PR"),
        ((9e3, 2e3, 2.9e3), "PD"),
        ((9e3, 2e3, 2.7e3), "PR"),
        ((9e3, 8e3, 1.1e4), "SD"),
        ((9e3, 9e3, 1.3e4), "PD"),
    ],
)
def test_categories_by_volume(volumes, said):
    assert CATEGORIES[response.categories(np.array([volumes]), RANO_2)[0]] == said


def test_probabilities_of_log_normal_growth():
    """P(PD) = Φ((μ - ln 1.4) / σ), drawings of both scans adding to σ²."""
    from scipy.stats import norm

    rng = np.random.default_rng(0)
    volume = np.stack([np.full(200_000, 2e4), 2e4 * np.exp(rng.normal(0.2, 0.3, 200_000))], 1)
    for sd in (0.0, 0.15):
        found = response.probabilities(volume, RANO_2, sd)
        spread = np.hypot(0.3, np.sqrt(2) * sd)
        assert found["PD"] == pytest.approx(norm.cdf((0.2 - np.log(1.4)) / spread), abs=0.005)
        assert found["PR"] == pytest.approx(norm.cdf((np.log(0.35) - 0.2) / spread), abs=0.005)
        assert sum(found.values()) == pytest.approx(1.0)
