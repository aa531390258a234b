"""Images of raw data on one sheet."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from oncology.raw_images import RawImages

MOST = 12


def draw_images(made: "RawImages", title: str) -> "Figure":
    """Magnitudes, of up to 12 slices and frames evenly taken, in one grey scale, then the phase of
    the middle one: first axis to the right, second up, as it lies in the scanner's files."""
    from matplotlib.figure import Figure

    axes = len(made.raw.shown)
    flat = made.x.reshape(-1, *made.x.shape[made.x.ndim - axes :])
    if axes == 3:
        flat = np.moveaxis(flat, -1, 1).reshape(-1, *flat.shape[1:3])
    chosen = np.unique(np.linspace(0, len(flat) - 1, min(MOST, len(flat))).round().astype(int))
    columns = min(len(chosen) + 1, 4)
    rows = -(-(len(chosen) + 1) // columns)
    figure = Figure(figsize=(3.2 * columns, 3.4 * rows), layout="constrained")
    figure.suptitle(title, fontsize=11)
    cells = figure.subplots(rows, columns, squeeze=False).ravel()
    for cell in cells:
        cell.set_axis_off()
    magnitude = np.abs(flat[chosen])
    top = float(np.percentile(magnitude, 99.7)) or 1.0
    across, up = (f / n for f, n in zip(made.raw.fov_mm[:2], made.raw.shape[:2], strict=True))
    for cell, image, index in zip(cells, magnitude, chosen, strict=False):
        cell.imshow(image.T, cmap="gray", origin="lower", vmin=0, vmax=top, aspect=up / across)
        if len(flat) > 1:
            cell.set_title(f"{index}", fontsize=9)
    last = cells[len(chosen)]
    phase = np.angle(flat[chosen[len(chosen) // 2]])
    last.imshow(phase.T, cmap="twilight", origin="lower", vmin=-np.pi, vmax=np.pi,
                aspect=up / across)  # fmt: skip
    last.set_title("phase", fontsize=9)
    return figure
