"""Trajectories as B-splines of few control points: smooth, and differentiable in them."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import BSpline

from mrphys.errors import InputError, Problem
from mrphys.units import PROTON_GYROMAGNETIC_RATIO_HZ_PER_T, check_count

Control = Float[Array | np.ndarray, "*shots points axes"]


def spline(
    control: Control, samples: int, *, degree: int = 3, derivative: int = 0
) -> Float[Array, "*shots samples axes"]:
    """k(u) = Σ_i c_i B_i(u) at samples u = 0 ... 1, or a derivative in u.

    The B_i are B-splines of a degree with evenly spaced knots, the first and last repeated so that
    k begins and ends at the first and last control point. They are not negative and sum to 1: k
    stays in the control points' hull, so |c| <= matrix / 2 keeps it in k-space. Linear in c.

    Raises InputError for fewer points than degree + 1.

    Source: de Boor 1978, A Practical Guide to Splines; Wang et al. 2022,
    doi:10.1109/TMI.2022.3161875 (BJORK: k-space trajectories).
    """
    points = jnp.asarray(control)
    basis = _basis(points.shape[-2], samples, degree, derivative)
    return jnp.einsum("sp,...pa->...sa", jnp.asarray(basis, points.dtype), points)


def spline_gradients(
    control: Control,
    samples: int,
    fov_mm: tuple[float | int, ...],
    duration_s: float,
    *,
    degree: int = 3,
) -> tuple[Float[Array, "*shots samples axes"], Float[Array, "*shots samples axes"]]:
    """G = k' / (γ/2π FOV T) in T/m and its slew rate in T/m/s at each sample, by the spline's own
    derivatives; T the duration of a shot."""
    per_m = 1e3 / np.asarray(fov_mm) / PROTON_GYROMAGNETIC_RATIO_HZ_PER_T
    first = spline(control, samples, degree=degree, derivative=1)
    second = spline(control, samples, degree=degree, derivative=2)
    scale = jnp.broadcast_to(per_m, first.shape).astype(first.dtype)
    return first * scale / duration_s, second * scale / duration_s**2


def spline_of(
    k: Float[Array | np.ndarray, "*shots samples axes"], points: int, *, degree: int = 3
) -> Float[Array, "*shots points axes"]:
    """Control points of the spline nearest to a trajectory, by least squares: where a design
    begins. Raises InputError for more points than samples."""
    samples = k.shape[-2]
    if points > samples:
        found = f"{points} control points of {samples} samples"
        raise InputError(Problem("spline_of", found, "at most as many"))
    inverse = np.linalg.pinv(_basis(points, samples, degree, 0))
    values = jnp.asarray(k)
    return jnp.einsum("ps,...sa->...pa", jnp.asarray(inverse, values.dtype), values)


def _basis(points: int, samples: int, degree: int, derivative: int) -> np.ndarray:
    check_count("spline: samples", samples, 2)
    if points <= degree or degree < 1:
        found = f"{points} points of degree {degree}"
        raise InputError(Problem("spline", found, "a degree of 1 or more, more points than it"))
    inner = np.linspace(0, 1, points - degree + 1)
    knots = np.concatenate([np.zeros(degree), inner, np.ones(degree)])
    u = np.linspace(0, 1, samples)
    made = BSpline(knots, np.eye(points), degree)
    if derivative > degree:
        return np.zeros((samples, points))
    return made.derivative(derivative)(u) if derivative else made(u)
