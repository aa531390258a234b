# pyright: reportMissingImports=false
"""MR-zero's side of benchmarks/simulate.py: phase distribution graphs, one for all voxels.

The graph is found anew for each call, of the mean tissue, as its users do. All states of fse are
kept, the 200 strongest of mrf: they err about as much as 20 orders do. mrf starts from what the
spoiled inversion leaves. Gradients move with the voxels' k-space far beyond their extent, so that
states of order 0 alone are seen.
"""

import MRzeroCore as mr0
import numpy as np
import torch
from MRzeroCore.phantom.custom_voxel_phantom import build_dephasing_func
from MRzeroCore.phantom.sim_data import SimData
from rival_timing import measure

MOMENT = torch.tensor([1000.0, 0.0, 0.0])


def phantom(t1: torch.Tensor, t2: torch.Tensor, b1: torch.Tensor) -> SimData:
    ones = torch.ones_like(t1)
    return SimData(
        PD=ones,
        T1=t1,
        T2=t2,
        T2dash=1e9 * ones,
        D=0.0 * ones,
        B0=0.0 * ones,
        B1=b1[None].to(torch.cfloat),
        coil_sens=ones[None],
        size=torch.ones(3),
        affine=torch.eye(4)[:3],
        voxel_pos=torch.zeros(t1.numel(), 3),
        nyquist=torch.full((3,), torch.inf),
        dephasing_func=build_dephasing_func("exact_sinc", torch.tensor([1.0, 1.0, 1.0])),
    )


def repetition(sequence, flip, phase, intervals):
    """A pulse and intervals of (s, gradient, read)."""
    rep = sequence.new_rep(len(intervals))
    rep.pulse.usage = mr0.PulseUsage.UNDEF
    rep.pulse.angle, rep.pulse.phase = flip, torch.tensor(phase)
    for i, (seconds, moment, read) in enumerate(intervals):
        rep.event_time[i] = seconds
        rep.gradm[i] = moment * MOMENT
        rep.adc_usage[i] = int(read)


def fse(flips: torch.Tensor):
    sequence = mr0.Sequence()
    repetition(sequence, torch.tensor(torch.pi / 2), torch.pi / 2, [(0.005, 1, False)])
    for flip in flips:
        repetition(sequence, flip, 0.0, [(0.005, 1, True), (0.005, 1, False)])
    return sequence


def mrf(flips: torch.Tensor):
    sequence = mr0.Sequence()
    for flip in flips:
        repetition(sequence, flip, 0.0, [(0.0, 0, True), (0.012, 1, False)])
    return sequence


def workload(name: str, given: dict):
    t1, t2, b1 = (torch.tensor(given[key]) for key in ("t1_s", "t2_s", "b1"))
    train = not name.endswith("mrf")
    build, flips = (fse, given["fse_rad"]) if train else (mrf, given["mrf_rad"])
    flips, states = torch.tensor(flips), 1000 if train else 200
    inverted = 1 - (1 - torch.cos(torch.pi * b1)) * torch.exp(-0.02 / t1)
    start = None if train else inverted.to(torch.cfloat)

    def signal(flips):
        """(readouts, voxels)"""
        sequence, data = build(flips), phantom(t1, t2, b1)
        graph = mr0.compute_graph(sequence, data, states, 0.0)
        seen = mr0.execute_graph(graph, sequence, data, 0.0, 0.0, False, True, intitial_mag=start)[
            1
        ]
        read = [torch.stack(states)[:, 0] for states in seen if states and states[0].numel()]
        return torch.stack([states.sum(0) for states in read])

    def gradient():
        angles = flips.clone().requires_grad_(True)
        signal(angles).abs().square().sum().backward()
        return angles.grad

    if name.startswith("gradient"):
        return gradient, np.asarray
    return lambda: signal(flips), lambda found: found.abs().T.numpy()


measure(workload)
