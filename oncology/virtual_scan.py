"""A brain scanned with any sequence: raw data and a look at them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import phantom
from mrphys.coils import loop_array
from mrphys.errors import InputError, Problem
from mrphys.events import Scan
from mrphys.io.output import whole_file
from mrphys.scan import simulate_scan
from mrphys.spins import SpinCloud


def brain_spins(
    scan: Scan,
    spacing_mm: int = 2,
    spins: tuple[int, int, int] = (1, 1, 8),
    field_t: float = 3.0,
) -> SpinCloud:
    """The MNI brain about its own middle, cut to the slab that the sequence excites.

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
    return SpinCloud.from_volume(head.tissue(field_t), affine, spins=spins, inside=inside)


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


def save_images(path: Path, images: dict[float, Float[np.ndarray, "..."]]) -> None:
    """A PNG of magnitude images side by side, x to the right and y up, the middle of volumes.

    Each is scaled to its own 99.5th percentile.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(images), 4.3), layout="constrained")
    for axes, (frequency, image) in zip(
        figure.subplots(1, len(images), squeeze=False)[0], images.items(), strict=True
    ):
        flat = image[..., image.shape[2] // 2] if image.ndim == 3 else np.atleast_2d(image)
        top = float(np.percentile(flat, 99.5)) or 1.0
        axes.imshow(flat.T, cmap="gray", origin="lower", vmin=0, vmax=top)
        axes.set_title(f"{frequency:+.0f} Hz" if len(images) > 1 else "", fontsize=9)
        axes.set_axis_off()
    with whole_file(path) as draft:
        figure.savefig(draft, dpi=120)
