# pyright: reportMissingImports=false
"""blochsim's side of benchmarks/simulate.py: one workload, timed, as a line of JSON.

    .cache/rivals/bin/python benchmarks/rival_blochsim.py fse INPUT.npz

Run by benchmarks/simulate.py in the environment that `make bench-rivals` makes.
"""

import json
import resource
import sys
import time

import numpy as np
import torch
from blochsim import fse_sim, mrf_sim


def workload(name: str, given: dict):
    """A call without arguments, and whether it gives the signal."""
    tissue = {
        "T1": torch.tensor(1e3 * given["t1_s"]),
        "T2": torch.tensor(1e3 * given["t2_s"]),
        "B1": torch.tensor(given["b1"]),
    }
    train = name.endswith("fse")
    flips = torch.tensor(np.rad2deg(given["fse_rad" if train else "mrf_rad"]).astype(np.float32))

    def signal(flips, **more):
        if train:
            return fse_sim(flips, 10.0, **tissue, states=33, repetitions=1, **more)
        return mrf_sim(flips, 12.0, **tissue, TI=20.0, states=20, **more)

    def gradient():
        angles = flips.clone().requires_grad_(True)
        signal(angles).abs().square().sum().backward()
        return angles.grad

    def jacobian():
        return signal(flips, diff=("T1", "T2", "B1"))[1]

    if name.startswith("gradient"):
        return gradient, False
    if name.startswith("jacobian"):
        return jacobian, False
    return lambda: signal(flips), True


def main() -> None:
    name, path = sys.argv[1:]
    run, is_signal = workload(name, dict(np.load(path)))
    started = time.perf_counter()
    found = run()
    first = time.perf_counter() - started
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 3 and len(seconds) < 30):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if is_signal:
        np.save(path.replace(".npz", ".found.npy"), found.detach().abs().numpy())
    print(json.dumps({"first": first, "seconds": min(seconds), "peak_mib": peak}))


main()
