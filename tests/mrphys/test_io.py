import gzip
import os
from pathlib import Path

import jax.numpy as jnp
import nibabel as nib
import numpy as np
import pytest

from mrphys import InputError, Volume
from mrphys.io import (
    prepare_output_folder,
    provenance,
    read_nifti,
    read_results,
    whole_file,
    write_nifti,
    write_results,
    write_text,
)

TILTED = np.array([[-1, 0, 0], [0, 0.8, 0.6], [0, -0.6, 0.8]])
AFFINE = np.eye(4)
AFFINE[:3, :3] = TILTED @ np.diag([0.94, 0.94, 6.5])
AFFINE[:3, 3] = 90.0, -120.0, -40.0
SHEARED = AFFINE @ (np.eye(4) + 0.2 * np.eye(4, k=1) * [0, 1, 1, 0])


@pytest.fixture
def volume():
    return Volume(np.random.default_rng(0).normal(size=(7, 6, 5)).astype(np.float32), AFFINE)


@pytest.mark.core
@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nifti_round_trip(tmp_path, volume, suffix):
    path = tmp_path / f"image{suffix}"
    write_nifti(path, volume, unit="mm2/s", description="ADC")
    again = read_nifti(path)
    np.testing.assert_array_equal(again.data, volume.data)
    assert again.data.dtype == np.float32
    assert again.same_grid(volume)
    header = nib.load(path).header
    assert header["descrip"].item().decode() == "ADC; unit=mm2/s"
    assert header.get_xyzt_units()[0] == "mm"
    for form in (header.get_sform(coded=True), header.get_qform(coded=True)):
        np.testing.assert_allclose(form[0], AFFINE, atol=1e-5)
        assert form[1] == 1
    assert os.listdir(tmp_path) == [path.name]


def test_nifti_sheared_affine_is_kept_by_the_sform_alone(tmp_path):
    volume = Volume(np.zeros((3, 3, 3), np.float32), SHEARED)
    write_nifti(tmp_path / "a.nii", volume)
    assert nib.load(tmp_path / "a.nii").get_qform(coded=True)[1] == 0
    assert read_nifti(tmp_path / "a.nii").same_grid(volume)


def test_nifti_bytes_are_reproducible(tmp_path, volume, monkeypatch):
    write_nifti(tmp_path / "a.nii.gz", volume)
    monkeypatch.setattr("time.time", lambda: 1e9)
    write_nifti(tmp_path / "b.nii.gz", volume)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("given", "stored"),
    [("bool", "uint8"), ("uint8", "uint8"), ("int64", "int32"), ("float64", "float32")],
)
def test_nifti_storage_types(tmp_path, given, stored):
    data = np.array([0, 1, 1, 0]).astype(given).reshape(2, 2, 1)
    write_nifti(tmp_path / "a.nii", Volume(data, np.eye(4)))
    assert nib.load(tmp_path / "a.nii").get_data_dtype() == stored
    np.testing.assert_array_equal(read_nifti(tmp_path / "a.nii").data, data)


def test_nifti_scale_unit_and_trailing_axes_are_applied(tmp_path):
    image = nib.Nifti1Image(np.arange(8, dtype=np.int16).reshape(2, 2, 2, 1), np.eye(4))
    image.header.set_slope_inter(0.5, 3.0)
    image.header.set_xyzt_units("micron")
    image.to_filename(tmp_path / "a.nii")
    raw = np.asarray(image.dataobj)
    volume = read_nifti(tmp_path / "a.nii")
    assert volume.data.shape == (2, 2, 2)
    assert volume.spacing_mm == (1e-3, 1e-3, 1e-3)
    np.testing.assert_allclose(volume.data, nib.load(tmp_path / "a.nii").get_fdata()[..., 0])
    assert raw.shape == (2, 2, 2, 1)


def test_nifti_jax_data_with_channels(tmp_path):
    volume = Volume(jnp.ones((2, 3, 1, 4)), AFFINE)
    write_nifti(tmp_path / "a.nii.gz", volume)
    assert read_nifti(tmp_path / "a.nii.gz").data.shape == (2, 3, 1, 4)


def refused(path: Path, words: str) -> None:
    with pytest.raises(InputError, match=words) as caught:
        read_nifti(path)
    (problem,) = caught.value.problems
    assert problem.where == str(path)


def test_missing_or_foreign_files_are_refused(tmp_path):
    refused(tmp_path / "absent.nii.gz", "no file")
    refused(tmp_path, "a folder")
    (tmp_path / "text.nii").write_text("an image, surely " * 100)
    refused(tmp_path / "text.nii", "no NIfTI header")
    (tmp_path / "text.nii.gz").write_text("an image, surely")
    refused(tmp_path / "text.nii.gz", "no NIfTI header")
    (tmp_path / "empty.nii").touch()
    refused(tmp_path / "empty.nii", "no NIfTI header")
    nib.MGHImage(np.zeros((2, 2, 2), np.float32), np.eye(4)).to_filename(tmp_path / "a.mgz")
    refused(tmp_path / "a.mgz", "no NIfTI header")


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kept", [0.05, 0.5, 0.95])
def test_truncated_files_are_refused(tmp_path, volume, suffix, kept):
    path = tmp_path / f"image{suffix}"
    write_nifti(path, volume)
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    refused(path, "interrupted copy")


def test_damaged_compression_is_refused(tmp_path, volume):
    path = tmp_path / "image.nii.gz"
    write_nifti(path, volume)
    content = bytearray(path.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 40] = bytes(40)
    path.write_bytes(content)
    refused(path, "cannot be read")


@pytest.mark.parametrize(
    ("data", "affine", "words"),
    [
        (np.zeros((4, 4), np.float32), np.eye(4), "third axis"),
        (np.zeros((2, 2, 2, 2, 2), np.float32), np.eye(4), "channels"),
        (np.zeros((2, 2, 2), np.complex64), np.eye(4), "complex"),
        (np.zeros((2, 2, 2), [("R", "u1"), ("G", "u1"), ("B", "u1")]), np.eye(4), "colours"),
        (np.zeros((2, 2, 2), np.float32), np.full((4, 4), np.nan), "NaN"),
        (np.zeros((2, 2, 2), np.float32), np.diag([1.0, 1.0, 0.0, 1.0]), "singular"),
    ],
)
def test_images_that_are_no_volume_are_refused(tmp_path, data, affine, words):
    image = nib.Nifti1Image(data, None)
    image.header.set_sform(affine, code=1)
    image.header["sform_code"] = 1
    for row, name in zip(affine, ("srow_x", "srow_y", "srow_z"), strict=False):
        image.header[name] = row
    content = image.header.binaryblock + bytes(4) + data.tobytes(order="F")
    (tmp_path / "a.nii").write_bytes(content)
    refused(tmp_path / "a.nii", words)


@pytest.mark.parametrize(
    ("name", "data", "description", "words"),
    [
        ("a.img", np.zeros((2, 2, 2)), "", "suffix"),
        ("a.nii", np.zeros((2, 2, 2), complex), "", "complex"),
        ("a.nii", np.full((2, 2, 2), 2**40), "", "32-bit"),
        ("a.nii", np.zeros((2, 2, 2)), "x" * 80, "79 bytes"),
    ],
)
def test_what_nifti_cannot_hold_is_not_written(tmp_path, name, data, description, words):
    with pytest.raises(InputError, match=words):
        write_nifti(tmp_path / name, Volume(data, np.eye(4)), description=description)
    assert not os.listdir(tmp_path)


TREE = {
    "parameters": {
        "growth_per_day": {"mean": 0.04, "samples": np.linspace(0, 1, 3000)},
        "names": ["growth", "kill"],
    },
    "visits": 3,
    "scanned": np.array([True, False]),
    "signal": np.array([1 + 2j, 3j]),
    "note": "température 37 °C",
}
UNITS = {"parameters/growth_per_day/mean": "1/day", "parameters/growth_per_day/samples": "1/day"}


def test_results_round_trip(tmp_path):
    (tmp_path / "scan.nii").write_bytes(b"voxels")
    origin = provenance([tmp_path / "scan.nii"], seed=7, seconds=1.5)
    write_results(tmp_path / "a.h5", TREE, UNITS, origin)
    tree, units, origin_again = read_results(tmp_path / "a.h5")
    np.testing.assert_equal(tree, TREE)
    dimensionless = {"visits": "1", "scanned": "1", "signal": "1"}
    assert units == UNITS | dimensionless
    assert origin_again == origin
    # SHA-256 of the bytes "voxels", by coreutils sha256sum
    assert origin["inputs"] == {str(tmp_path / "scan.nii"): SHA256_OF_VOXELS}


SHA256_OF_VOXELS = "38d11342e7802dc460247dcec95b945557f05a1bcc74a4db37f42d7e2b8b43de"


@pytest.mark.parametrize(
    ("tree", "units", "words"),
    [
        ({"a": None}, {}, "NoneType"),
        ({"a": {"b": object()}}, {}, "a/b"),
        ({"a/b": 1.0}, {}, "name 'a/b'"),
        ({"a": 1.0}, {"b": "s"}, "'b'"),
        ({"a": "text"}, {"a": "s"}, "'a'"),
    ],
)
def test_results_that_cannot_be_written_leave_nothing(tmp_path, tree, units, words):
    with pytest.raises(InputError, match=words):
        write_results(tmp_path / "a.h5", tree, units, {})
    assert not os.listdir(tmp_path)


def test_unreadable_results_are_refused(tmp_path):
    with pytest.raises(InputError, match="no file"):
        read_results(tmp_path / "absent.h5")
    (tmp_path / "text.h5").write_text("numbers")
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "text.h5")


def test_an_error_while_writing_leaves_the_old_file(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first\n")
    with pytest.raises(RuntimeError), whole_file(path) as draft:
        draft.write_text("half")
        raise RuntimeError
    assert path.read_text() == "first\n"
    assert os.listdir(tmp_path) == ["a.txt"]


def test_a_reader_keeps_the_file_it_opened(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "first\n")
    with path.open() as reader:
        write_text(path, "second\n")
        assert reader.read() == "first\n"
    assert path.read_text() == "second\n"


def test_output_folders(tmp_path):
    made = prepare_output_folder(tmp_path / "a" / "b")
    assert made.is_dir() and not os.listdir(made)
    (tmp_path / "file").touch()
    for folder, words in [
        (tmp_path / "file", "a file has this name"),
        (tmp_path / "file" / "below", "part of the path is a file"),
        (Path("/proc/results"), "cannot be written"),
        (Path("/proc"), "cannot be written"),
    ]:
        with pytest.raises(InputError, match=words):
            prepare_output_folder(folder)


def test_writing_where_one_cannot_is_an_input_error(tmp_path, volume):
    (tmp_path / "a.nii").mkdir()
    with pytest.raises(InputError, match="a folder"):
        write_nifti(tmp_path / "a.nii", volume)
    with pytest.raises(InputError, match="does not exist"):
        write_results(tmp_path / "absent" / "a.h5", {}, {}, {})
    assert os.listdir(tmp_path) == ["a.nii"]


def test_gzip_of_the_right_length_with_a_wrong_checksum_is_refused(tmp_path, volume):
    path = tmp_path / "image.nii.gz"
    write_nifti(path, volume)
    whole = gzip.decompress(path.read_bytes())
    content = bytearray(gzip.compress(whole, 0, mtime=0))
    content[-9 - 20] ^= 0xFF
    path.write_bytes(content)
    refused(path, "cannot be read")
