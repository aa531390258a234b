"""OSIPI's test data, within OSIPI's tolerances."""

import csv

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import perfusion
from mrphys.perfusion import (
    ML_PER_100ML_PER_MIN,
    PER_MIN,
    ExtendedTofts,
    Patlak,
    SpoiledEcho,
    TwoCompartmentExchange,
    arterial_input,
    dynamic_series,
    fit_kinetics,
)

KINETICS = {"ktrans_per_s": (0.005, 0.1, PER_MIN), "ps_per_s": (0.005, 0.1, PER_MIN),
            "fp_per_s": (5.0, 0.1, ML_PER_100ML_PER_MIN), "ve": (0.05, 0.0, 1.0),
            "vp": (0.025, 0.0, 1.0), "delay_s": (0.2, 0.0, 1.0)}  # fmt: skip
"""Absolute and relative tolerance, and the unit of the file."""
VOXELS = 1000
"""As in other tests of fits: one program serves them."""


@pytest.fixture(scope="module")
def read(shared_data):
    csv.field_size_limit(10**8)

    def rows(name):
        with open(shared_data / "dce_reference" / name, encoding="utf-8-sig") as file:
            return [
                {key: numbers(value) for key, value in row.items()} for row in csv.DictReader(file)
            ]

    def numbers(text):
        try:
            values = np.array(text.split(), float)
        except ValueError:
            return text
        return values if values.size > 1 else float(values[0])

    return rows


def curves(rows, input_name):
    """Rows of one input: the series, and the curves one below the other."""
    c = np.stack([row["C_t" if "C_t" in row else "C"] for row in rows])
    artery = arterial_input(rows[0]["t"], rows[0][input_name], haematocrit=0.0)
    return dynamic_series(rows[0]["t"], artery), c


def assert_within(est, rows, columns, sds=0.0):
    """OSIPI's tolerances, and so many standard deviations."""
    assert (est.status == mr.mapping.CONVERGED).all()
    for name, column in columns.items():
        absolute, relative, unit = KINETICS[name]
        expected = np.array([row[column] for row in rows])
        found = np.asarray(getattr(est.value, name)) / unit
        noise = sds * np.asarray(getattr(est.sd, name)) / unit
        allowed = absolute + relative * expected + noise
        np.testing.assert_array_less(np.abs(found - expected), allowed, err_msg=name)


def test_two_compartment_exchange(read):
    rows = read("2cxm_sd_0.001_delay_0.csv")
    series, c = curves(rows, "cp_aif")
    columns = {"fp_per_s": "fp", "ps_per_s": "ps", "ve": "ve", "vp": "vp"}
    assert_within(fit_kinetics(series, c, TwoCompartmentExchange), rows, columns)


def test_patlak(read):
    rows = read("patlak_sd_0.02_delay_0.csv")
    series, c = curves(rows, "cp_aif")
    assert_within(fit_kinetics(series, c, Patlak), rows, {"ps_per_s": "ps", "vp": "vp"})


def test_extended_tofts(read):
    rows = read("dce_DRO_data_extended_tofts.csv")
    columns = {"ktrans_per_s": "Ktrans", "ve": "ve", "vp": "vp"}
    for first in range(0, len(rows), 3):
        some = rows[first : first + 3]
        assert all((row["ca"] == some[0]["ca"]).all() for row in some)
        series, c = curves(some, "ca")
        est = fit_kinetics(series, np.resize(c, (VOXELS, c.shape[-1])), ExtendedTofts)
        assert_within(jax.tree.map(lambda leaf: leaf[:3], est), some, columns)


@pytest.mark.long
@pytest.mark.parametrize("name, model, columns", [
    ("2cxm_sd_0.001_delay_0.csv", TwoCompartmentExchange,
     {"fp_per_s": "fp", "ps_per_s": "ps", "ve": "ve", "vp": "vp"}),
    ("patlak_sd_0.02_delay_0.csv", Patlak, {"ps_per_s": "ps", "vp": "vp"}),
])  # fmt: skip
def test_delays_of_five_seconds_are_found(read, name, model, columns):
    rows = read(name)
    series, c = curves(rows, "cp_aif")
    images = round(5 / float(series.times_s[1] - series.times_s[0]))
    late = np.concatenate([c[:, :images], c[:, :-images]], axis=1)
    est = fit_kinetics(series, late, model, delay_s=(-10.0, 10.0))
    moved = [row | {"delay": 5.0} for row in rows]
    assert_within(est, moved, columns | {"delay_s": "delay"}, sds=1.0)


@pytest.mark.parametrize("name, f", [("ParkerAIF_ref.csv", perfusion.parker_2006),
                                     ("GeorgiouAIF_ref.csv", perfusion.georgiou_2019)])  # fmt: skip
def test_population_inputs(read, name, f):
    rows = read(name)
    minutes, blood = (np.array([row[key] for row in rows]) for key in ("time", "Cb"))
    np.testing.assert_allclose(f(60 * minutes), blood, rtol=1e-4, atol=1e-4)


def test_concentrations_of_signals(read):
    for row in read("SI2Conc_data.csv"):
        echo = SpoiledEcho(np.deg2rad(row["FA"]), row["TR"], row["T1base"], row["r1"])
        baseline = slice(1, int(row["numbaselinepts"]))
        found = perfusion.concentration_of_signal(echo, row["s"], baseline)
        np.testing.assert_allclose(found, row["conc"], rtol=0, atol=1e-5)


T1 = [("t1_brain_data.csv", 1.0), pytest.param("t1_quiba_data.csv", 1e3, marks=pytest.mark.long)]


@pytest.mark.parametrize("name, per_s", T1)
def test_t1_by_variable_flip_angles(read, name, per_s):
    rows = read(name)
    flips, signals = np.deg2rad(rows[0]["FA"]), np.stack([row["s"] for row in rows])
    theta = mr.sequence.spoiled_gradient_echo(flips, te_s=0.0, tr_s=rows[0]["TR"][0])
    est = mr.fit(theta, signals, ("t1_s", "m0"), rician=False)
    expected = per_s * np.array([row["R1"] for row in rows])
    np.testing.assert_allclose(1 / est.value.t1_s, expected, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("method", ["osvd", "csvd", "tikhonov"])
def test_flow_and_volume(read, method):
    rows = read("dsc_data.csv")
    c = jnp.asarray(np.stack([row["C_tis"] for row in rows]))
    times = rows[0]["tr"] * np.arange(c.shape[-1])
    found = perfusion.vascular_maps(times, c, rows[0]["C_aif"], method)
    volumes, flows = (np.array([row[key] for row in rows]) for key in ("cbv", "cbf"))
    np.testing.assert_allclose(100 * found.cbv, volumes, rtol=0.1, atol=1.0)
    np.testing.assert_allclose(found.cbf_per_s / ML_PER_100ML_PER_MIN, flows, rtol=0.1, atol=15.0)
