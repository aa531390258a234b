r"""Pools that exchange under a field held for a while: exponentials of the Bloch-McConnell matrix.

    dM/dt = A M,   A = A_0 + 2π (b_x X + b_y Y + Δ Z) - W S

M is (Mx, My, Mz) of water, then of each liquid pool, M_z of the semi-solid, and 1; A_0 holds
relaxation, exchange and chemical shift (`mrphys.exchange`), X, Y and Z turn all liquid pools, and
S saturates the semi-solid at W = π (2π |b|)² g(Δ). Exact for a held field, whatever its strength;
g is that of the carrier, not of the phase modulation of its samples.

A sample costs an exponential, five products of (n + 1)² matrices for each voxel: 10 (n + 1)³
flops, n = 3 (1 + pools) + semi-solid, or 0.4 µs where the processor does 9 Gflop/s and n is 6; as
the sample before, a product with a vector, 2 (n + 1)².

Matrices are (n + 1, n + 1, voxels): the processor's vectors run along voxels.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from mrphys.exchange import exponential, free_rates, generator
from mrphys.tissue import Tissue

_X = np.array([[0, 0, 0], [0, 0, 1], [0, -1, 0]])
_Y = np.array([[0, 0, -1], [0, 0, 0], [1, 0, 0]])
_Z = np.array([[0, 1, 0], [-1, 0, 0], [0, 0, 0]])


def size(q: Tissue) -> int:
    """n, without the 1."""
    return 3 * (1 + len(q.pools)) + (q.semisolid is not None)


def at_rest(q: Tissue) -> Float[Array, "voxels n"]:
    """Equilibrium of a row of voxels."""
    nothing = jnp.zeros_like(q.m0)
    fractions = [jnp.ones_like(q.m0), *(pool.fraction for pool in q.pools)]
    along = [value for part in fractions for value in (nothing, nothing, part * q.m0)]
    bound = [] if q.semisolid is None else [q.semisolid.fraction * q.m0]
    return jnp.stack([*along, *bound], axis=1)


def shared_out(q: Tissue, start: Float[Array, "voxels _"] | None) -> Float[Array, "voxels n"]:
    """All pools before: at rest, as given, or (voxels, 3) shared by fractions."""
    rest = at_rest(q)
    if start is None or start.shape[1] == rest.shape[1]:
        return rest if start is None else start.astype(rest.dtype)
    fractions = jnp.stack([jnp.ones_like(q.m0), *(pool.fraction for pool in q.pools)], axis=1)
    share = fractions / fractions.sum(axis=1, keepdims=True)
    liquid = (share[:, :, None] * start[:, None]).reshape(len(start), -1)
    return jnp.concatenate([liquid, rest[:, liquid.shape[1] :]], axis=1)


def together(q: Tissue, m: Float[Array, "*any n"]) -> Float[Array, "*any 3"]:
    """The sum over liquid pools."""
    liquid = 1 + len(q.pools)
    return m[..., : 3 * liquid].reshape(*m.shape[:-1], liquid, 3).sum(axis=-2)


def applied(matrix: Inexact[Array, "n n voxels"], m: Inexact[Array, "n voxels"]) -> Array:
    """Matrix times vector in each voxel."""
    return sum((matrix[:, j] * m[j][None] for j in range(1, m.shape[0])), matrix[:, 0] * m[0][None])


class Matter(NamedTuple):
    """A row of voxels of exchanging pools."""

    q: Tissue
    still: Float[Array, "n n voxels"]

    @staticmethod
    def of(q: Tissue) -> "Matter":
        """With A_0, of no field on resonance."""

        def one(q: Tissue) -> tuple[Array, Array]:
            none = jnp.zeros_like(q.m0)
            return generator(q.m0, q.t1_s, q.t2_s, none, q.pools, q.semisolid, none, none)

        a, b = jax.vmap(one, out_axes=-1)(q)
        return Matter(
            q, jnp.pad(jnp.concatenate([a, b[:, None]], axis=1), ((0, 1), (0, 0), (0, 0)))
        )

    def absorption_s(self, offset_hz: Array) -> Array | None:
        """g of the semi-solid `offset_hz` from the carrier."""
        return None if self.q.semisolid is None else self.q.semisolid.absorption_s(offset_hz)

    def held(
        self, across_hz: Array, along_hz: Array, offset_hz: Array, absorption_s, dt_s: Array
    ) -> Float[Array, "n n voxels"]:
        """exp(A dt) of a field in Hz, `offset_hz` that of water from the carrier."""
        liquid, turn = 1 + len(self.q.pools), 2 * jnp.pi
        spare = self.still.shape[0] - 3 * liquid
        a = self.still
        for part, hz in ((_X, across_hz), (_Y, along_hz), (_Z, offset_hz)):
            turning = np.pad(np.kron(np.eye(liquid), part), (0, spare)).astype(a.dtype)
            a = a + turning[..., None] * (turn * hz)[None, None]
        if absorption_s is not None:
            saturating = np.zeros(a.shape[:2], a.dtype)
            saturating[-2, -2] = 1
            rate = jnp.pi * turn**2 * (across_hz**2 + along_hz**2) * absorption_s
            a = a - saturating[..., None] * rate[None, None]
        return exponential(a * dt_s)

    def free(self, offset_hz: Array, dt_s: Array) -> Float[Array, "n n voxels"]:
        """The same without a field, by exponentials of transverse and longitudinal magnetisation
        apart; the turn by the common offset is exact."""
        q = self.q
        transverse, kept = self.free_parts(dt_s)
        angle = 2 * jnp.pi * offset_hz * dt_s
        plus = transverse * jax.lax.complex(jnp.cos(angle), -jnp.sin(angle))[None, None]
        liquid, longitudinal = plus.shape[0], kept.shape[0]
        rest = at_rest(q).T
        rest = jnp.concatenate([rest[2 : 3 * liquid : 3], rest[3 * liquid :]])
        recovered = rest - jnp.sum(kept * rest[None], axis=1)
        z = np.append(np.arange(2, 3 * liquid, 3), np.arange(3 * liquid, 2 * liquid + longitudinal))
        x = np.arange(0, 3 * liquid, 3)
        matrix = jnp.zeros_like(self.still).at[-1, -1].set(1.0).at[z, -1].set(recovered)
        matrix = matrix.at[z[:, None], z[None]].set(kept)
        matrix = matrix.at[x[:, None], x[None]].set(plus.real)
        matrix = matrix.at[x[:, None], x[None] + 1].set(-plus.imag)
        matrix = matrix.at[x[:, None] + 1, x[None]].set(plus.imag)
        return matrix.at[x[:, None] + 1, x[None] + 1].set(plus.real)

    def free_parts(self, time_s: Array) -> tuple[Array, Array]:
        """What a time without a field leaves of the transverse magnetisation of liquid pools in the
        frame of water, and of the longitudinal deviation from rest."""
        q = self.q
        rates = free_rates(q.t1_s, q.t2_s, jnp.zeros_like(q.m0), q.pools, q.semisolid)
        return exponential(rates[0] * time_s), exponential(rates[1] * time_s)
