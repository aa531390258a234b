"""The rivals of benchmarks/mapping.py, each in a process of its own on the data that we fit."""

import json
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from mapping_models import FLIPS_RAD, TI_S, TR_S
from workload_models import Case

HERE = Path(__file__).parent
SCRIPTS = {
    ("t2", "complex"): ("mrpro_maps",),
    ("t2", "gaussian"): ("scipy",),
    ("vfa", "complex"): ("mrpro_maps",),
    ("vfa", "rician"): ("scipy",),
    ("ir", "complex"): ("mrpro_maps",),
    ("adc", "gaussian"): ("scipy",),
    ("ivim", "fit_ivim"): ("scipy", "dipy"),
    ("dti", "fit_tensor"): ("dipy",),
    ("kurtosis", "fit_kurtosis"): ("dipy",),
    ("dce tofts", "fit_kinetics"): ("scipy",),
    ("dce extended", "fit_kinetics"): ("scipy", "dcmri"),
}
"""By workload and data. Least squares of magnitudes is what SciPy's rows are."""
MOST = 20_000


def rivals(
    python: str, name: str, kind: str, case: Case, data: Any
) -> Iterator[tuple[str, int, float, dict[str, np.ndarray]]]:
    """Who, of how many voxels, in how many seconds, and the maps by name."""
    for script in SCRIPTS.get((name, kind), ()):
        with tempfile.TemporaryDirectory() as folder:
            path = f"{folder}/given.npz"
            np.savez(path, x=np.asarray(data[:MOST]), **_settings(name, case))
            command = [python, HERE / f"rival_{script}.py", name, path]
            told = subprocess.run(command, capture_output=True, text=True, check=False)
            if told.returncode:
                print(f"{name:15s}{script}: {told.stderr.strip().splitlines()[-1]}")
                continue
            maps = dict(np.load(path.replace(".npz", ".found.npz")))
        for who, (voxels, seconds) in json.loads(told.stdout.splitlines()[-1]).items():
            mine = {
                key.partition(":")[2]: v for key, v in maps.items() if key.startswith(f"{who}:")
            }
            yield who, voxels, seconds, mine


def _settings(name: str, case: Case) -> dict[str, Any]:
    if name.startswith("dce"):
        seen = case.options["theta"]
        return {
            "time_s": np.asarray(seen.times_s, float),
            "plasma": np.asarray(seen.arterial.plasma_mmol_per_l, float),
        }
    if name == "t2":
        return {"te_s": np.asarray(case.theta.te_s)}
    if name == "ir":
        return {"ti_s": np.asarray(TI_S, np.float32)}
    if name == "vfa":
        b1 = np.asarray(case.q.b1, np.float32)[:MOST]
        return {"flip_rad": np.asarray(FLIPS_RAD), "tr_s": TR_S, "b1": b1}
    if name == "ivim":
        return {"b_s_per_mm2": np.asarray(case.options["theta"].b_s_per_mm2, float)}
    theta = case.options.get("theta", case.theta)
    b = np.asarray(theta.b_s_per_mm2, float)
    return {
        "b_s_per_mm2": b,
        "directions": np.where(b[:, None] > 0, np.asarray(theta.directions, float), 0.0),
    }
