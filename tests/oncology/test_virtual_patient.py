"""The virtual patient's truth, and what a scanner makes of it."""

import jax
import numpy as np
import pytest

import mrphys as mr
from oncology import virtual_patient as virtual


@pytest.fixture(scope="module")
def grown():
    return virtual.grow((0.0, 20.0), (), half_width_mm=24.0)


def test_truth_and_anatomy_share_one_space(grown):
    centre = np.linalg.inv(grown.t1w.affine) @ [*virtual.SEED_MM, 1.0]
    index = tuple(centre[:3].round().astype(int))
    assert grown.cellularity[0].shape == grown.t1w.shape
    assert grown.white_matter.data[index] > 0.9
    densest = np.unravel_index(grown.cellularity[0].argmax(), grown.t1w.shape)
    assert np.linalg.norm(np.subtract(densest, index)) < 4


def test_the_tumour_grows_faster_in_white_matter(grown):
    first, second = grown.cellularity
    assert second.sum() > first.sum()
    white = np.asarray(grown.white_matter.data) > 0.8
    grey = np.asarray(grown.grey_matter.data) > 0.8
    rim = (first > 0.01) & (first < 0.1)
    assert second[rim & white].mean() / first[rim & white].mean() > 1
    assert first[white].mean() > first[grey].mean()


def test_scanned_cellularity_errs_as_its_standard_deviation_says(grown):
    patient = virtual.scanned_patient(grown, virtual.default_acquisition(), jax.random.key(0))
    visit, mask = patient.visits[1], grown.visible(1)
    assert visit.adc_mm2_per_s is not None and visit.adc_sd_mm2_per_s is not None
    span = virtual.SCALE.adc_w_mm2_per_s - virtual.SCALE.adc_min_mm2_per_s
    adc = np.asarray(visit.adc_mm2_per_s.data)[mask]
    true = virtual.SCALE.adc_w_mm2_per_s - span * grown.cellularity[1][mask]
    pull = (adc - true) / np.asarray(visit.adc_sd_mm2_per_s.data)[mask]
    assert abs(pull.mean()) < 4 / np.sqrt(mask.sum())
    assert pull.std() == pytest.approx(1.0, abs=0.1)


def test_tissue_outside_the_lesion_is_healthy(grown):
    q = grown.tissue[1]
    white = (np.asarray(grown.white_matter.data) > 0.99) & ~grown.visible(1)
    assert np.median(np.asarray(q.adc_mm2_per_s)[white]) == pytest.approx(
        float(mr.tissue.literature("white_matter").adc_mm2_per_s), rel=0.05
    )


def test_sixty_gray_in_thirty_fractions():
    course = virtual.radiotherapy()
    assert len(course) == 30
    assert sum(fraction.dose for fraction in course) == 60.0
