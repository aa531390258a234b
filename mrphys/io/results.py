"""Results in HDF5, each number with its unit, the file with its provenance."""

import datetime
import hashlib
import json
import platform
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import h5py
import numpy as np

import mrphys
from mrphys.errors import InputError, Problem
from mrphys.io.output import whole_file


def write_results(
    path: str | Path,
    tree: Mapping[str, Any],
    units: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> None:
    """Write nested dictionaries of arrays, numbers and strings as HDF5, whole or not at all.

    `units` maps dataset paths such as "parameters/growth_per_day" to units; a number without one
    is dimensionless, unit "1". Every dataset of numbers has the attribute `unit`; `provenance`
    is the file's attribute of that name, as JSON.
    Raises InputError for a value HDF5 cannot hold, a name that is empty or holds "/", a unit for a
    dataset that is not there, or a folder that cannot be written.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     write_results(f"{folder}/a.h5", {"growth": {"mean": 0.1}}, {"growth/mean": "1/day"}, {})
    ...     read_results(f"{folder}/a.h5")
    ({'growth': {'mean': np.float64(0.1)}}, {'growth/mean': '1/day'}, {})
    """
    leaves = dict(_leaves(tree, "", str(path)))
    numbers = {name for name, value in leaves.items() if value.dtype.kind != "O"}
    problems = [
        Problem(
            str(path), f"a unit for {name!r}", "a unit for a number in the tree", "a misspelling"
        )
        for name in sorted(set(units) - numbers)
    ]
    if problems:
        raise InputError(*problems)
    with whole_file(path) as draft, h5py.File(draft, "w") as file:
        file.attrs["provenance"] = json.dumps(provenance, sort_keys=True)
        for name, value in leaves.items():
            large = value.size > 1024 and name in numbers
            dataset = file.create_dataset(
                name,
                data=value,
                dtype=None if name in numbers else h5py.string_dtype(),
                compression="gzip" if large else None,
                shuffle=large,
            )
            if name in numbers:
                dataset.attrs["unit"] = units.get(name, "1")


def _leaves(tree: Mapping[str, Any], above: str, where: str):
    for key, value in tree.items():
        if not isinstance(key, str) or not key or "/" in key or key == ".":
            raise InputError(Problem(f"{where}: {above}", f"name {key!r}", "a word without '/'"))
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{above}{key}/", where)
            continue
        array = np.asarray(value)
        if array.dtype.kind == "U":
            array = array.astype(object)
        elif array.dtype.kind not in "iufcb":
            raise InputError(
                Problem(
                    f"{where}: {above}{key}",
                    f"a {type(value).__name__}",
                    "a number, a string, or an array of one of them",
                )
            )
        yield above + key, array


def read_results(path: str | Path) -> tuple[dict[str, Any], dict[str, str], dict[str, Any]]:
    """The tree, units and provenance of a file made by `write_results`.

    Raises InputError when the file is missing, not HDF5, or not one of ours.
    """
    tree, units = {}, {}

    def place(name: str, dataset: h5py.Group | h5py.Dataset) -> None:
        if not isinstance(dataset, h5py.Dataset):
            return
        *groups, last = name.split("/")
        branch = tree
        for group in groups:
            branch = branch.setdefault(group, {})
        if "unit" in dataset.attrs:
            units[name] = dataset.attrs["unit"]
            branch[last] = dataset[()]
        else:
            text = dataset.asstr()[()]
            branch[last] = text if isinstance(text, str) else text.tolist()

    try:
        with h5py.File(path) as file:
            provenance = json.loads(str(file.attrs["provenance"]))
            file.visititems(place)
    except (OSError, KeyError) as error:
        missing = not Path(path).exists()
        raise InputError(
            Problem(
                str(path),
                "no file" if missing else f"a file that cannot be read ({error})",
                "results in HDF5, with their provenance",
                "a mistyped name" if missing else "another format, or an interrupted copy",
            )
        ) from error
    return tree, units, provenance


def provenance(
    inputs: Iterable[str | Path], seed: int | None = None, seconds: float | None = None
) -> dict[str, Any]:
    """Where a result came from: versions, SHA-256 of each input, seed, duration, time of writing.

    >>> sorted(provenance([], seed=0, seconds=1.5))
    ['created', 'inputs', 'seconds', 'seed', 'versions']
    """
    versions = {"python": platform.python_version(), "mrphys": mrphys.__version__}
    for package in ("jax", "equinox", "optimistix", "numpy", "nibabel"):
        versions[package] = metadata.version(package)
    return {
        "versions": versions,
        "inputs": {
            str(path): hashlib.sha256(Path(path).read_bytes()).hexdigest() for path in inputs
        },
        "seed": seed,
        "seconds": seconds,
        "created": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
    }
