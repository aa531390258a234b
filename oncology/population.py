r"""Growth of a tumour foretold from other patients': a hierarchical model for a handful of pairs.

With two masks a patient shows one number, y = log(V₂ / V₁), from which growth rate k and
diffusivity D cannot be told apart. So the length λ = √(D/k), over which density falls ahead of a
front, keeps the prior that those of D and k imply, and the others tell of k, and of how well the
model foretells volume at all:

    y_j = g_j(k_j Δt_j, λ_j) + e_j,       g_j the model grown from the first mask: `Response`
    log k_j ~ N(μ - s log(Δt_j / 60 days), ω²)
    e_j ~ √(τ² + 2 d²) t₄,                d the error of drawing a mask, in log volume

Given λ the model knows no clock but kΔt: ∂u/∂(kt) = λ²∇²u + u(1 - u). With D held instead, a slow
tumour would fade below what is visible, which no tumour that became visible by this model does.
k is net of whatever treatment was given, which is not known: the median rate may lie anywhere
between arrest and that of untreated tumours. What treatment does beyond (a tumour that shrinks) is
left to e, Student's t with 4 degrees of freedom, under which one odd patient does not widen what
is said of all (Lange, Little & Taylor 1989, doi:10.2307/2290063). s = 0 when scans are made by the
calendar; s = 1 when they wait for growth, a fast tumour being scanned the sooner and kΔt alike for
all (irregular visits: Pullenayegum & Lim 2016, doi:10.1177/0962280214536537).

Five pairs do not fix (μ, ω, s, τ): estimates put in their place would give intervals far too
narrow (Harville & Jeske 1992, doi:10.1080/01621459.1992.10475274). They are integrated over on a
grid instead, weighted by the probability of the others' growth: the product of that of each one
given those before it, so that τ is judged by foretelling (Dawid 1984, doi:10.2307/2981683).
Half-normal and half-Cauchy priors for standard deviations: Gelman 2006, doi:10.1214/06-BA117A.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jax.scipy.stats import t
from jaxtyping import Array, ArrayLike, Float
from scipy.interpolate import PchipInterpolator

from mrphys.errors import InputError, Problem
from oncology.calibration import visible_threshold
from oncology.cohort import Patient, Visit
from oncology.domain import Crop, crop_around, model_for
from oncology.growth import ReactionDiffusion
from oncology.observe import VisibleMask, visible_volume_mm3
from oncology.priors import DIFFUSIVITY, GROWTH_RATE, LogNormal
from oncology.timeline import Steps, integrate, steps_between
from oncology.treatment import plan

TURNOVERS = np.geomspace(0.02, 10.0, 10)
"""kΔt, where a table has its nodes: from a tumour that stands still to one that fills its box."""
LENGTH_DEVIATIONS = np.linspace(-1.5, 1.5, 5)
REFINEMENT = 4
MARGIN_MM = 25.0
TOLERANCE = 1e-2

DRAWING_SD = 0.15
"""Standard deviation of log volume between two drawings of one tumour, as in `VisibleMask`."""
ARREST = 0.01
"""Median rate under treatment, over that without, below which no tumour grows between visits."""
DISCREPANCY_FREEDOM = 4.0
STABLE_LOG_VOLUME = 0.34
"""Growth that the clinic calls stable: 25 % in the product of diameters, 40 % in volume, log 0.34
(Wen et al. 2010, doi:10.1200/JCO.2009.26.3541). The scale of the prior of τ."""
USUAL_INTERVAL_DAYS = 60.0
"""Between scans, about: where s has no say."""


def infiltration_prior(
    diffusivity: LogNormal = DIFFUSIVITY, growth_rate: LogNormal = GROWTH_RATE
) -> LogNormal:
    """The prior of λ = √(D/k) that independent ones of D and k imply.

    >>> round(infiltration_prior().median, 2), round(infiltration_prior().log_sd, 2)
    (1.41, 0.78)
    """
    spread = np.hypot(diffusivity.log_sd, growth_rate.log_sd) / 2
    median = np.sqrt(diffusivity.median / growth_rate.median)
    return LogNormal(float(median), float(spread), "mm", diffusivity.source)


class OnceSeen(eqx.Module):
    """A tumour seen once, ready to grow to a later day: nothing here knows what was seen then."""

    model: ReactionDiffusion
    first: VisibleMask
    steps: Steps
    crop: Crop
    days: float = eqx.field(static=True)

    def grown(self, log_turnovers: ArrayLike, log_length: ArrayLike) -> tuple[Array, Array]:
        """The states on the first and the later day, at log kΔt and log λ."""
        rate = jnp.exp(jnp.asarray(log_turnovers)) / self.days
        diffusivity = jnp.exp(2 * jnp.asarray(log_length)) * rate
        p = {"growth_rate_per_day": rate, "diffusivity_mm2_per_day": diffusivity}
        start = self.first.state(p, jnp.zeros_like(self.first.error_sd))
        return start, integrate(self.model, plan(()), p, start, self.steps)

    def log_growth(self, log_turnovers: ArrayLike, log_length: ArrayLike) -> Float[Array, ""]:
        """log of visible volume on the later day over that on the first."""
        states = self.grown(log_turnovers, log_length)
        before, after = (visible_volume_mm3(u, self.first.threshold, 1.0) for u in states)
        return jnp.log(after / before)


def seen_once(patient: Patient, visit: Visit, day: float, margin_mm: float = MARGIN_MM) -> OnceSeen:
    """The tumour of one visit, to be grown to `day`, with `margin_mm` of its surroundings.

    Growth that fills the box stops; by then the volume has grown more than patients survive. No
    other visit is looked at. Where voxels are longer than λ fronts run too fast through them, as
    from slice to slice of a clinical scan, so k is that of scans like these. Raises InputError
    for a day that is not later, or a visit without tumour.
    """
    crop = crop_around([visit], margin_mm)
    model = model_for(replace(patient, visits=(visit,)), crop)
    largest_rate = float(TURNOVERS[-1]) / max(day - visit.day, 1e-9)
    steps = steps_between(
        model,
        plan(()),
        visit.day,
        day,
        largest_diffusivity_mm2_per_day=float(_lengths_mm()[-1]) ** 2 * largest_rate,
        largest_growth_rate_per_day=largest_rate,
        tolerance=TOLERANCE,
    )
    habitable, threshold = np.asarray(model.habitable), visible_threshold(visit)
    first = VisibleMask(
        crop.cut(visit.tumor), habitable, model.spacing_mm, threshold, log_volume_sd=DRAWING_SD
    )
    return OnceSeen(model, first, steps, crop, day - visit.day)


class Response(eqx.Module):
    """log(V₂ / V₁) of one patient's model after `days`, on even nodes of log kΔt and log λ.

    One forward run takes a tenth of a second and a table of them seconds; thousands of draws from
    it are free. Between nodes linear, beyond them constant. `days` is Δt.
    """

    log_turnovers: Float[Array, " k"]
    log_length: Float[Array, " l"]
    log_growth: Float[Array, "k l"]
    days: Float[Array, ""]

    def __call__(
        self, log_rate: Float[Array, "..."], log_length: Float[Array, "..."]
    ) -> Float[Array, "..."]:
        """log(V₂ / V₁) at any k (1/day) and λ (mm), both as logarithms."""
        pairs = (
            (log_rate + jnp.log(self.days), self.log_turnovers),
            (log_length, self.log_length),
        )
        places = [(at - nodes[0]) / (nodes[1] - nodes[0]) for at, nodes in pairs]
        places = jnp.broadcast_arrays(*places)
        return map_coordinates(self.log_growth, places, order=1, mode="nearest")


def response(
    tumor: OnceSeen, progress: Callable[[int, int], None] = lambda done, of: None
) -> Response:
    """The table of one patient: 10 kΔt from 0.02 to 10 by 5 λ within 1.5 standard deviations of
    its prior, refined fourfold by monotone cubics (Fritsch & Butland 1984,
    doi:10.1137/0905021). `progress(done, of)` is called after each run."""
    log_turnovers, log_length = np.log(TURNOVERS), np.log(_lengths_mm())
    run = eqx.filter_jit(OnceSeen.log_growth)
    table = np.empty((log_turnovers.size, log_length.size))
    for done, (i, j) in enumerate(np.ndindex(table.shape), start=1):
        at = jnp.asarray(log_turnovers[i], float), jnp.asarray(log_length[j], float)
        table[i, j] = run(tumor, *at)
        progress(done, table.size)
    finer = [
        np.linspace(nodes[0], nodes[-1], REFINEMENT * (nodes.size - 1) + 1)
        for nodes in (log_turnovers, log_length)
    ]
    nodes = [jnp.asarray(axis, float) for axis in finer]
    growth = PchipInterpolator(log_turnovers, table, axis=0)(finer[0])
    growth = jnp.asarray(PchipInterpolator(log_length, growth, axis=1)(finer[1]), float)
    return Response(nodes[0], nodes[1], growth, jnp.asarray(tumor.days, float))


def _lengths_mm() -> Float[np.ndarray, " l"]:
    prior = infiltration_prior()
    return prior.median * np.exp(prior.log_sd * LENGTH_DEVIATIONS)


class Pair(eqx.Module):
    """A patient seen twice: the model's response, and the log(V₂ / V₁) that was drawn."""

    response: Response
    log_growth: float


class Population(eqx.Module):
    """What a cohort tells of the next patient: weighted points (μ, ω, s, τ) of the hierarchy."""

    mean_log_rate: Float[Array, " h"]
    log_rate_sd: Float[Array, " h"]
    follow: Float[Array, " h"]
    discrepancy_sd: Float[Array, " h"]
    weight: Float[Array, " h"]
    length: LogNormal
    drawing_sd: float

    def growth_rate(self, days: float) -> LogNormal:
        """The prior of the next patient's net rate, scanned again after `days`: log-normal with
        the mean and variance that log k has over all points."""
        middle = self.mean_log_rate - self.follow * np.log(days / USUAL_INTERVAL_DAYS)
        mean = jnp.sum(self.weight * middle)
        spread = jnp.sum(self.weight * (self.log_rate_sd**2 + (middle - mean) ** 2))
        source = "patients of the same cohort, integrated over their population"
        return LogNormal(float(jnp.exp(mean)), float(jnp.sqrt(spread)), "1/day", source)

    def log_growth(self, of: Response, key: Array, draws: int = 4000) -> Float[Array, " draws"]:
        """Samples of log(V₂ / V₁), both volumes as they would be drawn."""
        keys = jax.random.split(key, 4)
        at = jax.random.choice(keys[0], self.weight.size, (draws,), p=self.weight)
        z_rate, z_length = (jax.random.normal(k, (draws,)) for k in keys[1:3])
        middle = self.mean_log_rate - self.follow * jnp.log(of.days / USUAL_INTERVAL_DAYS)
        log_rate = middle[at] + self.log_rate_sd[at] * z_rate
        log_length = np.log(self.length.median) + self.length.log_sd * z_length
        rest = jnp.sqrt(self.discrepancy_sd[at] ** 2 + 2 * self.drawing_sd**2)
        odd = jax.random.t(keys[3], DISCREPANCY_FREEDOM, (draws,))
        return of(log_rate, log_length) + rest * odd


def learn_from(
    pairs: Sequence[Pair],
    *,
    growth_rate: LogNormal = GROWTH_RATE,
    diffusivity: LogNormal = DIFFUSIVITY,
    drawing_sd: float = DRAWING_SD,
    follow: Sequence[float] = (0.0, 0.25, 0.5, 0.75, 1.0),
) -> Population:
    """The population that these patients were drawn from, as far as they tell.

    Before any is seen: μ uniform from a hundredth of the median of `growth_rate` (arrest) to the
    whole (treatment without effect), ω half-normal with the prior's own spread, τ half-Cauchy with
    scale 0.34, s any of `follow`. Raises InputError for no pairs, or a growth that is not finite
    (an empty mask).
    """
    if not pairs:
        raise InputError(Problem("learn_from", "no pairs", "other patients, each seen twice"))
    for number, pair in enumerate(pairs, start=1):
        if not np.isfinite(pair.log_growth):
            where, found = f"learn_from, pair {number}", f"log growth {pair.log_growth}"
            raise InputError(Problem(where, found, "a finite number", "an empty mask"))
    centre, length = np.log(growth_rate.median), infiltration_prior(diffusivity, growth_rate)
    mean = centre + np.linspace(np.log(ARREST), 0.0, 21)
    spread = growth_rate.log_sd * np.linspace(0.1, 3.0, 9)
    rest = np.geomspace(0.02, 3.0, 12)
    grid = np.meshgrid(mean, spread, np.asarray(follow, float), rest, indexing="ij")
    mean, spread, slope, rest = (axis.ravel() for axis in grid)
    log_prior = -((spread / growth_rate.log_sd) ** 2) / 2
    log_prior += np.log(rest / (1 + (rest / STABLE_LOG_VOLUME) ** 2))
    points = tuple(jnp.asarray(axis, float) for axis in (mean, spread, slope, rest))
    score = jnp.asarray(log_prior, float)
    for pair in pairs:
        seen = jnp.asarray(pair.log_growth, float)
        score = score + _log_evidence(pair.response, seen, points, length, drawing_sd)
    weight = jax.nn.softmax(score)
    return Population(points[0], points[1], points[2], points[3], weight, length, drawing_sd)


@eqx.filter_jit
def _log_evidence(
    of: Response, seen: Array, points: tuple[Array, ...], length: LogNormal, drawing_sd: float
) -> Float[Array, " h"]:
    """log p(y_j | μ, ω, s, τ), k_j integrated out by the trapezoidal rule, fine enough for the
    widest ω and least τ, and λ_j by Gauss-Hermite quadrature."""
    mean, spread, slope, rest = points
    z_rate = np.linspace(-4.0, 4.0, 41)
    w_rate = np.exp(-(z_rate**2) / 2)
    z_length, w_length = np.polynomial.hermite_e.hermegauss(5)
    log_length = jnp.asarray(np.log(length.median) + length.log_sd * z_length, float)
    nodes = jnp.asarray(z_rate, float), jnp.asarray(np.log(w_rate / w_rate.sum()), float)
    lengths = jnp.asarray(w_length / w_length.sum(), float)
    middle = mean - slope * jnp.log(of.days / USUAL_INTERVAL_DAYS)
    scale = jnp.sqrt(rest**2 + 2 * drawing_sd**2)

    def at_rate(node: tuple[Array, Array]) -> Array:
        log_rate = middle + spread * node[0]
        growth = of(log_rate[:, None], log_length[None, :])
        log_density = t.logpdf(seen, DISCREPANCY_FREEDOM, growth, scale[:, None])
        return jax.nn.logsumexp(log_density, axis=1, b=lengths[None, :]) + node[1]

    return jax.nn.logsumexp(jax.lax.map(at_rate, nodes), axis=0)
