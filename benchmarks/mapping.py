"""Voxels fitted a second, bias, precision and calibration, model by model, beside other toolkits.

    make bench-rivals                                          # once: .cache/rivals
    python benchmarks/mapping.py --rivals .cache/rivals/bin/python   # the table; --snr 10
    python benchmarks/mapping.py t2 "dce extended"             # some of its rows, ours alone

Warm, float32, one CPU device a core, the fastest of three rounds of 200,000 voxels, fewer of slow
models; the noise's sd is the mean over voxels of the largest readout, over the SNR, in the real
part. Workloads: `mapping_models.py`.

bias       median of (estimate - truth) / truth
precision  1.48 times the median distance of (estimate - truth) / truth from it
z          sd of (estimate - truth) / sd of those determined: 1 if right. Rivals tell none
excluded   voxels that are not: at a bound, ill-determined, failed
ours/      how many times as many voxels a second we fit of the same data

Rivals run in a Python of their own, one after the other, on the first voxels of the same data, as
many as are said: SciPy's `curve_fit` voxel by voxel on one core, as OSIPI's contributions do
(`rival_scipy.py`), DIPY on one (`rival_dipy.py`), MRpro on torch's threads (`rival_mrpro_maps.py`),
dcmri on one (`rival_dcmri.py`).

Floor: an LM step of n unknowns over R numbers reads model and slopes, n + 1 exponentials or their
like and (n + 1) (n + 4) / 2 products a number. t2: 32 (1 exponential at 15 flops, 7 products) = 0.8
kflop a step, 5 steps and a dictionary of 64 entries 2 x 64 x 32 = 4 kflop: 8 kflop a voxel, 5
million voxels a second a core of 16 float32 lanes at 2.5 GHz (40 Gflop/s). Magnitudes: besides 50
a number for Rice's functions, 7 kflop a voxel more. vfa: 4 numbers, a tenth of t2, where a step's
20 operations on the voxel's own numbers count as much. epg: a train and two
tangents 3 x 6.5 kflop a step, 7 steps and 576 entries 37 kflop: 170 kflop, 230,000 a second.
epg mean: 78 looks at a table of 0.8 kflop and 480 products with its entries, 93 kflop: 430,000 a
second.
"""

import argparse
from typing import Any

import jax
import numpy as np
from mapping_models import FEWER, MODELS
from mapping_rivals import rivals
from timing import fastest_s
from workload_models import Case, estimated, measured

import mrphys as mr

mr.use_cores()
HEAD = (
    f"{'model':15s}{'of':21s}{'data':13s}{'who':17s}{'voxels':>8s}{'voxels/s':>12s}{'bias %':>8s}"
    f"{'precision %':>12s}{'z sd':>7s}{'excluded %':>11s}{'ours/':>9s}"
)


def row(names: tuple[str, ...], rate: float, value: Any, truth: Any, ours: float = 0.0) -> str:
    """A line of the table; `value` with its sd, if told, and which voxels are determined."""
    found, spread, good = value
    found, good = np.asarray(found, float), np.asarray(good)
    relative = (found / truth[: found.size] - 1)[good]
    bias = np.median(relative)
    precision = 1.4826 * np.median(np.abs(relative - bias))
    model, field, data, who = names
    z = ""
    if spread is not None:
        z = f"{np.std((found - truth)[good] / np.asarray(spread)[good]):.3f}"
    return (
        f"{model:15s}{field:21s}{data:13s}{who:17s}{found.size:8,d}{rate:12,.0f}{1e2 * bias:8.2f}"
        f"{1e2 * precision:12.2f}{z:>7s}{1e2 * (1 - good.mean()):11.2f}"
        f"{f'{ours / rate:,.1f}' if ours else '':>9s}"
    )


def rows(name: str, kind: str, case: Case, snr: float, python: str | None) -> None:
    """Prints ours, and the rivals' of the same data."""
    data, sd = measured(case, kind, snr)
    truth = {field: case.true(field) for field in case.scored}
    seconds, found = fastest_s(lambda: estimated(case, kind, data, sd))
    rate = len(data) / seconds
    for field in truth:
        value = found.values[field], found.sds[field], found.good
        print(row((name, field, kind, "mrphys"), rate, value, truth[field]), flush=True)
    if python is None:
        return
    for who, voxels, took, maps in rivals(python, name, kind, case, data):
        for field in truth.keys() & maps.keys():
            value = maps[field], None, np.isfinite(maps[field])
            names = name, field, kind, who
            print(row(names, voxels / took, value, truth[field], rate), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--snr", type=float, default=50.0)
    parser.add_argument("--voxels", type=int, default=200_000)
    parser.add_argument("--rivals", help="the Python of the rivals' environment")
    asked = parser.parse_args()
    print(f"SNR {asked.snr:g}, {jax.local_device_count()} devices")
    if asked.rivals is None:
        print(
            "ours alone: 'make bench-rivals', then --rivals .cache/rivals/bin/python, adds others"
        )
    print(HEAD)
    for name, make in MODELS.items():
        if asked.names and name not in asked.names:
            continue
        case = make(asked.voxels // FEWER.get(name, 1))
        for kind in case.kinds:
            rows(name, kind, case, asked.snr, asked.rivals)


if __name__ == "__main__":
    main()
