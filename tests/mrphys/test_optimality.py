"""Criteria of a population against the matrices they are of."""

import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys.errors import InputError
from tests.laws import check_gradient

Q = mr.Tissue(t1_s=[0.8, 1.0, 1.4], t2_s=[0.05, 0.08, 0.1], adc_mm2_per_s=[0.7e-3, 1e-3, 1.5e-3])
NAMES = ("adc_mm2_per_s", "m0")
B, REPEATS = [0.0, 400.0, 900.0], [1.0, 2.0, 3.0]


def theta(b=B, averages=REPEATS):
    return mr.sequence.diffusion_weighted(b, te_s=0.07, averages=averages)


def spreads():
    found = np.asarray(mr.information.information(theta(), Q, NAMES, noise_sd=0.01))
    size = np.stack([np.asarray(Q.adc_mm2_per_s), np.ones(3)], axis=1)
    return np.linalg.inv(found) / size[:, :, None] / size[:, None, :]


EXPECTED = {
    "A": lambda c: np.sqrt(np.trace(c, axis1=1, axis2=2) / 2),
    "D": lambda c: np.linalg.det(c) ** 0.25,
    "E": lambda c: np.sqrt(np.linalg.eigvalsh(c)[:, -1]),
}


@pytest.mark.parametrize("kind", ["A", "D", "E"])
def test_criteria_are_of_the_covariance(kind):
    each = EXPECTED[kind](spreads())
    weights = np.array([1.0, 2.0, 5.0])
    mean = mr.uncertainty(Q, NAMES, noise_sd=0.01, kind=kind, weights=weights)(theta())
    assert float(mean) == pytest.approx(np.average(each, weights=weights), rel=1e-10)
    worst = mr.uncertainty(Q, NAMES, noise_sd=0.01, kind=kind, over="worst")(theta())
    assert 3 ** (-1 / 32) * each.max() <= float(worst) <= each.max()


def test_one_parameter_is_its_relative_bound_and_time_counts():
    sd = mr.cramer_rao(theta(), Q, noise_sd=0.01)["adc_mm2_per_s"] / Q.adc_mm2_per_s
    loss = mr.uncertainty(Q, NAMES[:1], noise_sd=0.01, per_time=True)(theta())
    assert float(loss) == pytest.approx(float(jnp.mean(sd)) * np.sqrt(48.0), rel=1e-10)


def test_over_a_prior_it_is_van_trees():
    prior_sd = {"adc_mm2_per_s": 3e-4}
    found = mr.uncertainty(Q, NAMES[:1], noise_sd=0.3, over="prior", prior_sd=prior_sd)(theta())
    bound = mr.information.van_trees(theta(), Q, NAMES, noise_sd=0.3, prior_sd=prior_sd)
    typical = float(jnp.mean(Q.adc_mm2_per_s))
    assert float(found) == pytest.approx(float(bound["adc_mm2_per_s"]) / typical, rel=1e-10)


@pytest.mark.parametrize(("kind", "over"), [("A", "mean"), ("D", "worst"), ("E", "prior")])
def test_gradient(kind, over):
    loss = mr.uncertainty(Q, NAMES, noise_sd=0.01, kind=kind, over=over, rician=kind == "A")
    check_gradient(lambda p: loss(theta(p["b"], p["n"])), {"b": [50.0, *B[1:]], "n": REPEATS})


def test_bad_questions_are_refused():
    with pytest.raises(InputError, match="b0_hz"):
        mr.uncertainty(Q, ["b0_hz"], noise_sd=0.01)
    with pytest.raises(InputError, match="adc"):
        mr.uncertainty(Q, ["adc"], noise_sd=0.01)
