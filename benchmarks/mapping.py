"""Voxels fitted a second, bias and calibration of `mr.fit`, model by model.

    python benchmarks/mapping.py                 # the table; --snr 10 for noisier data
    python benchmarks/mapping.py t2 epg          # some of its rows

Warm, float32, one CPU device a core, the fastest of three rounds of 200,000 voxels, fewer of slow
models; the noise's sd is the mean over voxels of the largest readout, over the SNR, in the real
part.

bias      median of (estimate - truth) / truth
z         mean and sd of (estimate - truth) / sd over voxels that are determined; sd 1 if right
excluded  voxels that are not: at a bound, ill-determined, failed

The workloads are described in `mapping_models.py`. dti stands beside DIPY's weighted least squares
of the same data (20,000 voxels, one core) where --dipy names the Python that has it.

Floor: an LM step of n unknowns over R numbers reads model and slopes, n + 1 exponentials or their
like and (n + 1) (n + 4) / 2 products a number. t2: 32 (1 exponential at 15 flops, 7 products) = 0.8
kflop a step, 5 steps and a dictionary of 64 entries 2 x 64 x 32 = 4 kflop: 8 kflop a voxel, 5
million voxels a second a core of 16 float32 lanes at 2.5 GHz (40 Gflop/s). epg: a train and two
tangents 3 x 6.5 kflop a step, 7 steps and 576 entries 37 kflop: 170 kflop, 230,000 a second.
"""

import argparse
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Array
from mapping_models import FEWER, MODELS, Case, estimated, measured

import mrphys as mr

mr.use_cores()


def dipy_row(python: str, theta: Any, data: Array, truth: np.ndarray) -> str:
    """Its speed and bias; it tells no standard deviation."""
    few = len(truth) // 10
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/dti.npz"
        np.savez(
            path,
            b_s_per_mm2=theta.b_s_per_mm2,
            directions=np.where(theta.b_s_per_mm2[:, None] > 0, theta.directions, 0.0),
            x=data[:few],
        )
        script = Path(__file__).with_name("rival_dipy.py")
        told = subprocess.run([python, script, path], capture_output=True, text=True, check=True)
        found = np.load(path.replace(".npz", ".found.npy"))
    bias = np.median(found / truth[:few] - 1)
    return f"{'dti':14s}{'dipy':16s}{few / float(told.stdout):12,.0f}{1e2 * bias:10.2f} %"


def fastest_s(run) -> tuple[float, Any]:
    found, seconds = jax.block_until_ready(run()), []
    for _ in range(3):
        started = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    return min(seconds), found


def row(name: str, kind: str, case: Case, snr: float, dipy: str | None = None) -> str:
    data, sd = measured(case, kind, snr)
    seconds, found = fastest_s(lambda: estimated(case, kind, data, sd))
    good, field = found.good, case.scored[0]
    truth = case.true(field)
    error = found.values[field] - truth
    z = error[good] / found.sds[field][good]
    bias = np.median(error[good] / truth[good])
    told = (
        f"{name:14s}{kind:16s}{error.size / seconds:12,.0f}{1e2 * bias:10.2f} %"
        f"{z.mean():9.3f}{z.std():8.3f}{1e2 * (1 - good.mean()):9.2f} %"
    )
    return told if dipy is None else f"{told}\n{dipy_row(dipy, case.theta, data, truth)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--snr", type=float, default=50.0)
    parser.add_argument("--voxels", type=int, default=200_000)
    parser.add_argument("--dipy", help="a Python that has DIPY")
    asked = parser.parse_args()
    print(
        f"{'model':14s}{'data':16s}{'voxels/s':>12s}{'bias':>12s}{'z mean':>9s}{'sd':>8s}", end=""
    )
    print(f"{'excluded':>11s}    SNR {asked.snr:g}, {jax.local_device_count()} devices")
    for name, make in MODELS.items():
        if asked.names and name not in asked.names:
            continue
        case = make(asked.voxels // FEWER.get(name, 1))
        for kind in case.kinds:
            rival = asked.dipy if kind == "fit_tensor" else None
            print(row(name, kind, case, asked.snr, rival), flush=True)


if __name__ == "__main__":
    main()
