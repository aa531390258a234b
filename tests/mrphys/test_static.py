"""Static dephasing against the signal itself, averaged over a Lorentzian of offsets."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import sequence as s
from mrphys.errors import InputError
from mrphys.exchange import Pool
from mrphys.sequence.train import block, train
from tests.laws import check_gradient
from tests.mrphys.test_sequences import FAMILIES, flat

T2PRIME = 0.03
Q = mr.Tissue(t1_s=0.9, t2_s=0.08, b1=1.05, b0_hz=7.0, adc_mm2_per_s=1e-3)
DEPHASED = replace(Q, t2prime_s=jnp.asarray(T2PRIME))


def averaged(theta, q: mr.Tissue, widest_hz: float = 2000.0, period_s: float = 0.5) -> np.ndarray:
    """∫ x(b0 + ν) w / (π (w² + ν²)) dν, w = 1/(2π T2'): a sum in steps of 1 / period_s, which is
    exact for net times well below the period; beyond the widest offset the mean stands for x."""
    nu = np.arange(-widest_hz, widest_hz + 1e-9, 1 / period_s)
    width = 1 / (2 * np.pi * T2PRIME)
    weight = width / np.pi / (width**2 + nu**2) / period_s
    x = np.asarray(mr.simulate(theta, replace(q, b0_hz=q.b0_hz + nu)))
    hann = 1 + np.cos(np.pi * nu / widest_hz)
    return weight @ x + (1 - weight.sum()) * (hann @ x) / hann.sum()


def check(theta, q: mr.Tissue = Q, atol: float = 5e-5) -> None:
    found = mr.simulate(theta, replace(q, t2prime_s=jnp.asarray(T2PRIME)), tolerance=1e-5)
    np.testing.assert_allclose(found, averaged(theta, q), atol=atol)


def alternating(**ticks) -> mr.sequence.Repeated:
    """Two balanced pulses a repetition, of 6 and 3 ms, with a stretch of pulses between."""
    first = block(0.7, [0.002, 0.004], reads=[True, False], **ticks)
    second = block(-0.5, [0.001, 0.002], reads=[True, False], repetitions=3)
    return s.repeated((first, second))


OTHERS = {
    "several blocks": alternating(),
    "steady at an early echo": s.balanced_ssfp(0.6, 0.02, 0.004),
    "short, long": s.balanced_ssfp(0.9, 0.01, 0.0, 40),
    "few times": s.fingerprinting_balanced(np.linspace(0.2, 0.9, 12), [0.01, 0.013] * 6, 0.004),
    "rf spoiled": s.spoiled_gradient_echo(0.3, 0.003, 0.04, rf_spoiling_rad=2.04),
    "dess": s.dess(0.5, 0.004, 0.04),
    "bad preparation": s.t2_prepared([0.06], 0.5, refocusing=2),
    "gradients and none": train(
        [
            block(1.0, [0.004, 0.003], shifts=[0, 1], reads=[True, False], repetitions=3),
            block(0.8, [0.002, 0.003], reads=[True, False], repetitions=3, phase_rad=[0.3, 1.0, 2]),
            block(2.0, [0.004, 0.004], shifts=[1, 0], reads=[False, True], repetitions=2),
        ]
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_the_mean_over_offsets(name):
    check(FAMILIES[name])


@pytest.mark.parametrize("name", OTHERS)
def test_other_trains_are_the_mean_over_offsets(name):
    check(OTHERS[name], replace(Q, b1=jnp.asarray(0.7)) if name == "bad preparation" else Q)


def test_pools_in_a_balanced_steady_state():
    fat = Pool(fraction=0.3, exchange_rate_hz=12.0, shift_hz=-40.0, t1_s=0.3, t2_s=0.05)
    check(s.balanced_ssfp(0.6, 0.006, 0.002), replace(Q, pools=(fat,)))


def test_balanced_steady_state_is_where_its_transient_goes():
    q = replace(DEPHASED, t1_s=jnp.asarray(0.08), t2_s=jnp.asarray(0.05)).broadcast()
    steady = flat(s.balanced_ssfp(0.7, 0.01, 0.003), q)
    transient = flat(s.balanced_ssfp(0.7, 0.01, 0.003, 120), q)
    np.testing.assert_allclose(transient[-1], steady[0], rtol=1e-6)


def test_infinite_t2prime_follows_nothing_and_long_ones_come_near():
    theta = s.balanced_ssfp(0.6, 0.006, 0.002, 12)
    plain = theta.within(Q, 1e-4)
    assert not plain.static
    assert theta.within(DEPHASED, 1e-4).static
    without = mr.simulate(theta, Q)
    np.testing.assert_allclose(mr.simulate(theta, replace(Q, t2prime_s=1e9)), without, atol=1e-9)
    traced = flat(theta, Q.broadcast())
    np.testing.assert_allclose(traced, without, atol=1e-12)


def test_ticks_left_out_are_within_their_bound():
    theta = s.balanced_ssfp(0.9, 0.006, 0.002, 20)
    q = replace(DEPHASED, t2_s=jnp.asarray(0.01))
    exact = flat(theta, q.broadcast())
    cut = theta.within(q, 1e-2)
    assert isinstance(cut, s.Train) and cut.reach is not None and cut.reach < 39
    error = np.abs(flat(cut, q.broadcast()) - exact).max()
    assert error < cut.truncation_bound(q) <= 1e-2
    assert np.abs(flat(replace(cut, reach=3), q.broadcast()) - exact).max() > 1e-4


def test_times_without_a_unit_are_refused():
    theta = s.fingerprinting_balanced(np.full(40, 0.5), 0.01 + 0.001 * np.sqrt(np.arange(40.0)))
    assert np.isfinite(mr.simulate(theta, Q)).all()
    with pytest.raises(InputError, match="lists of repetition times"):
        mr.simulate(theta, DEPHASED)
    assert np.isfinite(flat(theta, Q.broadcast())).all()
    with pytest.raises(RuntimeError, match="lists of repetition times"):
        flat(theta, DEPHASED.broadcast())


def some_of_each(p) -> list:
    q = mr.Tissue(t1_s=0.9, t2_s=p["t2"], b1=1.05, b0_hz=p["b0"], t2prime_s=p["t2prime"])
    flips = p["flip"] * jnp.linspace(0.5, 1.5, 2)
    trains = [
        s.balanced_ssfp(p["flip"], p["tr"], p["te"]),
        s.balanced_ssfp(flips, p["tr"], p["te"]),
        s.fingerprinting_balanced(flips, p["trs"], p["te"], inversion_s=None),
    ]
    return [theta.signal(q.broadcast()) for theta in trains]


def test_gradients():
    p = {"t2": 0.06, "b0": 9.0, "t2prime": 0.04, "flip": 0.8, "tr": 0.006, "te": 0.0025}
    p = {key: jnp.asarray(value) for key, value in p.items()}
    p["trs"] = jnp.array([0.011, 0.0131])
    check_gradient(some_of_each, p, rtol=1e-6, atol=1e-8)
    slopes_of = jax.jit(jax.jacrev(lambda p: [jnp.abs(x - 1) for x in some_of_each(p)]))
    for edge in ({"t2prime": np.inf}, {"flip": 0.0}, {"te": 0.003}, {"te": 0.0}):
        there = p | {key: jnp.asarray(value) for key, value in edge.items()}
        slopes = slopes_of(there)
        assert all(np.isfinite(slope).all() for slope in jax.tree.leaves(slopes))
