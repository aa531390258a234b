"""Trajectories stay within their limits whatever is asked, and files play them."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from learn import reconstruction as lr
from learn import sampling as ls
from learn import train
from mrphys import trajectory
from mrphys.encoding import Encoding
from mrphys.errors import InputError
from mrphys.io.pulseq import read_pulseq
from mrphys.io.pulseq_readouts import write_readouts
from mrphys.trajectory import Limits, gradients
from mrphys.units import PROTON_GYROMAGNETIC_RATIO_HZ_PER_T as HZ_PER_T
from tests.laws import check_gradient

RNG = np.random.default_rng(0)
N, FOV, DWELL_S, SHOTS, SAMPLES = 16, (240.0, 240.0), 4e-6, 2, 80
START = trajectory.radial(SHOTS, SAMPLES, N)
LIMITS = Limits(0.04, 150.0)


@nnx.jit
def called(made):
    return made(), made.beyond()


def curves(points=8):
    return ls.Curves(START, points, N, FOV, DWELL_S, LIMITS)


@pytest.mark.parametrize("size", [0.0, 0.1, 30.0])
def test_whatever_is_asked_can_be_played(size):
    made = curves()
    made.control[...] = jnp.asarray(size * RNG.normal(size=made.control.shape))
    k, beyond = called(made)
    gradient, slew = LIMITS.largest(k, FOV, DWELL_S)
    assert gradient <= 0.04 and slew <= 150.0 and jnp.linalg.norm(k, axis=-1).max() <= N / 2
    if size == 0.0:
        np.testing.assert_array_equal(k, START)
        assert beyond == 0
    else:
        asked = np.asarray(START + trajectory.spline(made.control[...], SAMPLES))
        moved = np.asarray(k - START)
        part = np.sum(moved * (asked - START), (1, 2)) / np.sum((asked - START) ** 2, (1, 2))
        np.testing.assert_allclose(moved, part[:, None, None] * (asked - START), atol=1e-9)
        # as far as one of the limits, of each shot
        for shot, t in enumerate(part):
            held = [
                v / most
                for v, most in zip(
                    made.limits.largest(k[shot], FOV, DWELL_S),
                    (made.limits.gradient_t_per_m, made.limits.slew_t_per_m_s),
                    strict=True,
                )
            ]
            edge = float(jnp.linalg.norm(k[shot], axis=-1).max()) / (N / 2)
            assert t == pytest.approx(1) or max(*held, edge) == pytest.approx(1, rel=1e-6)


def test_derivative_through_the_limits():
    made = curves()
    graph, state = nnx.split(made)
    at = jnp.asarray(0.3 * RNG.normal(size=made.control.shape))

    def seen(control):
        moved = nnx.merge(graph, state, copy=True)
        moved.control[...] = control
        return called(moved)

    check_gradient(seen, at, scale=0.1, rtol=1e-5, atol=1e-8, directions=4, finite_at=[0 * at])


def test_shots_learn_where_a_network_needs_them_and_a_file_plays_them(tmp_path):
    """The loss falls; the file's gradients, read back, keep the system's limits and its k is that
    learned."""
    truth = jnp.asarray(RNG.normal(size=(1, N, N)) + 0j)
    every = Encoding.cartesian(jnp.ones((N, N)), jnp.ones((1, N, N)) + 0j)
    scans = lr.Scan(
        jax.tree.map(lambda leaf: leaf[None], every), truth[:, None], truth, jnp.asarray([0.01])
    )

    class Back(nnx.Module):
        def __call__(self, A, y):
            return A.H(y)

    with jax.numpy_rank_promotion("allow"):  # in the library's own derivative
        made = train(
            ls.Along(curves(), Back()), ls.curves_loss, [scans], optax.adam(0.1), 25,
            key=jax.random.key(0),
        )  # fmt: skip
    assert made.losses[-1] < 0.97 * made.losses[0]
    k = called(made.net.sampling)[0]
    fine = made.net.sampling.refined(20)
    np.testing.assert_allclose(called(fine)[0], k, atol=0.15)
    write_readouts(tmp_path / "a.seq", k, FOV, DWELL_S, thickness_mm=5.0)
    scan = read_pulseq(tmp_path / "a.seq")
    np.testing.assert_allclose(trajectory.of_scan(scan), k, atol=0.05)
    for readout in scan.readouts:
        t = np.arange(readout.times_s[0], readout.times_s[-1], 1e-5)
        played = np.stack([np.interp(t, g.time_s, g.hz_per_mm) for g in scan.gradients], -1)
        played = played * 1e3 / HZ_PER_T
        assert np.linalg.norm(played, axis=1).max() <= 0.04
        assert np.linalg.norm(np.diff(played, axis=0), axis=1).max() / 1e-5 <= 150.0


def test_a_start_that_cannot_be_played_is_refused():
    fast = trajectory.radial(2, 16, 4 * N)
    assert gradients(fast, FOV, DWELL_S)[0].max() > 0.04
    with pytest.raises(InputError, match="at most"):
        ls.Curves(fast, 8, N, FOV, DWELL_S)
