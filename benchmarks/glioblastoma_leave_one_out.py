"""Forecast each glioblastoma's second mask from its first, with growth learnt from the others.

    python benchmarks/glioblastoma_leave_one_out.py \\
        --patients patients/glioblastoma --out results/glioblastoma

Prints one table and writes it as leave_one_out.csv and .json, with a figure beside. Where the
patient folders are missing they are made from --data; where that is missing too, nothing is done.

For each patient, from the first mask, the days between the visits, and the five others:
volume      median and 90 % interval of the second volume, by `oncology.population`; CRPS of its
            logarithm, beside persistence: log V₂ ~ N(log V₁, s²), s the root mean square of the
            others' log growth
mask        where the model at median rate and length is dense enough to be seen, but for the dark
            core of the first mask; Dice with the second mask as drawn and volume error, beside
            those of the first mask
alignment   the second scan is then aligned rigidly to the first, its mask carried along by nearest
            neighbour, and the Dice repeated: the motion is used for scoring alone

No treatments are known. Everything said of a patient comes from the others and the first visit, but
the form of the hierarchy was settled with these six in view: patients never seen are its test.
"""

import argparse
import csv
import json
import runpy
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import version
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TimeElapsedColumn
from rich.table import Table
from scipy import special

import mrphys
from mrphys.errors import InputError, Problem
from mrphys.io.output import prepare_output_folder, whole_file, write_text
from oncology.alignment import RigidMotion, align, correlation, no_motion
from oncology.cohort import Patient, read_patient
from oncology.observe import filled
from oncology.population import OnceSeen, Pair, Population, learn_from, response, seen_once
from oncology.scores import crps, dice, percent_error

MASKS = ("forecast", "persistence")


@dataclass(frozen=True)
class Row:
    """One patient; volumes in ml, errors in per cent, rates per day, turns in degrees."""

    patient: str
    days: float
    first_volume_ml: float
    second_volume_ml: float
    forecast_volume_ml: float
    forecast_low90_ml: float
    forecast_high90_ml: float
    covered: bool
    crps_forecast: float
    crps_persistence: float
    persistence_log_sd: float
    prior_rate_per_day: float
    prior_rate_log_sd: float
    dice_forecast: float
    dice_persistence: float
    dice_forecast_aligned: float
    dice_persistence_aligned: float
    dice_forecast_filled: float
    dice_persistence_filled: float
    volume_error_forecast_percent: float
    volume_error_persistence_percent: float
    correlation_before: float
    correlation_after: float
    turned_deg: float
    moved_mm: float


def normal_crps(sd: float, error: float) -> float:
    r"""CRPS of a normal forecast that missed by `error`:
    :math:`\sigma [z (2\Phi(z) - 1) + 2\varphi(z) - 1/\sqrt\pi]`, z = error / sd.

    Gneiting, Raftery, Westveld & Goldman 2005, doi:10.1175/MWR2904.1, eq. 5.
    """
    z = error / sd
    density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
    return float(sd * (z * (2 * special.ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi)))


def volume_ml(mask: np.ndarray, patient: Patient) -> float:
    """Volume of a mask on a patient's grid."""
    return float(mask.sum()) * patient.scanned[0].tumor.voxel_volume_mm3 / 1000


def forecast_mask(tumor: OnceSeen, drawn: np.ndarray, population: Population) -> np.ndarray:
    """What the median rate and length make visible on the later day. The core that was dark
    inside the first mask stays dark."""
    turnovers = population.growth_rate(tumor.days).median * tumor.days
    _, u = tumor.grown(jnp.log(turnovers), jnp.log(population.length.median))
    visible = tumor.crop.paste(np.asarray(u) > tumor.first.threshold)
    return visible & ~(filled(drawn) & ~drawn)


def second_in_the_first(patient: Patient) -> tuple[RigidMotion, np.ndarray, float, float]:
    """The motion between the scans, the second mask moved to the first scan, and the images'
    correlation before and after."""
    first, second = patient.scanned[:2]
    shared = [name for name in first.anatomy if name in second.anatomy]
    if not shared:
        found = "no image of one kind at both visits"
        raise InputError(Problem(patient.subject, found, "an anatomy to align by, such as T1w"))
    fixed, moving = first.anatomy[shared[0]], second.anatomy[shared[0]]
    motion = align(fixed, moving)
    moved = np.asarray(motion.apply(second.tumor, first.tumor, "nearest").data)
    before, after = (float(correlation(m, fixed, moving)) for m in (no_motion(fixed), motion))
    return motion, moved, before, after


def row_of(
    patient: Patient, tumor: OnceSeen, pair: Pair, others: Sequence[Pair], key: jax.Array
) -> Row:
    """One patient foretold from the others. `pair` serves to score, and for its response, which
    knows the first mask only."""
    drawn, second = (np.asarray(visit.tumor.data) for visit in patient.scanned[:2])
    population = learn_from(others)
    growth = np.asarray(population.log_growth(pair.response, key))
    low, median, high = np.exp(np.quantile(growth, [0.05, 0.5, 0.95])) * volume_ml(drawn, patient)
    sd = float(np.sqrt(np.mean([other.log_growth**2 for other in others])))
    rate = population.growth_rate(tumor.days)
    masks = dict(zip(MASKS, (forecast_mask(tumor, drawn, population), drawn), strict=True))
    motion, moved, before, after = second_in_the_first(patient)
    scores = {}
    for name, mask in masks.items():
        scores[f"dice_{name}"] = dice(mask, second)
        scores[f"dice_{name}_aligned"] = dice(mask, moved)
        scores[f"dice_{name}_filled"] = dice(filled(mask), filled(second))
        error = percent_error(volume_ml(mask, patient), volume_ml(second, patient))
        scores[f"volume_error_{name}_percent"] = error
    return Row(
        patient=patient.subject,
        days=tumor.days,
        first_volume_ml=volume_ml(drawn, patient),
        second_volume_ml=volume_ml(second, patient),
        forecast_volume_ml=float(median),
        forecast_low90_ml=float(low),
        forecast_high90_ml=float(high),
        covered=bool(low <= volume_ml(second, patient) <= high),
        crps_forecast=crps(growth, pair.log_growth),
        crps_persistence=normal_crps(sd, pair.log_growth),
        persistence_log_sd=sd,
        prior_rate_per_day=rate.median,
        prior_rate_log_sd=rate.log_sd,
        correlation_before=before,
        correlation_after=after,
        turned_deg=float(np.rad2deg(np.linalg.norm(motion.rotation_rad))),
        moved_mm=float(np.linalg.norm(motion.translation_mm)),
        **scores,
    )


def leave_one_out(
    patients: Sequence[Patient], seed: int = 0, step: Callable[[str, int, int], None] | None = None
) -> list[Row]:
    """A row for every patient. `step(what, done, of)` is called as work goes on.

    Raises InputError for less than three patients, one without two scanned visits, or an empty
    mask.
    """
    step = step or (lambda what, done, of: None)
    if len(patients) < 3:
        expected = "three patients or more, each with two scanned visits"
        raise InputError(Problem("leave_one_out", f"{len(patients)} patients", expected))
    tumors, pairs, rows = [], [], []
    for patient in patients:
        if len(patient.scanned) < 2:
            found = f"{len(patient.scanned)} scanned visits"
            raise InputError(Problem(patient.subject, found, "two visits with masks"))
        first, second = patient.scanned[:2]
        tumor = seen_once(patient, first, second.day)
        table = response(tumor, partial(step, f"{patient.subject}: growing the first mask"))
        volumes = [volume_ml(np.asarray(visit.tumor.data), patient) for visit in (first, second)]
        if not volumes[1] > 0:
            raise InputError(Problem(patient.subject, "an empty second mask", "a drawn tumour"))
        tumors.append(tumor)
        pairs.append(Pair(table, float(np.log(volumes[1] / volumes[0]))))
    for i, patient in enumerate(patients):
        step("learning from the others, aligning", i, len(patients))
        key = jax.random.fold_in(jax.random.key(seed), i)
        others = [*pairs[:i], *pairs[i + 1 :]]
        rows.append(row_of(patient, tumors[i], pairs[i], others, key))
    step("learning from the others, aligning", len(patients), len(patients))
    return rows


def means(rows: Sequence[Row]) -> dict[str, float]:
    """Coverage and mean scores of all patients."""
    names = [name for name in asdict(rows[0]) if name.startswith(("crps_", "dice_"))]
    summary = {name: float(np.mean([getattr(row, name) for row in rows])) for name in names}
    for name in MASKS:
        errors = [abs(getattr(row, f"volume_error_{name}_percent")) for row in rows]
        summary[f"absolute_volume_error_{name}_percent"] = float(np.mean(errors))
    return {"covered": sum(row.covered for row in rows), "patients": len(rows), **summary}


def table_of(rows: Sequence[Row]) -> Table:
    """Forecast / persistence in each pair of columns."""
    table = Table(title="Second mask from the first, growth from the others (forecast/persistence)")
    for heading in ("patient", "days", "V₁ ml", "V₂ ml", "forecast V₂ [90 %] ml", "CRPS log V"):
        table.add_column(heading, justify="right")
    for heading in ("Dice", "Dice aligned", "volume error %", "NCC aligned"):
        table.add_column(heading, justify="right")
    for row in rows:
        inside = "" if row.covered else " [red]out[/red]"
        table.add_row(
            row.patient,
            f"{row.days:.0f}",
            f"{row.first_volume_ml:.1f}",
            f"{row.second_volume_ml:.1f}",
            f"{row.forecast_volume_ml:.1f} \\[{row.forecast_low90_ml:.1f}, "
            f"{row.forecast_high90_ml:.1f}]{inside}",
            f"{row.crps_forecast:.3f} / {row.crps_persistence:.3f}",
            f"{row.dice_forecast:.2f} / {row.dice_persistence:.2f}",
            f"{row.dice_forecast_aligned:.2f} / {row.dice_persistence_aligned:.2f}",
            f"{row.volume_error_forecast_percent:+.0f} / "
            f"{row.volume_error_persistence_percent:+.0f}",
            f"{row.correlation_before:.2f} → {row.correlation_after:.2f}",
        )
    return table


def figure_of(rows: Sequence[Row]) -> Figure:
    """Observed volumes beside the forecast's and persistence's 90 % intervals."""
    figure = Figure(figsize=(7, 3.6), layout="constrained")
    axes = figure.subplots()
    places = np.arange(len(rows))
    first, second, middle, low, high, sd = (
        np.array([getattr(row, name) for row in rows])
        for name in (
            "first_volume_ml",
            "second_volume_ml",
            "forecast_volume_ml",
            "forecast_low90_ml",
            "forecast_high90_ml",
            "persistence_log_sd",
        )
    )
    half = np.exp(1.645 * sd)
    axes.vlines(places - 0.12, low, high, color="#0072b2", lw=5, alpha=0.4)
    axes.plot(places - 0.12, middle, "_", color="#0072b2", ms=12, label="forecast, 90 %")
    axes.vlines(places + 0.12, first / half, first * half, color="#999999", lw=5, alpha=0.5)
    axes.plot(places + 0.12, first, "_", color="#555555", ms=12, label="persistence, 90 %")
    axes.plot(places, second, "o", color="#d55e00", label="observed")
    axes.set_yscale("log")
    axes.set_xticks(places, [f"{row.patient}\n{row.days:.0f} days" for row in rows])
    axes.set_ylabel("volume at the second visit (ml)")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def write(rows: Sequence[Row], out: Path, provenance: dict) -> None:
    """leave_one_out.csv, .json and .png in a folder, each whole."""
    folder = prepare_output_folder(out)
    records = [asdict(row) for row in rows]
    with (
        whole_file(folder / "leave_one_out.csv") as draft,
        draft.open("w", encoding="utf-8", newline="") as file,
    ):
        writer = csv.DictWriter(file, records[0])
        writer.writeheader()
        writer.writerows(records)
    content = {"patients": records, "means": means(rows), "provenance": provenance}
    text = json.dumps(content, indent=2, ensure_ascii=False)
    write_text(folder / "leave_one_out.json", text + "\n")
    with whole_file(folder / "leave_one_out.png") as draft:
        figure_of(rows).savefig(draft, dpi=150)


def folders_of(asked: argparse.Namespace) -> list[Path]:
    """The patient folders, made from the reference data where they are missing."""
    folders = sorted(path for path in asked.patients.glob("sub-*") if path.is_dir())
    if folders:
        return folders
    script = runpy.run_path(str(Path(__file__).with_name("reference_patients.py")))
    if not (asked.data / script["DATA_SETS"]["glioblastoma"][0]).is_dir():
        return []
    voxel_mm = (0.94, 0.94, 6.5)
    return script["write_data_set"]("glioblastoma", asked.data, asked.patients.parent, voxel_mm)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--patients", type=Path, default=Path("patients/glioblastoma"), help="(%(default)s)"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument(
        "--out", type=Path, default=Path("results/glioblastoma"), help="(%(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    asked = parser.parse_args(arguments)
    console, began = Console(width=150), perf_counter()
    try:
        folders = folders_of(asked)
        if not folders:
            print(f"skipped: no patients in {asked.patients}, no data in {asked.data}")
            return 0
        prepare_output_folder(asked.out)
        columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeElapsedColumn())
        with Progress(*columns, console=console) as progress:
            task = progress.add_task("reading", total=None)

            def step(what: str, done: int, of: int) -> None:
                progress.update(task, description=what, completed=done, total=of)

            rows = leave_one_out([read_patient(folder) for folder in folders], asked.seed, step)
        seconds = perf_counter() - began
        versions = {name: version(name) for name in ("jax", "numpy", "equinox")}
        provenance = {"seed": asked.seed, "seconds": seconds, "mrphys": mrphys.__version__}
        write(rows, asked.out, provenance | versions)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    console.print(table_of(rows))
    mean = means(rows)
    console.print(
        f"90 % intervals cover {mean['covered']} of {mean['patients']}; mean CRPS of log volume "
        f"{mean['crps_forecast']:.3f}, persistence {mean['crps_persistence']:.3f}; "
        f"mean Dice {mean['dice_forecast']:.3f}, persistence {mean['dice_persistence']:.3f}, "
        f"aligned {mean['dice_forecast_aligned']:.3f} and "
        f"{mean['dice_persistence_aligned']:.3f}; mean |volume error| "
        f"{mean['absolute_volume_error_forecast_percent']:.0f} %, persistence "
        f"{mean['absolute_volume_error_persistence_percent']:.0f} %."
    )
    console.print(f"Written to {asked.out} in {seconds:.0f} s.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
