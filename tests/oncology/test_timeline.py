"""The stepper against exact waves, conservation, order of convergence and its own promises."""

import itertools
import math

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology import transport
from oncology.growth import GrowthMap, ReactionDiffusion
from oncology.growth_laws import Exponential
from oncology.timeline import (
    Steps,
    course,
    integrate,
    largest_step_days,
    steps_between,
    trajectory,
)
from oncology.treatment import Chemotherapy, Plan, Radionuclide, Radiotherapy, Resection
from tests.laws import check_gradient, order_of_convergence

ONE_MM = (1.0, 1.0, 1.0)
run = eqx.filter_jit(integrate)


def even_steps(days, count, stages, start_day=0.0):
    """Steps of equal length without any dose."""
    ends = start_day + np.linspace(0, days, count + 1)
    return Steps(ends[:-1], ends[1:], np.zeros(count), stages)


def stable_steps(days, count, diffusivity, model):
    """Equal steps with as many stages as they need."""
    stages = transport.stages_needed(
        days / count, diffusivity, model.habitable.shape, model.spacing_mm
    )
    return even_steps(days, count, stages)


def rates(diffusivity, growth):
    return {"diffusivity_mm2_per_day": diffusivity, "growth_rate_per_day": growth}


def disc(shape, radius, density):
    """A sharp-edged start in the middle of the grid."""
    position = np.indices(shape) - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2
    return jnp.where(np.sqrt((position**2).sum(0)) <= radius, density, 0.0)


def ablowitz_zeppetella(x, days, diffusivity, growth):
    """The one travelling wave of Fisher's equation in closed form, of speed 5 √(D k / 6):
    Ablowitz & Zeppetella 1979, doi:10.1007/BF02462380."""
    z = (x - 5 / np.sqrt(6) * np.sqrt(diffusivity * growth) * days) * np.sqrt(growth / diffusivity)
    return (1 + np.exp(z / np.sqrt(6))) ** -2


def wave_error(spacing, count, days=10.0, diffusivity=0.2, growth=0.3):
    """Largest error in the middle of a row of voxels, away from its closed ends."""
    x = np.arange(-30, 40, spacing)
    model = ReactionDiffusion(jnp.ones((x.size, 1, 1), bool), spacing_mm=(spacing, 1.0, 1.0))
    start, end = (ablowitz_zeppetella(x, t, diffusivity, growth) for t in (0.0, days))
    steps = stable_steps(days, count, diffusivity, model)
    u = jnp.asarray(start, float)[:, None, None]
    u = run(model, Plan(), rates(diffusivity, growth), u, steps)
    return float(np.abs(np.asarray(u).ravel() - end)[np.abs(x) < 20].max())


@pytest.mark.core
def test_the_exact_travelling_wave_keeps_its_shape_and_speed(rtol):
    assert wave_error(0.25, 100) < 2e-3
    assert wave_error(0.125, 200) < rtol(5e-4, 5.2e-4)


def test_second_order_in_space_against_the_exact_wave():
    spacings = np.array([1.0, 0.7, 0.5, 0.35])
    errors = [wave_error(h, 400) for h in spacings.tolist()]
    assert order_of_convergence(errors, spacings) == pytest.approx(2, abs=0.15)


def test_second_order_in_space_and_time_together_against_the_exact_wave():
    counts = np.array([10, 14, 20, 28, 40])
    errors = [wave_error(4.0 / n, n) for n in counts.tolist()]
    assert order_of_convergence(errors, 1 / counts) == pytest.approx(2, abs=0.15)


def test_a_compact_start_reaches_the_speed_of_fisher():
    """Speed of the half-density point between kt = 40 and 60, spacing √(D/k)/4, within 3 % of
    2 √(D k). Bramson's delay, 3/(2 t k) of a speed of 2, is part of it: 1.5 % here."""
    diffusivity, growth = 0.1, 0.1
    spacing = math.sqrt(diffusivity / growth) / 4
    model = ReactionDiffusion(jnp.ones((600, 1, 1), bool), spacing_mm=(spacing, 1.0, 1.0))
    u = jnp.zeros((600, 1, 1)).at[:8].set(1.0)
    p = rates(diffusivity, growth)
    position = []
    for days in (400.0, 200.0):
        count = round(days / 0.5)
        u = run(model, Plan(), p, u, stable_steps(days, count, diffusivity, model))
        profile = np.asarray(u).ravel()
        after = int(np.argmax(profile < 0.5))
        share = (profile[after - 1] - 0.5) / (profile[after - 1] - profile[after])
        position.append((after - 1 + share) * spacing)
    speed = (position[1] - position[0]) / 200.0
    assert speed == pytest.approx(2 * np.sqrt(diffusivity * growth), rel=0.03)
    bramson = 2 - 1.5 * np.log(60 / 40) / 20
    assert speed / np.sqrt(diffusivity * growth) == pytest.approx(bramson, rel=0.01)


def brain_like(shape=(14, 12, 10)):
    """A mask with a hole, tissue of two kinds, uneven delivery and dose, anisotropic voxels."""
    rng = np.random.default_rng(3)
    habitable = rng.random(shape) > 0.1
    white = np.where(np.arange(shape[0]) < 7, 0.8, 0.1)[:, None, None] * np.ones(shape)
    x = np.linspace(0, 1, shape[1])[None, :, None]
    return ReactionDiffusion(
        jnp.asarray(habitable),
        white_matter=jnp.asarray(white, float),
        grey_matter=jnp.asarray(0.9 - white, float),
        drug_delivery=jnp.asarray(np.broadcast_to(0.5 + x, shape), float),
        dose_shape=jnp.asarray(np.broadcast_to(1 - 0.5 * x**2, shape), float),
        spacing_mm=(1.0, 1.2, 2.0),
    )


TREATED = Plan(
    chemotherapy=(
        Chemotherapy(np.array([-2.0, 6.0]), np.array([1.0, 0.7]), "a"),
        Chemotherapy(np.array([3.0]), np.array([1.0]), "b"),
    ),
    radiotherapy=Radiotherapy(np.array([2.0, 3.0, 4.0, 10.0]), np.array([2.0, 2.0, 1.8, 2.0])),
)
TREATED_P = {
    **rates(0.3, 0.15),
    "kill_a_per_day": 0.2,
    "decay_a_per_day": 0.5,
    "kill_b_per_day": 0.1,
    "decay_b_per_day": 1.5,
    "radiosensitivity_per_gy": 0.05,
}


def smooth_start(model):
    position = np.indices(model.habitable.shape) - np.reshape([6, 5, 4], (3, 1, 1, 1))
    u = 0.7 * np.exp(-(position**2).sum(0) / 12)
    return jnp.where(model.habitable, u, 0.0)


@pytest.mark.core
def test_cells_are_conserved_without_growth(rtol):
    model = brain_like()
    u = smooth_start(model)
    after = run(model, Plan(), rates(0.4, 0.0), u, even_steps(60.0, 40, 5))
    totals = [np.sum(np.asarray(v, np.float64)) for v in (u, after)]
    assert totals[1] == pytest.approx(totals[0], rel=rtol(1e-12, 1e-6))


def test_second_order_in_time_with_tissues_and_treatment():
    """Between events, in equal shares of each interval."""
    model, u = brain_like(), smooth_start(brain_like())
    corners = [0.0, 2.0, 3.0, 4.0, 6.0, 9.0]
    doses = {2.0: 2.0, 3.0: 2.0, 4.0: 1.8}

    def final(share):
        intervals = itertools.pairwise(corners)
        starts = [np.arange(0, b - a, 1 / share) + a for a, b in intervals]
        edges = np.concatenate(starts)
        dose = np.array([doses.get(day, 0.0) for day in edges.tolist()])
        steps = Steps(edges, np.append(edges[1:], 9.0), dose, 3)
        return run(model, TREATED, TREATED_P, u, steps)

    reference = final(96)
    shares = np.array([2, 3, 4, 6, 8])
    errors = [float(jnp.linalg.norm(final(n) - reference)) for n in shares]
    assert order_of_convergence(errors, 1 / shares) == pytest.approx(2, abs=0.15)


@pytest.mark.core
def test_cellularity_stays_between_zero_and_one(rtol):
    """From sharp-edged starts, at the steps the stepper chooses itself for 1 %."""
    shape = (40, 40, 1)
    for diffusivity, growth, density in ((0.1, 0.1, 1.0), (1.0, 0.1, 0.5), (0.02, 0.3, 1.0)):
        model = ReactionDiffusion(jnp.ones(shape, bool))
        steps = steps_between(
            model,
            Plan(),
            0.0,
            40.0,
            largest_diffusivity_mm2_per_day=diffusivity,
            largest_growth_rate_per_day=growth,
            tolerance=1e-2,
        )
        measure = eqx.filter_jit(course)
        _, (low, high) = measure(
            model,
            Plan(),
            rates(diffusivity, growth),
            disc(shape, 6, density),
            steps,
            lambda u: (u.min(), u.max()),
        )
        assert float(low.min()) >= -rtol(1e-12, 1e-7)
        assert float(high.max()) <= 1 + rtol(1e-12, 1e-6)


@pytest.mark.parametrize(
    ("diffusivity", "growth", "days"), [(0.1, 0.1, 50.0), (0.5, 0.1, 30.0), (0.02, 0.1, 60.0)]
)
@pytest.mark.parametrize("tolerance", [1e-3, 1e-2])
def test_the_chosen_steps_keep_the_stated_error(diffusivity, growth, days, tolerance):
    """Of the total cellularity, at every step, from a sharp-edged start."""
    shape = (48, 48, 1)
    model, u = ReactionDiffusion(jnp.ones(shape, bool)), disc(shape, 5, 0.5)
    steps = steps_between(
        model,
        Plan(),
        0.0,
        days,
        largest_diffusivity_mm2_per_day=diffusivity,
        largest_growth_rate_per_day=growth,
        tolerance=tolerance,
    )
    finer = 8
    ends = np.linspace(steps.start_day, steps.end_day, finer + 1)
    fine = Steps(
        ends[:-1].T.ravel(), ends[1:].T.ravel(), np.zeros(finer * steps.end_day.size), steps.stages
    )
    totals = [
        eqx.filter_jit(course)(model, Plan(), rates(diffusivity, growth), u, s, jnp.sum)[1]
        for s in (steps, fine)
    ]
    error = np.abs(totals[0] / totals[1][finer - 1 :: finer] - 1)
    settled = np.asarray(steps.end_day) >= np.diff(steps.end_day).max()
    assert error[settled].max() <= tolerance


def test_steps_shrink_with_the_tolerance_and_the_rate():
    assert largest_step_days(0.1, 1e-4) == pytest.approx(largest_step_days(0.1, 1e-2) / 10)
    assert largest_step_days(0.2, 1e-3) == pytest.approx(largest_step_days(0.1, 1e-3) / 2)
    assert largest_step_days(0.0, 1e-3) == largest_step_days(1e-6, 1e-2)


def treated_steps(start, end, plan=TREATED, model=None):
    return steps_between(
        model or brain_like(),
        plan,
        start,
        end,
        largest_diffusivity_mm2_per_day=0.5,
        largest_growth_rate_per_day=0.2,
    )


def test_every_event_begins_a_step():
    steps = treated_steps(0.0, 9.0)
    assert {2.0, 3.0, 4.0, 6.0} <= set(steps.start_day.tolist())
    np.testing.assert_array_equal(steps.start_day[1:], steps.end_day[:-1])
    assert (steps.start_day[0], steps.end_day[-1]) == (0.0, 9.0)
    given = steps.fraction_gy > 0
    np.testing.assert_array_equal(steps.start_day[given], [2.0, 3.0, 4.0])
    np.testing.assert_array_equal(steps.fraction_gy[given], [2.0, 2.0, 1.8])


def test_two_fractions_on_one_day_add_up():
    twice = Plan(radiotherapy=Radiotherapy(np.array([1.0, 1.0]), np.array([1.2, 1.2])))
    steps = treated_steps(0.0, 2.0, twice)
    assert steps.fraction_gy.sum() == pytest.approx(2.4)


@pytest.mark.parametrize(("start", "end"), [(3.0, 3.0), (3.0, 2.0), (0.0, np.nan)])
def test_days_out_of_order_are_an_error(start, end):
    with pytest.raises(InputError, match="a later day"):
        treated_steps(start, end)


@pytest.mark.parametrize(
    ("diffusivity", "growth", "cause"),
    [(-0.1, 0.1, "a sign"), (80.0, 0.1, "mm²/year"), (0.1, 5e-7, "1/s"), (0.1, np.nan, "growth")],
)
def test_rates_in_other_units_are_errors(diffusivity, growth, cause):
    limits = {"largest_diffusivity_mm2_per_day": diffusivity}
    with pytest.raises(InputError, match=cause):
        steps_between(brain_like(), Plan(), 0.0, 1.0, **limits, largest_growth_rate_per_day=growth)


@pytest.mark.core
def test_radiotherapy_alone_multiplies_by_every_survival(rtol):
    """Legs that meet on a day of treatment count it once."""
    model = ReactionDiffusion(jnp.ones((4, 3, 1), bool))
    plan = Plan(radiotherapy=Radiotherapy(np.array([0.0, 2.0, 5.0, 7.0]), np.array([2.0, 2, 3, 2])))
    p = {**rates(0.0, 0.0), "radiosensitivity_per_gy": 0.1}
    legs = [treated_steps(a, b, plan, model) for a, b in ((0.0, 2.0), (2.0, 5.0), (5.0, 7.0))]
    states = trajectory(model, plan, p, jnp.full((4, 3, 1), 0.8), legs)
    survival = np.exp([-0.1 * d * (1 + d / 10) for d in (2.0, 2.0, 3.0)])
    for state, expected in zip(states, 0.8 * np.cumprod(survival), strict=True):
        np.testing.assert_allclose(state, expected, rtol=rtol(1e-12, 2e-6))


@pytest.mark.core
def test_chemotherapy_alone_kills_its_integral_where_it_is_delivered(rtol):
    model = brain_like()
    p = {**TREATED_P, **rates(0.0, 0.0)}
    plan = Plan(chemotherapy=TREATED.chemotherapy)
    u = smooth_start(model)
    after = run(model, plan, p, u, treated_steps(0.0, 9.0, plan))
    kill = sum(float(agent.kill(p, 0.0, 9.0)) for agent in plan.chemotherapy)
    expected = u * jnp.exp(-kill * model.drug_delivery)
    np.testing.assert_allclose(after, expected, rtol=rtol(1e-11, 1e-5), atol=1e-12)


def test_dose_shape_weights_the_dose():
    """A voxel at half the planned dose survives as one given half of it."""
    shape = (2, 1, 1)
    plan = Plan(radiotherapy=Radiotherapy(np.array([0.0]), np.array([4.0])))
    half = ReactionDiffusion(jnp.ones(shape, bool), dose_shape=jnp.array([1.0, 0.5])[:, None, None])
    p = {**rates(0.0, 0.0), "radiosensitivity_per_gy": 0.1}
    after = run(half, plan, p, jnp.ones(shape), treated_steps(0.0, 1.0, plan, half))
    expected = np.exp([-0.1 * 4 * 1.4, -0.1 * 2 * 1.2])
    np.testing.assert_allclose(after.ravel(), expected, rtol=1e-12)


@pytest.mark.core
def test_all_at_once_without_growth_is_the_product_of_survivals(rtol):
    """Unrepaired doses, little oxygen, a sensitiser and a radionuclide, voxel by voxel."""
    shape = (3, 1, 1)

    def column(*values):
        return jnp.asarray(values, float)[:, None, None]

    model = ReactionDiffusion(
        jnp.ones(shape, bool), dose_shape=column(1.0, 0.5, 1.0), oxygen_mmhg=column(50, 50, 0)
    )
    drug = Chemotherapy(np.array([0.5]), np.ones(1), "s")
    fractions = Radiotherapy(np.array([1.0, 1.25]), np.full(2, 2.0), repair_halftime_h=4.0)
    source = Radionuclide(np.array([2.0]), np.array([8.0]))
    plan = Plan((drug,), fractions, (source,), sensitisers=("s",))
    p = {**rates(0.0, 0.0), "radiosensitivity_per_gy": 0.1, "kill_s_per_day": 0.3}
    p |= {"decay_s_per_day": 0.4, "sensitisation_s": 0.6}
    after = run(model, plan, p, jnp.ones(shape), treated_steps(0.0, 6.0, plan, model))
    share = np.array([1.0, 0.5, 1.0]) * np.array([153 / 53, 153 / 53, 1.0]) / 3
    loss = 0.3 * (1 - np.exp(-0.4 * 5.5)) / 0.4
    together = [2.0, 2.0 + 4.0 * 2 ** (-6 / 4)]
    for day, q in zip(fractions.days, together, strict=True):
        sensitivity = 0.1 * (1 + 0.6 * np.exp(-0.4 * (day - 0.5)))
        loss = loss + sensitivity * 2 * share * (1 + q * share / 10)
    loss = loss + np.array([float(source.kill(p, 0.0, 6.0, s)) for s in share])
    np.testing.assert_allclose(after.ravel(), np.exp(-loss), rtol=rtol(1e-10, 2e-5))


def test_a_resected_cavity_is_empty_and_stays_closed():
    """On its day; what is left beside it grows on, and none of it enters."""
    shape = (16, 12, 1)
    cavity = jnp.zeros(shape, bool).at[5:11, 3:9].set(True)
    model = ReactionDiffusion(jnp.ones(shape, bool), cavity=cavity)
    plan, p = Plan(resections=(Resection(4.0),)), rates(0.3, 0.1)
    steps = treated_steps(0.0, 20.0, plan, model)
    assert 4.0 in steps.start_day
    u, (inside, total) = eqx.filter_jit(course)(
        model, plan, p, disc(shape, 4, 0.8), steps, lambda v: (v[5:11, 3:9].sum(), v.sum())
    )
    before = np.asarray(steps.end_day) <= 4.0
    assert (np.asarray(inside)[before] > 1).all()
    np.testing.assert_array_equal(np.asarray(inside)[~before], 0.0)
    assert np.all(np.diff(np.asarray(total)[~before]) > 0)
    u_closed = run(
        ReactionDiffusion(~cavity), Plan(), p, u, treated_steps(20.0, 24.0, Plan(), model)
    )
    np.testing.assert_allclose(
        run(model, plan, p, u, treated_steps(20.0, 24.0, Plan(), model)), u_closed, rtol=1e-12
    )
    part = ReactionDiffusion(jnp.ones(shape, bool))
    plan = Plan(resections=(Resection(0.0, extent=0.9),))
    left = run(
        part, plan, rates(0.0, 0.0), disc(shape, 4, 0.8), treated_steps(0.0, 1.0, plan, part)
    )
    np.testing.assert_allclose(left, disc(shape, 4, 0.08), atol=1e-12)


def test_accelerated_repopulation_grows_faster_between_kickoff_and_the_last_fraction():
    model = ReactionDiffusion(jnp.ones((2, 1, 1), bool), law=Exponential())
    course_of = Radiotherapy(np.array([0.0, 9.0]), np.zeros(2), kickoff_day=5.0)
    plan = Plan(radiotherapy=course_of)
    p = {**rates(0.0, 0.1), "radiosensitivity_per_gy": 0.1, "repopulation_per_day": 0.2}
    u = run(model, plan, p, jnp.full((2, 1, 1), 0.1), treated_steps(0.0, 12.0, plan, model))
    np.testing.assert_allclose(u, 0.1 * np.exp(0.1 * 12 + 0.2 * 4), rtol=1e-10)


def test_one_leg_is_two():
    model, u = brain_like(), smooth_start(brain_like())
    whole = run(model, TREATED, TREATED_P, u, treated_steps(0.0, 12.0))
    parts = trajectory(
        model, TREATED, TREATED_P, u, [treated_steps(0.0, 5.0), treated_steps(5.0, 12.0)]
    )
    assert float(jnp.sum(parts[-1])) == pytest.approx(float(jnp.sum(whole)), rel=2e-3)


def small_problem():
    """Every parameter at once, on a grid small enough for finite differences."""
    shape = (5, 4, 2)
    rng = np.random.default_rng(1)
    habitable = rng.random(shape) > 0.15
    model = ReactionDiffusion(
        jnp.asarray(habitable),
        white_matter=jnp.asarray(rng.random(shape)),
        grey_matter=jnp.asarray(rng.random(shape)),
        drug_delivery=jnp.asarray(0.5 + rng.random(shape)),
        dose_shape=jnp.asarray(rng.random(shape)),
        growth_map=GrowthMap(habitable, ONE_MM, 3.0),
    )
    p = {**TREATED_P, "growth_map_per_day": jnp.full(model.growth_map.size, 0.02)}
    u = jnp.where(habitable, jnp.asarray(0.1 + 0.6 * rng.random(shape)), 0.0)
    steps = Steps(np.array([0.0, 2.0, 3.5]), np.array([2.0, 3.5, 6.0]), np.array([0, 2.0, 0]), 5)
    return model, p, u, steps


def test_gradients_in_every_parameter():
    model, p, u, steps = small_problem()
    check_gradient(lambda p: integrate(model, TREATED, p, u, steps), p, rtol=1e-5, directions=64)


def test_gradients_in_the_first_state():
    model, p, u, steps = small_problem()
    check_gradient(lambda u: integrate(model, TREATED, p, u, steps), u, scale=0.1, rtol=1e-5)


def test_gradients_are_finite_where_nothing_grows_or_moves():
    """No cells, no growth, no diffusion, no treatment: forward and reverse mode."""
    model, p, u, steps = small_problem()
    nothing = jax.tree.map(lambda v: 0.0 * jnp.asarray(v, float), p)
    nothing |= {"decay_a_per_day": jnp.asarray(0.5), "decay_b_per_day": jnp.asarray(1.5)}

    def total(p, u):
        return integrate(model, TREATED, p, u, steps).sum()

    for derivative in (jax.jacfwd, jax.jacrev):
        slopes = jax.jit(derivative(total, (0, 1)))
        for start in (u, jnp.zeros_like(u)):
            assert all(
                np.all(np.isfinite(leaf)) for leaf in jax.tree.leaves(slopes(nothing, start))
            )
    check_gradient(
        lambda x: integrate(model, TREATED, nothing | rates(x[0], x[1]), u, steps),
        jnp.zeros(2),
        scale=0.1,
        rtol=1e-5,
    )
