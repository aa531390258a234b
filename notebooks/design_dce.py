# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # When to sample a bolus
#
# Contrast agent in tissue follows extended Tofts,
#
# $$C(t) = v_p C_p(t) + K^{trans} \int_0^t C_p(u)\, e^{-K^{trans} (t-u)/v_e}\, du,$$
#
# with Parker's arterial input C_p. A fixed number of images within five minutes: evenly spaced, or
# crowded where the bolus passes? `mrphys design dce` is the same study as a command.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from learn import design_studies as studies
from learn.design_studies.dce import extended_tofts_mm

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Each parameter has its own moment
#
# The derivative of the concentration in each parameter says where a sample would tell of it: v_p
# while the first pass lasts, a few seconds; K_trans while the tissue fills; v_e late. Theory has no
# times in closed form for three unknowns at once, but an optimum of theirs needs no more than a few
# distinct times (Fedorov 1972): samples gather in clusters.

# %%
p = {"Ktrans": 0.15, "ve": 0.25, "vp": 0.04}
time_s = jnp.linspace(0.0, 300.0, 601)
slopes = jax.jacfwd(lambda p: extended_tofts_mm(p, time_s, 20.0, 300.0))(jnp.array([*p.values()]))
figure, axes = plt.subplots(figsize=(6, 3.2), layout="constrained")
for name, value, slope in zip(p, p.values(), slopes.T, strict=True):
    axes.plot(time_s, np.asarray(slope) * value, label=name)
axes.set(xlabel="time [s]", ylabel="∂C / ∂ log p [mM]")
axes.legend(frameon=False)
figure.savefig(OUT / "design_dce_slopes.png", dpi=110)

# %% [markdown]
# ## The times
#
# At least 2 s between two images. The bolus' arrival is not known beforehand, so that the loss is
# averaged over arrivals up to 4 s early and late; else samples would lean on a single moment.

# %%
study = studies.dce(
    samples=12 if SMALL else 24, steps=40 if SMALL else 200, starts=1 if SMALL else 4
)
print(study)
studies.draw(study).savefig(OUT / "design_dce.png", dpi=110)
