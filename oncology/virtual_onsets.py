"""Virtual gliomas from one cell cluster each, in the MNI brain: truth at 1 mm, scans at 2 mm.

D, k and age are drawn from the priors that every method is given, the site from white matter.
Contours are drawn by a reader whose log odds of density err smoothly from place to place.
"""

import itertools
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float

import mrphys as mr
from oncology.growth import ReactionDiffusion
from oncology.observe import ENHANCING_THRESHOLD, FLAIR_THRESHOLD
from oncology.onset import (
    AGE_STEPS,
    DIFFUSIVITY,
    GAP_STEPS,
    GROWTH_RATE,
    READER_WIDTH,
    Onset,
    log_odds,
    onset,
    seed,
)
from oncology.priors import LogNormal
from oncology.radial import radius_mm
from oncology.smoothing import SmoothField

PRIORS = {
    DIFFUSIVITY: LogNormal(0.15, 0.5, "mm^2/day"),
    GROWTH_RATE: LogNormal(0.03, 0.35, "1/day"),
    "age_day": LogNormal(120.0, 0.3, "day"),
}
DAYS = (0.0, 45.0)
FORECAST_DAY = 90.0
SIZE_MM = 72.0
VOLUME_ML = (4.0, 60.0)
"""Of the outer contour at the first scan: what brings a patient, and what fits the box."""
READER_CORRELATION_MM = 2.0
THRESHOLDS = (FLAIR_THRESHOLD, ENHANCING_THRESHOLD)
CORE_ML = 0.3
FINER, FINE_STAGES = 3, 7
"""Steps of the truth to one of a method's, and their stages."""


@dataclass(frozen=True, eq=False)
class VirtualOnset:
    """One patient: what was drawn on each day, and the truth on the scanner's grid."""

    problem: Onset
    masks: tuple[dict[float, Bool[np.ndarray, "x y z"]], ...]
    truth: dict[str, np.ndarray]
    states: tuple[Float[np.ndarray, "x y z"], ...]

    @property
    def radii_mm(self) -> np.ndarray:
        """Of the contours of each visit."""
        spacing = self.problem.spacing_mm
        return np.array([[radius_mm(m, spacing) for m in v.values()] for v in self.masks])


def _blocks(field: np.ndarray) -> np.ndarray:
    x, y, z = (n // 2 for n in field.shape)
    return field.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))


def drawn(number: int, visits: int = 2, scanner_mm: float = 2.0) -> VirtualOnset:
    """Patient `number` of the cohort, seen on the first `visits` of `DAYS`; the truth lives on
    half the scanner's spacing."""
    rng = np.random.default_rng([2025, number])
    fine_mm = scanner_mm / 2
    fine = mr.phantom.brain(fine_mm)
    white, grey = np.asarray(fine.white_matter.data), np.asarray(fine.grey_matter.data)
    n = round(SIZE_MM / fine_mm)
    inside = np.zeros(white.shape, bool)
    inside[tuple(slice(n // 2, size - n // 2) for size in white.shape)] = True
    places = np.argwhere((white > 0.9) & inside)
    while True:
        p = {name: v.median * np.exp(v.log_sd * rng.normal()) for name, v in PRIORS.items()}
        site = places[rng.integers(len(places))]
        start = 2 * ((site - n // 2) // 2)
        box = tuple(slice(a, a + n) for a in start)
        made = _grown(white[box], grey[box], site - start, p, fine_mm)
        whole, core = ((made[0] > c).sum() * scanner_mm**3 / 1000 for c in THRESHOLDS)
        shell = np.pad(np.zeros([m - 2 for m in made[-1].shape]), 1, constant_values=1)
        spilt = (made[-1] * shell).max() > 0.05
        if VOLUME_ML[0] < whole < VOLUME_ML[1] and core > CORE_ML and not spilt:
            break
    coarse = [_blocks(np.asarray(m[box])) for m in (white, grey)]
    spacing = (scanner_mm, scanner_mm, scanner_mm)
    model = _tissue(coarse[0], coarse[1], spacing)
    share = np.asarray(model.relative_diffusivity())
    field = SmoothField(share.shape, spacing, READER_CORRELATION_MM)
    doubt = READER_WIDTH * np.pi / np.sqrt(3)
    masks = []
    for i, u in enumerate(made[:visits]):
        odds = np.asarray(log_odds(jnp.asarray(u, float)))
        each = {}
        for j, c in enumerate(THRESHOLDS):
            key = jax.random.fold_in(jax.random.key(number), 2 * i + j)
            error = doubt * np.asarray(field(jax.random.normal(key, u.shape, float)))
            each[c] = (odds + error > float(log_odds(jnp.asarray(c, float)))) & (share > 0)
        masks.append(each)
    problem = onset(share, spacing, masks, DAYS[:visits], PRIORS, readings=700)
    truth = {k: np.asarray(v) for k, v in p.items()}
    truth["site_mm"] = (site - start) * fine_mm - fine_mm / 2
    return VirtualOnset(problem, tuple(masks), truth, tuple(made))


def _tissue(
    white: np.ndarray, grey: np.ndarray, spacing_mm: tuple[float, float, float]
) -> ReactionDiffusion:
    return ReactionDiffusion(
        habitable=jnp.asarray(white + grey > 0.25),
        white_matter=jnp.asarray(white, float),
        grey_matter=jnp.asarray(grey, float),
        spacing_mm=spacing_mm,
    )


def _grown(
    white: np.ndarray, grey: np.ndarray, site: np.ndarray, p: dict[str, float], fine_mm: float
) -> list[np.ndarray]:
    """States of the truth on every day, as means over the scanner's voxels."""
    model = _tissue(white, grey, (fine_mm, fine_mm, fine_mm))
    share, spacing = jnp.asarray(model.relative_diffusivity()), model.spacing_mm
    fine = Onset(share, (), jnp.zeros(0), jnp.zeros(3), PRIORS, spacing, FINE_STAGES)
    exact = {name: jnp.asarray(v, float) for name, v in p.items()}
    u = seed(jnp.asarray(site * fine_mm, float), share, spacing)
    states = []
    days = (-p["age_day"], *DAYS, FORECAST_DAY)
    for a, b in itertools.pairwise(days):
        steps = FINER * (AGE_STEPS if a < 0 else GAP_STEPS)
        u = _later(fine, exact, u, jnp.asarray(b - a, float), steps)
        states.append(_blocks(np.asarray(u)))
    return states


@eqx.filter_jit
def _later(fine: Onset, p: dict, u: jax.Array, days: jax.Array, steps: int) -> jax.Array:
    return fine.grown(p, u, days, steps)
