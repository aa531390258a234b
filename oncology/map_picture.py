"""The maps of a series on one sheet: values, standard deviations, status."""

from typing import TYPE_CHECKING, Any

import numpy as np

from mrphys.mapping import AT_BOUNDARY, CONVERGED, FAILED, ILL_DETERMINED, MASKED
from mrphys.maps import Maps
from mrphys.volume import Volume

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SLICES = 3
TILE_IN, GAP_IN, BAR_IN = 2.2, 0.3, 0.6
COLOURS = {
    CONVERGED: ("fitted", "#009E73"),
    AT_BOUNDARY: ("at a bound", "#E69F00"),
    ILL_DETERMINED: ("ill-determined", "#D55E00"),
    FAILED: ("no convergence", "#CC79A7"),
    MASKED: ("not fitted", "#202020"),
}
"""Okabe and Ito 2008, distinguishable under every common colour blindness."""
OTHER = "#56B4E9"
UNITS = {"mm^2/s": "mm²/s", "percent": "%", "arbitrary": "a.u."}


def draw_maps(maps: Maps, title: str) -> "Figure":
    """A sheet of axial slices, the patient's right on the left, anterior up.

    A row for each map: values in up to three slices, the sd in the middle one, in one range each
    over the fitted voxels. Last row: the brightest image, the status, the residual over the noise.
    """
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    grid = maps.series.images
    fitted = maps.status != MASKED
    determined = maps.determined if maps.determined.any() else fitted
    upright = grid.with_data(fitted).to_canonical()
    depth = np.flatnonzero(np.asarray(upright.data).any(axis=(0, 1)))
    share = (np.arange(SLICES) + 1) / (SLICES + 1)
    chosen = np.unique(depth[np.rint(share * (depth.size - 1)).astype(int)]).tolist()
    middle = chosen[len(chosen) // 2]
    width, height = (
        upright.shape[0] * upright.spacing_mm[0],
        upright.shape[1] * upright.spacing_mm[1],
    )
    columns, rows = max(len(chosen), 2), len(maps.values) + 1
    tall = TILE_IN * min(max(height / width, 0.4), 1.6)
    wide = (columns + 1) * TILE_IN + 2 * BAR_IN
    figure = Figure(figsize=(wide, rows * (tall + GAP_IN) + 0.6), layout="constrained")
    figure.suptitle(title, fontsize=11)
    bar = BAR_IN / TILE_IN
    ratios = [*[1.0] * columns, 0.2 * bar, 1.0, 0.2 * bar]
    cells = figure.add_gridspec(rows, columns + 3, width_ratios=ratios)

    def show(place: tuple[int, int], values: np.ndarray, index: int, name: str, **how: Any) -> Any:
        axis = figure.add_subplot(cells[place])
        axis.set_axis_off()
        axis.set_title(name, fontsize=9, loc="left")
        flat = _slice(grid, values, index)
        edges = (width, 0.0, 0.0, height)
        return axis.imshow(flat, origin="lower", extent=edges, interpolation="nearest", **how)

    def scale(place: tuple[int, int], shown: Any, extend: str) -> None:
        axis = figure.add_subplot(cells[place])
        figure.colorbar(shown, cax=axis, extend=extend).ax.tick_params(labelsize=8)

    for i, (output, value) in enumerate(maps.values.items()):
        name = f"{output.suffix} [{UNITS.get(output.unit, output.unit)}]"
        low, high = _window(value[determined])
        blank = np.where(fitted, value, np.nan)
        for j, index in enumerate(chosen):
            how = {"vmin": low, "vmax": high, "cmap": "viridis"}
            shown = show((i, j), blank, index, "" if j else name, **how)
        scale((i, columns), shown, "both")
        sd = np.where(fitted & np.isfinite(maps.sds[output]), maps.sds[output], np.nan)
        most = _window(sd[determined])[1]
        shown = show((i, columns + 1), sd, middle, "its sd", vmin=0.0, vmax=most, cmap="magma")
        scale((i, columns + 2), shown, "max")
    brightest = np.nan_to_num(np.abs(np.asarray(grid.data)).max(axis=-1))
    most = float(np.percentile(brightest, 99.5)) or 1.0
    show((rows - 1, 0), brightest, middle, "brightest image", cmap="gray", vmin=0.0, vmax=most)
    more = {code: (text.partition(":")[0], OTHER) for code, text in maps.protocol.status}
    colours = COLOURS | more
    codes = sorted(colours)
    palette = ListedColormap([colours[code][1] for code in codes])
    index = np.searchsorted(codes, maps.status).astype(float)
    how = {"cmap": palette, "vmin": -0.5, "vmax": len(codes) - 0.5}
    state = show((rows - 1, 1), index, middle, "status", **how)
    keys = [
        Patch(color=colour, label=label)
        for code, (label, colour) in colours.items()
        if (maps.status == code).any()
    ]
    state.axes.legend(
        handles=keys,
        fontsize=7,
        ncols=2,
        loc="upper left",
        bbox_to_anchor=(0.0, 0.0),
        frameon=False,
    )
    over = np.where(fitted, maps.residual / maps.noise_sd, np.nan)
    place = (rows - 1, columns + 1)
    shown = show(place, over, middle, "residual / noise", vmin=0.0, vmax=3.0, cmap="magma")
    scale((rows - 1, columns + 2), shown, "max")
    return figure


def _slice(grid: Volume, values: np.ndarray, index: int) -> np.ndarray:
    """An axial slice as rows from posterior to anterior, columns from left to right."""
    return np.asarray(grid.with_data(values).to_canonical().data)[:, :, index].T


def _window(values: np.ndarray) -> tuple[float, float]:
    """From the 2nd to the 98th percentile: a lesion is seen, a stray voxel does not count."""
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = np.percentile(values, (2, 98)).astype(float)
    return (low, high) if high > low else (low - 0.5, low + 0.5)
