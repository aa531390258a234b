"""Pulseq files in: .seq 1.2 to 1.5 through pypulseq, refused where they could not be played."""

import re
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.events import Gradient, Pulse, Readout, Scan

SECTIONS = {
    "VERSION", "DEFINITIONS", "BLOCKS", "RF", "GRADIENTS", "TRAP", "ADC", "DELAYS", "SHAPES",
    "EXTENSIONS", "SIGNATURE",
}  # fmt: skip
RASTERS = (
    "AdcRasterTime",
    "BlockDurationRaster",
    "GradientRasterTime",
    "RadiofrequencyRasterTime",
)
# Soft delays stand at the default that the file's block durations hold.
EXTENSIONS = {"LABELSET", "LABELINC", "TRIGGERS", "DELAYS"}
CUT = "an interrupted copy"


def read_pulseq(path: str | Path) -> Scan:
    """The sequence of a Pulseq file, format 1.2 to 1.5, as a scanner would play it.

    Gradients, in Hz/m there, are in Hz/mm. Pulseq counts phase in the sense of precession, so its
    pulses are exp(i(φ + 2πΔf t)) and its receiver exp(-i(φ + 2πΔf t)); here precession is
    clockwise, so both are conjugated: phases change sign, and a positive frequency offset still
    addresses spins of positive off-resonance. Labels are kept as counters of each readout; soft
    delays stand at their default; output triggers are left out, as they change no signal.

    Raises InputError naming the file when it is missing, not Pulseq, of another version, truncated,
    lacks a raster time (from 1.4 on) or an event it refers to, samples during a pulse, or uses
    what would change the signal but cannot be simulated: rotations, shims, input triggers, unknown
    extensions and labels, gradients that do not fit their block.

    Source: Layton et al. 2017, doi 10.1002/mrm.26235; the format's specification.
    """
    where = str(path)
    text = _text(path)
    version = _check_version(where, text)
    _check_sections(where, text, version)
    try:
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as folder:
            warnings.simplefilter("ignore")
            import pypulseq

            whole = Path(folder) / "whole.seq"  # pypulseq never returns from a file cut in a shape
            whole.write_text(text + "\n\n", encoding="utf-8")
            sequence = pypulseq.Sequence(pypulseq.Opts(adc_dead_time=0), use_block_cache=True)
            sequence.read(str(whole), detect_rf_use=version < (1, 5), remove_duplicates=False)
            return _scan(where, sequence, version)
    except InputError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {error}".partition("\n")[0]
        found = f"a file that cannot be read ({reason})"
        raise InputError(Problem(where, found, "a whole Pulseq file", CUT)) from error


def _text(path: str | Path) -> str:
    where, expected = str(path), "a Pulseq file (.seq)"
    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "no file"
        raise InputError(Problem(where, found, expected, "a mistyped or unfinished name"))
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = f"a file that is not text ({error})"
        raise InputError(Problem(where, reason, expected, "another format renamed")) from error
    if "[VERSION]" not in text and "[BLOCKS]" not in text:
        found = "an empty file" if not text.strip() else "no section [VERSION] or [BLOCKS]"
        raise InputError(Problem(where, found, expected, "another format renamed"))
    return text.replace("\r\n", "\n")


def _check_version(where: str, text: str) -> tuple[int, int]:
    """Major and minor version of the format, one that is known."""
    section = text.partition("[VERSION]")[2].partition("[")[0]
    numbers = dict(re.findall(r"^\s*(major|minor)\s+(\d+)\s*$", section, re.MULTILINE))
    if set(numbers) != {"major", "minor"}:
        raise InputError(Problem(where, "no version", "[VERSION] with major and minor"))
    version = int(numbers["major"]), int(numbers["minor"])
    if not (1, 2) <= version <= (1, 5):
        found = f"Pulseq version {version[0]}.{version[1]}"
        cause = "a newer format: write it as 1.5" if version > (1, 5) else "a very old file"
        raise InputError(Problem(where, found, "version 1.2 to 1.5", cause))
    return version


def _check_sections(where: str, text: str, version: tuple[int, int]) -> None:
    """Raise InputError for all that is missing or that pypulseq would ignore, crash or hang on."""
    problems = []
    names = re.findall(r"^\s*\[(\w+)\]", text, re.MULTILINE)
    problems += [
        Problem(where, f"section [{name}]", "sections of Pulseq 1.2 to 1.5", "an extended format")
        for name in names
        if name not in SECTIONS
    ]
    if "BLOCKS" not in names:
        problems.append(Problem(where, "no section [BLOCKS]", "at least one block", CUT))
    extensions = re.findall(r"^\s*extension\s+(\w+)", text, re.MULTILINE)
    required = re.findall(r"^\s*RequiredExtensions\s+(.*)$", text, re.MULTILINE)
    for name in dict.fromkeys([*extensions, *" ".join(required).split()]):
        if name not in EXTENSIONS:
            expected = f"none but {', '.join(sorted(EXTENSIONS))}"
            problems.append(Problem(where, f"extension {name}", expected))
    problems += _label_problems(where, text)
    definitions = text.partition("[DEFINITIONS]")[2].partition("\n[")[0]
    if version >= (1, 4):
        for name in RASTERS:
            given = re.search(rf"^\s*{name}\s+(\S+)\s*$", definitions, re.MULTILINE)
            if given is None or not _is_positive(given[1]):
                found = f"no {name}" if given is None else f"{name} {given[1]}"
                expected = f"{name} in [DEFINITIONS], seconds above 0"
                problems.append(Problem(where, found, expected, "definitions left out"))
    written = [line for line in text.splitlines() if line.strip() and line.strip()[0] != "#"]
    if written and written[-1].split()[0] in ("shape_id", "num_samples"):  # pypulseq never returns
        found = f"a shape without samples ({written[-1].strip()!r} comes last)"
        problems.append(Problem(where, found, "the samples of every shape", CUT))
    signed = re.search(r"^Hash\s+[0-9a-fA-F]{32}", text, re.MULTILINE)
    if not signed and not text.endswith("\n"):
        found = f"a last line that does not end ({text[-20:].splitlines()[-1]!r})"
        problems.append(Problem(where, found, "whole lines", CUT))
    if problems:
        raise InputError(*problems)


def _label_problems(where: str, text: str):
    from pypulseq.supported_labels_rf_use import get_supported_labels

    known = get_supported_labels()
    for section in re.findall(
        r"^\s*extension\s+LABEL(?:SET|INC)\s+\d+\s*\n((?:\s*\d+.*\n)*)", text, re.MULTILINE
    ):
        for line in section.splitlines():
            words = line.split()
            if len(words) == 3 and words[2] not in known:
                yield Problem(where, f"label {words[2]}", f"one of {', '.join(known)}")


def _is_positive(word: str) -> bool:
    try:
        return 0 < float(word) < np.inf
    except ValueError:
        return False


def _scan(where: str, sequence: Any, version: tuple[int, int]) -> Scan:
    pulses, readouts, pieces = [], [], ([], [], [])
    counters: dict[str, int] = {}
    start = 0.0
    for number in sequence.block_events:
        block = sequence.get_block(number)
        place = f"{where}, block {number}"
        _check_triggers(place, block)
        for label in (block.label or {}).values():
            base = counters.get(label.label, 0) if label.type == "labelinc" else 0
            counters[label.label] = base + int(label.value)
        ends = [0.0]
        if block.rf is not None:
            pulses.append(_pulse(place, block.rf, start, sequence.rf_raster_time))
            ends.append(block.rf.delay + pulses[-1].duration_s)
        for axis, gradient in enumerate((block.gx, block.gy, block.gz)):
            if gradient is not None:
                time, value = _polygon(gradient, sequence.grad_raster_time)
                pieces[axis].append((start + time, value))
                ends.append(time[-1])
        if block.adc is not None:
            readouts.append(_readout(block.adc, start, dict(counters)))
            ends.append(block.adc.delay + block.adc.num_samples * block.adc.dwell)
        duration = float(sequence.block_durations[number])
        if not np.isfinite(ends).all() or max(ends) > duration + 1e-7:
            found = f"events until {max(ends):g} s in a block of {duration:g} s"
            raise InputError(Problem(place, found, "events that end with their block"))
        start += duration
    if not sequence.block_events:
        raise InputError(Problem(where, "no block", "at least one block", CUT))
    definitions = {name: _plain(value) for name, value in sequence.definitions.items()}
    x, y, z = (_joined(axis) for axis in pieces)
    return Scan(
        tuple(pulses),
        (x, y, z),
        tuple(readouts),
        start,
        definitions,
        _fov_mm(where, definitions),
        f"{version[0]}.{version[1]}",
        Path(where).name,
    )


def _plain(value: Any) -> Any:
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value


def _fov_mm(where: str, definitions: dict[str, Any]) -> tuple[float, float, float] | None:
    if "FOV" not in definitions:
        return None
    fov = np.atleast_1d(np.asarray(definitions["FOV"], object))
    if fov.shape != (3,) or not all(isinstance(v, float) and 0 < v < 10 for v in fov):
        found, expected = f"FOV {definitions['FOV']}", "three lengths in metres"
        raise InputError(Problem(where, found, expected, "millimetres given for metres"))
    x, y, z = (1e3 * float(v) for v in fov)
    return x, y, z


def _check_triggers(place: str, block: Any) -> None:
    for trigger in getattr(block, "trigger", {}).values():
        if trigger.type == "trigger":
            found = f"an input trigger ({trigger.channel}), extension TRIGGERS"
            raise InputError(Problem(place, found, "a sequence that waits for nothing"))


def _pulse(place: str, rf: Any, block_start: float, raster: float) -> Pulse:
    """Samples hold over their raster; between given times the field is linear."""
    times, samples = np.asarray(rf.t, float), np.conj(np.asarray(rf.signal, complex))
    if times.size != samples.size or not np.isfinite(samples).all():
        found = f"{samples.size} samples at {times.size} times"
        raise InputError(Problem(place, found, "a finite sample for each time", "a damaged shape"))
    if np.allclose(times, (np.arange(times.size) + 0.5) * raster, rtol=0, atol=1e-10):
        edges = np.arange(times.size + 1) * raster
    else:
        if times.size < 2 or np.any(np.diff(times) < 0):
            raise InputError(Problem(place, "pulse times out of order", "increasing times"))
        width = np.diff(times)
        level = np.abs(np.diff(samples)) <= 1e-9 * np.abs(samples).max(initial=0.0)
        parts = np.where(level, 1, np.maximum(1, np.rint(width / raster))).astype(int)
        parts[width <= 1e-12] = 0
        pairs = list(zip(times[:-1], width, parts, strict=True))
        edges = np.concatenate([a + w * np.arange(n) / n for a, w, n in pairs if n] + [times[-1:]])
        middle = (edges[1:] + edges[:-1]) / 2
        samples = np.interp(middle, times, samples)
        if edges[0] > 1e-12:  # silence until the first sample
            edges, samples = np.insert(edges, 0, 0.0), np.insert(samples, 0, 0.0)
    return Pulse(
        start_s=float(block_start + rf.delay),
        edges_s=edges,
        samples_hz=samples,
        center_s=float(rf.center),
        phase_rad=-float(rf.phase_offset),
        frequency_hz=float(rf.freq_offset),
        phase_rad_per_mhz=-float(rf.phase_ppm),
        frequency_ppm=float(rf.freq_ppm),
        use=rf.use,
    )


def _readout(adc: Any, block_start: float, counters: dict[str, int]) -> Readout:
    modulation = np.asarray(adc.phase_modulation, float)
    return Readout(
        start_s=float(block_start + adc.delay),
        samples=int(adc.num_samples),
        dwell_s=float(adc.dwell),
        phase_rad=-float(adc.phase_offset),
        frequency_hz=float(adc.freq_offset),
        phase_rad_per_mhz=-float(adc.phase_ppm),
        frequency_ppm=float(adc.freq_ppm),
        modulation_rad=-modulation if modulation.size else None,
        counters=counters,
    )


def _polygon(gradient: Any, raster: float) -> tuple[np.ndarray, np.ndarray]:
    """Times from the block's start and Hz/mm at the corners."""
    if gradient.type == "trap":
        durations = [gradient.delay, gradient.rise_time, gradient.flat_time, gradient.fall_time]
        return np.cumsum(durations), 1e-3 * gradient.amplitude * np.array([0.0, 1.0, 1.0, 0.0])
    time, value = np.asarray(gradient.tt, float), np.asarray(gradient.waveform, float)
    if gradient.time_id in (0, -1):  # samples inside their raster: the ends are stored apart
        end = time[-1] + (time[0] if gradient.time_id == 0 else raster / 2)
        time = np.concatenate([[0.0], time, [end]])
        value = np.concatenate([[gradient.first], value, [gradient.last]])
    return gradient.delay + time, 1e-3 * value


def _joined(pieces: list[tuple[np.ndarray, np.ndarray]]) -> Gradient:
    """Polygons one after another, zero between them."""
    times, values = [], []
    for time, value in pieces:
        if times and time[0] - times[-1][-1] > 1e-9:
            times.append(np.array([times[-1][-1], time[0]]))
            values.append(np.zeros(2))
        times.append(time)
        values.append(value)
    if not times:
        return Gradient(np.zeros(0), np.zeros(0))
    return Gradient(np.maximum.accumulate(np.concatenate(times)), np.concatenate(values))
