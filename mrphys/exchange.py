r"""Pools that exchange magnetisation with free water: the Bloch-McConnell equations.

In the frame of a constant field b1 (Hz, phase φ) applied Δ Hz from water, each pool p, water among
them, obeys

    dM_p/dt = 2π M_p × (b1 cos φ, b1 sin φ, δ_p) - (M_x / T2, M_y / T2, (M_z - m0_p) / T1)
              + Σ_q (k_qp M_q - k_pq M_p),      δ_p = b0 + shift_p - Δ

with k_pw the `exchange_rate_hz` of a pool into water and k_wp = fraction · k_pw, so that
equilibrium is kept. Of a semi-solid pool only M_z is followed; the field saturates it at the rate

    W = π (2π b1)² g(Δ),   2π ∫ g(Δ) dΔ = 1

g in s, Δ in Hz.

McConnell 1958, doi:10.1063/1.1744152; Henkelman et al. 1993, doi:10.1002/mrm.1910290607;
Morrison, Stanisz, Henkelman 1995, doi:10.1006/jmrb.1995.1111 (super-Lorentzian).
"""

import math
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact

from mrphys.errors import InputError, Problem
from mrphys.units import check_finite, check_range, check_t2_of_t1, check_time_s, real_array

LINESHAPES = ("gaussian", "lorentzian", "super_lorentzian")
BRIDGED_HZ = 1000.0
"""Below, the super-Lorentzian, which has no limit at 0, is continued by a parabola."""


class Pool(eqx.Module):
    """A pool in exchange with water: amide protons, an agent, bound water.

    fraction          its equilibrium magnetisation relative to water's, above 0
    exchange_rate_hz  from the pool into water
    shift_hz          its resonance from water's
    t1_s, t2_s        its own relaxation times

    Each a number or of the tissue's voxel shape. Raises InputError for values out of range.
    """

    fraction: Float[Array, "..."] = eqx.field(converter=real_array("Pool fraction"))
    exchange_rate_hz: Float[Array, "..."] = eqx.field(converter=real_array("Pool exchange_rate_hz"))
    shift_hz: Float[Array, "..."] = eqx.field(converter=real_array("Pool shift_hz"), default=0.0)
    t1_s: Float[Array, "..."] = eqx.field(converter=real_array("Pool t1_s"), default=1.0)
    t2_s: Float[Array, "..."] = eqx.field(converter=real_array("Pool t2_s"), default=0.01)

    def __check_init__(self):
        _check("Pool", self)
        check_finite("Pool shift_hz", self.shift_hz)


class SemiSolid(eqx.Module):
    """Protons of macromolecules, too short in T2 to be seen.

    Fields as of `Pool`; `lineshape` "super_lorentzian" (tissue), "gaussian" (gels) or
    "lorentzian". T2 of about 10 µs.
    """

    fraction: Float[Array, "..."] = eqx.field(converter=real_array("SemiSolid fraction"))
    exchange_rate_hz: Float[Array, "..."] = eqx.field(
        converter=real_array("SemiSolid exchange_rate_hz")
    )
    t1_s: Float[Array, "..."] = eqx.field(converter=real_array("SemiSolid t1_s"), default=1.0)
    t2_s: Float[Array, "..."] = eqx.field(converter=real_array("SemiSolid t2_s"), default=1e-5)
    lineshape: str = eqx.field(static=True, default="super_lorentzian")

    def __check_init__(self):
        _check("SemiSolid", self)
        if self.lineshape not in LINESHAPES:
            expected = f"one of {', '.join(LINESHAPES)}"
            raise InputError(Problem("SemiSolid lineshape", repr(self.lineshape), expected))

    def absorption_s(self, offset_hz: Float[Array, "..."]) -> Float[Array, "..."]:
        """g(Δ) in s: gaussian T2/√(2π) exp(-(2πΔT2)²/2), lorentzian T2/π / (1 + (2πΔT2)²), or

        T2 √(2/π) ∫₀¹ exp(-2 (2πΔT2 / |3u² - 1|)²) / |3u² - 1| du
        """
        x = 2 * jnp.pi * offset_hz * self.t2_s
        if self.lineshape == "gaussian":
            return self.t2_s / jnp.sqrt(2 * jnp.pi) * jnp.exp(-(x**2) / 2)
        if self.lineshape == "lorentzian":
            return self.t2_s / jnp.pi / (1 + x**2)
        size = jnp.abs(offset_hz)
        outside = _super_lorentzian(jnp.maximum(size, BRIDGED_HZ), self.t2_s)
        edge, slope = jax.jvp(
            lambda f: _super_lorentzian(f, self.t2_s),
            (jnp.full_like(size, BRIDGED_HZ),),
            (jnp.ones_like(size),),
        )
        inside = edge + slope * (size**2 - BRIDGED_HZ**2) / (2 * BRIDGED_HZ)
        return jnp.where(size < BRIDGED_HZ, inside, outside)


def _super_lorentzian(offset_hz: Array, t2_s: Array) -> Array:
    u, weight = np.polynomial.legendre.leggauss(256)
    u, weight = (u + 1) / 2, weight / 2
    angle = np.abs(3 * u**2 - 1)
    x = jnp.multiply.outer(1 / angle, 2 * jnp.pi * offset_hz * t2_s)
    total = jnp.tensordot(jnp.asarray(weight / angle, x.dtype), jnp.exp(-2 * x**2), axes=1)
    return t2_s * np.sqrt(2 / np.pi) * total


def _check(where: str, pool: "Pool | SemiSolid") -> None:
    try:
        np.broadcast_shapes(*(leaf.shape for leaf in jax.tree.leaves(pool)))
    except ValueError:
        found = ", ".join(f"{leaf.shape}" for leaf in jax.tree.leaves(pool))
        raise InputError(Problem(where, f"shapes {found}", "shapes that broadcast")) from None
    cause = "pools that sum to nothing, or a percentage"
    check_range(f"{where} fraction", pool.fraction, 1e-9, 10.0, "of water", cause)
    check_range(f"{where} exchange_rate_hz", pool.exchange_rate_hz, 0.0, 1e7, "Hz")
    check_time_s(f"{where} t1_s", pool.t1_s, low=1e-6)
    longest = 20.0 if isinstance(pool, Pool) else 1e-3
    check_time_s(f"{where} t2_s", pool.t2_s, low=1e-7, high=longest)
    check_t2_of_t1(where, pool.t1_s, pool.t2_s)


def generator(
    m0: Array,
    t1_s: Array,
    t2_s: Array,
    b0_hz: Array,
    pools: tuple[Pool, ...],
    semisolid: SemiSolid | None,
    b1_hz: Array,
    offset_hz: Array,
) -> tuple[Float[Array, "n n"], Float[Array, " n"]]:
    """A and b of dM/dt = A M + b for one voxel, M being (Mx, My, Mz) of water, then of each pool,
    then Mz of the semi-solid pool; the field has phase 0 and is `offset_hz` from water."""
    places = 1 + len(pools)
    size = 3 * places + (semisolid is not None)
    a, b = jnp.zeros((size, size), m0.dtype), jnp.zeros(size, m0.dtype)
    turn = 2 * jnp.pi

    def relax(a, b, i, t1, t2, shift, amount):
        detuned = turn * (b0_hz + shift - offset_hz)
        block = jnp.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 0.0]]) * detuned
        block = block + jnp.array([[0.0, 0, 0], [0, 0, 1], [0, -1, 0]]) * (turn * b1_hz)
        block = block - jnp.diag(jnp.stack([1 / t2, 1 / t2, 1 / t1]))
        return a.at[i : i + 3, i : i + 3].add(block), b.at[i + 2].add(amount / t1)

    def exchange(a, i, j, back, there):
        return a.at[i, i].add(-there).at[j, j].add(-back).at[i, j].add(back).at[j, i].add(there)

    a, b = relax(a, b, 0, t1_s, t2_s, jnp.zeros_like(b0_hz), m0)
    for p, pool in enumerate(pools):
        i = 3 * (p + 1)
        a, b = relax(a, b, i, pool.t1_s, pool.t2_s, pool.shift_hz, pool.fraction * m0)
        for axis in range(3):
            rate = pool.exchange_rate_hz
            a = exchange(a, axis, i + axis, rate, pool.fraction * rate)
    if semisolid is not None:
        rate = semisolid.exchange_rate_hz
        a = exchange(a, 2, size - 1, rate, semisolid.fraction * rate)
        saturated = jnp.pi * (turn * b1_hz) ** 2 * semisolid.absorption_s(offset_hz - b0_hz)
        a = a.at[-1, -1].add(-saturated - 1 / semisolid.t1_s)
        b = b.at[-1].add(semisolid.fraction * m0 / semisolid.t1_s)
    return a, b


def step(a: Float[Array, "n n"], b: Float[Array, " n"], time_s: Array) -> Float[Array, "n+1 n+1"]:
    """dM/dt = A M + b over `time_s` as one matrix for (M, 1)."""
    size = b.shape[0]
    augmented = jnp.zeros((size + 1, size + 1), a.dtype).at[:size, :size].set(a)
    return jax.scipy.linalg.expm(augmented.at[:size, size].set(b) * time_s, max_squarings=32)


def propagate(
    a: Float[Array, "n n"], b: Float[Array, " n"], m: Float[Array, " n"], time_s: Array
) -> Float[Array, " n"]:
    """M after `time_s` of dM/dt = A M + b."""
    after = step(a, b, time_s)
    return after[:-1, :-1] @ m + after[:-1, -1]


def steady(a: Float[Array, "n n"], b: Float[Array, " n"]) -> Float[Array, " n"]:
    """M that dM/dt = A M + b leaves as it is."""
    return jnp.linalg.solve(a, -b)


def free_rates(
    t1_s: Array,
    t2_s: Array,
    b0_hz: Array,
    pools: tuple[Pool, ...],
    semisolid: SemiSolid | None,
) -> tuple[Complex[Array, "p p voxels"], Float[Array, "q q voxels"]]:
    """Matrices A of dM/dt = A (M - M at rest) without a field: of the transverse magnetisation
    Mx + i My of water and each pool, and of the longitudinal, there also of the semi-solid."""
    bound = () if semisolid is None else (semisolid,)
    shifts = [b0_hz, *(b0_hz + pool.shift_hz for pool in pools)]
    fading = [-1 / t2_s, *(-1 / pool.t2_s for pool in pools)]
    transverse = _exchanging(t1_s, pools, fading)
    turning = -2 * jnp.pi * jnp.stack(shifts)
    turning = jnp.eye(len(shifts), dtype=turning.dtype)[..., None] * turning[None]
    recovering = [-1 / t1_s, *(-1 / pool.t1_s for pool in (*pools, *bound))]
    longitudinal = _exchanging(t1_s, (*pools, *bound), recovering)
    return jax.lax.complex(transverse, turning), longitudinal


def _exchanging(
    like: Array, pools: tuple[Pool | SemiSolid, ...], diagonal: list[Array]
) -> Float[Array, "n n voxels"]:
    """Exchange of water with each pool, and what else each loses."""
    back = [pool.exchange_rate_hz for pool in pools]
    there = [pool.fraction * pool.exchange_rate_hz for pool in pools]
    size = 1 + len(pools)
    rows = [[jnp.zeros_like(like)] * size for _ in range(size)]
    rows[0] = [diagonal[0] - sum(there, jnp.zeros_like(like)), *back]
    for i in range(1, size):
        rows[i][0], rows[i][i] = there[i - 1], diagonal[i] - back[i - 1]
    return jnp.stack([jnp.stack(row) for row in rows])


def exponential(a: Inexact[Array, "n n *rest"]) -> Inexact[Array, "n n *rest"]:
    """exp(A) of the matrices along the first two axes; of two by two in closed form:

    with h = tr A / 2 and s² = h² - det A,  exp(A) = e^h (cosh s 1 + sinh s / s (A - h 1))

    Larger ones by Taylor's series to order 12 of A / 2^n, squared n times, of all together: within
    2 ulp of exp |A| where |A| (the largest absolute row sum) stays below 1, ulp |A| above.
    """
    if a.shape[0] == 1:
        return jnp.exp(a)
    if a.shape[0] > 2:
        return _squared(a)
    half = (a[0, 0] + a[1, 1]) / 2
    apart = (a[0, 0] - a[1, 1]) / 2
    square = apart**2 + a[0, 1] * a[1, 0]
    small = jnp.abs(square) < 1e-2
    s = jnp.sqrt(jnp.where(small, 1.0, square))
    # e^h cosh s and e^h sinh s / s, e^(h + s) never beyond 1; by their series where s is small.
    fast, slow = jnp.exp(half + s), jnp.exp(half - s)
    near = jnp.exp(jnp.where(small, half, 0.0))
    even = 1 + square / 2 * (1 + square / 12 * (1 + square / 30))
    odd = 1 + square / 6 * (1 + square / 20 * (1 + square / 42))
    cosh = jnp.where(small, near * even, (fast + slow) / 2)
    share = jnp.where(small, near * odd, (fast - slow) / (2 * s))
    return jnp.stack(
        [
            jnp.stack([cosh + share * apart, share * a[0, 1]]),
            jnp.stack([share * a[1, 0], cosh - share * apart]),
        ]
    )


SQUARINGS = np.array([0, 3, 8, 32])
"""How often; the least of them that is enough."""


def _squared(a: Inexact[Array, "n n *rest"]) -> Inexact[Array, "n n *rest"]:
    """E = exp(A) - 1, so that squaring, E' = 2 E + E E, rounds what changes and not the 1."""
    precise = jnp.finfo(a.dtype).eps < 1e-10
    size = jnp.max(jnp.sum(jnp.abs(jax.lax.stop_gradient(a)), axis=1))
    halvings = jnp.log2(jnp.maximum(size / (0.3 if precise else 1.5), 1e-9))
    which = jnp.searchsorted(jnp.array(SQUARINGS, halvings.dtype), halvings)
    which = jnp.minimum(which, SQUARINGS.size - 1)
    x = a * jnp.array(0.5**SQUARINGS, size.dtype)[which]
    square = product(x, x)
    cube = product(square, x)

    def terms(first: int) -> Array:
        share = [1 / math.factorial(first + i) for i in range(3)]
        return share[0] * x + share[1] * square + share[2] * cube

    e = terms(10)
    for first in (7, 4, 1):
        e = terms(first) + product(cube, e)

    def squarings(times: int) -> Callable[[Array], Array]:
        def once(e: Array, _: None) -> tuple[Array, None]:
            return 2 * e + product(e, e), None

        return lambda e: jax.lax.scan(once, e, None, length=times)[0]

    e = jax.lax.switch(which, [squarings(int(times)) for times in SQUARINGS], e)
    one = jnp.eye(a.shape[0], dtype=a.dtype)
    return e + one.reshape(*one.shape, *(1,) * (a.ndim - 2))


def product(a: Inexact[Array, "n n *rest"], b: Inexact[Array, "n n *rest"]) -> Array:
    """Matrix products; small ones written out, which keeps the processor's vectors along the rest,
    are ten times as fast as the library's, larger ones slower."""
    if a.shape[0] > 7:
        return jnp.einsum("ij...,jk...->ik...", a, b)
    return sum(
        (a[:, j, None] * b[None, j] for j in range(1, a.shape[0])), a[:, 0, None] * b[None, 0]
    )
