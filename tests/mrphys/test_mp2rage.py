import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import steady_state
from mrphys.errors import InputError
from mrphys.mapping import AT_BOUNDARY, CONVERGED, FAILED, MASKED
from mrphys.mp2rage import fit_images, fit_uni, two_trains, uni, uni_sd
from mrphys.tissue import Tissue
from tests.laws import check_gradient

TI, FLIP, SPACING, TR = (0.8, 2.7), np.deg2rad([4.0, 5.0]), 0.007, 5.0
T1 = np.geomspace(0.3, 3.5, 40)
THETA = two_trains(TI, FLIP, SPACING, (60, 60), TR)
fitted = eqx.filter_jit(fit_images)
fitted_uni = eqx.filter_jit(fit_uni)


@eqx.filter_jit
def images(theta, t1, b1):
    return jax.vmap(lambda t1, b1: theta(Tissue(t1_s=t1, t2_s=0.1, m0=300.0, b1=b1)))(t1, b1)


def test_closed_form_and_simulation_have_the_t1_they_were_made_with():
    """By the closed form of trains of 120, and by pulses one after the other."""
    b1, inversion = 0.85, np.arccos(-0.96)
    x = steady_state.mp2rage(
        jnp.asarray(TI)[:, None], jnp.asarray(b1 * FLIP)[:, None], SPACING, 120, 0.0, TR, T1,
        inversion_rad=inversion,
    )  # fmt: skip
    found = fitted(THETA, x, 1e-6, b1)
    assert (found.status == CONVERGED).all()
    np.testing.assert_allclose(found.value.t1_s, T1, rtol=1e-6)
    np.testing.assert_allclose(found.residual, 0.0, atol=1e-12)
    short = two_trains((0.5, 1.5), FLIP, 0.01, (2, 2), 3.0, inversion=1.0)
    train = mr.sequence.mp2rage([0.5, 1.5], FLIP, 0.01, 4, 3.0)
    x = mr.simulate(train, Tissue(t1_s=T1[:20], t2_s=0.05))[:, [2, 6]]
    np.testing.assert_allclose(fitted(short, x, 1e-6, 1.0).value.t1_s, T1[:20], rtol=1e-6)


def test_scores_are_calibrated_and_a_map_of_b1_is_used():
    count = 4000
    t1, b1 = np.linspace(0.6, 2.2, count), np.linspace(0.8, 1.15, count)
    x = images(THETA, jnp.asarray(t1), jnp.asarray(b1))
    sd = 0.3  # SNR of the first image 0 to 30, of the second 40
    noise = sd * np.random.default_rng(0).normal(size=(2, *x.shape))
    y = x * np.exp(0.7j) + noise[0] + 1j * noise[1]
    found = fitted(THETA, y, sd, jnp.asarray(b1))
    good = np.asarray(found.status == CONVERGED)
    assert good.mean() > 0.999
    z = ((found.value.t1_s - t1) / found.sd.t1_s)[good]
    assert abs(z.mean()) < 0.06 and 0.95 < z.std() < 1.05
    assert np.sqrt(np.mean(found.residual**2)) == pytest.approx(sd, rel=0.05)
    np.testing.assert_array_equal(fitted_uni(THETA, uni(y), 0.01, b1).value.t1_s, found.value.t1_s)


@pytest.mark.parametrize("pair", [(3.0, 3.0), (2.0, -5.0), (0.0, 4.0)])
def test_the_noise_of_the_combination(pair):
    x = np.array(pair) + 0j
    noise = 0.1 * np.random.default_rng(1).normal(size=(2, 20000, 2))
    s = uni(jnp.asarray(x * 1j + noise[0] + 1j * noise[1]))
    assert s.std() == pytest.approx(float(uni_sd(jnp.asarray(x), 0.1)), rel=0.03)


def test_what_has_no_t1_says_so():
    s = jnp.array([0.2, np.nan, -0.5, 0.4999, 0.1, 0.0])
    mask = np.array([1, 1, 1, 1, 1, 0], bool)
    b1 = jnp.array([1.0, 1, 1, 1, 0, 1])
    found = fitted_uni(THETA, s, 0.01, b1, mask)
    np.testing.assert_array_equal(
        found.status, [CONVERGED, FAILED, AT_BOUNDARY, AT_BOUNDARY, FAILED, MASKED]
    )
    assert found.value.t1_s[2] > 3.5 and found.value.t1_s[3] < 0.4
    assert np.isinf(found.sd.t1_s[1:]).all()
    empty = fitted(THETA, jnp.zeros((T1.size, 2), complex), 1e-6, 0.85)
    assert (empty.status == FAILED).all()


def test_gradients():
    def t1(p):
        s, b1, flip = p
        theta = eqx.tree_at(lambda t: t.flip_rad, THETA, flip)
        return fitted_uni(theta, s, 0.01, b1).value.t1_s

    check_gradient(t1, (jnp.array([0.3, -0.2]), jnp.array([0.9, 1.1]), jnp.asarray(FLIP)))


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda: two_trains((800, 2700), FLIP, SPACING, (60, 60), TR), "millisecond"),
        (lambda: two_trains(TI, (4, 5), SPACING, (60, 60), TR), "degrees"),
        (lambda: two_trains(TI, FLIP, SPACING, (200, 200), TR), "room for both"),
        (lambda: two_trains((0.8,), FLIP, SPACING, (60, 60), TR), "one number for each image"),
        (lambda: fit_uni(THETA, jnp.array([2000.0]), 0.1), "4095"),
        (lambda: fit_uni(THETA, jnp.array([0.0]), 0.0), "s_sd"),
    ],
)
def test_bad_input(call, says):
    with pytest.raises(InputError, match=says):
        call()
