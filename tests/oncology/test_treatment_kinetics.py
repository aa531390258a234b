"""Drugs, effector cells, radionuclides and repair against quadrature, ODEs and limits."""

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import quad, solve_ivp

from mrphys.errors import InputError
from oncology.chemotherapy import (
    Chemotherapy,
    Immunotherapy,
    OneCompartment,
    Saturating,
    TwoCompartment,
)
from oncology.radiotherapy import (
    Radionuclide,
    Radiotherapy,
    dose_equivalent_gy,
    oxygen_modification,
    protraction,
)
from oncology.schedule import Treatment
from oncology.treatment import Plan, Resection, plan
from tests.laws import check_gradient

DAYS, DOSES = np.array([1.0, 4.0]), np.array([1.0, 0.5])
P = {
    "kill_x_per_day": 0.4,
    "decay_x_per_day": 0.7,
    "absorption_x_per_day": 5.0,
    "elimination_x_per_day": 1.2,
    "to_tissue_x_per_day": 0.8,
    "from_tissue_x_per_day": 0.5,
    "activation_x_per_day": 0.3,
    "exhaustion_x_per_day": 0.1,
    "half_effect_x": 0.3,
    "radiosensitivity_per_gy": 0.05,
}


def compartments(matrix, start):
    """The last compartment after a dose."""
    tight = {"rtol": 1e-10, "atol": 1e-13, "dense_output": True}
    solution = solve_ivp(lambda _, y: np.asarray(matrix) @ y, (0, 12), start, **tight).sol
    return lambda days: solution(days)[-1]


ONE = compartments([[-5.0, 0.0], [5.0, -1.2]], [1.0, 0.0])
TWO = compartments([[-0.5, 0.8], [0.5, -2.0]], [0.0, 1.0])
EFFECTORS = compartments([[-0.3, 0.0], [0.3, -0.1]], [1.0, 0.0])


@pytest.mark.core
@pytest.mark.parametrize(
    ("kind", "unit"), [(OneCompartment, ONE), (TwoCompartment, TWO), (Immunotherapy, EFFECTORS)]
)
def test_kinetics_against_their_compartments(kind, unit, rtol):
    """Concentration by the ODEs of the compartments, kill by integrating it."""
    course, days = kind(DAYS, DOSES, "x"), np.linspace(0, 9, 1801)
    concentration = sum(
        dose * np.where(days >= day, unit(np.maximum(days - day, 0)), 0)
        for day, dose in zip(DAYS, DOSES, strict=True)
    )
    found = [course.concentration(P, day) for day in days[::300]]
    np.testing.assert_allclose(found, concentration[::300], atol=rtol(1e-7, 1e-5))
    segments = [slice(a, b + 1) for a, b in ((0, 200), (200, 800), (800, 1801))]
    area = sum(np.trapezoid(concentration[s][:-1], days[s][:-1]) for s in segments)
    assert float(course.kill(P, 0.0, 9.0)) == pytest.approx(0.4 * area, rel=2e-2)
    halves = course.kill(P, 0.0, 3.3) + course.kill(P, 3.3, 9.0)
    assert float(halves) == pytest.approx(float(course.kill(P, 0.0, 9.0)), rel=rtol(1e-12, 1e-5))


def test_equal_rates_of_absorption_and_elimination_are_no_exception():
    course = OneCompartment(np.zeros(1), np.ones(1), "x")
    for nudge in (0.0, 1e-5, 1e-2):
        p = P | {"absorption_x_per_day": 1.2 + nudge}
        expected = 0.4 * quad(lambda t: 1.2 * t * np.exp(-1.2 * t), 0, 5)[0]
        assert float(course.kill(p, 0.0, 5.0)) == pytest.approx(expected, rel=1e-2)


@pytest.mark.core
def test_a_saturating_effect(rtol):
    """Between α c / c_50 for little drug and α for much; by quadrature between."""
    course = Chemotherapy(np.zeros(1), np.ones(1), "x")
    limited = Saturating(course)
    expected = quad(lambda t: 0.4 / (1 + 0.3 * np.exp(0.7 * t)), 0, 2)[0]
    assert float(limited.kill(P, 0.0, 2.0)) == pytest.approx(expected, rel=rtol(1e-8, 1e-5))
    little = limited.kill(P | {"half_effect_x": 1e4}, 0.0, 2.0) * 1e4
    assert float(little) == pytest.approx(float(course.kill(P, 0.0, 2.0)), rel=1e-3)


def test_gradients_of_kinetics():
    courses = [kind(DAYS, DOSES, "x") for kind in (Chemotherapy, OneCompartment, TwoCompartment)]
    courses += [Saturating(courses[0]), Radionuclide(DAYS, 20 * DOSES)]
    names = [name for name in P if not name.startswith(("activation", "exhaustion"))]

    def kills(x):
        p = dict(zip(names, x, strict=True))
        return jnp.stack([jnp.sum(course.kill(p, 0.5, 5.0)) for course in courses])

    check_gradient(kills, jnp.array([P[name] for name in names]))
    none = Chemotherapy(DAYS, DOSES, "x")
    check_gradient(
        lambda decay: none.kill(P | {"decay_x_per_day": decay}, 0.0, 6.0), jnp.zeros(()), scale=0.1
    )


@pytest.mark.core
def test_a_radionuclide_is_its_dose_at_last_and_repairs_meanwhile(rtol):
    """Linear loss α D; quadratic by quadrature of r(t) ∫ r(s) e^{-μ (t-s)} ds (Dale 1985)."""
    source = Radionuclide(DAYS, np.array([10.0, 5.0]), effective_halflife_days=2.0)
    decay, repair = np.log(2) / 2.0, 24 * np.log(2) / 1.5

    def rate(t):
        since = t - DAYS
        return np.sum(np.where(since >= 0, decay * source.doses_gy * np.exp(-decay * since), 0.0))

    def unrepaired(t):
        return quad(
            lambda s: rate(s) * np.exp(-repair * (t - s)), max(t - 1, 1), t, points=(min(t, 4.0),)
        )[0]

    days = np.concatenate([np.linspace(1, 4, 400)[1:-1], np.linspace(4, 9, 400)[1:]])
    values = [rate(t) * (1 + 2 / 10 * unrepaired(t)) for t in days]
    expected = 0.05 * np.trapezoid(values, days)
    found = float(source.kill(P, 0.0, 9.0))
    assert found == pytest.approx(expected, rel=5e-3)
    parts = sum(float(source.kill(P, a, b)) for a, b in ((0.0, 2.0), (2.0, 5.0), (5.0, 9.0)))
    assert parts == pytest.approx(found, rel=rtol(1e-12, 1e-5))
    late = float(source.kill(P, 0.0, 200.0))
    single = Radionuclide(np.zeros(1), np.full(1, 10.0), effective_halflife_days=2.0)
    dale = 0.05 * 10 * (1 + 10 * decay / (repair + decay) / 10)
    assert float(single.kill(P, 0.0, 200.0)) == pytest.approx(dale, rel=rtol(1e-12, 1e-5))
    assert late > 0.05 * 15
    half = float(source.kill(P, 0.0, 9.0, 0.5))
    assert half < found / 2


def test_incomplete_repair_lies_between_separate_and_single_doses():
    """Lea-Catcheside: two doses at once are one of both, far apart they are two."""
    days = [0.0, 1e-6, 20.0]
    together = [
        dose_equivalent_gy(Radiotherapy(np.array([0.0, gap]), np.full(2, 2.0), 10.0, 4.0))
        for gap in days[1:]
    ]
    assert together[0] == pytest.approx(4 * (1 + 4 / 10), rel=1e-4)
    assert together[1] == pytest.approx(2 * 2 * (1 + 2 / 10), rel=1e-9)
    slow = Radiotherapy(np.zeros(1), np.full(1, 2.0), 10.0, 1.5, duration_h=1.0)
    repairs = np.log(2) / 1.5
    expected = 2 * (repairs - 1 + np.exp(-repairs)) / repairs**2
    assert dose_equivalent_gy(slow) == pytest.approx(2 * (1 + 2 * expected / 10))
    assert protraction(1e-3) == pytest.approx(protraction(0.99e-3), rel=1e-5)


def test_oxygen_and_repopulation():
    share = oxygen_modification(jnp.array([0.0, 3.0, 1e6]))
    np.testing.assert_allclose(share, [1 / 3, 2 / 3, 1.0], rtol=1e-5)
    course = Radiotherapy(np.arange(40.0), np.full(40, 2.0), kickoff_day=28.0)
    shares = [float(course.repopulating(a, a + 2.0)) for a in (10.0, 27.0, 30.0, 38.0, 50.0)]
    assert shares == [0.0, 0.5, 1.0, 0.5, 0.0]
    assert 28.0 in Plan(radiotherapy=course).event_days


def test_every_kind_of_the_table_is_planned():
    kinds = [("radionuclide", 12.0, "Lu"), ("immunotherapy", 1.0, "pd1"), ("resection", 0.9, "")]
    made = plan(
        [Treatment(float(day), kind, dose, "", a) for day, (kind, dose, a) in enumerate(kinds)]
    )
    assert made.radionuclides[0].agent == "Lu"
    assert isinstance(made.chemotherapy[0], Immunotherapy)
    assert made.resections[0].extent == 0.9
    assert made.event_days == (0.0, 1.0, 2.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: Resection(1.0, 90.0),
        lambda: Radionuclide(DAYS, DOSES, effective_halflife_days=1.5 / 24),
    ],
)
def test_impossible_treatments_are_errors(build):
    with pytest.raises(InputError):
        build()


@pytest.mark.parametrize("dose", [200.0, -2.0])
def test_fractions_in_centigray_are_errors(dose):
    with pytest.raises(InputError, match="cGy"):
        Radiotherapy(np.array([0.0]), np.array([dose]))
