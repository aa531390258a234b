import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import constants

from mrphys import InputError, units


def test_proton_gyromagnetic_ratio_agrees_with_scipy():
    published = constants.value("proton gyromag. ratio")
    assert pytest.approx(published, rel=3e-9) == units.PROTON_GYROMAGNETIC_RATIO_RAD_PER_S_T
    published = constants.value("proton gyromag. ratio in MHz/T") * 1e6
    assert pytest.approx(published, rel=3e-9) == units.PROTON_GYROMAGNETIC_RATIO_HZ_PER_T


@pytest.mark.parametrize(
    ("temperature_c", "measured_mm2_per_s"),
    [(5.0, 1.313e-3), (25.0, 2.299e-3), (45.0, 3.575e-3)],
)
def test_water_diffusivity_agrees_with_holz_table(temperature_c, measured_mm2_per_s):
    """Measured values of Holz et al. 2000, Table 1, stated to 1 %."""
    assert units.water_diffusivity_mm2_per_s(temperature_c) == pytest.approx(
        measured_mm2_per_s, rel=0.01
    )


def test_water_at_body_temperature():
    assert pytest.approx(units.water_diffusivity_mm2_per_s(37.0), rel=1e-3) == (
        units.WATER_DIFFUSIVITY_37C_MM2_PER_S
    )
    with pytest.raises(InputError, match="kelvin"):
        units.water_diffusivity_mm2_per_s(310.15)


TISSUE_ADC = np.array([0.0, 0.7e-3, 0.9e-3, 3.1e-3])

ACCEPTED = [
    (units.check_time_s, [0.0, 0.08, 15.0]),
    (units.check_flip_rad, np.float32([-2 * np.pi, 2 * np.pi]).astype(float)),
    (units.check_adc_mm2_per_s, TISSUE_ADC),
    (units.check_adc_mm2_per_s, np.zeros(3)),
    (units.check_b_value_s_per_mm2, [0, 50, 1000]),
    (units.check_b_value_s_per_mm2, 0.0),
    (units.check_finite, 1.0),
]
REFUSED = [
    (units.check_time_s, 80.0, "milliseconds"),
    (units.check_time_s, -0.01, "a sign"),
    (units.check_adc_mm2_per_s, TISSUE_ADC * 1e6, "multiply by 1e-6"),
    (units.check_adc_mm2_per_s, TISSUE_ADC * 1e3, "multiply by 1e-3"),
    (units.check_adc_mm2_per_s, TISSUE_ADC * 1e-6, "in m²/s"),
    (units.check_adc_mm2_per_s, TISSUE_ADC - 1e-3, "noise"),
    (units.check_adc_mm2_per_s, [*TISSUE_ADC, 0.02], "isolated"),
    (units.check_adc_mm2_per_s, [*TISSUE_ADC, np.nan], "1 NaN and 0 infinite among 5"),
    (units.check_b_value_s_per_mm2, [0.0, 1e9], "s/m²"),
    (units.check_b_value_s_per_mm2, [0.0, 1.0, 3.0], "ms/µm²"),
    (units.check_b_value_s_per_mm2, [0.0, -50.0], "a sign"),
    (units.check_finite, [1.0, np.inf], "0 NaN and 1 infinite"),
]


@pytest.mark.parametrize(("check", "value"), ACCEPTED)
def test_plausible_values_pass(check, value):
    check("here", value)


@pytest.mark.parametrize(("check", "value", "cause"), REFUSED)
def test_implausible_values_name_place_and_cause(check, value, cause):
    with pytest.raises(InputError, match=cause) as caught:
        check("the place", value)
    (problem,) = caught.value.problems
    assert problem.where == "the place" and problem.level == "error"


@pytest.mark.parametrize(("check", "value", "cause"), REFUSED)
def test_traced_values_pass_silently(check, value, cause):
    def inside(x):
        check("inside jit", x)
        return x

    jax.jit(jax.grad(lambda x: inside(x).sum()))(jnp.asarray(value, float))


def test_found_counts_the_values_outside():
    with pytest.raises(InputError, match=r"found -1 to 7 s \(3 of 5 values outside\)"):
        units.check_range("times", [-1, 0, 1, 5, 7], 0.0, 1.0, "s")
    with pytest.raises(InputError, match="expected at least 0 mm"):
        units.check_range("distance", -1, 0.0, np.inf, "mm")


def test_more_than_a_full_turn_warns():
    with pytest.warns(UserWarning, match="90 rad .* degrees given for radians"):
        units.check_flip_rad("refocusing", [10.0, 90.0])
    with pytest.raises(InputError, match="NaN"):
        units.check_flip_rad("refocusing", [1.0, np.nan])
