# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # x = f(θ, q): sequences, tissue, signal
#
# One call, `mr.simulate(θ, q)`, for every family of sequences. Run it as a script
# (`python notebooks/simulate.py`, figures go to `results/notebooks`) or as a notebook.

# %%
import os
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np

import mrphys as mr

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
plt.rcParams.update({"figure.dpi": 110, "axes.spines.top": False, "axes.spines.right": False})
TISSUES = {
    name: mr.tissue.literature(name, field_t=3.0) for name in ("white_matter", "grey_matter", "csf")
}


def show(figure, name):
    figure.tight_layout()
    figure.savefig(OUT / f"simulate_{name}.png")


# %% [markdown]
# ## Fast spin echo: what the refocusing angle does to the echoes, and to the image
#
# Echoes fill k-space one line after the other, so that their decay is a filter: its Fourier
# transform is the point spread function. Low refocusing angles store magnetisation along z and
# decay more slowly, at the price of signal.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2))
echoes = 32 if SMALL else 96
for degrees, colour in ((180, "C0"), (120, "C1"), (60, "C2")):
    theta = mr.sequence.spin_echo_train(np.full(echoes, np.deg2rad(degrees)), 0.005)
    x = np.abs(mr.simulate(theta, TISSUES["white_matter"]))
    left.plot(1e3 * np.asarray(theta.echo_times_s), x, colour, label=f"{degrees}°")
    spread = np.abs(np.fft.fftshift(np.fft.fft(np.concatenate([x[::-1], x]), 2048)))
    pixels = np.linspace(-echoes, echoes, 2048, endpoint=False)
    right.plot(pixels, spread / spread.max(), colour)
left.set(xlabel="time [ms]", ylabel="echo / m0", title="echoes in white matter")
right.set(xlabel="pixels", xlim=(-4, 4), title="point spread")
left.legend(title="refocusing")
show(figure, "fse_blurring")

# %% [markdown]
# ## Balanced SSFP: bands of off-resonance
#
# The steady state repeats with 1/TR; where the pulses' phase and precession agree, it vanishes.

# %%
tr = 0.005
b0 = np.linspace(-1.5 / tr, 1.5 / tr, 301)
figure, axes = plt.subplots(figsize=(6, 3))
for name, q in TISSUES.items():
    q = mr.Tissue(t1_s=q.t1_s, t2_s=q.t2_s, m0=q.m0, b0_hz=b0)
    x = mr.simulate(mr.sequence.balanced_ssfp(np.deg2rad(40), tr), q)
    axes.plot(b0, np.abs(x[:, 0]), label=name.replace("_", " "))
axes.set(xlabel="off-resonance [Hz]", ylabel="|signal| / water", title="bSSFP, TR 5 ms, 40°")
axes.legend()
show(figure, "bssfp_bands")

# %% [markdown]
# ## Spoiling: how the phase increment decides whether a gradient echo is T1-weighted
#
# The steady state of an RF-spoiled gradient echo over the phase increment, beside Ernst's formula
# for ideal spoiling.

# %%
increments = np.deg2rad(np.arange(0, 181, 6 if SMALL else 1))
q = mr.Tissue(t1_s=0.8, t2_s=0.08)
x = np.array(
    [
        abs(complex(mr.simulate(theta, q)[0]))
        for theta in (
            mr.sequence.spoiled_gradient_echo(
                np.deg2rad(20), 0.0, 0.02, rf_spoiling_rad=float(increment)
            )
            for increment in increments
        )
    ]
)
ideal = abs(
    complex(mr.simulate(mr.sequence.spoiled_gradient_echo(np.deg2rad(20), 0.0, 0.02), q)[0])
)
figure, axes = plt.subplots(figsize=(6, 3))
axes.plot(np.rad2deg(increments), x, label="RF spoiled")
axes.axhline(ideal, color="k", lw=0.8, ls="--", label="ideal")
axes.axvline(117, color="0.7", lw=0.8)
axes.set(xlabel="phase increment [°]", ylabel="signal / m0", title="spoiled gradient echo, 20°")
axes.legend()
show(figure, "rf_spoiling")

# %% [markdown]
# ## Fingerprints
#
# 500 repetitions of varying flip angle after an inversion: each tissue draws its own curve.

# %%
flips = np.deg2rad(10 + 50 * np.abs(np.sin(np.arange(200 if SMALL else 500) * 0.02)))
theta = mr.sequence.fingerprinting_fisp(flips, tr_s=0.012, te_s=0.003)
figure, (top, bottom) = plt.subplots(2, 1, figsize=(7, 4), sharex=True, height_ratios=[1, 2])
top.plot(np.rad2deg(flips), "k", lw=1)
top.set(ylabel="flip [°]")
for name, q in TISSUES.items():
    bottom.plot(np.abs(mr.simulate(theta, q)), lw=1, label=name.replace("_", " "))
bottom.set(xlabel="repetition", ylabel="|signal| / water")
bottom.legend()
show(figure, "fingerprints")

# %% [markdown]
# ## A slice profile
#
# A pulse of the Shinnar-Le Roux design beside a windowed sinc of the same duration and bandwidth,
# sample by sample through the Bloch equations.

# %%
z = np.linspace(-6, 6, 121 if SMALL else 481)
duration, time_bandwidth, thickness = 3e-3, 8.0, 5.0
gradient = time_bandwidth / duration / thickness
figure, axes = plt.subplots(figsize=(6, 3))
for name, pulse in (
    ("Shinnar-Le Roux", mr.rf.slr("excitation", duration, time_bandwidth)),
    ("sinc, Hann", mr.rf.sinc(np.pi / 2, duration, time_bandwidth)),
):
    m = np.asarray(mr.rf.slice_profile(pulse, gradient, z))
    axes.plot(z, np.hypot(m[:, 0], m[:, 1]), label=name)
axes.set(xlabel="z [mm]", ylabel="|M+| / m0", title="90° slice of 5 mm")
axes.legend()
show(figure, "slice_profile")

# %% [markdown]
# ## Exchange: a Z spectrum
#
# Water after two seconds of saturation, over the offset of the field: amide protons at 3.5 ppm
# dip the spectrum where they resonate, macromolecules lower all of it.

# %%
offsets = np.linspace(-900, 900, 61 if SMALL else 181)
amide = mr.Pool(fraction=0.003, exchange_rate_hz=30.0, shift_hz=447.0, t2_s=0.03)
solid = mr.SemiSolid(fraction=0.1, exchange_rate_hz=25.0)
theta = mr.sequence.cest_saturation(offsets, b1_hz=43.0, duration_s=2.0)
figure, axes = plt.subplots(figsize=(6, 3))
for name, pools in (
    ("water", {}),
    ("and amide", {"pools": (amide,)}),
    ("and macromolecules", {"pools": (amide,), "semisolid": solid}),
):
    axes.plot(offsets, mr.simulate(theta, mr.Tissue(t1_s=1.1, t2_s=0.07, **pools)).imag, label=name)
axes.set(xlabel="offset [Hz]", ylabel="Mz / m0", title="saturation of 1 µT at 3 T")
axes.invert_xaxis()
axes.legend()
show(figure, "z_spectrum")

# %% [markdown]
# ## Gradients: which flip angles matter for T2
#
# The Cramér-Rao bound of T2 with T1 known not at all, and its derivative with respect to every
# refocusing angle of a train: one reverse pass.

# %%
q = mr.Tissue(t1_s=1.1, t2_s=0.07, b1=np.linspace(0.8, 1.2, 5))


def mean_sd(refocusing):
    theta = mr.sequence.spin_echo_train(refocusing, 0.01)
    return jnp.mean(mr.cramer_rao(theta, q, ("t2_s", "m0", "b1"), noise_sd=0.01)["t2_s"])


angles = jnp.full(32, np.deg2rad(140.0))
slope = jax.jit(jax.grad(mean_sd))(angles)
figure, axes = plt.subplots(figsize=(6, 3))
axes.bar(np.arange(1, 33), 1e3 * np.asarray(slope))
axes.set(xlabel="refocusing pulse", ylabel="d sd(T2) / d angle [ms/rad]")
axes.set(title=f"sd of T2 {1e3 * float(mean_sd(angles)):.2f} ms with B1 unknown, 140°")
show(figure, "design_gradient")
print(f"figures in {OUT}")
