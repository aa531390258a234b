"""Radio-frequency pulses: shapes, their design, and the slice profile they make."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from scipy import signal

from mrphys.bloch import bloch
from mrphys.errors import InputError, Problem
from mrphys.tissue import Tissue
from mrphys.units import (
    Values,
    check_count,
    check_finite,
    check_flip_rad,
    check_number,
    check_range,
    check_time_s,
    real_array,
)
from mrphys.waveform import Waveform

Number = float | int


def _samples(value: Values) -> Complex[Array, " samples"]:
    check_finite("Pulse b1_hz", value)
    array = jnp.asarray(value, complex)
    if array.ndim != 1:
        raise InputError(Problem("Pulse b1_hz", f"shape {array.shape}", "a list of samples"))
    return array


class Pulse(eqx.Module):
    """A pulse as samples γB1/2π in Hz, complex, each held for `dt_s`. Phase 0 turns about x.

    Raises InputError for samples that are not finite and times that are not positive.
    """

    b1_hz: Complex[Array, " samples"] = eqx.field(converter=_samples)
    dt_s: Float[Array, ""] = eqx.field(converter=real_array("Pulse dt_s"))

    def __check_init__(self):
        if not self.b1_hz.size:
            raise InputError(Problem("Pulse b1_hz", "no sample", "at least one"))
        check_finite("Pulse b1_hz", jnp.abs(self.b1_hz))
        check_time_s("Pulse dt_s", self.dt_s, low=1e-9, high=1.0)

    @property
    def duration_s(self) -> Float[Array, ""]:
        """Time of all samples."""
        return self.dt_s * self.b1_hz.size

    @property
    def flip_rad(self) -> Float[Array, ""]:
        """Small-tip flip angle on resonance, 2π |∫ B1 dt|."""
        return 2 * jnp.pi * jnp.abs(jnp.sum(self.b1_hz)) * self.dt_s

    @property
    def energy_hz2_s(self) -> Float[Array, ""]:
        """∫ |B1|² dt, to which specific absorption is proportional."""
        return jnp.sum(jnp.abs(self.b1_hz) ** 2) * self.dt_s


def _shaped(shape: np.ndarray, flip_rad: Values, duration_s: Values) -> Pulse:
    dt = jnp.asarray(duration_s, float) / shape.size
    return Pulse(jnp.asarray(flip_rad, float) / (2 * jnp.pi) * shape / (shape.sum() * dt), dt)


def _check(where: str, flip_rad: Values, duration_s: Values, samples: int = 1) -> None:
    for name, value in (("flip_rad", flip_rad), ("duration_s", duration_s)):
        check_number(f"{where}: {name}", value)
    check_flip_rad(f"{where}: flip_rad", flip_rad)
    check_time_s(f"{where}: duration_s", duration_s, low=1e-7, high=1.0)
    check_count(f"{where}: samples", samples)


def _middles(samples: int) -> np.ndarray:
    """Middles of equal samples of -1/2 to 1/2."""
    return (np.arange(samples) + 0.5) / samples - 0.5


def hard(flip_rad: Values, duration_s: Values = 1e-4, samples: int = 1) -> Pulse:
    """A rectangular pulse.

    >>> float(hard(3.0, 1e-3).flip_rad.round(6))
    3.0
    """
    _check("hard", flip_rad, duration_s, samples)
    return _shaped(np.ones(samples), flip_rad, duration_s)


def sinc(
    flip_rad: Values,
    duration_s: Values,
    time_bandwidth: Number = 4.0,
    samples: int = 256,
    apodisation: Number = 0.5,
) -> Pulse:
    """sinc(TBW t/T) under a raised cosine (1 - a) + a cos(2πt/T): a 0.5 is Hann's window, 0.46
    Hamming's, 0 none. Bandwidth TBW / T."""
    _check("sinc", flip_rad, duration_s, samples)
    check_range("sinc: time_bandwidth", time_bandwidth, 0.0, float(samples), "", "too few samples")
    t = _middles(samples)
    window = (1 - apodisation) + apodisation * np.cos(2 * np.pi * t)
    return _shaped(window * np.sinc(time_bandwidth * t), flip_rad, duration_s)


def gauss(
    flip_rad: Values, duration_s: Values, time_bandwidth: Number = 3.0, samples: int = 256
) -> Pulse:
    """A Gaussian whose spectrum has full width TBW / T at half maximum."""
    _check("gauss", flip_rad, duration_s, samples)
    check_range("gauss: time_bandwidth", time_bandwidth, 0.0, float(samples), "", "too few samples")
    square = (np.pi * time_bandwidth * _middles(samples)) ** 2
    return _shaped(np.exp(-square / (4 * np.log(2))), flip_rad, duration_s)


def slr(
    kind: str,
    duration_s: Values,
    time_bandwidth: Number = 6.0,
    samples: int = 256,
    pass_ripple: Number = 0.01,
    stop_ripple: Number = 0.01,
    flip_rad: Number | None = None,
) -> Pulse:
    """A linear-phase pulse by the Shinnar-Le Roux transform.

    kind      "small_tip", "excitation", "refocusing" (crushed) or "inversion": which profile the
              ripples are of, |M+|, |M+|, |B|² or Mz, relative to its height (Mz: to m0)
    flip_rad  of small_tip (0.1) and excitation (π/2), at most π/2; of the others π

    The B polynomial is an equiripple FIR filter of the ripples that make those of the profile; A
    has minimum phase and |A|² + |B|² = 1. The slice, from middle to middle of its edges, is
    time_bandwidth / duration wide. Designed in float64, not differentiated. Raises InputError for
    another kind, values out of range, and time-bandwidths too small for their ripples.
    Pauly et al. 1991, doi:10.1109/42.75611.
    """
    flips = {"small_tip": 0.1, "excitation": np.pi / 2, "refocusing": np.pi, "inversion": np.pi}
    if kind not in flips:
        raise InputError(Problem("slr: kind", repr(kind), f"one of {', '.join(flips)}"))
    _check("slr", flips[kind] if flip_rad is None else flip_rad, duration_s, samples)
    flip = flips[kind] if flip_rad is None else float(flip_rad)
    low, high = (np.pi, np.pi) if flips[kind] == np.pi else (1e-6, np.pi / 2)
    check_range(f"slr: flip_rad of {kind}", flip, low - 1e-6, high + 1e-6, "rad")
    check_range("slr: ripples", [pass_ripple, stop_ripple], 1e-6, 0.3, "", "per cent for a ratio")
    check_range("slr: time_bandwidth", time_bandwidth, 0.0, samples / 4, "", "too few samples")
    inside, outside = _polynomial_ripples(kind, flip, pass_ripple, stop_ripple)
    taps = _equiripple(time_bandwidth, samples, inside, outside)
    if kind == "small_tip":
        angles = flip * taps
    else:
        highest = np.abs(np.fft.fft(taps, 64 * samples)).max()
        angles = _inverse_slr(np.sin(flip / 2) * taps / (highest if flips[kind] == np.pi else 1.0))
    dt = float(np.asarray(duration_s)) / samples
    return Pulse(angles / (2 * np.pi * dt), dt)


def _polynomial_ripples(
    kind: str, flip_rad: float, inside: float, outside: float
) -> tuple[float, float]:
    """Ripples of B, relative to its height, from those of the profile: the table of Pauly et al.,
    its row of excitation for any flip up to π/2."""
    if kind == "small_tip":
        return inside, outside
    if flip_rad > 3:
        part = 2 if kind == "inversion" else 1
        return inside / (4 * part), float(np.sqrt(outside / part))
    least = np.arcsin(np.sin(flip_rad) * (1 - inside))
    below, above = np.sin([least / 2, (np.pi - least) / 2]) / np.sin(flip_rad / 2)
    return float(min(1 - below, above - 1)), float(outside * np.cos(flip_rad / 2))


def _transition(pass_ripple: float, stop_ripple: float) -> float:
    """D∞ of Pauly et al.: time-bandwidth times fractional transition width."""
    p, s = np.log10(pass_ripple), np.log10(stop_ripple)
    rising = (5.309e-3 * p**2 + 7.114e-2 * p - 4.761e-1) * s
    return float(rising + (-2.66e-3 * p**2 - 5.941e-1 * p - 4.278e-1))


def _equiripple(time_bandwidth: Number, samples: int, inside: float, outside: float) -> np.ndarray:
    """A low-pass filter of these ripples; its edges begin as wide as D∞, which is a fit, and are
    widened until they are met."""
    width = max(_transition(inside, outside), 0.1) / max(time_bandwidth, 1e-9)
    while width < 1:
        edges = time_bandwidth / (2 * samples) * np.array([1 - width, 1 + width])
        bands, weight = [0.0, *edges, 0.5], [1.0, inside / outside]
        taps = signal.remez(samples, bands, [1.0, 0.0], weight=weight, maxiter=200)
        within = np.linspace(0, edges[0], 512)
        gain = np.cos(2 * np.pi * np.outer(within, np.arange(samples) - (samples - 1) / 2)) @ taps
        if np.abs(gain - 1).max() < 1.01 * inside:
            return taps
        width *= 1.02
    found = f"time-bandwidth {time_bandwidth:g}"
    raise InputError(Problem("slr", found, f"more than {time_bandwidth * width:.2g}"))


def _inverse_slr(b: np.ndarray) -> np.ndarray:
    """Angles of the hard pulses about x, in order of play, whose product has polynomial i B, and an
    A of minimum phase with |A|² = 1 - |B|² on the unit circle."""
    size = 2 ** int(np.ceil(np.log2(256 * b.size)))
    square = np.maximum(1 - np.abs(np.fft.fft(b, size)) ** 2, 1e-10)
    fold = np.zeros(size)
    fold[0] = fold[size // 2] = 1
    fold[1 : size // 2] = 2
    cepstrum = np.fft.ifft(np.log(square) / 2).real
    a = np.fft.ifft(np.exp(np.fft.fft(fold * cepstrum))).real[: b.size]
    angles = np.zeros(b.size)
    for i in range(b.size - 1, -1, -1):
        angles[i] = 2 * np.arctan2(b[0], a[0])
        cos, sin = np.cos(angles[i] / 2), np.sin(angles[i] / 2)
        a, b = (cos * a + sin * b)[:i], (cos * b - sin * a)[1 : i + 1]
    return angles


def hyperbolic_secant(
    duration_s: Values,
    peak_b1_hz: Values,
    beta: Number = 5.3,
    mu: Number = 4.9,
    samples: int = 512,
) -> Pulse:
    """The adiabatic inversion B1 sech(β τ)^(1 + iµ), τ from -1 to 1 over the pulse.

    Frequency sweeps by µ β tanh(β τ) / (π T): bandwidth 2 µ β / (π T). With B1 in units of
    √µ β / (π T), what is left at the default β and µ, (1 + Mz) / 2, is below 5 % above 1.35 and
    below 1 % from 1.65 to 20: beyond, the field begins tilted, sech β being cut off. Silver,
    Joseph, Hoult 1985, doi:10.1103/PhysRevA.31.2753.
    """
    _check("hyperbolic_secant", np.pi, duration_s, samples)
    check_range("hyperbolic_secant: beta", beta, 0.1, 100.0, "")
    envelope = 1 / np.cosh(beta * 2 * _middles(samples))
    shape = envelope * np.exp(1j * mu * np.log(envelope))
    return Pulse(jnp.asarray(peak_b1_hz, float) * shape, jnp.asarray(duration_s, float) / samples)


def adiabatic_passage(
    duration_s: Values,
    peak_b1_hz: Values,
    sweep_hz: Values = 15e3,
    zeta: Number = 5.0,
    kappa: Number = 1.52,
    samples: int = 1024,
    half: bool = False,
) -> Pulse:
    """Inversion, or by half of it excitation to +y, whatever B1 above its threshold.

    The half passage has amplitude tanh(ζτ) and frequency -sweep_hz tan(κ(1 - τ)) / tan κ, τ from 0
    to 1: its field turns from z to across. The full one goes on backwards in time with the
    frequency reversed. With B1 in units of √(sweep / T), T the whole duration, and the default ζ
    and κ, what a full one leaves, (1 + Mz) / 2, is below 5 % above 0.22 and below 1 % above 0.27;
    of a half one 1 - My is below 5 % above 0.22 and below 1 % above 0.32. Up to 20 at least where
    sweep · T is 120 or more; a sweep of 40 begins tilted and fails above 3.8. Raises InputError for
    values out of range, and samples too long for the sweep. Garwood & Ke 1991,
    doi:10.1016/0022-2364(91)90137-I.
    """
    amplitude, phase = _passage(duration_s, sweep_hz, zeta, kappa, samples, 1 if half else 2)
    if not half:
        amplitude, phase = (jnp.concatenate([part, part[::-1]]) for part in (amplitude, phase))
    return _modulated(amplitude, phase + jnp.pi / 2, peak_b1_hz, duration_s)


def bir4(
    flip_rad: Values,
    duration_s: Values,
    peak_b1_hz: Values,
    sweep_hz: Values = 15e3,
    zeta: Number = 5.0,
    kappa: Number = 1.52,
    samples: int = 2048,
) -> Pulse:
    """BIR-4: a rotation of any state by any flip angle about x, whatever B1 above its threshold.

    Four half passages, the first and third backwards in time, the middle two shifted in phase by
    π + flip/2. In units of √(sweep / T), Mz from equilibrium is within 0.02 for B1 above 0.34, and
    every state within 0.1 above 1.0, up to 20 where sweep · T is 240 or more (up to 5 at 120; a
    sweep of 40 is too short for any). Otherwise as `adiabatic_passage`.
    """
    _check("bir4", flip_rad, duration_s)
    passage = _passage(duration_s, sweep_hz, zeta, kappa, samples, 4)
    amplitude, phase = (jnp.tile(jnp.concatenate([part[::-1], part]), 2) for part in passage)
    middle = jnp.asarray(np.repeat([0.0, 1.0, 1.0, 0.0], samples // 4))
    # The outer two at π: at 0 the turn would be about -x.
    phase = phase + jnp.pi + middle * (jnp.pi + jnp.asarray(flip_rad, float) / 2)
    return _modulated(amplitude, phase, peak_b1_hz, duration_s)


def _passage(
    duration_s: Values, sweep_hz: Values, zeta: Number, kappa: Number, samples: int, parts: int
) -> tuple[Array, Array]:
    """Relative amplitude and phase of a half passage, one of `parts`, ending at phase 0."""
    _check("adiabatic pulse", np.pi, duration_s, samples)
    check_number("adiabatic pulse: sweep_hz", sweep_hz)
    check_range("adiabatic pulse: zeta", zeta, 1.0, 100.0, "")
    check_range("adiabatic pulse: kappa", kappa, 0.01, 1.57, "rad", "tan κ given for κ")
    if samples % parts:
        raise InputError(
            Problem("adiabatic pulse: samples", f"{samples}", f"a multiple of {parts}")
        )
    turns = jnp.asarray(sweep_hz, float) * jnp.asarray(duration_s, float)
    cause = "too few samples"
    check_range("adiabatic pulse: sweep", turns / samples, -0.5, 0.5, "cycles a sample", cause)
    tau = _middles(samples // parts) + 0.5
    integral = np.log(np.cos(kappa * (1 - tau))) / (kappa * np.tan(kappa))
    return jnp.asarray(np.tanh(zeta * tau), float), 2 * jnp.pi * turns / parts * integral


def _modulated(amplitude: Array, phase_rad: Array, peak_b1_hz: Values, duration_s: Values) -> Pulse:
    b1_hz = (
        jnp.asarray(peak_b1_hz, float) * amplitude * (jnp.cos(phase_rad) + 1j * jnp.sin(phase_rad))
    )
    return Pulse(b1_hz, jnp.asarray(duration_s, float) / amplitude.size)


def slice_profile(
    pulse: Pulse,
    gradient_hz_per_mm: Values,
    position_mm: Float[np.ndarray, " positions"] | Float[Array, " positions"],
    start: tuple[float, float, float] = (0.0, 0.0, 1.0),
    q: Tissue | None = None,
) -> Float[Array, "positions 3"]:
    """Magnetisation along the slice direction after the pulse under a constant gradient, without
    rephasing; of tissue q, of one voxel or one for each position, or without relaxation. Raises
    InputError unless the positions are a list and the gradient a number, finite."""
    check_finite("slice_profile: position_mm", position_mm)
    check_number("slice_profile: gradient_hz_per_mm", gradient_hz_per_mm)
    check_finite("slice_profile: gradient_hz_per_mm", gradient_hz_per_mm)
    position = jnp.asarray(position_mm, float)
    if position.ndim != 1:
        found = f"shape {position.shape}"
        raise InputError(Problem("slice_profile: position_mm", found, "a list of positions"))
    gradient = jnp.broadcast_to(jnp.asarray(gradient_hz_per_mm, float), (pulse.b1_hz.size, 1))
    lasting = jnp.asarray(jnp.inf, float)
    still = eqx.tree_at(lambda q: (q.t1_s, q.t2_s), Tissue(t1_s=1.0, t2_s=1.0), (lasting, lasting))
    row = jax.tree.map(lambda value: jnp.broadcast_to(value, position.shape), q or still)
    before = jnp.broadcast_to(jnp.asarray(start, float), (position.size, 3))
    waveform = Waveform(pulse.dt_s, pulse.b1_hz, jnp.pad(gradient, ((0, 0), (2, 0))))
    return bloch(waveform, row, jnp.pad(position[:, None], ((0, 0), (2, 0))), start=before)


def flip_profile(
    pulse: Pulse,
    gradient_hz_per_mm: Values,
    position_mm: Float[np.ndarray, " positions"] | Float[Array, " positions"],
    thickness_mm: Values,
    flip_rad: Values | None = None,
) -> tuple[Float[Array, " positions"], Float[Array, " positions"]]:
    """The profile that sequences take: flip angles at evenly spaced positions, relative to the
    nominal `flip_rad`, that on resonance unless given, and their weights, spacing / thickness_mm.

        flip(z) = atan2(|M+|, Mz) of magnetisation that was along z

    so up to π. A signal is then that of the slice, relative to m0 of `thickness_mm` of it. The
    phase that a pulse leaves along z is left to its rewinder, or to the equal crushers about it.
    Raises InputError for fewer than two positions, or uneven.

    >>> z = np.linspace(-8, 8, 65)
    >>> profile = flip_profile(sinc(0.1, 3e-3, 8.0), 8 / 3e-3 / 5, z, 5.0)
    >>> round(float(jnp.sum(profile[0] * profile[1])), 1)  # nearly as wide as its slice
    1.0
    """
    position = np.asarray(position_mm)
    steps = np.diff(position)
    if position.size < 2 or not np.allclose(steps, steps[0], rtol=1e-3) or steps[0] <= 0:
        found = f"{position.size} positions, {steps.min(initial=0):g} mm apart or more"
        raise InputError(Problem("flip_profile: position_mm", found, "even and increasing"))
    x, y, z = slice_profile(pulse, gradient_hz_per_mm, jnp.asarray(position, float)).T
    square = x**2 + y**2
    some = square > 0
    across = jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)
    weight = jnp.full_like(z, steps[0]) / jnp.asarray(thickness_mm, float)
    nominal = pulse.flip_rad if flip_rad is None else jnp.asarray(flip_rad, float)
    return jnp.atan2(across, z) / nominal, weight
