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
from mrphys.epg import DEFAULT_PULSE_S, Block, Part, States, Surroundings
from mrphys.epg_real import gradient_train
from mrphys.errors import InputError, Problem
from mrphys.rotation import cos_sin
from mrphys.sequence.base import Sequence
from mrphys.tissue import Tissue
from mrphys.units import Values, check_flip_rad, check_range, check_time_s
from mrphys.wavevectors import Moment, Shift, Wavevectors, as_vector

EXACT = 0
"""Orders kept when none are left out."""


Profile = tuple[Float[Array, " positions"], Float[Array, " positions"]]


class Train(Sequence):
    """Blocks of pulses, intervals, gradients and readouts, played one after the other from rest.

    moment_rad_per_mm  dephasing of one unit moment, a number or one for each of x, y and z; None
                       leaves diffusion out
    profile            flip angles across a slice relative to the nominal, and their weights:
                       the signal is the weighted sum; None for one flip angle
    pulse_s            duration of each pulse were it rectangular, for `pulse_energy_hz2_s`
    orders             orders kept; as many as the gradients can fill unless a tolerance says less

    Times are exact, pulses instantaneous. T2' is that of static dephasing since the last refocusing
    (`Block.dephased_s`).
    """

    blocks: tuple[Part, ...]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    moment_rad_per_mm: Moment | None = None
    profile: Profile | None = None
    orders: int = eqx.field(static=True, default=EXACT)

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        return across_slice(self.readouts, tissue, self.profile)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def readouts(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        """The signal of a row of voxels, of the nominal flip angles."""
        waves = self._waves()
        around = Surroundings(self.moment_rad_per_mm, waves, self.pulse_s)
        states, seen, filled = epg.equilibrium(tissue, len(waves)), [], 1
        for block in self.blocks:
            if isinstance(block, Block) and block.one_axis and not epg.has_pools(tissue):
                seen.append(self._about_one_axis(block, tissue, states, filled, len(waves)))
                continue
            states, echoes = block.play(tissue, states, around)
            seen.append(echoes)
            filled = len(waves) if any(block.shifts) else filled
        dephased = jnp.concatenate([block.read_after_s for block in self.blocks])
        static = jnp.exp(-dephased[:, None] / tissue.t2prime_s[None])
        return epg.in_phase(jnp.concatenate(seen) * static, tissue)

    def _about_one_axis(
        self, block: Block, tissue: Tissue, states: States, filled: int, orders: int
    ) -> Complex[Array, "readouts voxels"]:
        train = gradient_train(
            tissue,
            states.longitudinal.real[:filled],
            block.flip_rad,
            jnp.sum(block.times_s[0]),
            self.moment_rad_per_mm,
            orders,
        )
        te_s = block.times_s[:1, :1] if block.alike else block.times_s[:, :1]
        cos, sin = cos_sin(2 * jnp.pi * te_s * tissue.b0_hz[None])
        left = jnp.exp(-te_s / tissue.t2_s[None])
        follows = 1j * jnp.exp(1j * (block.phase_rad - block.receiver_rad))
        return train * (jax.lax.complex(left * cos, -left * sin) * follows[:, None])

    def _waves(self) -> Wavevectors:
        """The wavevectors kept."""
        if self._on_line:
            most = self.most_orders
            return Wavevectors.on_line(most if self.orders == EXACT else min(self.orders, most))
        return Wavevectors.returning(self._moves, None if self.orders == EXACT else self.orders)

    @property
    def _on_line(self) -> bool:
        return all(shift in (0, 1) for block in self.blocks for shift in block.shifts)

    @property
    def _moves(self) -> list[Shift]:
        return [shift for block in self.blocks for shift in block.shifts * block.repetitions]

    @property
    def most_orders(self) -> int:
        """Orders that gradients can fill and empty again: what m gradients led away is back after
        2 m."""
        return sum(any(as_vector(shift)) for shift in self._moves) // 2 + 1

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """Duration of all blocks, as often as the average readout is repeated."""
        once = sum(block.duration_s for block in self.blocks)
        return once * jnp.mean(self.averages)

    @property
    def pulse_energy_hz2_s(self) -> Float[Array, ""]:
        """∫ B1² dt over all pulses, B1 in Hz, each rectangular: Σ α² / (4 π² pulse_s). Specific
        absorption is proportional to it."""
        return jnp.sum(jnp.stack([block.energy_hz2_s(self.pulse_s) for block in self.blocks]))

    def within(self, q: Tissue, tolerance: float) -> "Train":
        """The same train keeping no more orders than `tolerance` asks for, by `truncation_bound`.
        Where T2 or times are being traced it keeps all."""
        moment_s = self._shortest_moment_s()
        longest = longest_t2_s(q)
        if moment_s is None or longest is None:
            return self
        away = longest * math.log(max(self.averages.shape[0], 2) / tolerance) / (2 * moment_s)
        return replace(self, orders=min(math.ceil(away) + 1, self.most_orders))

    def truncation_bound(self, q: Tissue) -> float:
        """The most by which a readout errs for the orders left out, relative to m0.

        What leaves for order K = `orders` and returns is transverse over 2 K moments, and no state
        is larger than m0: the bound is N exp(-2 K t / T2) for N readouts, t the shortest time that
        a moment takes. 0 when no order is left out.
        """
        moment_s = self._shortest_moment_s()
        longest = longest_t2_s(q)
        if self.orders in (EXACT, self.most_orders) or moment_s is None or longest is None:
            return 0.0
        return self.averages.shape[0] * math.exp(-2 * (self.orders - 1) * moment_s / longest)

    def _shortest_moment_s(self) -> float | None:
        """Time of the shortest repetition with a gradient, for each of its moments; None when
        times are being traced or a moment takes no time."""
        times = shortest_moments_s(self.blocks)
        return min(times) if times and min(times) > 0 else None


def shortest_moments_s(blocks: Many[Part]) -> list[float]:
    """Of each block with gradients the time of its shortest repetition for each of them; nothing
    where times are being traced."""
    moving = [(block, sum(any(as_vector(s)) for s in block.shifts)) for block in blocks]
    moving = [(block, count) for block, count in moving if count]
    if any(isinstance(block.intervals_s, Tracer) for block, _ in moving):
        return []
    return [
        float(np.asarray(block.intervals_s).sum(axis=1).min()) / count for block, count in moving
    ]


def longest_t2_s(q: Tissue) -> float | None:
    """Of all voxels and pools; None where one is being traced."""
    all_t2_s = [q.t2_s, *(pool.t2_s for pool in q.pools)]
    if any(isinstance(t2_s, Tracer) for t2_s in all_t2_s):
        return None
    return max(float(np.max(np.asarray(t2_s))) for t2_s in all_t2_s)


def refuse_pools(tissue: Tissue) -> None:
    """Raises InputError for a tissue of several pools, where a sequence is a formula of one."""
    if epg.has_pools(tissue):
        found = "a tissue with exchanging or semi-solid pools"
        raise InputError(Problem("signal", found, "one pool, or a sequence made of pulses"))


def across_slice(
    readouts: Callable[[Tissue], Array], tissue: Tissue, profile: Profile | None
) -> Complex[Array, "*voxels readouts"]:
    """Readouts of a row of voxels, weighed over the flip angles of a slice, for any voxel shape."""
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
    shifts: Many[Shift] | None = None,
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
    flips, phases, receivers = (jnp.broadcast_to(line, (count,)) for line in lines)
    return Block(
        flip_rad=flips,
        phase_rad=phases,
        receiver_rad=receivers,
        times_s=jnp.stack(spread[: len(times)], axis=1),
        dephased_s=jnp.stack(spread[len(times) :], axis=1),
        shifts=tuple(shifts) if shifts is not None else (0,) * len(times),
        reads=tuple(reads),
        spoil=spoil,
        one_axis=one_axis,
        alike=all(time.ndim == 0 for time in (*times, *dephased)),
    )


def train(
    blocks: Many[Part],
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
