"""Labels, enhancement and uptake of known states."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.appearance import (
    ENHANCING,
    LABELS,
    NECROTIC,
    OEDEMA,
    LabelledMask,
    Tracer,
    draw_labels,
    label_probabilities,
    transfer_per_min,
)
from oncology.observe import ENHANCING_THRESHOLD, FLAIR_THRESHOLD, front
from tests.laws import check_gradient

SPACING_MM = (1.0, 1.5, 1.0)
P = {"diffusivity_mm2_per_day": 0.03, "growth_rate_per_day": 0.03}


@pytest.mark.core
def test_labels_follow_thresholds_and_add_up():
    cells = jnp.array([0.0, 0.5, 0.95, 0.2])
    dead = jnp.array([0.0, 0.0, 0.0, 0.75])
    found = label_probabilities(cells, dead)
    np.testing.assert_allclose(found.sum(0), 1.0, rtol=1e-6)
    np.testing.assert_array_equal(LABELS[found.argmax(0)], [0, OEDEMA, ENHANCING, NECROTIC])
    edge = label_probabilities(jnp.asarray(FLAIR_THRESHOLD))
    assert float(edge[0]) == pytest.approx(0.5)


def test_drawn_labels_have_their_probabilities():
    found = label_probabilities(jnp.full(4000, FLAIR_THRESHOLD))
    drawn = draw_labels(found, jax.random.key(0))
    assert float(jnp.mean(drawn == OEDEMA)) == pytest.approx(0.5, abs=0.03)


def labelled():
    """A travelling front's own labels."""
    x = np.moveaxis(np.indices((40, 30, 1)), 0, -1) * SPACING_MM
    distance = np.linalg.norm(x - x.mean((0, 1, 2)), axis=-1) - 10.0
    u = front(jnp.asarray(distance), FLAIR_THRESHOLD, 1.0)
    labels = np.where(u > ENHANCING_THRESHOLD, ENHANCING, np.where(u > FLAIR_THRESHOLD, OEDEMA, 0))
    labels[18:22, 14:16] = NECROTIC
    return u, LabelledMask(labels, np.ones(labels.shape, bool), SPACING_MM)


def test_a_state_explains_its_own_labels_and_growth_does_not():
    u, seen = labelled()
    np.testing.assert_allclose(seen.residual(u), 0.0, atol=1.0)
    assert float(seen.residual(u**0.5)[0]) > 1
    assert seen.residual(u).shape == seen.noise_share.shape == (2,)
    whole, core = seen.volumes_mm3(u)
    assert float(whole) > float(core) > 0
    state = seen.state(P, jnp.zeros(()))
    assert float(jnp.mean((state > FLAIR_THRESHOLD) == seen.mask)) > 0.98
    check_gradient(lambda s: seen.residual(u * s), jnp.asarray(0.97), rtol=1e-5)


def test_labels_of_another_convention_are_an_error():
    labels = np.full((3, 3, 1), 3)
    with pytest.raises(InputError, match="another convention"):
        LabelledMask(labels, np.ones((3, 3, 1), bool), SPACING_MM)


@pytest.mark.core
def test_uptake_is_blurred_conserved_and_noisy(rtol):
    """A point becomes a Gaussian of the stated width; the total stays; noise has its sd."""
    shape = (31, 25, 1)
    tracer = Tracer(shape, SPACING_MM, fwhm_mm=6.0, contrast=2.0, noise_sd=0.1)
    flat = tracer.uptake(jnp.zeros(shape))
    np.testing.assert_allclose(flat, 1.0, rtol=rtol(1e-5, 1e-5))
    extra = np.asarray(tracer.uptake(jnp.zeros(shape).at[15, 12].set(1.0)) - flat, np.float64)
    assert extra.sum() == pytest.approx(2.0, rel=rtol(1e-9, 1e-4))
    x = (np.arange(31) - 15) * SPACING_MM[0]
    variance = np.einsum("xyz,x->", extra, x**2) / extra.sum()
    assert np.sqrt(variance * 8 * np.log(2)) == pytest.approx(6.0, rel=0.01)
    image = tracer.scan(jnp.full(shape, 0.5), jax.random.key(0))
    assert float(jnp.std(image)) == pytest.approx(0.1 * 2**0.5, rel=0.1)


def test_gradients_of_what_is_seen():
    u = jnp.linspace(0.0, 1.0, 12).reshape(4, 3, 1)
    tracer = Tracer(u.shape, SPACING_MM)
    check_gradient(
        lambda x: (tracer.sd(x), label_probabilities(x, x / 2), transfer_per_min(x, 0.01, 0.2)),
        u,
        scale=0.05,
        directions=4,
    )
