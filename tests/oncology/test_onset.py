"""First cells to contours: against the stepper of `timeline`, closed forms, known truths."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.growth import ReactionDiffusion
from oncology.onset import DIFFUSIVITY, GROWTH_RATE, NAMES, log_odds, most_probable, onset
from oncology.priors import LogNormal
from oncology.radial import Ball, radius_mm, scales
from oncology.timeline import integrate, steps_between
from oncology.treatment import plan
from tests.laws import check_gradient

PRIORS = {
    "age_day": LogNormal(100.0, 0.3, "day"),
    DIFFUSIVITY: LogNormal(0.3, 0.5, "mm^2/day"),
    GROWTH_RATE: LogNormal(0.04, 0.4, "1/day"),
}
SPACING, SHAPE = (2.0, 2.0, 2.0), (24, 24, 1)
TRUTH = jnp.array([0.0, -0.5, 0.4, 0.25, -0.1, 0.0])
THRESHOLDS = (0.16, 0.8)


def masks_of(states):
    return [{c: np.asarray(u) > c for c in THRESHOLDS} for u in states]


def problem_of(masks):
    return onset(np.ones(SHAPE), SPACING, masks, (0.0, 40.0), PRIORS, readings=80)


@eqx.filter_jit
def states_of(problem, z):
    return problem.states(z)


@pytest.fixture(scope="module")
def small():
    """A plane of even tissue, its contours drawn from the truth without doubt."""
    disc = np.hypot(*np.mgrid[-11.5:12, -11.5:12])[..., None]
    begin = problem_of([{0.16: disc < 5, 0.8: disc < 3}] * 2)
    problem = problem_of(masks_of(states_of(begin, TRUTH)))
    return eqx.tree_at(lambda q: q.centre_mm, problem, begin.centre_mm)


def test_states_are_those_of_the_timeline(small):
    p = small.parameters(TRUTH)
    model = ReactionDiffusion(habitable=jnp.ones(SHAPE, bool), spacing_mm=SPACING)
    age = float(p["age_day"])
    fine = steps_between(
        model, plan(()), -age, 40.0, tolerance=1e-4,
        largest_diffusivity_mm2_per_day=1.0, largest_growth_rate_per_day=0.1,
    )  # fmt: skip
    expected = jax.jit(lambda p, u: integrate(model, plan(()), p, u, fine))(p, small.seed(p))
    found = states_of(small, TRUTH)[1]
    assert float(jnp.abs(found - expected).max()) < 0.01
    assert float(expected.max()) > 0.9


def test_the_truth_is_found_and_its_covariance_is_that_of_the_slope(small):
    start = jnp.zeros(6)
    found = most_probable(small, start)
    sd = np.sqrt(np.diag(found.covariance))
    assert np.all(np.abs(found.z - TRUTH)[:5] < 2 * sd[:5])
    assert sd[5] == pytest.approx(1.0)  # across the plane only the prior knows
    assert sd[0] < 0.9
    cost = jax.jit(lambda z: jnp.sum(small.misfit(z) ** 2) + jnp.sum(z**2))
    assert float(cost(found.z)) <= float(cost(TRUTH)) < float(cost(start))


def test_gradient_of_the_misfit(small):
    def misfit(z):
        return jnp.sum(small.misfit(jnp.append(z, 0.0)) ** 2)

    check_gradient(jax.jit(misfit), TRUTH[:5], scale=0.1, directions=3, rtol=1e-4)


def test_doubt_is_none_on_a_contour_and_finite_at_every_density(small):
    visit = small.visits[0]
    on = jnp.broadcast_to(visit.threshold[:, None], visit.voxels.shape)
    np.testing.assert_allclose(visit.doubt(on), 0.0, atol=1e-12)
    np.testing.assert_allclose(visit.residual(on), np.sqrt(2 * np.log(2)))
    slope = jax.vmap(jax.grad(lambda v: visit.residual(jnp.full_like(on, v)).sum()))
    assert np.isfinite(slope(jnp.array([0.0, 1.0, -1e-3, 1.001]))).all()
    assert float(log_odds(jnp.array(0.5))) == 0.0


def test_a_ball_that_does_not_grow_is_a_gaussian_that_spreads():
    ball, none = Ball(60.0), jnp.zeros(())
    p = {DIFFUSIVITY: jnp.asarray(0.5), GROWTH_RATE: none}
    seed = ball.seed()
    u = ball.grown(p, seed, jnp.asarray(60.0), 4)[-1]
    wide = 1 + 4 * 0.5 * 60 / 16
    expected = 0.9 * wide**-1.5 * np.exp(-(ball.radius_mm**2) / 16 / wide)
    np.testing.assert_allclose(u, expected, atol=1e-2 * expected.max())
    volume = np.diff(np.linspace(0, 60, ball.radius_mm.size + 1) ** 3)
    assert float(u @ volume) == pytest.approx(float(seed @ volume), rel=1e-10)


def test_scales_explain_radii_they_gave(small):
    masks = [{0.16: np.ones(SHAPE, bool), 0.8: np.ones(SHAPE, bool)}]
    assert radius_mm(masks[0][0.8], SPACING) == pytest.approx(np.cbrt(3456 / np.pi))
    radii = np.array([[14.0, 9.0], [20.0, 15.0]])
    made = scales(small, radii)
    day, states = made.course()
    assert float(day[-1]) == pytest.approx(40.0)
    found = [
        [float(made.ball.radius_of(states[i], jnp.asarray(c))) for c in (0.16, 0.8)]
        for i in (32, 40)
    ]
    np.testing.assert_allclose(found, radii, rtol=0.15)


def test_what_cannot_be_inverted_is_refused():
    empty = {0.8: np.zeros(SHAPE, bool)}
    with pytest.raises(InputError, match="an empty mask"):
        onset(np.ones(SHAPE), SPACING, [empty], (0.0,), PRIORS, readings=80)
    with pytest.raises(InputError, match="one day a visit"):
        onset(np.ones(SHAPE), SPACING, [empty], (0.0, 1.0), PRIORS)
    with pytest.raises(InputError, match=NAMES[0]):
        onset(np.ones(SHAPE), SPACING, [empty], (0.0,), {})
    with pytest.raises(InputError, match="80"):
        disc = {0.8: np.ones(SHAPE, bool)}
        onset(np.ones(SHAPE), SPACING, [disc], (0.0,), PRIORS, readings=800)
