# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Which b-values for the ADC, and how often each?
#
# $$S(b) = m_0 e^{-b D}$$
#
# With one measurement at b = 0 and one at b, the variance of D is, but for a factor,
#
# $$\frac{1/n_0 + e^{2bD}/n_b}{b^2}.$$
#
# A low b leaves little to see, a high one little signal: there is a best one, and the better it is
# averaged the higher it lies. `mrphys design diffusion` is the same study as a command.

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np

from learn import design_studies as studies

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
STEPS = 30 if SMALL else 80
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Two points: the answer is known
#
# With equal averages the variance is least where x = 1 + exp(-2x), at bD = 1.11; with averages of
# its own for each, where x = 1 + exp(-x), at bD = 1.28, which takes exp(1.28) = 3.6 times as many
# at the higher b (Xing et al. 1997). The last column is the formula.

# %%
equal = studies.diffusion(adc_mm2_per_s=[1e-3], free_averages=False, steps=STEPS)
print(equal)
free = studies.diffusion(adc_mm2_per_s=[1e-3], steps=STEPS)
print(free)
studies.draw(free).savefig(OUT / "design_diffusion.png", dpi=110)

# %% [markdown]
# The curve the search went down, and where it ended:

# %%
x = np.linspace(0.4, 2.5, 200)
figure, axes = plt.subplots(figsize=(5, 3.4), layout="constrained")
for label, variance, study in (
    ("equal averages", 2 * (1 + np.exp(2 * x)) / x**2, equal),
    ("free averages", (1 + np.exp(x)) ** 2 / x**2, free),
):
    (line,) = axes.plot(x, np.sqrt(variance), label=label)
    found = 1e-3 * float(study.design.variables["b_s_per_mm2"][0])
    axes.axvline(found, color=line.get_color(), ls=":")
axes.set(xlabel="b ADC", ylabel="sd of ADC / ADC × SNR of all averages", ylim=(0, 8))
axes.legend(frameon=False)
figure.savefig(OUT / "design_diffusion_known.png", dpi=110)

# %% [markdown]
# ## Magnitudes near the noise
#
# There no formula is known. Where the diffusion-weighted signal sinks into the noise its magnitude
# no longer tells how far it has fallen, and the best b is lower.

# %%
for snr in (100.0, 4.0):
    study = studies.diffusion([1e-3], rician_snr=snr, free_averages=False, steps=STEPS)
    print(f"SNR {snr:3g}: b = {study.rows[0].after:.0f} s/mm²")
