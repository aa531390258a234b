"""Readouts sorted into images: a grid where lines lie on one, else along their trajectory."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Complex, Float

from mrphys.encoding import fft, ifft
from mrphys.errors import InputError, Problem
from mrphys.raw import RawData

SERIES = ("slice", "contrast", "phase", "repetition", "set")
STEPS = ("kspace_encode_step_1", "kspace_encode_step_2")


@dataclass(frozen=True)
class Line:
    """A readout: samples of each coil in the order taken, and what its header says.

    k        cycles per field of view meant, where the file has it
    centre   which sample is at k = 0
    place    centre of its slice or volume in RAS+ mm, and its three directions
    """

    data: Complex[np.ndarray, "coils samples"]
    counters: Mapping[str, int]
    k: Float[np.ndarray, "samples axes"] | None = None
    centre: int = 0
    reversed: bool = False
    place: Float[np.ndarray, "4 3"] | None = None


@dataclass(frozen=True)
class Space:
    """What a header says of the matrix: encoded, and meant; the line at k = 0 of either step."""

    encoded: tuple[int, int, int]
    encoded_mm: tuple[float, float, float]
    shown: tuple[int, int, int]
    shown_mm: tuple[float, float, float]
    centre: tuple[int | None, int | None] = (None, None)
    cartesian: bool = True
    about: dict[str, Any] = field(default_factory=dict)


def assemble(
    where: str,
    lines: Sequence[Line],
    space: Space,
    noise: Complex[np.ndarray, "coils samples"] | None = None,
    noise_ratio: float = 1.0,
) -> RawData:
    """RawData of the lines of images. Raises InputError where there is none, where coils or samples
    differ from line to line, and for lines beyond the matrix."""
    if not lines:
        cause = "an interrupted scan, or a file of noise or calibration alone"
        raise InputError(Problem(where, "no sampled line", "one readout or more", cause))
    counts = {line.data.shape[0] for line in lines}
    if len(counts) > 1:
        raise InputError(Problem(where, f"readouts of {sorted(counts)} coils", "one number"))
    steps = _on_grid(lines, space) if space.cartesian else None
    make = _grid(where, lines, space, steps) if steps is not None else _along(where, lines, space)
    return RawData(
        **make,
        noise=noise,
        noise_ratio=noise_ratio,
        affine=_affine(lines, space, make["shape"], make["fov_mm"], make["shown"]),
        provenance={"file": where, **space.about},
    )


def _indices(lines: Sequence[Line]) -> tuple[tuple[str, ...], tuple[int, ...], np.ndarray]:
    """Names and sizes of the axes that vary, and where on them each line is."""
    values = np.array([[line.counters.get(name, 0) for name in SERIES] for line in lines])
    each = [np.unique(values[:, i], return_inverse=True) for i in range(len(SERIES))]
    varied = [i for i, (unique, _) in enumerate(each) if unique.size > 1]
    index = np.stack([each[i][1] for i in varied], -1) if varied else np.zeros((len(lines), 0), int)
    return tuple(SERIES[i] for i in varied), tuple(each[i][0].size for i in varied), index


def _on_grid(lines: Sequence[Line], space: Space) -> np.ndarray | None:
    """Rows of the two steps of each line; None where its points are not on the grid."""
    steps = np.zeros((len(lines), 2), int)
    for i, line in enumerate(lines):
        if line.k is None:
            for j, (name, middle) in enumerate(zip(STEPS, space.centre, strict=True)):
                n = space.encoded[j + 1]
                steps[i, j] = line.counters.get(name, 0) - (n // 2 if middle is None else middle)
                steps[i, j] += n // 2
            continue
        stretched = line.k * (np.array(space.encoded_mm) / space.shown_mm)[: line.k.shape[1]]
        across = stretched[:, 1:]
        straight = np.linspace(stretched[0, 0], stretched[-1, 0], len(stretched))
        if np.any(np.abs(across - np.rint(across[:1])) > 0.2) or np.any(
            np.abs(stretched[:, 0] - straight) > 0.5
        ):
            return None
        for j in range(across.shape[1]):
            steps[i, j] = round(float(across[0, j])) + space.encoded[j + 1] // 2
        if space.encoded[2] == 1:
            steps[i, 1] = 0
    return steps


def _grid(where: str, lines: Sequence[Line], space: Space, steps: np.ndarray) -> dict[str, Any]:
    names, sizes, index = _indices(lines)
    nx, ny, nz = space.encoded
    if np.any(steps < 0) or np.any(steps >= np.array([ny, nz])):
        found = f"lines {steps.min(axis=0).tolist()} to {steps.max(axis=0).tolist()}"
        cause = "limits of the header that do not belong to its matrix"
        raise InputError(Problem(where, found, f"within {ny} x {nz}", cause))
    total = np.zeros((*sizes, ny, nz, lines[0].data.shape[0], nx), np.complex64)
    count = np.zeros((*sizes, ny, nz, nx), np.float32)
    for i, line in enumerate(lines):
        data = line.data[:, ::-1] if line.reversed else line.data
        samples = data.shape[1]
        first = 0
        if samples != nx:
            centre = samples - 1 - line.centre if line.reversed else line.centre
            first = nx // 2 - centre
        if first < 0 or first + samples > nx:
            found = f"{samples} samples, sample {line.centre} the middle, in a matrix of {nx}"
            raise InputError(Problem(where, found, "lines within the encoded matrix"))
        at = (*index[i], *steps[i])
        total[at][:, first : first + samples] += data
        count[at][first : first + samples] += 1
    root = np.sqrt(count)
    y = np.divide(total, root[..., None, :], out=total, where=root[..., None, :] > 0)
    y, root = np.moveaxis(y, -2, len(sizes)), root
    y, root = np.moveaxis(y, -1, len(sizes) + 1), np.moveaxis(root, -1, len(sizes))
    fov, shown = list(space.encoded_mm), list(_shown(space))
    if shown[0] < nx and np.all(root == root[..., :1, :, :]):  # a partial echo keeps all it has
        y, root = _narrowed(y, shown[0]), root[..., : shown[0], :, :]
        fov[0] *= shown[0] / nx
    shape = list(y.shape[-3:])
    if nz == 1:
        y, root = y[..., 0], root[..., 0]
        shape, fov, shown = shape[:2], fov[:2], shown[:2]
    return {
        "y": y, "mask": root, "series": names, "shape": tuple(shape), "fov_mm": tuple(fov),
        "shown": tuple(min(n, m) for n, m in zip(shown, shape, strict=True)),
    }  # fmt: skip


def _shown(space: Space) -> list[int]:
    """Voxels of the field of view meant, of the size they were encoded with."""
    each = zip(space.encoded, space.encoded_mm, space.shown_mm, strict=True)
    return [min(n, max(1, round(n * meant / fov))) if fov > 0 else n for n, fov, meant in each]


def _narrowed(y: Complex[np.ndarray, "..."], keep: int) -> Complex[np.ndarray, "..."]:
    """The middle of the field of view along the readout, three axes from the end."""
    n = y.shape[-3]
    image = np.asarray(ifft(jnp.moveaxis(jnp.asarray(y), -3, -1), 1))
    image = image[..., n // 2 - keep // 2 : n // 2 - keep // 2 + keep]
    return np.array(jnp.moveaxis(fft(jnp.asarray(image), 1), -1, -3))


def _along(where: str, lines: Sequence[Line], space: Space) -> dict[str, Any]:
    missing = sum(line.k is None for line in lines)
    if missing:
        cause = "a trajectory left to the reader, which this format names but does not hold"
        found = f"{missing} of {len(lines)} readouts without a trajectory"
        raise InputError(Problem(where, found, "points of every sample", cause))
    names, sizes, index = _indices(lines)
    axes = 3 if space.shown[2] > 1 else 2
    number = np.ravel_multi_index(tuple(index.T), sizes) if sizes else np.zeros(len(lines), int)
    groups = [np.flatnonzero(number == i).tolist() for i in range(int(np.prod(sizes)))]
    lengths = {sum(lines[i].data.shape[1] for i in group) for group in groups}
    if len(lengths) > 1:
        cause = (
            "an interrupted scan, or counters of a dynamic series that differ from frame to frame"
        )
        found = f"images of {min(lengths)} to {max(lengths)} samples"
        raise InputError(Problem(where, found, "as many in each", cause))
    y = np.stack([np.concatenate([lines[i].data for i in group], axis=1) for group in groups])
    k = np.stack([np.concatenate([_points(lines[i], axes) for i in group]) for group in groups])
    each = {line.data.shape[1] for line in lines}
    return {
        "y": y.astype(np.complex64).reshape(*sizes, *y.shape[1:]),
        "trajectory": _in_cycles(k, space).reshape(*sizes, *k.shape[1:]),
        "series": names, "shape": space.shown[:axes], "fov_mm": space.shown_mm[:axes],
        "shown": space.shown[:axes], "readout": each.pop() if len(each) == 1 else 0,
    }  # fmt: skip


def _points(line: Line, axes: int) -> Float[np.ndarray, "samples axes"]:
    assert line.k is not None
    k = np.zeros((line.k.shape[0], axes), np.float32)
    k[:, : min(axes, line.k.shape[1])] = line.k[:, :axes]
    return k


def _in_cycles(k: Float[np.ndarray, "..."], space: Space) -> Float[np.ndarray, "..."]:
    """The format leaves the unit open: half the matrix, or half a cycle per voxel encoded, is as
    far as either goes."""
    if np.abs(k).max(initial=0.0) > 0.51 or max(space.shown) <= 2:
        return k
    voxels = np.array(space.encoded) * np.array(space.shown_mm) / np.array(space.encoded_mm)
    return k * voxels[: k.shape[-1]].astype(k.dtype)


def _affine(
    lines: Sequence[Line],
    space: Space,
    shape: tuple[int, ...],
    fov_mm: tuple[float, ...],
    shown: tuple[int, ...],
) -> Float[np.ndarray, "4 4"] | None:
    """Of the first slice's voxels, and the step to the next."""
    first = {line.counters.get("slice", 0): line for line in reversed(lines)}
    places = [first[i].place for i in sorted(first)]
    if any(place is None for place in places):
        return None
    centres = np.stack([place[0] for place in places if place is not None])
    directions = np.asarray(places[0])[1:]
    if not np.allclose(directions @ directions.T, np.eye(3), atol=1e-3):
        return None
    step = [mm / n for mm, n in zip(fov_mm, shape, strict=True)]
    step += [space.shown_mm[2]] * (3 - len(step))
    columns = (directions * np.array(step)[:, None]).T
    if len(shape) == 2 and len(centres) > 1:
        between = (centres[-1] - centres[0]) / (len(centres) - 1)
        if np.linalg.norm(between) > 1e-3:
            columns[:, 2] = between
    middle = [n // 2 for n in shown] + [0] * (3 - len(shown))
    affine = np.eye(4)
    affine[:3, :3] = columns
    affine[:3, 3] = centres[0] - columns @ np.array(middle)
    return affine
