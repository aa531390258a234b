"""A tumour through time: growth, transport and treatment, every event hit on its day.

Strang splitting: half a step of the reaction (exact for logistic growth), a step of diffusion
(RKL2), half a step of the reaction; radiotherapy fractions between steps. Second order in time.
Reverse mode differentiates the discrete steps, one checkpoint a step.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from oncology import transport
from oncology.growth import Grown, Parameters, ReactionDiffusion
from oncology.treatment import Plan, linear_quadratic

SPLITTING_ERROR = 0.04
"""Largest relative error of the total cellularity, divided by (k h)², measured with steps h for
D / k of 0.2 to 5 voxels², from sharp-edged starts of 2 voxels' radius and more, at any time after
the first step (0.07 for 17 voxels²); once a front has formed it is 0.005 to 0.02. The relative L2
error of the map is as large then, but right after a sharp-edged start up to ten times as large."""

FASTEST_MM2_PER_DAY = 50.0
SLOWEST_PER_DAY = 1e-5
"""A tumour that doubles in two centuries."""

FIRST_STEP_SPREAD = 0.1
"""Largest D h Σ 1/spacing² of a first step h, as far as three halvings reach."""


def largest_step_days(growth_rate_per_day: float, tolerance: float) -> float:
    """The step that keeps the splitting error of the total cellularity under `tolerance`
    (relative): h = sqrt(tolerance / 0.04) / k, at most 10 days."""
    return min(math.sqrt(tolerance / SPLITTING_ERROR) / max(abs(growth_rate_per_day), 1e-9), 10.0)


class Steps(eqx.Module):
    """The steps from one day to a later one, no event inside any of them.

    `fraction_gy` is the dose given at the start of each step, 0 for none; `together_gy` what it
    acts together with, as in `linear_quadratic`: itself, when None.
    """

    start_day: Float[np.ndarray, " steps"]
    end_day: Float[np.ndarray, " steps"]
    fraction_gy: Float[np.ndarray, " steps"]
    stages: int = eqx.field(static=True)
    together_gy: Float[np.ndarray, " steps"] | None = None


def steps_between(
    model: Grown,
    plan: Plan,
    start_day: float,
    end_day: float,
    *,
    largest_diffusivity_mm2_per_day: float,
    largest_growth_rate_per_day: float,
    tolerance: float = 1e-3,
) -> Steps:
    """Steps from `start_day` to `end_day`, fine enough for `tolerance` and stable up to the
    largest diffusivity; a fraction or dose on the first day counts, one on the last does not.

    Raises InputError when the days are out of order, and for rates in other units than these.
    """
    _check_rates(largest_diffusivity_mm2_per_day, largest_growth_rate_per_day)
    if not end_day > start_day:
        raise InputError(
            Problem("steps_between", f"day {start_day} to {end_day}", "a later day to go to")
        )
    inside = [day for day in plan.event_days if start_day < day < end_day]
    corners = [start_day, *inside, end_day]
    shape, spacing_mm = model.habitable.shape, model.spacing_mm
    diffusivity = largest_diffusivity_mm2_per_day * model.stiffness
    spread = diffusivity * sum(h**-2 for n, h in zip(shape, spacing_mm, strict=True) if n > 1)

    def stages(days: np.ndarray) -> int:
        return transport.cheapest_stages(np.diff(days).max(), diffusivity, shape, spacing_mm)

    largest = largest_step_days(largest_growth_rate_per_day, tolerance)
    finer = [_step_ends(corners, largest / share, spread) for share in np.linspace(1, 2, 21)]
    days = min(finer, key=lambda days: days.size * (1 + stages(days)))
    fraction_gy, together_gy = np.zeros((2, days.size - 1))
    if plan.radiotherapy is not None:
        course = plan.radiotherapy
        for day, dose, together in zip(
            course.days.tolist(), course.doses_gy.tolist(), course.together_gy(), strict=True
        ):
            if start_day <= day < end_day:
                step = np.flatnonzero(days[:-1] == day)[0]
                fraction_gy[step] += dose
                together_gy[step] = together
    return Steps(days[:-1], days[1:], fraction_gy, stages(days), together_gy)


def _check_rates(diffusivity: float, growth_rate: float) -> None:
    problems = []
    if not 0 <= diffusivity <= FASTEST_MM2_PER_DAY:
        cause = "a sign" if diffusivity < 0 else "mm²/year; divide by 365"
        expected = f"0 to {FASTEST_MM2_PER_DAY:g} mm²/day"
        problems.append(Problem("diffusivity", f"{diffusivity:g} mm²/day", expected, cause))
    if not abs(growth_rate) <= 10 or 0 < abs(growth_rate) < SLOWEST_PER_DAY:
        cause = "1/s; multiply by 86400" if abs(growth_rate) < 1 else "1/year; divide by 365"
        expected = f"0, or {SLOWEST_PER_DAY:g} to 10 /day, either sign"
        problems.append(Problem("growth rate", f"{growth_rate:g} /day", expected, cause))
    if problems:
        raise InputError(*problems)


def _step_ends(
    corners: Sequence[float], largest_step_days: float, spread_per_day: float
) -> np.ndarray:
    """Days from corner to corner in equal steps, but for the first, which is halved up to three
    times (h/8, h/8, h/4, h/2) where cells would diffuse much further than a voxel in it: a
    sharp-edged start is then as accurate as a smooth one."""
    days = [np.array(corners[:1], float)]
    for a, b in itertools.pairwise(corners):
        steps = max(1, math.ceil((b - a) / largest_step_days - 1e-9))
        days.append(np.linspace(a, b, steps + 1)[1:])
    first = float(days[1][0]) - corners[0]
    halvings = [n for n in (1, 2, 3) if spread_per_day * first > FIRST_STEP_SPREAD * 2 ** (n - 1)]
    graded = corners[0] + first / 2.0 ** np.array(halvings[::-1])
    return np.concatenate([days[0], graded, *days[1:]])


def integrate(
    model: ReactionDiffusion, plan: Plan, p: Parameters, u: Float[Array, "x y z"], steps: Steps
) -> Float[Array, "x y z"]:
    """The state at the end of `steps`, from u at their start; differentiable in p and u."""
    return course(model, plan, p, u, steps, lambda _: None)[0]


def course(
    model: ReactionDiffusion,
    plan: Plan,
    p: Parameters,
    u: Float[Array, "x y z"],
    steps: Steps,
    measure: Callable[[Float[Array, "x y z"]], Any],
) -> tuple[Float[Array, "x y z"], Any]:
    """The state at the end of `steps`, and `measure(state)` at the end of each step."""
    conductance = model.conductance().with_halo(steps.stages)
    after = (
        None if model.cavity is None or not plan.resections else conductance.within(~model.cavity)
    )
    diffusivity = p["diffusivity_mm2_per_day"]
    rate, share = model.growth_rate(p), model.dose_share()

    def advance(u: Array, step: tuple[Array, ...]) -> tuple[Array, Any]:
        start, end, *fraction = step
        length = end - start
        u, open_faces = _cut_out(model, plan, u, start), conductance
        if after is not None:
            cut = jnp.any(jnp.asarray([start >= cut.day for cut in plan.resections]))
            open_faces = jax.tree.map(partial(jnp.where, cut), after, conductance)
        kill = jnp.asarray(plan.drug_kill(p, start, end), u.dtype)
        if model.drug_delivery is not None:
            kill = kill * model.drug_delivery
        for source in plan.radionuclides:
            kill = kill + source.kill(p, start, end, 1.0 if share is None else share)
        if plan.radiotherapy is not None:
            dose, together = (x if share is None else x * share for x in fraction)
            sensitivity = p["radiosensitivity_per_gy"] * plan.sensitisation(p, start)
            ratio = p.get("alpha_over_beta_gy", plan.radiotherapy.alpha_over_beta_gy)
            u = u * jnp.exp(linear_quadratic(sensitivity, dose, ratio, together))
        growth = rate
        if plan.radiotherapy is not None and plan.radiotherapy.kickoff_day is not None:
            faster = plan.radiotherapy.repopulating(start, end)
            growth = rate + faster * p["repopulation_per_day"]
        u = model.law.step(u, growth, kill / 2, length / 2)
        u = transport.diffuse(u, open_faces, diffusivity * length, steps.stages)
        u = model.law.step(u, growth, kill / 2, length / 2)
        return u, measure(u)

    together = steps.fraction_gy if steps.together_gy is None else steps.together_gy
    table = (steps.start_day, steps.end_day, steps.fraction_gy, together)
    table = jax.tree.map(lambda column: jnp.asarray(column, u.dtype), table)
    return jax.lax.scan(jax.checkpoint(advance), u, table)


def _cut_out(model: ReactionDiffusion, plan: Plan, u: Array, day: Array) -> Array:
    """u after the resections of a day: nothing in the cavity; less where density is seen."""
    for resection in plan.resections:
        left = resection.remaining if model.cavity is None else partial(_outside, model.cavity)
        u = jax.lax.cond(day == jnp.asarray(resection.day, day.dtype), left, lambda v: v, u)
    return u


def _outside(cavity: Array, u: Array) -> Array:
    return jnp.where(cavity, 0.0, u)


def trajectory(
    model: ReactionDiffusion,
    plan: Plan,
    p: Parameters,
    u: Float[Array, "x y z"],
    legs: Sequence[Steps],
) -> tuple[Float[Array, "x y z"], ...]:
    """The states at the end of each leg, one leg after the other."""
    states = []
    for leg in legs:
        u = integrate(model, plan, p, u, leg)
        states.append(u)
    return tuple(states)
