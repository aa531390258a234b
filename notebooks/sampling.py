# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
# ---

# %% [markdown]
# # φ: which samples to take
#
# Lines of k-space selected one by one, lines with chances that gradients move together with a
# network, and shots that gradients can play. Everything is trained here, on simulated heads, for
# minutes at most; `benchmarks/learned_acquisition.py` measures what it gains. Figures go to
# `results/notebooks`.

# %%
import os
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib.pyplot as plt
import numpy as np
import optax
from flax import nnx

import learn
import mrphys as mr
from learn import reconstruction as lr
from learn import sampling as ls

SMALL = bool(os.environ.get("MRPHYS_SMALL"))
SIZE, HEADS, STEPS = (16, 4, 6) if SMALL else (64, 64, 200)
OUT = Path("results/notebooks")
OUT.mkdir(parents=True, exist_ok=True)
plt.rcParams.update({"figure.dpi": 110})


def show(figure, name):
    figure.tight_layout()
    figure.savefig(OUT / f"sampling_{name}.png")


# %% [markdown]
# ## Heads, all of k-space
#
# A scan of acceleration 1 has every sample; a pattern then takes some, `Chosen`, with a derivative
# in each, those not taken too.

# %%
draw = partial(lr.draw_scan, coils=4, accelerations=(1.0,), noise_sd=(0.02, 0.02))
of, target = lr.atlas(SIZE), mr.sequence.spin_echo_train([np.pi], 0.04, tr_s=3.0)


@jax.jit
def heads(keys):
    """Scans of images, and the spins of the same heads."""

    def one(key):
        scan = draw(lr.draw_image(of, key), jax.random.fold_in(key, 1))
        head = lr.draw_spins(of, key)
        size = jnp.sqrt(jnp.mean(jnp.abs(ls.target_image(target, head)) ** 2))
        coils = lr.draw_coils(4, SIZE, jax.random.fold_in(key, 2))
        return scan, ls.Asked(head._replace(parts=head.parts / size), coils, scan.noise_sd)

    return jax.vmap(one)(keys)


few = 4
parts = [heads(keys) for keys in jax.random.split(jax.random.key(0), HEADS).reshape(-1, few)]
scans, spins = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *parts)
COUNT = SIZE // 4
shape = ls.shape_of(SIZE, "lines")

# %% [markdown]
# ## One line after the other
#
# Of all lines not yet taken the one with which least squares come nearest to the truth.


# %%
def distance(scan, w):
    A = ls.chosen(scan, w).A
    normal = A.normal
    return lr.normalised_distance(
        lr.conjugate_gradients(lambda v: normal(v) + 0.01 * v, A.H(scan.y), 8), scan.x
    )


def least_squares(w):
    return jnp.mean(jax.vmap(lambda scan: distance(scan, w))(parts[0][0]))


grown = ls.greedy(least_squares, ls.centre_of(shape), COUNT)
print(f"greedy: {grown.losses[0]:.3f} with the first line, {grown.losses[-1]:.3f} with all")

# %% [markdown]
# ## Lines and their network
#
# Each line has a chance, their sum the budget; a draw is a pattern of exactly so many, through
# which the gradient goes as if it were the chances (straight through). Chances and network go down
# the same loss.

# %%
batch = 2
joint = ls.Joint(
    ls.Relaxed(shape, COUNT, key=jax.random.key(1)),
    lr.MoDL(6, 1, 1 if SMALL else 2, 6, rngs=nnx.Rngs(0)),
)
before = joint.sampling.chances()


@partial(jax.jit, static_argnums=0)
def some(which, key):
    at = jax.random.randint(key, (batch,), 0, HEADS)
    return jax.tree.map(lambda leaf: leaf[at], (scans, spins)[which])


optimiser = ls.apart(optax.adam(0.03), optax.adam(3e-3))
made = learn.train(joint, ls.joint_loss, partial(some, 0), optimiser, STEPS, key=jax.random.key(2))
print(f"joint: loss {made.losses[:5].mean():.3f} at first, {made.losses[-5:].mean():.3f} at last")
learned = made.net.sampling

patterns = {
    "variable density": ls.variable_density(shape, COUNT, jax.random.key(3)),
    "equispaced": ls.equispaced(shape, COUNT),
    "greedy": grown.pattern,
    "joint": learned.pattern(),
}
figure, axes = plt.subplots(1, 5, figsize=(11, 2.4))
for axis, (name, mask) in zip(axes, patterns.items(), strict=False):
    axis.imshow(np.broadcast_to(mask, (SIZE, SIZE)).T, cmap="gray", interpolation="nearest")
    axis.set_title(f"{name}, {int(mask.sum())} lines", fontsize=8)
    axis.set_axis_off()
k = np.arange(SIZE) - SIZE // 2
axes[4].plot(k, before[0], color="0.7", label="at first")
axes[4].plot(k, learned.chances()[0], label="learned")
axes[4].set_xlabel("k in cycles per field of view")
axes[4].set_title("chance of a line", fontsize=8)
axes[4].legend(fontsize=7)
show(figure, "lines")

# %% [markdown]
# ## Shots that can be played
#
# B-splines added to spokes, at each step drawn back to where gradient and slew rate allow: of a
# convex set the farthest point on the way. The file is checked by pypulseq and read back.

# %%
SHOTS, SAMPLES, FOV, DWELL_S = 4 if SMALL else 8, 128 if SMALL else 256, (240.0, 240.0), 4e-6
start = 0.97 * mr.trajectory.radial(SHOTS, SAMPLES, SIZE)
curves = ls.Curves(start, 16, SIZE, FOV, DWELL_S)
along = ls.Along(curves, lr.MoDL(4, 1, 1, 4, rngs=nnx.Rngs(1)))
optimiser = ls.apart(optax.adam(0.08), optax.adam(3e-3))
along = learn.train(
    along, ls.curves_loss, partial(some, 0), optimiser, STEPS // 2, key=jax.random.key(4)
).net
k = along.sampling()
gradient, slew = mr.trajectory.Limits().largest(k, FOV, DWELL_S)
print(f"learned shots: {1e3 * gradient:.1f} mT/m, {slew:.0f} T/m/s")
mr.io.write_readouts(OUT / "sampling_learned.seq", k, FOV, DWELL_S, thickness_mm=5.0)
played = mr.trajectory.of_scan(mr.io.read_pulseq(OUT / "sampling_learned.seq"))
print(f"the file's k: {np.abs(played - k).max():.3f} cycles per field of view from it")


@nnx.jit
def imaged(along, scan):
    seen = ls.scan_along(along.sampling(), scan, jax.random.key(5))
    return along.net(seen.A, seen.y)


one = jax.tree.map(lambda leaf: leaf[0], scans)
figure, axes = plt.subplots(1, 4, figsize=(11, 2.9))
for axis, (name, shots) in zip(axes, {"spokes": start, "learned": k}.items(), strict=False):
    for shot in np.asarray(shots):
        axis.plot(*shot.T, lw=0.8)
    axis.set_aspect("equal")
    axis.set_title(name, fontsize=8)
for axis, x in zip(axes[2:], (one.x, imaged(along, one)), strict=True):
    axis.imshow(np.abs(x).T, cmap="gray", origin="lower")
    axis.set_axis_off()
axes[2].set_title("truth", fontsize=8)
axes[3].set_title("from the learned shots", fontsize=8)
show(figure, "shots")

# %% [markdown]
# ## Flip angles too
#
# From simulated spins to the image of one perfect echo: refocusing angles of a train, the lines its
# echoes take, and the network, all by one gradient.

# %%
ECHOES, LINES = 4 if SMALL else 8, SIZE // 4
sampling = ls.Played(
    lambda v: mr.sequence.spin_echo_train(v, 0.01, tr_s=3.0),
    np.full(ECHOES, np.deg2rad(120.0)),
    (np.deg2rad(10.0), np.deg2rad(180.0)),
    np.flatnonzero(ls.equispaced(shape, LINES))[None] - SIZE / 2.0,
    np.repeat(np.arange(ECHOES), LINES // ECHOES)[None],
    power=ECHOES * np.deg2rad(120.1) ** 2,
)
learner = ls.Learner(sampling, lr.MoDL(4, 1, 1, 4, rngs=nnx.Rngs(2)))


optimiser = ls.apart(optax.adam(0.1), optax.adam(3e-3))
made = learn.train(
    learner, partial(ls.image_loss, target=target), partial(some, 1), optimiser, STEPS // 2,
    key=jax.random.key(6),
)  # fmt: skip
print(
    f"from spins: loss {made.losses[:5].mean():.3f} at first, {made.losses[-5:].mean():.3f} at last"
)
figure, axes = plt.subplots(1, 2, figsize=(8, 2.8))
for name, each in (("at first", sampling), ("learned", made.net.sampling)):
    axes[0].plot(np.rad2deg(each.values()), "o-", label=name)
    axes[1].plot(each.lines(SIZE)[0], each.readout[...][0] + 1, "o", label=name, alpha=0.7)
axes[0].set_xlabel("refocusing pulse")
axes[0].set_ylabel("flip angle in degrees")
axes[1].set_xlabel("k of lines in cycles per field of view")
axes[1].set_ylabel("echo")
axes[0].legend(fontsize=7)
show(figure, "spins")
