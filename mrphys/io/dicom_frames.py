"""Every image of a DICOM file: what it was taken with, where it lies, its pixels.

Classic files hold one frame, mosaics of Siemens a volume in one, enhanced files many frames with
functional groups.

DICOM PS3.3, C.7.6.2 (image plane), C.7.6.16 (functional groups), C.8.13.5 (MR macros);
Chenevert et al. 2014, doi:10.1593/tlo.13811 (Philips' scale).
"""

import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.errors import InvalidDicomError
from pydicom.uid import EnhancedMRImageStorage, MRImageStorage

from mrphys.errors import InputError, Problem
from mrphys.io.dicom_diffusion import PHILIPS, weighting
from mrphys.io.dicom_elements import as_numbers, first_number, private, value
from mrphys.io.dicom_siemens import is_mosaic, tiles
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
    """One slice: which scan it is of, what it was taken with, where it lies (LPS), its pixels;
    `isotropic` and `doubtful` as of `mrphys.io.dicom_diffusion.Weighting`."""

    path: Path
    series: str
    component: str
    settings: dict[str, float]
    direction: tuple[float, ...] | None
    isotropic: bool
    doubtful: bool
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
    if is_mosaic(dataset):
        whole = _frame(path, dataset, [dataset], 0, _pixels(path, dataset))
        if whole is None:
            return []
        return [
            replace(whole, pixels=pixels, position=place, order=(*whole.order[:3], k))
            for k, (pixels, place) in enumerate(tiles(path, dataset))
        ]
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


def _frame(
    path: Path, dataset: Dataset, layers: Sequence[Dataset], index: int, pixels: np.ndarray
) -> Frame | None:
    """One frame, None where a scanner computed it."""
    kinds = [str(kind) for kind in [*(value(layers, "FrameType", "ImageType") or [])]]
    if COMPUTED & set(kinds):
        return None
    position, orientation = (
        value(layers, keyword) for keyword in ("ImagePositionPatient", "ImageOrientationPatient")
    )
    spacing = value(layers, "PixelSpacing")
    if position is None or orientation is None or spacing is None:
        found = "an image without its position, orientation or pixel spacing"
        raise InputError(
            Problem(str(path), found, "an MR image in space", "an export that lost them")
        )
    settings = {}
    for name, (keywords, factor) in SETTINGS.items():
        number = first_number(value(layers, *keywords))
        if number is not None:
            settings[name] = number * factor
    axes = np.asarray(orientation, float).reshape(2, 3)
    b, direction, isotropic, doubtful = weighting(layers, axes)
    if b is not None:
        settings[B_VALUE] = b
    thickness = first_number(value(layers, "SpacingBetweenSlices", "SliceThickness")) or 1.0
    component = str(value(layers, "ComplexImageComponent") or "")
    named = [COMPONENTS[k] for k in (component, *kinds[2:]) if k in COMPONENTS]
    number = first_number(value(layers, "TemporalPositionIndex")) or 0
    instance = first_number(dataset.get("InstanceNumber")) or 0
    acquisition = first_number(dataset.get("AcquisitionNumber")) or 0
    order = (int(number), int(acquisition), int(instance), index)
    return Frame(
        path=path,
        series=str(dataset.get("SeriesInstanceUID", "")),
        component=named[0] if named else "mag",
        settings=settings,
        direction=None if direction is None else tuple(direction.tolist()),
        isotropic=isotropic,
        doubtful=doubtful,
        time_s=_seconds(layers),
        order=order,
        position=np.asarray(position, float),
        orientation=axes,
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
    stamp = str(value(layers, "FrameAcquisitionDateTime", "AcquisitionDateTime") or "")[8:]
    stamp = stamp.partition("+")[0].partition("-")[0] or str(value(layers, "AcquisitionTime") or "")
    if not re.fullmatch(r"\d{6}(\.\d*)?", stamp):
        return np.nan
    return int(stamp[:2]) * 3600 + int(stamp[2:4]) * 60 + float(stamp[4:])


def _scale(layers: Sequence[Dataset]) -> tuple[float, float]:
    """Slope and intercept of the pixels."""
    slope, intercept = (
        first_number(value(layers, keyword)) for keyword in ("RescaleSlope", "RescaleIntercept")
    )
    slope, intercept = 1.0 if slope is None else slope, intercept or 0.0
    own = as_numbers(private(layers, 0x2005, PHILIPS, 0x0E))
    if own is not None and own.size and own[0] > 0 and slope != 0:
        return 1.0 / float(own[0]), intercept / (slope * float(own[0]))
    return slope, intercept
