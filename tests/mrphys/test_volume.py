import itertools

import jax
import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from mrphys import InputError, Volume
from tests.laws import check_gradient, order_of_convergence

OBLIQUE = np.array(
    [[1.8, 0.3, -0.1, -9.0], [-0.2, 2.1, 0.4, 4.0], [0.1, -0.5, 3.2, -7.0], [0, 0, 0, 1.0]]
)


def centres_mm(volume: Volume) -> np.ndarray:
    """RAS+ position of every voxel centre, (x, y, z, 3)."""
    indices = np.stack(np.meshgrid(*map(np.arange, volume.shape), indexing="ij"), -1)
    return indices @ volume.affine[:3, :3].T + volume.affine[:3, 3][None, None, None]


def ramp(volume: Volume) -> np.ndarray:
    """A function linear in physical space, at the voxel centres."""
    return centres_mm(volume) @ np.array([0.7, -1.3, 0.4]) + 2.0


def grid(shape, affine, dtype=np.float64) -> Volume:
    return Volume(np.zeros(shape, dtype), affine)


def rotation_z(angle_rad: float) -> np.ndarray:
    affine = np.eye(4)
    c, s = np.cos(angle_rad), np.sin(angle_rad)
    affine[:2, :2] = [[c, -s], [s, c]]
    return affine


@pytest.mark.core
def test_trilinear_reproduces_linear_ramps_in_physical_space(dtype, rtol):
    source = grid((9, 8, 7), OBLIQUE)
    source = source.with_data(ramp(source).astype(dtype))
    inner = OBLIQUE @ rotation_z(0.4)
    inner[:3, :3] *= 0.45
    inner[:3, 3] = (OBLIQUE @ [4, 2, 2, 1])[:3]
    target = grid((5, 6, 4), inner)
    sampled = source.resample_to(target)
    assert sampled.data.dtype == dtype
    assert sampled.same_grid(target)
    np.testing.assert_allclose(sampled.data, ramp(target), rtol(1e-12, 1e-5), 1e-5)


def test_channels_are_resampled_alike():
    source = grid((6, 5, 4), OBLIQUE)
    channels = np.random.default_rng(0).normal(size=(6, 5, 4, 3))
    target = (OBLIQUE @ np.diag([0.6, 0.7, 0.8, 1]), (7, 6, 5))
    for method in ("linear", "nearest"):
        together = source.with_data(channels).resample_to(target, method).data
        for channel in range(3):
            alone = source.with_data(channels[..., channel]).resample_to(target, method).data
            np.testing.assert_allclose(together[..., channel], alone, 1e-14)


def test_a_slice_is_as_thick_as_its_spacing():
    one_slice = grid((5, 5, 1), np.diag([1.0, 1.0, 6.0, 1.0]))
    one_slice = one_slice.with_data(ramp(one_slice))
    finer = np.eye(4)
    finer[2, 3] = -4.5
    through = one_slice.resample_to((finer, (5, 5, 10)), fill=-1.0).data
    for position_mm, plane in zip(np.arange(-4.5, 5.5), np.moveaxis(through, 2, 0), strict=True):
        held = one_slice.data[..., 0] if abs(position_mm) <= 3 else np.full((5, 5), -1.0)
        np.testing.assert_allclose(plane, held, 1e-12, err_msg=f"{position_mm} mm")


def test_outside_the_field_of_view_is_fill():
    source = Volume(np.ones((3, 3, 3)), np.eye(4))
    moved = np.eye(4)
    moved[0, 3] = 2.0
    sampled = source.resample_to((moved, (3, 3, 3)), fill=np.nan)
    assert np.isfinite(sampled.data[0]).all() and np.isnan(sampled.data[1:]).all()


def test_quarter_turns_come_back_exactly():
    data = np.random.default_rng(1).normal(size=(5, 5, 3))
    source = Volume(data, np.eye(4))
    about_centre = np.eye(4)
    about_centre[:2, 3] = 2.0
    quarter = about_centre @ rotation_z(np.pi / 2) @ np.linalg.inv(about_centre)
    turned = source.resample_to((quarter, source.shape))
    np.testing.assert_allclose(turned.data, np.rot90(data, -1), atol=1e-12)
    np.testing.assert_allclose(turned.resample_to(source).data, data, atol=1e-12)


def test_rotation_round_trip_is_second_order():
    errors, spacings = [], (1.0, 0.5, 0.25)
    for spacing in spacings:
        n = int(24 / spacing) + 1
        affine = np.diag([spacing, spacing, spacing, 1.0])
        affine[:3, 3] = -12.0
        source = grid((n, n, 3), affine)
        blob = np.exp(-np.square(centres_mm(source)[..., :2]).sum(-1) / (2 * 3.0**2))
        source = source.with_data(blob)
        back = source.resample_to((rotation_z(0.5) @ affine, source.shape)).resample_to(source)
        errors.append(np.sqrt(np.mean(np.square(back.data - blob))))
    assert 1.8 < order_of_convergence(errors, spacings) < 2.2


def test_canonical_orientation_agrees_with_nibabel():
    data = np.random.default_rng(2).normal(size=(4, 3, 2))
    for order in itertools.permutations(range(3)):
        for signs in itertools.product((1.0, -1.0), repeat=3):
            affine = np.eye(4)
            affine[:3, :3] = OBLIQUE[:3, :3][:, list(order)] * np.array(signs)[None]
            affine[:3, 3] = [3.0, -5.0, 8.0]
            ours = Volume(data, affine).to_canonical()
            theirs = nib.as_closest_canonical(nib.Nifti1Image(data, affine))
            np.testing.assert_array_equal(ours.data, theirs.get_fdata())
            np.testing.assert_allclose(ours.affine, theirs.affine, rtol=1e-14)
            assert ours.orientation == "RAS"
            assert Volume(data, affine).orientation == "".join(nib.aff2axcodes(affine))


def test_canonical_orientation_moves_nothing_in_space():
    source = grid((4, 3, 2), OBLIQUE @ np.array(np.diag([-1.0, 1, -1, 1])[[2, 0, 1, 3]]))
    source = source.with_data(ramp(source))
    canonical = source.to_canonical()
    np.testing.assert_allclose(canonical.data, ramp(canonical), rtol=1e-13)


def test_resampling_is_differentiable_in_the_data():
    data = np.random.default_rng(3).normal(size=(4, 3, 1))
    target = (OBLIQUE @ np.diag([0.7, 0.8, 0.5, 1]), (5, 3, 2))
    check_gradient(lambda x: Volume(x, OBLIQUE).resample_to(target).data, data, directions=12)


def test_geometry_survives_jit():
    source = Volume(jnp.ones((3, 4, 5)), OBLIQUE)
    doubled = jax.jit(lambda v: v.with_data(2 * v.data).resample_spacing(v.spacing_mm))(source)
    np.testing.assert_allclose(doubled.data, 2.0, rtol=1e-12)
    assert doubled.same_grid(source)
    assert doubled.affine.dtype == np.float64


@pytest.mark.core
def test_nearest_keeps_labels_and_their_type():
    labels = np.array([0, 1, 2, 4], np.uint8)[np.random.default_rng(4).integers(0, 4, (4, 3, 2))]
    finer = Volume(labels, OBLIQUE).resample_spacing(
        tuple(np.array(Volume(labels, OBLIQUE).spacing_mm) / 3), "nearest"
    )
    repeated = labels.repeat(3, 0).repeat(3, 1).repeat(3, 2)
    assert finer.data.dtype == np.uint8
    np.testing.assert_array_equal(finer.data, repeated)


def test_nearest_is_the_closest_centre_and_halves_round_up():
    line = Volume(np.arange(4).reshape(4, 1, 1), np.eye(4))
    for position_mm, expected in [(-0.49, 0), (0.45, 0), (0.5, 1), (1.5, 2), (1.55, 2), (3.4, 3)]:
        there = np.eye(4)
        there[0, 3] = position_mm
        assert line.resample_to((there, (1, 1, 1)), "nearest").data.item() == expected


def test_half_resolution_is_the_mean_of_blocks():
    data = np.random.default_rng(5).normal(size=(6, 4, 8))
    coarse = Volume(data, np.diag([1.0, 2.0, 1.5, 1.0])).resample_spacing((2.0, 4.0, 3.0))
    blocks = data.reshape(3, 2, 2, 2, 4, 2).mean((1, 3, 5))
    np.testing.assert_allclose(coarse.data, blocks, rtol=1e-12)
    np.testing.assert_allclose(coarse.affine[:3, 3], [0.5, 1.0, 0.75])
    assert coarse.spacing_mm == (2.0, 4.0, 3.0)


def test_other_spacing_keeps_the_centre():
    source = grid((7, 5, 1), OBLIQUE)
    other = source.resample_spacing(1.3)
    middle = [volume.affine @ [*(np.array(volume.shape) - 1) / 2, 1] for volume in (source, other)]
    np.testing.assert_allclose(*middle, rtol=1e-12)
    np.testing.assert_allclose(other.spacing_mm, 1.3)


def test_cropping_keeps_physical_coordinates():
    source = grid((6, 5, 4), OBLIQUE)
    source = source.with_data(ramp(source))
    cropped = source.crop((slice(1, 4), slice(-3, None), slice(2, 3)))
    assert cropped.shape == (3, 3, 1)
    np.testing.assert_allclose(cropped.data, ramp(cropped), rtol=1e-13)
    np.testing.assert_allclose(source.resample_to(cropped).data, cropped.data, rtol=1e-12)


def test_same_grid_is_judged_at_the_corners():
    source = grid((100, 3, 3), np.eye(4))
    stretched = np.diag([1 + 2e-5, 1, 1, 1.0])
    assert source.same_grid(grid((100, 3, 3), stretched), tolerance_mm=2e-3)
    assert not source.same_grid(grid((100, 3, 3), stretched), tolerance_mm=1.9e-3)
    assert not source.same_grid(grid((100, 3, 4), np.eye(4)))


def test_spacing_and_volume_of_an_oblique_grid():
    volume = grid((2, 2, 2), rotation_z(0.3) @ np.diag([-1.0, 2.0, 3.0, 1.0]))
    np.testing.assert_allclose(volume.spacing_mm, (1, 2, 3))
    np.testing.assert_allclose(volume.voxel_volume_mm3, 6)


SINGULAR = np.diag([1.0, 1.0, 0.0, 1.0])
PROJECTIVE = np.eye(4) + np.eye(4, k=-3)


@pytest.mark.parametrize(
    ("shape", "affine", "words"),
    [
        ((3, 3), np.eye(4), "third axis"),
        ((3, 3, 3, 2, 2), np.eye(4), "channels"),
        ((3, 0, 3), np.eye(4), "non-empty"),
        ((3, 3, 3), np.eye(3), "4x4"),
        ((3, 3, 3), np.diag([1, np.nan, 1, 1]), "NaN"),
        ((3, 3, 3), SINGULAR, "singular"),
        ((3, 3, 3), PROJECTIVE, "last row"),
    ],
)
def test_what_is_no_volume_is_refused(shape, affine, words):
    with pytest.raises(InputError, match=words):
        grid(shape, affine)


def test_mismatched_requests_are_refused():
    volume = grid((3, 3, 3), np.eye(4))
    with pytest.raises(InputError, match="another image"):
        volume.with_data(np.zeros((3, 3, 2)))
    with pytest.raises(InputError, match="axis 1"):
        volume.crop((slice(None), slice(2, 2), slice(None)))
    with pytest.raises(InputError, match="axis 0"):
        volume.crop((slice(None, None, 2), slice(None), slice(None)))
    with pytest.raises(InputError, match="positive"):
        volume.resample_spacing(0.0)
