"""Scans of pools: chemical shift, exchange and saturation, also of spins that move."""

import numpy as np
import pytest
from scipy.linalg import expm

import mrphys as mr
from mrphys import SpinCloud
from mrphys.bloch import bloch
from mrphys.events import Gradient, Pulse, Readout, Scan
from mrphys.exchange import Pool, SemiSolid
from mrphys.motion import Flow
from mrphys.scan import simulate_scan
from mrphys.waveform import Waveform
from tests.laws import check_gradient
from tests.mrphys.test_motion import READ, scan

FAT = Pool(fraction=0.6, exchange_rate_hz=0.0, shift_hz=-440.0, t1_s=0.3, t2_s=0.05)
AGENT = Pool(fraction=0.2, exchange_rate_hz=60.0, shift_hz=150.0, t1_s=0.8, t2_s=0.03)
BOUND = SemiSolid(fraction=0.12, exchange_rate_hz=30.0, t1_s=0.9, lineshape="gaussian")


def echo_planar(lines: int, points: int, dwell_s: float, field_mm: float) -> Scan:
    """A hard pulse, then lines of alternating sign with blips between: k = -n/2 to n/2 - 1."""
    unit, line_s = 1 / field_mm, points * dwell_s
    g, start, ramp = unit / dwell_s, 1.2e-3, 1e-6
    x, y = [(0.0, 0.0)], [(0.0, 0.0)]

    def lobe(axis, begin, end, size):
        axis += [(begin, 0.0), (begin + ramp, size), (end - ramp, size), (end, 0.0)]

    lobe(x, 1e-4, 1.1e-3, -(points / 2 + 0.5) * unit / (1e-3 - ramp))
    lobe(y, 1e-4, 1.1e-3, -(lines / 2) * unit / (1e-3 - ramp))
    readouts = []
    for line in range(lines):
        begin = start + line * (line_s + 1e-4)
        readouts.append(Readout(begin, points, dwell_s))
        lobe(x, begin - 2e-6, begin + line_s + 2e-6, g * (-1) ** line)
        lobe(y, begin + line_s + 1e-5, begin + line_s + 9e-5, unit / (8e-5 - ramp))
    nothing = Gradient(np.zeros(0), np.zeros(0))
    axes = [Gradient(*np.array(axis).T) for axis in (x, y)]
    pulse = Pulse(0.0, np.array([0.0, 1e-5]), np.array([25e3 + 0j]), 5e-6, use="excitation")
    return Scan((pulse,), (*axes, nothing), tuple(readouts), begin + line_s + 1e-3)


def test_fat_is_displaced_along_the_blips_and_the_sum_of_both_scanned_apart():
    """By shift x field of view x time between lines."""
    lines, field = 16, 64.0
    sequence = echo_planar(lines, 16, 2e-5, field)
    position = np.array([[4.0, -8.0, 0.0]])
    m0 = np.array([1.0])
    y = simulate_scan(sequence, SpinCloud(position, mr.Tissue(1.0, 0.08, m0, pools=(FAT,))))
    water = simulate_scan(sequence, SpinCloud(position, mr.Tissue(1.0, 0.08, m0)))
    alone = mr.Tissue(0.3, 0.05, 0.6 * m0, b0_hz=-440.0)
    fat = simulate_scan(sequence, SpinCloud(position, alone))
    np.testing.assert_allclose(y, water + fat, atol=2e-5)

    def peak(y):
        k = np.array(y)[0].reshape(lines, 16)
        k[1::2] = k[1::2, ::-1]
        image = np.abs(np.fft.fftshift(np.fft.ifft2(np.fft.ifftshift(k))))
        return np.array(np.unravel_index(image.argmax(), image.shape)) - 8

    spacing_s = 16 * 2e-5 + 1e-4
    shift = -440.0 * spacing_s * lines  # voxels of field / lines
    apart = peak(y - water) - peak(water)
    np.testing.assert_array_equal(peak(water), [-2, 1])
    assert (apart[0] - shift + 8) % 16 - 8 == pytest.approx(0, abs=0.6)
    assert apart[1] == pytest.approx(-440.0 * 2e-5 * 16, abs=0.6)


@pytest.mark.core
def test_exchange_between_pulses(rtol):
    """Both pools after an excitation, by the exponential of their rates."""
    sequence = scan(READ, samples=4)
    q = mr.Tissue(t1_s=1.1, t2_s=0.07, b0_hz=20.0, pools=(AGENT,))
    y = simulate_scan(sequence, SpinCloud(np.zeros((1, 3)), q))[0]
    rates = np.array(
        [[-1 / 0.07 - 12, 60.0], [12.0, -1 / 0.03 - 60 - 2j * np.pi * 150]]
    ) - 2j * np.pi * 20 * np.eye(2)
    t = sequence.sample_times_s - 1e-5 * (1 - 2 / np.pi)  # a spin turns with the field by 2/π
    expected = [1j * (expm(rates * now) @ [1.0, 0.2]).sum() for now in t]
    np.testing.assert_allclose(y, expected, atol=rtol(4e-5, 5e-5))


def test_saturation_off_resonance_is_that_of_the_bloch_engine():
    """A long pulse, spins at rest and slowly moving, then a readout."""
    angles = (0.3, -0.9)
    edges = (np.array([0.0, 0.03]), np.array([0.0, 1e-5]))
    long = Pulse(0.0, edges[0], np.array([120.0 + 0j]), 0.015, angles[0], frequency_hz=600.0)
    short = Pulse(0.05, edges[1], np.array([25e3 + 0j]), 5e-6, angles[1], use="excitation")
    nothing = Gradient(np.zeros(0), np.zeros(0))
    ramp = Gradient(np.array([0.031, 0.032, 0.048, 0.049]), np.array([0.0, 40.0, 40.0, 0.0]))
    sequence = Scan((long, short), (ramp, nothing, nothing), (Readout(0.051, 2, 1e-3),), 0.06)
    place = np.array([[2.0, 0, 0]])
    q = mr.Tissue(t1_s=1.1, t2_s=0.07, b0_hz=np.array([15.0]), pools=(AGENT,), semisolid=BOUND)
    dt = np.array([0.03, 1e-3, 1e-3, 0.016, 1e-3, 1e-3, 1e-5, 1.5e-3 - 1e-5, 1e-3])
    gradient = np.zeros((9, 3))
    gradient[:, 0] = [0, 0, 20.0, 40.0, 20.0, 0, 0, 0, 0]
    b1 = np.zeros(9, complex)
    b1[[0, 6]] = np.array([120, 25e3]) * np.exp(1j * np.array(angles))
    first = Waveform(dt[:1], b1[:1], gradient[:1], frequency_hz=600.0)
    m = bloch(first, q, place, pools=True)
    rest = Waveform(dt[1:], b1[1:], gradient[1:])
    m = bloch(rest, q, place, start=m, record="all")[0, -2:]
    for motion in (None, Flow(np.zeros(3))):
        y = simulate_scan(sequence, SpinCloud(place, q, motion))[0]
        np.testing.assert_allclose(y, m[:, 0] + 1j * m[:, 1], atol=1e-9)


def test_derivatives_in_pools():
    sequence = scan(READ, samples=2)

    def raw(p):
        agent = Pool(p["fraction"], p["rate"], p["shift"], p["pool_t1"], p["pool_t2"])
        bound = SemiSolid(p["bound"], p["bound_rate"], lineshape="gaussian")
        q = mr.Tissue(t1_s=p["t1"], t2_s=p["t2"], b1=p["b1"], pools=(agent,), semisolid=bound)
        return simulate_scan(sequence, SpinCloud(p["where"], q))

    p = {
        "fraction": 0.2, "rate": np.array([40.0, 1e-3]), "shift": 120.0, "pool_t1": 0.8,
        "pool_t2": 0.03, "bound": 0.1, "bound_rate": 20.0, "t1": 1.0, "t2": 0.06,
        "b1": np.array([0.9, 0.0]), "where": np.array([[0.3, 0.2, 0.0], [0.0, 0.0, 0.0]]),
    }  # fmt: skip
    sizes = {"b1": 1.0, "rate": 1e-3, "where": 0.3}
    scale = {name: 0 * np.asarray(v) + sizes.get(name, np.abs(v)) for name, v in p.items()}
    check_gradient(raw, p, scale=scale, rtol=1e-5, directions=3)
