"""One field over two devices, and over two processes, exchanges planes alone and gives the same."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("sharded_growth.py")
ROOT = SCRIPT.parents[2]


def outcomes(*arguments):
    """Of the script, run with each of these at the same time."""
    quiet = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *given],
            env=quiet | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for given in arguments
    ]
    return [(run.communicate(timeout=200)[0].strip(), run.returncode) for run in runs]


def test_a_field_over_two_devices():
    [(told, status)] = outcomes(())
    assert status == 0, told
    assert told.endswith("the same")


@pytest.mark.long
def test_a_field_over_two_processes():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    for told, status in outcomes((port, "0"), (port, "1")):
        assert status == 0, told
        assert told.endswith("the same")
