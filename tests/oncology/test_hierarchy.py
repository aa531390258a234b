"""Priors from a cohort: against closed forms, drawn populations, and those who tell nothing."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from mrphys.errors import InputError
from oncology.hierarchy import Told, learn_cohort, told
from oncology.priors import LogNormal
from tests.oncology.formula import Formula, laplace

RATE = "growth_rate_per_day"


@pytest.fixture(scope="module")
def base():
    return laplace(Formula())


def patient(base, estimate: np.ndarray, sd: np.ndarray):
    """A posterior under N(0, 1) whose images alone would say `estimate` with `sd`."""
    precision = np.diag(sd**-2.0)
    covariance = np.linalg.inv(precision + np.eye(2))
    z = covariance @ precision @ estimate
    changed = (jnp.asarray(z), jnp.asarray(covariance))
    return eqx.tree_at(lambda f: (f.z, f.covariance), base, changed)


def test_evidence_is_that_of_a_normal():
    """Of a scalar: images with precision 1/s² at m say m ~ N(μ, ω² + s²)."""
    m, s = np.array([0.3, -1.2]), np.array([0.5, 1.5])
    given = Told(jnp.asarray(s**-2)[:, None, None], jnp.asarray(m / s**2)[:, None])
    found = [
        given.log_evidence(jnp.array([mu]), jnp.array([w])) for mu, w in ((0.1, 0.7), (1.0, 2.0))
    ]
    exact = [stats.norm.logpdf(m, mu, np.hypot(w, s)) for mu, w in ((0.1, 0.7), (1.0, 2.0))]
    np.testing.assert_allclose(found[0] - found[1], exact[0] - exact[1], rtol=1e-10)


def test_what_the_images_alone_tell(base):
    estimate, sd = np.array([0.7, -0.4]), np.array([0.2, 3.0])
    precision, pull = told(patient(base, estimate, sd), list(base.inverse.priors))
    np.testing.assert_allclose(precision, np.diag(sd**-2), atol=1e-9)
    np.testing.assert_allclose(pull, estimate / sd**2, atol=1e-9)


def test_a_drawn_population_is_found_and_the_next_is_covered(base):
    rng = np.random.default_rng(0)
    mean, spread = np.array([0.8, -0.5]), np.array([0.3, 0.6])
    true = mean + spread * rng.standard_normal((60, 2))
    sd = rng.uniform(0.1, 0.6, true.shape)
    patients = [
        patient(base, z + s * rng.standard_normal(2), s) for z, s in zip(true, sd, strict=True)
    ]
    cohort = learn_cohort(patients)
    assert np.all(np.abs(cohort.mean - mean) < 3 * np.asarray(cohort.mean_sd))
    np.testing.assert_allclose(cohort.sd, spread, rtol=0.35)
    prior, old = cohort.priors[RATE], base.inverse.priors[RATE]
    next_ones = old.median * np.exp(old.log_sd * (-0.5 + 0.6 * rng.standard_normal(4000)))
    within = np.abs(np.log(next_ones / prior.median)) < 1.645 * prior.log_sd
    assert 0.84 < within.mean() < 0.96
    assert "60 patients" in prior.source


def test_patients_who_tell_nothing_leave_the_prior(base):
    cohort = learn_cohort([patient(base, np.zeros(2), np.full(2, 1e4))] * 3)
    np.testing.assert_allclose(cohort.mean, 0, atol=1e-6)
    np.testing.assert_allclose(cohort.sd, 1, atol=1e-3)
    np.testing.assert_allclose(cohort.mean_sd, 1, atol=1e-3)


def test_few_that_agree_do_not_make_all_alike(base):
    cohort = learn_cohort([patient(base, np.array([0.5, 0.5]), np.full(2, 0.05))] * 3)
    assert np.all(np.asarray(cohort.sd) > 0.02)
    assert np.all(np.asarray(cohort.sd) < 0.5)


def test_cohorts_that_cannot_be_learnt(base):
    with pytest.raises(InputError, match="no patients"):
        learn_cohort([])
    other = eqx.tree_at(lambda f: f.inverse.priors[RATE], base, LogNormal(0.1, 0.5, "1/day"))
    with pytest.raises(InputError, match=r"medians 0\.04 and 0\.1"):
        learn_cohort([base, other])
    agent = {"kill_a_per_day": LogNormal(0.1, 0.5, "1/day")}
    with pytest.raises(InputError, match="no parameter of all"):
        learn_cohort([base, eqx.tree_at(lambda f: f.inverse.priors, base, agent)])
