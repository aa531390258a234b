"""Quantitative MRI as BIDS keeps it: file collections of NIfTI images with JSON sidecars.

    sub-01/anat/sub-01_flip-1_VFA.nii.gz  sub-01_flip-1_VFA.json    one image a file: FlipAngle
    sub-01/anat/sub-01_MESE.nii.gz        sub-01_MESE.json          or all in one: EchoTime a list
    sub-01/anat/sub-01_inv-1_part-mag_MP2RAGE.nii.gz  part-phase    complex images
    sub-01/anat/sub-01_UNIT1.nii.gz                                 their combination by a scanner
    sub-01/dwi/sub-01_dwi.nii.gz  .bval  .bvec                      diffusion

A sidecar holds for every file whose name has its suffix and all its entities, in its own folder or
below; the nearer one wins. Times are in seconds, flip angles in degrees.

https://bids-specification.readthedocs.io, appendix "Quantitative MRI".
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.io.nifti import read_nifti
from mrphys.series import B_VALUE, LIMITS, Series, stacked
from mrphys.volume import Volume

LINKING = ("echo", "flip", "inv", "mt", "part")
"""Entities that tell the images of a collection apart; of TB1AFI also acq-tr1 and acq-tr2."""
PARTS = ("mag", "phase", "real", "imag")
OF_PAIR = ("InversionTime", "FlipAngle")
"""What a UNIT1 image has two of."""
PHASE_STEPS = 4096.0
"""Of a turn, or of half a turn when counted from -4096, as scanners store phase in integers."""


@dataclass(frozen=True)
class Collection:
    """Images that make one map: what they share in name, their suffix, themselves."""

    name: str
    suffix: str
    files: tuple[Path, ...]

    def __str__(self) -> str:
        return "_".join(part for part in (self.name, self.suffix) if part)


def _stem(path: Path) -> str:
    return path.name.removesuffix(".gz").rsplit(".", 1)[0]


def _parsed(path: Path) -> tuple[dict[str, str], str]:
    """Entities of a BIDS name, and its suffix."""
    *pairs, suffix = _stem(path).split("_")
    return {key: value for key, _, value in (pair.partition("-") for pair in pairs)}, suffix


def _shared(entities: dict[str, str], suffix: str) -> str:
    """What names the collection."""
    kept = {key: value for key, value in entities.items() if key not in LINKING}
    if suffix == "TB1AFI" and kept.get("acq", "")[:3] in ("tr1", "tr2"):
        kept["acq"] = kept["acq"][3:]
    return "_".join(f"{key}-{value}" for key, value in kept.items() if value)


def find_collections(paths: Iterable[str | Path], suffixes: Sequence[str]) -> list[Collection]:
    """The collections of these suffixes among files, and below folders.

    Files given by name whose suffix is none of these make one collection, of no suffix. Raises
    InputError for a path that is not there.
    """
    groups: dict[tuple[str, str], list[Path]] = {}
    other = []
    for path in map(Path, paths):
        if path.is_dir():
            inside = sorted(path.rglob("*.nii*"))
            chosen = [file for file in inside if _parsed(file)[1] in suffixes]
        elif path.is_file():
            known = _parsed(path)[1] in suffixes
            chosen = [path] if known else []
            other += [] if known else [path]
        else:
            expected = "a file, or a folder"
            raise InputError(Problem(str(path), "nothing there", expected, "a typing slip"))
        for file in chosen:
            entities, suffix = _parsed(file)
            groups.setdefault((_shared(entities, suffix), suffix), []).append(file)
    if other:
        name = _shared(_parsed(other[0])[0], "") or _stem(other[0])
        groups[name, ""] = other
    return [Collection(name, suffix, tuple(files)) for (name, suffix), files in groups.items()]


def read_collection(collection: Collection) -> Series:
    """The images of a collection with their settings, in the order of their names.

    Pairs of part-mag and part-phase, or part-real and part-imag, become complex; phase in radians,
    or in integer steps of 1/4096 of a turn (of half a turn where some are negative).
    Raises InputError, with everything wrong at once, for images that cannot be read or are not on
    one grid, sidecars that are no JSON, lists of another length than the images, a part whose
    other half is missing.
    """
    images: dict[tuple, dict[str, Path]] = {}
    for path in collection.files:
        entities, _ = _parsed(path)
        key = tuple((name, _ordinal(entities[name])) for name in entities if name != "part")
        images.setdefault(key, {})[entities.get("part", "")] = path
    problems, read, files = [], [], []
    for _, parts in sorted(images.items()):
        try:
            volume, used = _image(parts)
            sidecar, sources = _sidecar(used[0])
            count = volume.data.shape[3] if volume.data.ndim == 4 else 1
            read.append((str(used[0]), volume, sidecar, _gradients(used[0], count)))
            files += [*used, *sources]
        except InputError as error:
            problems += error.problems
    if problems:
        raise InputError(*problems)
    kinds = {np.iscomplexobj(volume.data) for _, volume, _, _ in read}
    if len(kinds) > 1:
        found = "complex and magnitude images"
        raise InputError(Problem(str(collection), found, "a phase for each", "a missing file"))
    together = stacked((where, volume) for where, volume, _, _ in read)
    counts = [v.data.shape[3] if v.data.ndim == 4 else 1 for _, v, _, _ in read]
    about = _alike([sidecar for _, _, sidecar, _ in read])
    if collection.suffix == "UNIT1":
        for path in collection.files:
            about, sources = _with_pair(path, about)
            files += sources
        read = [(w, v, {n: s[n] for n in s if n not in OF_PAIR}, g) for w, v, s, g in read]
    settings = _settings(read, counts)
    gradients = [gradient for *_, gradient in read]
    directions = None
    if any(gradient is not None for gradient in gradients):
        b = [
            np.full(n, np.nan) if g is None else g[0]
            for g, n in zip(gradients, counts, strict=True)
        ]
        settings[B_VALUE] = np.concatenate(b)
        if all(g is not None and g[1] is not None for g in gradients):
            directions = _in_world(np.concatenate([g[1] for g in gradients]), together)  # pyright: ignore
    return Series(
        collection.name,
        collection.suffix,
        together,
        settings,
        directions,
        about,
        tuple(dict.fromkeys(files)),
    )


def _ordinal(value: str) -> tuple[int, str]:
    return (int(value) if value.isdigit() else 0, value)


def _image(parts: dict[str, Path]) -> tuple[Volume, list[Path]]:
    """One image of its parts, and the files used."""
    for pair in (("mag", "phase"), ("real", "imag"), ("", "phase")):
        if all(part in parts for part in pair):
            paths = [parts[part] for part in pair]
            first, second = (read_nifti(path) for path in paths)
            if not first.same_grid(second) or first.data.shape != second.data.shape:
                cause = "a magnitude and a phase of two scans"
                raise InputError(
                    Problem(str(paths[1]), second.placed, f"that of {paths[0].name}", cause)
                )
            if pair[1] == "imag":
                return first.with_data(first.data + 1j * second.data), paths
            turned = np.exp(1j * _radians(np.asarray(second.data), paths[1]))
            return first.with_data((first.data * turned).astype(np.complex64)), paths
    whole = parts.get("", parts.get("mag"))
    if whole is None:
        (part, path), *_ = parts.items()
        expected = "part-mag with part-phase, or part-real with part-imag"
        raise InputError(Problem(str(path), f"part-{part} alone", expected, "a missing file"))
    return read_nifti(whole), [whole]


def _radians(phase: np.ndarray, path: Path) -> np.ndarray:
    low, high = float(phase.min()), float(phase.max())
    if max(-low, high) <= 2 * np.pi * 1.001:
        return phase
    if low >= -PHASE_STEPS and high <= PHASE_STEPS:
        return phase * (np.pi if low < 0 else 2 * np.pi) / PHASE_STEPS
    found = f"phases from {low:g} to {high:g}"
    raise InputError(Problem(str(path), found, "radians, or steps of 1/4096 of a turn", "degrees"))


def _applicable(path: Path, ending: str) -> list[Path]:
    """Files that say something of an image, farthest first."""
    entities, suffix = _parsed(path)
    folders = [path.parent, *path.parent.resolve().parents]
    root = next((i for i, f in enumerate(folders) if (f / "dataset_description.json").exists()), 3)
    found = []
    for folder in folders[: root + 1]:
        here = [
            file
            for file in folder.glob(f"*{suffix}{ending}")
            if (name := _parsed(file))[1] == suffix and name[0].items() <= entities.items()
        ]
        found += sorted(here, key=lambda file: -len(_parsed(file)[0]))
    beside = path.with_name(_stem(path) + ending)
    return [*([beside] if beside.exists() and beside not in found else []), *found][::-1]


def _sidecar(path: Path) -> tuple[dict[str, Any], list[Path]]:
    """What the sidecars say of an image, and those read."""
    said, sources = {}, _applicable(path, ".json")
    for source in sources:
        try:
            content = json.loads(source.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            found = f"a file that cannot be read ({error})"
            cause = "a comma too many, or an interrupted copy"
            raise InputError(Problem(str(source), found, "a JSON object", cause)) from error
        if not isinstance(content, dict):
            found = f"a JSON {type(content).__name__}"
            raise InputError(Problem(str(source), found, "a JSON object"))
        said |= content
    return said, sources


def _with_pair(path: Path, about: dict[str, Any]) -> tuple[dict[str, Any], list[Path]]:
    """What is said of a UNIT1 image and, where that is not all, of the MP2RAGE images beside it."""
    entities, _ = _parsed(path)
    found: dict[str, tuple[dict[str, Any], list[Path]]] = {}
    for image in sorted(path.parent.glob("*_MP2RAGE.*")):
        other, suffix = _parsed(image)
        same = {name: value for name, value in other.items() if name not in LINKING} == entities
        if suffix == "MP2RAGE" and same and other.get("inv") in ("1", "2"):
            found.setdefault(other["inv"], _sidecar(image))
    if set(found) != {"1", "2"}:
        return about, []
    pair = [found[inversion][0] for inversion in ("1", "2")]
    both = {
        name: [said[name] for said in pair]
        for name in OF_PAIR
        if all(isinstance(said.get(name), int | float) for said in pair)
    }
    own = {name: value for name, value in about.items() if name not in both or np.size(value) == 2}
    return _alike(pair) | both | own, [path for _, sources in found.values() for path in sources]


def _settings(read: list, counts: list[int]) -> dict[str, np.ndarray]:
    """Each setting of every readout; NaN where a sidecar does not say."""
    settings, problems = {}, []
    for name in LIMITS:
        if not any(name in sidecar for _, _, sidecar, _ in read):
            continue
        values = []
        for (where, _, sidecar, _), count in zip(read, counts, strict=True):
            try:
                given = np.asarray(sidecar.get(name, np.nan), float)
            except (TypeError, ValueError):
                found = f"{sidecar[name]!r}"
                problems.append(Problem(f"{where}: {name}", found, "a number, or a list"))
                continue
            if given.ndim > 1 or given.size not in (1, count):
                found = f"{given.size} numbers for {count} image(s)"
                problems.append(Problem(f"{where}: {name}", found, "one for each image"))
                continue
            values.append(np.broadcast_to(given.reshape(-1), (count,)))
        settings[name] = np.concatenate(values) if values else np.zeros(0)
    if problems:
        raise InputError(*problems)
    return settings


def _alike(sidecars: list[dict[str, Any]]) -> dict[str, Any]:
    """What all sidecars say, and say alike."""
    first, *others = sidecars
    return {
        name: value
        for name, value in first.items()
        if all(other.get(name) == value for other in others)
    }


def _gradients(path: Path, count: int) -> tuple[np.ndarray, np.ndarray | None] | None:
    """b-values [s/mm²] and directions by image axis, of an image that has them."""
    b = _numbers(path, ".bval")
    if b is None:
        return None
    if b.size != count:
        found = f"{b.size} b-values for {count} image(s)"
        cause = "volumes that were dropped from one of them"
        raise InputError(Problem(str(path), found, "one for each", cause))
    directions = _numbers(path, ".bvec")
    if directions is None:
        return b.reshape(-1), None
    if directions.shape == (count, 3) and count != 3:
        directions = directions.T
    if directions.shape != (3, count):
        found = f"directions of shape {directions.shape}"
        raise InputError(Problem(str(path), found, f"three rows of {count} numbers in .bvec"))
    return b.reshape(-1), directions.T


def _numbers(path: Path, ending: str) -> np.ndarray | None:
    sources = _applicable(path, ending)
    if not sources:
        return None
    try:
        rows = [line.split() for line in sources[-1].read_text().splitlines() if line.strip()]
        return np.array(rows, float)
    except (OSError, ValueError) as error:
        found = f"a file that cannot be read ({error})"
        raise InputError(Problem(str(sources[-1]), found, "rows of numbers")) from error


def _in_world(directions: np.ndarray, images: Volume) -> np.ndarray:
    """Directions by image axis, the first reversed where the axes are right-handed (as FSL has
    them), in RAS+."""
    axes = images.affine[:3, :3] / np.array(images.spacing_mm)
    sign = np.array([-1.0 if np.linalg.det(axes) > 0 else 1.0, 1.0, 1.0])
    world = (directions * sign) @ axes.T
    length = np.linalg.norm(world, axis=1, keepdims=True)
    return np.where(length > 0, world / np.where(length > 0, length, 1.0), 0.0)
