"""Designs against optima known in closed form."""

import jax.numpy as jnp
import pytest

import mrphys as mr
from learn import optimise_design
from mrphys.errors import InputError

ADC = 1e-3


def adc_sd(theta):
    tissue = mr.Tissue(t1_s=1.0, t2_s=0.1, adc_mm2_per_s=ADC)
    return mr.cramer_rao(theta, tissue, noise_sd=0.01)["adc_mm2_per_s"]


def test_two_points_reach_the_known_optimum():
    """For two b-values and any split of the averages, b ADC = 1.278 and exp(1.278) = 3.59 as many
    averages at the higher one."""
    start = mr.sequence.diffusion_weighted([0.0, 700.0], te_s=0.07, averages=[10.0, 10.0])
    made = optimise_design(start, adc_sd, fewest_averages=0.5, steps=120)
    assert float(made.theta.b_s_per_mm2[1]) * ADC == pytest.approx(1.278, rel=0.01)
    low, high = made.theta.averages
    assert float(high / low) == pytest.approx(3.59, rel=0.03)
    assert made.after < made.before


def test_scan_time_and_limits_hold():
    start = mr.sequence.diffusion_weighted([0.0, 300.0, 900.0], te_s=0.07, averages=[4.0, 4.0, 4.0])
    made = optimise_design(start, adc_sd, highest_b_s_per_mm2=1000.0, steps=30)
    assert float(made.theta.scan_time_s) == pytest.approx(float(start.scan_time_s), rel=1e-6)
    assert float(jnp.min(made.theta.averages)) >= 1.0
    assert float(jnp.max(made.theta.b_s_per_mm2)) < 1000.0
    assert made.after == min(made.history) <= made.before


@pytest.mark.parametrize(
    ("b", "averages"), [([0.0, 1500.0], [2.0, 2.0]), ([0.0, 500.0], [0.5, 2.0])]
)
def test_a_start_outside_the_limits_is_refused(b, averages):
    start = mr.sequence.diffusion_weighted(b, te_s=0.07, averages=averages)
    with pytest.raises(InputError, match="optimise_design"):
        optimise_design(start, adc_sd, highest_b_s_per_mm2=1200.0)
