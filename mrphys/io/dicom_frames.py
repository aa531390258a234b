"""Every image of a DICOM file: what it was taken with, where it lies, its pixels.

Classic files hold one frame, enhanced ones many with functional groups. b-values are standard or of
Siemens, GE or Philips; directions standard or of Siemens or Philips: GE keeps them by axes of the
gradients whose order and signs depend on the protocol, and they are not read.

DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (functional groups), C.8.13.5 (MR macros);
https://www.na-mic.org/wiki/NAMIC_Wiki:DTI:DICOM_for_DWI_and_DTI (private elements);
Chenevert et al. 2014, doi:10.1593/tlo.13811 (Philips' scale).
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from mrphys.errors import InputError, Problem
from mrphys.series import B_VALUE

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
NONSENSE = (ValueError, TypeError, KeyError, AttributeError, IndexError)
MR_IMAGES = (MRImageStorage, EnhancedMRImageStorage)


@dataclass(eq=False)
class Frame:
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


def read_frames(path: Path) -> list[Frame]:
    """The frames that were measured. Raises InputError for files that cannot be read, are not MR,
    do not say where a frame lies, or hold pixels no decoder reads."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # values out of their form are judged below
        try:
            return _measured(path, pydicom.dcmread(path))
        except InputError:
            raise
        except (InvalidDicomError, EOFError, OSError, *NONSENSE) as error:
            reason = str(error).partition("\n")[0]
            found = f"a file that cannot be read ({type(error).__name__}: {reason})"
            cause = "an interrupted copy, or elements that hold no numbers"
            raise InputError(Problem(str(path), found, "a whole DICOM file", cause)) from error


def _measured(path: Path, dataset: Dataset) -> list[Frame]:
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
) -> Frame | None:
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
    return Frame(
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
