"""The report's pictures of space: slices with contours, maps with colour bars.

Volumes are (x, y, z) in RAS+ order. Slices follow the radiological convention: the patient's right
is on the left of axial and coronal slices, anterior is up (axial) or on the left (sagittal).
Voxels keep their physical aspect. Observed is orange and solid, forecast is blue and dashed
(Okabe and Ito 2008, distinguishable under every common colour blindness).
"""

import base64
import io
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from mrphys.errors import InputError, Problem

if TYPE_CHECKING:
    from matplotlib.axes import Axes

OBSERVED, FORECAST, FORECAST_LINE = "#E69F00", "#56B4E9", "#0072B2"
CROP_MARGIN_MM = 25.0
MEASURED_RIM_MM = 10.0
_SHEET_IN, _WIDEST_IN, _GAP_IN, _TITLE_IN, _BAR_IN = 7.6, 2.0, 0.05, 0.24, 0.42
_THIN_GRID = 8
_DENSITY_LABEL = "cellularity, fraction of carrying capacity"


@dataclass(frozen=True, eq=False)
class Band:
    """A quantity in time with its 95 % interval, each of shape (n,)."""

    mean: np.ndarray
    low95: np.ndarray
    high95: np.ndarray


@dataclass(frozen=True, eq=False)
class Curve:
    """Forecast volume and total cellularity [mm³] over `days` (n,)."""

    days: np.ndarray
    volume_mm3: Band
    total_cellularity_mm3: Band


@dataclass(frozen=True, eq=False)
class VisitPicture:
    """What was seen at one visit; `cellularity` and `mask` (x, y, z), None where not observed."""

    day: float | int
    session: str | None
    cellularity: np.ndarray | None
    mask: np.ndarray | None
    role: Literal["calibration", "forecast"]


@dataclass(frozen=True, eq=False)
class Pictures:
    """Everything the report draws: volumes (x, y, z) on one grid of voxels `spacing_mm`.

    `anatomy` is the greyscale background, `tissue` stands in for it where there is none.
    `treatments` holds (day, kind, dose, agent) with dose in Gy for radiation, else relative.
    Raises InputError where grids or curve lengths differ or the voxel size is not positive.
    """

    spacing_mm: tuple[float, ...] | np.ndarray
    anatomy: np.ndarray | None
    tissue: np.ndarray | None
    visits: tuple[VisitPicture, ...]
    forecast_mean: np.ndarray
    forecast_sd: np.ndarray
    forecast_mask: np.ndarray
    curve: Curve
    treatments: tuple[tuple, ...] = ()

    def __post_init__(self):
        spacing = np.asarray(self.spacing_mm, dtype=float)
        grid = self.forecast_mean.shape
        problems = []
        if spacing.shape != (3,) or not np.all((spacing > 0) & np.isfinite(spacing)):
            problems.append(Problem("spacing_mm", str(spacing), "three positive lengths in mm"))
        if len(grid) != 3:
            problems.append(Problem("forecast_mean", f"shape {grid}", "a grid (x, y, z)"))
        volumes = [("anatomy", self.anatomy), ("tissue", self.tissue)]
        volumes += [("forecast_sd", self.forecast_sd), ("forecast_mask", self.forecast_mask)]
        for visit in self.visits:
            volumes.append((f"cellularity on day {visit.day:g}", visit.cellularity))
            volumes.append((f"mask on day {visit.day:g}", visit.mask))
        for name, volume in volumes:
            if volume is not None and volume.shape != grid:
                expected = f"{grid}, the grid of forecast_mean"
                problems.append(Problem(name, f"shape {volume.shape}", expected))
        for name in ("volume_mm3", "total_cellularity_mm3"):
            band = getattr(self.curve, name)
            shapes = {np.shape(values) for values in (band.mean, band.low95, band.high95)}
            if shapes != {np.shape(self.curve.days)}:
                expected = "one value for each day"
                problems.append(Problem(f"curve.{name}", f"shapes {sorted(shapes)}", expected))
        if problems:
            raise InputError(*problems)

    @property
    def predicted(self) -> VisitPicture | None:
        """The visit that the forecast maps are for; None where no such visit is given."""
        return next((v for v in reversed(self.visits) if v.role == "forecast"), None)

    @property
    def earlier(self) -> list[VisitPicture]:
        """Visits with something to see, other than the predicted one."""
        others = (visit for visit in self.visits if visit is not self.predicted)
        return [v for v in others if v.mask is not None or v.cellularity is not None]

    @property
    def last_outlined(self) -> VisitPicture | None:
        """The latest earlier visit with a tumour mask."""
        return next((v for v in reversed(self.earlier) if v.mask is not None), None)


class Sheet(NamedTuple):
    """A PNG as a data URI, and the share of the page's width it asks for."""

    uri: str
    width_percent: float


class Plane(NamedTuple):
    """One family of slices: its normal axis; the letters left, right, above and below it."""

    name: str
    normal: int
    letters: str

    def section(self, volume: np.ndarray, index: int) -> np.ndarray:
        return np.take(volume, index, axis=self.normal).T

    def flat(self, per_axis: Any) -> tuple[Any, Any]:
        """The (horizontal, vertical) entries of something given per axis (x, y, z)."""
        horizontal, vertical = (axis for axis in range(3) if axis != self.normal)
        return per_axis[horizontal], per_axis[vertical]


PLANES = (Plane("axial", 2, "RLAP"), Plane("coronal", 1, "RLSI"), Plane("sagittal", 0, "APSI"))


class _View:
    """Where to look: the planes worth showing, the slice of each, and the crop in mm."""

    def __init__(self, pictures: Pictures):
        self.pictures = pictures
        self.spacing = np.asarray(pictures.spacing_mm, dtype=float)
        self.shape = pictures.forecast_mean.shape
        thin = min(PLANES, key=lambda plane: self.shape[plane.normal])
        self.planes = (thin,) if self.shape[thin.normal] <= _THIN_GRID else PLANES
        masks = [v.mask for v in pictures.visits if v.mask is not None]
        self.presence = np.sum([*masks, pictures.forecast_mask], axis=0, dtype=float)
        if not self.presence.any():
            self.presence = np.nan_to_num(pictures.forecast_mean) > 0.02
        self.profiles = [self.presence.sum(axis=across) for across in ((1, 2), (0, 2), (0, 1))]
        self.focus = [int(np.median(np.flatnonzero(p == p.max()))) for p in self.profiles]
        self.whole_mm = np.outer(self.shape * self.spacing, (0.0, 1.0))
        self.box_mm = self._crop()
        self.grey, self.window = self._background()

    def _crop(self) -> np.ndarray:
        """A cube around the tumour with a margin, moved and cut to lie inside the grid."""
        if not self.presence.any():
            return self.whole_mm
        ends = np.array([np.flatnonzero(p)[[0, -1]] + (0, 1) for p in self.profiles])
        ends = ends * self.spacing[:, None]
        side = np.max(ends[:, 1] - ends[:, 0]) + 2 * CROP_MARGIN_MM
        low = np.clip(ends.mean(axis=1) - side / 2, 0, np.maximum(self.whole_mm[:, 1] - side, 0))
        return np.stack([low, np.minimum(low + side, self.whole_mm[:, 1])], axis=1)

    def _background(self) -> tuple[np.ndarray, tuple[float, float]]:
        if self.pictures.anatomy is not None:
            grey = np.nan_to_num(np.asarray(self.pictures.anatomy, dtype=float))
            lit = grey[grey != 0]
            low, high = np.percentile(lit, (1, 99.5)) if lit.size else (0.0, 1.0)
            return grey, (min(low, 0.0), high)
        if self.pictures.tissue is not None:
            return 0.4 * (np.asarray(self.pictures.tissue, dtype=float) > 0), (0.0, 1.0)
        return np.zeros(self.shape), (0.0, 1.0)

    @property
    def crops(self) -> bool:
        """Whether the crop hides enough of the slice for a whole view to help."""
        kept = np.ptp(self.box_mm, axis=1) / self.whole_mm[:, 1]
        return bool(np.prod(self.planes[0].flat(kept)) < 0.7)

    def aspect(self, plane: Plane) -> float:
        width, height = (np.ptp(ends) for ends in plane.flat(self.box_mm))
        return float(np.clip(height / width, 0.3, 1.3))


def _fill(box: tuple, aspect: float) -> tuple[np.ndarray, np.ndarray]:
    """Widen a (horizontal, vertical) box [mm] until it has the aspect of its panel."""
    (horizontal, vertical), half = box, np.array([-0.5, 0.5])
    width = max(np.ptp(horizontal), np.ptp(vertical) / aspect)
    return horizontal.mean() + half * width, vertical.mean() + half * width * aspect


def _paint(axes, view: _View, plane: Plane, section, interpolation, cmap, vmin, vmax, alpha=None):
    extent = [float(edge) for ends in plane.flat(view.whole_mm) for edge in ends]
    return axes.imshow(section, extent=extent, origin="lower", aspect="auto", cmap=cmap, vmin=vmin,
                       vmax=vmax, alpha=alpha, interpolation=interpolation)  # fmt: skip


def _slice(axes: "Axes", view: _View, plane: Plane, index: int, whole=False, lettered=False):
    """The greyscale background of one slice; if `lettered`, with directions and a scale bar."""
    smooth = "nearest" if view.pictures.anatomy is None else "bilinear"
    _paint(axes, view, plane, plane.section(view.grey, index), smooth, "gray", *view.window)
    panel = axes.get_window_extent()
    box = plane.flat(view.whole_mm if whole else view.box_mm)
    horizontal, vertical = _fill(box, panel.height / panel.width)
    axes.set(xlim=horizontal[::-1], ylim=vertical, xticks=[], yticks=[], facecolor="black")
    if not lettered:
        return
    left, right, top, bottom = plane.letters
    _write(axes, 0.02, 0.5, left, va="center")
    _write(axes, 0.98, 0.5, right, ha="right", va="center")
    _write(axes, 0.5, 0.985, top, ha="center", va="top")
    _write(axes, 0.5, 0.015, bottom, ha="center")
    width = np.ptp(horizontal)
    ruler = max(step for step in (1, 2, 5, 10, 20, 50) if step <= max(width / 3, 1))
    axes.plot([0.96 - ruler / width, 0.96], [0.04] * 2, "w", transform=axes.transAxes, lw=1.6)
    _write(axes, 0.96 - ruler / width / 2, 0.055, f"{ruler} mm", ha="center")


def _write(axes: "Axes", x: float, y: float, text: str, **placed) -> None:
    from matplotlib.patheffects import withStroke

    outline = [withStroke(linewidth=1.5, foreground="black")]
    axes.text(x, y, text, transform=axes.transAxes, color="white", fontsize=6.5,
              path_effects=outline, parse_math=False, **placed)  # fmt: skip


def _contour(axes, view: _View, plane: Plane, index: int, mask, colour: str, style: str) -> None:
    """Outline of a mask in one slice; closed at the edge of the grid, nothing where it is empty."""
    from matplotlib.patheffects import withStroke

    section = np.pad(plane.section(np.asarray(mask) > 0, index), 1).astype(float)
    if not section.any():
        return
    cells = zip(plane.flat(view.shape), plane.flat(view.spacing), strict=True)
    centres = [(np.arange(-1, n + 1) + 0.5) * h for n, h in cells]
    lines = axes.contour(*centres, section, levels=[0.5], colors=[colour], linestyles=[style])
    shade = withStroke(linewidth=2.2, foreground="black", alpha=0.6)
    lines.set(linewidth=1.3, path_effects=[shade])


def _overlay(axes, view: _View, plane: Plane, index: int, values, top: float, cmap: str):
    """A map in colour over the background, fading out below a fifth of `top`."""
    section = np.nan_to_num(plane.section(np.asarray(values, dtype=float), index))
    alpha = np.clip(5 * section / top, 0, 1)
    return _paint(axes, view, plane, section, "nearest", cmap, 0.0, top, alpha)


def _measured(view: _View, visit: VisitPicture) -> np.ndarray | None:
    """Measured cellularity near the outlined tumour; far from it the map is noise and anatomy."""
    if visit.cellularity is None or visit.mask is None or not np.any(visit.mask):
        return visit.cellularity
    from scipy.ndimage import distance_transform_edt

    distance_mm = np.asarray(distance_transform_edt(visit.mask == 0, sampling=view.spacing))
    return np.where(distance_mm <= MEASURED_RIM_MM, visit.cellularity, 0.0)


class _Grid:
    """Panels of equal width, laid out in inches from the top."""

    def __init__(self, columns: int, aspects: list[float], titles: list[str], bars: bool):
        from matplotlib.figure import Figure

        self.panel_in = min(_WIDEST_IN, (_SHEET_IN + _GAP_IN) / columns - _GAP_IN)
        self.width_in = columns * (self.panel_in + _GAP_IN) - _GAP_IN
        heights = [self.panel_in * aspect for aspect in aspects]
        tops = np.cumsum([_TITLE_IN if titles else 0.0, *(h + _GAP_IN for h in heights)])
        self.bars_in = tops[-1]
        self.height_in = self.bars_in + (_BAR_IN if bars else -_GAP_IN)
        self.figure = Figure(figsize=(self.width_in, self.height_in), dpi=200)
        self.axes = [
            [self._at(column, top, 1, height) for column in range(columns)]
            for top, height in zip(tops, heights, strict=False)
        ]
        for axes, title in zip(self.axes[0], titles, strict=False):
            axes.set_title(title, fontsize=8, pad=4)

    def _at(self, column: int, top_in: float, span: int, height_in: float) -> "Axes":
        step_in, bottom_in = self.panel_in + _GAP_IN, self.height_in - top_in - height_in
        box_in = (column * step_in, bottom_in, span * step_in - _GAP_IN, height_in)
        left, bottom, width, height = np.divide(box_in, [self.width_in, self.height_in] * 2)
        return self.figure.add_axes((left, bottom, width, height))

    def bar(self, mappable, column: int, span: int, label: str) -> None:
        axes = self._at(column, self.bars_in + 0.03, span, 0.08)
        bar = self.figure.colorbar(mappable, cax=axes, orientation="horizontal")
        ends = np.linspace(mappable.norm.vmin, mappable.norm.vmax, 3)
        bar.set_ticks(ends, labels=[f"{end:.2g}" for end in ends])
        bar.ax.tick_params(labelsize=6, length=2, pad=1.5)
        bar.ax.get_xticklabels()[0].set_horizontalalignment("left")
        bar.ax.get_xticklabels()[-1].set_horizontalalignment("right")
        bar.set_label(label, fontsize=6.5, labelpad=2)

    def png(self) -> Sheet:
        buffer = io.BytesIO()
        self.figure.savefig(buffer, format="png", metadata={"Software": None})
        code = base64.b64encode(buffer.getvalue()).decode("ascii")
        return Sheet(f"data:image/png;base64,{code}", min(100.0, 100 * self.width_in / _SHEET_IN))


def visits_sheet(pictures: Pictures) -> Sheet | None:
    """Each earlier visit in the same slice: cellularity over the background, observed outline."""
    if not pictures.earlier:
        return None
    view = _View(pictures)
    plane = view.planes[0]
    index = view.focus[plane.normal]
    columns, rows = min(len(pictures.earlier), 4), -(-len(pictures.earlier) // 4)
    coloured = any(visit.cellularity is not None for visit in pictures.earlier)
    grid = _Grid(columns, [view.aspect(plane)] * rows, [], bars=coloured)
    panels = [axes for row in grid.axes for axes in row]
    for axes in panels[len(pictures.earlier) :]:
        axes.remove()
    for axes, visit in zip(panels, pictures.earlier, strict=False):
        _slice(axes, view, plane, index, lettered=axes is panels[0])
        if visit.cellularity is not None:
            shown = _overlay(axes, view, plane, index, _measured(view, visit), 1.0, "viridis")
        if visit.mask is not None:
            _contour(axes, view, plane, index, visit.mask, OBSERVED, "solid")
        _write(axes, 0.03, 0.97, f"{visit.session or 'visit'}, day {visit.day:g}", va="top")
    if coloured:
        grid.bar(shown, 0, min(columns, 2), _DENSITY_LABEL)
    return grid.png()


def _outlines(axes: "Axes", view: _View, plane: Plane, index: int) -> None:
    """Observed against forecast on the predicted day; the last observed (dotted) where unseen."""
    pictures = view.pictures
    if pictures.predicted is not None and pictures.predicted.mask is not None:
        _contour(axes, view, plane, index, pictures.predicted.mask, OBSERVED, "solid")
    elif (last := pictures.last_outlined) is not None:
        _contour(axes, view, plane, index, last.mask, OBSERVED, "dotted")
    _contour(axes, view, plane, index, pictures.forecast_mask, FORECAST, "dashed")


def forecast_sheet(pictures: Pictures) -> Sheet:
    """The predicted day in each plane: outlines, observed and forecast cellularity, its sd."""
    from matplotlib.patches import Rectangle

    view = _View(pictures)
    observed = None if pictures.predicted is None else _measured(view, pictures.predicted)
    spread = float(np.nan_to_num(pictures.forecast_sd, posinf=0.0).max())
    decade = 10.0 ** np.floor(np.log10(spread)) if spread > 0 else 1.0
    top = float(np.ceil(spread / decade) * decade) or 1.0
    maps = [("Forecast mean", pictures.forecast_mean, 1.0, "viridis"),
            ("Forecast sd", pictures.forecast_sd, top, "magma")]  # fmt: skip
    if observed is not None:
        maps.insert(0, ("Observed cellularity", observed, 1.0, "viridis"))
    titles = ["Whole slice"] * view.crops + ["Outlines"] + [title for title, *_ in maps]
    shown = {}
    grid = _Grid(len(titles), [view.aspect(plane) for plane in view.planes], titles, bars=True)
    for plane, row in zip(view.planes, grid.axes, strict=True):
        index = view.focus[plane.normal]
        panels = dict(zip(titles, row, strict=True))
        for title, axes in panels.items():
            _slice(axes, view, plane, index, title == "Whole slice", lettered=axes in row[:2])
        if view.crops:
            _outlines(row[0], view, plane, index)
            corner, size = plane.flat(view.box_mm[:, 0]), plane.flat(np.ptp(view.box_mm, axis=1))
            row[0].add_patch(Rectangle(corner, *size, fill=False, ec="white", lw=0.8))
        _outlines(panels["Outlines"], view, plane, index)
        for title, values, top, cmap in maps:
            shown[title] = _overlay(panels[title], view, plane, index, values, top, cmap)
        _write(row[0], 0.03, 0.97, f"{plane.name} {index + 1}", va="top")
    last, span = len(titles) - 1, 1 if observed is None else 2
    label = _DENSITY_LABEL if span == 2 else "fraction of capacity"
    grid.bar(shown["Forecast mean"], last - span, span, label)
    grid.bar(shown["Forecast sd"], last, 1, "sd, fraction of capacity")
    return grid.png()


def further_sheet(pictures: Pictures, at_most: int = 5) -> Sheet | None:
    """Outlines in other slices through the tumour, evenly spread; None for a single slice."""
    view = _View(pictures)
    plane = view.planes[0]
    held = np.flatnonzero(view.profiles[plane.normal])
    others = held[held != view.focus[plane.normal]]
    if others.size == 0:
        return None
    picks = others[np.unique(np.linspace(0, others.size - 1, at_most + 2).round().astype(int))]
    picks = picks[1:-1] if others.size > at_most else others
    grid = _Grid(len(picks), [view.aspect(plane)], [], bars=False)
    for axes, index in zip(grid.axes[0], picks, strict=True):
        _slice(axes, view, plane, int(index), lettered=index == picks[0])
        _outlines(axes, view, plane, int(index))
        offset_mm = (index - view.focus[plane.normal]) * view.spacing[plane.normal]
        _write(axes, 0.03, 0.97, f"{offset_mm:+.3g} mm".replace("-", "−"), va="top")
    return grid.png()
