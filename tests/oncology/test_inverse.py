"""The inverse problem against other optimisers, brute force and finite differences."""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate as quadrature
from scipy import optimize, stats

from mrphys.errors import InputError
from oncology.growth import ReactionDiffusion
from oncology.inverse import (
    LEAST_MODEL_ERROR,
    Inverse,
    amplitude,
    assimilate,
    correlation_length_mm,
    estimate,
    estimate_at,
    expecting_model_error,
    innovation_length_mm,
    interval,
    log_evidence,
    map_estimate,
    posterior,
)
from oncology.observe import SOFTNESS, CellularityMap, VisibleMask
from oncology.priors import LogNormal
from oncology.smoothing import SmoothField
from oncology.timeline import Steps
from oncology.treatment import Plan
from tests.laws import check_gradient
from tests.oncology.small_problem import SHAPE, SPACING_MM, noisy, problem, seen_as

TIGHT = {"rtol": 1e-12, "atol": 1e-12}


@pytest.fixture(scope="module")
def narrow():
    """Priors so narrow that the model is linear over them."""
    return problem(log_sd=0.03)


@pytest.fixture(scope="module")
def wide():
    return noisy(problem(log_sd=0.8, noise_sd=0.03), jax.random.key(1))


@pytest.fixture(scope="module")
def unexplained():
    """A last map that the model cannot explain: waves across it."""
    inverse = noisy(problem(log_sd=0.8, noise_sd=0.03, visits=2), jax.random.key(1))
    first, last = (seen.value for seen in inverse.observations)
    x, y = np.indices(SHAPE[:2])[..., None] - 5.5
    return seen_as(inverse, (first, last + 0.3 * np.sin(x / 2 + y / 3)))


@pytest.fixture(scope="module")
def found(wide):
    return posterior(wide, map_estimate(wide, jnp.zeros(2)))


def test_maximum_a_posteriori_against_scipy(wide):
    none = wide.no_error()

    def residual(z):
        return jnp.concatenate([wide.misfit(z, none), z])

    value, jacobian = jax.jit(residual), jax.jit(jax.jacfwd(residual))
    reference = optimize.least_squares(
        lambda z: np.asarray(value(z)),
        np.zeros(2),
        jac=lambda z: np.asarray(jacobian(z)),
        xtol=1e-14,
        ftol=1e-14,
        gtol=1e-14,
    )
    z = map_estimate(wide, jnp.zeros(2), **TIGHT)
    np.testing.assert_allclose(z, reference.x, rtol=1e-6)


@pytest.mark.long
def test_covariance_is_that_of_the_error_of_the_estimate(narrow):
    """Parametric bootstrap over all that the covariance owns up to: parameters from the prior, the
    noise of every map, and a smooth model error at every visit after the first."""
    tau, draws = 0.04, 600
    field = SmoothField(SHAPE, SPACING_MM, correlation_length_mm(SPACING_MM))
    start = narrow.observations[0].value

    @jax.jit
    @jax.vmap
    def error_of_estimate(key):
        for_z, for_field, for_noise = jax.random.split(key, 3)
        z = jax.random.normal(for_z, (2,))
        states = narrow.predict(z, narrow.no_error())
        white = jax.random.normal(for_field, (2, *SHAPE))
        shown = [u + tau * amplitude(u) * field(w) for u, w in zip(states, white, strict=True)]
        return map_estimate(noisy(seen_as(narrow, (start, *shown)), for_noise), jnp.zeros(2)) - z

    errors = np.asarray(error_of_estimate(jax.random.split(jax.random.key(0), draws)))
    expected = np.asarray(posterior(narrow, jnp.zeros(2)).gain.covariance(jnp.asarray(tau)))
    whiten = np.linalg.inv(np.linalg.cholesky(expected))
    np.testing.assert_allclose(whiten @ np.cov(errors.T) @ whiten.T, np.eye(2), atol=0.2)
    assert np.abs(whiten @ errors.mean(axis=0)).max() < 4 / np.sqrt(draws)


def test_draws_have_the_posterior_mean_and_covariance(found):
    draws = 3000
    keys = jax.random.split(jax.random.key(0), draws)
    z = np.asarray(eqx.filter_jit(eqx.filter_vmap(found.draw))(keys).z)
    whiten = np.linalg.inv(np.linalg.cholesky(np.asarray(found.covariance)))
    np.testing.assert_allclose(whiten @ np.cov(z.T) @ whiten.T, np.eye(2), atol=0.12)
    assert np.abs(whiten @ (z.mean(axis=0) - np.asarray(found.z))).max() < 4 / np.sqrt(draws)


def test_errors_drawn_are_those_of_the_maps(found):
    keys = jax.random.split(jax.random.key(0), 400)
    drawn = eqx.filter_jit(eqx.filter_vmap(found.draw))(keys)
    assert float(jnp.std(drawn.first_error)) == pytest.approx(0.03, rel=0.02)
    assert float(jnp.std(drawn.white)) == pytest.approx(1.0, rel=0.02)


@pytest.mark.long
def test_corrections_bring_draws_to_their_own_optimum(found):
    """The slope of the perturbed problem that each draw should solve, before and after."""
    gain = found.gain

    @eqx.filter_jit
    @jax.vmap
    def slopes(key):
        linear, corrected = found.draw(key), found.draw(key, corrections=4)
        first = gain.to_first_map.reshape(2, -1) @ (linear.first_error / 0.03).ravel()
        pull = jnp.linalg.solve(gain.inverse_hessian, found.z - linear.z) - first

        def size(z):
            misfit = found.inverse.misfit(z, linear.first_error)
            slope = gain.to_residual @ misfit + z + pull
            return slope @ gain.inverse_hessian @ slope

        return size(linear.z), size(corrected.z)

    before, after = slopes(jax.random.split(jax.random.key(3), 40))
    assert np.all(np.asarray(after) <= np.asarray(before))
    assert np.median(after) < 0.05 * np.median(before)


def perturbed(inverse: Inverse, t: dict) -> Inverse:
    """Another value of the first map, of the last, and another sd of the last."""
    first, last = inverse.observations[0], inverse.observations[-1]
    return eqx.tree_at(
        lambda i: (
            i.observations[0].value,
            i.observations[-1].value,
            i.observations[-1].expected_sd,
        ),
        inverse,
        (
            first.value + t["first"] * amplitude(first.value),
            last.value * (1 + t["last"]),
            last.expected_sd * (1 + t["sd"] * last.value),
        ),
    )


HERE = {"first": jnp.array(0.01), "last": jnp.array(0.02), "sd": jnp.array(0.1)}


def test_derivative_of_the_optimum_by_the_implicit_function_theorem(unexplained):
    """Both modes, through a large residual, against finite differences of the optimiser."""

    def optimum(t):
        return map_estimate(perturbed(unexplained, t), jnp.zeros(2), **TIGHT)

    check_gradient(optimum, HERE, scale=20.0, rtol=2e-5, atol=2e-6)


@pytest.mark.long
def test_gauss_newton_would_give_another_derivative(unexplained):
    """With a residual as large as this the derivative above would be wrong by several per cent, had
    the Gauss-Newton Hessian been taken for the full one."""

    def slope(z, last):
        moved = perturbed(unexplained, {**HERE, "last": last})
        misfit, back = jax.vjp(lambda z: moved.misfit(z, moved.no_error()), z)
        return back(misfit)[0] + z

    moved = perturbed(unexplained, HERE)
    z = map_estimate(moved, jnp.zeros(2), **TIGHT)
    np.testing.assert_allclose(slope(z, HERE["last"]), 0, atol=1e-5)
    jacobian = jax.jacfwd(lambda z: moved.misfit(z, moved.no_error()))(z)
    gauss_newton = jacobian.T @ jacobian + jnp.eye(2)
    full, by_last = jax.jit(jax.jacfwd(slope, argnums=(0, 1)))(z, HERE["last"])
    right, wrong = (-jnp.linalg.solve(h, by_last) for h in (full, gauss_newton))
    assert np.linalg.norm(wrong - right) > 0.05 * np.linalg.norm(right)


@pytest.mark.long
def test_evidence_against_quadrature(narrow):
    inverse = noisy(narrow, jax.random.key(2))
    z = map_estimate(inverse, jnp.zeros(2), **TIGHT)
    found = log_evidence(inverse, z)
    none = inverse.no_error()
    units = jnp.linalg.cholesky(posterior(inverse, z).gain.inverse_hessian)

    @jax.jit
    @partial(jax.vmap, in_axes=(0, None))
    @partial(jax.vmap, in_axes=(None, 0))
    def log_density(a, b):
        at = z + units @ jnp.stack([a, b])
        return -(jnp.sum(inverse.misfit(at, none) ** 2) + jnp.sum(at**2)) / 2

    steps = np.linspace(-6, 6, 41)
    values = np.asarray(log_density(jnp.asarray(steps), jnp.asarray(steps)))
    top = values.max()
    inner = quadrature.simpson(np.exp(values - top), x=steps)
    volume = float(units[0, 0] * units[1, 1])
    total = volume * quadrature.simpson(inner, x=steps) / (2 * np.pi)
    assert float(found) == pytest.approx(top + np.log(total), abs=0.02)
    assert float(posterior(inverse, z).log_evidence) == pytest.approx(float(found), abs=1e-6)


def test_residuals_of_noise_show_neither_excess_nor_structure(wide):
    """A map that differs from its prediction by its noise alone; then by a smooth error as well."""
    predicted = wide.predict(jnp.zeros(2), wide.no_error())[-1]
    maps = [seen.value for seen in wide.observations[:-1]]
    field = SmoothField(SHAPE, SPACING_MM, correlation_length_mm(SPACING_MM))

    @eqx.filter_jit
    @jax.vmap
    def statistics(key):
        for_noise, for_field = jax.random.split(key)
        noise = 0.03 * jax.random.normal(for_noise, SHAPE)
        smooth = 0.2 * amplitude(predicted) * field(jax.random.normal(for_field, SHAPE))
        of_noise = estimate_at(seen_as(wide, (*maps, predicted + noise)), jnp.zeros(2))
        of_both = estimate_at(seen_as(wide, (*maps, predicted + noise + smooth)), jnp.zeros(2))
        return of_noise.excess, of_noise.structure, of_noise.model_error, of_both.excess

    draws = 200
    keys = jax.random.split(jax.random.key(5), draws)
    excess, structure, least, excess_of_both = map(np.asarray, statistics(keys))
    assert abs(excess.mean()) < 4 * excess.std() / np.sqrt(draws)
    assert structure.mean() == pytest.approx(1, abs=4 * structure.std() / np.sqrt(draws))
    np.testing.assert_allclose(least, LEAST_MODEL_ERROR)
    expected = 0.2**2
    assert excess_of_both.mean() == pytest.approx(
        expected, abs=4 * excess_of_both.std() / np.sqrt(draws)
    )


def test_maps_are_widened_by_the_model_error_found(wide):
    first = estimate_at(wide, jnp.zeros(2))
    weighed = expecting_model_error(first)
    for before, after in zip(wide.observations[1:], weighed.observations[1:], strict=True):
        assert np.all(np.asarray(after.expected_sd) > np.asarray(before.sd))
        np.testing.assert_array_equal(after.sd, before.sd)
    np.testing.assert_array_equal(weighed.observations[0].expected_sd, wide.observations[0].sd)
    second = estimate(wide)
    again = expecting_model_error(estimate_at(wide, map_estimate(wide, jnp.zeros(2))))
    np.testing.assert_allclose(
        second.inverse.observations[-1].expected_sd, again.observations[-1].expected_sd
    )


def test_a_mask_alone_leaves_the_parameters_to_their_priors(wide):
    """One number cannot tell two parameters: some direction keeps its prior's spread, yet the
    volume itself is predicted as well as it was drawn or better."""
    mask = np.asarray(wide.observations[0].value) > 0.4
    larger = np.asarray(wide.observations[1].value) > 0.4
    seen = [VisibleMask(m, np.ones(SHAPE, bool), SPACING_MM, 0.4) for m in (mask, larger)]
    inverse = eqx.tree_at(lambda i: (i.observations, i.legs), wide, (tuple(seen), wide.legs[:1]))
    found = posterior(inverse, map_estimate(inverse, jnp.zeros(2)))
    spread = np.linalg.eigvalsh(np.asarray(found.covariance))
    assert spread[-1] == pytest.approx(1, abs=1e-3)
    assert 0 < spread[0] < 1
    assert abs(float(found.inverse.misfit(found.z, found.inverse.no_error())[0])) < 1
    assert found.gain.to_first_map.shape == (2,)
    with pytest.raises(InputError, match="a mask alone"):
        assimilate(found, found.states[-1], jnp.zeros(SHAPE))


@pytest.fixture(scope="module")
def beside_a_map():
    """A last map over a disc, and a prediction of 0.5 everywhere."""
    shape = (31, 31, 1)
    x, y = np.indices(shape[:2])[..., None] - 15
    mask = np.hypot(x, y) < 11
    model = ReactionDiffusion(habitable=jnp.ones(shape, bool), spacing_mm=SPACING_MM)
    seen = CellularityMap(np.full(shape, 0.5), 0.1, mask, np.ones(shape, bool), SPACING_MM)
    leg = Steps(np.array([0.0]), np.array([1.0]), np.zeros(1), 3)
    priors = problem(0.8).priors
    return estimate_at(Inverse(model, Plan(), (seen, seen), (leg,), priors), jnp.zeros(2))


def shown(found, value, excess: float):
    inverse = eqx.tree_at(lambda i: i.observations[-1].value, found.inverse, jnp.asarray(value))
    return eqx.tree_at(
        lambda f: (f.inverse, f.excess),
        found,
        (inverse, jnp.asarray(excess, jnp.result_type(float))),
    )


def test_a_map_that_errs_less_than_the_model_is_followed(beside_a_map):
    value = 0.5 + 0.2 * np.random.default_rng(0).uniform(-1, 1, (31, 31, 1))
    found = shown(beside_a_map, value, excess=1e6)
    u = jnp.full(value.shape, 0.5)
    mask = np.asarray(found.inverse.observations[-1].mask)
    np.testing.assert_allclose(
        assimilate(found, u, jnp.zeros_like(u))[mask], value[mask], atol=SOFTNESS**2 / 0.25
    )
    less = assimilate(found, u, jnp.full_like(u, 0.05))
    np.testing.assert_allclose(less[mask], value[mask] - 0.05, atol=SOFTNESS**2 / 0.25)


def test_noise_averages_out_of_the_state(beside_a_map):
    """Without an excess only the local mean is believed: of white noise there remains Σw²."""
    noise = 0.1 * np.random.default_rng(0).standard_normal((31, 31, 1))
    u = jnp.full(noise.shape, 0.5)
    moved = np.asarray(assimilate(shown(beside_a_map, 0.5 + noise, 0.0), u, jnp.zeros_like(u)) - u)
    length = innovation_length_mm(SPACING_MM) / 2.0
    kernel = np.exp(-(np.arange(-8, 9) ** 2) / (2 * length**2))
    left = np.sum(kernel**2) / np.sum(kernel) ** 2
    x, y = np.indices(noise.shape[:2])[..., None] - 15
    assert moved[np.hypot(x, y) < 9].std() == pytest.approx(0.1 * left, rel=0.15)


def test_outside_the_mask_a_state_comes_down_to_the_edge(beside_a_map):
    found = shown(beside_a_map, np.full((31, 31, 1), 0.5), 0.0)
    found = eqx.tree_at(lambda f: f.inverse.observations[-1].edge, found, jnp.array(0.2))
    for predicted, expected in ((0.5, 0.2), (0.1, 0.1)):
        u = jnp.where(found.inverse.observations[-1].mask, 0.5, predicted)
        state = assimilate(found, u, jnp.zeros_like(u))
        assert float(state[1, 1, 0]) == pytest.approx(expected, abs=SOFTNESS**2 / expected)
        assert float(state[15, 15, 0]) == pytest.approx(0.5)


def test_a_state_stays_positive_and_empty_voxels_empty(beside_a_map):
    """A map far below its prediction empties it; one that shows nothing new leaves it as it is."""
    u = jnp.full((31, 31, 1), 0.3)
    state = assimilate(shown(beside_a_map, np.full(u.shape, -0.2), 1e6), u, jnp.zeros_like(u))
    mask = np.asarray(beside_a_map.inverse.observations[-1].mask)
    assert np.all(np.asarray(state) >= 0)
    assert np.all(np.asarray(state)[mask] < SOFTNESS)
    nothing = shown(beside_a_map, np.zeros(u.shape), 0.0)
    for density in (0.0, 1e-6, 0.004):
        same = jnp.full(u.shape, density)
        agreed = shown(nothing, np.asarray(same), 0.0)
        np.testing.assert_allclose(assimilate(agreed, same, jnp.zeros_like(u)), same, atol=1e-12)


def test_amplitude_of_a_model_error():
    u = jnp.array([0.0, 0.1, 0.5, 0.9, 1.0]).reshape(5, 1, 1)
    expected = [0.002, 0.6, 1.0, 0.6, 0.002]
    np.testing.assert_allclose(amplitude(u)[:, 0, 0], expected, rtol=1e-5)
    assert np.all(np.isfinite(jax.grad(lambda u: jnp.sum(amplitude(u)))(u)))


def test_interval_is_that_of_a_log_normal():
    prior = LogNormal(0.03, 0.7, "1/day")
    found = interval(prior, 0.4, 0.5)
    truth = stats.lognorm(0.7 * 0.5, scale=0.03 * np.exp(0.7 * 0.4))
    assert found["mean"] == pytest.approx(truth.mean())
    assert found["sd"] == pytest.approx(truth.std())
    assert found["low95"] == pytest.approx(truth.ppf(0.025), rel=1e-4)
    assert found["high95"] == pytest.approx(truth.ppf(0.975), rel=1e-4)
    assert found["unit"] == "1/day"
