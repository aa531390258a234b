"""A virtual tumour on a small plane of voxels: known parameters, noisy maps, a Patient in memory.

The truth is grown by the model itself, so that what inference finds can be held against it; the
observed state of the first visit is what a visit without noise would have implied.
"""

import itertools
from collections.abc import Mapping, Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from mrphys.volume import Volume
from oncology.cohort import Patient, Visit
from oncology.growth import ReactionDiffusion
from oncology.observe import CellularityMap
from oncology.schedule import Treatment
from oncology.timeline import integrate, steps_between
from oncology.treatment import plan

TRUTH = {
    "diffusivity_mm2_per_day": 0.12,
    "growth_rate_per_day": 0.04,
    "infiltration_ratio": 0.8,
    "radiosensitivity_per_gy": 0.04,
}


def lump(
    shape: Sequence[int], spacing_mm: Sequence[float], radius_mm: float, density: float = 0.7
) -> np.ndarray:
    """A lump somewhat longer than wide in the middle of a grid, its edge softened over 1.5 mm."""
    axes = [(np.arange(n) - (n - 1) / 2) * h for n, h in zip(shape, spacing_mm, strict=True)]
    x, y, z = np.meshgrid(*axes, indexing="ij")
    distance = np.sqrt((x / 1.2) ** 2 + y**2 + z**2)
    return density / (1 + np.exp((distance - radius_mm) / 1.5))


def grown(
    model: ReactionDiffusion,
    p: Mapping[str, ArrayLike],
    start: np.ndarray,
    days: Sequence[float],
    treatments: Sequence[Treatment] = (),
) -> list[np.ndarray]:
    """The states on each of `days`, from `start` on the first."""
    states, treated = [start], plan(treatments)
    for a, b in itertools.pairwise(days):
        leg = steps_between(
            model,
            treated,
            a,
            b,
            largest_diffusivity_mm2_per_day=0.5,
            largest_growth_rate_per_day=0.15,
        )
        states.append(np.asarray(integrate(model, treated, p, jnp.asarray(states[-1]), leg)))
    return states


def virtual_patient(
    days: Sequence[float] = (0.0, 30.0, 60.0),
    *,
    size: int = 24,
    noise_sd: float = 0.03,
    treatments: Sequence[Treatment] = (),
    truth: Mapping[str, ArrayLike] = TRUTH,
    model: ReactionDiffusion | None = None,
    masks_alone: bool = False,
    threshold: float = 0.1,
    seed: int = 0,
) -> tuple[Patient, list[np.ndarray]]:
    """A patient of one slice at 2 mm, scanned on `days`, and the true states."""
    shape, spacing = (size, size, 1), (2.0, 2.0, 2.0)
    if model is None:
        model = ReactionDiffusion(habitable=jnp.ones(shape, bool), spacing_mm=spacing)
    rng = np.random.default_rng(seed)
    start = lump(shape, spacing, 6.0)
    first = CellularityMap(start, 1.0, start > threshold, np.ones(shape, bool), spacing)
    states = grown(model, truth, np.asarray(first.state(truth, jnp.zeros(shape))), days, treatments)
    affine = np.diag([*spacing, 1.0])
    visits = []
    for number, (day, u) in enumerate(zip(days, states, strict=True), start=1):
        mask = Volume((u > threshold).astype(np.uint8), affine)
        noisy = Volume(u + noise_sd * rng.standard_normal(shape), affine)
        shown = {} if masks_alone else {"cellularity": noisy}
        visits.append(Visit(f"ses-{number:02d}", day, tumor_labels=mask, **shown))
    return Patient("sub-virtual", tuple(visits), tuple(treatments)), states
