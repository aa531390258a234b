"""Profiles against the parabola of a linear model, and verdicts where nothing can be told."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.calibration import require_convergence
from oncology.identifiability import Profile, identifiability
from oncology.inverse import posterior
from tests.oncology.formula import MATRIX, SEEN, Formula, inverse_of, laplace

NAMES = ("diffusivity_mm2_per_day", "growth_rate_per_day")


def test_a_linear_model_has_a_parabola():
    """Without its own prior, the other's widened threefold; the first map's noise widens it."""
    found = laplace(Formula(first=np.array([0.5, -1.0, 0.8])))
    for i, (name, profile) in enumerate(identifiability(found).items()):
        weight = np.where(np.arange(2) == i, 0.0, 1 / 9)
        hessian = np.asarray(MATRIX.T @ MATRIX) + np.diag(weight)
        centre = np.linalg.solve(hessian, np.asarray(MATRIX.T @ SEEN))[i]
        wider = float(found.covariance[i, i] / found.gain.inverse_hessian[i, i])
        sd = np.sqrt(np.linalg.inv(hessian)[i, i] * wider)
        prior = found.inverse.priors[name]
        z = np.log(profile.value / prior.median) / prior.log_sd
        expected = ((z - centre) / sd) ** 2
        np.testing.assert_allclose(profile.deviance, expected - expected.min(), atol=1e-4)
        ends = np.log(np.array([profile.low95, profile.high95]) / prior.median) / prior.log_sd
        np.testing.assert_allclose(ends, centre + 1.96 * sd * np.array([-1, 1]), atol=0.1 * sd)
        assert profile.verdict == "identifiable"


def test_what_another_can_stand_in_for_is_not_identifiable():
    """Laplace's covariance is finite, for the priors make it so."""
    found = identifiability(laplace(Formula(np.full((3, 2), 20.0), np.full(3, 8.0))))
    assert [found[name].verdict for name in NAMES] == ["not identifiable"] * 2
    assert (found[NAMES[0]].low95, found[NAMES[0]].high95) == (0.0, np.inf)


def test_a_bound_on_one_side():
    """Any large first coordinate explains what is seen."""
    step = Formula(np.diag([1.0, 20.0, 1.0])[:, :2], np.array([10.0, 0.0, 0.0]), step=10.0)
    found = identifiability(laplace(step))
    assert found[NAMES[0]].verdict == "bounded below"
    assert 0.1 < found[NAMES[0]].low95 < 0.5
    assert found[NAMES[1]].verdict == "identifiable"


def test_only_those_named_and_the_progress():
    told = []
    found = laplace(Formula())
    assert list(identifiability(found, NAMES[1:], told.append)) == told == [NAMES[1]]


@pytest.mark.parametrize(
    ("low", "high", "verdict"),
    [
        (0.1, 0.2, "identifiable"),
        (0.0, 0.2, "bounded above"),
        (0.1, np.inf, "bounded below"),
        (0.0, np.inf, "not identifiable"),
    ],
)
def test_a_verdict_in_words(low, high, verdict):
    profile = Profile("k", "1/day", np.array([0.1, 0.2]), np.array([0.0, 1.5]), low, high)
    assert str(profile) == f"k [1/day] is {verdict}; deviance 0.0 at 0.1, 1.5 at 0.2"


def test_a_search_that_ended_early_is_told_with_the_profile():
    early = posterior(inverse_of(Formula()), jnp.array([0.1, 2.0]))
    with pytest.raises(InputError, match="does not converge, farthest off in growth") as told:
        require_convergence("sub-01", early)
    assert "growth_rate_per_day [1/day] is identifiable; deviance" in str(told.value)
    require_convergence("sub-01", laplace(Formula()))


def test_a_search_that_ended_nowhere_is_told():
    nowhere = posterior(inverse_of(Formula(MATRIX * np.nan)), jnp.zeros(2))
    with pytest.raises(InputError, match="vanished or doubled"):
        require_convergence("sub-01", nowhere)
