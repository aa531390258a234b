"""Physics-informed networks: a step's time beside jinns and DeepXDE, and accuracy in minutes.

    make bench-rivals                    # once: .cache/rivals, the rivals' own environment
    python benchmarks/pinn.py            # all; --only speed, newton, or the name of a problem

speed     an Adam step on Burgers' equation in the 4000 points of a batch, MLP 2-64-64-64-64-1,
          float32, each in a process of its own, in turns; nested differentiation in plain JAX
          beside them
newton    error and seconds, compilation included, after so many steps of second order: ours, damped
          as Levenberg and Marquardt do, beside jinns' natural gradient with its line search, ridge
          as it comes; the same network, conditions and number of points, float64, in turns
accuracy  relative L2 error to a solution from elsewhere, with the seconds it took, compilation
          included (`pinn_problems.py` says which); `pinn_inverse.py` is the inverse problem
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
from pinn_problems import PROBLEMS, Solved

from learn.pinn import MLP, PINN, Adam, GaussNewton
from learn.pinn.problem import _drawn
from learn.pinn.solution import Solution
from learn.pinn.system import System
from learn.training import TrainingState

HERE = Path(__file__).resolve()
RIVALS = HERE.parents[1] / ".cache" / "rivals" / "bin" / "python"
POINTS, STEPS, NU = 4000, 50, 0.01 / np.pi
NEWTON = (50, 100, 200, 400)
"""Steps of second order."""


def ours() -> None:
    """Prints the seconds of our steps."""
    pinn = PINN(
        inputs={"t": (0.0, 1.0), "x": (-1.0, 1.0)},
        residual=lambda u, at, p: u("t") + u() * u("x") - NU * u("x", "x"),
        field=partial(MLP, width=64, depth=4),
    )
    system, stage = System(pinn, None, POINTS, jnp.float32), Adam(steps=STEPS)
    params, rest = _drawn(system, 1, jax.random.key(0))
    step = jax.jit(stage.step(system), donate_argnums=0)
    memory = stage.memory(system, params)
    state = TrainingState(params, rest, memory, jnp.zeros((), jnp.int32))
    _timed(lambda state: step(state, {}, jax.random.key(0))[0], state)


def nested() -> None:
    """Prints the seconds of steps with nested gradients, all points at once."""
    sizes = [2, 64, 64, 64, 64, 1]
    keys = jax.random.split(jax.random.key(0), 5)
    pairs = zip(keys, sizes, sizes[1:], strict=False)
    weights = [(jax.random.normal(k, (a, b)) / a**0.5, jnp.zeros(b)) for k, a, b in pairs]
    points = jax.random.uniform(jax.random.key(1), (POINTS, 2)) * 2 - 1
    optimiser = optax.adam(1e-3)

    def u(weights, x):
        for w, b in weights[:-1]:
            x = jnp.tanh(x @ w + b)
        return (x @ weights[-1][0] + weights[-1][1])[0]

    def residual(weights, x):
        slope = jax.grad(u, argnums=1)
        curved = jax.grad(lambda x: slope(weights, x)[1])(x)[1]
        du = slope(weights, x)
        return du[0] + u(weights, x) * du[1] - NU * curved

    @jax.jit
    def step(state):
        weights, memory = state
        slope = jax.grad(lambda w: jnp.mean(jax.vmap(residual, (None, 0))(w, points) ** 2))(weights)
        change, memory = optimiser.update(slope, memory)
        return optax.apply_updates(weights, change), memory

    _timed(step, (weights, optimiser.init(weights)))


def _timed(step, state) -> None:
    seconds = []
    for _ in range(STEPS + 5):
        started = time.perf_counter()
        state = jax.block_until_ready(step(state))
        seconds.append(time.perf_counter() - started)
    print(json.dumps(seconds[5:]))


def speed(rounds: int) -> None:
    """Prints the table of steps."""
    commands = {name: [sys.executable, str(HERE), "--of", name] for name in ("ours", "nested")}
    for name in ("jinns", "deepxde"):
        commands[name] = [str(RIVALS), str(HERE.parent / f"rival_{name}.py")]
    seconds: dict[str, list[float]] = {name: [] for name in commands}
    for _ in range(rounds):
        for name, command in commands.items():
            seconds[name] += _told(command)[5:]
    mine = statistics.median(seconds["ours"])
    for name, found in seconds.items():
        if found:
            middle = statistics.median(found)
            print(
                f"{name:8}  median {1e3 * middle:6.1f} ms  fastest {1e3 * min(found):6.1f} ms"
                f"  {middle / mine:4.1f} x ours"
            )
        else:
            print(f"{name:8}  not there: make bench-rivals")


def _told(command: list[str]) -> list[float]:
    """Numbers a process of its own prints last, nothing compiled before; none if it fails."""
    environment = os.environ | {"PYTHONPATH": f"{HERE.parents[1]}:{HERE.parent}"}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)
    run = subprocess.run(command, capture_output=True, text=True, env=environment)
    return json.loads(run.stdout.strip().split("\n")[-1]) if run.returncode == 0 else []


def newton() -> None:
    """Prints the table of second order."""
    mine = [sys.executable, str(HERE), "--of", "newton"]
    theirs = [str(RIVALS), str(HERE.parent / "rival_jinns_newton.py")]
    for name in ("wave", "cooling"):
        for steps in NEWTON:
            asked = [name, str(steps)]
            rows = {"ours": _told([*mine, *asked]), "jinns": _told([*theirs, *asked])}
            told = [
                f"{who} {found[1]:.1e} in {found[0]:4.0f} s" for who, found in rows.items() if found
            ]
            print(f"{name:8} {steps:4} steps  ", *told, sep="  ", flush=True)


def _newton(name: str, steps: int) -> None:
    """Prints seconds and relative error of ours."""
    problem = PROBLEMS[name]()
    began = time.perf_counter()
    found = problem.pinn.fit(
        points=problem.points,
        stages=[GaussNewton(steps=steps, patience=0)],
        key=jax.random.key(0),
    )
    seconds = time.perf_counter() - began
    print(json.dumps([seconds, _error(problem, found)]))


def _error(problem: Solved, found: Solution) -> float:
    return float(np.linalg.norm(found(problem.at) - problem.truth) / np.linalg.norm(problem.truth))


def accuracy(name: str) -> bool:
    """Prints a problem's row; whether it is as accurate as wanted, in time."""
    problem = PROBLEMS[name]()
    began = time.perf_counter()
    found = problem.pinn.fit(points=problem.points, stages=problem.stages, key=jax.random.key(0))
    error = _error(problem, found)
    seconds = time.perf_counter() - began
    print(
        f"{name:10}  {error:.1e} (wanted {problem.limit:.0e})  {seconds:4.0f} s (wanted "
        f"{problem.limit_s:.0f})",
        flush=True,
    )
    return bool(error <= problem.limit and seconds <= problem.limit_s)


def main() -> None:
    """Prints both tables; ends with status 1 where an accuracy is missed."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=["speed", "newton", *PROBLEMS])
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--of", choices=["ours", "nested", "newton"], help=argparse.SUPPRESS)
    parser.add_argument("rest", nargs="*", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.of == "newton":
        return _newton(asked.rest[0], int(asked.rest[1]))
    if asked.of:
        return ours() if asked.of == "ours" else nested()
    if asked.only in (None, "speed"):
        speed(asked.rounds)
    if asked.only in (None, "newton"):
        newton()
    good = [accuracy(name) for name in PROBLEMS if asked.only in (None, name)]
    sys.exit(not all(good))


if __name__ == "__main__":
    main()
