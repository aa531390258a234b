"""Synthetic patients, whole and damaged: a ball of tumour in a larger ball of tissue.

Cellularity falls from the middle as u = exp(-(r/R)²), and ADC = ADC_w (1 - u) with
ADC_w = 2.5e-3 mm²/s.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from mrphys.io.nifti import read_nifti, write_nifti
from mrphys.volume import Volume
from oncology.cohort import IMAGES, Patient, Visit, write_patient
from oncology.schedule import Treatment

ADC_WATER_MM2_PER_S = 2.5e-3
SHAPE, SPACING_MM = (16, 14, 12), (2.0, 2.0, 3.0)
AFFINE = np.diag([*SPACING_MM, 1.0])


def values(volume: Volume | None) -> np.ndarray:
    """The numbers of an image that must be there."""
    assert volume is not None, "no such image"
    return np.array(volume.data)


def radius_mm(shape: tuple[int, int, int] = SHAPE, centre_mm=(15.0, 13.0, 16.5)) -> np.ndarray:
    """Distance of each voxel of a grid at SPACING_MM from a point."""
    grid = np.moveaxis(np.indices(shape), 0, -1) * SPACING_MM
    return np.linalg.norm(grid - np.asarray(centre_mm), axis=-1)


def scan(session: str, day: float, spread_mm: float, maps: bool = True) -> Visit:
    """A visit; without `maps` it has a mask and nothing else."""
    distance = radius_mm()
    cellularity = np.exp(-((distance / spread_mm) ** 2))
    mask = Volume((cellularity > 0.16).astype(np.uint8), AFFINE)
    if not maps:
        return Visit(session, day, tumor_labels=mask)
    adc = ADC_WATER_MM2_PER_S * (1 - cellularity)
    tissue = Volume((distance < 13.0).astype(np.uint8), AFFINE)
    return Visit(
        session,
        day,
        tumor_labels=mask,
        adc_mm2_per_s=Volume(adc.astype(np.float32), AFFINE),
        tissue=tissue,
    )


def synthetic_patient(
    days: Sequence[float] = (0.0, 30.0),
    spreads_mm: Sequence[float] = (5.0, 6.0, 7.0),
    planned: Sequence[float] = (60.0,),
    treatments: tuple[Treatment, ...] = (),
    maps: bool = True,
) -> Patient:
    """Scans on `days` of a growing tumour, and planned visits after them."""
    scans = [
        scan(f"ses-{number:02d}", day, spread, maps)
        for number, (day, spread) in enumerate(zip(days, spreads_mm, strict=False), start=1)
    ]
    later = [Visit(f"ses-{len(days) + n:02d}", day) for n, day in enumerate(planned, start=1)]
    return Patient("sub-01", (*scans, *later), treatments)


def synthetic_folder(parent: Path, patient: Patient | None = None) -> Path:
    """The folder `sub-01` of a synthetic patient."""
    return write_patient(parent / "sub-01", patient or synthetic_patient())


def image_path(folder: Path, session: str, image: str) -> Path:
    """The file of one image, by its name in `Visit`."""
    kind = IMAGES[image]
    return folder / session / kind.folder / f"sub-01_{session}_{kind.suffix}.nii.gz"


def rewrite(
    path: Path, change: Callable[[np.ndarray], np.ndarray], affine: np.ndarray | None = None
) -> None:
    """Replace the values of an image, and its affine when one is given."""
    volume = read_nifti(path)
    data = change(np.array(volume.data))
    write_nifti(path, Volume(data, volume.affine if affine is None else affine))


def rewrite_table(folder: Path, name: str, *lines: str) -> Path:
    """Replace a table, "sessions" or "treatments", by these lines."""
    path = folder / f"sub-01_{name}.tsv"
    path.write_text("\n".join(lines) + "\n")
    return path
