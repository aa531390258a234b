"""NUTS against the Gaussian it should find, and against quadrature of a posterior that bends."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology import sampling
from oncology.inverse import with_errors
from tests.oncology.formula import MATRIX, Formula, laplace

FIRST = np.array([0.5, -1.0, 0.8])


@pytest.fixture(scope="module")
def gaussian():
    return laplace(Formula(first=FIRST))


@pytest.fixture(scope="module")
def run(gaussian):
    return sampling.chains(gaussian, jax.random.key(0), draws=1500, count=2)


def test_a_gaussian_is_that_of_laplace(gaussian, run):
    """C makes the sampled covariance that of all sources, the first map's noise among them."""
    z = np.asarray(run.z).reshape(-1, 2)
    whiten = np.linalg.inv(np.linalg.cholesky(np.asarray(gaussian.covariance)))
    few = float(jnp.min(run.effective))
    assert np.abs(whiten @ (z.mean(axis=0) - np.asarray(gaussian.z))).max() < 4 / np.sqrt(few)
    np.testing.assert_allclose(whiten @ np.cov(z.T) @ whiten.T, np.eye(2), atol=6 / np.sqrt(few))
    assert np.all(np.asarray(run.r_hat) < 1.02)
    assert few > 500
    assert run.divergences == 0


def test_a_bent_posterior_is_that_of_quadrature():
    bent = Formula(
        np.array([[0.0, 2.0], [0.7, 0.0], [0.0, 1.0]]), np.array([1.0, 0.1, 0.4]), bend=1.0
    )
    found = laplace(bent)
    axes = [np.linspace(-4, 4, 301), np.linspace(-6, 4, 401)]
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 2)
    exact = jax.vmap(lambda z: -(jnp.sum(bent(z) ** 2) + jnp.sum(z**2)) / 2)(jnp.asarray(grid))
    given = jax.vmap(lambda z: sampling.log_density(found, z))(jnp.asarray(grid))
    np.testing.assert_allclose(given, exact, rtol=1e-9, atol=1e-9)
    weight = np.exp(np.asarray(exact) - np.max(exact))
    weight /= weight.sum()
    run = sampling.chains(found, jax.random.key(1), draws=1500, count=2)
    z, few = np.asarray(run.z).reshape(-1, 2), float(jnp.min(run.effective))
    for power in (1, 2, 3):
        mean = weight @ grid**power
        spread = np.sqrt(weight @ (grid**power - mean) ** 2)
        assert np.all(np.abs((z**power).mean(axis=0) - mean) < 5 * spread / np.sqrt(few)), power
    assert abs(float(found.z[1]) - weight @ grid[:, 1]) > 0.05, "the optimum is not the mean"


def test_draws_are_a_posterior_with_the_errors_that_go_with_them(gaussian, run, monkeypatch):
    monkeypatch.setattr(sampling, "chains", lambda *_: run)
    drawn = sampling.sample(gaussian, jax.random.key(2))
    assert drawn.samples is not None
    np.testing.assert_allclose(drawn.z, drawn.samples.z.mean(axis=0), rtol=1e-12)
    np.testing.assert_allclose(drawn.covariance, np.cov(np.asarray(drawn.samples.z).T), rtol=1e-9)
    one = drawn.draw(jax.random.key(3), corrections=2)
    assert np.any(np.all(np.asarray(drawn.samples.z) == np.asarray(one.z), axis=1))


def test_errors_solve_the_problem_they_were_drawn_for(gaussian):
    """z is the optimum under its errors and its own draw of the prior; over many z drawn from the
    posterior, errors have the spread they were given."""
    half = jnp.linalg.cholesky(gaussian.covariance)
    z = gaussian.z[None] + jax.random.normal(jax.random.key(4), (3000, 2)) @ half.T
    drawn = with_errors(gaussian, z, jax.random.key(5))
    pull = drawn.white @ gaussian.gain.to_residual.T
    pull = pull + drawn.first_error[:, None] * jnp.asarray(MATRIX.T @ FIRST)[None]
    prior = pull + jnp.linalg.solve(gaussian.gain.inverse_hessian, (z - gaussian.z[None]).T).T
    for noise in (prior, drawn.white, drawn.first_error[:, None]):
        covariance = np.atleast_2d(np.cov(np.asarray(noise).T))
        np.testing.assert_allclose(covariance, np.eye(len(covariance)), atol=0.1)


def test_chains_that_disagree_are_told(gaussian, monkeypatch):
    far = sampling.Chains(
        jnp.zeros((2, 4, 2)), jnp.array([1.0, 1.3]), jnp.array([4.0, 1.0]), divergences=3
    )
    monkeypatch.setattr(sampling, "chains", lambda *_: far)
    with pytest.raises(InputError, match=r"R-hat 1\.30 of growth_rate_per_day"):
        sampling.sample(gaussian, jax.random.key(0))
