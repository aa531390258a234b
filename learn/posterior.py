"""A normal distribution as a network answers it: a mean and a factor of its precision.

A network gives n + n (n + 1) / 2 numbers for n unknowns u: the mean µ, the logarithms of a diagonal
D, and what is below the diagonal of a unit lower triangular U, which noise of any strength leaves
as it is:

    p(u) = N(µ, (L Lᵀ)⁻¹),  L = U D,    -log p(u) = |Lᵀ (u - µ)|² / 2 - Σ log L_ii + n/2 log 2π
"""

from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.scipy.linalg import solve_triangular
from jaxtyping import Array, Float, PRNGKeyArray


def outputs(unknowns: int) -> int:
    """How many numbers describe a normal distribution of so many unknowns."""
    return unknowns + unknowns * (unknowns + 1) // 2


def mean_and_factor(
    answer: Float[Array, "voxels outputs"], unknowns: int
) -> tuple[Float[Array, "voxels unknowns"], Float[Array, "voxels unknowns unknowns"]]:
    """µ and L."""
    mean, logs, below = jnp.split(answer, [unknowns, 2 * unknowns], axis=1)
    rows, columns = np.tril_indices(unknowns, -1)
    at = np.arange(unknowns)
    unit = jnp.zeros((*mean.shape, unknowns), answer.dtype).at[:, at, at].set(1.0)
    return mean, unit.at[:, rows, columns].set(below) * jnp.exp(logs)[:, None]


def covariance(
    factor: Float[Array, "voxels unknowns unknowns"],
) -> Float[Array, "voxels unknowns unknowns"]:
    """(L Lᵀ)⁻¹."""
    unit = jnp.broadcast_to(jnp.eye(factor.shape[-1], dtype=factor.dtype), factor.shape)
    inverse = solve_triangular(factor, unit, lower=True)
    return jnp.einsum("vki,vkj->vij", inverse, inverse)


def negative_log_likelihood(
    net: Any,
    batch: tuple[Float[Array, "voxels inputs"], Float[Array, "voxels unknowns"]],
    key: PRNGKeyArray,
) -> Float[Array, ""]:
    """The mean of -log p(u) of what the network answers, in nats, for pairs of input and u."""
    del key
    inputs, u = batch
    n = u.shape[1]
    mean, factor = mean_and_factor(net(inputs), n)
    left = jnp.einsum("vij,vi->vj", factor, u - mean)
    logs = jnp.log(jnp.diagonal(factor, axis1=1, axis2=2))
    return jnp.mean(jnp.sum(left**2 / 2 - logs, axis=1)) + n / 2 * np.log(2 * np.pi)
