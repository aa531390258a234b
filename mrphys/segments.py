"""Long scans whose reverse mode recomputes instead of remembering."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

SEGMENT = 32
"""Steps between the states that reverse mode keeps."""


def scan_in_segments(
    step: Callable, state: PyTree, events: PyTree, segment: int = SEGMENT
) -> tuple[PyTree, PyTree]:
    """`jax.lax.scan` of which reverse mode keeps the state before each segment, and recomputes the
    steps within."""
    steps = jax.tree.leaves(events)[0].shape[0]
    if steps <= segment:
        return jax.lax.scan(step, state, events)
    whole = steps // segment * segment

    @jax.checkpoint
    def play(state: PyTree, events: PyTree) -> tuple[PyTree, PyTree]:
        return jax.lax.scan(step, state, events)

    parts = jax.tree.map(
        lambda v: v[:whole].reshape(steps // segment, segment, *v.shape[1:]), events
    )
    state, first = jax.lax.scan(play, state, parts)
    first = jax.tree.map(lambda v: v.reshape(whole, *v.shape[2:]), first)
    if whole == steps:
        return state, first
    state, rest = jax.lax.scan(step, state, jax.tree.map(lambda v: v[whole:], events))
    return state, jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first, rest)
