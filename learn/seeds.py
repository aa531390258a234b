"""Several networks alike but for their numbers, trained as one."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import PyTree

Net = TypeVar("Net", bound=nnx.Module)


def stack(nets: Sequence[Net]) -> Net:
    """One module whose arrays have a leading axis, an entry for each of the networks."""
    graph = nnx.split(nets[0])[0]
    states = [nnx.split(net)[1] for net in nets]
    return nnx.merge(graph, jax.tree.map(lambda *leaves: jnp.stack(leaves), *states))


def unstack(net: Net) -> list[Net]:
    """The networks again."""
    graph, state = nnx.split(net)
    count = jax.tree.leaves(state)[0].shape[0]
    return [
        nnx.merge(graph, jax.tree.map(lambda leaf, i=i: leaf[i], state), copy=True)
        for i in range(count)
    ]


def of_each(f: Callable[..., PyTree], net: Any, *arguments: PyTree) -> PyTree:
    """f(network, ...) of each of a stack, arguments with a leading axis too, one after the other:
    convolutions by kernels of several networks at once take longer."""
    graph, state = nnx.split(net)
    return jax.lax.map(
        lambda each: f(nnx.merge(graph, each[0], copy=True), *each[1:]), (state, *arguments)
    )
