"""Acquisitions repeated until nothing changes from one repetition to the next."""

import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from mrphys import epg
from mrphys.epg import DEFAULT_PULSE_S, Block, Part, States, Surroundings
from mrphys.epg_balanced import steady_readouts
from mrphys.sequence.base import Sequence
from mrphys.sequence.train import (
    Profile,
    across_slice,
    check_train,
    shared,
    shortest_moments_s,
)
from mrphys.static import (
    MOST_STRETCHES,
    Clock,
    clock,
    is_finite,
    longest_t2_s,
    read_after_s,
    refuse_times,
    static_loss,
    stretches,
)
from mrphys.tissue import Tissue
from mrphys.units import Values
from mrphys.wavevectors import TICKS, Moment, Wavevectors, as_vector

MOST_STEADY = 512
"""Orders of a steady state whose equations are solved."""


class Repeated(Sequence):
    """Each of several acquisitions in its own steady state, readouts one after the other.

    One repetition of an acquisition maps states x to A x + b; the steady state solves

        (1 - A) x = b

    and carries exact derivatives. From one repetition to the next the phase of all pulses and the
    receiver advances by `advance_rad`, and that advance grows by `spoiling_rad` (RF spoiling, each
    repetition with a gradient of one unit moment: every order k then gains exp(i k ψ), a shift of
    the origin that makes the repetitions alike). `orders` are kept where gradients dephase without
    spoiling, infinitely many being filled.

    T2' weakens every coherence pathway by its net time (`mrphys.static`), of one balanced pulse in
    closed form (`mrphys.epg_balanced`); otherwise, where gradients do not tell it, `orders` ticks
    are followed. `static` says whether any voxel asks for it, `clocks` which times are equal;
    `within` sets both.
    """

    acquisitions: tuple[tuple[Part, ...], ...]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    advance_rad: Float[Array, ""]
    spoiling_rad: Float[Array, ""]
    moment_rad_per_mm: Moment | None = None
    profile: Profile | None = None
    orders: int = eqx.field(static=True, default=48)
    clocks: tuple[Clock, ...] | None = eqx.field(static=True, default=None)
    static: bool = eqx.field(static=True, default=True)

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        return across_slice(self._readouts, tissue, self.profile)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def _readouts(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        shapes = {
            (jax.tree.structure(blocks), *(leaf.shape for leaf in jax.tree.leaves(blocks)))
            for blocks in self.acquisitions
        }
        timings = self._timings(is_finite(tissue))
        if len(shapes) == 1 and len(set(timings)) == 1:
            together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.acquisitions)
            seen = jax.vmap(lambda blocks: self._of_one(blocks, tissue, timings[0]))(together)
            seen = seen.reshape(-1, tissue.m0.size)
        else:
            each = zip(self.acquisitions, timings, strict=True)
            seen = jnp.concatenate(
                [self._of_one(blocks, tissue, timing) for blocks, timing in each]
            )
        return epg.in_phase(seen, tissue)

    def _timings(self, finite: bool) -> tuple[Clock | None, ...]:
        """The clock of each acquisition, None where nothing dephases."""
        if not (self.static and finite):
            return (None,) * len(self.acquisitions)
        return self.clocks or tuple(clock(blocks, steady=True) for blocks in self.acquisitions)

    def _of_one(self, blocks: tuple[Part, ...], tissue: Tissue, timing: Clock | None) -> Array:
        """The readouts of one acquisition in its steady state."""
        if timing is None:
            return self._steady_readouts(blocks, tissue, self._waves(blocks))
        units_s = timing.units_s(blocks)
        by_gradients = timing.by_gradients(blocks)
        if by_gradients is not None:
            net = read_after_s(blocks, by_gradients, units_s)
            seen = self._steady_readouts(blocks, tissue, self._waves(blocks))
            return seen * epg.remaining(net, tissue.t2prime_s)
        balanced = _balanced(blocks)
        if balanced:
            around = Surroundings(pulse_s=self.pulse_s)
            return steady_readouts(balanced, tissue, self.advance_rad, around)
        waves = self._timed_waves(blocks, timing)
        if waves is None:
            seen = self._steady_readouts(blocks, tissue, self._waves(blocks))
            return refuse_times("signal", seen, tissue)
        return self._steady_readouts(blocks, tissue, waves, units_s, timing)

    def _steady_readouts(
        self,
        blocks: tuple[Part, ...],
        tissue: Tissue,
        waves: Wavevectors,
        units_s: Array | None = None,
        timing: Clock | None = None,
    ) -> Array:
        around = Surroundings(self.moment_rad_per_mm, waves, self.pulse_s, units_s)
        advance = jnp.exp(-1j * self.advance_rad)
        along = jnp.array([k[0] for k in waves.vectors])[:, None]
        origin = jnp.exp(1j * self.spoiling_rad * along)
        last = len(blocks) - 1

        def repetition(states: States) -> tuple[States, Array]:
            seen = []
            for i, block in enumerate(blocks):
                if i == last and any(block.shifts):
                    states = States(*(part * origin for part in states))
                pieces = [(block, ())] if timing is None else stretches([block], timing.part(i))
                for piece, ticks in pieces:
                    states, echoes = piece.play(tissue, states, around._replace(ticks=ticks))
                    seen.append(echoes)
            plus, minus, longitudinal = states
            return States(plus * advance, minus * advance.conj(), longitudinal), jnp.concatenate(
                seen
            )

        rest = epg.equilibrium(tissue, len(waves))
        unknown = _Unknown(rest, blocks[-1].spoil)

        def real_map(x: Array) -> Array:
            return unknown.pack(repetition(unknown.unpack(x))[0])

        drive = real_map(jnp.zeros((unknown.size, tissue.m0.size), tissue.m0.dtype))
        unit = jnp.eye(unknown.size, dtype=drive.dtype)[:, :, None]
        columns = jax.vmap(lambda e: real_map(jnp.broadcast_to(e, drive.shape)) - drive)(unit)
        if unknown.size == 1:
            steady = drive / (1 - columns[0])
        else:
            system = unit[..., 0][None] - jnp.moveaxis(columns, (0, 1, 2), (2, 1, 0))
            steady = jnp.linalg.solve(system, drive.T[..., None])[..., 0].T
        return repetition(unknown.unpack(steady))[1]

    def _waves(self, blocks: tuple[Part, ...]) -> Wavevectors:
        """The wavevectors kept: all that come back where the end is spoiled, else `orders`."""
        moves = [shift for block in blocks for shift in block.shifts * block.repetitions]
        on_line = all(shift in (0, 1) for shift in moves)
        count = sum(any(as_vector(shift)) for shift in moves)
        if blocks[-1].spoil or not count:
            orders = count // 2 + 1
            return Wavevectors.on_line(orders) if on_line else Wavevectors.returning(moves)
        return (
            Wavevectors.on_line(self.orders) if on_line else Wavevectors.around(moves, self.orders)
        )

    def _timed_waves(self, blocks: tuple[Part, ...], timing: Clock) -> Wavevectors | None:
        """Wavevectors and ticks followed; None where they are too many."""
        if timing.stretches > MOST_STRETCHES:
            return None
        moves = timing.moves(blocks)
        if timing.count == 1 and not any(any(move[:TICKS]) for move in moves):
            return Wavevectors.of_ticks(self.orders - 1)
        waves = Wavevectors.around(moves, self.orders)
        return waves if len(waves) <= MOST_STEADY else None

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """One repetition of every acquisition, as often as the average readout is repeated."""
        return self._sum(lambda block: block.duration_s) * jnp.mean(self.averages)

    @property
    def pulse_energy_hz2_s(self) -> Float[Array, ""]:
        """∫ B1² dt of one repetition of every acquisition: Σ α² / (4 π² pulse_s)."""
        return self._sum(lambda block: block.energy_hz2_s(self.pulse_s))

    def _sum(self, of) -> Array:
        blocks = [block for blocks in self.acquisitions for block in blocks]
        return jnp.sum(jnp.stack([of(block) for block in blocks]))

    def within(self, q: Tissue, tolerance: float) -> "Repeated":
        """The same, keeping as many orders K as make exp(-2 K t / T2) / (1 - exp(-2 t / T2)), the
        return of all that leaves for order K, less than `tolerance`; t is the time of a moment.
        Where ticks of static dephasing are followed, twice exp(-K q) / (1 - exp(-q)), q what a tick
        costs: u (1/T2 + min(1/T2, 1/T2')), and its share of the rest of the repetition over T1
        where that is spoiled. Traced values keep the number there is. Raises InputError for a
        finite T2' with too many different times."""
        kept = replace(self, static=is_finite(q), clocks=None)
        losses = []
        if kept.static:
            kept = replace(kept, clocks=kept._timings(True))
            losses = [
                _lost_by_tick(blocks, timing, q)
                for blocks, timing in zip(self.acquisitions, kept._timings(True), strict=True)
                if timing is not None and timing.by_gradients(blocks) is None
            ]
        blocks = [block for blocks in self.acquisitions for block in blocks]
        times, longest = shortest_moments_s(blocks), longest_t2_s(q)
        if times and longest is not None:
            losses.append((2 * max(min(times), 1e-6) / longest, 1, 1.0))
        needed = [
            math.ceil(math.log(many / (tolerance * -math.expm1(-loss))) / loss) + more
            for loss, more, many in filter(None, losses)
        ]
        kept = replace(kept, orders=max(2, *needed)) if needed else kept
        for blocks, timing in zip(self.acquisitions, kept._timings(kept.static), strict=True):
            if timing is None or timing.by_gradients(blocks) is not None or _balanced(blocks):
                continue
            if kept._timed_waves(blocks, timing) is None:
                refuse_times("within", jnp.zeros(1), q)
        return kept


def _balanced(blocks: tuple[Part, ...]) -> Block | None:
    """The one pulse without gradients that is played again and again, if it is that."""
    (block, *more) = blocks
    if more or not isinstance(block, Block) or block.repetitions > 1 or block.spoil:
        return None
    return None if any(map(any, map(as_vector, block.shifts))) else block


def _lost_by_tick(
    blocks: tuple[Part, ...], timing: Clock, q: Tissue
) -> tuple[float, int, float] | None:
    """Of the ticks of one repetition the loss q of each, how many, and the bound's factor."""
    loss = None if _balanced(blocks) else static_loss(timing, blocks, q)
    if loss is None:
        return None
    once = timing.most(blocks)
    if blocks[-1].spoil and not isinstance(q.t1_s, Tracer):
        lasting = float(sum(block.duration_s for block in blocks))
        rest = lasting - once * float(timing.units_s(blocks)[0])
        loss += max(rest, 0.0) / (once * float(np.max(np.asarray(q.t1_s))))
    return loss, once, 2.0


class _Unknown:
    """The real numbers that fix the states at the end of a repetition: of order 0, F is the
    conjugate of G and Z is real; where the repetition ends spoiled there is only Z."""

    def __init__(self, like: States, spoiled: bool):
        self.like, self.spoiled = like, spoiled
        self.voxels = like.plus.shape[-1]
        z = like.longitudinal.size // self.voxels
        f = like.plus.size // self.voxels
        pools, bound = f // like.plus.shape[-2], z // like.plus.shape[-2]
        self.lengths = [z, z - bound] + ([] if spoiled else [f, f, f - pools, f - pools])
        self.size = sum(self.lengths)

    def pack(self, states: States) -> Float[Array, "unknown voxels"]:
        """As rows of numbers."""
        plus, minus, z = states
        parts = [z.real, z.imag[..., 1:, :]]
        if not self.spoiled:
            others = minus[..., 1:, :]
            parts += [plus.real, plus.imag, others.real, others.imag]
        return jnp.concatenate([part.reshape(-1, self.voxels) for part in parts])

    def unpack(self, x: Float[Array, "unknown voxels"]) -> States:
        """And back."""
        z_real, z_imaginary, *rest = jnp.split(x, np.cumsum(self.lengths)[:-1])
        z = _complex(z_real, z_imaginary, self.like.longitudinal)
        if self.spoiled:
            return States(jnp.zeros_like(self.like.plus), jnp.zeros_like(self.like.minus), z)
        plus = _complex(rest[0], rest[1], self.like.plus)
        others = _complex(rest[2], rest[3], self.like.minus[..., 1:, :])
        return States(plus, jnp.concatenate([plus[..., :1, :].conj(), others], axis=-2), z)


def _complex(real: Array, imaginary: Array, like: Array) -> Array:
    """Complex numbers of the shape of `like`, those of order 0 real where parts are missing."""
    real = real.reshape(like.shape)
    if imaginary.size < real.size:
        missing = (*like.shape[:-2], like.shape[-2] - 1, like.shape[-1])
        imaginary = imaginary.reshape(missing)
        imaginary = jnp.pad(imaginary, ((0, 0),) * (real.ndim - 2) + ((1, 0), (0, 0)))
    return jax.lax.complex(real, imaginary.reshape(like.shape))


def repeated(
    *acquisitions: tuple[Part, ...],
    advance_rad: Values = 0.0,
    spoiling_rad: Values = 0.0,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
) -> Repeated:
    """A Repeated, its averages one number or one for each readout. Raises InputError without a
    readout, for phases that are not finite numbers, and as `train`."""
    readouts = sum(block.readouts for blocks in acquisitions for block in blocks)
    check_train("repeated", lists=(), advance_rad=advance_rad, spoiling_rad=spoiling_rad)
    return Repeated(
        acquisitions=acquisitions,
        advance_rad=jnp.asarray(advance_rad, float),
        spoiling_rad=jnp.asarray(spoiling_rad, float),
        **shared("repeated", readouts, averages, pulse_s, moment_rad_per_mm, profile),
    )
