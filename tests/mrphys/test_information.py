import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import minimize_scalar

import mrphys as mr
from mrphys import InputError
from mrphys.information import (
    cramer_rao,
    efficiency,
    fisher_information,
    undetermined,
    van_trees,
)
from mrphys.sequence import diffusion_weighted
from mrphys.simulate import simulate
from mrphys.tissue import Tissue
from tests.laws import check_gradient

ADC = 0.8e-3
Q = Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=ADC, m0=0.7)


@pytest.mark.core
def test_two_point_adc_has_its_closed_form(rtol):
    """ADC = log(S0/S1)/Δb: variances of the logarithms add."""
    theta = diffusion_weighted([0, 1000], te_s=0.08, averages=[2.0, 5.0])
    s0, s1 = simulate(theta, Q).real
    expected = 0.01 / 1000 * np.sqrt(1 / (2 * s0**2) + 1 / (5 * s1**2))
    bound = cramer_rao(theta, Q, noise_sd=0.01)
    np.testing.assert_allclose(bound["adc_mm2_per_s"], expected, rtol=rtol(1e-12, 1e-5))
    np.testing.assert_allclose(bound["m0"], 0.7 * 0.01 / (np.sqrt(2) * s0), rtol=rtol(1e-12, 1e-5))


@pytest.mark.parametrize(("optimal_split", "optimum"), [(False, 1.1089), (True, 1.2785)])
def test_best_second_b_value_is_the_analytic_one(optimal_split, optimum):
    """Equal averages: u = 1 + exp(-2u). Split r : 1 - r at its best: u = 1 + exp(-u)."""

    def sd(u):
        share = np.exp(u) / (1 + np.exp(u)) if optimal_split else 0.5
        theta = diffusion_weighted([0, u / ADC], te_s=0.08, averages=[1 - share, share])
        return float(cramer_rao(theta, Q, noise_sd=0.01)["adc_mm2_per_s"])

    found = minimize_scalar(sd, bounds=(0.5, 2.5), method="bounded", options={"xatol": 1e-6})
    best = found.x  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_allclose(best, optimum, atol=2e-4)
    np.testing.assert_allclose(best, 1 + np.exp(-best * (1 if optimal_split else 2)), atol=2e-4)


@pytest.mark.core
def test_what_the_readouts_cannot_tell_is_infinite_and_the_rest_is_not(rtol):
    theta = diffusion_weighted([0, 1000], te_s=0.08)
    known = cramer_rao(theta, Q, noise_sd=0.01)
    both = cramer_rao(theta, Q, wrt=("m0", "t2_s", "adc_mm2_per_s", "b0_hz"), noise_sd=0.01)
    assert all(np.isinf(both[name]) for name in ("m0", "t2_s", "b0_hz"))
    name = "adc_mm2_per_s"
    np.testing.assert_allclose(both[name], known[name], rtol=rtol(1e-10, 1e-4))
    alone = cramer_rao(diffusion_weighted([700], te_s=0.08), Q, noise_sd=0.01)
    assert np.isinf(alone[name]) and np.isinf(alone["m0"])


@pytest.mark.core
def test_maps_of_tissue_and_noise():
    theta = diffusion_weighted([0, 1000], te_s=0.08)
    adc = np.array([[0.5e-3, 1e-3, 2e-3]] * 2)
    noise_sd = jnp.array([[0.01] * 3, [0.02] * 3])
    q = Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=adc)
    bound = cramer_rao(theta, q, noise_sd=noise_sd)["adc_mm2_per_s"]
    assert bound.shape == (2, 3)
    np.testing.assert_allclose(bound[1], 2 * bound[0], rtol=1e-5)


def test_complex_models_count_both_parts():
    """x = A exp(iφ): F = diag(1, A²) / σ² (Rife, Boorstyn 1974, doi 10.1109/TIT.1974.1055282)."""
    information = fisher_information(
        lambda q: (q["a"] * jnp.exp(1j * q["phase"]))[None], {"a": 3.0, "phase": 0.4}, 0.5
    )
    np.testing.assert_allclose(information, np.diag([4.0, 36.0]), atol=1e-12)


def test_any_model_given_as_a_function_scores_its_simulated_data():
    """F is the covariance of the score, here by simulation."""
    t = jnp.array([0.0, 1.0, 3.0])

    def model(q):
        return q[0] * jnp.exp(-q[1] * t)

    q, sd = jnp.array([2.0, 0.5]), jnp.array([0.1, 0.2, 0.1])
    y = model(q)[None] + sd[None] * jax.random.normal(jax.random.key(0), (20_000, 3))

    def log_likelihood(q, y):
        return -(((y - model(q)) / sd) ** 2).sum() / 2

    scores = jax.vmap(jax.grad(log_likelihood), (None, 0))(q, y)
    np.testing.assert_allclose(np.cov(scores.T), fisher_information(model, q, sd), rtol=0.05)


@pytest.mark.parametrize("wrt", [("adc_mm2_per_s", "m0"), ("adc_mm2_per_s", "m0", "t2_s")])
def test_gradient_of_the_bound_in_the_design(wrt):
    def f(p):
        theta = diffusion_weighted(p["b"], te_s=0.08, averages=p["averages"])
        q = Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=p["adc"], m0=0.7)
        return 1e3 * cramer_rao(theta, q, wrt, noise_sd=0.01)["adc_mm2_per_s"]

    p = {"b": [50.0, 400.0, 900.0], "averages": [1.0, 2.0, 3.0], "adc": ADC}
    check_gradient(f, p, rtol=1e-6)


def test_unknown_parameters_are_refused():
    with pytest.raises(InputError, match="adc"):
        cramer_rao(diffusion_weighted([0, 1000], te_s=0.08), Q, ("adc",), noise_sd=0.01)


def test_bounds_of_a_train_are_those_of_its_jacobian_voxel_by_voxel():
    theta = mr.sequence.spin_echo_train(np.linspace(1.5, 2.5, 6), 0.01)
    q = mr.Tissue(t1_s=[0.8, 1.5], t2_s=[0.06, 0.1], b1=[0.9, 1.1])
    found = mr.cramer_rao(theta, q, ("t2_s", "m0", "b1"), noise_sd=0.02)
    for i in range(2):
        t1 = q.t1_s[i]

        def model(p, t1=t1):
            return theta.signal(mr.Tissue(t1_s=t1, t2_s=p["t2_s"], m0=p["m0"], b1=p["b1"]))

        p = {"b1": q.b1[i], "m0": 1.0, "t2_s": q.t2_s[i]}
        information = mr.information.fisher_information(model, p, 0.02)
        expected = np.sqrt(np.diag(np.linalg.inv(information)))
        for name, sd in zip(sorted(p), expected, strict=True):
            assert float(found[name][i]) == pytest.approx(sd, rel=1e-6)


def test_magnitudes_score_their_simulated_data():
    """F of Rician data, at an SNR from 3 to below 1, is the covariance of the score."""
    t = jnp.array([0.0, 1.0, 3.0])

    def model(q):
        return q[0] * jnp.exp(-q[1] * t + 1j)

    q, sd = jnp.array([2.0, 0.7]), 0.7
    real, imaginary = jax.random.normal(jax.random.key(0), (2, 20_000, 3))
    m = jnp.abs(model(q)[None] + sd * jax.lax.complex(real, imaginary))

    def log_likelihood(q, m):
        return jnp.sum(mr.noise.rician_log_likelihood(m, jnp.abs(model(q)), jnp.full(3, sd)))

    scores = jax.vmap(jax.grad(log_likelihood), (None, 0))(q, m)
    expected = fisher_information(model, q, sd, rician=True)
    np.testing.assert_allclose(np.cov(scores.T), expected, rtol=0.05)
    assert np.all(np.linalg.eigvalsh(fisher_information(model, q, sd) - expected) > 0)


def test_magnitudes_of_high_snr_do_as_well_as_complex_data():
    theta = diffusion_weighted([0, 1000], te_s=0.08)
    complex_data, magnitudes = (
        cramer_rao(theta, Q, noise_sd=1e-4, rician=rician) for rician in (False, True)
    )
    np.testing.assert_allclose(
        magnitudes["adc_mm2_per_s"], complex_data["adc_mm2_per_s"], rtol=1e-5
    )


def test_gradient_of_the_bound_of_magnitudes_through_a_null():
    """An inversion recovery whose second readout is exactly 0."""
    wait = jnp.array([0.1, jnp.log(2.0), 2.0])

    def f(p):
        information = fisher_information(
            lambda q: q["m0"] * (1 - 2 * jnp.exp(-(wait + p["later"]) / q["t1"])) + 0j,
            {"m0": p["m0"], "t1": 1.0},
            0.1,
            rician=True,
        )
        return information / 100

    check_gradient(f, {"later": jnp.zeros(3), "m0": 1.0}, rtol=1e-6, atol=1e-8)


def test_what_is_known_before_counts():
    """One unknown: 1/sd² adds up; a nuisance that is known exactly is none."""
    theta = diffusion_weighted([0, 1000], te_s=0.08)
    name = "adc_mm2_per_s"
    alone = cramer_rao(theta, Q, [name], noise_sd=0.01)[name]
    both = cramer_rao(theta, Q, [name], noise_sd=0.01, prior_sd={name: 1e-5})[name]
    np.testing.assert_allclose(1 / both**2, 1 / alone**2 + 1e10, rtol=1e-12)
    sure = cramer_rao(theta, Q, [name], nuisance=["m0"], noise_sd=0.01, prior_sd={"m0": 1e-9})
    np.testing.assert_allclose(sure[name], alone, rtol=1e-6)
    only = cramer_rao(diffusion_weighted([700], te_s=0.08), Q, noise_sd=0.01, prior_sd={"m0": 0.1})
    assert np.isfinite(only[name])
    with pytest.raises(InputError, match="t2_s"):
        cramer_rao(theta, Q, [name], noise_sd=0.01, prior_sd={"t2_s": 1.0})


def test_van_trees_bounds_the_best_estimate_of_a_population():
    """m0 of a population normal around 1: the posterior sd, which the posterior mean reaches."""
    theta, prior_sd, noise_sd = mr.sequence.spin_echo(0.05), 0.2, 0.3
    q = Tissue(t1_s=1.0, t2_s=[0.05, 0.1], m0=1.0)
    slopes = np.exp(-0.05 / np.array([0.05, 0.1]))
    found = van_trees(theta, q, ["m0"], noise_sd=noise_sd, prior_sd={"m0": prior_sd})["m0"]
    expected = (np.mean(slopes**2) / noise_sd**2 + 1 / prior_sd**2) ** -0.5
    assert float(found) == pytest.approx(expected, rel=1e-12)


def test_precision_per_time_does_not_know_of_repetition():
    one, four = (diffusion_weighted([0, 1000], te_s=0.08, averages=n) for n in (1, 4))
    name = "adc_mm2_per_s"
    found = [float(efficiency(theta, Q, noise_sd=0.01)[name]) for theta in (one, four)]
    assert found[0] == pytest.approx(found[1], rel=1e-12)
    sd = float(cramer_rao(one, Q, noise_sd=0.01)[name])
    assert found[0] == pytest.approx(ADC / sd / 4, rel=1e-12)


def test_the_combination_that_cannot_be_told_is_named():
    theta = diffusion_weighted([0, 1000], te_s=0.08)
    names = ("m0", "t2_s", "b0_hz", "adc_mm2_per_s")
    found = mr.information.information(theta, Q, names, noise_sd=0.01)
    named = undetermined(found, names, [getattr(Q, name) for name in names])
    assert sorted(named) == ["b0_hz alone", "m0 +100 % with t2_s -100 %"]
    regular = mr.information.information(theta, Q, noise_sd=0.01)
    assert undetermined(regular, ("adc_mm2_per_s", "m0")) == []
