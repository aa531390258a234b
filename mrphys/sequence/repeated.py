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
from mrphys.epg import Block, States
from mrphys.sequence.base import Sequence
from mrphys.sequence.train import DEFAULT_PULSE_S, Profile, across_slice, weights
from mrphys.tissue import Tissue
from mrphys.units import Values


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

    acquisitions: tuple[tuple[Block, ...], ...]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    advance_rad: Float[Array, ""]
    spoiling_rad: Float[Array, ""]
    moment_rad_per_mm: Float[Array, ""] | None = None
    profile: Profile | None = None
    orders: int = eqx.field(static=True, default=48)

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        return across_slice(self._readouts, tissue, self.profile)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def _readouts(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        seen = [self._steady_readouts(blocks, tissue) for blocks in self.acquisitions]
        return epg.in_phase(jnp.concatenate(seen), tissue)

    def _steady_readouts(self, blocks: tuple[Block, ...], tissue: Tissue) -> Array:
        within = sum(sum(block.shifts) * block.repetitions for block in blocks)
        orders = within // 2 + 1 if blocks[-1].spoil or not within else self.orders
        rest = epg.equilibrium(tissue, orders)
        order = jnp.arange(orders)[:, None]
        advance = jnp.exp(-1j * self.advance_rad)
        origin = jnp.exp(1j * self.spoiling_rad * order)

        def repetition(states: States) -> tuple[States, Array]:
            seen = []
            for block in blocks:
                if block is blocks[-1] and any(block.shifts):
                    states = States(*(part * origin for part in states))
                states, echoes = epg.general(block, tissue, states, self.moment_rad_per_mm)
                seen.append(echoes * jnp.exp(-block.read_after_s[:, None] / tissue.t2prime_s[None]))
            plus, minus, longitudinal = states
            return States(plus * advance, minus * advance.conj(), longitudinal), jnp.concatenate(
                seen
            )

        def real_map(x: Array) -> Array:
            """One repetition of real and imaginary parts, (6 orders, voxels)."""
            parts = x.reshape(6, *rest.plus.shape)
            states = States(*(jax.lax.complex(parts[2 * i], parts[2 * i + 1]) for i in range(3)))
            after, _ = repetition(states)
            both = [part for state in after for part in (state.real, state.imag)]
            return jnp.stack(both).reshape(x.shape)

        size = 6 * orders
        nothing = jnp.zeros((size, tissue.m0.size), tissue.m0.dtype)
        drive = real_map(nothing)
        unit = jnp.eye(size, dtype=drive.dtype)[:, :, None]
        columns = jax.vmap(lambda e: real_map(jnp.broadcast_to(e, drive.shape)) - drive)(unit)
        system = jnp.eye(size, dtype=drive.dtype)[None] - jnp.moveaxis(
            columns, (0, 1, 2), (2, 1, 0)
        )
        steady = jnp.linalg.solve(system, drive.T[..., None])[..., 0].T
        parts = steady.reshape(6, *rest.plus.shape)
        states = States(*(jax.lax.complex(parts[2 * i], parts[2 * i + 1]) for i in range(3)))
        return repetition(states)[1]

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """One repetition of every acquisition, as often as the average readout is repeated."""
        return self._sum(lambda block: jnp.sum(block.times_s)) * jnp.mean(self.averages)

    @property
    def pulse_energy_hz2_s(self) -> Float[Array, ""]:
        """∫ B1² dt of one repetition of every acquisition: Σ α² / (4 π² pulse_s)."""
        return self._sum(lambda block: jnp.sum(block.flip_rad**2)) / (4 * jnp.pi**2 * self.pulse_s)

    def _sum(self, of) -> Array:
        blocks = [block for blocks in self.acquisitions for block in blocks]
        return jnp.sum(jnp.stack([of(block) for block in blocks]))

    def within(self, q: Tissue, tolerance: float) -> "Repeated":
        """The same, keeping as many orders K as make exp(-2 K t / T2) / (1 - exp(-2 t / T2)), the
        return of all that leaves for order K, less than `tolerance`; t is the time of a moment.
        Traced values keep the number there is."""
        blocks = [block for blocks in self.acquisitions for block in blocks if any(block.shifts)]
        traced = any(isinstance(block.times_s, Tracer) for block in blocks)
        if traced or not blocks or isinstance(q.t2_s, Tracer):
            return self
        moment_s = min(float(jnp.min(jnp.sum(b.times_s, axis=1))) / sum(b.shifts) for b in blocks)
        decay = 2 * max(moment_s, 1e-6) / float(np.max(np.asarray(q.t2_s)))
        needed = math.log(1 / (tolerance * -math.expm1(-decay))) / decay
        return replace(self, orders=max(2, math.ceil(needed) + 1))


def repeated(
    *acquisitions: tuple[Block, ...],
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
