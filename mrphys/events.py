"""What a scanner plays: pulses, gradients and readouts in time, whatever wrote them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Literal

import numpy as np
from jaxtyping import Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.units import PROTON_GYROMAGNETIC_RATIO_HZ_PER_T

Use = Literal[
    "excitation", "refocusing", "inversion", "saturation", "preparation", "other", "undefined"
]


def _per_mhz(field_t: float) -> float:
    """The Larmor frequency in MHz, by which offsets in parts per million are multiplied."""
    return PROTON_GYROMAGNETIC_RATIO_HZ_PER_T * field_t * 1e-6


@dataclass(frozen=True)
class Pulse:
    """A radio-frequency pulse, its transmit field constant between the edges.

    B1(t) = samples_hz exp(i phase) exp(-2πi frequency (t - start_s)), t from start_s, so that a
    positive frequency addresses spins with b0_hz > 0; offsets in ppm are of the Larmor frequency.

    edges_s    n + 1 times from start_s, the first 0, increasing
    center_s   when, from start_s, the pulse acts as a whole
    """

    start_s: float
    edges_s: Float[np.ndarray, " edges"]
    samples_hz: Complex[np.ndarray, " steps"]
    center_s: float
    phase_rad: float = 0.0
    frequency_hz: float = 0.0
    phase_rad_per_mhz: float = 0.0
    frequency_ppm: float = 0.0
    use: Use = "undefined"

    @property
    def duration_s(self) -> float:
        """From the first edge to the last."""
        return float(self.edges_s[-1])

    @property
    def flip_rad(self) -> float:
        """Of a spin on resonance: 2π |∫ B1 dt|, the frequency offset left out."""
        return float(2 * np.pi * abs(np.sum(self.samples_hz * np.diff(self.edges_s))))

    def at_field(self, field_t: float) -> tuple[float, float]:
        """Phase [rad] and frequency [Hz] with the offsets in ppm at a field added."""
        mhz = _per_mhz(field_t)
        phase = self.phase_rad + self.phase_rad_per_mhz * mhz
        return phase, self.frequency_hz + self.frequency_ppm * mhz


@dataclass(frozen=True)
class Readout:
    """Samples at start_s + (i + 1/2) dwell_s, multiplied by exp(-i φ_receiver).

    φ_receiver(t) = phase + modulation_i - 2π frequency (t - start_s). `counters` are the labels of
    the sequence (LIN, SLC, ...) at this readout.
    """

    start_s: float
    samples: int
    dwell_s: float
    phase_rad: float = 0.0
    frequency_hz: float = 0.0
    phase_rad_per_mhz: float = 0.0
    frequency_ppm: float = 0.0
    modulation_rad: Float[np.ndarray, " samples"] | None = None
    counters: Mapping[str, int] = field(default_factory=dict)

    @property
    def is_calibration(self) -> bool:
        """Whether the labels say that it is a navigator or a measurement of noise."""
        return bool(self.counters.get("NAV") or self.counters.get("NOISE"))

    @property
    def times_s(self) -> Float[np.ndarray, " samples"]:
        """Of each sample, since the start of the scan."""
        return self.start_s + (np.arange(self.samples) + 0.5) * self.dwell_s

    def receiver(self, field_t: float) -> Complex[np.ndarray, " samples"]:
        """exp(-i φ_receiver) of each sample."""
        mhz = _per_mhz(field_t)
        phase = self.phase_rad + self.phase_rad_per_mhz * mhz
        frequency = self.frequency_hz + self.frequency_ppm * mhz
        turned = phase - 2 * np.pi * frequency * (self.times_s - self.start_s)
        if self.modulation_rad is not None:
            turned = turned + self.modulation_rad
        return np.exp(-1j * turned)


@dataclass(frozen=True)
class Gradient:
    """One axis: a polygon through (time_s, hz_per_mm), zero outside; equal times make a jump."""

    time_s: Float[np.ndarray, " knots"]
    hz_per_mm: Float[np.ndarray, " knots"]

    def moment(self, t_s: Float[np.ndarray, " times"]) -> Float[np.ndarray, " times"]:
        """∫₀ᵗ G dt in cycles/mm: exact for the polygon."""
        if self.time_s.size < 2:
            return np.zeros(np.shape(t_s))
        width = np.diff(self.time_s)
        rise = np.diff(self.hz_per_mm)
        area = np.concatenate([[0.0], np.cumsum(width * (self.hz_per_mm[:-1] + rise / 2))])
        t = np.clip(t_s, self.time_s[0], self.time_s[-1])
        i = np.clip(np.searchsorted(self.time_s, t, side="right") - 1, 0, width.size - 1)
        into = t - self.time_s[i]
        slope = np.divide(rise, width, out=np.zeros_like(rise), where=width > 0)
        return area[i] + self.hz_per_mm[i] * into + slope[i] * into**2 / 2


@dataclass(frozen=True)
class Scan:
    """A sequence as played: pulses and readouts in order of time, three gradient axes (x, y, z).

    `definitions` are those of the file; `fov_mm` is None where it names none. `version` is that
    of the file's format, `name` the file's.
    """

    pulses: tuple[Pulse, ...]
    gradients: tuple[Gradient, Gradient, Gradient]
    readouts: tuple[Readout, ...]
    duration_s: float
    definitions: Mapping[str, Any] = field(default_factory=dict)
    fov_mm: tuple[float, float, float] | None = None
    version: str = ""
    name: str = ""

    def __post_init__(self):
        busy = [(p.start_s, p.start_s + p.duration_s) for p in self.pulses]
        rounding = 1e-9
        for (_, end), (start, _) in pairwise(busy):
            if start < end - rounding:
                found = f"pulses that overlap at {start:g} s"
                raise InputError(Problem(self.name or "Scan", found, "one pulse at a time"))
        starts = np.array([start for start, _ in busy])
        ends = np.array([end for _, end in busy])
        for readout in self.readouts:
            times = readout.times_s
            i = np.searchsorted(starts, times + rounding, side="right") - 1
            if np.any((i >= 0) & (times < ends[np.maximum(i, 0)] - rounding) if busy else False):
                found = f"samples during a pulse at {times[0]:g} s"
                raise InputError(Problem(self.name or "Scan", found, "samples between pulses only"))

    @property
    def sample_times_s(self) -> Float[np.ndarray, " samples"]:
        """Of every sample of every readout, in order."""
        return np.concatenate([np.zeros(0), *(r.times_s for r in self.readouts)])

    def receiver(self, field_t: float) -> Complex[np.ndarray, " samples"]:
        """exp(-i φ_receiver) of every sample."""
        return np.concatenate([np.zeros(0, complex), *(r.receiver(field_t) for r in self.readouts)])

    def moment(self, t_s: Float[np.ndarray, " times"]) -> Float[np.ndarray, "times 3"]:
        """∫₀ᵗ G dt of the three axes in cycles/mm."""
        return np.stack([gradient.moment(t_s) for gradient in self.gradients], -1)

    def trajectory(self) -> Float[np.ndarray, "samples 3"]:
        """k of every sample in cycles/mm, for reconstruction: y(k) = Σ x(r) exp(-2πi k·r).

        k = ∫ G dt since the last excitation's centre, negated at the centre of each refocusing
        pulse. A pulse of undefined use counts as an excitation up to 90°, as refocusing above.
        """
        times = self.sample_times_s
        moment = self.moment(times)
        acting = [p for p in self.pulses if _role(p) is not None]
        if not acting:
            return moment
        centres = np.array([p.start_s + p.center_s for p in acting])
        played = self.moment(centres)
        offset = np.zeros_like(played)  # k(t) = moment(t) + offset after the pulse
        before = np.zeros(3)
        for i, pulse in enumerate(acting):
            k = played[i] + before
            before = -played[i] if _role(pulse) == "excitation" else -k - played[i]
            offset[i] = before
        i = np.searchsorted(centres, times, side="right") - 1
        return moment + np.where(i[:, None] >= 0, offset[np.maximum(i, 0)], 0.0)

    def matrix(self) -> tuple[int, int, int]:
        """Voxels along x, y and z that the trajectory resolves in the field of view, about k = 0:
        the missing part of a partial Fourier scan counted, an axis without encoding 1.

        Raises InputError where the sequence names no FOV.
        """
        if self.fov_mm is None:
            raise InputError(Problem(self.name or "Scan", "no FOV", "FOV in [DEFINITIONS]"))
        used = [np.full(r.samples, not r.is_calibration) for r in self.readouts]
        k = self.trajectory()[np.concatenate([np.zeros(0, bool), *used])]
        if not len(k):
            return 1, 1, 1
        k = k * np.array(self.fov_mm)
        low, high = -k.min(0), k.max(0)
        edge = np.ceil(np.maximum(low, high) - 0.02) + (high > low + 1.25)
        x, y, z = (
            max(1, 2 * int(n)) if e > 0.75 else 1 for n, e in zip(edge, low + high, strict=True)
        )
        return x, y, z

    def excited_hz(self) -> Float[np.ndarray, " readouts"]:
        """Frequency offset of the last excitation before each readout: which slice it is of."""
        excitations = [p for p in self.pulses if p.use == "excitation"] or list(self.pulses)
        if not excitations:
            return np.zeros(len(self.readouts))
        starts = np.array([pulse.start_s for pulse in excitations])
        last = np.searchsorted(starts, [r.start_s for r in self.readouts]) - 1
        return np.array([pulse.frequency_hz for pulse in excitations])[np.maximum(last, 0)]

    def slab_mm(self) -> tuple[float, float] | None:
        """Between which z the excitations act, with margins of a slice's thickness; None: anywhere.

        A slice is centred where its frequency offset meets the gradient, as thick as the pulse's
        spectrum at half its height. Where one excitation selects along another axis, or along
        none, the whole phantom is concerned.
        """
        low, high = np.inf, -np.inf
        for pulse in self.pulses:
            if pulse.use != "excitation":
                continue
            span = np.array([pulse.start_s, pulse.start_s + pulse.duration_s])
            x, y, z = np.diff(self.moment(span), axis=0)[0] / pulse.duration_s
            if abs(z) <= 10 * max(abs(x), abs(y)) or z == 0:
                return None
            centre, thickness = pulse.frequency_hz / z, _bandwidth_hz(pulse) / abs(z)
            low, high = min(low, centre - 1.5 * thickness), max(high, centre + 1.5 * thickness)
        return (low, high) if low < high else None


def _bandwidth_hz(pulse: Pulse) -> float:
    """Full width of the pulse's spectrum at half its largest value."""
    raster = pulse.duration_s / 1024
    times = (np.arange(1024) + 0.5) * raster
    step = np.searchsorted(pulse.edges_s, times) - 1
    spectrum = np.abs(np.fft.fft(pulse.samples_hz[step], 16 * 1024))
    return float(np.sum(spectrum > spectrum.max() / 2) / (16 * 1024 * raster))


def _role(pulse: Pulse) -> str | None:
    """What a pulse does to k."""
    if pulse.use in ("excitation", "refocusing"):
        return pulse.use
    if pulse.use == "undefined":
        return "excitation" if pulse.flip_rad < np.deg2rad(90.01) else "refocusing"
    return None
