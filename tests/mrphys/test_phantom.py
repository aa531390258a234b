import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError, phantom
from mrphys.tissue import literature
from tests.laws import check_gradient, order_of_convergence


@pytest.fixture(scope="module")
def brains():
    return {spacing: phantom.brain(spacing) for spacing in (1, 2, 4)}


@pytest.mark.parametrize("spacing", [1, 2, 4])
def test_fractions_fill_the_brain(brains, spacing):
    head = brains[spacing]
    total = sum(head.fractions.values())
    np.testing.assert_allclose(total, head.brain.data, atol=1e-6)
    for fraction in head.fractions.values():
        assert fraction.min() >= -1e-6 and fraction.max() <= 1 + 1e-6
    assert head.brain.spacing_mm == (spacing,) * 3
    assert head.brain.orientation == "RAS"
    assert set(np.unique(brains[1].brain.data)) == {0, 1}


def test_volumes_are_those_of_an_adult_brain(brains):
    """The template is some 20 % larger than most brains (Lancaster 2007, 10.1002/hbm.20345)."""
    head = brains[1]
    litres = {name: fraction.sum() / 1e6 for name, fraction in head.fractions.items()}
    assert 1.2 < litres["white_matter"] + litres["grey_matter"] < 1.8
    assert 0.5 < litres["white_matter"] / litres["grey_matter"] < 1.0
    assert 0.1 < litres["csf"] < 0.4


def test_left_and_right_are_alike(brains):
    head = brains[1]
    x_mm = head.brain.affine[0, 3] + np.arange(head.brain.shape[0])
    for fraction in head.fractions.values():
        left, right = (fraction[side].sum() for side in (x_mm < 0, x_mm > 0))
        np.testing.assert_allclose(left, right, rtol=0.02)


@pytest.mark.parametrize("size", [2, 4])
def test_coarse_voxels_are_means_of_fine_voxels_in_the_same_place(brains, size):
    """Each fine voxel is put, by its position in millimetres, into the coarse voxel around it."""
    fine, coarse = brains[1], brains[size]
    index = np.stack(np.nonzero(fine.brain.data), -1)[::97]
    position = index @ fine.brain.affine[:3, :3].T + fine.brain.affine[:3, 3]
    inside = (position - coarse.brain.affine[:3, 3]) / size
    target = np.unique(np.rint(inside).astype(int), axis=0)
    assert (np.abs(inside - np.rint(inside)) < 0.5).all()
    for name in ("white_matter", "grey_matter", "csf", "brain", "t1w"):
        data, blocks = getattr(fine, name).data, getattr(coarse, name).data
        for i, j, k in target[:: max(1, len(target) // 200)] * size:
            block = data[i : i + size, j : j + size, k : k + size].astype(np.float64)
            value = blocks[i // size, j // size, k // size]
            np.testing.assert_allclose(block.mean(), value, atol=1e-6)
        np.testing.assert_allclose(blocks.sum() * size**3, data.sum(dtype=np.float64), rtol=1e-4)


def test_anatomy_is_where_it_should_be(brains):
    """White matter of the right corona radiata, cortex, and the field of view's brain edges."""
    head = brains[2]
    to_index = np.linalg.inv(head.brain.affine)

    def at(volume, *mm):
        i, j, k = np.rint((to_index @ [*mm, 1])[:3]).astype(int)
        return volume.data[i, j, k]

    assert at(head.white_matter, 28, -10, 30) > 0.9
    assert at(head.grey_matter, 2, -75, 10) > 0.5  # calcarine cortex
    assert at(head.brain, 70, 60, 60) == 0


def test_brain_at_other_spacings_is_refused():
    with pytest.raises(InputError, match="1, 2 or 4 mm"):
        phantom.brain(3.0)


def test_brain_as_tissue(brains):
    head = brains[4]
    q = head.tissue(3.0)
    assert q.voxel_shape == head.brain.shape
    outside = head.brain.data == 0
    assert (np.asarray(q.m0)[outside] == 0).all()
    white = np.asarray(head.white_matter.data) > 0.999
    pure = literature("white_matter")
    np.testing.assert_allclose(np.asarray(q.t1_s)[white], pure.t1_s, rtol=2e-3)


@pytest.mark.core
@pytest.mark.parametrize("spacing", [1.0, (1.0, 1.0, 2.0)])
def test_sphere_has_its_volume(spacing):
    i, j, k = (int(48 / h) for h in np.broadcast_to(spacing, 3))
    ball = phantom.sphere((i, j, k), spacing, 15.3, centre_mm=(1.2, -0.7, 2.1))
    volume = float(ball.data.sum()) * ball.voxel_volume_mm3
    np.testing.assert_allclose(volume, 4 / 3 * np.pi * 15.3**3, rtol=5e-3)


def test_sphere_converges_to_second_order():
    steps, errors = [4.0, 2.0, 1.0, 0.5], []
    for h in steps:
        n = int(40 / h)
        ball = phantom.sphere((n, n, n), h, 14.7)
        errors.append(abs(float(ball.data.sum()) * h**3 / (4 / 3 * np.pi * 14.7**3) - 1))
    assert order_of_convergence(errors, steps) > 1.7


def test_sphere_volume_grows_by_its_surface():
    def volume(radius_mm):
        return phantom.sphere((60, 60, 60), 0.5, radius_mm).data.sum() * 0.5**3

    radius = 10.3
    np.testing.assert_allclose(jax.grad(volume)(radius), 4 * np.pi * radius**2, rtol=0.02)


@pytest.mark.core
def test_lesion_takes_its_share(rtol):
    fractions = {"white_matter": np.array([1.0, 0.5, 0.0]), "csf": np.array([0.0, 0.3, 0.0])}
    mixed = phantom.with_lesion(fractions, "glioma", np.array([0.25, 1.0, 0.5]))
    np.testing.assert_allclose(mixed["glioma"], [0.25, 0.8, 0], rtol=1e-6)
    np.testing.assert_allclose(sum(mixed.values()), [1, 0.8, 0], rtol=1e-6)
    again = phantom.with_lesion(mixed, "glioma", np.array([1.0, 1.0, 1.0]))
    np.testing.assert_allclose(again["glioma"], [1, 0.8, 0], rtol=1e-6)


@pytest.mark.core
def test_mixture_of_two_tissues(rtol):
    white, csf = literature("white_matter"), literature("csf")
    q = phantom.tissue_from_fractions({"white_matter": np.array([0.6]), "csf": np.array([0.2])})
    np.testing.assert_allclose(q.m0, 0.6 * white.m0 + 0.2 * csf.m0, rtol=1e-6)
    np.testing.assert_allclose(1 / q.t1_s, 0.75 / white.t1_s + 0.25 / csf.t1_s, rtol=1e-6)
    expected = 0.75 * white.adc_mm2_per_s + 0.25 * csf.adc_mm2_per_s
    np.testing.assert_allclose(q.adc_mm2_per_s, expected, rtol=1e-6)


def test_mixture_gradient_also_where_there_is_nothing():
    def f(fractions):
        q = phantom.tissue_from_fractions(fractions)
        return q.m0, q.t1_s, q.t2_s, q.adc_mm2_per_s

    check_gradient(f, {"white_matter": jnp.array([0.3, 0.9]), "csf": jnp.array([0.2, 0.05])})
    nothing = {"white_matter": jnp.zeros(1), "csf": jnp.zeros(1)}
    gradient = jax.grad(lambda fractions: sum(part.sum() for part in f(fractions)))(nothing)
    assert all(np.isfinite(part).all() for part in gradient.values())


def test_impossible_mixtures_are_refused():
    with pytest.raises(InputError, match="overlap"):
        phantom.tissue_from_fractions({"white_matter": np.array([0.8]), "csf": np.array([0.8])})
    with pytest.raises(InputError, match="per cent"):
        phantom.tissue_from_fractions({"white_matter": np.array([80.0])})
    with pytest.raises(InputError, match="0 to 1"):
        phantom.with_lesion({"csf": np.ones(1)}, "glioma", np.array([1.5]))
