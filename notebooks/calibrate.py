# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # One patient: posterior, profile, forecast
#
# A tumour of known diffusivity and growth rate, scanned on three days with noise. It is calibrated
# on the first two scans; the third is foretold. The truth is grown on half the grid spacing.

# %%
import itertools
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import oncology
from mrphys.volume import Volume
from oncology import comparison, ensemble, identifiability, sampling
from oncology.forecast import TOTAL
from oncology.growth import ReactionDiffusion
from oncology.timeline import integrate, steps_between
from oncology.treatment import Plan

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
BLUE, ORANGE, GREY = "#0072b2", "#d55e00", "#777777"

# %% [markdown]
# ## The tumour and its scans

# %%
truth = {"diffusivity_mm2_per_day": 0.15, "growth_rate_per_day": 0.04}
days, n, noise_sd = (0.0, 30.0, 60.0), 28, 0.03
fine = ReactionDiffusion(habitable=jnp.ones((2 * n, 2 * n, 1), bool), spacing_mm=(1.0, 1.0, 2.0))
x, y = np.indices((2 * n, 2 * n)) - (n - 0.5)
u = jnp.asarray(0.7 / (1 + np.exp((np.hypot(x / 1.3, y) - 7.0) / 1.5)))[..., None]
states = [u]
for a, b in itertools.pairwise(days):
    limits = {"largest_diffusivity_mm2_per_day": 0.2, "largest_growth_rate_per_day": 0.05}
    steps = steps_between(fine, Plan(), a, b, **limits, tolerance=2.5e-4)
    states.append(integrate(fine, Plan(), truth, states[-1], steps))
states = [np.asarray(u).reshape(n, 2, n, 2, 1).mean(axis=(1, 3)) for u in states]
rng, affine, visits = np.random.default_rng(0), np.diag([2.0, 2.0, 2.0, 1.0]), []
for number, (day, u) in enumerate(zip(days, states, strict=True), start=1):
    drawn = Volume((u > 0.1).astype(np.uint8), affine)
    scan = Volume(u + noise_sd * rng.standard_normal(u.shape), affine)
    visits.append(oncology.Visit(f"ses-{number:02d}", day, tumor_labels=drawn, cellularity=scan))
patient = oncology.Patient("sub-virtual", tuple(visits), ())

# %% [markdown]
# ## The posterior, by Laplace, by NUTS and by an ensemble
#
# All three are of one type: a forecast takes any of them.

# %%
fit = oncology.calibrate(patient, (1, 2), until_day=60.0, growth="global")
found = fit.posterior
drawn = sampling.sample(found, jax.random.key(0), draws=200 if SMALL else 500, count=2)
moved = ensemble.invert(fit.inverse, jax.random.key(1), members=30 if SMALL else 200)
names = list(truth)
labels = ("D [mm²/day]", "k [1/day]")


def values(z: np.ndarray) -> list[np.ndarray]:
    """D and k of coordinates z, (draws, n)."""
    at = [list(fit.inverse.priors).index(name) for name in names]
    priors = [fit.inverse.priors[name] for name in names]
    return [p.median * np.exp(p.log_sd * z[:, i]) for p, i in zip(priors, at, strict=True)]


half = np.linalg.cholesky(np.asarray(found.covariance))
angle = np.linspace(0, 2 * np.pi, 200)
at = [list(fit.inverse.priors).index(name) for name in names]
block = np.linalg.cholesky(np.asarray(found.covariance)[np.ix_(at, at)])
ring = np.tile(np.asarray(found.z), (200, 1))
ring[:, at] += np.sqrt(5.991) * (block @ np.stack([np.cos(angle), np.sin(angle)])).T
figure, axes = plt.subplots(figsize=(6.4, 4.0), layout="constrained")
clouds = ((drawn, BLUE, "NUTS"), (moved, ORANGE, "ensemble"))
for one, colour, name in clouds:
    axes.plot(*values(np.asarray(one.samples.z)), ".", ms=3, color=colour, alpha=0.5, label=name)
axes.plot(*values(ring), color="black", label="Laplace, 95 %")
axes.plot(*[truth[name] for name in names], "*", ms=14, color="black", label="truth")
axes.set(xlabel=labels[0], ylabel=labels[1])
figure.legend(frameon=False, loc="outside right upper", markerscale=2)
figure.savefig(OUT / "calibrate_posterior.png", dpi=110)

# %% [markdown]
# ## What the images tell: profiles
#
# The deviance over each parameter, the others refitted, its own prior left out. Where it stays
# below 3.84 out to the edge, the images set no bound there.

# %%
profiles = identifiability.identifiability(found)
figure, panels = plt.subplots(1, len(profiles), figsize=(9.5, 3.1), layout="constrained")
for axes, profile in zip(panels, profiles.values(), strict=True):
    axes.plot(profile.value, profile.deviance, "o-", color=BLUE, ms=4)
    axes.axhline(identifiability.CHI_SQUARED_95, color=GREY, lw=1, ls="--")
    if profile.name in truth:
        axes.axvline(truth[profile.name], color="black", lw=1)
    axes.set_title(f"{profile.name}\n{profile.verdict}", fontsize=9)
    axes.set(xlabel=profile.unit.replace("^2", "²"), ylim=(-0.3, 12))
panels[0].set_ylabel("deviance")
figure.savefig(OUT / "calibrate_profile.png", dpi=110)

# %% [markdown]
# ## The forecast, and the average of two laws
#
# Logistic and Gompertz growth, each calibrated on the same scans, weighed by their evidence.

# %%
draws = 16 if SMALL else 100
gompertz = oncology.calibrate(
    patient, (1, 2), until_day=60.0, growth="global", law=oncology.Gompertz()
)
fits = {"logistic": fit, "Gompertz": gompertz}
ahead = {name: one.forecast(60.0, draws=draws) for name, one in fits.items()}
rows = {name: comparison.compared(one.posterior, jax.random.key(2)) for name, one in fits.items()}
weight = comparison.weights(rows)
for name, row in rows.items():
    print(f"{name}: weight {weight[name]:.2f}, BIC {row.bic:.1f}, WAIC {row.waic:.1f}")
ahead["average"] = comparison.average(ahead, weight, jax.random.key(3), draws)
seen = [
    float(np.sum(np.asarray(u)[np.asarray(u) > ahead["average"].threshold]) * 8) for u in states
]
figure, panels = plt.subplots(1, 3, figsize=(10.5, 3.3), layout="constrained")
colours = (BLUE, ORANGE, "black")
for (name, one), colour in zip(ahead.items(), colours, strict=True):
    low, middle, high = np.percentile(one.course[TOTAL], [5, 50, 95], axis=0)
    panels[0].fill_between(one.days, low, high, color=colour, alpha=0.15)
    panels[0].plot(one.days, middle, color=colour, label=name)
panels[0].plot(days, seen, "*", color="black", ms=10, label="truth")
panels[0].set(xlabel="day", ylabel="visible total [mm³]")
panels[0].legend(frameon=False, fontsize=8)
true = states[2][fit.crop.slices][..., 0]
for axes, image, title in (
    (panels[1], true, "day 60, truth"),
    (panels[2], ahead["average"].mean[..., 0], "day 60, forecast"),
):
    shown = axes.imshow(image.T, origin="lower", cmap="viridis", vmin=0, vmax=1)
    axes.set_title(title, fontsize=9)
    axes.set(xticks=[], yticks=[])
figure.colorbar(shown, ax=panels[2], label="density")
figure.savefig(OUT / "calibrate_forecast.png", dpi=110)
