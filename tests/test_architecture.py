"""The house rules, held by reading the sources: imports, lengths, names, docstrings."""

import ast
import importlib
import inspect
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("mrphys", "learn", "oncology")
LONGEST = 600
LEFTOVERS = {"utils", "util", "helpers", "common", "misc"}
ROOMS_THAT_LEARN = {
    "cli",
    "cli_design",
    "decisions",
    "demo",
    "design",
    "diagnosis",
    "features",
    "harmonise",
    "neural",
    "report",
    "response",
    "survival",
}
SOURCES = sorted(
    path.relative_to(ROOT) for name in PACKAGES for path in (ROOT / name).rglob("*.py")
)


def imports(text: str, path: Path) -> Iterator[tuple[str, ...]]:
    """Every module a source imports, anywhere in it, as the parts of its full name."""
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from (tuple(alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = path.parts[: -node.level] if node.level else ()
            module = (*above, *(node.module.split(".") if node.module else ()))
            yield from ((*module, alias.name) for alias in node.names)


def forbidden_imports(text: str, path: Path) -> set[str]:
    """Modules that a source at this path may not import."""
    package, room = path.parts[0], Path(path.parts[1]).stem
    forbidden = {
        "mrphys": {"learn", "oncology", "flax", "optax"},
        "learn": {"oncology"},
        "oncology": set() if room in ROOMS_THAT_LEARN else {"learn", "flax", "optax"},
    }[package]
    return {".".join(name) for name in imports(text, path) if name[0] in forbidden}


def is_too_long(text: str) -> bool:
    return len(text.splitlines()) > LONGEST


def is_leftover(path: Path) -> bool:
    """Whether a file or folder is named for having nowhere to go."""
    return any(Path(part).stem in LEFTOVERS for part in path.parts)


def undocumented(module: ModuleType) -> set[str]:
    """Public functions and classes without a docstring of their own."""
    missing = set()
    for name in module.__all__:
        thing = getattr(module, name)
        if not (inspect.isroutine(thing) or inspect.isclass(thing)):
            continue
        doc = thing.__doc__ or ""
        if not doc.strip() or doc.startswith(f"{name}("):  # as dataclasses write for themselves
            missing.add(name)
    return missing


def public_packages() -> list[str]:
    packages = [path.parent for path in SOURCES if path.name == "__init__.py"]
    return [".".join(folder.parts) for folder in packages]


@pytest.mark.parametrize("path", SOURCES, ids=str)
def test_source_keeps_the_rules(path):
    text = (ROOT / path).read_text()
    assert not forbidden_imports(text, path)
    assert not is_too_long(text)
    assert not is_leftover(path)


@pytest.mark.parametrize("package", public_packages())
def test_public_names_exist_and_are_documented(package):
    module = importlib.import_module(package)
    assert hasattr(module, "__all__"), f"{package} does not say what is public"
    assert not undocumented(module)


@pytest.mark.parametrize(
    ("package", "unwanted"),
    [
        ("oncology", {"flax", "learn"}),
        ("mrphys", {"flax", "optax", "nilearn", "sklearn", "matplotlib", "pandas"}),
    ],
)
def test_importing_does_not_drag_in(package, unwanted):
    script = f"import sys, {package}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not unwanted & set(run.stdout.split())


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("import learn", "mrphys/tissue.py"),
        ("import flax.nnx as nnx", "mrphys/tissue.py"),
        ("def f():\n    from optax import adam", "mrphys/sequence/diffusion.py"),
        ("from .. import learn", "mrphys/tissue.py"),
        ("from ...oncology import growth", "mrphys/sequence/diffusion.py"),
        ("from oncology.growth import GrowthLaw", "learn/pinn.py"),
        ("from learn import training", "oncology/growth.py"),
        ("import learn.training", "oncology/calibration/laplace.py"),
    ],
)
def test_imports_against_the_arrows_are_seen(text, path):
    assert forbidden_imports(text, Path(path))


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("import mrphys, equinox", "learn/pinn.py"),
        ("from learn import training", "oncology/report.py"),
        ("from learn import training", "oncology/report/page.py"),
        ("from . import learned", "mrphys/tissue.py"),
        ("from .volume import Volume", "mrphys/tissue.py"),
    ],
)
def test_imports_along_the_arrows_pass(text, path):
    assert not forbidden_imports(text, Path(path))


def test_long_files_are_seen():
    assert is_too_long("x = 1\n" * (LONGEST + 1))
    assert not is_too_long("x = 1\n" * LONGEST)


def test_leftover_names_are_seen():
    assert is_leftover(Path("oncology/utils.py"))
    assert is_leftover(Path("mrphys/common/units.py"))
    assert not is_leftover(Path("mrphys/units.py"))


def test_missing_docstrings_are_seen():
    module = ModuleType("house")
    exec(
        "from dataclasses import dataclass\n"
        "__all__ = ['bare', 'told', 'Bare', 'NUMBER']\n"
        "NUMBER = 1\n"
        "def bare(): pass\n"
        "def told():\n    'What it does.'\n"
        "@dataclass\nclass Bare:\n    x: int\n",
        module.__dict__,
    )
    assert undocumented(module) == {"bare", "Bare"}
