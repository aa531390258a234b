"""Real lesions of five trials (doi:10.1371/journal.pcbi.1009822) as TumorGrowth.jl's protocol has
them: six readings or more, the last two held out, mean absolute errors with bootstrap intervals."""

import csv
import json
from pathlib import Path

import numpy as np

HELD_OUT = 2
LEAST_READINGS = 6
MM3_PER_VOLUME = 6_163_200.0
"""Lesion_vol over Lesion_normvol: the latter is a share of the largest volume."""
SHAPE = 0.52
"""Lesion_vol over the cube of Lesion_diam, mm, as the trials computed it."""
RESAMPLES = 10_000


def diameter_mm(volume: np.ndarray) -> np.ndarray:
    """The diameter that a normalised volume was computed from."""
    return np.cbrt(volume * MM3_PER_VOLUME / SHAPE)


def volume_of(diameter: np.ndarray) -> np.ndarray:
    """Its inverse."""
    return SHAPE * diameter**3 / MM3_PER_VOLUME


def read(data: Path) -> tuple[list[np.ndarray], list[np.ndarray]] | None:
    """Weeks and normalised volumes of every record that is long enough, from a folder of reference
    data; None, and a word, where they are not there."""
    path = data / "trial_lesion_volumes" / "patient_data.csv"
    if not path.is_file():
        print(f"skipped: no {path}")
        return None
    with path.open(encoding="utf-8", newline="") as file:
        rows = [row for row in csv.DictReader(file) if int(row["readings"]) >= LEAST_READINGS]
    columns = ("T_weeks", "Lesion_normvol")
    weeks, volumes = ([np.array(json.loads(row[name])) for row in rows] for name in columns)
    return weeks, volumes


def error_of(forecast: np.ndarray, observed: np.ndarray) -> np.ndarray:
    """Mean absolute error of every record."""
    return np.abs(forecast - observed).mean(axis=1)


def interval(difference: np.ndarray, rng: np.random.Generator) -> tuple[float, float, float]:
    """Mean over records and its 95 % bootstrap interval."""
    at = rng.integers(0, difference.size, (RESAMPLES, difference.size))
    low, high = np.quantile(difference[at].mean(axis=1), [0.025, 0.975])
    return float(difference.mean()), float(low), float(high)
