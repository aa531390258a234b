# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # A wave from its equation, and the equation's numbers from a few readings
#
# Fisher and Kolmogorov's wave u_t = D u_xx + k u (1 - u) has a closed form at the speed
# 5 √(kD/6) (Ablowitz, Zeppetella 1979). First the wave is solved from the equation alone; then D
# and k are found from 200 noisy readings of it, with their standard deviations. Figures go to
# `results/notebooks`.

# %%
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import learn
from learn.pinn import MLP, Adam, Data, GaussNewton, Parameter

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
plt.rcParams.update({"figure.dpi": 110})
D, K, END = 0.01, 1.0, 4.0
STEEP, SPEED = (K / (6 * D)) ** 0.5, 5 * (K * D / 6) ** 0.5


def wave(t, x, xp=np):
    return (1 + xp.exp(STEEP * (x - SPEED * t))) ** -2.0


def show(figure, name):
    figure.tight_layout()
    figure.savefig(OUT / f"pinn_{name}.png")


# %% [markdown]
# ## Forward
#
# Inputs in their own units with their range; the residual of one point, u("x", "x") being ∂²u/∂x².
# `hard` builds start and ends into the field, so that only the equation is left to learn.


# %%
def built_in(at, n):
    x, along = at["x"], (at["x"] + 1) / 3
    ends = [wave(at["t"], end, jnp) - wave(0.0, end, jnp) for end in (-1.0, 2.0)]
    edges = (1 - along) * ends[0] + along * ends[1]
    return wave(0.0, x, jnp) + edges + at["t"] * (x + 1) * (2 - x) * n


def fisher(u, at, p):
    return u("t") - p["D"] * u("x", "x") - p["k"] * u() * (1 - u())


pinn = learn.PINN(
    inputs={"t": (0.0, END), "x": (-1.0, 2.0)},
    residual=fisher,
    hard=built_in,
    p={"D": D, "k": K},
    field=partial(MLP, width=8 if SMALL else 20, depth=2),
    dtype="float64",
)
steps = 60 if SMALL else 200
runs = {
    "Adam": [Adam(steps=5 * steps)],
    "Gauss-Newton": [GaussNewton(steps=steps, patience=0)],
}
points = 200 if SMALL else 1000
solved = {n: pinn.fit(points=points, stages=s, key=jax.random.key(0)) for n, s in runs.items()}

t, x = np.meshgrid(np.linspace(0, END, 81), np.linspace(-1, 2, 151), indexing="ij")
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4))
for name, made in solved.items():
    error = np.linalg.norm(made({"t": t, "x": x}) - wave(t, x)) / np.linalg.norm(wave(t, x))
    print(f"{name}: relative error {error:.1e}")
    losses = next(iter(made.losses.values()))
    left.semilogy(np.linspace(0, 1, losses.size), losses, label=f"{name}: {error:.0e} off")
left.set(xlabel="share of the training", ylabel="mean square of the residual")
left.legend()
for i in range(0, 81, 20):
    found = solved["Gauss-Newton"]({"t": t[i], "x": x[i]})
    right.plot(x[i], found, color=plt.get_cmap("viridis")(i / 80), label=f"t = {t[i, 0]:g}")
    right.plot(x[i], wave(t[i], x[i]), "k:", lw=1)
right.set(xlabel="x", ylabel="u; dotted: closed form")
right.legend(fontsize=7)
show(figure, "wave")

# %% [markdown]
# ## Inverse
#
# The same residual with D and k unknown between bounds. Weights say how exactly the equation must
# hold beside readings counted in their noise; the covariance of D and k has the field's weights
# integrated out. Several noise draws are members of one training.

# %%
MEMBERS, NOISE = 2 if SMALL else 8, 0.02
rng = np.random.default_rng(0)
at = {"t": rng.uniform(0.2, END, 200), "x": rng.uniform(-1, 2, 200)}
y = wave(**at) + NOISE * rng.normal(size=(MEMBERS, 200))


def from_start(at, n):
    return wave(0.0, at["x"], jnp) + at["t"] * n


inverse = learn.PINN(
    inputs=pinn.inputs,
    residual=fisher,
    hard=from_start,
    p={"D": Parameter(0.03, (1e-3, 0.2)), "k": Parameter(0.6, (0.1, 5.0))},
    weights={"residual": 1e4},
    field=partial(MLP, width=8 if SMALL else 14, depth=2),
    dtype="float64",
)
fit = inverse.fit(
    Data(at, y, NOISE),
    points=150 if SMALL else 400,
    members=MEMBERS,
    stages=[GaussNewton(steps=80 if SMALL else 250, patience=0)],
    key=jax.random.key(1),
)
figure, axes = plt.subplots(1, 2, figsize=(7.5, 2.8))
for axis, name, true in zip(axes, ("D", "k"), (D, K), strict=True):
    p, sd = fit.p[name], fit.p_sd[name]
    each = ", ".join(f"{a:.4f} ± {b:.4f}" for a, b in zip(p, sd, strict=True))
    print(f"{name}: true {true:g}, found {each}")
    axis.errorbar(np.arange(MEMBERS), p, 1.96 * sd, fmt="o", capsize=3)
    axis.axhline(true, color="k", lw=1)
    axis.set(xlabel="noise draw", title=f"{name}, 95 % intervals; line: truth")
show(figure, "inverse")
