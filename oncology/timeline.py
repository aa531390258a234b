"""A tumour through time: growth, transport and treatment, every event hit on its day.

Strang splitting: half a step of the reaction (exact for logistic growth), a step of diffusion
(RKL2), half a step of the reaction; radiotherapy fractions between steps. Second order in time.
Reverse mode differentiates the discrete steps, one checkpoint a step.
"""

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from oncology import transport, treatment
from oncology.growth import Parameters, ReactionDiffusion
from oncology.treatment import Plan

SPLITTING_ERROR = 0.04
"""Largest relative error of the total cellularity, divided by (k h)², measured with steps h for
D / k of 0.2 to 5 voxels², from sharp-edged starts of 2 voxels' radius and more, at any time after
the first step (0.07 for 17 voxels²); once a front has formed it is 0.005 to 0.02. The relative L2
error of the map is as large then, but right after a sharp-edged start up to ten times as large."""

FIRST_STEP_SPREAD = 0.1
"""Largest D h Σ 1/spacing² of a first step h, as far as three halvings reach."""


def largest_step_days(growth_rate_per_day: float, tolerance: float) -> float:
    """The step that keeps the splitting error of the total cellularity under `tolerance`
    (relative): h = sqrt(tolerance / 0.04) / k, at most 10 days."""
    return min(math.sqrt(tolerance / SPLITTING_ERROR) / max(abs(growth_rate_per_day), 1e-9), 10.0)


class Steps(eqx.Module):
    """The steps from one day to a later one, no event inside any of them.

    `fraction_gy` is the dose given at the start of each step, 0 for none.
    """

    start_day: Float[np.ndarray, " steps"]
    end_day: Float[np.ndarray, " steps"]
    fraction_gy: Float[np.ndarray, " steps"]
    stages: int = eqx.field(static=True)


def steps_between(
    model: ReactionDiffusion,
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

    Raises InputError when the days are out of order.
    """
    if not end_day > start_day:
        raise InputError(
            Problem("steps_between", f"day {start_day} to {end_day}", "a later day to go to")
        )
    inside = [day for day in plan.event_days if start_day < day < end_day]
    corners = [start_day, *inside, end_day]
    shape, spacing_mm = model.habitable.shape, model.spacing_mm
    diffusivity = largest_diffusivity_mm2_per_day
    spread = diffusivity * sum(h**-2 for n, h in zip(shape, spacing_mm, strict=True) if n > 1)

    def stages(days: np.ndarray) -> int:
        return transport.cheapest_stages(np.diff(days).max(), diffusivity, shape, spacing_mm)

    largest = largest_step_days(largest_growth_rate_per_day, tolerance)
    finer = [_step_ends(corners, largest / share, spread) for share in np.linspace(1, 2, 21)]
    days = min(finer, key=lambda days: days.size * (1 + stages(days)))
    fraction_gy = np.zeros(days.size - 1)
    if plan.radiotherapy is not None:
        course = plan.radiotherapy
        for day, dose in zip(course.days.tolist(), course.doses_gy.tolist(), strict=True):
            if start_day <= day < end_day:
                fraction_gy[np.flatnonzero(days[:-1] == day)[0]] += dose
    return Steps(days[:-1], days[1:], fraction_gy, stages(days))


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
    diffusivity = p["diffusivity_mm2_per_day"]
    rate = model.growth_rate(p)

    def advance(u: Array, step: tuple[Array, Array, Array]) -> tuple[Array, Any]:
        start, end, fraction_gy = step
        length = end - start
        kill = sum(
            (agent.kill(p, start, end) for agent in plan.chemotherapy), jnp.zeros((), u.dtype)
        )
        if model.drug_delivery is not None:
            kill = kill * model.drug_delivery
        if plan.radiotherapy is not None:
            dose = fraction_gy if model.dose_shape is None else fraction_gy * model.dose_shape
            u = u * jnp.exp(
                treatment.linear_quadratic(
                    p["radiosensitivity_per_gy"], dose, plan.radiotherapy.alpha_over_beta_gy
                )
            )
        u = model.law.step(u, rate, kill / 2, length / 2)
        u = transport.diffuse(u, conductance, diffusivity * length, steps.stages)
        u = model.law.step(u, rate, kill / 2, length / 2)
        return u, measure(u)

    table = (steps.start_day, steps.end_day, steps.fraction_gy)
    table = jax.tree.map(lambda column: jnp.asarray(column, u.dtype), table)
    return jax.lax.scan(jax.checkpoint(advance), u, table)


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
