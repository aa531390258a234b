"""The fit of a chunk of voxels: what `mrphys.mapping.fit` does between its doors.

Signals are `Rows`: one array (readouts, voxels) of real numbers, or two, the real and the imaginary
part. What a voxel is expected to give is Σ_k a_k B_k(p), with amplitudes a in which it is linear
and unknowns p, each in its bounds' coordinate u.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Inexact, PyTree

from mrphys.bounds import AT_BOUND, REACH, Bounds
from mrphys.least_squares import (
    Fitted,
    Symmetric,
    Vector,
    in_parts,
    inverse_diagonal,
    levenberg_marquardt,
    solve,
)
from mrphys.likelihood import bessel_ratio, rician_cost, rician_information
from mrphys.noise import magnitude, rician_mean, rician_variance
from mrphys.starts import nearest_start

CONVERGED, AT_BOUNDARY, ILL_DETERMINED, MASKED, FAILED = range(5)

WIDE = 40.0
"""Of the logarithm of an amplitude."""

Rows = tuple[Float[Array, "readouts voxels"], ...]
Data = Literal["complex", "magnitude", "real"]


@runtime_checkable
class Model(Protocol):
    """What can be fitted: `signals` of a row of voxels, and how often each readout is averaged."""

    @property
    def averages(self) -> Float[Array, " readouts"]:
        """Averages of each readout."""
        ...

    def signals(self, rows, /) -> Inexact[Array, "voxels readouts"]:
        """The noiseless signal of a row of voxels."""
        ...


class Question(NamedTuple):
    """What a fit is asked: unknowns within bounds, amplitudes, kind of data and of its noise."""

    unknowns: tuple[str, ...]
    bounds: tuple[Bounds, ...]
    amplitudes: tuple[str, ...]
    data: Data
    rician: bool
    start_by_magnitude: bool
    iterations: int

    @property
    def count(self) -> int:
        """Real numbers found in each voxel."""
        return len(self.unknowns) + len(self.amplitudes) * (2 if self.data == "complex" else 1)


class Given(NamedTuple):
    """Rows of voxels: measured, sd of noise (None: unknown), fixed parameters, start (or None),
    which readouts count (None: all)."""

    x: Inexact[Array, "voxels readouts"]
    noise_sd: Float[Array, " voxels"] | None
    known: eqx.Module
    start: tuple[Float[Array, " voxels"], ...] | None
    used: Bool[Array, "voxels readouts"] | None = None


class Found(NamedTuple):
    """Values and sds in the order unknowns, amplitudes; phases of complex amplitudes; the unknowns
    where each search ended, also in vain, and what they leave over."""

    values: tuple[Float[Array, " voxels"], ...]
    sds: tuple[Float[Array, " voxels"], ...]
    phases_rad: tuple[Float[Array, " voxels"], ...]
    residual: Float[Array, " voxels"]
    noise_sd: Float[Array, " voxels"]
    status: Array
    reached: tuple[Float[Array, " voxels"], ...]
    left: Float[Array, " voxels"]


def with_fields(q: eqx.Module, names: tuple[str, ...], values) -> eqx.Module:
    """q with some fields replaced, unchecked."""
    get = attrgetter(*names) if len(names) > 1 else lambda tree: (attrgetter(*names)(tree),)
    return eqx.tree_at(get, q, tuple(values), is_leaf=lambda leaf: leaf is None) if names else q


def as_rows(theta: Model, data: Data, x: Inexact[Array, "voxels readouts"]) -> Rows:
    """The numbers measured of a signal, all of the same noise."""
    gain = jnp.sqrt(theta.averages)[:, None].astype(x.real.dtype)
    if data == "complex":
        return x.real.T * gain, x.imag.T * gain
    return ((magnitude(x) if data == "magnitude" else x.real).T * gain,)


def dot(a: Rows, b: Rows) -> Float[Array, " voxels"]:
    """Σ over all numbers of a voxel."""
    total = a[0] * b[0]
    for left, right in zip(a[1:], b[1:], strict=True):
        total = total + left * right
    return jnp.sum(total, axis=0)


def combined(weights: Vector, parts: list[Rows]) -> Rows:
    """Σ_k weights_k parts_k."""
    total = tuple(weights[0][None] * part for part in parts[0])
    for weight, more in zip(weights[1:], parts[1:], strict=True):
        total = tuple(t + weight[None] * part for t, part in zip(total, more, strict=True))
    return total


def less(a: Rows, b: Rows) -> Rows:
    """a - b."""
    return tuple(left - right for left, right in zip(a, b, strict=True))


def gram(parts: list[Rows], others: list[Rows]) -> Symmetric:
    """The lower triangle of parts_i · others_j."""
    return [[dot(part, others[j]) for j in range(i + 1)] for i, part in enumerate(parts)]


class Chunk(eqx.Module):
    """Voxels fitted together: the model, what is known of each, the unit its signal counts in,
    which of its readouts do (1, else 0; None: all)."""

    theta: Model
    known: eqx.Module
    unit: Float[Array, " voxels"]
    ask: Question = eqx.field(static=True)
    used: Float[Array, "readouts voxels"] | None = None

    @property
    def each(self) -> PyTree[Array]:
        """What differs from voxel to voxel, voxels on the last axis."""
        known = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, 0, -1), self.known)
        return known, self.unit, self.used

    def of(self, each: PyTree[Array]) -> "Chunk":
        """Of other voxels."""
        known, unit, used = each
        known = jax.tree.map(lambda leaf: jnp.moveaxis(leaf, -1, 0), known)
        return Chunk(self.theta, known, unit, self.ask, used)

    def counted(self, rows: Rows) -> Rows:
        """0 for readouts that do not count."""
        return rows if self.used is None else tuple(self.used * part for part in rows)

    @property
    def spare(self) -> Array:
        """Numbers measured beyond those found."""
        each = 2 if self.ask.data == "complex" else 1
        readouts = self.theta.averages.size if self.used is None else jnp.sum(self.used, axis=0)
        return jnp.broadcast_to(each * readouts - self.ask.count, self.unit.shape).astype(int)

    def basis(self, p: Vector) -> tuple[Rows, ...]:
        """B_k(p) of each amplitude; the signal itself when none is free."""
        names = self.ask.amplitudes
        q = with_fields(self.known, self.ask.unknowns, p)
        if not names:
            rows = as_rows(self.theta, self.ask.data, self.theta.signals(q))
            return (self.counted(tuple(part / self.unit[None] for part in rows)),)
        one, zero = jnp.ones_like(self.unit), jnp.zeros_like(self.unit)
        alone = ([one if name == other else zero for other in names] for name in names)
        signals = [self.theta.signals(with_fields(q, names, values)) for values in alone]
        return tuple(self.counted(as_rows(self.theta, self.ask.data, signal)) for signal in signals)

    def directions(self, basis: tuple[Rows, ...]) -> list[Rows]:
        """What each real number of an amplitude adds to: B_k, and of a complex one i B_k."""
        if self.ask.data != "complex" or not self.ask.amplitudes:
            return list(basis)
        return [part for re, im in basis for part in ((re, im), (-im, re))]

    def values(self, u: Vector) -> Vector:
        """Unknowns of their coordinates."""
        return [bound.value(at) for bound, at in zip(self.ask.bounds, u, strict=True)]

    def slopes(self, u: Vector) -> tuple[list[Rows], list[list[Rows]]]:
        """The basis at u, and for each unknown its derivative: one direction moves it in all
        voxels."""
        bounds, p = self.ask.bounds, tuple(self.values(u))
        if not p:
            return self.directions(self.basis([])), []
        moves = jnp.stack([bound.slope(at) for bound, at in zip(bounds, u, strict=True)])
        alone = jnp.eye(len(u), dtype=moves.dtype)[:, :, None] * moves[None]

        def along(direction: Array) -> tuple[tuple[Rows, ...], tuple[Rows, ...]]:
            return jax.jvp(lambda *q: self.basis(list(q)), p, tuple(direction))

        basis, stacked = kept(jax.vmap(along, out_axes=(None, 0))(alone), moves[0, 0] > 0)
        slopes = [tuple(tuple(part[i] for part in rows) for rows in stacked) for i in range(len(u))]
        return self.directions(basis), [self.directions(slope) for slope in slopes]

    def expected(self, v: Float[Array, "numbers voxels"]) -> Rows:
        """Σ_k a_k B_k(p) at the coordinates v = (u, amplitudes): log |a| and phase of a complex
        amplitude, log a of a magnitude's, a of a real one."""
        count = len(self.ask.unknowns)
        basis = self.basis(self.values([*v[:count]]))
        if not self.ask.amplitudes:
            return basis[0]
        return combined(self.amplitudes([*v[count:]]), self.directions(basis))

    def amplitudes(self, coordinates: Vector) -> Vector:
        """What multiplies the directions, of the coordinates of amplitudes."""
        if self.ask.data == "magnitude":
            return [jnp.exp(value) for value in coordinates]
        if self.ask.data == "real":
            return coordinates
        pairs = zip(coordinates[::2], coordinates[1::2], strict=True)
        return [jnp.exp(log) * f(phase) for log, phase in pairs for f in (jnp.cos, jnp.sin)]

    def coordinates(self, u: Vector, amplitudes: Vector) -> Float[Array, "numbers voxels"]:
        """v of unknowns and amplitudes."""
        tiny = jnp.finfo(self.unit.dtype).tiny
        rest = amplitudes
        if self.ask.data == "magnitude":
            rest = [jnp.log(jnp.maximum(jnp.abs(a), tiny)) for a in amplitudes]
        elif self.ask.data == "complex":
            pairs = zip(amplitudes[::2], amplitudes[1::2], strict=True)
            rest = [
                coordinate
                for a, b in pairs
                for coordinate in (jnp.log(jnp.maximum(jnp.hypot(a, b), tiny)), jnp.arctan2(b, a))
            ]
        return jnp.stack([*u, *rest])


def kept(tree: PyTree, either: Bool[Array, ""]) -> PyTree:
    """The same, written to memory whatever `either` is. XLA's processors fuse through a barrier:
    every sum over readouts would go through the model again, transposed, number by number."""
    one = jnp.where(either, 0.0, 1.0)
    return jax.lax.cond(
        either,
        lambda same, one: same,
        lambda same, one: jax.tree.map(lambda leaf: leaf * one.astype(leaf.dtype), same),
        tree,
        one,
    )


def best_amplitudes(directions: list[Rows], measured: Rows) -> Vector:
    """The amplitudes that fit best in the sense of least squares."""
    return solve(gram(directions, directions), [dot(part, measured) for part in directions])


def projected(chunk: Chunk, measured: Rows) -> Callable[[Vector], tuple[Array, Vector, Symmetric]]:
    """Cost, slope and curvature in u alone, amplitudes solved for (variable projection).

    The curvature is Gauss-Newton's of amplitudes and unknowns together, amplitudes eliminated.
    Golub, Pereyra 1973, doi:10.1137/0710036; Kaufman 1975, doi:10.1007/BF01932995.
    """

    def evaluate(u: Vector) -> tuple[Array, Vector, Symmetric]:
        parts, slopes = chunk.slopes(u)
        if not chunk.ask.amplitudes:
            left, moves = less(measured, parts[0]), [slope[0] for slope in slopes]
            return dot(left, left) / 2, [dot(m, left) for m in moves], gram(moves, moves)
        squares = gram(parts, parts)
        amplitudes = solve(squares, [dot(part, measured) for part in parts])
        left = less(measured, combined(amplitudes, parts))
        moves = [combined(amplitudes, slope) for slope in slopes]
        seen = [[dot(part, move) for part in parts] for move in moves]
        taken = [solve(squares, part) for part in seen]
        curvature = gram(moves, moves)
        for i, row in enumerate(curvature):
            for j in range(i + 1):
                for a, b in zip(seen[i], taken[j], strict=True):
                    row[j] = row[j] - a * b
        return dot(left, left) / 2, [dot(move, left) for move in moves], curvature

    return evaluate


def rician(chunk: Chunk, measured: Rows) -> Callable[[Vector], tuple[Array, Vector, Symmetric]]:
    """Cost, slope and expected curvature (Fisher scoring) in u, and in log a when there is an
    amplitude, of magnitudes in units of their noise."""
    (m,) = measured

    def evaluate(v: Vector) -> tuple[Array, Vector, Symmetric]:
        count = len(chunk.ask.unknowns)
        ((basis,),), slopes = chunk.slopes(v[:count])
        scale = jnp.exp(v[count])[None] if chunk.ask.amplitudes else jnp.ones((1, 1), basis.dtype)
        expected, moves = scale * basis, [scale * slope[0][0] for slope in slopes]
        if chunk.ask.amplitudes:
            moves.append(expected)
        told = (
            rician_cost(m, expected),
            m * bessel_ratio(m * expected) - expected,
            rician_information(expected),
        )
        cost, pull, weight = kept(told, expected[0, 0] > 0)
        return (
            jnp.sum(cost, axis=0),
            [jnp.sum(move * pull, axis=0) for move in moves],
            gram([(move,) for move in moves], [(weight * move,) for move in moves]),
        )

    return evaluate


class _Optimum(NamedTuple):
    chunk: Chunk
    v: Float[Array, "numbers voxels"]
    measured: Rows
    step: Float[Array, "some voxels"]
    good: Array
    status: Array


def fit_rows(ask: Question, theta: Model, given: Given) -> Found:
    """Values, standard deviations and status of a chunk of voxels."""
    x = given.x if given.used is None else jnp.where(given.used, given.x, 0.0)
    usable = jnp.isfinite(x).all(axis=1) & (x != 0).any(axis=1)
    if given.noise_sd is not None:
        usable &= given.noise_sd > 0
    measured = as_rows(theta, ask.data, jnp.where(usable[:, None], x, 1.0))
    noise = given.noise_sd
    if noise is not None:
        noise = jnp.where(usable, noise, 1.0)
    elif ask.rician:
        plain = _optimum(ask._replace(rician=False), theta, given, measured, None, usable)
        spread = _residual(plain, plain.chunk.expected(plain.v), False)
        usable &= plain.good & (spread > 0)
        noise = jnp.where(usable, spread, 1.0)
    found = _optimum(ask, theta, given, measured, noise, usable)
    return _described(found, noise)


def _optimum(
    ask: Question,
    theta: Model,
    given: Given,
    measured: Rows,
    noise: Array | None,
    usable: Array,
) -> _Optimum:
    """The root of the score. The search is not differentiated; the root is, implicitly."""
    if ask.rician and noise is not None:
        unit = noise
    else:
        unit = jax.lax.stop_gradient(jnp.max(jnp.abs(jnp.stack(measured)), axis=(0, 1)))
    used = None if given.used is None else given.used.T.astype(unit.dtype)
    chunk = Chunk(theta, given.known, unit, ask, used)
    measured = chunk.counted(tuple(part / unit[None] for part in measured))
    enough = chunk.spare >= (noise is None)
    found, step = _search(*still((chunk, measured, given.start)))
    finite = usable & enough & jnp.isfinite(found).all(axis=0) & jnp.isfinite(step).all(axis=0)
    edges = [jnp.abs(u) < AT_BOUND for u in found[: len(ask.unknowns)]]
    inside = jnp.stack(edges).all(axis=0) if edges else finite
    good = finite & inside
    here = jnp.where(finite[None], found, 0.0)

    def cost(v: Array) -> Array:
        expected = chunk.expected(v)
        if ask.rician:
            return jnp.sum(rician_cost(measured[0], expected[0]))
        left = less(measured, expected)
        return jnp.sum(dot(left, left)) / 2

    def score(v: Array) -> Array:
        return jnp.where(good[None], jax.grad(cost)(v), v - here)

    v = jax.lax.custom_root(score, here, lambda _, found: found, _block_solve)
    status = jnp.where(finite, jnp.where(inside, CONVERGED, AT_BOUNDARY), FAILED)
    return _Optimum(chunk, v, measured, step, good, status)


def still(tree: PyTree) -> PyTree:
    return jax.tree.map(
        lambda leaf: jax.lax.stop_gradient(leaf) if eqx.is_inexact_array(leaf) else leaf, tree
    )


def _search(chunk: Chunk, measured: Rows, start: tuple[Array, ...] | None) -> tuple[Array, Array]:
    """The optimum's coordinates, and the step still proposed."""
    ask = chunk.ask
    if start is None:
        u = nearest_start(chunk, measured)
    else:
        u = [bound.coordinate(value) for bound, value in zip(ask.bounds, start, strict=True)]
    if ask.rician:
        v = [*chunk.coordinates(u, _amplitudes_at(chunk, u, measured))]
        reach = [REACH] * len(u) + [WIDE] * (len(v) - len(u))

        def by_rice(given: PyTree, start: Vector, iterations: Array) -> Fitted:
            each, data = given
            return levenberg_marquardt(rician(chunk.of(each), data), start, reach, iterations)

        return in_parts(by_rice, (chunk.each, measured), v, ask.iterations, measured[0].shape[0])
    step = jnp.zeros_like(chunk.unit)[None]
    if u:
        reach = [REACH] * len(u)

        def by_squares(given: PyTree, start: Vector, iterations: Array) -> Fitted:
            some, data = chunk.of(given[0]), given[1]
            return levenberg_marquardt(projected(some, data), start, reach, iterations, some.spare)

        at, step = in_parts(
            by_squares, (chunk.each, measured), u, ask.iterations, measured[0].shape[0]
        )
        u = [*at]
    return chunk.coordinates(u, _amplitudes_at(chunk, u, measured)), step


def _amplitudes_at(chunk: Chunk, u: Vector, measured: Rows) -> Vector:
    if not chunk.ask.amplitudes:
        return []
    return best_amplitudes(chunk.directions(chunk.basis(chunk.values(u))), measured)


def _block_solve(linear: Callable[[Array], Array], right: Array) -> Array:
    """linear⁻¹ right, where `linear` mixes the numbers of a voxel only."""
    unit = jnp.eye(right.shape[0], dtype=right.dtype)[:, :, None]
    columns = jax.vmap(linear)(jnp.broadcast_to(unit, (*unit.shape[:2], right.shape[1])))
    matrix = [[columns[i, j] for j in range(i + 1)] for i in range(right.shape[0])]
    return jnp.stack(solve(matrix, list(right)))


def linearised(
    ask: Question, amplitudes: Vector, parts: list[Rows], slopes: list[list[Rows]]
) -> tuple[Rows, list[Rows]]:
    """What is expected of amplitudes and `Chunk.slopes`, and its derivative in each coordinate."""
    if not ask.amplitudes:
        return parts[0], [slope[0] for slope in slopes]
    moves = [combined(amplitudes, slope) for slope in slopes]
    expected = combined(amplitudes, parts)
    if ask.data == "real":
        return expected, moves + parts
    if ask.data == "magnitude":
        return expected, [*moves, expected]
    for k in range(0, len(parts), 2):
        re, im = combined(amplitudes[k : k + 2], parts[k : k + 2])
        moves += [(re, im), (-im, re)]
    return expected, moves


def _residual(found: _Optimum, expected: Rows, noise_known: bool) -> Array:
    """sd of what is left over, in the signal's units; 0 where nothing can be."""
    ask, measured = found.chunk.ask, found.measured
    if ask.rician and noise_known:
        (m,), (a,) = measured, expected
        left = (m - rician_mean(a, 1.0)) ** 2 / rician_variance(a, 1.0)
        left = kept(left, a[0, 0] > 0)
        squares = jnp.sum(*found.chunk.counted((left,)), axis=0)
    else:
        squares = dot(less(measured, expected), less(measured, expected))
    positive = (squares > 0) & (found.chunk.spare > 0)
    spare = jnp.maximum(found.chunk.spare, 1)
    sd = jnp.sqrt(jnp.where(positive, squares / spare, 1.0)) * found.chunk.unit
    return jnp.where(positive, sd, 0.0)


def _described(found: _Optimum, noise: Array | None) -> Found:
    chunk, v, ask = found.chunk, found.v, found.chunk.ask
    parts, slopes = chunk.slopes([*v[: len(ask.unknowns)]])
    expected, slopes = linearised(ask, chunk.amplitudes([*v[len(ask.unknowns) :]]), parts, slopes)
    residual = _residual(found, expected, noise is not None)
    noise = residual if noise is None else noise
    deviations = _deviations(ask, expected, slopes, noise / chunk.unit)
    arrived = _arrived(found, deviations)
    at, values, sizes, widest = values_and_slopes(chunk, v)
    sds, hidden = [], jnp.zeros(chunk.unit.shape, bool)
    lost = (found.status == FAILED) | ~arrived
    for i, size, limit in zip(at, sizes, widest, strict=True):
        sd = size * deviations[i]
        unknown = ~(jax.lax.stop_gradient(sd) < limit)
        sds.append(jnp.where(unknown | lost, jnp.inf, sd))
        hidden |= unknown
    status = jnp.where(arrived, CONVERGED, FAILED)
    status = jnp.where(hidden, ILL_DETERMINED, status)
    status = jnp.where(found.status == CONVERGED, status, found.status)
    failed = status == FAILED

    def told(maps: Sequence[Array]) -> tuple[Array, ...]:
        return tuple(jnp.where(failed, 0.0, value) for value in maps)

    phases = [v[i + 1] for i in at[len(ask.unknowns) :]] if ask.data == "complex" else []
    kept, sd = told((residual, noise))
    reached = tuple(values[: len(ask.unknowns)])
    return Found(told(values), tuple(sds), told(phases), kept, sd, status, reached, residual)


def values_and_slopes(chunk: Chunk, v: Array) -> tuple[list[int], Vector, Vector, Vector]:
    """Of unknowns and amplitudes: which coordinate of v, the value, its derivative in it, and the
    sd from which it is not determined."""
    ask, count = chunk.ask, len(chunk.ask.unknowns)
    values = chunk.values([*v[:count]])
    sizes = [bound.slope(u) for bound, u in zip(ask.bounds, v[:count], strict=True)]
    widest = [bound.widest_sd(value) for bound, value in zip(ask.bounds, values, strict=True)]
    amplitudes = [*range(count, v.shape[0], 2 if ask.data == "complex" else 1)]
    for i in amplitudes:
        real = ask.data == "real"
        values.append((v[i] if real else jnp.exp(v[i])) * chunk.unit)
        sizes.append(chunk.unit if real else values[-1])
        widest.append(jnp.full_like(chunk.unit, jnp.inf) if real else values[-1])
    return [*range(count), *amplitudes], values, sizes, widest


def _deviations(ask: Question, expected: Rows, slopes: list[Rows], noise: Array) -> Vector:
    """Cramér-Rao standard deviations of the coordinates, infinite where rounding hides them."""
    weighed = slopes
    if ask.rician:
        weight = rician_information(expected[0])
        weighed = [(weight * slope[0],) for slope in slopes]
    information = gram(slopes, weighed)
    count, dtype = len(information), jnp.finfo(noise.dtype)
    diagonal = [information[i][i] for i in range(count)]
    seen = [jax.lax.stop_gradient(d) > dtype.tiny for d in diagonal]
    scale = [jnp.sqrt(jnp.where(s, d, 1.0)) for s, d in zip(seen, diagonal, strict=True)]
    correlation = [
        [information[i][j] / (scale[i] * scale[j]) for j in range(i)] + [jnp.ones_like(scale[i])]
        for i in range(count)
    ]
    inflation = inverse_diagonal(correlation)
    most = 1 / (100 * count * float(dtype.eps))
    return [
        jnp.where(
            s & (jax.lax.stop_gradient(value) < most),
            noise * jnp.sqrt(jnp.clip(value, 1.0, most)) / size,
            jnp.inf,
        )
        for s, value, size in zip(seen, inflation, scale, strict=True)
    ]


def _arrived(found: _Optimum, deviations: Vector) -> Array:
    """Whether the step still proposed is small beside the standard deviations, or rounding's."""
    coarse = 30 * float(jnp.finfo(found.v.dtype).eps) ** 0.5
    near = [
        jnp.abs(step) < jnp.maximum(0.1 * jax.lax.stop_gradient(sd), coarse)
        for step, sd in zip(found.step, deviations, strict=False)
    ]
    return jnp.stack(near).all(axis=0)
