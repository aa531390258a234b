"""What one treatment gains on another, over tumours that had no part in choosing it.

A gain is the log burden under the standard less that under the choice, of the same draw: ln of how
many times fewer cells. It is credible where nearly all draws gain more than nothing.
"""

import math
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from oncology.decisions.regimen import Regimen, Tumours, log_burdens, worst_weights

LEAST_GAIN = math.log(1.01)
"""1 % fewer cells: what counts as nothing."""
CREDIBLE = 0.95
REPLICATES = 2000


class Interval(NamedTuple):
    """A value with its central 90 % interval."""

    value: float
    low90: float
    high90: float

    def __str__(self) -> str:
        return f"{self.value:+.3f} [{self.low90:+.3f}, {self.high90:+.3f}]"


class Gain(NamedTuple):
    """Of a choice over a standard.

    draws         ln of how many times fewer cells, of each tumour held out
    expected      their mean, its interval by the bootstrap: what the objective "expected" gains
    worst_decile  the mean burden of the worst tenth, standard less choice; bootstrapped alike
    patient       median and central 90 % of the draws: what this patient may gain
    probability   share of the draws that gain more than LEAST_GAIN
    """

    draws: Float[np.ndarray, " draws"]
    expected: Interval
    worst_decile: Interval
    patient: Interval
    probability: float

    @property
    def credible(self) -> bool:
        """Whether 95 % of the draws gain more than 1 % of cells."""
        return self.probability >= CREDIBLE

    @property
    def verdict(self) -> str:
        """In words."""
        share = f"{self.probability:.0%} of {self.draws.size} draws gain"
        if not self.credible:
            return f"no credible gain: {share}"
        fewer = math.exp(self.patient.value)
        return f"a gain: {fewer:.3g} times fewer cells (median); {share}"

    def plain(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "unit": "ln of how many times fewer cells",
            "expected": self.expected._asdict(),
            "worst_decile": self.worst_decile._asdict(),
            "patient": self.patient._asdict(),
            "probability": self.probability,
            "draws": self.draws.size,
            "credible": self.credible,
            "verdict": self.verdict,
        }


def gain(
    tumours: Tumours,
    standard: Regimen,
    chosen: Regimen,
    endpoint: str = "burden",
    seed: int = 0,
) -> Gain:
    """Of one regimen over another to the same day, on tumours other than those it was chosen on."""
    before = np.asarray(log_burdens(tumours, standard, endpoint))
    after = np.asarray(log_burdens(tumours, chosen, endpoint))
    return compare(before, after, seed)


def compare(
    before: Float[np.ndarray, " draws"], after: Float[np.ndarray, " draws"], seed: int = 0
) -> Gain:
    """Log burdens of the same draws under a standard and a choice."""
    difference = before - after
    rng = np.random.default_rng(seed)
    rows = rng.integers(0, difference.size, (REPLICATES, difference.size))
    means = difference[rows].mean(axis=1)
    worst = _worst(before[rows]) - _worst(after[rows])
    low, median, high = np.quantile(difference, [0.05, 0.5, 0.95])
    return Gain(
        difference,
        _interval(difference.mean(), means),
        _interval(_worst(before[None])[0] - _worst(after[None])[0], worst),
        Interval(float(median), float(low), float(high)),
        float(np.mean(difference > LEAST_GAIN)),
    )


def _worst(rows: np.ndarray) -> np.ndarray:
    """`worst_decile` of each row."""
    return np.sort(rows, axis=1) @ worst_weights(rows.shape[1])


def _interval(value: float, replicates: np.ndarray) -> Interval:
    low, high = np.quantile(replicates, [0.05, 0.95])
    return Interval(float(value), float(low), float(high))
