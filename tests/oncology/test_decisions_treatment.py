"""How to treat: what the linear-quadratic model and linear kill decide in closed form."""

import itertools

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.decisions import (
    Organ,
    Tumours,
    compare,
    log_burdens,
    optimise_fractionation,
    optimise_schedule,
    regimen,
    standard_course,
    standard_cycles,
    worst_decile,
)
from oncology.growth_laws import Exponential
from oncology.radiotherapy import Radiotherapy
from oncology.treatment import Chemotherapy, Plan, Saturating
from tests.laws import check_gradient

ORGAN = Organ(alpha_over_beta_gy=3.0)
ALPHA = np.array([0.1, 0.12, 0.08, 0.11])


def fractionated(ratio_gy, **options):
    """Six fractions at most, against four of 3 Gy (BED 24 Gy₃), of tumours that do not grow."""
    tumours = Tumours.lumped(
        {
            "growth_rate_per_day": 0.0,
            "radiosensitivity_per_gy": ALPHA,
            "alpha_over_beta_gy": ratio_gy,
        },
        0.5,
    )
    usual = standard_course(0.0, 4, 3.0)
    given = {"standard": usual, "organs": (ORGAN,), "lengths": (6,), "largest_gy": 5.0} | options
    return optimise_fractionation(tumours, 9.0, **given, starts=2, steps=40)


def left(doses, ratio_gy):
    """Mean log burden of the draws that choose."""
    return np.log(0.5) - ALPHA[::2].mean() * np.sum(doses * (1 + doses / ratio_gy))


def test_tumours_of_a_high_ratio_get_many_small_fractions():
    made = fractionated(10.0)
    equal = 1.5 * (np.sqrt(1 + 4 * 24 / 18) - 1)
    np.testing.assert_allclose(made.course.doses_gy, np.full(6, equal), atol=0.01)
    assert made.design.after == pytest.approx(left(np.full(6, equal), 10.0), abs=1e-3)
    assert made.organs[0][2] <= made.organs[0][1] == pytest.approx(24.0)
    per_alpha = 6 * equal * (1 + equal / 10) - 12 * 1.3
    assert made.gain.expected.value == pytest.approx(ALPHA[1::2].mean() * per_alpha, abs=2e-3)
    assert made.gain.credible


def test_tumours_of_a_low_ratio_get_few_large_fractions():
    """As many of the largest as the organ bears, and one of what is left."""
    made = fractionated(1.5)
    rest = 1.5 * (np.sqrt(1 + 4 * (24 - 5 * (1 + 5 / 3)) / 3) - 1)
    assert np.sort(made.course.doses_gy)[::-1] == pytest.approx([5.0, rest], abs=0.01)
    assert made.design.after == pytest.approx(left(np.array([5.0, rest]), 1.5), abs=1e-3)
    assert made.gain.credible


def test_equal_ratios_gain_nothing():
    made = fractionated(3.0)
    assert abs(made.gain.expected.value) < 1e-3
    assert not made.gain.credible and "no credible gain" in made.gain.verdict


def growing():
    """Draws whose rates and answers differ, growing logistically."""
    rng = np.random.default_rng(1)
    p = {
        "growth_rate_per_day": rng.uniform(0.02, 0.2, 12),
        "radiosensitivity_per_gy": rng.uniform(0.05, 0.3, 12),
        "alpha_over_beta_gy": rng.uniform(2.0, 12.0, 12),
    }
    return Tumours.lumped(p, rng.uniform(0.2, 0.9, 12))


def test_the_worst_decile_of_three_fractions_is_as_exhaustive_search_says():
    tumours, usual = growing(), Radiotherapy(np.array([0.0, 1.0, 2.0]), np.full(3, 2.0))
    options = {"standard": usual, "organs": (ORGAN,), "largest_gy": 4.0, "steps": 40}
    made = optimise_fractionation(
        tumours, 9.0, **options, lengths=(3,), objective="worst decile", starts=2
    )
    base = regimen(tumours, Plan(radiotherapy=usual), 9.0)
    every = []
    for first, second in itertools.product(np.linspace(0, 3.4, 18), repeat=2):
        bed = 10.0 - sum(d * (1 + d / 3) for d in (first, second))
        third = 1.5 * (np.sqrt(1 + 4 * bed / 3) - 1) if bed >= 0 else 9.0
        if third <= 4.0:
            every.append((first, second, third))
    half = tumours.some(slice(0, None, 2))
    values = jax.vmap(
        lambda doses: worst_decile(log_burdens(half, base.given({"radiotherapy": doses})))
    )(jnp.array(every))
    assert made.design.after <= float(values.min()) + 1e-3
    assert made.design.after < made.design.before + 1e-9


def test_burden_is_differentiable_in_doses_also_where_none_is_given():
    tumours = growing().some(slice(0, 3))
    drugs = (Chemotherapy(np.array([1.0, 4.0]), np.ones(2), "a"),)
    rays = Radiotherapy(np.array([0.0, 3.0]), np.full(2, 2.0), repair_halftime_h=12.0)
    more = {"kill_a_per_day": 0.3, "decay_a_per_day": 0.5}
    for name, value in more.items():
        tumours = tumours.with_parameter(name, value)
    base = regimen(tumours, Plan(drugs, rays), 6.0, tolerance=1e-2)
    assert np.allclose(
        log_burdens(tumours, base.given({"radiotherapy": jnp.full(2, 2.0), "a": jnp.ones(2)})),
        log_burdens(tumours, base),
    )
    check_gradient(
        lambda doses: log_burdens(tumours, base.given(doses)),
        {"radiotherapy": jnp.array([1.5, 2.5]), "a": jnp.array([0.7, 1.2])},
        finite_at=[{"radiotherapy": jnp.zeros(2), "a": jnp.zeros(2)}],
    )


def drugged(make, **options):
    """Two doses, three weeks or two apart, against four candidate weeks; exponential growth."""
    p = {"growth_rate_per_day": 0.02, "kill_a_per_day": ALPHA, "decay_a_per_day": 0.8}
    tumours = Tumours.lumped(p | {"half_effect_a": 0.5}, 1e-4, Exponential())
    standards = {
        f"every {weeks:g} weeks": (make(standard_cycles(["a"], cycles=2, weeks=weeks)[0]),)
        for weeks in (3.0, 2.0)
    }
    return optimise_schedule(tumours, standards, 60.0, starts=1, steps=40, **options)


def test_linear_kill_at_equal_total_dose_gains_nothing():
    made = drugged(lambda drug: drug)
    assert made.drugs[0].doses.sum() == pytest.approx(2.0, abs=1e-3)
    for found in made.gains.values():
        assert np.abs(found.draws).max() < 1e-3
        assert not found.credible and found.verdict.startswith("no credible gain")


def test_a_largest_effect_is_used_by_many_small_doses():
    """A dose d far from others loses α/β ln(1 + d / c₅₀) of ln u: concave, so equal doses are
    best."""
    made = drugged(Saturating, window_days=7.0)
    np.testing.assert_allclose(made.drugs[0].course.doses, np.full(4, 0.5), atol=0.01)
    per_kill = (4 * np.log(2) - 2 * np.log(3)) / 0.8
    for found in made.gains.values():
        np.testing.assert_allclose(found.draws, ALPHA[1::2] * per_kill, rtol=0.02)
        assert found.credible


def test_gains_of_known_draws():
    """A normal gain: the mean with the standard error of its bootstrap, quantiles of the draws."""
    rng = np.random.default_rng(0)
    before = rng.normal(5.0, 1.0, 1000)
    found = compare(before, before - rng.normal(0.5, 0.5, 1000))
    assert found.patient.low90 == pytest.approx(0.5 - 1.645 * 0.5, abs=0.08)
    width = found.expected.high90 - found.expected.low90
    assert width == pytest.approx(2 * 1.645 * 0.5 / np.sqrt(1000), rel=0.1)
    assert found.probability == pytest.approx(0.836, abs=0.03) and not found.credible


BASE = {"growth_rate_per_day": 0.1, "radiosensitivity_per_gy": ALPHA}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: Tumours.lumped({"growth_rate_per_day": -0.1}, 0.5), "growth_rate.*a sign"),
        (lambda: Tumours.lumped(BASE, 0.0), "cells to treat"),
        (lambda: fractionated(3.0, standard=standard_course(0.0, 4, 200.0)), "cGy"),
        (lambda: fractionated(3.0, organs=(Organ(share=50.0),)), "percent"),
        (lambda: fractionated(3.0, objective="median"), "one of expected, worst decile"),
        (lambda: fractionated(3.0, lengths=()), "one fraction or more"),
        (lambda: drugged(lambda drug: drug, days=[0.0]), "room for it"),
        (lambda: drugged(lambda drug: drug, days=[70.0]), "to before 60"),
        (
            lambda: drugged(
                lambda drug: eqx.tree_at(lambda d: d.doses, drug, drug.days[1:].repeat(2))
            ),
            "those of",
        ),
    ],
)
def test_bad_input(call, said):
    with pytest.raises(InputError, match=said):
        call()
