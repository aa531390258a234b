r"""Static dephasing: the signal over all offsets of a Lorentzian of half width 1/(2π T2').

A coherence pathway that was F for some intervals and F* for others ends with the net time τ, times
in F* subtracted, and so

    x = Σ_pathways x_pathway exp(-|τ| / T2')

The net time is kept as whole ticks of a few units, one more axis of the wavevector. Where gradients
lead through the same ticks their order tells it, and nothing more is kept; where nothing
transverse outlasts a repetition it is the time since the pulse.

Yablonskiy, Haacke 1994, doi:10.1002/mrm.1910320610 (T2'); Scheffler, Hennig 2003,
doi:10.1002/mrm.10351 (its refocusing by balanced trains).
"""

from collections.abc import Iterator
from collections.abc import Sequence as Many
from dataclasses import dataclass
from itertools import groupby, pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mrphys.epg import Block, Part
from mrphys.errors import InputError, Problem
from mrphys.tissue import Tissue
from mrphys.wavevectors import Vector, as_vector

FINEST = 12
"""Of the shortest repetition, the smallest part tried as a common unit."""
LONGEST = 64
"""Units that one repetition may last for them to be tried."""
MOST_STRETCHES = 64
"""Of repetitions that take as many ticks, followed one after the other."""
MOST_NET_TIMES = 2048
"""Net times, at all orders together, that are followed."""


STRETCHES = 6
"""Of a long run of repetitions, each with as many ticks as it can fill."""


def is_finite(tissue: Tissue) -> bool:
    """Whether some voxel may dephase: False only where T2' is known and infinite everywhere."""
    return isinstance(tissue.t2prime_s, Tracer) or not np.all(np.isinf(tissue.t2prime_s))


@dataclass(frozen=True)
class Clock:
    """How long repetitions last, in ticks of units.

    ticks  of each part, of each repetition (one for all of them where they are alike): how many of
           every unit its transverse magnetisation takes to the next pulse; none where nothing
           transverse gets there
    """

    ticks: tuple[tuple[tuple[int, ...], ...], ...]

    def part(self, i: int) -> "Clock":
        """Of one part alone."""
        return Clock((self.ticks[i],))

    @property
    def count(self) -> int:
        """How many units there are."""
        return len(self.ticks[0][0])

    @property
    def stretches(self) -> int:
        """How many runs of repetitions that take as many ticks."""
        return sum(len(list(groupby(part))) for part in self.ticks)

    def most(self, parts: Many[Part]) -> int:
        """Ticks of the longest net time, of all units together."""
        return sum(
            sum(map(sum, each)) * (part.repetitions if len(each) == 1 else 1)
            for part, each in zip(parts, self.ticks, strict=True)
        )

    def units_s(self, parts: Many[Part]) -> Float[Array, " units"]:
        """The units, each the mean over repetitions that are measured in it."""
        flat = np.array([each for part in self.ticks for each in part])
        lasting = jnp.concatenate(
            [_durations(part)[: len(each)] for part, each in zip(parts, self.ticks, strict=True)]
        )
        inverse = np.where(flat > 0, 1 / np.maximum(flat, 1), 0) / np.maximum((flat > 0).sum(0), 1)
        return jnp.sum(lasting[:, None] * inverse.astype(lasting.dtype), axis=0)

    def moves(self, parts: Many[Part]) -> list[Vector]:
        """Of every interval played the gradient, the last of a repetition with its ticks, or before
        them where it ends with a readout."""
        none = (0,) * self.count
        played = []
        for part, ticks in zip(parts, self.ticks, strict=True):
            for i in range(part.repetitions):
                end = ticks[min(i, len(ticks) - 1)]
                *before, last = [as_vector(shift) for shift in part.shifts] or [(0, 0, 0)]
                played += [shift + none for shift in before]
                reads = part.reads[-1:] == (True,)
                played += [last + none, (0, 0, 0, *end)] if reads else [last + end]
        return played

    def by_gradients(self, parts: Many[Part]) -> np.ndarray | None:
        """The matrix C of ticks = C moment, where all repetitions obey one."""
        pairs = {
            (tuple(np.sum([as_vector(shift) for shift in part.shifts], axis=0).tolist()), each)
            for part, ticks in zip(parts, self.ticks, strict=True)
            for each in ticks
            if any(each)
        }
        if not pairs:
            return np.zeros((self.count, 3))
        moments, ticks = (np.array(list(column), float) for column in zip(*pairs, strict=True))
        matrix = np.linalg.lstsq(moments, ticks, rcond=None)[0]
        return matrix.T if np.abs(moments @ matrix - ticks).max() < 1e-9 else None


def clock(parts: Many[Part], steady: bool) -> Clock:
    """The clock of parts played once, or again and again.

    Parts that say how many `ticks` of the sequence's own unit they last share it. The others'
    durations are compared where they are known: all in one unit if a small one is found, else equal
    ones in one. Otherwise repetitions that are alike have a unit of their own, and those that are
    not one each.
    """
    moving: dict[tuple[int, int], tuple[object, int]] = {}
    values: dict[tuple[int, int], float] = {}
    known = True
    for p, part in enumerate(parts):
        if part.spoil or not isinstance(part, Block):
            continue
        once = part.alike or part.repetitions == 1
        count = 1 if once else part.repetitions
        last = p == len(parts) - 1 and not steady
        for i in range(count):
            if last and (part.repetitions == 1 or (not once and i == count - 1)):
                continue
            moving[p, i] = ("own", part.ticks) if part.ticks and once else ((p, i), 1)
        if isinstance(part.times_s, Tracer):
            known = False
        else:
            lasting = np.asarray(part.times_s).sum(axis=1)
            values |= {(p, i): float(lasting[i]) for i in range(count) if (p, i) in moving}
    if known and any(unit[0] != "own" for unit in moving.values()):
        moving = _by_value(values)
    units = sorted({unit for unit, _ in moving.values()}, key=str)

    def ticks(p: int, i: int) -> tuple[int, ...]:
        unit, number = moving.get((p, i), (None, 0))
        return tuple(number if unit == other else 0 for other in units) or (0,)

    return Clock(
        tuple(
            tuple(ticks(p, i) for i in range(1 if _once(part) else part.repetitions))
            for p, part in enumerate(parts)
        )
    )


def _once(part: Part) -> bool:
    return part.spoil or not isinstance(part, Block) or part.alike or part.repetitions == 1


def _durations(part: Part) -> Float[Array, " n"]:
    return jnp.sum(part.intervals_s, axis=1)


def _by_value(values: dict) -> dict:
    lasting = {key: value for key, value in values.items() if value > 0}
    none = {key: (("none",), 1) for key in values if key not in lasting}
    if not lasting:
        return none
    durations = np.array(list(lasting.values()))
    for parts in range(1, FINEST + 1):
        ticks = durations * parts / durations.min()
        if ticks.max() <= LONGEST and np.abs(ticks / np.round(ticks) - 1).max() < 3e-6:
            whole = np.round(ticks).astype(int).tolist()
            return none | {key: ("own", n) for key, n in zip(lasting, whole, strict=True)}
    _, first = np.unique(np.round(np.log(durations) / 3e-6), return_inverse=True)
    return none | {key: ((int(i),), 1) for key, i in zip(lasting, first.ravel(), strict=True)}


def stretches(parts: Many[Part], timing: Clock) -> Iterator[tuple[Part, tuple[int, ...]]]:
    """The parts with the ticks of a repetition, cut where these change. Long runs are cut in a few,
    so that orders may grow with what has been filled."""
    for part, ticks in zip(parts, timing.ticks, strict=True):
        if not isinstance(part, Block):
            yield part, ticks[0]
            continue
        runs = [(each, len(list(run))) for each, run in groupby(ticks)]
        if len(ticks) == 1:
            runs = [(ticks[0], part.repetitions)]
        start = 0
        for each, length in runs:
            pieces = max(1, min(STRETCHES, length // 8)) if any(each) else 1
            edges = start + np.linspace(0, length, pieces + 1).astype(int)
            for a, b in pairwise(edges.tolist()):
                yield part if b - a == part.repetitions else _cut(part, a, b), each
            start += length


def _cut(part: Block, a: int, b: int) -> Block:
    return jax.tree.map(lambda value: value[a:b], part)


def longest_t2_s(q: Tissue) -> float | None:
    """Of all voxels and pools; None where one is being traced."""
    all_t2_s = [q.t2_s, *(pool.t2_s for pool in q.pools)]
    if any(isinstance(t2_s, Tracer) for t2_s in all_t2_s):
        return None
    return max(float(np.max(np.asarray(t2_s))) for t2_s in all_t2_s)


def static_loss(timing: Clock, parts: Many[Part], q: Tissue) -> float | None:
    """u (1/T2 + min(1/T2, 1/T2')) of the tick u, of the longest T2 and T2': by how much what goes
    one tick further fades until it is seen there or back at a tick before. None where something is
    being traced or there are several units."""
    longest = longest_t2_s(q)
    traced = isinstance(q.t2prime_s, Tracer) or any(
        isinstance(p.intervals_s, Tracer) for p in parts
    )
    if timing.count != 1 or traced or longest is None:
        return None
    slower = min(1 / longest, 1 / float(np.max(np.asarray(q.t2prime_s))))
    return float(timing.units_s(parts)[0]) * (1 / longest + slower)


def refuse_times(where: str, seen: Array, tissue: Tissue) -> Array:
    """`seen`, of a train whose net times are too many to follow, where T2' is infinite. Raises
    InputError for a finite T2', and for one being traced an error when it turns out finite."""
    problem = Problem(
        f"{where}: t2prime_s",
        "a finite T2' and more different times between pulses than can be followed",
        "one tr_s, times that are small multiples of one, or t2prime_s = inf and the mean of"
        " simulate over b0_hz",
        "lists of repetition times",
    )
    if not isinstance(tissue.t2prime_s, Tracer):
        raise InputError(problem)
    return eqx.error_if(seen, jnp.any(jnp.isfinite(tissue.t2prime_s)), str(InputError(problem)))


def read_after_s(
    parts: Many[Part], ticks_of_moment: np.ndarray, units_s: Float[Array, " units"]
) -> Float[Array, " readouts"]:
    """Net time of each readout where gradients tell it: time since the pulse, less that of the
    gradients since."""
    after = []
    for part in parts:
        elapsed, moment = jnp.cumsum(part.intervals_s, axis=1), np.zeros(3)
        columns = []
        for i, (shift, reads) in enumerate(zip(part.shifts, part.reads, strict=True)):
            moment = moment + np.array(as_vector(shift))
            if reads:
                ticks = (ticks_of_moment @ moment).astype(units_s.dtype)
                columns.append(elapsed[:, i] - jnp.sum(ticks * units_s))
        if columns:
            after.append(jnp.stack(columns, axis=1).ravel())
    return jnp.concatenate(after) if after else jnp.zeros(0)
