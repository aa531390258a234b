"""Spins that move, in both engines of isochromats: phases in closed form, order, derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

import mrphys as mr
from mrphys import SpinCloud, playback
from mrphys.bloch import bloch
from mrphys.errors import InputError
from mrphys.events import Gradient, Pulse, Readout, Scan
from mrphys.motion import Flow, Keyframes, Rigid, random_walk
from mrphys.scan import simulate_scan
from mrphys.waveform import Waveform
from tests.laws import check_gradient, order_of_convergence

LASTING = {"t1_s": 20.0, "t2_s": 20.0}
ACROSS = np.array([[1.0, 0.0, 0.0]])
PLACE = np.array([[3.0, -2.0, 1.0], [-5.0, 4.0, 0.5], [0.0, 1.0, -2.0]])


def scan(*axes, samples=8, start_s=3e-3, end_s=8e-3) -> Scan:
    """A hard pulse, gradients (times in ms, Hz/mm) along x, y, z, and a readout."""
    nothing = Gradient(np.zeros(0), np.zeros(0))
    given = [Gradient(1e-3 * np.array(t), np.array(g, float)) for t, g in axes]
    pulse = Pulse(0.0, np.array([0.0, 1e-5]), np.array([25e3 + 0j]), 5e-6, use="excitation")
    readout = Readout(start_s, samples, (end_s - start_s) / samples)
    x, y, z = given + [nothing] * (3 - len(given))
    return Scan((pulse,), (x, y, z), (readout,), end_s + 1e-3)


BIPOLAR = ([0.5, 0.7, 1.3, 1.7, 2.3, 2.5], [0, 200, 200, -200, -200, 0])
READ = ([0.5, 0.7, 1.3, 1.5, 3.0, 3.1, 8.0, 8.1], [0, -300, -300, 0, 0, 80, 80, 0])


def test_velocity_encoding():
    """A bipolar gradient gives the phase 2π M1 v, by flow of each spin, in both engines."""
    n, dt = 400, 1e-5
    gradient = np.zeros((n, 3))
    gradient[50:150, 1], gradient[150:250, 1] = 120.0, -120.0
    count = 300  # more than a chunk
    velocity = np.zeros((count, 3))
    velocity[:, 1] = np.linspace(-400, 400, count)
    q = mr.Tissue(**LASTING, m0=np.ones(count))
    place = np.random.default_rng(0).normal(size=(count, 3))
    m = bloch(
        Waveform(dt, np.zeros(n, complex), gradient),
        q, place, motion=Flow(velocity), start=np.tile(ACROSS, (count, 1)),
    )  # fmt: skip
    moment = dt * np.sum(gradient[:, 1] * (np.arange(n) + 0.5) * dt)
    found = np.asarray(m[:, 0] + 1j * m[:, 1]) * np.exp(4e-3 / 20)
    np.testing.assert_allclose(found, np.exp(-2j * np.pi * moment * velocity[:, 1]), atol=1e-9)

    velocity, acceleration = np.array([0.0, 300.0, 0.0]), np.array([0.0, 4e4, 0.0])
    sequence = scan(([0.0, 0.1], [0, 0]), BIPOLAR, samples=2)
    fine = (np.arange(250000) + 0.5) * 1e-8
    played = 1e-3 * np.array(BIPOLAR[0])
    g = np.interp(fine, played, BIPOLAR[1])
    phase = 1e-8 * np.sum(g * (300.0 * fine + 4e4 * fine**2 / 2))
    still = simulate_scan(sequence, SpinCloud(PLACE[:1], mr.Tissue(**LASTING)))
    flowing = SpinCloud(PLACE[:1], mr.Tissue(**LASTING), Flow(velocity, acceleration))
    turned = simulate_scan(sequence, flowing) / still
    np.testing.assert_allclose(turned, np.exp(-2j * np.pi * phase), atol=1e-6)


def test_a_body_shifted_and_turned_is_the_same_elsewhere():
    sequence = scan(READ, ([0.5, 2.5], [60, 60]))
    q = mr.Tissue(t1_s=1.0, t2_s=0.05, b0_hz=np.array([20.0, -10.0, 0.0]))
    angle, shift = np.array([0.1, -0.2, 0.7]), np.array([2.0, -1.0, 0.5])
    pose = Keyframes(np.array([0.0]), angle[None], shift[None])
    moved = simulate_scan(sequence, SpinCloud(PLACE, q, Rigid(pose, np.array([1.0, 1.0, 0.0]))))
    there = Rigid(pose, np.array([1.0, 1.0, 0.0]))(jnp.asarray(PLACE), jnp.asarray(0.0))
    turned = Rotation.from_rotvec(angle).apply(PLACE - np.array([1.0, 1.0, 0.0]))
    turned = turned + np.array([1.0, 1.0, 0.0]) + shift
    np.testing.assert_allclose(there, turned, atol=1e-12)
    still = simulate_scan(sequence, SpinCloud(there, q))
    np.testing.assert_allclose(moved, still, atol=1e-6)
    pose = Keyframes(np.array([0.0]), np.zeros((1, 3)), shift[None])
    shifted = simulate_scan(sequence, SpinCloud(PLACE, q, Rigid(pose)))
    ramp = np.exp(-2j * np.pi * sequence.moment(sequence.sample_times_s) @ shift)
    at_rest = simulate_scan(sequence, SpinCloud(PLACE, q))
    np.testing.assert_allclose(shifted[0], ramp * at_rest[0], atol=1e-6)


def test_fourth_order_in_the_pieces(monkeypatch):
    knots = ([1.0, 2.6, 5.8, 9.0], [0, 80, 80, -20])
    sequence = scan(knots, samples=1, start_s=8.5e-3, end_s=9.5e-3)
    shaking = SpinCloud(
        PLACE,
        mr.Tissue(**LASTING),
        lambda where, t: where + jnp.sin(2000 * t) * jnp.ones((1, 3)),
    )

    def at(longest_s):
        monkeypatch.setattr(playback, "LONGEST_MOVE_S", longest_s)
        return np.asarray(simulate_scan(sequence, shaking))

    exact, steps = at(2.5e-5), np.array([8e-4, 4e-4, 2e-4])
    errors = [np.abs(at(step) - exact).max() for step in steps]
    assert order_of_convergence(errors, steps) == pytest.approx(4, abs=0.5)


def test_the_bloch_engine_agrees():
    """A spin that moves through a pulse, gradients and a readout."""
    sequence = scan(READ, samples=4)
    q = mr.Tissue(t1_s=0.5, t2_s=0.03, b0_hz=30.0)
    flow = Flow(np.array([500.0, 0.0, 0.0]), np.array([2e4, 0.0, 0.0]))
    y = simulate_scan(sequence, SpinCloud(PLACE[:1], q, flow))
    n, dt = 8000, 1e-6
    gradient = np.zeros((n, 3))
    gradient[:, 0] = np.diff(sequence.moment(np.arange(n + 1) * dt)[:, 0]) / dt
    b1 = np.where(np.arange(n) < 10, 25e3 + 0j, 0)
    m = bloch(Waveform(dt, b1, gradient), q, PLACE[:1], motion=flow, record="all")
    ends = np.rint(sequence.sample_times_s / dt).astype(int) - 1
    np.testing.assert_allclose(y[0], m[0, ends, 0] + 1j * m[0, ends, 1], atol=2e-5)


def test_a_random_walk_attenuates_as_its_diffusion():
    n, spins, dt = 40, 4000, 1e-3
    g = np.where(np.arange(n) < n // 2, 1500.0, -1500.0)
    pulse = Waveform(dt, np.zeros(n, complex), np.stack([0 * g, g, 0 * g], axis=1))
    k = np.cumsum(g) * dt
    adc = 1.5e-3
    q = mr.Tissue(**LASTING, adc_mm2_per_s=np.full(spins, adc))
    place = np.random.default_rng(0).normal(size=(spins, 3))
    walk = random_walk(pulse, q, spins, jax.random.key(0))
    m = np.asarray(bloch(pulse, q, place, motion=walk, start=np.tile(ACROSS, (spins, 1))))
    decay = np.exp(-((2 * np.pi) ** 2) * adc * np.sum(k**2) * dt)
    assert 0.2 < decay < 0.8
    assert abs((m[:, 0] + 1j * m[:, 1]).mean() - decay * np.exp(-0.04 / 20)) < 4 / np.sqrt(spins)

    def one(adc):
        walk = random_walk(pulse, mr.Tissue(**LASTING, adc_mm2_per_s=adc), 3, jax.random.key(0))
        start = np.tile(ACROSS, (3, 1))
        return bloch(
            pulse, mr.Tissue(**LASTING, m0=np.ones(3)), place[:3], motion=walk, start=start
        )

    check_gradient(one, jnp.asarray(adc), finite_at=[0.0])


def test_derivatives_in_motion_also_at_rest():
    sequence = scan(READ, samples=2)
    time = np.array([0.0, 4e-3, 9e-3])

    def raw(p):
        pose = Keyframes(p["time"], p["angle"], p["shift"])
        flow, body = Flow(p["velocity"], p["acceleration"]), Rigid(pose, p["centre"])
        both = SpinCloud(p["where"], mr.Tissue(t1_s=1.0, t2_s=0.05, b0_hz=p["b0"]),
                         lambda r, t: body(flow(r, t), t))  # fmt: skip
        return simulate_scan(sequence, both)

    p = {
        "time": time, "angle": np.zeros((3, 3)), "shift": np.zeros((3, 3)),
        "velocity": np.zeros(3), "acceleration": np.zeros(3), "centre": np.zeros(3),
        "where": PLACE[:2] / 4, "b0": 20.0,
    }  # fmt: skip
    sizes = {"time": 1e-3, "angle": 0.1, "velocity": 50.0, "acceleration": 1e4, "b0": 20.0}
    scale = {name: 0 * np.asarray(v) + sizes.get(name, 0.3) for name, v in p.items()}
    check_gradient(raw, p, scale=scale, rtol=1e-5, atol=1e-7, directions=3)


def test_bad_motion():
    with pytest.raises(InputError, match="increasing"):
        Keyframes(np.array([1.0, 0.0]), np.zeros((2, 3)), np.zeros((2, 3)))
    with pytest.raises(InputError, match="where each voxel starts"):
        waveform = Waveform(1e-3, np.zeros(2, complex))
        bloch(waveform, mr.Tissue(**LASTING), motion=Flow(np.zeros(3)))
