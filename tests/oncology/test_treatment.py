"""Treatments against closed forms and quadrature."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad

from oncology.schedule import Treatment
from oncology.treatment import Chemotherapy, Plan, Radiotherapy, linear_quadratic, plan
from tests.laws import check_gradient


@pytest.mark.core
def test_survival_is_linear_quadratic(rtol):
    """S = exp(-α d - β d²) with β = α / (α/β)."""
    alpha, beta, dose = 0.12, 0.012, np.array([0.0, 1.8, 2.0, 8.0])
    found = jnp.exp(linear_quadratic(alpha, jnp.asarray(dose, float), alpha / beta))
    np.testing.assert_allclose(found, np.exp(-alpha * dose - beta * dose**2), rtol(1e-12, 1e-5))


def test_thirty_fractions_are_their_biologically_effective_dose():
    """log S = -α BED, BED = n d (1 + d / (α/β)): 30 x 2 Gy at α/β = 10 Gy is 72 Gy (Fowler)."""
    assert float(30 * linear_quadratic(0.05, 2.0, 10.0)) == pytest.approx(-0.05 * 72)


@pytest.mark.core
@pytest.mark.parametrize("leg", [(0.0, 0.5), (0.0, 3.0), (2.0, 9.0), (5.0, 40.0)])
def test_kill_is_the_integral_of_its_rate(leg, rtol):
    agent = Chemotherapy(np.array([1.0, 4.0, 8.0]), np.array([1.0, 0.5, 2.0]), "taxane")
    p = {"kill_taxane_per_day": 0.4, "decay_taxane_per_day": 0.7}

    def rate(t):
        given = agent.days <= t
        return 0.4 * np.sum(given * agent.doses * np.exp(-0.7 * np.where(given, t - agent.days, 0)))

    expected = quad(rate, *leg, points=[1.0, 4.0, 8.0], epsabs=1e-13, limit=200)[0]
    assert float(agent.kill(p, *leg)) == pytest.approx(expected, rel=rtol(1e-9, 1e-5), abs=1e-12)


def test_kill_adds_up_over_legs():
    agent = Chemotherapy(np.array([0.0, 3.0]), np.ones(2), "taxane")
    p = {"kill_taxane_per_day": 0.4, "decay_taxane_per_day": 0.7}
    legs = [agent.kill(p, a, b) for a, b in ((0.0, 3.0), (3.0, 3.5), (3.5, 10.0))]
    assert float(sum(legs)) == pytest.approx(float(agent.kill(p, 0.0, 10.0)), rel=1e-13)


def test_gradients_of_treatment():
    agent = Chemotherapy(np.array([1.0, 4.0]), np.array([1.0, 0.5]), "taxane")
    names = ("kill_taxane_per_day", "decay_taxane_per_day")
    check_gradient(
        lambda x: agent.kill(dict(zip(names, x, strict=True)), 0.0, 6.0), jnp.array([0.4, 0.7])
    )
    check_gradient(lambda x: linear_quadratic(x[0], x[1]), jnp.array([0.1, 2.0]))


def test_a_plan_sorts_treatments_by_kind_and_agent():
    found = plan(
        [
            Treatment(1.0, "chemotherapy", 1.0, "relative", "a"),
            Treatment(3.0, "radiotherapy", 2.0, "Gy", ""),
            Treatment(1.0, "chemotherapy", 0.5, "relative", "b"),
            Treatment(5.0, "chemotherapy", 1.0, "relative", "a"),
            Treatment(6.0, "resection", 1.0, "relative", ""),
        ]
    )
    assert [agent.agent for agent in found.chemotherapy] == ["a", "b"]
    np.testing.assert_array_equal(found.chemotherapy[0].days, [1.0, 5.0])
    np.testing.assert_array_equal(found.chemotherapy[1].doses, [0.5])
    assert isinstance(found.radiotherapy, Radiotherapy)
    np.testing.assert_array_equal(found.radiotherapy.doses_gy, [2.0])
    assert [cut.day for cut in found.resections] == [6.0]
    assert found.event_days == (1.0, 3.0, 5.0, 6.0)
    assert plan([]) == Plan()
