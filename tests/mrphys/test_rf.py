"""Pulses: what they do to magnetisation, by the Bloch engine."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import rf
from mrphys.bloch import bloch
from mrphys.errors import InputError
from mrphys.waveform import Waveform
from tests.laws import check_gradient

LASTING = {"t1_s": 20.0, "t2_s": 20.0}


def after(pulse: rf.Pulse, **tissue) -> np.ndarray:
    return np.asarray(bloch(Waveform(pulse.dt_s, pulse.b1_hz), mr.Tissue(**LASTING, **tissue)))


def exactly_after(pulse: rf.Pulse, *, start=None, **tissue) -> np.ndarray:
    """Without relaxation."""
    size = max(np.size(value) for value in (1.0, *tissue.values()))
    q = mr.Tissue(t1_s=np.ones(size), t2_s=1.0, **tissue)
    q = eqx.tree_at(lambda q: (q.t1_s, q.t2_s), q, (jnp.full(size, jnp.inf),) * 2)
    return np.asarray(bloch(Waveform(pulse.dt_s, pulse.b1_hz), q, start=start))


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


@pytest.mark.parametrize("ripples", [(0.01, 0.01), (0.002, 0.01)])
@pytest.mark.parametrize(
    ("kind", "edge"),
    [("small_tip", 0.35), ("excitation", 0.26), ("inversion", 0.35), ("refocusing", 0.31)],
)
def test_slr_keeps_to_its_ripples(kind, edge, ripples):
    time_bandwidth, duration = 8.0, 4e-3
    pulse = rf.slr(kind, duration, time_bandwidth, 256, *ripples)
    offsets = np.linspace(-3, 3, 1201)
    m = exactly_after(pulse, b0_hz=offsets * time_bandwidth / duration / 2)
    seen = {
        "small_tip": np.hypot(m[:, 0], m[:, 1]) / np.sin(0.1),
        "excitation": np.hypot(m[:, 0], m[:, 1]),
        "inversion": 1 - m[:, 2],
        "refocusing": (1 - m[:, 2]) / 2,
    }[kind]
    height = 2.0 if kind == "inversion" else 1.0
    assert np.abs(seen[np.abs(offsets) < 1 - edge] - height).max() < 1.1 * ripples[0]
    assert seen[np.abs(offsets) > 1 + edge].max() < 1.1 * ripples[1]


def test_slr_turns_about_x_by_its_flip():
    for flip in (0.3, 1.0, np.pi / 2):
        m = exactly_after(rf.slr("excitation", 3e-3, 6.0, flip_rad=flip))[0]
        np.testing.assert_allclose(m, [0, np.sin(flip), np.cos(flip)], atol=0.15)
        assert np.hypot(m[0], m[1]) == pytest.approx(np.sin(flip), rel=0.011)
        assert abs(m[0]) < 1e-9


def test_hyperbolic_secant_inverts_whatever_b1():
    pulse = rf.hyperbolic_secant(10e-3, 1200.0)
    m = after(pulse, b1=np.linspace(0.7, 1.5, 9))
    assert m[:, 2].max() < -0.97
    m = after(pulse, b0_hz=np.array([-500.0, 500.0, 4000.0]))
    assert m[:2, 2].max() < -0.97
    assert m[2, 2] > 0.97


@pytest.mark.parametrize("flip", [np.pi / 6, np.pi / 2, np.pi])
def test_bir4_turns_any_state_about_x_whatever_b1(flip):
    pulse = rf.bir4(flip, 8e-3, 5000.0)
    b1 = np.linspace(0.7, 1.5, 7)
    c, s = np.cos(flip), np.sin(flip)
    for start, end in (((1, 0, 0), (1, 0, 0)), ((0, 1, 0), (0, c, -s)), ((0, 0, 1), (0, s, c))):
        m = exactly_after(pulse, b1=b1, start=np.array([start] * 7, float))
        np.testing.assert_allclose(m, [end] * 7, atol=0.1)
    np.testing.assert_allclose(exactly_after(pulse, b1=b1)[:, 2], c, atol=0.003)


def test_adiabatic_passages_whatever_b1():
    b1 = np.linspace(0.7, 1.5, 9)
    assert exactly_after(rf.adiabatic_passage(8e-3, 1000.0), b1=b1)[:, 2].max() < -0.999
    m = exactly_after(rf.adiabatic_passage(8e-3, 1000.0, half=True), b1=b1)
    assert m[:, 1].min() > 0.998


def test_thresholds_of_adiabatic_pulses():
    """The lowest B1 as documented, in units of √(sweep / duration), and failure below."""
    duration, sweep = 16e-3, 15e3
    unit = np.sqrt(sweep / duration)

    def played(pulse, low, **given):
        b1 = np.append(0.6, np.geomspace(1.0, 10 / low, 15)) * low * unit / 4000
        return exactly_after(pulse, b1=b1, **given)

    left = (1 + played(rf.adiabatic_passage(duration, 4000.0, sweep, samples=2048), 0.27)[:, 2]) / 2
    assert left[1:].max() < 0.01 and left[0] > 0.05
    half = rf.adiabatic_passage(duration, 4000.0, sweep, half=True, samples=2048)
    left = 1 - played(half, 0.32)[:, 1]
    assert left[1:].max() < 0.01 and left[0] > 0.02
    pulse = rf.bir4(np.pi / 2, duration, 4000.0, sweep, samples=4096)
    assert np.abs(played(pulse, 0.34)[1:, 2]).max() < 0.02
    for start, end in (((1, 0, 0), (1, 0, 0)), ((0, 1, 0), (0, 0, -1)), ((0, 0, 1), (0, 1, 0))):
        m = played(pulse, 1.0, start=np.array([start] * 16, float))
        assert np.linalg.norm(m - np.array(end), axis=1)[1:].max() < 0.1
    unit = np.sqrt(4.9) * 5.3 / np.pi / duration
    left = (1 + played(rf.hyperbolic_secant(duration, 4000.0, samples=2048), 1.65)[:, 2]) / 2
    assert left[1:].max() < 0.01 and left[0] > 0.1


def test_derivatives_of_shapes_also_at_zero_flip():
    def ends(p):
        pulses = (
            rf.hard(p["flip"], p["duration"], 4),
            rf.sinc(p["flip"], p["duration"], samples=16),
            rf.gauss(p["flip"], p["duration"], samples=16),
            rf.hyperbolic_secant(p["duration"], p["peak"], samples=32),
            rf.adiabatic_passage(p["duration"], p["peak"], 4e3, samples=32),
            rf.bir4(p["flip"], p["duration"], p["peak"], 4e3, samples=32),
        )
        z = jnp.array([0.0, 1.5])
        return [(rf.slice_profile(pulse, p["gradient"], z), pulse.energy_hz2_s) for pulse in pulses]

    p = {"duration": 1e-3, "peak": 800.0, "gradient": 200.0}
    check_gradient(ends, {**p, "flip": 1.2})
    check_gradient(ends, {**p, "flip": 0.0}, atol=1e-8)


def test_slice_profile_of_a_tissue():
    pulse = rf.sinc(1.0, 2e-3)
    q = mr.Tissue(t1_s=0.5, t2_s=0.02, b1=np.array([1.0, 0.8]), b0_hz=40.0)
    z = np.array([-1.0, 2.0])
    shifted = mr.Tissue(t1_s=0.5, t2_s=0.02, b1=np.array([1.0, 0.8]), b0_hz=40.0 + 300.0 * z)
    expected = bloch(Waveform(pulse.dt_s, pulse.b1_hz), shifted)
    np.testing.assert_allclose(rf.slice_profile(pulse, 300.0, z, q=q), expected, atol=1e-9)


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
    with pytest.raises(InputError, match="multiple of 4"):
        rf.bir4(1.0, 8e-3, 1000.0, samples=1023)
    with pytest.raises(InputError, match="too few samples"):
        rf.adiabatic_passage(8e-3, 1000.0, samples=64)
    with pytest.raises(InputError, match="flip_rad of inversion"):
        rf.slr("inversion", 1e-3, flip_rad=1.0)
    with pytest.raises(InputError, match="per cent"):
        rf.slr("excitation", 1e-3, pass_ripple=1.0)


def test_echoes_of_selective_pulses_are_the_integral_over_their_profiles():
    """A train of Shinnar-Le Roux pulses under their gradients, its crushers along x, sample by
    sample; and phase graphs of the flip angles that the pulses have along z."""
    duration, spacing, thickness, echoes = 1e-3, 6e-3, 5.0, 3
    excite = rf.slr("excitation", duration, 6.0, samples=64)
    refocus = rf.slr("refocusing", duration, 6.0, samples=64)
    gradient = 6.0 / duration / thickness
    z = np.linspace(-7, 7, 57)
    profiles = [
        rf.flip_profile(pulse, gradient, z, thickness, flip)
        for pulse, flip in ((refocus, np.pi), (excite, np.pi / 2))
    ]
    near = np.asarray(rf.slice_profile(excite, gradient, np.array([-0.1, 0.1])))
    cycles_per_mm = np.angle(np.divide(*(near[:, 0] + 1j * near[:, 1]))) / (2 * np.pi * 0.2)
    # The edges of the slice end turned from its middle, 1.7 % of the echoes.
    m = np.asarray(rf.slice_profile(excite, gradient, z))
    turned = np.angle((m[:, 0] + 1j * m[:, 1]) * np.exp(2j * np.pi * cycles_per_mm * z))
    (flips, weights), excited = profiles[0], profiles[1]
    in_phase = flips, weights * np.cos(turned - turned[len(z) // 2])
    q = mr.Tissue(t1_s=19.0, t2_s=19.0)
    theta = mr.sequence.spin_echo_train(
        np.full(echoes, np.pi), spacing, profile=in_phase, excitation_profile=excited
    )
    expected = mr.simulate(theta, q)

    dt = duration / 64
    still = round((spacing / 2 - duration) / dt)  # between pulses
    along_x, _, along_z = np.eye(3)
    selecting, crushing = gradient * along_z, along_x / (still * dt)
    rewinding = -cycles_per_mm / (still * dt) * along_z
    silence = np.zeros(still, complex)
    b1 = [excite.b1_hz, silence]
    played = [np.tile(selecting, (64, 1)), np.tile(rewinding + crushing, (still, 1))]
    for _ in range(echoes):
        b1 += [1j * np.asarray(refocus.b1_hz), silence, np.zeros(64, complex), silence]
        played += [np.tile(selecting, (64, 1)), np.tile(crushing, (still, 1))]
        played += [np.zeros((64, 3)), np.tile(crushing, (still, 1))]
    waveform = Waveform(dt, np.concatenate(b1), np.concatenate(played))
    x = np.arange(8) / 8  # orders up to 6 are told apart
    places = np.stack([v.ravel() for v in np.meshgrid(x, [0.0], z, indexing="ij")], axis=1)
    row = jax.tree.map(lambda v: jnp.broadcast_to(v, len(places)), q)
    m = np.asarray(bloch(waveform, row, places, record="all"))
    seen = (m[..., 0] + 1j * m[..., 1]).mean(0) * len(z) * (z[1] - z[0]) / thickness
    at = 64 + still + np.arange(echoes) * (128 + 2 * still) + 64 + still + 32
    np.testing.assert_allclose(seen[at], expected, atol=2e-3)
    hard = mr.simulate(mr.sequence.spin_echo_train(np.full(echoes, np.pi), spacing), q)
    assert np.abs(hard - expected).max() > 0.05
