"""Growth learnt from other patients: against quadrature, simulation, and the model itself."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate, stats

from mrphys.errors import InputError
from mrphys.volume import Volume
from oncology.cohort import Patient, Visit
from oncology.population import (
    DRAWING_SD,
    Pair,
    Response,
    infiltration_prior,
    learn_from,
    response,
    seen_once,
)
from oncology.priors import GROWTH_RATE
from oncology.scores import crps

SPACING_MM = (2.0, 2.0, 3.0)


def ball(shape=(20, 20, 12), radius_mm=9.0) -> Volume:
    place = np.moveaxis(np.indices(shape), 0, -1) * SPACING_MM
    distance = np.linalg.norm(place - place.reshape(-1, 3).mean(0), axis=-1)
    return Volume(distance < radius_mm, np.diag([*SPACING_MM, 1.0]))


def patient(second_radius_mm: float = 11.0, day: float = 40.0) -> Patient:
    visits = (
        Visit("ses-01", 0.0, tumor_labels=ball()),
        Visit("ses-02", day, tumor_labels=ball(radius_mm=second_radius_mm)),
    )
    return Patient("sub-01", visits)


@pytest.fixture(scope="module")
def tumor():
    return seen_once(patient(), patient().visits[0], 40.0, margin_mm=8.0)


@pytest.fixture(scope="module")
def table(tumor) -> Response:
    return response(tumor)


def linear_response(days: float, slope: float = 0.5) -> Response:
    """log growth = slope (log kΔt + 6), whatever λ."""
    nodes = jnp.linspace(-20.0, 10.0, 61)
    lengths = jnp.array([-1.0, 0.0, 1.0])
    growth = slope * (nodes[:, None] + 6.0) + 0.0 * lengths[None, :]
    return Response(nodes, lengths, growth, jnp.asarray(days))


def test_table_is_the_model(tumor, table):
    """At a node exactly; between nodes within 5 % of the growth."""
    at = table.log_turnovers[6 * 4], table.log_length[2 * 4]
    exact = tumor.log_growth(*at)
    np.testing.assert_allclose(table(at[0] - jnp.log(40.0), at[1]), exact, rtol=1e-6)
    between = table.log_turnovers[6 * 4 + 2], jnp.asarray(0.1)
    found = table(between[0] - jnp.log(40.0), between[1])
    np.testing.assert_allclose(found, tumor.log_growth(*between), rtol=0.05)


def test_growth_is_that_of_an_advancing_slab():
    """Both faces advance 5 / √6 λ kΔt, the speed of the front that the first mask starts as
    (Ablowitz & Zeppetella 1979)."""
    mask = np.zeros((80, 3, 3), bool)
    mask[30:50] = True
    once = Visit("ses-01", 0.0, tumor_labels=Volume(mask, np.eye(4)))
    slab = seen_once(Patient("sub-01", (once,)), once, 50.0)
    for turnovers, length in ((1.0, 2.0), (2.0, 1.5), (0.5, 3.0)):
        travel = 5 / np.sqrt(6) * length * turnovers
        found = slab.log_growth(jnp.log(turnovers), jnp.log(length))
        np.testing.assert_allclose(found, np.log((20 + 2 * travel) / 20), rtol=0.1)


def test_more_turnovers_grow_more_and_none_grow_nothing(table):
    """Until the box is full; also where voxels are too coarse for the front to leave them soon."""
    growth = np.asarray(table.log_growth)
    not_full = growth[1:] < 2.3
    assert np.all(np.diff(growth, axis=0)[not_full] > -1e-3)
    np.testing.assert_allclose(growth[0], 0.0, atol=0.05)


def test_only_the_clock_kt_counts():
    """Twice the days at half the rate is the same tumour."""
    once, twice = (
        seen_once(patient(day=day), patient().visits[0], day, margin_mm=6.0) for day in (30.0, 60.0)
    )
    at = jnp.log(0.7), jnp.log(1.5)
    np.testing.assert_allclose(once.log_growth(*at), twice.log_growth(*at), rtol=1e-9)


def test_the_second_mask_says_nothing_of_its_own_forecast(tumor):
    """Not through the box, the tissue nor the first state: also where a tissue mask ends near
    the second tumour."""
    tissue = ball(radius_mm=12.0)
    forecasts = []
    for radius in (11.0, 17.0):
        seen = patient(radius)
        visits = tuple(replace(visit, tissue=tissue) for visit in seen.visits)
        seen = replace(seen, visits=visits)
        once = seen_once(seen, seen.visits[0], 40.0, margin_mm=8.0)
        forecasts.append(float(once.log_growth(jnp.log(2.0), jnp.log(1.5))))
    assert forecasts[0] == forecasts[1]


def test_evidence_agrees_with_adaptive_quadrature():
    """Posterior weights of two points against the integral over k by scipy."""
    days, seen = 90.0, 0.7
    found = learn_from([Pair(linear_response(days), seen)], follow=(0.0, 1.0))
    points = [found.mean_log_rate, found.log_rate_sd, found.follow, found.discrepancy_sd]
    grid = np.stack([np.asarray(axis) for axis in points], axis=1)

    def unnormalised(point) -> float:
        mean, spread, follow, rest = point
        middle = mean - follow * np.log(days / 60)
        scale = np.hypot(rest, np.sqrt(2) * DRAWING_SD)

        def density(log_rate):
            growth = 0.5 * (log_rate + np.log(days) + 6.0)
            error = stats.t.pdf((seen - growth) / scale, 4) / scale
            return error * stats.norm.pdf(log_rate, middle, spread)

        width = 8 * spread
        likelihood = integrate.quad(density, middle - width, middle + width, limit=200)[0]
        prior = stats.norm.pdf(spread / GROWTH_RATE.log_sd) * rest / (1 + (rest / 0.34) ** 2)
        return likelihood * prior

    weight = np.asarray(found.weight)
    chosen = [112, 2000, 3012, 4444]
    expected = np.array([unnormalised(grid[i]) for i in chosen])
    np.testing.assert_allclose(weight[chosen] / weight[2000], expected / expected[1], rtol=0.02)


def draw_cohort(rng, size: int, mean: float, spread: float, follow: float, rest: float):
    """Patients of a known population, log growth as the hierarchy has it."""
    days = rng.choice([30.0, 60.0, 120.0, 400.0], size)
    responses = {one: linear_response(one) for one in np.unique(days).tolist()}
    pairs = []
    for one in days.tolist():
        log_rate = mean - follow * np.log(one / 60) + spread * rng.normal()
        error = np.hypot(rest, np.sqrt(2) * DRAWING_SD) * rng.standard_t(4)
        growth = 0.5 * (log_rate + np.log(one) + 6.0) + error
        pairs.append(Pair(responses[one], float(growth)))
    return pairs


@pytest.mark.long
def test_a_large_cohort_tells_its_population():
    """Mean rate, how scans follow growth, and how widely the next patient's growth is spread (ω and
    τ apart are told by the shape of tails alone)."""
    rng = np.random.default_rng(1)
    population = {"mean": np.log(0.005), "spread": 1.2, "follow": 0.5, "rest": 0.1}
    found = learn_from(draw_cohort(rng, 150, **population))
    estimates = [
        float(jnp.sum(found.weight * values)) for values in (found.mean_log_rate, found.follow)
    ]
    np.testing.assert_allclose(estimates, [np.log(0.005), 0.5], atol=0.25)
    usual = found.growth_rate(60.0)
    assert usual.median == pytest.approx(0.005, rel=0.3)
    assert found.growth_rate(120.0).median / usual.median == pytest.approx(2**-0.5, rel=0.15)
    foretold = found.log_growth(linear_response(60.0), jax.random.key(0))
    truth = [p for p in draw_cohort(rng, 20_000, **population) if float(p.response.days) == 60]
    low, high = np.quantile(np.asarray(foretold), [0.05, 0.95])
    expected = np.quantile([pair.log_growth for pair in truth], [0.05, 0.95])
    assert high - low == pytest.approx(expected[1] - expected[0], rel=0.15)


@pytest.mark.long
def test_intervals_from_five_patients_are_honest():
    """Populations drawn from what is believed before, five patients seen, the sixth foretold: 90 %
    intervals cover 90 % within the error of 200 draws."""
    rng = np.random.default_rng(0)
    covered = []
    for number in range(200):
        mean = np.log(0.03) + rng.uniform(np.log(0.01), 0)
        spread, rest = abs(rng.normal()), min(0.34 * abs(rng.standard_cauchy()), 3.0)
        follow = rng.choice([0.0, 0.25, 0.5, 0.75, 1.0])
        *seen, last = draw_cohort(rng, 6, mean, spread, follow, rest)
        growth = learn_from(seen).log_growth(last.response, jax.random.key(number), draws=1500)
        low, high = np.quantile(np.asarray(growth), [0.05, 0.95])
        covered.append(low <= last.log_growth <= high)
    assert 0.85 <= np.mean(covered) <= 0.95


def test_less_is_known_of_the_next_patient_from_fewer():
    rng = np.random.default_rng(2)
    cohort = draw_cohort(rng, 12, np.log(0.005), 0.3, 0.0, 0.05)
    key, of = jax.random.key(0), linear_response(60.0)
    wide, narrow = (float(jnp.std(learn_from(cohort[:n]).log_growth(of, key))) for n in (2, 12))
    assert wide > 1.2 * narrow


def test_prior_of_the_length_is_that_of_the_quotient():
    rng = np.random.default_rng(0)
    prior = infiltration_prior()
    z = rng.normal(size=(2, 100_000))
    lengths = np.sqrt(0.06 * np.exp(1.2 * z[0]) / (0.03 * np.exp(1.0 * z[1])))
    assert np.median(lengths) == pytest.approx(prior.median, rel=0.02)
    assert np.log(lengths).std() == pytest.approx(prior.log_sd, rel=0.02)


@pytest.mark.parametrize("pairs", [[], [Pair(linear_response(60.0), -np.inf)]])
def test_nothing_to_learn_from_is_refused(pairs):
    with pytest.raises(InputError, match="learn_from"):
        learn_from(pairs)


def test_samples_of_a_normal_score_as_its_closed_form():
    """The benchmark compares a score of samples with persistence's in closed form."""
    from benchmarks.glioblastoma_leave_one_out import normal_crps

    samples = 0.4 * np.random.default_rng(0).normal(size=200_000)
    for error in (0.0, 0.3, -1.1):
        assert crps(samples, error) == pytest.approx(normal_crps(0.4, error), abs=0.002)
