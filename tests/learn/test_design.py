"""Designs against optima known in closed form, and what is said of those that cannot be."""

import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from learn import Constraint, optimise_design
from learn.constraints import scan_time_s, smooth, spaced
from mrphys.errors import InputError

Q = mr.Tissue(t1_s=1.0, t2_s=0.1, adc_mm2_per_s=1e-3)
LOSS = mr.uncertainty(Q, ["adc_mm2_per_s"], noise_sd=0.01)
TWO = {"b": [700.0], "n": [10.0, 10.0]}
LIMITS = {"b": (10.0, 5000.0), "n": (0.5, 20.0)}


def acquisition(p):
    b = jnp.concatenate([jnp.zeros(1), p["b"]])
    return mr.sequence.diffusion_weighted(b, te_s=0.07, averages=p["n"])


@pytest.fixture(scope="module")
def two():
    """Two b-values and their averages, in 160 s, on a raster."""
    return optimise_design(
        acquisition, TWO, LOSS, limits=LIMITS, constraints=[scan_time_s("at most", 160.0)],
        raster={"b": 25.0}, starts=2, steps=60,
    )  # fmt: skip


def test_two_points_reach_the_known_optimum(two):
    """b ADC = 1.278 and exp(1.278) = 3.59 as many averages at the higher b-value."""
    assert float(two.variables["b"][0]) == 1275.0
    low, high = two.theta.averages
    assert float(high / low) == pytest.approx(3.59, rel=0.02)
    assert two.unrounded <= two.after < two.before
    assert min(two.of_starts) == pytest.approx(max(two.of_starts), rel=1e-4)


def test_the_limit_holds_and_is_used_up(two):
    assert two.held[0].before == pytest.approx(160.0)
    assert 159.9 < two.held[0].after <= 160.0
    assert float(two.theta.scan_time_s) == pytest.approx(two.held[0].after)


def quadratic(**given):
    """The point of least |x - (3, 2, 1)|²."""
    return optimise_design(
        lambda p: p["x"], {"x": [0.5, 0.5, 0.5]},
        lambda x: jnp.sum((x - jnp.array([3.0, 2, 1])) ** 2),
        steps=200, limits={"x": (0.0, 4.0)}, **given,
    )  # fmt: skip


@pytest.mark.parametrize(
    ("constraint", "expected"),
    [
        (Constraint("sum", lambda x, p: jnp.sum(x), "equal to", 3.0), [2, 1, 0]),
        (Constraint("sum", lambda x, p: jnp.sum(x), "at most", 4.5), [2.5, 1.5, 0.5]),
        (Constraint("last", lambda x, p: x[2], "at least", 2.0), [3, 2, 2]),
        (smooth("x", lambda p: p["x"], 0.5), [2.5, 2.0, 1.5]),
        (spaced("x", 1.0), [1.0, 2.0, 3.0]),
    ],
    ids=["equality", "at most", "at least", "smooth", "spaced"],
)
def test_constrained_minima_are_those_of_lagrange(constraint, expected):
    made = quadratic(constraints=[constraint])
    np.testing.assert_allclose(made.theta, expected, atol=1e-3)
    excess = np.asarray(constraint.excess(made.theta, made.variables))
    assert (np.abs(excess) if constraint.side == "equal to" else excess).max() <= 1e-4


def test_rounding_down_where_the_nearest_would_break_a_limit():
    total = Constraint("sum", lambda x, p: jnp.sum(x), "at most", 4.5)
    made = quadratic(constraints=[total], raster={"x": 0.7})
    np.testing.assert_allclose(made.theta, [2.1, 1.4, 0.0], atol=1e-9)
    assert made.after > made.unrounded


def test_limits_alone_are_reached():
    made = optimise_design(
        lambda p: p["x"], {"x": 0.5}, lambda x: (x - 2.0) ** 2, limits={"x": (0.0, 1.5)}
    )
    assert float(made.theta) == 1.5
    assert made.history[-1] == pytest.approx(0.25)


def test_constraints_that_cannot_be_kept_are_named_with_the_miss():
    with pytest.raises(InputError, match=r"scan time: found 8 s .* at most 24 s"):
        limits = LIMITS | {"n": (2.0, 20.0)}
        constraints = [scan_time_s("at most", 24.0)]
        optimise_design(acquisition, TWO, LOSS, limits=limits, constraints=constraints)


def test_a_start_that_determines_nothing_names_what():
    with pytest.raises(InputError, match=r"adc_mm2_per_s \+100 % with m0 \+70 %"):
        optimise_design(
            lambda p: mr.sequence.diffusion_weighted(p["b"], te_s=0.07),
            {"b": [700.0]}, LOSS, limits={"b": (10.0, 5000.0)},
        )  # fmt: skip


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"limits": LIMITS | {"b": (10.0, 600.0)}}, "start from 700"),
        ({"limits": {"b": (10.0, 5000.0)}}, "without limits"),
        ({"limits": LIMITS | {"b": (5000.0, 10.0)}}, "low <= high"),
        ({"limits": LIMITS, "raster": {"flip": 1.0}}, "raster"),
    ],
)
def test_bad_questions_are_refused(change, said):
    with pytest.raises(InputError, match=said):
        optimise_design(acquisition, TWO, LOSS, steps=1, **change)
