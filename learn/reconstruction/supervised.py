"""Learning from images that are known."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Inexact, PRNGKeyArray

from learn.reconstruction.scans import Scan

Numbers = Inexact[Array, "..."]


def normalised_distance(x: Numbers, truth: Numbers) -> Float[Array, ""]:
    """½ |x - truth|₂ / |truth|₂ + ½ |x - truth|₁ / |truth|₁.

    Yaman et al. 2020, doi:10.1002/mrm.28378. The derivative is finite where nothing differs.
    """
    away = x - truth
    square = away.real**2 + away.imag**2
    tiny = jnp.finfo(square.dtype).eps * jnp.mean(jnp.abs(truth) ** 2)
    two = jnp.sqrt(jnp.sum(square) + tiny) / jnp.linalg.norm(truth)
    one = jnp.sum(jnp.sqrt(square + tiny)) / jnp.sum(jnp.abs(truth))
    return (two + one) / 2


def supervised_loss(net: Any, scans: Scan, key: PRNGKeyArray) -> Float[Array, ""]:
    """The mean distance of net(A, y) from the truth, over a batch."""
    del key
    return jnp.mean(jax.vmap(lambda s: normalised_distance(net(s.A, s.y), s.x))(scans))


def judge(
    metric: Callable[[Numbers, Numbers], Float[Array, ""]], scans: Scan
) -> Callable[[nnx.Module], float]:
    """What `learn.train` evaluates: the mean of a metric of net(A, y) over a batch."""

    @nnx.jit
    def each(net: Any, scans: Scan) -> Float[Array, ""]:
        return jnp.mean(jax.lax.map(lambda s: metric(net(s.A, s.y), s.x), scans))

    return lambda net: float(each(net, scans))
