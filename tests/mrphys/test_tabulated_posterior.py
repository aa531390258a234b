"""Means and sds from a table of signals: against sums over all values, and where it gives way."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys.acquisitions import FunctionModel
from mrphys.bounds import Bounds
from mrphys.likelihood import rician_cost
from mrphys.mapping import CONVERGED, fit
from mrphys.signal_table import tabulated
from mrphys.tabulated_posterior import by_table
from mrphys.voxelwise import Found, Given, Question, with_fields

THETA = mr.sequence.spin_echo_train(np.full(10, np.deg2rad(165)), 0.012)
BOUNDS = {"t2_s": (0.01, 0.5), "b1": (0.5, 1.05)}
FREE = ("t2_s", "b1", "m0")
NOISE_SD = 0.04
LIMITS = tuple(Bounds(*BOUNDS[name]) for name in FREE[:2])
ASK = Question(FREE[:2], LIMITS, ("m0",), "complex", False, False, 40)
TIMES_S = jnp.array([0.01, 0.03, 0.05, 0.07])
MASK = np.ones((8, 10), bool)
MASK[4, 2] = MASK[3, 6:] = False
TRUE = mr.Tissue(
    t1_s=1.0,
    t2_s=np.linspace(0.05, 0.1, 8),
    b1=np.array([0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1, 1]),
    m0=np.linspace(0.8, 1.2, 8),
)


def rows() -> Any:
    """What is known of 8 voxels."""
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, 8), mr.Tissue(t1_s=1.0, t2_s=0.1))


@pytest.fixture(scope="module")
def clean():
    return np.asarray(mr.simulate(THETA, TRUE))


def noisy(clean: np.ndarray, rician: bool) -> Any:
    noise = np.random.default_rng(5).standard_normal((2, *clean.shape)) * NOISE_SD
    x = (clean + noise[0] + 1j * noise[1]) * np.exp(0.4j)
    return jnp.asarray(np.abs(x) if rician else x)


def found(x: Any, free: tuple[str, ...] = FREE, **options: Any) -> Any:
    return fit(THETA, x, free, NOISE_SD, bounds=BOUNDS, posterior=True, **options)


def assert_summed(est: Any, axes: tuple[np.ndarray, ...], cost: Any, i: int) -> None:
    """Mean and sd of voxel i are those of a sum over m0, T2 and B1 of exp(-cost)."""
    share = np.exp(cost.min() - cost)
    share /= share.sum()
    for name, value in zip(("t2_s", "b1", "m0"), axes, strict=True):
        mean = np.sum(share * value)
        sd = np.sqrt(np.sum(share * (value - mean) ** 2))
        assert abs(getattr(est.value, name)[i] - mean) < 0.1 * sd
        assert abs(getattr(est.sd, name)[i] / sd - 1) < 0.06


def grid(count: int) -> tuple[tuple[np.ndarray, ...], np.ndarray]:
    """T2, B1 and m0, and what is seen of m0 1."""
    shares = [(jnp.arange(n) + 0.5) / n for n in (2 * count, count)]
    lines = (bound.at_share(share) for bound, share in zip(LIMITS, shares, strict=True))
    t2, b1 = (np.ravel(axis) for axis in np.meshgrid(*lines))
    m0 = np.linspace(0.4, 2.0, 61)[:, None]
    return (t2, b1, m0), np.abs(mr.simulate(THETA, mr.Tissue(t1_s=1.0, t2_s=t2, b1=b1)))


def test_complex_means_and_sds_are_those_of_a_sum(clean):
    """Also where the unknown that is known worse, B1, is asked for first."""
    x = noisy(clean, False)
    est = found(x, ("b1", "t2_s", "m0"))
    np.testing.assert_array_equal(est.status, CONVERGED)
    turned = jnp.imag(x * jnp.exp(-1j * est.phase_rad["m0"])[:, None])  # M+ is i |M+|.
    axes, seen = grid(60)
    for i, row in enumerate(np.asarray(turned)):
        cost = axes[2] ** 2 * np.sum(seen**2, -1) - 2 * axes[2] * (seen @ row)
        assert_summed(est, axes, cost / (2 * NOISE_SD**2), i)


def test_magnitudes_means_and_sds_are_those_of_a_sum(clean):
    """Of readouts that count."""
    x = noisy(clean, True)
    est = found(jnp.where(MASK, x, 1e3), mask=MASK)
    np.testing.assert_array_equal(est.status, CONVERGED)
    axes, seen = grid(30)
    size = jnp.asarray(seen * (axes[2][:, :, None] / NOISE_SD))
    for i, (row, counts) in enumerate(zip(np.asarray(x), MASK, strict=True)):
        cost = rician_cost(jnp.broadcast_to(row / NOISE_SD, size.shape), size)
        assert_summed(est, axes, np.sum(np.asarray(cost)[..., counts], -1), i)


def test_what_the_table_cannot_tell_is_left_to_a_search(clean):
    x = noisy(clean, True).at[2].set(jnp.nan).at[3].set(0.0)
    noise_sd = jnp.where(jnp.arange(8) == 5, 1e-6, NOISE_SD)
    given = Given(x, noise_sd, rows(), None, jnp.asarray(MASK))
    ask = ASK._replace(data="magnitude", rician=True)
    table = tabulated(ask, THETA, given.known)
    assert table is not None
    seen = []

    def otherwise(rest: Given) -> Found:
        seen.append(np.asarray(rest.noise_sd))
        one = jnp.full(len(rest.x), -1.0)
        return Found((one,) * 3, (one,) * 3, (), one, one, one.astype(int), (one,) * 2, one)

    est = by_table(ask, table, THETA, given, otherwise)
    np.testing.assert_array_equal(np.flatnonzero(est.values[0] == -1.0), [2, 3, 5])
    assert len(seen) == 1 and (seen[0] == 1e-6).sum() == 1


@pytest.mark.long
def test_series_are_of_the_signal_and_its_slope():
    table = tabulated(ASK, THETA, rows())
    assert table is not None and not table.swapped and table.error < 1e-4
    rng = np.random.default_rng(2)
    a, b = (jnp.asarray(rng.uniform(0.05, 0.95, 8)) for _ in range(2))
    b1 = LIMITS[1].at_share(b)

    def exact(a: Any) -> Any:
        t2 = LIMITS[0].at_share(a)
        q: Any = with_fields(rows(), FREE, (t2, b1, jnp.ones(8)))
        signal = (THETA.signals(q) * table.phase).real.T
        size = jnp.linalg.norm(signal, axis=0)
        return jnp.concatenate([signal / size[None], jnp.log(size)[None]])

    value, slope = jax.jvp(exact, (a,), (jnp.ones(8),))
    told, moved = table.near(a, b)
    sign = jnp.sign(jnp.sum(value[:-1] * told[:-1]))
    value, slope = (v.at[:-1].multiply(sign) for v in (value, slope))
    np.testing.assert_allclose(told, value, atol=1e-4)
    np.testing.assert_allclose(moved, slope, atol=1e-3 * float(jnp.abs(slope).max()))


def test_no_table_where_voxels_or_phases_differ():
    known = rows()
    assert tabulated(ASK._replace(unknowns=("t2_s",)), THETA, known) is None
    varied = eqx.tree_at(lambda q: q.t1_s, known, jnp.linspace(0.9, 1.1, 8))
    assert tabulated(ASK, THETA, varied) is None
    turning = FunctionModel(
        lambda q: q.m0 * jnp.exp(-TIMES_S / q.t2_s + 20j * TIMES_S * q.b1), jnp.ones(4)
    )
    assert tabulated(ASK, turning, known) is None
