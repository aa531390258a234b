"""Raw k-space in, as the fastMRI data set stores it."""

from pathlib import Path
from typing import Any

import numpy as np

from mrphys.errors import InputError, Problem
from mrphys.io.ismrmrd_reader import DAMAGED, header, open_hdf5
from mrphys.io.lines import Line, Space, assemble
from mrphys.raw import RawData


def read_fastmri(path: str | Path) -> RawData:
    """Samples of a fastMRI file: kspace (slices, coils, readout, phase) or, of a single coil,
    (slices, readout, phase); with ismrmrd_header its field of view, with mask (phase,) or
    (slices, phase) the lines taken. Without a mask, lines of zeros alone were not taken.
    Oversampling of the readout is cut where the header tells of it.

    Raises InputError for a file that is missing, damaged or of another format, a header that the
    `ismrmrd` package rejects, a mask of another shape, samples that are not finite,
    and none at all.

    Source: Zbontar et al. 2018, arXiv:1811.08839.
    """
    where = str(path)
    with open_hdf5(path) as opened:
        file: Any = opened
        if "kspace" not in file:
            there = ", ".join(file) or "nothing"
            raise InputError(Problem(where, f"HDF5 that holds {there}", "kspace of fastMRI"))
        try:
            y = np.asarray(file["kspace"])
            mask = np.asarray(file["mask"]) if "mask" in file else None
            xml = file["ismrmrd_header"][()] if "ismrmrd_header" in file else None
        except (OSError, RuntimeError) as error:
            found = f"data that cannot be read ({str(error)[:120]})"
            raise InputError(Problem(where, found, "whole HDF5", DAMAGED)) from error
    if y.ndim == 3:
        y = y[:, None]
    if y.ndim != 4 or not np.iscomplexobj(y):
        found = f"kspace of shape {y.shape}, {y.dtype}"
        raise InputError(Problem(where, found, "complex (slices, coils, readout, phase)"))
    slices, _, nx, ny = y.shape
    taken = np.any(y != 0, axis=(1, 2))
    if mask is not None:
        if mask.shape[-1:] != (ny,) or mask.size not in (ny, slices * ny):
            found = f"a mask of shape {mask.shape}, kspace {y.shape}"
            raise InputError(Problem(f"{where}: mask", found, f"({ny},) or ({slices}, {ny})"))
        taken = taken & np.broadcast_to(mask.reshape(-1, ny) != 0, (slices, ny))
    lines = [
        Line(y[s, :, :, j], {"slice": int(s), "kspace_encode_step_1": int(j)}, centre=nx // 2)
        for s, j in np.argwhere(taken)
    ]
    return assemble(where, lines, _space(where, xml, nx, ny))


def _space(where: str, xml: bytes | str | None, nx: int, ny: int) -> Space:
    if xml is None:
        size = (nx, ny, 1)
        fov = (float(nx), float(ny), 1.0)
        return Space(size, fov, size, fov, about={"note": "no header: voxels taken as 1 mm"})
    said, _ = header(where, xml)
    x_mm, y_mm, z_mm = said.encoded_mm
    fov = (x_mm, y_mm * ny / said.encoded[1], z_mm)  # arrays may be filled up beyond the header's
    return Space((nx, ny, 1), fov, said.shown, said.shown_mm, about=said.about)
