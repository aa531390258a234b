"""Where samples lie: geometry, what gradients allow, derivatives, and back from Pulseq files."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import Encoding, InputError, trajectory
from mrphys.io.pulseq import read_pulseq
from mrphys.io.pulseq_readouts import write_readouts
from mrphys.trajectory import Limits, gradients
from mrphys.units import PROTON_GYROMAGNETIC_RATIO_HZ_PER_T as HZ_PER_T
from tests.laws import check_gradient

FOV, DWELL_S = (200.0, 200.0), 4e-6


@pytest.mark.parametrize(
    ("order", "degrees"), [("uniform", 180 / 5), ("golden", 111.246), ("tiny", 23.628), (3, 49.751)]
)
def test_spokes_turn_by_their_angle(order, degrees):
    k = np.asarray(trajectory.radial(5, 16, 8, order))
    assert k.shape == (5, 16, 2)
    np.testing.assert_allclose(k[:, 8], 0, atol=1e-12)
    np.testing.assert_allclose(np.linalg.norm(k[:, 0], axis=1), 4.0)
    np.testing.assert_allclose(k[:, 9] - k[:, 8], k[:, 1] - k[:, 0], atol=1e-12)
    along = k[:, 12] @ np.array([1, 1j])
    turned = np.degrees(np.angle(along[1:] / along[:-1])) % 180
    np.testing.assert_allclose(turned, degrees, atol=2e-3)


@pytest.mark.parametrize("order", ["golden", "uniform"])
def test_spokes_cover_the_sphere_evenly(order):
    """The second moments of directions are a third, of every 89 of golden means too."""
    k = np.asarray(trajectory.kooshball(233, 4, 2, order))
    for part in (k, k[50:139]) if order == "golden" else (k,):
        d = part[:, 0] / np.linalg.norm(part[:, 0], axis=1, keepdims=True)
        np.testing.assert_allclose(d.T @ d / len(d), np.eye(3) / 3, atol=0.03)


def test_a_spiral_is_as_fast_as_gradients_allow_and_as_dense_as_asked():
    limits = Limits(0.03, 120.0)
    k = trajectory.spiral(8, 64, FOV[0], DWELL_S, limits=limits)
    limits.check(k, FOV, DWELL_S)
    assert limits.excess(k, FOV, DWELL_S) == 0
    gradient, slew = (np.linalg.norm(v[0], axis=-1) for v in gradients(k, FOV, DWELL_S))
    at_limit = np.maximum(slew / 120.0, 0.5 * (gradient[1:] + gradient[:-1]) / 0.03)
    assert np.mean(at_limit > 0.98) > 0.97
    one = np.asarray(k)[0] @ np.array([1, 1j])
    assert abs(one[-1]) == pytest.approx(32, abs=0.1)
    # Archimedes: |k| = interleaves θ / 2π
    np.testing.assert_allclose(np.abs(one), 8 * np.unwrap(np.angle(one)) / (2 * np.pi), atol=0.02)
    turned = np.asarray(k)[1] @ np.array([1, 1j])
    np.testing.assert_allclose(turned, one * np.exp(2j * np.pi / 8), atol=1e-12)


def test_a_slew_limited_spiral_takes_glovers_time():
    """Far from the middle λ θ θ'² = γ S, so t = ⅔ θ^(3/2) / sqrt(γ S / λ), λ = |k| / θ.

    Glover 1999, doi:10.1002/(SICI)1522-2594(199908)42:2<412::AID-MRM25>3.0.CO;2-U."""
    limits = Limits(0.2, 100.0)
    k = np.asarray(trajectory.spiral(1, 64, FOV[0], DWELL_S, limits=limits))
    per_rad = 1 / (2 * np.pi) * 1e3 / FOV[0]  # cycles/m per radian
    theta = 2 * np.pi * 32
    expected = 2 / 3 * theta**1.5 / np.sqrt(100.0 * HZ_PER_T / per_rad)
    assert k.shape[1] * DWELL_S == pytest.approx(expected, rel=0.01)


def test_variable_density_moves_outwards_as_asked():
    k = np.asarray(trajectory.spiral(8, 64, FOV[0], DWELL_S, density=lambda r: 2.0 - r))[0]
    one = k @ np.array([1, 1j])
    turns = np.unwrap(np.angle(one)) / (2 * np.pi)
    r = np.abs(one) / 32
    np.testing.assert_allclose(turns, 4 * (2 * r - r**2 / 2), atol=0.02)


def test_a_spiral_slows_down_before_it_bends():
    """From open to dense turns within a tenth of the radius."""
    limits = Limits(0.04, 100.0)

    def density(r):
        return 0.1 + 2 / (1 + np.exp(-(r - 0.5) / 0.02))

    k = trajectory.spiral(4, 64, FOV[0], DWELL_S, limits=limits, density=density)
    limits.check(k, FOV, DWELL_S)


def test_excess_is_of_squares_over_the_limits():
    """A straight line at 1.1 times the largest gradient; one that turns back at it."""
    step = 1.1 * 0.04 * HZ_PER_T * DWELL_S * FOV[0] * 1e-3
    line = step * np.stack([np.arange(9.0), np.zeros(9)], -1)
    slew = (np.array([0, 0, 0, 2.0, 0, 0, 0]) * 1.1 * 0.04 / DWELL_S / 150.0) ** 2
    assert Limits().excess(line, FOV, DWELL_S) == pytest.approx(0.21)
    there = np.concatenate([line[:5], line[3::-1]])
    expected = 0.21 + np.mean(np.maximum(slew - 1, 0))
    assert Limits().excess(there, FOV, DWELL_S) == pytest.approx(expected)


def test_splines_and_their_gradients():
    """Of a cubic the spline is exact, its derivatives those of the polynomial."""
    u = np.linspace(0, 1, 201)[:, None]
    k = 20 * np.concatenate([u - 2 * u**3, u**2 + u**3], axis=1)
    control = trajectory.spline_of(k, 9)
    np.testing.assert_allclose(trajectory.spline(control, 201), k, atol=1e-9)
    np.testing.assert_allclose(control[0], k[0], atol=1e-9)
    gradient, slew = trajectory.spline_gradients(control, 201, FOV, 5e-3)
    scale = 1e3 / 200.0 / HZ_PER_T / 5e-3
    first = 20 * np.concatenate([1 - 6 * u**2, 2 * u + 3 * u**2], axis=1)
    second = 20 * np.concatenate([-12 * u, 2 + 6 * u], axis=1)
    np.testing.assert_allclose(gradient, scale * first, rtol=1e-7, atol=1e-9)
    np.testing.assert_allclose(slew, scale / 5e-3 * second, rtol=1e-6, atol=1e-7)
    finite, _ = gradients(trajectory.spline(control, 201), FOV, 5e-3 / 200)
    np.testing.assert_allclose(finite, 0.5 * (gradient[1:] + gradient[:-1]), rtol=1e-3, atol=1e-6)


def test_derivatives_of_data_and_limits_in_control_points():
    rng = np.random.default_rng(0)
    control = jnp.asarray(rng.uniform(-2.5, 2.5, (1, 5, 2)))
    image = jnp.asarray(rng.normal(size=(6, 6)) + 1j * rng.normal(size=(6, 6)))

    def seen(control):
        k = trajectory.spline(control, 12)
        y = Encoding.noncartesian(k[0], shape=(6, 6), tolerance=1e-12)(image)
        return jnp.sum(jnp.abs(y) ** 4), Limits(1e-3, 50.0).excess(k, FOV, 1e-5)

    import jax

    with jax.numpy_rank_promotion("allow"):  # in the library's own derivative
        check_gradient(seen, control, rtol=1e-5)
    rest = jax.grad(lambda c: Limits().excess(trajectory.spline(c, 12), FOV, 1e-5))(0 * control)
    assert np.all(np.isfinite(rest))


@pytest.mark.parametrize(
    ("k", "fov"),
    [
        (trajectory.spiral(2, 32, FOV[0], DWELL_S, limits=Limits(0.03, 120.0)), FOV),
        (trajectory.radial(3, 32, 16, "golden"), FOV),
        (trajectory.kooshball(3, 32, 16), (*FOV, 100.0)),
    ],
)
def test_a_pulseq_file_plays_the_trajectory(tmp_path, k, fov):
    dwell = DWELL_S if k.shape[1] > 100 else 2e-5
    thickness = 5.0 if len(fov) == 2 else None
    write_readouts(tmp_path / "a.seq", k, fov, dwell, tr_s=0.02, thickness_mm=thickness)
    scan = read_pulseq(tmp_path / "a.seq")
    np.testing.assert_allclose(trajectory.of_scan(scan), k, atol=0.03)
    assert scan.duration_s == pytest.approx(0.02 * len(k), rel=1e-3)
    assert [p.use for p in scan.pulses] == ["excitation"] * len(k)


def test_lines_to_and_fro():
    k = np.asarray(trajectory.lines([0, 3, 1], 4, (4, 4), to_and_fro=True))
    np.testing.assert_array_equal(k[..., 1], [[-2] * 4, [1] * 4, [-1] * 4])
    np.testing.assert_array_equal(k[:2, :, 0], [[-2, -1, 0, 1], [1, 0, -1, -2]])


FAST = np.asarray(trajectory.radial(2, 16, 64))
BAD = {
    "at most 0.04 T/m": lambda p: Limits().check(FAST, FOV, DWELL_S),
    "mT/m given for T/m": lambda p: Limits(40.0),
    "microseconds": lambda p: gradients(FAST, FOV, 4.0),
    "a whole number": lambda p: trajectory.radial(2, 16, 64, 0),
    "above 0 for r": lambda p: trajectory.spiral(4, 32, 200.0, density=lambda r: 0.5 - r),
    "too few interleaves": lambda p: trajectory.spiral(1, 512, 200.0, limits=Limits(0.005, 10)),
    "more points than": lambda p: trajectory.spline(np.zeros((3, 2)), 10),
    "at most as many": lambda p: trajectory.spline_of(np.zeros((3, 2)), 5),
    "0 to 3": lambda p: trajectory.lines([4], 4, (4, 4)),
    "what the system plays": lambda p: write_readouts(p / "a.seq", FAST, FOV, DWELL_S),
    "ends in .seq": lambda p: write_readouts(p / "a.txt", FAST, FOV, DWELL_S),
    "ms or more": lambda p: write_readouts(p / "a.seq", 0.1 * FAST, FOV, 1e-4, tr_s=1e-3),
}  # fmt: skip


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_is_said_and_nothing_written(said, tmp_path):
    with pytest.raises(InputError, match=said):
        BAD[said](tmp_path)
    assert not list(tmp_path.iterdir())
