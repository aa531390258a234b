"""Forecasts of small virtual patients: the truth in the intervals, what the spread is made of."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.calibration import calibrate
from oncology.forecast import forecast, last_state, visible_density
from oncology.inverse import LEAST_MODEL_ERROR, amplitude
from oncology.observe import visible_cellularity_mm3, visible_volume_mm3
from oncology.scores import concordance
from tests.oncology.virtual import virtual_patient

DAYS = (0.0, 30.0, 60.0)
VOXEL_MM3 = 8.0


@pytest.fixture(scope="module")
def truth():
    return virtual_patient(DAYS)


@pytest.fixture(scope="module")
def calibrated(truth):
    return calibrate(truth[0], (1, 2), until_day=60.0, growth="global")


@pytest.fixture(scope="module")
def ahead(calibrated):
    return forecast(calibrated, 60.0, jax.random.key(0), draws=32)


def test_the_truth_lies_within_the_intervals(truth, calibrated, ahead):
    u = truth[1][-1][calibrated.crop.slices]
    level = {"threshold": ahead.threshold, "voxel_volume_mm3": VOXEL_MM3}
    width = 0.1 * ahead.threshold
    for name, true in (
        ("volume_mm3", float(visible_volume_mm3(jnp.asarray(u), **level, width=width))),
        (
            "total_cellularity_mm3",
            float(visible_cellularity_mm3(jnp.asarray(u), **level, width=width)),
        ),
    ):
        samples = ahead.samples[name]
        assert abs(samples.mean() - true) < 3 * samples.std() + 0.03 * true
        assert samples.std() < 0.5 * true
    inside = ahead.mask
    standardised = (ahead.mean - u)[inside] / ahead.sd[inside]
    assert np.mean(np.abs(standardised) < 1.96) > 0.85


def test_a_forecast_beats_persistence(truth, calibrated, ahead):
    before, after = (u[calibrated.crop.slices].ravel() for u in truth[1][1:])
    forecast_agrees = concordance(ahead.mean.ravel(), after)
    assert forecast_agrees > 0.97
    assert forecast_agrees > concordance(before, after) + 0.05


def test_samples_run_from_the_first_visit_to_the_day(truth, calibrated, ahead):
    assert ahead.days[0] == 0
    assert ahead.days[-1] == pytest.approx(60.0)
    assert np.all(np.diff(ahead.days) > 0)
    for name, values in ahead.course.items():
        assert values.shape == (32, ahead.days.size)
        np.testing.assert_array_equal(ahead.samples[name], values[:, -1])
        np.testing.assert_array_equal(ahead.at(0.0)[name], values[:, 0])
    first = np.asarray(truth[0].visits[0].cellularity.data)[calibrated.crop.slices]
    seen = np.sum(np.where(first > ahead.threshold, first, 0.0)) * VOXEL_MM3
    assert ahead.at(0.0)["total_cellularity_mm3"].mean() == pytest.approx(seen, rel=0.1)


def test_the_mean_is_of_the_draws_alone_and_the_sd_of_all(calibrated, ahead):
    """A model error widens every voxel; it neither raises nor lowers the mean, as it would if its
    sum with a low density were cut at zero."""
    same_draws = eqx.tree_at(
        lambda f: f.gain.to_model_error, calibrated.posterior, replace_fn=jnp.zeros_like
    )
    surer = eqx.tree_at(lambda f: f.model_error, same_draws, replace_fn=jnp.zeros_like)
    without, with_ = (
        forecast(replace(calibrated, posterior=found), 60.0, jax.random.key(0), draws=2)
        for found in (surer, same_draws)
    )
    np.testing.assert_allclose(with_.mean, without.mean, atol=1e-12)
    added = np.sqrt(with_.sd**2 - without.sd**2)
    expected = float(same_draws.model_error) * np.asarray(amplitude(jnp.asarray(with_.mean)))
    dense = with_.mean > 0.1
    np.testing.assert_allclose(added[dense], expected[dense], rtol=0.1)
    assert float(same_draws.model_error) >= LEAST_MODEL_ERROR


def test_steps_four_times_finer_hardly_change_the_forecast(calibrated, ahead):
    finer = replace(calibrated, tolerance=calibrated.tolerance / 16)
    again = forecast(finer, 60.0, jax.random.key(0), draws=2)
    same = forecast(calibrated, 60.0, jax.random.key(0), draws=2)
    assert again.mean.sum() == pytest.approx(same.mean.sum(), rel=2e-3)


def test_the_visible_density_gives_the_volume_drawn(calibrated):
    found = calibrated.posterior
    drawn = int(jnp.sum(found.inverse.observations[-1].mask))
    u = np.asarray(last_state(found))
    assert np.sum(u > visible_density(found)) == pytest.approx(drawn, abs=2)


def test_the_same_key_gives_the_same_forecast_and_progress_counts(calibrated):
    told = []
    first = forecast(
        calibrated, 40.0, jax.random.key(4), draws=3, progress=lambda *step: told.append(step)
    )
    assert told == [(1, 3), (2, 3), (3, 3)]
    again = forecast(calibrated, 40.0, jax.random.key(4), draws=3)
    np.testing.assert_array_equal(first.mean, again.mean)
    other = forecast(calibrated, 40.0, jax.random.key(5), draws=3)
    assert np.any(first.mean != other.mean)


def test_later_is_less_sure(calibrated, ahead):
    soon = forecast(calibrated, 40.0, jax.random.key(0), draws=32)
    spread = [f.samples["total_cellularity_mm3"].std() for f in (soon, ahead)]
    assert spread[1] > spread[0]


@pytest.mark.parametrize("day", [30.0, 12.0, 0.0, -5.0, float("nan")])
def test_a_day_that_is_not_after_the_last_visit(calibrated, day):
    with pytest.raises(InputError, match="a day after the last calibrated"):
        forecast(calibrated, day, jax.random.key(0))


def test_masks_alone_are_forecast():
    patient, states = virtual_patient(DAYS, masks_alone=True)
    calibrated = calibrate(patient, (1, 2), until_day=60.0, threshold=0.1)
    found = forecast(calibrated, 60.0, jax.random.key(0), draws=32)
    assert found.threshold == pytest.approx(0.1)
    volumes = found.samples["volume_mm3"]
    true = np.sum(states[-1] > 0.1) * VOXEL_MM3
    low, high = np.percentile(volumes, [2.5, 97.5])
    assert low < true < high
    assert np.std(np.log(volumes)) > 0.1
