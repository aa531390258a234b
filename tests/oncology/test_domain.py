"""Where the tumour is modelled: the reach of growth, boxes, habitable tissue, maps picked up."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from mrphys.volume import Volume
from oncology.cohort import Patient, Visit
from oncology.domain import (
    crop_around,
    cut_to_reach,
    habitable_tissue,
    model_for,
    reach_mm,
)
from oncology.growth import GrowthMap, ReactionDiffusion
from oncology.timeline import integrate, steps_between
from oncology.treatment import Plan
from tests.oncology.virtual import grown, lump

SPACING_MM = (2.0, 2.0, 3.0)
AFFINE = np.diag([*SPACING_MM, 1.0])
SHAPE = (20, 18, 8)


def visit(number: int, mask: np.ndarray, **images: np.ndarray) -> Visit:
    volumes = {name: Volume(data, AFFINE) for name, data in images.items()}
    labels = Volume(mask.astype(np.uint8), AFFINE)
    return Visit(f"ses-{number:02d}", 10.0 * number, tumor_labels=labels, **volumes)


def ball(centre, radius_mm: float) -> np.ndarray:
    grid = np.moveaxis(np.indices(SHAPE), 0, -1) * SPACING_MM
    return np.linalg.norm(grid - np.asarray(centre) * SPACING_MM, axis=-1) <= radius_mm


@pytest.fixture(scope="module")
def patient():
    return Patient("sub-01", (visit(0, ball((6, 7, 3), 5)), visit(1, ball((8, 9, 3), 5))))


def test_no_growth_reaches_beyond_its_bound():
    """From one full voxel: density beyond `reach_mm` stays below what it promises."""
    d, k, days = 0.2, 0.05, 40.0
    shape, spacing = (161, 1, 1), (0.5, 1.0, 1.0)
    start = np.zeros(shape)
    start[80] = 1.0
    model = ReactionDiffusion(habitable=jnp.ones(shape, bool), spacing_mm=spacing)
    p = {"diffusivity_mm2_per_day": d, "growth_rate_per_day": k}
    end = grown(model, p, start, (0.0, days))[-1][:, 0, 0]
    distance = 0.5 * np.abs(np.arange(161) - 80)
    reach = reach_mm(days, d, k, least=1e-4)
    assert end[distance > reach].max() < 1e-4
    assert end[distance > 0.5 * reach].max() > 1e-4
    assert reach > 2 * np.sqrt(d * k) * days


def test_reach_without_time_is_none():
    assert reach_mm(0.0, 0.1, 0.03) == 0


def test_twice_the_margin_changes_nothing():
    """A forecast on the box that `reach_mm` gives and on one with twice the margin."""
    d, k, days = 0.1, 0.04, 60.0
    p = {"diffusivity_mm2_per_day": d, "growth_rate_per_day": k}
    margin = reach_mm(days, d, k)
    totals = []
    for factor in (1, 2):
        n = 2 * int(np.ceil((8.0 + factor * margin) / 2.0)) + 1
        start = np.where((u := lump((n, n, 1), (2.0, 2.0, 2.0), 4.0)) > 0.05, u, 0.0)
        model = ReactionDiffusion(habitable=jnp.ones(u.shape, bool), spacing_mm=(2.0, 2.0, 2.0))
        totals.append(grown(model, p, start, (0.0, days))[-1].sum())
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)
    assert totals[0] > 1.5 * start.sum()


def test_a_box_holds_every_tumour_and_its_margin(patient):
    crop = crop_around(patient.visits, 4.0)
    assert crop.full_shape == SHAPE
    union = np.logical_or(*(np.asarray(v.tumor.data) for v in patient.visits))
    for axis, ((start, stop), step) in enumerate(zip(crop.box, SPACING_MM, strict=True)):
        along = np.flatnonzero(union.any(axis=tuple(a for a in range(3) if a != axis)))
        voxels = int(np.ceil(4.0 / step))
        assert start == max(along[0] - voxels, 0)
        assert stop == min(along[-1] + 1 + voxels, SHAPE[axis])


def test_cut_and_paste_are_inverse(patient):
    crop = crop_around(patient.visits, 2.0)
    field = np.random.default_rng(0).standard_normal(SHAPE)
    cut = crop.cut(Volume(field, AFFINE))
    pasted = crop.paste(cut)
    assert pasted.shape == SHAPE
    np.testing.assert_array_equal(pasted[crop.slices], field[crop.slices])
    assert np.count_nonzero(pasted) == cut.size
    np.testing.assert_array_equal(crop.cut(Volume(pasted, AFFINE)), cut)


def test_a_box_around_nothing_is_refused():
    nothing = visit(0, np.zeros(SHAPE, bool))
    with pytest.raises(InputError, match="no tumour at any visit"):
        crop_around([nothing], 5.0)
    with pytest.raises(InputError, match="no tumour at any visit"):
        crop_around([Visit("ses-01", 0.0)], 5.0)


def test_without_tissue_cells_live_anywhere(patient):
    crop = crop_around(patient.visits, 4.0)
    assert habitable_tissue(patient, crop).all()


def test_tissue_holds_the_tumour_and_what_is_joined_to_it(patient):
    """The mask of tissue and every tumour; an island of tissue apart is out of reach."""
    x = np.indices(SHAPE)[0]
    tissue = ((x < 9) | (x > 15)).astype(np.uint8)
    first = replace(patient.visits[0], tissue=Volume(tissue, AFFINE))
    with_tissue = replace(patient, visits=(first, patient.visits[1]))
    crop = crop_around(patient.visits, 100.0)
    found = habitable_tissue(with_tissue, crop)
    later = np.asarray(patient.visits[1].tumor.data)
    expected = ((x < 9) | later)[crop.slices]
    assert (later & (x >= 9)).any()
    np.testing.assert_array_equal(found, expected)


def test_tissue_probabilities_stand_in_for_a_tissue_mask(patient):
    x = np.indices(SHAPE)[0]
    white = np.where(x < 12, 0.2, 0.0)
    grey = np.where(x < 12, 0.1, 0.05)
    first = visit(0, np.asarray(patient.visits[0].tumor.data), white_matter=white, grey_matter=grey)
    brain = replace(patient, visits=(first, patient.visits[1]))
    crop = crop_around(patient.visits, 100.0)
    np.testing.assert_array_equal(habitable_tissue(brain, crop), (x < 12)[crop.slices])


def test_the_model_picks_up_every_map(patient):
    rng = np.random.default_rng(0)
    maps = {
        name: rng.uniform(0.3, 1.0, SHAPE)
        for name in ("white_matter", "grey_matter", "drug_delivery", "dose_gy")
    }
    first = visit(0, np.asarray(patient.visits[0].tumor.data), **maps)
    full = replace(patient, visits=(first, patient.visits[1]))
    crop = crop_around(full.visits, 4.0)
    model = model_for(full, crop)
    assert model.spacing_mm == SPACING_MM
    for name in ("white_matter", "grey_matter", "drug_delivery"):
        np.testing.assert_allclose(getattr(model, name), maps[name][crop.slices], rtol=1e-6)
    dose = maps["dose_gy"]
    np.testing.assert_allclose(model.dose_shape, (dose / dose.max())[crop.slices], rtol=1e-6)
    bare = model_for(patient, crop)
    assert bare.white_matter is None
    assert bare.drug_delivery is None
    assert bare.dose_shape is None


def test_steps_on_a_box_run(patient):
    crop = crop_around(patient.visits, 4.0)
    model = model_for(patient, crop)
    steps = steps_between(
        model,
        Plan(),
        0.0,
        10.0,
        largest_diffusivity_mm2_per_day=0.2,
        largest_growth_rate_per_day=0.05,
    )
    start = jnp.asarray(crop.cut(patient.visits[0].tumor), float) / 2
    p = {"diffusivity_mm2_per_day": 0.1, "growth_rate_per_day": 0.03}
    assert float(jnp.sum(integrate(model, Plan(), p, start, steps))) > float(jnp.sum(start))


def test_a_model_cut_to_its_reach_grows_as_the_whole():
    """Growth maps, tissue and delivery are cut with it; outside the box hardly a cell would be."""
    shape, spacing = (40, 36, 1), (1.0, 1.5, 1.0)
    x = np.linspace(0, 1, 40)[:, None, None] * np.ones(shape)
    start = lump(shape, spacing, 2.0)
    start[start < 1e-3] = 0
    whole = ReactionDiffusion(
        jnp.ones(shape, bool),
        white_matter=jnp.asarray(x),
        grey_matter=jnp.asarray(1 - x),
        growth_map=GrowthMap(start > 0.1, spacing, 4.0),
        spacing_mm=spacing,
    )
    p = {"diffusivity_mm2_per_day": 0.1, "growth_rate_per_day": 0.05}
    p["growth_map_per_day"] = jnp.full(whole.growth_map.size, 0.02)
    crop, cut = cut_to_reach(whole, start, 20.0, 0.1, 0.07)
    assert cut.habitable.size < 0.8 * start.size
    exact = grown(whole, p, start, (0.0, 20.0))[-1]
    found = crop.paste(grown(cut, p, start[crop.slices], (0.0, 20.0))[-1])
    np.testing.assert_allclose(found, exact, atol=1e-3)
    with pytest.raises(InputError, match="nothing above"):
        cut_to_reach(whole, 0 * start, 20.0, 0.1, 0.07)


def test_cavities_are_picked_up_unless_tumour_lies_in_them():
    before = visit(0, ball((6, 7, 3), 5))
    cavity = ball((6, 7, 3), 6).astype(np.uint8)
    after = visit(1, ball((12, 12, 3), 4), cavity=cavity)
    patient = Patient("sub-01", (before, after))
    crop = crop_around(patient.visits, 4.0)
    model = model_for(patient, crop)
    np.testing.assert_array_equal(model.cavity, cavity[crop.slices] > 0)
    wrong = Patient("sub-01", (before, visit(1, ball((7, 7, 3), 5), cavity=cavity)))
    with pytest.raises(InputError, match="resection cavity"):
        model_for(wrong, crop)


def test_a_dose_in_centigray_is_an_error():
    dose = np.full(SHAPE, 6000.0)
    patient = Patient("sub-01", (visit(0, ball((6, 7, 3), 5), dose_gy=dose),))
    with pytest.raises(InputError, match="cGy"):
        model_for(patient, crop_around(patient.visits, 4.0))


def test_fibres_are_picked_up_from_a_tensor_map():
    tensor = np.tile(np.array([1.5, 0.6, 0.5, 0.1, 0.0, 0.0]) * 1e-3, (*SHAPE, 1))
    patient = Patient("sub-01", (visit(0, ball((6, 7, 3), 5), tensor_mm2_per_s=tensor),))
    model = model_for(patient, crop_around(patient.visits, 4.0))
    assert model.tensor is not None
    assert model.stiffness == pytest.approx(1.0, rel=0.5)
