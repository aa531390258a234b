"""Priors: what each plan of treatment needs, and how coordinates become parameters."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.growth import ReactionDiffusion
from oncology.priors import (
    DECAY_PER_DAY,
    GROWTH_MAP_SD_PER_DAY,
    LogNormal,
    default_priors,
    physical,
)
from oncology.schedule import Treatment
from oncology.timeline import integrate, steps_between
from oncology.treatment import Plan, plan
from tests.laws import check_gradient

TWO_DRUGS_AND_RADIATION = plan(
    (
        Treatment(1.0, "chemotherapy", 1.0, "relative", "doxorubicin"),
        Treatment(1.0, "chemotherapy", 1.0, "relative", "novel"),
        Treatment(2.0, "radiotherapy", 2.0, "Gy"),
    )
)


@pytest.mark.parametrize(("median", "log_sd"), [(0.0, 1.0), (-0.1, 1.0), (1.0, 0.0), (1.0, -1.0)])
def test_a_log_normal_needs_a_positive_median_and_spread(median, log_sd):
    with pytest.raises(InputError, match="both above zero"):
        LogNormal(median, log_sd, "1/day")


def test_coordinates_are_standard_normal():
    priors = {"a": LogNormal(0.2, 0.5, "1/day"), "b": LogNormal(3.0, 1.0, "mm")}
    z = np.random.default_rng(0).standard_normal(20_000)
    logs = np.log([float(physical(priors, jnp.array([v, -1.0]))["a"]) for v in z[:2000]])
    assert logs.mean() == pytest.approx(np.log(0.2), abs=5 * 0.5 / np.sqrt(2000))
    assert logs.std() == pytest.approx(0.5, rel=5 / np.sqrt(4000))
    p = physical(priors, jnp.array([0.0, 1.0]))
    assert float(p["a"]) == pytest.approx(0.2)
    assert float(p["b"]) == pytest.approx(3.0 * np.e)


def test_coordinates_beyond_the_priors_are_the_growth_map():
    priors = {"growth_rate_per_day": LogNormal(0.2, 0.5, "1/day")}
    p = physical(priors, jnp.array([0.0, 1.0, -2.0]))
    expected = GROWTH_MAP_SD_PER_DAY * np.array([1.0, -2.0])
    np.testing.assert_allclose(p["growth_map_per_day"], expected)
    assert "growth_map_per_day" not in physical(priors, jnp.zeros(1))


EVERY_OTHER_KIND = plan(
    Treatment(1.0, kind, 1.0, "", "x") for kind in ("immunotherapy", "radionuclide", "resection")
)


@pytest.mark.parametrize("treated", [Plan(), TWO_DRUGS_AND_RADIATION, EVERY_OTHER_KIND])
def test_default_priors_name_all_that_the_model_needs(treated):
    model = ReactionDiffusion(habitable=jnp.ones((3, 3, 1), bool))
    steps = steps_between(
        model,
        treated,
        0.0,
        3.0,
        largest_diffusivity_mm2_per_day=1.0,
        largest_growth_rate_per_day=0.1,
    )
    priors = default_priors(treated)
    p = physical(priors, jnp.zeros(len(priors)))
    u = integrate(model, treated, p, jnp.full((3, 3, 1), 0.3), steps)
    assert np.all(np.isfinite(np.asarray(u)))


def test_known_drugs_have_narrow_decays():
    priors = default_priors(TWO_DRUGS_AND_RADIATION)
    known = priors["decay_doxorubicin_per_day"]
    assert known.median == DECAY_PER_DAY["doxorubicin"]
    assert known.log_sd < priors["decay_novel_per_day"].log_sd
    assert all(prior.source for prior in priors.values())


def test_gradient():
    priors = default_priors(TWO_DRUGS_AND_RADIATION)
    z = jnp.linspace(-1.0, 1.0, len(priors) + 2)
    check_gradient(lambda z: physical(priors, z), z)
