"""A small inverse problem, shared by what is tested on it: a lump on a 12 x 12 grid."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from oncology.growth import ReactionDiffusion
from oncology.inverse import Inverse
from oncology.observe import CellularityMap
from oncology.priors import LogNormal
from oncology.timeline import Steps
from oncology.treatment import Plan
from tests.oncology.virtual import lump

SHAPE, SPACING_MM = (12, 12, 1), (2.0, 2.0, 2.0)
NOISE_SD = 0.01


def problem(log_sd: float, noise_sd: float = NOISE_SD, visits: int = 3) -> Inverse:
    """A lump seen over the whole grid, 20 days apart, at the priors' medians but for noise."""
    everywhere = np.ones(SHAPE, bool)
    model = ReactionDiffusion(habitable=jnp.asarray(everywhere), spacing_mm=SPACING_MM)
    priors = {
        "diffusivity_mm2_per_day": LogNormal(0.15, log_sd, "mm^2/day"),
        "growth_rate_per_day": LogNormal(0.04, log_sd, "1/day"),
    }
    days = 20.0 * np.arange(visits)
    legs = tuple(
        Steps(np.array([a, a + 10]), np.array([a + 10, b]), np.zeros(2), 5)
        for a, b in itertools.pairwise(days)
    )
    start = 0.05 + lump(SHAPE, SPACING_MM, 5.0, 0.6)
    first = CellularityMap(start, noise_sd, everywhere, everywhere, SPACING_MM)
    inverse = Inverse(model, Plan(), (first,) * visits, legs, priors)
    return seen_as(inverse, (start, *inverse.predict(jnp.zeros(2), jnp.zeros(SHAPE))))


def seen_as(inverse: Inverse, values) -> Inverse:
    """The same visits, their maps showing other values."""
    return eqx.tree_at(
        lambda i: [seen.value for seen in i.observations], inverse, [jnp.asarray(v) for v in values]
    )


def noisy(inverse: Inverse, key) -> Inverse:
    """The same visits with white noise on every map."""
    keys = jax.random.split(key, len(inverse.observations))
    seen = zip(inverse.observations, keys, strict=True)
    return seen_as(inverse, [o.value + o.sd * jax.random.normal(k, SHAPE) for o, k in seen])
