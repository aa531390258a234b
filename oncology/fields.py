r"""Whole fields from images: a growth rate in every voxel, the density of the first day or before.

    cost(z, s) = |r(z, s)|² + |z|² + |s|²

z the parameters, and with a `growth.GrowthField` one number for each voxel of k(x), smooth a
priori; s the errors of the first visit in standard deviations. With `Earlier` as the first visit s
is the density on an earlier day that one scan, grown back, implies. There are too many unknowns for
Jacobians: the least cost is searched by L-BFGS (Liu & Nocedal 1989, doi:10.1007/BF01589116), its
gradient the adjoint of the discrete steps; the posterior is drawn by randomised maximum likelihood,
one search for each draw (Bardsley et al. 2014, doi:10.1137/140964023), exact where the model is
linear.

Regularised k(x) and initial densities of gliomas: Scheufele, Subramanian & Biros 2021,
doi:10.1109/TMI.2020.3022550.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from oncology.growth import Parameters
from oncology.inverse import Draw, Gain, Inverse, Posterior, estimate_at
from oncology.observe import Observation
from oncology.smoothing import SmoothField

SOLVER = optx.LBFGS(rtol=1e-6, atol=1e-6)
STEPS = 300


class Earlier(Observation):
    """The day before the first scan that a tumour is traced back to: no image, but a prior.

    u = σ(-4 + 3 g), σ the logistic function and g a smooth field of unit variance: 0.02 in the
    median, and anything up to full. It lies within `mask`, what was drawn later. The error of this
    visit is g's white noise.
    """

    mask: Bool[Array, "x y z"]
    field: SmoothField

    def __init__(self, drawn: Bool[np.ndarray, "x y z"], spacing_mm: tuple, length_mm: float):
        self.mask = jnp.asarray(drawn)
        self.field = SmoothField(drawn.shape, spacing_mm, length_mm)

    @property
    def error_sd(self) -> Float[Array, "x y z"]:
        return jnp.ones(self.mask.shape)

    def state(self, p: Parameters, error: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        return jnp.where(self.mask, jax.nn.sigmoid(3 * self.field(error) - 4), 0.0)

    def residual(self, u: Float[Array, "x y z"]) -> Float[Array, " 0"]:
        return jnp.zeros(0, u.dtype)

    @property
    def noise_share(self) -> Float[Array, " 0"]:
        return jnp.zeros(0)


class Unknowns(NamedTuple):
    """z, and the errors of the first visit in standard deviations."""

    z: Float[Array, " n"]
    start: Array


@eqx.filter_jit
def _search(
    inverse: Inverse,
    at: Unknowns,
    prior: Unknowns,
    white: Float[Array, " m"],
    solver: optx.AbstractMinimiser,
) -> Unknowns:
    """The least cost with the images moved by `white` and the prior's means by `prior`."""

    def cost(x: Unknowns, data: tuple) -> Array:
        inverse, prior, white = data
        misfit = inverse.misfit(x.z, x.start * inverse.observations[0].error_sd) + white
        apart = jax.tree.map(lambda a, b: jnp.sum((a - b) ** 2), x, prior)
        return (jnp.sum(misfit**2) + sum(apart)) / 2

    data = (inverse, prior, white)
    return optx.minimise(cost, solver, at, data, max_steps=STEPS, throw=False).value


def field_posterior(
    inverse: Inverse, key: Array, draws: int = 24, solver: optx.AbstractMinimiser = SOLVER
) -> Posterior:
    """The posterior of every field at once, by draws.

    Maps are weighed by what is expected of them (`expecting_model_error`). Any of optimistix's
    minimisers will do, `optx.OptaxMinimiser` with Adam among them. The covariance is that of the
    named parameters; the gain, which is made of Jacobians, is empty.
    """
    first = inverse.observations[0]
    n = inverse.size
    dtype = inverse.no_error().dtype
    none = Unknowns(jnp.zeros(n, dtype), jnp.zeros_like(first.error_sd))
    share = jnp.concatenate([seen.noise_share for seen in inverse.observations[1:]])
    silent = jnp.zeros_like(share)
    best = _search(inverse, none, none, silent, solver)
    drawn = []
    for one in jax.random.split(key, draws):
        keys = jax.random.split(one, 3)
        prior = Unknowns(
            jax.random.normal(keys[0], none.z.shape, dtype),
            jax.random.normal(keys[1], none.start.shape, dtype),
        )
        white = jax.random.normal(keys[2], share.shape, dtype)
        found = _search(inverse, best, prior, white, solver)
        error = found.start * first.error_sd
        drawn.append(Draw(found.z, error, white * share, jnp.zeros((), dtype)))
    samples = jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)
    named = samples.z[:, : len(inverse.priors)]
    apart = named - jnp.mean(named, axis=0)[None]
    covariance = apart.T @ apart / (draws - 1)
    told = estimate_at(inverse, best.z)
    states = inverse.predict(best.z, best.start * first.error_sd)
    unknown, grid = jnp.full((), jnp.nan, dtype), inverse.model.habitable.shape
    empty = Gain(
        jnp.zeros((0, 0), dtype),
        jnp.zeros((0, share.size), dtype),
        share,
        jnp.zeros((0, *none.start.shape), dtype),
        jnp.zeros((0, len(states), *grid), dtype),
        SmoothField(grid, inverse.model.spacing_mm, 1.0),
    )
    return Posterior(
        best.z,
        covariance,
        inverse,
        states,
        told.model_error,
        told.excess,
        told.structure,
        unknown,
        empty,
        samples,
    )
