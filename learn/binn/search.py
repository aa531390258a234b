"""Many least-squares problems of a few hundred unknowns: Levenberg and Marquardt, vectorised."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Bool, Float

EASE, STIFFEN, MOST = 0.2, 5.0, 1e8


class Search(NamedTuple):
    """Unknowns, Σ r², damping, whether it no longer falls."""

    at: Float[Array, " unknowns"]
    cost: Float[Array, ""]
    damping: Float[Array, ""]
    done: Bool[Array, ""]


def least_squares(
    residual: Callable[[Any], Float[Array, " rows"]], start: Any, steps: int, fall: float = 1e-7
) -> tuple[Any, Search]:
    """The tree of unknowns with the least Σ residual², from `start`, in at most `steps` steps

        (JᵀJ + λ diag JᵀJ) δ = -Jᵀ r

    by forward mode: rows are many, unknowns few. Damped by the diagonal, because coefficients of
    terms differ by orders: damped by the identity, networks with a delay took two and a half
    times the steps. Ends when Σ r² falls by less than `fall` of itself. A step to where residuals
    are not finite is not taken.
    """
    flat, unravel = ravel_pytree(start)

    def r_of(at: Array) -> Array:
        return residual(unravel(at))

    def step(i: Array, now: Search) -> Search:
        r, push = jax.linearize(r_of, now.at)
        jac = jax.vmap(push, out_axes=1)(jnp.eye(flat.size, dtype=flat.dtype))
        gram, slope = jac.T @ jac, jac.T @ r
        diagonal = jnp.diagonal(gram)
        ridge = now.damping * diagonal + 1e-10 * jnp.max(diagonal)
        factor = jax.scipy.linalg.cho_factor(gram + jnp.diag(ridge))
        trial = now.at - jax.scipy.linalg.cho_solve(factor, slope)
        cost = jnp.sum(r_of(trial) ** 2)
        better = cost < now.cost
        small = better & (now.cost - cost < fall * now.cost)
        damping = jnp.where(better, now.damping * EASE, now.damping * STIFFEN)
        new = Search(
            jnp.where(better, trial, now.at),
            jnp.where(better, cost, now.cost),
            jnp.maximum(damping, 1e-9),
            small | (damping > MOST),
        )
        return jax.tree.map(lambda a, b: jnp.where(now.done, b, a), new, now)

    begin = Search(
        flat, jnp.sum(r_of(flat) ** 2), jnp.asarray(1e-2, flat.dtype), jnp.zeros((), bool)
    )
    _, end = jax.lax.while_loop(
        lambda state: (state[0] < steps) & ~state[1].done,
        lambda state: (state[0] + 1, step(state[0], state[1])),
        (jnp.zeros((), int), begin),
    )
    return unravel(end.at), end
