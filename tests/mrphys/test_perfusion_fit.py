"""Kinetic parameters from curves: calibrated, unbiased, differentiable, sure of T1 and input."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import curve_fit

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
VOXELS = 1000
"""Of nearly all tests: one program fits them."""


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
@pytest.mark.parametrize("model", ["extended tofts",
                                   pytest.param("exchange", marks=pytest.mark.long),
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
        assert abs(score.std() - 1) < 0.07 and abs(score.mean()) < 4 / VOXELS**0.5
        assert abs(bias) < 0.01
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(est.residual**2)), sd, rtol=0.01)


def test_nothing_is_lost_in_the_subspace():
    slow, fast = 1e-4, 1.0
    small = subspace(SERIES, slow, fast)
    k = jnp.geomspace(slow * 1.001, fast * 0.999, 97)
    rows = Exponentials(plasma=0.05 * k, inflow_per_s=k, rate_per_s=k)
    expected = concentration(SERIES, rows)
    found = eqx.filter_jit(small.signals)(rows)
    np.testing.assert_allclose(found @ small.basis.T, expected,
                               rtol=1e-5, atol=1e-7 * float(expected.max()))  # fmt: skip
    np.testing.assert_allclose(small.basis.T @ small.basis, jnp.eye(small.plasma.size), atol=1e-10)


@eqx.filter_jit
def curve(c_a, ktrans, ve, vp):
    series = eqx.tree_at(lambda s: s.arterial.plasma_mmol_per_l, SERIES, c_a)
    return series.signals(ExtendedTofts(ktrans, ve, vp))[0]


def searched(c_a, x, sd):
    """By SciPy: values, and the standard deviations that their curvature gives."""
    f = lambda t, *p: np.asarray(curve(c_a, *map(jnp.asarray, p)))  # noqa: E731
    start, low, high = [0.002, 0.2, 0.04], [1e-6, 0.01, -0.2], [0.1, 2.0, 0.5]
    sigma = np.full(TIMES.size, sd)
    best, covariance = curve_fit(f, TIMES, x, start, sigma, absolute_sigma=True,
                                 bounds=(low, high), x_scale=start, xtol=1e-10)  # fmt: skip
    return best, np.sqrt(np.diag(covariance))


def test_it_is_the_optimum_that_another_search_finds():
    """Other coordinates, no projection, no amplitudes: one optimum, and one set of sds."""
    x, sd = noisy(tissues()["extended tofts"])
    ours = fit_kinetics(SERIES, x, ExtendedTofts, sd)
    for voxel in range(4):
        value, spread = searched(ARTERY.plasma_mmol_per_l, np.asarray(x[voxel]), sd)
        for part, expected in ((ours.value, value), (ours.sd, spread)):
            found = [part.ktrans_per_s[voxel], part.ve[voxel], part.vp[voxel]]
            np.testing.assert_allclose(found, expected, rtol=2e-4)


@pytest.mark.long
def test_bounds_hold_the_voxels_that_leave_them_and_no_others():
    x, sd = noisy(tissues()["extended tofts"])
    free = fit_kinetics(SERIES, x, ExtendedTofts, sd)
    est = fit_kinetics(SERIES, x, ExtendedTofts, sd, bounds={"ve": (0.01, 0.3), "vp": (0.0, 1.0)})
    ve = np.asarray(est.value.ve)
    left = np.asarray(free.value.ve) > 0.3
    assert 0.2 < left.mean() < 0.5 and (ve <= 0.3).all() and (est.value.vp >= 0).all()
    np.testing.assert_allclose(ve[left], 0.3, rtol=2e-3)
    assert (est.status[np.asarray(free.value.ve) > 0.31] == mapping.AT_BOUNDARY).all()
    inside = ~left & (np.asarray(free.value.vp) >= 0)
    np.testing.assert_array_equal(ve[inside], free.value.ve[inside])
    assert (est.residual[left] >= free.residual[left] * (1 - 1e-9)).all()


@pytest.mark.long
def test_delays_are_found():
    late = np.random.default_rng(0).uniform(-4, 9, VOXELS)
    q = ExtendedTofts(0.003, 0.2, jnp.full(VOXELS, 0.06), delay_s=late)
    x, sd = noisy(q, snr=60.0)
    est = fit_kinetics(SERIES, x, ExtendedTofts, sd, delay_s=(-6.0, 12.0))
    for name in ("delay_s", "ktrans_per_s"):
        score, excluded, _ = pull(est, q, name)
        assert excluded < 0.02 and abs(score.std() - 1) < 0.08 and np.abs(score).max() < 5


def few_images():
    times = np.arange(0.0, 200.0, 10.0)
    series = dynamic_series(times, perfusion.arterial_input(times, perfusion.parker_2006(times)))
    return series, concentration(series, Tofts(0.003, jnp.array([0.2])))


def fitted(model, x, c_a, series):
    moved = eqx.tree_at(lambda s: s.arterial.plasma_mmol_per_l, series, c_a)
    est = fit_kinetics(moved, x, model, 0.01)
    return [value for value in vars(est.value).values() if value is not None]


@pytest.mark.long
def test_derivatives_are_those_of_the_optimum():
    """Of data without noise: dq = (JᵀJ)⁻¹ Jᵀ (dx - ∂x/∂c_a dc_a), q the truth."""
    series, x = few_images()
    c_a = series.arterial.plasma_mmol_per_l
    q, pull_back = jax.vjp(lambda *p: jnp.concatenate(fitted(Tofts, *p, series)), x, c_a)
    np.testing.assert_allclose(q, [0.003, 0.2], rtol=1e-8)

    @jax.jit
    def signal(q, c_a):
        moved = eqx.tree_at(lambda s: s.arterial.plasma_mmol_per_l, series, c_a)
        return moved.signals(Tofts(*q))[0]

    slopes, by_input = jax.jit(jax.jacfwd(signal, (0, 1)))(q, c_a)
    expected = np.linalg.pinv(slopes)
    for i, row in enumerate(np.eye(2)):
        by_x, by_c = pull_back(jnp.asarray(row))
        size = np.abs(expected[i]).max()
        np.testing.assert_allclose(by_x[0], expected[i], atol=1e-6 * size)
        np.testing.assert_allclose(by_c, -expected[i] @ by_input, atol=1e-6 * size)


@pytest.mark.parametrize("model", [Patlak, pytest.param(ExtendedTofts, marks=pytest.mark.long)])
def test_gradients(model):
    series, x = few_images()
    x = x + 0.01 * jax.random.normal(jax.random.key(0), x.shape)
    p = {"x": x, "c_a": series.arterial.plasma_mmol_per_l}
    scale = {"x": jnp.full(x.shape, 0.01), "c_a": jnp.full(p["c_a"].shape, 0.02)}
    check_gradient(lambda p: fitted(model, p["x"], p["c_a"], series), p, scale=scale,
                   rtol=1e-5, atol=1e-6, directions=4)  # fmt: skip


def test_uncertain_t1_and_b1_are_carried_from_their_scans():
    """Signals with noise, a map of B1 with noise: the errors that come about are those foretold."""
    flip_rad, tr_s, b1_sd = 0.26, 0.005, 0.03
    keys = jax.random.split(jax.random.key(0), 3)
    vfa = mr.sequence.spoiled_gradient_echo(np.deg2rad([3.0, 6.0, 15.0]), te_s=0.0, tr_s=tr_s)
    b1 = jnp.linspace(0.8, 1.1, VOXELS)
    truth = mr.Tissue(t1_s=1.2, t2_s=0.1, m0=1000.0, b1=b1)
    flips = jnp.abs(mr.simulate(vfa, truth))
    flips = flips + 0.3 * jax.random.normal(keys[0], flips.shape)
    q = ExtendedTofts(jnp.full(VOXELS, 0.003), 0.2, 0.05)
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
    """Of noise in each of its samples, and of a factor common to all: beside searches by SciPy."""
    truth = ExtendedTofts(jnp.full(VOXELS, 0.003), 0.2, 0.05)
    x, c_a = concentration(SERIES, truth), np.asarray(ARTERY.plasma_mmol_per_l)
    est = fit_kinetics(SERIES, x, ExtendedTofts, 1e-4, arterial_sd=0.1, arterial_scale_sd=0.05)
    rng, drawn = np.random.default_rng(0), []
    for _ in range(150):
        moved = c_a * (1 + 0.05 * rng.standard_normal()) + 0.1 * rng.standard_normal(c_a.size)
        drawn.append(searched(jnp.asarray(moved), np.asarray(x[0]), 1e-4)[0])
    expected = [est.sd.ktrans_per_s[0], est.sd.ve[0], est.sd.vp[0]]
    np.testing.assert_allclose(np.std(drawn, axis=0), expected, rtol=0.2)


def test_what_cannot_be_told_says_so():
    q = ExtendedTofts(jnp.full(VOXELS, 0.002).at[1].set(0.0), 0.2, jnp.full(VOXELS, 0.05))
    x, _ = noisy(q)
    x = x.at[2].set(0.0).at[1].add(-0.05 * ARTERY.plasma_mmol_per_l)
    x = jnp.concatenate([x, jnp.full_like(x[:1], jnp.nan)])
    est = fit_kinetics(SERIES, x, ExtendedTofts)
    assert est.status[0] == mapping.CONVERGED and est.status[1] != mapping.CONVERGED
    assert est.status[-1] == mapping.MASKED and est.status[2] == mapping.FAILED
    assert np.isinf(est.sd.ve[jnp.array([1, 2, -1])]).all() and np.isfinite(est.value.ve).all()


@pytest.mark.long
def test_a_delay_that_brings_the_input_onto_images_is_an_optimum_too():
    """Of an input straight between samples its slope would jump there; and an input too early,
    taken away again, is only a second best."""
    times = np.arange(0.0, 300.0, 1.0)
    artery = perfusion.arterial_input(times, perfusion.parker_2006(times, 20.0))
    q = tissues(40, 3)["extended tofts"]
    q = eqx.tree_at(lambda q: q.ktrans_per_s, q, q.ktrans_per_s.at[0].set(0.35 / 60))
    q = eqx.tree_at(lambda q: (q.ve, q.vp), q, (q.ve.at[0].set(0.05), q.vp.at[0].set(0.02)))
    c = concentration(dynamic_series(times, artery, delay_s=5.0), q)
    x = c + 0.005 * jax.random.normal(jax.random.key(0), c.shape)
    est = fit_kinetics(dynamic_series(times, artery), x, ExtendedTofts, delay_s=(-10.0, 10.0))
    assert (est.status == mapping.CONVERGED).all()
    z = (est.value.delay_s - 5.0) / est.sd.delay_s
    assert np.abs(est.value.delay_s - 5.0).max() < 0.5 and z.std() < 1.5
    assert np.abs(est.value.ktrans_per_s / q.ktrans_per_s - 1).max() < 0.1


@pytest.mark.long
def test_a_delay_is_found_with_an_input_seen_no_more_often_than_the_tissue():
    fine, times = np.arange(0.0, 300.0, 0.1), np.arange(0.0, 300.0, 3.0)
    artery = perfusion.arterial_input(fine, perfusion.parker_2006(fine, 30.0))
    seen = perfusion.ArterialInput(times, artery.at(jnp.asarray(times)))
    q = tissues(400, 1)["extended tofts"]
    delay_s = jnp.asarray(np.random.default_rng(1).uniform(0.0, 6.0, 400))
    q = eqx.tree_at(lambda q: q.delay_s, q, delay_s, is_leaf=lambda leaf: leaf is None)
    c = concentration(dynamic_series(times, artery), q)
    noise_sd = 0.05 * float(jnp.mean(jnp.max(c, axis=-1)))
    x = c + noise_sd * jax.random.normal(jax.random.key(0), c.shape)
    est = fit_kinetics(
        dynamic_series(times, seen), x, ExtendedTofts, noise_sd, delay_s=(-3.0, 10.0)
    )
    assert (est.status != mapping.FAILED).all()
    good = np.asarray(est.status == mapping.CONVERGED)
    assert good.mean() > 0.95
    at_a_corner = np.abs(est.value.delay_s / 3 - np.round(est.value.delay_s / 3)) < 1e-3
    assert at_a_corner.mean() < 0.02
    z = np.asarray((est.value.ktrans_per_s - q.ktrans_per_s) / est.sd.ktrans_per_s)[good]
    assert abs(np.percentile(np.abs(z), 68.3) - 1) < 0.2


def bad(change):
    x = concentration(SERIES, ExtendedTofts(jnp.full(10, 0.003), 0.2, 0.05))
    return lambda: fit_kinetics(SERIES, change(x), ExtendedTofts)


BAD = {
    "time not last": bad(lambda x: x.T),
    "mol/l given": bad(lambda x: x * 1e-5),
    "signals": bad(lambda x: x * 1e4),
    "negative on average": bad(lambda x: -x),
    "0 in every image": bad(lambda x: x * 0),
    "no voxel to fit": bad(lambda x: x * jnp.nan),
    "ExtendedTofts": lambda: fit_kinetics(SERIES, jnp.ones((2, TIMES.size)), Exponentials),
}


@pytest.mark.parametrize("cause", BAD)
def test_bad_input_is_named(cause):
    with pytest.raises(InputError, match=cause):
        BAD[cause]()
