r"""Extended phase graphs: echoes of pulse trains from the Fourier orders of the magnetisation.

Gradients of integer moment turn magnetisation along their axis into the orders

    M+(r) = Σ_k F_k exp(2πi k·r),   G_k = F*_{-k},   M_z(r) = Σ_k Z_k exp(2πi k·r)

of which k >= 0 is enough. A pulse of flip α and phase φ mixes the three states of each order,

    F' = cos²(α/2) F + e^{2iφ} sin²(α/2) G + i e^{iφ} sin α Z
    G' = e^{-2iφ} sin²(α/2) F + cos²(α/2) G - i e^{-iφ} sin α Z
    Z' = cos α Z + (i/2) sin α (e^{-iφ} F - e^{iφ} G)

an interval relaxes them (F, G by E2, Z by E1, Z_0 towards m0), attenuates them by diffusion
(Weigel), turns them by off-resonance, and a gradient of unit moment shifts F up and G down by one.

Hennig 1991, doi:10.1002/cmr.1820030302; Weigel 2015, doi:10.1002/jmri.24619.

Where all pulses share one axis and off-resonance grows with the order, two of three states are
real and the third imaginary, or the reverse: with z = -Z or z = -i Z and G of either sign,

    f' = cos²(α/2) f + sin²(α/2) g - sin α z,   d = f - g,   d' = cos α d - 2 sin α z
    g' = sin²(α/2) f + cos²(α/2) g + sin α z,   z' = cos α z + sin α d / 2

with the sum f + g as it was: one plane rotation of real numbers an order (`echo_train`,
`gradient_train`). `general` takes any phases.

States are (orders, voxels): the processor's vectors run along voxels.
"""

from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mrphys.rotation import cos_sin, turned
from mrphys.tissue import Tissue


class Block(eqx.Module):
    """n repetitions of one pulse and the m intervals after it.

    flip_rad, phase_rad   of each pulse
    receiver_rad          phase of the receiver in each repetition
    times_s               durations of the intervals
    dephased_s            net time, refocused time subtracted, that static dephasing has acted at
                          the end of each interval
    shifts                unit moments of the gradient in each interval, 0 or 1
    reads                 which intervals end with a readout
    spoil                 no transverse magnetisation survives a repetition
    one_axis              a promise: pulses of one phase, one repetition time, nothing transverse
                          before; a readout, then a unit moment, in each repetition
    """

    flip_rad: Float[Array, " n"]
    phase_rad: Float[Array, " n"]
    receiver_rad: Float[Array, " n"]
    times_s: Float[Array, "n m"]
    dephased_s: Float[Array, "n m"]
    shifts: tuple[int, ...] = eqx.field(static=True)
    reads: tuple[bool, ...] = eqx.field(static=True)
    spoil: bool = eqx.field(static=True, default=False)
    one_axis: bool = eqx.field(static=True, default=False)

    @property
    def repetitions(self) -> int:
        """How often the pattern is played."""
        return self.flip_rad.shape[0]

    @property
    def readouts(self) -> int:
        """Readouts of all repetitions."""
        return self.repetitions * sum(self.reads)

    @property
    def read_after_s(self) -> Float[Array, " readouts"]:
        """Net time of static dephasing at each readout."""
        read = [i for i, reads in enumerate(self.reads) if reads]
        return self.dephased_s[:, jnp.array(read, int)].ravel()


class States(NamedTuple):
    """Orders 0, 1, ... of the magnetisation; `minus` holds G_k, the conjugate of F_{-k}."""

    plus: Complex[Array, "orders voxels"]
    minus: Complex[Array, "orders voxels"]
    longitudinal: Complex[Array, "orders voxels"]


def equilibrium(tissue: Tissue, orders: int) -> States:
    """Magnetisation at rest: Z_0 = m0."""
    m0 = jax.lax.complex(tissue.m0, jnp.zeros_like(tissue.m0))
    empty = jnp.zeros((orders, m0.size), m0.dtype)
    return States(empty, empty, empty.at[0].set(m0))


def transmit(tissue: Tissue) -> Float[Array, "*voxels"]:
    """Magnitude of the transmit field, relative to nominal; a real field keeps its sign."""
    b1 = tissue.b1
    if not jnp.iscomplexobj(b1):
        return b1
    square = b1.real**2 + b1.imag**2
    some = square > 0
    return jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)


def in_phase(x: Array, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
    """Readouts turned by the phase of the transmit field, which turns every pulse alike."""
    b1 = tissue.b1
    if not jnp.iscomplexobj(b1):
        return x
    size = transmit(tissue)
    some = size > 0
    return x * jnp.where(some, b1 / jnp.where(some, size, 1.0), 1.0)[None]


def diffusion_weighting(
    orders: int, shift: int, moment_rad_per_mm: Array
) -> tuple[Float[Array, " orders"], Float[Array, " orders"], Float[Array, " orders"]]:
    """b per second of an interval for F_k, G_k and Z_k, s/mm² / s, during which the order changes
    evenly by `shift` (Weigel et al. 2010, doi:10.1016/j.jmr.2010.05.011):

        b_F = Δk² ((k + s/2)² + s²/12),   b_G = Δk² ((k - s/2)² + s²/12),   b_Z = Δk² k²
    """
    k = jnp.arange(orders, dtype=jnp.result_type(moment_rad_per_mm, jnp.float32))
    square = moment_rad_per_mm**2
    width = shift**2 / 12
    return (
        square * ((k + shift / 2) ** 2 + width),
        square * ((k - shift / 2) ** 2 + width),
        square * k**2,
    )


def _relaxation(tissue: Tissue, time_s: Array) -> tuple[Array, Array]:
    """exp(-t/T1) and exp(-t/T2), (1, voxels)."""
    return jnp.exp(-time_s / tissue.t1_s)[None], jnp.exp(-time_s / tissue.t2_s)[None]


def _decay(b_per_s: Array, adc: Array, time_s: Array) -> Array:
    return jnp.exp(-b_per_s[:, None] * (adc * time_s)[None])


def shifted(states: States, by: int) -> States:
    """The states after a gradient of one unit moment, or none. The highest order is lost."""
    if by == 0:
        return states
    plus, minus, longitudinal = states
    minus = _down(minus)
    return States(_up(plus, minus[0].conj()), minus, longitudinal)


def general(
    block: Block, tissue: Tissue, states: States, moment_rad_per_mm: Array | None = None
) -> tuple[States, Complex[Array, "readouts voxels"]]:
    """One block played from any states: the states after it, and its readouts.

    Pulses and intervals as the module says, for any flips and phases; fields of `tissue` are
    (voxels,). Highest order lost in a shift: give as many orders as there are shifts to be exact.
    """
    orders = states.plus.shape[0]
    flips = block.flip_rad[:, None] * transmit(tissue)[None]
    axis = jnp.exp(1j * block.phase_rad)

    def interval(states: States, time_s: Array, shift: int) -> States:
        e1, e2 = _relaxation(tissue, time_s)
        turn = e2 * jnp.exp(-2j * jnp.pi * tissue.b0_hz * time_s)[None]
        plus = states.plus * turn
        minus = states.minus * turn.conj()
        longitudinal = states.longitudinal * e1
        if moment_rad_per_mm is not None:
            weights = diffusion_weighting(orders, shift, moment_rad_per_mm)
            lost = [_decay(b, tissue.adc_mm2_per_s, time_s) for b in weights]
            plus, minus, longitudinal = plus * lost[0], minus * lost[1], longitudinal * lost[2]
        longitudinal = longitudinal.at[:1].add(
            (tissue.m0[None] * (1 - e1)).astype(longitudinal.dtype)
        )
        return shifted(States(plus, minus, longitudinal), shift)

    def repetition(states: States, event: tuple) -> tuple[States, tuple[Array, ...]]:
        cos, sin, axis, times, receiver = event
        plus, minus, longitudinal = states
        half_up, half_down = ((1 + cos) / 2)[None], ((1 - cos) / 2)[None]
        along, across = cos[None], 1j * sin[None]
        back = axis.conj()
        states = States(
            half_up * plus + axis**2 * (half_down * minus) + axis * (across * longitudinal),
            back**2 * (half_down * plus) + half_up * minus - back * (across * longitudinal),
            along * longitudinal + across / 2 * (back * plus - axis * minus),
        )
        seen = []
        for i, (shift, reads) in enumerate(zip(block.shifts, block.reads, strict=True)):
            states = interval(states, times[i], shift)
            if reads:
                seen.append(states.plus[0] * receiver)
        if block.spoil:
            nothing = jnp.zeros_like(states.plus)
            states = States(nothing, nothing, states.longitudinal)
        return states, tuple(seen)

    receiver = jnp.exp(-1j * block.receiver_rad)
    events = (*cos_sin(flips), axis, block.times_s, receiver)
    states, seen = jax.lax.scan(repetition, states, events)
    if not seen:
        return states, jnp.zeros((0, tissue.m0.size), states.plus.dtype)
    return states, jnp.stack(seen, axis=1).reshape(-1, tissue.m0.size)


def _up(states: Array, lowest: Array) -> Array:
    """Every order one higher, the highest lost. Padding, unlike joining, keeps loops vectorised."""
    return jnp.pad(states[:-1], ((1, 0), (0, 0))).at[0].set(lowest)


def _down(states: Array) -> Array:
    """Every order one lower, the highest empty."""
    return jnp.pad(states[1:], ((0, 1), (0, 0)))


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
    e1, e2 = _relaxation(tissue, spacing_s)
    half = jnp.exp(-spacing_s / 2 / tissue.t2_s)
    first = tissue.m0 * half
    lost = None
    if moment_rad_per_mm is not None:
        # Order 2j + 1 before a pulse: F grows to 2j + 3 over the spacing, G falls to 2j - 1.
        half_weights = diffusion_weighting(2 * orders + 2, 1, moment_rad_per_mm)
        spent = spacing_s / 2
        up, down, stay = (_decay(b, tissue.adc_mm2_per_s, spent) for b in half_weights)
        lost = (
            up[1 : 2 * orders : 2] * up[2 : 2 * orders + 1 : 2],
            down[1 : 2 * orders : 2] * down[0 : 2 * orders - 1 : 2],
            stay[1 : 2 * orders : 2] ** 2,
        )
        first, half = first * up[0], half * down[1]
    empty = jnp.zeros((orders, tissue.m0.size), first.dtype)
    start = (empty.at[0].set(first), empty, empty)

    def spacing(states: tuple, event: tuple) -> tuple[tuple, Array]:
        f, g, z = _pulse(states, event)
        f, g, z = e2 * f, e2 * g, e1 * z
        echo = g[0]
        if lost is not None:
            f, g, z = f * lost[0], g * lost[1], z * lost[2]
        return (_up(f, g[0]), _down(g), z), echo

    _, echoes_seen = jax.lax.scan(spacing, start, (flips, *cos_sin(flips)))
    return echoes_seen * (half[None] / e2)


def gradient_train(
    tissue: Tissue,
    longitudinal: Float[Array, "orders voxels"],
    flip_rad: Float[Array, " repetitions"],
    repetition_s: Array,
    moment_rad_per_mm: Array | None = None,
) -> Float[Array, "repetitions voxels"]:
    """Transverse magnetisation right after each pulse of a train about one axis, a gradient of one
    unit moment before the next: M+ = i f_0 for pulses of phase 0, without off-resonance.

    From states without transverse magnetisation. A train of one repetition time `repetition_s`
    only: then off-resonance grows with the order and turns no more than the readout.
    """
    flips = flip_rad[:, None] * transmit(tissue)[None]
    e1, e2 = _relaxation(tissue, repetition_s)
    orders = longitudinal.shape[0]
    lost = None
    if moment_rad_per_mm is not None:
        weights = diffusion_weighting(orders, 1, moment_rad_per_mm)
        lost = tuple(_decay(b, tissue.adc_mm2_per_s, repetition_s) for b in weights)
    recovered = -tissue.m0[None] * (1 - e1)
    empty = jnp.zeros_like(longitudinal)
    start = (empty, empty, -longitudinal)

    def repetition(states: tuple, event: tuple) -> tuple[tuple, Array]:
        f, g, z = _pulse(states, event)
        f, g, z = e2 * f, e2 * g, e1 * z
        signal = f[0]
        if lost is not None:
            f, g, z = f * lost[0], g * lost[1], z * lost[2]
        below = _down(g)
        return (_up(f, -below[0]), below, z.at[:1].add(recovered)), signal

    _, seen = jax.lax.scan(repetition, start, (flips, *cos_sin(flips)))
    return seen / e2
