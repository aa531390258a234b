"""When to scan next: the days whose readings leave a forecast, or a parameter, least uncertain.

VisitUncertainty    loss(visits), from the Fisher information of what each day would show
optimise_visits     the days that make it least, by the gradient, as a pulse sequence is designed
Ensemble            draws of a forecast as a model of what a day would show
next_visits         the days for one patient's forecast

Local Bayesian design: information adds up over visits, and to that of the posterior. Chaloner &
Verdinelli 1995, doi:10.1214/ss/1177009939.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, PyTree
from scipy.interpolate import PchipInterpolator

from learn.constraints import spaced
from learn.design import Design, optimise_design
from mrphys.errors import InputError, Problem
from mrphys.information import fisher_information, undetermined, variances_of
from mrphys.units import check_finite, check_range
from oncology.forecast import TOTAL, VOLUME, Forecast
from oncology.population import DRAWING_SD
from oncology.priors import physical

Reading = Callable[[PyTree, Array], Array]
"""(q, day) -> what a scan on that day shows, one number or several."""


class Visits(eqx.Module):
    """θ of a follow-up: the days of the scans to come."""

    days: Float[Array, " visits"]


class VisitUncertainty(eqx.Module):
    r"""How uncertain scans on some days leave what is asked of a tumour,

    .. math:: \ell(t) = \sqrt{\tfrac1{mn} \sum_q \sum_a g_a^T
        (P + \textstyle\sum_i F_q(t_i))^{-1} g_a},

    F_q the Fisher information of one reading, P that of what is known before, g_a = ∂ about_a/∂q:
    the root mean square, over m draws of q and n things asked, of the least sd an estimate can
    have. With one thing asked ℓ is its sd, in its unit; log volumes give relative ones. `draws`
    is a tree whose leaves have a leading axis; P is in the order of `ravel_pytree` of one of them.
    Infinite where the days cannot tell what is asked. Differentiable in the days.
    """

    reading: Reading
    about: Callable[[PyTree], Array]
    draws: PyTree
    noise_sd: Float[Array, ""]
    known: Float[Array, "parameters parameters"]
    earlier: Float[Array, " visits"]

    def __call__(self, visits: Visits) -> Float[Array, ""]:
        return _uncertainty(self, visits)

    def information(self, q: PyTree, days: Float[Array, " visits"]) -> Float[Array, "n n"]:
        """Of q, by readings on some days and what is known."""

        def shown(q: PyTree) -> Array:
            return jax.vmap(lambda day: self.reading(q, day))(days).ravel()

        return fisher_information(shown, q, self.noise_sd) + self.known

    def variances(self, q: PyTree, days: Float[Array, " visits"]) -> Float[Array, " about"]:
        """Of each thing asked, after readings on some days."""
        flat, unravel = ravel_pytree(q)
        slopes = jax.jacfwd(lambda flat: jnp.ravel(self.about(unravel(flat))))(flat)
        return variances_of(self.information(q, days), slopes)

    def undetermined(self, visits: Visits) -> list[str]:
        """Combinations of parameters that these days cannot tell, at the first draw."""
        first = jax.tree.map(lambda leaf: leaf[0], self.draws)
        found = self.information(first, jnp.concatenate([self.earlier, visits.days]))
        flat, _ = ravel_pytree(first)
        names = [
            jax.tree_util.keystr(path, simple=True) + (f" {i}" if leaf.size > 1 else "")
            for path, leaf in jax.tree_util.tree_leaves_with_path(first)
            for i in range(leaf.size)
        ]
        return undetermined(found, names, flat.tolist())


@eqx.filter_jit
def _uncertainty(of: VisitUncertainty, visits: Visits) -> Float[Array, ""]:
    days = jnp.concatenate([of.earlier, visits.days])
    return jnp.sqrt(jnp.mean(jax.vmap(lambda q: of.variances(q, days))(of.draws)))


def optimise_visits(
    reading: Reading,
    about: Callable[[PyTree], Array],
    q: PyTree,
    days: Sequence[float],
    *,
    noise_sd: float,
    between: tuple[float, float],
    known: ArrayLike | None = None,
    earlier: Sequence[float] = (),
    apart_days: float = 1.0,
    whole_days: bool = False,
    starts: int = 4,
    steps: int = 100,
) -> Design:
    """The days to scan on, from a start `days` on, that leave about(q) least uncertain.

    q           draws of the parameters, along a leading axis of every leaf (one at least); `about`
                and `reading` are for one of them
    noise_sd    of a reading
    between     first and last day possible
    known       information of q before any reading (the inverse covariance of a posterior)
    earlier     days already scanned, of readings that `known` does not hold
    apart_days  least time between two scans

    `Design.theta.days` are the days, `before` and `after` the loss (`VisitUncertainty`). Raises
    InputError for a noise that is not above 0, days outside `between`, no room for the spacing,
    and for days that leave what is asked undetermined.
    """
    check_range("optimise_visits: noise_sd", noise_sd, 1e-12, np.inf, "", "a variance, or none")
    check_finite("optimise_visits: days", list(days))
    first, last = between
    if not (first < last and (len(days) - 1) * apart_days <= last - first):
        found = f"{len(days)} scans {apart_days:g} days apart between day {first:g} and {last:g}"
        raise InputError(Problem("optimise_visits", found, "room for all of them"))
    draws = jax.tree.map(lambda leaf: jnp.asarray(leaf, float), q)
    size = ravel_pytree(jax.tree.map(lambda leaf: leaf[0], draws))[0].size
    before = jnp.zeros((size, size)) if known is None else jnp.asarray(known, float)
    loss = VisitUncertainty(
        reading, about, draws, jnp.asarray(noise_sd, float), before, jnp.asarray(earlier, float)
    )
    start = Visits(jnp.asarray(sorted(days), float))
    if not np.isfinite(float(loss(start))):
        untold = "; nor ".join(loss.undetermined(start))
        found = f"scans on days {', '.join(f'{day:g}' for day in sorted(days))}"
        cause = f"too few days: nothing tells {untold}" if untold else "a model without a value"
        raise InputError(Problem("optimise_visits", found, "days that determine the answer", cause))
    kept = [spaced("day", apart_days, "days")] if len(days) > 1 else []
    return optimise_design(
        lambda p: Visits(p["day"]),
        {"day": start.days},
        loss,
        limits={"day": between},
        constraints=kept,
        raster={"day": 1.0} if whole_days else None,
        starts=starts,
        steps=steps,
    )


class Ensemble(eqx.Module):
    r"""Draws of a course as a linear model of a reading on any day,

    .. math:: y(t, w) = \bar y(t) + \sum_j (y_j(t) - \bar y(t))\, w_j / \sqrt{n - 1},
        \quad w \sim N(0, I),

    which has the draws' mean and covariances on and between all days: `known` is the identity, and
    w the unknown. Readings lower variances as in an ensemble Kalman filter. n draws find
    correlations of 1/√n where there are none: ask for 48 and more. Between the days of the draws
    each is a monotone cubic (Fritsch & Butland 1984, doi:10.1137/0905021).
    """

    days: Float[Array, " days"]
    cubic: Float[Array, "4 intervals draws"]
    mean: Float[Array, "4 intervals"]

    def __init__(self, days: Float[np.ndarray, " days"], values: Float[np.ndarray, "draws days"]):
        kept = np.concatenate([[True], np.diff(days) > 0])
        pieces = PchipInterpolator(days[kept], values[:, kept], axis=1)
        cubic = pieces.c
        self.days = jnp.asarray(days[kept])
        self.mean = jnp.asarray(cubic.mean(axis=2))
        spread = (cubic - cubic.mean(axis=2, keepdims=True)) / np.sqrt(len(values) - 1)
        self.cubic = jnp.asarray(spread)

    def __call__(self, w: Float[Array, " draws"], day: ArrayLike) -> Float[Array, ""]:
        """y(t, w)."""
        t = jnp.clip(jnp.asarray(day, self.days.dtype), self.days[0], self.days[-1])
        i = jnp.clip(jnp.searchsorted(self.days, t, side="right") - 1, 0, self.days.size - 2)
        powers = (t - self.days[i]) ** jnp.arange(3, -1, -1)
        return powers @ self.mean[:, i] + powers @ self.cubic[:, i] @ w


class NextVisits(NamedTuple):
    """The days chosen, and the sd of what is asked without a scan, with scans evenly spread, and on
    those days; the search, and its loss."""

    days: tuple[float, ...]
    without: float
    evenly: float
    chosen: float
    design: Design
    loss: VisitUncertainty


def next_visits(
    forecast: Forecast,
    count: int = 1,
    *,
    about: str = VOLUME,
    first_day: float | None = None,
    reading_sd: float = DRAWING_SD,
    apart_days: float = 7.0,
    starts: int = 4,
) -> NextVisits:
    """When to scan a patient next, so as to know most of the forecast's day.

    Each scan reads the log of visible volume with `reading_sd` (0.15: two drawings of one tumour).
    `about` is "volume_mm3" or "total_cellularity_mm3" on the forecast's day, or the name of a
    parameter; the loss is the sd of its logarithm. Whole days from `first_day` (the day after the
    last calibrated visit, unless given) to the day before the forecast's. Raises InputError as
    `optimise_visits`, and for a name that is none of these.
    """
    last = forecast.calibrated.visits[-1].day
    first = last + 1 if first_day is None else first_day
    reading = Ensemble(forecast.days, np.log(np.maximum(forecast.course[VOLUME], 1.0)))
    if about in (VOLUME, TOTAL):
        asked = Ensemble(forecast.days, np.log(np.maximum(forecast.course[about], 1.0)))
        told = eqx.Partial(_on, asked, forecast.day)
    else:
        priors = forecast.calibrated.inverse.priors
        if about not in priors:
            expected = f"one of {', '.join((VOLUME, TOTAL, *priors))}"
            raise InputError(Problem("next_visits: about", repr(about), expected))
        if forecast.z.shape[1] < len(priors):
            found, expected = "an average of models", f"{VOLUME} or {TOTAL}, which all of them have"
            raise InputError(Problem(f"next_visits: {about}", found, expected))
        drawn = np.log(jax.vmap(lambda z: jnp.asarray(physical(priors, z)[about]))(forecast.z))
        told = eqx.Partial(_linear, jnp.asarray(drawn - drawn.mean()) / np.sqrt(len(drawn) - 1))
    until = forecast.day - 1
    begun = np.linspace(first, until, count + 2)[1:-1] if count > 1 else [(first + until) / 2]
    draws = len(forecast.z)
    origin = jnp.zeros((1, draws))
    design = optimise_visits(
        reading,
        told,
        origin,
        [float(day) for day in begun],
        noise_sd=reading_sd,
        between=(first, until),
        known=np.eye(draws),
        apart_days=apart_days,
        whole_days=True,
        starts=starts,
    )
    noise = jnp.asarray(reading_sd, float)
    loss = VisitUncertainty(reading, told, origin, noise, jnp.eye(draws), jnp.zeros(0))
    days = tuple(float(day) for day in design.theta.days)
    nothing = float(loss(Visits(jnp.zeros(0))))
    return NextVisits(days, nothing, design.before, design.after, design, loss)


def _on(course: Ensemble, day: float, w: Array) -> Array:
    return course(w, day)


def _linear(slopes: Array, w: Array) -> Array:
    return slopes @ w
