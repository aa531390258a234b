"""Closed forms against long transients of the Bloch equations, the engines, and finite differences.

The transients know nothing of the closed forms: pulses and intervals are 4 x 4 matrices of
(Mx, My, Mz, 1), a repetition their product, and 2^k repetitions k squarings of it.
"""

from dataclasses import replace
from functools import partial, reduce

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import sequence as s
from mrphys import steady_state as ss
from mrphys.exchange import generator, propagate
from tests.laws import check_gradient

T1, T2, B0, T2PRIME = 0.9, 0.08, 7.0, 0.2
T2STAR = 1 / (1 / T2 + 1 / T2PRIME)
TE, TR = 0.003, 0.011


def pulse(flip: float, phase: float = 0.0) -> np.ndarray:
    """dM/dt = M × w about an axis of the transverse plane."""
    c, s = np.cos(flip), np.sin(flip)
    about_x = np.array([[1, 0, 0, 0], [0, c, s, 0], [0, -s, c, 0], [0, 0, 0, 1]])
    return turn(-phase) @ about_x @ turn(phase)


def turn(angle: float) -> np.ndarray:
    """M+ times exp(-i angle)."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, s, 0, 0], [-s, c, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]])


def free(time: float, b0: float = 0.0, t1: float = T1, t2: float = T2) -> np.ndarray:
    e1, e2 = np.exp(-time / t1), np.exp(-time / t2)
    relaxed = np.diag([e2, e2, e1, 1.0])
    relaxed[2, 3] = 1 - e1
    return relaxed @ turn(2 * np.pi * b0 * time)


SPOIL = np.diag([0.0, 0.0, 1.0, 1.0])


def played(*steps: np.ndarray) -> np.ndarray:
    """One after the other."""
    return reduce(lambda so_far, step: step @ so_far, steps)


def after_many(repetition: np.ndarray, squarings: int = 24) -> np.ndarray:
    """The state at the end of 2^k repetitions, from rest."""
    for _ in range(squarings):
        repetition = repetition @ repetition
    return repetition @ np.array([0.0, 0.0, 1.0, 1.0])


def plus(m: np.ndarray) -> complex:
    return m[0] + 1j * m[1]


@pytest.mark.parametrize("flip", [0.02, 0.4, 1.3, 2.6, np.pi])
@pytest.mark.parametrize("advance", [np.pi, 0.0, 1.1])
def test_balanced_is_where_transients_go(flip, advance):
    start = after_many(played(pulse(flip), free(TR, B0), turn(advance)))
    echo = plus(played(pulse(flip), free(TE, B0)) @ start)
    found = ss.balanced(flip, TE, TR, T1, T2, b0_hz=B0, advance_rad=advance)
    np.testing.assert_allclose(found, echo, atol=1e-11)


@pytest.mark.parametrize("flip", [1e-3, 0.08, 0.15, 0.4, 1.3, 2.6, 3.1, 4.0])
def test_dephased_echoes_are_averages_over_a_turn(flip):
    """Evenly spread isochromats: the error falls exponentially with their number."""
    before, after = [], []
    for angle in 2 * np.pi * np.arange(1024) / 1024:
        start = after_many(played(pulse(flip), free(TR, B0), turn(angle)))
        after.append(plus(played(pulse(flip), free(TE, B0)) @ start))
        before.append(plus(start) * np.exp(TE / T2 + 2j * np.pi * B0 * TE))
    fid, echo = (f(flip, TE, TR, T1, T2, b0_hz=B0) for f in (ss.ssfp_fid, ss.ssfp_echo))
    np.testing.assert_allclose(fid, np.mean(after), atol=1e-10)
    np.testing.assert_allclose(echo, np.mean(before), atol=1e-10)


def test_spoiled_steady_states():
    for flip in (0.05, 0.5, 1.9):
        start = after_many(played(pulse(flip), free(TR), SPOIL))
        echo = plus(played(pulse(flip), free(TE, B0, t2=T2STAR)) @ start)
        found = ss.ernst(flip, TE, TR, T1, T2STAR, b0_hz=B0)
        np.testing.assert_allclose(found, echo, atol=1e-12)
    best = float(ss.ernst_angle_rad(TR, T1))
    near = np.abs(ss.ernst(best + np.array([-1e-4, 0.0, 1e-4]), 0.0, TR, T1))
    assert near[1] > near[0] and near[1] > near[2]


@pytest.mark.parametrize(("prepare", "excite"), [(np.pi, np.pi / 2), (2.8, 1.3), (1.4, 0.4)])
def test_recoveries(prepare, excite):
    ti, tr = 0.3, 0.8
    recovered = played(pulse(prepare), SPOIL, free(ti), SPOIL)
    start = after_many(played(recovered, pulse(excite), free(tr - ti), SPOIL))
    echo = plus(played(recovered, pulse(excite), free(TE, B0, t2=T2STAR)) @ start)
    times = (ti, TE, tr, T1, T2STAR)
    shared = {"flip_rad": excite, "b0_hz": B0}
    found = ss.inversion_recovery(*times, inversion_rad=prepare, **shared)
    np.testing.assert_allclose(found, echo, atol=1e-12)
    np.testing.assert_allclose(
        ss.saturation_recovery(*times, saturation_rad=prepare, **shared), found
    )


@pytest.mark.parametrize(("excite", "refocus"), [(np.pi / 2, np.pi), (1.3, 2.5), (0.7, 1.0)])
def test_spin_echo(excite, refocus):
    """Crushers on both sides: only what the refocusing pulse conjugates makes the echo."""
    te, tr = 0.06, 0.7
    turns = 2 * np.pi * np.arange(8) / 8
    excited = played(pulse(excite), free(te / 2))
    crushed = [played(excited, turn(a), pulse(refocus, np.pi / 2), turn(a)) for a in turns]
    through = np.mean([played(c, SPOIL, free(tr - te / 2)) for c in crushed], axis=0)
    start = after_many(through)
    echo = plus(played(np.mean(crushed, axis=0), free(te / 2)) @ start)
    found = ss.spin_echo(te, tr, T1, T2, excitation_rad=excite, refocusing_rad=refocus)
    np.testing.assert_allclose(found, echo, atol=1e-12)


@pytest.mark.parametrize("flip", [0.2, 1.4, 2.0])
def test_look_locker(flip):
    m = played(pulse(2.9), SPOIL, free(0.05)) @ np.array([0.0, 0.0, 1.0, 1.0])
    echoes = []
    for _ in range(6):
        echoes.append(plus(played(pulse(flip), free(TE, B0, t2=T2STAR)) @ m))
        m = played(pulse(flip), free(TR), SPOIL) @ m
    shared = {"ti_s": 0.05, "inversion_rad": 2.9, "b0_hz": B0}
    found = ss.look_locker(np.arange(6), flip, TE, TR, T1, T2STAR, **shared)
    np.testing.assert_allclose(found, echoes, atol=1e-12)
    if flip < np.pi / 2:
        held = np.exp(-TR / ss.apparent_t1_s(flip, TR, T1))
        np.testing.assert_allclose(held, np.exp(-TR / T1) * np.cos(flip), rtol=1e-12)


def test_mp2rage():
    delays, flips, spacing, count, tr = (0.4, 1.3), (0.12, 0.3), 0.012, 5, 2.5
    steps, at_echo, now = [pulse(2.9), SPOIL], [], 0.0
    for delay, flip in zip(delays, flips, strict=True):
        steps.append(free(delay - count // 2 * spacing - now))
        for n in range(count):
            if n == count // 2:
                at_echo.append((list(steps), flip))
            steps += [pulse(flip), free(spacing), SPOIL]
        now = delay + (count - count // 2) * spacing
    start = after_many(played(*steps, free(tr - now)))
    last = free(TE, B0, t2=T2STAR)
    echoes = [plus(played(*until, pulse(flip), last) @ start) for until, flip in at_echo]
    shared = {"inversion_rad": 2.9, "b0_hz": B0}
    rest = (spacing, count, TE, tr, T1, T2STAR)
    found = ss.mp2rage(delays, flips, *rest, **shared)
    np.testing.assert_allclose(found, echoes, atol=1e-12)
    first = ss.mprage(delays[0], flips[0], *rest, **shared)
    alone = ss.mp2rage(delays, (flips[0], 0.0), *rest, **shared)[0]
    np.testing.assert_allclose(first, alone, atol=1e-12)


SEMISOLID = mr.SemiSolid(fraction=0.13, exchange_rate_hz=40.0)


@pytest.mark.long
def test_continuous_waves_are_where_long_ones_go():
    offsets, field = np.array([-3000.0, 0.0, 800.0, 5000.0]), 150.0
    q = mr.Tissue(t1_s=[[1.1, 0.7]], t2_s=T2, b0_hz=20.0, b1=1.1, semisolid=SEMISOLID)
    pools = mr.Tissue(t1_s=T1, t2_s=T2, pools=(mr.Pool(0.002, 30.0, 447.0),), semisolid=SEMISOLID)
    found = ss.saturated(offsets, field, q)
    closed = ss.magnetisation_transfer(
        offsets[None], 1.1 * field, np.array([[1.1], [0.7]]), T2, SEMISOLID, b0_hz=20.0
    )
    assert found.shape == (1, 2, 4)
    np.testing.assert_allclose(found[0], closed, rtol=1e-10)
    alone = pools.broadcast()
    still = (alone.m0, alone.t1_s, alone.t2_s, alone.b0_hz, alone.pools, alone.semisolid)
    for offset, water in zip(offsets, ss.saturated(offsets, field, pools), strict=True):
        on = generator(*still, jnp.asarray(field), jnp.asarray(offset))
        long = propagate(*on, jnp.zeros_like(on[1]).at[2].set(1.0), jnp.asarray(40.0))
        np.testing.assert_allclose(water, long[2], atol=1e-9)
    np.testing.assert_allclose(ss.saturated(offsets, 0.0, pools), 1.0, rtol=1e-12)


FORMS = {
    "ernst": (ss.ernst, (0.3, TE, TR, T1, T2STAR)),
    "ernst_angle": (ss.ernst_angle_rad, (TR, T1)),
    "freeman_hill": (ss.freeman_hill, (0.8, TE, TR, T1, T2)),
    "balanced": (lambda f, *t: ss.balanced(f, *t[:4], b0_hz=t[4], advance_rad=t[5]),
                 (0.8, TE, TR, T1, T2, B0, 2.0)),
    "fid": (lambda f, *t: ss.ssfp_fid(f, *t[:4], b0_hz=t[4], t2prime_s=t[5]),
            (0.8, TE, TR, T1, T2, B0, 0.05)),
    "echo": (lambda f, *t: ss.ssfp_echo(f, *t[:4], b0_hz=t[4], t2prime_s=t[5]),
             (0.8, TE, TR, T1, T2, B0, T2)),
    "apparent_t1": (ss.apparent_t1_s, (0.2, TR, T1)),
    "look_locker": (lambda *t: ss.look_locker(np.arange(4), *t[:5], ti_s=t[5]),
                    (0.2, TE, TR, T1, T2STAR, 0.05)),
    "ir": (lambda *t: ss.inversion_recovery(*t[:5], flip_rad=t[5], inversion_rad=t[6]),
           (0.4, TE, 1.5, T1, T2STAR, 1.4, 2.9)),
    "spin_echo": (lambda *t: ss.spin_echo(*t[:4], excitation_rad=t[4], refocusing_rad=t[5]),
                  (0.06, 0.7, T1, T2, 1.4, 2.9)),
    "mp2rage": (lambda ti, f, *t: ss.mp2rage(ti, f, t[0], 5, *t[1:]),
                (np.array([0.4, 1.3]), np.array([0.1, 0.2]), 0.01, TE, 2.5, T1, T2STAR)),
    "mt": (lambda o, b, t1, t2, f, k: ss.magnetisation_transfer(o, b, t1, t2, mr.SemiSolid(f, k)),
           (1500.0, 150.0, T1, T2, 0.13, 40.0)),
    "saturated": (lambda o, b, t1, k: ss.saturated(
        o, b, mr.Tissue(t1_s=t1, t2_s=T2, pools=(mr.Pool(0.01, k, 400.0),))),
        (np.array([300.0, 700.0]), 60.0, T1, 40.0)),
}  # fmt: skip


@pytest.mark.parametrize("name", FORMS)
def test_gradients(name):
    form, at = FORMS[name]
    check_gradient(lambda p: form(*p), at, rtol=1e-6, atol=1e-8)


EDGES = {
    "no_flip": (0.0, TE, TR, T1, T2),
    "no_time": (0.7, 0.0, 0.0, T1, T2),
    "half_turn": (np.pi, TE, TR, T1, T2),
    "equal_times": (0.7, TE, TR, 0.5, 0.5),
}
GRADIENT_ECHOES = [ss.ernst, ss.freeman_hill, ss.ssfp_fid, ss.ssfp_echo]


@pytest.mark.parametrize("edge", EDGES)
def test_gradients_where_users_stand(edge):
    at, scale = np.array(EDGES[edge]), np.array([1.0, 0.01, 0.01, 1.0, 0.1])

    def echoes(p):
        return jnp.stack([form(*(scale * p)) for form in GRADIENT_ECHOES])

    check_gradient(echoes, at / scale, scale=1.0, rtol=1e-6, atol=1e-7)


@pytest.mark.core
@pytest.mark.parametrize("form", GRADIENT_ECHOES)
def test_limits_are_finite_in_both_precisions(form, rtol):
    """And the limit of ever shorter times is that at zero."""
    corner = (0.0, 0.0, 0.0, T1, T2)
    value_and_gradient = jax.jit(jax.value_and_grad(lambda p: form(*p).imag))
    for at in (corner, (0.0, 0.0, 0.01, T1, T2), (2 * np.pi, 0.0, 0.01, T1, T1)):
        value, gradient = value_and_gradient(tuple(map(float, at)))
        assert abs(value) < 1e-5
        assert all(map(np.isfinite, gradient))
    flips = np.array([0.2, 0.9, 3.0])
    short, none = (np.asarray(form(flips, 0.0, tr, T1, T2)) for tr in (1e-7, 0.0))
    np.testing.assert_allclose(short, none, atol=rtol(1e-5, 1e-5))
    if form is not ss.ernst:
        assert np.all(np.abs(none) > 1e-3)


@pytest.mark.core
def test_short_times_keep_their_digits_in_float32(rtol):
    """TR of 1 ms and small angles, where 1 - E1 cos α cancels, against float64 by hand."""
    flip, tr, t1, t2 = 0.01, 1e-3, 4.0, 2.0
    e1, e2, c = np.exp(-tr / t1), np.exp(-tr / t2), np.cos(flip)
    spoiled = np.sin(flip) * (1 - e1) / (1 - e1 * c)
    held = np.sin(flip) * (1 - e1) / (1 - (e1 - e2) * c - e1 * e2)
    r = np.sqrt((1 - e2**2) * ((1 - e1 * c) ** 2 - e2**2 * (e1 - c) ** 2))
    fid = np.tan(flip / 2) * (1 - (e1 - c) * (1 - e2**2) / r)
    echo = np.tan(flip / 2) * (1 - (1 - e1 * c) * (1 - e2**2) / r)
    found = [
        ss.ernst(flip, 0.0, tr, t1).imag,
        ss.freeman_hill(flip, 0.0, tr, t1, t2).imag,
        ss.ssfp_fid(flip, 0.0, tr, t1, t2).imag,
        -ss.ssfp_echo(flip, 0.0, tr, t1, t2).imag,
    ]
    np.testing.assert_allclose(found, [spoiled, held, fid, echo], rtol=rtol(1e-8, 2e-6))


def test_derivatives_of_rf_spoiling_are_those_of_a_long_transient():
    """The steady state is solved, not iterated: its derivative must be the transient's limit."""
    p = {"flip": 0.35, "t1": 0.5, "t2": 0.05, "te": 0.004}

    def signal(p, repetitions=None):
        q = mr.Tissue(t1_s=p["t1"], t2_s=p["t2"]).broadcast()
        theta = s.spoiled_gradient_echo(
            p["flip"], p["te"], 0.02, repetitions, rf_spoiling_rad=s.RF_SPOILING_RAD
        )
        return jnp.abs(replace(theta, orders=24).signal(q)[-1])

    p = {name: jnp.asarray(value) for name, value in p.items()}
    steady, exact = jax.jit(jax.value_and_grad(signal))(p)
    end, slope = jax.jit(jax.value_and_grad(partial(signal, repetitions=400)))(p)
    np.testing.assert_allclose(steady, end, rtol=1e-6)
    for name in p:
        np.testing.assert_allclose(exact[name], slope[name], rtol=1e-5)
    check_gradient(signal, p)
