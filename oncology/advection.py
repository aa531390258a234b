r"""Cells that are carried or drawn: ∂u/∂t + ∇·(v u) = 0 on voxels, conservative, second order.

face_velocity    the gradient of what draws cells, on the faces between them
advect           one step, as many substeps as the fastest flow needs

Fluxes are upwind with van Leer's limiter, steps those of Heun (strong stability preserving): where
u is smooth and monotone second order in space and time, never below zero at Courant numbers up to
1/2.
van Leer 1974, doi:10.1016/0021-9991(74)90019-9; Shu & Osher 1988,
doi:10.1016/0021-9991(88)90177-5.
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jaxtyping import Array, ArrayLike, Bool, Float

COURANT = 0.5


def face_velocity(
    signal: Float[Array, "x y z"],
    habitable: Bool[Array, "x y z"],
    spacing_mm: Sequence[float],
) -> Float[Array, "3 x y z"]:
    """∂signal/∂x between each voxel and the next along every axis, 0 where one is not habitable:
    a velocity for cells that climb it (chemotaxis, haptotaxis), times their sensitivity."""
    along = []
    for axis, h in enumerate(spacing_mm):
        rise = _next(signal, axis) - signal
        open_face = habitable & _next(habitable, axis) & _not_last(signal.shape, axis)
        along.append(jnp.where(open_face, rise / h, 0.0))
    return jnp.stack(along)


def advect(
    u: Float[Array, "x y z"],
    velocity_mm_per_day: Float[Array, "3 x y z"],
    step_days: ArrayLike,
    spacing_mm: Sequence[ArrayLike],
    substeps: int,
) -> Float[Array, "x y z"]:
    """u after a step; velocities lie on the faces towards the next voxel, those of the last one
    along each axis being closed. See `substeps_needed`."""
    h = jnp.asarray(step_days, u.dtype) / substeps

    def change(v: Array) -> Array:
        return h * _inflow(v, velocity_mm_per_day, spacing_mm)

    def substep(_: ArrayLike, v: Array) -> Array:
        first = v + change(v)
        return (v + first + change(first)) / 2

    return lax.fori_loop(0, substeps, jax.checkpoint(substep), u)


def substeps_needed(
    step_days: float, fastest_mm_per_day: Sequence[float], spacing_mm: Sequence[float]
) -> int:
    """Substeps of Courant number 1/2 for the largest speed along each axis."""
    flow = sum(v / h for v, h in zip(fastest_mm_per_day, spacing_mm, strict=True))
    return max(1, math.ceil(flow * step_days / COURANT - 1e-9))


def _inflow(u: Array, velocity: Array, spacing_mm: Sequence[ArrayLike]) -> Array:
    balance = jnp.zeros_like(u)
    for axis, h in enumerate(spacing_mm):
        if u.shape[axis] == 1:
            continue
        v = velocity[axis] * _not_last(u.shape, axis)
        jump = _next(u, axis) - u
        back, ahead = _previous(jump, axis), _next(jump, axis)
        rightwards = u + _limited(jump, back) / 2
        leftwards = _next(u, axis) - _limited(jump, ahead) / 2
        flux = jnp.maximum(v, 0.0) * rightwards + jnp.minimum(v, 0.0) * leftwards
        balance = balance - (flux - _previous(flux, axis)) / h
    return balance


def _limited(a: Array, b: Array) -> Array:
    """van Leer: the harmonic mean of two slopes of one sign, else 0."""
    product = a * b
    same = product > 0
    return jnp.where(same, 2 * product / jnp.where(same, a + b, 1.0), 0.0)


def _next(field: Array, axis: int) -> Array:
    return jnp.roll(field, -1, axis)


def _previous(field: Array, axis: int) -> Array:
    """Of jumps and fluxes, whose last along the axis is closed or counts for nothing."""
    return jnp.roll(field, 1, axis)


def _not_last(shape: Sequence[int], axis: int) -> np.ndarray:
    inside = np.ones(shape, bool)
    inside[(slice(None),) * axis + (-1,)] = False
    return inside
