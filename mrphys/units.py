"""Constants with their sources, and range checks that name the likely cause.

The checks stand at the doors: constructors, builders, readers. They look at concrete values only;
a value being traced (inside jit, grad or vmap) passes silently.
"""

import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem

Values = ArrayLike | Sequence[Any]

# CODATA 2018, free proton (Tiesinga et al. 2021, doi 10.1103/RevModPhys.93.025010)
PROTON_GYROMAGNETIC_RATIO_RAD_PER_S_T = 2.6752218744e8
PROTON_GYROMAGNETIC_RATIO_HZ_PER_T = PROTON_GYROMAGNETIC_RATIO_RAD_PER_S_T / (2 * math.pi)

SECONDS_PER_DAY = 86400.0


def water_diffusivity_mm2_per_s(temperature_c: float) -> float:
    """Self-diffusion coefficient of water.

    D = D₀ (T/Tₛ - 1)^γ with D₀ = 1.635e-2 mm²/s, Tₛ = 215.05 K, γ = 2.063: within 1 % of
    measurement from 0 to 100 °C. Raises InputError outside.

    Source: Holz, Heil, Sacco 2000, doi 10.1039/b005319h.

    >>> round(water_diffusivity_mm2_per_s(37.0), 5)
    0.00304
    """
    check_range(
        "water_diffusivity_mm2_per_s: temperature_c",
        temperature_c,
        0.0,
        100.0,
        "°C",
        "temperature in kelvin",
    )
    return 1.635e-2 * ((temperature_c + 273.15) / 215.05 - 1) ** 2.063


WATER_DIFFUSIVITY_37C_MM2_PER_S = 3.04e-3  # Holz et al. 2000, at body temperature


def _concrete(where: str, value: Values, *, real: bool = True) -> np.ndarray | None:
    """The value as a NumPy array of numbers, or None when it is being traced. Raises InputError for
    anything else, complex numbers among it where `real`."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(value)):
        return None
    expected = "real numbers" if real else "numbers"
    try:
        array = np.asarray(value)
    except ValueError:
        raise InputError(Problem(where, "rows of different length", expected)) from None
    if not (jnp.issubdtype(array.dtype, np.number) or array.dtype == bool):
        found = repr(value) if isinstance(value, str) or value is None else f"{array.dtype} values"
        raise InputError(Problem(where, found, expected, "text, or a value not given"))
    if real and np.iscomplexobj(array):
        raise InputError(Problem(where, "complex numbers", expected, "a complex image or map"))
    return array


def real_array(where: str) -> Callable[[Values], Float[Array, "..."]]:
    """A converter to floating arrays, that of the field `where` of a module; float32 stays so."""

    def convert(value: Values) -> Float[Array, "..."]:
        _concrete(where, value)
        array = jnp.asarray(value)
        return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)

    return convert


def shape_of(where: str, value: Values) -> tuple[int, ...]:
    """The shape of a number or list, of traced values too. Raises InputError for anything else."""
    array = _concrete(where, value)
    return jnp.asarray(value).shape if array is None else array.shape


def check_number(where: str, value: Values) -> None:
    """Raise InputError for a list where one number belongs.

    >>> check_number("TR", 0.01)
    """
    shape = shape_of(where, value)
    if shape != ():
        raise InputError(Problem(where, f"shape {shape}", "one number"))


def check_count(where: str, value: Any, least: int = 1) -> None:
    """Raise InputError unless a whole number, at least `least`.

    >>> check_count("readouts", 3)
    """
    whole = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if not whole or value < least:
        raise InputError(Problem(where, repr(value), f"a whole number, {least} or more"))


def check_t2_of_t1(where: str, t1_s: Values, t2_s: Values) -> None:
    """Raises InputError for T2 above 2 T1, which no relaxation allows; warns for T2 above T1."""
    t1, t2 = _concrete(where, t1_s), _concrete(where, t2_s)
    if t1 is None or t2 is None:
        return
    if np.any(t2 > 2 * t1):
        raise InputError(Problem(where, "T2 above 2 T1", "T2 <= 2 T1", "T1 and T2 interchanged"))
    if np.any(t2 > t1):
        cause = "T1 and T2 interchanged, or two fits that do not belong together"
        warnings.warn(f"{where}: T2 above T1. Likely cause: {cause}.", stacklevel=4)


def check_finite(where: str, value: Values, likely_cause: str = "") -> None:
    """Raise InputError when any number is NaN or infinite.

    >>> check_finite("T1 map", [1.0, 1.2])
    """
    array = _concrete(where, value, real=False)
    if array is None or np.isfinite(array).all():
        return
    nan, infinite = int(np.isnan(array).sum()), int(np.isinf(array).sum())
    raise InputError(
        Problem(
            where,
            f"{nan} NaN and {infinite} infinite among {array.size} values",
            "finite numbers",
            likely_cause or "a division by zero, or voxels blanked with NaN instead of a mask",
        )
    )


def check_range(
    where: str,
    value: Values,
    low: float | int,
    high: float | int,
    unit: str,
    likely_cause: str = "",
) -> None:
    """Raise InputError unless every number is finite and low <= number <= high.

    >>> check_range("echo time", 80.0, 0.0, 10.0, "s", "milliseconds given for seconds")
    Traceback (most recent call last):
    mrphys.errors.InputError: echo time: found 80 s; expected 0 to 10 s. \
Likely cause: milliseconds given for seconds.
    """
    array = _concrete(where, value)
    if array is None or not array.size:
        return
    check_finite(where, array)
    outside = (array < low) | (array > high)
    if not outside.any():
        return
    smallest, largest = array.min(), array.max()
    found = f"{smallest:g} {unit}" if smallest == largest else f"{smallest:g} to {largest:g} {unit}"
    if array.size > 1:
        found += f" ({int(outside.sum())} of {array.size} values outside)"
    expected = f"at least {low:g} {unit}" if math.isinf(high) else f"{low:g} to {high:g} {unit}"
    raise InputError(Problem(where, found, expected, likely_cause))


def check_time_s(where: str, value: Values, low: float = 0.0, high: float = 20.0) -> None:
    """A time of MR physics: echo and repetition times, T1, T2. Raises InputError.

    >>> check_time_s("TE", 0.08)
    """
    array = _concrete(where, value)
    if array is None:
        return
    negative = array.size and array.min() < low
    cause = "a sign, or two times subtracted" if negative else "milliseconds given for seconds"
    check_range(where, array, low, high, "s", cause)


def check_flip_rad(where: str, value: Values) -> None:
    """A flip angle. Raises InputError unless finite; warns beyond a full turn, |angle| > 2π.

    >>> check_flip_rad("refocusing", 3.14)
    """
    check_finite(where, value)
    array = _concrete(where, value)
    turn = 2 * math.pi * (1 + 1e-6)  # a full turn rounded to float32 is still a full turn
    if array is not None and array.size and np.abs(array).max() > turn:
        largest = np.abs(array).max()
        warnings.warn(
            f"{where}: {largest:g} rad is more than a full turn. "
            "Likely cause: degrees given for radians.",
            stacklevel=3,
        )


def check_adc_mm2_per_s(where: str, value: Values) -> None:
    """An apparent diffusion coefficient: finite, 0 to 0.01 mm²/s, not all below 1e-7 mm²/s.

    Free water at body temperature has 0.003 mm²/s; pulsation and noise may exceed it.
    Raises InputError, naming the unit that would explain the numbers.

    >>> check_adc_mm2_per_s("ADC", [0.8e-3, 1.1e-3])
    """
    array = _concrete(where, value)
    if array is None or not array.size:
        return
    check_finite(where, array, "voxels where the ADC could not be fitted, blanked with NaN")
    largest, positive = array.max(), array[array > 0]
    typical = np.median(positive) if positive.size else 0.0
    if typical > 20:
        cause = "ADC in 1e-6 mm²/s (µm²/s); multiply by 1e-6"
    elif typical > 0.05:
        cause = "ADC in 1e-3 mm²/s (µm²/ms); multiply by 1e-3"
    elif array.min() < 0:
        cause = "voxels of noise, or outside the body, fitted as tissue"
    else:
        cause = "a failed fit in isolated voxels"
    check_range(where, array, 0.0, 0.01, "mm²/s", cause)
    if 0 < largest < 1e-7:
        found = f"at most {largest:g} mm²/s"
        raise InputError(
            Problem(where, found, "1e-7 to 0.01 mm²/s", "ADC in m²/s; multiply by 1e6")
        )


def check_b_value_s_per_mm2(where: str, value: Values) -> None:
    """Diffusion weightings of one acquisition: 0 to 20000 s/mm², the largest 10 or more or all 0.

    Raises InputError.

    >>> check_b_value_s_per_mm2("b-values", [0.0, 1.0, 2.0])
    Traceback (most recent call last):
    mrphys.errors.InputError: b-values: found at most 2 s/mm²; expected a largest of 10 to 20000 \
s/mm². Likely cause: b-values in ms/µm²; multiply by 1000.
    """
    array = _concrete(where, value)
    if array is None or not array.size:
        return
    negative = array.min() < 0
    cause = "a sign" if negative else "b-values in s/m²; multiply by 1e-6"
    check_range(where, array, 0.0, 20000.0, "s/mm²", cause)
    largest = array.max()
    if 0 < largest < 10:
        raise InputError(
            Problem(
                where,
                f"at most {largest:g} s/mm²",
                "a largest of 10 to 20000 s/mm²",
                "b-values in ms/µm²; multiply by 1000",
            )
        )
