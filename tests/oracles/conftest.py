"""Oracles: other people's simulators, each in its own environment, asked by a short script.

MRPHYS_RIVALS names the environment that `make bench-rivals` makes. A test skips where the
environment, the package in it, or a program on PATH is missing.
"""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
RIVALS = Path(os.environ.get("MRPHYS_RIVALS", ROOT / ".cache" / "rivals")) / "bin" / "python"

collect_ignore_glob = ["ask_*.py"]  # what the other environment runs

Arrays = dict[str, np.ndarray]


@pytest.fixture(scope="session")
def rival(tmp_path_factory) -> Callable[..., Arrays]:
    """`rival("ask_sycomore", flip_rad=...)` runs that script with these arrays and gives its own;
    packages it imports may be missing, other errors fail the test."""

    def ask(script: str, **given: np.ndarray | float | str) -> Arrays:
        if not RIVALS.exists():
            pytest.skip("no environment of rivals: `make bench-rivals` makes one")
        folder = tmp_path_factory.mktemp(script)
        np.savez(folder / "given.npz", **{name: np.asarray(v) for name, v in given.items()})
        command = [RIVALS, Path(__file__).with_name(f"{script}.py"), folder]
        run = subprocess.run(command, capture_output=True, text=True, timeout=300)
        if "ModuleNotFoundError" in run.stderr:
            pytest.skip(run.stderr.strip().splitlines()[-1])
        assert run.returncode == 0, run.stderr
        with np.load(folder / "found.npz") as found:
            return dict(found)

    return ask


@pytest.fixture(scope="session")
def bart(tmp_path_factory) -> Callable[..., np.ndarray]:
    """`bart("epg -C -n 4 {}")` runs the program and gives the array that it wrote for {}."""

    def ask(command: str) -> np.ndarray:
        program = shutil.which("bart")
        if program is None:
            pytest.skip("no bart on PATH: `apt-get install bart` brings it")
        name = str(tmp_path_factory.mktemp("bart") / "found")
        words = [program, *(word.replace("{}", name) for word in command.split())]
        subprocess.run(words, capture_output=True, text=True, check=True, timeout=60)
        return np.fromfile(f"{name}.cfl", np.complex64)

    return ask
