# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Two tissues in a fixed time
#
# A gradient echo of flip α, TE and TR, repeated as often as time allows, shows two tissues with
#
# $$CNR = \frac{|S_1 - S_2|}{\sigma} \sqrt{\frac{T}{N\, TR}}, \qquad
# S = m_0 \sin\alpha \frac{1 - E_1}{1 - E_1 \cos\alpha} e^{-TE/T_2^*}.$$
#
# T1 weighting by short TR, T2* weighting by long TE, or proton density: the best of all is not
# obvious, and there is more than one local optimum, hence several starts. `mrphys design contrast`
# is the same study as a command.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mrphys as mr
from learn import design_studies as studies

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
STARTS = 2 if SMALL else 4
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)

# %%
study = studies.contrast("white_matter", "grey_matter", starts=STARTS)
print(study)
studies.draw(study).savefig(OUT / "design_contrast.png", dpi=110)

# %% [markdown]
# ## Against a search of every flip and TR
#
# Three variables are few enough to look everywhere: contrast over flip and TR, at the TE found. The
# gradient's answer (cross) is on the top of a ridge, along which TR matters little so long as the
# flip follows it: T1 weighting, beyond the Ernst angle of the mean T1 (dotted, cos α = E1). Below
# that angle is a lower ridge of proton density; between the two the tissues look alike.

# %%
white, grey = (mr.tissue.literature(name, 3.0) for name in ("white_matter", "grey_matter"))
found = {name: float(value) for name, value in study.design.variables.items()}
flip, tr = np.deg2rad(np.linspace(2, 90, 60)), np.geomspace(0.005, 0.9, 60)
cnr = np.zeros((tr.size, flip.size))
for row, tr_s in zip(cnr, tr, strict=True):
    theta = mr.sequence.spoiled_gradient_echo(flip, min(found["te_s"], tr_s - 0.002), tr_s)
    one, other = (mr.simulate(theta, tissue) for tissue in (white, grey))
    row[:] = np.abs(np.asarray(one - other)) / 0.05 * np.sqrt(120.0 / (128 * tr_s))
figure, axes = plt.subplots(figsize=(5.2, 3.6), layout="constrained")
image = axes.pcolormesh(np.rad2deg(flip), 1e3 * tr, cnr, shading="nearest")
axes.plot(np.rad2deg(found["flip_rad"]), 1e3 * found["tr_s"], "wx", ms=9)
mean_t1 = (float(white.t1_s) + float(grey.t1_s)) / 2
axes.plot(np.rad2deg(np.arccos(np.exp(-tr / mean_t1))), 1e3 * tr, "w:", lw=1)
axes.set(xlabel="flip [°]", ylabel="TR [ms]", yscale="log", title="contrast to noise")
figure.colorbar(image)
figure.savefig(OUT / "design_contrast_map.png", dpi=110)
print(f"best of the grid {cnr.max():.2f}, found {study.rows[-1].after:.2f}")
