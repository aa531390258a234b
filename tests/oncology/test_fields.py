"""Fields by adjoint searches: against closed forms, and tumours whose fields are known."""

import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
import pytest

from oncology.fields import Earlier, field_posterior
from oncology.growth import GrowthField, Habitats, ReactionDiffusion
from oncology.inverse import Inverse
from oncology.observe import CellularityMap
from oncology.priors import LogNormal, physical
from oncology.timeline import Steps, integrate
from oncology.treatment import Plan
from tests.oncology.formula import MATRIX, SEEN, Formula, inverse_of
from tests.oncology.virtual import lump

SPACING_MM = (2.0, 2.0, 2.0)


def test_parameters_and_the_first_error_of_a_linear_model():
    """r = (M, b) (z, e) - seen, all of them a priori standard normal: a Gaussian posterior."""
    first = np.array([0.5, -1.0, 0.8])
    tight = optx.LBFGS(rtol=1e-10, atol=1e-10)
    found = field_posterior(inverse_of(Formula(first=first)), jax.random.key(0), 200, tight)
    both = np.concatenate([MATRIX, first[:, None]], axis=1)
    covariance = np.linalg.inv(both.T @ both + np.eye(3))
    mean = covariance @ both.T @ SEEN
    np.testing.assert_allclose(found.z, mean[:2], atol=1e-6)
    drawn = np.column_stack([found.samples.z, found.samples.first_error])
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    assert np.abs(whiten @ (drawn.mean(axis=0) - mean)).max() < 4 / np.sqrt(200)
    np.testing.assert_allclose(whiten @ np.cov(drawn.T) @ whiten.T, np.eye(3), atol=0.4)


def test_a_growth_field_is_smooth_and_of_unit_variance():
    field = GrowthField((16, 16, 1), SPACING_MM, 6.0)
    drawn = jax.vmap(field)(jax.random.normal(jax.random.key(0), (2000, field.size)))
    np.testing.assert_allclose(drawn.std(axis=0), 1.0, atol=0.1)
    apart = np.corrcoef(drawn[:, 8, 8, 0], drawn[:, 8, 11, 0])[0, 1]
    assert apart == pytest.approx(np.exp(-(6.0**2) / (4 * 6.0**2)), abs=0.06)


@pytest.mark.long
def test_a_tumour_traced_back_from_one_scan():
    """Grown for 20 days from a lump: the scan is explained, the earlier total found."""
    shape = (14, 14, 1)
    everywhere = np.ones(shape, bool)
    model = ReactionDiffusion(habitable=jnp.asarray(everywhere), spacing_mm=SPACING_MM)
    priors = {
        "diffusivity_mm2_per_day": LogNormal(0.15, 0.05, "mm^2/day"),
        "growth_rate_per_day": LogNormal(0.04, 0.05, "1/day"),
    }
    leg = Steps(np.array([0.0, 10.0]), np.array([10.0, 20.0]), np.zeros(2), 5)
    start = jnp.asarray(lump(shape, SPACING_MM, 4.0, 0.5))
    true = np.asarray(integrate(model, Plan(), physical(priors, jnp.zeros(2)), start, leg))
    value = true + 0.02 * np.random.default_rng(0).standard_normal(shape)
    drawn = true > 0.02
    scan = CellularityMap(value, 0.02, drawn, everywhere, SPACING_MM)
    earlier = Earlier(drawn, SPACING_MM, 3.0)
    inverse = Inverse(model, Plan(), (earlier, scan), (leg,), priors)
    found = field_posterior(inverse, jax.random.key(0), draws=12)
    misfit = np.asarray(scan.residual(found.states[-1]))
    assert np.mean(misfit[: int(drawn.sum())] ** 2) < 1.2
    totals = [float(jnp.sum(earlier.state({}, error))) for error in found.samples.first_error]
    low, high = np.quantile(totals, [0.02, 0.98])
    assert low < start.sum() < high
    assert (high - low) / start.sum() < 0.6


@pytest.mark.long
def test_a_growth_field_where_growth_varies():
    """Fast on one side, still on the other."""
    shape = (16, 16, 1)
    everywhere = np.ones(shape, bool)
    field = GrowthField(shape, SPACING_MM, 6.0)
    x = np.indices(shape)[0]
    model = ReactionDiffusion(
        habitable=jnp.asarray(everywhere), spacing_mm=SPACING_MM, growth_map=field
    )
    priors = {
        "diffusivity_mm2_per_day": LogNormal(0.15, 0.05, "mm^2/day"),
        "growth_rate_per_day": LogNormal(0.04, 0.05, "1/day"),
    }
    leg = Steps(np.array([0.0, 10.0]), np.array([10.0, 20.0]), np.zeros(2), 5)
    start = lump(shape, SPACING_MM, 7.0, 0.5)
    rate = np.where(x > 7.5, 0.04, -0.04)
    sides = ReactionDiffusion(
        habitable=model.habitable, spacing_mm=SPACING_MM, growth_map=Habitats(1 + (x > 7.5))
    )
    p = physical(priors, jnp.zeros(2)) | {"growth_map_per_day": jnp.array([-0.04, 0.04])}
    true = np.asarray(integrate(sides, Plan(), p, jnp.asarray(start), leg))
    noise = 0.02 * np.random.default_rng(0).standard_normal((2, *shape))
    maps = tuple(
        CellularityMap(u + e, 0.02, start > 0.02, everywhere, SPACING_MM)
        for u, e in zip((start, true), noise, strict=True)
    )
    inverse = Inverse(model, Plan(), maps, (leg,), priors)
    found = field_posterior(inverse, jax.random.key(0), draws=2)
    shown = np.asarray(field(physical(priors, found.z)["growth_map_per_day"]))
    inside = start > 0.2
    assert np.corrcoef(shown[inside], rate[inside])[0, 1] > 0.7
