"""When to scan next: closed forms, exhaustive search, and what an ensemble knows."""

import itertools
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from mrphys.information import variances_of
from oncology.decisions.visits import Ensemble, Visits, VisitUncertainty, optimise_visits
from oncology.growth import ReactionDiffusion
from oncology.timeline import course, steps_between
from oncology.treatment import Plan
from tests.laws import check_gradient

SD, WINDOW = 0.15, (10.0, 90.0)


def exponential(q, day):
    """Log volume, linear in time."""
    return q["log_start"] + q["rate"] * day


GROWING = {"log_start": jnp.array([2.0]), "rate": jnp.array([0.03])}


def designed(days, about, reading=exponential, q=GROWING, between=WINDOW, **options):
    options = {"starts": 1} | options
    return optimise_visits(reading, about, q, days, noise_sd=SD, between=between, **options)


def test_two_readings_of_exponential_growth_go_to_the_ends():
    """The sd of a slope is σ √2 / T; that of log volume on a later day T₂ from then is
    σ √(T₂² + (T + T₂)²) / T."""
    rate = designed([40.0, 60.0], lambda q: q["rate"])
    np.testing.assert_allclose(rate.theta.days, WINDOW, atol=1e-6)
    assert rate.after == pytest.approx(SD * np.sqrt(2) / 80, rel=1e-9)
    later = designed([40.0, 60.0], lambda q: exponential(q, 120.0))
    np.testing.assert_allclose(later.theta.days, WINDOW, atol=1e-6)
    assert later.after == pytest.approx(SD * np.hypot(30, 110) / 80, rel=1e-9)


def test_three_readings_of_a_slope_leave_the_third_at_an_end():
    made = designed([30.0, 45.0, 70.0], lambda q: q["rate"], apart_days=5.0)
    days = np.asarray(made.theta.days)
    apart = min(np.abs(days - [10, 15, 90]).max(), np.abs(days - [10, 85, 90]).max())
    assert apart < 0.02
    assert np.all(np.diff(days) >= 5 - 1e-9)


def test_a_reading_long_ago_sends_the_next_to_the_last_day():
    made = designed([30.0], lambda q: q["rate"], earlier=(0.0,))
    np.testing.assert_allclose(made.theta.days, [90.0], atol=1e-6)
    assert made.after == pytest.approx(SD * np.sqrt(2) / 90, rel=1e-9)


def test_the_rate_of_gompertz_is_read_when_log_volume_moves_most():
    """ln u = ln u₀ e^{-kt} moves with k by -t ln u₀ e^{-kt}: most on day 1/k, inside the window."""

    def reading(q, day):
        return jnp.log(0.01) * jnp.exp(-q * day)

    made = designed([70.0], lambda q: q, reading, jnp.array([0.025]))
    np.testing.assert_allclose(made.theta.days, [40.0], atol=1e-3)
    assert made.after == pytest.approx(SD * 0.025 * np.e / -np.log(0.01), rel=1e-9)


@cache
def tumour():
    """A small field of two unknown rates, read by the log of its total: to first order in them,
    which is all that a local design asks."""
    model = ReactionDiffusion(jnp.ones((5, 5, 1), bool))
    start = jnp.zeros((5, 5, 1)).at[1:4, 1:4].set(0.3)
    limits = {"largest_diffusivity_mm2_per_day": 0.2, "largest_growth_rate_per_day": 0.1}
    steps = steps_between(model, Plan(), 0.0, 80.0, **limits, tolerance=5e-2)

    def totals(q):
        p = {"diffusivity_mm2_per_day": q[0], "growth_rate_per_day": q[1]}
        total = course(model, Plan(), p, start, steps, lambda u: jnp.log(u.sum()))[1]
        return jnp.concatenate([jnp.log(start.sum())[None], total])

    days = jnp.asarray([0.0, *steps.end_day])
    slopes = jax.jit(jax.jacfwd(totals))(RATES)

    def reading(q, day):
        return jax.vmap(lambda slope: jnp.interp(day, days, slope))(slopes.T) @ q

    return reading, lambda q: slopes[-1] @ q


RATES = jnp.array([0.1, 0.05])


def test_a_field_is_read_where_exhaustive_search_says():
    reading, about = tumour()
    q, known = RATES[None], np.diag([1 / 0.05**2, 1 / 0.02**2])
    options = {"noise_sd": 0.1, "between": (1.0, 79.0), "known": known, "apart_days": 6.0}
    made = optimise_visits(reading, about, q, [15.0, 65.0], **options, starts=1, steps=30)
    loss = VisitUncertainty(reading, about, q, jnp.asarray(0.1), jnp.asarray(known), jnp.zeros(0))
    pairs = [(a, b) for a, b in itertools.combinations(range(1, 80, 2), 2) if b - a >= 6]
    every = jax.jit(jax.vmap(lambda days: loss(Visits(days))))(jnp.array(pairs, float))
    best = pairs[int(jnp.argmin(every))]
    assert made.after <= float(every.min()) * (1 + 1e-5)
    assert made.after < 0.9 * made.before
    np.testing.assert_allclose(made.theta.days, best, atol=2.0)


def test_draws_count_alike():
    """The mean variance over draws; here of a rate that no draw changes."""
    both = {"log_start": jnp.array([2.0, 3.0]), "rate": jnp.array([0.03, 0.05])}
    made = designed([40.0, 60.0], lambda q: q["rate"], q=both)
    assert made.after == pytest.approx(SD * np.sqrt(2) / 80, rel=1e-9)


def test_an_ensemble_knows_what_its_covariances_say():
    """The gain of a Kalman filter, from the covariance of the draws on the days in question."""
    rng = np.random.default_rng(0)
    days = np.linspace(0.0, 100.0, 11)
    draws = rng.normal(5, 0.3, (12, 1)) + rng.normal(0.03, 0.01, (12, 1)) * days
    course_of = Ensemble(days, draws)
    np.testing.assert_allclose(course_of(jnp.zeros(12), 37.0), draws.mean(0) @ hat(days, 37.0))
    loss = VisitUncertainty(
        course_of, lambda w: course_of(w, 100.0), jnp.zeros((1, 12)), jnp.asarray(SD),
        jnp.eye(12), jnp.zeros(0),
    )  # fmt: skip
    at = np.stack([draws @ hat(days, day) for day in (12.0, 55.0, 100.0)], 1)
    c = np.cov(at.T)
    expected = c[2, 2] - c[2, :2] @ np.linalg.solve(c[:2, :2] + SD**2 * np.eye(2), c[:2, 2])
    found = loss(Visits(jnp.array([12.0, 55.0])))
    assert float(found) == pytest.approx(np.sqrt(expected), rel=1e-9)
    check_gradient(lambda days: loss(Visits(days)), jnp.array([12.0, 55.0]), scale=10.0, rtol=1e-5)


def hat(days, day):
    """Weights of linear interpolation."""
    return np.array([np.interp(day, days, row) for row in np.eye(days.size)])


def test_variances_of_functions_that_readings_tell_and_do_not():
    matrix = jnp.array([[4.0, 1.0, 0.0], [1.0, 2.0, 0.0], [0.0, 0.0, 0.0]])
    slopes = jnp.array([[1.0, -2.0, 0.0], [0.0, 1.0, 1.0]])
    expected = slopes[0, :2] @ jnp.linalg.inv(matrix[:2, :2]) @ slopes[0, :2]
    np.testing.assert_allclose(variances_of(matrix, slopes), [expected, jnp.inf], rtol=1e-12)


@pytest.mark.parametrize(
    ("days", "options", "said"),
    [
        ([40.0, 60.0], {"apart_days": 100.0}, "room for all"),
        ([40.0], {}, "too few days: nothing tells log_start.*rate"),
        ([40.0, 60.0], {"between": (90.0, 10.0)}, "room for all"),
        ([4.0, 60.0], {}, "a start from 4"),
    ],
)
def test_bad_input(days, options, said):
    with pytest.raises(InputError, match=said):
        designed(days, lambda q: q["rate"], **options)


def test_a_reading_without_noise_is_an_error():
    with pytest.raises(InputError, match="noise_sd"):
        optimise_visits(
            exponential, lambda q: q["rate"], GROWING, [1.0], noise_sd=0.0, between=(0.0, 9.0)
        )
