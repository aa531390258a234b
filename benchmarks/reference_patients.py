"""Turn three reference data sets into patient folders that `mrphys forecast` reads.

    python benchmarks/reference_patients.py --data ../shared/data --out patients/

virtual_tnbc -> patients/tnbc/sub-tnbc1, sub-tnbc2
    Two virtual breast cancers under doxorubicin and cyclophosphamide (doi
    10.1038/s41540-025-00531-z), one slice, scans on days 0, 25 and 50. Cellularity = cells per
    voxel / capacity, with capacity = 0.7405 x 8 mm³ / 4.189e-6 mm³: spheres of that volume, packed
    densest.
virtual_gbm_rnl -> patients/gbm-rnl/sub-rnl
    A virtual glioblastoma (doi 10.1016/j.brain.2023.100084): ADC on days 0 and 28, brain mask. Day
    56 is a planned visit, to be forecast.
glioblastoma_progression -> patients/glioblastoma/sub-01 ... sub-06
    Real (doi 10.7937/K9/TCIA.2018.15quzvnb): contrast-enhanced T1 and enhancing-tumour mask of two
    visits. The files carry no voxel size: 0.94 x 0.94 mm in plane and 6.5 mm between slices are
    assumed, and other sizes can be given.

A data set that is not there is skipped. Then, for example:

    mrphys forecast patients/gbm-rnl/sub-rnl --calibrate 1,2 --predict 3 --out results/
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from mrphys.errors import InputError
from mrphys.io.nifti import read_nifti
from mrphys.io.output import write_text
from mrphys.volume import Volume
from oncology.cohort import Patient, Visit, write_patient
from oncology.schedule import Treatment

CELL_VOLUME_MM3 = 4.189e-6
SPHERE_PACKING = 0.7405
# Adriamycin and cyclophosphamide, given together as "A/C" (doi 10.1038/s41746-025-01579-1)
REGIMENS = {"A": ("doxorubicin", "cyclophosphamide")}


def tnbc_patient(file: Path) -> Patient:
    """A virtual breast cancer: cell numbers at three visits, with the doses between them.

    `schedule` marks scans S and doses by their regimen; `times` are the days between entries.
    """
    content = loadmat(file, simplify_cells=True)
    images, course = content["full_res_dat"], content["schedule_info"]
    spacing = np.asarray(course["imagedims"], float)
    affine = np.diag([*spacing, 1.0])

    def slice_of(image: np.ndarray, dtype: type = np.float32) -> Volume:
        return Volume(np.asarray(image, dtype)[:, :, None], affine)

    capacity = SPHERE_PACKING * np.prod(spacing) / CELL_VOLUME_MM3
    days = np.cumsum(np.asarray(course["times"], float)).tolist()
    events = list(zip(days, course["schedule"].tolist(), strict=True))
    scan_days = [day for day, event in events if event == "S"]
    visits = []
    for number, day in enumerate(scan_days, start=1):
        cells = images[f"NTC{number}"]
        visit = Visit(
            f"ses-{number:02d}",
            day,
            tumor_labels=slice_of(cells > 0, np.uint8),
            cellularity=slice_of(cells / capacity),
            tissue=slice_of(images["BreastMask"], np.uint8),
            drug_delivery=slice_of(images["AUC"]),
        )
        visits.append(visit)
    treatments = [
        Treatment(day, "chemotherapy", 1.0, "relative", agent)
        for day, event in events
        if event != "S"
        for agent in REGIMENS[event]
    ]
    return Patient(f"sub-tnbc{file.stem[-1]}", tuple(visits), tuple(treatments))


def rnl_patient(folder: Path) -> Patient:
    """The virtual glioblastoma: two scanned visits and the day to forecast."""
    masks = loadmat(folder / "Example_bulkTumor.mat")
    brain = loadmat(folder / "Example_BrainMask.mat")["brain"]
    visits = []
    for number, name in enumerate(("BL", "D28"), start=1):
        scan = loadmat(folder / f"Example_MRI_{name}.mat", simplify_cells=True)
        affine = np.diag([*np.asarray(scan["image_dim"], float), 1.0])
        day = int(scan["day"])
        visit = Visit(
            f"ses-{number:02d}",
            float(day),
            tumor_labels=Volume(masks[f"day{day}_tumorMask"], affine),
            adc_mm2_per_s=Volume((scan["ADC"] * 1e-6).astype(np.float32), affine),
            tissue=Volume(brain, affine),
        )
        visits.append(visit)
    return Patient("sub-rnl", (*visits, Visit("ses-03", 56.0)))


def glioblastoma_patient(folder: Path, spacing_mm: tuple[float, float, float]) -> Patient:
    """A real patient: two visits, days apart by the dates of `supplementary.csv`.

    Array axes run from right to left and from front to back, as the headers say.
    """
    x, y, z = spacing_mm
    affine = np.diag([-x, -y, z, 1.0])
    table = (folder.parent / "supplementary.csv").read_text(encoding="utf-8")
    rows = [[cell.strip() for cell in line.split(",")] for line in table.splitlines()]
    dates = dict(zip(rows[0], next(row for row in rows if row[0] == folder.name), strict=False))
    days = date.fromisoformat(dates["endDate"]) - date.fromisoformat(dates["initialDate"])
    visits = []
    for number, (name, day) in enumerate((("Pre", 0.0), ("Post", float(days.days))), start=1):
        mask = np.asarray(read_nifti(folder / f"{name}_Mask.nii.gz").data) > 0
        anatomy = Volume(read_nifti(folder / f"{name}_Scan_T1.nii.gz").data, affine)
        visit = Visit(
            f"ses-{number:02d}",
            day,
            tumor_labels=Volume(mask, affine),
            anatomy={"ce-GADOLINIUM_T1w": anatomy},
        )
        visits.append(visit)
    return Patient(f"sub-{folder.name}", tuple(visits))


def patients_of(name: str, data: Path, spacing_mm: tuple[float, float, float]) -> Iterator[Patient]:
    """Each patient of one data set, read when asked for."""
    if name == "tnbc":
        yield from map(tnbc_patient, sorted(data.glob("ExampleData_*.mat")))
    elif name == "gbm-rnl":
        yield rnl_patient(data)
    else:
        for folder in sorted(data.glob("[0-9][0-9]")):
            yield glioblastoma_patient(folder, spacing_mm)


DATA_SETS = {
    "tnbc": ("virtual_tnbc", "MIT", "10.1038/s41540-025-00531-z"),
    "gbm-rnl": ("virtual_gbm_rnl", "MIT", "10.1016/j.brain.2023.100084"),
    "glioblastoma": ("glioblastoma_progression", "CC BY 3.0", "10.7937/K9/TCIA.2018.15quzvnb"),
}


def write_data_set(
    name: str, data: Path, out: Path, spacing_mm: tuple[float, float, float], replace: bool = False
) -> list[Path]:
    """Write the patients of one data set below `out`, and return their folders.

    Those already there are kept, or written anew with `replace`. Raises InputError where the
    data cannot be read or the folder cannot be written.
    """
    source, licence, doi = DATA_SETS[name]
    note, description = f"From {source}, doi {doi}.", f"from {source}"
    if name == "glioblastoma":
        sizes = "x".join(f"{size:g}" for size in spacing_mm)
        note += f" Voxel size assumed, {sizes} mm: the source files do not tell it."
        description += f"; voxels {sizes} mm assumed"
    written = []
    for patient in patients_of(name, data / source, spacing_mm):
        folder = out / name / patient.subject
        if folder.exists() and replace:
            shutil.rmtree(folder)
        if folder.exists():
            print(f"{folder}: already there, kept; --replace writes it anew")
        else:
            write_patient(folder, patient, note, description)
            scans = ", ".join(
                f"day {visit.day:g}" + (" (planned)" if visit.planned else "")
                for visit in patient.visits
            )
            print(f"{folder}: {scans}; {len(patient.treatments)} doses")
        written.append(folder)
    about = {
        "Name": source,
        "BIDSVersion": "1.10.0",
        "DatasetType": "derivative",
        "License": licence,
        "GeneratedBy": [{"Name": "mrphys", "Description": note}],
        "SourceDatasets": [{"DOI": f"doi:{doi}"}],
    }
    write_text(out / name / "dataset_description.json", json.dumps(about, indent=2) + "\n")
    return written


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "sets", nargs="*", metavar="SET", help=f"any of {', '.join(DATA_SETS)}; all when none is"
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument("--out", type=Path, default=Path("patients"), help="(%(default)s)")
    parser.add_argument(
        "--voxel-mm",
        type=float,
        nargs=3,
        default=(0.94, 0.94, 6.5),
        metavar=("X", "Y", "Z"),
        help="voxel size of glioblastoma_progression (%(default)s)",
    )
    parser.add_argument("--replace", action="store_true", help="write anew what is there")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.sets) - set(DATA_SETS):
        parser.error(
            f"no set called {', '.join(sorted(unknown))}; there are {', '.join(DATA_SETS)}"
        )
    x, y, z = asked.voxel_mm
    if not min(x, y, z) > 0:
        parser.error(f"voxel sizes {x:g} {y:g} {z:g} mm; they must be above zero")
    for name in asked.sets or DATA_SETS:
        source = asked.data / DATA_SETS[name][0]
        if not source.is_dir():
            print(f"{name}: skipped, no data at {source}; --data names the folder that holds it")
            continue
        try:
            write_data_set(name, asked.data, asked.out, (x, y, z), asked.replace)
        except InputError as error:
            print(error, file=sys.stderr)
            return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
