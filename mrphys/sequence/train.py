"""A train of pulses as an array of events, and how it is simulated."""

import math
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from mrphys import epg
from mrphys.epg import Block
from mrphys.errors import InputError, Problem
from mrphys.rotation import cos_sin
from mrphys.sequence.base import Sequence
from mrphys.tissue import Tissue
from mrphys.units import Values, check_flip_rad, check_range, check_time_s

DEFAULT_PULSE_S = 1e-3
EXACT = 0
"""Orders kept when none are left out."""


Profile = tuple[Float[Array, " positions"], Float[Array, " positions"]]


class Train(Sequence):
    """Blocks of pulses, intervals, gradients and readouts, played one after the other from rest.

    moment_rad_per_mm  dephasing of one unit moment; None leaves diffusion out
    profile            flip angles across a slice relative to the nominal, and their weights:
                       the signal is the weighted sum; None for one flip angle
    pulse_s            duration of each pulse were it rectangular, for `pulse_energy_hz2_s`
    orders             orders kept; as many as the gradients can fill unless a tolerance says less

    Times are exact, pulses instantaneous. T2' is that of static dephasing since the last refocusing
    (`Block.dephased_s`).
    """

    blocks: tuple[Block, ...]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    moment_rad_per_mm: Float[Array, ""] | None = None
    profile: Profile | None = None
    orders: int = eqx.field(static=True, default=EXACT)

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        return across_slice(self._readouts, tissue, self.profile)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def _readouts(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        filled = self.most_orders if self.orders == EXACT else min(self.orders, self.most_orders)
        states, seen = epg.equilibrium(tissue, filled), []
        for block in self.blocks:
            if block.one_axis:
                train = epg.gradient_train(
                    tissue,
                    states.longitudinal.real,
                    block.flip_rad,
                    jnp.sum(block.times_s[0]),
                    self.moment_rad_per_mm,
                )
                behind = block.receiver_rad - block.phase_rad
                turn = 2 * jnp.pi * block.times_s[:, :1] * tissue.b0_hz[None] + behind[:, None]
                cos, sin = cos_sin(turn)
                left = train * jnp.exp(-block.times_s[:, :1] / tissue.t2_s[None])
                seen.append(jax.lax.complex(left * sin, left * cos))
                continue
            states, echoes = epg.general(block, tissue, states, self.moment_rad_per_mm)
            seen.append(echoes)
        dephased = jnp.concatenate([block.read_after_s for block in self.blocks])
        static = jnp.exp(-dephased[:, None] / tissue.t2prime_s[None])
        return epg.in_phase(jnp.concatenate(seen) * static, tissue)

    @property
    def most_orders(self) -> int:
        """Orders that gradients can fill and empty again: an order m is back at 0 after 2 m
        moments."""
        return sum(sum(block.shifts) * block.repetitions for block in self.blocks) // 2 + 1

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """Duration of all blocks, as often as the average readout is repeated."""
        once = sum(jnp.sum(block.times_s) for block in self.blocks)
        return once * jnp.mean(self.averages)

    @property
    def pulse_energy_hz2_s(self) -> Float[Array, ""]:
        """∫ B1² dt over all pulses, B1 in Hz, each rectangular: Σ α² / (4 π² pulse_s). Specific
        absorption is proportional to it."""
        squares = sum(jnp.sum(block.flip_rad**2) for block in self.blocks)
        return squares / (4 * jnp.pi**2 * self.pulse_s)

    def within(self, q: Tissue, tolerance: float) -> "Train":
        """The same train keeping no more orders than `tolerance` asks for, by `truncation_bound`.
        Where T2 or times are being traced it keeps all."""
        moment_s = self._shortest_moment_s()
        if moment_s is None or isinstance(q.t2_s, Tracer):
            return self
        longest = float(np.max(np.asarray(q.t2_s)))
        readouts = self.averages.shape[0]
        away = longest * math.log(max(readouts, 2) / tolerance) / (2 * moment_s)
        return replace(self, orders=min(math.ceil(away) + 1, self.most_orders))

    def truncation_bound(self, q: Tissue) -> float:
        """The most by which a readout errs for the orders left out, relative to m0.

        What leaves for order K = `orders` and returns is transverse over 2 K moments, and no state
        is larger than m0: the bound is N exp(-2 K t / T2) for N readouts, t the shortest time that
        a moment takes. 0 when no order is left out.
        """
        moment_s = self._shortest_moment_s()
        if self.orders in (EXACT, self.most_orders) or moment_s is None:
            return 0.0
        longest = float(np.max(np.asarray(q.t2_s)))
        return self.averages.shape[0] * math.exp(-2 * (self.orders - 1) * moment_s / longest)

    def _shortest_moment_s(self) -> float | None:
        """Time of the shortest repetition with a gradient, for each of its moments; None when
        times are being traced or a moment takes no time."""
        moving = [block for block in self.blocks if any(block.shifts)]
        if not moving or any(isinstance(block.times_s, Tracer) for block in moving):
            return None
        times = [np.sum(np.asarray(block.times_s), axis=1) / sum(block.shifts) for block in moving]
        shortest = min(float(time.min()) for time in times)
        return shortest if shortest > 0 else None


def refuse_pools(tissue: Tissue) -> None:
    """Raises InputError for a tissue of several pools, which only saturation follows."""
    if tissue.pools or tissue.semisolid is not None:
        found = "a tissue with exchanging or semi-solid pools"
        raise InputError(Problem("signal", found, "one pool, or the sequence cest_saturation"))


def across_slice(
    readouts: Callable[[Tissue], Array], tissue: Tissue, profile: Profile | None
) -> Complex[Array, "*voxels readouts"]:
    """Readouts of a row of voxels, weighed over the flip angles of a slice, for any voxel shape."""
    refuse_pools(tissue)
    shape = tissue.m0.shape
    rows = jax.tree.map(lambda value: value.reshape(-1, *value.shape[len(shape) :]), tissue)
    if profile is None:
        total = readouts(rows)
    else:
        parts = [
            weight * readouts(eqx.tree_at(lambda q: q.b1, rows, rows.b1 * scale))
            for scale, weight in zip(*profile, strict=True)
        ]
        total = jnp.sum(jnp.stack(parts), axis=0)
    return total.T.reshape(*shape, -1)


def block(
    flip_rad: Values,
    times_s: Many[Values],
    *,
    reads: Many[bool],
    shifts: Many[int] | None = None,
    phase_rad: Values = 0.0,
    receiver_rad: Values | None = None,
    dephased_s: Many[Values] | None = None,
    repetitions: int | None = None,
    spoil: bool = False,
    one_axis: bool = False,
) -> Block:
    """A Block of `repetitions`, as many as the longest list says unless given. Without gradients
    unless told; the receiver follows the pulse, and static dephasing runs on from it."""
    lines = [jnp.asarray(v, float) for v in (flip_rad, phase_rad)]
    lines.append(lines[1] if receiver_rad is None else jnp.asarray(receiver_rad, float))
    times = [jnp.asarray(time, float) for time in times_s]
    if dephased_s is None:
        dephased = [sum(times[: i + 1], jnp.zeros(())) for i in range(len(times))]
    else:
        dephased = [jnp.asarray(time, float) for time in dephased_s]
    longest = max((v.size for v in [*lines, *times] if v.ndim), default=1)
    count = repetitions or longest
    spread = [jnp.broadcast_to(time, (count,)) for time in (*times, *dephased)]
    return Block(
        *(jnp.broadcast_to(line, (count,)) for line in lines),
        times_s=jnp.stack(spread[: len(times)], axis=1),
        dephased_s=jnp.stack(spread[len(times) :], axis=1),
        shifts=tuple(shifts) if shifts is not None else (0,) * len(times),
        reads=tuple(reads),
        spoil=spoil,
        one_axis=one_axis,
    )


def train(
    blocks: Many[Block],
    *,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
) -> Train:
    """A Train, its averages one number or one for each readout."""
    readouts = sum(block.readouts for block in blocks)
    moment = None if moment_rad_per_mm is None else jnp.asarray(moment_rad_per_mm, float)
    return Train(
        blocks=tuple(blocks),
        averages=jnp.broadcast_to(jnp.asarray(averages, float), (readouts,)),
        pulse_s=jnp.asarray(pulse_s, float),
        moment_rad_per_mm=moment,
        profile=weights(profile),
    )


def weights(profile: tuple[Values, Values] | None) -> Profile | None:
    """A slice profile as arrays: flip angles relative to nominal, and their weights.

    Raises InputError unless both are lists of one length."""
    if profile is None:
        return None
    scale, weight = (jnp.atleast_1d(jnp.asarray(part, float)) for part in profile)
    if scale.shape != weight.shape or scale.ndim != 1:
        found = f"shapes {scale.shape} and {weight.shape}"
        raise InputError(Problem("profile", found, "flip angles and weights, lists of one length"))
    return scale, weight


def check_train(where: str, **values: Values | None) -> None:
    """Values typed by a user: `_rad` flips and phases, `_s` times, each a number or a list of the
    same length. Raises InputError naming the likely cause."""
    lengths = {}
    for name, value in values.items():
        if value is None:
            continue
        if name.endswith("flip_rad") or name == "refocusing_rad":
            check_flip_rad(f"{where}: {name}", value)
        elif name.endswith("_rad"):
            check_range(f"{where}: {name}", value, -np.inf, np.inf, "rad")
        elif name.endswith("_s"):
            check_time_s(f"{where}: {name}", value, high=60.0)
        if np.ndim(value):
            lengths[name] = np.shape(value)
    if len(set(lengths.values())) > 1 or any(len(shape) > 1 for shape in lengths.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in lengths.items())
        raise InputError(Problem(where, found, "lists of one length, or numbers"))
