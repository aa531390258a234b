"""T2' by a few isochromats: its error, its limits, and echoes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys.bloch import bloch
from mrphys.dephasing import dephasing
from mrphys.errors import InputError
from mrphys.waveform import Waveform
from tests.laws import check_gradient

ACROSS = np.array([[1.0, 0.0, 0.0]])


@pytest.mark.parametrize("isochromats", [17, 65, 257])
def test_the_decay_is_within_its_bound(isochromats):
    t2prime = np.array([0.1, 0.025, 0.005])
    longest = 0.05
    t = np.linspace(-longest, longest, 801)
    offsets, weights = dephasing(jnp.asarray(t2prime), jnp.asarray(longest), isochromats)
    assert np.all(np.asarray(weights) > 0)
    decay = np.exp(-2j * np.pi * np.outer(t, offsets)) @ np.asarray(weights).T
    error = np.abs(decay - np.exp(-np.abs(t[:, None]) / t2prime))
    bound = 0.2 * longest / t2prime / (isochromats // 2)
    assert np.all(error.max(axis=0) < bound)
    away = np.abs(np.abs(t) - longest / 2) < longest * (0.5 - 2 / (isochromats // 2))
    assert np.all(error[away].max(axis=0) < bound / 2)
    np.testing.assert_allclose(np.asarray(weights).sum(axis=1), 1, atol=1e-14)


def test_none_is_none_and_the_slope_is_right_there():
    waveform = Waveform(1e-3, np.full(20, 20.0 + 5j))
    q = mr.Tissue(t1_s=1.0, t2_s=0.08, b0_hz=np.array([12.0, -3.0]))
    np.testing.assert_array_equal(bloch(waveform, q, isochromats=9), bloch(waveform, q))

    def decay(rate):
        _, weights = dephasing(1 / rate[None], jnp.asarray(0.04), 401)
        k = jnp.arange(-200, 201) / 0.08
        return jnp.sum(weights[0] * jnp.cos(2 * jnp.pi * k * 0.03))

    for mode in (jax.jacfwd, jax.grad):
        assert float(mode(decay)(jnp.asarray(1e-6))) == pytest.approx(-0.03, rel=0.01)


def test_decays_and_echoes_of_a_voxel():
    """exp(-t/T2*) after excitation; the echo of a perfect refocusing is that of T2 alone."""
    n, dt, t2, t2prime = 40, 1e-3, 0.1, np.array([0.03, 0.02, np.inf])
    b1 = np.zeros(n, complex)
    q = mr.Tissue(t1_s=5.0, t2_s=t2, b0_hz=np.array([0.0, 10.0, 5.0]), t2prime_s=t2prime)
    start = np.tile(ACROSS, (3, 1))
    m = np.asarray(bloch(Waveform(dt, b1), q, start=start, isochromats=401, record="all"))
    t = dt * np.arange(1, n + 1)
    rate = 1 / t2 + 1 / t2prime + 2j * np.pi * np.asarray(q.b0_hz)
    expected = np.exp(-t * rate[:, None])
    bound = 0.2 * n * dt / t2prime / 200
    error = np.abs(m[..., 0] + 1j * m[..., 1] - expected).max(axis=1)
    assert np.all(error < bound + 1e-9)
    dts = np.where(np.arange(n) == 19, 1e-6, dt)
    b1[19] = 0.5e6
    q = mr.Tissue(t1_s=5.0, t2_s=t2, t2prime_s=t2prime)
    echo = bloch(Waveform(dts, b1), q, start=start, isochromats=101, record="all")
    np.testing.assert_allclose(echo[:, 38, 0], np.exp(-0.038 / t2), atol=4e-3)
    before = np.exp(-0.03 / t2 - 0.008 / t2prime)
    np.testing.assert_allclose(echo[:, 30, 0], before, atol=4e-3)


def test_derivatives_also_without_dephasing():
    waveform = Waveform(1e-3, np.repeat([60.0 + 0j, 0, 100j, 0], [3, 6, 3, 6]))

    def end(t2prime):
        q = mr.Tissue(t1_s=1.0, t2_s=0.08, b0_hz=12.0, t2prime_s=t2prime)
        return bloch(waveform, q, isochromats=9)

    check_gradient(end, jnp.array([0.02, 0.5]))
    for mode in (jax.jacfwd, jax.jacrev):
        np.testing.assert_array_equal(mode(end)(jnp.array([jnp.inf])), 0)


def test_an_even_number_is_refused():
    with pytest.raises(InputError, match="odd"):
        bloch(Waveform(1e-3, np.zeros(2, complex)), mr.Tissue(t1_s=1.0, t2_s=0.1), isochromats=4)
