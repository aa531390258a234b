"""Exponentials convolved with an input that is linear between its samples: exact, step by step."""

from math import factorial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

_GONE = 1e-2
"""Volume over outflow and step, below which nothing of a step's start remains at its end."""


class Washout(NamedTuple):
    """A compartment's impulse response, inflow · exp(-(outflow / volume) t).

    Written by outflow and volume, so that neither an outflow of 0 (nothing leaves) nor a volume of
    0 (nothing stays) is a special case.
    """

    inflow: Float[Array, " voxels"]
    outflow: Float[Array, " voxels"]
    volume: Float[Array, " voxels"]


def step(
    of: Washout, step_s: Float[Array, "..."]
) -> tuple[Float[Array, "..."], Float[Array, "..."], Float[Array, "..."]]:
    """(decay, before, after) of C(t + h) = decay C(t) + before c(t) + after c(t + h), the input c
    linear in between. With z = h outflow / volume:

        decay = exp(-z),   after = inflow h (z - 1 + exp(-z)) / z²,
        before = inflow h (1 - exp(-z)) / z - after

    by a series up to z = 1, above by 1/z. Flouri et al. 2016, doi:10.1002/mrm.25991.
    """
    turned = of.outflow * step_s
    slow = turned <= of.volume
    z = jnp.where(slow, turned, 0.0) / jnp.where(slow & (of.volume > 0), of.volume, 1.0)
    y = jnp.where(slow, 1.0, of.volume) / jnp.where(slow, 1.0, turned)
    terms = 15 if z.dtype == jnp.float64 else 9
    ramp = jnp.zeros_like(z)
    for n in reversed(range(terms)):
        ramp = 1 / factorial(n + 2) - z * ramp
    whole = 1 - z * ramp
    fast_decay = jnp.exp(-1 / jnp.maximum(y, _GONE))
    fast_whole = y * (1 - fast_decay)
    fast_ramp = y * (1 - fast_whole)
    inflow = of.inflow * step_s
    after = inflow * jnp.where(slow, ramp, fast_ramp)
    return (
        jnp.where(slow, 1 - z * whole, fast_decay),
        inflow * jnp.where(slow, whole, fast_whole) - after,
        after,
    )


def washed_out(
    of: Washout, times_s: Float[Array, " nodes"], c: Float[Array, "nodes ..."]
) -> Float[Array, "nodes voxels"]:
    """C(t) = ∫ inflow exp(-(outflow / volume) (t - τ)) c(τ) dτ at the samples of c, from the first.

    c is one input (nodes,) or one for each voxel (nodes, voxels).
    """
    rows = c.reshape(len(c), -1)

    def advance(now: Array, sample: tuple[Array, Array, Array]) -> tuple[Array, Array]:
        step_s, here, there = sample
        decay, before, after = step(of, step_s)
        later = decay * now + before * here + after * there
        return later, later

    start = jnp.zeros(jnp.broadcast_shapes(of.inflow.shape, rows.shape[1:]), rows.dtype)
    _, rest = jax.lax.scan(advance, start, (jnp.diff(times_s), rows[:-1], rows[1:]))
    return jnp.concatenate([start[None], rest])
