"""Are calibration intervals honest? Two hundred tumours drawn from the prior, and calibrated.

    pytest -m long -s tests/studies/test_coverage.py

Simulation and inference share one generative model: diffusivity and growth rate from their
log-normal priors, a lump of random size and shape, white noise on both maps, and a smooth model
error of LEAST_MODEL_ERROR in the second.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from oncology.growth import ReactionDiffusion
from oncology.inverse import (
    LEAST_MODEL_ERROR,
    Inverse,
    amplitude,
    correlation_length_mm,
    estimate,
    posterior,
)
from oncology.observe import CellularityMap
from oncology.priors import LogNormal
from oncology.smoothing import SmoothField
from oncology.timeline import steps_between
from oncology.treatment import Plan
from tests.studies.ovals import oval

PATIENTS, AT_ONCE = 200, 50
SHAPE, SPACING_MM, DAYS = (20, 20, 1), (2.0, 2.0, 2.0), 30.0
NOISE_SD = 0.03
PRIORS = {
    "diffusivity_mm2_per_day": LogNormal(0.1, 0.5, "mm^2/day"),
    "growth_rate_per_day": LogNormal(0.03, 0.5, "1/day"),
}


def with_maps(inverse: Inverse, first: Array, last: Array) -> Inverse:
    """The same visits showing other maps."""

    def showing(seen: CellularityMap, value: Array) -> CellularityMap:
        edge = jnp.clip(jnp.mean(value.ravel()[seen.rim]), 0.0, 1.0)
        return eqx.tree_at(lambda s: (s.value, s.edge), seen, (value, edge))

    maps = zip(inverse.observations, (first, last), strict=True)
    shown = tuple(showing(seen, value) for seen, value in maps)
    return eqx.tree_at(lambda i: i.observations, inverse, shown)


@pytest.fixture(scope="module")
def cohort():
    """True coordinates, estimates and posterior standard deviations, (patients, parameters)."""
    x, y = (2.0 * (np.indices(SHAPE) - 9.5))[:2]
    radius, angle = jnp.asarray(np.hypot(x, y)), jnp.asarray(np.arctan2(y, x))
    everywhere = np.ones(SHAPE, bool)
    model = ReactionDiffusion(habitable=jnp.asarray(everywhere), spacing_mm=SPACING_MM)
    leg = steps_between(
        model,
        Plan(),
        0.0,
        DAYS,
        largest_diffusivity_mm2_per_day=0.35,
        largest_growth_rate_per_day=0.05,
    )
    empty = CellularityMap(
        np.zeros(SHAPE), NOISE_SD, np.asarray(radius <= 15), everywhere, SPACING_MM
    )
    blank = Inverse(model, Plan(), (empty, empty), (leg,), PRIORS)
    field = SmoothField(SHAPE, SPACING_MM, correlation_length_mm(SPACING_MM))

    def one(key: Array) -> tuple[Array, Array, Array]:
        keys = jax.random.split(key, 6)
        z = jax.random.normal(keys[0], (len(PRIORS),))
        start = oval(keys[1], radius, angle)
        true = with_maps(blank, start, start).predict(z, jnp.zeros(SHAPE))[-1]
        white = jax.random.normal(keys[2], SHAPE)
        last = true + LEAST_MODEL_ERROR * amplitude(true) * field(white)
        first = start + NOISE_SD * jax.random.normal(keys[3], SHAPE)
        last = last + NOISE_SD * jax.random.normal(keys[4], SHAPE)
        best = estimate(with_maps(blank, first, last))
        found = posterior(best.inverse, best.z)
        return z, found.z, jnp.sqrt(jnp.diag(found.covariance))

    calibrate_many = jax.jit(jax.vmap(one))
    keys = jax.random.split(jax.random.key(0), PATIENTS).reshape(-1, AT_ONCE)
    parts = [calibrate_many(some) for some in keys]
    return tuple(np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(3))


@pytest.mark.long
@pytest.mark.parametrize("parameter", range(len(PRIORS)), ids=list(PRIORS))
def test_ninety_percent_intervals_cover_the_truth(cohort, parameter, capsys):
    true, found, sd = (values[:, parameter] for values in cohort)
    covered = np.mean(np.abs(found - true) < stats.norm.ppf(0.95) * sd)
    error = np.sqrt(covered * (1 - covered) / PATIENTS)
    ranks = stats.norm.cdf((true - found) / sd)
    histogram = np.histogram(ranks, bins=10, range=(0, 1))[0]
    with capsys.disabled():
        name = list(PRIORS)[parameter]
        print(f"\n{name}: covered {covered:.3f} ± {error:.3f}; ranks {histogram.tolist()}")
        print(
            f"  bias {np.mean(found - true):+.3f}, error sd {np.std(found - true):.3f}, "
            f"stated sd {sd.mean():.3f} (of z)"
        )
    assert np.all(np.isfinite(sd))
    assert 0.85 <= covered <= 0.95
    assert histogram.max() < PATIENTS / 10 + 6 * np.sqrt(PATIENTS / 10)
