"""What is missing, misaligned or implausible in a patient: all of it, before any model runs."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
from scipy import ndimage

from mrphys.errors import InputError, Problem
from mrphys.units import WATER_DIFFUSIVITY_37C_MM2_PER_S
from mrphys.volume import Volume
from oncology.anisotropy import checked_tensor
from oncology.cohort import IMAGES, Patient, Visit, gather
from oncology.likeness import resolution, shift_mm

# Untreated glioblastomas double in 50 days (median; Stensjøen et al. 2015, 10.1093/neuonc/nov029)
FASTEST_DOUBLING_DAYS = 7.0
FREE_WATER_MM2_PER_S = 1.05 * WATER_DIFFUSIVITY_37C_MM2_PER_S
LARGEST_FRACTION_GY = 30.0
LEAST_DOSE_SHARE = 0.1
"""Of the largest dose of a map, in the tumour on average: less is no plan for it."""
MOST_OVERLAP = 0.02
"""Share of the drawn tumour that may lie in a cavity: voxels of the rim."""
CORRELATED = 12.0
INTERPOLATED = 15.0
BANDWIDTH_RATIO = 1.2
PLAUSIBLE = {
    "adc_sd_mm2_per_s": (0.0, math.inf, "a map of variances or of something else"),
    "cellularity": (-0.5, 1.5, "percent, or cells per voxel, instead of a fraction of capacity"),
    "white_matter": (0.0, 1.0, "percent instead of a fraction"),
    "grey_matter": (0.0, 1.0, "percent instead of a fraction"),
    "drug_delivery": (0.0, math.inf, "a failed fit in isolated voxels"),
    "dose_gy": (0.0, 250.0, "dose in cGy instead of Gy"),
    "pet": (0.0, math.inf, "a failed reconstruction"),
    "tensor_mm2_per_s": (-0.01, 0.01, "a tensor in 1e-6 or 1e-3 mm²/s"),
}


@dataclass(frozen=True)
class Report:
    """Every problem of a patient: errors forbid a forecast, warnings go with it."""

    problems: tuple[Problem, ...]

    @property
    def errors(self) -> tuple[Problem, ...]:
        """What must be mended first."""
        return tuple(problem for problem in self.problems if problem.level == "error")

    @property
    def warnings(self) -> tuple[Problem, ...]:
        """What the reader of a forecast should know."""
        return tuple(problem for problem in self.problems if problem.level == "warning")

    @property
    def ok(self) -> bool:
        """Whether a model may run."""
        return not self.errors

    def __str__(self) -> str:
        lines = [f"{problem.level}: {problem}" for problem in (*self.errors, *self.warnings)]
        return "\n".join(lines) or "no problem found"


def check(patient: Patient | str | Path) -> Report:
    """All problems of a patient, or of the folder that should hold one; never raises for them."""
    unread = []
    if not isinstance(patient, Patient):
        patient, unread = gather(patient)
    problems = [*unread, *patient.warnings, *_patient(patient)]
    if len(patient.scanned) < 2 and not unread:
        found = f"{len(patient.scanned)} visit with images"
        cause = "planned visits only, or images in the wrong session folder"
        problems.append(Problem(patient.subject, found, "at least 2, to calibrate a model", cause))
    return Report(tuple(problems))


def require(patient: Patient, sessions: Sequence[str | int], at_least: int = 2) -> Report:
    """The problems of the visits about to be used. Raises InputError, with every error, if any.

    Errors are: fewer than `at_least` sessions, a session without images, and what `check` finds
    in those sessions and between them; other visits are not looked at.
    """
    needed = {patient.visit(session).session for session in sessions}
    visits = tuple(visit for visit in patient.visits if visit.session in needed)
    problems = [
        Problem(
            f"{patient.subject}, {visit.session}",
            "no images",
            "the images of this visit, which is needed",
            "a visit still planned, or images in the wrong folder",
        )
        for visit in visits
        if visit.planned
    ]
    if len(visits) < at_least:
        found = f"{len(visits)} visit ({', '.join(sorted(needed))})"
        expected = f"at least {at_least} visits, to see the tumour change"
        problems.append(Problem(patient.subject, found, expected, "one scan only so far"))
    problems += [*patient.warnings, *_patient(replace(patient, visits=visits))]
    report = Report(tuple(problems))
    if not report.ok:
        raise InputError(*report.errors)
    return report


def _patient(patient: Patient) -> Iterator[Problem]:
    scanned = patient.scanned
    for visit in patient.visits:
        if visit.planned and scanned and visit.day < scanned[-1].day:
            where = f"{patient.subject}, {visit.session}"
            found = f"no images on day {visit.day:g}, before the last scan"
            expected = "planned visits after it"
            yield Problem(where, found, expected, "a missed or misplaced scan", "warning")
    for visit in scanned:
        yield from _visit(patient, visit)
    for first, second in pairwise(scanned):
        yield from _pair(patient, first, second)
    yield from _treatments(patient)


def _where(patient: Patient, visit: Visit, name: str) -> str:
    """The file of an image, or its place in a patient that has no folder."""
    if patient.folder is None or name not in IMAGES:
        return f"{patient.subject}, {visit.session}, {name}"
    kind = IMAGES[name]
    file = f"{patient.subject}_{visit.session}_{kind.suffix}.nii.gz"
    return str(patient.folder / visit.session / kind.folder / file)


def _visit(patient: Patient, visit: Visit) -> Iterator[Problem]:
    """Problems of the images of one visit."""
    _, _, grid = next(visit.images())
    for name, _, volume in visit.images():
        if not volume.same_grid(grid):
            found = f"{volume.shape} voxels that are not those of the other images"
            expected = f"{grid.shape} voxels of {grid.spacing_mm} mm, in one place"
            cause = "an image that was not resampled to the others"
            yield Problem(_where(patient, visit, name), found, expected, cause)
            return
    tissue = visit.tissue if visit.tissue is not None else patient.earliest("tissue")
    if tissue is not None and not tissue.same_grid(grid):
        tissue = None
    lives = np.ones(grid.shape, bool) if tissue is None else np.asarray(tissue.data) > 0.5
    if visit.tissue is not None and not lives.any():
        where = _where(patient, visit, "tissue")
        yield Problem(where, "an empty mask", "voxels where cells can live", "another file")
    yield from _mask(patient, visit, lives)
    yield from cavity_overlap(patient, visit)
    yield from _dose(patient, visit)
    yield from _adc(patient, visit, lives)
    for name, (low, high, cause) in PLAUSIBLE.items():
        volume = getattr(visit, name)
        if volume is not None:
            where, data = _where(patient, visit, name), np.asarray(volume.data)
            if name == "adc_sd_mm2_per_s":
                data = np.where(np.isposinf(data), 0.0, data)  # an ADC that is not determined
            yield from _values(where, data, lives, low, high, cause)
    if visit.tensor_mm2_per_s is not None:
        channels = np.asarray(visit.tensor_mm2_per_s.data)
        measured = lives if tissue is not None else np.any(channels, axis=-1, keepdims=False)
        where = _where(patient, visit, "tensor_mm2_per_s")
        try:
            yield from checked_tensor(channels, measured, where)[1]
        except InputError as refused:
            yield from refused.problems


def _values(
    where: str, data: np.ndarray, lives: np.ndarray, low: float, high: float, cause: str
) -> Iterator[Problem]:
    """Numbers that are not finite, or where tissue lives not within [low, high]."""
    unknown = ~np.isfinite(data)
    unknown = unknown.any(axis=-1) if data.ndim == 4 else unknown
    inside = int((unknown & lives).sum())
    if unknown.any():
        found = f"NaN or infinity in {int(unknown.sum())} voxels, {inside} of them in tissue"
        blank = "voxels blanked with NaN instead of left out of the tissue mask"
        level = "error" if inside else "warning"
        yield Problem(where, found, "a finite number in every voxel", blank, level)
    values = data[lives & ~unknown]
    outside = (values < low - 1e-6) | (values > high + 1e-6)
    if outside.any():
        found = f"{outside.sum()} values outside, from {values.min():.4g} to {values.max():.4g}"
        expected = f"{low:g} to {high:g}" if math.isfinite(high) else f"at least {low:g}"
        yield Problem(where, found, expected, cause)


def _mask(patient: Patient, visit: Visit, lives: np.ndarray) -> Iterator[Problem]:
    """Problems of the tumour mask."""
    if visit.tumor_labels is None:
        return
    where = _where(patient, visit, "tumor_labels")
    labels, tumor = np.asarray(visit.tumor_labels.data), np.asarray(visit.tumor.data)
    if not np.isfinite(labels).all():
        yield Problem(where, "NaN or infinity", "whole-number labels", "a map instead of a mask")
        return
    strange = np.setdiff1d(np.unique(labels), range(5))
    if strange.size:
        found = f"values such as {', '.join(f'{value:g}' for value in strange[:4])}"
        expected = "0 and 1, or BraTS labels 0, 1, 2, 4; all above 0.5 were taken as tumour"
        cause = "a probability, or a mask blurred by resampling"
        yield Problem(where, found, expected, cause, "warning")
    size = int(tumor.sum())
    if size == 0:
        cause = "a segmentation that failed, or a tumour that is gone"
        yield Problem(where, "an empty mask", "at least one voxel of tumour", cause)
        return
    if size == 1:
        cause = "a click instead of a contour, or a grid too coarse for the tumour"
        yield Problem(where, "a mask of one voxel", "a contour", cause, "warning")
    beyond = (tumor & ~lives).sum() / size
    if lives.any() and beyond > 0.05:
        found = f"{beyond:.0%} of the tumour outside the tissue mask"
        cause = "masks on different grids, or a tissue mask that leaves the tumour out"
        level = "error" if beyond == 1 else "warning"
        yield Problem(where, found, "a tumour inside the tissue", cause, level)
    parts = np.zeros(tumor.shape, np.int32)
    ndimage.label(tumor, np.ones((3, 3, 3)), output=parts)
    pieces = int(parts.max())
    plate = np.expand_dims(ndimage.generate_binary_structure(2, 1), 2)
    hollow = 1 - size / np.sum(np.asarray(ndimage.binary_fill_holes(tumor, plate)))
    if pieces > 5 or hollow > 0.1:
        found = f"a mask in {pieces} part(s), {hollow:.0%} of the outlined volume hollow"
        cause = "enhancement around a dark core, or an automatic threshold"
        yield Problem(where, found, "a filled mask in one part", cause, "warning")


def cavity_overlap(patient: Patient, visit: Visit) -> Iterator[Problem]:
    """An error where more than the rim of a visit's tumour is drawn in a cavity it shows."""
    if visit.cavity is None or visit.tumor_labels is None:
        return
    tumour = np.asarray(visit.tumor.data)
    inside = np.sum(tumour & (np.asarray(visit.cavity.data) > 0.5))
    if inside > MOST_OVERLAP * tumour.sum():
        found = f"{inside} of {tumour.sum()} tumour voxels in the resection cavity"
        cause = "the cavity's rim drawn into both, or masks of two days"
        where = f"{patient.subject}, {visit.session}"
        yield Problem(where, found, "tumour beside the cavity", cause)


def _dose(patient: Patient, visit: Visit) -> Iterator[Problem]:
    """A planned dose that does not go where the tumour is."""
    drawn = visit.tumor_labels is not None and bool(np.any(np.asarray(visit.tumor.data)))
    if visit.dose_gy is None or not drawn:
        return
    where, dose = _where(patient, visit, "dose_gy"), np.asarray(visit.dose_gy.data)
    largest = float(np.nanmax(dose))
    if not largest > 0:
        yield Problem(where, "no dose anywhere", "the planned dose in Gy", "another file")
        return
    share = float(np.nanmean(dose[np.asarray(visit.tumor.data)])) / largest
    if share < LEAST_DOSE_SHARE and largest <= PLAUSIBLE["dose_gy"][1]:
        found = f"{share:.0%} of the largest dose ({largest:g} Gy) in the tumour, on average"
        cause = "a dose map in another frame of reference, most of it outside the images' grid"
        yield Problem(where, found, f"{LEAST_DOSE_SHARE:.0%} or more", cause, "warning")


def _adc(patient: Patient, visit: Visit, lives: np.ndarray) -> Iterator[Problem]:
    """Problems of the apparent diffusion coefficient; of its unit first."""
    if visit.adc_mm2_per_s is None:
        return
    where = _where(patient, visit, "adc_mm2_per_s")
    adc = np.asarray(visit.adc_mm2_per_s.data)
    inside = (
        np.ones(adc.shape, bool) if visit.tumor_labels is None else np.asarray(visit.tumor.data)
    )
    inside = adc[inside & np.isfinite(adc)]
    typical = float(np.median(inside)) if inside.size else 1e-3
    units = {20: ("1e-6 mm²/s", "1e-6"), 0.05: ("1e-3 mm²/s (µm²/ms)", "1e-3")}
    for least, (unit, factor) in units.items():
        if typical > least:
            cause = f"ADC in {unit} instead of mm²/s; multiply by {factor}"
            yield Problem(where, f"a median of {typical:.4g} in the tumour", "near 0.001", cause)
            return
    if 0 < typical < 1e-6:
        cause = "ADC in m²/s instead of mm²/s; multiply by 1e6"
        yield Problem(where, f"a median of {typical:.4g} in the tumour", "near 0.001", cause)
        return
    cause = "noise fitted where there is no signal, or a map with an offset"
    yield from _values(where, adc, lives, 0.0, math.inf, cause)
    free = float(np.mean(inside > FREE_WATER_MM2_PER_S)) if inside.size else 0.0
    if free > 0.01:
        found = f"{free:.0%} of the tumour above {FREE_WATER_MM2_PER_S:.2g} mm²/s"
        expected = "no more than free water at body temperature"
        cause = "perfusion or pulsation at low b-values, noise, or a wrong b-value"
        yield Problem(where, found, expected, cause, "warning")


def _pair(patient: Patient, first: Visit, second: Visit) -> Iterator[Problem]:
    """Problems between two scans that follow each other."""
    where = f"{patient.subject}, {first.session} to {second.session}"
    common = [suffix for suffix in first.anatomy if suffix in second.anatomy]
    for suffix in common[:1]:
        images = first.anatomy[suffix], second.anatomy[suffix]
        if images[0].same_grid(images[1]):
            yield from _alignment(f"{where}, {suffix}", *images)
            yield from _resolutions(f"{where}, {suffix}", first, second, suffix)
    if first.tumor_labels is None or second.tumor_labels is None:
        return
    before, after = first.tumor, second.tumor
    if not (before.same_grid(after) and np.any(before.data) and np.any(after.data)):
        return
    volumes = [float(np.sum(mask.data)) * mask.voxel_volume_mm3 for mask in (before, after)]
    radii = [(3 * volume / (4 * math.pi)) ** (1 / 3) for volume in volumes]
    centres = [mask.affine[:3, :3] @ ndimage.center_of_mass(mask.data) for mask in (before, after)]
    moved = float(np.linalg.norm(centres[1] - centres[0]))
    cause = "two scanner frames, another lesion, or a resection"
    if not np.any(np.asarray(before.data) & np.asarray(after.data)):
        found = f"tumour masks without a common voxel, {moved:.3g} mm apart"
        yield Problem(where, found, "masks that overlap", cause, "warning")
    elif moved > max(*radii, *before.spacing_mm):
        found = f"the tumour's centre moved by {moved:.3g} mm"
        expected = f"less than its radius, {max(radii):.3g} mm"
        yield Problem(where, found, expected, cause, "warning")
    yield from _doubling(where, patient, first, second, math.log2(volumes[1] / volumes[0]))


def _alignment(where: str, first: Volume, second: Volume) -> Iterator[Problem]:
    shift, height = shift_mm(first, second)
    voxels = np.abs(shift / first.spacing_mm).max()
    if height > CORRELATED and voxels > 1:
        found = f"a shift of {', '.join(f'{step:.1f}' for step in shift)} mm along the array's axes"
        expected = f"within one voxel (it is {voxels:.1f})"
        cause = "visits only roughly aligned; a rigid registration would help"
        yield Problem(where, found, expected, cause, "warning")


def _resolutions(where: str, first: Visit, second: Visit, suffix: str) -> Iterator[Problem]:
    """One visit interpolated from another matrix, or resolving less, than the other."""
    measured = [(visit.session, resolution(visit.anatomy[suffix])) for visit in (first, second)]
    traced = [any(r.trace > INTERPOLATED for r in axes.values()) for _, axes in measured]
    if traced[0] != traced[1]:
        session, axes = measured[traced.index(True)]
        strongest = max(axes.values(), key=lambda r: r.trace)
        found = f"{session} interpolated from a matrix of other size (a line "
        found += f"{strongest.trace:.0f} times the median at {strongest.trace_frequency:.2f} "
        found += "cycles per voxel in its second difference)"
        cause = f"{session} acquired at a lower resolution than its grid suggests"
        yield Problem(where, found, "two scans of one resolution", cause, "warning")
    else:
        for axis in measured[0][1]:
            bands = {session: axes[axis].bandwidth for session, axes in measured}
            if max(bands.values()) > BANDWIDTH_RATIO * min(bands.values()):
                found = " and ".join(f"{band:.2f} ({name})" for name, band in bands.items())
                found = f"bandwidths of {found} cycles per voxel along array axis {'xyz'[axis]}"
                cause = f"{min(bands, key=lambda name: bands[name])} acquired at a lower resolution"
                yield Problem(where, found, "two scans of one resolution", cause, "warning")


def _doubling(
    where: str, patient: Patient, first: Visit, second: Visit, doublings: float
) -> Iterator[Problem]:
    """A volume that doubles, or halves untreated, faster than tumours do."""
    treated = any(t.day < second.day for t in patient.treatments)
    if not doublings or second.day <= first.day or (doublings < 0 and treated):
        return
    time_days = (second.day - first.day) / abs(doublings)
    if time_days < FASTEST_DOUBLING_DAYS:
        change = "doubles" if doublings > 0 else "halves without treatment"
        found = f"a volume that {change} in {time_days:.2g} days"
        expected = f"{FASTEST_DOUBLING_DAYS:g} days or more"
        cause = "masks drawn by different rules, or days in another unit"
        yield Problem(where, found, expected, cause, "warning")


def _treatments(patient: Patient) -> Iterator[Problem]:
    start = next((visit.day for visit in patient.scanned), -math.inf)
    for treatment in patient.treatments:
        where = f"{patient.subject}, {treatment.kind} on day {treatment.day:g}"
        if treatment.day < start:
            cause = "days counted from diagnosis; its effect before the first scan is not modelled"
            expected = f"treatments from day {start:g}, the first scan, on"
            yield Problem(where, "a treatment before the first scan", expected, cause, "warning")
        if treatment.kind == "radiotherapy" and treatment.dose > LARGEST_FRACTION_GY:
            found = f"{treatment.dose:g} Gy in one fraction"
            cause = "the total dose instead of the dose per fraction, or cGy"
            expected = f"at most {LARGEST_FRACTION_GY:g} Gy"
            yield Problem(where, found, expected, cause, "warning")
