"""How good a forecast was: agreement voxel by voxel, overlap, totals, and proper scores."""

import numpy as np
from jaxtyping import Bool, Float

from oncology.observe import distance_mm

SCORED_WITHIN_MM = 10.0


def concordance(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    r"""Lin's concordance correlation, 2 cov(a, b) / (var a + var b + (mean a - mean b)²).

    1 for a = b alone; scale and offset count, which Pearson's correlation forgives; NaN when both
    are constant and equal. Lin 1989, doi:10.2307/2532051.

    >>> concordance(np.array([0.0, 1.0]), np.array([0.0, 1.0]))
    1.0
    """
    spread = a.var() + b.var() + (a.mean() - b.mean()) ** 2
    return float(2 * np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread else np.nan


def pearson(a: Float[np.ndarray, " n"], b: Float[np.ndarray, " n"]) -> float:
    """Pearson's correlation; NaN when either is constant."""
    spread = a.std() * b.std()
    return float(np.mean((a - a.mean()) * (b - b.mean())) / spread) if spread else np.nan


def dice(a: Bool[np.ndarray, "..."], b: Bool[np.ndarray, "..."]) -> float:
    """Dice overlap 2 |a ∩ b| / (|a| + |b|) of two masks; 1 when both are empty. Dice 1945,
    doi:10.2307/1932409."""
    size = a.sum() + b.sum()
    return float(2 * (a & b).sum() / size) if size else 1.0


def crps(samples: Float[np.ndarray, " n"], observed: float) -> float:
    r"""Continuous ranked probability score :math:`E|X - y| - \tfrac12 E|X - X'|` of samples.

    In the samples' unit, 0 at best; the absolute error when they all agree. Gneiting & Raftery
    2007, doi:10.1198/016214506000001437, eq. 21.
    """
    ordered = np.sort(samples)
    n = ordered.size
    half_spread = np.sum((2 * np.arange(1, n + 1) - n - 1) * ordered) / n**2
    return float(np.mean(np.abs(ordered - observed)) - half_spread)


def scored_region(
    masks: tuple[Bool[np.ndarray, "x y z"], ...],
    tissue: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, ...],
) -> Bool[np.ndarray, "x y z"]:
    """Tissue within 10 mm of any of the masks: the voxels that scores count."""
    union = np.logical_or.reduce(masks)
    return (distance_mm(union, spacing_mm) <= SCORED_WITHIN_MM) & tissue


def percent_error(forecast: float, observed: float) -> float:
    """100 (forecast - observed) / observed; infinite where nothing was observed."""
    return float(100 * (forecast - observed) / observed) if observed else float(np.inf)
