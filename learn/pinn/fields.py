"""Networks that are fields: they answer at one point, with every derivative asked for.

MLP              u = W_d σ(... σ(W_0 x + b_0)) + b_d
ModifiedMLP      two gates beside it, mixed into every layer
SIREN            sines throughout
FourierFeatures  any of them, reading sines and cosines: fast variation, exact periodicity

Each is `Field(inputs, outputs, ..., rngs=)` and reads coordinates scaled to [-1, 1].
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float

from learn.pinn import taylor
from learn.pinn.taylor import Derivatives, Index, Series


class Field(nnx.Module):
    """u of one point. One method to write."""

    @abstractmethod
    def series(self, x: Series, indices: tuple[Index, ...]) -> Series:
        """u and its derivatives where x is a series: operations of `taylor` on it."""

    def __call__(self, x: Float[Array, " inputs"]) -> Float[Array, " outputs"]:
        """u(x)."""
        return self.series({(): x}, ((),))[()]


def _activation(given: str | Callable[[Array], Array]) -> Derivatives:
    named = {"tanh": taylor.tanh, "sine": taylor.sine}
    return named[given] if isinstance(given, str) else taylor.derivatives_of(given)


def _layers(sizes: Sequence[int], rngs: nnx.Rngs) -> list[nnx.Linear]:
    dtype = jnp.result_type(float)
    return [
        nnx.Linear(a, b, kernel_init=nnx.initializers.glorot_normal(), param_dtype=dtype, rngs=rngs)
        for a, b in pairwise(sizes)
    ]


def _linear(x: Series, layer: nnx.Linear) -> Series:
    bias = None if layer.bias is None else layer.bias[...]
    return taylor.linear(x, layer.kernel[...], bias)


class MLP(Field):
    """u = W_d σ(... σ(W_0 x + b_0)) + b_d, of `depth` hidden layers.

    `activation` is "tanh", "sine" or any smooth function of numbers one by one.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        width: int = 32,
        depth: int = 3,
        activation: str | Callable[[Array], Array] = "tanh",
        *,
        rngs: nnx.Rngs,
    ):
        self.layers = nnx.List(_layers([inputs, *[width] * depth, outputs], rngs))
        self.activation = activation

    def series(self, x: Series, indices: tuple[Index, ...]) -> Series:
        sigma = _activation(self.activation)
        for layer in self.layers[:-1]:
            x = taylor.elementwise(sigma, _linear(x, layer), indices)
        return _linear(x, self.layers[-1])


class ModifiedMLP(MLP):
    """h ← (1 - σ(W h + b)) U + σ(W h + b) V with U = σ(W_u x + b_u), V = σ(W_v x + b_v).

    Wang, Teng, Perdikaris 2021, doi:10.1137/20M1318043.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        width: int = 32,
        depth: int = 3,
        activation: str | Callable[[Array], Array] = "tanh",
        *,
        rngs: nnx.Rngs,
    ):
        super().__init__(inputs, outputs, width, depth, activation, rngs=rngs)
        self.gates = nnx.List([_layers([inputs, width], rngs)[0] for _ in range(2)])

    def series(self, x: Series, indices: tuple[Index, ...]) -> Series:
        sigma = _activation(self.activation)
        u, v = (taylor.elementwise(sigma, _linear(x, gate), indices) for gate in self.gates)
        between = taylor.add(v, u, -1.0)
        for layer in self.layers[:-1]:
            z = taylor.elementwise(sigma, _linear(x, layer), indices)
            x = taylor.add(u, taylor.product(z, between, indices))
        return _linear(x, self.layers[-1])


class SIREN(Field):
    """sin(ω (W x + b)) in the first layer, sin(W h + b) in the others, drawn so that every layer
    has the same spread. Larger ω: faster variation at the start.

    Sitzmann et al. 2020, Implicit neural representations with periodic activation functions.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        width: int = 32,
        depth: int = 3,
        omega: float = 10.0,
        *,
        rngs: nnx.Rngs,
    ):
        dtype, sizes = jnp.result_type(float), [inputs, *[width] * depth, outputs]
        made = []
        for i, (a, b) in enumerate(pairwise(sizes)):
            spread = omega / a if i == 0 else (6 / a) ** 0.5
            init = nnx.initializers.uniform(2 * spread)
            layer = nnx.Linear(a, b, kernel_init=init, param_dtype=dtype, rngs=rngs)
            layer.kernel[...] = layer.kernel[...] - spread
            made.append(layer)
        self.layers = nnx.List(made)

    def series(self, x: Series, indices: tuple[Index, ...]) -> Series:
        for layer in self.layers[:-1]:
            x = taylor.elementwise(taylor.sine, _linear(x, layer), indices)
        return _linear(x, self.layers[-1])


class FourierFeatures(Field):
    """inner(x_keep, sin 2πBx, cos 2πBx), B in cycles per unit of a coordinate scaled to [-1, 1].

    `frequencies` is B itself (features, inputs), or the standard deviation from which `features` of
    them are drawn. Multiples of ½ make the field periodic over the whole range of an input that is
    not among `keep`.

    Tancik et al. 2020, Fourier features let networks learn high frequency functions.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        frequencies: float | np.ndarray | Sequence[Sequence[float]] = 1.0,
        features: int = 16,
        keep: tuple[int, ...] = (),
        inner: Callable[..., Field] = MLP,
        *,
        rngs: nnx.Rngs,
    ):
        dtype = jnp.result_type(float)
        if np.ndim(frequencies) == 0:
            drawn = rngs.params.normal((features, inputs), dtype)  # pyright: ignore
            made = jnp.asarray(frequencies, dtype) * drawn
        else:
            made = jnp.asarray(frequencies, dtype)
        self.frequencies = nnx.Variable(made)
        self.keep = keep
        self.inner = inner(2 * made.shape[0] + len(keep), outputs, rngs=rngs)

    def series(self, x: Series, indices: tuple[Index, ...]) -> Series:
        turns = taylor.linear(x, 2 * jnp.pi * self.frequencies[...].T, None)
        quarter = turns | {(): turns[()] + jnp.pi / 2}
        sines, cosines = (taylor.elementwise(taylor.sine, z, indices) for z in (turns, quarter))
        kept = {index: term[jnp.array(self.keep, int)] for index, term in x.items()}
        both = {}
        for index, term in sines.items():
            plain = kept.get(index, jnp.zeros(len(self.keep), term.dtype))
            both[index] = jnp.concatenate([plain, term, cosines[index]])
        return self.inner.series(both, indices)
