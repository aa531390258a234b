"""Are standard deviations honest? z-scores of 10,000 voxels of every quantitative model.

    pytest -m long -s tests/studies/test_calibrated.py

The workloads are those of `benchmarks/mapping_models.py`.
"""

import jax
import numpy as np
import pytest
from mapping_models import MODELS
from workload_models import estimated, measured

VOXELS = 10_000
MOST_EXCLUDED = 0.05
NEAR_THE_FOLD = {"epg", "epg180"}
"""B1 is hardly determined where flips are 180°: any share may be left out."""
CURVED = "the valley of T2, B1 and m0 bends within an sd: `posterior` is for that"
NARROW = "tissue is drawn from the middle of what is known before: sds are too careful"
MISSED = {
    ("epg", 20.0): CURVED,
    ("epg180", 20.0): CURVED,
    ("epg180", 50.0): CURVED,
    ("white matter", 20.0): NARROW,
    ("white matter", 50.0): NARROW,
}


@pytest.fixture(autouse=True)
def as_users_do():
    """Numbers of the precision of images."""
    with jax.enable_x64(False), jax.numpy_rank_promotion("allow"):
        yield


@pytest.mark.long
@pytest.mark.parametrize("snr", [50.0, 20.0])
@pytest.mark.parametrize("name", MODELS)
def test_z_scores_have_unit_spread(name, snr, request, capsys):
    if (name, snr) in MISSED:
        reason = MISSED[name, snr]
        request.applymarker(pytest.mark.xfail(strict=True, raises=AssertionError, reason=reason))
    case, missed = MODELS[name](VOXELS), []
    for kind in (kind for kind in case.kinds if kind != "gaussian"):
        found = estimated(case, kind, *measured(case, kind, snr))
        excluded = 1 - found.good.mean()
        for field in case.scored:
            error = (found.values[field] - case.true(field))[found.good]
            z = error / found.sds[field][found.good]
            told = f"{name} {kind} {snr:g} {field}: z {z.mean():.3f} ± {z.std():.3f}"
            with capsys.disabled():
                print(f"\n{told}, excluded {excluded:.2%}", end="")
            missed += [] if 0.95 <= z.std() <= 1.05 else [told]
        if excluded > MOST_EXCLUDED and name not in NEAR_THE_FOLD:
            missed.append(f"{name} {kind} {snr:g}: excluded {excluded:.2%}")
    assert not missed


@pytest.mark.parametrize("name", ["b1", "b0", "dti"])
def test_z_scores_of_closed_forms(name):
    case = MODELS[name](2000)
    (kind,) = case.kinds
    found = estimated(case, kind, *measured(case, kind, 20.0))
    for field in case.scored:
        z = ((found.values[field] - case.true(field)) / found.sds[field])[found.good]
        assert abs(np.std(z) - 1) < 0.06
