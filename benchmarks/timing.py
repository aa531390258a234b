"""How the benchmarks of maps are timed."""

import time
from collections.abc import Callable
from typing import Any

import jax


def fastest_s(run: Callable[[], Any]) -> tuple[float, Any]:
    """Of three rounds, warm, in seconds; and what it gives."""
    found, seconds = jax.block_until_ready(run()), []
    for _ in range(3):
        started = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    return min(seconds), found
