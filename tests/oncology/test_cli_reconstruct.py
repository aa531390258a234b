"""`mrphys reconstruct` as a person or a job would call it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from mrphys import InputError, RawData
from mrphys.encoding import fft
from mrphys.io import read_nifti, write_raw
from oncology.cli import app
from oncology.cli_reconstruct import METHODS

SIZE, COILS, NOISE_SD = 32, 4, 0.02


def call(*arguments):
    return CliRunner().invoke(app, ["reconstruct", *map(str, arguments)])


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    """Two slices by every other line but the middle 12, coupled noise, its scan; true images."""
    rng = np.random.default_rng(0)
    at = (np.arange(SIZE) - SIZE // 2) / SIZE
    x, y = np.meshgrid(at, at, indexing="ij")
    places = 0.6 * np.exp(2j * np.pi * np.arange(COILS) / COILS)
    c = np.stack(
        [np.exp(-2 * np.abs(x + 1j * y - p) ** 2) * np.exp(1j * x * p.real) for p in places]
    )
    c = c / np.linalg.norm(c, axis=0)
    inside = (x / 0.4) ** 2 + (y / 0.45) ** 2 < 1
    images = np.stack([inside * (1 + 0.5 * (np.abs(x) < r)) for r in (0.1, 0.2)])
    mask = np.zeros((SIZE, SIZE), np.float32)
    mask[:, ::2] = mask[:, 10:22] = 1
    k = np.asarray(fft(jnp.asarray(c[None] * images[:, None]), 2))
    mixing = np.eye(COILS) + 0.4 * np.eye(COILS, k=1)

    def noise(*shape):
        n = NOISE_SD * (rng.normal(size=shape) + 1j * rng.normal(size=shape))
        return np.moveaxis(np.tensordot(mixing, n, axes=(1, -1)), 0, -1).astype(np.complex64)

    y = k + np.moveaxis(noise(2, SIZE, SIZE, COILS), -1, 1)
    raw = RawData(
        (y * mask).astype(np.complex64), (SIZE, SIZE), (64.0, 64.0), series=("slice",),
        mask=np.stack([mask] * 2), noise=noise(2000, COILS).T.copy(),
        affine=np.diag([2.0, 2.0, 5.0, 1.0]),
    )  # fmt: skip
    path = tmp_path_factory.mktemp("raw") / "a.h5"
    write_raw(path, raw)
    return path, images


def test_help_teaches():
    shown = call("--help").output
    assert "Example: mrphys reconstruct" in shown
    assert all(name in shown for name in METHODS)


def test_a_file_becomes_images_a_picture_and_a_summary(scan, tmp_path):
    path, images = scan
    done = call(path, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.exception
    told = json.loads(done.stdout)
    names = {f"a_{p}.{e}" for p in ("part-mag", "part-phase") for e in ("nii.gz", "json")}
    assert {f.name for f in (tmp_path / "out").iterdir()} == {*names, "a.png"}
    assert (tmp_path / "out" / "a.png").stat().st_size > 5_000
    magnitude = read_nifti(tmp_path / "out" / "a_part-mag.nii.gz")
    assert magnitude.shape == (SIZE, SIZE, 2) and magnitude.spacing_mm == pytest.approx((2, 2, 5))
    error = np.asarray(magnitude.data) - np.moveaxis(images, 0, -1)
    assert np.sqrt(np.mean(error**2)) < 3 * NOISE_SD
    said = json.loads((tmp_path / "out" / "a_part-mag.json").read_text())
    assert said["status"] == ["converged"] * 2 and said["coils"] == COILS
    assert said["noise_sd"] == pytest.approx(NOISE_SD * np.sqrt(1 + 0.75 * 0.16), rel=0.05)
    assert said["residual"] == pytest.approx([said["noise_sd"]] * 2, rel=0.03)
    assert told["voxels_per_sample"] == pytest.approx(SIZE / 22)
    assert str(path) in told["provenance"]["inputs"]


def test_other_methods_and_coils_for_one_slice(scan, tmp_path):
    path, images = scan
    maps = np.ones((COILS, SIZE, SIZE), complex)
    np.save(tmp_path / "maps.npy", maps)
    given = ("--coils", tmp_path / "maps.npy", "--virtual", 3)
    for name, options in {"walsh": ("--coils", "walsh"), "given": given}.items():
        out = tmp_path / name
        done = call(path, "--slice", 1, "--method", "adjoint", *options, "--out", out)
        assert done.exit_code == 0, done.exception
        assert "voxels per sample" in done.output and "a.png" in done.output
    image = np.asarray(read_nifti(tmp_path / "walsh" / "a_part-mag.nii.gz").data)[..., 0]
    assert np.corrcoef(image.ravel(), images[1].ravel())[0, 1] > 0.95


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--method", "grappa"), "one of adjoint"),
        (("--coils", "sense"), "or a .npy file"),
        (("--coils", "nothing.npy"), "No such file"),
        (("--slice", "2"), "0 to 1"),
        (("--slice", "first"), "whole number"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_written(scan, tmp_path, options, said):
    refused = call(scan[0], *options, "--out", tmp_path / "out")
    assert isinstance(refused.exception, InputError)
    assert said in str(refused.exception)
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_coils_of_another_matrix_are_refused_and_nothing_written(scan, tmp_path):
    np.save(tmp_path / "maps.npy", np.ones((COILS, SIZE, 8), complex))
    refused = call(scan[0], "--coils", tmp_path / "maps.npy", "--out", tmp_path / "out")
    assert isinstance(refused.exception, InputError)
    assert "without oversampling" in str(refused.exception)
    assert not list((tmp_path / "out").iterdir())
