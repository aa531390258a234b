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
# gradient says how to change the acquisition. Run it as a script (`python notebooks/design.py`,
# figures go to `results/notebooks`) or as a notebook. Each study is also a command,
# `mrphys design NAME`.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import learn
import mrphys as mr
from learn import design_studies as studies
from learn.constraints import scan_time_s

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)


def show(study):
    print(study.title)
    for row in study.rows:
        known = "" if row.known is None else f"   (known: {row.known:.4g})"
        print(f"  {row.quantity:42} {row.before:10.4g} -> {row.after:10.4g} {row.unit}{known}")
    studies.draw(study).savefig(OUT / f"design_{study.name}.png", dpi=110)


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
# ## Flip angles for T1
#
# Two angles lie where the signal is 1/√2 of that at the Ernst angle.

# %%
show(studies.vfa(t1_s=[1.0], tr_s=0.015, steps=20 if SMALL else 60))

# %% [markdown]
# ## b-values for the ADC
#
# With two points and free averages b ADC = 1.28, with 3.6 times as many averages at the higher b.

# %%
show(studies.diffusion(adc_mm2_per_s=[1e-3], steps=30 if SMALL else 80))

# %% [markdown]
# ## A refocusing train that keeps the image sharp
#
# At no more pulse energy and no less signal than constant 120° pulses: low angles store
# magnetisation along z, rising ones give it back when the echoes would have decayed.

# %%
show(studies.fse(echoes=16 if SMALL else 64, steps=20 if SMALL else 200))

# %% [markdown]
# ## A fingerprint
#
# Flips and repetition times for T1 and T2 in the time of a train in the style of Jiang et al.
# 2015, and Gauss-Newton fits of noisy fingerprints beside the bound.

# %%
with jax.enable_x64(False):
    show(
        studies.fingerprint(
            40 if SMALL else 500, steps=20 if SMALL else 300, draws=16 if SMALL else 64
        )
    )

# %% [markdown]
# ## When to sample a bolus
#
# Images crowd where the bolus passes (vp) and are sparse in the washout.

# %%
show(studies.dce(samples=10 if SMALL else 24, steps=20 if SMALL else 200, starts=1 if SMALL else 4))

# %% [markdown]
# ## Two tissues in a fixed time

# %%
show(studies.contrast("white_matter", "grey_matter", starts=1 if SMALL else 4))
