"""Six real glioblastomas, two scans each: the next contour foretold, and what to irradiate.

    PYTHONPATH=. python benchmarks/neural_glioblastoma.py [--patients patients/glioblastoma]

Where the patient folders are missing they are made from --data; without either nothing is done.

fit       every method is given the first contour of enhancement alone, the anatomy and the house's
          priors; its field is grown to the day of the second scan. Dice and volume error of the
          drawn, filled contour, beside the first contour left as it is. Treatment is not known.
margin    targets planned on the first scan, of the volume of a uniform margin of 5, 10 and 20 mm:
          the densest tissue by each method, or by growth from the drawn contour (`contour`);
          share of the second visit's tumour in tissue inside. And the volume that would hold 95 %
          of it, over that of the uniform margin which does.

Brain, fluid and white matter come from the T1 image (`oncology.tissue_classes`). Where d' is below
2, white and grey matter could not be told apart: D is then even, and only barriers (falx, fluid,
skull) make a target differ from a margin. Scans are roughly registered; nothing is aligned here.
"""

import argparse
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from glioblastoma_leave_one_out import folders_of
from rich.console import Console
from rich.table import Table
from scipy import ndimage

from mrphys.io.output import prepare_output_folder, write_text
from oncology.cohort import Patient, read_patient
from oncology.margin import covered, densest, uniform_margin, voxels_to_cover
from oncology.neural import binn, discrete_loss, pinn
from oncology.observe import ENHANCING_THRESHOLD, distance_mm, filled
from oncology.onset import (
    AGE,
    DIFFUSIVITY,
    GROWTH_RATE,
    Inferred,
    Onset,
    most_probable,
    onset,
)
from oncology.priors import DIFFUSIVITY as DIFFUSIVITY_PRIOR
from oncology.priors import GROWTH_RATE as GROWTH_PRIOR
from oncology.radial import radius_mm, scales
from oncology.tissue_classes import classify

METHODS = ("stepper", "discrete", "binn", "pinn")
PRIORS = {"age_day": AGE, DIFFUSIVITY: DIFFUSIVITY_PRIOR, GROWTH_RATE: GROWTH_PRIOR}
MARGINS_MM = (5.0, 10.0, 20.0)
BOX_MM, COARSER, FINER = 40.0, 3, 2
"""Around the first contour; voxels of images to one of the model in plane, and the other way
across slices."""
FROM_CONTOUR = {DIFFUSIVITY: 0.3, GROWTH_RATE: 0.03}
FROM_CONTOUR_DAYS, FROM_CONTOUR_STEPS = 60.0, 12


@dataclass(frozen=True, eq=False)
class Case:
    """One patient on the model's grid."""

    name: str
    days: float
    first: np.ndarray
    second: np.ndarray
    problem: Onset
    d_prime: float
    told_apart: bool

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Of the grid."""
        return self.problem.spacing_mm

    @property
    def tissue(self) -> np.ndarray:
        """Where cells can live."""
        return np.asarray(self.problem.relative_diffusivity) > 0


def case_of(patient: Patient) -> Case:
    """Anatomy from the first scan; contours interpolated between slices by their distance."""
    first, second = patient.scanned[:2]
    masks = [filled(np.asarray(visit.tumor.data) > 0) for visit in (first, second)]
    spacing = first.tumor.spacing_mm
    image = np.asarray(next(iter(first.anatomy.values())).data, float)
    tissue = classify(image, masks[0], spacing)
    share = tissue.relative_diffusivity()
    reach = [int(np.ceil(BOX_MM / h)) for h in spacing]
    voxels = np.argwhere(masks[0])
    low = np.maximum(voxels.min(0) - reach, 0)
    high = np.minimum(voxels.max(0) + reach, np.array(image.shape) - 1)
    step = np.array([COARSER, COARSER, 1 / FINER])
    axes = [np.arange(a, b + 1e-6, s) for a, b, s in zip(low, high, step, strict=True)]
    at = np.stack(np.meshgrid(*axes, indexing="ij"))

    def sampled(field: np.ndarray, order: int = 1) -> np.ndarray:
        return ndimage.map_coordinates(field, at, order=order, mode="nearest")

    def contour(mask: np.ndarray) -> np.ndarray:
        return sampled(distance_mm(mask, spacing) - distance_mm(~mask, spacing)) < 0

    drawn = [contour(mask) for mask in masks]
    smooth = ndimage.gaussian_filter(share, [COARSER / 2, COARSER / 2, 0])
    field = np.where(sampled((share > 0).astype(float)) > 0.5, sampled(smooth), 0.0)
    field = np.where(drawn[0] & (field == 0), 1.0, field)
    labels = np.empty(field.shape, np.int32)
    ndimage.label(field > 0, output=labels)
    field = np.where(np.isin(labels, np.unique(labels[drawn[0]])), field, 0.0)
    x, y, z = (step * spacing).tolist()
    grid = (x, y, z)
    problem = onset(
        field, grid, [{ENHANCING_THRESHOLD: drawn[0]}], (0.0,), PRIORS, readings=800, apart_mm=5.0
    )
    days = second.day - first.day
    told = tissue.white_matter is not None
    return Case(patient.subject, days, drawn[0], drawn[1], problem, tissue.d_prime, told)


def fitted(method: str, case: Case) -> tuple[np.ndarray, np.ndarray, dict[str, Any]]:
    """Densities on both days, and the estimates."""
    radii = np.array([[radius_mm(case.first, case.spacing_mm)]])
    z = scales(case.problem, radii).z
    start = jnp.concatenate([z, jnp.zeros(3)])
    after: Callable[[float], Any]
    if method == "stepper":
        found = most_probable(case.problem, start)
        after = found.after
    elif method == "discrete":
        found = discrete_loss.least_discrete_loss(case.problem, start).inferred
        after = found.after
    elif method == "binn":
        opened = binn.learn_growth(case.problem, z, key=jax.random.key(0))
        found, after = opened.inferred, opened.after
    else:
        (found,) = pinn.invert([case.problem], [radii], key=jax.random.key(0))
        after = found.after
    return np.asarray(found.states[0]), np.asarray(after(case.days)), told(found)


def told(found: Inferred) -> dict[str, Any]:
    """Estimates with their sd in units of the prior's."""
    sd = np.sqrt(np.diag(np.asarray(found.covariance)))[:3]
    return {n: float(found.p[n]) for n in PRIORS} | {"sd_of_prior": sd.tolist()}


def scores_of(case: Case, ahead: np.ndarray) -> dict[str, float]:
    """Of the contour foretold, beside the first left as it is."""
    from oncology.scores import dice, percent_error

    later, volume = ahead > ENHANCING_THRESHOLD, float(case.second.sum())
    return {
        "dice": dice(later, case.second),
        "dice_persistence": dice(case.first, case.second),
        "volume_error_percent": percent_error(float(later.sum()), volume),
        "volume_error_persistence_percent": percent_error(float(case.first.sum()), volume),
    }


def margins_of(case: Case, density: np.ndarray) -> dict[str, float]:
    """Coverage at equal volume, and relative volume at equal coverage."""
    tissue = case.tissue | case.first
    distance = distance_mm(case.first, case.spacing_mm)
    rank = np.log(np.maximum(density, 1e-12)) - 1e-3 * distance
    later = case.second & tissue
    found = {}
    for margin in MARGINS_MM:
        uniform = uniform_margin(case.first, tissue, case.spacing_mm, margin)
        target = densest(rank, case.first, tissue, int(uniform.sum()))
        found[f"uniform_{margin:g}"] = covered(uniform, later)
        found[f"densest_{margin:g}"] = covered(target, later)
    needed = [voxels_to_cover(r, case.first, later, tissue, 0.95) for r in (rank, -distance)]
    return found | {"volume_ratio": needed[0] / needed[1]}


def from_the_contour(case: Case) -> np.ndarray:
    """Density grown from the drawn contour for two months."""
    p = {name: jnp.asarray(v) for name, v in FROM_CONTOUR.items()}
    u = jnp.asarray(0.95 * case.first, float)
    days, steps = FROM_CONTOUR_DAYS, FROM_CONTOUR_STEPS
    return np.asarray(jax.jit(lambda u: case.problem.grown(p, u, days, steps))(u))


def report(out: Path) -> None:
    """Tables of what is there."""
    rows = {}
    for file in sorted(out.glob("*.json")):
        subject, method = file.stem.rsplit("_", 1)
        rows.setdefault(method, {})[subject] = json.loads(file.read_text())
    table = Table(title="The second contour from the first")
    for heading in (
        "method",
        "patients",
        "Dice",
        "of persistence",
        "|volume error| %",
        "of persistence",
        "s",
    ):
        table.add_column(heading, justify="right")
    for method in (m for m in METHODS if m in rows):
        made = list(rows[method].values())

        def mean(name: str, made: list = made) -> float:
            return float(np.mean([abs(row[name]) for row in made]))

        table.add_row(
            method, f"{len(made)}", f"{mean('dice'):.2f}", f"{mean('dice_persistence'):.2f}",
            f"{mean('volume_error_percent'):.0f}",
            f"{mean('volume_error_persistence_percent'):.0f}",
            f"{np.median([row['seconds'] for row in made]):.0f}",
        )  # fmt: skip
    console = Console(width=150)
    console.print(table)
    table = Table(title="Share of the second tumour in a target: densest / uniform margin")
    headings = (
        "density by",
        "patients",
        *(f"{m:g} mm" for m in MARGINS_MM),
        "volume for 95 %, ratio",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for method in (m for m in ("contour", *METHODS) if m in rows):
        made = list(rows[method].values())
        cells = []
        for margin in MARGINS_MM:
            pair = [np.mean([r[f"{k}_{margin:g}"] for r in made]) for k in ("densest", "uniform")]
            cells.append(f"{pair[0]:.3f} / {pair[1]:.3f}")
        ratios = [row["volume_ratio"] for row in made]
        each = " ".join(f"{ratio:.2f}" for ratio in ratios)
        table.add_row(method, f"{len(made)}", *cells, f"{np.mean(ratios):.2f} ({each})")
    console.print(table)
    told_apart = {s: (r["d_prime"], r["told_apart"]) for v in rows.values() for s, r in v.items()}
    for subject, (d_prime, apart) in sorted(told_apart.items()):
        said = "told apart" if apart else "not told apart: even D"
        console.print(f"{subject}: white and grey matter d' = {d_prime:.2f}, {said}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=Path, default=Path("patients/glioblastoma"))
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--methods", nargs="+", choices=("contour", *METHODS))
    parser.add_argument("--out", type=Path, default=Path("results/neural_glioblastoma"))
    asked = parser.parse_args(arguments)
    folders = folders_of(asked)
    if not folders:
        print(f"skipped: no patients in {asked.patients}, no data in {asked.data}")
        return 0
    out = prepare_output_folder(asked.out)
    methods = asked.methods or ("contour", *METHODS)
    for folder in folders:
        case = None
        for method in methods:
            file = out / f"{folder.name}_{method}.json"
            if file.is_file():
                continue
            case = case or case_of(read_patient(folder))
            began = perf_counter()
            row: dict[str, Any] = {"d_prime": case.d_prime, "told_apart": case.told_apart}
            if method == "contour":
                density = from_the_contour(case)
            else:
                density, ahead, estimates = fitted(method, case)
                row |= scores_of(case, ahead) | estimates
            row |= margins_of(case, density) | {"seconds": perf_counter() - began}
            write_text(file, json.dumps(row) + "\n")
            print(file.stem, f"{row['seconds']:.0f} s", flush=True)
    report(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
