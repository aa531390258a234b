"""What the rivals' scripts of benchmarks/mapping.py share.

    PYTHON benchmarks/rival_NAME.py WORKLOAD INPUT.npz

fits the first voxels of x (voxels, readouts) by each of the rival's methods and writes the maps
beside the input; a line of JSON says of each method the voxels and the fastest round in seconds.
"""

import json
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

Given = dict[str, np.ndarray]
ENOUGH_S = 4.0


class Method(NamedTuple):
    """Who, how many voxels at most, and maps by name of x (voxels, readouts).

    given  what differs from voxel to voxel, handed on with x
    """

    who: str
    voxels: int
    run: Callable[..., Given]
    given: tuple[str, ...] = ()


def measure(workload: Callable[[str, Given], list[Method]]) -> None:
    """Times the methods of workload(name, inputs): a few voxels first, then the fastest of three
    rounds, or one where it takes long."""
    name, path = sys.argv[1:]
    given = dict(np.load(path))
    told, maps = {}, {}
    for method in workload(name, given):
        several = [given[key][: method.voxels] for key in ("x", *method.given)]
        method.run(*[part[:20] for part in several])
        seconds: list[float] = []
        while len(seconds) < 3 and sum(seconds) < ENOUGH_S:
            started = time.perf_counter()
            found = method.run(*several)
            seconds.append(time.perf_counter() - started)
            maps.update({f"{method.who}:{key}": value for key, value in found.items()})
        told[method.who] = [len(several[0]), min(seconds)]
    np.savez(path.replace(".npz", ".found.npz"), **maps)
    print(json.dumps(told))
