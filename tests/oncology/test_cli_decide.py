"""`mrphys decide` as a person or a job would call it."""

import json

import pytest
from typer.testing import CliRunner

from mrphys.errors import InputError
from oncology.cli import app
from oncology.cohort import write_patient
from tests.oncology.virtual import virtual_patient

COMMANDS = ("scan", "radiotherapy", "chemotherapy", "response")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    patient, _ = virtual_patient(size=12, days=(0.0, 30.0))
    return write_patient(tmp_path_factory.mktemp("patients") / "sub-virtual", patient)


def test_help_teaches():
    shown = CliRunner().invoke(app, ["decide", "--help"])
    assert shown.exit_code == 0
    assert all(name in shown.output for name in COMMANDS)
    for name in COMMANDS:
        told = CliRunner().invoke(app, ["decide", name, "--help"]).output
        assert f"Example: mrphys decide {name}" in told


@pytest.mark.long
@pytest.mark.parametrize(
    ("arguments", "written"),
    [
        (("scan", "--day", "90", "--scans", "2"), ("scan.json", "scan.png")),
        (
            ("radiotherapy", "--day", "90", "--lengths", "30", "--steps", "5", "--starts", "1"),
            ("radiotherapy.json", "radiotherapy.png"),
        ),
        (
            ("chemotherapy", "--day", "99", "--steps", "5", "--starts", "1", "--worst"),
            ("chemotherapy.json", "chemotherapy.png"),
        ),
        (("response", "--day", "90"), ("response.json",)),
    ],
)
def test_each_command_prints_json_and_writes_what_it_names(folder, tmp_path, arguments, written):
    name, *rest = arguments
    given = ["decide", name, str(folder), *rest, "--draws", "8", "--out", str(tmp_path), "--json"]
    done = CliRunner().invoke(app, given)
    assert done.exit_code == 0, done.output
    assert {path.name for path in tmp_path.iterdir()} == set(written)
    assert json.loads(done.stdout) == json.loads((tmp_path / written[0]).read_text())


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("response", "--rule", "who"), "one of recist-1.1"),
        (("radiotherapy", "--lengths", "x"), "whole numbers"),
        (("scan", "--calibrate", "1"), "at least 2 visits"),
    ],
)
def test_bad_input_is_one_clear_error(folder, tmp_path, arguments, said):
    name, *rest = arguments
    done = CliRunner().invoke(
        app, ["decide", name, str(folder), "--day", "90", *rest, "--out", str(tmp_path)]
    )
    assert isinstance(done.exception, InputError)
    with pytest.raises(InputError, match=said):
        raise done.exception
    assert not list(tmp_path.iterdir())
