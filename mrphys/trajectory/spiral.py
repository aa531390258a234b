"""Spirals as fast as the gradients allow."""

import math
from collections.abc import Callable
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicHermiteSpline, CubicSpline

from mrphys.errors import InputError, Problem
from mrphys.trajectory.hardware import Limits
from mrphys.units import PROTON_GYROMAGNETIC_RATIO_HZ_PER_T, check_count, check_range

STEPS_PER_TURN = 500
SPARED = 0.995
"""Part of the slew rate that is used: differences of samples exceed derivatives a little."""


def spiral(
    interleaves: int,
    matrix: int,
    fov_mm: float | int,
    dwell_s: float = 4e-6,
    *,
    limits: Limits | None = None,
    density: Callable[[np.ndarray], np.ndarray] | float = 1.0,
) -> Float[Array, "interleaves samples 2"]:
    """Spirals from the middle out to |k| = matrix / 2, turned evenly, in the shortest time.

    A turn moves outwards by interleaves / density(r) cycles per field of view, r = 2|k| / matrix:
    density 1 is Nyquist's, a number or a function of r; lambda r: 1.5 - r, say, has more in the
    middle. Along the curve the speed is the largest that gradient and slew rate allow: with v the
    speed and κ the curvature in arc length s,

        v <= γ G,   (dv/dt)² + (κ v²)² <= (γ S)²,

    by one sweep from rest to the end and one back, of whose speeds the lower is taken.

    Raises InputError for densities not above 0, and spirals longer than 0.2 s.

    Source: Lustig, Kim, Pauly 2008, doi:10.1109/TMI.2008.922699 (time-optimal waveforms).
    """
    check_count("spiral: interleaves", interleaves)
    check_count("spiral: matrix", matrix, 2)
    check_range("spiral: fov_mm", fov_mm, 10.0, 2000.0, "mm", "metres given for millimetres")
    check_range("spiral: dwell_s", dwell_s, 1e-7, 1e-3, "s", "microseconds given for seconds")
    limits = limits or Limits()
    curve = _curve(interleaves, matrix, density)
    length, curvature = _geometry(curve)
    hz = PROTON_GYROMAGNETIC_RATIO_HZ_PER_T * fov_mm * 1e-3  # cycles per field of view, s and T/m
    speed = _speed(
        length, curvature, hz * limits.gradient_t_per_m, SPARED * hz * limits.slew_t_per_m_s
    )
    # between points the speed squared is linear in s: exact where the slew rate is constant
    time = np.concatenate([[0.0], np.cumsum(2 * np.diff(length) / (speed[1:] + speed[:-1]))])
    if time[-1] > 0.2:
        cause = "too few interleaves, or limits in other units"
        raise InputError(Problem("spiral", f"{time[-1]:.3g} s", "readouts below 0.2 s", cause))
    at = np.arange(0.0, time[-1], dwell_s)
    one = CubicSpline(length, curve)(CubicHermiteSpline(time, length, speed)(at))
    turned = one[None] * np.exp(2j * np.pi * np.arange(interleaves) / interleaves)[:, None]
    return jnp.asarray(np.stack([turned.real, turned.imag], -1))


def _curve(
    interleaves: int, matrix: int, density: Callable[[np.ndarray], np.ndarray] | float
) -> np.ndarray:
    """r(θ) exp(iθ) from 0 to the edge, dr/dθ = interleaves / (2π density)."""
    edge = matrix / 2
    r = np.linspace(0.0, 1.0, 4097)
    dense = np.broadcast_to(
        np.asarray(density(r) if callable(density) else density, float), r.shape
    )
    if not np.all(dense > 0):
        raise InputError(Problem("spiral: density", f"{dense.min():g}", "above 0 for r of 0 to 1"))
    per_r = 2 * math.pi * edge * dense / interleaves
    angle = np.concatenate([[0.0], np.cumsum((per_r[1:] + per_r[:-1]) / 2 * np.diff(r))])
    count = max(int(angle[-1] / (2 * math.pi) * STEPS_PER_TURN), 8000)
    theta = np.linspace(0.0, angle[-1], count)
    return edge * CubicSpline(angle, r)(theta) * np.exp(1j * theta)


def _geometry(curve: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Arc length and curvature at each point."""
    smooth = CubicSpline(np.arange(curve.size), curve)
    first, second = smooth(np.arange(curve.size), 1), smooth(np.arange(curve.size), 2)
    size = np.maximum(np.abs(first), 1e-12)
    curvature = np.abs(np.imag(np.conj(first) * second)) / size**3
    return np.concatenate([[0.0], np.cumsum(np.abs(np.diff(curve)))]), curvature


def _speed(length: np.ndarray, curvature: np.ndarray, fastest: float, slew: float) -> np.ndarray:
    """|dk/dt| at each point."""
    most = np.minimum(fastest, np.sqrt(slew / np.maximum(curvature, 1e-12)))
    step = np.diff(length)

    def sweep(order: range, start: float) -> np.ndarray:
        speed = np.empty_like(most)
        now = min(start, most[order[0]])
        speed[order[0]] = now
        for before, here in pairwise(order):
            left = slew**2 - (curvature[before] * now**2) ** 2
            gained = 2 * math.sqrt(max(left, 0.0)) * step[min(before, here)]
            now = min(math.sqrt(now**2 + gained), most[here])
            speed[here] = now
        return speed

    forward = sweep(range(most.size), 0.0)
    back = sweep(range(most.size - 1, -1, -1), fastest)
    return np.maximum(np.minimum(forward, back), 1e-9)
