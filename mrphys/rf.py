"""Radio-frequency pulses: shapes, their design, and the slice profile they make."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float
from scipy import signal

from mrphys.bloch import Waveform, bloch
from mrphys.errors import InputError, Problem
from mrphys.tissue import Tissue
from mrphys.units import Values, check_finite, check_flip_rad, check_time_s


class Pulse(eqx.Module):
    """A pulse as samples γB1/2π in Hz, complex, each held for `dt_s`. Phase 0 turns about x.

    Raises InputError for samples that are not finite and times that are not positive.
    """

    b1_hz: Complex[Array, " samples"] = eqx.field(
        converter=lambda v: jnp.asarray(v).astype(jnp.result_type(float, 1j))
    )
    dt_s: Float[Array, ""] = eqx.field(converter=lambda v: jnp.asarray(v, float))

    def __check_init__(self):
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
    flip, duration = jnp.asarray(flip_rad, float), jnp.asarray(duration_s, float)
    dt = duration / shape.size
    return Pulse(flip / (2 * jnp.pi) * shape / (shape.sum() * dt), dt)


def _check(where: str, flip_rad: Values, duration_s: Values) -> None:
    check_flip_rad(f"{where}: flip_rad", flip_rad)
    check_time_s(f"{where}: duration_s", duration_s, low=1e-7, high=1.0)


def _middles(samples: int) -> np.ndarray:
    """Middles of equal samples of -1/2 to 1/2."""
    return (np.arange(samples) + 0.5) / samples - 0.5


def hard(flip_rad: Values, duration_s: Values = 1e-4, samples: int = 1) -> Pulse:
    """A rectangular pulse.

    >>> float(hard(3.0, 1e-3).flip_rad.round(6))
    3.0
    """
    _check("hard", flip_rad, duration_s)
    return _shaped(np.ones(samples), flip_rad, duration_s)


def sinc(
    flip_rad: Values,
    duration_s: Values,
    time_bandwidth: float | int = 4.0,
    samples: int = 256,
    apodisation: float | int = 0.5,
) -> Pulse:
    """sinc(TBW t/T) under a raised cosine (1 - a) + a cos(2πt/T): a 0.5 is Hann's window, 0.46
    Hamming's, 0 none. Bandwidth TBW / T."""
    _check("sinc", flip_rad, duration_s)
    t = _middles(samples)
    window = (1 - apodisation) + apodisation * np.cos(2 * np.pi * t)
    return _shaped(window * np.sinc(time_bandwidth * t), flip_rad, duration_s)


def gauss(
    flip_rad: Values, duration_s: Values, time_bandwidth: float | int = 3.0, samples: int = 256
) -> Pulse:
    """A Gaussian whose spectrum has full width TBW / T at half maximum."""
    _check("gauss", flip_rad, duration_s)
    t = _middles(samples)
    return _shaped(
        np.exp(-((np.pi * time_bandwidth * t) ** 2) / (4 * np.log(2))), flip_rad, duration_s
    )


def slr(
    kind: str,
    duration_s: Values,
    time_bandwidth: float | int = 6.0,
    samples: int = 256,
    pass_ripple: float | int = 0.01,
    stop_ripple: float | int = 0.01,
    flip_rad: float | int | None = None,
) -> Pulse:
    """A linear-phase pulse by the Shinnar-Le Roux transform.

    kind  "small_tip", "excitation" (π/2), "refocusing" (crushed, π) or "inversion" (π): which
          profile the ripples are of; flip_rad other than these scales the profile of B

    The B polynomial is a least-squares FIR filter of the ripples that make those of the profile;
    A has minimum phase and |A|² + |B|² = 1; both are inverted to samples. Design is done once, in
    float64, and not differentiated. Raises InputError for another kind, and time-bandwidths too
    small for their ripples.

    Pauly et al. 1991, doi:10.1109/42.75611.
    """
    flips = {"small_tip": 0.1, "excitation": np.pi / 2, "refocusing": np.pi, "inversion": np.pi}
    if kind not in flips:
        raise InputError(Problem("slr: kind", repr(kind), f"one of {', '.join(flips)}"))
    flip = flips[kind] if flip_rad is None else flip_rad
    _check("slr", flip, duration_s)
    ripples = {
        "small_tip": (pass_ripple, stop_ripple),
        "excitation": (np.sqrt(pass_ripple / 2), stop_ripple / np.sqrt(2)),
        "refocusing": (pass_ripple / 4, np.sqrt(stop_ripple)),
        "inversion": (pass_ripple / 8, np.sqrt(stop_ripple / 2)),
    }[kind]
    width = _transition(*ripples) / time_bandwidth
    if not 0 < width < 1:
        found = f"time-bandwidth {time_bandwidth:g}"
        raise InputError(Problem("slr", found, f"more than {time_bandwidth * width:.2g}"))
    edge = time_bandwidth / samples
    bands = [0.0, (1 - width) * edge, (1 + width) * edge, 1.0]
    taps = signal.firls(
        samples - 1 + samples % 2, bands, [1, 1, 0, 0], weight=[1, ripples[0] / ripples[1]]
    )
    if samples % 2 == 0:
        # Type-II length by interpolating the odd filter half a sample on.
        spectrum = np.fft.rfft(np.append(taps, 0.0))
        spectrum *= np.exp(-1j * np.pi * np.arange(spectrum.size) / samples)
        taps = np.fft.irfft(spectrum, samples)
    b = np.sin(flip / 2) * taps / taps.sum()
    b = b / max(1.0, np.abs(np.fft.fft(b, 16 * samples)).max() / (1 - 1e-7))
    angles, phases = _inverse_slr(_minimum_phase(b), b)
    dt = float(np.asarray(duration_s)) / samples
    return Pulse(angles * np.exp(1j * phases) / (2 * np.pi * dt), dt)


def _transition(pass_ripple: float, stop_ripple: float) -> float:
    """D∞ of Pauly et al.: time-bandwidth times fractional transition width."""
    p, s = np.log10(pass_ripple), np.log10(stop_ripple)
    rising = (5.309e-3 * p**2 + 7.114e-2 * p - 4.761e-1) * s
    return float(rising + (-2.66e-3 * p**2 - 5.941e-1 * p - 4.278e-1))


def _minimum_phase(b: np.ndarray) -> np.ndarray:
    """A polynomial of minimum phase with |A|² = 1 - |B|² on the unit circle."""
    size = 16 * b.size
    size += size % 2
    magnitude = np.sqrt(np.maximum(1 - np.abs(np.fft.fft(b, size)) ** 2, 1e-14))
    cepstrum = np.fft.ifft(np.log(magnitude))
    fold = np.zeros(size)
    fold[0] = fold[size // 2] = 1
    fold[1 : size // 2] = 2
    return np.fft.ifft(np.exp(np.fft.fft(fold * cepstrum)))[: b.size]


def _inverse_slr(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Hard pulses, flip angles and phases in order of play, whose product has polynomials A, B."""
    a, b = a.astype(complex), b.astype(complex)
    angles, phases = np.zeros(a.size), np.zeros(a.size)
    for i in range(a.size - 1, -1, -1):
        ratio = b[0] / a[0]
        cos = 1 / np.sqrt(1 + np.abs(ratio) ** 2)
        sin = np.conj(cos * ratio)
        angles[i], phases[i] = 2 * np.arctan2(np.abs(sin), cos), np.angle(sin)
        a, b = cos * a + sin * b, -np.conj(sin) * a + cos * b
        a, b = a[:i], b[1 : i + 1]
    return angles, phases


def hyperbolic_secant(
    duration_s: Values,
    peak_b1_hz: Values,
    beta: float | int = 5.3,
    mu: float | int = 4.9,
    samples: int = 512,
) -> Pulse:
    """The adiabatic inversion B1 sech(β τ)^(1 + iµ), τ from -1 to 1 over the pulse.

    Frequency sweeps by µ β tanh(β τ) / (π T): bandwidth 2 µ β / (π T). Inverts for any B1 above
    about √µ β / (π T). Silver, Joseph, Hoult 1985, doi:10.1103/PhysRevA.31.2753.
    """
    check_time_s("hyperbolic_secant: duration_s", duration_s, low=1e-7, high=1.0)
    envelope = 1 / np.cosh(beta * 2 * _middles(samples))
    shape = envelope * np.exp(1j * mu * np.log(envelope))
    return Pulse(jnp.asarray(peak_b1_hz, float) * shape, jnp.asarray(duration_s, float) / samples)


def bir4(
    flip_rad: Values,
    duration_s: Values,
    peak_b1_hz: Values,
    sweep_hz: float | int = 25e3,
    zeta: float | int = 5.0,
    kappa: float | int = 1.45,
    samples: int = 4096,
) -> Pulse:
    """BIR-4: a plane rotation of any flip angle about x, whatever B1 above its threshold.

    Four tanh/tan half passages (amplitude tanh(ζ(1 - τ)), frequency tan(κτ)/tan κ times
    `sweep_hz`), the middle two shifted in phase by π + flip/2 and back.

    Garwood & Ke 1991, doi:10.1016/0022-2364(91)90137-I.
    """
    _check("bir4", flip_rad, duration_s)
    quarter = samples // 4
    tau = (np.arange(quarter) + 0.5) / quarter
    duration = jnp.asarray(duration_s, float)
    dt = duration / (4 * quarter)
    rising, falling = np.tanh(zeta * tau), np.tanh(zeta * (1 - tau))
    # Frequency is zero where a passage starts at full amplitude and largest where it ends.
    out = np.tan(kappa * tau) / np.tan(kappa)
    back = -np.tan(kappa * (1 - tau)) / np.tan(kappa)
    amplitude = np.concatenate([falling, rising, falling, rising])
    frequency = np.concatenate([out, back, out, back]) * sweep_hz
    steps = 2 * jnp.pi * jnp.asarray(frequency) * dt
    phase = jnp.cumsum(steps) - steps / 2
    middle = np.repeat([0.0, 1.0, 1.0, 0.0], quarter)
    shift = jnp.asarray(middle) * (jnp.pi + jnp.asarray(flip_rad, float) / 2)
    return Pulse(
        jnp.asarray(peak_b1_hz, float) * jnp.asarray(amplitude) * jnp.exp(1j * (shift - phase)), dt
    )


def slice_profile(
    pulse: Pulse,
    gradient_hz_per_mm: Values,
    position_mm: Float[np.ndarray, " positions"] | Float[Array, " positions"],
    start: tuple[float, float, float] = (0.0, 0.0, 1.0),
) -> Float[Array, "positions 3"]:
    """Magnetisation along the slice direction after the pulse under a constant gradient, without
    relaxation and without rephasing."""
    position = jnp.asarray(position_mm, float)
    place = jnp.stack([jnp.zeros_like(position), jnp.zeros_like(position), position], axis=1)
    along = jnp.array([0.0, 0.0, 1.0]) * jnp.asarray(gradient_hz_per_mm, float)
    gradient = jnp.broadcast_to(along, (pulse.b1_hz.size, 3))
    lasting = jnp.full(position.shape, jnp.inf)
    q = eqx.tree_at(
        lambda q: (q.t1_s, q.t2_s), Tissue(t1_s=jnp.ones_like(position), t2_s=1.0), (lasting,) * 2
    )
    before = jnp.broadcast_to(jnp.asarray(start, float), (position.size, 3))
    waveform = Waveform(pulse.dt_s, pulse.b1_hz, gradient)
    return bloch(waveform, q, place, start=before)
