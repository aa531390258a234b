"""From samples along any trajectory back to an image: the adjoint, with simple densities."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.events import Scan

Trajectory = Float[np.ndarray | Array, "samples axes"]


def density_weights(
    trajectory: Float[np.ndarray, "samples axes"], fov_mm: tuple[float, ...]
) -> Float[np.ndarray, " samples"]:
    """One over the number of samples in the same cell of k-space, cells 1 / FOV wide.

    Summed over a cell the weights are 1, so a Cartesian scan sampled once is left as it is, and
    the middle of a radial one counts no more than its rim.
    """
    cells = np.rint(np.asarray(trajectory) * np.asarray(fov_mm)).astype(np.int64)
    _, cell, count = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    return 1.0 / count[cell.reshape(-1)]


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
    from jax_finufft import nufft1

    values = jnp.asarray(y)
    if weights is not None:
        values = values * jnp.asarray(weights, values.real.dtype)[None]
    pitch = np.asarray(fov_mm) / np.asarray(shape)
    turns = jnp.asarray(trajectory * pitch[None], values.real.dtype)
    angle = 2 * jnp.pi * (turns - jnp.round(turns))
    points = [angle[:, axis] for axis in range(axes)]
    return nufft1(shape, values, *points, iflag=1, eps=tolerance) / np.sqrt(np.prod(shape))


def slice_images(
    raw: Complex[Array | np.ndarray, "coils samples"], scan: Scan
) -> dict[float, Float[np.ndarray, "..."]]:
    """A look at raw data: the magnitude image of each slice, coils combined by sum of squares.

    A slice is what was excited at one frequency offset, which is its key [Hz]. Axes that the
    trajectory does not encode are left out; the image has the resolution of the farthest sample.
    Raises InputError when the sequence names no FOV, or encodes nothing.
    """
    if scan.fov_mm is None:
        raise InputError(Problem(scan.name, "no FOV", "FOV in [DEFINITIONS]", "left out"))
    trajectory = scan.trajectory()
    extent = (trajectory.max(0) - trajectory.min(0)) * np.array(scan.fov_mm)
    axes = np.flatnonzero(extent > 1.5)
    if not axes.size:
        raise InputError(Problem(scan.name, "a trajectory that rests", "encoding along an axis"))
    fov = tuple(scan.fov_mm[axis] for axis in axes)
    shape = tuple(int(np.rint(extent[axis])) + 1 for axis in axes)
    excitations = [pulse for pulse in scan.pulses if pulse.use == "excitation"] or scan.pulses
    starts = np.array([pulse.start_s for pulse in excitations])
    last = np.searchsorted(starts, scan.sample_times_s) - 1
    offset = np.array([pulse.frequency_hz for pulse in excitations])[np.maximum(last, 0)]
    images = {}
    for frequency in np.unique(offset):
        taken = np.flatnonzero(offset == frequency)
        k = trajectory[taken][:, axes]
        image = adjoint(jnp.asarray(raw)[:, taken], k, fov, shape, density_weights(k, fov))
        images[float(frequency)] = np.sqrt(np.sum(np.abs(np.asarray(image)) ** 2, axis=0))
    return images
