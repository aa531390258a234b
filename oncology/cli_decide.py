"""`mrphys decide NAME`: when to scan a patient next, how to treat, what the clinic would say."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mrphys.errors import InputError, Problem
from oncology.cli_bar import counted

decide = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode="markdown",
    help="When to scan a patient next, how to treat, how the tumour answers; all with how sure.",
    epilog="Each command calibrates the patient's model first, as `mrphys forecast` does, and "
    "draws tumours that could have given the scans. Doses are chosen on half of the draws and "
    "judged on the other half: what does not gain in 95 % of them is called no credible gain. "
    "Start with `mrphys decide scan sub-01 --day 120`. Not for clinical decisions.",
)

PATIENT = typer.Argument(help="Patient folder, such as sub-01.")
CALIBRATE = typer.Option(help="Sessions to calibrate on, in order, such as 1,2.")
DAY = typer.Option("--day", help="Day that counts: of the forecast, of the tumour that is left.")
DRAWS = typer.Option(min=8, help="Draws of the posterior.")
OUT = typer.Option("--out", "-o", help="Folder for the results; made if it is not there.")
JSON = typer.Option("--json", help="Print the result as JSON on standard output.")
SEED = typer.Option("--seed", help="Seed of every random draw.")
WORST = typer.Option("--worst", help="Choose for the worst tenth of the draws, not for the mean.")
FOLDER = Path("results/decide")
console = Console(stderr=True)


@contextmanager
def _bar(name: str) -> Iterator[Callable[[int, int, float], None]]:
    with counted() as progress:
        bar = progress.add_task(name, total=None)
        yield lambda step, of, value: progress.update(bar, completed=step, total=of)


def _calibrated(patient: Path, calibrate: str, day: float) -> Any:
    """The patient's model, calibrated on those sessions."""
    from oncology.calibration import calibrate as calibrate_model
    from oncology.cohort import read_patient
    from oncology.quality import require

    read = read_patient(patient)
    sessions = [read.visit(name.strip()).session for name in calibrate.split(",") if name.strip()]
    require(read, sessions, at_least=2)
    with console.status("calibrating") as status:
        return calibrate_model(read, sessions, until_day=day, progress=status.update)


def _forecast(patient: Path, calibrate: str, day: float, draws: int, seed: int) -> Any:
    """Of that day, by the patient's model."""
    import jax

    from oncology.forecast import forecast

    calibrated, key = _calibrated(patient, calibrate, day), jax.random.key(seed)
    with _bar("forecasting") as progress:
        return forecast(
            calibrated, day, key, draws=draws, progress=lambda done, of: progress(done, of, 0.0)
        )


def _write(
    name: str, out: Path, plain: dict[str, Any], figure: Any, started: float, as_json: bool
) -> str:
    """The files of one command; its text, printed where a machine asked."""
    from mrphys.io.output import whole_file, write_text

    picture = out / f"{name}.png"
    with whole_file(picture) as draft:
        figure.savefig(draft, dpi=110)
    plain |= {"figure": str(picture), "seconds": round(time.time() - started, 1)}
    text = json.dumps(plain, indent=2, ensure_ascii=False)
    write_text(out / f"{name}.json", text + "\n")
    if as_json:
        print(text)
    return f"figure: {picture}\ntook {plain['seconds']:.0f} s"


def _say(table: Table, *lines: str) -> None:
    screen = Console()
    screen.print(table)
    for line in lines:
        screen.print(line, highlight=False, markup=False, soft_wrap=True)


@decide.command()
def scan(
    patient: Annotated[Path, PATIENT],
    day: Annotated[float, DAY],
    calibrate: Annotated[str, CALIBRATE] = "1,2",
    scans: Annotated[int, typer.Option(min=1, max=12, help="Scans to come before that day.")] = 1,
    about: Annotated[
        str,
        typer.Option(
            help="What to know better: volume_mm3, total_cellularity_mm3, or a parameter such as "
            "growth_rate_per_day."
        ),
    ] = "volume_mm3",
    reading_sd: Annotated[
        float, typer.Option(help="Noise of one reading: sd of log volume between two drawings.")
    ] = 0.15,
    apart: Annotated[float, typer.Option(help="Least days between two scans.")] = 7.0,
    draws: Annotated[int, DRAWS] = 96,
    seed: Annotated[int, SEED] = 0,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """The days of the next scans that leave the forecast of a day least uncertain.

    Prints the sd of log volume on that day without a scan, with scans evenly spread, and on the
    days chosen. The same information matrix designs pulse sequences (`mrphys design`).

    Example: mrphys decide scan sub-01 --day 180 --scans 2
    """
    from mrphys.io.output import prepare_output_folder
    from oncology.decisions import draw_visits, next_visits

    started = time.time()
    prepare_output_folder(out)
    made = _forecast(patient, calibrate, day, draws, seed)
    found = next_visits(made, scans, about=about, reading_sd=reading_sd, apart_days=apart)
    between = (made.calibrated.visits[-1].day + 1, day - 1)
    plain = {
        "about": f"log {about}" + (f" on day {day:g}" if "mm3" in about else ""),
        "scan_days": list(found.days),
        "sd": {"without": found.without, "evenly": found.evenly, "chosen": found.chosen},
    }
    figure = draw_visits(found, between, about)
    told = _write("scan", out, plain, figure, started, as_json)
    if as_json:
        return
    table = Table(title=f"next scans for {plain['about']}")
    for name in ("scans", "days", "sd"):
        table.add_column(name, justify="left" if name == "scans" else "right")
    table.add_row("none", "", f"{found.without:.3f}")
    even = ", ".join(f"{d:.0f}" for d in found.design.start.days.tolist())
    table.add_row("evenly spread", even, f"{found.evenly:.3f}")
    table.add_row("chosen", ", ".join(f"{d:g}" for d in found.days), f"{found.chosen:.3f}")
    _say(table, told)


@decide.command()
def radiotherapy(
    patient: Annotated[Path, PATIENT],
    day: Annotated[float, DAY],
    calibrate: Annotated[str, CALIBRATE] = "1,2",
    organ_ratio: Annotated[
        float, typer.Option(help="α/β of the organ at risk, Gy [brain, necrosis].")
    ] = 3.0,
    organ_share: Annotated[
        float, typer.Option(help="Share of the tumour's dose that the organ gets.")
    ] = 1.0,
    lengths: Annotated[
        str, typer.Option(help="Numbers of fractions to try, on weekdays, such as 20,30.")
    ] = "25,30",
    largest: Annotated[float, typer.Option(help="Largest dose of a fraction, Gy.")] = 10.0,
    worst: Annotated[bool, WORST] = False,
    draws: Annotated[int, DRAWS] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each search.")] = 30,
    starts: Annotated[int, typer.Option(min=1, help="Searches of each length.")] = 2,
    seed: Annotated[int, SEED] = 0,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Doses of each fraction from the last calibrated visit on, against 30 x 2 Gy.

    The organ's biologically effective dose, the sum of n d (1 + d / (α/β)), is no more than under
    30 x 2 Gy. What radiation does to this tumour is drawn from the posterior where it was given
    before, else from the literature; so is its α/β.

    Example: mrphys decide radiotherapy sub-01 --day 120 --organ-ratio 3 --worst
    """
    from mrphys.io.output import prepare_output_folder
    from oncology.decisions import (
        TUMOUR_RATIO,
        Organ,
        Tumours,
        draw_treatment,
        optimise_fractionation,
        regimen,
    )
    from oncology.priors import RADIOSENSITIVITY
    from oncology.treatment import Plan

    started = time.time()
    prepare_output_folder(out)
    try:
        numbers = [int(part) for part in lengths.split(",") if part.strip()]
    except ValueError:
        expected = "whole numbers separated by commas, such as 20,30"
        raise InputError(Problem("--lengths", repr(lengths), expected)) from None
    calibrated = _calibrated(patient, calibrate, day)
    tumours = Tumours.of(calibrated, draws, seed).believed(
        {"radiosensitivity_per_gy": RADIOSENSITIVITY, "alpha_over_beta_gy": TUMOUR_RATIO}, seed
    )
    with _bar("dividing the dose") as progress:
        made = optimise_fractionation(
            tumours,
            day,
            organs=(Organ(organ_ratio, organ_share, "the organ"),),
            lengths=numbers,
            largest_gy=largest,
            objective="worst decile" if worst else "expected",
            tolerance=1e-2,
            starts=starts,
            steps=steps,
            progress=progress,
        )
    courses = {"30 x 2 Gy": made.standard, "chosen": made.course}
    regimens = {
        name: regimen(tumours, Plan(radiotherapy=course), day, 1e-2)
        for name, course in courses.items()
    }
    doses = {name: (course.days, course.doses_gy) for name, course in courses.items()}
    (_, bed, bed_chosen) = made.organs[0]
    plain = {
        "day": day,
        "days": made.course.days.tolist(),
        "doses_gy": made.course.doses_gy.tolist(),
        "organ_bed_gy": {"standard": bed, "chosen": bed_chosen},
        "gain": made.gain.plain(),
    }
    figure = draw_treatment(tumours, regimens, doses, made.gain)
    told = _write("radiotherapy", out, plain, figure, started, as_json)
    if not as_json:
        table = _gains({"30 x 2 Gy": made.gain})
        count, total = made.course.days.size, made.course.doses_gy.sum()
        text = f"chosen: {count} fractions, {total:.1f} Gy, organ's BED {bed_chosen:.1f} Gy"
        _say(table, text, made.gain.verdict, told)


@decide.command()
def chemotherapy(
    patient: Annotated[Path, PATIENT],
    day: Annotated[float, DAY],
    calibrate: Annotated[str, CALIBRATE] = "1,2",
    agents: Annotated[
        str, typer.Option(help="Drugs given together, such as doxorubicin,cyclophosphamide.")
    ] = "doxorubicin,cyclophosphamide",
    cycles: Annotated[int, typer.Option(min=1, max=12, help="Standard doses of each.")] = 4,
    mean: Annotated[
        bool, typer.Option("--mean", help="Judge the mean burden until the day, not that on it.")
    ] = False,
    worst: Annotated[bool, WORST] = False,
    draws: Annotated[int, DRAWS] = 16,
    steps: Annotated[int, typer.Option(min=1, help="Steps of each search.")] = 30,
    starts: Annotated[int, typer.Option(min=1, help="Searches.")] = 2,
    seed: Annotated[int, SEED] = 0,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Days and doses of drugs from the last calibrated visit on, against every 3 and every 2 weeks.

    The total of each drug is the standard's; no day gets more than one standard dose, nor do any
    14 days. Effects are drawn from the posterior where the drug was given before, else from the
    literature.

    Example: mrphys decide chemotherapy sub-01 --day 120 --mean
    """
    from mrphys.io.output import prepare_output_folder
    from oncology.decisions import (
        Tumours,
        draw_treatment,
        optimise_schedule,
        regimen,
        standard_cycles,
    )
    from oncology.priors import default_priors
    from oncology.treatment import Plan

    started = time.time()
    prepare_output_folder(out)
    calibrated = _calibrated(patient, calibrate, day)
    first = calibrated.visits[-1].day
    names = [name.strip() for name in agents.split(",") if name.strip()]
    standards = {
        f"every {weeks:g} weeks": standard_cycles(names, first, cycles=cycles, weeks=weeks)
        for weeks in (3.0, 2.0)
    }
    usual = next(iter(standards.values()))
    tumours = Tumours.of(calibrated, draws, seed)
    tumours = tumours.believed(default_priors(Plan(chemotherapy=usual)), seed)
    with _bar("timing the doses") as progress:
        made = optimise_schedule(
            tumours,
            standards,
            day,
            objective="worst decile" if worst else "expected",
            endpoint="mean burden" if mean else "burden",
            tolerance=1e-2,
            starts=starts,
            steps=steps,
            progress=progress,
        )
    every = {**standards, "chosen": made.drugs}
    regimens = {
        name: regimen(tumours, Plan(chemotherapy=tuple(drugs)), day, 1e-2)
        for name, drugs in every.items()
    }
    doses = {name: (drugs[0].days, drugs[0].doses) for name, drugs in every.items()}
    plain = {
        "day": day,
        "drugs": {
            drug.agent: {"days": drug.days.tolist(), "doses": drug.doses.tolist()}
            for drug in made.drugs
        },
        "gain": {name: gain.plain() for name, gain in made.gains.items()},
    }
    figure = draw_treatment(tumours, regimens, doses, next(iter(made.gains.values())), names[0])
    told = _write("chemotherapy", out, plain, figure, started, as_json)
    if not as_json:
        chosen = [
            f"{drug.agent}: "
            + ", ".join(f"{x:.2f} on day {d:g}" for d, x in zip(drug.days, drug.doses, strict=True))
            for drug in made.drugs
        ]
        verdicts = [f"over {name}: {gain.verdict}" for name, gain in made.gains.items()]
        _say(_gains(made.gains), *chosen, *verdicts, told)


@decide.command()
def response(
    patient: Annotated[Path, PATIENT],
    day: Annotated[float, DAY],
    calibrate: Annotated[str, CALIBRATE] = "1,2",
    rule: Annotated[str, typer.Option(help="recist-1.1, rano-2010 or rano-2.0.")] = "rano-2.0",
    reading_sd: Annotated[
        float, typer.Option(help="Noise of one reading: sd of log volume between two drawings.")
    ] = 0.15,
    draws: Annotated[int, DRAWS] = 96,
    seed: Annotated[int, SEED] = 0,
    out: Annotated[Path, OUT] = FOLDER,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """What the clinic would say of a later day: category, time to progression, doubling time.

    Probabilities over draws of the forecast, from the last calibrated visit on; of size alone, not
    of new lesions, steroids or clinical state.

    Example: mrphys decide response sub-01 --day 120 --rule rano-2.0
    """
    from mrphys.io.output import prepare_output_folder, write_text
    from oncology.response import RULES, read_out
    from oncology.summary import plain

    started = time.time()
    if rule not in RULES:
        raise InputError(Problem("--rule", repr(rule), f"one of {', '.join(RULES)}"))
    prepare_output_folder(out)
    made = _forecast(patient, calibrate, day, draws, seed)
    found = read_out(made, RULES[rule], drawing_sd=reading_sd)
    found |= {"seconds": round(time.time() - started, 1)}
    text = json.dumps(plain(found), indent=2, ensure_ascii=False)
    write_text(out / "response.json", text + "\n")
    if as_json:
        print(text)
        return
    table = Table(title=f"{found['rule']}, day {found['since_day']:g} to {found['day']:g}")
    table.add_column("")
    table.add_column("", justify="right")
    for name, share in found["probabilities"].items():
        table.add_row(f"probability of {name}", f"{share:.2f}")
    table.add_row("progression before that day", f"{found['progression_probability']:.2f}")
    for name in ("progression_days", "doubling_days"):
        values = found[name]
        if values:
            told = f"{values['median']:.0f} [{values['low90']:.0f}, {values['high90']:.0f}]"
            table.add_row(name.replace("_", ", "), told)
    _say(table, f"rule: {found['source']}", f"took {found['seconds']:.0f} s")


def _gains(gains: dict[str, Any]) -> Table:
    table = Table(title="gain: ln of how many times fewer cells, central 90 %")
    for name in ("over", "expected", "worst tenth", "this patient", "P(gain)"):
        table.add_column(name, justify="left" if name == "over" else "right")
    for name, gain in gains.items():
        row = (str(gain.expected), str(gain.worst_decile), str(gain.patient))
        table.add_row(name, *row, f"{gain.probability:.2f}")
    return table
