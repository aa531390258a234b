"""What Siemens keeps in a header of its own (CSA), and mosaics: a volume in one image.

https://nipy.org/nibabel/dicom/siemens_csa.html, .../dicom_mosaic.html (nibabel reads both).
"""

from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset

from mrphys.errors import InputError, Problem

NAME = "SIEMENS MR HEADER"


def csa(dataset: Dataset, name: str, count: int) -> list[float] | None:
    """So many numbers by their name in the header of an image; None where it has not."""
    from nibabel.nicom import csareader

    try:
        header = csareader.get_csa_header(dataset)
        found = None if header is None else csareader.get_vector(header, name, count)
    except (csareader.CSAError, ValueError, TypeError, KeyError, AssertionError):
        return None
    return None if found is None else [float(number) for number in found]


def is_mosaic(dataset: Dataset) -> bool:
    """Whether a file holds a volume in one image."""
    return "MOSAIC" in (dataset.get("ImageType") or [])


def tiles(path: Path, dataset: Dataset) -> list[tuple[np.ndarray, np.ndarray]]:
    """The pixels of each slice, and where its first one lies (LPS, mm).

    The place that the file states is that of a plane as large as the mosaic; slices are along the
    normal of the private header, which may be opposite to that of rows and columns. Raises
    InputError where that or their number is not told, or does not fit.
    """
    from nibabel.nicom.csareader import CSAError
    from nibabel.nicom.dicomwrappers import MosaicWrapper, WrapperError

    try:
        if csa(dataset, "SliceNormalVector", 3) is None:
            raise WrapperError("no SliceNormalVector in its private header")
        wrapper: Any = MosaicWrapper(dataset)
        slices, corner = wrapper.get_unscaled_data(), np.asarray(wrapper.image_position, float)
        step = np.asarray(wrapper.slice_normal, float) * float(wrapper.voxel_sizes[2])
    except (CSAError, WrapperError, ValueError, TypeError, AssertionError) as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        found = f"a mosaic that cannot be taken apart: {reason}"
        expected, cause = "the scanner's private header (0029,1010)", "removed to make it anonymous"
        raise InputError(Problem(str(path), found, expected, cause)) from error
    return [(slices[..., k], corner + k * step) for k in range(slices.shape[-1])]
