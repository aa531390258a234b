"""`mrphys design` as a person or a job would call it."""

import json

import pytest
from typer.testing import CliRunner

from mrphys.errors import InputError
from oncology.cli import app

STUDIES = ("vfa", "diffusion", "fse", "fingerprint", "dce", "contrast")


def test_help_teaches():
    shown = CliRunner().invoke(app, ["design", "--help"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in STUDIES)
    assert "Example: mrphys design" in CliRunner().invoke(app, ["design", "fse", "--help"]).output


def test_a_study_prints_json_and_writes_what_it_names(tmp_path):
    seq = tmp_path / "train.seq"
    options = ["--echoes", "8", "--spacing", "0.012", "--steps", "10", "--seq", str(seq)]
    done = CliRunner().invoke(app, ["design", "fse", *options, "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found == json.loads((tmp_path / "fse.json").read_text())
    assert found["loss"]["after"] < found["loss"]["before"]
    assert (tmp_path / "fse.png").stat().st_size > 10_000
    assert seq.read_text().startswith("# Pulseq")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("vfa", "--t1", "1,x"), "numbers separated by commas"),
        (("vfa", "--tr", "15"), "tr_s"),
        (("diffusion", "--adc", "1.0"), "ADC in"),
        (("fse", "--energy", "0.01"), "pulse energy"),
        (("dce", "--shortest", "20"), "time between samples"),
        (("contrast", "--first", "bone"), "bone"),
        (("contrast", "--first", "white_matter", "--second", "white_matter"), "beside itself"),
        (("diffusion", "--te", "75"), "milliseconds"),
        (("diffusion", "--rician-snr", "0"), "rician_snr"),
        (("fse", "--spacing", "5"), "milliseconds"),
        (("fse", "--energy", "-1"), "energy"),
        (("fse", "--signal", "nan"), "signal"),
        (("fse", "--step-deg", "0"), "step_deg"),
        (("fingerprint", "--noise-sd", "-3"), "noise_sd"),
        (("fingerprint", "--step-deg", "0"), "step_deg"),
        (("dce", "--ve", "2"), "fractions"),
        (("dce", "--ve", "0.9", "--vp", "0.5"), r"ve \+ vp"),
        (("fingerprint", "--seq", "train.txt"), r"\.seq"),
    ],
)
def test_bad_input_is_one_clear_error(arguments, said, tmp_path):
    done = CliRunner().invoke(app, ["design", *arguments, "--out", str(tmp_path)])
    assert isinstance(done.exception, InputError)
    with pytest.raises(InputError, match=said):
        raise done.exception
    assert not list(tmp_path.iterdir())
