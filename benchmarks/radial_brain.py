"""Turn the radial brain of gpuNUFFT's source archive into raw data that `mrphys reconstruct` reads.

    make data

or, by hand,

    pip download --no-deps --no-binary gpunufft --dest .cache/data gpunufft==0.10.8
    python benchmarks/radial_brain.py .cache/data/gpunufft-0.10.8.tar.gz --out .cache/data

A head measured with 32 coils, 64 spokes of 512 samples (readout oversampled twice, 256² voxels), in
the archive's matlab/demo/data/brain_64spokes.mat. Its field of view is told nowhere: 1 mm voxels
are assumed, 3 mm thick. Please cite Knoll, Schwarzl, Diwoky, Sodickson 2014, Proc. ISMRM 22, 4297,
as its licence (MIT) asks.

    mrphys reconstruct .cache/data/radial_brain.h5 --out results/brain
"""

import argparse
import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
from scipy.io import loadmat

from mrphys.errors import InputError, Problem
from mrphys.io import write_raw
from mrphys.raw import RawData

MEMBER = "gpunufft-0.10.8/matlab/demo/data/brain_64spokes.mat"
SHA256 = "8246483fe3596a55aafe171c05b1500008b64be14e235aea312866f9ca9b0789"
VOXEL_MM, THICK_MM = 1.0, 3.0


def read_archive(path: Path) -> RawData:
    """The data of the archive. Raises InputError where it is another, or damaged."""
    try:
        with tarfile.open(path) as archive:
            member = archive.extractfile(MEMBER)
            content = member.read() if member is not None else b""
    except (OSError, KeyError, tarfile.TarError) as error:
        expected = "the source archive of gpunufft 0.10.8"
        raise InputError(Problem(str(path), f"no {MEMBER} ({error})", expected)) from error
    if hashlib.sha256(content).hexdigest() != SHA256:
        raise InputError(Problem(str(path), "other data", f"SHA-256 {SHA256}", "another version"))
    read = loadmat(io.BytesIO(content))
    y, k = read["rawdata"], read["k"]  # (samples, spokes, coils), cycles per voxel
    samples, spokes, coils = y.shape
    size = samples // 2
    points = np.stack([k.real, k.imag], -1).swapaxes(0, 1).reshape(-1, 2) * size
    # as it looks, the first axis to the back of the head; which side is left is told nowhere
    axes = np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    affine = np.eye(4)
    affine[:3, :3] = axes * np.array([VOXEL_MM, VOXEL_MM, THICK_MM])
    affine[:3, 3] = -affine[:3, :3] @ np.array([size // 2, size // 2, 0])
    return RawData(
        y=y.transpose(2, 1, 0).reshape(coils, spokes * samples).astype(np.complex64),
        shape=(size, size),
        fov_mm=(size * VOXEL_MM, size * VOXEL_MM),
        trajectory=points.astype(np.float32),
        readout=samples,
        affine=affine,
        provenance={"file": path.name, "ProtocolName": "radial brain"},
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("archive", type=Path)
    parser.add_argument("--out", type=Path, default=Path(".cache/data"))
    given = parser.parse_args()
    target = given.out / "radial_brain.h5"
    write_raw(target, read_archive(given.archive))
    print(target)


if __name__ == "__main__":
    main()
