# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # Discover a growth law
#
# A scratch assay: cells are scraped from a strip and grow back, counted at positions and times from
# several initial densities. How they move and divide is left open, the law is then read off.
#
# ## Your own assay
#
# `learned(times_day, positions_mm, density)` below is the whole analysis: times (days), positions
# (mm, even) and densities (cells/mm²) of shape (assays, times, positions) in; learned terms,
# profiles solved forward and the score of each assay, the mean of ((û - u) max(|û|, 1)^-0.2)², out.
# Save the three arrays in a file and name it:
#
#     MRPHYS_ASSAY=assay.npz python notebooks/binn.py    # times_day, positions_mm, density
#
# Without it an assay is made whose law is known. Figures go to `results/notebooks`.

# %%
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import learn
from learn.binn import Learned, cosines, smoothed, spreading

jax.config.update("jax_enable_x64", True)
SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
plt.rcParams.update({"figure.dpi": 110})
CAPACITY, MOST_MM2_PER_DAY = 1700.0, 0.1


def show(figure, name):
    figure.tight_layout()
    figure.savefig(OUT / f"binn_{name}.png")


def made_up():
    """Logistic growth of 1.4 a day after half a day's delay, D of 0.02 mm²/day, noise."""
    times, x = np.linspace(0, 2, 5), 0.075 + 0.05 * np.arange(18 if SMALL else 37)
    levels = (300, 600) if SMALL else (200, 280, 360, 440, 520, 600)
    gap = 1 - 0.95 / (1 + np.exp((np.abs(x - x.mean()) - 0.3) / 0.06))
    truth = {
        "D": lambda u: 0.02 + 0 * u,
        "G": lambda u: 1.4 * (1 - u / CAPACITY),
        "T": lambda t: jax.nn.sigmoid((t - 0.5) / 0.15),
    }
    first = jnp.asarray(np.outer(levels, gap))
    u = spreading(x, times, MOST_MM2_PER_DAY)(truth, first, jnp.asarray(times))
    u = np.moveaxis(np.asarray(u), 0, 1)
    noise = np.random.default_rng(0).normal(size=u.shape)
    return times, x, np.maximum(u + 10 * np.maximum(u, 1) ** 0.2 * noise, 0)


# %% [markdown]
# ## Terms, and how they are learned
#
# u_t = (D(u) u_x)_x + T(t) G(u) u. Each term is a small network with what is known of it built in:
# diffusivity is not negative, growth falls with crowding, a delay ends and does not come back.
# They are found through the solver of the equation by Levenberg and Marquardt; starts are the first
# profiles, smoothed, and corrected with the terms. Members are drawn apart and fitted to data with
# the noise found added again: their spread is the band.

# %%


def learned(times_day, positions_mm, density, delayed=True, members=2 if SMALL else 8):
    reach = (0.0, CAPACITY)
    terms = {
        "D": partial(Learned, "u", reach, 0.0, MOST_MM2_PER_DAY, start=0.03),
        "G": partial(Learned, "u", reach, -1.0, 2.4, "falling", 0.7),
    }
    if delayed:
        span = (float(times_day[0]), float(times_day[-1]))
        terms["T"] = partial(Learned, "t", span, 0.0, 1.0, "rising", 0.7)
    binn = learn.BINN(terms, spreading(positions_mm, times_day, MOST_MM2_PER_DAY))
    return binn.fit(
        times_day,
        density,
        start=partial(smoothed, positions_mm),
        modes=cosines(3 if SMALL else 10, positions_mm.size),
        members=members,
        steps=12 if SMALL else 60,
        key=jax.random.key(0),
    )


given = os.environ.get("MRPHYS_ASSAY")
if given:
    file = np.load(given)
    times_day, positions_mm = file["times_day"], file["positions_mm"]
    density = file["density"] if file["density"].ndim == 3 else file["density"][None]
else:
    times_day, positions_mm, density = made_up()
found = learned(times_day, positions_mm, density)
print("score of each assay:", ", ".join(f"{score:.0f}" for score in found.score))
print(f"noise {found.noise_sd:.1f} max(u, 1)^0.2 cells/mm²")

# %% [markdown]
# ## Profiles solved forward

# %%
figure, axes = plt.subplots(1, len(density), figsize=(2.4 * len(density), 2.8), sharey=True)
for axis, y, u, score in zip(
    np.atleast_1d(axes), density, found.profiles, found.score, strict=True
):
    for i, t in enumerate(times_day):
        colour = plt.get_cmap("viridis")(i / times_day.size)
        axis.plot(positions_mm, y[i], ".", ms=3, color=colour)
        axis.plot(positions_mm, u[i], color=colour, label=f"{t:g} d")
    axis.set(xlabel="mm", title=f"score {score:.0f}")
np.atleast_1d(axes)[0].set_ylabel("cells/mm²")
np.atleast_1d(axes)[0].legend(fontsize=6)
show(figure, "profiles")

# %% [markdown]
# ## The laws
#
# The shortest sum over a library that stays within the band; digits in brackets are standard
# deviations. Where no data were, the plot is hatched.

# %%
scaled = {
    "1": jnp.ones_like,
    "z": lambda z: z / 1000,
    "z²": lambda z: (z / 1000) ** 2,
}
units = {"D": "mm²/day", "G": "1/day", "T": "1"}
figure, axes = plt.subplots(1, len(found.terms), figsize=(3.4 * len(found.terms), 3.2))
for axis, (name, term) in zip(axes, found.terms.items(), strict=True):
    z = np.linspace(*term.reach, 120)
    values = found.values(name, z)
    low, high = found.covered(name)
    axis.plot(z, values[0])
    axis.fill_between(z, values.min(0), values.max(0), alpha=0.3)
    if term.reach[1] > high:
        axis.axvspan(high, term.reach[1], color="0.9", hatch="//", zorder=0)
    axis.set(xlabel="day" if term.of == "t" else "cells/mm²", title=f"{name} [{units[name]}]")
    if term.of == "u" and len(found.members) > 2:
        law = found.equation(name, scaled)
        print(law, "with u in 1000 cells/mm²", *law.warnings, sep="; ")
        axis.set_title(f"{law}\n[{units[name]}], u in 1000", fontsize=7)
show(figure, "terms")
