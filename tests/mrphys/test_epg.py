"""Extended phase graphs against closed forms, isochromats and their own conservation laws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import epg, epg_real
from mrphys.sequence.train import block

pytestmark = pytest.mark.core
FOREVER = 19.9


def voxels(**fields) -> mr.Tissue:
    """A row of voxels."""
    return jax.tree.map(jnp.atleast_1d, mr.Tissue(**fields).broadcast())


def isochromats(blocks, q: mr.Tissue, count: int) -> np.ndarray:
    """The same blocks for one voxel by rotating `count` vectors, evenly dephased by each unit
    moment: exact while orders stay below the count."""
    turn = np.exp(-2j * np.pi * np.arange(count) / count)
    t1, t2, m0, b0 = (float(getattr(q, name)[0]) for name in ("t1_s", "t2_s", "m0", "b0_hz"))
    m, mz, seen = np.zeros(count, complex), np.full(count, m0), []
    for b in blocks:
        for i in range(b.repetitions):
            alpha, axis = float(b.flip_rad[i]) * float(q.b1[0]), np.exp(1j * float(b.phase_rad[i]))
            along, across = (m * axis.conj()).real, (m * axis.conj()).imag
            across, mz = (
                across * np.cos(alpha) + mz * np.sin(alpha),
                mz * np.cos(alpha) - across * np.sin(alpha),
            )
            m = (along + 1j * across) * axis
            for j, (shift, reads) in enumerate(zip(b.shifts, b.reads, strict=True)):
                t = float(b.times_s[i, j])
                m = m * np.exp(-t / t2 - 2j * np.pi * b0 * t) * turn ** (-shift)
                mz = m0 + (mz - m0) * np.exp(-t / t1)
                if reads:
                    seen.append(m.mean() * np.exp(-1j * float(b.receiver_rad[i])))
            if b.spoil:
                m = np.zeros_like(m)
    return np.array(seen)


def test_cpmg_without_relaxation():
    """120° refocusing: exact rationals of the coherence pathways."""
    q = voxels(t1_s=FOREVER, t2_s=FOREVER)
    spacing = jnp.asarray(1e-9)
    echoes = epg_real.echo_train(q, jnp.full(4, 2 * jnp.pi / 3), spacing)[:, 0]
    np.testing.assert_allclose(echoes, [0.75, 0.9375, 0.84375, 0.85546875], rtol=2e-6)


def test_cpmg_with_relaxation():
    """T1 1 s, T2 0.1 s, spacing 10 ms, 120°: reference values in float64."""
    q = voxels(t1_s=1.0, t2_s=0.1)
    echoes = epg_real.echo_train(q, jnp.full(32, 2 * jnp.pi / 3), jnp.asarray(0.01))[:, 0]
    expected = [0.6786280635, 0.7964738493, 0.6369145974, 0.6068761578]
    precise = jax.config.jax_enable_x64  # pyright: ignore[reportAttributeAccessIssue]
    rtol = 1e-9 if precise else 3e-6
    np.testing.assert_allclose(echoes[:4], expected, rtol=rtol)
    assert float(echoes[-1]) == pytest.approx(0.0544084879, rel=rtol * 10)


@pytest.mark.parametrize("seed", range(4))
def test_any_train_against_isochromats(seed):
    rng = np.random.default_rng(seed)
    blocks = [
        block(
            rng.uniform(-np.pi, np.pi, n),
            [rng.uniform(0, 0.02, n), rng.uniform(0, 0.02, n)],
            phase_rad=rng.uniform(-np.pi, np.pi, n),
            receiver_rad=rng.uniform(-np.pi, np.pi, n),
            shifts=rng.integers(0, 2, 2).tolist(),
            reads=[True, bool(rng.integers(2))],
            spoil=bool(rng.integers(2)),
        )
        for n in (3, 7, 5)
    ]
    q = voxels(t1_s=rng.uniform(0.3, 2), t2_s=rng.uniform(0.05, 0.3), b0_hz=rng.normal() * 30,
               b1=rng.uniform(0.7, 1.3), m0=rng.uniform(0.5, 2))  # fmt: skip
    states, seen = epg.equilibrium(q, 31), []
    for b in blocks:
        states, echoes = epg.general(b, q, states)
        seen.append(echoes[:, 0])
    np.testing.assert_allclose(jnp.concatenate(seen), isochromats(blocks, q, 64), atol=2e-6)


def test_the_real_trains_are_the_general_one():
    rng = np.random.default_rng(0)
    q = voxels(t1_s=[0.8, 1.5], t2_s=[0.05, 0.2], b0_hz=[0.0, 17.0], b1=[0.9, 1.2],
               adc_mm2_per_s=[1e-3, 2e-3])  # fmt: skip
    moment = jnp.asarray(30.0)
    flips = jnp.asarray(rng.uniform(0, np.pi, 9))
    half = 0.006
    blocks = [
        block(np.pi / 2, [half], shifts=[1], reads=[False]),
        block(flips, [half, half], phase_rad=np.pi / 2, receiver_rad=0.0, shifts=[1, 1],
              reads=[True, False]),
    ]  # fmt: skip
    states, _ = epg.general(blocks[0], q, epg.equilibrium(q, 30), moment)
    _, echoes = epg.general(blocks[1], q, states, moment)
    size = epg.transmit(q)
    fast = jnp.sin(np.pi / 2 * size)[None] * epg_real.echo_train(
        q, flips, jnp.asarray(2 * half), moment
    )
    np.testing.assert_allclose(echoes, 1j * fast, atol=3e-6)

    times = jnp.array([0.004, 0.008])
    played = block(flips, list(times), shifts=[0, 1], reads=[True, False])
    start = epg.equilibrium(q, 30)
    _, echoes = epg.general(played, q, start, moment)
    fast = epg_real.gradient_train(q, start.longitudinal.real, flips, times, moment)
    fast = fast * jnp.exp(-times[0] * (1 / q.t2_s + 2j * jnp.pi * q.b0_hz))[None]
    np.testing.assert_allclose(echoes, 1j * fast, atol=3e-6)


def test_magnetisation_is_conserved_without_relaxation():
    """Σ |F_k|² + |Z_k|² over all orders, positive and negative, stays m0²."""
    rng = np.random.default_rng(1)
    q = voxels(t1_s=FOREVER, t2_s=FOREVER, b0_hz=11.0)
    played = block(rng.uniform(0, np.pi, 12), [1e-9], phase_rad=rng.uniform(0, 6, 12),
                   shifts=[1], reads=[False])  # fmt: skip
    states, _ = epg.general(played, q, epg.equilibrium(q, 14))
    plus, minus, longitudinal = (np.abs(np.asarray(part)[:, 0]) ** 2 for part in states)
    total = plus.sum() + minus[1:].sum() + longitudinal[0] + 2 * longitudinal[1:].sum()
    assert total == pytest.approx(1.0, rel=1e-5)


def test_a_pulse_is_undone_by_its_inverse():
    q = voxels(t1_s=1.0, t2_s=0.1)
    rng = np.random.default_rng(2)
    parts = rng.normal(size=(3, 2, 5, 1))
    states = epg.States(*(jax.lax.complex(*map(jnp.asarray, part)) for part in parts.astype(float)))
    there = block(1.1, [0.0], phase_rad=0.7, reads=[False])
    back = block(-1.1, [0.0], phase_rad=0.7, reads=[False])
    moved, _ = epg.general(there, q, states)
    returned, _ = epg.general(back, q, moved)
    for before, after in zip(states, returned, strict=True):
        np.testing.assert_allclose(after, before, atol=5e-6)
    assert np.abs(moved.plus - states.plus).max() > 0.1


def test_truncation_keeps_its_bound():
    theta = mr.sequence.fingerprinting_fisp(np.full(200, 0.6), 0.012)
    q = voxels(t1_s=1.0, t2_s=0.05)
    for tolerance in (1e-1, 1e-3, 1e-5):
        cut = theta.within(q, tolerance)
        bound = cut.truncation_bound(q)
        assert 1 < cut.orders < theta.most_orders
        assert 0 < bound <= tolerance
        error = np.abs(np.asarray(cut.signal(q) - theta.signal(q))).max()
        assert error <= bound + 1e-6
    assert theta.truncation_bound(q) == 0.0
    long = voxels(t1_s=4.0, t2_s=2.0)
    assert theta.within(long, 1e-4).orders == theta.most_orders


def test_complex_transmit_turns_the_signal():
    theta = mr.sequence.spoiled_gradient_echo(0.3, 0.004, 0.01, 6, rf_spoiling_rad=2.0)
    plain = theta.signal(voxels(t1_s=1.0, t2_s=0.1, b1=0.8))
    turned = theta.signal(voxels(t1_s=1.0, t2_s=0.1, b1=0.8 * np.exp(0.5j)))
    np.testing.assert_allclose(turned, plain * np.exp(0.5j), atol=1e-6)
