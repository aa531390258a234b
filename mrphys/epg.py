r"""Extended phase graphs: echoes of pulse trains from the Fourier orders of the magnetisation.

Gradients of whole unit moments turn magnetisation into the orders

    M+(r) = Σ_k F_k exp(2πi k·r),   G_k = F*_{-k},   M_z(r) = Σ_k Z_k exp(2πi k·r)

of which one of each pair k, -k is enough. A pulse of flip α and phase φ mixes the three states of
each order,

    F' = cos²(α/2) F + e^{2iφ} sin²(α/2) G + i e^{iφ} sin α Z
    G' = e^{-2iφ} sin²(α/2) F + cos²(α/2) G - i e^{-iφ} sin α Z
    Z' = cos α Z + (i/2) sin α (e^{-iφ} F - e^{iφ} G)

an interval relaxes them (F, G by E2, Z by E1, Z_0 towards m0), attenuates them by diffusion
(Weigel), turns them by off-resonance, and a gradient of unit moment shifts F up and G down by one.
Moments may lie along one line or along x, y and z (`mrphys.wavevectors`).

Pools that exchange with water have F, G and Z of their own, a semi-solid pool Z alone; a pulse
turns all liquid pools alike and saturates the semi-solid by exp(-π α² g(b0) / pulse_s), and an
interval mixes them by the exponential of relaxation, exchange and chemical shift.

Hennig 1991, doi:10.1002/cmr.1820030302; Weigel 2015, doi:10.1002/jmri.24619; Malik, Teixeira,
Hajnal 2018, doi:10.1002/mrm.27040 (exchange and magnetisation transfer).

States are (orders, voxels), with pools (pools, orders, voxels): the processor's vectors run along
voxels.
"""

from abc import abstractmethod
from typing import NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.diffusion import attenuation_rate
from mrphys.exchange import exponential, free_rates
from mrphys.rotation import cos_sin
from mrphys.tissue import Tissue
from mrphys.wavevectors import Shift, Vector, Wavevectors, as_vector, sources

DEFAULT_PULSE_S = 1e-3


class States(NamedTuple):
    """The magnetisation by order; `minus` holds G_k, the conjugate of F_{-k}. With pools, water
    first; the semi-solid, in `longitudinal` alone, last."""

    plus: Complex[Array, "*pools orders voxels"]
    minus: Complex[Array, "*pools orders voxels"]
    longitudinal: Complex[Array, "*pools orders voxels"]


class Part(eqx.Module):
    """A part of a sequence: pulses, and what follows them until the next part.

    shifts, reads, spoil   as of a `Block`
    """

    shifts: eqx.AbstractVar[tuple[Shift, ...]]
    reads: eqx.AbstractVar[tuple[bool, ...]]
    spoil: eqx.AbstractVar[bool]

    @property
    @abstractmethod
    def intervals_s(self) -> Float[Array, "n m"]:
        """Durations of the intervals of each repetition."""

    @property
    def repetitions(self) -> int:
        """How often the pattern is played."""
        return self.intervals_s.shape[0]

    @property
    def readouts(self) -> int:
        """Readouts of all repetitions."""
        return self.repetitions * sum(self.reads)

    @property
    def duration_s(self) -> Float[Array, ""]:
        """Time of all repetitions."""
        return jnp.sum(self.intervals_s)

    @abstractmethod
    def energy_hz2_s(self, pulse_s: Array) -> Float[Array, ""]:
        """∫ B1² dt of the pulses, B1 in Hz; pulse_s is the duration of one without its own."""

    @abstractmethod
    def play(
        self, tissue: Tissue, states: States, around: "Surroundings"
    ) -> tuple[States, Complex[Array, "readouts voxels"]]:
        """The states after it, and its readouts."""


class Block(Part):
    """n repetitions of one pulse and the m intervals after it.

    flip_rad, phase_rad   of each pulse
    receiver_rad          phase of the receiver in each repetition
    times_s               durations of the intervals
    shifts                unit moments of the gradient in each interval: whole numbers on one line,
                          or (x, y, z) of them
    reads                 which intervals end with a readout
    spoil                 no transverse magnetisation survives a repetition
    one_axis              a promise: pulses of one phase, one repetition time, nothing transverse
                          before; a readout, then a unit moment, in each repetition
    on_resonance          a promise that b0_hz is 0: `one_axis` with any repetition times
    alike                 a promise: the intervals of all repetitions last as long
    ticks                 a promise: each repetition lasts so many of a unit of time that all blocks
                          of the sequence which say so share; None for not known
    """

    flip_rad: Float[Array, " n"]
    phase_rad: Float[Array, " n"]
    receiver_rad: Float[Array, " n"]
    times_s: Float[Array, "n m"]
    shifts: tuple[Shift, ...] = eqx.field(static=True)
    reads: tuple[bool, ...] = eqx.field(static=True)
    spoil: bool = eqx.field(static=True, default=False)
    one_axis: bool = eqx.field(static=True, default=False)
    on_resonance: bool = eqx.field(static=True, default=False)
    alike: bool = eqx.field(static=True, default=False)
    ticks: int | None = eqx.field(static=True, default=None)

    @property
    def intervals_s(self) -> Float[Array, "n m"]:
        return self.times_s

    def energy_hz2_s(self, pulse_s: Array) -> Float[Array, ""]:
        """Of rectangular pulses: Σ α² / (4 π² pulse_s)."""
        return jnp.sum(self.flip_rad**2) / (4 * jnp.pi**2 * pulse_s)

    def play(
        self, tissue: Tissue, states: States, around: "Surroundings"
    ) -> tuple[States, Complex[Array, "readouts voxels"]]:
        return general(self, tissue, states, *around)


class Surroundings(NamedTuple):
    """What the blocks of one sequence share; where net times of static dephasing are followed their
    units, and the ticks of every unit that a repetition of the block adds."""

    moment_rad_per_mm: Array | None = None
    waves: Wavevectors | None = None
    pulse_s: Array | float = DEFAULT_PULSE_S
    units_s: Array | None = None
    ticks: tuple[int, ...] = ()


def has_pools(tissue: Tissue) -> bool:
    """Whether something exchanges with water."""
    return bool(tissue.pools) or tissue.semisolid is not None


def equilibrium(tissue: Tissue, orders: int) -> States:
    """Magnetisation at rest: Z_0 = m0, of pools their fraction of it."""
    m0 = jax.lax.complex(tissue.m0, jnp.zeros_like(tissue.m0))
    empty = jnp.zeros((orders, m0.size), m0.dtype)
    if not has_pools(tissue):
        return States(empty, empty, empty.at[0].set(m0))
    rest = _at_rest(tissue)
    transverse = jnp.zeros((1 + len(tissue.pools), *empty.shape), m0.dtype)
    longitudinal = jnp.zeros((rest.shape[0], *empty.shape), m0.dtype)
    return States(transverse, transverse, longitudinal.at[:, 0].set(rest.astype(m0.dtype)))


def _at_rest(tissue: Tissue) -> Float[Array, "pools voxels"]:
    semisolid = () if tissue.semisolid is None else (tissue.semisolid,)
    fractions = [pool.fraction for pool in (*tissue.pools, *semisolid)]
    return tissue.m0[None] * jnp.stack([jnp.ones_like(tissue.m0), *fractions])


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


def attenuation(
    tissue: Tissue, waves: Wavevectors, shift: Shift, moment_rad_per_mm: Array
) -> tuple[Float[Array, "orders voxels"], ...]:
    """Rates in 1/s at which diffusion attenuates F_k, G_k and Z_k in an interval during which the
    order changes evenly by `shift` s (Weigel et al. 2010, doi:10.1016/j.jmr.2010.05.011):

        F: (k + s/2)ᵀ D (k + s/2) + sᵀ D s / 12,   G: the same of k - s/2,   Z: kᵀ D k

    k and s in unit moments times `moment_rad_per_mm`: one number, the direction then being that of
    x, or three, for a line its direction and size and otherwise the units along x, y and z.
    """
    moment = jnp.atleast_1d(moment_rad_per_mm)
    vectors, by = jnp.array(waves.vectors)[:, :3], jnp.array(as_vector(shift))
    if waves.along_x and not isinstance(shift, tuple):
        vectors, by = vectors[:, :1], by[:1]
        moment = jnp.pad(moment, (0, 2)) if moment.size == 1 else moment
    k, s = vectors * moment[None], by * moment

    def rate(vector: Array) -> Array:
        return attenuation_rate(vector, tissue.adc_mm2_per_s, tissue.tensor)

    width = rate(s)[None] / 12
    return rate(k + s[None] / 2) + width, rate(k - s[None] / 2) + width, rate(k)


def relaxation(tissue: Tissue, time_s: Array) -> tuple[Array, Array]:
    """exp(-t/T1) and exp(-t/T2), (1, voxels)."""
    return jnp.exp(-time_s / tissue.t1_s)[None], jnp.exp(-time_s / tissue.t2_s)[None]


def shifted(states: States, by: Shift | Vector, waves: Wavevectors | None = None) -> States:
    """The states after a gradient. What leaves the wavevectors kept is lost."""
    vector = as_vector(by)
    if not any(vector):
        return states
    plus, minus, longitudinal = states
    waves = waves or Wavevectors.on_line(plus.shape[-2])
    step = waves.steps_up(vector)
    if step:
        minus = jnp.moveaxis(minus, -2, 0)
        plus = jnp.moveaxis(plus, -2, 0)
        lowest = minus[1 : step + 1].conj()
        for i in range(step):
            minus = down(minus)
            plus = up(plus, lowest[i])
        return States(jnp.moveaxis(plus, 0, -2), jnp.moveaxis(minus, 0, -2), longitudinal)
    of_plus, of_minus = sources(waves, vector)
    everywhere = jnp.concatenate([plus, minus.conj(), jnp.zeros_like(plus[..., :1, :])], axis=-2)
    return States(everywhere[..., of_plus, :], everywhere[..., of_minus, :].conj(), longitudinal)


def of_size(states: States, orders: int) -> States:
    """States of as many orders, those missing empty."""

    def cut(part: Array) -> Array:
        spare = [(0, 0)] * (part.ndim - 2) + [(0, max(orders - part.shape[-2], 0)), (0, 0)]
        return jnp.pad(part[..., :orders, :], spare)

    return States(*map(cut, states))


def up(states: Array, lowest: Array) -> Array:
    """Every order one higher, the highest lost. Padding, unlike joining, keeps loops vectorised."""
    return jnp.pad(states[:-1], ((1, 0),) + ((0, 0),) * (states.ndim - 1)).at[0].set(lowest)


def down(states: Array) -> Array:
    """Every order one lower, the highest empty."""
    return jnp.pad(states[1:], ((0, 1),) + ((0, 0),) * (states.ndim - 1))


class _Interval(NamedTuple):
    """What an interval does to states before its gradient: factors of a single pool, matrices
    (pools, pools, orders, voxels) of several."""

    plus: Array
    minus: Array
    longitudinal: Array
    recovered: Array


def _interval(
    tissue: Tissue, waves: Wavevectors, shift: Shift, moment: Array | None, time_s: Array
) -> _Interval:
    lost = None if moment is None else attenuation(tissue, waves, shift, moment)
    if not has_pools(tissue):
        e1, e2 = relaxation(tissue, time_s)
        turn = jnp.exp(-2j * jnp.pi * tissue.b0_hz * time_s)[None]
        plus, minus, longitudinal = e2 * turn, e2 * turn.conj(), e1
        if lost is not None:
            f, g, z = (jnp.exp(-rate * time_s) for rate in lost)
            plus, minus, longitudinal = plus * f, minus * g, longitudinal * z
        return _Interval(plus, minus, longitudinal, tissue.m0[None] * (1 - e1))
    transverse, along = free_rates(
        tissue.t1_s, tissue.t2_s, tissue.b0_hz, tissue.pools, tissue.semisolid
    )
    plus = exponential(transverse * time_s)[:, :, None]
    minus, along = plus.conj(), along[:, :, None]
    rest = _at_rest(tissue)
    kept = exponential(along * time_s)
    recovered = rest - jnp.sum(kept[:, :, 0] * rest[None], axis=1)
    if lost is not None:
        f, g, z = lost
        plus, minus = (
            plus * jnp.exp(-f * time_s)[None, None],
            minus * jnp.exp(-g * time_s)[None, None],
        )
        liquid = jnp.diag(jnp.arange(rest.shape[0]) <= len(tissue.pools)).astype(z.dtype)
        kept = exponential((along - liquid[:, :, None, None] * z[None, None]) * time_s)
    return _Interval(plus, minus, kept, recovered)


def _mixed(matrix: Array, states: Array) -> Array:
    """Of a single pool the product, of several the sum over pools."""
    if states.ndim == 2:
        return matrix * states
    parts = [matrix[:, q] * states[q][None] for q in range(states.shape[0])]
    return jnp.sum(jnp.stack(parts), axis=0)


def _evolved(states: States, through: _Interval) -> States:
    longitudinal = _mixed(through.longitudinal, states.longitudinal)
    recovered = through.recovered.astype(longitudinal.dtype)
    if longitudinal.ndim == 3:
        longitudinal = longitudinal.at[:, 0].add(recovered)
    else:
        longitudinal = longitudinal.at[:1].add(recovered)
    return States(
        _mixed(through.plus, states.plus), _mixed(through.minus, states.minus), longitudinal
    )


def general(
    block: Block,
    tissue: Tissue,
    states: States,
    moment_rad_per_mm: Array | None = None,
    waves: Wavevectors | None = None,
    pulse_s: Array | float = DEFAULT_PULSE_S,
    units_s: Array | None = None,
    ticks: tuple[int, ...] = (),
) -> tuple[States, Complex[Array, "readouts voxels"]]:
    """One block played from any states: the states after it, and its readouts.

    Pulses and intervals as the module says, for any flips and phases; fields of `tissue` are
    (voxels,). `waves` says which wavevectors the states are of, 0, 1, 2, ... on a line unless
    given; what leaves them is lost. `pulse_s` is for the saturation of a semi-solid pool. With
    `units_s` a readout is of all net times of static dephasing, each as weak as T2' has made it;
    without, of static dephasing as if there were none.
    """
    waves = waves or Wavevectors.on_line(states.plus.shape[-2])
    flips = block.flip_rad[:, None] * transmit(tissue)[None]
    axis = jnp.exp(1j * block.phase_rad)
    liquid = states.plus.shape[0] if has_pools(tissue) else None

    def through(times: Array) -> list[_Interval]:
        return [
            _interval(tissue, waves, shift, moment_rad_per_mm, times[i])
            for i, shift in enumerate(block.shifts)
        ]

    def weights(times: Array) -> list[tuple[Array, Array] | None]:
        if units_s is None:
            return [None] * len(block.reads)
        return [_static_weights(tissue, waves, units_s, after) for after in jnp.cumsum(times)]

    once = block.alike or block.repetitions == 1
    always = (through(block.times_s[0]), weights(block.times_s[0])) if once else None
    still = (0,) * len(ticks)
    moves = [as_vector(shift) + still for shift in block.shifts]
    end = (0, 0, 0, *ticks)
    if not block.reads[-1]:
        moves[-1], end = (*moves[-1][:3], *ticks), (0, 0, 0)

    def repetition(states: States, event: tuple) -> tuple[States, tuple[Array, ...]]:
        cos, sin, axis, times, receiver, saturated = event
        states = _pulse(states, cos, sin, axis, liquid, saturated)
        seen = []
        intervals, weighed = always or (through(times), weights(times))
        for move, reads, interval, weight in zip(
            moves, block.reads, intervals, weighed, strict=True
        ):
            states = shifted(_evolved(states, interval), move, waves)
            if reads:
                visible = _visible(states, waves, weight)
                seen.append((visible if liquid is None else visible.sum(0)) * receiver)
        states = shifted(states, end, waves)
        if block.spoil:
            nothing = jnp.zeros_like(states.plus)
            states = States(nothing, nothing, states.longitudinal)
        return states, tuple(seen)

    receiver = jnp.exp(-1j * block.receiver_rad)
    saturated = None
    if tissue.semisolid is not None:
        absorbed = tissue.semisolid.absorption_s(tissue.b0_hz)
        saturated = jnp.exp(-jnp.pi * flips**2 * absorbed[None] / pulse_s)
    events = (*cos_sin(flips), axis, block.times_s, receiver, saturated)
    states, seen = jax.lax.scan(repetition, states, events)
    if not seen:
        return states, jnp.zeros((0, tissue.m0.size), states.plus.dtype)
    return states, jnp.stack(seen, axis=1).reshape(-1, tissue.m0.size)


def remaining(net_s: Array, t2prime_s: Float[Array, " voxels"]) -> Float[Array, "times voxels"]:
    """exp(-|τ|/T2') of each net time τ in each voxel. Net times within rounding of zero are zero,
    where |τ| is taken to have the slope 0."""
    some = jnp.abs(net_s) > 64 * jnp.finfo(net_s.dtype).eps * jnp.max(jnp.abs(net_s), initial=1e-3)
    size = jnp.where(some, jnp.abs(net_s), 0.0)
    return jnp.exp(-size[:, None] / t2prime_s[None])


def _static_weights(
    tissue: Tissue, waves: Wavevectors, units_s: Array, after_s: Array
) -> tuple[Array, Array]:
    """exp(-|τ|/T2') of F_k and of its opposite F_{-k}, a time after a pulse, at which their net
    times were those of their ticks. Of k = 0 there is one."""
    ticks = np.array([k[3:] for k in waves.vectors if not any(k[:3])])
    before = jnp.sum(ticks.astype(units_s.dtype) * units_s[None], axis=1)
    there = remaining(before + after_s, tissue.t2prime_s)
    back = remaining(after_s - before, tissue.t2prime_s)
    return there, jnp.where(np.any(ticks, axis=1)[:, None], back, 0.0)


def _visible(states: States, waves: Wavevectors, weights: tuple[Array, Array] | None) -> Array:
    """F without gradients: of order 0, or weighed over all net times of static dephasing."""
    if weights is None:
        return states.plus[..., 0, :]
    here = np.array([i for i, k in enumerate(waves.vectors) if not any(k[:3])])
    there, back = (w.reshape((1,) * (states.plus.ndim - 2) + w.shape) for w in weights)
    if here.size == len(waves):
        return jnp.sum(states.plus * there + states.minus.conj() * back, axis=-2)
    plus, minus = states.plus[..., here, :], states.minus[..., here, :]
    return jnp.sum(plus * there + minus.conj() * back, axis=-2)


def _pulse(
    states: States,
    cos: Array,
    sin: Array,
    axis: Array,
    liquid: int | None,
    saturated: Array | None,
) -> States:
    plus, minus, longitudinal = states
    z = longitudinal if liquid is None else longitudinal[:liquid]
    along = cos.reshape((1,) * (plus.ndim - 1) + (-1,))
    across = 1j * sin.reshape(along.shape)
    half_up, half_down = (1 + along) / 2, (1 - along) / 2
    back = axis.conj()
    turned = along * z + across / 2 * (back * plus - axis * minus)
    if saturated is not None:
        turned = jnp.concatenate([turned, saturated[None, None] * longitudinal[liquid:]])
    return States(
        half_up * plus + axis**2 * (half_down * minus) + axis * (across * z),
        back**2 * (half_down * plus) + half_up * minus - back * (across * z),
        turned,
    )
