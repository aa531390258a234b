# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # θ from the uncertainty it leaves
#
# The Fisher information of (q, θ) says how well an acquisition can determine the tissue; its
# gradient says how to change the acquisition. Here: bounds, and designs of one's own. Studies with
# an answer worth knowing have notebooks of their own: `design_vfa`, `design_diffusion`,
# `design_fse`, `design_fingerprint`, `design_dce`, `design_contrast`. Run them as scripts (`python
# notebooks/design.py`, figures go to `results/notebooks`) or as notebooks.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import learn
import mrphys as mr
from learn.constraints import scan_time_s

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)


# %% [markdown]
# ## A bound, and what cannot be told
#
# The smallest standard deviations any unbiased fit can have. Two parameters that only appear as a
# product have none; the combination is named. Magnitudes near the noise tell less than complex
# data, and what is known beforehand counts.

# %%
q = mr.tissue.literature("white_matter", field_t=3.0)
theta = mr.sequence.diffusion_weighted([0, 500, 1000], te_s=0.075)
adc = "adc_mm2_per_s"
print("complex   ", mr.cramer_rao(theta, q, noise_sd=0.05)[adc])
print("magnitude ", mr.cramer_rao(theta, q, noise_sd=0.05, rician=True)[adc])
print("with prior", mr.cramer_rao(theta, q, noise_sd=0.05, prior_sd={adc: 2e-4})[adc])
names = ("m0", "t2_s", adc)
information = mr.information.information(theta, q, names, noise_sd=0.05)
print(mr.information.undetermined(information, names, [getattr(q, name) for name in names]))

# %% [markdown]
# ## A design of one's own
#
# θ is built from variables with limits; constraints are functions of θ; the loss is any number.
# Here three b-values and their averages for white matter and glioma, the worse of the two counting.

# %%
both = jax.tree.map(
    lambda *v: jnp.stack(v), q, mr.tissue.literature("glioma", field_t=3.0)
)  # fmt: skip


def build(p):
    b = jnp.concatenate([jnp.zeros(1), p["b_s_per_mm2"]])
    return mr.sequence.diffusion_weighted(b, te_s=0.075, tr_s=6.0, averages=p["averages"])


made = learn.optimise_design(
    build,
    {"b_s_per_mm2": [500.0, 1000.0], "averages": [3.0, 3.0, 3.0]},
    mr.uncertainty(both, [adc], noise_sd=0.01, over="worst"),
    limits={"b_s_per_mm2": (50.0, 3000.0), "averages": (0.5, 9.0)},
    constraints=[scan_time_s("at most", 54.0)],
    steps=20 if SMALL else 100,
)
print(f"worst sd of ADC: {100 * made.before:.2f} % before, {100 * made.after:.2f} % after")
print("b", np.round(made.theta.b_s_per_mm2), "averages", np.round(made.theta.averages, 2))

# %% [markdown]
# What the design buys, and with what: both tissues gain, higher ADC, as of oedema, pays.

# %%
adcs = np.linspace(0.3, 2.0, 60) * 1e-3
many = mr.Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=adcs)
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
for label, theta, colour in (("before", made.start, "0.5"), ("after", made.theta, "C0")):
    sd = mr.cramer_rao(theta, many, noise_sd=0.01)[adc]
    axes.plot(1e3 * adcs, 100 * np.asarray(sd) / adcs, colour, label=label)
for name in ("white_matter", "glioma"):
    at = float(mr.tissue.literature(name, field_t=3.0).adc_mm2_per_s)
    axes.axvline(1e3 * at, color="0.8", lw=1)
    axes.annotate(
        name.replace("_", " "), (1e3 * at, 0.97), xycoords=("data", "axes fraction"),
        rotation=90, va="top", ha="right", fontsize=8, color="0.4",
    )  # fmt: skip
axes.set(xlabel="ADC [1e-3 mm²/s]", ylabel="sd of ADC [%]", ylim=(0, None))
axes.legend(frameon=False, loc="upper center")
figure.savefig(OUT / "design_own.png", dpi=110)
