"""Strict tests: float64, no silent broadcasting, warnings are errors, types and shapes checked.

MRPHYS_TEST_DTYPE=float32 runs without float64, as users do by default; with `-m core` that is the
float32 run of the numerical core. MRPHYS_DATA names the folder of reference data.
"""

import os
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import matplotlib
import psutil
import pytest
from jaxtyping import install_import_hook

ROOT = Path(__file__).resolve().parents[1]
PRECISION = os.environ.get("MRPHYS_TEST_DTYPE", "float64")
if PRECISION not in ("float32", "float64"):
    raise pytest.UsageError(f"MRPHYS_TEST_DTYPE is {PRECISION!r}; expected float32 or float64")

jax.config.update("jax_enable_x64", PRECISION == "float64")
jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update(
    "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", f"{ROOT}/.cache/jax")
)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)
matplotlib.use("Agg")
install_import_hook(["mrphys", "learn", "oncology"], "beartype.beartype")


@pytest.fixture
def dtype() -> jnp.dtype:
    """The floating-point type of this run."""
    return jnp.dtype(PRECISION)


@pytest.fixture
def rtol() -> Callable[[float, float], float]:
    """`rtol(1e-12, 1e-5)`: the first tolerance in a float64 run, the second in a float32 run."""
    return lambda float64, float32: float64 if PRECISION == "float64" else float32


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of reference data, kept beside the repository and never copied into it."""
    folder = Path(os.environ.get("MRPHYS_DATA", ROOT.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip("the reference data are not here; MRPHYS_DATA can name their folder")
    return folder


@pytest.fixture(scope="module", autouse=True)
def memory_bounded():
    """Compiled functions are dropped between modules once they fill 4 GiB."""
    yield
    if psutil.Process().memory_info().rss > 4 * 2**30:
        jax.clear_caches()
