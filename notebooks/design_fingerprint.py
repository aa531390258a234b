# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A fingerprint for T1 and T2
#
# A fingerprint's hundreds of flips and repetition times were first chosen at random, or smooth by
# eye (Ma et al. 2013; Jiang et al. 2015). The Cramér-Rao bound of T1 and T2,
#
# $$\mathrm{cov}(T_1, T_2, m_0) \ge \Big(\tfrac{1}{\sigma^2}
# \sum_n \mathrm{Re}\, \partial x_n^* \partial x_n^T\Big)^{-1},$$
#
# is a smooth function of all of them, through the extended phase graph of the whole train: its
# gradient costs a few times a simulation, and the train follows it (Zhao et al. 2019). No closed
# form is known. The proof is that errors of fits fall as the bound says.
# `mrphys design fingerprint` is the same study as a command.

# %%
import os
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np

import mrphys as mr
from learn import design_studies as studies

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# Beside a train in the style of Jiang et al. 2015: no more time, flips up to 70° that change by at
# most 6°, repetition times on a raster of 10 µs. "Fitted" rows are the realised errors of
# Gauss-Newton fits of noisy fingerprints.

# %%
with jax.enable_x64(False):
    study = studies.fingerprint(
        60 if SMALL else 500, steps=20 if SMALL else 300, draws=16 if SMALL else 64
    )
print(study)
studies.draw(study).savefig(OUT / "design_fingerprint.png", dpi=110)

# %% [markdown]
# ## Where the information lies
#
# How much each repetition tells of T2 when everything else is known, |∂x/∂ log T2|² / σ²: the
# designed train spends its time where T1 and T2 act apart.

# %%
tissue = mr.Tissue(t1_s=1.0, t2_s=0.08)
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
for when, theta in (("before", study.design.start), ("after", study.design.theta)):
    slope = mr.jacobian(theta, tissue, ["t2_s"])["t2_s"] * tissue.t2_s
    axes.plot(np.abs(slope) ** 2 / 0.002**2, label=when, color={"before": "0.5"}.get(when, "C0"))
axes.set(xlabel="repetition", ylabel="information about log T2", ylim=(0, None))
axes.legend(frameon=False)
figure.savefig(OUT / "design_fingerprint_information.png", dpi=110)
