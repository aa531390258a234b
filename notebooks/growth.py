# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # How tumours grow: the models side by side
#
# One point first, where a tumour is a number; then fields, in which cells wander, push, turn into
# others, feel fibres and treatment.

# %%
import os
from pathlib import Path

import equinox as eqx
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

from oncology import anisotropy, mechanics, species
from oncology.appearance import LABELS, label_probabilities
from oncology.chemotherapy import Immunotherapy
from oncology.growth import ReactionDiffusion
from oncology.growth_laws import Allee, Bertalanffy, Exponential, Gompertz, Logistic, PowerLaw
from oncology.timeline import course, integrate, steps_between
from oncology.treatment import Chemotherapy, Plan, Radionuclide, Radiotherapy, Resection

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## Laws of growth
#
# All through the same density and slope on day 0, so that only what they say of later differs:
# u is a share of the carrying capacity. Every law but Allee's is solved in closed form.

# %%
days, start, slope = jnp.linspace(0.0, 150.0, 151), 0.05, 0.05 * 0.03
laws = {
    "exponential": Exponential(),
    "power law, γ = 2/3": PowerLaw(),
    "logistic": Logistic(),
    "Gompertz": Gompertz(),
    "von Bertalanffy": Bertalanffy(),
    "Allee, A = 0.01": Allee(0.01, 0.02),
}
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, law in laws.items():
    rate = slope / law.reaction(jnp.asarray(start), jnp.asarray(1.0))
    axes.plot(days, eqx.filter_jit(law.grow)(start, rate, days), label=name)
axes.set(xlabel="day", ylabel="density", ylim=(0, 1.5))
axes.legend(frameon=False)
figure.savefig(OUT / "growth_laws.png", dpi=110)

# %% [markdown]
# ## What treatment leaves
#
# Slow growth under thirty fractions of 2 Gy; a drug whose effect decays; an immune response, which
# comes late and lasts; a radionuclide, whose dose rate falls while damage is repaired; and surgery
# before fractions.

# %%
fractions = np.array([d for d in range(42) if d % 7 < 5], float)
plans = {
    "30 x 2 Gy": Plan(radiotherapy=Radiotherapy(fractions, np.full(30, 2.0))),
    "drug, three doses": Plan((Chemotherapy(np.array([0.0, 21.0, 42.0]), np.ones(3), "a"),)),
    "immunotherapy, two doses": Plan((Immunotherapy(np.array([0.0, 21.0]), np.ones(2), "i"),)),
    "radionuclide, 2 x 20 Gy": Plan(
        radionuclides=(Radionuclide(np.array([0.0, 28.0]), np.full(2, 20.0)),)
    ),
    "90 % cut out, then 30 x 2 Gy": Plan(
        radiotherapy=Radiotherapy(14 + fractions, np.full(30, 2.0)),
        resections=(Resection(0.0, 0.9),),
    ),
}
p = {
    "diffusivity_mm2_per_day": 0.0,
    "growth_rate_per_day": 0.02,
    "radiosensitivity_per_gy": 0.05,
    "kill_a_per_day": 0.3,
    "decay_a_per_day": 0.4,
    "kill_i_per_day": 0.1,
    "activation_i_per_day": 0.15,
    "exhaustion_i_per_day": 0.05,
}
point = ReactionDiffusion(jnp.ones((1, 1, 1), bool))
limits = {"largest_diffusivity_mm2_per_day": 0.0, "largest_growth_rate_per_day": 0.3}
figure, axes = plt.subplots(figsize=(6.4, 3.6), layout="constrained")
for name, plan in plans.items():
    steps = steps_between(point, plan, 0.0, 70.0, **limits)
    u = jnp.full((1, 1, 1), 0.6)
    _, along = eqx.filter_jit(course)(point, plan, p, u, steps, jnp.sum)
    axes.semilogy(np.append(0.0, steps.end_day), np.append(0.6, along), label=name)
axes.set(xlabel="day", ylabel="density")
axes.legend(frameon=False)
figure.savefig(OUT / "growth_treatment.png", dpi=110)

# %% [markdown]
# ## Ways to wander
#
# The same tumour for the same time in four tissues: even; with white matter that lets cells through
# five times as fast as grey; with fibres along the diagonal (a tensor); under stress, where
# D = D₀ exp(-γ σ_vm) and the tumour pushes against clamped tissue.

# %%
n = 40 if SMALL else 96
shape, h = (n, n, 1), 80.0 / n
spacing = (h, h, h)
x, y = (np.indices(shape) - (n - 1) / 2)[:2] * h
brain = (x / 39) ** 2 + (y / 36) ** 2 < 1
start_field = jnp.asarray(np.where((x + 5) ** 2 + y**2 < 5.0**2, 0.7, 0.0))
white = np.where(np.sin(x / 8 + np.sin(y / 9)) > 0, 1.0, 0.0)
fibre = np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
water = np.broadcast_to(np.eye(3) + 5 * np.outer(fibre, fibre), (*shape, 3, 3))
tensor = anisotropy.tensor_faces(anisotropy.cell_tensor(water), brain, spacing)
habitable = jnp.asarray(brain)
fields = {
    "even": ReactionDiffusion(habitable, spacing_mm=spacing),
    "white and grey": ReactionDiffusion(
        habitable, jnp.asarray(white), jnp.asarray(1 - white), spacing_mm=spacing
    ),
    "along fibres": ReactionDiffusion(habitable, tensor=tensor, spacing_mm=spacing),
}
p = {"diffusivity_mm2_per_day": 0.5, "growth_rate_per_day": 0.06}
p |= {"growth_stress_kpa": 3.0, "stress_sensitivity_per_kpa": 6.0}
limits = {"largest_diffusivity_mm2_per_day": 0.5, "largest_growth_rate_per_day": 0.06}
run = eqx.filter_jit(integrate)
shown = {}
for name, model in fields.items():
    steps = steps_between(model, Plan(), 0.0, 90.0, **limits, tolerance=1e-2)
    shown[name] = run(model, Plan(), p, start_field, steps)
solid = mechanics.MechanicallyCoupled(habitable, spacing)
steps = steps_between(solid, Plan(), 0.0, 90.0, **limits, tolerance=4e-2)
evolve = eqx.filter_jit(species.evolve)
shown["under stress"] = evolve(solid, Plan(), p, start_field[None], steps)[0]

figure, panels = plt.subplots(1, 4, figsize=(11, 3), layout="constrained")
for axes, (name, u) in zip(panels, shown.items(), strict=True):
    seen = np.where(brain, u, np.nan)[..., 0].T
    picture = axes.imshow(seen, origin="lower", vmin=0, vmax=1, cmap="magma")
    axes.contour(np.asarray(u)[..., 0].T, [0.16], colors="cyan", linewidths=0.8)
    axes.set(title=name, xticks=[], yticks=[])
figure.colorbar(picture, ax=panels, label="density")
figure.savefig(OUT / "growth_transport.png", dpi=110)

# %% [markdown]
# What the tumour does to its surroundings: displacement, von Mises stress, and a grid moved by it.

# %%
elastic = solid.solid
move = elastic.displacement_mm(shown["under stress"], p["growth_stress_kpa"])
stress = mechanics.von_mises_kpa(elastic.stress_kpa(move))
grid = jnp.asarray(((np.abs(x) % 10 < h) | (np.abs(y) % 10 < h)) & brain, float)
moved = mechanics.displaced(grid, move, spacing)
size = jnp.sqrt(jnp.sum(move**2, axis=0))[:-1, :-1, 0]
figure, panels = plt.subplots(1, 3, figsize=(9.5, 3), layout="constrained")
pictures = {"displacement [mm]": size, "von Mises stress [kPa]": stress[..., 0]}
for axes, (name, field) in zip(panels, pictures.items(), strict=False):
    figure.colorbar(axes.imshow(np.asarray(field).T, origin="lower"), ax=axes)
    axes.set(title=name, xticks=[], yticks=[])
panels[2].imshow(np.asarray(moved)[..., 0].T, origin="lower", cmap="gray")
panels[2].set(title="a grid, displaced", xticks=[], yticks=[])
figure.savefig(OUT / "growth_mechanics.png", dpi=110)

# %% [markdown]
# ## Several kinds of cells
#
# Cells that starve of oxygen rest, then die; the labels a reader would draw follow from living and
# dead cells alone. Beside it: cells that go or grow, the two species of a glioma, and a tumour with
# its vessels. Colours stack the species as red, green and blue.

# %%
limits |= {"largest_growth_rate_per_day": 0.3}
p |= {
    "diffusivity_mm2_per_day": 0.2,
    "switch_rate_per_day": 0.3,
    "switch_density": 0.8,
    "death_rate_per_day": 0.06,
    "penetration_mm": 4.0,
    "consumption": 1.5,
    "conversion_rate_per_day": 0.05,
    "crowded_density": 0.5,
    "enhancing_diffusivity_mm2_per_day": 0.05,
    "enhancing_growth_rate_per_day": 0.05,
    "vessel_diffusivity_mm2_per_day": 0.1,
    "vessel_growth_rate_per_day": 0.2,
    "capacity_without_vessels": 0.2,
    "growth_rate_per_day": 0.2,
}
kinds = (species.Hypoxia, species.GoOrGrow, species.TwoSpeciesGlioma, species.Angiogenesis)
figure, panels = plt.subplots(1, 5, figsize=(13.5, 3.6), layout="constrained")
for axes, kind in zip(panels, kinds, strict=False):
    model = kind(habitable, spacing)
    u = jnp.stack([start_field, *(0.0 * start_field for _ in model.names[1:])])
    if kind is species.Angiogenesis:
        u = u.at[1].set(0.15 * brain)
    steps = steps_between(model, Plan(), 0.0, 60.0, **limits, tolerance=1e-2)
    u = np.asarray(evolve(model, Plan(), p, u, steps))
    colours = np.zeros((n, n, 3))
    colours[..., : len(u)] = np.moveaxis(u[..., 0], 0, -1)
    axes.imshow(np.clip(colours, 0, 1).swapaxes(0, 1), origin="lower")
    axes.set_title("\n".join([kind.__name__, ", ".join(model.names)]), fontsize=8)
    axes.set(xticks=[], yticks=[])
    if kind is species.Hypoxia:
        drawn = label_probabilities(
            jnp.asarray(u[:2].sum(0)), jnp.asarray(u[2]), enhancing=0.6, necrosis=0.3
        )
        labels = LABELS[np.asarray(drawn.argmax(0))]
panels[4].imshow(labels[..., 0].T, origin="lower", cmap="viridis", vmin=0, vmax=4)
panels[4].set_title("labels of the first:\n1 necrosis, 2 oedema, 4 enhancing", fontsize=8)
panels[4].set(xticks=[], yticks=[])
figure.savefig(OUT / "growth_species.png", dpi=110)
