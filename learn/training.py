"""One step, one loop: whatever the project learns, it learns here."""

import csv
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, partial
from itertools import count, islice
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Bool, Float, Int, PRNGKeyArray, PyTree

from mrphys.errors import InputError, Problem
from mrphys.io import whole_file
from mrphys.units import check_count

Net = TypeVar("Net", bound=nnx.Module)

EVERY = 100
"""Steps between evaluations."""


class Diverged(ArithmeticError):
    """A loss, gradient or evaluation was not finite, at `step`."""

    def __init__(self, step: int, what: str):
        self.step = step
        super().__init__(f"training step {step}: {what}")


class TrainingState(NamedTuple):
    """What a step changes.

    params  what gradients move: the network's `nnx.Param`
    rest    what they do not: running statistics, streams of random numbers
    memory  the optimiser's
    step    how many are done
    """

    params: PyTree
    rest: PyTree
    memory: optax.OptState
    step: Int[Array, ""]


@dataclass(frozen=True)
class Trained(Generic[Net]):
    """A network with its history.

    net          where the evaluation was lowest, or after the last step where there is none
    losses       at each step, before it
    evaluations  by the number of steps done
    """

    net: Net
    losses: Float[np.ndarray, " steps"]
    evaluations: dict[int, float]


class Run(NamedTuple):
    """A training so far: the state, the best network's `params` and `rest`, the history."""

    state: TrainingState
    best: tuple[PyTree, PyTree]
    losses: list[float]
    evaluations: dict[int, float]

    @property
    def done(self) -> int:
        """Steps done."""
        return len(self.losses)


Step = Callable[
    [TrainingState, Any, PRNGKeyArray],
    tuple[TrainingState, Float[Array, ""], Bool[Array, " leaves"]],
]


@lru_cache(maxsize=32)
def training_step(
    graph: nnx.GraphDef,
    loss: Callable[[Any, Any, PRNGKeyArray], Float[Array, ""]],
    optimiser: optax.GradientTransformation,
) -> Step:
    """step(state, batch, key), compiled: down the gradient of loss(net, batch, key), once.

    It gives the state after it, the loss before it, and whether the gradient of each leaf of
    `params` is finite. The state it is given is donated: its buffers become those of the next.
    `graph` is a network without its numbers, of `nnx.split`.
    """

    @partial(jax.jit, donate_argnums=0)
    def step(state: TrainingState, batch: PyTree, key: PRNGKeyArray):
        def objective(params: PyTree) -> tuple[Array, PyTree]:
            net = nnx.merge(graph, params, state.rest, copy=True)
            value = loss(net, batch, jax.random.fold_in(key, state.step))
            return value, nnx.split(net, nnx.Param, ...)[2]

        (value, rest), slope = jax.value_and_grad(objective, has_aux=True)(state.params)
        change, memory = optimiser.update(slope, state.memory, state.params)
        params: Any = optax.apply_updates(state.params, change)  # pyright: ignore[reportArgumentType]
        finite = jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(slope)])
        return TrainingState(params, rest, memory, state.step + 1), value, finite

    return step


def train(
    net: Net,
    loss: Callable[[Net, Any, PRNGKeyArray], Float[Array, ""]],
    data: Callable[[PRNGKeyArray], Any] | Iterable[Any],
    optimiser: optax.GradientTransformation,
    steps: int,
    *,
    evaluate: Callable[[Net], float | Mapping[str, float]] | None = None,
    every: int = EVERY,
    patience: int | None = None,
    folder: str | Path | None = None,
    log: str | Path | None = None,
    progress: Callable[[int, int, float], None] = lambda step, of, value: None,
    key: PRNGKeyArray,
) -> Trained[Net]:
    """A copy of `net` after `steps` steps down the gradient of loss(net, batch, key).

    data       batch = data(key), a key for each step; or batches, gone through again at their end
    evaluate   of the network after every `every` steps and the last; the lowest is kept. Of several
               metrics by name the first counts
    patience   evaluations without a lower one after which training stops
    folder     of checkpoints, written after each evaluation: what is there already is continued,
               to the last bit what one run would have found, where evaluations come at the same
               steps. Batches that are no function of a key are gone through from the beginning
    log        a CSV file: step, mean loss since the row before, metrics; a row each `every` steps.
               A run that resumes goes on with its rows
    progress   progress(step, of, loss), called every `every` steps

    Only `nnx.Param` is moved by gradients; running statistics and random streams are carried along.
    `net` itself stays as it is. Losses are looked at every `every` steps.

    Raises Diverged for a loss, gradient or evaluation that is not finite, naming the step; the
    last checkpoint is then of before. Raises InputError for batches that end, and for checkpoints
    of another network, optimiser or key.

    >>> net = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    >>> batch = jnp.array([[0.0], [1.0]]), jnp.array([[1.0], [3.0]])
    >>> square = lambda net, batch, key: jnp.mean((net(batch[0]) - batch[1]) ** 2)
    >>> made = train(net, square, [batch], optax.sgd(0.5), 60, key=jax.random.key(0))
    >>> float(made.net.kernel[0, 0].round(4)), float(made.net.bias[0].round(4))
    (2.0, 1.0)
    """
    check_count("train: steps", steps)
    check_count("train: every", every)
    if patience is not None:
        check_count("train: patience", patience)
    graph, params, rest = nnx.split(net, nnx.Param, ...)
    one_step = training_step(graph, loss, optimiser)
    start = TrainingState(params, rest, optimiser.init(params), jnp.zeros((), jnp.int32))
    run = Run(_copy(start), _copy((params, rest)), [], {})
    names = ["".join(map(str, path)) for path, _ in jax.tree.leaves_with_path(params)]
    checkpoints = None
    if folder is not None:
        from learn.checkpoints import Checkpoints  # its library takes a while to import

        checkpoints = Checkpoints(folder, key)
        run = checkpoints.newest(run)
    data_key, loss_key = jax.random.split(key)
    batches = _batches(data, data_key, run.done)
    rows = [] if log is None else _rows(log, run.done)
    while run.done < steps and not _exhausted(run.evaluations, patience):
        end = min(steps, (run.done // every + 1) * every)
        state, told = run.state, []
        for step in range(run.done, end):
            batch = _next(batches, step)
            state, *values = one_step(state, batch, loss_key)
            told.append(values)
        losses = [*run.losses, *_finite(told, names, run.done)]
        best, evaluations = (state.params, state.rest), run.evaluations
        metrics: dict[str, float] = {}
        if evaluate is not None:
            metrics = _by_name(evaluate(nnx.merge(graph, *best, copy=True)))
            value = next(iter(metrics.values()))
            if not np.isfinite(value):
                raise Diverged(end, f"the evaluation after it is {value}")
            lowest = min(evaluations.values(), default=np.inf)
            best = _copy(best) if value < lowest else run.best
            evaluations = evaluations | {end: value}
        run = Run(state, best, losses, evaluations)
        if checkpoints is not None:
            checkpoints.write(run)
        if log is not None:
            mean = float(np.mean(losses[end - len(told) :]))
            rows.append({"step": end, "loss": mean, **metrics})
            _write(log, rows)
        progress(end, steps, losses[-1])
    return Trained(nnx.merge(graph, *_copy(run.best)), np.asarray(run.losses), run.evaluations)


def _exhausted(evaluations: dict[int, float], patience: int | None) -> bool:
    """Whether none of the last `patience` evaluations is the lowest."""
    values = list(evaluations.values())
    return patience is not None and bool(values) and len(values) > patience + int(np.argmin(values))


def _by_name(found: float | Mapping[str, float]) -> dict[str, float]:
    named = found if isinstance(found, Mapping) else {"evaluation": found}
    return {name: float(value) for name, value in named.items()}


def _rows(path: str | Path, done: int) -> list[dict[str, Any]]:
    """Those of a log of before, up to step `done`."""
    if not Path(path).exists():
        return []
    with open(path, newline="") as file:
        return [row for row in csv.DictReader(file) if int(row["step"]) <= done]


def _write(path: str | Path, rows: list[dict[str, Any]]) -> None:
    with whole_file(path) as draft, open(draft, "w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[-1]), extrasaction="ignore")
        writer.writeheader()
        writer.writerows(rows)


_fold = jax.jit(jax.random.fold_in)


def _copy(tree: Any) -> Any:
    """Of buffers of its own, which can be donated."""
    return jax.tree.map(jnp.copy, tree)


def _batches(data: Any, key: PRNGKeyArray, done: int) -> Iterator[Any]:
    """From step `done` on."""
    if callable(data):
        return (data(_fold(key, step)) for step in count(done))
    return islice(_again_and_again(data), done, None)


def _again_and_again(data: Iterable[Any]) -> Iterator[Any]:
    some = True
    while some:
        some = False
        for batch in data:
            some = True
            yield batch


def _next(batches: Iterator[Any], step: int) -> Any:
    for batch in batches:
        return batch
    cause = "an iterator, which cannot be gone through twice" if step else "no data"
    raise InputError(Problem("train: data", f"an end at step {step}", "a batch", cause))


def _finite(told: list[Any], names: list[str], done: int) -> list[float]:
    """The losses. Raises Diverged for the first that is not finite, or has such a gradient."""
    losses, gradients = (np.asarray(jax.device_get(list(rows))) for rows in zip(*told, strict=True))
    bad = ~np.isfinite(losses) | ~gradients.all(axis=1)
    if bad.any():
        i = int(np.argmax(bad))
        which = [name for name, good in zip(names, gradients[i], strict=True) if not good]
        what = f"the loss is {losses[i]}" + (", its gradient not finite in " if which else "")
        raise Diverged(done + i, what + ", ".join(which))
    return losses.tolist()
