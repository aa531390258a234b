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
Vector = tuple[int, int, int]
NOWHERE: Vector = (0, 0, 0)


def as_vector(shift: Shift) -> Vector:
    """A shift along the line as one along x."""
    return shift if isinstance(shift, tuple) else (shift, 0, 0)


def _sum(a: Vector, b: Vector, sign: int = 1) -> Vector:
    return (a[0] + sign * b[0], a[1] + sign * b[1], a[2] + sign * b[2])


def _half(k: Vector) -> Vector:
    """Of k and -k, the one kept: its first component that is not zero is positive."""
    return max(k, (-k[0], -k[1], -k[2]))


@dataclass(frozen=True)
class Wavevectors:
    """Wavevectors in unit moments, one of each pair k, -k, the first zero.

    `line` when they are 0, 1, 2, ... along x.
    """

    vectors: tuple[Vector, ...]
    line: bool

    def __len__(self) -> int:
        return len(self.vectors)

    @staticmethod
    def on_line(orders: int) -> "Wavevectors":
        """0 to orders - 1."""
        return Wavevectors(tuple((k, 0, 0) for k in range(orders)), True)

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
    def around(shifts: Iterable[Shift], most: int) -> "Wavevectors":
        """Those that fewer than `most` of some gradients, in any order, lead to."""
        moves = {as_vector(shift) for shift in shifts} - {NOWHERE}
        found, edge = {NOWHERE}, {NOWHERE}
        for _ in range(most - 1):
            edge = {_half(_sum(k, m, s)) for k in edge for m in moves for s in (1, -1)} - found
            found |= edge
        return _ordered(found)


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
        opposite = place.get(_sum(NOWHERE, k, -1))
        return 2 * count if opposite is None else count + opposite

    plus = [index(_sum(k, shift, -1)) for k in waves.vectors]
    minus = [index(_sum(_sum(NOWHERE, k, -1), shift, -1)) for k in waves.vectors]
    return np.array(plus), np.array(minus)
