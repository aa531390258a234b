"""Forecast the last two volumes of every lesion of five trials from those before.

    python benchmarks/lesion_volumes.py --data ../shared/data [--published errors.jls]

TumorGrowth.jl's protocol: records with six readings or more, times T_weeks, volumes
Lesion_normvol, the last two readings held out, mean absolute error averaged over records. Rows:
carried       the last fitting reading stays
laws          every record fitted alone, as TumorGrowth.jl does (`rival_tumorgrowth.py`)
hierarchical  `oncology.lesions`: median of the posterior predictive, with 90 % intervals

The one choice, Student's degrees of freedom, is made on the last two *fitting* readings, foretold
from those before; no held-out reading is looked at. The published figures rest on fewer records:
those on which each of eight models, neural ones too, ended finite and no error was above 0.1. With
their `errors.jls` (docs/src/examples/04_model_battle of their checkout) the same ones are scored.
"""

import argparse
from pathlib import Path
from time import perf_counter

import jax
import numpy as np
from lesion_records import HELD_OUT, diameter_mm, error_of, interval, read, volume_of
from rich.console import Console
from rich.table import Table
from rival_tumorgrowth import LAWS, forecasts, kept, published_errors

from oncology.lesions import FREEDOMS, Readings, learn_lesions, readings


def foretold(given: Readings, days: jax.Array, freedom: int, seed: int) -> np.ndarray:
    """5, 50 and 95 % of the volumes on later days, (3, lesions, days)."""
    population = learn_lesions(given, freedom)
    drawn = population.forecast(given, days, jax.random.key(seed))
    return volume_of(np.quantile(np.asarray(drawn), [0.05, 0.5, 0.95], axis=2))


def chosen_freedom(given: Readings, seed: int) -> int:
    """That which best foretells the last two of the fitting readings from those before."""
    earlier = given.without_last(HELD_OUT)
    days, seen = given.last(HELD_OUT)
    observed = volume_of(np.asarray(seen))
    scores = {
        freedom: error_of(foretold(earlier, days, freedom, seed)[1], observed).mean()
        for freedom in FREEDOMS
    }
    return min(scores, key=lambda freedom: scores[freedom])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument("--published", type=Path, help="TumorGrowth.jl's errors.jls")
    parser.add_argument("--seed", type=int, default=0, help="(%(default)s)")
    asked = parser.parse_args(arguments)
    found = read(asked.data)
    if found is None:
        return 0
    weeks, volumes = found
    held = np.stack([v[-HELD_OUT:] for v in volumes])
    errors = {"carried": error_of(np.stack([v[[-3, -3]] for v in volumes]), held)}
    seconds = {"carried": 0.0}
    with jax.enable_x64(True):
        for law in LAWS:
            began = perf_counter()
            errors[law] = error_of(np.stack(forecasts(law, weeks, volumes, HELD_OUT)), held)
            seconds[law] = perf_counter() - began
        began = perf_counter()
        records = readings([7 * t for t in weeks], [diameter_mm(v) for v in volumes])
        given, (days, _) = records.without_last(HELD_OUT), records.last(HELD_OUT)
        freedom = chosen_freedom(given, asked.seed)
        low, median, high = foretold(given, days, freedom, asked.seed)
        errors["hierarchical"] = error_of(median, held)
        seconds["hierarchical"] = perf_counter() - began
    everyone = np.ones(len(weeks), bool)
    published, sets = {}, {"all": everyone}
    if asked.published is not None:
        every = published_errors(asked.published, len(weeks))
        published = {f"published {law}": every[law] for law in LAWS}
        sets["the published"] = kept(every)
    console, rng = Console(width=120), np.random.default_rng(asked.seed)
    for name, these in sets.items():
        table = Table(title=f"Mean absolute error, normalised volumes: {name} records")
        for heading in ("forecast", "records", "error", "hierarchical less this [95 %]", "s"):
            table.add_column(heading, justify="right")
        for row, error in (errors | published).items():
            use = these & np.isfinite(error)
            mean, least, most = interval((errors["hierarchical"] - error)[use], rng)
            gain = f"{mean:+.6f} \\[{least:+.6f}, {most:+.6f}]"
            took = f"{seconds[row]:.1f}" if row in seconds else ""
            table.add_row(row, f"{use.sum()}", f"{error[use].mean():.6f}", gain, took)
        console.print(table)
        inside = (low <= held + 1e-12) & (held <= high + 1e-12)
        cover = 100 * inside[these].mean(axis=0)
        console.print(
            f"90 % intervals cover {cover[0]:.1f} % and {cover[1]:.1f} % of the first and second "
            f"held-out readings; Student's t with {freedom} degrees of freedom"
        )
    for law in LAWS if published else ():
        told = published[f"published {law}"]
        alike = np.abs(errors[law] - told) <= 1e-3 * told + 1e-12
        console.print(f"{law}: {100 * alike.mean():.1f} % of records as published, within 0.1 %")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
