"""All voxels of an image fitted at once: from data that mix them, or with neighbours alike.

    argmin over q of Σ -log p(y | A f(θ, q), σ) + Σ over fields of their prior

by Gauss and Newton's steps (Fisher scoring of magnitudes), damped after Levenberg and Marquardt,
then Newton's, each by conjugate gradients over the whole image: the model is evaluated once a step,
A and its adjoint once an iteration within.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float, PRNGKeyArray

from mrphys.bounds import AT_BOUND, REACH
from mrphys.image import Image, Linear, Numbers
from mrphys.least_squares import LONGEST_STEP, Symmetric, solve
from mrphys.neighbours import Prior, Quadratic, TotalVariation
from mrphys.noise import magnitude, rician_mean, rician_variance
from mrphys.voxelwise import (
    AT_BOUNDARY,
    CONVERGED,
    FAILED,
    ILL_DETERMINED,
    MASKED,
    Found,
    still,
)

__all__ = ["Prior", "Quadratic", "TotalVariation"]

DAMPING, EASE, STIFFEN, STUCK = 1e-3, 0.1, 10.0, 1e8
INNER, EXACTNESS, CLOSE = 200, 3e-2, {4: 1e-4, 8: 1e-11}
"""Iterations of conjugate gradients, and the share of a slope they may leave in a step, and of a
derivative."""
ENOUGH, NEAR = {4: 3e-3, 8: 1e-9}, 3e-2
"""Bytes of a number: root mean square of a step, in standard deviations, that ends the search; that
from which on steps are Newton's."""
LAST = 8
"""Steps of Newton's at most."""
EXACT = 1500
"""Unknown numbers of an image up to which the information matrix is inverted as it is."""
DRAWS = 32
"""Random images from which deviations are taken beyond."""


def scaled(
    blocks: Symmetric, free: Bool[Array, "numbers voxels"]
) -> tuple[Numbers, Symmetric, Bool[Array, "numbers voxels"]]:
    """Numbers' sizes, blocks of ones' diagonal in them, and which numbers can be found."""
    diagonal = jnp.stack([row[-1] for row in blocks])
    free = free & (diagonal > 0)
    size = jnp.sqrt(jnp.where(free, diagonal, 1.0))
    alike = [
        [jnp.where(free[i] & free[j], row[j] / (size[i] * size[j]), 0.0) for j in range(i)]
        + [jnp.where(free[i], row[i] / size[i] ** 2, 1.0)]
        for i, row in enumerate(blocks)
    ]
    return size, alike, free


def solved(
    matrix: Callable[[Numbers], Numbers],
    blocks: Symmetric,
    free: Bool[Array, "numbers voxels"],
    right: Numbers,
    exactness: float,
) -> Numbers:
    """matrix⁻¹ right among the numbers that are free, 0 elsewhere. `blocks` are the matrix's of
    each voxel, or like them."""
    size, alike, free = scaled(blocks, free)

    def sized(p: Numbers) -> Numbers:
        return jnp.where(free, matrix(jnp.where(free, p, 0.0) / size) / size, p)

    def near(p: Numbers) -> Numbers:
        return jnp.stack(solve(alike, [*p]))

    wanted = jnp.where(free, right / size, 0.0)
    p, _ = cg(sized, wanted, M=near, tol=exactness, maxiter=INNER)
    return jnp.where(free, p / size, 0.0)


class _State(NamedTuple):
    count: Array
    v: Numbers
    at: Linear
    cost: Array
    damping: Array
    done: Array


@eqx.filter_jit
def minimise(
    image: Image, start: Numbers, iterations: int, spare: Array | None
) -> tuple[Numbers, Array]:
    """Where the search ended, and whether it had arrived. `spare` degrees of freedom where σ is not
    known and is taken from what is left over. Not to be differentiated."""
    unknowns = len(image.ask.unknowns)
    share = image.share(start)
    inside = jnp.broadcast_to(image.inside, start.shape)
    count = jnp.maximum(jnp.sum(inside), 1)

    def moved(v: Numbers, step: Numbers) -> Numbers:
        step = step.at[:unknowns].set(jnp.clip(step[:unknowns], -LONGEST_STEP, LONGEST_STEP))
        trial = v + jnp.where(inside, step, 0.0)
        return trial.at[:unknowns].set(jnp.clip(trial[:unknowns], -REACH, REACH))

    def begun(v: Numbers) -> _State:
        at = image.linear(v)
        cost = image.cost_at(v, at.seen)
        damping = jnp.asarray(DAMPING, v.dtype)
        return _State(jnp.zeros((), int), v, at, cost, damping, jnp.zeros((), bool))

    def small(now: _State, step: Numbers, slope: Numbers, enough: float) -> Array:
        variance = 1.0 if spare is None else 2 * now.cost / jnp.maximum(spare, 1)
        return jnp.sum(step * slope) < enough**2 * count * variance

    def tried(now: _State, step: Numbers) -> tuple[_State, Array]:
        trial = moved(now.v, step)
        at = image.linear(trial)
        cost = image.cost_at(trial, at.seen)
        better = cost <= now.cost * (1 + 16 * jnp.finfo(cost.dtype).eps)
        damping = now.damping * jnp.where(better, EASE, STIFFEN)
        unmoved = jnp.max(jnp.abs(trial - now.v)) < jnp.finfo(cost.dtype).eps
        v, at, cost = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (trial, at, cost),
            (now.v, now.at, now.cost),
        )
        return _State(now.count + 1, v, at, cost, damping, unmoved | (damping > STUCK)), better

    def improve(now: _State) -> _State:
        slope = image.slope(now.v, now.at)
        blocks = image.blocks(now.v, now.at, share)
        damped = [[*row[:-1], row[-1] * (1 + now.damping)] for row in blocks]
        stiff = now.damping * jnp.stack([row[-1] for row in blocks])

        def bent(p: Numbers) -> Numbers:
            return image.curvature(now.v, now.at, p) + stiff * p

        outward = (jnp.abs(now.v) >= REACH) & (now.v * slope > 0)
        free = inside & ~outward.at[unknowns:].set(False)
        step = solved(bent, damped, free, slope, EXACTNESS)
        then, better = tried(now, step)
        near = small(now, step, slope, NEAR) & better & (now.damping < 1)
        return then._replace(done=then.done | near)

    def unfinished(now: _State) -> Array:
        return ~now.done & (now.count < iterations)

    def finish(now: _State) -> _State:
        slope = image.slope(now.v, now.at)
        free = _in_bounds(image, now.v)
        step = newton(image, now.v, now.at, free, slope, EXACTNESS**2)
        then, better = tried(now, step)
        near = small(now, step, slope, ENOUGH[start.dtype.itemsize])
        return then._replace(done=~better | near)

    def unpolished(now: _State) -> Array:
        return ~now.done & (now.count < LAST)

    end = jax.lax.while_loop(unfinished, improve, begun(moved(start, jnp.zeros_like(start))))
    arrived = end.done & (end.damping < STUCK)
    again = end._replace(count=jnp.zeros((), int), done=~arrived)
    return jax.lax.while_loop(unpolished, finish, again).v, arrived


def newton(
    image: Image,
    v: Numbers,
    at: Linear,
    free: Bool[Array, "numbers voxels"],
    right: Numbers,
    exactness: float,
) -> Numbers:
    """(∂²cost/∂v∂v)⁻¹ right among the numbers that are free."""
    bend = image.bend(v, at)

    def bent(p: Numbers) -> Numbers:
        return image.hessian(v, at, bend, p)

    return solved(bent, image.blocks(v, at, image.share(v)), free, right, exactness)


def _in_bounds(image: Image, v: Numbers) -> Bool[Array, "numbers voxels"]:
    """Of voxels of which no unknown is at a bound."""
    edge = (jnp.abs(v[: len(image.ask.unknowns)]) >= AT_BOUND).any(axis=0)
    return jnp.broadcast_to(image.inside & ~edge, v.shape)


@eqx.filter_jit
def optimum(image: Image, found: Numbers, arrived: Array) -> Numbers:
    """`found`, with the derivatives of the root of the score; 0 of voxels at a bound, numbers of
    which the data say nothing, and wherever the search has not arrived."""
    fixed, found = still((image, found))
    free = _in_bounds(fixed, found) & arrived

    def score(v: Numbers) -> Numbers:
        return jnp.where(free, jax.grad(image.cost)(v), v - found)

    def inverse(linear: Callable[[Numbers], Numbers], right: Numbers) -> Numbers:
        def by_blocks(_: Any, right: Numbers) -> Numbers:
            exactness = CLOSE[right.dtype.itemsize]
            return newton(fixed, found, fixed.linear(found), free, right, exactness)

        def among_free(p: Numbers) -> Numbers:
            return jnp.where(free, linear(jnp.where(free, p, 0.0)), p)

        return jax.lax.custom_linear_solve(among_free, right, by_blocks, symmetric=True)

    return jax.lax.custom_root(score, found, lambda _, v: v, inverse)


@eqx.filter_jit
def deviations(image: Image, v: Numbers) -> Numbers:
    """Square roots of the inverse curvature's diagonal, amplitudes along size and phase; infinite
    where rounding hides them.

    Exact of images of `EXACT` numbers. Beyond, and then without derivatives, of `DRAWS` draws from
    the Gaussian of that curvature H, H⁻¹ s with s the slope that noise of data and priors would
    give: they err by 1 / sqrt(2 DRAWS), 13 %, whatever voxels share of their errors.
    Papandreou, Yuille 2010, Gaussian sampling by local perturbations, NIPS 23."""
    if v.size > EXACT:
        image, v = still((image, v))
    at = image.linear(v, expected=True)
    blocks = image.blocks(v, at, image.share(v))
    size, alike, seen = scaled(blocks, jnp.broadcast_to(image.inside, v.shape))

    def sized(p: Numbers) -> Numbers:
        return jnp.where(seen, image.curvature(v, at, jnp.where(seen, p, 0.0) / size) / size, p)

    most = 1 / (100 * len(v) * float(jnp.finfo(v.dtype).eps))
    if v.size <= EXACT:
        columns = jax.lax.map(lambda p: sized(p.reshape(v.shape)).reshape(-1), jnp.eye(v.size))
        variance = jnp.diagonal(jnp.linalg.inv((columns + columns.T) / 2)).reshape(v.shape)
    else:

        def squared(key: PRNGKeyArray) -> Numbers:
            slope = image.random_slope(v, at, key) / size
            return solved(sized, alike, seen, slope, EXACTNESS) ** 2

        keys = jax.random.split(jax.random.key(1), DRAWS)
        variance = jnp.mean(jax.lax.map(squared, keys), axis=0)
    known = seen & (variance > 0) & (variance < most)
    return jnp.where(known, jnp.sqrt(jnp.where(known, variance, 1.0)) / size, jnp.inf)


@eqx.filter_jit
def unmixed(operator: Callable[[Array], Array], y: Array, like: jax.ShapeDtypeStruct) -> Array:
    """Signals x of least |A x - y|, by a few conjugate gradients from 0: where a search begins."""
    transpose = jax.linear_transpose(operator, like)

    def back(r: Array) -> Array:
        return jnp.conj(transpose(jnp.conj(r))[0])

    return cg(lambda x: back(operator(x)), back(y), maxiter=20, tol=1e-3)[0]


def fit_image(
    image: Image, start: list[Array], x: Array, noise_sd: Array | None, iterations: int
) -> Found:
    """All voxels of an image, from unknowns, and the amplitudes that fit signals x with them."""
    ask, inside = image.ask, image.inside
    each = 2 if ask.data == "complex" else 1
    u = [bound.coordinate(value) for bound, value in zip(ask.bounds, start, strict=True)]
    begin = jnp.stack([*u, *(still(image).amplitudes(start, x) if ask.amplitudes else [])])
    spare = _spare(image, begin)
    found = minimise(still(image), begin, iterations, spare if noise_sd is None else None)
    arrived = found[1]
    v = optimum(image, *found)
    left = _residual(image, v, spare) * (1.0 if noise_sd is None else noise_sd)
    noise = left if noise_sd is None else noise_sd
    sizes = deviations(image, v)
    determined = jnp.isfinite(sizes)
    sizes = jnp.where(determined, sizes, 1.0) * (left if noise_sd is None else 1.0)
    count = len(ask.unknowns)
    values = [bound.value(at) for bound, at in zip(ask.bounds, v[:count], strict=True)]
    sds = [bound.slope(at) * size for bound, at, size in zip(ask.bounds, v, sizes, strict=False)]
    widest = [bound.widest_sd(value) for bound, value in zip(ask.bounds, values, strict=True)]
    phases = []
    for k in range(count, len(v), each):
        if each == 2:
            a = jax.lax.complex(v[k], v[k + 1])
            values.append(magnitude(a))
            phases.append(jnp.angle(jnp.where(a == 0, 1.0, a)))
        else:
            values.append(jnp.abs(v[k]) if ask.data == "magnitude" else v[k])
        sds.append(sizes[k])
        widest.append(jnp.full_like(v[k], jnp.inf) if ask.data == "real" else values[-1])
    which = [*range(count), *range(count, len(v), each)]
    unclear = [
        ~(determined[i] & (sd < limit)) for i, sd, limit in zip(which, sds, widest, strict=True)
    ]
    sds = [
        jnp.where(hidden | ~inside, jnp.inf, sd) for hidden, sd in zip(unclear, sds, strict=True)
    ]
    status = jnp.where(jnp.stack(unclear).any(axis=0), ILL_DETERMINED, CONVERGED)
    status = jnp.where(_in_bounds(image, v)[0], status, AT_BOUNDARY)
    status = jnp.where(inside, jnp.where(arrived, status, FAILED), MASKED)

    def told(maps: list[Array]) -> tuple[Array, ...]:
        return tuple(jnp.where(inside, jnp.broadcast_to(m, inside.shape), 0.0) for m in maps)

    kept, sd = told([left, noise])
    values = told(values)
    return Found(values, tuple(sds), told(phases), kept, sd, status, values[:count], kept)


@eqx.filter_jit
def _spare(image: Image, v: Numbers) -> Array:
    """Numbers measured beyond those found."""
    return image.measured(v) - jnp.sum(image.inside) * image.ask.count


@eqx.filter_jit
def _residual(image: Image, v: Numbers, spare: Array) -> Float[Array, ""]:
    """sd of what the model leaves over, in units of the noise; 0 where nothing can be."""
    seen = image.mixed(image.signals(v))
    if image.ask.rician:
        m, size = image.y * image.weight, magnitude(seen)
        squares = (m - rician_mean(size, 1.0)) ** 2 / rician_variance(size, 1.0)
        total = jnp.sum(jnp.where(image.weight > 0, squares, 0.0))
    else:
        total = jnp.sum(jnp.abs(image.left(seen)) ** 2)
    some = (total > 0) & (spare > 0)
    return jnp.where(some, jnp.sqrt(jnp.where(some, total, 1.0) / jnp.maximum(spare, 1)), 0.0)
