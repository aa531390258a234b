"""Lesions that are there, half there, gone and made up; sds that know and do not know errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import norm

from learn import reconstruction as lr
from mrphys import InputError
from mrphys.encoding import Encoding

RNG = np.random.default_rng(0)
SIZE, RADIUS, CONTRAST = 48, 1.5, 0.6
FAR = np.hypot(*np.meshgrid(*[np.arange(SIZE) - 24.0] * 2, indexing="ij"))
HEAD = jnp.asarray((FAR < 21) * np.exp(0.5j + 0.01j * FAR))
LESIONS = lr.draw_lesions(HEAD, jax.random.key(0), count=3, radius=RADIUS, contrast=CONTRAST)
WITH = jax.jit(lr.insert_lesions)(HEAD, LESIONS)


@jax.jit
def made_up(found, truth=HEAD):
    return lr.invented(found, truth, LESIONS)


def test_lesions_lie_apart_in_tissue_and_change_what_is_there_by_their_contrast():
    at = np.asarray(LESIONS.at)
    assert np.all(FAR[tuple(at.T)] < 21 - RADIUS - 4)
    apart = np.linalg.norm(at[:, None] - at[None], axis=-1)[np.triu_indices(3, 1)]
    assert apart.min() > 2 * (RADIUS + 4)
    ratio = np.abs(WITH[tuple(at.T)] / HEAD[tuple(at.T)])
    np.testing.assert_allclose(ratio, 1 + CONTRAST, rtol=0.01)
    elsewhere = np.linalg.norm(np.argwhere(FAR < 21)[:, None] - at[None], axis=-1).min(1) > 4
    inside = np.argwhere(FAR < 21)[elsewhere]
    np.testing.assert_allclose(WITH[tuple(inside.T)], HEAD[tuple(inside.T)], rtol=1e-3)


def test_a_void_is_dark_and_its_rim_bright():
    void = lr.Lesions(jnp.array([[24, 24]]), 4.0, -1.0, 0.5)
    made = np.abs(lr.insert_lesions(HEAD, void))
    assert made[24, 24] < 1e-3 and made[24, 28:31].max() > 1.2
    np.testing.assert_allclose(made[24, 36], 1, rtol=1e-3)


def test_what_is_recovered_is_1_of_the_truth_0_without_and_between_what_is_mixed():
    """Where what was there is uneven too."""
    uneven = HEAD * (1 + 0.2 * np.cos(FAR))
    truth = lr.insert_lesions(uneven, LESIONS)
    told = jax.jit(lambda found: lr.recovered(found, truth, uneven, LESIONS))
    np.testing.assert_allclose(told(truth), 1, rtol=1e-9)
    np.testing.assert_allclose(told(uneven), 0, atol=1e-9)
    np.testing.assert_allclose(told(0.7 * truth + 0.3 * uneven), 0.7, rtol=1e-9)
    np.testing.assert_allclose(told(1j * truth), 1, rtol=1e-9)


def test_lesions_made_up_are_counted_and_those_that_are_true_are_not():
    """Half of one is none, more than half is; on a truth that has them they are not made up; of
    the other sign, or outside of tissue, they are something else."""
    assert made_up(HEAD) == 0 and made_up(WITH) == 3 and made_up(WITH, WITH) == 0
    assert made_up(0.4 * WITH + 0.6 * HEAD) == 0 and made_up(0.6 * WITH + 0.4 * HEAD) == 3
    dark = lr.insert_lesions(HEAD, LESIONS._replace(contrast=-CONTRAST))
    assert made_up(dark) == 0
    assert made_up(HEAD.at[1:4, 1:4].set(5.0)) == 0


def test_images_without_room_get_lesions_all_the_same():
    narrow = jnp.zeros((32, 32), complex).at[:, 14:18].set(1.0)
    at = np.asarray(lr.draw_lesions(narrow, jax.random.key(1), count=2).at)
    assert at.shape == (2, 2) and np.all((at >= 0) & (at < 32))


def test_replicas_of_the_whole_spectrum_have_the_noise_of_their_data():
    A = Encoding.cartesian(np.ones((16, 16), bool))
    y = A(HEAD[:16, :16])
    found = lr.replicas(lambda A, y: A.H(y), A, y, 0.1, jax.random.key(0), count=64)
    # each real part as that of a sample: the transform is unitary
    assert float(jnp.sqrt(jnp.mean(found.sd**2))) == pytest.approx(0.1 * np.sqrt(2), rel=0.02)


def test_an_sd_flags_errors_as_two_normal_populations_are_told_apart():
    """AUROC of shifts d between normal populations is Φ(d / √2); ½ of an sd alike everywhere."""
    bad = np.zeros(40000, bool)
    bad[:4000] = True
    error = np.where(bad, 2.0, RNG.uniform(0, 1, bad.size))
    sd = RNG.normal(size=bad.size) + 0.8 * bad
    everywhere = np.ones(bad.size, bool)
    expected = norm.cdf(0.8 / np.sqrt(2))
    assert lr.flags_errors(sd, error, everywhere) == pytest.approx(expected, abs=0.01)
    assert lr.flags_errors(np.ones(bad.size), error, everywhere) == pytest.approx(0.5)
    assert lr.flags_errors(error, error, everywhere) == 1


def test_bad_input_is_said():
    with pytest.raises(InputError, match="contrast"):
        lr.draw_lesions(HEAD, jax.random.key(0), contrast=0.0)
    with pytest.raises(InputError, match="radius"):
        lr.draw_lesions(HEAD, jax.random.key(0), radius=30.0)
    with pytest.raises(InputError, match="worst"):
        lr.flags_errors(np.ones(9), np.ones(9), np.ones(9, bool))
