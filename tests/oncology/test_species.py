"""Mixtures against exact solutions, conservation, limits that are one kind, and order of steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from oncology import advection
from oncology.growth import Habitats, ReactionDiffusion
from oncology.species import (
    Angiogenesis,
    DensityDependent,
    GoOrGrow,
    Hypoxia,
    TwoSpeciesGlioma,
    evolve,
)
from oncology.timeline import Steps, integrate, steps_between
from oncology.treatment import Chemotherapy, Plan, Radiotherapy
from tests.laws import check_gradient, order_of_convergence

SHAPE = (9, 8, 1)
P = {
    "diffusivity_mm2_per_day": 0.3,
    "growth_rate_per_day": 0.2,
    "switch_rate_per_day": 0.5,
    "switch_density": 0.3,
    "conversion_rate_per_day": 0.4,
    "crowded_density": 0.5,
    "enhancing_diffusivity_mm2_per_day": 0.05,
    "enhancing_growth_rate_per_day": 0.1,
    "death_rate_per_day": 0.3,
    "penetration_mm": 1.5,
    "consumption": 4.0,
    "vessel_diffusivity_mm2_per_day": 0.1,
    "vessel_growth_rate_per_day": 0.3,
    "capacity_without_vessels": 0.2,
}
KINDS = [GoOrGrow, TwoSpeciesGlioma, Hypoxia, Angiogenesis, DensityDependent]
run = eqx.filter_jit(evolve)


def even(days, count, stages=3, total=0):
    """Equal steps; then none, of no length, until there are `total` (one compilation for all)."""
    ends = np.append(np.linspace(0, days, count + 1), np.full(max(total - count, 0), days))
    return Steps(ends[:-1], ends[1:], np.zeros(ends.size - 1), stages)


def habitable():
    return jnp.asarray(np.random.default_rng(0).random(SHAPE) > 0.1)


def start_of(model):
    rng = np.random.default_rng(1)
    shares = 0.1 + 0.2 * rng.random((len(model.names), *SHAPE))
    return jnp.asarray(shares * np.asarray(model.habitable))


def barenblatt(x, t, d=1.0):
    """∂u/∂t = D ∂/∂x (u ∂u/∂x): t^{-1/3} (1 - x² / (6 D t^{2/3}))_+ (Barenblatt 1952)."""
    return np.maximum(1 - x**2 / (6 * d * t ** (2 / 3)), 0) / np.cbrt(t)


def test_a_density_dependent_diffusivity_gives_barenblatt_s_sharp_front():
    errors, spacings = [], np.array([0.2, 0.1])
    for h in spacings.tolist():
        x = np.arange(-5, 5 + h / 2, h)
        model = DensityDependent(jnp.ones((x.size, 1, 1), bool), (h, 1.0, 1.0))
        p = {"diffusivity_mm2_per_day": 1.0, "growth_rate_per_day": 0.0}
        u = jnp.asarray(barenblatt(x, 1.0))[None, :, None, None]
        found = run(model, Plan(), p, u, even(1.0, round(4 / h), 5))[0].ravel()
        assert float(found.sum()) == pytest.approx(float(u.sum()), rel=1e-12)
        errors.append(np.abs(found - barenblatt(x, 2.0)).mean())
        assert np.abs(np.asarray(found)[np.abs(x) > np.sqrt(6) * 2 ** (1 / 3) + 3 * h]).max() < 1e-4
    assert errors[1] < 2e-3
    assert order_of_convergence(errors, spacings.tolist()) > 1


def test_without_power_or_crowding_it_is_fisher_s_equation():
    model = DensityDependent(habitable(), power=0.0)
    u, steps = start_of(model), even(10.0, 20)
    plain = integrate(ReactionDiffusion(model.habitable), Plan(), P, u[0], steps)
    np.testing.assert_allclose(run(model, Plan(), P, u, steps)[0], plain, rtol=2e-3)


@pytest.mark.parametrize("kind", [Hypoxia, DensityDependent])
def test_second_order_in_time(kind):
    model = kind(habitable())
    u, p = start_of(model), {name: jnp.asarray(value) for name, value in P.items()}
    counts = np.array([12, 24])
    plan = Plan((Chemotherapy(np.zeros(1), np.ones(1), "a"),))
    p |= {"kill_a_per_day": jnp.asarray(0.2), "decay_a_per_day": jnp.asarray(0.4)}
    exact = run(model, plan, p, u, even(4.0, 96))
    errors = [
        float(jnp.abs(run(model, plan, p, u, even(4.0, n, total=96)) - exact).max()) for n in counts
    ]
    assert order_of_convergence(errors, (4.0 / counts).tolist()) == pytest.approx(2, abs=0.25)
    assert float(exact.min()) >= 0


@pytest.mark.parametrize("kind", KINDS)
def test_without_space_a_mixture_is_its_ordinary_differential_equation(kind):
    shape = (1, 1, 1)
    model = kind(jnp.ones(shape, bool))
    u = jnp.asarray(np.linspace(0.3, 0.1, len(model.names)))

    @jax.jit
    def slope(v):
        v = v[:, None, None, None]
        return model.reaction(v, P, model.around(v, P)).ravel()

    exact = solve_ivp(lambda _, v: slope(v), (0, 10), np.asarray(u), rtol=1e-8).y[:, -1]
    found = run(model, Plan(), P, u[:, None, None, None], even(10.0, 200)).ravel()
    np.testing.assert_allclose(found, exact, rtol=1e-3)


def test_migrating_cells_alone_are_conserved_by_switching():
    """No growth: what settles was moving; the total stays."""
    model = GoOrGrow(habitable())
    u = start_of(model)
    after = run(model, Plan(), P | {"growth_rate_per_day": 0.0}, u, even(20.0, 40))
    assert float(after.sum()) == pytest.approx(float(u.sum()), rel=1e-12)
    assert float(jnp.abs(after - u).max()) > 0.01


def test_oxygen_of_a_uniform_layer_decays_over_its_penetration_length():
    """Cells on one side alone: against a dense solve, and far from the edge 1 / (1 + c u)."""
    shape = (40, 1, 1)
    model = Hypoxia(jnp.ones(shape, bool))
    u = jnp.zeros((3, *shape)).at[0, :20].set(0.5)
    found = np.asarray(eqx.filter_jit(model.around)(u, P)).ravel()
    use = 1 + 4.0 * np.asarray(u[0]).ravel()
    ladder = np.diff(np.eye(40), axis=0)
    exact = np.linalg.solve(np.diag(use) + 1.5**2 * ladder.T @ ladder, np.ones(40))
    np.testing.assert_allclose(found, exact, rtol=1e-9)
    assert found[0] == pytest.approx(1 / 3, rel=1e-3)
    assert found[-1] == pytest.approx(1.0, rel=1e-3)


def test_treatment_spares_what_does_not_feel_it():
    model = Hypoxia(jnp.ones((1, 1, 1), bool))
    plan = Plan(radiotherapy=Radiotherapy(np.zeros(1), np.full(1, 2.0)))
    still = dict.fromkeys(P, 0.0) | {"radiosensitivity_per_gy": 0.2}
    steps = steps_between(
        model,
        plan,
        0.0,
        1.0,
        largest_diffusivity_mm2_per_day=0.0,
        largest_growth_rate_per_day=0.1,
    )
    left = run(model, plan, still, jnp.full((3, 1, 1, 1), 0.2), steps).ravel() / 0.2
    loss = 0.2 * 2 * 1.2
    np.testing.assert_allclose(left, np.exp([-loss, -loss / 2, 0.0]), rtol=1e-12)


def densities(kind):
    rng = np.random.default_rng(2)
    return jnp.asarray(0.1 + 0.2 * rng.random((len(kind.names), 3, 2, 1)))


@pytest.mark.parametrize("kind", [Hypoxia, DensityDependent])
def test_gradients_through_time(kind):
    """Through steady oxygen and a diffusivity that follows density; finite without anything."""
    model = kind(jnp.ones((3, 2, 1), bool))
    needed = list(P) if kind is Hypoxia else list(P)[:2]

    def end(x):
        p = dict(zip(needed, x["p"], strict=True))
        return evolve(model, Plan(), p, x["u"], even(1.0, 1))

    where = {"p": jnp.asarray([P[name] for name in needed]), "u": densities(kind)}
    none = jax.tree.map(jnp.zeros_like, where)
    check_gradient(end, where, rtol=1e-5, atol=1e-7, directions=4, finite_at=[none])


@pytest.mark.parametrize("kind", [GoOrGrow, TwoSpeciesGlioma, Angiogenesis])
def test_gradients_of_reactions(kind):
    model = kind(jnp.ones((3, 2, 1), bool))

    def slope(x):
        return model.reaction(x["u"], dict(zip(P, x["p"], strict=True)), None)

    where = {"p": jnp.asarray(list(P.values())), "u": densities(kind)}
    empty = where | {"u": 0.0 * where["u"]}
    check_gradient(slope, where, rtol=1e-5, atol=1e-7, directions=4, finite_at=[empty])


def test_habitats_have_a_rate_each():
    labels = np.array([0, 1, 1, 2])[:, None, None]
    habitats = Habitats(labels)
    assert habitats.size == 2
    model = ReactionDiffusion(jnp.ones((4, 1, 1), bool), growth_map=habitats)
    p = {"growth_rate_per_day": 0.1, "growth_map_per_day": jnp.array([0.02, -0.05])}
    np.testing.assert_allclose(model.growth_rate(p).ravel(), [0.1, 0.12, 0.12, 0.05])
    check_gradient(habitats, jnp.array([0.1, 0.2]))


def test_advection_carries_conserves_and_is_of_second_order():
    """On the flanks of a bump (limiters clip peaks); climbing, walls, no density below zero."""
    errors, spacings = [], np.array([0.25, 0.125])
    carry = jax.jit(advection.advect, static_argnames="substeps")
    for h in spacings.tolist():
        x = (np.arange(192) - 96) * h
        before, after = (np.exp(-((x - c) ** 2) / 6) for c in (-2.0, 1.0))
        velocity = jnp.zeros((3, x.size, 1, 1)).at[0].set(1.5)
        count = advection.substeps_needed(2.0, (1.5, 0.0, 0.0), (h, 1.0, 1.0))
        u = jnp.asarray(before)[:, None, None]
        found = carry(u, velocity, 2.0, spacing_mm=(h, 1.0, 1.0), substeps=count)
        flanks = (np.abs(x - 1) > 1.5) & (np.abs(x - 1) < 6)
        errors.append(np.abs(np.asarray(found).ravel() - after)[flanks].sum() * h)
        assert float(found.sum()) == pytest.approx(float(u.sum()), rel=1e-6)
    assert order_of_convergence(errors, spacings.tolist()) == pytest.approx(2, abs=0.3)
    mask = jnp.ones((12, 6, 1), bool).at[6, :4].set(False)
    signal = jnp.asarray(np.indices(mask.shape).sum(0), float)
    velocity = advection.face_velocity(signal, mask, (1.0, 1.0, 1.0))
    u = jnp.where(mask, 0.5, 0.0).at[6:].set(0.0)
    u = carry(u, velocity, 5.0, spacing_mm=(1.0, 1.0, 1.0), substeps=20)
    assert float(u.min()) >= 0 and float(u.sum()) == pytest.approx(36 * 0.5)
    np.testing.assert_array_equal(u[6, :4], 0.0)
    assert float(u[7:].sum()) > 1
    rng = np.random.default_rng(0)
    u, weights = jnp.asarray(rng.random((2, 5, 4, 2)))
    v = jnp.asarray(rng.standard_normal((3, 5, 4, 2))).at[:, 2].set(0.0)
    slopes = [
        jax.jit(jax.grad(lambda u, v, f=f: jnp.vdot(weights, f(u, v)), (0, 1)))(u, v)
        for f in (advection._inflow, advection._balance)  # the latter by automatic differentiation
    ]
    for found, expected in zip(*slopes, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-13)
    rising = jnp.asarray(np.exp(np.indices((4, 3, 1)).sum(0) / 3))
    check_gradient(
        lambda x: advection.advect(x["u"], x["v"], 0.1, (1.0, 1.0, 1.0), 1),
        {"u": rising, "v": jnp.full((3, 4, 3, 1), 0.4)},
        directions=6,
    )
