"""Lesions of a population: against scipy, adaptive quadrature, and populations drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from mrphys.errors import InputError
from oncology.lesions import FREEDOMS, LesionPopulation, learn_lesions, readings, t_cdf
from tests.laws import check_gradient

TRUTH = (2e-3, 1.5e-3, 8e-3, 0.02, 0.02, 3e-3, 3.0)


def population(freedom: int = 2, numbers=TRUTH) -> LesionPopulation:
    return LesionPopulation(*jnp.asarray(numbers), freedom)


def drawn(lesions: int, seed: int = 0):
    """Whole millimetres read every six weeks from lesions of `population(2)`."""
    rng = np.random.default_rng(seed)
    p = population()
    day = np.arange(8) * 42.0
    size = np.empty((lesions, day.size))
    size[:, 0] = rng.integers(10, 60, lesions)
    rate = TRUTH[0] + TRUTH[1] * rng.normal(size=lesions)
    for i in range(1, day.size):
        mean = np.asarray(p.log_growth(jnp.asarray(rate), *jnp.asarray(day[i - 1 : i + 1])))
        x = np.log(size[:, i - 1] + 3.0) + mean
        x = x + float(p.spread(jnp.asarray(42.0))) * rng.standard_t(2, lesions)
        size[:, i] = np.clip(np.round(np.exp(x) - 3.0), 0, 900)
    return [day] * lesions, list(size)


@pytest.fixture(scope="module")
def cohort():
    return readings(*drawn(150))


@pytest.mark.parametrize("freedom", FREEDOMS)
def test_t_is_that_of_scipy(freedom):
    x = np.linspace(-30, 30, 41)
    np.testing.assert_allclose(t_cdf(jnp.asarray(x), freedom), stats.t.cdf(x, freedom), atol=1e-12)


def test_evidence_agrees_with_adaptive_quadrature():
    given = readings([[0.0, 40.0, 90.0, 130.0]], [[20.0, 14.0, 0.0, 9.0]])
    p, size = population(), [20.0, 14.0, 0.0, 9.0]

    def density(k):
        total = stats.norm.pdf(k, TRUTH[0], TRUTH[1])
        for i, (a, b) in enumerate([(0.0, 40.0), (40.0, 90.0), (90.0, 130.0)]):
            waned = np.exp(-0.02 * a) - np.exp(-0.02 * b)
            mean = np.log(size[i] + 3) + k * (b - a) - 8e-3 / 0.02 * waned
            s = np.hypot(0.02, 3e-3 * np.sqrt(b - a))
            high = stats.t.cdf((np.log(size[i + 1] + 3.5) - mean) / s, 2)
            low = stats.t.cdf((np.log(size[i + 1] + 2.5) - mean) / s, 2) if size[i + 1] else 0.0
            total *= high - low
        return total

    expected = integrate.quad(density, TRUTH[0] - 8 * TRUTH[1], TRUTH[0] + 8 * TRUTH[1])[0]
    np.testing.assert_allclose(p.log_evidence(given)[0], np.log(expected), atol=2e-3)


def test_gradient_of_the_evidence():
    given = readings([[0.0, 40.0, 90.0], [0.0, 30.0, 30.0]], [[20.0, 0.0, 7.0], [9.0, 9.0, 12.0]])

    def evidence(log_numbers):
        return jnp.sum(population(2, jnp.exp(log_numbers)).log_evidence(given))

    check_gradient(evidence, jnp.log(jnp.asarray(TRUTH)), scale=1.0)


@pytest.mark.long
def test_intervals_cover_what_the_population_draws(cohort):
    """The population is learnt from all but two readings; 90 % intervals hold 90 % of those."""
    given, (days, seen) = cohort.without_last(2), cohort.last(2)
    found = learn_lesions(given, 2)
    low, high = np.quantile(found.forecast(given, days, jax.random.key(0)), [0.05, 0.95], axis=2)
    inside = (low - 0.5 <= np.asarray(seen)) & (np.asarray(seen) <= high + 0.5)
    assert 0.85 < inside.mean() < 0.96
    # better explained than by the truth: it is where the evidence is largest
    assert jnp.sum(found.log_evidence(given)) > jnp.sum(population().log_evidence(given)) - 0.5


def test_held_out_readings_say_nothing(cohort):
    days, size = drawn(150)
    changed = [np.concatenate([row[:-2], [77.0, 3.0]]) for row in size]
    again = readings(days, changed).without_last(2)
    np.testing.assert_array_equal(again.diameter_mm, cohort.without_last(2).diameter_mm)


@pytest.mark.parametrize(
    ("days", "sizes", "message"),
    [
        ([[0.0]], [[5.0]], "two or more"),
        ([[0.0, 3.0]], [[5.0, -1.0]], "0 to 1000 mm"),
        ([[3.0, 0.0]], [[5.0, 4.0]], "in order"),
        ([], [], "one or more"),
    ],
)
def test_records_that_cannot_be(days, sizes, message):
    with pytest.raises(InputError, match=message):
        readings(days, sizes)


def test_freedoms_without_a_closed_form(cohort):
    with pytest.raises(InputError, match="1, 2 or 4"):
        learn_lesions(cohort, 3)
