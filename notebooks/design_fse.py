# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A refocusing train that keeps the image sharp
#
# A fast spin echo fills k-space echo after echo while they decay: the decay is a filter, and its
# Fourier transform the point spread,
#
# $$h(x) = \frac1N \sum_n S_n e^{2\pi i k_n x}, \qquad
# w = \frac{\int |h|^2}{|h(0)|^2} = N \frac{\sum |S_n|^2}{|\sum S_n|^2}$$
#
# by Parseval's theorem; w is 1 pixel where nothing decays. Low angles store magnetisation along z,
# where it decays with T1, and rising ones give it back when the echoes would have gone. Which train
# is sharpest at no more pulse energy and no less signal than constant 120° pulses? (Dang et al.
# 2023, MR-zero meets RARE MRI.) `mrphys design fse` is the same study as a command.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

import mrphys as mr
from learn import design_studies as studies

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# The full width at half maximum of undecayed echoes, 1.207 pixels, is the last column: nothing can
# be sharper.

# %%
study = studies.fse(echoes=24 if SMALL else 64, steps=30 if SMALL else 200)
print(study)
studies.draw(study).savefig(OUT / "design_fse.png", dpi=110)

# %% [markdown]
# ## A line through a phantom
#
# What the point spread does to edges: bars of eight pixels down to one, echoes filling k-space from
# the centre out. k = 0 is the first echo, in units of which the image is shown.

# %%
FINE = 16  # points a pixel
bars = np.concatenate(
    [np.repeat([0.0, 1.0], FINE * width) for width in (8, 4, 2, 2, 1, 1, 1)] + [np.zeros(8 * FINE)]
)
pixels = np.arange(bars.size) / FINE
near = np.arange(-8, 8, 1 / FINE)
tissue = mr.tissue.literature("grey_matter", field_t=3.0)
figure, axes = plt.subplots(figsize=(7, 3), layout="constrained")
axes.fill_between(pixels, bars, color="0.9")
for when, theta in (("before", study.design.start), ("after", study.design.theta)):
    echoes = np.asarray(mr.simulate(theta, mr.Tissue(tissue.t1_s, tissue.t2_s)))
    k = np.arange(echoes.size) - echoes.size // 2
    line = echoes[np.argsort(np.argsort(np.abs(k), kind="stable"))] / echoes[0]
    spread = np.exp(2j * np.pi * np.outer(near, k) / k.size) @ line / k.size
    seen = np.abs(np.convolve(bars, spread / FINE, mode="same"))
    axes.plot(pixels, seen, label=when, color={"before": "0.4", "after": "C0"}[when])
axes.set(xlabel="pixels", ylabel="|image| / first echo", title="bars in grey matter")
axes.legend(frameon=False)
figure.savefig(OUT / "design_fse_bars.png", dpi=110)
