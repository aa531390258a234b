"""Receive coils: loops of wire around the head, by the law of Biot and Savart."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.units import check_finite, check_range

Points = Float[Array | np.ndarray, "points 3"]


def loop_field(
    points_mm: Points,
    centre_mm: Float[Array | np.ndarray, "3"],
    normal: Float[Array | np.ndarray, "3"],
    radius_mm: float,
    segments: int = 128,
) -> Float[Array, "points 3"]:
    """The magnetic field of a circular loop in units of µ0 I / 4π per mm.

    B(r) = ∮ dl × (r - r') / |r - r'|³ by the midpoint rule, whose error falls exponentially with
    `segments` away from the wire. The current turns right-handed about `normal`. Differentiable
    in the points. Singular on the wire.

    Source: Jackson, Classical Electrodynamics, 3rd ed. 1998, section 5.2.

    >>> at_centre = loop_field(np.zeros((1, 3)), np.zeros(3), np.array([0.0, 0.0, 1.0]), 10.0)
    >>> round(float(at_centre[0, 2]), 4)  # 2π / radius
    0.6283
    """
    points = jnp.asarray(points_mm)
    points = points if jnp.issubdtype(points.dtype, jnp.floating) else points.astype(float)
    normal = jnp.asarray(normal, points.dtype)
    normal = normal / jnp.linalg.norm(normal)
    other = jnp.eye(3, dtype=points.dtype)[jnp.argmin(jnp.abs(normal))]
    u = jnp.cross(normal, other)
    u = u / jnp.linalg.norm(u)
    v = jnp.cross(normal, u)
    angle = 2 * jnp.pi * jnp.arange(segments, dtype=points.dtype) / segments
    round_ = jnp.cos(angle)[:, None] * u[None] + jnp.sin(angle)[:, None] * v[None]
    along = -jnp.sin(angle)[:, None] * u[None] + jnp.cos(angle)[:, None] * v[None]
    wire = jnp.asarray(centre_mm, points.dtype)[None] + radius_mm * round_
    element = along * (2 * jnp.pi * radius_mm / segments)

    def add(field, piece):
        place, dl = piece
        away = points - place[None]
        cubed = jnp.sum(away**2, axis=1) ** 1.5
        return field + jnp.cross(dl[None], away) / cubed[:, None], None

    return jax.lax.scan(add, jnp.zeros_like(points), (wire, element))[0]


def loop_array(
    points_mm: Points,
    coils: int = 8,
    *,
    radius_mm: float = 150.0,
    loop_radius_mm: float | None = None,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Complex[Array, "coils points"]:
    """Receive sensitivities of loops evenly round a cylinder along z, facing its axis.

    c(r) = Bx - i By of each loop, by reciprocity for M+ that precesses clockwise, divided so that
    the root of the sum of squares is 1 at the centre. Coil 0 lies at +x, the others follow towards
    +y.

    loop_radius_mm  neighbours overlap by a quarter of a diameter when not given (at most 0.6 of
                    radius_mm)

    Quasi-static: no wave or loading effects of tissue. Raises InputError for fewer than one coil,
    or points beyond 0.9 of the cylinder's radius, where the wires' own field diverges.

    Source: Hoult and Richards 1976, doi 10.1016/0022-2364(76)90233-X (reciprocity).
    """
    if coils < 1:
        raise InputError(Problem("loop_array: coils", f"{coils}", "one or more"))
    check_range("loop_array: radius_mm", radius_mm, 1.0, 1e4, "mm", "metres given for millimetres")
    check_finite("loop_array: points_mm", points_mm)
    centre = np.asarray(centre_mm, float)
    if not isinstance(points_mm, Tracer):
        off_axis = np.linalg.norm((np.asarray(points_mm) - centre)[:, :2], axis=1)
        if off_axis.max(initial=0.0) > 0.9 * radius_mm:
            found = f"points {off_axis.max():.0f} mm from the axis"
            expected = f"at most 0.9 of the array's radius, {radius_mm:g} mm"
            raise InputError(Problem("loop_array", found, expected, "an array too small"))
    loop = loop_radius_mm
    if loop is None:
        loop = radius_mm * min(0.6, 1.25 * np.tan(np.pi / max(coils, 3)))
    angle = 2 * np.pi * np.arange(coils) / coils
    outward = np.stack([np.cos(angle), np.sin(angle), np.zeros(coils)], -1)

    def field(points):
        one = [loop_field(points, centre + radius_mm * out, -out, loop) for out in outward]
        stacked = jnp.stack(one)
        return jax.lax.complex(stacked[..., 0], -stacked[..., 1])

    scale = jnp.linalg.norm(field(jnp.asarray(centre[None])))
    sensitivity = field(points_mm)
    return sensitivity / scale.astype(sensitivity.real.dtype)
