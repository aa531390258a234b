"""Discrete loss, PINN and BINN of a tumour: against closed forms, limits, the stepper."""

from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from learn.binn import Combination
from learn.pinn import MLP, Adam, taylor
from learn.pinn.terms import Local
from mrphys.errors import InputError
from oncology.growth import ReactionDiffusion
from oncology.neural.binn import Amount, Crowding, from_onset, grown
from oncology.neural.discrete_loss import least_discrete_loss
from oncology.neural.front import Front, Surroundings
from oncology.neural.pinn import Frame, invert
from oncology.onset import DIFFUSIVITY, GROWTH_RATE, NAMES, most_probable
from oncology.timeline import integrate, steps_between
from oncology.treatment import plan
from tests.laws import check_gradient
from tests.oncology.test_onset import PRIORS, SHAPE, SPACING, TRUTH, small, states_of

__all__ = ["small"]
EQUATION = taylor.closed([(1, 1), (2, 2), (3, 3), (0,)])


def test_a_front_without_network_is_linear_growth_and_knows_its_derivatives():
    numbers = jnp.array([80.0, 0.05, 0.2, 25.0])
    front = Front(4, numbers=numbers, inner=partial(MLP, width=3, depth=1), rngs=nnx.Rngs(0))
    x = jnp.array([0.2, 0.3, -0.4, 0.1])

    @jax.jit
    def both(x):
        made = front.series(taylor.inputs(x, EQUATION), EQUATION)

        def value(at):
            return front(at)[0]

        return made, jax.grad(value)(x), jax.hessian(value)(x)

    made, slope, bend = both(x)
    for i in range(4):
        np.testing.assert_allclose(made[(i,)][0], slope[i], rtol=1e-9)
    for i in range(1, 4):
        np.testing.assert_allclose(made[(i, i)][0], bend[i, i], rtol=1e-9)
    front.unit = 0.0
    begin = x.at[0].set(-1.0)
    square = float(jnp.sum((25 * x[1:]) ** 2))
    u = 0.9 * np.exp(-square / 16)
    np.testing.assert_allclose(front(begin)[0], np.log(u / (1 - u)), rtol=1e-9)
    late = front.series(taylor.inputs(x.at[0].set(1.0), EQUATION), EQUATION)
    slope = sum(late[(i,)][0] ** 2 for i in (1, 2, 3)) / 25**2
    bend = sum(late[(i, i)][0] for i in (1, 2, 3)) / 25**2
    np.testing.assert_allclose(late[(0,)][0] * 2 / 80, 0.2 * (bend + slope) + 0.05, rtol=1e-4)


def around(span=50.0):
    """Even tissue."""
    tables = jnp.zeros((5, 3, 4, 5)).at[:2].set(1.0)
    first = jnp.array([-30.0, -30.0, -30.0])
    ball = jnp.array([0.04, 100.0, 0.3])
    return Surroundings(tables, first, (30.0, 20.0, 15.0), jnp.asarray(span), ball)


def test_surroundings_are_the_tables_at_voxels_and_linear_between():
    made = around()
    rng = np.random.default_rng(0)
    made.tables[...] = jnp.asarray(rng.normal(size=made.tables[...].shape))
    place = jnp.array([0.0, -10.0, 15.0])
    np.testing.assert_allclose(made(place), made.tables[...][:, 1, 1, 3])
    middle = made(place + jnp.array([15.0, 0.0, 0.0]))
    np.testing.assert_allclose(middle, made.tables[...][:, 1:3, 1, 3].mean(1))


def test_the_equation_in_log_odds_is_that_of_the_exact_wave():
    frame = Frame(40.0, PRIORS)
    p: dict[str, Any] = {name: jnp.zeros(()) for name in (*NAMES, "site_x", "site_y", "site_z")}
    p["surroundings"] = around()
    d, k = PRIORS[DIFFUSIVITY].median, PRIORS[GROWTH_RATE].median
    length, speed = np.sqrt(6 * d / k), 5 * np.sqrt(d * k / 6)

    def wave(x):
        day, along = (x[0] + 1) * 25.0, 40.0 * x[1]
        u = (1 + jnp.exp((along - speed * day) / length)) ** -2.0
        return jnp.log(u) - jnp.log1p(-u)

    x = jnp.array([0.3, 0.1, 0.2, -0.1])
    slope, bend = jax.grad(wave)(x), jax.hessian(wave)(x)
    series = {(): wave(x)[None], (0,): slope[:1]}
    for i in (1, 2, 3):
        series |= {(i,): slope[i : i + 1], (i, i): bend[i, i][None]}
    names = ("t", "x", "y", "z")
    at: dict[str, Any] = dict(zip(names, x, strict=True))
    assert abs(float(frame.equation(Local(names, series, 1), at, p))) < 1e-9
    series[(0,)] = series[(0,)] + 0.01
    assert abs(float(frame.equation(Local(names, series, 1), at, p))) > 1e-3


@pytest.mark.long
def test_discrete_loss_without_model_error_is_the_stepper_and_with_it_fits_closer(small):
    stepper = most_probable(small, jnp.zeros(6))
    tight = least_discrete_loss(small, stepper.z, model_error=1e-5, iterations=2, inner=30)
    np.testing.assert_allclose(tight.inferred.z[:5], stepper.z[:5], atol=0.02)
    slope = eqx.filter_jit(lambda q, z: jax.jacfwd(q.misfit)(z))(small, stepper.z)
    expected = jnp.linalg.inv(slope.T @ slope + jnp.eye(6))
    np.testing.assert_allclose(tight.inferred.covariance, expected, rtol=0.1, atol=2e-3)
    np.testing.assert_allclose(tight.inferred.states[1], stepper.states[1], atol=5e-3)
    loose = least_discrete_loss(small, stepper.z, model_error=1e-2, iterations=2, inner=30)
    assert float(loose.loss[-1]) < float(tight.loss[-1])
    assert float(loose.inferred.covariance[1, 1]) > float(tight.inferred.covariance[1, 1])


def terms_of(capacity=1.0):
    return {
        "D": Combination("1", (0.0, 1.0), {"1": jnp.ones_like}, {"1": 0.3}),
        "G": Combination(
            "u", (0.0, 1.0), {"1": jnp.ones_like, "z": lambda z: z}, {"1": 0.05, "z": -0.05}
        ),
    }


def test_the_stepper_with_terms_is_the_timeline_of_their_law(small):
    model = ReactionDiffusion(habitable=jnp.ones(SHAPE, bool), spacing_mm=SPACING)
    times = np.array([0.0, 15.0, 40.0])
    solve = jax.jit(lambda u: grown(model, times, 0.5, 0.1)(terms_of(), u, jnp.asarray(times)))
    u0 = small.seed(small.parameters(TRUTH))
    found = solve(u0[None])
    p = {DIFFUSIVITY: jnp.asarray(0.3), GROWTH_RATE: jnp.asarray(0.05)}
    legs = steps_between(
        model, plan(()), 0.0, 40.0, tolerance=1e-4,
        largest_diffusivity_mm2_per_day=0.5, largest_growth_rate_per_day=0.1,
    )  # fmt: skip
    expected = jax.jit(lambda u: integrate(model, plan(()), p, u, legs))(u0)
    np.testing.assert_allclose(found[0, 0], u0)
    np.testing.assert_allclose(found[2, 0], expected, atol=0.01)
    with pytest.raises(InputError, match="rising"):
        grown(model, times[::-1], 0.5, 0.1)


def test_crowding_is_logistic_before_it_learns_and_from_onset_is_what_a_reader_draws(small):
    make = {
        "D": partial(Amount, PRIORS[DIFFUSIVITY], float(TRUTH[1])),
        "G": partial(Crowding, PRIORS[GROWTH_RATE], float(TRUTH[2])),
        "age": partial(Amount, PRIORS["age_day"], float(TRUTH[0])),
    }
    terms = {name: made(rngs=nnx.Rngs(0)) for name, made in make.items()}
    p = small.parameters(TRUTH)
    u = jnp.linspace(0, 1, 5)
    np.testing.assert_allclose(terms["G"](u), p[GROWTH_RATE] * (1 - u), atol=1e-12)
    terms["G"].v[...] = jnp.ones(4)
    assert float(terms["G"](jnp.zeros(()))) == pytest.approx(float(p[GROWTH_RATE]))
    terms["G"].v[...] = jnp.zeros(4)
    terms["site"] = lambda none: TRUTH[3:]
    empty = jnp.zeros((1, *small.visits[0].voxels.shape))
    solve = from_onset(small)
    found = jax.jit(lambda u: solve(terms, u, jnp.zeros(3)))(empty)
    states = states_of(small, TRUTH)
    for i, (visit, u) in enumerate(zip(small.visits, states, strict=True)):
        chance = jax.nn.sigmoid(visit.doubt(visit.at_voxels(u)))
        np.testing.assert_allclose(found[i + 1, 0], chance, atol=0.05)
    assert float(found[0].max()) == 0.0


def test_growth_with_a_diffusivity_of_density_has_the_gradient_of_its_differences():
    model = ReactionDiffusion(habitable=jnp.ones((6, 1, 1), bool), spacing_mm=SPACING)
    times = np.array([0.0, 2.0])
    solve = grown(model, times, 0.5, 0.1)
    u0 = jnp.linspace(0, 0.9, 6)[None, :, None, None]

    def end(c):
        library = {"1": jnp.ones_like, "z": lambda z: z}
        d = Combination("u", (0.0, 1.0), library, {"1": 0.1, "z": 0.2})
        d.c[...] = c
        return jnp.sum(solve(terms_of() | {"D": d}, u0, jnp.asarray(times))[-1] ** 2)

    check_gradient(jax.jit(end), jnp.array([0.1, 0.2]), rtol=1e-5)


@pytest.mark.long
def test_two_patients_are_inverted_together_and_go_on_from_checkpoints(small, tmp_path):
    radii = np.array([[14.0, 9.0], [20.0, 15.0]])
    few = {
        "width": 3, "depth": 1, "points": 20,
        "first": (Adam(steps=4),), "key": jax.random.key(0),
    }  # fmt: skip
    both, sizes = [small, small], [radii, 1.1 * radii]
    half = invert(both, sizes, then=(Adam(steps=2),), folder=tmp_path, **few)
    made = invert(both, sizes, then=(Adam(steps=2),), folder=tmp_path, **few)
    for a, b in zip(half, made, strict=True):
        np.testing.assert_array_equal(a.z, b.z)
        assert np.isfinite(a.covariance).all()
        assert a.states[1].shape == SHAPE
    assert float(jnp.abs(made[0].z - made[1].z).max()) > 1e-3
    with pytest.raises(InputError, match="problems that differ"):
        other = eqx.tree_at(lambda q: q.visits, small, small.visits[:1])
        invert([small, other], sizes, **few)
