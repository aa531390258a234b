# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # y = A_φ x + η: from raw k-space to an image
#
# A real head, 32 coils, 64 spokes of 512 samples, which `make data` fetches from the source archive
# of PyPI's gpunufft (Knoll, Schwarzl, Diwoky, Sodickson 2014, Proc. ISMRM 22, 4297); without it, a
# brain simulated with as many spokes. Figures go to `results/notebooks`.

# %%
import os
import time
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import mrphys as mr
from mrphys.coils import compression, espirit, loop_array

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
BRAIN = Path(".cache/data/radial_brain.h5")
plt.rcParams.update({"figure.dpi": 110})


def show(figure, name):
    figure.tight_layout()
    figure.savefig(OUT / f"reconstruct_{name}.png")


# %% [markdown]
# ## The data
#
# One type for every source: samples, their trajectory in cycles per field of view, coils, noise.

# %%


def simulated(n, spokes):
    """A slice of the MNI brain in n² voxels of 200 mm, T1 weighted, eight loops round it."""
    head = mr.phantom.brain(2.0)
    fraction = np.stack([np.asarray(v)[:, :, 40] for v in head.fractions.values()])
    weighted = np.tensordot(np.linspace(1.0, 0.3, len(fraction)), fraction, axes=1)
    image = np.asarray(jax.image.resize(jnp.asarray(weighted), (n, n), "linear"))
    at = (np.arange(n) - n // 2) / n * 180
    points = np.stack([*np.meshgrid(at, at, indexing="ij"), np.zeros((n, n))], -1).reshape(-1, 3)
    coils = loop_array(points, 8).reshape(8, n, n)
    k = np.asarray(mr.trajectory.radial(spokes, 2 * n, n), np.float32).reshape(-1, 2)
    y = mr.Encoding.noncartesian(k, coils)(jnp.asarray(image, jnp.complex64))
    y = mr.noise.receiver_noise(y, 1e-4 * jnp.eye(8), jax.random.key(0))
    return mr.RawData(np.asarray(y), (n, n), (200.0, 200.0), trajectory=k, readout=2 * n)


real = BRAIN.is_file() and not SMALL
raw = mr.io.read_raw(BRAIN) if real else simulated(64 if SMALL else 128, 64)
print(f"{raw.coils} coils, {raw.readouts} spokes of {raw.readout} samples, {raw.shape} voxels")

# %% [markdown]
# ## Coils
#
# Virtual coils that hold 99 % of the energy, then their sensitivities by ESPIRiT from the middle of
# k-space.

# %%
raw = raw.mixed(compression(raw.y, 0.99))
coils = espirit(raw.calibration(), raw.shape)
figure, axes = plt.subplots(2, 4, figsize=(9, 4.6))
for row, of in zip(axes, (np.abs, np.angle), strict=True):
    for axis, c in zip(row, coils, strict=False):
        axis.imshow(of(c).T, origin="lower", cmap="viridis" if of is np.abs else "twilight")
for axis in axes.ravel():
    axis.set_axis_off()
figure.suptitle(f"magnitude and phase of four of {raw.coils} virtual coils")
show(figure, "coils")

# %% [markdown]
# ## Fewer and fewer spokes
#
# The adjoint with density compensation streaks; conjugate gradients with the sensitivities know
# that an image in several coils is one. The error on spokes that were left out tells how much of an
# image is true, without a reference.

# %%
every = np.arange(raw.readouts)
figure, axes = plt.subplots(2, 3, figsize=(9.5, 6.6))
top = None
for column, spokes in enumerate((64, 32, 16)):
    kept = every[:: raw.readouts // spokes]
    few = raw.lines(kept)
    A = few.encoding(coils, tolerance=1e-4)
    for row, method in enumerate(("adjoint", "cg-sense")):
        started = time.time()
        settings = {} if method == "adjoint" else {"regularisation": 1e-3, "iterations": 20}
        x = mr.reconstruct(A, few.y, method, **settings).image
        seconds = time.time() - started
        top = np.percentile(np.abs(x), 99.7) if top is None else top
        left = np.setdiff1d(every, kept)
        title = f"{method}, {spokes} spokes"
        said = "none left out"
        if left.size:
            rest = raw.lines(left)
            predicted = rest.encoding(coils, tolerance=1e-4)(x)
            error = np.linalg.norm(predicted - rest.y) / np.linalg.norm(rest.y)
            said = f"{100 * error:.1f} % off on the others"
        print(f"{title}: {said}; {seconds:.1f} s with compilation")
        axes[row, column].imshow(np.abs(x).T, cmap="gray", origin="lower", vmin=0, vmax=top)
        axes[row, column].set_title(f"{title}: {said}", fontsize=8)
        axes[row, column].set_axis_off()
show(figure, "spokes")
