r"""Isochromats under sampled radio frequency and gradients: the full, readable engine.

    dM/dt = 2π M × (b_x, b_y, Δ) - (M_x, M_y, 0) / T2 + (0, 0, m0 - M_z) / T1

b = b1 · B1(t) in Hz, Δ = b0 + G(t)·r in Hz: clockwise about the field. Each sample is held for its
dwell time, in which the rotation about the effective field is exact; relaxation stands between
rotations, half of it before the first and after the last (Strang 1968, doi:10.1137/0705041:
second order in the dwell time, exact without pulses).

Bloch 1946, doi:10.1103/PhysRev.70.460.
"""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from mrphys.errors import InputError, Problem
from mrphys.rotation import cos_sin
from mrphys.simulate import over_voxels
from mrphys.tissue import Tissue
from mrphys.units import Values, check_finite, check_time_s

CHUNK = 256
"""Voxels played together: in larger rows XLA shares each small operation among threads."""
SEGMENT = 32
"""Samples between the states that reverse mode keeps."""

Motion = Callable[[Array], Float[Array, "voxels 3"]]


def _complex(value: Values) -> Complex[Array, "..."]:
    array = jnp.asarray(value)
    return array if jnp.iscomplexobj(array) else array.astype(jnp.result_type(float, 1j))


class Waveform(eqx.Module):
    """What the scanner plays: n samples, each held for its dwell time.

    dt_s                dwell time, one or one for each sample
    b1_hz               transmit field γB1/2π: (n,), or (n, channels); its phase is the pulse's
    gradient_hz_per_mm  γG/2π along x, y, z: (n, 3); none when not given

    Raises InputError for lengths that differ, times that are not positive and numbers not finite.
    """

    dt_s: Float[Array, "..."] = eqx.field(converter=lambda v: jnp.asarray(v, float))
    b1_hz: Complex[Array, "samples ..."] = eqx.field(converter=_complex)
    gradient_hz_per_mm: Float[Array, "samples 3"] | None = eqx.field(
        converter=lambda v: None if v is None else jnp.asarray(v), default=None
    )

    def __check_init__(self):
        count = self.b1_hz.shape[0]
        gradient = self.gradient_hz_per_mm
        shapes = {"dt_s": self.dt_s.shape, "b1_hz": self.b1_hz.shape}
        if gradient is not None:
            shapes["gradient_hz_per_mm"] = gradient.shape
            check_finite("Waveform gradient_hz_per_mm", gradient)
        match = self.dt_s.shape in ((), (count,)) and self.b1_hz.ndim <= 2
        if not count or not match or (gradient is not None and gradient.shape != (count, 3)):
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            expected = "as many samples of each, at least one: (n,), (n,) and (n, 3)"
            raise InputError(Problem("Waveform", found, expected))
        check_time_s("Waveform dt_s", self.dt_s, high=1.0)
        check_finite("Waveform b1_hz", jnp.abs(self.b1_hz))

    @property
    def duration_s(self) -> Float[Array, ""]:
        """Time of all samples."""
        return jnp.sum(jnp.broadcast_to(self.dt_s, self.b1_hz.shape[:1]))


def bloch(
    waveform: Waveform,
    q: Tissue,
    position_mm: Float[Array | np.ndarray, "voxels 3"] | Motion | None = None,
    *,
    start: Float[Array | np.ndarray, "voxels 3"] | None = None,
    sensitivities: Inexact[Array | np.ndarray, "voxels channels"] | None = None,
    record: str = "end",
) -> Float[Array, "..."]:
    """Magnetisation (Mx, My, Mz) of a row of voxels at the end, (voxels, 3), or with record="all"
    after every sample, (voxels, samples, 3).

    position_mm    of each voxel, or for flow, rigid motion and diffusion (`random_walk`) a function
                   of the time in s
    start          magnetisation before; m0 along z unless given
    sensitivities  transmit field of each channel at each voxel, for waveforms of several channels

    q.b1 scales the transmit field, q.b0_hz adds to the offset, and q.t2prime_s is left out: average
    over `lorentzian_offsets_hz`. Differentiable, forward and reverse, in waveform, tissue,
    positions and start; reverse mode keeps one state in 32 samples and recomputes between. Voxels
    run in chunks, over all devices (`mrphys.simulate.over_voxels`); a position that is a function
    keeps them together. Raises InputError for shapes that do not match.

    >>> pulse = Waveform(dt_s=1e-3, b1_hz=jnp.array([250.0]))
    >>> bloch(pulse, Tissue(t1_s=[19.0], t2_s=19.0)).round(2) + 0.0
    Array([[0., 1., 0.]], dtype=float64)
    """
    shape = q.voxel_shape
    if len(shape) > 1:
        raise InputError(Problem("bloch: q", f"voxels of shape {shape}", "a row of voxels"))
    count = shape[0] if shape else 1
    q = jax.tree.map(lambda value: jnp.broadcast_to(value, (count,)), q)
    _check(waveform, count, position_mm, start, sensitivities, record)
    fixed = None if callable(position_mm) or position_mm is None else jnp.asarray(position_mm)
    rest = jnp.stack([jnp.zeros_like(q.m0), jnp.zeros_like(q.m0), q.m0], axis=1)
    rows = {
        "q": q,
        "start": rest if start is None else jnp.asarray(start, rest.dtype),
        "position_mm": fixed,
        "transmit": q.b1[:, None] if sensitivities is None else jnp.asarray(sensitivities),
    }
    if sensitivities is not None:
        rows["transmit"] = rows["transmit"] * q.b1[:, None]
    motion = position_mm if callable(position_mm) else None
    parts = (waveform, rows)
    dtype = jnp.result_type(*(leaf.real.dtype for leaf in jax.tree.leaves(parts)))
    waveform, rows = jax.tree.map(
        lambda v: v.astype(jnp.result_type(dtype, 1j) if jnp.iscomplexobj(v) else dtype), parts
    )
    play = eqx.Partial(_play, motion, record == "all")
    return over_voxels(play, waveform, rows, None if motion else CHUNK)


def _check(waveform, count, position_mm, start, sensitivities, record):
    channels = 1 if waveform.b1_hz.ndim == 1 else waveform.b1_hz.shape[1]
    given = {
        "position_mm": (None if callable(position_mm) else position_mm, (count, 3)),
        "start": (start, (count, 3)),
        "sensitivities": (sensitivities, (count, channels)),
    }
    problems = [
        Problem(f"bloch: {name}", f"shape {value.shape}", f"shape {expected}")
        for name, (value, expected) in given.items()
        if value is not None and value.shape != expected
    ]
    if channels > 1 and sensitivities is None:
        found = f"{channels} channels and no sensitivities"
        problems.append(Problem("bloch: waveform", found, "the field of each channel"))
    if record not in ("end", "all"):
        problems.append(Problem("bloch: record", repr(record), "'end' or 'all'"))
    if problems:
        raise InputError(*problems)


def _play(motion: Motion | None, everything: bool, waveform: Waveform, rows: dict) -> Array:
    q, position, transmit = rows["q"], rows["position_mm"], rows["transmit"]
    samples = waveform.b1_hz.shape[0]
    b1 = waveform.b1_hz.reshape(samples, -1)
    dt = jnp.broadcast_to(waveform.dt_s, (samples,))
    middle = jnp.cumsum(dt) - dt / 2
    uniform = waveform.dt_s.ndim == 0
    gradient = waveform.gradient_hz_per_mm

    # What is lost, not what is left: rounded, e^-t/T of many short samples would add up its error.
    def relaxation(time: Array) -> tuple[Array, Array]:
        return jnp.expm1(-time / q.t2_s), jnp.expm1(-time / q.t1_s)

    def relaxed(m: tuple, lost2: Array, lost1: Array) -> tuple:
        return m[0] + m[0] * lost2, m[1] + m[1] * lost2, m[2] + (m[2] - q.m0) * lost1

    # Real and imaginary parts apart, an array for each axis: complex or strided arrays would keep
    # the loop from being vectorised.
    real, imaginary = (part.T for part in (transmit.real, transmit.imag))
    fixed = () if position is None else tuple(position.T)

    def turned(m: tuple, event: tuple) -> tuple:
        b1x, b1y, gradient, dt, now = event
        across = sum(real[i] * b1x[i] for i in range(b1x.size))
        along = sum(real[i] * b1y[i] for i in range(b1x.size))
        if jnp.iscomplexobj(transmit):
            across = across - sum(imaginary[i] * b1y[i] for i in range(b1x.size))
            along = along + sum(imaginary[i] * b1x[i] for i in range(b1x.size))
        offset = q.b0_hz
        if gradient is not None:
            where = motion(now).T.astype(dt.dtype) if motion is not None else fixed
            offset = offset + sum(gradient[axis] * where[axis] for axis in range(3))
        turn = 2 * jnp.pi * dt
        return rotated(m, (turn * across, turn * along, turn * offset))

    def sample(m: tuple, event: tuple) -> tuple[tuple, tuple | None]:
        played, between = event
        m = turned(m, played)
        after = relaxed(m, *relaxation(played[3] / 2)) if everything else None
        return relaxed(m, *(constant if uniform else relaxation(between))), after

    half = dt / 2
    constant = relaxation(dt[0])
    m = relaxed(tuple(rows["start"].T), *relaxation(half[0]))
    if motion is None and position is None:
        gradient = None
    events = (b1.real, b1.imag, gradient, dt, middle)
    if everything:
        between = half + jnp.append(half[1:], half[-1])
        along = _in_segments(sample, m, (events, between), samples)[1]
        return jnp.moveaxis(jnp.stack(along), (0, 1, 2), (2, 1, 0))
    first = jax.tree.map(lambda v: v[:-1], events)
    m, _ = _in_segments(sample, m, (first, half[:-1] + half[1:]), samples - 1)
    m = turned(m, jax.tree.map(lambda v: v[-1], events))
    return jnp.stack(relaxed(m, *relaxation(half[-1])), axis=1)


def _in_segments(step: Callable, m: tuple, events: tuple, samples: int) -> tuple:
    """A scan that reverse mode recomputes segment by segment."""
    whole = samples // SEGMENT * SEGMENT

    @jax.checkpoint
    def segment(m: tuple, events: tuple) -> tuple:
        return jax.lax.scan(step, m, events)

    parts = jax.tree.map(
        lambda v: v[:whole].reshape(samples // SEGMENT, SEGMENT, *v.shape[1:]), events
    )
    m, first = jax.lax.scan(segment, m, parts)
    m, rest = jax.lax.scan(step, m, jax.tree.map(lambda v: v[whole:], events))
    along = jax.tree.map(
        lambda a, b: jnp.concatenate([a.reshape(whole, *a.shape[2:]), b]), first, rest
    )
    return m, along


def rotated(
    m: tuple[Array, Array, Array], turn_rad: tuple[Array, Array, Array]
) -> tuple[Array, Array, Array]:
    """Vectors turned clockwise about `turn_rad` by its length, from dM/dt = M × w:

        M' = M + cos(θ/2) t + t × v,   v = sin(θ/2) w / θ,   t = 2 M × v

    differentiable where the turn is zero.
    """
    x, y, z = turn_rad
    square = x * x + y * y + z * z
    small = square < 1e-4
    angle = jnp.sqrt(jnp.where(small, 1.0, square))
    cos, sin = cos_sin(angle / 2)
    share = jnp.where(small, 0.5 - square / 48 * (1 - square / 80), sin / angle)
    cos = jnp.where(small, 1 - square / 8 * (1 - square / 48), cos)
    x, y, z = share * x, share * y, share * z
    tx = 2 * (m[1] * z - m[2] * y)
    ty = 2 * (m[2] * x - m[0] * z)
    tz = 2 * (m[0] * y - m[1] * x)
    return (
        m[0] + cos * tx + (ty * z - tz * y),
        m[1] + cos * ty + (tz * x - tx * z),
        m[2] + cos * tz + (tx * y - ty * x),
    )


class RandomWalk(eqx.Module):
    """Free diffusion: the position of each voxel, of one spin each, in the middle of each sample,
    in mm (samples, voxels, 3); a `Motion`."""

    path_mm: Float[Array, "samples voxels 3"]
    end_s: Float[Array, " samples"]

    def __call__(self, time_s: Array) -> Float[Array, "voxels 3"]:
        return self.path_mm[jnp.searchsorted(self.end_s, time_s)]


def random_walk(
    waveform: Waveform, q: Tissue, position_mm: Float[Array | np.ndarray, "voxels 3"], key: Array
) -> RandomWalk:
    """A walk from `position_mm` at q.adc_mm2_per_s, its steps normal of variance 2 ADC dt along
    each axis, to be played with the waveform. Differentiable in ADC where that is positive."""
    samples, start = waveform.b1_hz.shape[0], jnp.asarray(position_mm, float)
    dt = jnp.broadcast_to(waveform.dt_s, (samples,))
    since = dt / 2 + jnp.append(0.0, dt[:-1] / 2)
    variance = 2 * since[:, None] * jnp.broadcast_to(q.adc_mm2_per_s, start.shape[:1])[None]
    moving = variance > 0
    size = jnp.where(moving, jnp.sqrt(jnp.where(moving, variance, 1.0)), 0.0)
    steps = size[..., None] * jax.random.normal(key, (samples, *start.shape), start.dtype)
    return RandomWalk(start[None] + jnp.cumsum(steps, axis=0), jnp.cumsum(dt))


def lorentzian_offsets_hz(t2prime_s: Values, nodes: int) -> Float[Array, "... nodes"]:
    """Offsets of equal weight whose static dephasing is exp(-t / T2') in the limit of many:
    quantiles of the Lorentzian of half width 1 / (2π T2'). Zero for infinite T2'.

    The decay of N nodes errs by less than 6 / N up to t = T2'.
    """
    width = 1 / (2 * jnp.pi * jnp.asarray(t2prime_s, float))
    middle = (jnp.arange(nodes) + 0.5) / nodes - 0.5
    return width[..., None] * jnp.tan(jnp.pi * middle)[(None,) * width.ndim]
