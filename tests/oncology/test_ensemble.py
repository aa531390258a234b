"""Ensembles against Kalman's filter, randomised maximum likelihood and each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.ensemble import Filter, filtered, invert, spread_exactly, transformed
from oncology.inverse import estimate, posterior
from tests.oncology.formula import Formula, inverse_of, optimum
from tests.oncology.small_problem import SHAPE, noisy, problem


def test_updates_are_those_of_kalmans_filter():
    """Five visits of a linear system with four unknowns, from the same prior: exact to rounding."""
    rng = np.random.default_rng(0)
    move, see = rng.normal(size=(4, 4)) / 2, rng.normal(size=(3, 4))
    ensemble = spread_exactly(jax.random.key(0), 9, 4)
    mean, covariance = np.zeros(4), np.eye(4)
    for _ in range(5):
        seen = rng.normal(size=3)
        mean, covariance = move @ mean, move @ covariance @ move.T
        gain = covariance @ see.T @ np.linalg.inv(see @ covariance @ see.T + np.eye(3))
        mean = mean + gain @ (seen - see @ mean)
        covariance = covariance - gain @ see @ covariance
        ensemble = ensemble @ move.T
        weight, turn = transformed(ensemble @ see.T - seen[None])
        middle = jnp.mean(ensemble, axis=0)[None]
        apart = ensemble - middle
        ensemble = middle + (weight[None] + turn) @ apart
        np.testing.assert_allclose(ensemble.mean(axis=0), mean, atol=1e-12)
        np.testing.assert_allclose(np.cov(np.asarray(ensemble).T), covariance, atol=1e-12)


def test_inversion_of_a_linear_model():
    """The sensitivities are exact; each member solves its own perturbed problem in one step."""
    inverse = inverse_of(Formula(first=np.array([0.5, -1.0, 0.8])))
    found = posterior(inverse, optimum(Formula()))
    drawn = invert(inverse, jax.random.key(1), members=4000)
    whiten = np.linalg.inv(np.linalg.cholesky(np.asarray(found.covariance)))
    assert np.abs(whiten @ (np.asarray(drawn.z) - np.asarray(found.z))).max() < 4 / np.sqrt(4000)
    covered = whiten @ np.asarray(drawn.covariance) @ whiten.T
    np.testing.assert_allclose(covered, np.eye(2), atol=0.1)


@pytest.mark.long
def test_inversion_and_filter_of_a_tumour():
    """Both tell what the Laplace posterior tells, which was proven by bootstrap; the filter, which
    starts anew at every scan, somewhat less."""
    seen = noisy(problem(0.8, 0.03), jax.random.key(1))
    best = estimate(seen)
    found = posterior(best.inverse, best.z)
    sd = np.sqrt(np.diag(np.asarray(found.covariance)))
    drawn = invert(best.inverse, jax.random.key(2), members=200)
    assert np.all(np.abs(np.asarray(drawn.z - found.z)) < 0.3 * sd)
    np.testing.assert_allclose(np.sqrt(np.diag(np.asarray(drawn.covariance))), sd, rtol=0.2)
    moved = filtered(seen, jax.random.key(3), members=100, near_mm=4.0)
    assert np.all(np.abs(np.asarray(moved.z - found.z)) < 2 * sd)
    spread = np.sqrt(np.diag(np.asarray(moved.covariance)))
    assert np.all((0.5 * sd < spread) & (spread < 2.5 * sd))


def test_members_must_outnumber_unknowns():
    with pytest.raises(InputError, match="more than the 4 unknowns"):
        spread_exactly(jax.random.key(0), 4, 4)


def test_a_visit_too_many():
    inverse, none = inverse_of(Formula()), jnp.zeros(())
    now = Filter(inverse, jnp.zeros((5, 2)), jnp.zeros((5, *SHAPE)), none, seen=2)
    with pytest.raises(InputError, match="all 2 visits seen"):
        now.assimilated(jax.random.key(1))
