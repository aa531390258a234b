"""B1 from images of two flip angles, or two repetition times."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.protocols.protocol import (
    B1,
    M0,
    NLLS,
    Plan,
    Protocol,
    as_complex,
    check_distinct,
    closed_form,
    water,
)
from mrphys.sequence.repeated import repeated
from mrphys.sequence.train import block
from mrphys.series import Series
from mrphys.tissue import Tissue

MOST_B1 = 2.0


class Excitation(eqx.Module):
    """m0 sin(b1 α), fully relaxed."""

    flip_rad: Float[Array, " readouts"]

    def __call__(self, q: Tissue) -> Complex[Array, " readouts"]:
        return as_complex(q.m0 * jnp.sin(q.b1.real * self.flip_rad))


def _double_angle(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    flips = series.each("FlipAngle")
    check_distinct(series, "FlipAngle", flips, 2)
    theta = closed_form(Excitation(jnp.asarray(np.deg2rad(flips))), flips.size)
    most = min(MOST_B1, 180.0 / float(flips.max()))
    return Plan(theta, ("b1", "m0"), series, water(), {"b1": (0.2, most)})


def _actual_flip(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    series = series.sorted_by("RepetitionTimeExcitation", "RepetitionTime")
    times = series.each("RepetitionTimeExcitation", "RepetitionTime", most=2.0)
    check_distinct(series, "RepetitionTimeExcitation", times, 2)
    if series.readouts != 2:
        found = f"{series.readouts} images"
        raise InputError(Problem(series.where, found, "two: acq-tr1 and acq-tr2"))
    flip = series.one("FlipAngle")
    parts = tuple(
        block(np.deg2rad(flip), [0.0, tr], reads=[True, False], spoil=True) for tr in times
    )
    # Beyond, the second image is negative: magnitudes are those of a smaller flip.
    vanishing = np.degrees(np.arccos(-times[0] / times[1]))
    most = min(MOST_B1, float(vanishing) / flip)
    return Plan(repeated(parts), ("b1", "m0"), series, water(), {"b1": (0.2, most)})


DAM = Protocol(
    "dam",
    ("TB1DAM",),
    "B1 from excitations of two flip angles, fully relaxed",
    (B1, M0),
    NLLS,
    "Insko, Bolinger 1993, doi:10.1006/jmra.1993.1133",
    _double_angle,
)


AFI = Protocol(
    "afi",
    ("TB1AFI",),
    "B1 from a spoiled steady state of two repetition times",
    (B1,),
    NLLS,
    "Yarnykh 2007, doi:10.1002/mrm.21120",
    _actual_flip,
)
