"""q from x by a network: learned once for an acquisition, then a matrix product or two a voxel."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from operator import attrgetter
from pathlib import Path
from typing import Any, Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Int, PRNGKeyArray

from learn.frame import Asked, Frame, beside_signal, inputs, measured, normalised, pairs
from learn.networks import ResidualNetwork, as_function
from learn.posterior import covariance, mean_and_factor, negative_log_likelihood, outputs
from learn.training import train
from mrphys.bounds import TISSUE, Bounds
from mrphys.errors import InputError, Problem
from mrphys.mapping import CONVERGED, FAILED, ILL_DETERMINED, MASKED, T1_S, T2_S
from mrphys.noise import rician_mean, rician_variance
from mrphys.simulate import over_voxels
from mrphys.tissue import Tissue
from mrphys.units import check_count, check_range
from mrphys.voxelwise import Model, as_rows, dot, less, with_fields

OUTSIDE_PRIOR = 5
"""Status of voxels unlike anything learned from."""

SAMPLE = 8192
"""Simulations that units are measured on."""
CHUNK = 4096
"""Voxels mapped together."""
IMPROBABLE = 6.0
"""Standard deviations of χ² from which a signal is not that of the estimate."""
UNCHANGED = 0.8
"""Of the prior's sd: an estimate that is no more certain says nothing of the voxel."""

NOWHERE = Bounds(-np.inf, np.inf)

Prior = Mapping[str, tuple[float, float]] | Callable[[PRNGKeyArray, int], Any]


class LearnedEstimate(eqx.Module):
    """What a network says of every voxel. Maps have the voxels' shape.

    value       q: free fields estimated (the posterior's median of each), the others as they were
                given. 0 where masked or failed
    sd          the posterior's standard deviation of each free field, infinite where the status is
                OUTSIDE_PRIOR, FAILED or MASKED; 0 of the fields given
    covariance  of the free fields, in their order and units
    phase_rad   of a complex amplitude, by its name
    residual    sd of what the estimate leaves over of the signal, for its degrees of freedom
    status      CONVERGED; ILL_DETERMINED: no more certain than the prior; OUTSIDE_PRIOR: a signal
                the estimate does not explain, or an estimate, noise or given field outside of what
                was learned from; MASKED; FAILED: no signal, or not finite
    """

    value: Any
    sd: Any
    covariance: Float[Array, "*voxels free free"]
    phase_rad: dict[str, Float[Array, "*voxels"]]
    residual: Float[Array, "*voxels"]
    status: Int[Array, "*voxels"]


class Mapped(NamedTuple):
    """Rows of an estimate; values in the order of `free`."""

    values: tuple[Float[Array, " voxels"], ...]
    covariance: Float[Array, "voxels free free"]
    phase_rad: Float[Array, " voxels"] | None
    residual: Float[Array, " voxels"]
    status: Int[Array, " voxels"]


@dataclass(frozen=True)
class LearnedMapping:
    """q from x at once: what `learn_mapping` learned of one acquisition.

    `losses` and `evaluations` are of its training, in nats of the posterior's density.
    """

    theta: Model
    known: eqx.Module
    asked: Asked
    frame: Frame
    net: nnx.Module
    losses: Float[np.ndarray, " steps"]
    evaluations: dict[int, float]

    def __call__(
        self,
        x: Inexact[Array | np.ndarray, "*voxels readouts"],
        noise_sd: ArrayLike,
        *,
        known: eqx.Module | None = None,
        mask: Bool[Array | np.ndarray, "..."] | None = None,
        chunk: int = CHUNK,
    ) -> LearnedEstimate:
        """The estimate of every voxel.

        x         data of the kind learned
        noise_sd  of the real part of one average: a number or a map
        known     q with the fields given of every voxel; of no account where none was learned
        mask      True where to map

        Differentiable in x, noise_sd and given fields. In chunks and over devices as
        `mrphys.simulate`. Raises InputError for shapes that do not match, noise_sd <= 0, another
        kind of data, a given field that is missing.
        """
        x = jnp.asarray(x)
        shape = x.shape[:-1]
        _check_call(self, x, noise_sd, known, mask)
        q = self.known
        if self.asked.given:
            given = [attrgetter(name)(known) for name in self.asked.given]
            q = with_fields(q, self.asked.given, given)

        def rows(value: ArrayLike) -> Array:
            return jnp.broadcast_to(jnp.asarray(value), shape).reshape(-1)

        apply, weights = as_function(self.net)
        data = x.reshape(-1, x.shape[-1]), rows(noise_sd), jax.tree.map(rows, q)
        f = eqx.Partial(_map_rows, self.asked, apply)
        found = over_voxels(f, (self.theta, self.frame, weights), data, chunk)

        def image(flat: Array, outside: float | int) -> Array:
            flat = flat.reshape(*shape, *flat.shape[1:])
            if mask is None:
                return flat
            where = jnp.expand_dims(jnp.asarray(mask), tuple(range(len(shape), flat.ndim)))
            return jnp.where(where, flat, jnp.asarray(outside, flat.dtype))

        free, amplitude = self.asked.free, self.asked.amplitude
        sds = [jnp.sqrt(found.covariance[:, i, i]) for i in range(len(free))]
        return LearnedEstimate(
            value=with_fields(q, free, [image(value, 0.0) for value in found.values]),
            sd=with_fields(
                jax.tree.map(jnp.zeros_like, q), free, [image(sd, jnp.inf) for sd in sds]
            ),
            covariance=image(found.covariance, jnp.inf),
            phase_rad={}
            if found.phase_rad is None or amplitude is None
            else {amplitude: image(found.phase_rad, 0.0)},
            residual=image(found.residual, 0.0),
            status=image(found.status, MASKED),
        )


def learn_mapping(
    theta: Model,
    prior: Prior,
    noise_sd: float | tuple[float, float],
    free: Sequence[str],
    *,
    given: Sequence[str] = (),
    known: eqx.Module | None = None,
    linear: Sequence[str] = ("m0",),
    bounds: dict[str, tuple[float, float]] | None = None,
    data: Literal["complex", "magnitude", "real"] | None = None,
    width: int = 64,
    depth: int = 3,
    steps: int = 4000,
    batch: int = 512,
    learning_rate: float = 3e-3,
    every: int = 200,
    folder: str | Path | None = None,
    progress: Callable[[int, int, float], None] = lambda step, of, loss: None,
    key: PRNGKeyArray,
) -> LearnedMapping:
    """A network that says what mr.fit would find, from simulations of tissue of a prior.

        min over weights of E[-log N(u(q); µ(x, σ), Σ(x, σ))],    x = f(θ, q) + η,  q from the prior

    in the coordinates u of `mrphys.bounds`: µ and Σ tend to the mean and the covariance of the
    posterior p(u | x), under the prior, which is why values are drawn to it where noise is strong.

    theta     a Sequence, or any module with `averages` and `signals(rows)`
    prior     boxes by name of field, uniform, or log-uniform where positive and a decade or more
              wide; or a sampler (key, voxels) -> q, rows of tissue
    noise_sd  of the real part of one average, relative to the prior's signal: a number, or a range
              from which it is drawn log-uniformly; it is read by the network
    free      fields to estimate
    given     fields that vary in the prior and will be known of every voxel, such as a map of B1
    known     q, its other fields; a Tissue with T1 1 s and T2 0.1 s when None
    linear    the field in which the signal is linear. Where it is free, signals are read in their
              own scale (and phase, when complex): it may be of any size then and needs no prior
    bounds    (low, high) of free fields not linear, wider than the prior; `mrphys.bounds.TISSUE`
              unless given
    data      to be mapped; unless given, as the model: "complex" or "real"
    width, depth, steps, batch, learning_rate    of a residual network and its training by Adam,
              warmed up and decayed; every and folder as of `learn.training.train`

    Raises InputError for names that are no field or have no bounds, prior or bounds out of order,
    fields that vary and are neither free nor given, a model not linear in the amplitude; Diverged
    where training fails.

    Papamakarios, Murray 2016, arXiv:1605.06376 (neural posterior estimation); Nix, Weigend 1994,
    doi:10.1109/ICNN.1994.374138 (a network's own variance).
    """
    known = Tissue(t1_s=T1_S, t2_s=T2_S) if known is None else known
    limits = TISSUE | {name: Bounds(*map(float, pair)) for name, pair in (bounds or {}).items()}
    noise = (noise_sd, noise_sd) if isinstance(noise_sd, int | float) else noise_sd
    kind = data or _kind(theta, known)
    asked = Asked(
        tuple(free),
        tuple(None if name in linear else limits.get(name, NOWHERE) for name in free),
        tuple(given),
        kind,
    )
    _check_asked(asked, prior, noise, known, limits)
    for name, value in (("width", width), ("steps", steps), ("batch", batch)):
        check_count(f"learn_mapping: {name}", value)
    sample_key, held_out_key, weights_key, training_key = jax.random.split(key, 4)
    simulate = eqx.filter_jit(eqx.Partial(_simulated, theta, prior, noise, known, asked, batch))
    read = eqx.filter_jit(eqx.Partial(pairs, theta, asked))
    batches = -(-SAMPLE // batch)
    sample = _together(map(simulate, jax.random.split(sample_key, batches)))
    _check_sample(theta, asked, sample[0])
    frame = eqx.filter_jit(measured)(theta, asked, *sample)

    def draw(key: PRNGKeyArray) -> tuple[Array, Array]:
        return read(frame, *simulate(key))

    held_out = _together(map(draw, jax.random.split(held_out_key, batches)))
    judge = nnx.jit(negative_log_likelihood)
    sizes = held_out[0].shape[1], outputs(len(asked.free)), width, depth
    net = nnx.jit(lambda key: ResidualNetwork(*sizes, rngs=nnx.Rngs(key)))(weights_key)
    made = train(
        net,
        negative_log_likelihood,
        draw,
        _optimiser(learning_rate, steps),
        steps,
        evaluate=lambda net: float(judge(net, held_out, held_out_key)),
        every=every,
        folder=folder,
        progress=progress,
        key=training_key,
    )
    return LearnedMapping(theta, known, asked, frame, made.net, made.losses, made.evaluations)


def _together(batches: Iterable[Any]) -> Any:
    return jax.tree.map(lambda *parts: jnp.concatenate(parts), *batches)


@lru_cache
def _optimiser(learning_rate: float, steps: int) -> optax.GradientTransformation:
    """Adam, warmed up and decayed; the same for the same numbers, as a compiled step is."""
    warm, end = min(100, max(steps // 10, 1)), 0.01 * learning_rate
    rate = optax.warmup_cosine_decay_schedule(0.0, learning_rate, warm, steps, end)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def _simulated(
    theta: Model,
    prior: Prior,
    noise: tuple[float, float],
    known: eqx.Module,
    asked: Asked,
    voxels: int,
    key: PRNGKeyArray,
) -> tuple[Any, Array, Array]:
    """Tissue of the prior, its noisy signal, its noise."""
    prior_key, level_key, noise_key = jax.random.split(key, 3)
    if callable(prior):
        q = prior(prior_key, voxels)
    else:
        share = jax.random.uniform(prior_key, (len(prior), voxels))
        boxes = {name: Bounds(*map(float, pair)) for name, pair in prior.items()}
        if asked.amplitude and asked.amplitude not in prior:
            known = with_fields(known, (asked.amplitude,), [jnp.ones(())])
        values = [box.at_share(part) for box, part in zip(boxes.values(), share, strict=True)]
        q = with_fields(known, tuple(boxes), values)
    q = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (voxels,)), q)
    low, high = jnp.log(noise[0]), jnp.log(noise[1])
    sd = jnp.exp(low + (high - low) * jax.random.uniform(level_key, (voxels,)))
    x = theta.signals(q)
    each = sd[:, None] / jnp.sqrt(theta.averages)[None]
    if asked.data == "real":
        return q, x.real + each * jax.random.normal(noise_key, x.shape, sd.dtype), sd
    real, imaginary = jax.random.normal(noise_key, (2, *x.shape), sd.dtype)
    x = x + jax.lax.complex(each * real, each * imaginary)
    return q, jnp.abs(x) if asked.data == "magnitude" else x, sd


def _map_rows(
    asked: Asked, apply: Callable, learned: tuple[Model, Frame, Any], voxels: tuple[Any, ...]
) -> Mapped:
    """The estimate of a chunk of voxels."""
    (theta, frame, weights), (x, sd, q) = learned, voxels
    usable = jnp.isfinite(x).all(axis=1) & (x != 0).any(axis=1) & (sd > 0) & jnp.isfinite(sd)
    x, sd = jnp.where(usable[:, None], x, 1.0), jnp.where(usable, sd, 1.0)
    read = normalised(theta, asked, frame.unit, frame.reference, x)
    beside = beside_signal(asked, read.scale, sd, q)
    mean, factor = mean_and_factor(apply(weights, inputs(frame, read, beside)), len(asked.free))
    about = frame.coordinates
    u = about.mean[None] + about.sd[None] * mean
    spread = about.sd[None, :, None] * covariance(factor) * about.sd[None, None]
    values, slopes = _values(asked, read.scale, u)
    moved = jnp.stack(slopes, axis=1)
    residual, phase, unlikely = _residual(theta, asked, values, x, sd, q)
    deviation = jnp.sqrt(jnp.diagonal(spread, axis1=1, axis2=2))
    outside = about.outside(u, deviation) | frame.beside.outside(beside, 0.05) | unlikely
    vague = (deviation > UNCHANGED * about.sd[None]).any(axis=1)
    status = jnp.where(vague, ILL_DETERMINED, CONVERGED)
    status = jnp.where(usable, jnp.where(outside, OUTSIDE_PRIOR, status), FAILED)
    lost = (outside | ~usable)[:, None, None]
    infinite = jnp.where(jnp.eye(len(asked.free), dtype=bool), jnp.inf, 0.0)[None]
    return Mapped(
        tuple(jnp.where(usable, value, 0.0) for value in values),
        jnp.where(lost, infinite, moved[:, :, None] * spread * moved[:, None]),
        None if phase is None else jnp.where(usable, phase, 0.0),
        jnp.where(usable, residual, 0.0),
        status,
    )


def _values(asked: Asked, scale: Array, u: Array) -> tuple[list[Array], list[Array]]:
    """Of coordinates, and their slopes in them."""
    values, slopes = [], []
    for bound, at in zip(asked.bounds, u.T, strict=True):
        values.append(scale * jnp.exp(at) if bound is None else bound.value(at))
        slopes.append(values[-1] if bound is None else bound.slope(at))
    return values, slopes


def _residual(
    theta: Model, asked: Asked, values: Sequence[Array], x: Array, sd: Array, q: Any
) -> tuple[Array, Array | None, Array]:
    """sd of what is left over of the signal, the phase of its amplitude, and whether so much is
    improbable."""
    signal, phase = theta.signals(with_fields(q, asked.free, values)), None
    if asked.data == "complex" and asked.amplitude is not None:
        along = jnp.sum(theta.averages[None] * jnp.conj(signal) * x, axis=1)
        size = jnp.abs(along)
        turn = jnp.where(size > 0, along, 1.0) / jnp.where(size > 0, size, 1.0)
        phase, x = jnp.angle(turn), x * jnp.conj(turn)[:, None]
    measured, expected = (as_rows(theta, asked.data, part) for part in (x, signal))
    if asked.data == "magnitude":
        m, a = measured[0] / sd[None], expected[0] / sd[None]
        squares = jnp.sum((m - rician_mean(a, 1.0)) ** 2 / rician_variance(a, 1.0), axis=0)
    else:
        left = less(measured, expected)
        squares = dot(left, left) / sd**2
    spare = sum(row.shape[0] for row in measured) - len(asked.free) - (phase is not None)
    spare = max(spare, 1)
    positive = squares > 0
    left = jnp.where(positive, jnp.sqrt(jnp.where(positive, squares, 1.0) / spare) * sd, 0.0)
    return left, phase, squares > spare + IMPROBABLE * (2 * spare) ** 0.5


def _kind(theta: Model, known: eqx.Module) -> Literal["complex", "real"]:
    row = jax.tree.map(lambda leaf: jnp.zeros((1,), leaf.dtype), known)
    signal = eqx.filter_eval_shape(lambda theta, row: theta.signals(row), theta, row)
    return "complex" if jnp.issubdtype(signal.dtype, jnp.complexfloating) else "real"


def _check_asked(
    asked: Asked,
    prior: Prior,
    noise: tuple[float, float],
    known: eqx.Module,
    limits: Mapping[str, Bounds],
) -> None:
    problems = []
    names, boxes = (*asked.free, *asked.given), {} if callable(prior) else dict(prior)
    if not asked.free or len(set(names)) < len(names):
        found = f"free {asked.free}, given {asked.given}"
        problems.append(Problem("learn_mapping: free", found, "names, each once"))
    for name in (*names, *boxes):
        try:
            attrgetter(name)(known)
        except AttributeError:
            expected = f"a field of {type(known).__name__}"
            problems.append(Problem("learn_mapping", repr(name), expected))
    if asked.bounds.count(None) > 1:
        found = ", ".join(n for n, b in zip(asked.free, asked.bounds, strict=True) if b is None)
        expected = "bounds of each, and of one at most that it is linear"
        problems.append(Problem("learn_mapping: free", found, expected))
    for name, bound in zip(asked.free, asked.bounds, strict=True):
        if bound is not None and not -np.inf < bound.low < bound.high < np.inf:
            found = f"{tuple(bound)} of {name}"
            problems.append(Problem("learn_mapping: bounds", found, "finite, low < high"))
    for name, pair in boxes.items():
        low, high = map(float, pair)
        if name == asked.amplitude and low <= 0:
            where = f"learn_mapping: prior of {name}"
            problems.append(Problem(where, f"{pair}", "an amplitude above 0"))
        inside = limits.get(name, Bounds(low, high)) if name in asked.free else Bounds(low, high)
        if not inside.low <= low < high <= inside.high:
            expected = f"low < high within {tuple(inside)}"
            problems.append(Problem(f"learn_mapping: prior of {name}", f"{pair}", expected))
        if name not in names:
            expected = "every field of the prior among free or given"
            problems.append(Problem("learn_mapping: prior", repr(name), expected))
    for name in set(names) - set(boxes) - {asked.amplitude}:
        if not callable(prior):
            problems.append(Problem("learn_mapping: prior", f"none of {name}", "(low, high)"))
    if not 0 < noise[0] <= noise[1] < np.inf:
        problems.append(Problem("learn_mapping: noise_sd", f"{noise}", "0 < low <= high"))
    if problems:
        raise InputError(*problems)


def _check_sample(theta: Model, asked: Asked, q: Any) -> None:
    """Raises InputError for a field that varies unsaid, and a signal that is not linear."""
    problems = []
    for path, leaf in jax.tree.leaves_with_path(jax.device_get(q)):
        name = jax.tree_util.keystr(path).lstrip(".")
        if name not in (*asked.free, *asked.given) and np.any(leaf != leaf[0]):
            expected = "every field that varies among free or given"
            problems.append(Problem("learn_mapping: prior", repr(name), expected))
    if asked.amplitude is not None and not _doubles(theta, asked.amplitude, q):
        found = f"a signal that does not double with {asked.amplitude}"
        cause = "other fields in which it is linear too: linear=() and bounds of each"
        problems.append(Problem("learn_mapping: linear", found, "one that does", cause))
    if problems:
        raise InputError(*problems)


@eqx.filter_jit
def _doubles(theta: Model, amplitude: str, q: Any) -> Bool[Array, ""]:
    few = jax.tree.map(lambda leaf: leaf[:16], q)
    twice = with_fields(few, (amplitude,), [2 * attrgetter(amplitude)(few)])
    x, doubled = theta.signals(few), theta.signals(twice)
    return jnp.max(jnp.abs(doubled - 2 * x)) <= 1e-3 * jnp.max(jnp.abs(x))


def _check_call(learned: LearnedMapping, x: Array, noise_sd: Any, known: Any, mask: Any) -> None:
    asked, problems = learned.asked, []
    where, shape, readouts = "LearnedMapping", x.shape[:-1], learned.theta.averages.size
    if x.ndim < 1 or x.shape[-1] != readouts:
        expected = f"a last axis of {readouts} readouts"
        problems.append(Problem(f"{where}: x", f"shape {x.shape}", expected))
    if 0 in shape:
        problems.append(Problem(f"{where}: x", f"voxels {shape}", "voxels to map"))
    if jnp.iscomplexobj(x) != (asked.data == "complex"):
        found = "complex data" if jnp.iscomplexobj(x) else "real data"
        problems.append(Problem(f"{where}: x", found, f"{asked.data} data, as learned"))
    maps = {"noise_sd": noise_sd} | ({} if mask is None else {"mask": mask})
    for name in asked.given:
        try:
            maps[f"known {name}"] = attrgetter(name)(known)
        except AttributeError:
            problems.append(Problem(f"{where}: known", f"no {name}", "its map, as learned"))
    for name, value in maps.items():
        try:
            fits = np.broadcast_shapes(jnp.shape(value), shape) == shape
        except ValueError:
            fits = False
        if not fits:
            found, expected = f"shape {jnp.shape(value)}", f"one number or voxels {shape}"
            problems.append(Problem(f"{where}: {name}", found, expected, "another image"))
    if problems:
        raise InputError(*problems)
    smallest = float(jnp.finfo(jnp.float32).tiny)
    check_range(f"{where}: noise_sd", noise_sd, smallest, float("inf"), "(signal units)")
