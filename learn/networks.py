"""Networks, and the door from a network to a pure function."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, PyTree


class ResidualNetwork(nnx.Module):
    """y = S x + V silu(h_d),  h_0 = W x + b,  h_i = h_{i-1} + W_i silu(h_{i-1}) + b_i

    of any number of numbers a point, the last axis. S and V begin at 0: what is learned is how far
    the answer is from 0, the straight part of it at once.
    """

    def __init__(self, inputs: int, outputs: int, width: int, depth: int, *, rngs: nnx.Rngs):
        zeros, spread = nnx.initializers.zeros, nnx.initializers.lecun_uniform()
        dtype = jnp.result_type(float)
        linear = partial(nnx.Linear, kernel_init=spread, param_dtype=dtype, rngs=rngs)
        self.straight = linear(inputs, outputs, kernel_init=zeros)
        self.first = linear(inputs, width)
        self.blocks = nnx.List([linear(width, width) for _ in range(depth)])
        self.last = linear(width, outputs, kernel_init=zeros)

    def __call__(self, x: Float[Array, "*points inputs"]) -> Float[Array, "*points outputs"]:
        """y of every point."""
        h = self.first(x)
        for block in self.blocks:
            h = h + block(nnx.silu(h))
        return self.straight(x) + self.last(nnx.silu(h))


def as_function(net: nnx.Module) -> tuple[Callable[..., PyTree], PyTree]:
    """(f, weights) with f(weights, ...) = net(...) and no state: for jit, vmap and derivatives.

    >>> f, weights = as_function(ResidualNetwork(2, 1, 4, 1, rngs=nnx.Rngs(0)))
    >>> f(weights, jnp.ones((3, 2))).shape
    (3, 1)
    """
    graph, weights = nnx.split(net)
    return eqx.Partial(_call, graph), weights


def _call(graph: nnx.GraphDef, weights: PyTree, *arguments) -> PyTree:
    return nnx.merge(graph, weights, copy=True)(*arguments)
