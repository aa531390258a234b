# pyright: reportMissingImports=false
"""MRpro's side of benchmarks/mapping.py: its signal models matched to a dictionary of 1000 entries,
evenly spaced in the logarithm, and from there its L-BFGS over all voxels at once, amplitudes
complex.

Its inversion recovery is fully relaxed before each inversion, which the data are not. A dictionary
knows one B1: variable flip angles are searched from T1 = 1 s. float32, torch's threads.
"""

import numpy as np
import torch
from rival_fits import Given, Method, measure

# PyPI's torchvision, which mrpro imports, cannot load its operators beside a torch of another build
# and fails to describe the two; nothing here calls them.
missing = torch.library.Library("torchvision", "FRAGMENT")
for name in ("nms", "qnms"):
    missing.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from mrpro.algorithms.optimizers import lbfgs  # noqa: E402
from mrpro.operators import DictionaryMatchOp  # noqa: E402
from mrpro.operators.models import (  # noqa: E402
    InversionRecovery,
    MonoExponentialDecay,
    SpoiledGRE,
)

VOXELS, ENTRIES, ITERATIONS = 10_000, 1000, 100


def searched(model, data: torch.Tensor, m0: torch.Tensor, start: torch.Tensor) -> np.ndarray:
    """The parameter, by its logarithm, and m0 that fit best."""

    def cost(m0, log):
        (signal,) = model(m0, log.exp())
        return ((signal - data).abs().square().sum(),)

    # torch's L-BFGS minds the size of gradients; of each voxel's own scale they are alike.
    return lbfgs(cost, (m0, start.log()), max_iterations=ITERATIONS)[1].exp().numpy()


def scaled(x: np.ndarray) -> torch.Tensor:
    data = torch.as_tensor(x.T)
    return data / data.abs().amax(0)


def workload(name: str, given: Given) -> list[Method]:
    if name == "vfa":

        def spoiled(x, b1):
            flips = torch.as_tensor(given["flip_rad"][:, None] * b1, dtype=torch.float32)
            echo, repetition = torch.tensor(0.0), torch.tensor(float(given["tr_s"]))
            gre = SpoiledGRE(flips, echo, repetition).requires_grad_(False)
            data, t1 = scaled(x), torch.ones(len(x))
            model = lambda m0, t1: gre(m0, t1, torch.ones_like(t1))  # noqa: E731
            (unit,) = model(torch.ones(len(x)), t1)
            m0 = (unit * data).sum(0) / unit.square().sum(0)
            return {"t1_s": searched(model, data, m0, t1)}

        return [Method("mrpro lbfgs", VOXELS, spoiled, ("b1",))]
    if name == "t2":
        model, field, (low, high) = MonoExponentialDecay(given["te_s"]), "t2_s", (0.005, 1.0)
    else:
        model, field, (low, high) = InversionRecovery(given["ti_s"]), "t1_s", (0.05, 5.0)
    model = model.float().requires_grad_(False)
    dictionary = DictionaryMatchOp(model, index_of_scaling_parameter=0)
    dictionary.append(torch.tensor(1.0), torch.logspace(np.log10(low), np.log10(high), ENTRIES))

    def matched(x):
        return {field: dictionary(scaled(x))[1].numpy()}

    def refined(x):
        data = scaled(x)
        m0, start = dictionary(data)
        return {field: searched(model, data, m0, start)}

    return [Method("mrpro dict.", VOXELS, matched), Method("mrpro lbfgs", VOXELS, refined)]


measure(workload)
