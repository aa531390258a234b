"""Tumours of the coverage studies."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, PRNGKeyArray


def oval(
    key: PRNGKeyArray, radius_mm: Float[Array, "x y z"], angle: Float[Array, "x y z"]
) -> Float[Array, "x y z"]:
    """Of a size, edge, density and direction drawn."""
    low, high = jnp.array([4.0, 2.0, 0.5, 0.0]), jnp.array([9.0, 4.0, 0.9, 6.0])
    size, edge, density, turn = jax.random.uniform(key, (4,), minval=low, maxval=high)
    distance = radius_mm / (1 + 0.2 * jnp.cos(2 * angle + turn)) - size
    return density * jax.nn.sigmoid(-distance / edge)
