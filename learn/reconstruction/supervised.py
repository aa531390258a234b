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
    metrics: dict[str, Callable[[Numbers, Numbers], Float[Array, ""]]], scans: Scan
) -> Callable[[nnx.Module], dict[str, float]]:
    """What `learn.train` evaluates: the mean of metrics of net(A, y) over a batch, of which the
    first, the smaller the better, counts."""

    @nnx.jit
    def means(net: Any, scans: Scan) -> dict[str, Float[Array, ""]]:
        def each(scan: Scan) -> dict[str, Float[Array, ""]]:
            x = net(scan.A, scan.y)
            return {name: metric(x, scan.x) for name, metric in metrics.items()}

        return jax.tree.map(jnp.mean, jax.lax.map(each, scans))

    return lambda net: {name: float(value) for name, value in means(net, scans).items()}
