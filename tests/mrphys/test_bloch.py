"""The Bloch engine against rotations, closed forms, its order and finite differences."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.linalg import expm

import mrphys as mr
from mrphys.bloch import bloch
from mrphys.errors import InputError
from mrphys.waveform import Waveform
from tests.laws import check_gradient

LASTING = {"t1_s": 20.0, "t2_s": 20.0}
NO_PULSE = np.zeros(40, complex)


@pytest.mark.core
def test_a_pulse_of_phase_0_turns_z_to_y():
    for phase, expected in ((0.0, (0, 1, 0)), (np.pi / 2, (-1, 0, 0)), (np.pi, (0, -1, 0))):
        pulse = Waveform(1e-5, np.array([25e3 * np.exp(1j * phase)]))
        m = bloch(pulse, mr.Tissue(**LASTING))
        np.testing.assert_allclose(m[0], expected, atol=2e-6)


@pytest.mark.core
def test_precession_and_relaxation():
    q = mr.Tissue(t1_s=0.8, t2_s=0.05, b0_hz=np.array([30.0, -11.0]), m0=2.0)
    start = np.array([[1.0, 0.0, 0.5]] * 2)
    t = 0.02
    m = np.asarray(bloch(Waveform(t / 40, NO_PULSE), q, start=start))
    plus = np.exp(-t / 0.05 - 2j * np.pi * np.array([30.0, -11.0]) * t)
    np.testing.assert_allclose(m[:, 0] + 1j * m[:, 1], plus, atol=1e-5)
    np.testing.assert_allclose(m[:, 2], 2 + (0.5 - 2) * np.exp(-t / 0.8), rtol=1e-6)


@pytest.mark.core
def test_rabi():
    """Off resonance: Mz = 1 - 2 (ω1/Ω)² sin²(Ωt/2)."""
    offsets = np.linspace(-2000, 2000, 21)
    b1, t = 700.0, 1.3e-3
    pulse = Waveform(t / 64, np.full(64, b1 + 0j))
    m = bloch(pulse, mr.Tissue(b0_hz=offsets, **LASTING))
    total = np.hypot(b1, offsets)
    expected = 1 - 2 * (b1 / total) ** 2 * np.sin(np.pi * total * t) ** 2
    np.testing.assert_allclose(m[:, 2], expected, atol=2e-4)


def test_gradient_moments_dephase():
    q = mr.Tissue(**LASTING, m0=np.ones(5))
    x = np.linspace(-3, 3, 5)
    position = np.stack([x, 2 * x, -x], axis=1)
    gradient = np.random.default_rng(0).normal(size=(40, 3)) * 50
    start = np.array([[1.0, 0.0, 0.0]] * 5)
    m = np.asarray(bloch(Waveform(1e-4, NO_PULSE, jnp.asarray(gradient)), q, position, start=start))
    k = gradient.sum(axis=0) * 1e-4
    expected = np.exp(-2j * np.pi * position @ k - 4e-3 / 20)
    np.testing.assert_allclose(m[:, 0] + 1j * m[:, 1], expected, atol=1e-9)


def test_channels_add_by_their_sensitivities():
    rng = np.random.default_rng(1)
    b1 = rng.normal(size=(30, 2)) * 200 + 1j * rng.normal(size=(30, 2)) * 200
    field = rng.normal(size=(4, 2)) + 1j * rng.normal(size=(4, 2))
    q = mr.Tissue(t1_s=0.5, t2_s=0.05, m0=np.ones(4))
    together = bloch(Waveform(1e-5, b1), q, sensitivities=field)
    for i in range(4):
        alone = bloch(Waveform(1e-5, b1 @ field[i]), mr.Tissue(t1_s=0.5, t2_s=0.05))
        np.testing.assert_allclose(together[i], alone[0], atol=1e-10)


def test_second_order_in_the_dwell_time_and_recorded_all_along():
    q = mr.Tissue(t1_s=0.01, t2_s=0.004, b0_hz=60.0)

    def at(samples):
        pulse = Waveform(8e-3 / samples, np.full(samples, 90.0 + 40j))
        return np.asarray(bloch(pulse, q))[0]

    exact = at(4096)
    counts = np.array([8, 16, 32, 64])
    errors = [np.abs(at(n) - exact).max() for n in counts]
    slope = np.polyfit(np.log(counts), np.log(errors), 1)[0]
    assert slope == pytest.approx(-2, abs=0.1)
    pulse = Waveform(1e-4, np.full(70, 90.0 + 40j))
    along = bloch(pulse, q, record="all")
    assert along.shape == (1, 70, 3)
    np.testing.assert_allclose(along[:, -1], bloch(pulse, q), atol=1e-12)


def test_dwell_times_one_by_one_are_as_one():
    b1 = np.full(50, 300.0 + 0j)
    q = mr.Tissue(t1_s=0.1, t2_s=0.01, b0_hz=40.0)
    np.testing.assert_allclose(
        bloch(Waveform(np.full(50, 2e-5), b1), q), bloch(Waveform(2e-5, b1), q), atol=1e-12
    )


@pytest.mark.core
def test_matrix_exponentials():
    """exp of the 4 x 4 matrix of the whole equation, relaxation too, sample by sample."""
    rng = np.random.default_rng(5)
    n, voxels = 70, 3
    dt, b1 = rng.uniform(1e-6, 4e-6, n), (rng.normal(size=n) + 1j * rng.normal(size=n)) * 2000
    gradient, place = rng.normal(size=(n, 3)) * 300, rng.normal(size=(voxels, 3)) * 5
    t1, t2, b0, scale = np.array([0.3, 1.0, 2.0]), 0.03, np.array([-50.0, 0.0, 90.0]), 0.9
    expected = []
    for v in range(voxels):
        state = np.array([0.0, 0.0, 1.0, 1.0])
        for i in range(n):
            x, y = 2 * np.pi * scale * b1[i].real, 2 * np.pi * scale * b1[i].imag
            z = 2 * np.pi * (b0[v] + gradient[i] @ place[v])
            rates = [
                [-1 / t2, z, -y, 0], [-z, -1 / t2, x, 0], [y, -x, -1 / t1[v], 1 / t1[v]], [0] * 4
            ]  # fmt: skip
            state = expm(np.array(rates) * dt[i]) @ state
        expected.append(state[:3])
    q = mr.Tissue(t1_s=t1, t2_s=t2, b0_hz=b0, b1=scale)
    np.testing.assert_allclose(bloch(Waveform(dt, b1, gradient), q, place), expected, atol=3e-6)


@pytest.mark.core
def test_samples_much_longer_than_t2():
    """exp(dt / 2 T2) would overflow in float32."""
    q = mr.Tissue(t1_s=1.0, t2_s=1e-3)
    m = bloch(Waveform(0.2, np.zeros(2, complex)), q, start=np.array([[1.0, 0.0, 0.0]]))
    np.testing.assert_allclose(m, [[0, 0, 1 - np.exp(-0.4)]], atol=1e-6)


@pytest.mark.core
def test_precisions_may_differ():
    single = {"t1_s": np.float32(1.0), "t2_s": np.float32(0.1), "m0": np.ones(2, np.float32)}
    q = mr.Tissue(**single, b0_hz=np.array([3.0, -3.0]))
    double = mr.Tissue(t1_s=1.0, t2_s=np.float64(np.float32(0.1)), b0_hz=np.array([3.0, -3.0]))
    pulse = Waveform(1e-4, np.full(5, 100 + 20j, np.complex64), np.ones((5, 3), np.float32))
    place = np.arange(6.0).reshape(2, 3)
    np.testing.assert_allclose(bloch(pulse, q, place), bloch(pulse, double, place), atol=1e-6)


def test_length_is_kept_and_a_pulse_undone():
    rng = np.random.default_rng(2)
    b1 = (rng.normal(size=100) + 1j * rng.normal(size=100)) * 500
    q = mr.Tissue(**LASTING, m0=np.ones(3))
    there = Waveform(1e-9, b1 * 1e4)
    m = bloch(there, q)
    np.testing.assert_allclose(np.linalg.norm(m, axis=1), 1, atol=1e-7)
    back = bloch(Waveform(1e-9, -b1[::-1] * 1e4), q, start=m)
    np.testing.assert_allclose(back, [[0, 0, 1]] * 3, atol=1e-6)


def test_derivatives_in_everything_also_at_rest():
    position = np.array([[0.0, 1.0, 2.0], [1.0, -1.0, 0.5]])

    def end(p):
        waveform = Waveform(p["dt"], p["re"] + 1j * p["im"], p["gradient"])
        q = mr.Tissue(t1_s=p["t1"], t2_s=p["t2"], b0_hz=p["b0"], b1=p["b1"])
        return bloch(waveform, q, p["position"])

    rng = np.random.default_rng(3)
    p = {
        "dt": 1e-4, "re": rng.normal(size=40) * 100, "im": rng.normal(size=40) * 100,
        "gradient": rng.normal(size=(40, 3)) * 10, "t1": np.array([0.5, 1.0]), "t2": 0.05,
        "b0": 5.0, "b1": 1.0, "position": position,
    }  # fmt: skip
    check_gradient(end, jax.tree.map(jnp.asarray, p), directions=4)
    still = {**p, "re": 0 * p["re"], "im": 0 * p["im"], "gradient": 0 * p["gradient"], "b0": 0.0}
    scale = {**{k: jnp.ones_like(jnp.asarray(v)) for k, v in p.items()}, "dt": 1e-5, "t2": 0.01}
    check_gradient(end, jax.tree.map(jnp.asarray, still), scale=scale, directions=4)


@pytest.mark.parametrize(
    ("call", "found"),
    [
        (lambda: Waveform(1e-5, np.zeros(4, complex), jnp.zeros((3, 3))), "as many samples"),
        (lambda: Waveform(1e-5, np.zeros(0, complex)), "at least one"),
        (lambda: Waveform(-1e-5, np.zeros(4, complex)), "dt_s"),
        (lambda: Waveform(1e-5, np.array([np.nan + 0j])), "NaN"),
        (lambda: bloch(Waveform(1e-5, np.zeros((4, 2), complex)), mr.Tissue(**LASTING)), "channel"),
    ],
)
def test_one_clear_error_each(call, found):
    with pytest.raises(InputError, match=found):
        call()
