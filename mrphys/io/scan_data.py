"""Raw data of a sequence, as simulated, straight into images' order."""

import numpy as np
from jaxtyping import Array, Complex

from mrphys.events import Scan
from mrphys.io.ismrmrd import COUNTERS, Lines, check_samples
from mrphys.io.lines import Line, Space, assemble
from mrphys.raw import RawData

STANDING = np.concatenate([np.zeros((1, 3)), np.eye(3)])


def scan_data(raw: Complex[Array | np.ndarray, "coils samples"], scan: Scan) -> RawData:
    """What `simulate_scan(scan, ...)` made, as `read_ismrmrd` would read it from a file: lines on
    their grid, else with their trajectory, by the labels of the sequence and the frequency offsets
    of slices. Readouts labelled NOISE are noise, those labelled NAV are left out.

    Raises InputError where samples do not match the sequence, it names no FOV, or reads no image.
    """
    where = scan.name or "scan"
    values = np.asarray(raw)
    check_samples(where, values, scan)
    assert scan.fov_mm is not None
    k = (scan.trajectory() * np.array(scan.fov_mm)).astype(np.float32)
    lines = Lines(scan, k)
    shown, fov = scan.matrix(), scan.fov_mm
    more = lines.oversampling
    space = Space(
        (shown[0] * more, *shown[1:]), (fov[0] * more, *fov[1:]), shown, fov,
        cartesian=lines.cartesian, about={"sequence": where},
    )  # fmt: skip
    made, noise = [], []
    first = 0
    dwell_s = {True: 0.0, False: 0.0}
    for i, readout in enumerate(scan.readouts):
        part = slice(first, first + readout.samples)
        first = part.stop
        if readout.counters.get("NAV"):
            continue
        is_noise = bool(readout.counters.get("NOISE"))
        dwell_s[is_noise] = readout.dwell_s
        if is_noise:
            noise.append(values[:, part])
            continue
        counters = {name: lines.counters[i].get(name, 0) for name in COUNTERS.values()}
        centre = int(np.argmin(np.linalg.norm(k[part], axis=1)))
        turned = bool(lines.reversed[i])
        made.append(Line(values[:, part], counters, k[part], centre, turned, STANDING))
    kept = np.concatenate(noise, axis=1) if noise else None
    ratio = dwell_s[True] / dwell_s[False] if noise and made else 1.0
    return assemble(where, made, space, kept, ratio)
