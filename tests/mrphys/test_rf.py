"""Pulses: what they do to magnetisation, by the Bloch engine."""

import numpy as np
import pytest

import mrphys as mr
from mrphys import rf
from mrphys.bloch import Waveform, bloch
from mrphys.errors import InputError

LASTING = {"t1_s": 20.0, "t2_s": 20.0}


def after(pulse: rf.Pulse, **tissue) -> np.ndarray:
    return np.asarray(bloch(Waveform(pulse.dt_s, pulse.b1_hz), mr.Tissue(**LASTING, **tissue)))


@pytest.mark.parametrize("build", [rf.hard, rf.sinc, rf.gauss])
def test_flip_on_resonance(build):
    pulse = build(1.2, 1e-3)
    assert float(pulse.flip_rad) == pytest.approx(1.2)
    m = after(pulse)[0]
    np.testing.assert_allclose(m, [0, np.sin(1.2), np.cos(1.2)], atol=2e-4)
    assert float(pulse.energy_hz2_s) >= float(rf.hard(1.2, 1e-3).energy_hz2_s) * (1 - 1e-6)


def test_small_tip_profile_is_the_fourier_transform():
    pulse = rf.sinc(0.02, 2e-3, time_bandwidth=6)
    offsets = np.linspace(-3000, 3000, 41)
    m = after(pulse, b0_hz=offsets)
    t = (np.arange(256) + 0.5) * float(pulse.dt_s)
    b1 = np.asarray(pulse.b1_hz)
    spectrum = np.exp(2j * np.pi * offsets[:, None] * t) @ b1 * float(pulse.dt_s) * 2 * np.pi
    np.testing.assert_allclose(np.hypot(m[:, 0], m[:, 1]), np.abs(spectrum), atol=1e-5)


def test_gaussian_width():
    pulse = rf.gauss(0.02, 4e-3, time_bandwidth=4)
    m = after(pulse, b0_hz=np.array([0.0, 500.0, -500.0]))
    size = np.hypot(m[:, 0], m[:, 1])
    np.testing.assert_allclose(size[1:] / size[0], 0.5, atol=0.05)


@pytest.mark.parametrize(
    ("kind", "inside", "outside"), [("excitation", 1.0, 0.0), ("inversion", -1.0, 1.0)]
)
def test_slr_keeps_to_its_ripples(kind, inside, outside):
    time_bandwidth, duration = 8.0, 4e-3
    pulse = rf.slr(kind, duration, time_bandwidth)
    half = time_bandwidth / duration / 2
    offsets = np.concatenate([np.linspace(-0.6, 0.6, 31), [-2.5, -1.8, 1.8, 2.5]]) * half
    m = after(pulse, b0_hz=offsets)
    seen = m[:, 2] if kind == "inversion" else np.hypot(m[:, 0], m[:, 1])
    np.testing.assert_allclose(seen[:31], inside, atol=0.03)
    np.testing.assert_allclose(seen[31:], outside, atol=0.03)


def test_hyperbolic_secant_inverts_whatever_b1():
    pulse = rf.hyperbolic_secant(10e-3, 1200.0)
    m = after(pulse, b1=np.linspace(0.7, 1.5, 9))
    assert m[:, 2].max() < -0.97
    m = after(pulse, b0_hz=np.array([-500.0, 500.0, 4000.0]))
    assert m[:2, 2].max() < -0.97
    assert m[2, 2] > 0.97


@pytest.mark.parametrize("flip", [np.pi / 6, np.pi / 2, np.pi])
def test_bir4_turns_by_its_angle_whatever_b1(flip):
    pulse = rf.bir4(flip, 8e-3, 5000.0)
    m = after(pulse, b1=np.linspace(0.6, 1.4, 9))
    np.testing.assert_allclose(m[:, 2], np.cos(flip), atol=0.01)
    np.testing.assert_allclose(m[:, 0], 0, atol=0.05)


def test_slice_profile_has_the_slice_thickness():
    thickness, duration, time_bandwidth = 5.0, 3e-3, 8.0
    gradient = time_bandwidth / duration / thickness
    pulse = rf.slr("excitation", duration, time_bandwidth)
    z = np.linspace(-6, 6, 241)
    m = np.asarray(rf.slice_profile(pulse, gradient, z))
    size = np.hypot(m[:, 0], m[:, 1])
    width = np.sum(size > 0.5) * (z[1] - z[0])
    assert width == pytest.approx(thickness, rel=0.06)


def test_bad_pulses():
    with pytest.raises(InputError, match="one of small_tip"):
        rf.slr("spin", 1e-3)
    with pytest.raises(InputError, match="time-bandwidth"):
        rf.slr("excitation", 1e-3, time_bandwidth=0.5)
    with pytest.warns(UserWarning, match="degrees"):
        rf.sinc(90.0, 1e-3)
