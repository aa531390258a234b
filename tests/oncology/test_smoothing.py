"""Smooth fields: their moments exactly, from the linear map itself, and the law of the adjoint."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from oncology.smoothing import SmoothField
from tests.laws import check_adjoint

SHAPE, SPACING_MM, LENGTH_MM = (11, 8, 3), (1.0, 2.0, 3.0), 2.0


@pytest.fixture(scope="module")
def field():
    return SmoothField(SHAPE, SPACING_MM, LENGTH_MM)


@pytest.fixture(scope="module")
def covariance(field):
    """G Gᵀ, column by column."""
    units = jnp.eye(int(np.prod(SHAPE))).reshape(-1, *SHAPE)
    return np.asarray(jax.vmap(lambda unit: field(field.transpose(unit)).ravel())(units))


def test_unit_variance_everywhere(covariance, rtol):
    np.testing.assert_allclose(np.diag(covariance), 1, rtol=rtol(1e-12, 1e-5))


def test_correlation_falls_as_a_gaussian_of_twice_the_variance():
    fine = SmoothField((61, 1, 1), (0.5, 1.0, 1.0), LENGTH_MM)
    unit = jnp.zeros((61, 1, 1)).at[30].set(1.0)
    found = np.asarray(fine(fine.transpose(unit)))[:, 0, 0]
    distance = 0.5 * (np.arange(61) - 30)
    near = np.abs(distance) <= 6
    np.testing.assert_allclose(found[near], np.exp(-(distance[near] ** 2) / 16), atol=1e-5)


def test_draws_have_the_stated_moments(field, covariance):
    white = jax.random.normal(jax.random.key(0), (4000, *SHAPE))
    draws = np.asarray(jax.vmap(field)(white)).reshape(4000, -1)
    assert np.abs(draws.mean(axis=0)).max() < 5 / np.sqrt(4000)
    assert np.abs(draws.T @ draws / 4000 - covariance).max() < 6 * np.sqrt(2 / 4000)


def test_transpose_is_the_adjoint(field, rtol):
    rng = np.random.default_rng(1)
    x, y = (jnp.asarray(rng.standard_normal(SHAPE)) for _ in range(2))
    check_adjoint(field, field.transpose, x, y, rtol=rtol(1e-12, 1e-5))


def test_local_mean_of_a_constant_is_the_constant(field, rtol):
    weight = jnp.asarray(np.random.default_rng(2).uniform(size=SHAPE) > 0.5, float)
    found = field.local_mean(jnp.full(SHAPE, 3.7), weight)
    np.testing.assert_allclose(found, 3.7, rtol=rtol(1e-12, 1e-5))


def test_local_mean_of_a_value_counts_neighbours_by_distance():
    """Two voxels with weight, at distances 0 and 2 mm: a Gaussian kernel's mean of them."""
    line = SmoothField((9, 1, 1), (2.0, 1.0, 1.0), LENGTH_MM)
    weight = jnp.zeros((9, 1, 1)).at[jnp.array([4, 5])].set(1.0)
    value = jnp.zeros((9, 1, 1)).at[5].set(1.0)
    found = float(line.local_mean(value, weight)[4, 0, 0])
    assert found == pytest.approx(np.exp(-0.5) / (1 + np.exp(-0.5)), rel=1e-6)


def test_local_mean_without_weight_is_zero_and_finite(field):
    mean = field.local_mean(jnp.ones(SHAPE), jnp.zeros(SHAPE))
    np.testing.assert_array_equal(mean, 0)
