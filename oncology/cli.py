"""The `mrphys` command. Exit status: 0 done, 1 failed, 2 the input or the call was wrong."""

import json
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from mrphys.errors import InputError, Problem
from oncology.cli_bar import counted
from oncology.cli_decide import decide
from oncology.cli_design import design as design_studies
from oncology.cli_map import EPILOG, map_series
from oncology.cli_reconstruct import EPILOG as METHODS_EPILOG
from oncology.cli_reconstruct import reconstruct_raw

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="From a patient's scans to a forecast with its uncertainty.",
    epilog="Start with `mrphys demo`: it needs no file. A patient folder has BIDS names: "
    "sub-01_sessions.tsv (session_id, day), and for each session a tumour mask "
    "(anat/*_label-tumor_mask.nii.gz) and, optionally, ADC in mm²/s (dwi/*_ADC.nii.gz).",
)
app.add_typer(design_studies, name="design")
app.add_typer(decide, name="decide")
app.command("map", epilog=EPILOG)(map_series)
app.command("reconstruct", epilog=METHODS_EPILOG)(reconstruct_raw)
console = Console(stderr=True)

OUT = typer.Option("--out", "-o", help="Folder for the results; made if it is not there.")
JSON = typer.Option("--json", help="Print the result as JSON on standard output.")
SEED = typer.Option("--seed", help="Seed of every random draw.")


def main() -> None:
    """Run the command; turn every foreseen failure into one message and an exit status."""
    import jax

    jax.config.update("jax_enable_x64", True)
    try:
        app()
    except InputError as error:
        for problem in error.problems:
            console.print(f"[red]{problem.level}[/]:", str(problem), highlight=False, markup=True)
        sys.exit(2)
    except KeyboardInterrupt:
        console.print("stopped")
        sys.exit(1)
    except Exception as error:
        kind = type(error).__name__
        console.print(f"failed: {kind}: {error}", highlight=False, markup=False)
        console.print("This is a fault of mrphys, not of your input.", highlight=False)
        sys.exit(1)


@app.command()
def check(
    patient: Annotated[Path, typer.Argument(help="Patient folder, such as sub-01.")],
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """List everything wrong with a patient folder, at once: errors and warnings."""
    from oncology.quality import check as check_patient

    report = check_patient(patient)
    if as_json:
        rows = [vars(problem) for problem in report.problems]
        print(json.dumps({"ok": report.ok, "problems": rows}, indent=2, ensure_ascii=False))
    else:
        print(report)
    if not report.ok:
        raise typer.Exit(2)


@app.command()
def forecast(
    patient: Annotated[Path, typer.Argument(help="Patient folder, such as sub-01.")],
    calibrate: Annotated[
        str, typer.Option(help="Sessions to calibrate on, in order, such as 1,2.")
    ] = "1,2",
    predict: Annotated[
        str | None, typer.Option(help="Session to forecast, planned or scanned, such as 3.")
    ] = None,
    predict_day: Annotated[
        float | None, typer.Option(help="Day to forecast instead of a session.")
    ] = None,
    out: Annotated[Path, OUT] = Path("results"),
    adc_w: Annotated[
        float | None, typer.Option(help="ADC of free water, mm²/s [literature, 37 °C].")
    ] = None,
    adc_min: Annotated[
        float | None, typer.Option(help="ADC of the densest voxel, mm²/s [from the maps].")
    ] = None,
    growth: Annotated[
        str, typer.Option(help="One growth rate (global), a map (local), or auto.")
    ] = "auto",
    threshold: Annotated[
        float | None, typer.Option(help="Density at the edge of a drawn mask [0.8, FLAIR 0.16].")
    ] = None,
    draws: Annotated[int, typer.Option(min=8, help="Draws of the posterior.")] = 48,
    seed: Annotated[int, SEED] = 0,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Calibrate a tumour model on a patient's first visits and forecast a later day.

    Writes the forecast map, its standard deviation and mask (NIfTI), every number with its unit
    (HDF5, JSON) and a page with pictures (HTML).

    Example: mrphys forecast sub-01 --calibrate 1,2 --predict 3 --out results/
    """
    from mrphys.io.output import prepare_output_folder
    from oncology.cohort import read_patient
    from oncology.quality import require
    from oncology.summary import unmodelled

    started = time.time()
    prepare_output_folder(out)
    read = read_patient(patient)
    sessions = [read.visit(name.strip()).session for name in calibrate.split(",") if name.strip()]
    if (predict is None) == (predict_day is None):
        found = "neither" if predict is None else "both"
        raise InputError(Problem("forecast", found, "one of --predict and --predict-day"))
    target = read.visit(predict) if predict is not None else None
    day = target.day if target is not None else float(predict_day or 0.0)
    needed = [*sessions, *([target.session] if target and not target.planned else [])]
    quality = require(read, needed, at_least=2)
    warnings = [str(problem) for problem in quality.warnings] + unmodelled(read)
    summary, paths = run_forecast(
        read,
        sessions,
        target,
        day,
        out,
        started,
        seed,
        draws,
        warnings,
        adc_w_mm2_per_s=adc_w,
        adc_min_mm2_per_s=adc_min,
        growth=growth,
        threshold=threshold,
    )
    _show(summary, paths, as_json)


def run_forecast(
    patient: Any,
    sessions: list[str],
    target: Any,
    day: float,
    out: Path,
    started: float,
    seed: int,
    draws: int,
    warnings: list[str],
    truth: dict[str, float] | None = None,
    **options: Any,
) -> tuple[dict, dict[str, Path]]:
    """Calibrate, forecast, score and write, with progress on the console."""
    import jax

    from mrphys.io.results import provenance
    from oncology.calibration import calibrate as calibrate_model
    from oncology.forecast import forecast as forecast_day
    from oncology.summary import summarise, write_forecast

    with console.status("calibrating") as status:
        calibrated = calibrate_model(
            patient, sessions, until_day=day, progress=status.update, **options
        )
    with counted() as progress:
        bar = progress.add_task("forecasting", total=draws)
        made = forecast_day(
            calibrated,
            day,
            jax.random.key(seed),
            draws=draws,
            progress=lambda done, of: progress.update(bar, completed=done, total=of),
        )
    source = provenance(patient.files, seed=seed, seconds=round(time.time() - started, 1))
    summary = summarise(made, target, warnings, source, truth)
    return summary, write_forecast(out, made, target, summary)


def _show(summary: dict, paths: dict[str, Path], as_json: bool) -> None:
    """The result for a person, or for a machine."""
    from oncology.summary import plain

    if as_json:
        print(json.dumps(plain(summary), indent=2, ensure_ascii=False))
        return
    screen = Console()
    known = any("truth" in row for row in summary["parameters"].values())
    table = Table(title=f"{summary['subject']}: parameters")
    for name in ("parameter", *(("truth",) if known else ()), "estimate ± sd", "95 %", "unit"):
        table.add_column(name, justify="left" if name in ("parameter", "unit") else "right")
    for name, row in summary["parameters"].items():
        true = (f"{row['truth']:.4g}",) if "truth" in row else (("",) if known else ())
        estimate = f"{row['mean']:.4g} ± {row['sd']:.2g}"
        span = f"{row['low95']:.4g} to {row['high95']:.4g}"
        table.add_row(name, *true, estimate, span, row["unit"])
    screen.print(table)
    last = summary["visits"][-1]
    table = Table(title=f"forecast of day {last['day']:g}")
    for name in ("", "observed", "forecast", "95 %"):
        table.add_column(name, justify="left" if not name else "right")
    for name, label in (
        ("volume_mm3", "visible volume [mm³]"),
        ("total_cellularity_mm3", "total cellularity [mm³]"),
    ):
        seen = (last["observed"] or {}).get(name)
        row = last["forecast"][name]
        span = f"{row['low95']:.0f} to {row['high95']:.0f}"
        table.add_row(label, "–" if seen is None else f"{seen:.0f}", f"{row['mean']:.0f}", span)
    screen.print(table)
    if summary["persistence"]:
        table = Table(title="scores beside “nothing changes”")
        for name in ("score", "forecast", "persistence"):
            table.add_column(name, justify="left" if name == "score" else "right")
        kept = summary["persistence"][-1]
        for name in (
            "ccc",
            "pearson",
            "dice",
            "crps",
            "volume_error_percent",
            "total_error_percent",
        ):
            pair = [last.get(name), kept.get(name)]
            table.add_row(name, *("–" if v is None else f"{v:.3f}" for v in pair))
        screen.print(table)
    for warning in summary["warnings"]:
        screen.print(f"warning: {warning}", highlight=False, markup=False)
    screen.print(f"page: {paths['report']}", highlight=False, soft_wrap=True)
    screen.print(f"took {summary['provenance']['seconds']:.0f} s", highlight=False)


@app.command()
def simulate(
    file: Annotated[Path, typer.Argument(help="Pulseq sequence, such as gre.seq.")],
    phantom: Annotated[str, typer.Option(help="What is scanned: brain.")] = "brain",
    out: Annotated[Path, typer.Option("--out", "-o", help="Raw data to write.")] = Path("raw.h5"),
    coils: Annotated[int, typer.Option(min=1, max=64, help="Loops round the head.")] = 8,
    spacing: Annotated[int, typer.Option(help="Voxels of the phantom: 1, 2 or 4 mm.")] = 2,
    spins: Annotated[
        tuple[int, int, int],
        typer.Option(
            min=1,
            help="Spins along x, y, z of a voxel. What spoilers leave, a grain over the picture, "
            "falls as one over the root of their number.",
        ),
    ] = (1, 1, 8),
    field: Annotated[float, typer.Option(help="Field strength: 1.5 or 3 T.")] = 3.0,
    fov: Annotated[
        tuple[float, float, float] | None,
        typer.Option(help="Field of view in mm along x, y, z, instead of the file's."),
    ] = None,
    noise: Annotated[
        float | None,
        typer.Option(min=0.0, help="Noise: sd of the real and of the imaginary part of a sample."),
    ] = None,
    snr: Annotated[
        float | None,
        typer.Option(min=1e-3, help="Noise by its ratio: largest sample over that sd."),
    ] = None,
    seed: Annotated[int, SEED] = 0,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """Scan a phantom with any Pulseq sequence (.seq, 1.2 to 1.5).

    Writes raw k-space (ISMRMRD, HDF5) and, beside it, a picture of each slice (PNG). The middle of
    the brain is at the scanner's; of a slice-selective sequence only the slab excited is simulated.
    Relaxation, off-resonance, pulses and gradients are those of the Bloch equations; the time it
    takes grows as samples times spins.

    Example: mrphys simulate gre.seq --phantom brain --out raw.h5

    A quick look: mrphys simulate gre.seq --spacing 4 --coils 1

    With noise: mrphys simulate gre.seq --snr 200 --seed 1
    """
    import jax

    from mrphys.io.ismrmrd import write_ismrmrd
    from mrphys.io.output import prepare_output_folder
    from mrphys.io.pulseq import read_pulseq
    from oncology.virtual_scan import noisy, require_scannable, save_images, scan_brain

    started = time.time()
    if phantom != "brain":
        raise InputError(Problem("simulate: --phantom", repr(phantom), "brain"))
    if noise is not None and snr is not None:
        raise InputError(Problem("simulate", "--noise and --snr", "one of them"))
    scan = read_pulseq(file)
    if fov is not None:
        scan = replace(scan, fov_mm=fov)
    require_scannable(scan)
    picture = out.with_suffix(".png")
    if picture == out:
        raise InputError(Problem("simulate: --out", str(out), "a name that ends in .h5"))
    prepare_output_folder(out.parent)
    with jax.enable_x64(False), counted() as progress:
        bar = progress.add_task(f"scanning with {scan.name}: spins", total=None)
        raw = scan_brain(
            scan,
            spacing,
            spins,
            coils,
            field,
            lambda done, of: progress.update(bar, completed=done, total=of),
        )
        raw, sd = noisy(raw, noise, snr, seed)
        write_ismrmrd(out, raw, scan, field_t=field)
        pictured = save_images(picture, raw, scan)
    done = {
        "raw": str(out),
        "picture": str(picture) if pictured else None,
        "coils": coils,
        "samples": raw.shape[1],
        "readouts": len(scan.readouts),
        "fov_mm": scan.fov_mm,
        "matrix": scan.matrix(),
        "noise_sd": sd,
        "seconds": round(time.time() - started, 1),
    }
    if as_json:
        print(json.dumps(done, indent=2))
    else:
        shown = picture if pictured else "none, as the sequence encodes no position"
        Console().print(f"raw data: {out}\npicture: {shown}", highlight=False, soft_wrap=True)


@app.command()
def demo(
    out: Annotated[Path, OUT] = Path("results/demo"),
    gradient: Annotated[
        bool, typer.Option("--gradient", help="One gradient through the whole chain, checked.")
    ] = False,
    design: Annotated[
        bool, typer.Option("--design", help="Improve b-values and averages for the forecast.")
    ] = False,
    draws: Annotated[int, typer.Option(min=8, help="Draws of the posterior.")] = 48,
    seed: Annotated[int, SEED] = 0,
    as_json: Annotated[bool, JSON] = False,
) -> None:
    """A virtual patient with a known glioma, from acquisition to forecast. No file needed.

    Real anatomy (MNI152), a tumour grown at 1 mm under radiotherapy, three diffusion scans with
    noise at 2 mm, ADC with its standard deviation, calibration on two visits, forecast of the
    third; truth beside estimate, forecast beside persistence.
    """
    import jax

    from mrphys.io.output import prepare_output_folder

    started = time.time()
    prepare_output_folder(out)
    key = jax.random.key(seed)
    if gradient:
        _demo_gradient(key, started, as_json)
    elif design:
        _demo_design(out, started, as_json)
    else:
        _demo_forecast(out, key, started, seed, draws, as_json)


def _demo_forecast(
    out: Path, key: Any, started: float, seed: int, draws: int, as_json: bool
) -> None:
    import shutil

    from oncology import virtual_patient as virtual
    from oncology.cohort import read_patient, write_patient
    from oncology.quality import require

    with console.status("growing the true tumour at 1 mm") as status:
        grown = virtual.grow()
        status.update("scanning: diffusion-weighted images with noise, ADC maps")
        patient = virtual.scanned_patient(grown, virtual.default_acquisition(), key)
        folder = out / patient.subject
        if folder.is_dir():
            shutil.rmtree(folder)
        write_patient(folder, patient, note="a virtual patient", description="virtual")
        patient = read_patient(folder)
    quality = require(patient, [visit.session for visit in patient.visits], at_least=2)
    summary, paths = run_forecast(
        patient,
        ["1", "2"],
        patient.visit("3"),
        patient.visit("3").day,
        out,
        started,
        seed,
        draws,
        [str(problem) for problem in quality.warnings],
        truth=virtual.TRUTH,
        adc_w_mm2_per_s=virtual.SCALE.adc_w_mm2_per_s,
        adc_min_mm2_per_s=virtual.SCALE.adc_min_mm2_per_s,
        growth="auto",
        threshold=None,
    )
    _show(summary, paths, as_json)


def _demo_gradient(key: Any, started: float, as_json: bool) -> None:
    from oncology.demo import check_gradient, demo_chain
    from oncology.virtual_patient import default_acquisition

    with console.status("growing the true tumour at 1 mm"):
        chain, _ = demo_chain()
    with counted() as progress:
        bar = progress.add_task("one gradient, then central differences", total=None)
        rows = check_gradient(
            chain,
            default_acquisition(),
            key,
            lambda done, of: progress.update(bar, completed=done, total=of),
        )
    if as_json:
        print(json.dumps([vars(row) for row in rows], indent=2, ensure_ascii=False))
        return
    table = Table(title="d(forecast error) / d(acquisition)")
    for name in ("", "value", "gradient", "central difference", "relative difference"):
        table.add_column(name, justify="left" if not name else "right")
    for row in rows:
        table.add_row(
            row.name,
            f"{row.value:g}",
            f"{row.gradient:+.6e}",
            f"{row.finite_difference:+.6e}",
            f"{row.relative_difference:.1e}",
        )
    Console().print(table)
    print(f"took {time.time() - started:.0f} s")


def _demo_design(out: Path, started: float, as_json: bool) -> None:
    from mrphys.io.output import write_text
    from oncology.demo import demo_chain, improve_design
    from oncology.virtual_patient import default_acquisition

    theta = default_acquisition()
    with console.status("growing the true tumour at 1 mm"):
        chain, _ = demo_chain()
    with counted() as progress:
        bar = progress.add_task("designing", total=None)
        made = improve_design(
            chain,
            theta,
            lambda step, of, _: progress.update(bar, completed=step, total=of),
        )
    rows = {
        label: {
            "b_s_per_mm2": design.b_s_per_mm2.tolist(),
            "averages": design.averages.tolist(),
            "scan_time_s": float(design.scan_time_s),
            "forecast_sd_percent": 100 * loss,
        }
        for label, design, loss in (
            ("before", theta, made.before),
            ("after", made.theta, made.after),
        )
    }
    text = json.dumps(rows, indent=2)
    write_text(out / "design.json", text + "\n")
    if as_json:
        print(text)
        return
    table = Table(title="acquisition for the forecast's uncertainty, scan time fixed")
    for name in ("", "b [s/mm²]", "averages", "scan time [s]", "sd of forecast total [%]"):
        table.add_column(name, justify="left" if not name else "right")
    for label, row in rows.items():
        table.add_row(
            label,
            ", ".join(f"{b:.0f}" for b in row["b_s_per_mm2"]),
            ", ".join(f"{n:.2f}" for n in row["averages"]),
            f"{row['scan_time_s']:.0f}",
            f"{row['forecast_sd_percent']:.3f}",
        )
    Console().print(table)
    print(f"took {time.time() - started:.0f} s")
