"""Series of images as a scanner sends them: DICOM, classic single-frame and enhanced multi-frame.

Frames are sorted into volumes by what they were taken with (echo, inversion and repetition time,
flip angle, b-value and direction, magnitude or phase) and, where that is alike, in order of time;
slices by their place along the normal. Values are rescaled; those of Philips to the scanner's own
floating point, which several scans share. b-values are standard or of Siemens, GE or Philips;
directions standard or of Siemens or Philips: GE keeps them by axes of the gradients whose order
and signs depend on the protocol, and they are not read.

DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (functional groups), C.8.13.5 (MR macros);
https://www.na-mic.org/wiki/NAMIC_Wiki:DTI:DICOM_for_DWI_and_DTI (private elements);
Chenevert et al. 2014, doi:10.1593/tlo.13811 (Philips' scale).
"""

import re
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from mrphys.errors import InputError, Problem
from mrphys.series import B_VALUE, Series
from mrphys.volume import Volume

SETTINGS = {
    "EchoTime": (("EffectiveEchoTime", "EchoTime"), 1e-3),
    "InversionTime": (("InversionTimes", "InversionTime"), 1e-3),
    "RepetitionTime": (("RepetitionTime",), 1e-3),
    "FlipAngle": (("FlipAngle",), 1.0),
}
"""BIDS names of what is found under DICOM keywords, and the factor to seconds."""
ABOUT = {
    "MagneticFieldStrength": "MagneticFieldStrength",
    "Manufacturer": "Manufacturer",
    "ManufacturersModelName": "ManufacturerModelName",
    "ScanningSequence": "ScanningSequence",
    "SequenceName": "SequenceName",
    "SeriesDescription": "SeriesDescription",
}
"""BIDS names of what is carried to the maps, and the DICOM keywords."""
COMPONENTS = {
    "M": "mag", "MAGNITUDE": "mag", "P": "phase", "PHASE": "phase",
    "R": "real", "REAL": "real", "I": "imag", "IMAGINARY": "imag",
}  # fmt: skip
COMPUTED = {"ADC", "EADC", "FA", "COLFA", "TENSOR"}
"""Kinds of image that a scanner derives from others of the series."""
MR_IMAGES = (MRImageStorage, EnhancedMRImageStorage)
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
SAME_MM = 0.05
"""Within which two slices are at one place."""


@dataclass(eq=False)
class _Frame:
    """One slice: which scan it is of, what it was taken with, where it lies (LPS), its pixels."""

    path: Path
    series: str
    component: str
    settings: dict[str, float]
    direction: tuple[float, ...] | None
    time_s: float
    order: tuple[int, ...]
    position: np.ndarray
    orientation: np.ndarray
    spacing: tuple[float, float]
    thickness: float
    scale: tuple[float, float]
    bits: int
    pixels: np.ndarray
    about: dict[str, Any] = field(default_factory=dict)

    @property
    def kind(self) -> tuple:
        """What frames of one volume have in common."""
        known = tuple(sorted((name, round(v, 6)) for name, v in self.settings.items()))
        axis = None if self.direction is None else tuple(np.round(self.direction, 3).tolist())
        return known, axis or ()


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_dicom(paths: Iterable[str | Path]) -> list[Path]:
    """DICOM files among these and below these folders; not DICOMDIR."""
    found = []
    for path in map(Path, paths):
        files = (
            sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        )
        found += [file for file in files if file.name != "DICOMDIR" and is_dicom(file)]
    return found


def read_dicom(paths: Iterable[str | Path]) -> Series:
    """The images of one acquisition in a folder or among files, with their settings.

    Several series make one where they differ in a setting and share their grid, as scans of
    several flip angles or inversion times do; magnitude and phase images become complex (phase by
    its rescale, or over the range of its integers a turn). Images a scanner computed (ADC, FA) are
    left out. `settings["VolumeTiming"]` is when each readout was taken, in s after the first.

    Raises InputError for no or damaged DICOM, compressed pixels that no installed decoder reads,
    images of several geometries or of scans alike in every setting, missing slices, mosaics, and
    images that are not MR.
    """
    files = find_dicom(paths)
    where = ", ".join(map(str, paths))
    if not files:
        raise InputError(Problem(where, "no DICOM file", "a folder of MR images", "a typing slip"))
    frames, problems = [], []
    for path in files:
        try:
            frames += _frames(path)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*_first_of(problems))
    if not frames:
        found = f"{len(files)} files without an image that was measured"
        raise InputError(Problem(where, found, "MR images", "reports, or computed maps alone"))
    _check_geometry(where, frames)
    volumes = _volumes(where, frames)
    return _series(where, volumes, files)


def _first_of(problems: list[Problem], most: int = 5) -> list[Problem]:
    """Of many alike, some."""
    left = len(problems) - most
    if left <= 0:
        return problems
    more = Problem(f"{left} more files", "the same or other problems", "none")
    return [*problems[:most], more]


def _frames(path: Path) -> list[_Frame]:
    """Every image of a file."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values out of their form are judged below
        try:
            dataset = pydicom.dcmread(path)
        except (InvalidDicomError, EOFError, OSError, ValueError, KeyError, TypeError) as error:
            found = f"a file that cannot be read ({type(error).__name__}: {error})"
            expected = "a whole DICOM file"
            raise InputError(Problem(str(path), found, expected, "an interrupted copy")) from error
        if "PixelData" not in dataset and "Rows" not in dataset:
            if dataset.file_meta.get("MediaStorageSOPClassUID") not in MR_IMAGES:
                return []
            found = "an MR image without pixels"
            raise InputError(Problem(str(path), found, "a whole image", "an interrupted copy"))
        _check_kind(path, dataset)
        count = int(dataset.get("NumberOfFrames") or 1)
        layers = [[dataset]]
        if "PerFrameFunctionalGroupsSequence" in dataset:
            shared = list(dataset.get("SharedFunctionalGroupsSequence") or [])
            layers = [[own, *shared, dataset] for own in dataset.PerFrameFunctionalGroupsSequence]
        if len(layers) != count:
            found = f"{count} frames of which {len(layers)} are described"
            expected = "functional groups for each frame"
            cause = "a cine or an export that is no enhanced MR image"
            raise InputError(Problem(str(path), found, expected, cause))
        pixels = _pixels(path, dataset).reshape(count, dataset.Rows, dataset.Columns)
        made = [_frame(path, dataset, layer, i, pixels[i]) for i, layer in enumerate(layers)]
    return [frame for frame in made if frame is not None]


def _check_kind(path: Path, dataset: Dataset) -> None:
    modality = str(dataset.get("Modality", "MR"))
    if modality != "MR":
        raise InputError(Problem(str(path), f"modality {modality}", "MR images", "another scan"))
    if "MOSAIC" in (dataset.get("ImageType") or []):
        found = "a mosaic of slices"
        expected = "one slice a frame"
        cause = "an older Siemens EPI; dcm2niix makes NIfTI of it, with .bval and .bvec"
        raise InputError(Problem(str(path), found, expected, cause))
    if int(dataset.get("SamplesPerPixel", 1)) != 1:
        raise InputError(Problem(str(path), "colours", "one number a pixel", "a screenshot"))


def _pixels(path: Path, dataset: Dataset) -> np.ndarray:
    syntax = dataset.file_meta.TransferSyntaxUID
    try:
        return np.asarray(dataset.pixel_array)
    except Exception as error:  # decoders raise what they like
        if syntax.is_encapsulated:
            found = f"pixels compressed as {syntax.name}, which cannot be read here"
            cause = "no decoder: install pylibjpeg[all], or decompress with gdcmconv --raw"
            expected = "uncompressed pixels"
        else:
            reason = str(error).partition("\n")[0]
            found = f"pixels that cannot be read ({reason})"
            expected, cause = "a whole image", "an interrupted copy"
        raise InputError(Problem(str(path), found, expected, cause)) from error


def _value(layers: Sequence[Dataset], *keywords: str) -> Any:
    """The first of these elements, in a frame's own groups before the shared ones and the file."""
    for keyword in keywords:
        for layer in layers[:-1]:
            for group in layer:
                for item in group.value if group.VR == "SQ" else ():
                    if item.get(keyword) is not None:
                        return item[keyword].value
        if layers[-1].get(keyword) is not None:
            return layers[-1][keyword].value
    return None


def _number(value: Any) -> float | None:
    """The first number of an element."""
    if value is None or isinstance(value, str):
        return None
    many = np.ravel(np.asarray(value, float))
    return float(many[0]) if many.size and np.isfinite(many[0]) else None


def _private(dataset: Dataset, group: int, creator: str, element: int) -> Any:
    try:
        return dataset.private_block(group, creator)[element].value
    except KeyError:
        return None


def _as_numbers(value: Any) -> np.ndarray | None:
    """Of a private element, also where the file does not tell its type."""
    if value is None:
        return None
    try:
        text = value.rstrip(b"\0 ").decode("ascii") if isinstance(value, bytes) else value
        parts = text.split("\\") if isinstance(text, str) else text
        return np.ravel(np.asarray(parts, float))
    except ValueError:
        if not isinstance(value, bytes) or len(value) % 4:
            return None
        return np.frombuffer(value, "<f4" if len(value) % 8 else "<f8")


def _b_value(layers: Sequence[Dataset]) -> float | None:
    """In s/mm²: standard, or by vendor."""
    standard = _number(_value(layers, "DiffusionBValue"))
    if standard is not None:
        return standard
    for group, creator, element in (
        (0x0019, "SIEMENS MR HEADER", 0x0C),
        (0x0043, "GEMS_PARM_01", 0x39),
        (0x2001, "Philips Imaging DD 001", 0x03),
    ):
        found = _as_numbers(_private(layers[-1], group, creator, element))
        if found is not None and found.size:
            # GE adds 1e9 to tell of its own rounding.
            return float(found[0] % 100000) if group == 0x0043 else float(found[0])
    return None


def _direction(layers: Sequence[Dataset]) -> np.ndarray | None:
    """Of the diffusion gradient, LPS: standard, or of Siemens or Philips; 0 where there is none."""
    sequences = _value(layers, "DiffusionGradientDirectionSequence")
    given = sequences[0].get("DiffusionGradientOrientation") if sequences else None
    given = given if given is not None else _value(layers, "DiffusionGradientOrientation")
    if given is None:
        given = _as_numbers(_private(layers[-1], 0x0019, "SIEMENS MR HEADER", 0x0E))
    if given is None:
        creator = "Philips MR Imaging DD 001"
        parts = [_private(layers[-1], 0x2005, creator, element) for element in (0xB0, 0xB1, 0xB2)]
        numbers = [_number(_as_numbers(part)) for part in parts]
        given = None if None in numbers else numbers
    if given is None or len(given) != 3:
        return None
    direction = np.asarray(given, float)
    length = np.linalg.norm(direction)
    return direction / length if length > 0 else np.zeros(3)


def _frame(
    path: Path, dataset: Dataset, layers: Sequence[Dataset], index: int, pixels: np.ndarray
) -> _Frame | None:
    """One frame, None where a scanner computed it."""
    kinds = [str(kind) for kind in [*(_value(layers, "FrameType", "ImageType") or [])]]
    if COMPUTED & set(kinds):
        return None
    position, orientation = (
        _value(layers, keyword) for keyword in ("ImagePositionPatient", "ImageOrientationPatient")
    )
    spacing = _value(layers, "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        found = "an image without its position, orientation or pixel spacing"
        raise InputError(
            Problem(str(path), found, "an MR image in space", "an export that lost them")
        )
    settings = {}
    for name, (keywords, factor) in SETTINGS.items():
        number = _number(_value(layers, *keywords))
        if number is not None:
            settings[name] = number * factor
    b, direction = _b_value(layers), _direction(layers)
    if b is not None:
        settings[B_VALUE] = b
        direction = np.zeros(3) if b == 0 and direction is None else direction
    thickness = _number(_value(layers, "SpacingBetweenSlices", "SliceThickness")) or 1.0
    component = str(_value(layers, "ComplexImageComponent") or "")
    named = [COMPONENTS[k] for k in (component, *kinds[2:]) if k in COMPONENTS]
    number = _number(_value(layers, "TemporalPositionIndex")) or 0
    instance = _number(dataset.get("InstanceNumber")) or 0
    order = (int(number), int(_number(dataset.get("AcquisitionNumber")) or 0), int(instance), index)
    return _Frame(
        path=path,
        series=str(dataset.get("SeriesInstanceUID", "")),
        component=named[0] if named else "mag",
        settings=settings,
        direction=None if direction is None else tuple(direction.tolist()),
        time_s=_seconds(layers),
        order=order,
        position=np.asarray(position, float),
        orientation=np.asarray(orientation, float).reshape(2, 3),
        spacing=(float(spacing[0]), float(spacing[1])),
        thickness=thickness,
        scale=_scale(layers),
        bits=int(dataset.get("BitsStored", 16)),
        pixels=pixels,
        about={
            name: _plain(dataset[keyword].value)
            for name, keyword in ABOUT.items()
            if dataset.get(keyword) not in (None, "")
        },
    )


def _plain(value: Any) -> Any:
    if isinstance(value, str):
        return str(value)
    try:
        return float(value)
    except (TypeError, ValueError):
        return [str(part) for part in value]


def _seconds(layers: Sequence[Dataset]) -> float:
    """Time of day of acquisition; NaN where it is not said."""
    stamp = str(_value(layers, "FrameAcquisitionDateTime", "AcquisitionDateTime") or "")[8:]
    stamp = stamp.partition("+")[0].partition("-")[0] or str(
        _value(layers, "AcquisitionTime") or ""
    )
    if not re.fullmatch(r"\d{6}(\.\d*)?", stamp):
        return np.nan
    return int(stamp[:2]) * 3600 + int(stamp[2:4]) * 60 + float(stamp[4:])


def _scale(layers: Sequence[Dataset]) -> tuple[float, float]:
    """Slope and intercept of the pixels."""
    slope, intercept = (
        _number(_value(layers, keyword)) for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    own = _as_numbers(_private(layers[-1], 0x2005, "Philips MR Imaging DD 001", 0x0E))
    if own is not None and own.size and own[0] > 0 and slope != 0:
        return 1.0 / float(own[0]), intercept / (slope * float(own[0]))
    return slope, intercept


def _label(frame: _Frame) -> str:
    """A scan for a person."""
    return str(frame.about.get("SeriesDescription") or frame.path.parent.name)


def _check_geometry(where: str, frames: list[_Frame]) -> None:
    """One matrix, one pixel, one orientation."""
    first, kinds = frames[0], {}
    for frame in frames:
        same = (
            frame.pixels.shape == first.pixels.shape
            and np.allclose(frame.spacing, first.spacing, rtol=1e-3)
            and np.allclose(frame.orientation, first.orientation, atol=1e-3)
        )
        if not same:
            shape = " x ".join(map(str, frame.pixels.shape))
            kinds.setdefault(frame.series, f"{_label(frame)} ({shape}, {frame.path.name})")
    if kinds:
        shape = " x ".join(map(str, first.pixels.shape))
        others = ", ".join([*kinds.values()][:4])
        found = f"images of several geometries: {_label(first)} ({shape}) and {others}"
        cause = "several scans, or a localiser, in one folder: name the folder of one"
        raise InputError(Problem(where, found, "images of one matrix and orientation", cause))


def _volumes(where: str, frames: list[_Frame]) -> list[list[_Frame]]:
    """Frames by volume, slices in order along the normal, volumes in order of time."""
    normal = np.cross(*frames[0].orientation)
    heights = np.array([frame.position @ normal for frame in frames])
    ranks = np.argsort(heights, kind="stable")
    steps = np.concatenate([[0], np.cumsum(np.diff(heights[ranks]) > SAME_MM)])
    levels = dict(zip(ranks.tolist(), steps.tolist(), strict=True))
    every = np.array([heights[ranks][steps == level].mean() for level in range(steps[-1] + 1)])
    places: dict[tuple, dict[int, list[_Frame]]] = {}
    for i in sorted(range(len(frames)), key=lambda i: frames[i].order):
        key = (frames[i].kind, frames[i].component)
        places.setdefault(key, {}).setdefault(levels[i], []).append(frames[i])
    volumes, problems = [], []
    for (kind, component), slices in places.items():
        counts = [len(slices.get(level, [])) for level in range(every.size)]
        many = max(counts)
        short = [place for place, count in zip(every, counts, strict=True) if count < many]
        what = ", ".join(f"{name} {value:g}" for name, value in kind[0]) or component
        if short:
            found = f"{len(short)} of {every.size} slices missing ({what}), at {short[0]:g} mm"
            cause = "an incomplete export, or two scans of other slices in one folder"
            problems.append(Problem(where, found, "every slice of every image", cause))
            continue
        again = {frame.series for stack in slices.values() for frame in stack}
        if len(again) > 1:
            names = ", ".join(sorted({_label(f) for s in slices.values() for f in s}))
            found = f"{len(again)} series with the same settings ({what}): {names}"
            cause = "a repeated scan, or other scans in the same folder: name the folder of one"
            problems.append(Problem(where, found, "series that differ in a setting", cause))
            continue
        volumes += [[slices[level][i] for level in range(every.size)] for i in range(many)]
    if problems:
        raise InputError(*_first_of(problems))
    gaps = np.diff(every)
    if gaps.size and np.ptp(gaps) > 2 * SAME_MM:
        found = f"slices {gaps.min():g} to {gaps.max():g} mm apart"
        cause = "a slice missing from every image, or two stacks"
        raise InputError(Problem(where, found, "evenly spaced slices", cause))
    expected = np.linspace(volumes[0][0].position, volumes[0][-1].position, every.size)
    for volume in volumes:
        off = np.linalg.norm(
            [f.position - e for f, e in zip(volume, expected, strict=True)], axis=1
        )
        if off.max() > 4 * SAME_MM:
            found = f"slices of {_label(volume[0])} up to {off.max():.3g} mm beside the others"
            cause = "scans of other fields of view in one folder"
            raise InputError(Problem(where, found, "images of one place", cause))
    return sorted(volumes, key=lambda volume: min(frame.order for frame in volume))


def _affine(volume: list[_Frame]) -> np.ndarray:
    """From (column, row, slice) to RAS+ mm."""
    first, last = volume[0], volume[-1]
    row, column = first.orientation
    if len(volume) > 1:
        step = (last.position - first.position) / (len(volume) - 1)
    else:
        step = np.cross(row, column) * first.thickness
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    affine[:3] *= LPS_TO_RAS[:, None]
    return affine


def _image(volume: list[_Frame]) -> np.ndarray:
    slices = [
        frame.scale[0] * frame.pixels.T.astype(np.float32) + frame.scale[1] for frame in volume
    ]
    return np.stack(slices, axis=-1).astype(np.float32)


def _series(where: str, volumes: list[list[_Frame]], files: list[Path]) -> Series:
    """All volumes, phases joined with their magnitudes."""
    parts: dict[tuple, dict[str, list[_Frame]]] = {}
    seen: dict[tuple, int] = {}
    for volume in volumes:
        kind, component = volume[0].kind, volume[0].component
        again = seen[kind, component] = seen.get((kind, component), -1) + 1
        parts.setdefault((kind, again), {})[component] = volume
    kinds = {tuple(sorted(found)) for found in parts.values()}
    if len(kinds) > 1:
        names = " and ".join(" + ".join(kind) for kind in sorted(kinds))
        found = f"some readouts as {names}"
        raise InputError(Problem(where, found, "a phase for each magnitude", "a series left out"))
    ((*found,),) = kinds
    images, lead = [], []
    for together in parts.values():
        if "real" in found and "imag" in found:
            images.append(_image(together["real"]) + 1j * _image(together["imag"]))
            lead.append(together["real"])
        elif "mag" in found and "phase" in found:
            turned = np.exp(1j * _phase(together["phase"]))
            images.append((_image(together["mag"]) * turned).astype(np.complex64))
            lead.append(together["mag"])
        elif found == ["mag"]:
            images.append(_image(together["mag"]))
            lead.append(together["mag"])
        else:
            expected = "magnitudes, with or without phase, or real and imaginary parts"
            raise InputError(Problem(where, f"{' + '.join(found)} images", expected))
    heads = [volume[0] for volume in lead]
    names = [n for n in (*SETTINGS, B_VALUE) if any(n in head.settings for head in heads)]
    settings = {n: np.array([head.settings.get(n, np.nan) for head in heads]) for n in names}
    times = np.array([min(frame.time_s for frame in volume) for volume in lead])
    if np.isfinite(times).all():
        settings["VolumeTiming"] = times - times.min()
    directions = None
    axes = [head.direction for head in heads]
    if B_VALUE in settings and all(axis is not None for axis in axes):
        directions = np.array(axes, float) * LPS_TO_RAS
    about = {
        name: value
        for name, value in heads[0].about.items()
        if all(head.about.get(name) == value for head in heads)
    }
    name = re.sub(r"[^A-Za-z0-9]+", "-", _label(heads[0])).strip("-") or "series"
    grid = Volume(np.stack(images, axis=-1), _affine(lead[0]))
    return Series(name, "", grid, settings, directions, about, tuple(files))


def _phase(volume: list[_Frame]) -> np.ndarray:
    """In radians: a turn is the range of stored integers, or of 16 bits what they are rescaled to,
    radians or thousandths."""
    bits = volume[0].bits
    if bits < 16:
        stored = np.stack([frame.pixels.T for frame in volume], axis=-1)
        return stored.astype(np.float32) * (2 * np.pi / 2**bits)
    phase = _image(volume)
    most = float(np.abs(phase).max())
    if most > 1000 * np.pi * 1.01:
        found = f"a phase image of values to {most:g}"
        raise InputError(Problem(str(volume[0].path), found, "radians, or thousandths"))
    return phase if most <= 2 * np.pi * 1.001 else phase / 1000
