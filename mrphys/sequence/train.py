"""A train of pulses as an array of events, and how it is simulated."""

import math
from collections.abc import Callable
from collections.abc import Sequence as Many
from dataclasses import replace
from typing import Any, TypeGuard

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
from mrphys.static import (
    MOST_NET_TIMES,
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
from mrphys.units import (
    Values,
    check_count,
    check_flip_rad,
    check_number,
    check_range,
    check_time_s,
    shape_of,
)
from mrphys.wavevectors import TICKS, Moment, Shift, Wavevectors, as_vector

EXACT = 0
"""Orders kept when none are left out."""


ROUNDING_S = 1e-6
"""By which an interval that is a difference of times may be below 0 in float32."""

LONGEST_SPACING_S = 2.0
"""Of echoes: milliseconds are longer."""
OPTIONAL = ("phase_rad", "rf_spoiling_rad", "restore_flip_rad", "inversion_time_s")
"""Of what a user types: the names that None may stand for."""

Profile = tuple[Float[Array, " positions"], Float[Array, " positions"]]


class Train(Sequence):
    """Blocks of pulses, intervals, gradients and readouts, played one after the other from rest.

    moment_rad_per_mm  dephasing of one unit moment, a number or one for each of x, y and z; None
                       leaves diffusion out
    profile            flip angles across a slice relative to the nominal, and their weights:
                       the signal is the weighted sum; None for one flip angle
    pulse_s            duration of each pulse were it rectangular, for `pulse_energy_hz2_s`
    orders             orders kept; as many as the gradients can fill unless a tolerance says less

    Times are exact, pulses instantaneous. T2' weakens every coherence pathway by its net time
    (`mrphys.static`): `clock` says which are equal, `reach` how many ticks of one unit are
    followed, `static` whether any voxel asks for it; `within` sets all three. Raises InputError
    for a finite T2' in a train of too many different times.
    """

    blocks: tuple[Part, ...]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    moment_rad_per_mm: Moment | None = None
    profile: Profile | None = None
    orders: int = eqx.field(static=True, default=EXACT)
    clock: Clock | None = eqx.field(static=True, default=None)
    reach: int | None = eqx.field(static=True, default=None)
    static: bool = eqx.field(static=True, default=True)

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        return across_slice(self.readouts, tissue, self.profile)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def readouts(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        """The signal of a row of voxels, of the nominal flip angles."""
        if not (self.static and is_finite(tissue)):
            return epg.in_phase(self._by_gradients(tissue), tissue)
        timing = self.clock or clock(self.blocks, steady=False)
        by_gradients = timing.by_gradients(self.blocks)
        if by_gradients is None:
            waves = self._timed_waves(timing)
            if waves is None:
                seen = refuse_times("signal", self._by_gradients(tissue), tissue)
            else:
                seen = self._by_ticks(tissue, timing, waves)
            return epg.in_phase(seen, tissue)
        net = read_after_s(self.blocks, by_gradients, timing.units_s(self.blocks))
        seen = self._by_gradients(tissue) * epg.remaining(net, tissue.t2prime_s)
        return epg.in_phase(seen, tissue)

    def _by_gradients(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        """Readouts of order 0, without static dephasing."""
        waves = self._waves()
        around = Surroundings(self.moment_rad_per_mm, waves, self.pulse_s)
        states, seen, filled = epg.equilibrium(tissue, len(waves)), [], 1
        for block in self.blocks:
            if self._is_about_one_axis(block) and not epg.has_pools(tissue):
                seen.append(self._about_one_axis(block, tissue, states, filled, len(waves)))
                continue
            states, echoes = block.play(tissue, states, around)
            seen.append(echoes)
            filled = len(waves) if any(block.shifts) else filled
        return jnp.concatenate(seen)

    def _by_ticks(
        self, tissue: Tissue, timing: Clock, waves: Wavevectors
    ) -> Complex[Array, "readouts voxels"]:
        """Readouts of all net times. On a line of ticks no more are carried than are filled."""
        units_s, filled, seen = timing.units_s(self.blocks), 0, []
        growing = waves.axis == TICKS
        states = epg.equilibrium(tissue, 1 if growing else len(waves))
        for block, ticks in stretches(self.blocks, timing):
            if growing:
                filled = min(filled + block.repetitions * ticks[0], len(waves) - 1)
                waves_now, states = Wavevectors.of_ticks(filled), epg.of_size(states, filled + 1)
            else:
                waves_now = waves
            around = Surroundings(self.moment_rad_per_mm, waves_now, self.pulse_s, units_s, ticks)
            states, echoes = block.play(tissue, states, around)
            seen.append(echoes)
        return jnp.concatenate(seen)

    def _timed_waves(self, timing: Clock) -> Wavevectors | None:
        """Wavevectors and ticks followed; None where they are too many."""
        if timing.stretches > MOST_STRETCHES:
            return None
        if timing.count == 1 and not any(map(any, map(as_vector, self._moves))):
            most = timing.most(self.blocks)
            return Wavevectors.of_ticks(most if self.reach is None else min(self.reach, most))
        return Wavevectors.timed(timing.moves(self.blocks), MOST_NET_TIMES)

    def _is_about_one_axis(self, block: Part) -> TypeGuard[Block]:
        """And how long each gradient lasts, which diffusion sees, is the same."""
        if not isinstance(block, Block):
            return False
        known = block.alike or block.on_resonance or self.moment_rad_per_mm is None
        return block.one_axis and known

    def _about_one_axis(
        self, block: Block, tissue: Tissue, states: States, filled: int, orders: int
    ) -> Complex[Array, "readouts voxels"]:
        train = gradient_train(
            tissue,
            states.longitudinal.real[:filled],
            block.flip_rad,
            block.times_s if block.on_resonance else block.times_s[0],
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
        """The same train keeping no more orders and ticks than `tolerance` asks for, by
        `truncation_bound`. Where T2 or times are being traced it keeps all it kept. Raises
        InputError for a finite T2' in a train of too many different times, and a b0_hz that is not
        0 where a block promises none."""
        if any(isinstance(block, Block) and block.on_resonance for block in self.blocks):
            check_range("signal: Tissue b0_hz of a sequence on resonance", q.b0_hz, 0.0, 0.0, "Hz")
        kept = replace(self, static=is_finite(q), clock=None, reach=None)
        if kept.static:
            kept = kept._keeping_time(q, tolerance)
        moment_s = self._shortest_moment_s()
        longest = longest_t2_s(q)
        if moment_s is None or longest is None:
            return kept
        away = longest * math.log(max(self.averages.shape[0], 2) / tolerance) / (2 * moment_s)
        return replace(kept, orders=min(math.ceil(away) + 1, self.most_orders))

    def _keeping_time(self, q: Tissue, tolerance: float) -> "Train":
        timing = clock(self.blocks, steady=False)
        if timing.by_gradients(self.blocks) is not None:
            return replace(self, clock=timing)
        if self._timed_waves(timing) is None:
            refuse_times("within", jnp.zeros(1), q)
        lost = static_loss(timing, self.blocks, q)
        if lost is None:
            return replace(self, clock=timing)
        sure = max(self.averages.shape[0], 2) * 2 / (tolerance * -math.expm1(-lost))
        return replace(self, clock=timing, reach=math.ceil(math.log(sure) / lost))

    def truncation_bound(self, q: Tissue) -> float:
        """The most by which a readout errs for the orders and ticks left out, relative to m0.

        What leaves for order K = `orders` and returns is transverse over 2 K moments, and no state
        is larger than m0: the bound is N exp(-2 K t / T2) for N readouts, t the shortest time that
        a moment takes. What leaves for tick K = `reach` is seen there or after coming back, and
        less by q = u (1/T2 + min(1/T2, 1/T2')) for each tick u: 2 N exp(-K q) / (1 - exp(-q)). 0
        when nothing is left out.
        """
        moment_s = self._shortest_moment_s()
        longest = longest_t2_s(q)
        bound = 0.0
        if self.orders not in (EXACT, self.most_orders) and moment_s and longest:
            away = 2 * (self.orders - 1) * moment_s / longest
            bound = self.averages.shape[0] * math.exp(-away)
        timing = self.clock
        if timing is None or self.reach is None or self.reach >= timing.most(self.blocks):
            return bound
        lost = static_loss(timing, self.blocks, q)
        if not (self.static and lost):
            return bound
        left_out = 2 * math.exp(-self.reach * lost) / -math.expm1(-lost)
        return bound + self.averages.shape[0] * left_out

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


def refuse_pools(tissue: Tissue) -> None:
    """Raises InputError for a tissue of several pools, where a sequence is a formula of one."""
    if epg.has_pools(tissue):
        found = "a tissue with exchanging or semi-solid pools"
        raise InputError(Problem("signal", found, "one pool, or a sequence made of pulses"))


def across_slice(
    readouts: Callable[..., Array],
    tissue: Tissue,
    profile: Profile | None,
    *along: Float[Array, " positions"],
) -> Complex[Array, "*voxels readouts"]:
    """Readouts of a row of voxels, weighed over the flip angles of a slice, for any voxel shape.
    `along` is what else `readouts` asks for at each position."""
    shape = tissue.m0.shape
    rows = jax.tree.map(lambda value: value.reshape(-1, *value.shape[len(shape) :]), tissue)
    if profile is None:
        return readouts(rows).T.reshape(*shape, -1)

    @jax.checkpoint
    def add(total: Array, here: tuple[Array, ...]) -> tuple[Array, None]:
        scale, weight, *others = (value.astype(rows.m0.dtype) for value in here)
        turned = eqx.tree_at(lambda q: q.b1, rows, rows.b1 * scale)
        return total + weight * readouts(turned, *others), None

    each = (*profile, *along)
    like = jax.eval_shape(lambda: readouts(rows, *(value[0] for value in along)))
    total, _ = jax.lax.scan(add, jnp.zeros(like.shape, like.dtype), each)
    return total.T.reshape(*shape, -1)


def block(
    flip_rad: Values,
    times_s: Many[Values],
    *,
    reads: Many[bool],
    shifts: Many[Shift] | None = None,
    phase_rad: Values = 0.0,
    receiver_rad: Values | None = None,
    repetitions: int | None = None,
    spoil: bool = False,
    one_axis: bool = False,
    on_resonance: bool = False,
    ticks: int | None = None,
) -> Block:
    """A Block of `repetitions`, as many as the longest list says unless given. Without gradients
    unless told; the receiver follows the pulse. Raises InputError for negative times, numbers not
    finite, and lists of another length."""
    angles = {"flip_rad": flip_rad, "phase_rad": phase_rad, "receiver_rad": receiver_rad}
    angles = {name: value for name, value in angles.items() if value is not None}
    _check_block(angles, times_s, reads, shifts, repetitions)
    lines = [jnp.asarray(v, float) for v in (flip_rad, phase_rad)]
    lines.append(lines[1] if receiver_rad is None else jnp.asarray(receiver_rad, float))
    times = [jnp.asarray(time, float) for time in times_s]
    longest = max((v.size for v in [*lines, *times] if v.ndim), default=1)
    count = repetitions or longest
    spread = [jnp.broadcast_to(time, (count,)) for time in times]
    flips, phases, receivers = (jnp.broadcast_to(line, (count,)) for line in lines)
    return Block(
        flip_rad=flips,
        phase_rad=phases,
        receiver_rad=receivers,
        times_s=jnp.stack(spread, axis=1),
        shifts=tuple(shifts) if shifts is not None else (0,) * len(times),
        reads=tuple(reads),
        spoil=spoil,
        one_axis=one_axis,
        on_resonance=on_resonance,
        alike=all(time.ndim == 0 for time in times),
        ticks=ticks,
    )


def _check_block(
    angles: dict[str, Values],
    times_s: Many[Values],
    reads: Many[bool],
    shifts: Many[Shift] | None,
    repetitions: int | None,
) -> None:
    for name, value in angles.items():
        check_range(f"block: {name}", value, -np.inf, np.inf, "rad")
    for value in times_s:
        check_range(
            "block: times_s", value, -ROUNDING_S, np.inf, "s", "a sign, or two times subtracted"
        )
    each = {"times_s": times_s, "reads": reads, "shifts": shifts}
    counts = {name: len(many) for name, many in each.items() if many is not None}
    if len(set(counts.values())) > 1 or not times_s:
        found = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise InputError(Problem("block", found, "one of each for each interval, at least one"))
    if repetitions is not None:
        check_count("block: repetitions", repetitions)
    shapes = {shape_of("block", v) for v in (*angles.values(), *times_s)}
    lists = shapes - {()}
    allowed = lists <= {(repetitions,)} if repetitions else len(lists) <= 1
    if not allowed or any(len(shape) > 1 or 0 in shape for shape in lists):
        found = f"lists of shape {', '.join(map(str, sorted(lists)))}"
        length = f"{repetitions} repetitions" if repetitions else "one length"
        expected = f"numbers, or lists of {length}"
        raise InputError(Problem("block", found, expected))


def train(
    blocks: Many[Part],
    *,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
) -> Train:
    """A Train, its averages one number or one for each readout. Raises InputError without a
    readout, and as `shared`."""
    readouts = sum(block.readouts for block in blocks)
    return Train(
        blocks=tuple(blocks),
        **shared("train", readouts, averages, pulse_s, moment_rad_per_mm, profile),
    )


def shared(
    where: str,
    readouts: int,
    averages: Values,
    pulse_s: Values,
    moment_rad_per_mm: Values | None,
    profile: tuple[Values, Values] | None,
) -> dict[str, Any]:
    """What all sequences of pulses take, as arrays. Raises InputError for averages of another
    number than readouts or below 0.01, a pulse of no duration, a moment that is not finite and
    neither one number nor three."""
    if not readouts:
        raise InputError(Problem(where, "no readout", "at least one"))
    check_number(f"{where}: pulse_s", pulse_s)
    check_time_s(f"{where}: pulse_s", pulse_s, low=1e-9, high=1.0)
    moment = None
    if moment_rad_per_mm is not None:
        name = f"{where}: moment_rad_per_mm"
        check_range(name, moment_rad_per_mm, -np.inf, np.inf, "rad/mm")
        moment = jnp.asarray(moment_rad_per_mm, float)
        if moment.shape not in ((), (3,)):
            found = f"shape {moment.shape}"
            raise InputError(Problem(name, found, "one number, or one for each of x, y and z"))
    return {
        "averages": averaged(where, averages, readouts),
        "pulse_s": jnp.asarray(pulse_s, float),
        "moment_rad_per_mm": moment,
        "profile": weights(profile),
    }


def averaged(where: str, averages: Values, readouts: int) -> Float[Array, " readouts"]:
    """One number of averages for each readout. Raises InputError for another number of them, and
    averages below 0.01."""
    check_range(f"{where}: averages", averages, 0.01, np.inf, "averages")
    shape = shape_of(where, averages)
    if shape not in ((), (readouts,)):
        found = f"shape {shape} for {readouts} readouts"
        raise InputError(Problem(f"{where}: averages", found, "one, or one for each readout"))
    return jnp.broadcast_to(jnp.asarray(averages, float), (readouts,))


def weights(profile: tuple[Values, Values] | None) -> Profile | None:
    """A slice profile as arrays: flip angles relative to nominal, and their weights.

    Raises InputError unless both are lists of one length."""
    if profile is None:
        return None
    if not isinstance(profile, list | tuple) or len(profile) != 2:
        expected = "two lists: flip angles relative to nominal, and weights"
        raise InputError(Problem("profile", f"a {type(profile).__name__}", expected))
    for part in profile:
        check_range("profile", part, -np.inf, np.inf, "")
    scale, weight = (jnp.atleast_1d(jnp.asarray(part, float)) for part in profile)
    if not scale.size or scale.shape != weight.shape or scale.ndim != 1:
        found = f"shapes {scale.shape} and {weight.shape}"
        raise InputError(Problem("profile", found, "flip angles and weights, lists of one length"))
    return scale, weight


def check_train(where: str, *, lists: Many[str] | None = None, **values: Values | None) -> None:
    """Values typed by a user: `_rad` flips and phases, `_s` times, each a number, or where named in
    `lists` (all unless given) a list of the same length. Raises InputError naming the likely
    cause."""
    lengths = {}
    for name, value in values.items():
        if value is None:
            if name in OPTIONAL:
                continue
            raise InputError(Problem(f"{where}: {name}", "None", "real numbers"))
        if name.endswith("flip_rad") or name == "refocusing_rad":
            check_flip_rad(f"{where}: {name}", value)
        elif name.endswith("_rad"):
            check_range(f"{where}: {name}", value, -np.inf, np.inf, "rad")
        elif name.endswith("_s"):
            high = LONGEST_SPACING_S if name == "echo_spacing_s" else 60.0
            check_time_s(f"{where}: {name}", value, high=high)
        if lists is not None and name not in lists:
            check_number(f"{where}: {name}", value)
        if shape := shape_of(where, value):
            lengths[name] = shape
    if len(set(lengths.values())) > 1 or any(len(s) > 1 or 0 in s for s in lengths.values()):
        found = ", ".join(f"{name} {shape}" for name, shape in lengths.items())
        raise InputError(Problem(where, found, "lists of one length, not empty, or numbers"))
