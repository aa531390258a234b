r"""Which model, and what several say together.

    evidence   Laplace's log p(images | model): the fit, its freedom accounted for
    BIC        k log m - 2 log p(images | ẑ), m numbers seen, k parameters: Schwarz 1978,
               doi:10.1214/aos/1176344136
    WAIC       -2 Σ (log mean p - var log p) over draws, number by number: Watanabe 2010, Journal of
               Machine Learning Research 11:3571; Gelman, Hwang & Vehtari 2014,
               doi:10.1007/s11222-013-9416-2
    held out   CRPS of the logarithm of the visible volume at a visit the model did not see

Models are compared on the same images, each number's likelihood normal with the width expected of
it, noise and model error; a constant that all share is left out. Averages are mixtures: draws of
each model in proportion to its weight (Hoeting et al. 1999, doi:10.1214/ss/1009212519), which makes
the average a forecast like any other.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from oncology import scores
from oncology.calibration import calibrate
from oncology.cohort import Patient
from oncology.forecast import VOLUME, Forecast
from oncology.inverse import Inverse, Posterior

Criterion = Literal["evidence", "bic", "waic", "held_out"]


@dataclass(frozen=True)
class Compared:
    """One model's criteria; `held_out` is None where no visit was held out."""

    evidence: float
    bic: float
    waic: float
    effective_parameters: float
    held_out: float | None = None


@eqx.filter_jit
def log_likelihoods(inverse: Inverse, z: Float[Array, " n"], error: Array) -> Float[Array, " m"]:
    """log p of each number seen, but for what every model of the same images shares."""
    later = inverse.observations[1:]
    share = jnp.concatenate([seen.noise_share for seen in later])
    return jnp.log(share) - inverse.misfit(z, error) ** 2 / 2


def log_evidence(found: Posterior) -> float:
    """Laplace's, with the widths that `Posterior.log_evidence` leaves out."""
    later = found.inverse.observations[1:]
    widths = sum(float(jnp.sum(jnp.log(seen.noise_share))) for seen in later)
    return float(found.log_evidence) + widths


def waic(each: Float[np.ndarray, "draws m"]) -> tuple[float, float]:
    """WAIC of log likelihoods by draw and number seen, and the effective number of parameters."""
    most = each.max(axis=0)
    level = most + np.log(np.mean(np.exp(each - most), axis=0))
    freedom = np.var(each, axis=0, ddof=1)
    return float(-2 * np.sum(level - freedom)), float(freedom.sum())


@eqx.filter_jit
def _by_draw(found: Posterior, keys: Array) -> Float[Array, "draws m"]:
    none = found.inverse.no_error()
    return jax.lax.map(lambda key: log_likelihoods(found.inverse, found.draw(key).z, none), keys)


def compared(found: Posterior, key: Array, draws: int = 200) -> Compared:
    """The criteria of one calibrated model that need no other visit."""
    inverse = found.inverse
    at_best = log_likelihoods(inverse, found.z, inverse.no_error())
    bic = found.z.size * np.log(at_best.size) - 2 * float(jnp.sum(at_best))
    value, freedom = waic(np.asarray(_by_draw(found, jax.random.split(key, draws))))
    return Compared(log_evidence(found), float(bic), value, freedom)


def held_out(
    patient: Patient, visits: Sequence[str | int], key: Array, draws: int = 48, **options: Any
) -> float:
    """CRPS of the log volume of the last of `visits`, the model calibrated on those before;
    `options` are those of `calibrate`.

    Raises InputError for fewer than three visits.
    """
    if len(visits) < 3:
        expected = "three visits: two to calibrate on, one to hold out"
        raise InputError(Problem("held_out", f"{len(visits)} visits", expected))
    last = patient.visit(visits[-1])
    fitted = calibrate(patient, visits[:-1], until_day=last.day, **options)
    ahead = fitted.forecast(last.day, key, draws=draws)
    seen = float(np.sum(np.asarray(last.tumor.data))) * last.tumor.voxel_volume_mm3
    return scores.crps(np.log(ahead.samples[VOLUME]), float(np.log(seen)))


def weights(models: Mapping[str, Compared], by: Criterion = "evidence") -> dict[str, float]:
    """How much each model counts: its posterior probability by evidence, exp(-½ BIC), exp(-½ WAIC)
    (pseudo-BMA), or 1 / CRPS² of what was held out; they add up to 1.

    Raises InputError for no models, and by held-out scores where a model has none.
    """
    if not models:
        raise InputError(Problem("weights", "no models", "one or more"))
    if by == "held_out":
        missing = [name for name, row in models.items() if row.held_out is None]
        if missing:
            found = f"no held-out score of {', '.join(missing)}"
            raise InputError(Problem("weights", found, "a score of each"))
        score = [-2 * np.log(max(float(row.held_out or 0.0), 1e-6)) for row in models.values()]
    elif by == "evidence":
        score = [row.evidence for row in models.values()]
    else:
        score = [-getattr(row, by) / 2 for row in models.values()]
    share = np.exp(np.array(score) - max(score))
    return dict(zip(models, (share / share.sum()).tolist(), strict=True))


def average(
    forecasts: Mapping[str, Forecast], weight: Mapping[str, float], key: Array, draws: int = 200
) -> Forecast:
    """One forecast of several models' draws of the same patient and day.

    Mean and variance of the map are those of the mixture; what else a forecast holds (grid,
    threshold, days) is the most probable model's. Raises InputError where forecasts differ in day
    or grid.
    """
    best = forecasts[max(weight, key=lambda name: weight[name])]
    for name, one in forecasts.items():
        if one.day != best.day or one.mean.shape != best.mean.shape:
            found = f"{name}: day {one.day:g}, grid {one.mean.shape}"
            expected = f"day {best.day:g}, grid {best.mean.shape}"
            raise InputError(Problem("average", found, expected, "calibrated apart: one until_day"))
    names = list(forecasts)
    share = np.array([weight[name] for name in names])
    pairs = [(w, forecasts[name]) for w, name in zip(share, names, strict=True)]
    mean = np.sum([w * one.mean for w, one in pairs], axis=0)
    square = np.sum([w * (one.sd**2 + one.mean**2) for w, one in pairs], axis=0)
    rng = np.random.default_rng(int(jax.random.randint(key, (), 0, 2**31 - 1)))
    # As many draws of each model as its share, the last of them by where one number falls.
    ends = np.floor(np.cumsum(share) / share.sum() * draws + rng.uniform()).astype(int)
    counts = np.diff(np.concatenate([[0], np.minimum(ends, draws)]))
    course = {}
    picks = [
        rng.integers(0, len(forecasts[name].course[VOLUME]), count)
        for name, count in zip(names, counts, strict=True)
    ]
    for quantity in best.course:
        rows = [
            np.interp(best.days, forecasts[name].days, row)
            for name, pick in zip(names, picks, strict=True)
            for row in forecasts[name].course[quantity][pick]
        ]
        course[quantity] = np.stack(rows)
    sd = np.sqrt(np.maximum(square - mean**2, 0.0))
    none = np.zeros((draws, 0))
    return Forecast(best.calibrated, best.day, mean, sd, best.threshold, best.days, course, none)
