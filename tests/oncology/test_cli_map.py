"""`mrphys map` as a person or a job would call it."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from typer.testing import CliRunner

from mrphys import perfusion
from mrphys.errors import InputError
from mrphys.io.nifti import read_nifti
from mrphys.protocols import MODELS
from oncology.cli import app
from tests.mrphys.dicom_files import classic
from tests.mrphys.scans import B_S_PER_MM2, diffusion, diffusion_images, noisy, put


def call(*arguments):
    return CliRunner().invoke(app, ["map", *map(str, arguments)])


def test_help_teaches():
    shown = call("--help").output
    assert "Example: mrphys map" in shown
    assert all(name in shown for name in MODELS)


def test_a_folder_becomes_maps_a_picture_and_a_summary(tmp_path):
    adc = diffusion(tmp_path / "sub-01" / "dwi")
    out = tmp_path / "maps"
    done = call(tmp_path / "sub-01", "--out", out, "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((out / "sub-01_desc-summary_ADC.json").read_text())
    assert found["parameters"]["ADC"]["median"] == pytest.approx(np.median(adc[adc > 0]), rel=0.05)
    assert found["voxels"]["fitted"] >= (adc > 0).sum()
    assert found["noise_sd"] == pytest.approx(4.0, rel=0.15)
    assert (out / "sub-01_ADC.png").stat().st_size > 10_000
    assert read_nifti(out / "sub-01_ADC.nii.gz").shape == adc.shape
    assert any(name.endswith("dwi.nii.gz") for name in found["provenance"]["inputs"])
    shown = call(tmp_path / "sub-01", "--out", out).output
    assert all(word in shown for word in ("ADC", "mm^2/s", "fitted", "noise sd", "sub-01_ADC.png"))


def contrast(folder):
    """Tissue of two kinds and an artery, with a T1 map; returns PS [1/min]."""
    times = np.arange(0.0, 200.0, 4.0)
    blood = np.asarray(perfusion.parker_2006(times, 30.0))
    ps = np.where(np.arange(8) < 4, 0.05, 0.2)[:, None, None] * np.ones((8, 8, 2))
    tissue = perfusion.Patlak(ps / 60, 0.05)
    theta = perfusion.dynamic_series(times, perfusion.arterial_input(times, blood))
    corner = np.zeros(ps.shape)
    corner[:2, :2, 0] = 1
    c = np.where(corner[..., None] > 0, blood, perfusion.concentration(theta, tissue))
    t1 = np.where(corner > 0, 1.6, np.linspace(1.0, 1.8, 8)[None, :, None])
    echo = perfusion.SpoiledEcho(np.deg2rad(15.0), 0.005, t1)
    signal = np.asarray(perfusion.signal_of_concentration(echo, jnp.asarray(c), 400.0))
    sidecar = {"FlipAngle": 15, "RepetitionTimeExcitation": 0.005, "EchoTime": 0.002}
    sidecar["VolumeTiming"] = times.tolist()
    put(folder, "sub-01_dce", np.abs(noisy(signal, 2.0)), sidecar)
    put(folder, "sub-01_T1map", np.where(corner > 0, 0.3, t1))
    put(folder, "sub-01_artery", corner)
    return np.where(corner > 0, np.nan, ps)


def test_contrast_enhanced_series_by_an_artery_in_the_image(tmp_path):
    ps = contrast(tmp_path / "perf")
    given = {
        "--t1": tmp_path / "perf" / "sub-01_T1map.nii.gz",
        "--aif": tmp_path / "perf" / "sub-01_artery.nii.gz",
        "--blood-t1": 1.6,
        "--kinetics": "patlak",
        "--delay": 0,
        "--noise-sd": 2,
    }
    options = [text for pair in given.items() for text in pair]
    done = call(tmp_path / "perf", *options, "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["model"] == "dce" and found["residual_over_noise"] == pytest.approx(1.0, abs=0.1)
    assert found["parameters"]["PS"]["unit"] == "1/min"
    value, sd = (
        np.asarray(read_nifti(tmp_path / "out" / f"sub-01_{name}.nii.gz").data)
        for name in ("PS", "desc-sd_PS")
    )
    there = np.isfinite(ps)
    score = (value - ps)[there] / sd[there]
    assert abs(score.mean()) < 0.7 and score.std() < 1.3
    said = json.loads((tmp_path / "out" / "sub-01_desc-dce_vp.json").read_text())
    assert said["KineticModel"] == "patlak" and said["BaselineImages"] == 7
    assert said["Units"] == "1" and said["Relaxivity"] == 4.5


def test_a_dicom_folder_too(tmp_path):
    adc, images = diffusion_images()
    weights = [{"DiffusionBValue": b, "EchoTime": 70.0} for b in B_S_PER_MM2]
    classic(tmp_path / "7", np.rint(images), weights)
    done = call(tmp_path / "7", "--out", tmp_path / "out", "--json")
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert (found["model"], found["series"]) == ("adc", "a-scan")
    assert found["parameters"]["ADC"]["median"] == pytest.approx(np.median(adc[adc > 0]), rel=0.05)
    said = json.loads((tmp_path / "out" / "a-scan_ADC.json").read_text())
    assert said["MagneticFieldStrength"] == 3.0 and len(said["Sources"]) == 8
    classic(tmp_path / "8", images[..., :2], weights[:1] * 2)
    with pytest.raises(InputError, match=r"differ in nothing.*--model"):
        raise call(tmp_path / "8").exception or AssertionError


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--model", "t1"), "vfa, irt1"),
        (("--noise-sd", "loud"), "auto, or a number"),
        (("--model", "vfa"), "sub-01_dwi.*other names"),
        ((), "sub-01_MESE.*--model chooses one"),
        (("--model", "mese"), "milliseconds"),
        (("--model", "adc", "--mask", "nothing.nii"), "no file"),
        (("--model", "adc", "--t1", "1.3"), "--model dce alone: t1_s"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, said, tmp_path):
    diffusion(tmp_path / "in")
    put(tmp_path / "in", "sub-01_MESE", np.ones((3, 3, 2, 3)), {"EchoTime": [10, 20, 30]})
    done = call(tmp_path / "in", *arguments, "--out", tmp_path / "out")
    assert isinstance(done.exception, InputError)
    with pytest.raises(InputError, match=f"(?s){said}"):
        raise done.exception
    assert not list((tmp_path / "out").glob("*"))
