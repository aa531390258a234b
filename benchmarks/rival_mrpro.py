# pyright: reportMissingImports=false
"""MRpro's side of benchmarks/simulate.py: its blocks of extended phase graphs.

Its inversion block takes no notice of B1; a pulse of π and a spoiler stand for it here. Jacobians
are by forward mode, one tissue parameter at a time; the design's gradient is reverse over that.
"""

import importlib

import numpy as np
import torch
from rival_timing import measure

# PyPI's torchvision, which mrpro imports, cannot load its operators beside a torch of another build
# and fails to describe the two; nothing here calls them.
missing = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    missing.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
epg = importlib.import_module("mrpro.operators.models.EPG")


class Spoil(epg.EPGBlock):
    """No transverse magnetisation survives."""

    def forward(self, parameters, states):
        return states * torch.tensor([0.0, 0.0, 1.0])[:, None], ()

    @property
    def duration(self):
        return torch.tensor(0.0)


def fse(flips: torch.Tensor, parameters) -> torch.Tensor:
    train = epg.TseBlock(flips, torch.zeros(()), te=0.01)
    return torch.stack(train(parameters, 33)[1])


def mrf(flips: torch.Tensor, parameters) -> torch.Tensor:
    inversion = [epg.RFBlock(torch.pi, 0.0), Spoil(), epg.DelayBlock(0.02)]
    train = epg.EPGSequence([*inversion, epg.FispBlock(flips, 0.0, te=0.0, tr=0.012)])
    return torch.stack(train(parameters, 20)[1])


def workload(name: str, given: dict):
    t1, t2, b1 = (torch.tensor(given[key]) for key in ("t1_s", "t2_s", "b1"))
    m0 = torch.ones_like(t1)
    play, flips = (mrf, "mrf_rad") if name.endswith("mrf") else (fse, "fse_rad")
    flips = torch.tensor(given[flips])

    def signal(flips, t1=t1, t2=t2, b1=b1, m0=m0):
        return play(flips, epg.Parameters(m0, t1, t2, b1))

    def slopes(flips, names):
        """(parameters, readouts, voxels)"""
        point = {"t1": t1, "t2": t2, "b1": b1, "m0": m0}
        return torch.stack([
            torch.func.jvp(
                lambda value, key=key: signal(flips, **{key: value}),
                (point[key],),
                (torch.ones_like(point[key]),),
            )[1]
            for key in names
        ])  # fmt: skip

    def bound(flips):
        jacobian = torch.view_as_real(slopes(flips, ("t1", "t2", "m0")))
        fisher = torch.einsum("prvc,qrvc->vpq", jacobian, jacobian) / 1e-4
        return torch.linalg.inv(fisher)[:, 1, 1].sqrt().mean()

    def gradient(cost):
        angles = flips.clone().requires_grad_(True)
        cost(angles).backward()
        return angles.grad

    if name.startswith("gradient"):
        return lambda: gradient(lambda angles: signal(angles).abs().square().sum()), np.asarray
    if name == "design":
        return lambda: gradient(bound), np.asarray
    if name.startswith("jacobian"):
        return (
            lambda: slopes(flips, ("t1", "t2", "b1")),
            lambda found: found.abs().movedim(-1, 0).numpy(),
        )
    return lambda: signal(flips), lambda found: found.abs().T.numpy()


measure(workload)
