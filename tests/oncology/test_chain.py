"""One gradient from a forecast's error to each b-value and each number of averages."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

import mrphys as mr
from mrphys.sequence.diffusion import DiffusionWeighted
from oncology.calibration import CellularityScale
from oncology.chain import Chain
from oncology.cli import app
from oncology.demo import check_gradient
from oncology.growth import ReactionDiffusion
from oncology.observe import CellularityMap
from oncology.priors import LogNormal
from oncology.timeline import steps_between
from oncology.treatment import Plan
from tests.laws import check_gradient as obeys_its_gradient
from tests.oncology.virtual import TRUTH, grown, lump

SCALE = CellularityScale(3.0e-3, 0.6e-3)
PRIORS = {
    "diffusivity_mm2_per_day": LogNormal(0.1, 0.8, "mm^2/day"),
    "growth_rate_per_day": LogNormal(0.03, 0.8, "1/day"),
}


@pytest.fixture(scope="module")
def theta() -> DiffusionWeighted:
    return mr.sequence.diffusion_weighted(
        [0.0, 400.0, 1000.0], te_s=0.07, tr_s=6.0, averages=[2.0, 3.0, 4.0]
    )


@pytest.fixture(scope="module")
def chain() -> Chain:
    """A lump on 14 x 14 voxels, scanned on days 0 and 20, forecast for day 40."""
    shape, spacing = (14, 14, 1), (2.0, 2.0, 2.0)
    model = ReactionDiffusion(habitable=jnp.ones(shape, bool), spacing_mm=spacing)
    first = lump(shape, spacing, 5.0)
    states = grown(model, TRUTH, first, (0.0, 20.0, 40.0))
    masks = [u > 0.1 for u in states]
    water, span = SCALE.adc_w_mm2_per_s, SCALE.adc_w_mm2_per_s - SCALE.adc_min_mm2_per_s
    tissue = tuple(
        mr.Tissue(
            t1_s=1.4, t2_s=0.11, adc_mm2_per_s=jnp.asarray(water - span * u[mask])
        ).broadcast()
        for u, mask in zip(states[:2], masks[:2], strict=True)
    )
    legs = [
        steps_between(
            model,
            Plan(),
            start,
            end,
            largest_diffusivity_mm2_per_day=0.6,
            largest_growth_rate_per_day=0.1,
            tolerance=1e-2,
        )
        for start, end in ((0.0, 20.0), (20.0, 40.0))
    ]
    everywhere = np.ones(shape, bool)
    return Chain(
        model=model,
        plan=Plan(),
        legs=(legs[0],),
        ahead=legs[1],
        priors=PRIORS,
        tissue=tissue,
        blank=tuple(
            CellularityMap(np.zeros(shape), np.ones(shape), mask, everywhere, spacing)
            for mask in masks[:2]
        ),
        first_state=jnp.asarray(states[0]),
        truth=jnp.asarray(states[2]),
        scored=jnp.ones(shape, bool),
        scale=SCALE,
        noise_sd=0.01,
    )


def test_gradient_of_the_forecast_error_runs_back_to_every_acquisition_parameter(chain, theta):
    rows = check_gradient(chain, theta, jax.random.key(3))
    assert len(rows) == 6
    for row in rows:
        assert row.gradient != 0
        assert row.relative_difference < 1e-4, row


@pytest.mark.long
def test_noise_of_the_scan_is_what_makes_the_forecast_err(chain, theta):
    @jax.jit
    def error(scale):
        quiet = eqx.tree_at(lambda t: t.averages, theta, theta.averages * scale)
        return chain.error(quiet, jax.random.key(1))

    assert float(error(1000.0)) < float(error(1.0))


def test_uncertainty_is_the_spread_over_repeated_scans(chain, theta):
    """Linearised thermal uncertainty against scanning, calibrating and forecasting again and
    again, the prior being wide and the model right."""
    z = jnp.array([np.log(TRUTH[n] / p.median) / p.log_sd for n, p in PRIORS.items()])
    linear = chain.linearised(z, chain.first_state)
    expected = float(chain.uncertainty(theta, z, linear))
    run = jax.jit(lambda key: jnp.sum(chain.forecast(theta, key)))
    totals = np.array([run(jax.random.key(i)) for i in range(24)])
    assert totals.std() / totals.mean() == pytest.approx(expected, rel=0.5)


def test_uncertainty_falls_with_averages_and_knows_its_gradient(chain, theta):
    z = jnp.array([np.log(TRUTH[n] / p.median) / p.log_sd for n, p in PRIORS.items()])
    linear = chain.linearised(z, chain.first_state)

    def uncertainty(values):
        design = eqx.tree_at(
            lambda t: (t.b_s_per_mm2, t.averages), theta, (values["b"] * 1e3, values["averages"])
        )
        return chain.uncertainty(design, z, linear)

    here = {"b": theta.b_s_per_mm2 / 1e3, "averages": theta.averages}
    longer = here | {"averages": 4 * theta.averages}
    assert float(uncertainty(longer)) < float(uncertainty(here))
    obeys_its_gradient(uncertainty, here, rtol=1e-5)


@pytest.fixture
def demo(chain, monkeypatch, tmp_path):
    """`mrphys demo` with options, on the small chain."""
    monkeypatch.setattr("oncology.demo.demo_chain", lambda: (chain, None))

    def run(option: str) -> object:
        done = CliRunner().invoke(app, ["demo", option, "--out", str(tmp_path), "--json"])
        assert done.exit_code == 0, done.output
        return json.loads(done.stdout)

    return run


@pytest.mark.long
def test_the_command_holds_the_gradient_against_differences(demo):
    rows = demo("--gradient")
    assert [row["name"] for row in rows][2:4] == ["b3, s/mm²", "averages at b1"]
    for row in rows:
        assert row["gradient"] != 0
        assert row["gradient"] == pytest.approx(row["finite_difference"], rel=1e-4)


def test_the_command_improves_the_design_at_its_scan_time(demo, tmp_path):
    rows = demo("--design")
    assert rows == json.loads((tmp_path / "design.json").read_text())
    before, after = rows["before"], rows["after"]
    assert after["forecast_sd_percent"] < 0.95 * before["forecast_sd_percent"]
    assert after["scan_time_s"] == pytest.approx(before["scan_time_s"], rel=1e-3)
