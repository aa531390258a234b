"""From samples along any trajectory back to an image: the adjoint, with simple densities."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int
from scipy.spatial import Delaunay

from mrphys.encoding.nonuniform import to_grid
from mrphys.errors import InputError, Problem
from mrphys.events import Scan

APART = ("ECO", "PHS", "REP", "SET", "SLC")
Trajectory = Float[np.ndarray | Array, "samples axes"]


def density_weights(
    trajectory: Float[np.ndarray, "samples axes"], fov_mm: tuple[float, ...]
) -> Float[np.ndarray, " samples"]:
    """The part of k-space nearest to each sample, in cells 1 / FOV wide; equal places share it.

    A Cartesian scan has weights of its spacings, 1 where each is 1 / FOV, and lines of spokes or
    spirals those of their distances. Lines at the edge count as their inner neighbours. Axes whose
    samples lie on separate levels are taken apart; what is left, in two dimensions, is cut into
    Voronoi areas, mixed at the edge (Meyer et al. 2003, doi:10.1007/978-3-662-05105-4_2), and in
    three shared by the samples of each cell.
    """
    k = np.asarray(trajectory, float) * np.asarray(fov_mm)
    places, inverse, count = np.unique(
        np.rint(k * 64), axis=0, return_inverse=True, return_counts=True
    )
    return (_shares(places / 64) / count)[inverse.reshape(-1)]


def _shares(k: Float[np.ndarray, "samples axes"]) -> Float[np.ndarray, " samples"]:
    """Of different places, in cells."""
    if k.shape[1] == 1:
        return _spacings(k[:, 0])
    for axis in range(k.shape[1]):
        level, values = _levels(k[:, axis])
        if values.size <= max(1, k.shape[0] // 4):
            share = _spacings(values)[level]
            for i in range(values.size):
                share[level == i] *= _shares(np.delete(k[level == i], axis, axis=1))
            return share
    if k.shape[1] == 2:
        return _areas(k)
    _, cell, count = np.unique(np.rint(k), axis=0, return_inverse=True, return_counts=True)
    return 1.0 / count[cell.reshape(-1)]


def _levels(
    values: Float[np.ndarray, " samples"],
) -> tuple[Int[np.ndarray, " samples"], Float[np.ndarray, " levels"]]:
    """Which of several levels, at least 1/20 apart and no thicker, each value is on; as many levels
    as values where they are not on any."""
    order = np.argsort(values)
    steps = np.diff(values[order], prepend=values[order[0]]) > 0.05
    level = np.empty(values.size, int)
    level[order] = np.cumsum(steps)
    starts = np.flatnonzero(np.append(True, steps[1:]))
    low, high = values[order][starts], np.append(values[order][starts[1:] - 1], values[order][-1])
    if np.any(high - low > 0.05):
        return np.arange(values.size), values
    return level, (low + high) / 2


def _spacings(values: Float[np.ndarray, " samples"]) -> Float[np.ndarray, " samples"]:
    """Half the distance between the neighbours of each; at the ends that to the only one."""
    if values.size < 2:
        return np.ones(values.size)
    order = np.argsort(values)
    gap = np.diff(values[order])
    width = (np.append(gap[0], gap) + np.append(gap, gap[-1])) / 2
    spacing = np.empty(values.size)
    spacing[order] = width
    return spacing


def _areas(k: Float[np.ndarray, "samples 2"]) -> Float[np.ndarray, " samples"]:
    """Voronoi areas; at the edge mixed ones, made whole where neighbours do not surround."""
    corner = Delaunay(k).simplices
    side = k[np.roll(corner, -1, axis=1)] - k[corner]  # from each corner to the next
    back = -np.roll(side, 1, axis=1)
    cross = side[..., 0] * back[..., 1] - side[..., 1] * back[..., 0]
    along = np.sum(side * back, axis=-1)
    area, angle = np.abs(cross[:, 0]) / 2, np.arctan2(np.abs(cross), along)
    cot = along / np.maximum(np.abs(cross), 1e-12)
    opposite = np.roll(cot, -1, axis=1) * np.sum(back**2, -1) + np.roll(cot, 1, axis=1) * np.sum(
        side**2, -1
    )
    obtuse = along < 0
    part = np.where(obtuse, 0.5, 0.25) * area[:, None]
    part = np.where(obtuse.any(axis=1)[:, None], part, opposite / 8)
    mixed, voronoi, around = (
        np.bincount(corner.ravel(), values.ravel(), len(k))
        for values in (part, opposite / 8, angle)
    )
    inside = (around > 2 * np.pi - 1e-6) & (voronoi > 0) & (voronoi < 4 * mixed)
    return np.where(inside, voronoi, mixed * np.clip(2 * np.pi / np.maximum(around, 1e-9), 1, 4))


def adjoint(
    y: Complex[Array | np.ndarray, "coils samples"],
    trajectory: Trajectory,
    fov_mm: tuple[float, ...],
    shape: tuple[int, ...],
    weights: Float[Array | np.ndarray, " samples"] | None = None,
    tolerance: float = 1e-5,
) -> Complex[Array, "coils ..."]:
    """x(r) = Σ w y(k) exp(+2πi k·r) / sqrt(voxels), the adjoint of y = Σ x exp(-2πi k·r).

    trajectory  in cycles/mm, one to three axes
    shape       voxels along each; voxel i lies at (i - n // 2) FOV / n
    tolerance   relative error of the transform

    Raises InputError when axes or samples do not match. Differentiable in y and the trajectory.

    Source: Barnett et al. 2019, doi 10.1137/18M120885X (the transform).
    """
    axes = trajectory.shape[-1]
    if not axes == len(fov_mm) == len(shape) or axes not in (1, 2, 3):
        found = f"{axes} axes, FOV {fov_mm}, shape {shape}"
        raise InputError(Problem("adjoint", found, "one to three of each"))
    if y.shape[-1] != trajectory.shape[0]:
        found = f"{y.shape[-1]} values at {trajectory.shape[0]} points"
        raise InputError(Problem("adjoint", found, "a value for each point"))
    values = jnp.asarray(y)
    if weights is not None:
        values = values * jnp.asarray(weights, values.real.dtype)[None]
    pitch = np.asarray(fov_mm) / np.asarray(shape)
    turns = jnp.asarray(trajectory * pitch[None], values.real.dtype)
    angle = 2 * jnp.pi * (turns - jnp.round(turns))
    points = [angle[:, axis] for axis in range(axes)]
    return to_grid(shape, values, points, tolerance) / np.sqrt(np.prod(shape))


def slice_images(
    raw: Complex[Array | np.ndarray, "coils samples"], scan: Scan
) -> dict[str, Float[np.ndarray, "..."]]:
    """A look at raw data: the magnitude image of each slice, coils combined by sum of squares.

    A slice is what was excited at one frequency offset and has one label SLC; echoes, repetitions,
    phases and sets are kept apart where the sequence labels them (ECO, REP, PHS, SET). The names
    say so. Navigators and noise are left out. Axes that the trajectory does not encode are left
    out; the image has the resolution of the farthest sample. Raises InputError when the sequence
    names no FOV, or encodes nothing.
    """
    shape = np.array(scan.matrix())
    axes = np.flatnonzero(shape > 1)
    if scan.fov_mm is None or not axes.size:
        raise InputError(Problem(scan.name, "a trajectory that rests", "encoding along an axis"))
    trajectory = scan.trajectory()
    fov = tuple(scan.fov_mm[axis] for axis in axes)
    first = np.cumsum([0, *(readout.samples for readout in scan.readouts)])
    groups: dict[str, list[np.ndarray]] = {}
    for i, (readout, hz) in enumerate(zip(scan.readouts, scan.excited_hz(), strict=True)):
        if not readout.is_calibration:
            labels = [f"{n} {v}" for n, v in sorted(readout.counters.items()) if n in APART]
            groups.setdefault(", ".join([f"{hz:+.0f} Hz", *labels]), []).append(
                np.arange(first[i], first[i + 1])
            )
    images = {}
    for name, samples in groups.items():
        taken = np.concatenate(samples)
        k = trajectory[taken][:, axes]
        size = tuple(int(n) for n in shape[axes])
        image = adjoint(jnp.asarray(raw)[:, taken], k, fov, size, density_weights(k, fov))
        images[name] = np.sqrt(np.sum(np.abs(np.asarray(image)) ** 2, axis=0))
    return images
