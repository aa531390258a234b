"""The command as a person or a job would call it: what it prints, writes and returns."""

import io
import json
import os
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from unittest.mock import patch

import numpy as np
import pytest

from mrphys.io.nifti import read_nifti
from mrphys.io.results import read_results
from oncology.cli import main
from oncology.cohort import write_patient
from tests.oncology.patient_folders import image_path, rewrite, synthetic_folder
from tests.oncology.virtual import virtual_patient

WIDE = {"COLUMNS": "120", "NO_COLOR": "1"}


def alone(*arguments) -> subprocess.CompletedProcess:
    """In a process of its own."""
    environment = {**os.environ, **WIDE}
    environment.pop("MRPHYS_TEST_DTYPE", None)
    command = [sys.executable, "-c", "from oncology.cli import main; main()", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=560)


def mrphys(*arguments) -> subprocess.CompletedProcess:
    out, err, command = io.StringIO(), io.StringIO(), ["mrphys", *map(str, arguments)]
    with (
        patch.object(sys, "argv", command),
        patch.dict(os.environ, WIDE),
        redirect_stdout(out),
        redirect_stderr(err),
        pytest.raises(SystemExit) as ended,
    ):
        main()
    return subprocess.CompletedProcess(
        command, ended.value.code or 0, out.getvalue(), err.getvalue()
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    patient, _ = virtual_patient(size=20)
    return write_patient(tmp_path_factory.mktemp("patients") / "sub-virtual", patient)


@pytest.fixture(scope="module")
def forecast(folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("results")
    done = alone(
        *("forecast", folder, "--calibrate", "1,2", "--predict", "3", "--out", out),
        *("--growth", "global", "--draws", 24, "--json"),
    )
    assert done.returncode == 0, done.stderr
    return out, json.loads(done.stdout)


def test_help_teaches():
    done = mrphys("--help")
    assert done.returncode == 0
    assert all(word in done.stdout for word in ("check", "forecast", "demo", "sessions.tsv"))
    assert "--predict-day" in mrphys("forecast", "--help").stdout


def test_a_forecast_writes_every_file_by_its_name(forecast):
    out, _ = forecast
    stem = "sub-virtual_ses-03_desc-forecast"
    assert {path.name for path in out.iterdir()} == {
        f"{stem}_cellularity.nii.gz",
        f"{stem}sd_cellularity.nii.gz",
        f"{stem}_label-tumor_mask.nii.gz",
        "sub-virtual_forecast.h5",
        "sub-virtual_forecast.json",
        "sub-virtual_forecast.html",
        "sub-virtual_forecast.png",
    }
    mean = read_nifti(out / f"{stem}_cellularity.nii.gz")
    assert mean.shape == (20, 20, 1)
    tree, units, provenance = read_results(out / "sub-virtual_forecast.h5")
    np.testing.assert_allclose(tree["affine"], mean.affine)
    assert units["parameters/growth_rate_per_day/mean"] == "1/day"
    assert provenance["seed"] == 0 and provenance["inputs"]


def test_the_json_holds_parameters_scores_and_persistence(forecast):
    out, printed = forecast
    assert printed == json.loads((out / "sub-virtual_forecast.json").read_text())
    for row in printed["parameters"].values():
        assert row["low95"] < row["mean"] < row["high95"] and row["sd"] > 0 and row["unit"]
    *calibrated, predicted = printed["visits"]
    assert [row["session"] for row in calibrated] == ["ses-01", "ses-02"]
    assert predicted["day"] == 60.0
    kept = printed["persistence"][0]
    assert predicted["ccc"] > kept["ccc"] and predicted["crps"] < kept["crps"]
    total = predicted["forecast"]["total_cellularity_mm3"]
    assert total["low95"] < predicted["observed"]["total_cellularity_mm3"] < total["high95"]
    assert set(printed["observation"]) == {
        *("adc_w_mm2_per_s", "adc_min_mm2_per_s", "noise_sd_cellularity", "threshold")
    }


def test_check_lists_every_problem_and_returns_two(tmp_path):
    folder = synthetic_folder(tmp_path)
    assert mrphys("check", folder).returncode == 0
    rewrite(image_path(folder, "ses-01", "adc_mm2_per_s"), lambda adc: adc * 1e6)
    rewrite(image_path(folder, "ses-02", "tumor_labels"), np.zeros_like)
    done = mrphys("check", folder, "--json")
    assert done.returncode == 2
    problems = json.loads(done.stdout)["problems"]
    assert len([row for row in problems if row["level"] == "error"]) == 2


@pytest.mark.parametrize(
    ("change", "arguments", "said"),
    [
        (None, ("--calibrate", "1", "--predict", "3"), "at least 2 visits"),
        (None, ("--calibrate", "1,9", "--predict", "3"), "no session '9'"),
        (None, ("--calibrate", "1,2"), "--predict"),
        ("nan", ("--calibrate", "1,2", "--predict", "3"), "NaN"),
    ],
)
def test_bad_input_is_one_message_status_two_and_nothing_written(tmp_path, change, arguments, said):
    folder, out = synthetic_folder(tmp_path), tmp_path / "out"
    if change == "nan":
        rewrite(image_path(folder, "ses-01", "adc_mm2_per_s"), lambda adc: adc * np.nan)
    run = alone if change == "nan" else mrphys
    done = run("forecast", folder, *arguments, "--out", out)
    assert done.returncode == 2
    assert said.lower() in " ".join(done.stderr.split()).lower()
    assert "Traceback" not in done.stderr
    assert not out.exists() or not any(out.iterdir())


def test_an_output_folder_that_cannot_be_written_is_said_before_any_work(folder, tmp_path):
    (tmp_path / "file").write_text("")
    done = mrphys("forecast", folder, "--predict", "3", "--out", tmp_path / "file")
    assert done.returncode == 2
    assert "cannot be written" in " ".join(done.stderr.split())
