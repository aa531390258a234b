"""How a tumour answers, read from draws of its volume: as the clinic says it, with probabilities.

doubling_days           volume doubling time between two days
progression_days        first day on which a rule says progression
Rule                    thresholds of response and progression, with their source
  RECIST_1_1, RANO_2010, RANO_2
categories              each draw's category; `probabilities` of them
read_out                all of it from a forecast

What rules say of new lesions, steroids, clinical state and confirmation four weeks later is not in
a volume, nor here: categories are those of size alone.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float, Int

from mrphys.errors import InputError, Problem

if TYPE_CHECKING:
    from oncology.forecast import Forecast

CATEGORIES = ("CR", "PR", "SD", "PD")
"""Complete and partial response, stable and progressive disease."""


@dataclass(frozen=True)
class Rule:
    """A size, and the changes of it that count.

    The size of a tumour of volume V is that of a ball, (6V/π)^{dimension/3}: longest diameter (1),
    product of perpendicular diameters (2), volume (3, V itself). Response is a decrease from the
    first day by a share of at least `response`, progression an increase over the smallest size so
    far by at least `progression` and by at least `least_mm` in diameter. Tumours below
    `visible_mm` in diameter have disappeared.
    """

    name: str
    dimension: int
    response: float
    progression: float
    source: str
    least_mm: float = 0.0
    visible_mm: float = 1.0

    def size(self, volume_mm3: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
        """mm, mm² or mm³.

        >>> RECIST_1_1.size(np.array([1000 * math.pi / 6])).round(9)
        array([10.])
        """
        if self.dimension == 3:
            return volume_mm3
        return diameter_mm(volume_mm3) ** self.dimension


def diameter_mm(volume_mm3: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Of a ball."""
    return (6 * volume_mm3 / math.pi) ** (1 / 3)


RECIST_1_1 = Rule(
    "RECIST 1.1", 1, 0.30, 0.20, "Eisenhauer et al. 2009, doi:10.1016/j.ejca.2008.10.026", 5.0
)
"""Longest diameters: 30 % less than at baseline; 20 % and 5 mm more than at the nadir."""
RANO_2010 = Rule("RANO", 2, 0.50, 0.25, "Wen et al. 2010, doi:10.1200/JCO.2009.26.3541")
"""Products of perpendicular diameters of what enhances: 50 % less; 25 % more."""
RANO_2 = Rule("RANO 2.0", 3, 0.65, 0.40, "Wen et al. 2023, doi:10.1200/JCO.23.01059")
"""By volume, its alternative to products of diameters: 65 % less; 40 % more."""
RULES: Mapping[str, Rule] = {
    "recist-1.1": RECIST_1_1,
    "rano-2010": RANO_2010,
    "rano-2.0": RANO_2,
}


def doubling_days(
    days: tuple[float, float],
    before_mm3: Float[np.ndarray, "..."],
    after_mm3: Float[np.ndarray, "..."],
) -> Float[np.ndarray, "..."]:
    r"""Volume doubling time :math:`(t_2 - t_1) \ln 2 / \ln(V_2 / V_1)`.

    Negative for a tumour that shrinks (it halves in that time), infinite for one that stays; NaN
    where one volume is zero. Schwartz 1961, Cancer 14, 1272. Raises InputError for days out of
    order.

    >>> doubling_days((0.0, 30.0), np.array([1.0, 8.0]), np.array([2.0, 4.0]))
    array([ 30., -30.])
    """
    if not days[1] > days[0]:
        raise InputError(Problem("doubling_days", f"days {days[0]:g} and {days[1]:g}", "in order"))
    with np.errstate(divide="ignore", invalid="ignore"):
        growth = np.log(after_mm3 / before_mm3)
        found = (days[1] - days[0]) * math.log(2) / growth
    return np.where(np.isfinite(growth), found, np.nan)


def _progressed(volume_mm3: Float[np.ndarray, "draws days"], rule: Rule) -> np.ndarray:
    """How far above what progression asks each size is, relative; the first day is no increase."""
    size, smallest = rule.size(volume_mm3), np.minimum.accumulate(volume_mm3, axis=1)
    nadir = rule.size(smallest)
    least = rule.size(math.pi / 6 * (diameter_mm(smallest) + rule.least_mm) ** 3)
    seen = rule.size(np.full_like(smallest, math.pi / 6 * rule.visible_mm**3))
    asked = np.maximum(np.maximum(nadir * (1 + rule.progression), least), seen)
    return size / asked - 1


def progression_days(
    days: Float[np.ndarray, " days"], volume_mm3: Float[np.ndarray, "draws days"], rule: Rule
) -> Float[np.ndarray, " draws"]:
    """Days from the first until a rule says progression, as if every day were scanned; infinite
    for draws that do not progress until the last. Between days the margin is taken as linear.

    >>> days = np.array([0.0, 10.0, 20.0])
    >>> progression_days(days, np.array([[1e4, 1e4, 1.8e4], [1e4, 5e3, 6e3]]), RANO_2)
    array([15., inf])
    """
    margin = _progressed(volume_mm3, rule)
    over = margin >= 0
    first = over.argmax(axis=1)
    rows = np.arange(len(margin))
    before, now = margin[rows, np.maximum(first - 1, 0)], margin[rows, first]
    rise = np.where(now > before, now - before, 1.0)
    share = np.where(first > 0, np.clip(-before / rise, 0.0, 1.0), 1.0)
    at = days[np.maximum(first - 1, 0)] * (1 - share) + days[first] * share
    return np.where(over.any(axis=1), at - days[0], np.inf)


def categories(
    volume_mm3: Float[np.ndarray, "draws scans"], rule: Rule
) -> Int[np.ndarray, " draws"]:
    """The category of the last scan, an index into CATEGORIES: of the first scan as baseline, and
    the smallest of all before the last as nadir. Gone is CR; progression goes before response.

    >>> [CATEGORIES[i] for i in categories(np.array([[9e3, 2e3], [9e3, 9e3], [3e3, 9e3]]), RANO_2)]
    ['PR', 'SD', 'PD']
    """
    progressed = _progressed(volume_mm3, rule)[:, -1] >= 0
    first, last = rule.size(volume_mm3[:, 0]), rule.size(volume_mm3[:, -1])
    responded = last <= (1 - rule.response) * first
    gone = volume_mm3[:, -1] < math.pi / 6 * rule.visible_mm**3
    return np.select([gone, progressed, responded], [0, 3, 1], 2)


def probabilities(
    volume_mm3: Float[np.ndarray, "draws scans"],
    rule: Rule,
    drawing_sd: float = 0.0,
    seed: int = 0,
) -> dict[str, float]:
    """The share of draws in each category, CR to PD; with the sd of log volume between two
    drawings of one tumour, that of what readers would say."""
    noise = np.random.default_rng(seed).standard_normal(volume_mm3.shape)
    index = categories(volume_mm3 * np.exp(drawing_sd * noise), rule)
    return {name: float(np.mean(index == i)) for i, name in enumerate(CATEGORIES)}


def read_out(
    forecast: "Forecast", rule: Rule, since_day: float | None = None, drawing_sd: float = 0.0
) -> dict[str, Any]:
    """Response to the forecast's day from an earlier one, the last calibrated visit unless given.

    `probabilities` by category, with `drawing_sd` as in `probabilities`; `progression_days` with
    median and central 90 % (infinite: not before the forecast's day) and the probability of it;
    `doubling_days` likewise, over draws that grow; each with the rule's source. Raises InputError
    for a day beyond the forecast's.
    """
    since = forecast.calibrated.visits[-1].day if since_day is None else since_day
    if not forecast.days[0] <= since < forecast.day:
        expected = f"from day {forecast.days[0]:g} to before {forecast.day:g}"
        raise InputError(Problem("read_out: since_day", f"day {since:g}", expected))
    kept = np.concatenate([[True], np.diff(forecast.days) > 0]) & (forecast.days >= since)
    days, volume = forecast.days[kept], forecast.course["volume_mm3"][:, kept]
    until = progression_days(days, volume, rule)
    double = doubling_days((float(days[0]), float(days[-1])), volume[:, 0], volume[:, -1])
    growing = double[np.isfinite(double) & (double > 0)]
    return {
        "rule": rule.name,
        "source": rule.source,
        "since_day": float(days[0]),
        "day": forecast.day,
        "probabilities": probabilities(_scans(volume), rule, drawing_sd),
        "progression_probability": float(np.mean(np.isfinite(until))),
        "progression_days": _quantiles(until),
        "growing_probability": growing.size / double.size,
        "doubling_days": _quantiles(growing) if growing.size else None,
    }


def _scans(volume_mm3: Float[np.ndarray, "draws days"]) -> Float[np.ndarray, "draws 3"]:
    """The first volume, the smallest, and the last."""
    return np.stack([volume_mm3[:, 0], volume_mm3.min(axis=1), volume_mm3[:, -1]], axis=1)


def _quantiles(values: Float[np.ndarray, " n"]) -> dict[str, float]:
    """Median and central 90 %, of values that may be infinite."""
    found = np.quantile(values, [0.05, 0.5, 0.95], method="inverted_cdf")
    return dict(zip(("low90", "median", "high90"), (float(v) for v in found), strict=True))
