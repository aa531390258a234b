# pyright: reportMissingImports=false
"""SigPy's side of benchmarks/kspace.py: its apps for SENSE and L1-wavelets, its NUFFT."""

import numpy as np
import sigpy as sp
from rival_timing import measure
from sigpy.mri import app


def workload(name: str, given: dict):
    coils, y, mask = given["coils"], given["y"], given["mask"].astype(np.float32)
    options = {"weights": mask, "show_pbar": False}
    if name == "cg-sense":
        return lambda: app.SenseRecon(y, coils, max_iter=10, **options).run(), np.asarray
    if name == "l1-wavelet":
        weight = float(given["weight"])
        return lambda: app.L1WaveletRecon(
            y, coils, weight, max_iter=50, **options
        ).run(), np.asarray
    assert name == "nufft"
    coord, x = given["k"], given["x"]
    return lambda: sp.nufft(coils * x, coord, oversamp=1.25, width=4), np.asarray


measure(workload, threads=1)
