"""What a fit of a whole image minimises, and its derivatives.

Σ of -log p(y | A f(θ, q)) over data + Σ of -log p over maps
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, PRNGKeyArray

from mrphys.least_squares import Symmetric
from mrphys.likelihood import bessel_ratio, rician_cost, rician_information
from mrphys.neighbours import Neighbours
from mrphys.noise import magnitude
from mrphys.simulate import over_voxels
from mrphys.voxelwise import Chunk, Model, Question, Rows, as_rows, best_amplitudes, combined

Numbers = Float[Array, "numbers voxels"]


class Linear(NamedTuple):
    """A model about a point: signals, their derivative in each coordinate, A x / σ, and what each
    datum tells, beside a Gaussian one."""

    x: Inexact[Array, "voxels readouts"]
    slopes: Inexact[Array, "voxels numbers readouts"]
    seen: Inexact[Array, "..."]
    told: Float[Array, "..."]


class Image(eqx.Module):
    """A cost of all voxels, and its quadratic approximations.

    Coordinates are (numbers, voxels): of the unknowns those of their bounds, of amplitudes real
    and imaginary part. `weight` is 1 / σ of each datum, 0 of what does not count. Magnitudes are of
    complex noise where the question says Rician, and then A is the identity.
    """

    theta: Model
    known: eqx.Module
    y: Inexact[Array, "..."]
    weight: Float[Array, "..."]
    inside: Bool[Array, " voxels"]
    operator: Callable[[Array], Array]
    ask: Question = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)
    priors: tuple[tuple[int, Neighbours], ...]
    chunk: int = eqx.field(static=True)

    def signals(self, v: Numbers) -> Inexact[Array, "voxels readouts"]:
        """f(θ, q)."""
        f = eqx.Partial(_signals, self.ask)
        x = over_voxels(f, self.theta, (self.known, v.T), self.chunk)
        return jnp.where(self.inside[:, None], x, 0.0)

    def linear(self, v: Numbers, expected: bool = False) -> Linear:
        """About v. `expected`: as deviations are taken, amplitudes along their size and across, not
        along their real and imaginary axes, and magnitudes told for what they tell on average."""
        f = eqx.Partial(_slopes, self.ask, expected)
        x, slopes = over_voxels(f, self.theta, (self.known, v.T), self.chunk)
        x = jnp.where(self.inside[:, None], x, 0.0)
        slopes = jnp.where(self.inside[:, None, None], slopes, 0.0)
        seen = self.mixed(x)
        return Linear(x, slopes, seen, self._told(seen, expected))

    def _told(self, seen: Array, expected: bool) -> Array:
        if not self.ask.rician:
            return jnp.ones((), seen.real.dtype)
        told = rician_information(magnitude(seen))
        if not expected:  # On the noise floor, where that vanishes, the cost itself is curved.
            _, pulled = jax.jvp(self.pull, (seen,), (jnp.ones_like(seen),))
            told = jnp.maximum(told, -pulled)
        return jnp.where(self.weight > 0, told, 0.0)

    def mixed(self, x: Array) -> Array:
        """A x / σ."""
        return self.operator(x.reshape(*self.shape, -1)) * self.weight

    def unmixed(self, r: Array, like: Array) -> Array:
        """Aᴴ r / σ."""
        (back,) = jax.linear_transpose(self.mixed, like)(jnp.conj(r))
        return jnp.conj(back)

    def misfit(self, seen: Array) -> Float[Array, ""]:
        """-log p of the data where A f / σ is `seen`, but for a constant."""
        if self.ask.rician:
            cost = rician_cost(self.y * self.weight, magnitude(seen))
            return jnp.sum(jnp.where(self.weight > 0, cost, 0.0))
        return jnp.sum(jnp.abs(self.left(seen)) ** 2) / 2

    def pull(self, seen: Array) -> Array:
        """-d misfit / d seen."""
        if self.ask.rician:
            m, size = self.y * self.weight, magnitude(seen)
            pull = jnp.sign(seen) * (m * bessel_ratio(m * size) - size)
            return jnp.where(self.weight > 0, pull, 0.0)
        return self.left(seen)

    def left(self, seen: Array) -> Array:
        """(y - A f) / σ."""
        return self.y * self.weight - seen

    def cost(self, v: Numbers) -> Float[Array, ""]:
        """Of the data and the priors."""
        return self.cost_at(v, self.mixed(self.signals(v)))

    def cost_at(self, v: Numbers, seen: Array) -> Float[Array, ""]:
        """The cost at v, where A f / σ is `seen`."""
        return sum((prior.energy(v[i]) for i, prior in self.priors), self.misfit(seen))

    def slope(self, v: Numbers, at: Linear) -> Numbers:
        """-∂cost/∂v."""
        down = _back(at, self.unmixed(self.pull(at.seen), at.x))
        for i, prior in self.priors:
            down = down.at[i].add(-jax.grad(prior.energy)(v[i]))
        return down

    def curvature(self, v: Numbers, at: Linear, p: Numbers) -> Numbers:
        """Positive, times p: of data Gauss and Newton's (Fisher's of magnitudes), of priors that of
        the parabolas that touch them."""
        moved = at.told * self.mixed(jnp.einsum("vnr,nv->vr", at.slopes, p))
        bent = _back(at, self.unmixed(moved, at.x))
        for i, prior in self.priors:
            bent = bent.at[i].add(prior.touched(v[i], p[i]))
        return bent

    def random_slope(self, v: Numbers, at: Linear, key: PRNGKeyArray) -> Numbers:
        """Of mean 0, its covariance the curvature."""
        of_data, *of_priors = jax.random.split(key, 1 + len(self.priors))
        noise = jax.random.normal(of_data, at.seen.shape, at.seen.dtype)
        if jnp.iscomplexobj(noise):
            noise = noise * jnp.sqrt(2.0).astype(v.dtype)
        slope = _back(at, self.unmixed(jnp.sqrt(at.told) * noise, at.x))
        for (i, prior), key in zip(self.priors, of_priors, strict=True):
            slope = slope.at[i].add(prior.random_slope(v[i], key))
        return slope

    def bend(self, v: Numbers, at: Linear) -> Float[Array, "voxels numbers numbers"]:
        """-Σ pull ∂²(A f)/∂v∂v: what a curved model adds, of each voxel by itself."""
        f = eqx.Partial(_bends, self.ask)
        back = self.unmixed(self.pull(at.seen), at.x)
        rows = self.known, v.T, jnp.where(self.inside[:, None], back, 0.0)
        return -over_voxels(f, self.theta, rows, self.chunk)

    def hessian(self, v: Numbers, at: Linear, bend: Array, p: Numbers) -> Numbers:
        """∂²cost/∂v∂v p, given `bend`."""
        moved = self.mixed(jnp.einsum("vnr,nv->vr", at.slopes, p))
        pulled = -jax.jvp(self.pull, (at.seen,), (moved,))[1]
        bent = _back(at, self.unmixed(pulled, at.x)) + jnp.einsum("vnm,mv->nv", bend, p)
        for i, prior in self.priors:
            bent = bent.at[i].add(prior.bent(v[i], p[i]))
        return bent

    def blocks(self, v: Numbers, at: Linear, share: Array) -> Symmetric:
        """The curvature's blocks of one voxel, AᴴA / σ² taken to be `share`."""
        seen = at.slopes
        if self.ask.rician:
            seen = seen * at.told.reshape(at.x.shape)[:, None]
        gram = share * jnp.einsum("vnr,vmr->nmv", jnp.conj(at.slopes), seen).real
        for i, prior in self.priors:
            gram = gram.at[i, i].add(prior.stiffness(v[i]))
        gram += jnp.eye(len(v))[:, :, None] * jnp.where(self.inside, 0.0, 1.0)[None, None]
        return [[gram[i, j] for j in range(i + 1)] for i in range(len(v))]

    def amplitudes(self, p: list[Array], x: Array) -> list[Array]:
        """Those that fit signals x best where the unknowns are p."""
        f = eqx.Partial(_amplitudes, self.ask)
        return list(over_voxels(f, self.theta, (self.known, p, x), self.chunk))

    def share(self, v: Numbers) -> Array:
        """The mean of AᴴA's diagonal, over σ²: by one random vector."""
        x = self._random(v)
        return jnp.sum(jnp.abs(self.mixed(x)) ** 2) / jnp.maximum(jnp.sum(jnp.abs(x) ** 2), 1.0)

    def measured(self, v: Numbers) -> Array:
        """How many real numbers signals reach: lines left out may be zeros of y."""
        reached = jnp.sum(self.mixed(self._random(v)) != 0)
        return reached * (2 if jnp.iscomplexobj(self.y) else 1)

    def _random(self, v: Numbers) -> Array:
        like = jax.eval_shape(self.signals, v)
        random = jax.random.normal(jax.random.key(0), like.shape, v.dtype)
        return jnp.where(self.inside[:, None], random, 0.0).astype(like.dtype)


def _back(at: Linear, pulled: Array) -> Numbers:
    return jnp.einsum("vnr,vr->nv", jnp.conj(at.slopes), pulled).real


def _in_image(theta: Model, parts: Rows) -> Array:
    """Rows of numbers of equal noise, as the signal they are of."""
    signal = jax.lax.complex(parts[0].T, parts[1].T) if len(parts) == 2 else parts[0].T
    return signal / jnp.sqrt(theta.averages)[None].astype(parts[0].dtype)


def _signals(ask: Question, theta: Model, rows: Any) -> Array:
    known, v = rows
    count = len(ask.unknowns)
    chunk = Chunk(theta, known, jnp.ones_like(v[:, 0]), ask)
    basis = chunk.basis(chunk.values([*v.T[:count]]))
    if not ask.amplitudes:
        return _in_image(theta, basis[0])
    return _in_image(theta, combined([*v.T[count:]], chunk.directions(basis)))


def _slopes(ask: Question, polar: bool, theta: Model, rows: Any) -> tuple[Array, Array]:
    known, v = rows
    count = len(ask.unknowns)
    chunk = Chunk(theta, known, jnp.ones_like(v[:, 0]), ask)
    parts, slopes = chunk.slopes([*v.T[:count]])
    if not ask.amplitudes:
        moves, expected = [slope[0] for slope in slopes], parts[0]
    else:
        amplitudes = [*v.T[count:]]
        expected = combined(amplitudes, parts)
        moves = [combined(amplitudes, slope) for slope in slopes]
        if polar and ask.data == "complex":
            for k in range(0, len(parts), 2):
                size = magnitude(jax.lax.complex(*amplitudes[k : k + 2]))
                none = size == 0
                re, im = (part / jnp.where(none, 1.0, size) for part in amplitudes[k : k + 2])
                re, im = combined([jnp.where(none, 1.0, re), im], parts[k : k + 2])
                moves += [(re, im), (-im, re)]
        else:
            moves += parts
    return _in_image(theta, expected), jnp.stack([_in_image(theta, m) for m in moves], axis=1)


def _amplitudes(ask: Question, theta: Model, rows: Any) -> list[Array]:
    known, p, x = rows
    chunk = Chunk(theta, known, jnp.ones(x.shape[0], x.real.dtype), ask)
    return best_amplitudes(chunk.directions(chunk.basis(p)), as_rows(theta, ask.data, x))


def _bends(ask: Question, theta: Model, rows: Any) -> Array:
    known, v, pulled = rows

    def along(v: Array) -> Array:
        return jnp.sum((jnp.conj(pulled) * _signals(ask, theta, (known, v))).real)

    unit = jnp.eye(v.shape[1], dtype=v.dtype)

    def bent(direction: Array) -> Array:
        moved = jnp.broadcast_to(direction[None], v.shape)
        return jax.jvp(jax.grad(along), (v,), (moved,))[1]

    return jax.vmap(bent, out_axes=1)(unit)
