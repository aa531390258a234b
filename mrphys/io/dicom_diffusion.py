"""b-values and gradient directions of DICOM frames: standard, or of Siemens, GE or Philips.

Standard ones and those of Siemens and Philips are by the axes of the patient. GE's are by those of
the gradients, frequency f, phase p and slice s, which with the image's rows r and columns c and
their normal n make

    f r + p c - s n    where the phase is encoded along columns (COL)
    p r - f c - s n    along rows (ROW)

https://www.na-mic.org/wiki/NAMIC_Wiki:DTI:DICOM_for_DWI_and_DTI (private elements);
https://github.com/rordenlab/dcm2niix/tree/master/GE (GE's axes and scaling of b).
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from pydicom.dataset import Dataset

from mrphys.io.dicom_elements import as_numbers, first_number, private, value
from mrphys.io.dicom_siemens import NAME as SIEMENS
from mrphys.io.dicom_siemens import csa

GE_ROUNDING = 100000
"""GE adds 1e9 to b to tell of its own rounding."""
PHILIPS = "Philips MR Imaging DD 001"
UNIT = (0.03, 0.97)
"""GE's directions of lengths between these scale b by their square."""


class Weighting(NamedTuple):
    """b in s/mm², None without diffusion; the direction (LPS), 0 for none, None where not said.

    isotropic  whether a scanner made it of several directions
    doubtful   whether b is only nominal where no direction is given: older GE says b of all images
    """

    b: float | None
    direction: np.ndarray | None
    isotropic: bool
    doubtful: bool = False


def weighting(layers: Sequence[Dataset], axes: np.ndarray) -> Weighting:
    """Of a frame whose rows and columns run along `axes` (2, 3)."""
    b, direction, doubtful = _b_value(layers), _direction(layers), False
    said = str(value(layers, "DiffusionDirectionality") or "")
    said = said or str(_text(private(layers, 0x2001, "Philips Imaging DD 001", 0x04)))
    kinds = [str(kind) for kind in value(layers, "FrameType", "ImageType") or []]
    isotropic = said.upper() in ("ISOTROPIC", "I") or "TRACEW" in kinds
    if direction is None and (given := _of_ge(layers, axes)) is not None:
        direction, doubtful = given, True
        length = float(np.linalg.norm(given))
        if b and UNIT[0] < length < UNIT[1]:
            b = 5.0 * round(b * length**2 / 5)
    if direction is not None:
        length = np.linalg.norm(direction)
        direction = direction / length if length > 0 else np.zeros(3)
    if b == 0:
        direction = np.zeros(3)
    return Weighting(b, direction, isotropic, doubtful)


def _b_value(layers: Sequence[Dataset]) -> float | None:
    standard = first_number(value(layers, "DiffusionBValue"))
    if standard is not None:
        return standard
    for group, creator, element in (
        (0x0019, SIEMENS, 0x0C),
        (0x0043, "GEMS_PARM_01", 0x39),
        (0x2001, "Philips Imaging DD 001", 0x03),
    ):
        found = as_numbers(private(layers, group, creator, element))
        if found is not None and found.size:
            return float(found[0] % GE_ROUNDING) if group == 0x0043 else float(found[0])
    found = csa(layers[-1], "B_value", 1)
    return found[0] if found else None


def _direction(layers: Sequence[Dataset]) -> np.ndarray | None:
    sequences = value(layers, "DiffusionGradientDirectionSequence")
    given: Any = sequences[0].get("DiffusionGradientOrientation") if sequences else None
    given = given if given is not None else value(layers, "DiffusionGradientOrientation")
    if given is None:
        given = as_numbers(private(layers, 0x0019, SIEMENS, 0x0E))
    if given is None:
        given = _three(layers, 0x2005, PHILIPS, (0xB0, 0xB1, 0xB2))
    if given is None:
        given = csa(layers[-1], "DiffusionGradientDirection", 3)
    return None if given is None or len(given) != 3 else np.asarray(given, float)


def _of_ge(layers: Sequence[Dataset], axes: np.ndarray) -> np.ndarray | None:
    given = _three(layers, 0x0019, "GEMS_ACQU_01", (0xBB, 0xBC, 0xBD))
    encoded = str(value(layers, "InPlanePhaseEncodingDirection") or "")[:3].upper()
    if given is None or encoded not in ("COL", "ROW"):
        return None
    (frequency, phase, slices), (row, column) = given, axes
    inside = (
        frequency * row + phase * column if encoded == "COL" else phase * row - frequency * column
    )
    return inside - slices * np.cross(row, column)


def _three(layers: Sequence[Dataset], group: int, creator: str, elements: tuple[int, ...]):
    parts = [as_numbers(private(layers, group, creator, element)) for element in elements]
    numbers = [first_number(part) for part in parts]
    return None if None in numbers else [number for number in numbers if number is not None]


def _text(given: Any) -> str:
    text = given.decode("ascii", "replace") if isinstance(given, bytes) else str(given or "")
    return text.strip("\0 ")
