"""Raw k-space out, in the ISMRM raw data format."""

from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Array, Complex

from mrphys.errors import InputError, Problem
from mrphys.events import Scan
from mrphys.io.output import whole_file
from mrphys.units import PROTON_GYROMAGNETIC_RATIO_HZ_PER_T

LARGEST = 65535  # the format counts samples and steps in 16 bits
COUNTERS = {
    "LIN": "kspace_encode_step_1",
    "PAR": "kspace_encode_step_2",
    "AVG": "average",
    "SLC": "slice",
    "ECO": "contrast",
    "PHS": "phase",
    "REP": "repetition",
    "SET": "set",
    "SEG": "segment",
}
LIMITS = {"kspace_encode_step_1": "kspace_encoding_step_1"}
LIMITS["kspace_encode_step_2"] = "kspace_encoding_step_2"


def write_ismrmrd(
    path: str | Path,
    raw: Complex[Array | np.ndarray, "coils samples"],
    scan: Scan,
    *,
    field_t: float = 3.0,
) -> None:
    """Write raw samples as ISMRMRD in HDF5, whole or not at all.

    One acquisition for each readout, with its three-axis trajectory in cycles per field of view of
    the reconstructed space (k times FOV; y(k) = Σ x(r) exp(-2πi k·r)), dwell time, time stamp in
    ms, and the labels of the sequence as counters. Without labels the lines of Cartesian scans are
    counted by their k, other readouts in order, slices by their frequency offset. The encoded
    space is that of oversampled lines; lines read towards lower k are flagged as reversed,
    navigators and noise as such. Values are complex64.

    Raises InputError when samples do not match the sequence, the sequence names no FOV, a readout
    is longer than 65535 samples, a label is negative or beyond 16 bits, or the folder cannot be
    written.

    Source: Inati et al. 2017, doi 10.1002/mrm.26089.
    """
    import ismrmrd

    raw = np.asarray(raw)
    check_samples(str(path), raw, scan)
    assert scan.fov_mm is not None
    trajectory = (scan.trajectory() * np.array(scan.fov_mm)).astype(np.float32)
    lines = Lines(scan, trajectory)
    with whole_file(path) as draft:
        draft.unlink()  # the library makes its own file
        with ismrmrd.Dataset(str(draft), "dataset") as dataset:
            dataset.write_xml_header(_header(raw.shape[0], scan, lines, field_t))
            first = 0
            for number, readout in enumerate(scan.readouts):
                part = slice(first, first + readout.samples)
                first += readout.samples
                acquisition: Any = ismrmrd.Acquisition.from_array(
                    np.ascontiguousarray(raw[:, part], np.complex64),
                    np.ascontiguousarray(trajectory[part]),
                )
                acquisition.scan_counter = number
                acquisition.sample_time_us = readout.dwell_s * 1e6
                acquisition.acquisition_time_stamp = round(readout.start_s * 1e3)
                acquisition.available_channels = raw.shape[0]
                distance = np.linalg.norm(trajectory[part], axis=1)
                acquisition.center_sample = int(np.argmin(distance))
                acquisition.read_dir[:] = (-1.0, 0.0, 0.0)  # LPS: x is to the patient's left
                acquisition.phase_dir[:] = (0.0, -1.0, 0.0)
                acquisition.slice_dir[:] = (0.0, 0.0, 1.0)
                for name, value in lines.counters[number].items():
                    setattr(acquisition.idx, name, value)
                for flag, is_set in (
                    (ismrmrd.ACQ_IS_REVERSE, lines.reversed[number]),
                    (ismrmrd.ACQ_IS_NAVIGATION_DATA, readout.counters.get("NAV")),
                    (ismrmrd.ACQ_IS_NOISE_MEASUREMENT, readout.counters.get("NOISE")),
                ):
                    if is_set:
                        acquisition.set_flag(flag)
                if number == len(scan.readouts) - 1:
                    acquisition.set_flag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
                dataset.append_acquisition(acquisition)


class Lines:
    """What readouts are to a reader that sorts lines: direction, oversampling, counters."""

    def __init__(self, scan: Scan, trajectory: np.ndarray):
        parts = np.split(trajectory, np.cumsum([r.samples for r in scan.readouts])[:-1])
        extent = np.array([np.ptp(k, axis=0) for k in parts])
        images = [i for i, r in enumerate(scan.readouts) if not r.is_calibration]
        rising = np.array([k[-1, 0] - k[0, 0] for k in parts])
        self.cartesian = bool(len(images)) and bool(
            np.all(extent[images, 1:] < 0.1) and np.all(extent[images, 0] > 1)
        )
        self.reversed = (rising < 0) & self.cartesian
        longest = max((scan.readouts[i].samples for i in images), default=1)
        matrix = scan.matrix()
        step = np.abs(rising[images]).max(initial=0.0) / max(longest - 1, 1)
        self.oversampling = max(1, round(1 / step)) if self.cartesian and step > 0 else 1
        offsets, slices = np.unique(scan.excited_hz().round(3), return_inverse=True)
        self.counters = []
        for i, (readout, k) in enumerate(zip(scan.readouts, parts, strict=True)):
            labels = readout.counters
            counters = {name: labels[label] for label, name in COUNTERS.items() if label in labels}
            middle = k[k.shape[0] // 2]
            steps = [round(float(middle[a])) + matrix[a] // 2 for a in (1, 2)]
            if not self.cartesian:
                steps = [i, 0]
            counters.setdefault("kspace_encode_step_1", max(steps[0], 0))
            counters.setdefault("kspace_encode_step_2", max(steps[1], 0))
            if offsets.size > 1:
                counters.setdefault("slice", int(slices[i]))
            self.counters.append(counters)


def misfits(where: str, scan: Scan) -> list[Problem]:
    """What of a sequence the format cannot hold."""
    problems = []
    if scan.fov_mm is None:
        problems.append(Problem(where, "a sequence without FOV", "FOV in [DEFINITIONS]"))
    longest = max((readout.samples for readout in scan.readouts), default=0)
    if longest > LARGEST or len(scan.readouts) > LARGEST:
        found = f"{len(scan.readouts)} readouts of up to {longest} samples"
        problems.append(Problem(where, found, f"at most {LARGEST} of each"))
    values = [v for r in scan.readouts for name, v in r.counters.items() if name in COUNTERS]
    if values and not (min(values) >= 0 and max(values) <= LARGEST):
        problems.append(Problem(where, f"labels {min(values)} to {max(values)}", "0 to 65535"))
    return problems


def check_samples(where: str, raw: np.ndarray, scan: Scan) -> None:
    """Raises InputError where samples do not match a sequence, or the format cannot hold it."""
    samples = sum(readout.samples for readout in scan.readouts)
    problems = misfits(where, scan)
    if raw.ndim != 2 or raw.shape[1] != samples:
        expected = f"(coils, {samples}) as the sequence has"
        problems.append(Problem(where, f"raw data of shape {raw.shape}", expected))
    if problems:
        raise InputError(*problems)


def _header(coils: int, scan: Scan, lines: Lines, field_t: float) -> bytes:
    import ismrmrd.xsd as xsd

    assert scan.fov_mm is not None
    fov_x, fov_y, fov_z = scan.fov_mm
    x, y, z = scan.matrix()
    more = lines.oversampling
    encoded, shown = (
        xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(x=x * factor, y=y, z=z),
            fieldOfView_mm=xsd.fieldOfViewMm(x=fov_x * factor, y=fov_y, z=fov_z),
        )
        for factor in (more, 1)
    )
    kind = xsd.trajectoryType.OTHER
    if lines.cartesian:
        kind = xsd.trajectoryType.EPI if lines.reversed.any() else xsd.trajectoryType.CARTESIAN
    limits = xsd.encodingLimitsType()
    middles = {"kspace_encode_step_1": y // 2, "kspace_encode_step_2": z // 2}
    for name in COUNTERS.values():
        values = [counter.get(name, 0) for counter in lines.counters]
        middle = min(middles.get(name, 0), max(values))
        limit = xsd.limitType(minimum=min(values), maximum=max(values), center=middle)
        setattr(limits, LIMITS.get(name, name), limit)
    header = xsd.ismrmrdHeader(
        version=1,
        measurementInformation=xsd.measurementInformationType(
            protocolName=scan.name or "scan", patientPosition=xsd.patientPositionType.HFS
        ),
        acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
            systemFieldStrength_T=field_t, receiverChannels=coils
        ),
        experimentalConditions=xsd.experimentalConditionsType(
            H1resonanceFrequency_Hz=round(PROTON_GYROMAGNETIC_RATIO_HZ_PER_T * field_t)
        ),
        encoding=[
            xsd.encodingType(
                encodedSpace=encoded,
                reconSpace=shown,
                encodingLimits=limits,
                trajectory=kind,
            )
        ],
    )
    return xsd.ToXML(header).encode()
