# pyright: reportMissingImports=false
"""sycomore's side of benchmarks/simulate.py: regular EPG in C++, float64, driven from Python.

A model is of one voxel: voxels are a loop, of which 200 trains and 20 fingerprints are measured
and scaled. Orders are not limited: fingerprints keep all 500, and err from ours of as many.
"""

import numpy as np
import sycomore
from rival_timing import measure
from sycomore.units import Hz, rad, s


def fse(t1_s: float, t2_s: float, b1: float, flips: np.ndarray) -> list[complex]:
    model = sycomore.epg.Regular(sycomore.Species(1 / t1_s * Hz, 1 / t2_s * Hz))
    model.apply_pulse(b1 * np.pi / 2 * rad, np.pi / 2 * rad)
    half, echoes = 0.005 * s, []
    for flip in flips:
        model.relaxation(half)
        model.shift()
        model.apply_pulse(b1 * flip * rad, 0 * rad)
        model.relaxation(half)
        model.shift()
        echoes.append(model.echo)
    return echoes


def mrf(t1_s: float, t2_s: float, b1: float, flips: np.ndarray) -> list[complex]:
    # Spoiled by a T2 of nothing: what a model starts from is also what it recovers to.
    model = sycomore.epg.Regular(sycomore.Species(1 / t1_s * Hz, 1e9 * Hz))
    model.apply_pulse(b1 * np.pi * rad, 0 * rad)
    model.relaxation(0.02 * s)
    model.species = sycomore.Species(1 / t1_s * Hz, 1 / t2_s * Hz)
    repetition, echoes = 0.012 * s, []
    for flip in flips:
        model.apply_pulse(b1 * flip * rad, 0 * rad)
        echoes.append(model.echo)
        model.relaxation(repetition)
        model.shift()
    return echoes


def workload(name: str, given: dict):
    play, flips = {"fse": (fse, given["fse_rad"]), "mrf": (mrf, given["mrf_rad"])}[name]
    flips = flips.astype(float)
    tissue = np.stack([given[key] for key in ("t1_s", "t2_s", "b1")], axis=1).astype(float)
    return lambda: [play(t1, t2, b1, flips) for t1, t2, b1 in tissue.tolist()], np.abs


measure(workload, at_most={"fse": 200, "mrf": 20}, threads=1)
