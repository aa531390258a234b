"""`mrphys map`: maps with their standard deviations, from a scanner's images."""

import json
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from mrphys.dynamic import KINETICS
from mrphys.errors import InputError, Problem
from mrphys.perfusion import HAEMATOCRIT
from mrphys.protocols import MODELS, SUFFIXES, Protocol, dynamic, likely_model
from oncology.cli_bar import counted

EPILOG = "\n\n".join(
    [
        "Models, with the BIDS suffix each is for; the first for it where `--model` is left out:",
        *(
            f"**{name}** ({', '.join(model.suffixes)}) {model.title}"
            for name, model in MODELS.items()
        ),
        "A BIDS image has a JSON sidecar with FlipAngle in degrees, EchoTime, InversionTime, "
        "RepetitionTimeExcitation in seconds, as its model needs; diffusion has .bval and .bvec.",
    ]
)


_DCE: dict[str, Any] = {"rich_help_panel": "For --model dce"}


def _numbered(noise_sd: str) -> float | None:
    """--noise-sd as a number; None is auto."""
    if noise_sd == "auto":
        return None
    number = _number(noise_sd)
    if number is None:
        expected = "auto, or a number in the images' unit"
        raise InputError(Problem("--noise-sd", repr(noise_sd), expected))
    return number


def map_series(
    paths: Annotated[
        list[Path], typer.Argument(help="A folder, or the images themselves (NIfTI or DICOM).")
    ],
    model: Annotated[
        str | None, typer.Option(help="What to fit; by the images' BIDS suffix unless given.")
    ] = None,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the maps; made if it is not there.")
    ] = Path("maps"),
    mask: Annotated[
        Path | None,
        typer.Option(help="NIfTI, nonzero where to fit [wherever there is more than noise]."),
    ] = None,
    b1: Annotated[
        Path | None,
        typer.Option(help="TB1map: transmit field, relative or in per cent, on any grid."),
    ] = None,
    noise_sd: Annotated[
        str,
        typer.Option(help="Noise of one image, its sd in the images' unit; auto finds it."),
    ] = "auto",
    t1: Annotated[
        str | None,
        typer.Option(help="T1 before the agent: a map in s (NIfTI), or a number.", **_DCE),
    ] = None,
    t1_sd: Annotated[
        str | None, typer.Option(help="Its sd, likewise: carried into the maps' sds.", **_DCE)
    ] = None,
    kinetics: Annotated[
        str | None,
        typer.Option(help=f"{', '.join(KINETICS)} [extended_tofts].", **_DCE),
    ] = None,
    aif: Annotated[
        str | None,
        typer.Option(
            help="Arterial input: parker or georgiou, from the bolus arrival on; a table (.tsv: "
            "time_s, blood_mmol_per_l or plasma_mmol_per_l); a mask of an artery [parker].",
            **_DCE,
        ),
    ] = None,
    blood_t1: Annotated[
        float | None, typer.Option(help="T1 of blood in that mask, s [as --t1 there].", **_DCE)
    ] = None,
    haematocrit: Annotated[
        float | None, typer.Option(help=f"From blood to plasma [{HAEMATOCRIT}].", **_DCE)
    ] = None,
    relaxivity: Annotated[
        float | None, typer.Option(help="Of the agent, l/mmol/s [4.5].", **_DCE)
    ] = None,
    baseline: Annotated[
        int | None, typer.Option(help="Images before the bolus [found].", **_DCE)
    ] = None,
    arrival: Annotated[
        float | None, typer.Option(help="Of the bolus, s after the first image [found].", **_DCE)
    ] = None,
    interval: Annotated[
        float | None, typer.Option(help="Between images, s [VolumeTiming of the files].", **_DCE)
    ] = None,
    delay: Annotated[
        float | None,
        typer.Option(help="Of tissue after the input, sought up to ±, s; 0: none [6].", **_DCE),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output.")
    ] = False,
) -> None:
    """Maps of T1, T2, T2*, B1, B0, diffusion, perfusion from images, with standard deviations.

    Writes each parameter, its sd, the residual and the status of every voxel (NIfTI with JSON
    sidecars, BIDS names), a summary (JSON) and a picture (PNG).

    Example: mrphys map sub-01/anat --out maps/

    Flip angles corrected: mrphys map sub-01/anat --model vfa --b1 sub-01_TB1map.nii.gz

    T2 with stimulated echoes, in a mask: mrphys map sub-01/anat --model epg --mask mask.nii.gz

    A DICOM folder, noise known: mrphys map DICOM/0007 --model adc --noise-sd 12

    Contrast-enhanced: mrphys map sub-01_dce.nii.gz --t1 T1map.nii.gz --aif artery.nii.gz
    """
    import jax

    from mrphys.io.maps import write_maps
    from mrphys.io.nifti import read_nifti
    from mrphys.io.output import prepare_output_folder, whole_file, write_text
    from mrphys.io.results import provenance
    from mrphys.maps import make_maps
    from oncology.map_picture import draw_maps

    started = time.time()
    noise = _numbered(noise_sd)
    if model is not None and model not in MODELS:
        raise InputError(Problem("--model", repr(model), f"one of {', '.join(MODELS)}"))
    series, name = _read(paths, model)
    asked = {
        "t1_s": t1, "t1_sd_s": t1_sd, "kinetics": kinetics, "aif": aif, "blood_t1_s": blood_t1,
        "haematocrit": haematocrit, "relaxivity_l_per_mmol_s": relaxivity, "baseline": baseline,
        "arrival_s": arrival, "interval_s": interval, "delay_s": delay,
    }  # fmt: skip
    asked = {key: value for key, value in asked.items() if value is not None}
    with jax.enable_x64(False):
        protocol, more = _protocol(name, asked, b1 is not None)
    maps_of = {
        key: read_nifti(path) if path else None for key, path in (("mask", mask), ("b1", b1))
    }
    prepare_output_folder(out)
    with jax.enable_x64(False), counted() as progress:

        def report(done: int, of: int) -> None:
            if not progress.tasks:
                progress.add_task(f"fitting {name}: voxels")
            progress.update(progress.tasks[0].id, completed=done, total=of)

        made = make_maps(series, protocol, noise_sd=noise, progress=report, **maps_of)
    stem = series.name or "map"
    inputs = [*series.files, *more, *(path for path in (mask, b1) if path is not None)]
    source = provenance(inputs, seconds=round(time.time() - started, 1))
    images = write_maps(out, made, stem, source, masked=mask is not None)
    first = next(iter(made.values))
    picture = out / f"{stem}_{first.suffix}.png"
    with whole_file(picture) as draft:
        draw_maps(made, f"{series.where}: {name}").savefig(draft, dpi=110)
    summary = _summary(made, name) | {
        "images": [str(path) for path in images],
        "picture": str(picture),
        "provenance": source,
    }
    text = json.dumps(summary, indent=2, ensure_ascii=False)
    write_text(out / f"{stem}_desc-summary_{first.suffix}.json", text + "\n")
    if as_json:
        print(text)
    else:
        _show(summary)


def _read(paths: list[Path], model: str | None) -> tuple[Any, str]:
    """The one series meant, and the model for it."""
    from mrphys.io.bids import find_collections, read_collection
    from mrphys.io.dicom import find_dicom, read_dicom

    where = ", ".join(map(str, paths))
    images = [path for path in paths if path.is_dir() or ".nii" in path.suffixes]
    bids = len(images) == len(paths) and find_collections(images, [*SUFFIXES])
    if not bids and find_dicom(paths):
        series = read_dicom(paths)
        name = model or likely_model(series)
        if name is None:
            varied = [n for n, v in series.settings.items() if np.unique(v).size > 1]
            found = f"{series.readouts} images that differ in {', '.join(varied) or 'nothing'}"
            raise InputError(Problem(where, found, f"--model, of {', '.join(MODELS)}"))
        return series, name
    found = find_collections(paths, [*SUFFIXES])
    wanted = [*MODELS[model].suffixes] if model else [*SUFFIXES]
    fitting = [one for one in found if one.suffix in wanted]
    if model and fitting:
        first = min(wanted.index(one.suffix) for one in fitting)
        fitting = [one for one in fitting if one.suffix == wanted[first]]
    if model and not fitting:
        fitting = [one for one in found if not one.suffix]
    if len(fitting) != 1:
        there = "; ".join(f"{one} ({len(one.files)} images)" for one in fitting or found)
        cause = "several scans in the folder: --model chooses one, or images by name"
        cause = cause if fitting else "other names than BIDS has"
        expected = f"images of one series, suffix {' or '.join(wanted)}"
        if not model:
            expected += "; or --model and the images by name"
        raise InputError(Problem(where, there or "no image", expected, cause))
    series = read_collection(fitting[0])
    return series, model or SUFFIXES[series.suffix]


def _protocol(name: str, asked: dict[str, Any], with_b1: bool) -> tuple[Protocol, list[Path]]:
    """The model with the options that are for it, and the files they name."""
    from mrphys.dynamic import POPULATION, Dynamic
    from mrphys.io.curves import read_arterial_input
    from mrphys.io.nifti import read_nifti

    if name != "dce":
        if asked:
            found, expected = f"options for dce with {name}", "them with --model dce alone"
            raise InputError(Problem("--model", found, f"{expected}: {', '.join(asked)}"))
        return MODELS[name], []
    files = []
    if with_b1 and ".nii" in Path(asked.get("aif", "")).suffixes:
        found, expected = "a mask of an artery and --b1", "the artery's curve as a table (.tsv)"
        cause = "the transmit field corrects tissue, not the curve over a mask"
        raise InputError(Problem("--aif", found, expected, cause))
    for key in ("t1_s", "t1_sd_s", "aif"):
        text = asked.get(key)
        if text is None or (key == "aif" and text in POPULATION):
            continue
        if key != "aif" and (number := _number(text)) is not None:
            asked[key] = number
            continue
        path = Path(text)
        if key == "aif" and ".nii" not in path.suffixes and path.suffix != ".tsv":
            expected = f"{', '.join(POPULATION)}, a table (.tsv) or a mask (.nii.gz)"
            raise InputError(Problem("--aif", repr(text), expected))
        table = path.suffix == ".tsv"
        ratio = asked.get("haematocrit", HAEMATOCRIT)
        asked[key] = read_arterial_input(path, ratio) if table else read_nifti(path)
        files.append(path)
    return dynamic(Dynamic(**asked)), files


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


def _summary(made: Any, model: str) -> dict[str, Any]:
    """What was found, in numbers."""
    known = made.determined
    parameters = {}
    for output, value in made.values.items():
        row: dict[str, Any] = {"unit": output.unit}
        if known.any():
            low, median, high = np.percentile(value[known], (5, 50, 95)).astype(float)
            sd = float(np.median(made.sds[output][known]))
            row |= {"median": median, "low5": low, "high95": high, "median_sd": sd}
        parameters[output.suffix] = row
    return {
        "series": made.series.where,
        "model": model,
        "readouts": made.series.readouts,
        "complex": made.series.is_complex,
        "parameters": parameters,
        "voxels": made.counts,
        "noise_sd": made.noise_sd,
        "noise_from": made.noise_from,
        "residual_over_noise": made.misfit,
    }


def _show(summary: dict[str, Any]) -> None:
    screen = Console()
    kind = "complex" if summary["complex"] else "magnitude"
    title = f"{summary['series']}: {summary['model']}, {summary['readouts']} {kind} images"
    table = Table(title=escape(title))
    for name in ("map", "median", "5 % to 95 %", "median sd", "unit"):
        table.add_column(name, justify="left" if name in ("map", "unit") else "right")
    for name, row in summary["parameters"].items():
        if "median" in row:
            span = f"{row['low5']:.4g} to {row['high95']:.4g}"
            numbers = (f"{row['median']:.4g}", span, f"{row['median_sd']:.2g}")
        else:
            numbers = ("–", "–", "–")
        table.add_row(name, *numbers, row["unit"])
    screen.print(table)
    table = Table(title="voxels")
    table.add_column("")
    table.add_column("", justify="right")
    for name, count in summary["voxels"].items():
        if count or name == "fitted":
            table.add_row(name, f"{count:,}")
    screen.print(table)
    ratio = summary["residual_over_noise"]
    noise = f"noise sd: {summary['noise_sd']:.4g} ({summary['noise_from']})"
    screen.print(noise + ("" if ratio is None else f"; residual / noise: {ratio:.2f}"))
    screen.print(f"maps: {Path(summary['picture']).parent}", highlight=False, soft_wrap=True)
    screen.print(f"picture: {summary['picture']}", highlight=False, soft_wrap=True)
    screen.print(f"took {summary['provenance']['seconds']:.0f} s", highlight=False)
