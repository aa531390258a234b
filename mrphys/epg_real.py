r"""Extended phase graphs of trains about one axis, as real numbers.

Where all pulses share one axis and off-resonance grows with the order, two of the three states of
an order are real and the third imaginary, or the reverse: with z = -Z or z = -i Z and G of either
sign,

    f' = cos²(α/2) f + sin²(α/2) g - sin α z,   d = f - g,   d' = cos α d - 2 sin α z
    g' = sin²(α/2) f + cos²(α/2) g + sin α z,   z' = cos α z + sin α d / 2

with the sum f + g as it was: one plane rotation of real numbers an order, where `mrphys.epg` has
nine complex products.
"""

from collections.abc import Callable
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.epg import attenuation, down, relaxation, transmit, up
from mrphys.rotation import cos_sin, turned
from mrphys.tissue import Tissue
from mrphys.wavevectors import Wavevectors

STRETCHES = 3
"""Of a train, each with as many orders as it can fill and its readouts can see."""


def _pulse(states: tuple[Array, ...], event: tuple[Array, ...]) -> tuple[Array, ...]:
    """Real states after a pulse of some flip angle in each voxel, its cosine and sine given."""
    f, g, z = states
    angle, cos, sin = (part[None] for part in event)
    half, z = turned((f - g) / 2, z, angle, (cos, sin))
    middle = (f + g) / 2
    return middle + half, middle - half, z


def echo_train(
    tissue: Tissue,
    flip_rad: Float[Array, " echoes"],
    spacing_s: Array,
    moment_rad_per_mm: Array | None = None,
) -> Float[Array, "echoes voxels"]:
    """Spin echoes of refocusing pulses about the axis along which magnetisation m0 was excited
    (Carr-Purcell-Meiboom-Gill), every pulse between equal crushers: all coherence pathways.

    Before pulses only odd orders 2j + 1 are filled and no longitudinal recovery reaches an echo.
    Off-resonance grows with the order, so no echo knows of it. `moment_rad_per_mm` is of half a
    spacing.
    """
    echoes = flip_rad.shape[0]
    orders = echoes // 2 + 1
    flips = flip_rad[:, None] * transmit(tissue)[None]
    e1, e2 = relaxation(tissue, spacing_s)
    half = jnp.exp(-spacing_s / 2 / tissue.t2_s)
    first = tissue.m0 * half
    lost = None
    if moment_rad_per_mm is not None:
        # Order 2j + 1 before a pulse: F grows to 2j + 3 over the spacing, G falls to 2j - 1.
        line = Wavevectors.on_line(2 * orders + 2)
        rates = attenuation(tissue, line, 1, moment_rad_per_mm)
        grow, fall, stay = (jnp.exp(-rate * spacing_s / 2) for rate in rates)
        lost = (
            grow[1 : 2 * orders : 2] * grow[2 : 2 * orders + 1 : 2],
            fall[1 : 2 * orders : 2] * fall[0 : 2 * orders - 1 : 2],
            stay[1 : 2 * orders : 2] ** 2,
        )
        first, half = first * grow[0], half * fall[1]
    start = (first[None], jnp.zeros_like(first)[None], jnp.zeros_like(first)[None])

    def spacing(states: tuple, event: tuple) -> tuple[tuple, Array]:
        f, g, z = _pulse(states, event)
        f, g, z = e2 * f, e2 * g, e1 * z
        echo = g[0]
        f, g, z = _lost((f, g, z), lost)
        return (up(f, g[0]), down(g), z), echo

    seen = _in_stretches(spacing, start, (flips, *cos_sin(flips)), orders)
    return seen * (half[None] / e2)


def gradient_train(
    tissue: Tissue,
    longitudinal: Float[Array, "filled voxels"],
    flip_rad: Float[Array, " repetitions"],
    times_s: Float[Array, "*repetitions 2"],
    moment_rad_per_mm: Array | None = None,
    orders: int | None = None,
) -> Float[Array, "repetitions voxels"]:
    """Transverse magnetisation right after each pulse of a train about one axis, each followed by
    times_s[0] without a gradient and times_s[1] with one of a unit moment: M+ = i f_0 for pulses
    of phase 0, without off-resonance.

    From states without transverse magnetisation, of as many orders as are filled; `orders` are
    kept, all that a readout can see unless given. With one repetition time off-resonance grows with
    the order and turns no more than the readout; with times of each repetition the train is on
    resonance.
    """
    flips = flip_rad[:, None] * transmit(tissue)[None]
    orders = orders or longitudinal.shape[0] + flip_rad.shape[0] // 2
    rates = None
    if moment_rad_per_mm is not None:
        line = Wavevectors.on_line(orders)
        rates = [attenuation(tissue, line, shift, moment_rad_per_mm) for shift in (0, 1)]

    def kept(times_s: Array) -> tuple[Array, ...] | None:
        if rates is None:
            return None
        still, moving = times_s
        return tuple(jnp.exp(-a * still - b * moving) for a, b in zip(*rates, strict=True))

    alike = times_s.ndim == 1
    repetition_s = jnp.sum(times_s, axis=-1)
    e1 = jnp.exp(-jnp.atleast_1d(repetition_s)[:, None] / tissue.t1_s[None])
    e2 = jnp.exp(-jnp.atleast_1d(repetition_s)[:, None] / tissue.t2_s[None])
    recovered = -tissue.m0[None] * (1 - e1)
    always = (e1, e2, recovered, kept(times_s)) if alike else None
    empty = jnp.zeros_like(longitudinal)

    def repetition(states: tuple, event: tuple) -> tuple[tuple, Array]:
        if always is None:
            *pulse, e1, e2, recovered, times_s = event
            e1, e2, recovered = e1[None], e2[None], recovered[None]
            lost = kept(times_s)
        else:
            pulse, (e1, e2, recovered, lost) = event, always
        f, g, z = _pulse(states, tuple(pulse))
        f, g, z = e2 * f, e2 * g, e1 * z
        signal = f[0]
        f, g, z = _lost((f, g, z), lost)
        below = down(g)
        return (up(f, -below[0]), below, z.at[:1].add(recovered)), signal

    start = (empty, empty, -longitudinal)
    events = (flips, *cos_sin(flips)) + (() if alike else (e1, e2, recovered, times_s))
    return _in_stretches(repetition, start, events, orders) / e2


def _lost(states: tuple[Array, ...], kept: tuple[Array, ...] | None) -> tuple[Array, ...]:
    """States attenuated by diffusion, if at all."""
    if kept is None:
        return states
    return tuple(s * k[: s.shape[0]] for s, k in zip(states, kept, strict=True))


def _in_stretches(
    step: Callable, states: tuple[Array, ...], events: tuple[Array, ...], most: int
) -> Float[Array, "pulses voxels"]:
    """What `step` sees at each pulse. Every pulse fills one order more, and an order j is seen j
    pulses later: orders beyond the pulses played, or still to come, are left out of the work."""
    pulses, filled = events[0].shape[0], states[0].shape[0]
    edges = np.linspace(0, pulses, STRETCHES + 1).astype(int).tolist()
    parts = [(a, b, min(filled + b, pulses - a, most)) for a, b in pairwise(edges) if a < b]
    if sum((b - a) * orders for a, b, orders in parts) > 0.9 * pulses * most:
        parts = [(0, pulses, most)]
    seen = []
    for a, b, orders in parts:
        states = tuple(_of_size(state, orders) for state in states)
        states, part = jax.lax.scan(step, states, tuple(event[a:b] for event in events))
        seen.append(part)
    return jnp.concatenate(seen)


def _of_size(states: Array, orders: int) -> Array:
    missing = max(orders - states.shape[0], 0)
    return jnp.pad(states[:orders], ((0, missing), (0, 0)))
