"""Many small least-squares problems at once: Levenberg-Marquardt, a voxel to a processor lane.

Every array has the voxels on its last axis, so that vectors run along them. A symmetric matrix of
each voxel is a list of the rows of its lower triangle, each entry an array over voxels: the few
unknowns of a voxel are eliminated in closed form, unrolled, without a library call a voxel.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int, PyTree

Symmetric = list[list[Array]]
Vector = list[Array]

DAMPING, EASE, STIFFEN, STUCK = 1e-2, 0.1, 8.0, 1e6
SWINGING = 0.5
"""λ where Gauss and Newton's steps pass the optimum by far."""
SHARE_OF_SD = {4: 5e-2, 8: 1e-8}
"""Bytes of a number: the step at which a search ends, of a standard deviation."""
LONGEST_STEP, LAST_STEP = 2.0, 1e-3
PART, NUMBERS = 256, 8192
"""Voxels searched together, whose states stay in a core's cache; more of them where that is fewer
numbers: each operation has a price of its own."""
FIRST = 6
"""Iterations, of which few voxels need more."""


def factor(matrix: Symmetric) -> tuple[list[list[Array]], Vector]:
    """L and d of L diag(d) Lᵀ, L of unit diagonal. A pivot lost to rounding is held at rounding's
    size: what is not determined gets a huge inverse, not a wrong one."""
    lower: list[list[Array]] = []
    pivots: Vector = []
    rounding = jnp.finfo(matrix[0][0].dtype)
    for i, row in enumerate(matrix):
        scaled: Vector = []
        for j in range(i):
            known = [scaled[k] * lower[j][k] for k in range(j)]
            scaled.append(row[j] - sum(known[1:], known[0]) if known else row[j])
        ratios = [part / pivot for part, pivot in zip(scaled, pivots, strict=True)]
        taken = [part * ratio for part, ratio in zip(scaled, ratios, strict=True)]
        left = row[i] - sum(taken[1:], taken[0]) if taken else row[i]
        lower.append(ratios)
        pivots.append(jnp.maximum(left, jnp.maximum(row[i] * rounding.eps, rounding.tiny)))
    return lower, pivots


def solve(matrix: Symmetric, vector: Vector) -> Vector:
    """matrix⁻¹ vector in each voxel."""
    lower, pivots = factor(matrix)
    count = len(vector)
    forward: Vector = []
    for i in range(count):
        value = vector[i]
        for j in range(i):
            value = value - lower[i][j] * forward[j]
        forward.append(value)
    backward = [value / pivot for value, pivot in zip(forward, pivots, strict=True)]
    for i in reversed(range(count)):
        for j in range(i + 1, count):
            backward[i] = backward[i] - lower[j][i] * backward[j]
    return backward


def inverse_diagonal(matrix: Symmetric) -> Vector:
    """The diagonal of the inverse: variances, of an information matrix."""
    count = len(matrix)
    zero, one = jnp.zeros_like(matrix[0][0]), jnp.ones_like(matrix[0][0])
    units = [[one if i == j else zero for j in range(count)] for i in range(count)]
    return [solve(matrix, unit)[i] for i, unit in enumerate(units)]


def _times(matrix: Symmetric, vector: Vector) -> Vector:
    count = len(vector)
    rows = [[matrix[max(i, j)][min(i, j)] for j in range(count)] for i in range(count)]
    return [_inner(row, vector) for row in rows]


def _inner(a: Vector, b: Vector) -> Array:
    return sum((x * y for x, y in zip(a[1:], b[1:], strict=True)), a[0] * b[0])


class Fitted(NamedTuple):
    """Where each voxel's search ended: unknowns, cost, the undamped step still proposed, and
    whether it is done."""

    at: Float[Array, "unknowns voxels"]
    cost: Float[Array, " voxels"]
    step: Float[Array, "unknowns voxels"]
    done: Bool[Array, " voxels"]


class _State(NamedTuple):
    count: Array
    at: Vector
    cost: Array
    slope: Vector
    curvature: Symmetric
    damping: Array
    done: Bool[Array, " voxels"]


def levenberg_marquardt(
    evaluate: Callable[[Vector], tuple[Array, Vector, Symmetric]],
    start: Vector,
    reach: list[float],
    iterations: int | Int[Array, ""],
    spare: Int[Array, " voxels"] | None = None,
) -> Fitted:
    """The least cost of every voxel, from `start`, by damped Gauss-Newton steps.

        (H + λ diag H) δ = g

    evaluate(u) gives cost, g = -∂cost/∂u and a positive curvature H. A step is taken where it does
    not raise the cost. λ falls where the cost falls as foretold, and grows where it does not: where
    the model's own curvature is part of an optimum, Gauss and Newton's steps swing about it.
    |u_i| is kept within reach_i. Where a search has ended, the step still proposed is taken if it
    is below `LAST_STEP`: it costs nothing.

    A voxel is done when the step undamped is `SHARE_OF_SD` of a standard deviation, or a step is
    below the square root of rounding; the loop ends with the last voxel or after `iterations`. The
    cost counts in variances of the noise, or in units whose variance is 2 cost / `spare`. Not to be
    differentiated.

    Marquardt 1963, doi:10.1137/0111030.
    """
    dtype = start[0].dtype
    small, noise = float(jnp.finfo(dtype).eps) ** 0.5, 16 * float(jnp.finfo(dtype).eps)

    def improve(now: _State) -> _State:
        damped = [
            [*row[:-1], row[-1] * (1 + now.damping) + jnp.finfo(dtype).tiny]
            for row in now.curvature
        ]
        steps = [jnp.clip(d, -LONGEST_STEP, LONGEST_STEP) for d in solve(damped, now.slope)]
        trial = [
            jnp.clip(u + d, -most, most) for u, d, most in zip(now.at, steps, reach, strict=True)
        ]
        moved = jnp.max(
            jnp.stack([jnp.abs(t - u) for t, u in zip(trial, now.at, strict=True)]), axis=0
        )
        cost, slope, curvature = evaluate(trial)
        better = cost <= now.cost + noise * jnp.abs(now.cost)
        made = [t - u for t, u in zip(trial, now.at, strict=True)]
        squared = _inner(made, _times(now.curvature, made))
        foretold = _inner(made, now.slope) - squared / 2
        fall = now.cost - cost
        damping = jnp.where(
            better,
            jnp.where(
                fall < 0.25 * foretold,
                jnp.maximum(now.damping, SWINGING),
                now.damping * jnp.where(fall > 0.75 * foretold, EASE, 1.0),
            ),
            jnp.maximum(now.damping, SWINGING) * STIFFEN,
        )
        variance = 1.0 if spare is None else 2 * now.cost / jnp.maximum(spare, 1)
        near = squared * (1 + now.damping) ** 2 < SHARE_OF_SD[dtype.itemsize] ** 2 * variance
        near = ((moved < small) | near) & (now.count > 0)
        done = now.done | near | (damping > STUCK)
        at, cost, slope, curvature = jax.tree.map(
            lambda new, old: jnp.where(better & ~now.done, new, old),
            (trial, cost, slope, curvature),
            (now.at, now.cost, now.slope, now.curvature),
        )
        return _State(now.count + 1, at, cost, slope, curvature, damping, done)

    def unfinished(now: _State) -> Array:
        return (now.count <= iterations) & ~jnp.all(now.done)

    # Of infinite cost and no slope the first step is none: it evaluates the start.
    still = jnp.zeros_like(start[0])
    triangle = [[still] * (i + 1) for i in range(len(start))]
    begin = _State(
        jnp.zeros((), int),
        start,
        jnp.full_like(still, jnp.inf),
        [still] * len(start),
        triangle,
        jnp.full_like(still, DAMPING),
        jnp.zeros(still.shape, bool),
    )
    end = jax.lax.while_loop(unfinished, improve, begin)
    step = solve(end.curvature, end.slope)
    arrived = end.done & (jnp.max(jnp.abs(jnp.stack(step)), axis=0) < LAST_STEP)
    at = [
        jnp.where(arrived, jnp.clip(u + d, -most, most), u)
        for u, d, most in zip(end.at, step, reach, strict=True)
    ]
    return Fitted(jnp.stack(at), end.cost, jnp.stack(step), end.done)


def in_parts(
    search: Callable[[PyTree, Vector, Int[Array, ""]], Fitted],
    data: PyTree[Float[Array, "... voxels"]],
    start: Vector,
    iterations: int,
    numbers: int,
) -> tuple[Float[Array, "unknowns voxels"], Float[Array, "unknowns voxels"]]:
    """Unknowns and steps of `search(data, start, iterations)` of voxels of so many numbers each.

    A part of the voxels at a time, for `FIRST` iterations, after which those that are not done are
    gathered: few voxels that take long keep few waiting.
    """
    count = start[0].size
    parts = -(-count // max(PART, NUMBERS // numbers))
    if parts == 1:
        found = search(data, start, jnp.asarray(iterations))
        return found.at, found.step
    size = 8 * -(-count // (8 * parts))

    def another(now: tuple) -> tuple:
        turn, at, step, done = now
        first, begin = turn < parts, jnp.minimum(turn * size, count - size)

        # Neighbours are copied as they lie, in a tenth of the time of gathering them.
        def side_by_side(leaf: Array) -> Array:
            return jax.lax.dynamic_slice_in_dim(leaf, begin, size, axis=-1)

        def left_over(leaf: Array) -> Array:
            return leaf[..., jnp.minimum(left, count - 1)]

        left = jax.lax.cond(
            first,
            lambda: begin + jnp.arange(size),
            lambda: jnp.nonzero(~done, size=size, fill_value=count)[0],
        )
        some, u = jax.lax.cond(
            first,
            lambda all: jax.tree.map(side_by_side, all),
            lambda all: jax.tree.map(left_over, all),
            (data, at),
        )
        limit = jnp.where(first, min(FIRST, iterations), iterations)
        found = search(some, [*u], limit)
        new = found.at, found.step, found.done | ~first
        at, step, done = jax.lax.cond(
            first,
            lambda all: jax.tree.map(
                lambda old, new: jax.lax.dynamic_update_slice_in_dim(old, new, begin, axis=-1),
                *all,
            ),
            lambda all: jax.tree.map(
                lambda old, new: old.at[..., left].set(new, mode="drop"), *all
            ),
            ((at, step, done), new),
        )
        return turn + 1, at, step, done

    at = jnp.stack(start)
    begin = jnp.zeros((), int), at, jnp.zeros_like(at), jnp.zeros(count, bool)
    _, at, step, _ = jax.lax.while_loop(lambda now: ~jnp.all(now[3]), another, begin)
    return at, step
