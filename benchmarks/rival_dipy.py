# pyright: reportMissingImports=false
"""DIPY's side of benchmarks/mapping.py: tensors and kurtosis by weighted least squares, IVIM by its
two-stage trust region. One core."""

import warnings

import numpy as np
from dipy.core.gradients import gradient_table
from dipy.reconst.dki import DiffusionKurtosisModel
from dipy.reconst.dti import TensorModel
from dipy.reconst.ivim import IvimModel
from rival_fits import Given, Method, measure

warnings.filterwarnings("ignore")


def workload(name: str, given: Given) -> list[Method]:
    b = given["b_s_per_mm2"]
    directions = given.get("directions", np.where(b[:, None] > 0, [[1.0, 0, 0]], 0.0))
    table = gradient_table(b, bvecs=directions, b0_threshold=0)
    if name == "dti":
        tensor = TensorModel(table, fit_method="WLS")
        return [Method("dipy", 20_000, lambda x: {"fa": tensor.fit(x).fa})]
    if name == "kurtosis":
        kurtosis = DiffusionKurtosisModel(table, fit_method="WLS")
        return [Method("dipy", 5_000, lambda x: {"mkt": kurtosis.fit(x).mkt(-10, 10)})]

    ivim = IvimModel(table, fit_method="trr")
    return [
        Method(
            "dipy",
            400,
            lambda x: {"perfusion_fraction": ivim.fit(np.asarray(x, float)).perfusion_fraction},
        )
    ]


measure(workload)
