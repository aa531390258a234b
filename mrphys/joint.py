"""All voxels of an image fitted at once: from data that mix them, or with neighbours alike.

    argmin over q of |A f(θ, q) - y|² / 2 σ² + Σ over fields of their prior

by Gauss and Newton's steps, damped after Levenberg and Marquardt, each by conjugate gradients over
the whole image: the model is evaluated once a step, A and its adjoint once an iteration within.
"""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Bool, Float, Inexact

from mrphys.bounds import AT_BOUND, REACH, Bounds
from mrphys.least_squares import LONGEST_STEP, Symmetric, solve
from mrphys.simulate import over_voxels
from mrphys.voxelwise import (
    AT_BOUNDARY,
    CONVERGED,
    FAILED,
    ILL_DETERMINED,
    MASKED,
    Chunk,
    Found,
    Model,
    Question,
    Rows,
    combined,
)

__all__ = ["Prior", "Quadratic", "TotalVariation"]

DAMPING, EASE, STIFFEN, STUCK = 1e-3, 0.1, 10.0, 1e8
INNER, EXACTNESS = 100, 1e-2
"""Iterations of conjugate gradients, and the share of a step's slope they may leave."""
ENOUGH = {4: 1e-2, 8: 1e-5}
"""Bytes of a number: root mean square of a step, in standard deviations, that ends the search."""
EXACT = 1500
"""Unknown numbers of an image up to which the information matrix is inverted as it is."""
PROBES = 100
"""Random vectors that estimate the inverse's diagonal beyond."""

Numbers = Float[Array, "numbers voxels"]


class Prior(eqx.Module):
    """What is known of differences between neighbours, of a field's logarithm where its bounds are
    positive and a decade or more apart, else of the field."""

    @abstractmethod
    def energy(self, squares: Float[Array, " voxels"]) -> Float[Array, " voxels"]:
        """-log p of each voxel's sum of squared differences to the next along each axis."""

    def weight(self, squares: Float[Array, " voxels"]) -> Float[Array, " voxels"]:
        """2 d energy / d squares: of the parabola that touches the energy from above."""
        return 2 * jax.vmap(jax.grad(lambda s: self.energy(s[None])[0]))(squares)


class Quadratic(Prior):
    """Gaussian differences: squares / 2 sd²."""

    sd: float

    def energy(self, squares):
        return squares / (2 * self.sd**2)


class TotalVariation(Prior):
    """Laplacian differences, isotropic: sqrt(squares + ε²) / scale, ε = scale / 10. Keeps edges.

    Rudin, Osher, Fatemi 1992, doi:10.1016/0167-2789(92)90242-F; weights as Vogel, Oman 1996,
    doi:10.1137/0917016.
    """

    scale: float

    def energy(self, squares):
        return jnp.sqrt(squares + (self.scale / 10) ** 2) / self.scale


class Linear(NamedTuple):
    """A model about a point: signals, and their derivative in each coordinate."""

    x: Inexact[Array, "voxels readouts"]
    slopes: Inexact[Array, "voxels numbers readouts"]


class Image(eqx.Module):
    """What is to be minimised, and its quadratic approximations.

    Coordinates are (numbers, voxels): of the unknowns those of their bounds, of amplitudes real
    and imaginary part. `weight` is 1 / σ of each datum.
    """

    theta: Model
    known: eqx.Module
    y: Inexact[Array, "..."]
    weight: Float[Array, "..."]
    inside: Bool[Array, " voxels"]
    operator: Callable[[Array], Array]
    ask: Question = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    priors: tuple[tuple[int, Prior], ...]
    chunk: int = eqx.field(static=True)

    def linear(self, v: Numbers, polar: bool = False) -> Linear:
        """About v. Amplitudes move along their real and imaginary axes, or `polar`: along their
        size and across."""
        f = eqx.Partial(_linear_rows, self.ask, polar)
        x, slopes = over_voxels(f, self.theta, (self.known, v.T), self.chunk)
        return Linear(
            jnp.where(self.inside[:, None], x, 0.0),
            jnp.where(self.inside[:, None, None], slopes, 0.0),
        )

    def mixed(self, x: Array) -> Array:
        """A x / σ."""
        return self.operator(x.reshape(*self.shape, -1)) * self.weight

    def unmixed(self, r: Array, like: Array) -> Array:
        """Aᴴ r / σ."""
        (back,) = jax.linear_transpose(self.mixed, like)(jnp.conj(r))
        return jnp.conj(back)

    def left(self, at: Linear) -> Array:
        """(y - A f) / σ."""
        return self.y * self.weight - self.mixed(at.x)

    def cost(self, v: Numbers, at: Linear) -> Float[Array, ""]:
        """Of the data and the priors."""
        energies = [
            jnp.sum(prior.energy(self._squares(self._scale(i).value(v[i]))))
            for i, prior in self.priors
        ]
        return jnp.sum(jnp.abs(self.left(at)) ** 2) / 2 + sum(energies)

    def slope(self, v: Numbers, at: Linear) -> Numbers:
        """-∂cost/∂v."""
        back = self.unmixed(self.left(at), at.x)
        down = jnp.einsum("vnr,vr->nv", jnp.conj(at.slopes), back).real
        for i, _ in self.priors:
            down = down.at[i].add(-self._rough(v, i, self._scale(i).value(v[i])))
        return down

    def curvature(self, v: Numbers, at: Linear, p: Numbers) -> Numbers:
        """Gauss and Newton's, times p; of priors that of the parabolas that touch them."""
        moved = self.unmixed(self.mixed(jnp.einsum("vnr,nv->vr", at.slopes, p)), at.x)
        bent = jnp.einsum("vnr,vr->nv", jnp.conj(at.slopes), moved).real
        for i, _ in self.priors:
            bent = bent.at[i].add(self._rough(v, i, self._scale(i).slope(v[i]) * p[i]))
        return bent

    def blocks(self, v: Numbers, at: Linear, share: Array) -> Symmetric:
        """The curvature's blocks of one voxel, AᴴA / σ² taken to be `share`."""
        gram = share * jnp.einsum("vnr,vmr->nmv", jnp.conj(at.slopes), at.slopes).real
        for i, prior in self.priors:
            scale = self._scale(i)
            weight = prior.weight(self._squares(scale.value(v[i])))
            stiff = 2 * len(self.shape) * weight * scale.slope(v[i]) ** 2
            gram = gram.at[i, i].add(stiff)
        gram += jnp.eye(len(v))[:, :, None] * jnp.where(self.inside, 0.0, 1.0)[None, None]
        return [[gram[i, j] for j in range(i + 1)] for i in range(len(v))]

    def _scale(self, i: int) -> "_Scale":
        return _Scale(self.ask.bounds[i])

    def _differences(self, g: Array) -> list[Array]:
        """To the next voxel along each axis, 0 at the image's and the mask's edge."""
        image, inside = g.reshape(self.shape), self.inside.reshape(self.shape)
        found = []
        for axis in range(len(self.shape)):
            step = jnp.diff(image, axis=axis, append=jnp.take(image, jnp.array([-1]), axis))
            both = inside & jnp.roll(inside, -1, axis)
            found.append(jnp.where(both, step, 0.0))
        return found

    def _squares(self, g: Array) -> Array:
        return sum((d**2 for d in self._differences(g)), jnp.zeros(self.shape)).reshape(-1)

    def _rough(self, v: Array, i: int, g: Array) -> Array:
        """g' Dᵀ w D g, w the weights of the prior of number i at v."""
        scale, prior = self._scale(i), dict(self.priors)[i]
        weight = prior.weight(self._squares(scale.value(v[i]))).reshape(self.shape)

        def weighed(g: Array) -> Array:
            return sum(jnp.sum(weight * d**2) for d in self._differences(g)) / 2  # pyright: ignore

        return scale.slope(v[i]) * jax.grad(weighed)(g)


class _Scale(NamedTuple):
    """On which differences count: the logarithm where ratios matter."""

    bounds: Bounds

    def value(self, u: Array) -> Array:
        value = self.bounds.value(u)
        return jnp.log(value) if self.bounds.logarithmic else value

    def slope(self, u: Array) -> Array:
        slope = self.bounds.slope(u)
        return slope / self.bounds.value(u) if self.bounds.logarithmic else slope


def _linear_rows(ask: Question, polar: bool, theta: Model, rows: Any) -> tuple[Array, Array]:
    known, v = rows
    count = len(ask.unknowns)
    chunk = Chunk(theta, known, jnp.ones_like(v[:, 0]), ask)
    parts, slopes = chunk.slopes([*v.T[:count]])
    gain = jnp.sqrt(theta.averages)[None].astype(v.dtype)

    def signal(rows: Rows) -> Array:
        return (jax.lax.complex(rows[0].T, rows[1].T) if len(rows) == 2 else rows[0].T) / gain

    if not ask.amplitudes:
        moves, expected = [slope[0] for slope in slopes], parts[0]
        return signal(expected), jnp.stack([signal(move) for move in moves], axis=1)
    amplitudes = [*v.T[count:]]
    expected = combined(amplitudes, parts)
    moves = [combined(amplitudes, slope) for slope in slopes]
    if polar and ask.data == "complex":
        for k in range(0, len(parts), 2):
            size = jnp.maximum(jnp.hypot(*amplitudes[k : k + 2]), jnp.finfo(v.dtype).tiny)
            turn = [part / size for part in amplitudes[k : k + 2]]
            re, im = combined(turn, parts[k : k + 2])
            moves += [(re, im), (-im, re)]
    else:
        moves += parts
    return signal(expected), jnp.stack([signal(move) for move in moves], axis=1)


class _State(NamedTuple):
    count: Array
    v: Numbers
    at: Linear
    cost: Array
    damping: Array
    done: Array


@eqx.filter_jit
def minimise(image: Image, start: Numbers, iterations: int, spare: int | None) -> tuple:
    """Where the search ended, whether it had arrived, and what the data leave over, squared.

    `spare` degrees of freedom where σ is not known and is taken from what is left over.
    """
    unknowns = len(image.ask.unknowns)
    count = jnp.maximum(jnp.sum(image.inside), 1) * len(start)
    share = _share(image, start)
    dtype = start.dtype

    def clipped(v: Numbers) -> Numbers:
        return v.at[:unknowns].set(jnp.clip(v[:unknowns], -REACH, REACH))

    def improve(now: _State) -> _State:
        slope = image.slope(now.v, now.at)
        blocks = image.blocks(now.v, now.at, share)
        damped = [[*row[:-1], row[-1] * (1 + now.damping)] for row in blocks]
        stiff = now.damping * jnp.stack([row[-1] for row in blocks])

        def bent(p: Numbers) -> Numbers:
            return image.curvature(now.v, now.at, p) + stiff * p

        def near(p: Numbers) -> Numbers:
            return jnp.stack(solve(damped, [*p]))

        step, _ = cg(bent, slope, M=near, tol=EXACTNESS, maxiter=INNER)
        moved = step.at[:unknowns].set(jnp.clip(step[:unknowns], -LONGEST_STEP, LONGEST_STEP))
        trial = clipped(now.v + jnp.where(image.inside[None], moved, 0.0))
        at = image.linear(trial)
        cost = image.cost(trial, at)
        better = cost <= now.cost * (1 + 16 * jnp.finfo(dtype).eps)
        variance = 1.0 if spare is None else 2 * now.cost / max(spare, 1)
        small = jnp.sum(step * slope) < ENOUGH[dtype.itemsize] ** 2 * count * variance
        still = jnp.max(jnp.abs(trial - now.v)) < jnp.finfo(dtype).eps
        damping = now.damping * jnp.where(better, EASE, STIFFEN)
        v, at, cost = jax.tree.map(
            lambda new, old: jnp.where(better, new, old),
            (trial, at, cost),
            (now.v, now.at, now.cost),
        )
        done = (better & small & (now.damping < 1)) | still | (damping > STUCK)
        return _State(now.count + 1, v, at, cost, damping, done)

    def unfinished(now: _State) -> Array:
        return ~now.done & (now.count < iterations)

    v = clipped(start)
    at = image.linear(v)
    begin = _State(
        jnp.zeros((), int),
        v,
        at,
        image.cost(v, at),
        jnp.asarray(DAMPING, dtype),
        jnp.zeros((), bool),
    )
    end = jax.lax.while_loop(unfinished, improve, begin)
    return end.v, end.done & (end.damping < STUCK), jnp.abs(image.left(end.at)) ** 2


def _share(image: Image, start: Numbers) -> Array:
    """The mean of AᴴA's diagonal, over σ²: by one random vector."""
    like = jax.eval_shape(lambda: image.linear(start).x)
    random = jax.random.rademacher(jax.random.key(0), like.shape, start.dtype)
    x = jnp.where(image.inside[:, None], random, 0.0).astype(like.dtype)
    return jnp.sum(jnp.abs(image.mixed(x)) ** 2) / jnp.maximum(jnp.sum(jnp.abs(x) ** 2), 1.0)


@eqx.filter_jit
def deviations(image: Image, v: Numbers) -> Numbers:
    """Square roots of the inverse curvature's diagonal, amplitudes along size and phase: exact of
    images of `EXACT` numbers, else by `PROBES` random vectors z: of z ∘ H⁻¹ z the mean, which errs
    by about sqrt(2 / PROBES) of what voxels share of their errors. Infinite where rounding hides
    them. Bekas, Kokiopoulou, Saad 2007, doi:10.1016/j.apnum.2007.01.003."""
    at = image.linear(v, polar=True)
    blocks = image.blocks(v, at, _share(image, v))
    size = jnp.sqrt(jnp.stack([row[-1] for row in blocks]))
    seen = size > 0
    size = jnp.where(seen, size, 1.0)
    outside = ~image.inside[None] | ~seen

    def scaled(p: Numbers) -> Numbers:
        return jnp.where(
            outside, p, image.curvature(v, at, jnp.where(outside, 0.0, p / size)) / size
        )

    most = 1 / (100 * v.size * float(jnp.finfo(v.dtype).eps))
    if v.size <= EXACT:
        columns = jax.lax.map(lambda p: scaled(p.reshape(v.shape)).reshape(-1), jnp.eye(v.size))
        variance = jnp.diagonal(jnp.linalg.inv((columns + columns.T) / 2)).reshape(v.shape)
    else:
        scale = [[size[i] * size[j] for j in range(i + 1)] for i in range(len(v))]
        alike = jax.tree.map(jnp.divide, blocks, scale)

        def near(p: Numbers) -> Numbers:
            return jnp.stack(solve(alike, [*p]))

        def probed(key: Array) -> Numbers:
            z = jax.random.rademacher(key, v.shape, v.dtype)
            return z * cg(scaled, z, M=near, tol=1e-3, maxiter=10 * INNER)[0]

        keys = jax.random.split(jax.random.key(1), PROBES)
        # No number is known better than with all others given.
        variance = jnp.maximum(jnp.mean(jax.lax.map(probed, keys), axis=0), 1.0)
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
    image: Image, start: tuple[list[Array], list[Array]], noise_sd: Array | None, iterations: int
) -> Found:
    """All voxels of an image, from unknowns and amplitudes, complex ones among them."""
    ask, inside = image.ask, image.inside
    unknowns, amplitudes = start
    u = [bound.coordinate(value) for bound, value in zip(ask.bounds, unknowns, strict=True)]
    if ask.data == "complex":
        amplitudes = [part for a in amplitudes for part in (a.real, a.imag)]
    v = jnp.stack([*u, *amplitudes])
    each = 2 if jnp.iscomplexobj(image.y) else 1
    spare = image.y.size * each - int(jnp.sum(inside)) * ask.count
    v, arrived, squares = minimise(image, v, iterations, spare if noise_sd is None else None)
    left = jnp.sqrt(jnp.sum(squares) / max(spare, 1)) * (1.0 if noise_sd is None else noise_sd)
    noise = left if noise_sd is None else noise_sd
    sizes = deviations(image, v) * (left if noise_sd is None else 1.0)
    count = len(ask.unknowns)
    values = [bound.value(at) for bound, at in zip(ask.bounds, v[:count], strict=True)]
    sds = [bound.slope(at) * size for bound, at, size in zip(ask.bounds, v, sizes, strict=False)]
    widest = [bound.widest_sd(value) for bound, value in zip(ask.bounds, values, strict=True)]
    phases = []
    for k in range(count, len(v), 2 if ask.data == "complex" else 1):
        if ask.data == "complex":
            values.append(jnp.hypot(v[k], v[k + 1]))
            phases.append(jnp.arctan2(v[k + 1], v[k]))
        else:
            values.append(v[k])
        sds.append(sizes[k])
        widest.append(jnp.full_like(v[k], jnp.inf) if ask.data == "real" else values[-1])
    unclear = [~(sd < limit) for sd, limit in zip(sds, widest, strict=True)]
    sds = [
        jnp.where(hidden | ~inside, jnp.inf, sd) for hidden, sd in zip(unclear, sds, strict=True)
    ]
    status = jnp.where(jnp.stack(unclear).any(axis=0), ILL_DETERMINED, CONVERGED)
    if count:
        edge = (jnp.abs(v[:count]) >= AT_BOUND).any(axis=0)
        status = jnp.where(edge, AT_BOUNDARY, status)
    status = jnp.where(inside, jnp.where(arrived, status, FAILED), MASKED)

    def told(maps: list[Array]) -> tuple[Array, ...]:
        return tuple(jnp.where(inside, jnp.broadcast_to(m, inside.shape), 0.0) for m in maps)

    kept, sd = told([left, noise])
    return Found(told(values), tuple(sds), told(phases), kept, sd, status)
