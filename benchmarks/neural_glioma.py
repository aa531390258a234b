"""One table of four ways to invert a glioma: through the stepper, PINN, discrete loss, BINN.

    python benchmarks/neural_glioma.py [--patients 20] [--methods stepper discrete binn pinn]
    python benchmarks/neural_glioma.py --only-report

Virtual patients (`oncology.virtual_onsets`): MNI anatomy, truth at 1 mm, two scans 45 days apart
at 2 mm of which the contours of enhancement and oedema are drawn, the priors those of the draw.
All methods get the same contours, priors and start (the ball of the same radii). Rows:

error      |estimate - truth| / truth of D and k, median; of the site in mm
coverage   95 % intervals of age, D, k and the three coordinates of the site, of all patients
Dice       of the contour of 1 % density on the second scan, which no scan shows
CCC        of density on day 90, forecast from the second scan's field, where the truth is above
           0.1 %; `persistence` is the truth's own map of day 45
seconds    of wall time a patient, compiled code; first: with compilation
memory     peak of the process, each method in its own

Each patient's result is a file in --out: what is there is not computed again. PINNs are trained
together, `--together` patients in one program, with checkpoints.
"""

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from time import perf_counter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console
from rich.table import Table

from mrphys.io.output import prepare_output_folder, write_text
from oncology.neural import binn, discrete_loss, pinn
from oncology.onset import DIFFUSIVITY, GROWTH_RATE, NAMES, SITE_SD_MM, Inferred, most_probable
from oncology.radial import scales
from oncology.scores import concordance, dice
from oncology.virtual_onsets import DAYS, FORECAST_DAY, PRIORS, VirtualOnset, drawn

METHODS = ("stepper", "discrete", "binn", "pinn")
INVISIBLE, NOTHING = 0.01, 1e-3
AHEAD = FORECAST_DAY - DAYS[-1]


def cohort_of(count: int, folder: Path) -> list[VirtualOnset]:
    """Patients, kept in a folder once they are grown."""
    import pickle

    made = []
    for number in range(count):
        file = folder / f"patient_{number:02d}.pickle"
        if not file.is_file():
            file.write_bytes(pickle.dumps(drawn(number)))
        made.append(pickle.loads(file.read_bytes()))
    return made


def scored(patient: VirtualOnset, found: Inferred, ahead: np.ndarray) -> dict[str, Any]:
    """Errors, intervals and overlaps of one result."""
    truth = patient.truth
    z_true = [np.log(truth[n] / PRIORS[n].median) / PRIORS[n].log_sd for n in NAMES]
    centre = np.asarray(patient.problem.centre_mm)
    z_true = np.concatenate([z_true, (truth["site_mm"] - centre) / SITE_SD_MM])
    z, sd = np.asarray(found.z), np.sqrt(np.diag(np.asarray(found.covariance)))
    estimate = {name: float(found.p[name]) for name in NAMES}
    last, future = patient.states[len(patient.masks) - 1], patient.states[-1]
    here = future > NOTHING
    return {
        "z": z.tolist(),
        "sd": sd.tolist(),
        "z_true": z_true.tolist(),
        "error_d": abs(estimate[DIFFUSIVITY] / truth[DIFFUSIVITY] - 1),
        "error_k": abs(estimate[GROWTH_RATE] / truth[GROWTH_RATE] - 1),
        "error_site_mm": float(np.linalg.norm(SITE_SD_MM * (z - z_true)[3:])),
        "covered": (np.abs(z - z_true) < 1.96 * sd).tolist(),
        "dice": dice(np.asarray(found.states[-1]) > INVISIBLE, last > INVISIBLE),
        "dice_forecast": dice(ahead > INVISIBLE, future > INVISIBLE),
        "ccc": concordance(ahead[here].astype(float), future[here]),
        "ccc_persistence": concordance(last[here], future[here]),
    }


def through_the_stepper(patient: VirtualOnset) -> tuple[Inferred, Any]:
    """`onset.most_probable`."""
    found = most_probable(patient.problem, start_of(patient))
    return found, found.after(AHEAD)


def by_discrete_loss(patient: VirtualOnset) -> tuple[Inferred, Any]:
    """`neural.discrete_loss`."""
    found = discrete_loss.least_discrete_loss(patient.problem, start_of(patient)).inferred
    return found, found.after(AHEAD)


def with_open_growth(patient: VirtualOnset) -> tuple[Inferred, Any]:
    """`neural.learn_growth`."""
    z = scales(patient.problem, patient.radii_mm).z
    opened = binn.learn_growth(patient.problem, z, key=jax.random.key(0))
    return opened.inferred, opened.after(AHEAD)


def start_of(patient: VirtualOnset) -> jax.Array:
    """z of the ball, the site in the middle."""
    return jnp.concatenate([scales(patient.problem, patient.radii_mm).z, jnp.zeros(3)])


ONE_BY_ONE: dict[str, Callable[[VirtualOnset], tuple[Inferred, Any]]] = {
    "stepper": through_the_stepper,
    "discrete": by_discrete_loss,
    "binn": with_open_growth,
}


def run(method: str, patients: Sequence[VirtualOnset], out: Path, together: int) -> None:
    """Results of one method that are not there yet."""
    files = [out / f"{method}_{number:02d}.json" for number in range(len(patients))]

    def write(file: Path, patient: VirtualOnset, found: Inferred, ahead: Any, s: float) -> None:
        row = scored(patient, found, np.asarray(ahead)) | {"seconds": s}
        row["memory_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        write_text(file, json.dumps(row) + "\n")
        print(file.stem, f"{s:.0f} s", flush=True)

    if method in ONE_BY_ONE:
        for file, patient in zip(files, patients, strict=True):
            if not file.is_file():
                began = perf_counter()
                found, ahead = ONE_BY_ONE[method](patient)
                ahead = np.asarray(ahead)
                write(file, patient, found, ahead, perf_counter() - began)
        return
    for first in range(0, len(patients), together):
        some, place = patients[first : first + together], files[first : first + together]
        if all(file.is_file() for file in place):
            continue
        began = perf_counter()
        found = pinn.invert(
            [patient.problem for patient in some],
            [patient.radii_mm for patient in some],
            folder=out / f"pinn_from_{first:02d}_{len(some)}",
            progress=lambda stage, step, of, loss: print(stage, step, of, loss, flush=True),
            key=jax.random.key(0),
        )
        seconds = (perf_counter() - began) / len(some)
        for file, patient, one in zip(place, some, found, strict=True):
            write(file, patient, one, one.after(AHEAD), seconds)


def report(out: Path) -> None:
    """The table of what is there, for the patients that every method has."""
    rows = {m: sorted(out.glob(f"{m}_[0-9][0-9].json")) for m in METHODS}
    rows = {m: files for m, files in rows.items() if files}
    numbers = [{file.stem[-2:] for file in files} for files in rows.values()]
    if not numbers:
        print(f"nothing in {out}")
        return
    common = set.intersection(*numbers)
    table = Table(title=f"{len(common)} virtual gliomas: median [quartiles]")
    headings = (
        "method", "D error %", "k error %", "site mm", "95 % covers", "mean sd of z",
        "Dice 1 %", "Dice 1 %, day 90", "CCC, day 90", "s", "first s", "MB",
    )  # fmt: skip
    for heading in headings:
        table.add_column(heading, justify="right")

    def middle(values: list[float], form: str) -> str:
        low, half, high = np.quantile(values, [0.25, 0.5, 0.75])
        return f"{half:{form}} \\[{low:{form}}, {high:{form}}]"

    for method, files in rows.items():
        every = [json.loads(file.read_text()) for file in files]
        made = [r for r, file in zip(every, files, strict=True) if file.stem[-2:] in common]
        covered, sd = np.array([r["covered"] for r in made]), np.array([r["sd"] for r in made])
        seconds = [r["seconds"] for r in every]
        table.add_row(
            method,
            middle([100 * r["error_d"] for r in made], ".0f"),
            middle([100 * r["error_k"] for r in made], ".0f"),
            middle([r["error_site_mm"] for r in made], ".2f"),
            f"{covered[:, :3].mean():.0%}, site {covered[:, 3:].mean():.0%}",
            f"{sd[:, :3].mean():.2f}, {sd[:, 3:].mean():.2f}",
            middle([r["dice"] for r in made], ".3f"),
            middle([r["dice_forecast"] for r in made], ".3f"),
            middle([r["ccc"] for r in made], ".4f"),
            f"{np.median(seconds):.0f}",
            f"{seconds[0]:.0f}",
            f"{max(r['memory_mb'] for r in every):.0f}",
        )
    Console(width=190).print(table)
    some = [json.loads(f.read_text()) for f in next(iter(rows.values())) if f.stem[-2:] in common]
    print("CCC of persistence:", f"{np.median([r['ccc_persistence'] for r in some]):.4f}")


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--patients", type=int, default=20, help="(%(default)s)")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--together", type=int, default=4, help="PINNs (%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("results/neural_glioma"))
    parser.add_argument("--only-report", action="store_true")
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    out = prepare_output_folder(asked.out)
    if not asked.only_report:
        patients = cohort_of(asked.patients, out)
        for method in asked.methods:
            if asked.here:
                run(method, patients, out, asked.together)
                continue
            # a process of its own, so that the peak of its memory is a method's
            options = ["--patients", str(asked.patients), "--together", str(asked.together)]
            command = [sys.executable, __file__, "--methods", method, "--out", str(out), "--here"]
            subprocess.run([*command, *options], check=True)
    if not asked.here:
        report(out)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
