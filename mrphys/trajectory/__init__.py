"""φ: where samples lie, k in cycles per field of view, (shots, samples, axes).

radial, kooshball     spokes: uniform, golden angles, golden means over the sphere
spiral                Archimedean or of variable density, as fast as the gradients allow
spline, spline_of     B-splines of control points, their derivatives; the nearest spline to points
lines                 a grid's lines in the order they are taken, as EPI takes them
Limits                what gradients can do: checked, or as a penalty with a derivative
of_scan               of any Pulseq sequence
"""

from mrphys.trajectory.hardware import Limits, gradients
from mrphys.trajectory.lines import lines
from mrphys.trajectory.played import of_scan
from mrphys.trajectory.radial import kooshball, radial
from mrphys.trajectory.spiral import spiral
from mrphys.trajectory.spline import spline, spline_gradients, spline_of

__all__ = [
    "Limits",
    "gradients",
    "kooshball",
    "lines",
    "of_scan",
    "radial",
    "spiral",
    "spline",
    "spline_gradients",
    "spline_of",
]
