"""`learn.PINN`: a problem stated, and trained."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, PRNGKeyArray
from threadpoolctl import threadpool_limits

from learn.pinn.fields import MLP, Field
from learn.pinn.region import Region
from learn.pinn.solution import Solution
from learn.pinn.stages import Adam, GaussNewton, Stage
from learn.pinn.system import Rest, System
from learn.pinn.terms import Condition, Data, Parameter, Residual
from learn.training import Diverged, Run, TrainingState
from mrphys.errors import InputError, Problem
from mrphys.units import check_count

EVERY = 50
"""Steps between looks at the losses."""
STAGES = (Adam(steps=1000), GaussNewton(steps=200))

Progress = Callable[[str, int, int, float], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PINN:
    """A field u and parameters p with residual(u, at, p) = 0 in a box of inputs, or a region of it.

        minimise  w |residual|² + Σ_k w_k |condition_k|² + |(û - y) / sd|² + |(p - mean) / sd|² / n

    means over points drawn inside, a condition's points, the n readings; in θ of the network and p.

    inputs      ranges by name, in physical units, scaled inside; time is called t or t_UNIT
    residual    of one point: u() the value, u("x", "x") ∂²u/∂x²; at["x"]; p["D"]. Of any order
    outputs     numbers u has
    unit        of u: its size, so that the network's own numbers are about 1
    p           numbers, known, or `Parameter`s, sought
    hard        made(at, n): u from the network's n so that conditions hold by construction
    conditions  those that do not: `Condition`s by name
    region      where a signed distance is negative; points are drawn there
    field       network(inputs, outputs, rngs=): `MLP`, `ModifiedMLP`, `SIREN`, `FourierFeatures`
    weights     w by name, "residual" the equations'; 1 unless given
    unknown     networks by name, made by factory(rngs=), which the residual calls as p[name]
    dtype       "float64" also where JAX runs in float32; JAX's own unless given

    Raises InputError for a residual that is no number, for points outside.

    >>> decay = PINN(inputs={"t": (0.0, 2.0)}, residual=lambda u, at, p: u("t") + u(),
    ...              hard=lambda at, n: 1.0 + at["t"] * n, field=partial(MLP, width=8, depth=1))
    >>> made = decay.fit(points=64, stages=[GaussNewton(steps=50)], key=jax.random.key(0))
    >>> round(float(made({"t": 1.0})), 3)
    0.368

    Raissi, Perdikaris, Karniadakis 2019, doi:10.1016/j.jcp.2018.10.045.
    """

    inputs: Mapping[str, tuple[float, float]]
    residual: Residual
    outputs: int = 1
    unit: float = 1.0
    p: Mapping[str, float | Parameter] = dataclasses.field(default_factory=dict)
    hard: Callable[..., Array] | None = None
    conditions: Mapping[str, Condition] = dataclasses.field(default_factory=dict)
    region: Region | None = None
    field: Callable[..., Field] = MLP
    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    unknown: Mapping[str, Callable[..., nnx.Module]] = dataclasses.field(default_factory=dict)
    dtype: Literal["float32", "float64"] | None = None

    def __post_init__(self):
        problems = [
            Problem(f"PINN: inputs {name}", f"({low:g}, {high:g})", "a range from low to high")
            for name, (low, high) in self.inputs.items()
            if not (np.isfinite([low, high]).all() and low < high)
        ]
        if problems:
            raise InputError(*problems)

    def precision(self) -> AbstractContextManager:
        """In which it is computed."""
        return nullcontext() if self.dtype is None else jax.enable_x64(self.dtype == "float64")

    def fit(
        self,
        data: Data | None = None,
        *,
        points: int = 2000,
        stages: Sequence[Stage] = STAGES,
        members: int = 1,
        start: Solution | None = None,
        folder: str | Path | None = None,
        progress: Progress = lambda stage, step, of, loss: None,
        key: PRNGKeyArray,
    ) -> Solution:
        """Trained, stage after stage.

        points    drawn inside by Sobol's sequence
        members   trainings in one program, of networks drawn apart; of data apart where
                  `data.value`, or what is in `data.at`, has a row for each
        start     a solution of before to go on from, of the same problem; of one member for all
        folder    of checkpoints, written every `EVERY` steps: what is there is continued
        progress  progress(stage, step, of, loss)

        Raises Diverged for a loss that is not finite, naming step and term; the last checkpoint is
        then of before.
        """
        check_count("PINN.fit: points", points)
        check_count("PINN.fit: members", members)
        # LAPACK's own threads and XLA's would wait for one another, tenfold.
        with self.precision(), threadpool_limits(1, "blas"):
            system = System(self, data, points, jnp.result_type(float))
            own = _own(system, members)
            made = partial(_drawn, key=key) if start is None else partial(_again, start=start)
            params, rest = made(system, members=members)
            losses: dict[str, np.ndarray] = {}
            for i, stage in enumerate(stages):
                name = f"{i} {type(stage).__name__}"
                place = None if folder is None else Path(folder) / name.replace(" ", "_")
                params, rest, losses[name] = _run(
                    name, stage, system, (params, rest), own, place, progress, members,
                    jax.random.fold_in(key, i),
                )  # fmt: skip
            return Solution(system, params, rest, own, losses, members)


def _own(system: System, members: int) -> dict[str, Array]:
    """Readings of each member, and their points where each has its own."""
    data = system.data
    if data is None:
        return {}
    value, sd = np.asarray(data.value, float), np.asarray(data.sd, float)
    problems = []
    if value.ndim > 2 or (value.ndim == 2 and value.shape[0] != members):
        expected = f"(readings,) or ({members}, readings)"
        problems.append(Problem("PINN: data", f"values of shape {value.shape}", expected))
    if not np.isfinite(value).all():
        problems.append(Problem("PINN: data", "values that are not finite", "finite ones"))
    if not (np.isfinite(sd) & (sd > 0)).all():
        problems.append(Problem("PINN: data", "sds that are not positive", "positive ones"))
    rows = {name: np.shape(v) for name, v in data.at.items() if np.ndim(v) == 2}
    for name, shape in rows.items():
        if shape[0] != members or members == 1:
            expected = "a list" if members == 1 else f"({members}, readings)"
            problems.append(Problem(f"PINN: data, {name}", f"shape {shape}", expected))
    if problems:
        raise InputError(*problems)
    each = np.broadcast_to(value, (members, value.shape[-1])) if members > 1 else value.ravel()
    own = {"_value": jnp.asarray(each, system.dtype)}
    if rows:
        places = [system.data_rows(member) for member in range(members)]
        kept = {"_x", *rows} - set(system.names)
        own |= {name: jnp.stack([each[name] for each in places]) for name in kept}
    return own


def _drawn(system: System, members: int, key: PRNGKeyArray) -> tuple[Any, Rest]:
    """Unknowns of all members, on the same points."""
    points = system.sorted(system.pool[: system.count])
    if members == 1:
        params, fixed = system.draw(key)
        return params, Rest(points, system.weights(), fixed)
    params, fixed = jax.vmap(system.draw)(jax.random.split(key, members))
    same = jax.tree.map(lambda v: jnp.stack([v] * members), (points, system.weights()))
    return params, Rest(same[0], same[1], fixed)


def _again(system: System, start: Solution, members: int) -> tuple[Any, Rest]:
    """From a solution, of as many members or of one, which all then start from."""
    if start.members not in (1, members):
        found = f"a start of {start.members} members"
        raise InputError(Problem("PINN.fit: start", found, f"of 1 or {members}"))
    points, weights = system.sorted(system.pool[: system.count]), system.weights()
    params, fixed = start.params, start.rest.fixed
    if members > 1:
        points, weights = jax.tree.map(lambda v: jnp.stack([v] * members), (points, weights))
    if members > start.members:
        params, fixed = jax.tree.map(lambda v: jnp.stack([v] * members), (params, fixed))
    return params, Rest(points, weights, fixed)


def _run(
    name: str,
    stage: Stage,
    system: System,
    begin: tuple[Any, Rest],
    own: dict[str, Array],
    folder: Path | None,
    progress: Progress,
    members: int,
    key: PRNGKeyArray,
) -> tuple[Any, Rest, np.ndarray]:
    """A stage from its beginning, or its newest checkpoint."""
    one, start = stage.step(system), partial(stage.memory, system)
    if members > 1:
        each = TrainingState(0, 0, 0, None)  # pyright: ignore[reportArgumentType]
        one = jax.vmap(one, in_axes=(each, 0, 0), out_axes=(each, 0))
        start, key = jax.vmap(start), jax.random.split(key, members)
    params, rest = begin
    state = TrainingState(params, rest, start(params), jnp.zeros((), jnp.int32))
    state = jax.tree.map(jnp.copy, state)  # of buffers of its own, which are donated
    run = Run(state, ((), ()), [], {})
    checkpoints = None
    if folder is not None:
        from learn.checkpoints import Checkpoints  # its library takes a while to import

        checkpoints = Checkpoints(folder, jnp.ravel(key)[0])
        run = checkpoints.newest(run)
    step = jax.jit(one, donate_argnums=0)
    while run.done < stage.steps and not _ended(stage, run.losses):
        state, told = run.state, []
        for _ in range(run.done, min(stage.steps, (run.done // EVERY + 1) * EVERY)):
            weights = jax.tree.map(jnp.copy, state.rest.weights)
            state, means = step(state, own, key)
            told.append((means, weights))
        losses = [*run.losses, *_finite(name, jax.device_get(told), run.done)]
        run = Run(state, ((), ()), losses, {})
        if checkpoints is not None:
            checkpoints.write(run)
        progress(name, run.done, stage.steps, losses[-1])
    return run.state.params, run.state.rest, np.asarray(run.losses)


def _ended(stage: Stage, losses: list[float]) -> bool:
    """Whether the loss no longer falls."""
    if not stage.patience or len(losses) <= stage.patience:
        return False
    return min(losses[-stage.patience :]) > (1 - stage.fall) * min(losses[: -stage.patience])


def _finite(stage: str, told: list[tuple[dict, dict]], done: int) -> list[float]:
    """Means of all terms and members. Raises Diverged for the first that is not finite."""
    losses = []
    for i, (means, weights) in enumerate(told):
        for name, mean in means.items():
            if not np.isfinite(mean).all():
                value = np.ravel(mean)[~np.isfinite(np.ravel(mean))][0]
                raise Diverged(done + i, f"stage {stage}: the loss of term {name!r} is {value}")
        losses.append(float(sum(np.mean(weights.get(n, 1.0) * m) for n, m in means.items())))
    return losses
