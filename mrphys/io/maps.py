"""Maps out: NIfTI in the subject's space with JSON sidecars, all of a set or none."""

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

import mrphys
from mrphys.io.nifti import write_nifti
from mrphys.io.output import prepare_output_folder
from mrphys.maps import Maps
from mrphys.protocols import Output

CARRIED = (
    "MagneticFieldStrength",
    "Manufacturer",
    "ManufacturersModelName",
    "PulseSequenceType",
    "SequenceName",
    "NumberShots",
    "KineticModel",
    "ArterialInput",
    "ArterialInputHaematocrit",
    "BolusArrivalTime",
    "BaselineImages",
    "Relaxivity",
)
"""What a map says of its images, of what they have in common."""


class _Image(NamedTuple):
    name: str
    data: np.ndarray
    unit: str
    what: str
    more: dict[str, Any]


def write_maps(
    folder: str | Path, maps: Maps, stem: str, provenance: dict[str, Any], masked: bool = False
) -> list[Path]:
    """Write maps by their BIDS names; all appear, or none. Returns the images' paths.

        STEM_T1map.nii.gz  .json         the first parameter, with Units, EstimationAlgorithm,
                                         Sources, the settings of the images, and provenance
        STEM_desc-sd_T1map.nii.gz        its standard deviation
        STEM_desc-residual_T1map.nii.gz  what the model leaves over
        STEM_desc-status_T1map.nii.gz    what became of each voxel
        STEM_desc-vfa_M0map.nii.gz       any other parameter, which other models may have as well
        STEM_desc-vfasd_M0map.nii.gz     and its standard deviation

    `masked` says whether voxels outside a given mask were left out. Raises InputError when the
    folder cannot be written.
    """
    folder = prepare_output_folder(folder)
    grid = maps.series.images
    names = []
    with tempfile.TemporaryDirectory(dir=folder, prefix=".writing-") as space:
        for image in _images(maps, stem):
            unit = image.unit.replace("^2", "²")
            write_nifti(Path(space) / f"{image.name}.nii.gz", grid.with_data(image.data), unit)
            said = {"Description": image.what, "Units": image.unit, "SkullStripped": masked}
            said |= image.more | _said(maps) | {"Provenance": provenance}
            text = json.dumps(said, indent=2, ensure_ascii=False) + "\n"
            (Path(space) / f"{image.name}.json").write_text(text, encoding="utf-8")
            names.append(image.name)
        for name in names:
            for ending in (".json", ".nii.gz"):
                os.replace(Path(space) / f"{name}{ending}", folder / f"{name}{ending}")
    return [folder / f"{name}.nii.gz" for name in names]


def _images(maps: Maps, stem: str) -> Iterator[_Image]:
    model = maps.protocol.name
    for i, (output, value) in enumerate(maps.values.items()):
        plain, spread = (f"{model}_", f"{model}sd_") if i else ("", "sd_")
        plain = f"desc-{plain}" if plain else ""
        yield _Image(f"{stem}_{plain}{output.suffix}", value, output.unit, output.what, {})
        what = f"standard deviation of {output.what}; infinite where it is not determined"
        name = f"{stem}_desc-{spread}{output.suffix}"
        yield _Image(name, maps.sds[output], output.unit, what, {})
    first: Output = next(iter(maps.values))
    what = f"sd of what the model leaves over, {maps.noise_sd:.4g} where it holds"
    yield _Image(f"{stem}_desc-residual_{first.suffix}", maps.residual, "arbitrary", what, {})
    levels = {"Levels": {str(code): text for code, text in maps.levels.items()}}
    name = f"{stem}_desc-status_{first.suffix}"
    yield _Image(name, maps.status, "1", "what became of each voxel", levels)


def _said(maps: Maps) -> dict[str, Any]:
    """What every sidecar tells of the images and the fit."""
    series = maps.series
    settings = {
        name: float(values[0]) if np.ptp(values) == 0 else values.tolist()
        for name, values in series.settings.items()
        if np.isfinite(values).all()
    }
    about = {name: series.about[name] for name in CARRIED if name in (series.about or {})}  # pyright: ignore
    noise = {"NoiseStandardDeviation": maps.noise_sd, "NoiseEstimatedFrom": maps.noise_from}
    return {
        "EstimationAlgorithm": maps.protocol.algorithm,
        "EstimationReference": maps.protocol.reference,
        "Sources": [str(path) for path in series.files],
        "GeneratedBy": [{"Name": "mrphys", "Version": mrphys.__version__}],
        **about,
        **settings,
        **noise,
    }
