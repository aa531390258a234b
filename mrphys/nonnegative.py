"""Nonnegative least squares of many small problems at once, a problem to a processor lane."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

SWEEPS = 6
"""Of each unknown, before a search is given up."""


class Nonnegative(NamedTuple):
    """s >= 0, which of it is not 0, the inverse of A among these (0 elsewhere), and whether the
    search ended."""

    at: Float[Array, "n voxels"]
    passive: Bool[Array, "n voxels"]
    inverse: Float[Array, "n n voxels"]
    solved: Bool[Array, " voxels"]


class _State(NamedTuple):
    tableau: Array
    at: Array
    passive: Array
    done: Array
    count: Array


def nonnegative(matrix: Float[Array, "n n voxels"], right: Float[Array, "n voxels"]) -> Nonnegative:
    """argmin over s >= 0 of sᵀ A s / 2 - gᵀ s, A symmetric and positive.

    By Lawson and Hanson's active set. What has been swept of the tableau (A, g) holds the
    unconstrained s of the passive set, the slopes of the rest, and the inverse: each iteration is
    one sweep, which lets an unknown in, or out where it would turn negative. Not to be
    differentiated. Lawson, Hanson 1974, doi:10.1137/1.9781611971217; Goodnight 1979,
    doi:10.1080/00031305.1979.10482685 (sweep).
    """
    n = matrix.shape[0]
    rounding = float(jnp.finfo(matrix.dtype).eps)
    slack = 30 * rounding * jnp.max(jnp.abs(right), axis=0)

    def improve(now: _State) -> _State:
        last = now.tableau[:, n]
        wanted = jnp.where(now.passive, last, 0.0)
        negative = now.passive & (wanted <= 0)
        inside = ~negative.any(axis=0)
        share = jnp.where(negative, now.at / jnp.where(negative, now.at - wanted, 1.0), jnp.inf)
        share = jnp.where(jnp.isnan(share), 0.0, share)
        step = jnp.where(inside, 1.0, jnp.min(share, axis=0))
        at = jnp.maximum(now.at + step[None] * (wanted - now.at), 0.0)
        slope = jnp.where(now.passive, -jnp.inf, last)
        which = jnp.where(inside, jnp.argmax(slope, axis=0), jnp.argmin(share, axis=0))
        done = now.done | (inside & (jnp.max(slope, axis=0) <= slack))
        here = jnp.arange(n)[:, None] == which[None]
        row = jnp.sum(jnp.where(here[:, None], now.tableau, 0.0), axis=0)
        pivot = jnp.sum(jnp.where(here, row[:n], 0.0), axis=0)
        sign = jnp.where(inside, -1.0, 1.0).astype(row.dtype)[None]
        row = jnp.concatenate([jnp.where(here, sign, row[:n]), row[n:]])
        wide = jnp.concatenate([here, jnp.zeros_like(here[:1])])
        rest = jnp.where(here[:, None] | wide[None], 0.0, now.tableau)
        swept = rest - row[:n, None] * (row / pivot[None])[None]
        return _State(
            jnp.where(done[None, None], now.tableau, swept),
            jnp.where(now.done[None], now.at, at),
            jnp.where(done[None], now.passive, now.passive ^ here),
            done,
            now.count + 1,
        )

    start = _State(
        jnp.concatenate([matrix, right[:, None]], axis=1),
        jnp.zeros_like(right),
        jnp.zeros(right.shape, bool),
        jnp.max(right, axis=0) <= 0,
        jnp.zeros((), int),
    )
    end = jax.lax.while_loop(
        lambda now: (now.count < SWEEPS * n) & ~jnp.all(now.done), improve, start
    )
    both = end.passive[:, None] & end.passive[None]
    return Nonnegative(end.at, end.passive, jnp.where(both, -end.tableau[:, :n], 0.0), end.done)
