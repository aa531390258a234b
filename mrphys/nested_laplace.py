"""Means and standard deviations of a voxel whose likelihood is bent over one of them.

A fit's optimum and Cramér-Rao sd say all where the model is straight over an sd. In a train of
echoes T2, B1 and m0 lie in a valley that is not: B1 moves the signal by its square near 180°. Here
the unknown known worst, b, runs through the values that the data allow, and at each the others are
where they are most probable, as wide as their information says:

    p(b | x) ∝ p(x | b, r_b) |I_b|^(-1/2),   r_b = argmax over the others r, of information I_b

so that means and variances are sums over b. Nothing is known before but the bounds: every share of
them (`mrphys.bounds`) is as probable, and every size of an amplitude.

Beside a sum over all values (10 echoes, SNR 25) means err by up to 0.15 sd, sds by 6 %; a second
peak that no valley joins to the first is not found.

Of any number of unknowns, by the model itself, and differentiable; `mrphys.tabulated_posterior` is
many times faster where two are unknown and voxels differ in nothing that is known.

Rue, Martino, Chopin 2009, doi:10.1111/j.1467-9868.2008.00700.x.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Int

from mrphys.least_squares import Symmetric, Vector, factor, inverse_diagonal, solve
from mrphys.likelihood import bessel_ratio, rician_cost, rician_information
from mrphys.simulate import over_voxels
from mrphys.voxelwise import (
    CONVERGED,
    FAILED,
    ILL_DETERMINED,
    Chunk,
    Found,
    Given,
    Model,
    Question,
    Rows,
    as_rows,
    best_amplitudes,
    dot,
    gram,
    less,
    linearised,
    still,
    values_and_slopes,
)

NODES = 12
"""Gauss and Legendre's, over what the data allow."""
WIDE = 4.5
"""Of that, in sds to either side."""
SEARCHES = 4
AWAY, BENT = 1.5, 0.1
"""So many sds away, how far from a parabola's the cost may be, of it, where a model is straight."""
EDGE = 1e-4
"""Of the bounds' range, that is left out."""
LONGEST = 0.5
"""Step of a coordinate."""
SCALINGS = 4
"""Newton's steps of a Rician amplitude alone."""
LOOKED, SUMMED = 1024, 256
"""Voxels together."""
FEWEST = 64
UNKNOWN = 0.95
"""Of the sd of any value within bounds being as probable: data that leave as much say nothing."""


class Marginal(NamedTuple):
    """Means and sds in the order unknowns, amplitudes; sds are infinite where nothing is known."""

    values: Float[Array, "voxels numbers"]
    sds: Float[Array, "voxels numbers"]
    phases_rad: tuple[Float[Array, " voxels"], ...]


def marginal(ask: Question, theta: Model, given: Given, found: Found) -> Found:
    """What was found, means and sds in place of optima where the model is bent, or where the
    optimum is at a bound, ill determined or was not reached."""
    noise = found.noise_sd if given.noise_sd is None else given.noise_sd
    known = noise > 0
    noise = jnp.where(known, noise, 1.0)
    x = given.x if given.used is None else jnp.where(given.used, given.x, 0.0)
    usable = known & jnp.isfinite(x).all(axis=1) & (x != 0).any(axis=1)
    x = jnp.where(usable[:, None], x, 1.0)
    given = given._replace(x=x, noise_sd=noise, start=found.reached)
    look = over_voxels(eqx.Partial(bent, ask), theta, given, LOOKED)
    chosen = usable & (look | (found.status != CONVERGED))
    count = chosen.size
    if isinstance(chosen, Tracer):
        index = jnp.arange(count)
    else:
        index = np.flatnonzero(np.asarray(chosen))
        if index.size == 0:
            return found
        index = padded(index)
    some = jax.tree.map(lambda leaf: leaf[index], given)
    told = over_voxels(eqx.Partial(integrate, ask), theta, some, SUMMED)
    here = chosen[index]
    finite = jnp.isfinite(told.values).all(axis=1) & ~jnp.isnan(told.sds).any(axis=1)
    sure = finite & jnp.isfinite(told.sds).all(axis=1)
    before = found.status[index]
    after = jnp.where(sure, CONVERGED, jnp.where(before == FAILED, FAILED, ILL_DETERMINED))

    def put(old: Array, new: Array, where: Array) -> Array:
        return old.at[index].set(jnp.where(here & where, new, old[index]))

    sds = [jnp.where(finite, sd, jnp.inf) for sd in told.sds.T]
    return found._replace(
        values=tuple(put(*pair, sure) for pair in zip(found.values, told.values.T, strict=True)),
        sds=tuple(put(*pair, here) for pair in zip(found.sds, sds, strict=True)),
        phases_rad=tuple(
            put(*pair, sure) for pair in zip(found.phases_rad, told.phases_rad, strict=True)
        ),
        residual=put(found.residual, found.left[index], sure),
        noise_sd=put(found.noise_sd, some.noise_sd, sure),
        status=put(found.status, after, here),
    )


def padded(index: np.ndarray) -> np.ndarray:
    """With repetitions of the first, until they are so many that few sizes are compiled."""
    quarter = FEWEST * 2 ** max(int(np.log2(index.size / FEWEST)) - 2, 0)
    size = quarter * int(np.ceil(index.size / quarter))
    return np.concatenate([index, np.full(size - index.size, index[0])])


class _Surface(NamedTuple):
    chunk: Chunk
    measured: Rows


class _Here(NamedTuple):
    """Of the coordinates v: -log p(x | v), its downward slope, the information."""

    v: Vector
    cost: Array
    slope: Vector
    information: Symmetric


def bent(ask: Question, theta: Model, given: Given) -> Bool[Array, " voxels"]:
    """Whether the cost a little way along the valley is far from what the optimum's information
    foretells. `given.start` is the optimum."""
    surface, u = _surface(ask, theta, given)
    here = _look(surface, surface.chunk.coordinates(u, _amplitudes(surface, u)))
    size = _across(here, ask)
    worst = jnp.argmax(jnp.stack(size), axis=0)
    unit = [jnp.where(worst == k, 1.0, 0.0) for k in range(len(here.v))]
    column = solve(here.information, unit)
    variance = sum((x * part for x, part in zip(unit, column, strict=True)), jnp.zeros(()))
    step = [AWAY * part / jnp.sqrt(variance) for part in column]
    straight = jnp.ones_like(here.cost, bool)
    for sign in (1, -1):
        there = [v + sign * part for v, part in zip(here.v, step, strict=True)]
        rise = _cost(surface, there) - here.cost
        straight &= jnp.abs(rise / (AWAY**2 / 2) - 1) < BENT
    return ~straight


def integrate(ask: Question, theta: Model, given: Given) -> Marginal:
    """Means and sds over all that the data allow. `given.start` is the optimum. Differentiable."""
    surface, u = _surface(ask, theta, given)
    worst, nodes, weights = _nodes(surface, u)
    count = len(ask.unknowns)

    def add(_: None, node: Array) -> tuple[None, tuple]:
        here, step, log_volume = _settled(surface, _look(surface, node), worst)
        v = jnp.stack([at + move for at, move in zip(here.v, step, strict=True)])
        inner = _without(here.information, worst)
        spread = [jnp.where(worst == k, 0.0, s) for k, s in enumerate(inverse_diagonal(inner))]
        at, values, slopes = values_and_slopes(surface.chunk, v)[:3]
        variances = jnp.stack([s**2 * spread[i] for i, s in zip(at, slopes, strict=True)])
        for k, bound in enumerate(ask.bounds):
            if bound.logarithmic:  # The mean is above the middle.
                values[k] = values[k] + variances[k] / (2 * values[k])
        phases = tuple(v[count + 1 :: 2]) if ask.data == "complex" else ()
        return None, (log_volume, jnp.stack(values), variances, phases)

    _, (log, values, variances, phases) = jax.lax.scan(add, None, nodes)
    log = log + jnp.log(weights)
    share = jnp.exp(log - still(jnp.max(log, axis=0, keepdims=True)))
    share = (share / jnp.sum(share, axis=0, keepdims=True))[:, None]
    mean = jnp.sum(share * values, axis=0)
    variance = jnp.sum(share * (variances + (values - mean[None]) ** 2), axis=0)
    sds = jnp.sqrt(variance)
    told = jnp.ones_like(sds[0], bool)
    for k, bound in enumerate(ask.bounds):
        away = bound.coordinate(mean[k])
        most = UNKNOWN / np.sqrt(12.0) * bound.slope(away) / _rate(away)
        told &= still(sds[k]) < most
    turned = tuple(
        jnp.arctan2(*(jnp.sum(share[:, 0] * f(phase), axis=0) for f in (jnp.sin, jnp.cos)))
        for phase in phases
    )
    return Marginal(mean.T, jnp.where(told, sds, jnp.inf).T, turned)


def _surface(ask: Question, theta: Model, given: Given) -> tuple[_Surface, Vector]:
    """In units of the noise, and the optimum's coordinates."""
    assert given.noise_sd is not None
    assert given.start is not None
    used = None if given.used is None else given.used.T.astype(given.noise_sd.dtype)
    chunk = Chunk(theta, given.known, given.noise_sd, ask, used)
    rows = as_rows(theta, ask.data, given.x)
    measured = chunk.counted(tuple(part / given.noise_sd[None] for part in rows))
    u = [bound.coordinate(value) for bound, value in zip(ask.bounds, given.start, strict=True)]
    return _Surface(chunk, measured), u


def _amplitudes(surface: _Surface, u: Vector) -> Vector:
    chunk = surface.chunk
    if not chunk.ask.amplitudes:
        return []
    parts = chunk.directions(chunk.basis(chunk.values(u)))
    return best_amplitudes(parts, surface.measured)


def _cost(surface: _Surface, v: Vector) -> Array:
    expected = surface.chunk.expected(jnp.stack(v))
    if surface.chunk.ask.rician:
        costs = rician_cost(surface.measured[0], expected[0])
        return jnp.sum(*surface.chunk.counted((costs,)), axis=0)
    left = less(surface.measured, expected)
    return dot(left, left) / 2


def _look(surface: _Surface, v: Array | Vector) -> _Here:
    """At v; amplitudes are made the best there."""
    chunk, measured, ask = surface.chunk, surface.measured, surface.chunk.ask
    count = len(ask.unknowns)
    v = [*v]
    parts, slopes = chunk.slopes(v[:count])
    amplitudes = chunk.amplitudes(v[count:])
    if ask.amplitudes and not ask.rician:
        amplitudes = best_amplitudes(parts, measured)
        v = [*chunk.coordinates(v[:count], amplitudes)]
    elif ask.amplitudes:
        v[count] = _scaled(surface, parts[0], v[count])
        amplitudes = chunk.amplitudes(v[count:])
    expected, moves = linearised(ask, amplitudes, parts, slopes)
    if not ask.rician:
        left = less(measured, expected)
        return _Here(v, dot(left, left) / 2, [dot(m, left) for m in moves], gram(moves, moves))
    (m,), (a,) = measured, expected
    (pull,) = chunk.counted((m * bessel_ratio(m * a) - a,))
    (costs,) = chunk.counted((rician_cost(m, a),))
    weight = rician_information(a)
    weighed = [(weight * move[0],) for move in moves]
    slope = [dot(move, (pull,)) for move in moves]
    return _Here(v, jnp.sum(costs, axis=0), slope, gram(moves, weighed))


def _scaled(surface: _Surface, part: Rows, log: Array) -> Array:
    """The most probable logarithm of a Rician amplitude of what is seen of 1."""
    (m,), (unit,) = surface.measured, part

    def closer(_: Array, log: Array) -> Array:
        a = jnp.exp(log)[None] * unit
        (pull,) = surface.chunk.counted((m * bessel_ratio(m * a) - a,))
        slope, curvature = dot((a,), (pull,)), dot((a,), (rician_information(a) * a,))
        least = jnp.finfo(log.dtype).tiny
        return log + jnp.clip(slope / jnp.maximum(curvature, least), -LONGEST, LONGEST)

    return jax.lax.fori_loop(0, SCALINGS, closer, log)


def _rate(u: Array) -> Array:
    """d share / du."""
    share = jax.nn.sigmoid(u)
    return share * (1 - share)


def _across(here: _Here, ask: Question) -> Vector:
    """The sd of each unknown, of the range of its bounds."""
    variances = inverse_diagonal(here.information)
    pairs = zip(here.v[: len(ask.unknowns)], variances, strict=False)
    return [_rate(u) * jnp.sqrt(jnp.maximum(variance, 0.0)) for u, variance in pairs]


def _without(matrix: Symmetric, which: Int[Array, " voxels"]) -> Symmetric:
    """A coordinate held: the others' information, and 1 of its own."""
    return [
        [jnp.where((which == i) | (which == j), float(i == j), m) for j, m in enumerate(row)]
        for i, row in enumerate(matrix)
    ]


def _settled(
    surface: _Surface, here: _Here, held: Int[Array, " voxels"]
) -> tuple[_Here, Vector, Array]:
    """The step to where the other coordinates are most probable, and the logarithm of the volume
    beneath p(x | v) there, of a straight model."""
    ask = surface.chunk.ask
    slope = list(here.slope)
    log_prior = jnp.zeros_like(here.cost)
    for k in range(len(ask.unknowns)):
        slope[k] = slope[k] + 1 - 2 * jax.nn.sigmoid(here.v[k])
        log_prior = log_prior + jnp.where(held == k, 0.0, jnp.log(_rate(here.v[k])))
    if ask.data != "real":
        for k in range(len(ask.unknowns), len(slope), 2 if ask.data == "complex" else 1):
            slope[k] = slope[k] + 1
            log_prior = log_prior + here.v[k]
    inner = _without(here.information, held)
    slope = [jnp.where(held == k, 0.0, part) for k, part in enumerate(slope)]
    step = [jnp.clip(part, -LONGEST, LONGEST) for part in solve(inner, slope)]
    _, pivots = factor(inner)
    gained = sum(a * b for a, b in zip(slope, step, strict=True)) / 2
    volume = sum(jnp.log(pivot) for pivot in pivots) / 2
    return here, step, log_prior - here.cost + gained - volume


def _nodes(surface: _Surface, u: Vector) -> tuple[Array, Array, Array]:
    """Which coordinate runs, its nodes with the others most probable at each, and their weights."""
    ask = surface.chunk.ask
    start = surface.chunk.coordinates(u, _amplitudes(surface, u))
    here = _look(surface, start)
    sizes = jnp.stack(_across(here, ask))
    sizes = jnp.where(jnp.isfinite(sizes), sizes, 1.0)
    worst = jnp.argmax(sizes, axis=0)
    size = jnp.clip(jnp.max(sizes, axis=0), EDGE, 0.25)
    middle = jax.nn.sigmoid(jnp.take_along_axis(jnp.stack(here.v), worst[None], axis=0)[0])
    number = jnp.arange(start.shape[0])[:, None]

    def moved(v: Array, share: Array) -> Array:
        share = jnp.clip(share, EDGE, 1 - EDGE)
        return jnp.where(number == worst[None], (jnp.log(share) - jnp.log1p(-share))[None], v)

    def follow(v: Array, share: Array) -> tuple[Array, Array]:
        """The valley's floor at another share, from one near."""
        here, step, log_volume = _settled(surface, _look(surface, moved(v, share)), worst)
        return jnp.stack([at + move for at, move in zip(here.v, step, strict=True)]), log_volume

    middle = jnp.clip(middle, EDGE, 1 - EDGE)
    v, peak = follow(jnp.stack(here.v), middle)

    def reached(side: float) -> tuple[Array, Array]:
        def again(_: Array, now: tuple[Array, Array]) -> tuple[Array, Array]:
            at, far = now
            there, log_volume = follow(at, middle + side * far)
            fall = jnp.sqrt(jnp.maximum(2 * (peak - log_volume), 1e-2))
            longer = jnp.clip(WIDE / fall, 0.3, 2.0)
            good = jnp.isfinite(there).all(axis=0)
            return jnp.where(good[None], there, v), far * jnp.where(good, longer, 0.5)

        at, far = jax.lax.fori_loop(0, SEARCHES, again, (v, WIDE * size))
        return at, jnp.clip(middle + side * far, EDGE, 1 - EDGE)

    at, low = reached(-1.0)
    _, high = reached(1.0)
    points, weights = np.polynomial.legendre.leggauss(NODES)
    points = jnp.asarray((points + 1) / 2, size.dtype)

    def onward(v: Array, point: Array) -> tuple[Array, Array]:
        there, _ = follow(v, low + (high - low) * point)
        return there, there

    _, nodes = jax.lax.scan(onward, at, points)
    weights = jnp.asarray(weights, size.dtype)[:, None] * jnp.ones_like(size)[None]
    return worst, nodes, weights
