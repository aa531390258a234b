"""Are intervals honest where the truth is finer? Two hundred tumours, calibrated and forecast.

    pytest -m long -s tests/studies/test_forecast_coverage.py

Truth is grown on half the grid spacing with half the time step: diffusivity and growth rate from
their log-normal priors, a lump of random size and shape, white noise on both maps, and a smooth
model error of LEAST_MODEL_ERROR in the second, from which the tumour goes on. The interval of the
diffusivity misses its bound by a hundredth: a noisy start costs less the more its cells wander,
which Laplace's posterior does not know, and coarse voxels diffuse too little.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array
from scipy import stats

from oncology.forecast import TOTAL, _tumor_drawn
from oncology.growth import ReactionDiffusion
from oncology.inverse import (
    LEAST_MODEL_ERROR,
    Inverse,
    Posterior,
    amplitude,
    correlation_length_mm,
    estimate,
    posterior,
)
from oncology.observe import CellularityMap, visible_cellularity_mm3
from oncology.priors import physical
from oncology.smoothing import SmoothField
from oncology.timeline import Steps, integrate, steps_between
from oncology.treatment import Plan
from tests.studies.ovals import oval
from tests.studies.test_coverage import (
    AT_ONCE,
    DAYS,
    NOISE_SD,
    PATIENTS,
    PRIORS,
    SHAPE,
    SPACING_MM,
    with_maps,
)

FORECAST_DAY, DRAWS, SEEN_ABOVE = 60.0, 60, 0.1


def drawn_forecasts(found: Posterior, ahead: Steps, keys: Array) -> Array:
    """Totals of visible cellularity on the day to be forecast, by the library's own draws."""
    level, side = jnp.asarray(SEEN_ABOVE), jnp.ones(())

    def one(key: Array) -> Array:
        *_, along = _tumor_drawn(found, ahead, level, 0, key, side)
        return along[-1][TOTAL][-1]

    return jax.vmap(one)(keys)


def blocks(field: Array) -> Array:
    """Means of 2 x 2 voxels."""
    return field.reshape(SHAPE[0], 2, SHAPE[1], 2, 1).mean(axis=(1, 3))


def legs_of(model: ReactionDiffusion, refinement: float) -> tuple[Steps, Steps]:
    """The steps to the second visit and on to the forecast, shorter by `refinement`."""
    days = ((0.0, DAYS), (DAYS, FORECAST_DAY))
    limits = {"largest_diffusivity_mm2_per_day": 0.35, "largest_growth_rate_per_day": 0.05}
    legs = [
        steps_between(model, Plan(), *d, **limits, tolerance=1e-3 / refinement**2) for d in days
    ]
    return legs[0], legs[1]


@pytest.fixture(scope="module")
def cohort():
    """True coordinates, estimates and standard deviations, (patients, parameters); true totals on
    the day to be forecast, and the ends of their 90 % intervals, (patients,)."""
    fine_shape, fine_mm = (2 * SHAPE[0], 2 * SHAPE[1], 1), (1.0, 1.0, 2.0)
    x, y = (np.indices(fine_shape) - (SHAPE[0] - 0.5))[:2]
    radius, angle = jnp.asarray(np.hypot(x, y)), jnp.asarray(np.arctan2(y, x))
    everywhere = np.ones(SHAPE, bool)
    model = ReactionDiffusion(habitable=jnp.asarray(everywhere), spacing_mm=SPACING_MM)
    finer = ReactionDiffusion(habitable=jnp.ones(fine_shape, bool), spacing_mm=fine_mm)
    leg, ahead = legs_of(model, 1.0)
    fine_leg, fine_ahead = legs_of(finer, 2.0)
    within = np.asarray(blocks(radius)) <= 15
    empty = CellularityMap(np.zeros(SHAPE), NOISE_SD, within, everywhere, SPACING_MM)
    blank = Inverse(model, Plan(), (empty, empty), (leg,), PRIORS)
    field = SmoothField(fine_shape, fine_mm, correlation_length_mm(SPACING_MM))
    voxel = float(np.prod(SPACING_MM))

    def one(key: Array) -> tuple[Array, ...]:
        keys = jax.random.split(key, 6)
        z = jax.random.normal(keys[0], (len(PRIORS),))
        start = oval(keys[1], radius, angle)
        p = physical(PRIORS, z)
        true = integrate(finer, Plan(), p, start, fine_leg)
        true = true + LEAST_MODEL_ERROR * amplitude(true) * field(
            jax.random.normal(keys[2], fine_shape)
        )
        later = integrate(finer, Plan(), p, jnp.clip(true, 0.0, 1.0), fine_ahead)
        first = blocks(start) + NOISE_SD * jax.random.normal(keys[3], SHAPE)
        last = blocks(true) + NOISE_SD * jax.random.normal(keys[4], SHAPE)
        best = estimate(with_maps(blank, first, last))
        found = posterior(best.inverse, best.z)
        totals = drawn_forecasts(found, ahead, jax.random.split(keys[5], DRAWS))
        seen = visible_cellularity_mm3(blocks(later), SEEN_ABOVE, voxel, width=0.1 * SEEN_ABOVE)
        ends = jnp.quantile(totals, jnp.array([0.05, 0.95]))
        return z, found.z, jnp.sqrt(jnp.diag(found.covariance)), seen, ends[0], ends[1]

    calibrate_many = jax.jit(jax.vmap(one))
    keys = jax.random.split(jax.random.key(0), PATIENTS).reshape(-1, AT_ONCE)
    parts = [calibrate_many(some) for some in keys]
    return tuple(np.concatenate([np.asarray(part[i]) for part in parts]) for i in range(6))


@pytest.mark.long
def test_ninety_percent_intervals_cover_the_forecast(cohort, capsys):
    seen, low, high = cohort[3:]
    covered = np.mean((low <= seen) & (seen <= high))
    with capsys.disabled():
        middle = (low + high) / 2
        print(f"\ntotal on day {FORECAST_DAY:g}: covered {covered:.3f}")
        print(f"  bias {100 * np.mean(middle / seen - 1):+.2f} %, half-width ", end="")
        print(f"{100 * np.mean((high - low) / 2 / seen):.2f} %")
    assert 0.85 <= covered <= 0.95


@pytest.mark.long
@pytest.mark.parametrize(
    "parameter",
    [
        pytest.param(
            0, marks=pytest.mark.xfail(strict=True, reason="0.84 ± 0.03, with a bias of +0.2 sd")
        ),
        1,
    ],
    ids=list(PRIORS),
)
def test_ninety_percent_intervals_cover_the_truth(cohort, parameter, capsys):
    true, found, sd = (values[:, parameter] for values in cohort[:3])
    covered = np.mean(np.abs(found - true) < stats.norm.ppf(0.95) * sd)
    with capsys.disabled():
        print(f"\n{list(PRIORS)[parameter]}: covered {covered:.3f}")
        print(f"  bias {np.mean(found - true):+.3f}, stated sd {sd.mean():.3f} (of z)")
    assert 0.85 <= covered <= 0.95
