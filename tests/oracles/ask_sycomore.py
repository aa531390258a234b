# pyright: reportMissingImports=false
"""sycomore's phase graphs of one voxel, event by event: regular ones in float64.

Its pulses turn counter-clockwise about their axis and its `delta_omega` f adds exp(+2πi f t): our
clockwise pulse of phase φ is its own of φ + π, our b0 the negative of f. A unit moment shifts by
one; with diffusion every interval carries the gradient that makes its moment in its time.
"""

import sys
from pathlib import Path

import numpy as np
import sycomore
from sycomore.units import Hz, m, mm, rad, s

folder = Path(sys.argv[1])
with np.load(folder / "given.npz") as arrays:
    given = dict(arrays)

tesla_per_metre = sycomore.units.T / m
adc, moment = float(given["adc_mm2_per_s"]), float(given["moment_rad_per_mm"])
gamma = sycomore.gamma.magnitude  # rad/s/T, multiplied in again
unit = moment * 1e3 / gamma if moment else 0.0
species = sycomore.Species(
    1 / float(given["t1_s"]) * Hz,
    1 / float(given["t2_s"]) * Hz,
    adc * mm**2 / s,
    delta_omega=-float(given["b0_hz"]) * Hz,
)
model = sycomore.epg.Regular(species, unit_gradient_area=unit * tesla_per_metre * s)
seen = []
for kind, *values in given["events"]:
    if kind == 0:
        flip, phase = values[:2]
        model.apply_pulse(flip * rad, (phase + np.pi) * rad)
    else:
        time, shift, reads, receiver = values
        if moment and shift and time:
            model.apply_time_interval(time * s, shift * unit / time * tesla_per_metre)
        else:
            if moment and time:  # without any gradient it would leave diffusion out
                model.diffusion(time * s, 1e-9 * unit / time * tesla_per_metre)
            model.relaxation(time * s)
            model.off_resonance(time * s)
            for _ in range(int(shift)):
                model.shift()
        if reads:
            seen.append(model.echo * np.exp(-1j * receiver))
np.savez(folder / "found.npz", signal=np.array(seen))
