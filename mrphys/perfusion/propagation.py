"""From the optimum in a fit's coordinates to compartments, and to all that makes them uncertain."""

from operator import attrgetter
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from mrphys.least_squares import solve
from mrphys.mapping import FAILED, ILL_DETERMINED, MASKED
from mrphys.perfusion.conversion import compartments
from mrphys.perfusion.series import DynamicSeries
from mrphys.perfusion.subspace import Subspace
from mrphys.perfusion.tracer_kinetics import Exponentials, Kinetics
from mrphys.voxelwise import with_fields


class Asked(NamedTuple):
    """The model, the coordinates in which it was fitted, and how far the input is to be trusted."""

    model: type[Kinetics]
    names: tuple[str, ...]
    arterial_sd: float
    arterial_scale_sd: float


class Known(NamedTuple):
    """What all voxels share: the model fitted, the series where its input is not trusted, each
    image's share in the baseline."""

    fitted: DynamicSeries | Subspace
    series: DynamicSeries | None
    share: Float[Array, " readouts"] | None


class Optimum(NamedTuple):
    """Of a row of voxels, where a fit ended; `lost` tells which coordinates are not determined."""

    rows: Kinetics
    noise_sd: Float[Array, " voxels"]
    status: Array
    lost: dict[str, Bool[Array, " voxels"]]
    modes: Float[Array, "voxels modes numbers"] | None
    gain: Float[Array, "voxels readouts"] | None
    shift: Float[Array, "voxels readouts"] | None


def described(ask: Asked, known: Known, at: Optimum) -> tuple[list[Array], list[Array], Array]:
    """Values and standard deviations of compartments, and the status.

        Σ = P (σ² K Kᵀ + Σ_m e_m e_mᵀ + F Σ_a Fᵀ) Pᵀ,   P = (JᵀJ)⁻¹ Jᵀ,  F = ∂x/∂c_a

    with K the noise of images, 1 unless concentrations were made from signals.
    """
    fine = at.status < ILL_DETERMINED
    there = (at.status < MASKED) & (at.status != FAILED)
    rows = jax.tree.map(lambda leaf: jnp.where(there, leaf, 1.0), at.rows)
    still = jax.tree.map(jnp.zeros_like, rows)
    one = jnp.ones_like(at.noise_sd)
    signals = known.fitted.signals

    slopes, moves = [], []
    for name in ask.names:
        direction = with_fields(still, (name,), (one,))
        slopes.append(jax.jvp(signals, (rows,), (direction,))[1])
        moves.append(jax.jvp(lambda rows: fields(ask, rows), (rows,), (direction,))[1])
    slopes, moves = jax.lax.optimization_barrier((slopes, moves))
    values = fields(ask, rows)
    count = len(ask.names)
    information = [
        [jnp.sum(slopes[i] * slopes[j], axis=-1) for j in range(i + 1)] for i in range(count)
    ]
    errors = [at.modes[:, m] for m in range(at.modes.shape[1])] if at.modes is not None else []
    if ask.arterial_scale_sd:
        errors.append(ask.arterial_scale_sd * signals(rows))
    seen = [[jnp.sum(slope * error, axis=-1) for slope in slopes] for error in errors]
    information, seen = jax.lax.optimization_barrier((information, seen))
    sds = []
    for m, value in enumerate(values):
        gradient = [move[m] for move in moves]
        weights = solve(information, gradient)
        follows = None
        if at.gain is not None or ask.arterial_sd:
            follows = _follows(known.fitted, weights, slopes)
        noise = _dot(gradient, weights) if at.gain is None else _of_images(known, at, follows)
        variance = at.noise_sd**2 * noise
        for part in seen:
            variance = variance + _dot(weights, part) ** 2
        if known.series is not None:
            sensed = _input_sensitivity(known.series, rows, follows)
            variance = variance + ask.arterial_sd**2 * jnp.sum(sensed**2, axis=-1)
        hidden = ~jnp.isfinite(value + variance) | ~(variance >= 0)
        for name, lost in at.lost.items():
            hidden |= lost & (gradient[ask.names.index(name)] != 0)
        sds.append(jnp.where(hidden | ~there, jnp.inf, jnp.sqrt(jnp.where(hidden, 1.0, variance))))
    finite = jnp.stack([jnp.isfinite(value) for value in values]).all(axis=0)
    kept = [jnp.where(there & finite, value, 0.0) for value in values]
    told = jnp.stack([jnp.isfinite(sd) for sd in sds]).all(axis=0)
    return kept, sds, jnp.where(fine & ~told, ILL_DETERMINED, at.status)


def fields(ask: Asked, rows: Kinetics) -> tuple[Array, ...]:
    """Of the model, in order; the delay last, when it was sought."""
    if isinstance(rows, Exponentials):
        last = () if rows.delay_s is None else (rows.delay_s,)
        return (*compartments(ask.model, rows), *last)
    return tuple(attrgetter(name)(rows) for name in ask.names)


def _dot(left: list[Array], right: list[Array]) -> Array:
    total = left[0] * right[0]
    for a, b in zip(left[1:], right[1:], strict=True):
        total = total + a * b
    return total


def _follows(
    fitted: DynamicSeries | Subspace, weights: list[Array], slopes: list[Array]
) -> Float[Array, "voxels readouts"]:
    """The estimate's derivative in each image."""
    parts = [w[:, None] * slope for w, slope in zip(weights, slopes, strict=True)]
    total = jnp.sum(jnp.stack(parts), axis=0)
    return total @ fitted.basis.T if isinstance(fitted, Subspace) else total


def _of_images(known: Known, at: Optimum, follows: Any) -> Float[Array, " voxels"]:
    """The variance that noise of signals makes, relative to that of concentrations: of each image,
    alone and through the baseline that it is part of."""
    through = jnp.sum(follows * at.shift, axis=-1, keepdims=True) * jnp.asarray(known.share)[None]
    return jnp.sum((follows * at.gain + through) ** 2, axis=-1)


def _input_sensitivity(
    series: DynamicSeries, rows: Kinetics, follows: Any
) -> Float[Array, "voxels nodes"]:
    """∂(follows · x) / ∂(each sample of the input)."""

    def one(row: Kinetics, weights: Array) -> Array:
        def total(c: Array) -> Array:
            moved = eqx.tree_at(lambda t: t.arterial.plasma_mmol_per_l, series, c)
            return jnp.sum(weights * moved.signals(row)[0])

        return jax.grad(total)(series.arterial.plasma_mmol_per_l)

    return jax.vmap(one)(rows, follows)
