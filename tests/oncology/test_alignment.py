"""Rigid alignment against motions that were made, on a real brain's anatomy."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from mrphys import phantom
from mrphys.errors import InputError
from mrphys.volume import Volume
from oncology.alignment import RigidMotion, align, correlation, no_motion
from tests.laws import check_gradient

SPACING_MM = (3.0, 3.0, 5.0)


def motion_of(degrees, shift_mm, about: Volume) -> RigidMotion:
    still = no_motion(about)
    turn, shift = jnp.asarray(np.deg2rad(degrees)), jnp.asarray(shift_mm)
    return replace(still, rotation_rad=turn, translation_mm=shift)


def apart(a: RigidMotion, b: RigidMotion) -> tuple[float, float]:
    """Degrees between two motions, and mm at their centre."""
    turns = [Rotation.from_rotvec(np.array(m.rotation_rad)) for m in (a, b)]
    centre = jnp.append(a.centre_mm, 1.0)
    shift = (a.matrix @ centre - b.matrix @ centre)[:3]
    turned = np.rad2deg((turns[0] * turns[1].inv()).magnitude())
    return float(turned), float(np.linalg.norm(shift))


@pytest.fixture(scope="module")
def anatomy() -> Volume:
    return phantom.brain(2).t1w


@pytest.fixture(scope="module")
def fixed(anatomy) -> Volume:
    return anatomy.resample_spacing(SPACING_MM)


def scanned_again(anatomy: Volume, fixed: Volume, motion: RigidMotion) -> Volume:
    """The finer anatomy as a patient who moved by `motion` shows it, on other voxels."""
    grid = fixed.resample_spacing((2.5, 3.5, 4.0))
    return motion.inverse.apply(anatomy, grid)


@pytest.mark.core
def test_matrix_is_the_rotation_of_scipy(rtol):
    motion = RigidMotion(jnp.array([0.3, -1.1, 0.7]), jnp.array([1.0, 2.0, 3.0]), jnp.ones(3))
    expected = Rotation.from_rotvec([0.3, -1.1, 0.7]).as_matrix()
    np.testing.assert_allclose(motion.rotation, expected, atol=rtol(1e-14, 1e-6))
    np.testing.assert_allclose((motion.matrix @ jnp.ones(4))[:3], [2.0, 3.0, 4.0], rtol=1e-6)
    both = motion.matrix @ motion.inverse.matrix
    np.testing.assert_allclose(both, np.eye(4), atol=rtol(1e-14, 1e-6))


def test_matrix_through_no_rotation():
    """Series and closed form meet, and derivatives exist at zero: dR/dr = [e]×."""
    for angle in (0.0, 0.009, 0.011):
        turn = jnp.array([0.0, angle, 0.0])
        expected = Rotation.from_rotvec(np.array(turn)).as_matrix()
        still = RigidMotion(turn, jnp.zeros(3), jnp.zeros(3))
        np.testing.assert_allclose(still.rotation, expected, atol=1e-15)
    zero = jnp.zeros(3)
    check_gradient(lambda r: RigidMotion(r, zero, zero).rotation, zero, scale=1.0)


@pytest.mark.parametrize(
    ("degrees", "shift_mm"),
    [
        ((0.0, 0.0, 0.0), (0.4, -0.3, 0.9)),
        ((2.0, -3.0, 5.0), (3.3, -5.1, 4.2)),
        ((-8.0, 6.0, -4.0), (-9.0, 6.0, 10.0)),
    ],
)
def test_known_motions_are_recovered(anatomy, fixed, degrees, shift_mm):
    """With noise of 3 % of the brightest, another gain and an offset, and other voxels."""
    truth = motion_of(degrees, shift_mm, fixed)
    moving = scanned_again(anatomy, fixed, truth)
    noise = np.random.default_rng(0).normal(0, 0.03, (2, *np.maximum(fixed.shape, moving.shape)))
    crops = [tuple(slice(n) for n in image.shape) for image in (fixed, moving)]
    noisy = fixed.with_data(np.asarray(fixed.data) + noise[0][crops[0]])
    dimmer = moving.with_data(0.4 * np.asarray(moving.data) + 7 + 0.4 * noise[1][crops[1]])
    turned, moved = apart(align(noisy, dimmer), truth)
    assert turned < 0.3
    assert moved < 0.3


def test_an_image_is_aligned_with_itself(fixed):
    turned, moved = apart(align(fixed, fixed), no_motion(fixed))
    assert turned < 1e-6
    assert moved < 1e-6
    assert float(correlation(no_motion(fixed), fixed, fixed)) == pytest.approx(1)


def test_forth_and_back_is_no_motion(anatomy, fixed):
    truth = motion_of((4.0, -2.0, 3.0), (2.0, 4.0, -3.0), fixed)
    moving = scanned_again(anatomy, fixed, truth)
    turned, moved = apart(align(fixed, moving), align(moving, fixed).inverse)
    assert turned < 0.1
    assert moved < 0.3


def test_apply_moves_an_image_where_it_lay(anatomy, fixed):
    truth = motion_of((3.0, 5.0, -6.0), (4.0, 0.0, -2.0), fixed)
    moving = scanned_again(anatomy, fixed, truth)
    before = correlation(no_motion(fixed), fixed, moving)
    back = truth.apply(moving, fixed)
    after = float(correlation(no_motion(fixed), fixed, back))
    assert after > 0.98 > 0.92 > before
    assert float(correlation(truth, fixed, moving)) == pytest.approx(after, abs=0.005)
    labels = moving.with_data((np.asarray(moving.data) > 0.5).astype(np.uint8))
    assert set(np.unique(truth.apply(labels, fixed, "nearest").data)) == {0, 1}


def test_empty_slices_do_not_count(anatomy, fixed):
    """Padding at the top of one image is not taken for the end of the head."""
    truth = motion_of((0.0, 3.0, 2.0), (2.0, -3.0, 4.0), fixed)
    moving = scanned_again(anatomy, fixed, truth)
    cut = np.asarray(moving.data).copy()
    cut[:, :, -12:] = 0
    turned, moved = apart(align(fixed, moving.with_data(cut)), truth)
    assert turned < 0.3
    assert moved < 0.3


def test_gradient_of_the_correlation():
    """On smooth images, away from the kinks of linear interpolation."""
    places = np.moveaxis(np.indices((9, 8, 7)), 0, -1) * 2.0
    smooth = np.exp(-(((places - [7.0, 6.5, 5.5]) / [6.0, 4.0, 5.0]) ** 2).sum(-1))
    affine = np.diag([2.0, 2.0, 2.0, 1.0])
    fixed = Volume(smooth, affine)
    moving = Volume(np.roll(smooth, 1, axis=0) + 0.1 * places[..., 1], affine)

    def agreement(step):
        return correlation(RigidMotion(step[:3], step[3:], jnp.ones(3)), fixed, moving)

    at = jnp.array([0.03, -0.02, 0.05, 0.31, -0.43, 0.57])
    check_gradient(agreement, at, scale=1e-3, rtol=1e-5)


def test_images_that_do_not_overlap_are_refused(fixed):
    affine = fixed.affine
    affine[2, 3] += 500
    with pytest.raises(InputError, match=r"0% of the smaller.*wrong origin"):
        align(fixed, Volume(fixed.data, affine))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 8, 2)])
def test_images_of_other_shapes_are_refused(fixed, shape):
    with pytest.raises(InputError, match="the moving image: found shape"):
        align(fixed, Volume(np.random.default_rng(0).random(shape), np.eye(4)))


def test_an_empty_image_is_refused(fixed):
    with pytest.raises(InputError, match="the fixed image: found one value everywhere"):
        align(fixed.with_data(np.zeros(fixed.shape)), fixed)
