"""A function's value and chosen derivatives at one point, carried forward together (Taylor mode).

With partitions π of a multi-index S into blocks B (Faà di Bruno) and subsets A of it (Leibniz)

    σ(z)_S = Σ_π σ^(|π|)(z) Π_B z_B,    (a b)_S = Σ_A a_A b_{S-A},    (W z + b)_S = W z_S

one pass through a network gives every derivative asked for, exactly. Nested differentiation does
the same work again for each order; a Laplacian in d dimensions costs 2d + 1 passes here.

Bettencourt, Johnson, Duvenaud 2019, Taylor-mode automatic differentiation for higher-order
derivatives in JAX.
"""

from collections.abc import Callable, Iterable, Iterator
from functools import cache
from itertools import combinations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

Index = tuple[int, ...]
"""Inputs by which is differentiated, sorted: () the value, (0, 1, 1) ∂³/∂x₀∂x₁²."""

Series = dict[Index, Array]
"""Derivatives of numbers, one axis, by index; what is absent is 0."""

Derivatives = Callable[[Array, int], list[Array]]
"""(z, n) -> [σ(z), σ'(z), ..., σ^(n)(z)]."""


def closed(indices: Iterable[Index]) -> tuple[Index, ...]:
    """The indices with all that their propagation needs: every part of each, lowest first.

    >>> closed([(0, 1, 1)])
    ((), (0,), (1,), (0, 1), (1, 1), (0, 1, 1))
    """
    parts = {()} | {
        part
        for index in indices
        for size in range(1, len(index) + 1)
        for part in combinations(sorted(index), size)
    }
    return tuple(sorted(parts, key=lambda part: (len(part), part)))


def inputs(x: Float[Array, " inputs"], indices: tuple[Index, ...]) -> Series:
    """x itself as a series."""
    unit = jnp.eye(x.size, dtype=x.dtype)
    return {(): x} | {index: unit[index[0]] for index in indices if len(index) == 1}


def linear(series: Series, kernel: Float[Array, "numbers outputs"], bias: Array | None) -> Series:
    """z W + b."""
    made = {index: term @ kernel for index, term in series.items()}
    return made if bias is None else made | {(): made[()] + bias}


def product(a: Series, b: Series, indices: tuple[Index, ...]) -> Series:
    """a b, number by number."""
    return _gathered(
        (index, a[left] * b[right])
        for index in indices
        for left, right in _splits(index)
        if left in a and right in b
    )


def elementwise(derivatives: Derivatives, z: Series, indices: tuple[Index, ...]) -> Series:
    """σ(z), number by number."""
    slopes = derivatives(z[()], max(map(len, indices)))

    def terms() -> Iterator[tuple[Index, Array]]:
        yield (), slopes[0]
        for index in indices[1:]:
            by_blocks: dict[int, Array] = {}
            for blocks in _partitions(index):
                if all(block in z for block in blocks):
                    term = z[blocks[0]]
                    for block in blocks[1:]:
                        term = term * z[block]
                    count = len(blocks)
                    by_blocks[count] = by_blocks[count] + term if count in by_blocks else term
            for count, term in by_blocks.items():
                yield index, slopes[count] * term

    return _gathered(terms())


def add(a: Series, b: Series, scale: float = 1.0) -> Series:
    """a + scale b."""
    return a | {i: a[i] + scale * term if i in a else scale * term for i, term in b.items()}


def compose(
    f: Callable[[Float[Array, " inputs"], Float[Array, " numbers"]], Float[Array, " numbers"]],
    x: Float[Array, " inputs"],
    n: Series,
    indices: tuple[Index, ...],
) -> Series:
    """f(x, n(x)) of a function f of few operations: by forward over forward differentiation along
    n's Taylor polynomial."""

    def along(index: Index, moved: Array) -> Array:
        if index:
            unit = jnp.zeros_like(moved).at[index[0]].set(1)
            return jax.jvp(lambda at: along(index[1:], at), (moved,), (unit,))[1]
        by = moved - x
        local = n[()]
        for i, term in n.items():
            if i:
                power = jnp.ones_like(by[0])
                for number in set(i):
                    for k in range(i.count(number)):
                        power = power * by[number] / (k + 1)
                local = local + term * power
        return f(moved, local)

    return {index: along(index, x) for index in indices}


def tanh(z: Array, order: int) -> list[Array]:
    """And its derivatives, polynomials in it."""
    value = jnp.tanh(z)
    slope = 1 - value * value
    found, coefficients = [value, slope, -2 * value * slope], [0.0, -2.0]
    for _ in range(3, order + 1):
        # d/dz [s q(y)] = s (q'(y) (1 - y²) - 2 y q(y)) for the slope s = 1 - y²
        rise = [i * c for i, c in enumerate(coefficients)][1:]
        grown = [0.0] * (len(coefficients) + 1)
        for i, c in enumerate(rise):
            grown[i] += c
            grown[i + 2] -= c
        for i, c in enumerate(coefficients):
            grown[i + 1] -= 2 * c
        coefficients = grown
        found.append(slope * jnp.polyval(jnp.asarray(grown[::-1], z.dtype), value))
    return found[: order + 1]


def sine(z: Array, order: int) -> list[Array]:
    """And its derivatives."""
    sin, cos = jnp.sin(z), jnp.cos(z)
    return [(sin, cos, -sin, -cos)[n % 4] for n in range(order + 1)]


def derivatives_of(f: Callable[[Array], Array]) -> Derivatives:
    """Of any function of numbers one by one, by nested forward differentiation."""

    def found(z: Array, order: int) -> list[Array]:
        fs = [f]
        for _ in range(order):
            fs.append(_slope(fs[-1]))
        return [g(z) for g in fs]

    return found


def _slope(f: Callable[[Array], Array]) -> Callable[[Array], Array]:
    return lambda z: jax.jvp(f, (z,), (jnp.ones_like(z),))[1]


def _gathered(terms: Iterable[tuple[Index, Array]]) -> Series:
    made: Series = {}
    for index, term in terms:
        made[index] = made[index] + term if index in made else term
    return made


@cache
def _splits(index: Index) -> tuple[tuple[Index, Index], ...]:
    """Pairs of parts by the places they take: repeated inputs count as often as they can be."""
    places = range(len(index))
    return tuple(
        (tuple(index[i] for i in some), tuple(index[i] for i in places if i not in some))
        for size in range(len(index) + 1)
        for some in combinations(places, size)
    )


@cache
def _partitions(index: Index) -> tuple[tuple[Index, ...], ...]:
    """All partitions of an index's places into blocks."""
    if len(index) == 0:
        return ((),)
    first, rest = index[0], index[1:]
    made = []
    for size in range(len(rest) + 1):
        for some in combinations(range(len(rest)), size):
            block = (first, *(rest[i] for i in some))
            left = tuple(rest[i] for i in range(len(rest)) if i not in some)
            made += [(block, *others) for others in _partitions(left)]
    return tuple(made)
