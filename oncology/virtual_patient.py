"""A patient who never was: real anatomy, a glioma of known parameters, simulated scans.

The tumour is grown at 1 mm with half the model's time step; it is scanned and modelled at 2 mm,
so that the inverse problem is not solved with its own generator.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import mrphys as mr
from mrphys.apparent_diffusion import AdcMap, fit_adc
from mrphys.noise import complex_gaussian
from mrphys.sequence.diffusion import DiffusionWeighted
from mrphys.units import WATER_DIFFUSIVITY_37C_MM2_PER_S
from mrphys.volume import Volume
from oncology.calibration import CellularityScale
from oncology.cohort import Patient, Visit
from oncology.growth import ReactionDiffusion
from oncology.observe import FLAIR_THRESHOLD
from oncology.schedule import Treatment
from oncology.timeline import integrate, steps_between
from oncology.treatment import plan

SEED_MM = (-27.0, 8.0, 27.0)
"""Left frontal white matter, MNI millimetres."""
HALF_WIDTH_MM = 36.0
SCALE = CellularityScale(WATER_DIFFUSIVITY_37C_MM2_PER_S, 0.6e-3)
TRUTH = {
    "diffusivity_mm2_per_day": 0.2,
    "growth_rate_per_day": 0.05,
    "radiosensitivity_per_gy": 0.03,
}
DAYS = (0.0, 28.0, 80.0)
BEFORE_FIRST_SCAN_DAYS = 100.0
NOISE_SD = 0.012
"""Thermal noise of one average, in units of the signal of water at full relaxation."""
TOLERANCE = 1e-3


def radiotherapy() -> tuple[Treatment, ...]:
    """60 Gy in 30 fractions on weekdays from day 14 (Stupp et al. 2005,
    doi:10.1056/NEJMoa043330)."""
    weekdays = [14 + 7 * week + day for week in range(6) for day in range(5)]
    return tuple(Treatment(float(day), "radiotherapy", 2.0, "Gy") for day in weekdays)


def default_acquisition() -> DiffusionWeighted:
    """The demo's scan: b = 0, 500 and 1000 s/mm², 2, 3 and 4 averages."""
    return mr.sequence.diffusion_weighted(
        jnp.array([0.0, 500.0, 1000.0]), te_s=0.075, tr_s=6.0, averages=jnp.array([2.0, 3.0, 4.0])
    )


@dataclass(frozen=True, eq=False)
class VirtualPatient:
    """Truth on the scanner's 2 mm grid: cellularity and tissue at each visit, in a box of brain."""

    days: tuple[float, ...]
    treatments: tuple[Treatment, ...]
    cellularity: tuple[Float[np.ndarray, "x y z"], ...]
    tissue: tuple[mr.Tissue, ...]
    white_matter: Volume
    grey_matter: Volume
    t1w: Volume

    def visible(self, visit: int) -> np.ndarray:
        """What a reader would draw on FLAIR."""
        return self.cellularity[visit] > FLAIR_THRESHOLD


def _box(volume: Volume, half_width_mm: float) -> Volume:
    centre = np.linalg.inv(volume.affine) @ [*SEED_MM, 1.0]
    step = np.array(volume.spacing_mm)
    low = 2 * np.floor((centre[:3] + 0.5 - half_width_mm / step) * step / 2) / step
    size = 2 * round(half_width_mm / 2) * 2 / step
    starts = np.maximum(low.round().astype(int), 0)
    return volume.crop(tuple(slice(a, a + int(n)) for a, n in zip(starts, size, strict=True)))


def _blocks(field: np.ndarray) -> np.ndarray:
    x, y, z = (n // 2 for n in field.shape)
    return field.reshape(x, 2, y, 2, z, 2).mean(axis=(1, 3, 5))


def grow(
    days: Sequence[float] = DAYS,
    treatments: Sequence[Treatment] | None = None,
    truth: dict[str, float] | None = None,
    half_width_mm: float = HALF_WIDTH_MM,
) -> VirtualPatient:
    """Grow the tumour from a seed, treat it, and describe each visit on the 2 mm grid."""
    treatments = radiotherapy() if treatments is None else tuple(treatments)
    p = TRUTH if truth is None else truth
    fine, coarse = mr.phantom.brain(1.0), mr.phantom.brain(2.0)
    white, grey = (_box(v, half_width_mm) for v in (fine.white_matter, fine.grey_matter))
    model = ReactionDiffusion(
        habitable=jnp.asarray(white.data + grey.data > 0.25),
        white_matter=jnp.asarray(white.data, float),
        grey_matter=jnp.asarray(grey.data, float),
        spacing_mm=white.spacing_mm,
    )
    index = np.stack(np.meshgrid(*map(np.arange, white.shape), indexing="ij"), axis=-1)
    centre = (np.linalg.inv(white.affine) @ [*SEED_MM, 1.0])[:3]
    distance = np.linalg.norm((index - centre) * white.spacing_mm, axis=-1)
    u = jnp.asarray(np.where(model.habitable, 0.9 * np.exp(-((distance / 4.0) ** 2)), 0.0))
    course = plan(treatments)
    run = eqx.filter_jit(integrate)
    states = []
    for start, end in zip((days[0] - BEFORE_FIRST_SCAN_DAYS, *days), days, strict=False):
        steps = steps_between(
            model,
            course,
            start,
            end,
            largest_diffusivity_mm2_per_day=p["diffusivity_mm2_per_day"],
            largest_growth_rate_per_day=p["growth_rate_per_day"],
            tolerance=TOLERANCE / 4,
        )
        u = run(model, course, p, u, steps)
        states.append(_blocks(np.asarray(u)))
    maps = {
        name: _box(getattr(coarse, name), half_width_mm)
        for name in ("white_matter", "grey_matter", "csf", "t1w")
    }
    healthy = {name: maps[name].data for name in ("white_matter", "grey_matter", "csf")}
    tissue = tuple(_tissue(healthy, u) for u in states)
    return VirtualPatient(
        tuple(days),
        treatments,
        tuple(states),
        tissue,
        maps["white_matter"],
        maps["grey_matter"],
        maps["t1w"],
    )


def _tissue(healthy: Mapping[str, Any], u: np.ndarray) -> mr.Tissue:
    """Healthy tissue, replaced by glioma where it can be seen, its ADC that of its cells."""
    seen = u > FLAIR_THRESHOLD
    fractions = mr.phantom.with_lesion(healthy, "glioma", seen.astype(float))
    mixed = mr.phantom.tissue_from_fractions(fractions, field_t=3.0)
    span = SCALE.adc_w_mm2_per_s - SCALE.adc_min_mm2_per_s
    lesion = SCALE.adc_w_mm2_per_s - span * u
    adc = jnp.where(seen, lesion, mixed.adc_mm2_per_s)
    return eqx.tree_at(lambda q: q.adc_mm2_per_s, mixed, adc)


def scan(
    theta: DiffusionWeighted, q: mr.Tissue, key: Array, mask: np.ndarray | None = None
) -> AdcMap:
    """Acquire x = f(θ, q) with complex noise, and map ADC with its standard deviation."""
    x = complex_gaussian(theta, mr.simulate(theta, q), NOISE_SD, key)
    return fit_adc(theta, x, NOISE_SD, mask)


def scanned_patient(virtual: VirtualPatient, theta: DiffusionWeighted, key: Array) -> Patient:
    """The virtual patient as a scanner and a reader would hand it over: ADC maps with their
    standard deviation, drawn tumours, tissue probabilities, anatomy, treatments."""
    grid = virtual.t1w
    brain = np.asarray(virtual.white_matter.data + virtual.grey_matter.data) > 0.02
    visits = []
    for i, day in enumerate(virtual.days):
        mask = virtual.visible(i)
        adc = scan(theta, virtual.tissue[i], jax.random.fold_in(key, i), brain | mask)
        known = np.isfinite(np.asarray(adc.adc_sd_mm2_per_s))
        visits.append(
            Visit(
                session=f"ses-{i + 1:02d}",
                day=day,
                tumor_labels=grid.with_data(mask.astype(np.uint8)),
                adc_mm2_per_s=grid.with_data(np.asarray(adc.adc_mm2_per_s, np.float32)),
                adc_sd_mm2_per_s=grid.with_data(
                    np.where(known, np.asarray(adc.adc_sd_mm2_per_s), 0.0).astype(np.float32)
                ),
                white_matter=virtual.white_matter if i == 0 else None,
                grey_matter=virtual.grey_matter if i == 0 else None,
                anatomy={"T1w": virtual.t1w} if i == 0 else {},
            )
        )
    return Patient("sub-virtual", tuple(visits), virtual.treatments)
