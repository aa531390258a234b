import json

import numpy as np
import pytest

from mrphys.errors import InputError
from mrphys.io.bids import find_collections, read_collection
from tests.mrphys.scans import AFFINE, put

DATA = np.random.default_rng(0).uniform(1, 9, (4, 3, 2, 3)).astype(np.float32)
MOVED = AFFINE @ np.diag([1, 1, 1.1, 1])
SUFFIXES = ("VFA", "MESE", "MEGRE", "IRT1", "TB1AFI", "dwi")


def read(*paths):
    (found,) = find_collections(paths, SUFFIXES)
    return read_collection(found)


def test_one_image_a_file_in_the_order_of_the_numbers_in_names(tmp_path):
    for flip, index in ((2, 2), (3, 10), (1, 0)):
        put(tmp_path, f"sub-01_flip-{flip}_VFA", DATA[..., index % 3], {"FlipAngle": 5.0 * flip})
    put(tmp_path, "sub-01_T1w", DATA[..., 0])
    series = read(tmp_path)
    assert (series.name, series.suffix, series.readouts) == ("sub-01", "VFA", 3)
    np.testing.assert_array_equal(series.images.data, DATA[..., [0, 2, 1]])
    np.testing.assert_array_equal(series.each("FlipAngle"), [5, 10, 15])
    np.testing.assert_allclose(series.images.affine, AFFINE)


def test_sidecars_are_inherited_and_the_nearer_wins(tmp_path):
    (tmp_path / "dataset_description.json").write_text("{}")
    (tmp_path / "MESE.json").write_text(
        json.dumps({"MagneticFieldStrength": 1.5, "EchoTime": [0.1, 0.2, 0.3], "FlipAngle": 90})
    )
    (tmp_path / "acq-other_MESE.json").write_text(json.dumps({"FlipAngle": 1}))
    (tmp_path / "VFA.json").write_text(json.dumps({"FlipAngle": 2}))
    anat = tmp_path / "sub-01" / "anat"
    put(anat, "sub-01_MESE", DATA, {"MagneticFieldStrength": 3, "EchoTime": [0.01, 0.02, 0.03]})
    series = read(tmp_path)
    assert series.about is not None and series.about["MagneticFieldStrength"] == 3
    np.testing.assert_array_equal(series.each("EchoTime"), [0.01, 0.02, 0.03])
    assert series.one("FlipAngle") == 90


@pytest.mark.parametrize("steps", [None, 4096])
def test_magnitude_and_phase_make_complex_images(tmp_path, steps):
    x = DATA * np.exp(1j * np.linspace(-3, 3, DATA.size).reshape(DATA.shape))
    scale = 1.0 if steps is None else steps / np.pi
    for echo in range(3):
        sidecar = {"EchoTime": 0.01 * (echo + 1)}
        name = f"sub-01_echo-{echo + 1}_part-{{}}_MEGRE"
        put(tmp_path, name.format("mag"), np.abs(x[..., echo]), sidecar)
        phase = np.angle(x[..., echo]) * scale
        put(tmp_path, name.format("phase"), phase if steps is None else np.rint(phase), sidecar)
    np.testing.assert_allclose(read(tmp_path).images.data, x, atol=0.02 if steps else 1e-5)


def test_real_and_imaginary_parts_and_repetition_times_in_names(tmp_path):
    for tr in (1, 2):
        put(tmp_path, f"sub-01_acq-tr{tr}Test_TB1AFI", DATA[..., tr])
    assert read(tmp_path).name == "sub-01_acq-Test"
    for part, index in (("real", 0), ("imag", 1)):
        put(tmp_path / "inv", f"sub-01_inv-1_part-{part}_IRT1", DATA[..., index])
    x = read(tmp_path / "inv").images.data
    np.testing.assert_array_equal(x[..., 0], DATA[..., 0] + 1j * DATA[..., 1])


@pytest.mark.parametrize("mirrored", [False, True])
def test_gradients_are_turned_into_space(tmp_path, mirrored):
    """A rotation of the head's image turns directions by as much."""
    angle = 0.3
    turn = np.array(
        [[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]]
    )
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([-2.0 if mirrored else 2.0, 2.0, 3.0])
    put(tmp_path, "sub-01_dwi", DATA, affine=affine)
    (tmp_path / "sub-01_dwi.bval").write_text("0 1000 1000")
    # FSL's x runs against the first axis of right-handed images, along it of left-handed ones.
    (tmp_path / "sub-01_dwi.bvec").write_text("0 -1 0\n0 0 0.6\n0 0 0.8\n")
    series = read(tmp_path)
    assert series.directions is not None
    expected = turn @ np.array([[0, 0, 0], [1.0, 0, 0], [0, 0.6, 0.8]]).T
    np.testing.assert_allclose(series.directions, expected.T, atol=1e-6)
    np.testing.assert_array_equal(series.each("DiffusionBValue"), [0, 1000, 1000])


def test_images_by_any_name(tmp_path):
    path = put(tmp_path, "flash", DATA, {"FlipAngle": [2, 5, 10]})
    series = read(path)
    assert (series.name, series.suffix) == ("flash", "")
    np.testing.assert_array_equal(series.each("FlipAngle"), [2, 5, 10])


def _two(folder, second, name="sub-01_flip-2_VFA", **more):
    put(folder, "sub-01_flip-1_VFA", DATA[..., 0], {"FlipAngle": 5})
    put(folder, name, DATA[..., 1], second, **more)


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        (lambda f: _two(f, {"FlipAngle": 9}, affine=MOVED), "not resampled"),
        (lambda f: _two(f, {"FlipAngle": [1, 2]}), "2 numbers for 1 image"),
        (lambda f: _two(f, {"FlipAngle": "9 deg"}), "'9 deg'.*a number"),
        (lambda f: _two(f, None), "no FlipAngle of 1 of 2 images.*missing sidecar"),
        (lambda f: _two(f, {}, "sub-01_flip-2_part-phase_VFA"), "part-phase alone"),
        (lambda f: _two(f, {"FlipAngle": 0.3, "X": 1}), None),
        (lambda f: (_two(f, {}), (f / "sub-01_flip-2_VFA.json").write_text("{,")), "a JSON object"),
        (lambda f: (_two(f, {}), (f / "sub-01_flip-2_VFA.nii.gz").write_bytes(b"x")), "header"),
        (lambda f: (_two(f, {}), (f / "sub-01_VFA.bval").write_text("0 1")), "2 b-values for 1"),
    ],
)  # fmt: skip
def test_bad_folders_are_refused(tmp_path, spoil, says):
    spoil(tmp_path)
    if says is None:
        assert read(tmp_path).each("FlipAngle").tolist() == [5, 0.3]
        return
    with pytest.raises(InputError, match=f"(?s){says}"):
        read(tmp_path).each("FlipAngle")


@pytest.mark.parametrize(
    ("name", "values", "says"),
    [
        ("EchoTime", [10, 20, 30], "10 to 30 s.*milliseconds"),
        ("FlipAngle", [0.03, 0.1, 0.3], "radians given for degrees"),
        ("InversionTime", [50, 500, 3000], "milliseconds"),
        ("EchoTime", [0.01, float("nan"), 0.03], "no EchoTime of 1 of 3"),
    ],
)
def test_settings_in_other_units_are_refused(tmp_path, name, values, says):
    put(tmp_path, "sub-01_MESE", DATA, {name: values})
    series = read(tmp_path)
    with pytest.raises(InputError, match=says):
        series.each(name)
    with pytest.raises(InputError, match=f"no RepetitionTime.*there are {name}"):
        series.each("RepetitionTime")
