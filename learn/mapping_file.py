"""A learned mapping in a file of its own, but for the acquisition, which its reader gives."""

from pathlib import Path
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array

from learn.frame import Asked, Frame, Range
from learn.mapping import LearnedMapping
from learn.networks import ResidualNetwork
from mrphys.bounds import Bounds
from mrphys.errors import InputError, Problem
from mrphys.io import provenance, read_results, write_results
from mrphys.mapping import T1_S, T2_S
from mrphys.tissue import Tissue
from mrphys.voxelwise import Model, with_fields

ALIKE = 1e-3
"""Of the largest readout: what the signals of one acquisition may differ by between precisions."""


def write_mapping(path: str | Path, learned: LearnedMapping) -> None:
    """Write a learned mapping, whole or not at all, for `read_mapping`.

    Raises InputError when the folder cannot be written.
    """
    asked, net = learned.asked, learned.net
    nowhere = (np.nan, np.nan)
    tree = {
        "asked": {
            "free": list(asked.free),
            "given": ",".join(asked.given),
            "bounds": np.array([nowhere if b is None else b for b in asked.bounds]),
            "data": asked.data,
        },
        "frame": _by_name(learned.frame),
        "known": _by_name(learned.known),
        "weights": _by_name(nnx.state(net)),
        "network": _sizes(net),
        "signal": _probe(learned.theta, learned.known, asked, learned.frame),
        "history": {
            "losses": learned.losses,
            "evaluated_after_steps": np.array([*learned.evaluations], int),
            "evaluations": np.array([*learned.evaluations.values()], float),
        },
    }
    nats = {"history/losses": "nat", "history/evaluations": "nat"}
    write_results(path, tree, nats, provenance([]))


def read_mapping(
    path: str | Path, theta: Model, *, known: eqx.Module | None = None
) -> LearnedMapping:
    """The mapping that `write_mapping` wrote, of the acquisition theta it was learned for.

    known  a module like that it was learned with, of which only the structure counts; a Tissue
           when None

    Raises InputError for a file of another kind, another acquisition or another kind of q.
    """
    tree, *_ = read_results(path)
    try:
        told, sizes = tree["asked"], {name: int(n) for name, n in tree["network"].items()}
        pairs = [tuple(map(float, pair)) for pair in told["bounds"]]
        asked = Asked(
            tuple(told["free"]),
            tuple(None if np.isnan(low) else Bounds(low, high) for low, high in pairs),
            tuple(told["given"].split(",")) if told["given"] else (),
            told["data"],
        )
        numbers = Range(*[jnp.zeros(0)] * 4)
        reference = jnp.zeros(0) if ".reference" in tree["frame"] else None
        frame = Frame(jnp.zeros(()), reference, numbers, numbers, numbers)
        net = nnx.eval_shape(lambda: ResidualNetwork(**sizes, rngs=nnx.Rngs(0)))
        like = Tissue(t1_s=T1_S, t2_s=T2_S) if known is None else known
        frame, like, weights = (
            _filled(str(path), part, tree[name])
            for name, part in (("frame", frame), ("known", like), ("weights", nnx.state(net)))
        )
        history, signal = tree["history"], tree["signal"]
    except (KeyError, TypeError) as error:
        expected = "a mapping, as write_mapping writes it"
        raise InputError(Problem(str(path), f"no {error}", expected, "other results")) from error
    _check_theta(str(path), signal, theta, like, asked, frame)
    nnx.update(net, weights)
    after = map(int, history["evaluated_after_steps"])
    evaluations = dict(zip(after, map(float, history["evaluations"]), strict=True))
    return LearnedMapping(theta, like, asked, frame, net, history["losses"], evaluations)


def _sizes(net: Any) -> dict[str, int]:
    inputs, width = net.first.kernel.shape
    return {
        "inputs": inputs,
        "outputs": net.last.kernel.shape[1],
        "width": width,
        "depth": len(net.blocks),
    }


def _by_name(tree: Any) -> dict[str, np.ndarray]:
    pairs = jax.tree.leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in pairs}


def _filled(where: str, like: Any, numbers: dict[str, Any]) -> Any:
    """A tree like another, of the file's numbers."""
    names = [jax.tree_util.keystr(path) for path, _ in jax.tree.leaves_with_path(like)]
    if set(names) != set(numbers):
        found, expected = (", ".join(sorted(some)) for some in (numbers, names))
        raise InputError(Problem(where, f"numbers of {found}", expected, "another kind of q"))
    return jax.tree.unflatten(jax.tree.structure(like), [jnp.asarray(numbers[n]) for n in names])


@eqx.filter_jit
def _probe(theta: Model, known: Any, asked: Asked, frame: Frame) -> Array:
    """The signal of tissue in the middle of what was learned."""
    middle = [
        jnp.ones((1,)) if bound is None else bound.value(u[None])
        for bound, u in zip(asked.bounds, frame.coordinates.mean, strict=True)
    ]
    given = [value[None] for value in frame.beside.mean[1:]]
    rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (1,)), known)
    return theta.signals(with_fields(rows, (*asked.free, *asked.given), [*middle, *given]))[0]


def _check_theta(
    where: str, signal: np.ndarray, theta: Model, known: Any, asked: Asked, frame: Frame
) -> None:
    found = f"a mapping of {signal.size} readouts of another signal"
    if signal.size == theta.averages.size:
        given = np.asarray(_probe(theta, known, asked, frame))
        if np.max(np.abs(given - signal)) <= ALIKE * np.max(np.abs(signal)):
            return
    expected = f"one of the acquisition given, of {theta.averages.size} readouts"
    raise InputError(Problem(where, found, expected, "another protocol"))
