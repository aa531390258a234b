"""Patterns grown sample by sample, each the one that helps most."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray

from mrphys.errors import InputError, Problem
from mrphys.units import check_count


class Greedy(NamedTuple):
    """What was grown: the pattern, the loss after each round, entries in the order they came."""

    pattern: Bool[Array, "x y"]
    losses: Float[np.ndarray, " rounds"]
    order: Int[np.ndarray, " added"]


def greedy(
    loss: Callable[[Float[Array, "x y"]], Float[Array, ""]],
    start: Bool[Array | np.ndarray, "x y"],
    count: int,
    *,
    trials: int | None = None,
    at_once: int = 1,
    chunk: int = 16,
    key: PRNGKeyArray | None = None,
    progress: Callable[[int, int, float], None] = lambda done, of, value: None,
) -> Greedy:
    """From `start` to `count` samples: of all not yet taken, the one with which the loss is least.

    loss     of a pattern of zeros and ones, over a training set; compiled, for `chunk` patterns at
             once
    trials   so many candidates each round, drawn at random (with `key`), instead of all
    at_once  the best so many of a round are added together

    Raises InputError for a start of more than `count` samples, and for trials without a key.

    Gözcü et al. 2018, doi:10.1109/TMI.2018.2832540; Mirzasoleiman et al. 2015, arXiv:1409.7938, and
    Sanchez et al. 2020, doi:10.1109/ICASSP40776.2020.9054345 (trials).
    """
    check_count("greedy: at_once", at_once)
    taken = np.asarray(start, bool)
    if not taken.sum() <= count <= taken.size:
        found, expected = f"{count} of a start of {taken.sum()}", f"that to {taken.size}"
        raise InputError(Problem("greedy: count", found, expected))
    if trials is not None and key is None:
        raise InputError(Problem("greedy: key", "none", "a key, with which trials are drawn"))

    @jax.jit
    def with_each(pattern: Float[Array, "x y"], entries: Int[Array, " n"]) -> Float[Array, " n"]:
        def one(i: Int[Array, ""]) -> Float[Array, ""]:
            return loss(pattern.ravel().at[i].set(1).reshape(pattern.shape))

        return jax.lax.map(one, entries, batch_size=min(chunk, entries.size))

    total, begun = count - int(taken.sum()), int(taken.sum())
    losses, order = [], []
    while (left := count - int(taken.sum())) > 0:
        free = np.flatnonzero(~taken.ravel())
        if trials is not None and key is not None and trials < free.size:
            round_key = jax.random.fold_in(key, len(losses))
            free = np.asarray(jax.random.choice(round_key, free, (trials,), replace=False))
        width = trials or taken.size - begun  # one shape for all rounds, one compilation
        entries = jnp.asarray(np.resize(free, max(width, free.size)))
        values = np.asarray(with_each(jnp.asarray(taken, float), entries))[: free.size]
        best = np.argsort(values, kind="stable")[: min(at_once, left)]
        taken.ravel()[free[best]] = True
        order.extend(free[best].tolist())
        losses.append(float(values[best[0]]))
        progress(len(order), total, losses[-1])
    return Greedy(jnp.asarray(taken), np.array(losses), np.array(order, int))
