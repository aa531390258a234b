"""A trajectory as a Pulseq file: excitation, readout along each shot, spoiling."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import CubicSpline

from mrphys.errors import InputError, Problem
from mrphys.events import Gradient
from mrphys.io.output import whole_file
from mrphys.units import check_flip_rad, check_range

AXES = ("x", "y", "z")
SPOILER_CYCLES = 4.0


def write_readouts(
    path: str | Path,
    trajectory: Float[Array | np.ndarray, "shots samples axes"],
    fov_mm: tuple[float | int, ...],
    dwell_s: float,
    *,
    flip_rad: float = 0.2,
    tr_s: float | None = None,
    thickness_mm: float | None = None,
    system: Any = None,
) -> None:
    """Write a spoiled gradient echo along a trajectory as Pulseq 1.5.

    trajectory    k in cycles per field of view, two axes (x, y) or three
    fov_mm        of each axis
    dwell_s       between samples, whole multiples of the system's ADC raster
    tr_s          between excitations; as short as it gets unless given
    thickness_mm  of a slice, by a sinc pulse of 2 ms; without, a rectangular pulse of 0.1 ms
    system        a `pypulseq.Opts`; 40 mT/m and 170 T/m/s unless given

    Each shot: the pulse, whose centre is k = 0; trapezoids to where the shot begins; the gradient
    from rest along the shot and back to rest; a spoiler of four cycles per field of view (or
    thickness) along z. RF spoiling by steps of 117°. Gradients are held on the system's raster,
    linear between its points: k as played is that given to a fraction of a cycle
    (`mrphys.trajectory.of_scan` of the file tells).

    The file has passed pypulseq's timing check, amplitudes and slew rates of each axis are within
    `system`, or nothing is written. Raises InputError for what the system cannot play, a TR too
    short, and a folder that cannot be written.

    Source: Layton et al. 2017, doi:10.1002/mrm.26235.
    """
    import pypulseq as pp

    path, k = Path(path), np.asarray(trajectory, float)
    if path.suffix != ".seq":
        raise InputError(Problem("write_readouts", path.name, "a name that ends in .seq"))
    if k.ndim != 3 or k.shape[2] not in (2, 3) or len(fov_mm) != k.shape[2] or k.shape[1] < 4:
        found = f"a trajectory {k.shape}, a field of view {fov_mm}"
        expected = "(shots, samples, axes), two or three axes, four samples or more"
        raise InputError(Problem("write_readouts", found, expected))
    check_flip_rad("write_readouts: flip_rad", flip_rad)
    check_range("write_readouts: fov_mm", list(fov_mm), 1.0, 1e4, "mm", "metres given for mm")
    check_range("write_readouts: dwell_s", dwell_s, 1e-7, 1e-3, "s", "microseconds given")
    system = system or pp.Opts(
        max_grad=40, grad_unit="mT/m", max_slew=170, slew_unit="T/m/s",
        rf_dead_time=100e-6, rf_ringdown_time=20e-6, adc_dead_time=10e-6,
    )  # fmt: skip
    sequence = pp.Sequence(system)
    per_m = k * 1e3 / np.asarray(fov_mm)
    deepest = thickness_mm or (fov_mm[2] if len(fov_mm) == 3 else 5.0)
    try:
        for shot, points in enumerate(per_m):
            _shot(
                pp, sequence, system, points, dwell_s, flip_rad, thickness_mm, deepest, shot, tr_s
            )
    except (ValueError, AssertionError, RuntimeError) as error:
        if isinstance(error, InputError):
            raise
        cause = "a trajectory too fast: mrphys.trajectory.Limits tells by how much"
        found = str(error).strip().splitlines()[0]
        raise InputError(
            Problem("write_readouts", found, "what the system plays", cause)
        ) from error
    ok, errors = sequence.check_timing()
    if not ok:
        raise InputError(Problem("write_readouts", str(errors[0]), "timing pypulseq accepts"))
    sequence.set_definition("FOV", [*(1e-3 * np.asarray(fov_mm)), 1e-3 * deepest][:3])
    sequence.set_definition("Name", path.stem)
    with whole_file(path) as draft:
        sequence.write(str(draft))


def _shot(
    pp: Any,
    sequence: Any,
    system: Any,
    points: Float[np.ndarray, "samples axes"],
    dwell_s: float,
    flip_rad: float,
    thickness_mm: float | None,
    deepest_mm: float,
    shot: int,
    tr_s: float | None,
) -> None:
    phase = float(np.mod(np.deg2rad(117.0) * shot * (shot + 1) / 2, 2 * np.pi))
    options = {
        "flip_angle": flip_rad, "phase_offset": phase, "delay": system.rf_dead_time,
        "system": system, "use": "excitation",
    }  # fmt: skip
    begun = sum(sequence.block_durations.values())
    refocus = 0.0
    if thickness_mm is None:
        sequence.add_block(pp.make_block_pulse(duration=1e-4, **options))
    else:
        pulse, select, back = pp.make_sinc_pulse(
            duration=2e-3, slice_thickness=1e-3 * thickness_mm, apodization=0.5,
            time_bw_product=4, return_gz=True, **options,
        )  # fmt: skip
        sequence.add_block(pulse, select)
        refocus = back.area
    waves, lead_s, first = _waveforms(points, dwell_s, system)
    areas = [*first, *[0.0] * (3 - len(first))]
    areas[2] += refocus
    before = [
        pp.make_trapezoid(axis, area=float(area), system=system)
        for axis, area in zip(AXES, areas, strict=True)
        if abs(area) > 1e-6
    ]
    if before:
        longest = max(pp.calc_duration(event) for event in before)
        sequence.add_block(*before, pp.make_delay(longest))
    adc = pp.make_adc(
        points.shape[0], dwell=dwell_s, delay=lead_s, phase_offset=phase, system=system
    )
    played = [
        pp.make_arbitrary_grad(axis, wave, first=0.0, last=0.0, system=system)
        for axis, wave in zip(AXES, waves, strict=False)
        if np.abs(wave).max() > 0
    ]
    end = max(pp.calc_duration(event) for event in (adc, *played))
    rounded = np.ceil(end / system.block_duration_raster - 1e-6) * system.block_duration_raster
    sequence.add_block(*played, adc, pp.make_delay(rounded))
    sequence.add_block(
        pp.make_trapezoid("z", area=SPOILER_CYCLES * 1e3 / deepest_mm, system=system)
    )
    if tr_s is not None:
        left = tr_s - (sum(sequence.block_durations.values()) - begun)
        if left < -1e-9:
            found, expected = f"a TR of {1e3 * tr_s:g} ms", f"{1e3 * (tr_s - left):.4g} ms or more"
            raise InputError(Problem("write_readouts: tr_s", found, expected))
        if left > 1e-9:
            sequence.add_block(pp.make_delay(round(left / 1e-5) * 1e-5))


def _waveforms(
    points: Float[np.ndarray, "samples axes"], dwell_s: float, system: Any
) -> tuple[Float[np.ndarray, "axes raster"], float, Float[np.ndarray, " axes"]]:
    """Gradients in Hz/m at the raster's middles, from rest to rest; when the readout begins; the
    area in cycles/m that is to be played before."""
    raster = system.grad_raster_time
    samples = points.shape[0]
    along = CubicSpline((np.arange(samples) + 0.5) * dwell_s, points, axis=0)
    gradient = along.derivative()
    duration = samples * dwell_s
    start, stop = gradient(0.5 * dwell_s), gradient(duration - 0.5 * dwell_s)
    steepest = 0.9 * system.max_slew
    up, down = (
        max(int(np.ceil(np.abs(edge).max() / steepest / raster)), 1) + 1 for edge in (start, stop)
    )
    count = int(np.ceil(duration / raster))
    middle = (np.arange(count) + 0.5) * raster
    inside = gradient(np.clip(middle, 0.5 * dwell_s, duration - 0.5 * dwell_s))
    rise, fall = ((np.arange(n) + 0.5)[:, None] / n for n in (up, down))
    wave = np.concatenate([rise * start, inside, (1 - fall) * inside[-1]])
    times = np.concatenate([[0.0], (np.arange(len(wave)) + 0.5) * raster, [len(wave) * raster]])
    at = np.array([up * raster + 0.5 * dwell_s])
    played = [Gradient(times, np.concatenate([[0.0], w, [0.0]])).moment(at)[0] for w in wave.T]
    return wave.T, up * raster, points[0] - np.array(played)
