"""Kinetic parameters from curves: calibrated, unbiased, differentiable, sure of T1 and input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import InputError, mapping, perfusion
from mrphys.perfusion import (
    ExtendedTofts,
    Patlak,
    SpoiledEcho,
    Tofts,
    TwoCompartmentExchange,
    TwoCompartmentUptake,
    concentration,
    dynamic_series,
    fit_kinetics,
)
from mrphys.perfusion.subspace import subspace
from mrphys.perfusion.tracer_kinetics import Exponentials
from tests.laws import check_gradient

TIMES = np.arange(0.0, 300.0, 2.0)
ARTERY = perfusion.arterial_input(TIMES, perfusion.parker_2006(TIMES, 30.0))
SERIES = dynamic_series(TIMES, ARTERY)
VOXELS = 4000


def tissues(voxels=VOXELS, seed=0):
    rng = np.random.default_rng(seed)

    def some(low, high):
        return rng.uniform(low, high, voxels)

    return {
        "extended tofts": ExtendedTofts(some(0.05, 0.3) / 60, some(0.1, 0.4), some(0.01, 0.08)),
        "uptake": TwoCompartmentUptake(some(20, 80) / 6000, some(0.02, 0.1) / 60, some(0.05, 0.15)),
        "exchange": TwoCompartmentExchange(
            some(20, 60) / 6000, some(0.05, 0.2) / 60, some(0.1, 0.3), some(0.05, 0.15)),
        "tofts": Tofts(some(0.05, 0.3) / 60, some(0.1, 0.4)),
        "patlak": Patlak(some(0.005, 0.1) / 60, some(0.02, 0.1)),
    }  # fmt: skip


def noisy(q, snr=20.0, seed=0):
    c = concentration(SERIES, q)
    sd = float(c.max(axis=1).mean()) / snr
    return c + sd * jax.random.normal(jax.random.key(seed), c.shape, c.dtype), sd


def pull(est, q, name):
    """(estimate - truth) / sd where there is one, the share where not, and the relative bias."""
    value, sd, truth = (np.asarray(getattr(part, name)) for part in (est.value, est.sd, q))
    told = np.isfinite(sd) & (np.asarray(est.status) == mapping.CONVERGED)
    error = (value - truth)[told]
    return error / sd[told], 1 - told.mean(), error.mean() / truth.mean()


@pytest.mark.core
@pytest.mark.parametrize("model", ["extended tofts", "exchange",
                                   pytest.param("uptake", marks=pytest.mark.long),
                                   pytest.param("tofts", marks=pytest.mark.long),
                                   pytest.param("patlak", marks=pytest.mark.long)])  # fmt: skip
def test_standard_deviations_are_calibrated_and_values_unbiased(model):
    q = tissues()[model]
    x, sd = noisy(q)
    est = fit_kinetics(SERIES, x, type(q), None if model == "exchange" else sd)
    for name, value in vars(q).items():
        if value is None:
            continue
        score, excluded, bias = pull(est, q, name)
        assert excluded < 0.01
        assert abs(score.std() - 1) < 0.05 and abs(score.mean()) < 0.1
        assert abs(bias) < 0.01
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(est.residual**2)), sd, rtol=0.01)


def test_nothing_is_lost_in_the_subspace():
    slow, fast = 1e-4, 1.0
    small = subspace(SERIES, slow, fast)
    k = jnp.geomspace(slow * 1.001, fast * 0.999, 97)
    rows = Exponentials(plasma=0.05 * k, inflow_per_s=k, rate_per_s=k)
    expected = SERIES.signals(rows)
    np.testing.assert_allclose(small.signals(rows) @ small.basis.T, expected,
                               rtol=1e-5, atol=1e-7 * float(expected.max()))  # fmt: skip
    np.testing.assert_allclose(small.basis.T @ small.basis, jnp.eye(small.plasma.size), atol=1e-10)


def test_few_images_are_fitted_as_they_are():
    q = ExtendedTofts(jnp.array([0.001, 0.004]), 0.2, 0.05)
    series = dynamic_series(np.r_[0:40:10, 40:80:4, 80:280:20].astype(float), ARTERY)
    est = fit_kinetics(series, concentration(series, q), ExtendedTofts, 0.01)
    np.testing.assert_allclose(est.value.ktrans_per_s, q.ktrans_per_s, rtol=1e-5)
    np.testing.assert_allclose(est.value.ve, 0.2, rtol=1e-5)
    np.testing.assert_allclose(est.value.vp, 0.05, rtol=1e-5)
    assert (est.status == mapping.CONVERGED).all()


def test_it_is_the_optimum_that_a_search_of_the_compartments_finds():
    """Other coordinates, no projection, no amplitudes: one optimum, and one set of sds."""
    x, sd = noisy(jax.tree.map(lambda leaf: leaf[:20], tissues()["extended tofts"]))
    ours = fit_kinetics(SERIES, x, ExtendedTofts, sd)
    names = ("ktrans_per_s", "ve", "vp")
    bounds = {"ktrans_per_s": (1e-5, 0.02), "ve": (0.01, 1.0), "vp": (1e-4, 0.3)}
    known = ExtendedTofts(0.001, 0.2, 0.05)
    other = mapping.fit(SERIES, x, names, sd, known=known, linear=(), bounds=bounds)
    for name in names:
        for part in ("value", "sd"):
            left, right = (getattr(getattr(est, part), name) for est in (ours, other))
            np.testing.assert_allclose(left, right, rtol=2e-4)


def test_delays_are_found():
    rng = np.random.default_rng(0)
    late = rng.uniform(-4, 9, 400)
    q = ExtendedTofts(0.003, 0.2, jnp.full(400, 0.06), delay_s=late)
    x, sd = noisy(q, snr=60.0)
    est = fit_kinetics(SERIES, x, ExtendedTofts, sd, delay_s=(-6.0, 12.0))
    for name in ("delay_s", "ktrans_per_s"):
        score, excluded, _ = pull(est, q, name)
        assert excluded < 0.02 and abs(score.std() - 1) < 0.12 and np.abs(score).max() < 5


def test_derivatives_are_those_of_the_optimum():
    times = np.arange(0.0, 200.0, 10.0)
    c_a = perfusion.parker_2006(times, 20.0)
    series = dynamic_series(times, perfusion.ArterialInput(times, c_a))
    x = concentration(series, ExtendedTofts(0.003, 0.2, 0.05))[None]
    x = x + 0.01 * jax.random.normal(jax.random.key(0), x.shape)

    def f(p):
        moved = eqx.tree_at(lambda s: s.arterial.plasma_mmol_per_l, series, p["c_a"])
        est = fit_kinetics(moved, p["x"], ExtendedTofts, 0.01)
        return est.value.ktrans_per_s, est.value.ve, est.value.vp

    p = {"x": x, "c_a": c_a}
    scale = {"x": jnp.full(x.shape, 0.01), "c_a": jnp.full(c_a.shape, 0.02)}
    check_gradient(f, p, scale=scale, rtol=1e-5, atol=1e-6, directions=4)


def test_uncertain_t1_and_b1_are_carried_from_their_scans():
    """Signals with noise, a map of B1 with noise: the errors that come about are those foretold."""
    voxels, flip_rad, tr_s, b1_sd = 500, 0.26, 0.005, 0.03
    keys = jax.random.split(jax.random.key(0), 3)
    vfa = mr.sequence.spoiled_gradient_echo(np.deg2rad([3.0, 6.0, 15.0]), te_s=0.0, tr_s=tr_s)
    b1 = jnp.linspace(0.8, 1.1, voxels)
    truth = mr.Tissue(t1_s=1.2, t2_s=0.1, m0=1000.0, b1=b1)
    flips = jnp.abs(mr.simulate(vfa, truth))
    flips = flips + 0.3 * jax.random.normal(keys[0], flips.shape)
    q = ExtendedTofts(jnp.full(voxels, 0.003), 0.2, 0.05)
    echo = SpoiledEcho(flip_rad * b1, tr_s, 1.2, 4.5)
    s = perfusion.signal_of_concentration(echo, concentration(SERIES, q), 30.0)
    s = s + 0.5 * jax.random.normal(keys[1], s.shape)
    seen = b1 + b1_sd * jax.random.normal(keys[2], b1.shape)
    for aware in (True, False):
        found, t1 = perfusion.fit_signals(
            (vfa, SERIES), (flips, s), ExtendedTofts, slice(0, 14), (0.3, 0.5), flip_rad=flip_rad,
            tr_s=tr_s, b1=seen, b1_sd=b1_sd if aware else 0.0)  # fmt: skip
        assert (t1.status == mapping.CONVERGED).all()
        for name in ("ktrans_per_s", "vp"):
            spread = pull(found, q, name)[0].std()
            assert abs(spread - 1) < 0.1 if aware else spread > 1.5


def test_an_uncertain_input_is_carried_into_the_parameters():
    q = ExtendedTofts(jnp.array([0.003]), 0.2, 0.05)
    x = concentration(SERIES, q)
    tiny, noise = 1e-4, 0.1
    est = fit_kinetics(SERIES, x, ExtendedTofts, tiny, arterial_sd=noise)
    rng = np.random.default_rng(0)
    drawn = []
    for _ in range(100):
        c_a = ARTERY.plasma_mmol_per_l + noise * rng.standard_normal(TIMES.size)
        series = dynamic_series(TIMES, perfusion.ArterialInput(TIMES, c_a))
        value = fit_kinetics(series, x, ExtendedTofts, tiny).value
        drawn.append([float(value.ktrans_per_s[0]), float(value.ve[0]), float(value.vp[0])])
    expected = np.array([est.sd.ktrans_per_s[0], est.sd.ve[0], est.sd.vp[0]])
    np.testing.assert_allclose(np.std(drawn, axis=0), expected, rtol=0.2)
    scaled = fit_kinetics(SERIES, x, ExtendedTofts, tiny, arterial_scale_sd=0.1)
    np.testing.assert_allclose(scaled.sd.ktrans_per_s, 0.1 * 0.003, rtol=1e-3)
    np.testing.assert_allclose(scaled.sd.vp, 0.1 * 0.05, rtol=1e-2)


def test_what_cannot_be_told_says_so():
    q = ExtendedTofts(jnp.array([0.002, 0.0]), 0.2, jnp.array([0.05, 0.0]))
    x, _ = noisy(q)
    x = jnp.concatenate([x, jnp.full((1, TIMES.size), jnp.nan), jnp.zeros((1, TIMES.size))])
    est = fit_kinetics(SERIES, x, ExtendedTofts)
    assert est.status[0] == mapping.CONVERGED and est.status[1] != mapping.CONVERGED
    assert est.status[2] == mapping.MASKED and est.status[3] == mapping.FAILED
    assert np.isinf(est.sd.ve[1:]).all() and np.isfinite(est.value.ve).all()


def bad(change):
    x = concentration(SERIES, ExtendedTofts(jnp.full(10, 0.003), 0.2, 0.05))
    return lambda: fit_kinetics(SERIES, change(x), ExtendedTofts)


BAD = {
    "time not last": bad(lambda x: x.T),
    "mol/l given": bad(lambda x: x * 1e-5),
    "signals": bad(lambda x: x * 1e4),
    "negative on average": bad(lambda x: -x),
    "no voxel to fit": bad(lambda x: x * jnp.nan),
    "ExtendedTofts": lambda: fit_kinetics(SERIES, jnp.ones((2, TIMES.size)), Exponentials),
}


@pytest.mark.parametrize("cause", BAD)
def test_bad_input_is_named(cause):
    with pytest.raises(InputError, match=cause):
        BAD[cause]()
