import json
from types import SimpleNamespace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import mapping
from mrphys.errors import InputError
from mrphys.io.bids import find_collections, read_collection
from mrphys.io.maps import write_maps
from mrphys.io.nifti import read_nifti
from mrphys.maps import make_maps
from mrphys.protocols import MODELS, SUFFIXES, Output, Plan, Protocol
from mrphys.series import Series
from mrphys.tissue import Tissue
from mrphys.volume import Volume
from tests.mrphys.scans import AFFINE, diffusion, noisy, put


def series(data, suffix="", directions=None, about=None, **settings) -> Series:
    each = {name: np.asarray(value, float) for name, value in settings.items()}
    return Series("sub-01", suffix, Volume(np.asarray(data), AFFINE), each, directions, about)


def test_actual_flip_angles_have_yarnykhs_ratio():
    """r = S2/S1 = (1 - E1 + (1 - E2) E1 c) / (1 - E2 + (1 - E1) E2 c), c = cos α."""
    given = series(np.ones((1, 1, 1, 2)), RepetitionTimeExcitation=[0.1, 0.02], FlipAngle=[55, 55])
    plan = MODELS["afi"].plan(given)
    tissue = Tissue(t1_s=1.2, t2_s=0.08, b1=0.9)
    rows = jax.tree.map(lambda leaf: jnp.full(1, leaf), tissue)
    x = np.asarray(eqx.filter_jit(plan.theta.signals)(rows))[0]
    e1, e2 = np.exp(-np.array([0.02, 0.1]) / 1.2)
    c = np.cos(0.9 * np.deg2rad(55))
    ratio = (1 - e1 + (1 - e2) * e1 * c) / (1 - e2 + (1 - e1) * e2 * c)
    np.testing.assert_allclose(abs(x[1] / x[0]), ratio, rtol=1e-9)
    np.testing.assert_array_equal(plan.series.each("RepetitionTimeExcitation"), [0.02, 0.1])


def test_inversion_recovery_is_that_of_the_sequence():
    """After 90°, with a TR the same for all TI: depth 2 / (1 + exp(-TR/T1))."""
    ti = [1.5, 0.1, 0.5]
    sequence = mr.sequence.inversion_recovery(sorted(ti), tr_s=3.0)
    expected = np.asarray(mr.simulate(sequence, Tissue(t1_s=1.2, t2_s=0.08)))
    e = np.exp(-3.0 / 1.2)
    plan = MODELS["irt1"].plan(series(np.ones((1, 1, 1, 3)), InversionTime=ti))
    row: Any = type(plan.known)(*(jnp.full(1, v) for v in (1.2, 1 + e, 2 / (1 + e))))
    np.testing.assert_allclose(plan.theta.signals(row)[0], expected.imag, rtol=1e-9)


def test_mp2rage_is_the_centre_of_each_train_of_the_sequence():
    """At the TI of the file, with fewer shots before it than after."""
    given = {
        "InversionTime": [2.7, 0.8],
        "FlipAngle": [6.0, 5.0],
        "RepetitionTimeExcitation": [0.007, 0.007],
        "RepetitionTimePreparation": [5.0, 5.0],
    }
    data, about = np.ones((1, 1, 1, 2), complex), {"NumberShots": [4, 8]}
    plan = MODELS["mp2rage"].plan(series(data, about=about, **given))
    t1, b1, m, seen = 1.2, 0.8, 1.0, []
    for _ in range(20):  # pulse by pulse, until nothing changes
        now, m, seen = 0.0, -0.96 * m, []
        for ti, flip in ((0.8, 5.0), (2.7, 6.0)):
            for j in range(12):
                at = ti + (j - 4) * 0.007
                m, now = 1 + (m - 1) * np.exp(-(at - now) / t1), at
                seen += [2.0 * np.sin(b1 * np.deg2rad(flip)) * m] if j == 4 else []
                m *= np.cos(b1 * np.deg2rad(flip))
        m = 1 + (m - 1) * np.exp(-(5.0 - now) / t1)
    x = plan.theta.signal(Tissue(t1_s=t1, t2_s=0.08, m0=2.0, b1=b1))
    np.testing.assert_allclose(x, seen, rtol=1e-9)
    partial = {"NumberShots": 16, "SlicePartialFourier": 0.75}
    same = MODELS["mp2rage"].plan(series(data, about=partial, **given)).theta
    assert (same.signal.before, same.signal.shots) == (4, 12)
    with pytest.raises(InputError, match=r"magnitude.*part-phase"):
        MODELS["mp2rage"].plan(series(data.real, about=about, **given))
    with pytest.raises(InputError, match=r"sub-01.*room for both"):
        MODELS["mp2rage"].plan(series(data, about={"NumberShots": [200, 200]}, **given))


def test_a_train_is_refocused_by_the_angle_of_the_file():
    te = np.arange(1, 5) * 0.01
    for angle, refocusing in ((90.0, 180.0), (150.0, 150.0)):
        given = series(np.ones((1, 1, 1, 4)), EchoTime=te, FlipAngle=[angle] * 4)
        plan = MODELS["epg"].plan(given)
        theta = mr.sequence.spin_echo_train(np.full(4, np.deg2rad(refocusing)), 0.01)
        jax.tree.map(np.testing.assert_allclose, plan.theta, theta)
        assert plan.bounds["b1"][1] == 180.0 / refocusing


def settings(**changes):
    return {"FlipAngle": [2.0, 10.0], "RepetitionTimeExcitation": [0.01, 0.01]} | changes


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("vfa", settings(FlipAngle=[5, 5]), "1 different FlipAngle.*2 or more"),
        ("vfa", settings(RepetitionTimeExcitation=[10, 10]), "milliseconds"),
        ("vfa", settings(RepetitionTimeExcitation=[0.01, 0.02]), "two scans mixed"),
        ("vfa", {"FlipAngle": [2.0, 10.0]}, "no RepetitionTimeExcitation"),
        ("vfa", settings(about={"PulseSequenceType": "bSSFP"}), "DESPOT2"),
        ("irt1", {"InversionTime": [0.1, 0.5]}, "2 different InversionTime.*3 or more"),
        ("epg", {"EchoTime": [0.01, 0.02, 0.04]}, "every echo"),
        ("megre", {"EchoTime": [3, 6]}, "milliseconds"),
        ("adc", {"DiffusionBValue": [0, 1]}, "ms/µm²"),
        ("adc", {"DiffusionBValue": [800, 800]}, "1 different b-values"),
        ("adc", {}, "no DiffusionBValue"),
        ("dam", {"FlipAngle": [60.0, 60.0]}, "2 or more"),
        ("afi", {"RepetitionTime": [0.02, 0.1]}, "no FlipAngle"),
    ],
)
def test_settings_that_give_no_map_are_refused(model, given, says):
    readouts = len(next(iter(given.values()), [0, 0]))
    with pytest.raises(InputError, match=says):
        MODELS[model].plan(series(np.ones((1, 1, 1, readouts)), **given))


@pytest.fixture(scope="module")
def adc(tmp_path_factory):
    """Truth and maps of a block of tissue in air, its noise found."""
    folder = tmp_path_factory.mktemp("dwi")
    truth = diffusion(folder, noise_sd=4.0)
    (found,) = find_collections([folder], [*SUFFIXES])
    with jax.enable_x64(False):
        return truth, make_maps(read_collection(found), MODELS["adc"])


def test_maps_are_calibrated_and_air_is_left_out(adc):
    truth, maps = adc
    value, sd = ({o.suffix: v for o, v in each.items()} for each in (maps.values, maps.sds))
    tissue = truth > 0
    assert maps.noise_sd == pytest.approx(4.0, rel=0.12) and "fits" in maps.noise_from
    assert maps.counts["in the image"] == truth.size
    assert maps.counts["below the noise"] > 0.97 * (~tissue).sum()
    assert maps.determined[tissue].all() and maps.misfit == pytest.approx(1.0, rel=0.12)
    score = (value["ADC"] - truth)[tissue] / sd["ADC"][tissue]
    assert abs(score.mean()) < 0.25 and score.std() == pytest.approx(1.0, abs=0.2)
    assert abs(np.median(value["S0map"][tissue]) / 400 - 1) < 0.01
    left = maps.status == mapping.MASKED
    assert (value["ADC"][left] == 0).all() and (sd["ADC"][left] == 0).all()


def test_everything_is_written_with_units_and_sources(adc, tmp_path):
    _, maps = adc
    written = write_maps(tmp_path, maps, "sub-01", {"seconds": 1.0}, masked=True)
    names = {path.name for path in tmp_path.iterdir()}
    kinds = ("ADC", "desc-sd_ADC", "desc-residual_ADC", "desc-status_ADC", "desc-adc_S0map",
             "desc-adcsd_S0map")  # fmt: skip
    assert names == {f"sub-01_{kind}{end}" for kind in kinds for end in (".nii.gz", ".json")}
    assert {path.name for path in written} < names
    image = read_nifti(tmp_path / "sub-01_ADC.nii.gz")
    np.testing.assert_allclose(image.affine, AFFINE)
    np.testing.assert_allclose(image.data, next(iter(maps.values.values())), rtol=1e-6)
    said = json.loads((tmp_path / "sub-01_ADC.json").read_text())
    assert said["Units"] == "mm^2/s" and said["DiffusionBValue"] == [0, 300, 700, 1000]
    assert said["EchoTime"] == 0.07 and said["Provenance"] == {"seconds": 1.0}
    assert said["Sources"][0].endswith("/sub-01_dwi.nii.gz")
    assert said["EstimationAlgorithm"] and "doi" in said["EstimationReference"]
    levels = json.loads((tmp_path / "sub-01_desc-status_ADC.json").read_text())["Levels"]
    status = read_nifti(tmp_path / "sub-01_desc-status_ADC.nii.gz").data
    assert set(np.unique(status).astype(int).astype(str)) <= set(levels)


def test_nothing_half_written(adc, tmp_path, monkeypatch):
    monkeypatch.setattr("mrphys.io.maps.json.dumps", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_maps(tmp_path, adc[1], "sub-01", {})
    assert not list(tmp_path.iterdir())


FLIPS = [60.0, 120.0]


def double_angle(b1=0.9, noise_sd=0.0, shape=(16, 16, 2)):
    field = np.zeros(shape)
    field[3:-3, 3:-3] = 100.0
    return noisy(field[..., None] * np.sin(b1 * np.deg2rad(FLIPS)), noise_sd)


def test_voxels_that_cannot_be_fitted_are_counted():
    x = np.abs(double_angle())
    x[4, 4, 0], x[5, 5, 0, 1] = 0.0, np.nan
    mask = np.zeros(x.shape[:3])
    mask[4:9, 4:9] = 1
    given = {"mask": Volume(mask, AFFINE), "noise_sd": 0.5}
    maps = make_maps(series(x, FlipAngle=FLIPS), MODELS["dam"], **given)
    assert maps.counts == {
        "in the image": 512,
        "outside the mask": 462,
        "NaN or infinite": 1,
        "zero in every image": 1,
        "fitted": 48,
        "at a bound": 0,
        "ill-determined": 0,
        "no convergence": 0,
    }
    b1 = next(iter(maps.values.values()))
    np.testing.assert_allclose(b1[maps.determined], 90.0, rtol=1e-4)
    assert maps.misfit is None


def test_noise_is_that_of_air_where_fits_leave_nothing_over():
    x = np.abs(double_angle(noise_sd=2.0, shape=(24, 24, 4)))
    mask = np.zeros(x.shape[:3])
    mask[4:8, 4:16, 0] = 1
    maps = make_maps(series(x, FlipAngle=FLIPS), MODELS["dam"], mask=Volume(mask, AFFINE))
    assert "corners" in maps.noise_from and maps.noise_sd == pytest.approx(2.0, rel=0.15)
    with pytest.raises(InputError, match="--noise-sd"):
        make_maps(series(x[3:-3, 3:-3], FlipAngle=FLIPS), MODELS["dam"])


def test_flip_angles_are_corrected_by_a_map_on_another_grid():
    b1 = np.broadcast_to(np.linspace(0.7, 1.2, 40)[:, None, None], (40, 3, 3))
    flips, tr = [3.0, 15.0], 0.015
    angle, e1 = b1[..., None] * np.deg2rad(flips), np.exp(-tr / 1.1)
    x = 500.0 * np.sin(angle) * (1 - e1) / (1 - e1 * np.cos(angle))
    given = series(x, FlipAngle=flips, RepetitionTimeExcitation=[tr, tr])
    far = Volume(b1, np.eye(4) + np.array([[0, 0, 0, 900.0]] + 3 * [[0.0] * 4]))
    # Two voxels more along x, half a voxel aside along y, unknown (0) beside the images.
    aside = AFFINE.copy()
    aside[:3, 3] -= AFFINE[:3, :2] @ [2.0, 0.5]
    known = np.array([0.0, 1.0, 1.0, 0.0])[None, :, None]
    values = 100 * np.pad(b1[:, :1], ((2, 2), (0, 0), (0, 0)), "edge") * known
    wider = Volume(values, aside)
    maps = make_maps(given, MODELS["vfa"], b1=wider, noise_sd=0.01)
    t1 = next(iter(maps.values.values()))
    np.testing.assert_allclose(t1, 1.1, rtol=1e-3)
    for wrong, says in ((far, "covers"), (Volume(b1 * 10, AFFINE), "angles or volts")):
        with pytest.raises(InputError, match=says):
            make_maps(given, MODELS["vfa"], b1=wrong, noise_sd=0.01)


def test_tensors_turn_with_the_image():
    """A fibre along the first axis of an image turned by 30°, and water, in 12 directions."""
    rng = np.random.default_rng(0)
    g = rng.normal(size=(13, 3))
    g[0], b = 0.0, np.array([0.0] + 12 * [1000.0])
    g[1:] /= np.linalg.norm(g[1:], axis=1, keepdims=True)
    fibre = np.array([np.cos(0.5), np.sin(0.5), 0.0])
    x = np.empty((12, 12, 2, 13))
    x[:6] = 900 * np.exp(-b * (0.3e-3 + 1.2e-3 * (g @ fibre) ** 2))
    x[6:] = 900 * np.exp(-b * 1e-3)
    given = series(np.abs(noisy(x, 5.0)), "dwi", g, DiffusionBValue=b)
    maps = make_maps(given, MODELS["dti"])
    fa, md, ad = (value for value in list(maps.values.values())[:3])
    half = np.arange(12) < 6
    for value, expected in ((ad, 1.5e-3), (md, 0.7e-3), (fa, 1.2 / np.sqrt(2.43))):
        assert np.median(value[half]) == pytest.approx(expected, rel=0.02)
    assert (maps.status[half] == 0).all() and (maps.status[~half] == 5).mean() > 0.9
    assert maps.noise_sd == pytest.approx(5.0, rel=0.1) and maps.determined.mean() > 0.99
    with pytest.raises(InputError, match="no directions"):
        MODELS["dti"].plan(series(x, "dwi", DiffusionBValue=b))


class Means(NamedTuple):
    value: Any
    sd: Any
    residual: Any
    status: Any


def test_a_protocol_may_bring_a_fit_of_its_own():
    def mean(scale, x, noise_sd):
        assert noise_sd is None or noise_sd > 0
        value = SimpleNamespace(level=scale * jnp.mean(x, axis=1))
        sd = SimpleNamespace(level=scale * jnp.full(len(x), 1.0 if noise_sd is None else noise_sd))
        return Means(value, sd, jnp.std(x, axis=1, ddof=1), jnp.where(x[:, 0] > 60, 5, 0))

    def plan(given):
        return Plan(2.0, ("level",), given, Tissue(t1_s=1.0, t2_s=0.1), {}, mean, unknowns=1)

    level = Output("level", "level", "arbitrary", "a mean", 10.0)
    status = ((5, "bright: more than most"),)
    own = Protocol("mean", (), "means", (level,), "a mean", "", plan, status=status)
    x = np.abs(noisy(np.full((20, 20, 2, 6), 50.0), 1.0))
    x[0, 0, 0, 0], x[1, 0, 0] = 61.0, 0.0
    maps = make_maps(series(x), own)
    assert maps.counts["bright"] == 1 and maps.counts["fitted"] == 798
    assert maps.determined.sum() == 799 and maps.levels[5] == status[0][1]
    np.testing.assert_allclose(maps.values[level], 20 * x.mean(axis=3), rtol=1e-5)
    assert maps.noise_sd == pytest.approx(1.0, rel=0.05) == maps.misfit


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"mask": Volume(np.zeros((16, 16, 2)), AFFINE)}, "no voxel above 0"),
        ({"mask": Volume(np.ones((16, 16, 2)), np.eye(4))}, "not resampled"),
        ({"noise_sd": -1.0}, "above 0"),
        ({"noise_sd": 1e9}, "no voxel to fit.*200 below the noise"),
        ({"b1": Volume(np.ones((16, 16, 2)), AFFINE)}, "no use for it"),
    ],
)
def test_bad_input_is_refused(changes, says):
    x = np.abs(double_angle())
    with pytest.raises(InputError, match=says):
        make_maps(series(x, FlipAngle=FLIPS), MODELS["dam"], **{"noise_sd": 1.0} | changes)
    with pytest.raises(InputError, match="a magnitude of -1"):
        make_maps(series(x - 1, FlipAngle=FLIPS), MODELS["dam"], noise_sd=1.0)


@pytest.mark.long
def test_capillaries_are_told_apart_by_low_b_values():
    b = np.array([0.0, 10, 20, 40, 80, 120, 200, 400, 600, 800])
    f = np.where(np.arange(6) < 3, 0.1, 0.3)[:, None, None] * np.ones((6, 6, 2))
    blood = f[..., None] * np.exp(-0.03 * b)
    x = 900 * ((1 - f[..., None]) * np.exp(-1e-3 * b) + blood)
    with jax.enable_x64(False):
        maps = make_maps(
            series(np.abs(noisy(x, 5.0)), "dwi", DiffusionBValue=b), MODELS["ivim"], noise_sd=5.0
        )
    value, sd = ({o.suffix: v for o, v in each.items()} for each in (maps.values, maps.sds))
    assert [*value] == ["D", "f", "Dstar", "S0map"] and maps.determined.mean() > 0.9
    for name, truth in (("D", 1e-3), ("f", f)):
        score = ((value[name] - truth) / sd[name])[maps.determined]
        assert abs(score.mean()) < 0.5 and score.std() == pytest.approx(1.0, abs=0.3)


def test_without_low_b_values_there_is_no_map_of_capillaries():
    high = series(np.ones((2, 2, 2, 4)), "dwi", DiffusionBValue=[300, 500, 600, 800])
    with pytest.raises(InputError, match="low b-values"):
        make_maps(high, MODELS["ivim"], noise_sd=0.01)


def test_b0_of_evenly_spaced_echoes_is_unwrapped_in_space():
    """By turns from echo to echo: 250 Hz; not of voxels not determined, nor of uneven echoes."""
    x = np.linspace(-1, 1, 30)
    b0 = (200 * x[:, None] + 150 * x[None] ** 2)[..., None]
    plan = MODELS["megre"].plan(
        series(np.ones((1, 1, 1, 3), complex), EchoTime=[4e-3, 8e-3, 0.016])
    )
    assert plan.whole is not None and plan.bounds["b0_hz"][1] > 125
    wrapped = b0 - 250 * np.rint(b0 / 250)
    good = np.ones(b0.shape, bool)
    good[3, 4] = False
    found = plan.whole({"b0_hz": wrapped}, {"b0_hz": np.ones(b0.shape)}, good)["b0_hz"]
    np.testing.assert_allclose(found[good], b0[good], atol=1e-9)
    assert found[3, 4, 0] == wrapped[3, 4, 0]
    uneven = series(np.ones((1, 1, 1, 3), complex), EchoTime=[4e-3, 8e-3, 0.0136])
    assert MODELS["megre"].plan(uneven).whole is None


@pytest.mark.parametrize(
    ("model", "given", "says"),
    [
        ("mese", series(np.zeros((3, 3, 2, 4)), EchoTime=[0.01, 0.02, 0.03, 0.04]),
         "no voxel to fit: 18 in the image, 18 zero in every image.*empty"),
        ("ivim", series(np.ones((3, 3, 2, 3)), DiffusionBValue=[0, 100, 800]),
         "3 numbers in each voxel for 4 unknowns.*images left out"),
        ("mese", series(np.exp([[[[0.1, 1, 2, 3]]]]) * np.ones((5, 5, 2, 1)),
                        EchoTime=[0.01, 0.02, 0.03, 0.04]), "the model fits none of 50 voxels"),
        ("adc", series(np.ones((3, 3, 2, 3)), EchoTime=[0.1] * 3), r"no DiffusionBValue.*\.bval"),
    ],
)  # fmt: skip
def test_what_cannot_be_mapped_says_why(model, given, says):
    with pytest.raises(InputError, match=f"(?s){says}"):
        make_maps(given, MODELS[model])


INVERSIONS = (
    {"InversionTime": 0.8, "FlipAngle": 4.0},
    {"InversionTime": 2.7, "FlipAngle": 5.0},
)
PROTOCOL = {
    "RepetitionTimeExcitation": 0.007,
    "RepetitionTimePreparation": 5.0,
    "NumberShots": [60, 60],
}


def mp2rage_files(folder, unit: float, offset: float):
    """Both images with their phase and the scanner's combination of them; returns T1 and B1."""
    t1 = np.where(np.arange(24) < 12, 0.9, 1.5)[:, None, None] * np.ones((24, 20, 3))
    b1 = np.linspace(0.85, 1.15, 20)[None, :, None] * np.ones(t1.shape)
    flips = np.deg2rad([said["FlipAngle"] for said in INVERSIONS])
    theta = mr.mp2rage.two_trains((0.8, 2.7), flips, 0.007, (60, 60), 5.0)
    at = jax.jit(jax.vmap(lambda t1, b1: theta(Tissue(t1_s=t1, t2_s=0.1, m0=1e4, b1=b1))))
    x = np.asarray(at(t1.ravel(), b1.ravel())).reshape(*t1.shape, 2)
    y = noisy(x, 8.0)
    s = mr.mp2rage.uni(jnp.asarray(y))
    for i, said in enumerate(INVERSIONS):
        name = f"sub-01_inv-{i + 1}"
        put(folder, f"{name}_part-mag_MP2RAGE", np.abs(y[..., i]))
        put(folder, f"{name}_part-phase_MP2RAGE", np.angle(y[..., i]))
        (folder / f"{name}_MP2RAGE.json").write_text(json.dumps(said | PROTOCOL))
    put(folder, "sub-01_UNIT1", np.where(np.arange(24)[:, None, None] == 0, 0, unit * s + offset),
        {"InversionTime": 0.8})  # fmt: skip
    return t1, Volume(b1.astype(np.float32), AFFINE)


@pytest.mark.parametrize(("suffix", "scale"), [("UNIT1", 4095), ("UNIT1", 1), ("MP2RAGE", 1)])
def test_t1_of_the_combination_of_mp2rage(tmp_path, suffix, scale):
    t1, b1 = mp2rage_files(tmp_path, scale, scale / 2 if scale > 1 else 0)
    (found,) = [c for c in find_collections([tmp_path], [*SUFFIXES]) if c.suffix == suffix]
    read = read_collection(found)
    assert len(read.files) == (4 if suffix == "UNIT1" else 6)
    maps = make_maps(read, MODELS["uni"], b1=b1)
    (value,), (sd,) = maps.values.values(), maps.sds.values()
    inside = np.ones(t1.shape, bool)
    if suffix == "UNIT1":
        inside[0] = False
        assert maps.counts["zero in every image"] == 60
    assert (maps.determined == inside).all()
    z = (value - t1)[inside] / sd[inside]
    assert abs(z.mean()) < 0.1 and 0.85 < z.std() < 1.15, (z.mean(), z.std(), maps.noise_from)


def test_a_combination_without_its_protocol(tmp_path):
    put(tmp_path, "sub-01_UNIT1", np.full((3, 3, 3), 2000.0), {"EchoTime": 0.003})
    (found,) = find_collections([tmp_path], [*SUFFIXES])
    with pytest.raises(InputError, match=r"no InversionTime and no FlipAngle.*protocol"):
        MODELS["uni"].plan(read_collection(found))
    both = {"InversionTime": [0.8, 2.7], "FlipAngle": [4, 5]} | PROTOCOL
    put(tmp_path, "sub-01_UNIT1", np.full((3, 3, 3), 9000.0), both)
    with pytest.raises(InputError, match="0 to 4095"):
        MODELS["uni"].plan(read_collection(found))
