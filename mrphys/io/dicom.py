"""Series of images as a scanner sends them: DICOM, classic single-frame and enhanced multi-frame.

Frames are sorted into volumes by what they were taken with (echo, inversion and repetition time,
flip angle, b-value and direction, magnitude or phase) and, where that is alike, in order of time;
slices by their place along the normal. Values are rescaled; those of Philips to the scanner's own
floating point, which several scans share.
"""

import re
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.io.dicom_frames import SETTINGS, Frame, read_frames
from mrphys.series import B_VALUE, Series
from mrphys.volume import Volume

LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])
SAME_MM = 0.05
"""Within which two slices are at one place."""


def is_dicom(path: Path) -> bool:
    """Whether a file has the mark of DICOM."""
    try:
        with path.open("rb") as file:
            return file.read(132)[128:] == b"DICM"
    except OSError:
        return False


def find_dicom(paths: Iterable[str | Path]) -> list[Path]:
    """DICOM files among these and below these folders; not DICOMDIR."""
    found = []
    for path in map(Path, paths):
        files = (
            sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        )
        found += [file for file in files if file.name != "DICOMDIR" and is_dicom(file)]
    return found


def read_dicom(paths: Iterable[str | Path]) -> Series:
    """The images of one acquisition in a folder or among files, with their settings.

    Several series make one where they differ in a setting and share their grid, as scans of
    several flip angles or inversion times do; magnitude and phase images become complex (phase by
    its rescale, or over the range of its integers a turn). Images a scanner computed (ADC, FA) are
    left out. `settings["VolumeTiming"]` is when each readout was taken, in s after the first.

    Raises InputError for no or damaged DICOM, compressed pixels that no installed decoder reads,
    images of several geometries or of scans alike in every setting, missing slices, and images that
    are not MR.
    """
    files = find_dicom(paths)
    where = ", ".join(map(str, paths))
    if not files:
        raise InputError(Problem(where, "no DICOM file", "a folder of MR images", "a typing slip"))
    frames, problems = [], []
    for path in files:
        try:
            frames += read_frames(path)
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*_first_of(problems))
    if not frames:
        found = f"{len(files)} files without an image that was measured"
        raise InputError(Problem(where, found, "MR images", "reports, or computed maps alone"))
    frames = _with_directions(frames)
    _check_geometry(where, frames)
    volumes = _volumes(where, frames)
    return _series(where, volumes, files)


def _first_of(problems: list[Problem], most: int = 5) -> list[Problem]:
    """Of many alike, some."""
    left = len(problems) - most
    if left <= 0:
        return problems
    more = Problem(f"{left} more files", "the same or other problems", "none")
    return [*problems[:most], more]


def _with_directions(frames: list[Frame]) -> list[Frame]:
    """Where some frames have a direction, those weighted without one are means over directions and
    left out, or if b is but nominal not weighted; where none has, none is told."""

    def weighted(frame: Frame) -> bool:
        return frame.settings.get(B_VALUE, 0.0) > 0

    def lacks(frame: Frame) -> bool:
        return frame.direction is None or not any(frame.direction)

    if not any(weighted(frame) and not lacks(frame) for frame in frames):
        return [replace(f, direction=None) if weighted(f) and lacks(f) else f for f in frames]
    kept = []
    for frame in frames:
        if weighted(frame) and lacks(frame) and frame.doubtful:
            settings = frame.settings | {B_VALUE: 0.0}
            kept.append(replace(frame, settings=settings, direction=(0.0, 0.0, 0.0)))
        elif not (weighted(frame) and lacks(frame) and (frame.isotropic or frame.direction)):
            kept.append(frame)
    return kept


def _label(frame: Frame) -> str:
    """A scan for a person."""
    return str(frame.about.get("SeriesDescription") or frame.path.parent.name)


def _check_geometry(where: str, frames: list[Frame]) -> None:
    """One matrix, one pixel, one orientation."""
    first, kinds = frames[0], {}
    for frame in frames:
        same = (
            frame.pixels.shape == first.pixels.shape
            and np.allclose(frame.spacing, first.spacing, rtol=1e-3)
            and np.allclose(frame.orientation, first.orientation, atol=1e-3)
        )
        if not same:
            shape = " x ".join(map(str, frame.pixels.shape))
            kinds.setdefault(frame.series, f"{_label(frame)} ({shape}, {frame.path.name})")
    if kinds:
        shape = " x ".join(map(str, first.pixels.shape))
        others = ", ".join([*kinds.values()][:4])
        found = f"images of several geometries: {_label(first)} ({shape}) and {others}"
        cause = "several scans, or a localiser, in one folder: name the folder of one"
        raise InputError(Problem(where, found, "images of one matrix and orientation", cause))


def _volumes(where: str, frames: list[Frame]) -> list[list[Frame]]:
    """Frames by volume, slices in order along the normal, volumes in order of time."""
    normal = np.cross(*frames[0].orientation)
    heights = np.array([frame.position @ normal for frame in frames])
    ranks = np.argsort(heights, kind="stable")
    steps = np.concatenate([[0], np.cumsum(np.diff(heights[ranks]) > SAME_MM)])
    levels = dict(zip(ranks.tolist(), steps.tolist(), strict=True))
    every = np.array([heights[ranks][steps == level].mean() for level in range(steps[-1] + 1)])
    places: dict[tuple, dict[int, list[Frame]]] = {}
    for i in sorted(range(len(frames)), key=lambda i: frames[i].order):
        key = (frames[i].kind, frames[i].component)
        places.setdefault(key, {}).setdefault(levels[i], []).append(frames[i])
    volumes, problems = [], []
    for (kind, component), slices in places.items():
        counts = [len(slices.get(level, [])) for level in range(every.size)]
        many = max(counts)
        short = [place for place, count in zip(every, counts, strict=True) if count < many]
        what = ", ".join(f"{name} {value:g}" for name, value in kind[0]) or component
        if short:
            found = f"{len(short)} of {every.size} slices missing ({what}), at {short[0]:g} mm"
            cause = "an incomplete export, or two scans of other slices in one folder"
            problems.append(Problem(where, found, "every slice of every image", cause))
            continue
        again = {frame.series for stack in slices.values() for frame in stack}
        if len(again) > 1:
            names = ", ".join(sorted({_label(f) for s in slices.values() for f in s}))
            found = f"{len(again)} series with the same settings ({what}): {names}"
            cause = "a repeated scan, or other scans in the same folder: name the folder of one"
            problems.append(Problem(where, found, "series that differ in a setting", cause))
            continue
        volumes += [[slices[level][i] for level in range(every.size)] for i in range(many)]
    if problems:
        raise InputError(*_first_of(problems))
    gaps = np.diff(every)
    if gaps.size and np.ptp(gaps) > 2 * SAME_MM:
        found = f"slices {gaps.min():g} to {gaps.max():g} mm apart"
        cause = "a slice missing from every image, or two stacks"
        raise InputError(Problem(where, found, "evenly spaced slices", cause))
    expected = np.linspace(volumes[0][0].position, volumes[0][-1].position, every.size)
    for volume in volumes:
        off = np.linalg.norm(
            [f.position - e for f, e in zip(volume, expected, strict=True)], axis=1
        )
        if off.max() > 4 * SAME_MM:
            found = f"slices of {_label(volume[0])} up to {off.max():.3g} mm beside the others"
            cause = "scans of other fields of view in one folder"
            raise InputError(Problem(where, found, "images of one place", cause))
    return sorted(volumes, key=lambda volume: min(frame.order for frame in volume))


def _affine(volume: list[Frame]) -> np.ndarray:
    """From (column, row, slice) to RAS+ mm."""
    first, last = volume[0], volume[-1]
    row, column = first.orientation
    if len(volume) > 1:
        step = (last.position - first.position) / (len(volume) - 1)
    else:
        step = np.cross(row, column) * first.thickness
    affine = np.eye(4)
    affine[:3, 0], affine[:3, 1] = row * first.spacing[1], column * first.spacing[0]
    affine[:3, 2], affine[:3, 3] = step, first.position
    affine[:3] *= LPS_TO_RAS[:, None]
    return affine


def _image(volume: list[Frame]) -> np.ndarray:
    slices = [
        frame.scale[0] * frame.pixels.T.astype(np.float32) + frame.scale[1] for frame in volume
    ]
    return np.stack(slices, axis=-1).astype(np.float32)


def _series(where: str, volumes: list[list[Frame]], files: list[Path]) -> Series:
    """All volumes, phases joined with their magnitudes."""
    parts: dict[tuple, dict[str, list[Frame]]] = {}
    seen: dict[tuple, int] = {}
    for volume in volumes:
        kind, component = volume[0].kind, volume[0].component
        again = seen[kind, component] = seen.get((kind, component), -1) + 1
        parts.setdefault((kind, again), {})[component] = volume
    kinds = {tuple(sorted(found)) for found in parts.values()}
    if len(kinds) > 1:
        names = " and ".join(" + ".join(kind) for kind in sorted(kinds))
        found = f"some readouts as {names}"
        raise InputError(Problem(where, found, "a phase for each magnitude", "a series left out"))
    ((*found,),) = kinds
    images, lead = [], []
    for together in parts.values():
        if "real" in found and "imag" in found:
            images.append(_image(together["real"]) + 1j * _image(together["imag"]))
            lead.append(together["real"])
        elif "mag" in found and "phase" in found:
            turned = np.exp(1j * _phase(together["phase"]))
            images.append((_image(together["mag"]) * turned).astype(np.complex64))
            lead.append(together["mag"])
        elif found == ["mag"]:
            images.append(_image(together["mag"]))
            lead.append(together["mag"])
        else:
            expected = "magnitudes, with or without phase, or real and imaginary parts"
            raise InputError(Problem(where, f"{' + '.join(found)} images", expected))
    heads = [volume[0] for volume in lead]
    names = [n for n in (*SETTINGS, B_VALUE) if any(n in head.settings for head in heads)]
    settings = {n: np.array([head.settings.get(n, np.nan) for head in heads]) for n in names}
    times = np.array([min(frame.time_s for frame in volume) for volume in lead])
    if np.isfinite(times).all():
        settings["VolumeTiming"] = times - times.min()
    directions = None
    axes = [head.direction for head in heads]
    if B_VALUE in settings and all(axis is not None for axis in axes):
        directions = np.array(axes, float) * LPS_TO_RAS
    about = {
        name: value
        for name, value in heads[0].about.items()
        if all(head.about.get(name) == value for head in heads)
    }
    name = re.sub(r"[^A-Za-z0-9]+", "-", _label(heads[0])).strip("-") or "series"
    grid = Volume(np.stack(images, axis=-1), _affine(lead[0]))
    return Series(name, "", grid, settings, directions, about, tuple(files))


def _phase(volume: list[Frame]) -> np.ndarray:
    """In radians: a turn is the range of stored integers, or of 16 bits what they are rescaled to,
    radians or thousandths."""
    bits = volume[0].bits
    if bits < 16:
        stored = np.stack([frame.pixels.T for frame in volume], axis=-1)
        return stored.astype(np.float32) * (2 * np.pi / 2**bits)
    phase = _image(volume)
    most = float(np.abs(phase).max())
    if most > 1000 * np.pi * 1.01:
        found = f"a phase image of values to {most:g}"
        raise InputError(Problem(str(volume[0].path), found, "radians, or thousandths"))
    return phase if most <= 2 * np.pi * 1.001 else phase / 1000
