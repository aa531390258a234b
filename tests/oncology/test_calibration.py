"""Calibration of small virtual patients: known parameters found again, and every refusal."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from mrphys.volume import Volume
from oncology.appearance import LabelledMask
from oncology.calibration import (
    calibrate,
    largest,
    observation_of,
    scale_of,
    visible_threshold,
)
from oncology.cohort import Patient, Visit
from oncology.domain import crop_around
from oncology.forecast import forecast
from oncology.growth import GrowthMap, ReactionDiffusion
from oncology.growth_laws import Gompertz
from oncology.observe import CellularityMap, VisibleMask
from oncology.priors import LogNormal, default_priors, physical
from oncology.schedule import Treatment
from oncology.treatment import plan
from tests.oncology.virtual import TRUTH, lump, virtual_patient

RADIOTHERAPY = tuple(Treatment(10.0 + day, "radiotherapy", 2.0, "Gy") for day in range(5))


@pytest.fixture(scope="module")
def patient():
    return virtual_patient()[0]


@pytest.fixture(scope="module")
def calibrated(patient):
    return calibrate(patient, (1, 2), growth="global")


def deviations(calibrated, truth=TRUTH) -> dict[str, float]:
    """How many posterior standard deviations each parameter lies from the truth."""
    found = calibrated.posterior
    sd = np.sqrt(np.diag(np.asarray(found.covariance)))
    return {
        name: (float(found.z[i]) - np.log(truth[name] / prior.median) / prior.log_sd) / sd[i]
        for i, (name, prior) in enumerate(calibrated.inverse.priors.items())
        if name in truth
    }


def test_parameters_are_found_again(calibrated):
    off = deviations(calibrated)
    assert set(off) >= {"diffusivity_mm2_per_day", "growth_rate_per_day"}
    assert all(abs(value) < 3 for value in off.values()), off
    i = list(calibrated.inverse.priors).index("growth_rate_per_day")
    assert float(calibrated.posterior.covariance[i, i]) < 0.3**2
    assert calibrated.inverse.model.growth_map is None
    assert calibrated.warnings == ()


def test_three_visits_are_calibrated_together(patient):
    longer = calibrate(patient, (1, 2, 3), growth="global")
    assert len(longer.inverse.legs) == 2
    assert all(abs(value) < 3 for value in deviations(longer).values())


@pytest.mark.long
def test_radiotherapy_between_visits():
    patient, _ = virtual_patient((0.0, 9.0, 30.0), treatments=RADIOTHERAPY, seed=3)
    treated = calibrate(patient, (1, 2, 3), growth="global")
    off = deviations(treated)
    assert "radiosensitivity_per_gy" in off
    assert all(abs(value) < 3 for value in off.values()), off
    i = list(treated.inverse.priors).index("radiosensitivity_per_gy")
    assert float(treated.posterior.covariance[i, i]) < 0.7


@pytest.mark.long
def test_two_drugs_each_have_an_effect_and_a_decay():
    doses = tuple(
        Treatment(5.0, "chemotherapy", 1.0, "relative", agent)
        for agent in ("doxorubicin", "cyclophosphamide")
    )
    truth = {**TRUTH}
    for agent, decay in (("doxorubicin", 0.6), ("cyclophosphamide", 3.25)):
        truth |= {f"kill_{agent}_per_day": 0.3, f"decay_{agent}_per_day": decay}
    patient, _ = virtual_patient((0.0, 20.0), treatments=doses, truth=truth)
    treated = calibrate(patient, (1, 2), growth="global")
    off = deviations(treated, truth)
    assert len(off) == 7
    assert all(abs(value) < 3 for value in off.values()), off


@pytest.mark.long
def test_a_growth_map_where_growth_varies():
    """Fast on one side, still on the other: `auto` takes a map; `global` stays and warns."""
    shape, spacing = (24, 24, 1), (2.0, 2.0, 2.0)
    region = lump(shape, spacing, 6.0) > 0.1
    basis = GrowthMap(region, spacing, 8.0)
    x = np.indices(basis.lattice)[0].ravel()[np.array(basis.kept)]
    sides = jnp.asarray(np.where(x > x.mean(), 0.05, -0.05))
    model = ReactionDiffusion(habitable=jnp.ones(shape, bool), spacing_mm=spacing, growth_map=basis)
    truth = {**TRUTH, "growth_map_per_day": sides}
    patient, _ = virtual_patient((0.0, 30.0), model=model, truth=truth, noise_sd=0.02)
    local = calibrate(patient, (1, 2))
    assert local.inverse.model.growth_map is not None
    p = physical(local.inverse.priors, local.posterior.z)
    found = np.asarray(local.inverse.model.growth_map(p["growth_map_per_day"]))
    true = np.asarray(basis(sides))[local.crop.slices]
    inside = region[local.crop.slices]
    assert np.corrcoef(found[inside], true[inside])[0, 1] > 0.7
    still_global = calibrate(patient, (1, 2), growth="global")
    assert still_global.inverse.model.growth_map is None
    assert any("one global growth rate" in warning for warning in still_global.warnings)


@pytest.mark.long
def test_one_rate_where_growth_does_not_vary(patient):
    assert calibrate(patient, (1, 2)).inverse.model.growth_map is None


@pytest.mark.long
def test_masks_alone_can_be_calibrated():
    patient, _ = virtual_patient((0.0, 30.0), masks_alone=True)
    found = calibrate(patient, (1, 2), threshold=0.1)
    assert found.scale is None
    assert isinstance(found.inverse.observations[0], VisibleMask)
    assert all(abs(value) < 3 for value in deviations(found).values())
    with pytest.raises(InputError, match="masks alone"):
        calibrate(patient, (1, 2), threshold=0.1, growth="local")


@pytest.mark.long
def test_the_grid_stays_clear_of_the_tumour_until_the_last_day(patient):
    wide, _ = virtual_patient((0.0, 30.0), size=48)
    near = calibrate(wide, (1, 2), growth="global")
    far = calibrate(wide, (1, 2), until_day=90.0, growth="global")
    sizes = [np.diff(np.array(c.crop.box), axis=1)[:2].min() for c in (near, far)]
    assert sizes[1] > sizes[0]


@pytest.mark.parametrize(
    ("visits", "message"),
    [
        ((1,), "two visits or more"),
        ((), "two visits or more"),
        ((2, 1), "visits in order of day"),
        ((1, 1), "visits in order of day"),
        ((1, 7), "no session 7"),
    ],
)
def test_visits_that_cannot_be_calibrated_on(patient, visits, message):
    with pytest.raises(InputError, match=message):
        calibrate(patient, visits)


def test_a_planned_visit_cannot_be_calibrated_on(patient):
    planned = replace(patient, visits=(*patient.visits, Visit("ses-09", 99.0)))
    with pytest.raises(InputError, match="no images"):
        calibrate(planned, (1, 9))


@pytest.mark.long
def test_one_visit_leaves_the_priors_given(patient):
    """And a forecast from it starts at that visit."""
    priors = {name: LogNormal(TRUTH[name], 0.1, "") for name in list(TRUTH)[:3]}
    found = calibrate(patient, (1,), priors=priors, until_day=30.0)
    np.testing.assert_array_equal(found.posterior.z, 0)
    np.testing.assert_allclose(found.posterior.covariance, np.eye(3), atol=1e-12)
    ahead = forecast(found, 30.0, jax.random.key(0), draws=12)
    seen = np.asarray(patient.visit(2).cellularity.data)[found.crop.slices]
    assert abs(ahead.mean.sum() / seen.sum() - 1) < 0.15
    assert ahead.days[0] == 0.0
    assert np.std(ahead.samples["total_cellularity_mm3"]) > 0


def test_labels_are_seen_as_labels(patient):
    labels = np.zeros((20, 20, 1), np.uint8)
    labels[5:15, 5:15] = 2
    model = ReactionDiffusion(habitable=jnp.ones(labels.shape, bool), spacing_mm=(2.0, 2.0, 2.0))
    kinds = []
    for core in (2, 4):
        labels[8:12, 8:12] = core
        visit = Visit("ses-01", 0.0, tumor_labels=Volume(labels.copy(), np.diag([2.0, 2, 2, 1])))
        crop = crop_around([visit], 100.0)
        kinds.append(type(observation_of(visit, model, crop, None)))
    assert kinds == [VisibleMask, LabelledMask]


@pytest.mark.long
def test_another_growth_law(patient):
    found = calibrate(patient, (1, 2), growth="global", law=Gompertz())
    assert isinstance(found.inverse.model.law, Gompertz)
    p = physical(found.inverse.priors, found.posterior.z)
    assert p["growth_rate_per_day"] < TRUTH["growth_rate_per_day"]


def test_an_unknown_kind_of_growth(patient):
    with pytest.raises(InputError, match="'auto', 'global' or 'local'"):
        calibrate(patient, (1, 2), growth="wild")


def adc_visit(adc: np.ndarray, mask: np.ndarray, sd: np.ndarray | None = None, **anatomy) -> Visit:
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    return Visit(
        "ses-01",
        0.0,
        tumor_labels=Volume(mask.astype(np.uint8), affine),
        adc_mm2_per_s=Volume(adc, affine),
        adc_sd_mm2_per_s=None if sd is None else Volume(sd, affine),
        anatomy={name: Volume(image, affine) for name, image in anatomy.items()},
    )


@pytest.fixture(scope="module")
def from_adc():
    """A visit whose ADC map is 2.5e-3 (1 - u) mm²/s, of sd 5e-5, over a lump u."""
    u = lump((20, 20, 1), (2.0, 2.0, 2.0), 10.0, 0.8)
    noise = 5e-5 * np.random.default_rng(0).standard_normal(u.shape)
    return u, adc_visit(2.5e-3 * (1 - u) + noise, u > 0.2, np.full(u.shape, 5e-5))


def test_scale_as_given_or_from_the_densest_voxels(from_adc):
    u, visit = from_adc
    given = scale_of([visit], 2.5e-3, 0.0)
    assert given is not None
    assert (given.adc_w_mm2_per_s, given.adc_min_mm2_per_s) == (2.5e-3, 0.0)
    found = scale_of([visit], None, None)
    assert found is not None
    assert found.adc_w_mm2_per_s == pytest.approx(3.0e-3, rel=0.05)
    assert found.adc_min_mm2_per_s == pytest.approx(2.5e-3 * (1 - u.max()), abs=1.5e-4)
    assert scale_of([Visit("ses-01", 0.0)], None, None) is None


@pytest.mark.parametrize(
    ("water", "least", "cause"),
    [(0.5e-3, 2.5e-3, "exchanged"), (2500.0, 700.0, "1e-6"), (2.5e-3, -1e-3, "exchanged")],
)
def test_a_scale_that_cannot_be(from_adc, water, least, cause):
    with pytest.raises(InputError, match=cause):
        scale_of([from_adc[1]], water, least)


def test_an_adc_map_is_seen_as_cellularity_with_its_sd(from_adc):
    u, visit = from_adc
    scale = scale_of([visit], 2.5e-3, 0.0)
    patient = Patient("sub-01", (visit,))
    model = ReactionDiffusion(habitable=jnp.ones(u.shape, bool), spacing_mm=(2.0, 2.0, 2.0))
    seen = observation_of(visit, model, crop_around(patient.visits, 100.0), scale)
    assert isinstance(seen, CellularityMap)
    np.testing.assert_allclose(seen.sd, 0.02, rtol=1e-6)
    assert np.std(np.asarray(seen.value) - u) == pytest.approx(0.02, rel=0.15)


def test_voxels_without_adc_are_left_out(from_adc):
    u, visit = from_adc
    adc = np.array(visit.adc_mm2_per_s.data)
    adc[10, 10] = np.nan
    holed = adc_visit(adc, u > 0.2)
    model = ReactionDiffusion(habitable=jnp.ones(u.shape, bool), spacing_mm=(2.0, 2.0, 2.0))
    seen = observation_of(holed, model, crop_around([visit], 100.0), scale_of([visit], 2.5e-3, 0.0))
    assert not bool(seen.mask[10, 10, 0])
    assert int(seen.mask.sum()) == int((u > 0.2).sum()) - 1
    assert np.all(np.isfinite(np.asarray(seen.value)))
    # the curvature of so small a lump counts as noise, never the other way round
    assert 0.016 < float(seen.sd[5, 5, 0]) < 0.04


def test_threshold_by_the_images_a_mask_was_drawn_on():
    mask = np.ones((3, 3, 1), np.uint8)
    visit = Visit("ses-01", 0.0, tumor_labels=Volume(mask, np.eye(4)))
    image = Volume(np.zeros((3, 3, 1)), np.eye(4))
    for names, expected in (
        (("ce-GADOLINIUM_T1w", "FLAIR"), 0.8),
        (("FLAIR",), 0.16),
        (("T2w",), 0.16),
        ((), 0.8),
    ):
        drawn_on = replace(visit, anatomy=dict.fromkeys(names, image))
        assert visible_threshold(drawn_on) == expected


def test_largest_is_a_quantile_of_the_prior():
    priors = {"growth_rate_per_day": LogNormal(0.03, 0.5, "1/day")}
    assert largest(priors, "growth_rate_per_day", 1.0) == pytest.approx(0.03 * np.exp(0.5))
    assert largest(default_priors(plan(())), "diffusivity_mm2_per_day") > 0.5
