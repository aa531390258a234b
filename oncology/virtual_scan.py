"""A brain scanned with any sequence: raw data and a look at them."""

from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import phantom
from mrphys.coils import loop_array
from mrphys.errors import InputError, Problem
from mrphys.events import Scan
from mrphys.fourier import slice_images
from mrphys.io.ismrmrd import misfits
from mrphys.io.output import whole_file
from mrphys.scan import simulate_scan
from mrphys.spins import SpinCloud


def brain_spins(
    scan: Scan,
    spacing_mm: int = 2,
    spins: tuple[int, int, int] = (1, 1, 8),
    field_t: float = 3.0,
    seed: int = 0,
) -> SpinCloud:
    """The MNI brain about its own middle, cut to the slab that the sequence excites.

    Spins lie at random, but for every axis evenly over each voxel (Latin hypercube: McKay, Beckman,
    Conover 1979, doi:10.2307/1268522): as grainless as a grid, and no spoiler finds them in phase.

    Raises InputError for a spacing or field that the phantom has not, and for a slab that misses
    the brain.
    """
    head = phantom.brain(spacing_mm)
    inside = np.asarray(head.brain.data) > 0
    affine = head.brain.affine
    index = np.stack(np.nonzero(inside), -1)
    centre = (index.min(0) + index.max(0)) / 2
    affine[:3, 3] = -affine[:3, :3] @ centre
    slab = scan.slab_mm()
    if slab is not None:
        z_mm = affine[2, 2] * np.arange(inside.shape[2]) + affine[2, 3]
        half = spacing_mm / 2
        inside = inside & ((z_mm + half > slab[0]) & (z_mm - half < slab[1]))[None, None, :]
        if not inside.any():
            found = f"slices at z = {slab[0]:.0f} to {slab[1]:.0f} mm"
            expected = f"{z_mm[index[:, 2].min()]:.0f} to {z_mm[index[:, 2].max()]:.0f} mm"
            raise InputError(Problem(scan.name, found, expected, "slices beside the brain"))
    centred = SpinCloud.from_volume(
        head.tissue(field_t), affine, spins=spins, inside=inside, seed=None
    )
    moved = _scattered(int(inside.sum()), spins, seed) @ affine[:3, :3].T
    position = centred.position_mm + moved.astype(centred.position_mm.dtype)
    return SpinCloud(position, centred.q)


def _scattered(voxels: int, spins: tuple[int, int, int], seed: int) -> Float[np.ndarray, "spins 3"]:
    """How far each spin lies from its cell's centre, in voxels: along an axis of several cells at
    random in the cell, along one of a single cell each spin of the voxel in its own part of it."""
    rng, count = np.random.default_rng(seed), int(np.prod(spins))
    shift = rng.random((voxels, count, 3))
    for axis, cells in enumerate(spins):
        if cells == 1:
            part = np.argsort(rng.random((voxels, count)), axis=1)
            shift[..., axis] = (part + shift[..., axis]) / count
    return ((shift - 0.5) / np.array(spins)).reshape(-1, 3)


def scan_brain(
    scan: Scan,
    spacing_mm: int = 2,
    spins: tuple[int, int, int] = (1, 1, 8),
    coils: int = 8,
    field_t: float = 3.0,
    progress: Callable[[int, int], None] | None = None,
) -> Complex[Array, "coils samples"]:
    """Raw data of the brain, received by loops round it, without noise."""
    cloud = brain_spins(scan, spacing_mm, spins, field_t)
    sensitivity = loop_array(cloud.position_mm, coils)
    return simulate_scan(scan, cloud, coils=sensitivity, field_t=field_t, progress=progress)


def require_scannable(scan: Scan) -> None:
    """Raises InputError for what could not be simulated or written, before time is spent on it:
    a sequence without samples or FOV, or with labels beyond the raw data's format."""
    problems = []
    if not any(readout.samples for readout in scan.readouts):
        problems.append(Problem(scan.name, "no samples (ADC events)", "at least one readout"))
    if scan.fov_mm is None:
        expected = "FOV in [DEFINITIONS], or --fov X Y Z in mm"
        problems.append(Problem(scan.name, "no FOV", expected, "a definition left out"))
    elif not all(0 < length < 1e4 for length in scan.fov_mm):
        problems.append(Problem("--fov", f"{scan.fov_mm}", "three lengths in mm above 0"))
    if scan.fov_mm is not None:
        problems += misfits(scan.name, scan)
    if problems:
        raise InputError(*problems)


def noisy(
    raw: Complex[Array, "coils samples"], sd: float | None, snr: float | None, seed: int
) -> tuple[Complex[Array, "coils samples"], float]:
    """Raw data with thermal noise, and its standard deviation: `sd` of the real and of the
    imaginary part, or the largest sample's magnitude over `snr`; none of either is no noise."""
    if snr is not None:
        sd = float(jnp.abs(raw).max()) / snr
    if not sd:
        return raw, 0.0
    real, imag = jax.random.normal(jax.random.key(seed), (2, *raw.shape), raw.real.dtype)
    return raw + sd * jax.lax.complex(real, imag), sd


def save_images(path: Path, raw: Complex[Array, "coils samples"], scan: Scan) -> bool:
    """A PNG of the magnitude images, x to the right and y up, the middle of volumes; False, and no
    file, where the sequence encodes no position.

    Each is scaled to its own 99.5th percentile; of more than 24 the first are shown.
    """
    from matplotlib.figure import Figure

    if max(scan.matrix()) == 1:
        return False
    images = dict(list(slice_images(raw, scan).items())[:24])
    columns = min(len(images), 6)
    rows = -(-len(images) // columns)
    figure = Figure(figsize=(4 * columns, 4.3 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in grid:
        axes.set_axis_off()
    for axes, (name, image) in zip(grid, images.items(), strict=False):
        if image.ndim == 1:
            axes.set_axis_on()
            axes.plot(image)
        else:
            flat = image[..., image.shape[2] // 2] if image.ndim == 3 else image
            top = float(np.percentile(flat, 99.5)) or 1.0
            axes.imshow(flat.T, cmap="gray", origin="lower", vmin=0, vmax=top)
        axes.set_title(name if len(images) > 1 else "", fontsize=9)
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=120)
    return True
