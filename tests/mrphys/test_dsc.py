"""Volume, flow and transit time by deconvolution; leakage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys.perfusion import (
    Tofts,
    arterial_input,
    concentration,
    dynamic_series,
    leakage_corrected,
    parker_2006,
    vascular_maps,
)
from tests.laws import check_gradient

TIMES = np.arange(0.0, 150.0, 1.0)
BOLUS = np.asarray(np.exp(-0.5 * ((TIMES - 25) / 2) ** 2) * 6)
SERIES = dynamic_series(TIMES, arterial_input(TIMES, BOLUS, 0.0))
FLOW, VOLUME = jnp.array([0.002, 0.004, 0.006]), 0.04


def curves(delay_s=None):
    """Of one well-mixed compartment: R(t) = exp(-F t / V)."""
    return concentration(SERIES, Tofts(FLOW, VOLUME, delay_s))


@pytest.mark.core
@pytest.mark.parametrize("method, within", [("osvd", 0.2), ("csvd", 0.3), ("tikhonov", 0.3)])
def test_flow_volume_and_transit_of_a_mixed_compartment(method, within, rtol):
    c = curves()
    noise = 0.002 * jax.random.normal(jax.random.key(0), c.shape, c.dtype)
    found = vascular_maps(TIMES, c + noise, BOLUS, method)
    np.testing.assert_allclose(found.cbv, VOLUME, rtol=0.05)
    np.testing.assert_allclose(found.cbf_per_s, FLOW, rtol=within)
    np.testing.assert_allclose(found.mtt_s, found.cbv / found.cbf_per_s, rtol=1e-5)
    assert (jnp.abs(found.tmax_s) <= 4).all()
    scaled = vascular_maps(TIMES, c + noise, BOLUS, method, kappa=0.7)
    np.testing.assert_allclose(scaled.cbf_per_s, 0.7 * found.cbf_per_s, rtol=1e-5)


def test_the_residue_function_is_found_where_there_is_no_noise():
    sharp = np.where(TIMES < 20, 0.0, 6 * np.exp(-(TIMES - 20) / 4))
    series = dynamic_series(TIMES, arterial_input(TIMES, sharp, 0.0))
    found = vascular_maps(
        TIMES, concentration(series, Tofts(0.006, 0.04)), sharp, "csvd", threshold=0.0
    )
    expected = 0.006 * np.exp(-0.006 / 0.04 * TIMES)
    np.testing.assert_allclose(found.residue_per_s[3:100], expected[3:100], atol=2e-4)


@pytest.mark.parametrize("delay_s", [-3.0, 4.0])
def test_an_early_or_late_artery_changes_when_not_how_much(delay_s):
    late = curves(jnp.full(3, delay_s))
    there = vascular_maps(TIMES, late, BOLUS, "csvd")
    here = vascular_maps(TIMES, curves(), BOLUS, "csvd")
    np.testing.assert_allclose(there.tmax_s - here.tmax_s, delay_s, atol=0.1)
    np.testing.assert_allclose(there.cbf_per_s, here.cbf_per_s, rtol=0.02)


@pytest.mark.core
def test_leakage_is_taken_away(rtol):
    reference = jnp.asarray(np.asarray(parker_2006(TIMES, 20.0)), float)
    steps = jnp.diff(jnp.asarray(TIMES, reference.dtype)) * (reference[1:] + reference[:-1]) / 2
    whole = jnp.concatenate([jnp.zeros(1, reference.dtype), jnp.cumsum(steps)])
    k1, k2 = jnp.array([[1.5], [0.7]]), jnp.array([[0.01], [-0.004]])
    found = leakage_corrected(TIMES, k1 * reference[None] - k2 * whole[None], reference)
    np.testing.assert_allclose(found.k1, k1[:, 0], rtol=rtol(1e-9, 1e-4))
    np.testing.assert_allclose(found.k2_per_s, k2[:, 0], rtol=rtol(1e-9, 1e-3))
    np.testing.assert_allclose(found.corrected, k1 * reference[None], atol=rtol(1e-9, 1e-2))
    noise = 0.05 * jax.random.normal(jax.random.key(0), (1000, TIMES.size), reference.dtype)
    drawn = leakage_corrected(TIMES, (k1[0] * reference - k2[0] * whole)[None] + noise, reference)
    score = (drawn.k2_per_s - 0.01) / drawn.k2_sd_per_s
    assert abs(float(score.std()) - 1) < 0.07


@pytest.mark.parametrize("method", ["csvd", "osvd"])
@pytest.mark.parametrize("leaks", [False, True])
def test_standard_deviations_are_those_of_repeated_measurements(method, leaks):
    mean, noise_sd = curves()[1], 0.0025
    c = jnp.broadcast_to(curves(), (1000, *curves().shape))
    noise = noise_sd * jax.random.normal(jax.random.key(0), c.shape, c.dtype)
    tissue = leakage_corrected(TIMES, c + noise, mean, noise_sd) if leaks else c + noise
    given = None if leaks else noise_sd
    found = vascular_maps(TIMES, tissue, BOLUS, method, noise_sd=given)
    pairs = (found.cbv, found.cbv_sd), (found.cbf_per_s, found.cbf_sd_per_s)
    for value, sd in (*pairs, (found.mtt_s, found.mtt_sd_s)):
        score = (value - jnp.mean(value, axis=0)[None]) / sd
        assert 0.93 < float(score.std()) < 1.05
    np.testing.assert_allclose(found.noise_sd, noise_sd)
    alone = vascular_maps(TIMES, c + noise, BOLUS, method).noise_sd
    np.testing.assert_allclose(jnp.mean(alone), noise_sd, rtol=0.05)


def test_what_is_not_known_has_no_standard_deviation():
    c = curves() * jnp.array([[1.0], [0.0], [1.0]])
    found = vascular_maps(TIMES, c, BOLUS, "csvd", noise_sd=0.01)
    assert jnp.isinf(found.cbf_sd_per_s[1]) and jnp.isfinite(found.cbf_sd_per_s[::2]).all()
    chosen = vascular_maps(TIMES, c, BOLUS, "tikhonov", noise_sd=0.01)
    assert jnp.isinf(chosen.cbf_sd_per_s).all() and jnp.isfinite(chosen.cbv_sd[::2]).all()
    with pytest.raises(InputError, match="noise_sd"):
        vascular_maps(TIMES, c, BOLUS, noise_sd=0.0)


def test_gradients():
    def f(p):
        maps = vascular_maps(TIMES, p["c"], p["c_a"], "tikhonov")
        left = leakage_corrected(TIMES, p["c"], p["c_a"])
        return maps.cbv, maps.cbf_per_s, maps.cbv_sd, left.corrected[:, -1], left.k1_sd

    p = {"c": curves()[:2], "c_a": jnp.asarray(BOLUS)}
    check_gradient(f, p, scale=1e-3, rtol=1e-5, atol=1e-6, directions=2)


BAD = {
    "cut to the first pass": (TIMES, curves, BOLUS[:40]),
    "longest": (np.r_[TIMES[:-1], 170.0], curves, BOLUS),
    "which fall": (TIMES, curves, -BOLUS),
    "minutes": (TIMES / 60, curves, BOLUS),
}


@pytest.mark.parametrize("cause", BAD)
def test_bad_input_is_named(cause):
    times, tissue, arterial = BAD[cause]
    with pytest.raises(InputError, match=cause):
        vascular_maps(times, tissue(), arterial)
