"""From a sequence θ to a Pulseq file: the same pulses, intervals and gradient moments, played by a
scanner as one voxel after the other in time."""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np

from mrphys.epg import Block
from mrphys.errors import InputError, Problem
from mrphys.io.output import whole_file
from mrphys.sequence.base import Sequence
from mrphys.sequence.repeated import Repeated
from mrphys.sequence.spin_echo import SpinEchoTrain
from mrphys.sequence.train import Train

MOMENT_CYCLES_PER_MM = 1.0
SPOILING_MOMENTS = 4.0
READOUT_S = 1.6e-4
SAMPLES = 16


def write_pulseq(
    theta: Sequence,
    path: str | Path,
    *,
    repetitions: int = 1,
    moment_cycles_per_mm: float = MOMENT_CYCLES_PER_MM,
    system: Any = None,
) -> None:
    """Write θ as a Pulseq 1.5 file.

    Pulses are rectangular and last `theta.pulse_s`; times run from centre to centre and are rounded
    to the block raster, 10 µs. A unit moment is a gradient along z of θ's own moment, else
    `moment_cycles_per_mm`; ideal spoiling is four of them. Each readout is 16 samples in 0.16 ms
    around its time, without spatial encoding. Steady states are played `repetitions` times, all
    readouts kept. `system` is a `pypulseq.Opts`; 40 mT/m and 170 T/m/s unless given.

    The file has passed pypulseq's timing check, amplitudes and slew rates are within `system`, or
    nothing is written: raises InputError where an interval is too short for its pulses, gradients
    and readout, for a sequence that is not made of pulses, and a folder that cannot be written.

    Source: Layton et al. 2017, doi 10.1002/mrm.26235.
    """
    import pypulseq

    path = Path(path)
    if path.suffix != ".seq":
        raise InputError(Problem("write_pulseq", path.name, "a name that ends in .seq"))
    if not isinstance(theta, Train | Repeated | SpinEchoTrain):
        found = type(theta).__name__
        raise InputError(Problem("write_pulseq", found, "a sequence of pulses and intervals"))
    system = system or pypulseq.Opts(
        max_grad=40, grad_unit="mT/m", max_slew=170, slew_unit="T/m/s",
        rf_dead_time=100e-6, rf_ringdown_time=20e-6, adc_dead_time=10e-6,
    )  # fmt: skip
    own = theta.moment_rad_per_mm
    cycles_per_mm = moment_cycles_per_mm if own is None else float(own) / (2 * np.pi)
    writer = _Writer(pypulseq, system, float(theta.pulse_s), 1e3 * cycles_per_mm)
    for block, repetition, phase in _played(theta, repetitions):
        writer.play(block, repetition, phase)
    sequence = writer.finish()
    ok, errors = sequence.check_timing()
    if not ok:
        raise InputError(Problem("write_pulseq", str(errors[0]), "timing pypulseq accepts"))
    sequence.set_definition("Name", type(theta).__name__)
    with whole_file(path) as draft:
        sequence.write(str(draft))


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


class _Writer:
    """Blocks of a Pulseq sequence, laid between the centres of pulses and readouts."""

    def __init__(self, pypulseq: Any, system: Any, pulse_s: float, moment_per_m: float):
        self.pp, self.system = pypulseq, system
        self.pulse_s, self.moment_per_m = pulse_s, moment_per_m
        self.sequence = pypulseq.Sequence(system)
        self.raster = system.block_duration_raster
        self.now_s = 0.0
        """Where the last block ends."""
        self.centre_s = 0.0
        """The last pulse, readout or end of an interval."""
        self.moments = 0.0
        """Gradient still to be played since then."""

    def play(self, block: Block, repetition: int, advance_rad: float) -> None:
        flip = float(block.flip_rad[repetition])
        if flip != 0.0:
            self._pulse(flip, float(block.phase_rad[repetition]) + advance_rad)
        last = len(block.shifts) - 1
        for i, (shift, reads) in enumerate(zip(block.shifts, block.reads, strict=True)):
            self.moments += cast(int, shift)
            if block.spoil and i == last:
                self.moments += SPOILING_MOMENTS
            self.centre_s += float(block.times_s[repetition, i])
            if reads:
                receiver = float(block.receiver_rad[repetition]) + advance_rad
                self._event(self._readout(receiver), READOUT_S / 2 + self.system.adc_dead_time)

    def finish(self) -> Any:
        self._fill(max(self.centre_s, self.now_s))
        return self.sequence

    def _pulse(self, flip_rad: float, phase_rad: float) -> None:
        # Pulseq counts phase with precession, here precession is clockwise: see read_pulseq.
        if flip_rad < 0:
            flip_rad, phase_rad = -flip_rad, phase_rad + np.pi
        pulse = self.pp.make_block_pulse(
            flip_angle=flip_rad,
            duration=self.pulse_s,
            phase_offset=float(np.mod(-phase_rad, 2 * np.pi)),
            delay=self.system.rf_dead_time,
            system=self.system,
            use="excitation",
        )
        if not self.sequence.block_events:
            self.centre_s = self.system.rf_dead_time + self.pulse_s / 2
        self._event(pulse, self.system.rf_dead_time + self.pulse_s / 2)

    def _readout(self, receiver_rad: float) -> SimpleNamespace:
        return self.pp.make_adc(
            num_samples=SAMPLES,
            duration=READOUT_S,
            delay=self.system.adc_dead_time,
            phase_offset=float(np.mod(-receiver_rad, 2 * np.pi)),
            system=self.system,
        )

    def _event(self, event: SimpleNamespace, to_centre_s: float) -> None:
        """An event with its centre at `centre_s`, what is before it filled."""
        self._fill(self.centre_s - to_centre_s)
        duration = np.ceil(self.pp.calc_duration(event) / self.raster - 1e-6) * self.raster
        self.sequence.add_block(event, self.pp.make_delay(duration))
        self.now_s += duration

    def _fill(self, until_s: float) -> None:
        """Gradient and rest up to a time."""
        free = np.round((until_s - self.now_s) / self.raster) * self.raster
        where = f"write_pulseq: {self.now_s * 1e3:.3f} ms"
        if free < -1e-9:
            found = f"an interval {-free * 1e3:.3f} ms shorter than its pulses and readout"
            raise InputError(Problem(where, found, "room for all", "a TE or spacing too short"))
        if self.moments:
            area = self.moments * self.moment_per_m
            try:
                gradient = self.pp.make_trapezoid(
                    channel="z", area=area, duration=free, system=self.system
                )
            except (AssertionError, ValueError, ZeroDivisionError) as error:
                found = f"{free * 1e3:.3f} ms for a gradient of {area:.0f} cycles/m"
                expected = "an interval long enough for the system's gradients"
                cause = "a TE or TR too short, or moment_cycles_per_mm too large"
                raise InputError(Problem(where, found, expected, cause)) from error
            self.sequence.add_block(gradient, self.pp.make_delay(free))
        elif free > 0:
            self.sequence.add_block(self.pp.make_delay(free))
        self.moments = 0.0
        self.now_s += max(free, 0.0)
