"""From a sequence θ to a Pulseq file: the same pulses, intervals and gradient moments, played by a
scanner as one voxel after the other in time."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mrphys.epg import DEFAULT_PULSE_S, Block
from mrphys.errors import InputError, Problem
from mrphys.io.output import whole_file
from mrphys.io.pulseq_timeline import Timeline
from mrphys.sequence.base import Sequence
from mrphys.sequence.diffusion import DiffusionWeighted
from mrphys.sequence.repeated import Repeated
from mrphys.sequence.saturation import OffResonancePulse, Saturation
from mrphys.sequence.spin_echo import SpinEchoTrain
from mrphys.sequence.train import Train

MOMENT_CYCLES_PER_MM = 1.0


def write_pulseq(
    theta: Sequence,
    path: str | Path,
    *,
    repetitions: int = 1,
    moment_cycles_per_mm: float = MOMENT_CYCLES_PER_MM,
    system: Any = None,
) -> None:
    """Write θ as a Pulseq 1.5 file.

    Pulses are rectangular, without slice selection, and last `theta.pulse_s`; times run from centre
    to centre and are rounded to the block raster, 10 µs. A unit moment is a gradient of θ's own
    moment, else `moment_cycles_per_mm`; shifts on one line are along z unless θ's moment is a
    vector. Ideal spoiling is a gradient of one to four moments along each axis, different from one
    repetition to the next; where θ leaves it no time, the time it takes is taken from the next
    rest. Each readout is 16 samples in 0.16 ms around its time, without spatial encoding. Averages
    are left to the scanner.

    Steady states, diffusion weighting among them, are played `repetitions` times from rest, all
    readouts kept. Diffusion gradients are a pair of trapezoids along z about the refocusing pulse,
    as long as TE allows, their b (crushers counted) that of θ. A saturation is excited and read as
    soon as its spoiler has ended, after which `recovery_s` follows.

    system  a `pypulseq.Opts`; 40 mT/m and 170 T/m/s unless given

    The file has passed pypulseq's timing check, and amplitudes and slew rates of each axis are
    within `system`, or nothing is written. Peak B1, α / (2π pulse_s), heating and nerve stimulation
    are not checked. Raises InputError where an interval is too short for its pulses, gradients and
    readout, a b-value too large for TE, for a slice profile, which rectangular pulses have not, for
    a sequence of the user's own class, and a folder that cannot be written.

    Source: Layton et al. 2017, doi 10.1002/mrm.26235.
    """
    import pypulseq

    path = Path(path)
    if path.suffix != ".seq":
        raise InputError(Problem("write_pulseq", path.name, "a name that ends in .seq"))
    if repetitions < 1:
        raise InputError(Problem("write_pulseq: repetitions", f"{repetitions}", "one or more"))
    system = system or pypulseq.Opts(
        max_grad=40, grad_unit="mT/m", max_slew=170, slew_unit="T/m/s",
        rf_dead_time=100e-6, rf_ringdown_time=20e-6, adc_dead_time=10e-6,
    )  # fmt: skip
    pulse_s = float(getattr(theta, "pulse_s", DEFAULT_PULSE_S))
    line = Timeline(pypulseq, system, pulse_s, 1e3 * moment_cycles_per_mm)
    match theta:
        case Train() | Repeated() | SpinEchoTrain():
            _play_pulses(theta, line, repetitions, moment_cycles_per_mm)
        case Saturation():
            _play_saturation(theta, line)
        case DiffusionWeighted():
            _play_diffusion(theta, line, repetitions, 1e3 * moment_cycles_per_mm)
        case _:
            found, expected = type(theta).__name__, "a sequence that mrphys.sequence builds"
            raise InputError(Problem("write_pulseq", found, expected))
    sequence = line.finish()
    ok, errors = sequence.check_timing()
    if not ok:
        raise InputError(Problem("write_pulseq", str(errors[0]), "timing pypulseq accepts"))
    sequence.set_definition("Name", type(theta).__name__)
    with whole_file(path) as draft:
        sequence.write(str(draft))


def _play_pulses(
    theta: Train | Repeated | SpinEchoTrain,
    line: Timeline,
    repetitions: int,
    moment_cycles_per_mm: float,
) -> None:
    if theta.profile is not None:
        expected = "profile=None: the pulses of the file are rectangular, without slice selection"
        raise InputError(Problem("write_pulseq", "a slice profile", expected))
    played = list(_played(theta, repetitions))
    own = theta.moment_rad_per_mm
    cycles = moment_cycles_per_mm if own is None else np.asarray(own, float) / (2 * np.pi)
    unit_per_m = 1e3 * np.broadcast_to(cycles, (3,))
    several = any(isinstance(shift, tuple) for part, _, _ in played for shift in part.shifts)
    along = unit_per_m if own is not None and np.ndim(own) else unit_per_m * [0, 0, 1]
    if several:
        along = unit_per_m * [1, 0, 0]
    for part, i, advance in played:
        if isinstance(part, OffResonancePulse):
            b1_hz = np.asarray(part.b1_hz, float)
            line.saturate(b1_hz, float(part.pulse_duration_s), float(part.offset_hz))
            line.wait(0.0, spoil=True)
            continue
        assert isinstance(part, Block)
        flip, phase = float(part.flip_rad[i]), float(part.phase_rad[i])
        if flip != 0.0:
            line.pulse(flip, phase + advance, _use(part, flip))
        for j, (shift, reads) in enumerate(zip(part.shifts, part.reads, strict=True)):
            area = unit_per_m * shift if isinstance(shift, tuple) else along * shift
            spoil = part.spoil and j == len(part.shifts) - 1
            line.wait(float(part.times_s[i, j]), area, spoil=spoil)
            if reads:
                line.readout(float(part.receiver_rad[i]) + advance)


def _use(part: Block, flip_rad: float) -> str:
    """What a pulse is for: to prepare where nothing of it is read, else by its angle."""
    if part.spoil and not any(part.reads):
        return "inversion" if abs(flip_rad) > 2.4 else "preparation"
    return "refocusing" if abs(flip_rad) > 2.4 else "excitation"


def _played(theta: Any, repetitions: int) -> Iterator[tuple[Any, int, float]]:
    """Every repetition of every block, and the phase added to it, in order."""
    if not isinstance(theta, Repeated):
        steady = isinstance(theta, SpinEchoTrain) and theta.tr_s is not None
        for block in theta.blocks * (repetitions if steady else 1):
            yield from ((block, i, 0.0) for i in range(block.repetitions))
        return
    for blocks in theta.acquisitions:
        for n in range(repetitions):
            advance = n * float(theta.advance_rad) + n * (n + 1) / 2 * float(theta.spoiling_rad)
            for block in blocks:
                yield from ((block, i, advance) for i in range(block.repetitions))


def _play_saturation(theta: Saturation, line: Timeline) -> None:
    """Pulses of one phase in the frame of their offset, a spoiler, an excitation, its readout."""
    duration, gap = float(theta.duration_s), float(theta.gap_s)
    pulses, b1_hz = theta.pulses, np.asarray(theta.b1_hz, float)[None]
    if gap == 0.0:
        pulses, duration = 1, pulses * duration
    for offset in np.asarray(theta.offsets_hz, float).tolist():
        for n in range(pulses):
            line.saturate(b1_hz, duration, offset, -2 * np.pi * offset * n * (duration + gap))
            line.wait(gap if n < pulses - 1 else 0.0)
        line.wait(0.0, spoil=True)
        line.pulse(np.pi / 2, 0.0, "excitation")
        soonest = line.now_s - line.centre_s + line.before_readout_s
        line.wait(line.rounded_up(soonest))
        line.readout(0.0)
        line.borrowed_s = 0.0
        line.wait(float(theta.recovery_s), spoil=True)


def _play_diffusion(
    theta: DiffusionWeighted, line: Timeline, repetitions: int, crusher_per_m: float
) -> None:
    """Excitation, lobe, refocusing, lobe, readout, and the rest of TR."""
    half, tr = float(theta.te_s) / 2, float(theta.tr_s)
    turning = line.rounded_up(line.before_pulse_s + line.pulse_s / 2 + line.system.rf_ringdown_time)
    for b in np.repeat(np.asarray(theta.b_s_per_mm2, float), repetitions).tolist():
        line.pulse(np.pi / 2, 0.0, "excitation")
        line.wait(half)
        turned = line.rounded_up(line.centre_s - line.before_pulse_s)
        read = line.rounded_up(line.centre_s + half - line.before_readout_s)
        free = min(turned - line.now_s, read - turned - turning)
        length = float(np.floor(free / line.raster + 1e-6) * line.raster)
        lobes = _weighting(line, b, length, turning, crusher_per_m)
        line.gradients([], turned - length - line.now_s)
        line.gradients([lobe for lobe, _ in lobes], length)
        line.pulse(np.pi, np.pi / 2, "refocusing")
        line.gradients([lobe for _, lobe in lobes], length)
        line.wait(half)
        line.readout(np.pi / 2)
        line.wait(tr - 2 * half, spoil=True)


def _weighting(
    line: Timeline, b_s_per_mm2: float, length_s: float, turning_s: float, crusher_per_m: float
) -> list[tuple[Any, Any]]:
    """Along z the lobes before and after the refocusing pulse, as long as there is time; along x
    short crushers beside it."""
    system, where = line.system, f"write_pulseq: b = {b_s_per_mm2:g} s/mm²"
    crusher = line.shortest("x", crusher_per_m)
    crushing_s = line.pp.calc_duration(crusher)
    rise_s = line.rounded_up(system.max_grad / system.max_slew)
    if length_s < max(crushing_s, 2 * rise_s):
        found = f"{max(length_s, 0.0) * 1e3:.2f} ms for each gradient"
        expected = f"{max(crushing_s, 2 * rise_s) * 1e3:.2f} ms or more"
        raise InputError(Problem(where, found, expected, "a TE too short"))
    early, late = line.shortest("x", crusher_per_m), crusher
    early.delay = length_s - crushing_s
    lobes = [(early, late)]
    own = trapezoid_b_s_per_mm2(
        1e-3 * crusher.amplitude, crusher.rise_time, crushing_s, crushing_s + turning_s
    )
    unit = trapezoid_b_s_per_mm2(1.0, rise_s, length_s, length_s + turning_s)
    hz_per_m = 1e3 * np.sqrt(max(b_s_per_mm2 - own, 0.0) / unit)
    if hz_per_m > system.max_grad:
        found = f"a gradient of {hz_per_m / system.gamma * 1e3:.1f} mT/m"
        expected = f"at most {system.max_grad / system.gamma * 1e3:.1f} mT/m"
        raise InputError(Problem(where, found, expected, "a TE too short for the b-value"))
    if hz_per_m > 0:
        lobe = line.pp.make_trapezoid(
            channel="z",
            amplitude=float(hz_per_m),
            rise_time=rise_s,
            fall_time=rise_s,
            flat_time=length_s - 2 * rise_s,
            system=system,
        )
        lobes.append((lobe, lobe))
    return lobes


def trapezoid_b_s_per_mm2(
    hz_per_mm: float, rise_s: float, length_s: float, separation_s: float
) -> float:
    """b of a pair of trapezoids of amplitude G, ramps ε and whole length δ + ε, Δ apart:

        (2πG)² (δ² (Δ - δ/3) + ε³/30 - δ ε²/6)

    Price, Kuchel 1991, doi:10.1016/0022-2364(91)90406-F.
    """
    width = length_s - rise_s
    ramps = rise_s**3 / 30 - width * rise_s**2 / 6
    return float((2 * np.pi * hz_per_mm) ** 2 * (width**2 * (separation_s - width / 3) + ramps))
