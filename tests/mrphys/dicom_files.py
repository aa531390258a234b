"""DICOM files as scanners write them, by pydicom."""

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.sequence import Sequence
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

TILT = np.deg2rad(20.0)
ROW = np.array([1.0, 0.0, 0.0])
COLUMN = np.array([0.0, np.cos(TILT), np.sin(TILT)])
NORMAL = np.cross(ROW, COLUMN)
CORNER = np.array([-30.0, -20.0, 10.0])
SPACING, GAP = (2.5, 1.5), 4.0
"""Between rows and between columns, and slices, in mm: what DICOM calls PixelSpacing."""
AFFINE = np.eye(4)
AFFINE[:3] = np.diag([-1.0, -1, 1]) @ np.stack(
    [ROW * SPACING[1], COLUMN * SPACING[0], NORMAL * GAP, CORNER], axis=1
)
SERIES = generate_uid(entropy_srcs=["a series"])


def _file(pixels: np.ndarray, **elements: Any) -> Dataset:
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = MRImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset.SOPClassUID, dataset.SOPInstanceUID = MRImageStorage, generate_uid()
    dataset.Modality, dataset.SamplesPerPixel = "MR", 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    dataset.Rows, dataset.Columns = pixels.shape[-2:]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PixelRepresentation = 0
    dataset.SeriesInstanceUID, dataset.SeriesDescription = SERIES, "a scan"
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "M"]
    dataset.MagneticFieldStrength, dataset.ScanningSequence = 3.0, "SE"
    for name, value in elements.items():
        setattr(dataset, name, value)
    dataset.PixelData = pixels.astype("<u2").tobytes()
    return dataset


def write(dataset: Dataset, path: Path) -> Path:
    """Save a file, its folder made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
    return path


def classic(
    folder: Path,
    data: np.ndarray,
    settings: list[dict[str, Any]],
    change: Callable[[Dataset, int, int], None] | None = None,
) -> None:
    """One file for each slice of data (x, y, z, readouts), in a random order of names; `change` may
    alter each, given readout and slice."""
    rng = np.random.default_rng(0)
    names = iter(rng.permutation(data.shape[2] * data.shape[3]).tolist())
    for readout, elements in enumerate(settings):
        for k in range(data.shape[2]):
            dataset = _file(
                np.asarray(data[:, :, k, readout]).T,
                ImagePositionPatient=(CORNER + k * GAP * NORMAL).tolist(),
                ImageOrientationPatient=[*ROW, *COLUMN],
                PixelSpacing=[*SPACING],
                SliceThickness=GAP,
                InstanceNumber=1 + k + readout * data.shape[2],
                **elements,
            )
            if change is not None:
                change(dataset, readout, k)
            write(dataset, folder / f"IM{next(names):04d}")


def siemens(dataset: Dataset, **numbers: list[float]) -> None:
    """The private header (CSA, second version) with these."""
    parts = [struct.pack("<4s4sII", b"SV10", b"\4\3\2\1", len(numbers), 77)]
    for name, values in numbers.items():
        kind = b"US" if all(isinstance(value, int) for value in values) else b"FD"
        head = (name.encode(), len(values), kind, 4, len(values), 77)
        parts.append(struct.pack("<64si4s3i", *head))
        for value in values:
            text = f"{value}".encode()
            parts += [
                struct.pack("<4i", 0, len(text), 0, 0),
                text.ljust(-(-len(text) // 4) * 4, b"\0"),
            ]
    block = dataset.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    block.add_new(0x10, "OB", b"".join(parts).ljust(20000, b"\0"))


def item(**elements: Any) -> Dataset:
    """A dataset of a sequence."""
    dataset = Dataset()
    for name, value in elements.items():
        setattr(dataset, name, value)
    return dataset


def enhanced(path: Path, data: np.ndarray, groups: list[dict[str, Dataset]]) -> Path:
    """One file of all frames of data (x, y, z, readouts); `groups` of each readout."""
    frames, own = [], []
    for readout, macros in enumerate(groups):
        for k in range(data.shape[2]):
            place = (CORNER + k * GAP * NORMAL).tolist()
            frame = {"PlanePositionSequence": item(ImagePositionPatient=place)} | macros
            own.append(item(**{name: Sequence([macro]) for name, macro in frame.items()}))
            frames.append(np.asarray(data[:, :, k, readout]).T)
    shared = {
        "PlaneOrientationSequence": item(ImageOrientationPatient=[*ROW, *COLUMN]),
        "PixelMeasuresSequence": item(PixelSpacing=[*SPACING], SliceThickness=GAP),
        "PixelValueTransformationSequence": item(RescaleSlope=2.0, RescaleIntercept=-3.0),
    }
    dataset = _file(
        np.stack(frames),
        NumberOfFrames=len(frames),
        SharedFunctionalGroupsSequence=Sequence(
            [item(**{name: Sequence([macro]) for name, macro in shared.items()})]
        ),
        PerFrameFunctionalGroupsSequence=Sequence(own),
    )
    return write(dataset, path)
