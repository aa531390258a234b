r"""The steady state of one pulse repeated without gradients, of all net times of static dephasing.

With orders n of the time TR, one repetition takes the states of all pools to

    F_{n+1} = A F_n + B G_n + δ_n c,   G_{n-1} = C F_n + D G_n + δ_n e

once Z_n, which stays at its order, is eliminated. Orders are layers: F runs up, G down, a layer
lets through A and D and throws back C below and B above. A stack of layers joined to itself again
and again (Redheffer's star product) ends as the half space above order 0, which returns
G_0 = R F_1, and the one below, which returns F_0 = S G_{-1}. Hence

    F_1 = A S G_{-1} + B R F_1 + c,        F_{n+1} = (1 - B R)⁻¹ A F_n   for n > 0
    G_{-1} = C S G_{-1} + D R F_1 + e,     G_{n-1} = (1 - C S)⁻¹ D G_n   for n < 0

and the sum over all orders with exp(-|n TR + t| / T2') is a geometric series on either side: exact,
whatever T1, T2, T2' and flip angle.

Redheffer 1962, J. Math. and Phys. 41:1-41; Freeman, Hill 1971, doi:10.1016/0022-2364(71)90082-6
(the steady state at one offset); Ganter 2006, doi:10.1002/mrm.20736 (with T2').
"""

from dataclasses import replace

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex

from mrphys.epg import Block, States, Surroundings, equilibrium, remaining
from mrphys.tissue import Tissue

DOUBLINGS = 20
"""Layers joined: 2^20 repetitions, after which nothing is transverse."""


def steady_readouts(
    block: Block, tissue: Tissue, advance_rad: Array, around: Surroundings
) -> Complex[Array, "readouts voxels"]:
    """The readouts of one repetition of `block`, phases advancing by `advance_rad` from one to the
    next."""
    empty = jax.tree.map(jnp.zeros_like, equilibrium(tissue, 1))
    bare = replace(block, reads=(True,) * len(block.reads))
    rows = [_rows(part) for part in empty]

    def played(x: Array) -> tuple[Array, Array]:
        parts = jnp.split(x, [rows[0], rows[0] + rows[1]])
        states = States(*(p.reshape(e.shape) for p, e in zip(parts, empty, strict=True)))
        (plus, minus, along), seen = bare.play(tissue, states, around)
        turn = jnp.exp(-1j * advance_rad)
        after = (plus * turn, minus * turn.conj(), along)
        return jnp.concatenate([part.reshape(-1, part.shape[-1]) for part in after]), seen

    zero = jnp.zeros((sum(rows), tissue.m0.size), empty.plus.dtype)
    drive, read_drive = played(zero)
    unit = jnp.broadcast_to(
        jnp.eye(sum(rows), dtype=zero.dtype)[:, :, None], (sum(rows), *zero.shape)
    )
    columns, read_columns = jax.vmap(played)(unit)
    step = jnp.moveaxis(columns - drive[None], (0, 1, 2), (2, 1, 0))
    read = jnp.moveaxis(read_columns - read_drive[None], (0, 1, 2), (2, 1, 0))
    source, read_drive = drive.T[..., None], read_drive.T[..., None]

    p = rows[0]
    onto = jnp.concatenate([step[:, : 2 * p], read], axis=1)
    through_z = _over(onto[:, :, 2 * p :], jnp.eye(rows[2])[None] - step[:, 2 * p :, 2 * p :])
    onto_rest = onto[:, :, : 2 * p] + through_z @ step[:, 2 * p :, : 2 * p]
    source = (
        jnp.concatenate([source[:, : 2 * p], read_drive], axis=1) + through_z @ source[:, 2 * p :]
    )
    a, b = onto_rest[:, :p, :p], onto_rest[:, :p, p:]
    c, d = onto_rest[:, p : 2 * p, :p], onto_rest[:, p : 2 * p, p:]
    of_plus, of_minus = onto_rest[:, 2 * p :, :p], onto_rest[:, 2 * p :, p:]

    s, r = _half_spaces(a, b, c, d)
    one = jnp.eye(p)[None]
    both = jnp.eye(2 * p)[None] - jnp.concatenate(
        [jnp.concatenate([b @ r, a @ s], 2), jnp.concatenate([d @ r, c @ s], 2)], 1
    )
    edges = _solve(both, source[:, : 2 * p])
    first, last = edges[:, :p], edges[:, p:]
    up, down = _solve(one - b @ r, a), _solve(one - c @ s, d)

    after = jnp.cumsum(block.times_s[0])
    tr = after[-1]
    once = remaining(tr[None], tissue.t2prime_s)[0][:, None, None]
    above = (of_plus + of_minus @ r @ up) @ _solve(one - once * up, first)
    below = (of_plus @ s @ down + of_minus) @ _solve(one - once * down, last)
    middle = of_plus @ s @ last + of_minus @ r @ first + source[:, 2 * p :]
    there = remaining(after, tissue.t2prime_s)
    back = remaining(tr - after, tissue.t2prime_s)
    total = there * (middle[..., 0].T + once[:, 0].T * above[..., 0].T) + back * below[..., 0].T
    return total[jnp.array([i for i, reads in enumerate(block.reads) if reads])]


def _rows(part: Array) -> int:
    return part.size // part.shape[-1]


def _half_spaces(a: Array, b: Array, c: Array, d: Array) -> tuple[Array, Array]:
    """What infinitely many layers (a, b; c, d) throw back to above, S, and to below, R."""
    one = jnp.eye(a.shape[-1])[None]

    def joined(layers: tuple, _: None) -> tuple[tuple, None]:
        a, b, c, d = layers
        up, down = _solve(one - b @ c, a), _solve(one - c @ b, d)
        return (a @ up, b + a @ b @ down, c + d @ c @ up, d @ down), None

    (_, s, r, _), _ = jax.lax.scan(joined, (a, b, c, d), None, length=DOUBLINGS)
    return s, r


def _solve(matrix: Array, rows: Array) -> Array:
    return rows / matrix if matrix.shape[-1] == 1 else jnp.linalg.solve(matrix, rows)


def _over(rows: Array, matrix: Array) -> Array:
    """rows matrix⁻¹."""
    if matrix.shape[-1] == 1:
        return rows / matrix
    return jnp.linalg.solve(matrix.mT, rows.mT).mT
