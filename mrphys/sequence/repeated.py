"""Acquisitions repeated until nothing changes from one repetition to the next."""

import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import epg
from mrphys.epg import DEFAULT_PULSE_S, Part, States, Surroundings
from mrphys.sequence.base import Sequence
from mrphys.sequence.train import (
    Profile,
    across_slice,
    longest_t2_s,
    shortest_moments_s,
    weights,
)
from mrphys.tissue import Tissue
from mrphys.units import Values
from mrphys.wavevectors import Moment, Wavevectors, as_vector


class Repeated(Sequence):
    """Each of several acquisitions in its own steady state, readouts one after the other.

    One repetition of an acquisition maps states x to A x + b; the steady state solves

        (1 - A) x = b

    and carries exact derivatives. From one repetition to the next the phase of all pulses and the
    receiver advances by `advance_rad`, and that advance grows by `spoiling_rad` (RF spoiling, each
    repetition with a gradient of one unit moment: every order k then gains exp(i k ψ), a shift of
    the origin that makes the repetitions alike). `orders` are kept where gradients dephase without
    spoiling, infinitely many being filled.
    """

    acquisitions: tuple[tuple[Part, ...], ...]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    advance_rad: Float[Array, ""]
    spoiling_rad: Float[Array, ""]
    moment_rad_per_mm: Moment | None = None
    profile: Profile | None = None
    orders: int = eqx.field(static=True, default=48)

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        return across_slice(self._readouts, tissue, self.profile)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def _readouts(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        shapes = {
            (jax.tree.structure(blocks), *(leaf.shape for leaf in jax.tree.leaves(blocks)))
            for blocks in self.acquisitions
        }
        if len(shapes) == 1:
            together = jax.tree.map(lambda *leaves: jnp.stack(leaves), *self.acquisitions)
            seen = jax.vmap(lambda blocks: self._steady_readouts(blocks, tissue))(together)
            seen = seen.reshape(-1, tissue.m0.size)
        else:
            parts = [self._steady_readouts(blocks, tissue) for blocks in self.acquisitions]
            seen = jnp.concatenate(parts)
        return epg.in_phase(seen, tissue)

    def _steady_readouts(self, blocks: tuple[Part, ...], tissue: Tissue) -> Array:
        waves = self._waves(blocks)
        around = Surroundings(self.moment_rad_per_mm, waves, self.pulse_s)
        advance = jnp.exp(-1j * self.advance_rad)
        along = jnp.array([k[0] for k in waves.vectors])[:, None]
        origin = jnp.exp(1j * self.spoiling_rad * along)

        def repetition(states: States) -> tuple[States, Array]:
            seen = []
            for block in blocks:
                if block is blocks[-1] and any(block.shifts):
                    states = States(*(part * origin for part in states))
                states, echoes = block.play(tissue, states, around)
                seen.append(echoes * jnp.exp(-block.read_after_s[:, None] / tissue.t2prime_s[None]))
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
        Traced values keep the number there is."""
        blocks = [block for blocks in self.acquisitions for block in blocks]
        times, longest = shortest_moments_s(blocks), longest_t2_s(q)
        if not times or longest is None:
            return self
        decay = 2 * max(min(times), 1e-6) / longest
        needed = math.log(1 / (tolerance * -math.expm1(-decay))) / decay
        return replace(self, orders=max(2, math.ceil(needed) + 1))


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
    """A Repeated, its averages one number or one for each readout."""
    readouts = sum(block.readouts for blocks in acquisitions for block in blocks)
    return Repeated(
        acquisitions=acquisitions,
        averages=jnp.broadcast_to(jnp.asarray(averages, float), (readouts,)),
        pulse_s=jnp.asarray(pulse_s, float),
        advance_rad=jnp.asarray(advance_rad, float),
        spoiling_rad=jnp.asarray(spoiling_rad, float),
        moment_rad_per_mm=None
        if moment_rad_per_mm is None
        else jnp.asarray(moment_rad_per_mm, float),
        profile=weights(profile),
    )
