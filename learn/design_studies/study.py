"""What a study of a design hands back, and how it is drawn."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import ArrayLike

from learn.design import Design

Progress = Callable[[int, int, float], None]
COLOURS = {"before": "0.55", "after": "C0", "known": "C3"}


def silent(step: int, of: int, value: float) -> None:
    """No progress."""


class Row(NamedTuple):
    """One quantity, before and after; known where a closed form gives the optimum."""

    quantity: str
    before: float
    after: float
    unit: str = ""
    known: float | None = None


class Line(NamedTuple):
    """y over x; `when` it is of, before or after, chooses the colour, `style` the line."""

    label: str
    x: ArrayLike | list
    y: ArrayLike | list
    when: str
    style: str = "-"


class Panel(NamedTuple):
    """Lines with one pair of axes."""

    title: str
    x: str
    y: str
    lines: list[Line]


class Study(NamedTuple):
    """A design, what it gained, and pictures of it: the train, and what it makes of the tissue."""

    name: str
    title: str
    design: Design
    rows: list[Row]
    panels: list[Panel]

    def __str__(self) -> str:
        """The title, and a line for each row."""
        lines = [self.title]
        for row in self.rows:
            known = "" if row.known is None else f"   (known: {row.known:.4g})"
            change = f"{row.before:10.4g} -> {row.after:10.4g}"
            lines.append(f"  {row.quantity:42} {change} {row.unit}{known}".rstrip())
        return "\n".join(lines)

    def plain(self) -> dict[str, Any]:
        """Numbers, lists and strings, for JSON."""
        design = self.design
        return {
            "study": self.name,
            "title": self.title,
            "rows": [row._asdict() for row in self.rows],
            "loss": {
                "before": design.before,
                "after": design.after,
                "before_the_raster": design.unrounded,
                "of_starts": design.of_starts,
                "history": design.history,
            },
            "variables": {name: np.asarray(v).tolist() for name, v in design.variables.items()},
            "constraints": [
                {
                    "constraint": str(held.constraint),
                    "unit": held.constraint.unit,
                    "before": held.before,
                    "after": held.after,
                }
                for held in design.held
            ],
        }


def draw(study: Study) -> Any:
    """A matplotlib figure: the panels of the study, and the loss over the steps."""
    from matplotlib.figure import Figure

    panels = [*study.panels, _loss(study.design)]
    columns = 3 if len(panels) != 4 else 2
    rows = -(-len(panels) // columns)
    figure = Figure(figsize=(4.4 * columns, 3.2 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in all_axes[len(panels) :]:
        axes.remove()
    for axes, panel in zip(all_axes, panels, strict=False):
        for line in panel.lines:
            axes.plot(
                np.asarray(line.x), np.asarray(line.y), line.style,
                color=COLOURS.get(line.when, line.when), label=line.label or None,
                lw=1.2, ms=5,
            )  # fmt: skip
        axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
        axes.spines[["top", "right"]].set_visible(False)
        if any(line.label for line in panel.lines):
            axes.legend(fontsize="small", frameon=False)
    figure.suptitle(study.title)
    return figure


def _loss(design: Design) -> Panel:
    """The loss at each step, beside where it began and ended."""
    steps = np.arange(1, len(design.history) + 1)
    ends = np.array([0, max(len(design.history), 1)])
    lines = [
        Line("", steps, design.history, "after"),
        Line("before", ends, np.full(2, design.before), "before", "--"),
        Line("after", ends, np.full(2, design.after), "after", "--"),
    ]
    return Panel("loss", "step", "loss", lines)


def degrees(flip_rad: ArrayLike) -> np.ndarray:
    """Flip angles for people."""
    return np.asarray(np.rad2deg(np.asarray(flip_rad)))


def mean(values: ArrayLike) -> float:
    """Of all voxels."""
    return float(jnp.mean(jnp.asarray(values)))
