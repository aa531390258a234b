"""Targets of equal volume, and tissue told apart on one image."""

import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.margin import covered, densest, uniform_margin, voxels_to_cover
from oncology.observe import distance_mm
from oncology.tissue_classes import classify

SPACING = (2.0, 2.0, 2.0)
PLACE = np.stack(np.meshgrid(*[np.arange(15) - 7] * 3, indexing="ij"))
RADIUS = 2.0 * np.sqrt((PLACE**2).sum(0))
TUMOR, TISSUE = RADIUS <= 4.1, RADIUS <= 13


def test_even_tissue_has_the_densest_region_of_a_margin():
    target = uniform_margin(TUMOR, TISSUE, SPACING, 4.0)
    distance = distance_mm(TUMOR, SPACING)
    np.testing.assert_array_equal(target, TISSUE & (distance <= 4.0))
    found = densest(np.exp(-distance), TUMOR, TISSUE, int(target.sum()))
    np.testing.assert_array_equal(found, target)
    later = np.roll(TUMOR, 2, axis=0)
    assert covered(target, later) == pytest.approx((target & later).sum() / later.sum())
    assert covered(target, np.zeros_like(later)) == 1.0


def test_the_smallest_target_that_covers_is_that_of_counting():
    rng = np.random.default_rng(0)
    rank, later = rng.normal(size=TUMOR.shape), np.roll(TUMOR, 3, axis=1) & TISSUE
    for share in (0.3, 0.7, 1.0):
        count = voxels_to_cover(rank, TUMOR, later, TISSUE, share)
        assert covered(densest(rank, TUMOR, TISSUE, count), later) >= share - 1e-12
        if count > TUMOR.sum():
            assert covered(densest(rank, TUMOR, TISSUE, count - 1), later) < share
    with pytest.raises(InputError, match="voxels"):
        densest(rank, TUMOR, TISSUE, 1)


def head(contrast):
    """A slab of brain in fluid, fat around, ventricles inside; white matter brighter in spots."""
    shape, spacing = (80, 80, 4), (2.0, 2.0, 5.0)
    rng = np.random.default_rng(0)
    x, y = np.meshgrid(np.arange(80) - 40, np.arange(80) - 40, indexing="ij")
    radius = np.hypot(x, y)[..., None] * np.ones(4)
    white = ((x // 8 + y // 8) % 2 == 0)[..., None] & np.ones(4, bool)
    image = 1000 * (1 + contrast * (white - 0.5)) + 20 * rng.normal(size=shape)
    image = np.where(radius < 5, 300, image)
    image = np.where((radius > 28) & (radius < 31), 200, image)
    image = np.where((radius >= 31) & (radius < 34), rng.uniform(1500, 3500, shape), image)
    return np.where(radius >= 34, 0, image), radius, white, spacing


def test_brain_fluid_and_white_matter_of_a_made_head():
    image, radius, white, spacing = head(0.2)
    tumor = np.zeros(image.shape, bool)
    tumor[50:54, 50:54] = True
    found = classify(image, tumor, spacing)
    brain = radius <= 28
    assert (found.brain & brain).sum() > 0.97 * brain.sum()
    assert (found.brain & (radius > 31)).sum() == 0
    assert found.fluid[38:42, 38:42].mean() > 0.9
    assert found.d_prime > 2
    inside = brain & (radius > 8) & ~tumor
    assert found.white_matter is not None
    right = (found.white_matter > 0.5) == white
    assert right[inside].mean() > 0.85
    share = found.relative_diffusivity()
    assert share[tumor].min() > 0 and share[radius < 3].max() == 0


def test_tissue_that_overlaps_is_said_not_to_be_told_apart():
    image, _, _, spacing = head(0.01)
    found = classify(image, np.zeros(image.shape, bool), spacing)
    assert found.white_matter is None and found.d_prime < 2
    np.testing.assert_array_equal(found.relative_diffusivity() > 0, found.parenchyma)
    with pytest.raises(InputError, match="one value"):
        classify(np.zeros(image.shape), np.zeros(image.shape, bool), spacing)
