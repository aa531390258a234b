"""NIfTI images in and out, with their place in space and the unit of their values."""

import gzip
import zlib
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from mrphys.errors import InputError, Problem
from mrphys.io.output import whole_file
from mrphys.volume import Volume

MM_PER_UNIT = {0: 1.0, 1: 1e3, 2: 1.0, 3: 1e-3}  # NIfTI codes: unknown, metre, mm, µm


def read_nifti(path: str | Path) -> Volume:
    """The image of a .nii or .nii.gz file: float32 values, affine to RAS+ mm.

    The header's scale and spatial unit are applied; trailing axes of size one are dropped.
    Raises InputError naming the file when it is missing, unreadable, truncated, not NIfTI,
    complex or coloured, neither three- nor four-dimensional, or placed by a singular affine.
    """
    where = str(path)
    expected = "a NIfTI image (.nii or .nii.gz)"
    damaged = "an interrupted copy, or another format renamed"
    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "no file"
        raise InputError(Problem(where, found, expected, "a mistyped or unfinished name"))
    try:
        content = Path(path).read_bytes()
        if content.startswith(b"\x1f\x8b"):
            content = gzip.decompress(content)  # unlike a stream, verifies the checksum
        layouts = (nib.Nifti1Image, nib.Nifti2Image)
        layout = next(c for c in layouts if c.header_class.may_contain_header(content))
        image = layout.from_bytes(content)
        kind = np.dtype(image.get_data_dtype()).kind
        if kind in "iufb":
            data = image.get_fdata(dtype=np.float32, caching="unchanged")
    except StopIteration:
        raise InputError(Problem(where, "no NIfTI header", expected, damaged)) from None
    except (OSError, EOFError, ValueError, zlib.error, HeaderDataError, ImageFileError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        found = f"a file that cannot be read ({reason})"
        raise InputError(Problem(where, found, expected, damaged)) from error
    if kind not in "iufb":
        found = "complex values" if kind == "c" else "colours"
        raise InputError(Problem(where, found, "one real number in each voxel"))

    affine = np.array(image.affine, np.float64)
    while data.ndim > 3 and data.shape[-1] == 1:
        data = data[..., 0]
    affine[:3] *= MM_PER_UNIT[int(image.header["xyzt_units"]) & 3]
    try:
        return Volume(data, affine)
    except InputError as error:
        problems = [replace(p, where=where) for p in error.problems]
        raise InputError(*problems) from None


def write_nifti(path: str | Path, volume: Volume, unit: str = "", description: str = "") -> None:
    """Write a Volume whole or not at all; the same Volume gives the same bytes.

    Real values are stored as float32, integers as they are (64-bit ones as 32-bit), truth values
    as 0 and 1. The header's 80-byte description reads "description; unit=..."; space is in mm.
    Raises InputError for complex data, a description too long, integers beyond 32 bits, a suffix
    other than .nii or .nii.gz, or a folder that cannot be written.
    """
    where = str(path)
    data = np.asarray(volume.data)
    text = "; ".join(part for part in (description, f"unit={unit}" if unit else "") if part)
    problems = []
    if not where.endswith((".nii", ".nii.gz")):
        problems.append(Problem(where, f"suffix {Path(path).suffix!r}", ".nii or .nii.gz"))
    if len(text.encode()) > 79:
        problems.append(Problem(where, f"description {text!r}", "at most 79 bytes"))
    if data.dtype.kind == "c":
        problems.append(Problem(where, "complex values", "real values", "magnitude not taken"))
    if data.dtype.itemsize == 8 and data.dtype.kind in "iu" and np.abs(data).max() >= 2**31:
        problems.append(Problem(where, f"integers to {np.abs(data).max()}", "32-bit integers"))
    if problems:
        raise InputError(*problems)

    stored = {"f": np.float32, "b": np.uint8}.get(data.dtype.kind, data.dtype)
    if data.dtype.kind in "iu" and data.dtype.itemsize == 8:
        stored = np.int32
    image = nib.Nifti1Image(data.astype(stored), volume.affine)
    image.header.set_xyzt_units("mm")
    image.header["descrip"] = text.encode()
    image.set_sform(volume.affine, code="scanner")
    try:
        image.set_qform(volume.affine, code="scanner", strip_shears=False)
    except HeaderDataError:  # a quaternion holds no shear: then the sform speaks alone
        image.set_qform(None)
    content = image.to_bytes()
    with whole_file(path) as draft:
        compressed = where.endswith(".gz")
        draft.write_bytes(gzip.compress(content, 6, mtime=0) if compressed else content)
