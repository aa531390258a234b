"""What networks learn from: heads that are possible, scans that are as said."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from learn import reconstruction as lr
from learn.reconstruction.anatomy import NAMES, contrast, warp, with_lesions
from mrphys import InputError

KEYS = jax.random.split(jax.random.key(0), 6)


@pytest.fixture(scope="module")
def heads():
    return {role: lr.atlas(16, role) for role in ("train", "validation", "test")}


@pytest.fixture(scope="module")
def draw(heads):
    """Images, and spins of the same keys."""
    of = heads["train"]
    return jax.jit(jax.vmap(lambda key: (lr.draw_image(of, key), lr.draw_spins(of, key))))


@pytest.fixture(scope="module")
def drawn(draw):
    return draw(KEYS)[0]


def test_roles_share_no_slice(heads):
    flat = {
        role: np.asarray(of.fractions).reshape(len(of.fractions), -1) for role, of in heads.items()
    }
    assert len(flat["train"]) > 2 * len(flat["test"]) > 10
    for one, other in (("train", "test"), ("train", "validation"), ("validation", "test")):
        same = (flat[one][:, None] == flat[other][None]).all(-1)
        assert not same.any()


def test_images_are_of_one_size_differ_and_come_of_their_key(drawn, draw):
    np.testing.assert_allclose(np.mean(np.abs(drawn) ** 2, (1, 2)), 1, rtol=1e-6)
    flat = np.abs(np.asarray(drawn)).reshape(len(KEYS), -1)
    assert np.corrcoef(flat)[np.triu_indices(len(KEYS), 1)].max() < 0.98
    np.testing.assert_array_equal(draw(KEYS)[0], drawn)


def test_spins_are_those_of_the_image_of_their_key(draw):
    """An image is a sum of its tissues, by some signal each."""
    drawn, spins = draw(KEYS)
    for parts, x in zip(np.asarray(spins.parts), np.asarray(drawn), strict=True):
        basis, flat = parts.reshape(len(NAMES), -1).T, x.ravel()
        signals = np.linalg.lstsq(basis, flat, rcond=1e-8)[0]
        np.testing.assert_allclose(basis @ signals, flat, atol=1e-9)
        assert np.abs(signals.imag).max() < 1e-6
    assert np.all((spins.t2_s <= spins.t1_s) & (spins.t2_s > 0))


def test_warps_are_one_to_one():
    """The map's derivative keeps its sign everywhere, however strong; and a weak one is weaker."""
    strong = jax.jit(jax.vmap(lambda key: warp(48, key, strength=0.04)))
    for where in np.asarray(strong(KEYS)):
        (a, b), (c, d) = (np.gradient(part) for part in where)
        determinant = (a * d - b * c)[1:-1, 1:-1]
        assert determinant.min() * determinant.max() > 0


def test_lesions_replace_what_was_there():
    brain = {"white_matter": jnp.full((32, 32), 0.6), "grey_matter": jnp.full((32, 32), 0.3),
             "csf": jnp.full((32, 32), 0.1), "adipose": jnp.zeros((32, 32))}  # fmt: skip
    made = jax.jit(jax.vmap(partial(with_lesions, brain)))(KEYS)
    assert set(made) == set(NAMES)
    np.testing.assert_allclose(sum(made.values()), 1, rtol=1e-9)
    assert all(float(part.min()) >= 0 for part in made.values())
    assert float(made["glioma"].max()) > 0.5


def test_contrasts_are_of_all_kinds():
    """Fluid brightest in some, fat in others, and never negative."""
    signals = np.asarray(jax.jit(jax.vmap(contrast))(jax.random.split(jax.random.key(1), 200)))
    assert signals.min() >= 0 and signals.max() <= 1.2
    brightest = np.bincount(signals.argmax(1), minlength=len(NAMES)) / 200
    assert brightest[NAMES.index("csf")] > 0.05 and brightest[NAMES.index("adipose")] > 0.05


def test_a_scan_is_its_image_encoded_with_noise_of_the_sd_said(drawn):
    make = jax.jit(jax.vmap(partial(lr.draw_scan, accelerations=(2.0,), noise_sd=(0.1, 0.1))))
    scans = make(drawn, KEYS)
    residual = np.asarray(scans.y - jax.vmap(lambda A, x: A(x))(scans.A, scans.x))
    weight = np.asarray(jax.vmap(lambda A: jnp.broadcast_to(A.sampling.weight, (16, 16)))(scans.A))
    taken = np.broadcast_to(weight[:, None] > 0, residual.shape)
    assert np.all(residual[~taken] == 0)
    assert np.std(residual[taken].real) == pytest.approx(0.1, rel=0.05)
    assert np.all(weight.any(1).sum(1) == 8)
    np.testing.assert_allclose(np.sum(np.abs(scans.A.coils) ** 2, 1), 1, rtol=1e-6)


@pytest.mark.parametrize("seed", [1])
def test_coils_reach_points_outside_of_their_cylinder(seed):
    """Moved to within 0.9 of its radius, and no further out by rounding."""
    maps = lr.draw_coils(2, 8, jax.random.key(seed))
    np.testing.assert_allclose(np.sum(np.abs(maps) ** 2, 0), 1, rtol=1e-6)


def test_masks_keep_the_centre_and_are_denser_inside():
    masks = jax.vmap(lambda key: lr.line_mask(64, 4.0, key))(jax.random.split(KEYS[0], 500))
    often = np.asarray(masks).mean((0, 1))
    assert np.all(np.asarray(masks).sum((1, 2)) == 16)
    assert np.all(often[31:34] == 1)
    assert often[34:44].mean() > 2 * often[50:].mean() > 0


def test_patients_are_axial_slices_as_a_scanner_of_so_many_voxels_sees_them(shared_data):
    folder = shared_data / "glioblastoma_progression"
    if not folder.is_dir():
        pytest.skip("no patients here")
    found = lr.patient_images(folder, 32, jax.random.key(0))
    assert len(found) >= 2
    for images in found.values():
        assert images.shape == (3, 32, 32)
        np.testing.assert_allclose(np.mean(np.abs(images) ** 2, (1, 2)), 1, rtol=1e-5)
        assert float(jnp.mean(jnp.abs(images[:, 8:24, 8:24]))) > 0.7


def test_bad_input_is_said(tmp_path):
    with pytest.raises(InputError, match="patient"):
        lr.patient_images(tmp_path, 32, jax.random.key(0))
    with pytest.raises(InputError, match="accelerations"):
        lr.draw_scan(jnp.ones((8, 8), complex), KEYS[0], accelerations=(0.5,))
    with pytest.raises(InputError, match="size"):
        lr.atlas(8)
