# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Which flip angles for T1?
#
# A spoiled gradient echo far shorter than T1 gives
#
# $$S(\alpha) = m_0 \sin\alpha \frac{1 - E_1}{1 - E_1 \cos\alpha}, \qquad E_1 = e^{-TR/T_1},$$
#
# so that two flip angles determine T1 and m0. Which two leave T1 least uncertain? The Fisher
# information knows: its inverse is the smallest covariance any unbiased fit can have, and its
# gradient says where to turn the angles. `mrphys design vfa` is the same study as a command.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mrphys as mr
from learn import design_studies as studies
from learn.design_studies.vfa import known_flips_rad

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## One T1: the answer is known
#
# The best two lie where the signal is 1/√2 of that at the Ernst angle (Deoni et al. 2003; Schabel,
# Morrell 2009):
#
# $$\tan(\alpha/2) = (\sqrt2 \pm 1) \sqrt{(1 - E_1) / (1 + E_1)}$$
#
# The search starts beside the Ernst angle and finds them; the last column is the formula.

# %%
study = studies.vfa(t1_s=[1.0], tr_s=0.015, steps=30 if SMALL else 60)
print(study)
studies.draw(study).savefig(OUT / "design_vfa.png", dpi=110)

# %% [markdown]
# ## A range of T1
#
# Tissue is not one T1. What two angles tuned for 1 s give away elsewhere, and what a third angle,
# free averages and a loss over all T1 win back. Every design has as many averages in all.

# %%
t1_s = np.geomspace(0.3, 4.0, 60)
tissue = mr.Tissue(t1_s=t1_s, t2_s=t1_s / 10)
wide = studies.vfa(
    t1_s=[0.5, 1.0, 2.0, 4.0],
    tr_s=0.015,
    flips=3,
    averages=2 / 3,
    free_averages=True,
    steps=30 if SMALL else 100,
)
print(wide)
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
known = mr.sequence.spoiled_gradient_echo(known_flips_rad(1.0, 0.015), 0.0, 0.015)
for label, theta in (("two angles, for 1 s", known), ("three, for 0.5 to 4 s", wide.design.theta)):
    sd = mr.cramer_rao(theta, tissue, ("t1_s",), nuisance=("m0",), noise_sd=1e-3)["t1_s"]
    axes.semilogx(t1_s, 100 * np.asarray(sd) / t1_s, label=label)
axes.set(xlabel="T1 [s]", ylabel="sd of T1 [%], m0 / noise 1000", ylim=(0, None))
axes.set_xticks([0.3, 0.5, 1, 2, 4], labels=["0.3", "0.5", "1", "2", "4"], minor=False)
axes.minorticks_off()
axes.legend(frameon=False)
figure.savefig(OUT / "design_vfa_range.png", dpi=110)
