"""y = a scan of spins: the raw signal of any sequence, through the Bloch equations."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import bloch_mcconnell
from mrphys.errors import InputError, Problem
from mrphys.events import Scan
from mrphys.motion import Moving, of_each_spin
from mrphys.playback import Course, Plan, plan_course, plan_scan
from mrphys.rotation import precessed, rotated
from mrphys.scan_course import Cloud, course_signal
from mrphys.spins import SpinCloud

SAMPLES_AT_ONCE = 128
KERNEL_BYTES = 3e8
MOST_AT_ONCE, MOST_OF_POOLS = 2048, 256
"""Spins; matrices of pools stay in a core's cache."""


def simulate_scan(
    seq: Scan,
    phantom: SpinCloud,
    *,
    coils: Complex[Array | np.ndarray, "coils spins"] | None = None,
    chunk: int | None = None,
    field_t: float = 3.0,
    progress: Callable[[int, int], None] | None = None,
) -> Complex[Array, "coils samples"]:
    """The raw signal of every sample of a sequence in every coil.

    y_c(t) = exp(-i φ_receiver(t)) Σ_r c(r) M+(r, t), with M+ = Mx + i My of each spin from
    dM/dt = γ M × B and relaxation, from equilibrium at t = 0. Pulses are turned step by step
    (rotation exact, relaxation split about it), each different pulse once; between pulses
    precession and relaxation are exact. Spins that move (phantom.motion) and pools that exchange
    (all liquid ones are received, a semi-solid saturates) are played piece by piece
    (`mrphys.scan_course`).

    coils     receive sensitivity of each coil at each spin; one coil of 1 when not given
    chunk     spins at a time; chosen to bound memory when not given
    field_t   the field that offsets in ppm refer to
    progress  called with the number of spins done and of all

    Diffusion is left out, and tissue.t2prime_s is resolved by SpinCloud.from_volume only.
    Differentiable in the tissue (b1 scales the transmit field) and its pools, positions, motion and
    coils; works inside jit when seq is not traced. Raises InputError for coils of another number of
    spins, or no samples.

    Source: Bloch 1946, doi 10.1103/PhysRev.70.460.
    """
    size = phantom.size
    if coils is not None and coils.shape[-1] != size:
        found = f"sensitivities at {coils.shape[-1]} points and {size} spins"
        raise InputError(Problem("simulate_scan: coils", found, "one for each coil and spin"))
    if not any(readout.samples for readout in seq.readouts):
        found = f"no samples in {seq.name or 'the sequence'}"
        raise InputError(Problem("simulate_scan", found, "at least one readout"))
    q = jax.tree.map(lambda value: jnp.broadcast_to(value, (size,)), phantom.q)
    received = jnp.ones((size, 1), q.m0.dtype) if coils is None else jnp.asarray(coils).T
    plan = plan_scan(seq, q.m0.dtype, field_t)
    if not len(seq.pulses):
        return jnp.zeros((received.shape[1], plan.receiver.size), plan.receiver.dtype)
    several = bool(q.pools) or q.semisolid is not None
    each, shared = of_each_spin(phantom.motion)
    cloud = Cloud(phantom.position_mm, q, received, each)
    signal = _signal
    if several or phantom.motion is not None:
        course = plan_course(seq, q.m0.dtype, phantom.motion is not None)
        signal = partial(_course_signal, course, shared)
    chunk = min(chunk or _chunk(plan, bloch_mcconnell.size(q)), max(size, 1))
    total = jnp.zeros((plan.receiver.size, received.shape[1]), plan.receiver.dtype)
    for start in range(0, size, chunk):
        total = total + signal(plan, _part(cloud, start, chunk))
        if progress is not None:
            jax.block_until_ready(total)
            progress(min(start + chunk, size), size)
    return (total * plan.receiver[:, None]).T


def _part(cloud: Cloud, start: int, chunk: int) -> Cloud:
    """A chunk of spins, the last filled up with spins that no coil receives, so it compiles
    once."""
    taken = jax.tree.map(lambda value: value[start : start + chunk], cloud)
    missing = chunk - taken.coils.shape[0]

    def filled(value: Array, mode: str = "edge") -> Array:
        return jnp.pad(value, ((0, missing),) + ((0, 0),) * (value.ndim - 1), mode=mode)

    return jax.tree.map(filled, taken)._replace(coils=filled(taken.coils, "constant"))


def _chunk(plan: Plan, size: int) -> int:
    """Spins that keep propagators, states and kernels within KERNEL_BYTES."""
    different = sum(group["frequency_hz"].size for group in plan.pulses)
    matrices = 12 if size == 3 else (size + 1) ** 2
    each = 8 * (4 * SAMPLES_AT_ONCE + 2 * plan.free_s.size + matrices * different)
    most = MOST_AT_ONCE if size == 3 else MOST_OF_POOLS
    return int(np.clip(KERNEL_BYTES / each, 64, most))


def _course_signal(course: Course, shared: Moving | None, plan: Plan, cloud: Cloud) -> Array:
    return course_signal(plan, course, cloud, shared)


@jax.jit
def _signal(plan: Plan, cloud: Cloud) -> Complex[Array, "samples coils"]:
    """The signal of one chunk of single pools at rest, before the receiver's phase."""
    q = cloud.q
    spins = {"position_mm": cloud.position_mm, "m0": q.m0, "r1": 1 / q.t1_s, "r2": 1 / q.t2_s}
    spins |= {"b1": q.b1, "b0_hz": q.b0_hz, "coils": cloud.coils}
    maps = jnp.concatenate(
        [jax.lax.map(partial(_propagator, spins), group) for group in plan.pulses]
    )
    excited = _after_pulses(plan, spins, maps)
    pad = -plan.sample_s.size % SAMPLES_AT_ONCE

    def blocks(value):
        padded = jnp.pad(value, ((0, pad),) + ((0, 0),) * (value.ndim - 1))
        return padded.reshape(-1, SAMPLES_AT_ONCE, *value.shape[1:])

    @jax.checkpoint
    def block(samples):
        after, t, k = samples
        turns = jnp.dot(k, spins["position_mm"].T, precision="highest")
        turns = turns + t[:, None] * spins["b0_hz"][None]
        now = excited[after] * precessed(turns) * jnp.exp(-t[:, None] * spins["r2"][None])
        return jnp.dot(now, spins["coils"].astype(now.dtype), precision="highest")

    per_block = (blocks(plan.after), blocks(plan.sample_s), blocks(plan.sample_moment))
    signal = jax.lax.map(block, per_block)
    return signal.reshape(-1, signal.shape[-1])[: plan.sample_s.size]


def _propagator(spins: dict[str, Array], pulse: dict[str, Array]) -> Float[Array, "3 4 spins"]:
    """A pulse of phase 0 as the affine map (Mx, My, Mz, 1) -> M of each spin.

    Relaxation stands between the rotations: half a step's before the first and after the last.
    """
    size = spins["m0"].shape[0]
    start = jnp.broadcast_to(jnp.eye(3, 4, dtype=spins["m0"].dtype)[..., None], (3, 4, size))
    half = pulse["dt_s"] / 2
    between = half + jnp.append(half[1:], 0.0)

    def step(maps, x):
        dt, b1_hz, moment, relaxing = x
        field = b1_hz * spins["b1"] * dt
        along = (spins["b0_hz"] - pulse["frequency_hz"]) * dt
        for axis in range(3):
            along = along + spins["position_mm"][:, axis] * moment[axis]
        x, y, z = (2 * math.pi * cycles[None] for cycles in (field.real, field.imag, along))
        return _relaxed(rotated(maps, (x, y, z)), spins, relaxing), None

    steps = (pulse["dt_s"], pulse["b1_hz"], pulse["moment"], between)
    return jnp.stack(jax.lax.scan(step, _relaxed(tuple(start), spins, half[0]), steps)[0])


def _relaxed(maps: tuple[Array, ...], spins: dict[str, Array], dt: Array) -> tuple[Array, ...]:
    e2, lost = jnp.exp(-dt * spins["r2"])[None], -jnp.expm1(-dt * spins["r1"])[None]
    constant = jnp.array([0.0, 0.0, 0.0, 1.0], lost.dtype)[:, None]
    x, y, z = maps
    return x * e2, y * e2, z + (constant * spins["m0"][None] - z) * lost


def _after_pulses(plan: Plan, spins: dict[str, Array], maps: Array) -> Complex[Array, "p spins"]:
    """M+ at the end of every pulse."""

    def play(state, x):
        plus, z = state
        kind, phase, turned, free_s, moment = x
        plus = plus * jnp.conj(phase)
        before = jnp.stack([plus.real, plus.imag, z, jnp.ones_like(z)])
        after = jnp.sum(maps[kind] * before[None], axis=1)
        plus = jax.lax.complex(after[0], after[1]) * (phase * turned)
        turns = jnp.dot(spins["position_mm"], moment, precision="highest")
        turns = turns + free_s * spins["b0_hz"]
        free = plus * precessed(turns) * jnp.exp(-free_s * spins["r2"])
        grown = jnp.expm1(-free_s * spins["r1"])
        return (free, after[2] + (after[2] - spins["m0"]) * grown), plus

    start = (jnp.zeros_like(spins["m0"]) * plan.phase[0], spins["m0"])
    played = (plan.kind, plan.phase, plan.turned, plan.free_s, plan.free_moment)
    return jax.lax.scan(play, start, played)[1]
