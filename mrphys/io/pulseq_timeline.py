"""Blocks of a Pulseq sequence, laid between the centres of pulses and readouts."""

from collections.abc import Sequence as Many
from itertools import product
from types import SimpleNamespace
from typing import Any

import numpy as np
from jaxtyping import Float

from mrphys.errors import InputError, Problem

READOUT_S = 1.6e-4
SAMPLES = 16
AXES = ("x", "y", "z")
# Unit moments along x, y and z: all 64 before one returns, neighbours different in each.
SPOILERS = [list(product((4.0, 3.0, 2.0, 1.0), repeat=3))[27 * n % 64] for n in range(64)]


class Timeline:
    """Pulses and readouts at their times, what is between them filled with gradients and rest.

    Where the model spoils in no time at all the file borrows what the hardware needs, and gives it
    back in the next rest.
    """

    def __init__(self, pypulseq: Any, system: Any, pulse_s: float, spoiling_per_m: float):
        self.pp, self.system = pypulseq, system
        self.pulse_s, self.spoiling_per_m = pulse_s, spoiling_per_m
        self.sequence = pypulseq.Sequence(system)
        self.raster = system.block_duration_raster
        self.now_s = 0.0
        """Where the last block ends."""
        self.centre_s = system.rf_dead_time + pulse_s / 2
        """The last pulse, readout or end of an interval."""
        self.area_per_m = np.zeros(3)
        """Gradient still to be played since then."""
        self.spoiler = None
        self.spoiled = 0
        self.timeless = False
        self.borrowed_s = 0.0

    @property
    def before_pulse_s(self) -> float:
        """From the start of a pulse's block to the pulse's centre."""
        return self.system.rf_dead_time + self.pulse_s / 2

    @property
    def before_readout_s(self) -> float:
        """From the start of a readout's block to the readout's centre."""
        return self.system.adc_dead_time + READOUT_S / 2

    def wait(
        self,
        time_s: float,
        area_per_m: Float[np.ndarray, "3"] | None = None,
        *,
        spoil: bool = False,
    ) -> None:
        """An interval after the last centre, its gradient, and spoiling at its end."""
        if area_per_m is not None:
            self.area_per_m = self.area_per_m + area_per_m
        if spoil and self.spoiler is None:
            self.spoiler = np.array(SPOILERS[self.spoiled % len(SPOILERS)])
            self.spoiled += 1
        if spoil:
            self.timeless = time_s == 0.0
            spare = time_s - self._gradient_s(self._owed()) - self.pulse_s - 1e-3
            returned = min(self.borrowed_s, max(spare, 0.0))
            self.borrowed_s -= returned
            time_s -= returned
        self.centre_s += time_s

    def pulse(self, flip_rad: float, phase_rad: float, use: str) -> None:
        """A rectangular pulse about the last centre."""
        # Pulseq counts phase with precession, here precession is clockwise: see read_pulseq.
        if flip_rad < 0:
            flip_rad, phase_rad = -flip_rad, phase_rad + np.pi
        pulse = self.pp.make_block_pulse(
            flip_angle=flip_rad,
            duration=self.pulse_s,
            phase_offset=float(np.mod(-phase_rad, 2 * np.pi)),
            delay=self.system.rf_dead_time,
            system=self.system,
            use=use,
        )
        self._event(pulse, self.before_pulse_s)

    def saturate(
        self,
        b1_hz: Float[np.ndarray, " samples"],
        duration_s: float,
        offset_hz: float,
        phase_rad: float = 0.0,
    ) -> None:
        """A pulse that begins at the last centre, each sample held for its part of it."""
        if np.any(b1_hz):
            self._event(
                self._long_pulse(b1_hz, duration_s, offset_hz, phase_rad), self.system.rf_dead_time
            )
        self.centre_s += duration_s

    def _long_pulse(self, b1_hz, duration_s: float, offset_hz: float, phase_rad: float):
        steps = max(round(duration_s / self.system.rf_raster_time), 1)
        turned = phase_rad + (np.pi if b1_hz.size == 1 and b1_hz[0] < 0 else 0.0)
        options = {
            "delay": self.system.rf_dead_time,
            "freq_offset": offset_hz,
            "phase_offset": float(np.mod(-turned, 2 * np.pi)),
            "system": self.system,
            "use": "saturation",
        }
        if b1_hz.size == 1:
            duration_s = steps * self.system.rf_raster_time
            flip = float(2 * np.pi * abs(b1_hz[0]) * duration_s)
            return self.pp.make_block_pulse(flip_angle=flip, duration=duration_s, **options)
        held = b1_hz[np.arange(steps) * b1_hz.size // steps]
        return self.pp.make_arbitrary_rf(
            signal=held + 0j, flip_angle=1.0, no_signal_scaling=True, **options
        )

    def readout(self, receiver_rad: float) -> None:
        """Samples about the last centre."""
        adc = self.pp.make_adc(
            num_samples=SAMPLES,
            duration=READOUT_S,
            delay=self.system.adc_dead_time,
            phase_offset=float(np.mod(-receiver_rad, 2 * np.pi)),
            system=self.system,
        )
        self._event(adc, self.before_readout_s)

    def gradients(self, events: Many[SimpleNamespace], duration_s: float) -> None:
        """A block of gradients, or of rest, now."""
        if duration_s <= 1e-9:
            return
        self.sequence.add_block(*events, self.pp.make_delay(duration_s))
        self.now_s += duration_s

    def finish(self) -> Any:
        """The sequence, after the rest that is left."""
        self._fill(max(self.centre_s, self.now_s + self._gradient_s(self._owed())))
        return self.sequence

    def shortest(self, axis: str, area_per_m: float) -> SimpleNamespace:
        """The shortest trapezoid of an area."""
        return self.pp.make_trapezoid(channel=axis, area=float(area_per_m), system=self.system)

    def _owed(self) -> Float[np.ndarray, "3"]:
        if self.spoiler is None:
            return self.area_per_m
        return self.area_per_m + self.spoiler * self.spoiling_per_m

    def _gradient_s(self, area_per_m: Float[np.ndarray, "3"]) -> float:
        lengths = [
            self.pp.calc_duration(self.shortest(axis, area))
            for axis, area in zip(AXES, area_per_m, strict=True)
            if area
        ]
        return self.rounded_up(max(lengths, default=0.0))

    def rounded_up(self, time_s: float) -> float:
        """To the block raster."""
        return float(np.ceil(time_s / self.raster - 1e-6) * self.raster)

    def _event(self, event: SimpleNamespace, to_centre_s: float) -> None:
        """An event with its centre at `centre_s`, what is before it filled."""
        if self.timeless:
            largest = self.area_per_m + max(SPOILERS[0]) * self.spoiling_per_m
            needed = self.now_s + self._gradient_s(largest) + to_centre_s
            self.borrowed_s += max(needed - self.centre_s, 0.0)
            self.centre_s = max(needed, self.centre_s)
        self._fill(self.centre_s - to_centre_s)
        duration = self.rounded_up(self.pp.calc_duration(event))
        self.sequence.add_block(event, self.pp.make_delay(duration))
        self.now_s += duration
        self.timeless = False

    def _fill(self, until_s: float) -> None:
        """Gradient and rest up to a time."""
        free = float(np.round((until_s - self.now_s) / self.raster) * self.raster)
        where = f"write_pulseq: {self.now_s * 1e3:.3f} ms"
        if free < -1e-9:
            found = f"an interval {-free * 1e3:.3f} ms shorter than its pulses and readout"
            raise InputError(Problem(where, found, "room for all", "a TE or spacing too short"))
        owed = self._owed()
        if self._gradient_s(owed) > free + 1e-9:
            found = f"{free * 1e3:.3f} ms for a gradient of {np.abs(owed).max():.0f} cycles/m"
            expected = "an interval long enough for the system's gradients"
            cause = "a TE or TR too short, or moment_cycles_per_mm too large"
            raise InputError(Problem(where, found, expected, cause))
        played = [
            self.pp.make_trapezoid(channel=axis, area=area, duration=free, system=self.system)
            for axis, area in zip(AXES, owed.tolist(), strict=True)
            if area
        ]
        self.gradients(played, free)
        self.area_per_m, self.spoiler = np.zeros(3), None
