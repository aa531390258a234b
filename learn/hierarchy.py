"""A network whose layers are a given hierarchy: features -> habitats -> processes -> outcome."""

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem

Links = Mapping[str, Sequence[str]]
"""The nodes that each node of a layer feeds, by name."""


class HierarchyNetwork(nnx.Module):
    """h_l = tanh((W_l ∘ M_l) h_{l-1} + b_l), M_l the links given; outcomes of every layer averaged

        y = 1/L Σ_l (V_l h_l + c_l)

    A node is computed from those that feed it and no others, so that its number is what it is
    named. The average over layers keeps all of them close to the outcome.

    `links` has a map for each layer, from the nodes below to those above; the first begins with the
    features. Raises InputError for a node that leads nowhere or to a name that leads on from
    nowhere.

    Elmarakeby et al. 2021, doi:10.1038/s41586-021-03922-4 (P-NET).
    """

    def __init__(self, links: Sequence[Links], outputs: int = 1, *, rngs: nnx.Rngs):
        self.names = tuple(tuple(names) for names in _layers(links))
        masks = [
            np.array([[above in link[below] for above in self.names[i + 1]] for below in link])
            for i, link in enumerate(links)
        ]
        dtype = jnp.result_type(float)
        self.masks = nnx.List([nnx.Variable(jnp.asarray(mask, dtype)) for mask in masks])
        made, heads = [], []
        for mask in masks:
            fan = np.maximum(mask.sum(0), 1)
            spread = jnp.asarray(1 / np.sqrt(fan), dtype)
            drawn = rngs.params.normal(mask.shape, dtype)  # pyright: ignore[reportCallIssue]
            made.append(nnx.Param(drawn * spread[None]))
            heads.append(nnx.Linear(mask.shape[1], outputs, param_dtype=dtype, rngs=rngs))
        self.weights, self.heads = nnx.List(made), nnx.List(heads)
        self.biases = nnx.List([nnx.Param(jnp.zeros(mask.shape[1], dtype)) for mask in masks])

    def layers(self, x: Float[Array, "*points features"]) -> list[Array]:
        """The numbers of all nodes, features first."""
        made = [x]
        for weight, mask, bias in zip(self.weights, self.masks, self.biases, strict=True):
            h = made[-1] @ (weight[...] * mask[...])
            made.append(jnp.tanh(h + jnp.broadcast_to(bias[...], h.shape)))
        return made

    def __call__(self, x: Float[Array, "*points features"]) -> Float[Array, "*points outputs"]:
        """y of every point."""
        outcomes = [head(h) for head, h in zip(self.heads, self.layers(x)[1:], strict=True)]
        return sum(outcomes[1:], outcomes[0]) / len(outcomes)

    def attributions(
        self,
        x: Float[Array, "points features"],
        baseline: Float[Array, " features"],
        output: int = 0,
        steps: int = 64,
    ) -> dict[str, Float[Array, "points"]]:
        """What each node carries of y(x) - y(baseline), by name, signed.

        The conductance ∫ ∂y/∂h_j dh_j on the straight way from the baseline: of the features they
        add up to the whole difference (integrated gradients); of the nodes of a layer to what does
        not pass beside it through the outcomes of layers below.

        Sundararajan, Taly, Yan 2017, Axiomatic attribution for deep networks; Dhamdhere,
        Sundararajan, Yan 2019, How important is a neuron?
        """
        made = self._carried(x, baseline, output, steps)
        return {
            name: carried[:, j]
            for names, carried in zip(self.names, made, strict=True)
            for j, name in enumerate(names)
        }

    def _carried(self, x: Array, baseline: Array, output: int, steps: int) -> list[Array]:
        middle = (jnp.arange(steps, dtype=x.dtype) + 0.5) / steps

        def above(h: Array, layer: int) -> Array:
            """y's part that passes through a layer."""
            total = jnp.zeros((), h.dtype)
            if layer:
                total = total + self.heads[layer - 1](h)[output]
            for i in range(layer, len(self.weights)):
                h = jnp.tanh(h @ (self.weights[i][...] * self.masks[i][...]) + self.biases[i][...])
                total = total + self.heads[i](h)[output]
            return total / len(self.heads)

        def one(x: Array) -> list[Array]:
            def at(share: Array) -> list[Array]:
                point = baseline + share * (x - baseline)
                moved = jax.jvp(lambda p: tuple(self.layers(p)), (point,), (x - baseline,))
                return [
                    jax.grad(above)(h, layer) * dh
                    for layer, (h, dh) in enumerate(zip(*moved, strict=True))
                ]

            return [jnp.mean(v, axis=0) for v in jax.vmap(at)(middle)]

        return jax.jit(jax.vmap(one))(x)


def _layers(links: Sequence[Links]) -> list[list[str]]:
    """Names of each layer. Raises InputError."""
    if not links or not all(links):
        raise InputError(Problem("HierarchyNetwork: links", "an empty layer", "names with links"))
    problems, layers = [], [list(links[0])]
    for i, link in enumerate(links):
        where = f"HierarchyNetwork: links[{i}]"
        lonely = [name for name, above in link.items() if not above]
        problems += [Problem(where, f"{name!r} leads nowhere", "a node above") for name in lonely]
        above = list(dict.fromkeys(name for names in link.values() for name in names))
        if i + 1 < len(links):
            for name in set(above) ^ set(links[i + 1]):
                cause = "a spelling, or a node missing from one of them"
                found = f"{name!r} in one of two layers that meet"
                problems.append(Problem(where, found, "the same nodes in both", cause))
            above = list(links[i + 1])
        layers.append(above)
    if problems:
        raise InputError(*problems)
    return layers
