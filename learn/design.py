"""Choose an acquisition for what it is for: least uncertainty within a fixed scan time."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from mrphys.sequence.diffusion import DiffusionWeighted


class Design(NamedTuple):
    """A design, the loss before and after, and the loss along the way."""

    theta: DiffusionWeighted
    before: float
    after: float
    history: list[float]


def optimise_design(
    theta: DiffusionWeighted,
    loss: Callable[[DiffusionWeighted], Float[Array, ""]],
    *,
    highest_b_s_per_mm2: float = 3000.0,
    fewest_averages: float = 1.0,
    steps: int = 40,
    learning_rate: float = 0.1,
    progress: Callable[[int, int, float], None] = lambda step, of, value: None,
) -> Design:
    """The b-values and averages that minimise `loss(θ)` at the scan time θ has now.

    Averages share the time out by a softmax above `fewest_averages` each; b-values move between
    the lowest, which stays, and `highest_b_s_per_mm2` by a sigmoid; Adam (Kingma & Ba 2015,
    arXiv:1412.6980) on the gradient of the loss. Keeps the best design met. Raises InputError when
    θ starts outside the limits or its loss is not finite.
    """
    b, averages = theta.b_s_per_mm2, theta.averages
    total, count = jnp.sum(averages), averages.size
    free = total - count * fewest_averages
    inside = (b[1:] > 0) & (b[1:] < highest_b_s_per_mm2)
    if not bool(jnp.all(inside)) or bool(jnp.any(averages < fewest_averages)):
        raise InputError(
            Problem(
                "optimise_design",
                f"b = {b.tolist()} s/mm², averages = {averages.tolist()}",
                f"0 < b < {highest_b_s_per_mm2:g} s/mm² after the first, "
                f"averages >= {fewest_averages:g}",
            )
        )
    share = jnp.maximum(averages - fewest_averages, 1e-2)
    ratio = b[1:] / highest_b_s_per_mm2
    position = {"b": jnp.log(ratio / (1 - ratio)), "averages": jnp.log(share)}

    def design(position: dict[str, Array]) -> DiffusionWeighted:
        high = highest_b_s_per_mm2 * jax.nn.sigmoid(position["b"])
        repeats = fewest_averages + free * jax.nn.softmax(position["averages"])
        return DiffusionWeighted(jnp.concatenate([b[:1], high]), theta.te_s, theta.tr_s, repeats)

    value_and_gradient = jax.jit(jax.value_and_grad(lambda position: loss(design(position))))
    optimiser = optax.adam(learning_rate)
    state = optimiser.init(position)
    best, history = position, []
    for step in range(steps):
        value, gradient = value_and_gradient(position)
        history.append(float(value))
        if not jnp.isfinite(value):
            raise InputError(
                Problem(
                    "optimise_design",
                    f"a loss of {float(value)}",
                    "a finite loss",
                    "a design that determines nothing",
                )
            )
        if history[-1] <= min(history):
            best = position
        progress(step + 1, steps, history[-1])
        update, state = optimiser.update(gradient, state)
        position = jax.tree.map(jnp.add, position, update)
    return Design(design(best), float(loss(theta)), min(history), history)
