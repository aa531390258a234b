r"""A field made for growing tumours: the log odds of density, as a departure from linear growth.

.. math:: v = \log\frac{u}{1 - u}, \qquad
   \partial_t v = D\,(\nabla^2 v + (1 - 2u) |\nabla v|^2) + \nabla D\cdot\nabla v + k

In log odds growth is a constant, and ahead of a front v falls by as much each millimetre as it does
where a scan shows the tumour: the tail, which no scan shows, is as easy to learn as the rest. There
u grows as in

.. math:: u = A\,m^{-3/2}\,e^{k\tau - r^2 / (s^2 m)}, \quad m = 1 + 4 D \tau / s^2

τ the age, exact in even tissue without crowding; that of the seed, -log(1 - u), is added and fades
as the seed spreads, so that v begins exactly. Networks learn what is left.
"""

from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float

from learn.pinn import MLP, Field, taylor
from learn.pinn.taylor import Index, Series
from oncology.onset import SEED_DENSITY, SEED_RADIUS_MM


class Front(Field):
    """v of linear growth from a crowded seed, and `unit` net(t, x), of four inputs from -1 to 1:

        log A + k τ - 3/2 log m - r² / (s² m) - e^{1 - m} log(1 - A e^{-r² / s²})

    numbers   days that t covers, k and D of linear growth, mm that x covers on either side; they
              do not learn
    """

    def __init__(
        self,
        inputs: int,
        outputs: int = 1,
        numbers: Float[Array, " 4"] | None = None,
        inner: Callable[..., Field] = MLP,
        unit: float = 2.0,
        *,
        rngs: nnx.Rngs,
    ):
        usual = jnp.array([100.0, 0.03, 0.1, 30.0], jnp.result_type(float))
        self.numbers = nnx.Variable(usual if numbers is None else numbers)
        self.inner, self.unit = inner(inputs, outputs, rngs=rngs), unit

    def series(self, x: Series, indices: tuple[Index, ...]) -> Series:
        span, growth, diffusion, half = self.numbers[...].astype(x[()].dtype)
        age = {i: span / 2 * term[:1] for i, term in x.items()}
        age[()] = age[()] + span / 2
        place = {i: half * term[1:] for i, term in x.items()}
        square = taylor.product(place, place, indices)
        square = {i: jnp.sum(term, keepdims=True) for i, term in square.items()}
        wide = {i: 4 * diffusion / SEED_RADIUS_MM**2 * term for i, term in age.items()}
        wide[()] = wide[()] + 1
        log = taylor.elementwise(taylor.derivatives_of(jnp.log), wide, indices)
        thin = taylor.elementwise(taylor.derivatives_of(jnp.reciprocal), wide, indices)
        v = {i: growth * term for i, term in age.items()}
        v[()] = v[()] + jnp.log(SEED_DENSITY)
        v = taylor.add(v, log, -1.5)
        v = taylor.add(v, taylor.product(square, thin, indices), -1 / SEED_RADIUS_MM**2)
        dense = {i: -term / SEED_RADIUS_MM**2 for i, term in square.items()}
        dense[()] = dense[()] + jnp.log(SEED_DENSITY)
        crowded = taylor.elementwise(taylor.derivatives_of(_crowded), dense, indices)
        fade = taylor.elementwise(taylor.derivatives_of(_fading), wide, indices)
        v = taylor.add(v, taylor.product(crowded, fade, indices))
        return taylor.add(v, self.inner.series(x, indices), self.unit)


def _crowded(log_density: Array) -> Array:
    return -jnp.log(-jnp.expm1(log_density))


def _fading(wide: Array) -> Array:
    return jnp.exp(1 - wide)


class Surroundings(nnx.Module):
    """What lies around a tumour, on a grid, millimetres from its middle; nothing of it learns.

    tables     φ, the phase of habitable tissue, E = φ D(x) / D and its gradient
    first_mm   of the first voxel
    span_day   from the ball's seed to the last visit
    ball       k, age and D of the ball in even tissue
    """

    def __init__(
        self,
        tables: Float[Array, "5 x y z"],
        first_mm: Float[Array, " 3"],
        spacing_mm: tuple[float, ...],
        span_day: Array,
        ball: Float[Array, " 3"],
    ):
        self.tables, self.first_mm = nnx.Variable(tables), nnx.Variable(first_mm)
        self.span_day, self.ball = nnx.Variable(span_day), nnx.Variable(ball)
        self.spacing_mm = spacing_mm

    def __call__(self, place_mm: Float[Array, " 3"]) -> Float[Array, " 5"]:
        """The tables at a place, linear between voxels."""
        tables = self.tables[...].astype(place_mm.dtype)
        at = (place_mm - self.first_mm[...]) / jnp.asarray(self.spacing_mm, place_mm.dtype)
        return jnp.stack([map_coordinates(t, [*at], order=1, mode="nearest") for t in tables])
