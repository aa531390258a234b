"""One field over two devices, and over two processes, exchanges planes alone and gives the same."""

import os
import socket
import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).with_name("sharded_growth.py")
ROOT = SCRIPT.parents[2]


def test_a_field_over_devices_and_over_processes():
    with socket.socket() as probe:
        probe.bind(("localhost", 0))
        port = str(probe.getsockname()[1])
    quiet = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    runs = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), *arguments],
            env=quiet | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for arguments in ([], [port, "0"], [port, "1"])
    ]
    for run in runs:
        told, _ = run.communicate(timeout=120)
        assert run.returncode == 0, told
        assert told.strip().endswith("the same")
