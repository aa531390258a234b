r"""The posterior by Markov chain Monte Carlo: NUTS, the Laplace covariance its mass matrix.

The density sampled is that of the whitened misfit, its curvature adjusted: at the optimum
$\hat z$ it has the covariance of `oncology.inverse`, which owns up to the first map's noise and to
a model error, and away from it the misfit's own bends,

.. math:: \log π(z) = -\tfrac12 |r(z')|^2 - \tfrac12 |z'|^2, \quad z' = \hat z + C (z - \hat z),

with C of $C^T H C = \mathrm{Cov}^{-1}$. Where the first map has no noise and the model no error C
is the identity and π the exact posterior. Ribatet, Cooley & Davison 2012,
doi:10.5705/ss.2009.248; the sampler: Hoffman & Gelman 2014, Journal of Machine Learning Research
15:1593, by blackjax.
"""

from functools import partial
from typing import NamedTuple

import blackjax
import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from blackjax.adaptation.step_size import dual_averaging_adaptation
from blackjax.diagnostics import effective_sample_size, potential_scale_reduction
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from oncology.inverse import Posterior, sampled, with_errors

ACCEPTANCE = 0.8
WARM_UP = 100
LARGEST_R_HAT = 1.05


class Chains(NamedTuple):
    """What NUTS drew: coordinates, Gelman and Rubin's R-hat over halves of chains and the effective
    number of draws of each, and how many trajectories diverged."""

    z: Float[Array, "chains draws n"]
    r_hat: Float[Array, " n"]
    effective: Float[Array, " n"]
    divergences: int


def log_density(found: Posterior, z: Float[Array, " n"]) -> Float[Array, ""]:
    """log π above, without its constant."""
    inverse = found.inverse
    half = jnp.linalg.cholesky(jnp.linalg.inv(found.gain.inverse_hessian))
    other = jnp.linalg.cholesky(jnp.linalg.inv(found.covariance))
    adjusted = found.z + jnp.linalg.solve(half.T, other.T @ (z - found.z))
    misfit = inverse.misfit(adjusted, inverse.no_error())
    return -(jnp.sum(misfit**2) + jnp.sum(adjusted**2)) / 2


@eqx.filter_jit
def _chain(found: Posterior, draws: int, key: Array) -> tuple[Array, Array]:
    """One chain from a draw of the Laplace posterior, its step size found by dual averaging."""
    kernel = blackjax.nuts.build_kernel()
    keys = jax.random.split(key)
    width = jnp.linalg.cholesky(found.covariance)
    start = found.z + width @ jax.random.normal(keys[0], found.z.shape, found.z.dtype)
    density = partial(log_density, found)
    first, update, final = dual_averaging_adaptation(ACCEPTANCE)

    def one(now: tuple, given: tuple[Array, Array]) -> tuple[tuple, tuple[Array, Array]]:
        (state, adapted), (number, key) = now, given
        warming = number < WARM_UP
        step = jnp.where(warming, jnp.exp(adapted.log_step_size), final(adapted))
        state, info = kernel(key, state, density, step, found.covariance)
        learnt = update(adapted, info.acceptance_rate)
        adapted = jax.tree.map(partial(jnp.where, warming), learnt, adapted)
        return (state, adapted), (state.position, info.is_divergent)

    begun = blackjax.nuts.init(start, density), first(jnp.asarray(1.0, start.dtype))
    numbers = jnp.arange(WARM_UP + draws), jax.random.split(keys[1], WARM_UP + draws)
    z, divergent = jax.lax.scan(one, begun, numbers)[1]
    return z[WARM_UP:], divergent[WARM_UP:]


def chains(found: Posterior, key: Array, draws: int = 500, count: int = 4) -> Chains:
    """`count` chains of so many draws each, after a warm-up of `WARM_UP`."""
    runs = [_chain(found, draws, one) for one in jax.random.split(key, count)]
    z = jnp.stack([z for z, _ in runs])
    halves = z[:, : 2 * (draws // 2)].reshape(2 * count, draws // 2, -1)
    r_hat = jnp.atleast_1d(potential_scale_reduction(halves))
    effective = jnp.atleast_1d(effective_sample_size(halves))
    return Chains(z, r_hat, effective, int(sum(jnp.sum(divergent) for _, divergent in runs)))


def sample(found: Posterior, key: Array, draws: int = 500, count: int = 4) -> Posterior:
    """The posterior as NUTS's draws: the same type, for the same forecasts.

    Raises InputError where the chains disagree (R-hat above 1.05), naming the parameter.
    """
    for_chains, for_errors = jax.random.split(key)
    run = chains(found, for_chains, draws, count)
    r_hat = np.asarray(run.r_hat)
    if not np.all(r_hat < LARGEST_R_HAT):
        worst = int(np.argmax(np.where(np.isfinite(r_hat), r_hat, np.inf)))
        names = list(found.inverse.priors)
        name = names[worst] if worst < len(names) else "the growth map"
        what = f"R-hat {r_hat[worst]:.2f} of {name} after {count} chains of {draws} draws"
        cause = "too few draws, or a parameter the images do not tell: see its profile"
        raise InputError(Problem("sample", what, f"below {LARGEST_R_HAT}", cause))
    z = run.z.reshape(-1, found.z.size)
    return sampled(found, with_errors(found, z, for_errors))
