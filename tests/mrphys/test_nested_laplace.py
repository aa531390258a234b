"""Means and sds of voxels over whose sd the model bends: against sums over all values."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys.acquisitions import FunctionModel
from mrphys.errors import InputError
from mrphys.likelihood import rician_cost
from mrphys.mapping import AT_BOUNDARY, CONVERGED, fit

THETA = mr.sequence.spin_echo_train(np.full(10, np.pi), 0.01)
BOUNDS = {"t2_s": (0.01, 0.5), "b1": (0.5, 1.0)}
FREE = ("t2_s", "b1", "m0")
NOISE_SD = 0.04
TRUE = mr.Tissue(
    t1_s=1.0, t2_s=np.linspace(0.05, 0.1, 8), b1=np.array([0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 1, 1])
)


def data(rician: bool) -> jax.Array:
    noise = np.random.default_rng(3).standard_normal((2, 8, 10)) * NOISE_SD
    x = mr.simulate(THETA, TRUE) + noise[0] + 1j * noise[1]
    return jnp.abs(x) if rician else x


def found(x: Any, **options: Any) -> Any:
    known = mr.Tissue(t1_s=1 + 1e-6 * np.arange(len(x)), t2_s=0.1)  # Of one T1 a table is made.
    given = {"known": known, "bounds": BOUNDS, "posterior": True, "noise_sd": NOISE_SD} | options
    return fit(given.pop("theta", THETA), x, FREE, **given)


@pytest.fixture(scope="module")
def signals():
    """Of a grid over the bounds: T2 by its logarithm, as they are told, and B1."""
    t2, b1 = np.meshgrid(np.geomspace(*BOUNDS["t2_s"], 240), np.linspace(0.5, 1.0, 200))
    q = mr.Tissue(t1_s=1.0, t2_s=t2.ravel(), b1=b1.ravel())
    return q, np.asarray(mr.simulate(THETA, q))


def summed(signals: Any, x: Any, rician: bool) -> tuple[dict, dict]:
    """Means and sds by a sum over T2, B1 and, of magnitudes, m0."""
    q, grid = signals
    t2, b1 = np.asarray(q.t2_s), np.asarray(q.b1)
    means, sds = {name: [] for name in FREE}, {name: [] for name in FREE}
    for row in np.asarray(x):
        if rician:
            m0 = np.linspace(0.6, 1.6, 41)
            some = slice(None, None, 7)
            size = jnp.asarray(np.abs(grid[some])[:, None] * m0[:, None] / NOISE_SD)
            seen = jnp.broadcast_to(row / NOISE_SD, size.shape)
            log = -np.asarray(jnp.sum(rician_cost(seen, size), -1))
            each = {"t2_s": t2[some, None], "b1": b1[some, None], "m0": m0[None]}
            inner = 0.0
        else:
            overlap, power = grid.conj() @ row, np.sum(np.abs(grid) ** 2, -1)
            log = np.abs(overlap) ** 2 / power / (2 * NOISE_SD**2) - np.log(power) / 2
            each, inner = {"t2_s": t2, "b1": b1, "m0": np.abs(overlap) / power}, NOISE_SD**2 / power
        share = np.exp(log - log.max())
        share /= share.sum()
        for name, value in each.items():
            mean = np.sum(share * value)
            more = inner if name == "m0" else 0.0
            means[name].append(mean)
            sds[name].append(np.sqrt(np.sum(share * ((value - mean) ** 2 + more))))
    return means, sds


@pytest.mark.parametrize("rician", [pytest.param(False, marks=pytest.mark.long), True])
def test_means_and_sds_are_those_of_a_sum_over_all_values(rician, signals):
    x = data(rician)
    est = found(x)
    np.testing.assert_array_equal(est.status, CONVERGED)
    means, sds = summed(signals, x, rician)
    for name in FREE:
        away = (np.asarray(getattr(est.value, name)) - means[name]) / sds[name]
        assert np.abs(away).max() < 0.15 and np.sqrt(np.mean(away**2)) < 0.09
        np.testing.assert_allclose(getattr(est.sd, name), sds[name], rtol=0.06)


def test_a_value_at_its_bound_gets_a_mean_and_an_sd():
    x = data(False)
    plain = found(x, posterior=False)
    assert (plain.status == AT_BOUNDARY).any()
    est = found(x)
    assert (est.value.b1 < 0.999).all() and np.isfinite(est.sd.b1).all()
    for mine, given in ((est.phase_rad, plain.phase_rad),):
        np.testing.assert_allclose(mine["m0"], given["m0"], atol=0.02)


@pytest.mark.long
def test_where_the_model_is_straight_nothing_changes():
    x = mr.simulate(THETA, TRUE)[:4]
    for name in FREE:
        same = [getattr(found(x, noise_sd=1e-4, posterior=p).value, name) for p in (True, False)]
        np.testing.assert_array_equal(*same)


def echoes(q: mr.Tissue) -> jax.Array:
    """B1 by its square, as near 180°, shared between odd and even echoes."""
    t, less = 0.01 * jnp.arange(1.0, 11.0), (1 - q.b1) ** 2
    odd = jnp.arange(10) % 2
    return q.m0 * jnp.exp(-t / q.t2_s) * (1 - less * jnp.where(odd, 1.0, 3.0))


@pytest.mark.long
def test_gradients_are_those_of_differences():
    theta = FunctionModel(echoes, jnp.ones(10))
    noise = np.random.default_rng(3).standard_normal((8, 10)) * NOISE_SD
    x = jax.vmap(echoes)(TRUE.broadcast()) + noise
    direction = np.random.default_rng(5).standard_normal(x.shape)

    weights = np.random.default_rng(6).uniform(0.5, 1.5, 8)

    @jax.jit
    @jax.value_and_grad
    def told(step: jax.Array) -> jax.Array:
        est = found(x + step * direction, theta=theta)
        return jnp.sum(weights * (est.value.t2_s + est.value.b1 + est.value.m0 + est.sd.b1))

    step = 1e-3
    differences = (told(jnp.asarray(step))[0] - told(jnp.asarray(-step))[0]) / (2 * step)
    np.testing.assert_allclose(told(jnp.zeros(()))[1], differences, rtol=1e-3)


@pytest.mark.long
def test_traced_voxels_are_as_others():
    x = data(True)
    for mine, given in zip(
        jax.tree.leaves(jax.jit(found)(x)), jax.tree.leaves(found(x)), strict=True
    ):
        np.testing.assert_allclose(mine, given, rtol=1e-7)


def test_neighbours_have_another_posterior():
    with pytest.raises(InputError, match="each voxel by itself"):
        found(data(False), prior={"t2_s": mr.joint.TotalVariation(0.1)})
