"""A patient: visits with their images, treatments, and the folder that holds them.

BIDS names, so that other tools read the folder too (all images but the tumour mask optional):

    sub-01/
      sub-01_sessions.tsv      session_id  day             days since the first scan; a row without
                                                           images is a planned visit
      sub-01_treatments.tsv    day  kind  dose  unit  agent      Gy per fraction, or relative
      ses-01/anat/sub-01_ses-01_label-tumor_mask.nii.gz    binary, or the BraTS labels
      ses-01/anat/sub-01_ses-01_cellularity.nii.gz         fraction of the carrying capacity
      ses-01/anat/sub-01_ses-01_label-tissue_mask.nii.gz   where cells can live
      ses-01/anat/sub-01_ses-01_label-cavity_mask.nii.gz   what a resection left empty
      ses-01/anat/sub-01_ses-01_label-WM_probseg.nii.gz    and label-GM: share of the voxel
      ses-01/dwi/sub-01_ses-01_ADC.nii.gz                  mm²/s; desc-sd_ADC: its sd
      ses-01/dwi/sub-01_ses-01_tensor.nii.gz               mm²/s, 6 channels
      ses-01/perf/sub-01_ses-01_AUC.nii.gz                 drug delivery, relative
      ses-01/rt/sub-01_ses-01_dose.nii.gz                  planned dose, Gy
      ses-01/pet/sub-01_ses-01_pet.nii.gz                  uptake, relative
      ses-01/anat/sub-01_ses-01_T1w.nii.gz                 and any other anatomy, for the report
"""

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.io.nifti import read_nifti, write_nifti
from mrphys.io.output import prepare_output_folder
from mrphys.volume import Method, Volume
from oncology.schedule import Treatment, read_days, read_treatments, write_table


class ImageKind(NamedTuple):
    """Where an image lies in a session folder, its unit, and how it moves to another grid."""

    folder: str
    suffix: str
    unit: str = ""
    method: Method = "linear"
    channels: int | None = None


IMAGES = {
    "tumor_labels": ImageKind("anat", "label-tumor_mask", method="nearest"),
    "adc_mm2_per_s": ImageKind("dwi", "ADC", "mm²/s"),
    "adc_sd_mm2_per_s": ImageKind("dwi", "desc-sd_ADC", "mm²/s"),
    "cellularity": ImageKind("anat", "cellularity"),
    "tissue": ImageKind("anat", "label-tissue_mask", method="nearest"),
    "cavity": ImageKind("anat", "label-cavity_mask", method="nearest"),
    "white_matter": ImageKind("anat", "label-WM_probseg"),
    "grey_matter": ImageKind("anat", "label-GM_probseg"),
    "drug_delivery": ImageKind("perf", "AUC"),
    "tensor_mm2_per_s": ImageKind("dwi", "tensor", "mm²/s", channels=6),
    "dose_gy": ImageKind("rt", "dose", "Gy"),
    "pet": ImageKind("pet", "pet"),
}
ANATOMY = ImageKind("anat", "")


@dataclass(frozen=True, eq=False)
class Visit:
    """One scan day, in days since the first; every image that is there, all on one grid.

    `tumor_labels` is the mask as drawn: binary, or 1 necrotic core, 2 oedema, 4 enhancing.
    `anatomy` maps a BIDS suffix ("T1w", "ce-GADOLINIUM_T1w", ...) to its image. A visit without
    images is planned.
    """

    session: str
    day: float
    tumor_labels: Volume | None = None
    adc_mm2_per_s: Volume | None = None
    adc_sd_mm2_per_s: Volume | None = None
    cellularity: Volume | None = None
    tissue: Volume | None = None
    cavity: Volume | None = None
    white_matter: Volume | None = None
    grey_matter: Volume | None = None
    drug_delivery: Volume | None = None
    tensor_mm2_per_s: Volume | None = None
    dose_gy: Volume | None = None
    pet: Volume | None = None
    anatomy: Mapping[str, Volume] = field(default_factory=dict)

    @cached_property
    def tumor(self) -> Volume:
        """The whole tumour, a boolean mask: every label above zero.

        Raises InputError at a visit without a mask.
        """
        if self.tumor_labels is None:
            cause = "a visit still planned"
            raise InputError(Problem(self.session, "no images", "a tumour mask", cause))
        return self.tumor_labels.with_data(np.asarray(self.tumor_labels.data) > 0.5)

    @property
    def planned(self) -> bool:
        """Whether nothing has been scanned yet."""
        return not any(True for _ in self.images())

    def images(self) -> Iterator[tuple[str, ImageKind, Volume]]:
        """Each image that is there: its field or anatomical suffix, its kind, itself."""
        for name, kind in IMAGES.items():
            if (volume := getattr(self, name)) is not None:
                yield name, kind, volume
        for suffix, volume in self.anatomy.items():
            yield suffix, ANATOMY._replace(suffix=suffix), volume


@dataclass(frozen=True, eq=False)
class Patient:
    """Visits in order of day and treatments in order of day, all images on the first scan's grid.

    `warnings` tell what reading had to change (images moved to that grid) or left unread.
    """

    subject: str
    visits: tuple[Visit, ...]
    treatments: tuple[Treatment, ...] = ()
    folder: Path | None = None
    warnings: tuple[Problem, ...] = ()
    files: tuple[Path, ...] = ()

    @property
    def scanned(self) -> tuple[Visit, ...]:
        """The visits that have images."""
        return tuple(visit for visit in self.visits if not visit.planned)

    def visit(self, name: str | int) -> Visit:
        """The visit called "2", "02" or "ses-02". Raises InputError listing those there are."""
        for visit in self.visits:
            if visit.session in (str(name), f"ses-{name}"):
                return visit
        number = str(name).removeprefix("ses-").lstrip("0")
        for visit in self.visits:
            if number.isdigit() and visit.session.removeprefix("ses-").lstrip("0") == number:
                return visit
        there = ", ".join(f"{visit.session} (day {visit.day:g})" for visit in self.visits)
        expected = f"one of {there}" if there else "a patient with visits"
        raise InputError(Problem(self.subject, f"no session {name!r}", expected, "a typing slip"))

    def earliest(self, image: str) -> Volume | None:
        """An image that does not change between visits (tissue, white matter, drug delivery ...),
        from the first visit that has it."""
        found = (getattr(visit, image) for visit in self.visits)
        return next((volume for volume in found if volume is not None), None)


def read_patient(folder: str | Path) -> Patient:
    """The patient in a folder. Raises InputError with everything that is wrong, at once.

    Images of one visit must share a grid; those of later visits are moved to the first scan's
    (trilinear for maps, nearest for labels), and `Patient.warnings` says so.
    """
    patient, problems = gather(folder)
    if problems:
        raise InputError(*problems)
    return patient


def gather(folder: str | Path) -> tuple[Patient, list[Problem]]:
    """All that can be read of a patient, with the problems met: for a reader who wants them all."""
    folder, problems = Path(folder), []
    tables = sorted(folder.glob("sub-*_sessions.tsv"))
    if len(tables) != 1:
        found = "several sessions tables" if tables else "no sessions table"
        cause = "a session folder or a whole data set instead of one patient"
        if not folder.is_dir():
            found, cause = "no such folder", "a typing slip"
        expected = "a patient folder holding one sub-<label>_sessions.tsv"
        return Patient(folder.name, ()), [Problem(str(folder), found, expected, cause)]
    subject = tables[0].name.removesuffix("_sessions.tsv")
    files, warnings = [tables[0]], []
    days = read_days(tables[0], problems)
    visits = []
    for session, day in days:
        images, read = _read_images(folder, f"{subject}_{session}", session, problems, warnings)
        files += read
        anatomy = {name: images.pop(name) for name in [*images] if name not in IMAGES}
        visits.append(Visit(session, day, anatomy=anatomy, **images))
    unlisted = {path.name for path in folder.glob("ses-*") if path.is_dir()} - {s for s, _ in days}
    for session in sorted(unlisted):
        cause = "a session spelt in two ways; it was not read"
        expected = f"a row of {tables[0].name} for it"
        where = str(folder / session)
        warnings.append(Problem(where, "a session folder", expected, cause, "warning"))
    visits = _on_one_grid(visits, problems, warnings)
    table = folder / f"{subject}_treatments.tsv"
    treatments = read_treatments(table, problems) if table.exists() else []
    files += [table] if table.exists() else []
    patient = Patient(
        subject, tuple(visits), tuple(treatments), folder, tuple(warnings), tuple(files)
    )
    return patient, problems


def _read_images(
    folder: Path, stem: str, session: str, problems: list[Problem], warnings: list[Problem]
) -> tuple[dict[str, Volume], list[Path]]:
    """The images of one session by field or anatomical suffix, on one grid, and their files."""
    names = {(kind.folder, kind.suffix): name for name, kind in IMAGES.items()}
    mask = f"{stem}_{IMAGES['tumor_labels'].suffix}.nii"
    images, files = {}, []
    found = (folder / session).glob("*/*.nii*")
    for path in sorted(found, key=lambda path: (not path.name.startswith(mask), path)):
        suffix = path.name.removeprefix(f"{stem}_").split(".nii")[0]
        name = names.get((path.parent.name, suffix))
        if not path.name.startswith(f"{stem}_") or (name is None and path.parent.name != "anat"):
            expected = f"{stem}_<image> in the folder of its kind"
            cause = "a slip in the name or the folder; the image was not read"
            warnings.append(Problem(str(path), path.name, expected, cause, "warning"))
            continue
        try:
            volume = read_nifti(path)
        except InputError as error:
            problems.extend(error.problems)
            continue
        files.append(path)
        kind = IMAGES[name] if name else ANATOMY
        channels = volume.data.shape[3] if volume.data.ndim == 4 else None
        if channels != kind.channels:
            expected = f"{kind.channels} channels" if kind.channels else "one value in each voxel"
            problems.append(Problem(str(path), f"shape {volume.data.shape}", expected))
            continue
        reference = next(iter(images.values()), volume)
        if not volume.same_grid(reference):
            expected = f"the grid of the visit's other images: {reference.placed}"
            cause = "an image that was not resampled to the others"
            problems.append(Problem(str(path), volume.placed, expected, cause))
            continue
        images[name or suffix] = volume
    wanted = folder / session / "anat" / f"{mask}.gz"
    if images and not any(path.name.startswith(mask) for path in wanted.parent.glob("*.nii*")):
        problems.append(Problem(str(wanted), "no such file", "a mask of the tumour at this visit"))
    return images, files


def _on_one_grid(
    visits: list[Visit], problems: list[Problem], warnings: list[Problem]
) -> list[Visit]:
    """Every visit on the grid of the first that has images."""
    first = next((visit for visit in visits if not visit.planned), None)
    if first is None:
        return visits
    _, _, grid = next(first.images())
    return [
        visit if visit.planned else _moved(visit, first, grid, problems, warnings)
        for visit in visits
    ]


def _moved(
    visit: Visit, first: Visit, grid: Volume, problems: list[Problem], warnings: list[Problem]
) -> Visit:
    """A visit on another grid, provided that its field of view covers what is to be modelled."""
    _, _, own = next(visit.images())
    if own.same_grid(grid):
        return visit
    maps = visit.adc_mm2_per_s is not None or visit.cellularity is not None
    needed = grid.with_data(np.ones(grid.shape, bool)) if maps else first.tumor_labels
    needed = needed if first.tissue is None else first.tissue
    unseen = [_outside(needed, own), _outside(visit.tumor_labels, grid)]
    same_voxels = own.shape == grid.shape and np.allclose(own.spacing_mm, grid.spacing_mm)
    where = f"the images of {visit.session}"
    expected = f"the grid of {first.session}: {grid.placed}"
    if any(unseen):
        cause = "two scanner frames, or fields of view that cut the tissue or the tumour"
        found = f"{own.placed}: {unseen[0]:.2%} of {first.session} is not in view there, and "
        found += f"{unseen[1]:.2%} of its tumour is not in view of {first.session}"
        problems.append(Problem(where, found, expected, cause))
        return visit
    cause = "a patient who lay otherwise" if same_voxels else "another scan protocol"
    cause += "; the images were moved to that grid"
    warnings.append(Problem(where, own.placed, expected, cause, "warning"))
    moved = {name: volume.resample_to(grid, kind.method) for name, kind, volume in visit.images()}
    anatomy = {suffix: moved.pop(suffix) for suffix in visit.anatomy}
    return replace(visit, anatomy=anatomy, **moved)


def _outside(mask: Volume | None, view: Volume) -> float:
    """The share of a mask that lies outside the field of view of another image."""
    if mask is None or not np.any(mask.data):
        return 0.0
    seen = view.with_data(np.ones(view.shape, np.uint8)).resample_to(mask, "nearest")
    return float(np.mean(np.asarray(seen.data)[np.asarray(mask.data) > 0] == 0))


def write_patient(
    folder: str | Path, patient: Patient, note: str = "", description: str = ""
) -> Path:
    """Write a patient folder: whole, or not at all.

    `note` goes to the sessions' sidecar, `description` (short) to the header of every image.
    Raises InputError when the folder already exists or cannot be written.
    """
    folder = Path(folder)
    if folder.exists():
        expected = "a new folder"
        raise InputError(Problem(str(folder), "a file or folder of that name", expected))
    parent = prepare_output_folder(folder.parent)
    with tempfile.TemporaryDirectory(dir=parent, prefix=".writing-") as space:
        unfinished = Path(space) / folder.name
        _write(unfinished, patient, note, description)
        unfinished.rename(folder)
    return folder


def _write(folder: Path, patient: Patient, note: str, description: str) -> None:
    folder.mkdir()
    days = [("session_id", "day"), *((visit.session, visit.day) for visit in patient.visits)]
    write_table(folder / f"{patient.subject}_sessions.tsv", days)
    sidecar = {"day": {"Description": "Days since the first scan", "Units": "day"}}
    if note:
        sidecar["session_id"] = {"Description": note}
    (folder / f"{patient.subject}_sessions.json").write_text(
        json.dumps(sidecar, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    if patient.treatments:
        rows = [(t.day, t.kind, t.dose, t.unit, t.agent) for t in patient.treatments]
        header = ("day", "kind", "dose", "unit", "agent")
        write_table(folder / f"{patient.subject}_treatments.tsv", [header, *rows])
    for visit in patient.visits:
        for _, kind, volume in visit.images():
            name = f"{patient.subject}_{visit.session}_{kind.suffix}.nii.gz"
            path = folder / visit.session / kind.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            write_nifti(path, volume, kind.unit, description)
