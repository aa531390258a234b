"""From a patient's visits to a calibrated model: the public face of the inverse problem."""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mrphys.errors import InputError, Problem
from mrphys.units import WATER_DIFFUSIVITY_37C_MM2_PER_S
from mrphys.volume import Volume
from oncology import observe
from oncology.appearance import ENHANCING, NECROTIC, OEDEMA, LabelledMask
from oncology.cohort import Patient, Visit
from oncology.domain import Crop, crop_around, model_for, reach_mm
from oncology.growth import GrowthMap, ReactionDiffusion
from oncology.growth_laws import GrowthLaw
from oncology.identifiability import identifiability
from oncology.inverse import (
    LEAST_MODEL_ERROR,
    Inverse,
    Posterior,
    estimate,
    log_evidence,
    map_estimate,
    newton_step,
    posterior,
)
from oncology.observe import CellularityMap, Observation, VisibleMask
from oncology.priors import LogNormal, default_priors
from oncology.timeline import steps_between
from oncology.treatment import Plan, plan

if TYPE_CHECKING:
    from oncology.forecast import Forecast

STRUCTURED = 2.0
MOST_LOCAL_COEFFICIENTS = 180
LEAST_SD = 0.01
MOST_STEP = 0.3
"""Of a search that has ended: the step still proposed, in standard deviations of a parameter."""
MOST_MARGIN_MM = 40.0
"""The grid is never wider around the tumour: parameters that reach farther are hardly known."""


@dataclass(frozen=True)
class CellularityScale:
    """ADC of free water (no cells) and of the densest voxel (carrying capacity), mm²/s."""

    adc_w_mm2_per_s: float
    adc_min_mm2_per_s: float


@dataclass(frozen=True, eq=False)
class Calibrated:
    """A patient's model with the posterior of its parameters."""

    patient: Patient
    visits: tuple[Visit, ...]
    crop: Crop
    posterior: Posterior
    scale: CellularityScale | None
    tolerance: float
    warnings: tuple[str, ...]

    @property
    def inverse(self) -> Inverse:
        """The inverse problem that was solved."""
        return self.posterior.inverse

    def forecast(self, day: float, key: Array | None = None, **options: Any) -> "Forecast":
        """`oncology.forecast` of one day from this calibration; key 0 unless given."""
        from oncology.forecast import forecast

        return forecast(self, day, jax.random.key(0) if key is None else key, **options)


def scale_of(
    visits: Sequence[Visit], adc_w_mm2_per_s: float | None, adc_min_mm2_per_s: float | None
) -> CellularityScale | None:
    """The ADC scale of cellularity: as given, else free water at 37 °C and the first percentile
    of ADC in the drawn tumours of the visits (the densest voxel, less its noise).

    None when no visit has an ADC map. Raises InputError when ADC_min is not below ADC_w.
    """
    values = [
        np.asarray(visit.adc_mm2_per_s.data)[np.asarray(visit.tumor.data)]
        for visit in visits
        if visit.adc_mm2_per_s is not None
    ]
    if not values:
        return None
    water = WATER_DIFFUSIVITY_37C_MM2_PER_S if adc_w_mm2_per_s is None else adc_w_mm2_per_s
    densest = adc_min_mm2_per_s
    if densest is None:
        densest = float(np.percentile(np.concatenate(values), 1))
    if not 0 <= densest < water < 0.01:
        raise InputError(
            Problem(
                "cellularity scale",
                f"ADC_w = {water:g}, ADC_min = {densest:g} mm²/s",
                "0 <= ADC_min < ADC_w < 0.01 mm²/s",
                "values in 1e-6 mm²/s" if water > 1 else "the two exchanged",
            )
        )
    return CellularityScale(water, densest)


def observation_of(
    visit: Visit,
    model: ReactionDiffusion,
    crop: Crop,
    scale: CellularityScale | None,
    threshold: float | None = None,
) -> Observation:
    """What one visit shows on the model's grid: its cellularity map, else that from its ADC, else
    its labels, else its mask as density above the threshold of the image it was drawn on."""
    mask, spacing = crop.cut(visit.tumor), model.spacing_mm
    habitable = np.asarray(model.habitable)
    sd = None
    if visit.cellularity is not None:
        value = crop.cut(visit.cellularity).astype(float)
    elif visit.adc_mm2_per_s is not None and scale is not None:
        adc = crop.cut(visit.adc_mm2_per_s).astype(float)
        span = scale.adc_w_mm2_per_s - scale.adc_min_mm2_per_s
        value = np.asarray(observe.cellularity(adc, scale.adc_w_mm2_per_s, scale.adc_min_mm2_per_s))
        if visit.adc_sd_mm2_per_s is not None:
            sd = crop.cut(visit.adc_sd_mm2_per_s).astype(float) / span
    elif threshold is None and visit.tumor_labels is not None and labelled(visit.tumor_labels):
        return LabelledMask(crop.cut(visit.tumor_labels), habitable, spacing)
    else:
        return VisibleMask(mask, habitable, spacing, threshold or visible_threshold(visit))
    if sd is None:
        sd = np.full(mask.shape, observe.noise_sd(value, mask, spacing))
    known = np.isfinite(value) & np.isfinite(sd)
    return CellularityMap(
        np.where(known, value, 0.0),
        np.where(known, np.maximum(sd, LEAST_SD), LEAST_SD),
        mask & known,
        habitable,
        spacing,
    )


def labelled(drawn: Volume) -> bool:
    """Whether oedema and a core were drawn apart."""
    labels = set(np.unique(np.asarray(drawn.data)).tolist())
    return OEDEMA in labels and bool(labels & {NECROTIC, ENHANCING})


def visible_threshold(visit: Visit) -> float:
    """Density at the edge of a drawn tumour: that of T2/FLAIR where only those were taken,
    of contrast enhancement otherwise."""
    suffixes = " ".join(visit.anatomy)
    only_flair = ("FLAIR" in suffixes or "T2w" in suffixes) and "T1w" not in suffixes
    return observe.FLAIR_THRESHOLD if only_flair else observe.ENHANCING_THRESHOLD


def largest(priors: Mapping[str, LogNormal], name: str, deviations: float = 2.5) -> float:
    """A value of one parameter that its prior hardly ever exceeds."""
    prior = priors[name]
    return prior.median * float(np.exp(deviations * prior.log_sd))


def calibrate(
    patient: Patient,
    visits: Sequence[str | int],
    *,
    until_day: float | None = None,
    priors: Mapping[str, LogNormal] | None = None,
    growth: str = "auto",
    adc_w_mm2_per_s: float | None = None,
    adc_min_mm2_per_s: float | None = None,
    threshold: float | None = None,
    tolerance: float = 1e-3,
    law: GrowthLaw | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> Calibrated:
    """Calibrate the model on the visits named, in order of day.

    One visit is enough where `priors` are given, such as those of a cohort (`oncology.hierarchy`).

    `growth` is "global" (one rate), "local" (a smooth map of rates), or "auto": local where one
    rate leaves spatial structure in the last map and the evidence prefers a map. `until_day` is
    the last day that will be forecast: the grid is cut so that the tumour stays clear of its edge
    until then; `law` is the growth law. Raises InputError for fewer visits, unordered ones, or
    visits without what is needed, and where the search does not converge: it names the parameter
    and shows its profile.
    """
    given = tuple(patient.visit(name) for name in visits)
    _require_order(given, growth, priors is not None)
    if until_day is not None:
        require_later(until_day, given[-1].day)
    priors = dict(priors or default_priors(plan(patient.treatments)))
    until = given[-1].day if until_day is None else until_day
    scale = scale_of(given, adc_w_mm2_per_s, adc_min_mm2_per_s)
    treatments = plan(patient.treatments)
    warnings: list[str] = []
    margin = reach_mm(
        until - given[0].day,
        largest(priors, "diffusivity_mm2_per_day", 0.75),
        largest(priors, "growth_rate_per_day", 0.75),
    )
    margin = min(margin, MOST_MARGIN_MM)
    fastest = largest(priors, "diffusivity_mm2_per_day", 1.0)
    for _ in range(4):
        crop = crop_around(given, margin)
        model = model_for(patient, crop, given)
        model = model if law is None else eqx.tree_at(lambda m: m.law, model, law)
        observations = tuple(observation_of(v, model, crop, scale, threshold) for v in given)
        progress(f"calibrating on a grid of {' x '.join(map(str, model.habitable.shape))}")
        inverse = _inverse(model, treatments, observations, given, priors, tolerance, fastest)
        found = _solve(inverse)
        needed = reach_mm(
            until - given[0].day,
            upper(found, "diffusivity_mm2_per_day", 1.0),
            upper(found, "growth_rate_per_day", 1.0),
        )
        wide = min(needed, MOST_MARGIN_MM) <= margin
        wide = wide or crop_around(given, needed).box == crop.box
        spread = upper(found, "diffusivity_mm2_per_day", 3.0)
        if wide and spread <= fastest:
            break
        margin = margin if wide else min(1.2 * needed, MOST_MARGIN_MM)
        fastest = max(fastest, 1.2 * spread)
    if growth == "local" or (growth == "auto" and float(found.structure) > STRUCTURED):
        progress("calibrating a local growth map")
        found = _with_local_growth(found, growth == "local")
    require_convergence(patient.subject, found)
    unexplained = float(found.excess) > LEAST_MODEL_ERROR**2
    if found.inverse.model.growth_map is None and unexplained:
        warnings.append(
            "The last calibrated map departs from one global growth rate by more than noise: a "
            f"model error of {100 * float(found.model_error):.0f} % of cellularity at half density."
        )
    return Calibrated(patient, given, crop, found, scale, tolerance, tuple(warnings))


def require_later(day: float, last_day: float) -> None:
    """Raises InputError for a day that is not after the last calibrated visit."""
    if not day > last_day:
        raise InputError(
            Problem("forecast", f"day {day:g}", f"a day after the last calibrated ({last_day:g})")
        )


def require_convergence(where: str, found: Posterior) -> None:
    """Raises InputError where the search ended off its optimum: the parameter that it is farthest
    from, in standard deviations, and its profile."""
    finite = np.all(np.isfinite(np.asarray(found.covariance)))
    step, sd = (np.asarray(x) for x in newton_step(found))
    if finite and np.all(np.abs(step) < MOST_STEP * sd):
        return
    names = list(found.inverse.priors)
    ratio = np.abs(step / sd)[: len(names)]
    worst = names[int(np.argmax(np.where(np.isfinite(ratio), ratio, np.inf)))]
    what = f"a calibration that does not converge, farthest off in {worst}"
    cause = "a tumour that vanished or doubled within days between visits"
    if finite:
        cause = f"its profile: {identifiability(found, [worst])[worst]}"
    raise InputError(Problem(where, what, "visits the model can connect", cause))


def _require_order(given: tuple[Visit, ...], growth: str, with_priors: bool) -> None:
    names = ", ".join(f"{visit.session} (day {visit.day:g})" for visit in given)
    if len(given) < (1 if with_priors else 2):
        expected = "two visits or more, or one with the priors of a cohort"
        cause = "one scan shows no rate; `oncology.population` has those of others as a prior"
        raise InputError(Problem("calibrate", names or "no visits", expected, cause))
    if not all(a.day < b.day for a, b in itertools.pairwise(given)):
        raise InputError(Problem("calibrate", names, "visits in order of day, none twice"))
    if growth not in ("auto", "global", "local"):
        raise InputError(Problem("growth", repr(growth), "'auto', 'global' or 'local'"))


def _inverse(
    model: ReactionDiffusion,
    treatments: Plan,
    observations: tuple[Observation, ...],
    given: tuple[Visit, ...],
    priors: Mapping[str, LogNormal],
    tolerance: float,
    fastest: float,
) -> Inverse:
    """The inverse problem, its steps stable up to the diffusivity `fastest`, mm²/day."""
    legs = tuple(
        steps_between(
            model,
            treatments,
            a.day,
            b.day,
            largest_diffusivity_mm2_per_day=fastest,
            largest_growth_rate_per_day=largest(priors, "growth_rate_per_day", 1.0),
            tolerance=tolerance,
        )
        for a, b in itertools.pairwise(given)
    )
    return Inverse(model, treatments, observations, legs, priors)


def _solve(inverse: Inverse) -> Posterior:
    """The posterior at the maximum that `estimate` finds."""
    found = estimate(inverse)
    return posterior(found.inverse, found.z)


def upper(found: Posterior, name: str, deviations: float) -> float:
    """One parameter, so many standard deviations of its logarithm above the estimate."""
    i = list(found.inverse.priors).index(name)
    prior = found.inverse.priors[name]
    z = float(found.z[i] + deviations * jnp.sqrt(found.covariance[i, i]))
    return prior.median * float(np.exp(prior.log_sd * min(z, 4.0)))


def _with_local_growth(found: Posterior, always: bool) -> Posterior:
    """The posterior with a growth map, if asked for or better supported by the evidence. The
    finest lattice is two voxels a control point, coarser where that has too many."""
    inverse = eqx.tree_at(
        lambda i: i.observations,
        found.inverse,
        tuple(seen.for_noise_alone() for seen in found.inverse.observations),
    )
    maps = [seen for seen in inverse.observations if isinstance(seen, CellularityMap)]
    if len(maps) < len(inverse.observations):
        if always:
            raise InputError(
                Problem("growth 'local'", "visits with masks alone", "cellularity or ADC maps")
            )
        return found
    region = np.logical_or.reduce([np.asarray(seen.mask) for seen in maps])
    spacing = inverse.model.spacing_mm
    control = 2 * min(spacing)
    while (basis := GrowthMap(region, spacing, control)).size > MOST_LOCAL_COEFFICIENTS:
        control *= 1.25
    local = eqx.tree_at(
        lambda i: i.model.growth_map, inverse, basis, is_leaf=lambda leaf: leaf is None
    )
    better = _solve(local)
    noise_alone = log_evidence(inverse, map_estimate(inverse, found.z))
    return better if always or better.log_evidence > noise_alone else found
