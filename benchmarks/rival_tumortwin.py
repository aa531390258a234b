"""Seconds TumorTwin takes for the sphere of benchmarks/growth.py with its default solver: run by
that script in an interpreter that has torch, torchdiffeq and what else TumorTwin needs."""

# pyright: reportMissingImports=false
import sys
import tempfile
import time
from datetime import datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import nibabel
import numpy as np

sys.path.insert(0, sys.argv[1])
import torch
from tumortwin.models.reaction_diffusion_3d import ReactionDiffusion3D
from tumortwin.solvers.torch_solver import TorchDiffEqSolver, TorchDiffEqSolverOptions
from tumortwin.types.imaging import NibabelNifti

along = np.arange(128) - 63.5
squared = along[:, None, None] ** 2 + along[:, None] ** 2 + along**2
with tempfile.TemporaryDirectory() as folder:
    path = Path(folder) / "mask.nii.gz"
    nibabel.save(nibabel.Nifti1Image((squared < 63.0**2).astype(np.float32), np.eye(4)), path)
    patient = SimpleNamespace(brainmask_image=NibabelNifti.from_file(path))
    day = datetime(2000, 1, 1)
    rates = (torch.tensor(rate) for rate in (0.1, 0.1, 1.0))
    model = ReactionDiffusion3D(*rates, patient, day, require_grad=False)
    solver = TorchDiffEqSolver(model, TorchDiffEqSolverOptions())
    start = torch.tensor(np.where(squared < 5.0**2, 0.5, 0.0), dtype=torch.float32)
    times = []
    for _ in range(3):
        begun = time.perf_counter()
        with torch.no_grad():
            solver.solve([day, day + timedelta(days=100)], start)
        times.append(time.perf_counter() - begun)
print(min(times))
