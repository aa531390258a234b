# pyright: reportMissingImports=false
"""DIPY's side of benchmarks/mapping.py: tensors by weighted least squares.

    PYTHON benchmarks/rival_dipy.py INPUT.npz

prints the fastest of three rounds in seconds, fractional anisotropy included, and writes it beside
the input.
"""

import sys
import time

import numpy as np
from dipy.core.gradients import gradient_table
from dipy.reconst.dti import TensorModel


def main() -> None:
    path = sys.argv[1]
    given = dict(np.load(path))
    table = gradient_table(given["b_s_per_mm2"], bvecs=given["directions"])
    model = TensorModel(table, fit_method="WLS")
    found, seconds = np.zeros(0), []
    for _ in range(3):
        started = time.perf_counter()
        found = model.fit(given["x"]).fa
        seconds.append(time.perf_counter() - started)
    np.save(path.replace(".npz", ".found.npy"), found)
    print(min(seconds))


if __name__ == "__main__":
    main()
