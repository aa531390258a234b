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

    One acquisition for each readout, with its three-axis trajectory in cycles per field of view
    (k times FOV; y(k) = Σ x(r) exp(-2πi k·r)), dwell time, time stamp in ms, and the labels of the
    sequence as counters; without a label LIN, readouts are numbered in order. Values are complex64.

    Raises InputError when samples do not match the sequence, the sequence names no FOV, a readout
    is longer than 65535 samples, a label is negative or beyond 16 bits, or the folder cannot be
    written.

    Source: Inati et al. 2017, doi 10.1002/mrm.26089.
    """
    import ismrmrd

    raw = np.asarray(raw)
    _check(str(path), raw, scan)
    assert scan.fov_mm is not None
    numbered = all("LIN" not in readout.counters for readout in scan.readouts)
    trajectory = (scan.trajectory() * np.array(scan.fov_mm)).astype(np.float32)
    with whole_file(path) as draft:
        draft.unlink()  # the library makes its own file
        with ismrmrd.Dataset(str(draft), "dataset") as dataset:
            dataset.write_xml_header(_header(raw.shape[0], scan, numbered, field_t))
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
                acquisition.read_dir[:] = (1.0, 0.0, 0.0)
                acquisition.phase_dir[:] = (0.0, 1.0, 0.0)
                acquisition.slice_dir[:] = (0.0, 0.0, 1.0)
                for name, value in _counters(readout.counters, number, numbered).items():
                    setattr(acquisition.idx, name, value)
                if number == len(scan.readouts) - 1:
                    acquisition.set_flag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
                dataset.append_acquisition(acquisition)


def _counters(labels, number: int, numbered: bool) -> dict[str, int]:
    counters = {name: labels[label] for label, name in COUNTERS.items() if label in labels}
    if numbered:
        counters["kspace_encode_step_1"] = number
    return counters


def _check(where: str, raw: np.ndarray, scan: Scan) -> None:
    samples = sum(readout.samples for readout in scan.readouts)
    problems = []
    if raw.ndim != 2 or raw.shape[1] != samples:
        expected = f"(coils, {samples}) as the sequence has"
        problems.append(Problem(where, f"raw data of shape {raw.shape}", expected))
    if scan.fov_mm is None:
        problems.append(Problem(where, "a sequence without FOV", "FOV in [DEFINITIONS]"))
    longest = max((readout.samples for readout in scan.readouts), default=0)
    if longest > LARGEST or len(scan.readouts) > LARGEST:
        found = f"{len(scan.readouts)} readouts of up to {longest} samples"
        problems.append(Problem(where, found, f"at most {LARGEST} of each"))
    values = [value for r in scan.readouts for value in r.counters.values()]
    if values and not (min(values) >= 0 and max(values) <= LARGEST):
        problems.append(Problem(where, f"labels {min(values)} to {max(values)}", "0 to 65535"))
    if problems:
        raise InputError(*problems)


def _header(coils: int, scan: Scan, numbered: bool, field_t: float) -> bytes:
    import ismrmrd.xsd as xsd

    assert scan.fov_mm is not None
    fov_x, fov_y, fov_z = scan.fov_mm
    trajectory = scan.trajectory() * np.array(scan.fov_mm)
    extent = trajectory.max(0) - trajectory.min(0)
    x, y, z = (int(np.rint(cycles)) + 1 for cycles in extent)
    space = xsd.encodingSpaceType(
        matrixSize=xsd.matrixSizeType(x=x, y=y, z=z),
        fieldOfView_mm=xsd.fieldOfViewMm(x=fov_x, y=fov_y, z=fov_z),
    )
    limits = xsd.encodingLimitsType()
    counters = [_counters(r.counters, i, numbered) for i, r in enumerate(scan.readouts)]
    for name in COUNTERS.values():
        values = [counter.get(name, 0) for counter in counters]
        limit = xsd.limitType(minimum=min(values), maximum=max(values), center=max(values) // 2)
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
                encodedSpace=space,
                reconSpace=space,
                encodingLimits=limits,
                trajectory=xsd.trajectoryType.OTHER,
            )
        ],
    )
    return xsd.ToXML(header).encode()
