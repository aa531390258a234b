# pyright: reportMissingImports=false
"""MRpro's side of benchmarks/kspace.py: its operators, conjugate gradients and proximal descent.

Its operator cuts the graph at the trajectory: the gradient is of pytorch-finufft, which it calls.
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
operators = importlib.import_module("mrpro.operators")
functionals = importlib.import_module("mrpro.operators.functionals")
optimizers = importlib.import_module("mrpro.algorithms.optimizers")
data = importlib.import_module("mrpro.data")


def workload(name: str, given: dict):
    coils = torch.tensor(given["coils"])[None, :, None]
    y, mask = torch.tensor(given["y"])[None, :, None], torch.tensor(given["mask"])[None, None, None]
    sensitivity = operators.SensitivityOp(coils)
    n = coils.shape[-1]
    if name in ("cg-sense", "l1-wavelet"):
        fourier = operators.FastFourierOp(dim=(-2, -1))
        A = operators.CartesianMaskingOp(mask) @ fourier @ sensitivity
        if name == "cg-sense":
            gram = A.gram

            def solve():
                (b,) = A.H(y)
                return optimizers.cg(gram, b, max_iterations=10, tolerance=0.0)[0]

            return solve, lambda found: found.numpy().reshape(n, n)
        wavelet = operators.WaveletOp((n, n), (-2, -1), "db4", 4)
        synthesis = A @ wavelet.H
        distance = 0.5 * functionals.L2NormSquared(target=y) @ synthesis
        penalty = float(given["weight"]) * functionals.L1Norm()

        def descend():
            (start,) = synthesis.H(y)
            (found,) = optimizers.pgd(distance, penalty, start, stepsize=1.0, max_iterations=50)
            return wavelet.H(found)[0]

        return descend, lambda found: found.numpy().reshape(n, n)

    def fourier_at(k: torch.Tensor):
        points = k.reshape(1, 1, 1, -1, k.shape[-2], 2)
        size = data.SpatialDimension(1, n, n)
        trajectory = data.KTrajectory(
            kz=torch.zeros_like(points[..., 0]), ky=points[..., 0], kx=points[..., 1]
        )
        return operators.NonUniformFastFourierOp(("y", "x"), size, size, trajectory)

    k, x = torch.tensor(given["k"]).reshape(200, -1, 2), torch.tensor(given["x"])[None, None, None]
    if name == "nufft":
        A = fourier_at(k) @ sensitivity
        return lambda: A(x)[0], lambda found: found.numpy().reshape(coils.shape[1], -1)
    assert name == "gradient"
    finufft = importlib.import_module("pytorch_finufft.functional")
    target, images = torch.tensor(given["samples"]), coils[0, :, 0] * torch.tensor(given["x"])

    def gradient():
        points = k.reshape(-1, 2).T.clone().requires_grad_(True)
        angles = 2 * torch.pi / n * points
        found = finufft.finufft_type2(angles, images, isign=-1, eps=5e-4, modeord=0) / n
        (0.5 * (found - target).abs().square().sum()).backward()
        return points.grad.T

    return gradient, lambda found: np.asarray(found).reshape(-1, 2)


measure(workload)
