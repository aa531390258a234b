"""Raw k-space in, from the ISMRM raw data format."""

from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.io.lines import STEPS, Line, Space, assemble
from mrphys.raw import RawData

DAMAGED = "an interrupted copy, or another format renamed"
LEFT_OUT = (
    "ACQ_IS_NAVIGATION_DATA",
    "ACQ_IS_PHASECORR_DATA",
    "ACQ_IS_HPFEEDBACK_DATA",
    "ACQ_IS_RTFEEDBACK_DATA",
    "ACQ_IS_DUMMYSCAN_DATA",
    "ACQ_IS_SURFACECOILCORRECTIONSCAN_DATA",
    "ACQ_IS_PHASE_STABILIZATION",
    "ACQ_IS_PHASE_STABILIZATION_REFERENCE",
    "ACQ_IS_PARALLEL_CALIBRATION",
)
LPS_TO_RAS = np.array([-1.0, -1.0, 1.0])


def read_ismrmrd(path: str | Path) -> RawData:
    """Samples of an ISMRMRD file, sorted into images.

    Cartesian lines go to their places on the grid, by their trajectory where there is one, else by
    counters and the header's centre: reversed lines are turned, averages added, oversampling of
    full readouts is cut, partial Fourier and undersampling leave zeros, repetitions, contrasts,
    phases, sets and slices become axes. Other readouts, and lines that miss the grid by a fifth of
    a step, keep their trajectory: in cycles per field of view, or, where none is beyond 0.51, in
    cycles per voxel of the encoded matrix. Measurements of noise are kept apart, their variance
    referred to the images' dwell time and the header's noise bandwidth. Positions and directions
    are taken as the patient's (LPS).

    Navigators, phase correction and calibration that is not of images are left out, as are
    encodings after the first; lines of EPI are not corrected for delays.

    Raises InputError for a file that is missing, damaged or of another format, a header that the
    `ismrmrd` package rejects, no line of an image, samples that are not finite, readouts of
    different coils, lines beyond the matrix, and readouts without the trajectory that their header
    names.

    Source: Inati et al. 2017, doi:10.1002/mrm.26089.
    """
    where = str(path)
    with open_hdf5(path) as file:
        try:
            group: Any = next(
                group for group in _groups(file) if "xml" in group and "data" in group
            )
            xml, rows = group["xml"][0], group["data"][:]
        except StopIteration:
            there = ", ".join(file) or "nothing"
            found = f"HDF5 that holds {there}"
            expected = "a group of ISMRMRD, with xml and data"
            raise InputError(Problem(where, found, expected, "another format")) from None
        except (OSError, RuntimeError, KeyError, ValueError) as error:
            found = f"data that cannot be read ({_first(error)})"
            raise InputError(Problem(where, found, "whole HDF5", DAMAGED)) from error
    space, bandwidth = header(where, xml)
    return _sorted(where, rows, space, bandwidth)


def open_hdf5(path: str | Path) -> h5py.File:
    """An HDF5 file to read. Raises InputError where it is missing, truncated or not HDF5."""
    where = str(path)
    if not Path(path).is_file():
        found = "a folder" if Path(path).is_dir() else "no file"
        raise InputError(Problem(where, found, "raw data in HDF5", "a mistyped name"))
    try:
        return h5py.File(path, "r")
    except OSError as error:
        cut = "truncated" in str(error)
        found = "a truncated file" if cut else f"a file that is not HDF5 ({_first(error)})"
        raise InputError(Problem(where, found, "raw data in HDF5", DAMAGED)) from error


def header(where: str, xml: bytes | str) -> tuple[Space, float]:
    """The first encoding of a header, and the relative bandwidth of its noise. Raises InputError
    where the `ismrmrd` package rejects it, or it holds no encoding."""
    import ismrmrd.xsd

    try:
        read: Any = ismrmrd.xsd.CreateFromDocument(xml)
        encoding = read.encoding[0]
        spaces = (encoding.encodedSpace, encoding.reconSpace)
        sizes = [(int(m.x), int(m.y), int(m.z)) for m in (s.matrixSize for s in spaces)]
        fovs = [(float(f.x), float(f.y), float(f.z)) for f in (s.fieldOfView_mm for s in spaces)]
    except Exception as error:  # whatever its XML parser finds wrong
        found = f"a header that the ismrmrd package rejects ({type(error).__name__}: "
        found += f"{_first(error)})"
        cause = "XML of another version of the format, or edited by hand"
        raise InputError(Problem(where, found, "a header of its schema", cause)) from error
    if min(min(size) for size in sizes) < 1 or not all(f > 0 for fov in fovs for f in fov):
        found = f"matrices {sizes} of fields of view {fovs} mm"
        raise InputError(Problem(f"{where}: header", found, "sizes above 0", "an unfilled header"))
    limits = encoding.encodingLimits
    each = [getattr(limits, f"kspace_encoding_step_{i}", None) for i in (1, 2)]
    system = read.acquisitionSystemInformation
    about = _about(read, system)
    if len(read.encoding) > 1:
        about["encodings_left_out"] = len(read.encoding) - 1
    kind = str(encoding.trajectory.value)
    centre = tuple(None if limit is None else int(limit.center) for limit in each)
    space = Space(
        sizes[0], fovs[0], sizes[1], fovs[1],
        (centre[0], centre[1]), kind in ("cartesian", "epi"), about | {"trajectory": kind},
    )  # fmt: skip
    bandwidth = getattr(system, "relativeReceiverNoiseBandwidth", None)
    return space, float(bandwidth or 1.0)


def _about(read: Any, system: Any) -> dict[str, Any]:
    """What a sidecar tells of an image."""
    timing = read.sequenceParameters
    found = {
        "ProtocolName": getattr(read.measurementInformation, "protocolName", None),
        "Manufacturer": getattr(system, "systemVendor", None),
        "ManufacturersModelName": getattr(system, "systemModel", None),
        "MagneticFieldStrength": getattr(system, "systemFieldStrength_T", None),
    }
    for name, key, scale in (
        ("RepetitionTime", "TR", 1e-3), ("EchoTime", "TE", 1e-3), ("InversionTime", "TI", 1e-3),
        ("FlipAngle", "flipAngle_deg", 1.0),
    ):  # fmt: skip
        values = [scale * float(v) for v in getattr(timing, key, None) or []]
        found[name] = values[0] if len(values) == 1 else values or None
    return {name: value for name, value in found.items() if value is not None}


def _sorted(where: str, rows: np.ndarray, space: Space, bandwidth: float) -> RawData:
    import ismrmrd

    def bit(name: str) -> int:
        return 1 << (getattr(ismrmrd, name) - 1)

    left_out = sum(bit(name) for name in LEFT_OUT)
    lines, noise, noise_us, image_us = [], [], 0.0, 0.0
    for row in rows:
        head = row["head"]
        flags, coils, samples = (
            int(head[n]) for n in ("flags", "active_channels", "number_of_samples")
        )
        data = np.asarray(row["data"], np.float32)
        if data.size != 2 * coils * samples:
            found = f"a readout of {data.size // 2} values for {coils} coils x {samples} samples"
            raise InputError(Problem(where, found, "a value for each", DAMAGED))
        data = data.view(np.complex64).reshape(coils, samples)
        if flags & bit("ACQ_IS_NOISE_MEASUREMENT"):
            noise.append(data)
            noise_us = float(head["sample_time_us"])
            continue
        if flags & left_out or int(head["encoding_space_ref"]):
            continue
        image_us = float(head["sample_time_us"])
        lines.append(_line(where, head, data, row["traj"], bool(flags & bit("ACQ_IS_REVERSE"))))
    kept = np.concatenate(noise, axis=1) if noise else None
    ratio = noise_us / (image_us * bandwidth) if noise_us > 0 and image_us > 0 else 1.0
    return assemble(where, lines, space, kept, ratio)


def _line(
    where: str, head: np.void, data: np.ndarray, trajectory: np.ndarray, is_reversed: bool
) -> Line:
    samples, axes = data.shape[1], int(head["trajectory_dimensions"])
    first, last = int(head["discard_pre"]), samples - int(head["discard_post"])
    k = None
    if axes:
        points = np.asarray(trajectory, np.float32)
        if points.size != samples * axes:
            found = f"{points.size} numbers for {samples} points of {axes} axes"
            raise InputError(Problem(f"{where}: trajectory", found, "one for each", DAMAGED))
        k = points.reshape(samples, axes)[first:last]
    names = (*STEPS, "average", "slice", "contrast", "phase", "repetition", "set")
    place = np.stack([head[n] for n in ("position", "read_dir", "phase_dir", "slice_dir")])
    return Line(
        data[:, first:last],
        {name: int(head["idx"][name]) for name in names},
        k,
        int(head["center_sample"]) - first,
        is_reversed,
        place.astype(float) * LPS_TO_RAS,
    )


def _groups(file: h5py.File) -> list[h5py.Group]:
    return [item for item in file.values() if isinstance(item, h5py.Group)]


def _first(error: Exception) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:120]
