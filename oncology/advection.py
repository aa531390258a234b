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
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
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
    voxels = [v / spacing for v, spacing in zip(velocity_mm_per_day, spacing_mm, strict=True)]
    per_day = jnp.stack(voxels).astype(u.dtype)

    def change(v: Array) -> Array:
        return h * _inflow(v, per_day)

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


@jax.custom_jvp
def _inflow(u: Array, per_day: Array) -> Array:
    """What enters each voxel, 1/day; velocities in voxels a day."""
    return _balance(u, per_day)


@_inflow.defjvp
def _inflow_slopes(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    return _balance(*primals), inflow_along.bind(*primals, *tangents)[0]


def _balance(u: Array, per_day: Array) -> Array:
    balance = jnp.zeros_like(u)
    for axis in (axis for axis, n in enumerate(u.shape) if n > 1):
        here, back, ahead = _jumps(u, axis)
        v = _part(per_day[axis], axis, 0, -1)
        rightwards = _part(u, axis, 0, -1) + _limited(here, back) / 2
        leftwards = _part(u, axis, 1, None) - _limited(here, ahead) / 2
        flux = jnp.maximum(v, 0.0) * rightwards + jnp.minimum(v, 0.0) * leftwards
        entering, leaving = _both_sides(flux, axis)
        balance = balance + entering - leaving
    return balance


def _along(u: Array, per_day: Array, by_u: Array, by_v: Array) -> tuple[Array]:
    """The derivative of the inflow along changes of density and velocity."""
    return (jax.jvp(_balance, (u, per_day), (by_u, by_v))[1],)


def _pulled_back(cotangent: Array, u: Array, per_day: Array) -> tuple[Array, Array]:
    """What a cotangent λ of the inflow is for u and for the velocities.

    A face that carries c at speed v between two voxels gives v g c, g the difference of λ across
    it: so g c is for v, and v g for the voxel upwind and, by the derivatives of the limiter, for
    three jumps of u. Everything reads its neighbours; nothing is scattered.
    """
    slope, speeds = jnp.zeros_like(u), []
    for axis, n in enumerate(u.shape):
        if n == 1:
            speeds.append(jnp.zeros_like(u))
            continue
        here, back, ahead = _jumps(u, axis)
        v = _part(per_day[axis], axis, 0, -1)
        g = _part(cotangent, axis, 1, None) - _part(cotangent, axis, 0, -1)
        right, left = g * jnp.maximum(v, 0.0), g * jnp.minimum(v, 0.0)
        behind, before = _share(here, back), _share(here, ahead)
        rightwards = _part(u, axis, 0, -1) + behind * back
        leftwards = _part(u, axis, 1, None) - before * ahead
        jump = right * jnp.where(behind > 0, (1 - behind) ** 2, 0.0)
        jump = jump - left * jnp.where(before > 0, (1 - before) ** 2, 0.0)
        after = _part(_keep(_closed(right * behind**2, axis)), axis, 2, None)
        jump = _keep(jump + after - _part(_keep(_closed(left * before**2, axis)), axis, 0, -2))
        slope = slope + _both_sides(left + jump, axis)[0] + _both_sides(right - jump, axis)[1]
        ahead_of = jnp.where(v > 0, 1.0, jnp.where(v < 0, 0.0, 0.5))
        carried = ahead_of * rightwards + (1 - ahead_of) * leftwards
        speeds.append(_both_sides(g * carried, axis)[1])
    return slope, jnp.stack(speeds)


def _transpose(cotangents: Any, u: Array, per_day: Array, by_u: Any, by_v: Any) -> list:
    """Linear in the changes alone."""
    if isinstance(cotangents[0], ad.Zero):
        return [None] * 4
    return [None, None, *_pulled_back(cotangents[0], u, per_day)]


def _batch(operands: Sequence, axes: Sequence) -> tuple:
    return jax.vmap(_along, axes)(*operands), (0,)


# An operation of its own, because JAX would transpose every slice and limiter one by one.
inflow_along = Primitive("inflow_along")
inflow_along.multiple_results = True
inflow_along.def_impl(jax.jit(_along))
inflow_along.def_abstract_eval(lambda u, *_: (u,))
mlir.register_lowering(inflow_along, mlir.lower_fun(_along, multiple_results=True))
ad.primitive_jvps[inflow_along] = lambda primals, tangents: jax.jvp(
    _along, tuple(primals), tuple(map(ad.instantiate_zeros, tangents))
)
ad.primitive_transposes[inflow_along] = _transpose
batching.primitive_batchers[inflow_along] = _batch


def _jumps(u: Array, axis: int) -> tuple[Array, Array, Array]:
    """Of u across each face, the one before and the one after; none across the grid's ends."""
    ends = [(int(other == axis),) * 2 for other in range(u.ndim)]
    wide = jnp.pad(u, ends, mode="edge")
    jump = _part(wide, axis, 1, None) - _part(wide, axis, 0, -1)
    return _part(jump, axis, 1, -1), _part(jump, axis, 0, -2), _part(jump, axis, 2, None)


def _keep(field: Array) -> Array:
    """The same field, in memory: writing its first entry over itself keeps the compiler from
    computing it anew inside whatever reads it."""
    return lax.dynamic_update_slice(field, field[:1, :1, :1], (0, 0, 0))


def _closed(faces: Array, axis: int) -> Array:
    """With the two ends of the grid, which nothing crosses."""
    return jnp.pad(faces, [(int(other == axis),) * 2 for other in range(faces.ndim)])


def _both_sides(faces: Array, axis: int) -> tuple[Array, Array]:
    """Of each voxel: the face before it, the face after it."""
    closed = _closed(faces, axis)
    return _part(closed, axis, 0, -1), _part(closed, axis, 1, None)


def _part(field: Array, axis: int, start: int, stop: int | None) -> Array:
    """Entries along one axis."""
    return lax.slice_in_dim(field, start, stop, axis=axis)


def _limited(a: Array, b: Array) -> Array:
    """van Leer: the harmonic mean 2 a b / (a + b) of two slopes of one sign, else 0."""
    return 2 * _share(a, b) * b


def _share(a: Array, b: Array) -> Array:
    """a / (a + b) of two slopes of one sign, else 0: the derivatives of their harmonic mean are
    twice its square and twice that of the rest."""
    same = a * b > 0
    return jnp.where(same, a / jnp.where(same, a + b, 1.0), 0.0)


def _next(field: Array, axis: int) -> Array:
    return jnp.roll(field, -1, axis)


def _not_last(shape: Sequence[int], axis: int) -> np.ndarray:
    inside = np.ones(shape, bool)
    inside[(slice(None),) * axis + (-1,)] = False
    return inside
