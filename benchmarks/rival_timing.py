"""What the rivals' scripts share: a workload timed warm in this process, as a line of JSON.

    PYTHON benchmarks/rival_NAME.py WORKLOAD INPUT.npz

writes what was found beside the input, in the shape and units of the benchmark that asks.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

Run = Callable[[], Any]
ENOUGH_S, LONGEST_S = 3.0, 10.0


def measure(
    workload: Callable[[str, dict[str, np.ndarray]], tuple[Run, Callable[[Any], np.ndarray]]],
    at_most: dict[str, int] | None = None,
    threads: int | None = None,
) -> None:
    """Times workload(name, inputs): a call without arguments, and what makes an array of numpy of
    its result. `at_most` voxels of a workload are simulated; the time is scaled to all of them.
    The first call is never among those timed. `threads` are those it computes with, torch's unless
    given."""
    name, path = sys.argv[1:]
    given = dict(np.load(path))
    voxels = given["t1_s"].size if "t1_s" in given else 1
    kept = min(voxels, (at_most or {}).get(name, voxels))
    by_voxel = [key for key in ("t1_s", "t2_s", "b1", "position_mm") if key in given]
    given.update({key: given[key][:kept] for key in by_voxel})
    run, as_array = workload(name, given)
    started = time.perf_counter()
    found = run()
    first = time.perf_counter() - started
    np.save(path.replace(".npz", ".found.npy"), as_array(found))
    seconds: list[float] = []
    while sum(seconds) < LONGEST_S and (
        len(seconds) < 3 or (sum(seconds) < ENOUGH_S and len(seconds) < 30)
    ):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    count: int = threads or sys.modules["torch"].get_num_threads()
    measured = {
        "on": f"{count} thread{'s' * (count > 1)}",
        "cores": count,
        "first": first,
        "seconds": [second * voxels / kept for second in seconds],
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    print(json.dumps(measured))
