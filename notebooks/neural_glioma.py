# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # One glioma, four ways
#
# Two scans, 45 days apart, show where contrast enhances and where oedema ends. Where else are
# cells, how fast do they grow and wander, where did they begin?
#
# ∂u/∂t = ∇·(D(x)∇u) + k u (1 - u), u(-T) a cluster of cells at x₀: D, k, T and x₀ are sought. The
# patient is virtual, in the MNI brain; the truth lives on half the scanner's spacing, and the
# reader who drew the contours erred smoothly. Figures go to `results/notebooks`.

# %%
import os
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from learn.pinn import Adam
from oncology import neural
from oncology.neural.discrete_loss import least_discrete_loss
from oncology.neural.pinn import FIRST, THEN
from oncology.onset import DIFFUSIVITY, GROWTH_RATE, NAMES, most_probable
from oncology.radial import scales
from oncology.virtual_onsets import DAYS, FORECAST_DAY, THRESHOLDS, drawn

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
plt.rcParams.update({"figure.dpi": 110, "image.cmap": "magma", "font.size": 8})
INK = {"stepper": "#0072b2", "discrete": "#009e73", "PINN": "#d55e00", "BINN": "#cc79a7"}
patient = drawn(1, scanner_mm=4.0 if SMALL else 2.0)
problem, key = patient.problem, jax.random.key(0)


def show(figure, name):
    figure.tight_layout()
    figure.savefig(OUT / f"neural_glioma_{name}.png")


# %% [markdown]
# ## The ball
#
# Radii of the contours alone, and the radially symmetric solution: where every method starts. D is
# an average over white and grey matter here.

# %%
ball = scales(problem, patient.radii_mm)
start = jnp.concatenate([ball.z, jnp.zeros(3)])
day, states = ball.course()
figure, axis = plt.subplots(figsize=(4.4, 2.8))
for i in range(0, len(states), 6):
    shade = plt.get_cmap("viridis")(i / len(states))
    axis.plot(ball.ball.radius_mm, states[i], color=shade, label=f"day {float(day[i]):.0f}")
for c in THRESHOLDS:
    axis.axhline(c, color="0.6", lw=0.8, ls=":")
axis.set(xlabel="radius (mm)", ylabel="density", xlim=(0, 45))
axis.legend(frameon=False)
show(figure, "ball")

# %% [markdown]
# ## The methods
#
# `most_probable` integrates the equation and moves D, k, T, x₀. `least_discrete_loss` moves the
# whole field, which may err in the equation where contours say so. `learn_growth` leaves G(u) open.
# `invert` trains a network of the log odds of density, as many patients at once as are given.

# %%
found, ahead, seconds = {}, {}, {}
gap = FORECAST_DAY - DAYS[-1]


def keep(name, inferred, after, began):
    found[name], ahead[name] = inferred, np.asarray(after(gap))
    seconds[name] = perf_counter() - began


began = perf_counter()
made = most_probable(problem, start)
keep("stepper", made, made.after, began)
began = perf_counter()
solved = least_discrete_loss(problem, start, iterations=2 if SMALL else 8)
keep("discrete", solved.inferred, solved.inferred.after, began)
if not SMALL:
    began = perf_counter()
    opened = neural.learn_growth(problem, ball.z, key=key)
    keep("BINN", opened.inferred, opened.after, began)
began = perf_counter()
width, depth, points = (4, 1, 40) if SMALL else (32, 3, 2000)
stages = ((Adam(steps=5),),) * 2 if SMALL else (FIRST, THEN)
(net,) = neural.invert(
    [problem],
    [patient.radii_mm],
    width=width,
    depth=depth,
    points=points,
    first=stages[0],
    then=stages[1],
    key=key,
)
keep("PINN", net, net.after, began)
truth = {name: float(patient.truth[name]) for name in NAMES}
print("truth", {name: round(value, 3) for name, value in truth.items()})
for name, each in found.items():
    p, sd = each.p, np.sqrt(np.diag(each.covariance))
    print(
        f"{name}: D {float(p[DIFFUSIVITY]):.3f} mm²/day, k {float(p[GROWTH_RATE]):.4f} /day, "
        f"age {float(p['age_day']):.0f} days; sd of z {np.round(sd[:3], 2)}; {seconds[name]:.0f} s"
    )

# %% [markdown]
# ## Beyond the visible margin
#
# The contour of 1 % density on the second scan, and the forecast's, over the truth (shaded). White
# lines are what was drawn.

# %%
shown = (patient.states[1], patient.states[-1])
slice_at = int(np.argmax(shown[0].sum((0, 1))))
figure, axes = plt.subplots(1, 2, figsize=(7.6, 3.9))
days = (DAYS[1], FORECAST_DAY)
for axis, u, at in zip(axes, shown, days, strict=True):
    tissue = np.asarray(problem.relative_diffusivity)[:, :, slice_at]
    axis.imshow(tissue.T, cmap="gray", origin="lower", alpha=0.5)
    density = np.where(u[:, :, slice_at] > 0.01, u[:, :, slice_at], np.nan)
    axis.imshow(density.T, origin="lower", vmin=0, vmax=1, alpha=0.8)
    for name in found:
        field = np.asarray(found[name].states[1]) if u is shown[0] else ahead[name]
        axis.contour(field[:, :, slice_at].T, [0.01], colors=INK[name], linewidths=1.2)
        axis.plot([], [], color=INK[name], label=name)
    if u is shown[0]:
        for mask in patient.masks[1].values():
            axis.contour(mask[:, :, slice_at].T, [0.5], colors="white", linewidths=0.8)
    axis.set(title=f"day {at:.0f}: 1 % density", xticks=[], yticks=[])
axes[0].legend(loc="lower left", framealpha=0.9)
show(figure, "contours")

# %% [markdown]
# ## Parameters
#
# In standard deviations of the prior, 95 % intervals beside the truth (line).

# %%
figure, axes = plt.subplots(1, 3, figsize=(7.6, 2.4))
for i, (axis, name) in enumerate(zip(axes, NAMES, strict=True)):
    for j, (method, each) in enumerate(found.items()):
        half = 1.96 * float(jnp.sqrt(each.covariance[i, i]))
        axis.errorbar(j, float(each.z[i]), half, fmt="o", color=INK[method], capsize=3)
    prior = problem.priors[name]
    axis.axhline(np.log(truth[name] / prior.median) / prior.log_sd, color="0.3", lw=1)
    axis.set_xticks(range(len(found)), list(found))
    axis.set(title=name.replace("_", " "), ylabel="z" if i == 0 else "", ylim=(-3.2, 3.2))
show(figure, "parameters")

# %% [markdown]
# ## The growth law, left open
#
# G(u) = k (1 - u) exp(n(u) - n(0)): data may bend the logistic law. Here nothing asks for it.

# %%
if not SMALL:
    u = np.linspace(0, 1, 101)
    figure, axis = plt.subplots(figsize=(3.6, 2.6))
    axis.plot(u, truth[GROWTH_RATE] * (1 - u), color="0.3", label="truth")
    axis.plot(u, opened.discovered.values("G", u)[0], color=INK["BINN"], label="learned")
    axis.set(xlabel="density u", ylabel="G(u) (1/day)")
    axis.legend(frameon=False)
    show(figure, "law")
