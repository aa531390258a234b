# pyright: reportMissingImports=false
"""SigPy's pulses: `abrm` of given ones, and designs by `dzrf`."""

import sys
from pathlib import Path

import numpy as np
from sigpy.mri import rf

folder = Path(sys.argv[1])
with np.load(folder / "given.npz") as arrays:
    given = dict(arrays)

found = {}
if "kind" in given:
    specification = {"n": int(given["samples"]), "tb": float(given["time_bandwidth"])}
    ripples = {"d1": float(given["pass_ripple"]), "d2": float(given["stop_ripple"])}
    pulse = rf.slr.dzrf(**specification, ptype=str(given["kind"]), ftype="pm", **ripples)
    found["turn_rad"] = pulse * float(given["scale"])
else:
    found["turn_rad"] = given["turn_rad"]
a, b = rf.sim.abrm(found["turn_rad"], given["turns"])
np.savez(folder / "found.npz", a=a, b=b, **found)
