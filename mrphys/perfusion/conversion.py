"""From the exponentials of a response to the compartments that made them."""

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array

from mrphys.perfusion.tracer_kinetics import (
    Exponentials,
    ExtendedTofts,
    Kinetics,
    Patlak,
    Tofts,
    TwoCompartmentExchange,
    TwoCompartmentUptake,
)

AMPLITUDES: dict[type[Kinetics], tuple[str, ...]] = {
    Tofts: ("inflow_per_s",),
    ExtendedTofts: ("plasma", "inflow_per_s"),
    Patlak: ("plasma", "kept_per_s"),
    TwoCompartmentUptake: ("kept_per_s", "inflow_per_s"),
    TwoCompartmentExchange: ("inflow_per_s", "inflow2_per_s"),
}
"""What each model has of `Exponentials`, linear in its signal."""
RATES: dict[type[Kinetics], tuple[str, ...]] = {
    Tofts: ("rate_per_s",),
    ExtendedTofts: ("rate_per_s",),
    Patlak: (),
    TwoCompartmentUptake: ("rate_per_s",),
    TwoCompartmentExchange: ("rate_per_s", "rate2_per_s"),
}
"""And what it is not linear in."""


def compartments(model: type[Kinetics], of: Exponentials) -> tuple[Array, ...]:
    """The model's fields in their order, delay apart, of the exponentials a_j exp(-k_j t).

        Tofts           K_trans = a,  v_e = a / k;  extended: v_p the plasma's amplitude
        uptake          F_p = a + kept,  PS = F_p kept / a,  v_p = F_p² / (a k)
        exchange        F_p = a_1 + a_2,  v_p = F_p² / (a_1 k_1 + a_2 k_2),
                        v_p + v_e = a_1 / k_1 + a_2 / k_2,  PS = k_1 k_2 v_p v_e / F_p

    from R(0) = F_p, R'(0) = -F_p² / v_p and ∫ R dt, the tracer's volume of distribution. The last
    are symmetric: which exponential comes first does not matter.
    """
    there: Any = of  # the fields that its model has
    a, k = there.inflow_per_s, there.rate_per_s
    a2, k2, kept = there.inflow2_per_s, there.rate2_per_s, there.kept_per_s
    if model is Tofts:
        return a, a / k
    if model is ExtendedTofts:
        return a, a / k, there.plasma
    if model is Patlak:
        return kept, there.plasma
    if model is TwoCompartmentUptake:
        fp = a + kept
        return fp, fp * kept / a, fp**2 / (a * k)
    fp = a + a2
    vp = fp**2 / (a * k + a2 * k2)
    ve = a / k + a2 / k2 - vp
    return fp, k * k2 * vp * ve / fp, ve, vp


def exponentials(model: type[Kinetics], value: float, delay_s: float | None) -> Exponentials:
    """Exponentials of a model with all its terms equal to a number."""
    names = AMPLITUDES[model] + RATES[model]
    return Exponentials(**{name: jnp.asarray(value) for name in names}, delay_s=delay_s)
