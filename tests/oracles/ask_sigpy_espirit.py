# pyright: reportMissingImports=false
"""SigPy's ESPIRiT of k-space."""

import sys
from pathlib import Path

import numpy as np
from sigpy.mri.app import EspiritCalib

folder = Path(sys.argv[1])
with np.load(folder / "given.npz") as given:
    app = EspiritCalib(
        given["kspace"], calib_width=24, thresh=0.02, kernel_width=6, crop=0.85, max_iter=100,
        show_pbar=False,
    )  # fmt: skip
    maps = app.run()
np.savez(folder / "found.npz", maps=maps)
