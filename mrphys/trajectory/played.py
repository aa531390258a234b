"""The trajectory of a sequence."""

import numpy as np
from jaxtyping import Float

from mrphys.errors import InputError, Problem
from mrphys.events import Scan


def of_scan(scan: Scan) -> Float[np.ndarray, "readouts samples axes"]:
    """k of every readout of images in cycles per field of view, of the axes that are encoded.

    Navigators and measurements of noise are left out. Raises InputError where the sequence names no
    FOV, encodes no position, or has readouts of different length.
    """
    shape = scan.matrix()
    axes = [axis for axis, n in enumerate(shape) if n > 1]
    lengths = {r.samples for r in scan.readouts if not r.is_calibration}
    where = scan.name or "Scan"
    if not axes or len(lengths) != 1:
        found = "no encoding" if not axes else f"readouts of {sorted(lengths)} samples"
        raise InputError(Problem(where, found, "readouts of one length that encode an axis"))
    assert scan.fov_mm is not None
    used = np.concatenate([np.full(r.samples, not r.is_calibration) for r in scan.readouts])
    k = (scan.trajectory() * np.array(scan.fov_mm))[used][:, axes]
    return k.reshape(-1, lengths.pop(), len(axes))
