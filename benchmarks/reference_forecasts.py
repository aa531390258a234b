"""The three reference data sets calibrated and forecast: one table of what was asked and found.

    python benchmarks/reference_forecasts.py --data ../shared/data [--truth truth.json]

virtual_tnbc    both patients: a growth map with its posterior from the scans on days 0 and 25, the
                third foretold: concordance, error of the total, 90 % interval of the total
virtual_gbm_rnl growth rate and diffusivity with their 90 % intervals; their errors where --truth, a
                JSON file of the two names, tells the truth that the data set withholds
glioblastoma_progression
                every second mask from the first, growth from the other five: CRPS of the logarithm
                of the volume beside persistence, coverage of the 90 % intervals

Every setting is the library's; the forecast visits serve for scoring alone. A data set that is not
there is skipped.
"""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from time import perf_counter
from typing import NamedTuple

import jax
import numpy as np
from glioblastoma_leave_one_out import leave_one_out, means
from reference_patients import DATA_SETS, patients_of
from rich.console import Console
from rich.table import Table

from oncology import scores
from oncology.calibration import calibrate, observation_of
from oncology.cohort import Patient
from oncology.forecast import TOTAL
from oncology.observe import CellularityMap

DRAWS = 200
VOXEL_MM = (0.94, 0.94, 6.5)
LEAST_CONCORDANCE = {"sub-tnbc1": 0.97, "sub-tnbc2": 0.935}
MOST_TOTAL_PERCENT = 3.0
MOST_ERROR_PERCENT = {"growth_rate_per_day": 2.0, "diffusivity_mm2_per_day": 5.0}


class Line(NamedTuple):
    """One line of the table; `kept` is None where the data do not tell."""

    what: str
    found: str
    asked: str
    kept: bool | None


def breast(patient: Patient, seed: int) -> Iterator[Line]:
    """The third visit of a virtual breast cancer from the first two."""
    last = patient.visit(3)
    fit = calibrate(patient, (1, 2), until_day=last.day)
    ahead = fit.forecast(last.day, jax.random.key(seed), draws=DRAWS)
    model = fit.inverse.model
    seen = observation_of(last, model, fit.crop, fit.scale)
    if not isinstance(seen, CellularityMap):
        raise TypeError("cellularity maps are expected")
    drawn, value = np.asarray(seen.mask), np.asarray(seen.value)
    persisted = np.asarray(fit.inverse.observations[-1].mask)
    tissue = np.asarray(model.habitable)
    region = scores.scored_region((drawn, persisted), tissue, model.spacing_mm)
    concordance = scores.concordance(ahead.mean[region], np.where(drawn, value, 0.0)[region])
    voxel = float(np.prod(model.spacing_mm))
    total = float(value[drawn].sum() * voxel)
    error = scores.percent_error(float(ahead.mean[ahead.mask].sum() * voxel), total)
    low, high = np.percentile(ahead.samples[TOTAL], [5, 95])
    name, least = patient.subject, LEAST_CONCORDANCE[patient.subject]
    yield Line(f"{name} CCC", f"{concordance:.4f}", f">= {least}", concordance >= least)
    within = abs(error) <= MOST_TOTAL_PERCENT
    yield Line(f"{name} total", f"{error:+.1f} %", f"|x| <= {MOST_TOTAL_PERCENT:g} %", within)
    interval = f"{total:.0f} in [{low:.0f}, {high:.0f}] mm³"
    yield Line(f"{name} 90 % interval of the total", interval, "covers", low <= total <= high)


def glioma(patient: Patient, truth: Mapping[str, float]) -> Iterator[Line]:
    """Growth rate and diffusivity of the virtual glioblastoma."""
    fit = calibrate(patient, (1, 2), adc_w_mm2_per_s=2.5e-3, adc_min_mm2_per_s=0.0)
    found = fit.posterior
    for name, most in MOST_ERROR_PERCENT.items():
        i = list(found.inverse.priors).index(name)
        prior = found.inverse.priors[name]
        sd = float(np.sqrt(found.covariance[i, i]))
        low, middle, high = (
            prior.median * np.exp(prior.log_sd * (float(found.z[i]) + turn * sd))
            for turn in (-1.645, 0.0, 1.645)
        )
        row = f"{middle:.4f} [{low:.4f}, {high:.4f}] {prior.unit}"
        asked, kept = f"within {most:g} %, covered", None
        if name in truth:
            error = scores.percent_error(middle, truth[name])
            row += f", {error:+.1f} %"
            kept = abs(error) <= most and bool(low <= truth[name] <= high)
        yield Line(f"{patient.subject} {name}", row, asked, kept)


def glioblastomas(patients: list[Patient], seed: int) -> Iterator[Line]:
    """Second volumes from first masks and the other patients."""
    mean = means(leave_one_out(patients, seed))
    ours, stays = mean["crps_forecast"], mean["crps_persistence"]
    yield Line("glioblastoma CRPS of log volume", f"{ours:.4f}", f"< {stays:.4f}", ours < stays)
    covered = f"{mean['covered']} of {mean['patients']}"
    yield Line("glioblastoma 90 % intervals", covered, ">= 5 of 6", mean["covered"] >= 5)


def lines(data: Path, truth: Mapping[str, float], seed: int) -> Iterator[Line]:
    """Every line, as it is found."""
    for name, (source, _, _) in DATA_SETS.items():
        if not (data / source).is_dir():
            yield Line(name, "skipped", f"no data at {data / source}", None)
            continue
        patients = list(patients_of(name, data / source, VOXEL_MM))
        if name == "glioblastoma":
            yield from glioblastomas(patients, seed)
            continue
        for patient in patients:
            yield from breast(patient, seed) if name == "tnbc" else glioma(patient, truth)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument("--truth", type=Path, help="JSON: the glioblastoma's two parameters")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    asked = parser.parse_args(arguments)
    truth = json.loads(asked.truth.read_text()) if asked.truth else {}
    began = perf_counter()
    table = Table(title="Reference data: calibrated on the first visits")
    for heading in ("what", "found", "asked", "kept"):
        table.add_column(heading)
    for line in lines(asked.data, truth, asked.seed):
        print(*line, f"{perf_counter() - began:.0f} s", sep="; ", flush=True)
        kept = {None: "not known", True: "yes", False: "no"}[line.kept]
        table.add_row(line.what, line.found, line.asked, kept)
    Console(width=120).print(table)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
