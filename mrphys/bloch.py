r"""Isochromats under sampled radio frequency and gradients: the full, readable engine.

    dM/dt = 2π M × (b_x, b_y, Δ) - (M_x, M_y, 0) / T2 + (0, 0, m0 - M_z) / T1

b = b1 · B1(t) in Hz, Δ = b0 + G(t)·r(t) in Hz: clockwise about the field. Each sample is held for
its dwell time, in which the rotation about the effective field is exact; relaxation stands between
rotations, half of it before the first and after the last (Strang 1968, doi:10.1137/0705041:
second order in the dwell time, exact without pulses). Where pools exchange, a sample is the
exponential of the whole equation, `mrphys.bloch_mcconnell`.

Bloch 1946, doi:10.1103/PhysRev.70.460.
"""

from collections.abc import Callable
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact, Int

from mrphys import bloch_mcconnell
from mrphys.dephasing import dephasing
from mrphys.errors import InputError, Problem
from mrphys.motion import Moving, of_each_spin
from mrphys.rotation import rotated
from mrphys.segments import scan_in_segments
from mrphys.simulate import over_voxels
from mrphys.tissue import Tissue
from mrphys.waveform import Waveform

CHUNK = 256
"""Voxels played together: in larger rows XLA shares each small operation among threads."""
CHUNK_OF_POOLS = 128
"""Their matrices stay in a core's cache."""


def bloch(
    waveform: Waveform,
    q: Tissue,
    position_mm: Float[Array | np.ndarray, "voxels 3"] | None = None,
    *,
    motion: Moving | None = None,
    start: Float[Array | np.ndarray, "voxels n"] | None = None,
    sensitivities: Inexact[Array | np.ndarray, "voxels channels"] | None = None,
    isochromats: int = 1,
    record: str = "end",
    pools: bool = False,
) -> Float[Array, "..."]:
    """Magnetisation (Mx, My, Mz) of a row of voxels at the end, (voxels, 3), or with record="all"
    after every sample, (voxels, samples, 3).

    position_mm    of each voxel, or where it starts
    motion         the position at a time in s of what started there (`mrphys.motion`: flow, rigid
                   motion, diffusion), taken in the middle of each sample
    start          magnetisation before; at rest unless given
    sensitivities  transmit field of each channel at each voxel, for waveforms of several channels
    isochromats    of which q.t2prime_s makes one voxel, an odd number, over which to average
                   (`mrphys.dephasing`, which says how well: 0.4 duration / T2' / isochromats);
                   1 leaves T2' out
    pools          whether to return every pool apart

    q.b1 scales the transmit field, q.b0_hz adds to the offset. Where q has pools, what is returned
    is the sum of water and pools; with `pools`, (..., n) of water, then of each pool, then M_z of
    the semi-solid. `start` is shared by fractions when it is (voxels, 3), the semi-solid at rest,
    or given of all, (voxels, n).

    Differentiable, forward and reverse, in waveform, tissue, pools, positions, motion and start;
    reverse mode keeps one state in 32 samples and recomputes between. Voxels run in chunks, over
    all devices (`mrphys.simulate.over_voxels`). Raises InputError for shapes that do not match.

    >>> pulse = Waveform(dt_s=1e-3, b1_hz=jnp.array([250.0]))
    >>> bloch(pulse, Tissue(t1_s=[19.0], t2_s=19.0)).round(2) + 0.0
    Array([[0., 1., 0.]], dtype=float64)
    """
    shape = q.voxel_shape
    if len(shape) > 1:
        raise InputError(Problem("bloch: q", f"voxels of shape {shape}", "a row of voxels"))
    count = shape[0] if shape else 1
    q = jax.tree.map(lambda value: jnp.broadcast_to(value, (count,)), q)
    several = bool(q.pools) or q.semisolid is not None
    size = bloch_mcconnell.size(q)
    _check(waveform, count, position_mm, motion, start, sensitivities, isochromats, record, size)
    transmit = q.b1[:, None]
    if sensitivities is not None:
        transmit = jnp.asarray(sensitivities) * transmit
    each, shared = of_each_spin(motion)
    rows = Rows(
        q=q,
        start=bloch_mcconnell.shared_out(q, None if start is None else jnp.asarray(start)),
        position_mm=None if position_mm is None else jnp.asarray(position_mm),
        transmit=transmit,
        motion=each,
    )
    parts = (waveform, rows)
    dtype = jnp.result_type(*(leaf.real.dtype for leaf in jax.tree.leaves(parts)))
    waveform, rows = jax.tree.map(
        lambda v: v.astype(jnp.result_type(dtype, 1j) if jnp.iscomplexobj(v) else dtype), parts
    )
    play = _play_pools if several else _play
    chunk = max(1, (CHUNK_OF_POOLS if several else CHUNK) // isochromats)
    how = _How(_kinds(waveform, motion is not None) if several else None, record == "all")
    m = over_voxels(eqx.Partial(_dephased, play, shared, how, isochromats), waveform, rows, chunk)
    m = _seen_from_resonance(waveform, m, record == "all")
    return m if pools or not several else bloch_mcconnell.together(q, m)


class Rows(NamedTuple):
    """What differs from voxel to voxel, voxels along the first axis."""

    q: Tissue
    start: Float[Array, "voxels n"]
    position_mm: Float[Array, "voxels 3"] | None
    transmit: Inexact[Array, "voxels channels"]
    motion: Moving | None


class _How(eqx.Module):
    kinds: Int[Array, " samples"] | None
    everything: bool = eqx.field(static=True)


def _check(
    waveform, count, position_mm, motion, start, sensitivities, isochromats, record, size
) -> None:
    channels = 1 if waveform.b1_hz.ndim == 1 else waveform.b1_hz.shape[1]
    given = {
        "position_mm": (position_mm, [(count, 3)]),
        "start": (start, [(count, 3), (count, size)]),
        "sensitivities": (sensitivities, [(count, channels)]),
    }
    problems = [
        Problem(f"bloch: {name}", f"shape {value.shape}", f"shape {expected[-1]}")
        for name, (value, expected) in given.items()
        if value is not None and value.shape not in expected
    ]
    if channels > 1 and sensitivities is None:
        found = f"{channels} channels and no sensitivities"
        problems.append(Problem("bloch: waveform", found, "the field of each channel"))
    if motion is not None and position_mm is None:
        problems.append(Problem("bloch: motion", "no position_mm", "where each voxel starts"))
    if isochromats < 1 or isochromats % 2 == 0:
        problems.append(Problem("bloch: isochromats", f"{isochromats}", "an odd number"))
    if record not in ("end", "all"):
        problems.append(Problem("bloch: record", repr(record), "'end' or 'all'"))
    if problems:
        raise InputError(*problems)


def _kinds(waveform: Waveform, moving: bool) -> Int[Array, " samples"] | None:
    """Which samples are as the one before (0), free of a field (1), or neither (2). None where the
    waveform is traced, since derivatives are then of each sample."""
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves(waveform)):
        return None
    count = waveform.b1_hz.shape[0]
    b1 = np.asarray(waveform.b1_hz).reshape(count, -1)
    dt = np.broadcast_to(waveform.dt_s, (count,))[:, None]
    gradient = waveform.gradient_hz_per_mm
    columns = np.concatenate([b1, dt, *([] if gradient is None else [gradient])], axis=1)
    alike = np.append(False, np.all(columns[1:] == columns[:-1], axis=1))
    if moving and gradient is not None:
        alike &= ~np.any(np.asarray(gradient), axis=1)
    return jnp.asarray(np.where(alike, 0, np.where(np.any(b1, axis=1), 2, 1)))


def _dephased(
    play: Callable,
    shared: Moving | None,
    how: _How,
    isochromats: int,
    waveform: Waveform,
    rows: Rows,
) -> Array:
    """Averaged over the offsets of T2'."""
    if isochromats == 1:
        return play(eqx.combine(rows.motion, shared), how, waveform, rows)
    voxels = rows.q.m0.size
    duration = waveform.duration_s
    offsets, weights = dephasing(rows.q.t2prime_s, duration, isochromats)
    rows = jax.tree.map(lambda value: jnp.repeat(value, isochromats, axis=0), rows)
    b0_hz = rows.q.b0_hz + jnp.tile(offsets, voxels)
    rows = rows._replace(q=eqx.tree_at(lambda q: q.b0_hz, rows.q, b0_hz))
    m = play(eqx.combine(rows.motion, shared), how, waveform, rows)
    return jnp.einsum("vk,vk...->v...", weights, m.reshape(voxels, isochromats, *m.shape[1:]))


class Events(NamedTuple):
    """What is played in each sample."""

    b1x_hz: Array
    b1y_hz: Array
    gradient_hz_per_mm: Array | None
    dt_s: Array
    middle_s: Array


def _events(waveform: Waveform, anywhere: bool) -> Events:
    samples = waveform.b1_hz.shape[0]
    b1 = waveform.b1_hz.reshape(samples, -1)
    dt = jnp.broadcast_to(waveform.dt_s, (samples,))
    gradient = None if anywhere else waveform.gradient_hz_per_mm
    return Events(b1.real, b1.imag, gradient, dt, jnp.cumsum(dt) - dt / 2)


def _field(motion: Moving | None, waveform: Waveform, rows: Rows) -> Callable:
    """Of an event: the field across, along and its offset from each voxel's resonance, in Hz.

    Real and imaginary parts apart, an array for each axis: complex or strided arrays would keep the
    loop from being vectorised.
    """
    transmit, position = rows.transmit, rows.position_mm
    real, imaginary = (part.T for part in (transmit.real, transmit.imag))
    fixed = () if position is None else tuple(position.T)
    carrier = waveform.frequency_hz
    b0_hz = rows.q.b0_hz if carrier is None else rows.q.b0_hz - carrier

    def field(event: Events) -> tuple[Array, Array, Array]:
        b1x, b1y, gradient, dt, now = event
        across = along = jnp.zeros_like(b0_hz)
        for i in range(b1x.size):
            across, along = across + real[i] * b1x[i], along + real[i] * b1y[i]
        if jnp.iscomplexobj(transmit):
            across = across - sum(imaginary[i] * b1y[i] for i in range(b1x.size))
            along = along + sum(imaginary[i] * b1x[i] for i in range(b1x.size))
        offset = b0_hz
        if gradient is not None:
            where = fixed
            if motion is not None and position is not None:
                where = motion(position, now).T.astype(dt.dtype)
            offset = offset + sum(gradient[axis] * where[axis] for axis in range(3))
        return across, along, offset

    return field


def _play(motion: Moving | None, how: _How, waveform: Waveform, rows: Rows) -> Array:
    q = rows.q
    field = _field(motion, waveform, rows)

    # What is lost, not what is left: rounded, e^-t/T of many short samples would add up its error.
    def relaxation(time: Array) -> tuple[Array, Array]:
        return jnp.expm1(-time / q.t2_s), jnp.expm1(-time / q.t1_s)

    def relaxed(m: tuple, lost2: Array, lost1: Array) -> tuple:
        return m[0] + m[0] * lost2, m[1] + m[1] * lost2, m[2] + (m[2] - q.m0) * lost1

    def turned(m: tuple, event: Events) -> tuple:
        turn = 2 * jnp.pi * event.dt_s
        across, along, offset = field(event)
        return rotated(m, (turn * across, turn * along, turn * offset))

    def sample(m: tuple, event: tuple) -> tuple[tuple, tuple | None]:
        played, between = event
        m = turned(m, played)
        after = relaxed(m, *relaxation(played.dt_s / 2)) if how.everything else None
        return relaxed(m, *(constant if uniform else relaxation(between))), after

    events = _events(waveform, rows.position_mm is None)
    uniform, half = waveform.dt_s.ndim == 0, events.dt_s / 2
    constant = relaxation(events.dt_s[0])
    m = relaxed(tuple(rows.start.T), *relaxation(half[0]))
    if how.everything:
        between = half + jnp.append(half[1:], half[-1])
        along = scan_in_segments(sample, m, (events, between))[1]
        return jnp.moveaxis(jnp.stack(along), (0, 1, 2), (2, 1, 0))
    first = jax.tree.map(lambda v: v[:-1], events)
    m, _ = scan_in_segments(sample, m, (first, half[:-1] + half[1:]))
    m = turned(m, jax.tree.map(lambda v: v[-1], events))
    return jnp.stack(relaxed(m, *relaxation(half[-1])), axis=1)


def _play_pools(motion: Moving | None, how: _How, waveform: Waveform, rows: Rows) -> Array:
    field = _field(motion, waveform, rows)
    carrier = 0.0 if waveform.frequency_hz is None else waveform.frequency_hz
    matter = bloch_mcconnell.Matter.of(rows.q)
    steady = rows.q.b0_hz - carrier  # where no gradient is played the lineshape is looked up once
    absorbed = matter.absorption_s(steady)
    events = _events(waveform, rows.position_mm is None)

    def held(event: Events) -> Array:
        across, along, offset = field(event)
        still = event.gradient_hz_per_mm is None
        g = absorbed if still else matter.absorption_s(offset)
        return matter.held(across, along, offset, g, event.dt_s)

    def free(event: Events) -> Array:
        return matter.free(field(event)[2], event.dt_s)

    def sample(state: tuple, event: tuple) -> tuple[tuple, Array | None]:
        m, matrix = state
        played, kind = event
        if kind is None:
            m = bloch_mcconnell.applied(held(played), m)
            return (m, None), m if how.everything else None
        kept = [lambda _: matrix, free, held]
        matrix = jax.lax.switch(kind, kept, played)
        m = bloch_mcconnell.applied(matrix, m)
        return (m, matrix), m if how.everything else None

    m = jnp.concatenate([rows.start.T, jnp.ones_like(rows.start.T[:1])])
    matrix = None if how.kinds is None else jnp.zeros((m.shape[0], *m.shape), m.dtype)
    (m, _), along = scan_in_segments(sample, (m, matrix), (events, how.kinds))
    return jnp.moveaxis(along[:, :-1], (0, 1, 2), (1, 2, 0)) if how.everything else m[:-1].T


def _seen_from_resonance(waveform: Waveform, m: Array, everything: bool) -> Array:
    """Out of the carrier's frame."""
    if waveform.frequency_hz is None:
        return m
    dt = jnp.broadcast_to(waveform.dt_s, waveform.b1_hz.shape[:1])
    time = jnp.cumsum(dt) if everything else waveform.duration_s
    turn = (-2 * jnp.pi * waveform.frequency_hz * time).astype(m.dtype)
    cos, sin = (part.reshape(1, -1)[:, : turn.size] for part in (jnp.cos(turn), jnp.sin(turn)))
    if not everything:
        cos, sin = cos[:, 0], sin[:, 0]
    liquid = m.shape[-1] // 3
    for i in range(0, 3 * liquid, 3):
        x, y = m[..., i], m[..., i + 1]
        m = m.at[..., i].set(cos * x - sin * y).at[..., i + 1].set(sin * x + cos * y)
    return m
