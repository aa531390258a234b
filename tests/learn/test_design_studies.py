"""Studies at a small size: known optima, constraints kept, errors realised as bounds say."""

import numpy as np
import pytest
from scipy.optimize import brute

import mrphys as mr
from learn import design_studies as studies
from learn.design_studies.contrast import TE_S
from learn.design_studies.fse import fwhm_px, width_px
from mrphys.errors import InputError
from mrphys.io.pulseq import read_pulseq


def rows(study):
    return {row.quantity: row for row in study.rows}


@pytest.mark.parametrize(
    ("t1_s", "tr_s"), [(1.0, 0.015), pytest.param(0.5, 0.005, marks=pytest.mark.long)]
)
def test_two_flips_are_where_the_signal_is_ernsts_over_root_two(t1_s, tr_s):
    study = studies.vfa((t1_s,), tr_s)
    flips = np.sort(np.asarray(study.design.variables["flip_rad"]))
    e1 = np.exp(-tr_s / t1_s)
    expected = (np.sqrt(2) + np.array([-1, 1])) * np.sqrt((1 - e1) / (1 + e1))
    np.testing.assert_allclose(np.tan(flips / 2), expected, rtol=1e-4)


@pytest.mark.parametrize(("free", "expected"), [(False, 1.1089), (True, 1.2785)])
def test_two_b_values_are_where_theory_has_them(free, expected):
    study = studies.diffusion((0.8e-3,), free_averages=free, steps=50)
    b = float(study.design.variables["b_s_per_mm2"][0])
    assert 0.8e-3 * b == pytest.approx(expected, rel=2e-3)
    assert float(study.design.theta.averages.sum()) == pytest.approx(16.0, rel=1e-3)


def test_magnitudes_near_the_noise_ask_for_lower_b():
    b = [
        float(studies.diffusion(rician_snr=snr, free_averages=False, steps=30).rows[0].after)
        for snr in (100.0, 4.0)
    ]
    assert b[1] < 0.97 * b[0]


def test_widths_of_point_spreads():
    flat, decayed = np.ones(32), np.exp(-np.arange(32) / 8.0)
    assert float(width_px(flat)) == 1
    assert float(fwhm_px(flat)) == pytest.approx(1.2067, abs=1e-3)
    assert fwhm_px(decayed) > 1.5 and width_px(decayed) > 1.5


@pytest.fixture(scope="module")
def sharp():
    return studies.fse(echoes=32, echo_spacing_s=0.0075, steps=50)


def test_a_refocusing_train_sharpens_at_equal_power_and_signal(sharp):
    found = rows(sharp)
    for name, row in found.items():
        if name.startswith("FWHM"):
            assert row.known is not None and row.known < row.after < row.before
        if name.startswith("signal"):
            assert row.after >= row.before * (1 - 1e-9)
    energy = found["pulse energy"]
    assert energy.after <= energy.before * (1 + 1e-9)
    blur = found["width of the point spread, mean"]
    assert blur.after - 1 < 0.7 * (blur.before - 1)


def test_the_train_passes_pulseqs_checks_and_is_read_back(sharp, tmp_path):
    path = tmp_path / "train.seq"
    mr.io.write_pulseq(sharp.design.theta, path)
    assert read_pulseq(path).duration_s > 32 * 0.0075


@pytest.fixture(scope="module")
def fingerprint():
    q = mr.Tissue(t1_s=[0.8, 1.2], t2_s=[0.05, 0.08])
    return studies.fingerprint(60, q=q, noise_sd=1e-3, steps=40, draws=400)


def test_fingerprints_err_as_the_bound_says(fingerprint):
    found = rows(fingerprint)
    for name in ("T1", "T2"):
        bound, fitted = found[f"sd of {name}, bound"], found[f"sd of {name}, fitted"]
        assert fitted.before == pytest.approx(bound.before, rel=0.1)
        assert fitted.after == pytest.approx(bound.after, rel=0.1)
    assert found["sd of T2, bound"].before > 1.1 * found["sd of T2, bound"].after


def test_fingerprints_keep_time_flips_and_raster(fingerprint):
    time = rows(fingerprint)["scan time"]
    assert time.after <= time.before * (1 + 1e-9)
    p = fingerprint.design.variables
    assert float(p["knots_rad"].max()) <= np.deg2rad(70) * (1 + 1e-9)
    ticks = np.asarray(p["tr_s"]) / 1e-5
    np.testing.assert_allclose(ticks, np.round(ticks), atol=1e-6)


def test_samples_of_a_bolus_keep_their_distance():
    study = studies.dce(10, 120.0, starts=1, steps=40)
    times = np.asarray(study.design.theta)
    assert np.diff(times).min() >= 2.0 - 1e-9
    assert study.design.after < 0.9 * study.design.before
    with pytest.raises(InputError, match=r"time between samples: found .* at least 20 s"):
        studies.dce(10, 120.0, shortest_s=20.0)


def test_contrast_is_the_best_of_a_grid():
    made = studies.contrast(starts=2, steps=60).design
    q = [mr.tissue.literature(name) for name in ("white_matter", "grey_matter")]

    def minus_cnr(p):
        flip, tr = p
        x = [
            t.m0 * np.sin(flip) * (1 - np.exp(-tr / t.t1_s))
            / (1 - np.cos(flip) * np.exp(-tr / t.t1_s)) * np.exp(-TE_S[0] / t.t2_s)
            for t in q
        ]  # fmt: skip
        return -abs(float(x[0] - x[1])) / 0.05 * np.sqrt(120 / 128 / tr)

    grid = brute(minus_cnr, ((0.02, 1.57), (0.005, 0.9375)), Ns=60, finish=None, full_output=True)
    assert made.after <= float(grid[1]) * (1 - 1e-6)
    assert made.after == pytest.approx(float(grid[1]), rel=0.01)


def test_figures_and_numbers_of_a_study(sharp):
    figure = studies.draw(sharp)
    assert [axes.get_title() for axes in figure.axes][-1] == "loss"
    plain = sharp.plain()
    assert len(plain["variables"]["refocusing_rad"]) == 32
    assert plain["loss"]["after"] == sharp.design.after


def test_jiangs_train_is_of_its_time_and_angles():
    flips, tr = studies.jiang_train(500)
    assert np.rad2deg(flips.min()) > 4.9 and np.rad2deg(flips.max()) <= 70.0
    assert tr.min() >= 0.0115 and tr.max() <= 0.0145
