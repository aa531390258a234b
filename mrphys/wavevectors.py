"""Which wavevectors gradients of whole unit moments can reach, and how they move between them."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache

import numpy as np
from jaxtyping import Array, Float

Shift = int | tuple[int, int, int]
"""Unit moments of a gradient: on one line, or along x, y and z."""
Moment = Float[Array, ""] | Float[Array, "3"]
"""Dephasing of a unit moment, rad/mm: one number, or along x, y and z."""
Vector = tuple[int, ...]
"""Unit moments along x, y and z, then ticks of static dephasing (`mrphys.static`) if followed."""
NOWHERE: Vector = (0, 0, 0)
TICKS = 3
"""Where ticks begin."""


def as_vector(shift: Shift | Vector) -> Vector:
    """A shift along the line as one along x."""
    return shift if isinstance(shift, tuple) else (shift, 0, 0)


def _sum(a: Vector, b: Vector, sign: int = 1) -> Vector:
    return tuple(i + sign * j for i, j in zip(a, b, strict=True))


def _minus(k: Vector) -> Vector:
    return tuple(-i for i in k)


def _half(k: Vector) -> Vector:
    """Of k and -k, the one kept: its first component that is not zero is positive."""
    return max(k, _minus(k))


@dataclass(frozen=True)
class Wavevectors:
    """Wavevectors in unit moments, one of each pair k, -k, the first zero.

    `line` when they are 0, 1, 2, ... along `axis`, x unless said.
    """

    vectors: tuple[Vector, ...]
    line: bool
    axis: int = 0

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def along_x(self) -> bool:
        """Whether gradients lead along x only."""
        return not any(k[1] or k[2] for k in self.vectors)

    def steps_up(self, move: Vector) -> int:
        """By how many places a move along the line lifts every order, 0 for other moves."""
        alone = not any(step for i, step in enumerate(move) if i != self.axis)
        inside = self.line and alone and 0 < move[self.axis] < len(self)
        return move[self.axis] if inside else 0

    @staticmethod
    def on_line(orders: int) -> "Wavevectors":
        """0 to orders - 1."""
        return Wavevectors(tuple((k, 0, 0) for k in range(orders)), True)

    @staticmethod
    def of_ticks(ticks: int) -> "Wavevectors":
        """Without gradients, 0 to `ticks` of static dephasing."""
        return Wavevectors(tuple((0, 0, 0, n) for n in range(ticks + 1)), True, TICKS)

    @staticmethod
    def returning(shifts: Iterable[Shift], most: int | None = None) -> "Wavevectors":
        """Those that the gradients played, in order, fill and empty again before the last of them
        ends; none from which fewer than `most` gradients cannot lead back."""
        moves = [as_vector(shift) for shift in shifts]
        moves = [move for move in moves if move != NOWHERE]
        reached, back = _distances(moves, most), _distances(moves[::-1], most)[::-1]
        kept = {NOWHERE}
        for there, home in zip(reached, back, strict=True):
            kept |= there.keys() & home.keys()
        return _ordered(kept)

    @staticmethod
    def timed(moves: Iterable[Vector], most: int) -> "Wavevectors | None":
        """Those that the moves, of gradients and ticks, fill and from which the gradients lead
        back before the last ends, whatever the ticks; None if they are more than `most`."""
        moves = [move for move in moves if any(move)]
        back = _distances([move[:3] for move in moves if any(move[:3])][::-1], None)[::-1]
        at = kept = {_nowhere(moves)}
        gradients = 0
        for move in moves:
            gradients += any(move[:3])
            there = {_half(_sum(k, move, sign)) for k in at for sign in (1, -1)}
            at = {k for k in at | there if _half(k[:3]) in back[gradients]}
            kept = kept | at
            if len(kept) > most:
                return None
        return _ordered(kept)

    @staticmethod
    def around(shifts: Iterable[Shift | Vector], most: int) -> "Wavevectors":
        """Those that fewer than `most` of some gradients, in any order, lead to."""
        moves = {move for move in map(as_vector, shifts) if any(move)}
        found, edge = {_nowhere(moves)}, {_nowhere(moves)}
        for _ in range(most - 1):
            edge = {_half(_sum(k, m, s)) for k in edge for m in moves for s in (1, -1)} - found
            found |= edge
        return _ordered(found)


def _nowhere(moves: Iterable[Vector]) -> Vector:
    return next(((0,) * len(move) for move in moves), NOWHERE)


def _distances(moves: list[Vector], most: int | None) -> list[dict[Vector, int]]:
    """After none, one, two, ... of the moves: wavevectors reached, and the fewest moves made."""
    at = {NOWHERE: 0}
    along = [at]
    for move in moves:
        now = dict(at)
        for k, distance in at.items():
            if most is not None and distance + 1 >= most:
                continue
            for sign in (1, -1):
                there = _half(_sum(k, move, sign))
                now[there] = min(distance + 1, now.get(there, distance + 1))
        at = now
        along.append(at)
    return along


def _ordered(kept: set[Vector]) -> Wavevectors:
    vectors = tuple(sorted(kept, key=lambda k: (sum(map(abs, k)), k)))
    return Wavevectors(vectors, vectors == Wavevectors.on_line(len(vectors)).vectors)


@cache
def sources(waves: Wavevectors, shift: Vector) -> tuple[np.ndarray, np.ndarray]:
    """Where F_k and F_{-k} come from when a gradient adds `shift`: indices into F of all
    wavevectors, then F of their negatives, then nothing."""
    place = {k: i for i, k in enumerate(waves.vectors)}
    count = len(waves)

    def index(k: Vector) -> int:
        if k in place:
            return place[k]
        opposite = place.get(_minus(k))
        return 2 * count if opposite is None else count + opposite

    plus = [index(_sum(k, shift, -1)) for k in waves.vectors]
    minus = [index(_sum(_minus(k), shift, -1)) for k in waves.vectors]
    return np.array(plus), np.array(minus)
