# pyright: reportMissingImports=false
"""SigPy's side of benchmarks/simulate.py: `sigpy.mri.rf.sim.abrm_ptx`, spinors in complex128.

Another model: without relaxation. Its error is against ours without relaxation, of 2 |a b|: what it
calls the transverse magnetization is half of that. Voxels must be a square number.
"""

import numpy as np
from rival_timing import measure
from sigpy.mri.rf.sim import abrm_ptx

GAMMA_RAD_PER_S_MT = 267.522e3  # the value abrm_ptx divides out again


def workload(name: str, given: dict):
    assert name == "bloch"
    hz_to_mt = 2 * np.pi / GAMMA_RAD_PER_S_MT
    b1 = hz_to_mt * given["b1_hz"].astype(complex)[None]
    gradient = np.full((b1.size, 3), hz_to_mt * float(given["gradient_hz_per_mm"]))
    position = np.stack([given["position_mm"].astype(float)] * 3, axis=1)
    side = int(np.sqrt(position.shape[0]))
    transmit = given["b1"].astype(float).reshape(side, side).T[None]

    def play():
        return abrm_ptx(b1, position, gradient, float(given["dt_s"]), sens=transmit)

    return play, lambda found: 2 * np.abs(found[0] * found[1]).ravel()


measure(workload, threads=1)
