"""Training written down so that it can go on as if it had not stopped."""

from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PRNGKeyArray

from learn.training import Run
from mrphys.errors import InputError, Problem
from mrphys.io import prepare_output_folder

KEPT = 2
"""Checkpoints; older ones are removed."""


class Checkpoints:
    """Those of one training, in a folder: each appears whole or not at all.

    Raises InputError for a folder that cannot be written.
    """

    def __init__(self, folder: str | Path, key: PRNGKeyArray):
        self.folder = prepare_output_folder(folder).resolve()
        self.key = np.asarray(jax.random.key_data(key)).tolist()
        options = ocp.CheckpointManagerOptions(
            max_to_keep=KEPT, enable_async_checkpointing=False, create=False
        )
        self.manager = ocp.CheckpointManager(self.folder, options=options)

    def write(self, run: Run) -> None:
        """All of a training."""
        leaves = _named(run)
        told = {
            "key": self.key,
            "numbers": _described(leaves),
            "losses": run.losses,
            "evaluations": [[*pair] for pair in run.evaluations.items()],
        }
        both = ocp.args.Composite(
            numbers=ocp.args.StandardSave(leaves), told=ocp.args.JsonSave(told)
        )
        self.manager.save(run.done, args=both)

    def newest(self, start: Run) -> Run:
        """The training as last written, or `start` where nothing was.

        Raises InputError when it is one of another network, optimiser or key.
        """
        step = self.manager.latest_step()
        if step is None:
            return start
        only_told = ocp.args.Composite(told=ocp.args.JsonRestore())
        told: dict[str, Any] = self.manager.restore(step, args=only_told)["told"]
        leaves = _named(start)
        self._check(told, _described(leaves))
        only_numbers = ocp.args.Composite(numbers=ocp.args.StandardRestore(leaves))
        found = self.manager.restore(step, args=only_numbers)["numbers"]
        now, tree = jax.tree.flatten({"state": start.state, "best": start.best})
        pairs = zip(now, (found[name] for name in leaves), strict=True)
        both = jax.tree.unflatten(tree, [_like(old, new) for old, new in pairs])
        evaluations = {int(after): value for after, value in told["evaluations"]}
        return Run(**both, losses=told["losses"], evaluations=evaluations)

    def _check(self, told: dict[str, Any], numbers: dict[str, str]) -> None:
        where, there = f"train: folder {self.folder}", told["numbers"]
        problems = []
        if told["key"] != self.key:
            found, cause = "checkpoints of another key", "a run of its own; give it another folder"
            problems.append(Problem(where, found, f"key {self.key}", cause))
        for name in sorted(set(there) | set(numbers)):
            if there.get(name) != numbers.get(name):
                found, expected = (d.get(name, "nothing") for d in (there, numbers))
                cause = "another network, optimiser or precision"
                problems.append(Problem(f"{where}: {name}", found, expected, cause))
        if problems:
            raise InputError(*problems[:5])


def _named(run: Run) -> dict[str, Any]:
    """Every array of state and best by its place."""
    pairs = jax.tree.leaves_with_path({"state": run.state, "best": run.best})
    return {jax.tree_util.keystr(path): _numbers(leaf) for path, leaf in pairs}


def _described(leaves: dict[str, Any]) -> dict[str, str]:
    return {name: f"{leaf.dtype}{list(leaf.shape)}" for name, leaf in leaves.items()}


def _is_key(leaf: Any) -> bool:
    return jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _numbers(leaf: Any) -> Any:
    return jax.random.key_data(leaf) if _is_key(leaf) else leaf


def _like(old: Any, new: Any) -> Any:
    return jax.random.wrap_key_data(new, impl=jax.random.key_impl(old)) if _is_key(old) else new
