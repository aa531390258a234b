"""Dynamic series as scanners give them: what is found of them, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import mapping, perfusion
from mrphys.dynamic import KINETICS, Before, Dynamic, examination, fit_examination
from mrphys.errors import InputError
from mrphys.io.curves import read_arterial_input
from mrphys.io.dicom import read_dicom
from mrphys.series import Series
from mrphys.volume import Volume
from tests.mrphys.dicom_files import classic
from tests.mrphys.scans import AFFINE

TIMES = np.arange(0.0, 200.0, 4.0)
ARRIVAL_S, T1_S, FLIP, TR_S, SHAPE = 30.0, 1.3, 15.0, 0.005, (6, 6, 2)


def signals() -> np.ndarray:
    """Of tissue alike everywhere, blood in a corner."""
    blood = np.asarray(perfusion.parker_2006(TIMES, ARRIVAL_S))
    artery = perfusion.arterial_input(TIMES, blood)
    tissue = perfusion.Patlak(ps_per_s=0.05 / 60, vp=0.05)
    c = np.asarray(perfusion.concentration(perfusion.dynamic_series(TIMES, artery), tissue))
    c = np.tile(c, (*SHAPE, 1))
    c[:2, :2, 0] = blood
    echo = perfusion.SpoiledEcho(np.deg2rad(FLIP), TR_S, T1_S)
    return np.asarray(perfusion.signal_of_concentration(echo, jnp.asarray(c), 300.0))


SIGNALS = signals()
CORNER = np.zeros(SHAPE)
CORNER[:2, :2, 0] = 1.0


def series(about=None, **changes) -> Series:
    settings = {"FlipAngle": FLIP, "RepetitionTimeExcitation": TR_S, "VolumeTiming": TIMES}
    settings |= changes
    each = {
        name: np.broadcast_to(np.asarray(value, float), TIMES.shape)
        for name, value in settings.items()
        if value is not None
    }
    return Series("sub-01", "dce", Volume(SIGNALS, AFFINE), each, None, about)


def test_arrival_and_baseline_are_found_and_the_artery_is_that_of_the_mask():
    of = Dynamic(t1_s=T1_S, aif=Volume(CORNER, AFFINE), delay_s=0.0)
    shuffled = series().taken(np.random.default_rng(0).permutation(TIMES.size))
    found, theta, _, _ = examination(shuffled, of)
    np.testing.assert_array_equal(found.each("VolumeTiming"), TIMES)
    assert ARRIVAL_S - 4 <= theta.arrival_s <= ARRIVAL_S + 4 and theta.before == 7
    expected = np.asarray(perfusion.parker_2006(TIMES, ARRIVAL_S)) / (1 - perfusion.HAEMATOCRIT)
    np.testing.assert_allclose(
        theta.series.arterial.plasma_mmol_per_l, expected, rtol=1e-4, atol=1e-4
    )
    assert found.about is not None and found.about["ArterialInput"] == "mean over a mask"


@pytest.mark.parametrize("kinetics", KINETICS)
def test_what_each_model_finds(kinetics):
    _, theta, _, _ = examination(series(), Dynamic(t1_s=T1_S, kinetics=kinetics))
    names = {"ktrans_per_s", "ps_per_s", "fp_per_s", "ve", "vp"} & {*theta.fields}
    assert len(names) == theta.unknowns - 2
    assert theta.fields[-4:] == ("delay_s", "auc", "peak", "time_to_peak_s")
    assert float(theta.series.arterial.times_s[0]) == theta.arrival_s


def test_times_of_evenly_spaced_images():
    """From the sidecar, its two repetition times, or given."""
    bare = {"VolumeTiming": None}
    for given, of in (
        (series({"TemporalResolution": 4.0}, **bare), Dynamic(t1_s=T1_S)),
        (series(RepetitionTime=4.0, **bare), Dynamic(t1_s=T1_S)),
        (series(**bare), Dynamic(t1_s=T1_S, interval_s=4.0)),
    ):
        np.testing.assert_allclose(examination(given, of)[1].series.times_s, TIMES)


def test_voxels_without_t1_are_told():
    t1 = np.full(SHAPE, T1_S)
    t1[3, 3], t1[4, 4] = 0.0, np.nan
    _, _, known, lacking = examination(series(), Dynamic(t1_s=Volume(t1, AFFINE)))
    assert lacking.sum() == 4 and lacking[3, 3].all() and lacking[4, 4].all()
    assert np.isfinite(known.t1_s).all() and known.t1_s.shape == (lacking.size,)


@pytest.mark.long
def test_parameters_areas_and_peaks_have_the_sds_they_say():
    """Of noise, in T1 too, in many voxels alike; one is beyond full relaxation."""
    t1_sd, noise_sd, voxels = 0.05, 3.0, 1500
    rng = np.random.default_rng(0)
    artery = perfusion.arterial_input(TIMES, perfusion.parker_2006(TIMES, ARRIVAL_S))
    of = Dynamic(t1_s=T1_S, t1_sd_s=t1_sd, kinetics="patlak", aif=artery, baseline=7, delay_s=0.0)
    _, theta, known, _ = examination(series(), of)
    t1 = jnp.asarray(rng.normal(T1_S, t1_sd, voxels))
    x = SIGNALS[3, 3, 0] + noise_sd * rng.normal(size=(voxels, TIMES.size))
    x[0, 20] = 1e5
    found = fit_examination(theta, x, noise_sd, Before(t1, known.t1_sd_s, known.b1))
    fitted = np.asarray(found.status) == mapping.CONVERGED
    assert found.status[0] == mapping.FAILED and fitted[1:].all()
    truth = {"ps_per_s": 0.05 / 60, "vp": 0.05}
    for name in theta.fields:
        value, sd = (np.asarray(getattr(part, name))[fitted] for part in (found.value, found.sd))
        middle = truth.get(name, value.mean())
        spread = np.sqrt(np.mean((value - middle) ** 2)) / np.sqrt(np.mean(sd**2))
        if name == "time_to_peak_s":
            assert (np.abs(value - np.median(value)) < 4 * sd).all()
        else:
            assert 0.93 < spread < 1.07, name
    np.testing.assert_allclose(np.median(found.residual[1:]), noise_sd, rtol=0.03)


SHORT = perfusion.arterial_input(TIMES[:20], perfusion.parker_2006(TIMES[:20], ARRIVAL_S))


@pytest.mark.parametrize(
    ("changes", "of", "says"),
    [
        ({}, {"t1_s": None}, "--t1"),
        ({}, {"t1_s": 1300.0}, "milliseconds"),
        ({}, {"t1_s": Volume(np.full(SHAPE, 1300.0), AFFINE)}, "milliseconds"),
        ({}, {"t1_s": Volume(np.full(SHAPE, T1_S), np.eye(4))}, "not resampled"),
        ({}, {"t1_sd_s": Volume(np.full(SHAPE, 0.1), np.eye(4))}, "t1_sd.*not resampled"),
        ({}, {"baseline": 12}, "reaches into the bolus"),
        ({}, {"baseline": 0}, "one or more before"),
        ({}, {"baseline": 6, "arrival_s": 10.0}, "images before the bolus at 10 s"),
        ({}, {"arrival_s": 30_000.0}, "milliseconds"),
        ({}, {"aif": SHORT}, "ends 120 s before the series"),
        ({}, {"aif": "orton"}, "parker, georgiou"),
        ({}, {"aif": Volume(CORNER, np.eye(4))}, "aif.*not resampled"),
        ({}, {"aif": Volume(0 * CORNER, AFFINE)}, "no finite voxel"),
        ({}, {"kinetics": "tk"}, "extended_tofts, tofts"),
        ({}, {"haematocrit": 42.0}, "per cent"),
        ({"VolumeTiming": None}, {}, "no times.*--interval"),
        ({"VolumeTiming": 1000 * TIMES}, {}, "milliseconds"),
        ({"RepetitionTimeExcitation": 5.0}, {}, "milliseconds"),
        ({"FlipAngle": None}, {}, "no FlipAngle"),
    ],
)
def test_what_gives_no_maps_is_refused(changes, of, says):
    with pytest.raises(InputError, match=f"(?s){says}"):
        examination(series(**changes), Dynamic(**({"t1_s": T1_S} | of)))


def test_dicom_images_are_put_in_time(tmp_path):
    common = {"FlipAngle": FLIP, "RepetitionTime": 1e3 * TR_S}
    times, images = TIMES[::3], np.rint(SIGNALS[:, :, :1, ::3])
    clock = [f"12{t // 60:02.0f}{t % 60:04.1f}" for t in times]
    classic(tmp_path, images, [common | {"AcquisitionTime": t} for t in clock])
    found, theta, _, _ = examination(read_dicom([tmp_path]), Dynamic(t1_s=T1_S))
    np.testing.assert_allclose(theta.series.times_s, times)
    assert theta.tr_s == TR_S
    np.testing.assert_allclose(found.images.data, images)


def test_a_measured_curve_is_read_from_a_table(tmp_path):
    path = tmp_path / "aif.tsv"
    path.write_text("time_s\tblood_mmol_per_l\n" + "".join(f"{t}\t{t / 100}\n" for t in TIMES))
    found = read_arterial_input(path, 0.4)
    np.testing.assert_allclose(found.times_s, TIMES)
    np.testing.assert_allclose(found.plasma_mmol_per_l, TIMES / 60)
    for text, says in (
        ("time_s,blood_mmol_per_l\n0,1\n", "commas for tabs"),
        ("time_s\tplasma_mmol_per_l\n0\tlow\n", "a number in every row"),
        ("", "columns none"),
    ):
        path.write_text(text)
        with pytest.raises(InputError, match=says):
            read_arterial_input(path)
    with pytest.raises(InputError, match="cannot be read"):
        read_arterial_input(tmp_path / "nothing.tsv")
