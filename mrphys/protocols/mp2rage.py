"""T1 from MP2RAGE: from both complex images, or from the one they are combined to."""

from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mrphys.errors import InputError, Problem
from mrphys.mapping import Estimate
from mrphys.mp2rage import TwoTrains, fit_images, fit_uni, two_trains
from mrphys.protocols.protocol import M0, NLLS, T1, Plan, Protocol, closed_form, water
from mrphys.series import Series

STEPS = 4095.0
"""Of a UNI image in integers, 0 for -1/2."""
SMOOTH = 0.2
"""Three neighbours whose UNI differ by more, of a span of 1, are no tissue."""
REFERENCE = "Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002"


def _trains(pair: Series) -> TwoTrains:
    """θ of the settings of both images, the first inversion time first."""
    about = pair.about or {}
    shots = np.ravel(np.asarray(about.get("NumberShots", []), float)).tolist()
    if len(shots) == 1:
        fraction = float(about.get("SlicePartialFourier", about.get("PartialFourierPE", 1.0)))
        shots = [shots[0] * (fraction - 0.5), shots[0] / 2]
    if len(shots) != 2:
        expected = "NumberShots: [before, after] the centre of k-space, or their sum"
        raise InputError(Problem(pair.where, f"NumberShots {shots or 'missing'}", expected))
    try:
        return two_trains(
            pair.each("InversionTime"),
            np.deg2rad(pair.each("FlipAngle", most=90.0)),
            pair.one("RepetitionTimeExcitation", most=0.5),
            (round(shots[0]), round(shots[1])),
            pair.one("RepetitionTimePreparation"),
        )
    except InputError as error:
        problems = [
            replace(p, where=f"{pair.where}: MP2RAGE") if p.where == "two_trains" else p
            for p in error.problems
        ]
        raise InputError(*problems) from None


def _images(series: Series) -> Series:
    """Both complex images, in order."""
    series = series.sorted_by("InversionTime")
    if series.readouts != 2 or not series.is_complex:
        what = "complex" if series.is_complex else "magnitude"
        found = f"{series.readouts} {what} image(s)"
        cause = "part-phase left out: magnitudes do not tell which way the first image points"
        expected = "inv-1 and inv-2, each with part-mag and part-phase; or the scanner's UNIT1"
        raise InputError(Problem(series.where, found, expected, cause))
    return series


def _mp2rage(series: Series) -> Plan:
    series = _images(series)
    return Plan(closed_form(_trains(series), 2), ("t1_s", "m0"), series, water(), {})


def _uni(series: Series) -> Plan:
    if series.is_complex:
        series = _images(series)
        return Plan(
            _trains(series), ("t1_s",), series, water(), {}, _of_images, unknowns=3, told=True
        )
    if series.readouts != 1:
        found = f"{series.readouts} images without phase"
        expected = "one UNI image, or inv-1 and inv-2 with part-mag and part-phase"
        raise InputError(Problem(series.where, found, expected))
    about = series.about or {}
    names = ("InversionTime", "FlipAngle", "RepetitionTimeExcitation", "RepetitionTimePreparation")
    given = {name: np.ravel(np.asarray(about[name], float)) for name in names if name in about}
    short = [name for name in names[:2] if name not in given or given[name].size != 2]
    if short:
        found = f"no {' and no '.join(short)} of two images"
        expected = "both in the sidecar, as lists, or MP2RAGE sidecars of inv-1 and inv-2 beside it"
        raise InputError(Problem(series.where, found, expected, "a UNIT1 without its protocol"))
    theta = _trains(replace(series, settings=given))
    low, step = _scale(series)
    return Plan(
        theta, ("t1_s",), series, water(), {}, partial(_of_uni, low, step), told=True, ratio=True,
        noise=partial(_roughness, step),
    )  # fmt: skip


def _scale(series: Series) -> tuple[float, float]:
    """The value of S = -1/2, and that of a step of 1."""
    values = np.asarray(series.images.data)
    values = values[np.isfinite(values)]
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if low >= -0.5005 and high <= 0.5005:
        return -0.5, 1.0
    if low >= 0 and 1 < high <= STEPS + 1:
        return 0.0, STEPS
    cause = "a magnitude image, or one rescaled"
    found = f"values from {low:g} to {high:g}"
    raise InputError(Problem(series.where, found, "UNI from -0.5 to 0.5, or from 0 to 4095", cause))


@eqx.filter_jit
def _of_uni(low: float, step: float, theta: TwoTrains, x: Array, noise_sd: Any, q: Any) -> Estimate:
    s = jnp.clip((x[..., 0] - low) / step - 0.5, -0.5, 0.5)
    return fit_uni(theta, s, noise_sd / step, q.b1)


@eqx.filter_jit
def _of_images(theta: TwoTrains, x: Array, noise_sd: Any, q: Any) -> Estimate:
    return fit_images(theta, x, noise_sd, q.b1)


def _roughness(step: float, data: np.ndarray, inside: np.ndarray) -> tuple[float, str] | None:
    """The sd of what a voxel differs from the mean of its two neighbours, where these go together:
    of a UNI image nothing is left over, and its air is no Rayleigh noise."""
    image = np.where(inside, data[..., 0], np.nan)
    three = np.stack([image[:-2], image[1:-1], image[2:]])
    three = three[:, np.isfinite(three).all(axis=0)]
    three = three[:, np.ptp(three, axis=0) < SMOOTH * step]
    bend = np.abs(three[0] - 2 * three[1] + three[2])
    sd = float(np.median(bend)) / (0.6745 * np.sqrt(6)) if bend.size > 100 else 0.0
    return (sd, f"how {bend.size} voxels differ from their neighbours") if sd > 0 else None


MP2RAGE = Protocol(
    "mp2rage",
    ("MP2RAGE",),
    "T1 from two complex gradient-echo trains after an adiabatic inversion; --b1 corrects them",
    (T1, M0),
    NLLS,
    REFERENCE,
    _mp2rage,
    b1=True,
)

UNI = Protocol(
    "uni",
    ("UNIT1", "MP2RAGE"),
    "T1 from the combination of both images of MP2RAGE, a scanner's or made here; --b1 corrects it",
    (T1,),
    "table of the simulated combination, refined; sd of its noise by the slope",
    REFERENCE,
    _uni,
    b1=True,
)
