"""`mrphys reconstruct`: images from raw k-space."""

import json
import os
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import typer
from rich.console import Console
from rich.table import Table

from mrphys.errors import InputError, Problem
from oncology.cli_bar import counted

if TYPE_CHECKING:
    from oncology.raw_images import RawImages

METHODS = {
    "adjoint": "samples weighed by their density, at once: a look",
    "cg-sense": "least squares by conjugate gradients, with the coils' sensitivities",
    "l1-wavelet": "few wavelets: compressed sensing",
    "tv": "few edges: total variation",
    "low-rank": "few courses of time in each block of a series: locally low rank",
}
EPILOG = "\n\n".join(
    [
        "Methods:",
        *(f"**{name}** {what}" for name, what in METHODS.items()),
        "How strongly to regularise follows from the noise (discrepancy principle), of the noise "
        "scan in the file or else of the edge of k-space, unless `--regularisation` says it.",
        "Try it: `mrphys simulate gre.seq --out raw.h5`, then `mrphys reconstruct raw.h5`.",
    ]
)
COILS = ("espirit", "walsh", "inati")


def reconstruct_raw(
    file: Annotated[Path, typer.Argument(help="Raw k-space: ISMRMRD or fastMRI (HDF5).")],
    method: Annotated[str, typer.Option(help=f"One of {', '.join(METHODS)}.")] = "cg-sense",
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Folder for the images; made if it is not there.")
    ] = Path("images"),
    coils: Annotated[
        str,
        typer.Option(
            help=f"How to find sensitivities: {', '.join(COILS)}; or a file of them, .npy, complex "
            "(coils, x, y[, z]) of the encoded matrix."
        ),
    ] = "espirit",
    virtual: Annotated[
        int | None,
        typer.Option(min=1, help="Virtual coils to keep [of more than 12, 99 % of the energy]."),
    ] = None,
    regularisation: Annotated[
        float | None, typer.Option(min=0.0, help="λ, instead of by the noise; 0 for none.")
    ] = None,
    iterations: Annotated[int | None, typer.Option(min=1, help="At most [the method's].")] = None,
    slices: Annotated[
        str | None, typer.Option("--slice", help="One slice, counted from 0 [all].")
    ] = None,
    replicas: Annotated[
        int,
        typer.Option(help="Draws of noise from which the images' sd is found; 0: no sd.", min=0),
    ] = 0,
    seed: Annotated[int, typer.Option("--seed", help="Seed of every random draw.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the result as JSON on standard output.")
    ] = False,
) -> None:
    """Images from raw k-space: Cartesian or along any trajectory, one coil or many.

    Lines are sorted, noise is prewhitened where the file has a noise scan, sensitivities are
    estimated from the middle of k-space. Writes magnitude and phase (NIfTI), how they were made
    (JSON) and a picture (PNG).

    Example: mrphys reconstruct raw.h5 --out images/

    Compressed sensing: mrphys reconstruct raw.h5 --method l1-wavelet

    With the noise in the image: mrphys reconstruct raw.h5 --replicas 32
    """
    import jax

    from mrphys.io.output import prepare_output_folder
    from mrphys.io.raw import read_raw
    from mrphys.io.results import provenance
    from oncology.raw_images import make_images

    started = time.time()
    if method not in METHODS:
        raise InputError(Problem("--method", repr(method), f"one of {', '.join(METHODS)}"))
    maps, how = _sensitivities(coils)
    with jax.enable_x64(False), counted() as progress:
        bar = progress.add_task(f"reading {file.name}", total=None)
        raw = read_raw(file)
        if slices is not None:
            raw = raw.select(slice=_whole(slices))
        prepare_output_folder(out)

        def report(what: str, done: int, of: int) -> None:
            progress.update(bar, description=f"{method}: {what}, slices", completed=done, total=of)

        made = make_images(
            raw, method, maps=maps, coil_method=how, virtual=virtual, replicas=replicas,
            regularisation=regularisation, iterations=iterations, seed=seed, progress=report,
        )  # fmt: skip
    given = [] if maps is None else [Path(coils)]
    source = provenance([file, *given], seed=seed, seconds=round(time.time() - started, 1))
    summary = _summary(made, raw.coils, file, method, coils) | {"provenance": source}
    paths = _write(out, file.name.split(".")[0], made, summary)
    summary |= paths
    if as_json:
        print(json.dumps(summary, indent=2, ensure_ascii=False))
    else:
        _show(summary)


def _sensitivities(coils: str) -> tuple[np.ndarray | None, Any]:
    if coils in COILS:
        return None, coils
    if not coils.endswith(".npy"):
        raise InputError(Problem("--coils", repr(coils), f"{', '.join(COILS)}, or a .npy file"))
    try:
        return np.load(coils, allow_pickle=False), "espirit"
    except (OSError, ValueError, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(
            Problem(f"--coils {coils}", reason, "an array of complex numbers")
        ) from None


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise InputError(Problem("--slice", repr(text), "a whole number, from 0")) from None


def _summary(made: "RawImages", coils: int, file: Path, method: str, found: str) -> dict[str, Any]:
    raw = made.raw
    taken = raw.trajectory if raw.trajectory is not None else raw.mask
    assert taken is not None
    voxels = int(np.prod(raw.shape))
    images = int(np.prod(made.x.shape[: made.x.ndim - len(raw.shown)]))
    samples = taken[..., 0].size if raw.trajectory is not None else int(np.sum(taken > 0))
    said = {key: value for key, value in raw.provenance.items() if key != "file"}
    return said | {
        "file": str(file),
        "method": method,
        "coils": coils,
        "coils_used": made.coils,
        "sensitivities": found,
        "matrix": list(raw.shown),
        "fov_mm": [f * n / m for f, n, m in zip(raw.fov_mm, raw.shown, raw.shape, strict=True)],
        "images": images,
        "series": list(raw.series),
        "voxels_per_sample": voxels * images / samples,
        "noise_sd": made.noise_sd,
        "noise_from": made.noise_from,
        "regularisation": list(made.regularisation),
        "residual": list(made.residual),
        "iterations": list(made.iterations),
        "status": list(made.status),
    }


def _write(folder: Path, stem: str, made: "RawImages", summary: dict[str, Any]) -> dict[str, Any]:
    """All of the images, or none."""
    from mrphys.io.nifti import write_nifti
    from mrphys.io.output import write_text
    from oncology.raw_picture import draw_images

    parts = {"part-mag": (np.abs(made.x), "arbitrary"), "part-phase": (np.angle(made.x), "rad")}
    if made.sd is not None:
        parts["desc-sd"] = (made.sd, "arbitrary")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as space:
        names = []
        for part, (values, unit) in parts.items():
            names += [f"{stem}_{part}.nii.gz", f"{stem}_{part}.json"]
            volume = made.raw.volume(_stacked(values, len(made.raw.shown)))
            write_nifti(Path(space) / names[-2], volume, unit)
            text = json.dumps(summary | {"Units": unit}, indent=2, ensure_ascii=False)
            write_text(Path(space) / names[-1], text + "\n")
        names.append(f"{stem}.png")
        draw_images(made, f"{stem}: {summary['method']}").savefig(Path(space) / names[-1], dpi=110)
        for name in names:
            os.replace(Path(space) / name, folder / name)
    written = [str(folder / name) for name in names]
    return {"files": written[:-1], "picture": written[-1]}


def _stacked(values: np.ndarray, axes: int) -> np.ndarray:
    """(slices, *frames, *shape) as (x, y, z[, frames])."""
    slices, shape = values.shape[0], values.shape[values.ndim - axes :]
    flat = values.reshape(slices, -1, *shape).astype(np.float32)
    last = np.moveaxis(flat, 1, -1)  # slices, *shape, frames
    stacked = last[0] if axes == 3 else np.moveaxis(last, 0, 2)
    return stacked[..., 0] if stacked.shape[-1] == 1 else stacked


def _show(summary: dict[str, Any]) -> None:
    screen = Console()
    size = " x ".join(map(str, summary["matrix"]))
    title = f"{Path(summary['file']).name}: {summary['method']}, {summary['images']} of {size}"
    table = Table(title=title)
    table.add_column("")
    table.add_column("", justify="right")
    table.add_row("coils", f"{summary['coils']}, {summary['coils_used']} used")
    table.add_row("voxels per sample", f"{summary['voxels_per_sample']:.2f}")
    if summary["noise_sd"] is not None:
        table.add_row("noise sd", f"{summary['noise_sd']:.3g}")
        table.add_row("from", summary["noise_from"])
    for name in ("regularisation", "residual", "iterations"):
        low, high = min(summary[name]), max(summary[name])
        table.add_row(name, f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}")
    for ended in sorted(set(summary["status"])):
        table.add_row("ended", ended)
    screen.print(table)
    screen.print(f"images: {Path(summary['picture']).parent}", highlight=False, soft_wrap=True)
    screen.print(f"picture: {summary['picture']}", highlight=False, soft_wrap=True)
    screen.print(f"took {summary['provenance']['seconds']:.0f} s", highlight=False)
