import numpy as np
import pytest

from mrphys.phase_unwrapping import turns


def wrapped(phase):
    return np.angle(np.exp(1j * phase))


@pytest.mark.parametrize(
    ("shape", "bend_rad"), [((4000,), 900.0), ((60, 70), 25.0), ((15, 16, 17), 5.0)]
)
def test_a_smooth_phase_is_found_again(shape, bend_rad):
    grid = np.meshgrid(*[np.linspace(-1, 1, n) for n in shape], indexing="ij")
    phase = bend_rad * sum(g**2 for g in grid) - 9 * grid[0]
    found = wrapped(phase) + 2 * np.pi * turns(wrapped(phase), np.full(shape, 0.1))
    off = (found - phase) / (2 * np.pi)
    np.testing.assert_allclose(off, np.rint(off.flat[0]), atol=1e-9)
    assert abs(np.median(found)) <= np.pi


def test_noise_and_a_wall_are_gone_around():
    rng = np.random.default_rng(0)
    a, b = np.meshgrid(np.linspace(-1, 1, 64), np.linspace(-1, 1, 64), indexing="ij")
    phase = 12 * a + 8 * b**2
    sd = np.full(phase.shape, 0.1)
    sd[20:40, 20:30] = 2.0
    noisy = phase + np.where(sd > 1, rng.uniform(-3, 3, phase.shape), 0.0)
    sd[:, 50] = np.inf
    found = wrapped(noisy) + 2 * np.pi * turns(wrapped(noisy), sd)
    for part in (np.s_[:, :50], np.s_[:, 51:]):
        off = ((found - phase) / (2 * np.pi))[part][sd[part] == 0.1]
        np.testing.assert_allclose(off, np.rint(off[0]), atol=1e-9)
    assert (turns(wrapped(noisy), sd)[:, 50] == 0).all()


def test_nothing_to_unwrap():
    assert turns(np.zeros((3, 3)), np.full((3, 3), np.inf)).sum() == 0
    assert turns(np.array(2.0), np.array(0.1)) == 0
    lone = np.where(np.eye(3) > 0, 0.1, np.inf)
    assert (turns(np.full((3, 3), 3.0), lone) == 0).all()
