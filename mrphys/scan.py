"""y = a scan of spins: the raw signal of any sequence, through the Bloch equations."""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.events import Scan
from mrphys.playback import Plan, plan_scan
from mrphys.spins import SpinCloud

SAMPLES_AT_ONCE = 128
KERNEL_BYTES = 3e8


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
    precession and relaxation are exact.

    coils     receive sensitivity of each coil at each spin; one coil of 1 when not given
    chunk     spins at a time; chosen to bound memory when not given
    field_t   the field that offsets in ppm refer to
    progress  called with the number of spins done and of all

    Diffusion is left out, and tissue.t2prime_s is resolved by SpinCloud.from_volume only.
    Differentiable in the tissue (b1 scales the transmit field), positions and coils; works inside
    jit when seq is not traced. Raises InputError for coils of another number of spins, or no
    samples.

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
    spins = {
        "position_mm": phantom.position_mm,
        "m0": q.m0,
        "r1": 1 / q.t1_s,
        "r2": 1 / q.t2_s,
        "b1": q.b1,
        "b0_hz": q.b0_hz,
        "coils": jnp.ones((size, 1), q.m0.dtype) if coils is None else jnp.asarray(coils).T,
    }
    plan = plan_scan(seq, q.m0.dtype, field_t)
    if not len(seq.pulses):
        return jnp.zeros((spins["coils"].shape[1], plan.receiver.size), plan.receiver.dtype)
    chunk = min(chunk or _chunk(plan), max(size, 1))
    total = jnp.zeros((plan.receiver.size, spins["coils"].shape[1]), plan.receiver.dtype)
    for start in range(0, size, chunk):
        part = {name: _part(value, start, chunk) for name, value in spins.items()}
        total = total + _signal(plan, part)
        if progress is not None:
            jax.block_until_ready(total)
            progress(min(start + chunk, size), size)
    return (total * plan.receiver[:, None]).T


def _part(value: Array, start: int, chunk: int) -> Array:
    """A chunk of spins, the last filled up with spins of no magnetisation, so it compiles once."""
    taken = value[start : start + chunk]
    missing = chunk - taken.shape[0]
    return jnp.pad(taken, ((0, missing),) + ((0, 0),) * (taken.ndim - 1))


def _chunk(plan: Plan) -> int:
    """Spins that keep propagators, states and kernels within KERNEL_BYTES."""
    different = sum(group["frequency_hz"].size for group in plan.pulses)
    each = 8 * (4 * SAMPLES_AT_ONCE + 2 * plan.free_s.size + 12 * different)
    return int(np.clip(KERNEL_BYTES / each, 64, 2048))


@jax.jit
def _signal(plan: Plan, spins: dict[str, Array]) -> Complex[Array, "samples coils"]:
    """The signal of one chunk of spins, before the receiver's phase."""
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
        now = excited[after] * _precessed(turns) * jnp.exp(-t[:, None] * spins["r2"][None])
        return jnp.dot(now, spins["coils"].astype(now.dtype), precision="highest")

    per_block = (blocks(plan.after), blocks(plan.sample_s), blocks(plan.sample_moment))
    signal = jax.lax.map(block, per_block)
    return signal.reshape(-1, signal.shape[-1])[: plan.sample_s.size]


def _precessed(turns: Float[Array, "..."]) -> Complex[Array, "..."]:
    """exp(-2πi turns); whole turns are taken off first, which keeps float32 exact."""
    angle = 2 * math.pi * (turns - jax.lax.stop_gradient(jnp.round(turns)))
    return jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))


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
        turn = [2 * math.pi * cycles for cycles in (field.real, field.imag, along)]
        return _relaxed(_rotated(maps, turn), spins, relaxing), None

    steps = (pulse["dt_s"], pulse["b1_hz"], pulse["moment"], between)
    return jnp.stack(jax.lax.scan(step, _relaxed(tuple(start), spins, half[0]), steps)[0])


def _relaxed(maps: tuple[Array, ...], spins: dict[str, Array], dt: Array) -> tuple[Array, ...]:
    e2, lost = jnp.exp(-dt * spins["r2"])[None], -jnp.expm1(-dt * spins["r1"])[None]
    constant = jnp.array([0.0, 0.0, 0.0, 1.0], lost.dtype)[:, None]
    x, y, z = maps
    return x * e2, y * e2, z + (constant * spins["m0"][None] - z) * lost


def _rotated(maps: tuple[Array, ...], turn: list[Array]) -> tuple[Array, ...]:
    """Each column turned clockwise by |turn| about turn, differentiable where that is zero.

    M' = cos θ M + (sin θ / θ) M × w + ((1 - cos θ) / θ²) w (w·M), from dM/dt = M × w.
    """
    x, y, z = turn
    square = x**2 + y**2 + z**2
    small = square < 1e-3
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    half = jnp.sin(angle / 2) / angle
    versed = jnp.where(
        small, 0.5 - square / 24 * (1 - square / 30 * (1 - square / 56)), 2 * half**2
    )
    near = 1 - square / 6 * (1 - square / 20 * (1 - square / 42))
    sinc = jnp.where(small, near, jnp.sin(angle) / angle)[None]
    cos = (1 - versed * square)[None]
    mx, my, mz = maps
    x, y, z = x[None], y[None], z[None]
    along = versed[None] * (x * mx + y * my + z * mz)
    return (
        cos * mx + sinc * (my * z - mz * y) + along * x,
        cos * my + sinc * (mz * x - mx * z) + along * y,
        cos * mz + sinc * (mx * y - my * x) + along * z,
    )


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
        free = plus * _precessed(turns) * jnp.exp(-free_s * spins["r2"])
        grown = jnp.expm1(-free_s * spins["r1"])
        return (free, after[2] + (after[2] - spins["m0"]) * grown), plus

    start = (jnp.zeros_like(spins["m0"]) * plan.phase[0], spins["m0"])
    played = (plan.kind, plan.phase, plan.turned, plan.free_s, plan.free_moment)
    return jax.lax.scan(play, start, played)[1]
