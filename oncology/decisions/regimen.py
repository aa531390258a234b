"""What a treatment would do to every tumour that a posterior holds possible.

Tumours            draws of one patient's tumour on the day a treatment begins
Regimen            a plan and the steps through it; its doses can be those of a search
log_burdens        what is left of each draw at last, or along the way
expected, worst_decile    one number of all draws

The log burden is ln of the total cellularity in mm³: lower by 1 is a third of the cells.
"""

from collections.abc import Callable, Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact

from mrphys.errors import InputError, Problem
from oncology.calibration import Calibrated, largest, upper
from oncology.forecast import drawn_states
from oncology.growth import ReactionDiffusion
from oncology.growth_laws import GrowthLaw, Logistic
from oncology.priors import LogNormal
from oncology.radiotherapy import Radiotherapy
from oncology.timeline import Steps, course, steps_between
from oncology.treatment import Chemotherapy, Plan, Saturating

Doses = Mapping[str, Float[Array, " doses"]]
LEAST_CELLS = 1e-30
"""Added to a total before its logarithm: a tumour without cells has a finite gradient."""
TOGETHER = 64
"""Draws simulated at once, at most, and fewer where a field is large."""
VOXELS_TOGETHER = 4096


class Tumours(eqx.Module):
    """Draws of one patient's tumour on `start_day`: parameters by name and states, draws first.

    `fastest` are the largest diffusivity and growth rate that steps are made for.
    """

    model: ReactionDiffusion
    p: dict[str, Float[Array, "draws ..."]]
    u: Float[Array, "draws x y z"]
    start_day: float = eqx.field(static=True)
    fastest: tuple[float, float] = eqx.field(static=True)

    @property
    def draws(self) -> int:
        """How many."""
        return self.u.shape[0]

    def some(self, which: slice) -> "Tumours":
        """Those draws alone."""
        p, u = jax.tree.map(lambda leaf: leaf[which], (self.p, self.u))
        return Tumours(self.model, p, u, self.start_day, self.fastest)

    @staticmethod
    def lumped(
        p: Mapping[str, ArrayLike],
        u: ArrayLike,
        law: GrowthLaw | None = None,
        start_day: float = 0.0,
    ) -> "Tumours":
        """Tumours that are one number each, a share of a carrying capacity of 1 mm³, growing by a
        law (logistic unless given). Raises InputError for a share or a rate that is not positive
        and finite."""
        drawn = {name: jnp.atleast_1d(jnp.asarray(value, float)) for name, value in p.items()}
        count = max(jnp.size(jnp.asarray(u)), *(value.size for value in drawn.values()))
        drawn = {name: jnp.broadcast_to(value, (count,)) for name, value in drawn.items()}
        start = jnp.broadcast_to(jnp.asarray(u, float).ravel(), (count,))
        problems = []
        if not bool(jnp.all(start > 0)):
            problems.append(Problem("Tumours.lumped: u", f"{start.min():g}", "cells to treat"))
        for name, value in drawn.items():
            if not bool(jnp.all(jnp.isfinite(value) & (value >= 0))):
                found = f"{float(value.min()):g} to {float(value.max()):g}"
                problems.append(Problem(f"Tumours.lumped: {name}", found, "0 or more", "a sign"))
        if problems:
            raise InputError(*problems)
        drawn.setdefault("diffusivity_mm2_per_day", jnp.zeros(count))
        model = ReactionDiffusion(jnp.ones((1, 1, 1), bool), law=law or Logistic())
        rate = float(drawn["growth_rate_per_day"].max())
        return Tumours(model, drawn, start[:, None, None, None], start_day, (0.0, rate))

    @staticmethod
    def of(calibrated: Calibrated, draws: int = 32, seed: int = 0) -> "Tumours":
        """Draws of a patient's posterior at the last calibrated visit, as fields."""
        found = calibrated.posterior
        p, u = drawn_states(found, jax.random.split(jax.random.key(seed), draws))
        fastest = (
            upper(found, "diffusivity_mm2_per_day", 3.0),
            largest(found.inverse.priors, "growth_rate_per_day", 1.0),
        )
        return Tumours(found.inverse.model, p, u, calibrated.visits[-1].day, fastest)

    def believed(self, priors: Mapping[str, LogNormal], seed: int = 0) -> "Tumours":
        """The same, with draws from priors of the parameters that are not there yet: what a
        treatment not given so far may do."""
        rng, tumours = np.random.default_rng(seed), self
        for name, prior in priors.items():
            z = rng.standard_normal(self.draws)
            if name not in self.p:
                values = prior.median * np.exp(prior.log_sd * z)
                tumours = tumours.with_parameter(name, values)
        return tumours

    def with_parameter(self, name: str, values: ArrayLike) -> "Tumours":
        """The same with one more parameter, a value for each draw, such as `alpha_over_beta_gy`."""
        drawn = jnp.broadcast_to(jnp.asarray(values, float), (self.draws,))
        return eqx.tree_at(lambda t: t.p, self, {**self.p, name: drawn})


class Regimen(eqx.Module):
    """θ of a treatment: a plan, and the steps through it from the first day to `until_day`."""

    plan: Plan
    steps: Steps

    def given(self, doses: Doses) -> "Regimen":
        """The same days with other doses: "radiotherapy" in Gy, drugs by agent; differentiable."""
        regimen = self
        for name, dose in doses.items():
            dosed = _fractions if name == "radiotherapy" else _drug
            regimen = dosed(regimen, name, dose)
        return regimen


def regimen(tumours: Tumours, plan: Plan, until_day: float, tolerance: float = 1e-3) -> Regimen:
    """A plan for these tumours. Raises InputError for an `until_day` not after their first."""
    diffusivity, growth = tumours.fastest
    steps = steps_between(
        tumours.model,
        plan,
        tumours.start_day,
        until_day,
        largest_diffusivity_mm2_per_day=diffusivity,
        largest_growth_rate_per_day=growth,
        tolerance=tolerance,
    )
    return Regimen(plan, steps)


def _drug(regimen: Regimen, agent: str, doses: Array) -> Regimen:
    for i, given in enumerate(regimen.plan.chemotherapy):
        if given.agent == agent:
            where = given.course if isinstance(given, Saturating) else given
            dosed = eqx.tree_at(lambda drug: drug.doses, where, doses)
            if isinstance(given, Saturating):
                dosed = eqx.tree_at(lambda drug: drug.course, given, dosed)
            return eqx.tree_at(lambda r, i=i: r.plan.chemotherapy[i], regimen, dosed)
    agents = ", ".join(drug.agent for drug in regimen.plan.chemotherapy) or "no drug"
    raise InputError(Problem("Regimen.given", f"agent {agent!r}", agents))


def _fractions(regimen: Regimen, name: str, doses: Array) -> Regimen:
    """Doses on the plan's days; q of `linear_quadratic` is linear in them."""
    course_of = regimen.plan.radiotherapy
    if course_of is None:
        raise InputError(Problem("Regimen.given", name, "a plan with radiotherapy"))
    unit = np.eye(course_of.days.size)
    together = np.stack([_with(course_of, row).together_gy() for row in unit], axis=1)
    start = np.asarray(regimen.steps.start_day)
    at = (start[:, None] == np.asarray(course_of.days)).astype(float)
    new = (at @ doses, at @ (together @ doses))
    where = (doses, *new)
    return eqx.tree_at(
        lambda r: (r.plan.radiotherapy.doses_gy, r.steps.fraction_gy, r.steps.together_gy),
        regimen,
        where,
    )


def _with(course_of: Radiotherapy, doses: np.ndarray) -> Radiotherapy:
    return eqx.tree_at(lambda c: c.doses_gy, course_of, doses)


@eqx.filter_jit
def log_burdens(
    tumours: Tumours, regimen: Regimen, endpoint: str = "burden"
) -> Float[Array, " draws"]:
    """ln of the total cellularity (mm³) of each draw at the end of a regimen, "burden", or its
    mean over the time of the regimen, "mean burden". Differentiable in doses and tumours."""
    along = _courses(tumours, regimen)
    if endpoint == "burden":
        return along[:, -1]
    length = jnp.asarray(regimen.steps.end_day) - jnp.asarray(regimen.steps.start_day)
    return along @ (length / jnp.sum(length))


@eqx.filter_jit
def burden_courses(tumours: Tumours, regimen: Regimen) -> Float[Array, "draws steps"]:
    """ln of the total cellularity (mm³) of each draw at the end of each step."""
    return _courses(tumours, regimen)


def _courses(tumours: Tumours, regimen: Regimen) -> Float[Array, "draws steps"]:
    voxel = float(np.prod(tumours.model.spacing_mm))

    def measured(u: Array) -> Array:
        return jnp.log(jnp.sum(u) * voxel + LEAST_CELLS)

    def one(drawn: tuple) -> Array:
        p, u = drawn
        return course(tumours.model, regimen.plan, p, u, regimen.steps, measured)[1]

    size = tumours.u[0].size
    together = int(np.clip(VOXELS_TOGETHER // size, 1, TOGETHER))
    return jax.lax.map(one, (tumours.p, tumours.u), batch_size=together)


def expected(log_burden: Float[Array, " draws"]) -> Float[Array, ""]:
    """The mean over draws: of the log, so that no draw rules the others."""
    return jnp.mean(log_burden)


def worst_decile(log_burden: Float[Array, " draws"], share: float = 0.1) -> Float[Array, ""]:
    """The mean of the worst tenth of the draws, the conditional value at risk; with fewer than ten
    that of the worst. Rockafellar & Uryasev 2000, doi:10.21314/JOR.2000.038.

    >>> float(worst_decile(jnp.arange(20.0)))
    18.5
    """
    weights = jnp.asarray(worst_weights(log_burden.size, share), log_burden.dtype)
    return jnp.sort(log_burden) @ weights


def worst_weights(draws: int, share: float = 0.1) -> Float[np.ndarray, " draws"]:
    """Of draws in rising order, in the mean of the largest of them."""
    wanted = max(share * draws, 1.0)
    return np.clip(wanted - np.arange(draws), 0.0, 1.0)[::-1] / wanted


ENDPOINTS = ("burden", "mean burden")
OBJECTIVES: Mapping[str, Callable[[Array], Array]] = {
    "expected": expected,
    "worst decile": worst_decile,
}


def loss_of(
    tumours: Tumours, objective: str, endpoint: str
) -> Callable[[Regimen], Inexact[Array, ""]]:
    """loss(regimen) for `learn.optimise_design`. Raises InputError for names that are none."""
    for name, choices in ((objective, OBJECTIVES), (endpoint, ENDPOINTS)):
        if name not in choices:
            raise InputError(Problem("decisions", repr(name), f"one of {', '.join(choices)}"))
    return lambda regimen: OBJECTIVES[objective](log_burdens(tumours, regimen, endpoint))


def chemotherapy_of(plan: Plan, drugs: tuple[Chemotherapy | Saturating, ...]) -> Plan:
    """A plan with other drugs in the place of its own of the same names."""
    names = {drug.agent for drug in drugs}
    kept = tuple(drug for drug in plan.chemotherapy if drug.agent not in names)
    return eqx.tree_at(lambda p: p.chemotherapy, plan, (*kept, *drugs))
