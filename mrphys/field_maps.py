"""q from x: the transmit field B1 and the static field B0, with their standard deviations.

double_angle   images at a flip angle and at twice that
actual_flip    two repetition times in turn
bloch_siegert  the phase that an off-resonant pulse leaves
static_field   the phase of several echoes, unwrapped in time and in space
"""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Int

from mrphys.errors import InputError, Problem
from mrphys.phase_unwrapping import turns
from mrphys.units import Values, check_number, check_range, check_time_s, shape_of
from mrphys.voxelwise import AT_BOUNDARY, CONVERGED, FAILED, ILL_DETERMINED, MASKED

UNSURE_RAD = 0.8
"""sd of the phase between the closest echoes from which a turn may be missed."""

Image = Inexact[Array, "..."]
Mask = Bool[Array | np.ndarray, "..."] | None


class TransmitMap(eqx.Module):
    """B1 relative to nominal, its standard deviation, and the status: CONVERGED; AT_BOUNDARY: the
    images are such as no flip angle gives, b1 is the nearest; ILL_DETERMINED: sd above b1; MASKED;
    FAILED: no signal, not finite. sd is infinite but where CONVERGED."""

    b1: Float[Array, "*voxels"]
    b1_sd: Float[Array, "*voxels"]
    status: Int[Array, "*voxels"]


class StaticMap(eqx.Module):
    """B0 and how far to trust it.

    b0_hz, b0_sd_hz  off-resonance and standard deviation
    phase_rad        at TE = 0, of the receiver and the pulse
    residual         sd of what the model leaves over, in the signal's units; 0 of two echoes
    noise_sd         as given, or the residual where it was not
    status           CONVERGED; ILL_DETERMINED: a turn from echo to echo is not known; MASKED;
                     FAILED: no signal, not finite
    """

    b0_hz: Float[Array, "*voxels"]
    b0_sd_hz: Float[Array, "*voxels"]
    phase_rad: Float[Array, "*voxels"]
    residual: Float[Array, "*voxels"]
    noise_sd: Float[Array, "*voxels"]
    status: Int[Array, "*voxels"]


def double_angle(
    flip_rad: Values, single: Image, double: Image, noise_sd: ArrayLike, mask: Mask = None
) -> TransmitMap:
    """B1 from images at flip angle α and at 2α, fully relaxed.

        cos(b1 α) = S_2 / 2 S_1

    noise_sd is of the real part, of both images. Magnitudes know b1 α up to π/2, complex images up
    to π. Differentiable in all. Raises InputError for images of different shape, α outside 0 to
    π/2, noise_sd <= 0. Insko, Bolinger 1993, doi:10.1006/jmra.1993.1133.
    """
    flip = _nominal("double_angle", flip_rad, np.pi / 2)
    return _from_cosine(
        "double_angle",
        flip,
        single,
        double,
        noise_sd,
        mask,
        lambda r: (r / 2, jnp.full_like(r, 0.5)),
    )


def actual_flip(
    flip_rad: Values,
    tr_s: tuple[Values, Values],
    first: Image,
    second: Image,
    noise_sd: ArrayLike,
    mask: Mask = None,
) -> TransmitMap:
    """B1 by actual flip-angle imaging: spoiled excitations with TR_1 < TR_2 after them in turn.

        cos(b1 α) = (n r - 1) / (n - r),   r = S_2 / S_1,   n = TR_2 / TR_1

    to first order in TR/T1; S_1 is read before TR_1. Arguments and errors else as of
    `double_angle`, α up to π. Yarnykh 2007, doi:10.1002/mrm.21120.
    """
    flip = _nominal("actual_flip", flip_rad, np.pi)
    for value in tr_s:
        check_time_s("actual_flip: tr_s", value, low=1e-6)
    n = jnp.asarray(tr_s[1], float) / jnp.asarray(tr_s[0], float)
    check_range("actual_flip: TR_2 / TR_1", n, 1.1, np.inf, "", "the two TRs interchanged")

    def cosine(r: Array) -> tuple[Array, Array]:
        # What no flip angle gives is at most where the fraction is ±1.
        r = jnp.clip(r, -1.0, 1.0)
        return (n * r - 1) / (n - r), (n**2 - 1) / (n - r) ** 2

    return _from_cosine("actual_flip", flip, first, second, noise_sd, mask, cosine)


def bloch_siegert(
    nominal_rad: Values, above: Image, below: Image, noise_sd: ArrayLike, mask: Mask = None
) -> TransmitMap:
    """B1 from images with a pulse off resonance after excitation, above and below the line by as
    much.

        b1 = sqrt(Δφ / 2 φ),   Δφ = arg(S_above / S_below) from 0 to 2π,   φ = `nominal_rad`

    with φ > 0 the phase that the pulse leaves at b1 = 1 (`bloch_siegert_phase`). Other arguments,
    errors and derivatives as of `double_angle`. Sacolick et al. 2010, doi:10.1002/mrm.22357.
    """
    where = "bloch_siegert"
    check_number(f"{where}: nominal_rad", nominal_rad)
    check_range(f"{where}: nominal_rad", nominal_rad, 1e-3, np.pi, "rad", "degrees, or a sign")
    _check(where, above, below, noise_sd, mask)
    if not jnp.iscomplexobj(above):
        raise InputError(Problem(where, "real images", "complex images, with their phases"))
    a, b, usable = _safe(above, below)
    turn = jnp.angle(a * jnp.conj(b))
    noise = jnp.asarray(noise_sd)
    spread = noise * jnp.sqrt(1 / jnp.abs(a) ** 2 + 1 / jnp.abs(b) ** 2)
    # Noise takes small phases below 0, not far.
    possible = turn > 0
    turn = jnp.where(turn < -4 * jax.lax.stop_gradient(spread), turn + 2 * np.pi, turn)
    possible = possible | (turn > 0)
    b1 = jnp.sqrt(jnp.where(possible, turn, 1.0) / (2 * jnp.asarray(nominal_rad)))
    sd = spread / (4 * jnp.asarray(nominal_rad) * b1)
    return _told(jnp.where(possible, b1, 0.0), sd, possible, usable, mask)


def bloch_siegert_phase(
    b1_hz: Float[Array | np.ndarray, " samples"], offset_hz: Values, dt_s: Values
) -> Float[Array, ""]:
    """The phase that a pulse of envelope γB1/2π leaves, `offset_hz` above the line, in the sense
    of Δφ > 0:

        φ = ∫ ω1² / 2Δω dt,   to second order in ω1 / Δω
    """
    omega = 2 * np.pi * jnp.asarray(b1_hz)
    return jnp.sum(omega**2) * jnp.asarray(dt_s) / (4 * np.pi * jnp.asarray(offset_hz))


def static_field(
    te_s: Values,
    x: Inexact[Array, "*voxels echoes"],
    noise_sd: ArrayLike | None = None,
    mask: Mask = None,
    unwrap: bool = True,
) -> StaticMap:
    """B0 from two or more gradient echoes, x ∝ exp(i φ - 2πi b0 TE).

    The closest echoes tell b0 but for multiples of 1 / ΔTE; `unwrap` chooses those that make
    neighbouring voxels go together (`mrphys.phase_unwrapping`), the median of each connected region
    within ±1 / 2ΔTE: give the image its own axes. Echo after echo is then unwrapped along the line
    through those before, and φ and b0 found by least squares of the phase, weighed by |x|²: the
    optimum of the likelihood where |x| is some times its noise.

    noise_sd is of the real part of an echo; each voxel's residual when None. Differentiable in
    te_s, x and noise_sd, the turns not moving. Raises InputError for shapes that do not match, echo
    times that do not rise, real images, noise_sd <= 0, or None with two echoes.
    """
    _check_echoes(te_s, x, noise_sd, mask)
    usable = jnp.isfinite(x).all(axis=-1) & (x != 0).all(axis=-1)
    echoes = jnp.moveaxis(jnp.where(usable[..., None], x, 1.0), -1, 0)
    inside = usable if mask is None else usable & jnp.asarray(mask)
    t = jnp.asarray(te_s).astype(x.real.dtype)
    noise = None if noise_sd is None else jnp.broadcast_to(jnp.asarray(noise_sd), usable.shape)
    step, spread, gap = _closest(t, echoes)
    if unwrap:
        apart = spread * (_typical(echoes) if noise is None else noise)
        apart = jnp.where(inside & (apart < UNSURE_RAD), apart, jnp.inf)
        kind = jax.ShapeDtypeStruct(usable.shape, jnp.int32)
        told = jax.lax.stop_gradient((step, apart))
        step = step + 2 * np.pi * jax.pure_callback(_turns, kind, *told)
    weight, phase = _along_echoes(t, echoes, step / gap)
    fit = _line(t, weight, phase)
    left = jnp.sum(weight * (phase - fit.at(t)) ** 2, axis=0)
    spare, some = t.size - 2, left > 0
    residual = jnp.sqrt(jnp.where(some, left, 1.0) / max(spare, 1))
    residual = jnp.where(some & (spare > 0), residual, 0.0)
    noise = residual if noise is None else noise
    known = spread * noise < UNSURE_RAD
    status = jnp.where(known, CONVERGED, ILL_DETERMINED)
    status = _outside(status, usable, mask)
    good = status == CONVERGED

    def shown(value: Array) -> Array:
        return jnp.where(inside, value, 0.0)

    return StaticMap(
        shown(-fit.slope / (2 * np.pi)),
        jnp.where(good, noise / jnp.sqrt(fit.spread) / (2 * np.pi), jnp.inf),
        shown(fit.at(0 * t[:1])[0]),
        shown(residual),
        shown(noise),
        status,
    )


class _Line(eqx.Module):
    """The weighted least-squares line: mean time and phase, slope, and Σ w (t - mean)²."""

    time: Array
    phase: Array
    slope: Array
    spread: Array

    def at(self, t: Array) -> Array:
        """The phase at each time."""
        return self.phase[None] + self.slope[None] * (_tall(t, self.slope) - self.time[None])


def _tall(t: Array, like: Array) -> Array:
    """Times (echoes, 1, ...)."""
    return t.reshape(-1, *[1] * like.ndim)


def _line(t: Array, weight: Array, phase: Array) -> _Line:
    total = jnp.sum(weight, axis=0)
    tall = _tall(t, total)
    middle, height = (jnp.sum(weight * v, axis=0) / total for v in (tall, phase))
    gap = tall - middle[None]
    spread = jnp.sum(weight * gap**2, axis=0)
    return _Line(middle, height, jnp.sum(weight * gap * phase, axis=0) / spread, spread)


def _closest(t: Array, echoes: Array) -> tuple[Array, Array, Array]:
    """The phase from an echo to the next, of those closest in time, its sd for a noise of 1, and
    their distance."""
    gaps = jnp.diff(t)
    gap = jnp.min(gaps)
    close = _tall(jnp.where(gaps < 1.001 * gap, 1.0, 0.0).astype(t.dtype), echoes[0])
    pairs = jnp.sum(close * echoes[1:] * jnp.conj(echoes[:-1]), axis=0)
    first, last = (
        jnp.sum(close * jnp.abs(part) ** 2, axis=0) for part in (echoes[:-1], echoes[1:])
    )
    return jnp.angle(pairs), jnp.sqrt(first + last) / jnp.sqrt(first * last), gap


def _typical(echoes: Array) -> Array:
    """A noise to order voxels by where none is told: alike everywhere."""
    return jnp.full(echoes.shape[1:], 1e-3 * jnp.max(jnp.abs(echoes)))


def _turns(phase_rad: Any, sd_rad: Any) -> np.ndarray:
    return turns(np.asarray(phase_rad, float), np.asarray(sd_rad, float)).astype(np.int32)


def _along_echoes(t: Array, echoes: Array, slope: Array) -> tuple[Array, Array]:
    """Weights, and phases unwrapped each along the line through those before."""
    weight, wrapped = jnp.abs(echoes) ** 2, jnp.angle(echoes)
    phases = [wrapped[0]]
    for i in range(1, t.size):
        if i == 1:
            expected = wrapped[0] + slope * (t[1] - t[0])
        else:
            expected = _line(t[:i], weight[:i], jnp.stack(phases)).at(t[i : i + 1])[0]
        gap = wrapped[i] - expected
        phases.append(wrapped[i] - 2 * np.pi * jnp.round(jax.lax.stop_gradient(gap) / (2 * np.pi)))
    return weight, jnp.stack(phases)


def _from_cosine(
    where: str,
    flip_rad: Array,
    first: Image,
    second: Image,
    noise_sd: ArrayLike,
    mask: Mask,
    cosine: Callable[[Array], tuple[Array, Array]],
) -> TransmitMap:
    """b1 from the cosine of the flip angle, and its slope, as functions of the images' ratio."""
    _check(where, first, second, noise_sd, mask)
    a, b, usable = _safe(first, second)
    along = (b * jnp.conj(a)).real / jnp.abs(a) ** 2
    ratio = along if jnp.iscomplexobj(a) else jnp.abs(along)
    spread = jnp.asarray(noise_sd) * jnp.sqrt(1 + ratio**2) / jnp.abs(a)
    c, slope = cosine(ratio)
    possible = jnp.abs(c) < 1
    inside = jnp.where(possible, c, 0.0)
    b1 = jnp.arccos(inside) / flip_rad
    sd = slope * spread / (jnp.sqrt(1 - inside**2) * flip_rad)
    return _told(
        jnp.where(possible, b1, jnp.where(c < 0, np.pi, 0.0) / flip_rad), sd, possible, usable, mask
    )


def _safe(first: Image, second: Image) -> tuple[Array, Array, Array]:
    usable = jnp.isfinite(first) & jnp.isfinite(second) & (first != 0) & (second != 0)
    return jnp.where(usable, first, 1.0), jnp.where(usable, second, 1.0), usable


def _told(b1: Array, sd: Array, possible: Array, usable: Array, mask: Mask) -> TransmitMap:
    status = jnp.where(sd < b1, CONVERGED, ILL_DETERMINED)
    status = _outside(jnp.where(possible, status, AT_BOUNDARY), usable, mask)
    shown = (status == CONVERGED) | (status == ILL_DETERMINED) | (status == AT_BOUNDARY)
    sd = jnp.where(status == CONVERGED, sd, jnp.inf)
    return TransmitMap(jnp.where(shown, b1, 0.0), sd, status)


def _outside(status: Array, usable: Array, mask: Mask) -> Array:
    status = jnp.where(usable, status, FAILED)
    return status if mask is None else jnp.where(jnp.asarray(mask), status, MASKED)


def _nominal(where: str, flip_rad: Values, most: float) -> Float[Array, ""]:
    check_number(f"{where}: flip_rad", flip_rad)
    check_range(f"{where}: flip_rad", flip_rad, 0.01, most, "rad", "degrees given for radians")
    return jnp.asarray(flip_rad, float)


def _check(where: str, first: Any, second: Any, noise_sd: Any, mask: Any) -> None:
    problems = []
    for name, value in (("second image", second), ("mask", mask), ("noise_sd", noise_sd)):
        found = first.shape if value is None else jnp.shape(value)
        if found != first.shape and (name != "noise_sd" or found):
            expected = f"shape {first.shape}"
            problems.append(
                Problem(f"{where}: {name}", f"shape {found}", expected, "another image")
            )
    if jnp.iscomplexobj(first) != jnp.iscomplexobj(second):
        problems.append(Problem(where, "a complex and a real image", "one kind"))
    if problems:
        raise InputError(*problems)
    if noise_sd is not None:
        least = float(jnp.finfo(jnp.float32).tiny)
        check_range(f"{where}: noise_sd", noise_sd, least, np.inf, "(signal units)")


def _check_echoes(te_s: Any, x: Any, noise_sd: Any, mask: Any) -> None:
    where = "static_field"
    shape = shape_of(f"{where}: te_s", te_s)
    check_time_s(f"{where}: te_s", te_s, high=1.0)
    if len(shape) != 1 or shape[0] < 2 or x.shape[-1:] != shape:
        found = f"{shape} echo times for images of shape {x.shape}"
        expected = "two or more echo times, echoes on the last axis"
        raise InputError(Problem(where, found, expected, "echoes not on the last axis"))
    if not jnp.iscomplexobj(x):
        raise InputError(Problem(f"{where}: x", "real images", "complex ones, with their phases"))
    if not isinstance(te_s, Tracer) and np.any(np.diff(np.asarray(te_s, float)) <= 0):
        found = f"{np.asarray(te_s)} s"
        raise InputError(Problem(f"{where}: te_s", found, "rising echo times", "echoes unsorted"))
    if noise_sd is None and shape[0] < 3:
        expected = "noise_sd, or three echoes to tell it from"
        raise InputError(Problem(where, "two echoes and no noise_sd", expected))
    _check(where, x[..., 0], x[..., 1], noise_sd, mask)
