"""Raw data out, whatever they came from, in the ISMRM raw data format."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.io.ismrmrd import LARGEST
from mrphys.io.output import whole_file
from mrphys.raw import RawData


def write_raw(path: str | Path, raw: RawData) -> None:
    """Write RawData as ISMRMRD in HDF5, whole or not at all: one acquisition for each readout, that
    `read_raw` gives back. Averages are written as their mean, the noise scan first. Values are
    complex64.

    Raises InputError for readouts longer than 65535 samples, trajectories without readouts, and a
    folder that cannot be written.
    """
    import ismrmrd

    lines = list(_lines(str(path), raw))
    with whole_file(path) as draft:
        draft.unlink()  # the library makes its own file
        with ismrmrd.Dataset(str(draft), "dataset") as dataset:
            dataset.write_xml_header(_header(raw))
            for number, (data, k, counters, centre, is_noise) in enumerate(lines):
                one: Any = ismrmrd.Acquisition.from_array(
                    np.ascontiguousarray(data, np.complex64),
                    *([] if k is None else [np.ascontiguousarray(k, np.float32)]),
                )
                one.scan_counter = number
                one.center_sample = centre
                one.available_channels = raw.coils
                one.sample_time_us = raw.noise_ratio if is_noise else 1.0
                directions, position = _place(raw, counters.get("slice", 0))
                one.position[:] = position
                for name, direction in zip(("read", "phase", "slice"), directions, strict=True):
                    getattr(one, f"{name}_dir")[:] = direction
                for name, value in counters.items():
                    setattr(one.idx, name, value)
                if is_noise:
                    one.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
                if number == len(lines) - 1:
                    one.set_flag(ismrmrd.ACQ_LAST_IN_MEASUREMENT)
                dataset.append_acquisition(one)


def _lines(where: str, raw: RawData) -> Iterator[tuple[Any, Any, dict[str, int], int, bool]]:
    length = raw.shape[0] if raw.mask is not None else raw.readout
    if not 0 < length <= LARGEST:
        expected = f"readouts of 1 to {LARGEST} samples"
        raise InputError(Problem(where, f"readouts of {length} samples", expected))
    if raw.noise is not None:
        for first in range(0, raw.noise.shape[1], LARGEST):
            yield raw.noise[:, first : first + LARGEST], None, {}, 0, True
    outer = raw.y.shape[: len(raw.series)]
    for index in np.ndindex(outer):
        counters = dict(zip(raw.series, map(int, index), strict=True))
        y = raw.y[index]
        if raw.trajectory is not None:
            for i in range(raw.readouts):
                part = slice(i * length, (i + 1) * length)
                k = raw.trajectory[index][part]
                centre = int(np.argmin(np.linalg.norm(k, axis=1)))
                yield y[:, part], k, counters | {"kspace_encode_step_1": i}, centre, False
            continue
        assert raw.mask is not None
        root = raw.mask[index]
        for place in np.argwhere(np.any(root > 0, axis=0)):
            at = (slice(None), *place)
            taken = np.flatnonzero(root[at] > 0)
            part = slice(taken[0], taken[-1] + 1)
            data = y[(slice(None), *at)][:, part] / root[at][part]
            steps = {f"kspace_encode_step_{i + 1}": int(step) for i, step in enumerate(place)}
            yield data, None, counters | steps, length // 2 - int(taken[0]), False


def _place(raw: RawData, index: int) -> tuple[np.ndarray, np.ndarray]:
    """Directions and the centre of a slice or volume, LPS."""
    to_lps = np.array([-1.0, -1.0, 1.0])
    if raw.affine is None:
        return np.eye(3) * to_lps, np.zeros(3)
    columns = raw.affine[:3, :3]
    middle = [n // 2 for n in raw.shown] + [index] * (3 - len(raw.shown))
    directions = (columns / np.linalg.norm(columns, axis=0)).T
    return directions * to_lps, (raw.affine[:3, 3] + columns @ np.array(middle)) * to_lps


def _header(raw: RawData) -> bytes:
    import ismrmrd.xsd as xsd

    thick = 1.0 if raw.affine is None else float(np.linalg.norm(raw.affine[:3, 2]))
    shape, shown = ((*size, 1)[:3] for size in (raw.shape, raw.shown))
    fov = (*raw.fov_mm, thick)[:3]
    step = [mm / n for mm, n in zip(fov, shape, strict=True)]
    spaces = [
        xsd.encodingSpaceType(
            matrixSize=xsd.matrixSizeType(**dict(zip("xyz", size, strict=True))),
            fieldOfView_mm=xsd.fieldOfViewMm(
                **{axis: n * mm for axis, n, mm in zip("xyz", size, step, strict=True)}
            ),
        )
        for size in (shape, shown)
    ]
    limits = xsd.encodingLimitsType()
    for i, n in enumerate(shape[1:]):
        limit = xsd.limitType(minimum=0, maximum=n - 1, center=n // 2)
        setattr(limits, f"kspace_encoding_step_{i + 1}", limit)
    for name, n in zip(raw.series, raw.y.shape, strict=False):
        setattr(limits, name, xsd.limitType(minimum=0, maximum=n - 1, center=0))
    grid = raw.mask is not None
    kind = xsd.trajectoryType.CARTESIAN if grid else xsd.trajectoryType.OTHER
    about = raw.provenance
    timing = {"RepetitionTime": "TR", "EchoTime": "TE", "InversionTime": "TI"}
    times: dict[str, Any] = {
        key: [1e3 * v for v in np.atleast_1d(about[name]).tolist()]
        for name, key in timing.items()
        if name in about
    }
    return xsd.ToXML(
        xsd.ismrmrdHeader(
            version=1,
            measurementInformation=xsd.measurementInformationType(
                protocolName=str(about.get("ProtocolName", "raw")),
                patientPosition=xsd.patientPositionType.HFS,
            ),
            acquisitionSystemInformation=xsd.acquisitionSystemInformationType(
                systemFieldStrength_T=about.get("MagneticFieldStrength"),
                receiverChannels=raw.coils,
            ),
            experimentalConditions=xsd.experimentalConditionsType(H1resonanceFrequency_Hz=0),
            encoding=[
                xsd.encodingType(
                    encodedSpace=spaces[0],
                    reconSpace=spaces[1],
                    encodingLimits=limits,
                    trajectory=kind,
                )
            ],
            sequenceParameters=xsd.sequenceParametersType(**times) if times else None,
        )
    ).encode()
