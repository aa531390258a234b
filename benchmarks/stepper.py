"""How fast and how right the tumour stepper is, beside explicit Euler, on this machine.

A sphere of tumour (5 mm, half the carrying capacity) grows for --days days by the Fisher-KPP
equation in a ball of tissue on a grid of --size³ voxels of 1 mm, in float32:

    mrphys         Strang splitting with RKL2 diffusion, steps chosen for --tolerance
    explicit Euler the same stencil, jitted; the largest step that reaches the same tolerance

The reference is the classical fourth-order Runge-Kutta method in float64 on the same grid, whose
own error is estimated by doubling its step. Errors are relative: of the total cellularity, of the
map in the L2 norm, and of the worst voxel as a share of the carrying capacity.

Bandwidth counts every array a step has to read or write once, at the size it has in memory. Copy
bandwidth is that of numpy between two arrays too large for any cache, on all cores. A fraction
near 1 means that nothing but fewer or smaller arrays could be faster; above 1, caches helped.
Processor time over cores is about what an idle machine would take, when others keep this one busy.
"""

import argparse
import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.stages import Compiled

from oncology import transport
from oncology.growth import ReactionDiffusion
from oncology.timeline import Steps, integrate, steps_between
from oncology.treatment import Plan

GIGA = 1e9


def seconds(f: Callable[[], object], repeats: int) -> tuple[float, float]:
    """Wall-clock and processor seconds of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        start, busy = time.perf_counter(), time.process_time()
        jax.block_until_ready(f())
        times.append((time.perf_counter() - start, time.process_time() - busy))
    return min(times)


def copy_bandwidth(megabytes: int = 512, repeats: int = 7) -> float:
    """Bytes per second read and written by a copy on all cores."""
    cores = os.cpu_count() or 1
    source = np.ones((cores, megabytes * 2**20 // 4 // cores), np.float32)
    target = np.zeros_like(source)
    with ThreadPoolExecutor(cores) as pool:
        best, _ = seconds(lambda: list(pool.map(np.copyto, target, source)), repeats)
    return 2 * source.nbytes / best


def bytes_moved(steps: Steps, voxels: int, axes: int, face_bytes: int, state_bytes: int) -> int:
    """Arrays read and written: two states for the first half of the reaction; per stage the
    latest state, those the recurrence looks back on (at most three more), the faces, the result."""
    states = 2 + sum(min(stage, 4) + 1 for stage in range(1, steps.stages + 1))
    per_voxel = states * state_bytes + steps.stages * axes * face_bytes
    return steps.start_day.size * voxels * per_voxel


def temporary_bytes(program: Compiled) -> float:
    """What a compiled program allocates beside its arguments and results."""
    memory = program.memory_analysis()
    return np.nan if memory is None else memory.temp_size_in_bytes


def tumour_and_tissue(size: int) -> tuple[np.ndarray, np.ndarray]:
    """A compact start, and the ball that just fits the grid as habitable tissue."""
    along = np.arange(size) - (size - 1) / 2
    squared = along[:, None, None] ** 2 + along[:, None] ** 2 + along**2
    return np.where(squared < 5.0**2, 0.5, 0.0), squared < (size / 2 - 1) ** 2


def slope(u: Array, conductance: transport.Conductance, p: dict[str, float]) -> Array:
    """∇·(D ∇u) + k u (1 - u)."""
    spread = p["diffusivity_mm2_per_day"] * transport.divergence(u, conductance)
    return spread + p["growth_rate_per_day"] * u * (1 - u)


@eqx.filter_jit
def euler(
    u: Array, conductance: transport.Conductance, p: dict[str, float], days: float, count: int
) -> Array:
    """Explicit Euler in `count` equal steps."""
    h = days / count
    return lax.fori_loop(0, count, lambda _, v: v + h * slope(v, conductance, p), u)


@eqx.filter_jit
def runge_kutta(
    u: Array, conductance: transport.Conductance, p: dict[str, float], days: float, count: int
) -> Array:
    """The classical fourth-order method in `count` equal steps."""
    h = days / count

    def step(_: int, v: Array) -> Array:
        a = slope(v, conductance, p)
        b = slope(v + h / 2 * a, conductance, p)
        c = slope(v + h / 2 * b, conductance, p)
        d = slope(v + h * c, conductance, p)
        return v + h / 6 * (a + 2 * b + 2 * c + d)

    return lax.fori_loop(0, count, step, u)


def reference(
    start: np.ndarray, tissue: np.ndarray, p: dict[str, float], days: float, step_days: float
) -> tuple[np.ndarray, float]:
    """The converged field in float64, and how much the total moved when the step was halved."""
    with jax.enable_x64(True):
        conductance = transport.face_conductance(jnp.asarray(tissue), (1.0, 1.0, 1.0))
        u, count = jnp.asarray(start, jnp.float64), int(np.ceil(days / step_days))
        coarse = runge_kutta(u, conductance, p, days, count)
        fine = runge_kutta(u, conductance, p, days, 2 * count)
        return np.asarray(fine), abs(float(coarse.sum() / fine.sum()) - 1)


def errors(found: Array, exact: np.ndarray) -> tuple[float, float, float]:
    """Of the total, of the map (L2), of the worst voxel."""
    field = np.asarray(found, np.float64)
    total = abs(field.sum() / exact.sum() - 1)
    norm = np.linalg.norm((field - exact).ravel()) / np.linalg.norm(exact.ravel())
    return total, float(norm), float(np.abs(field - exact).max())


def report(
    name: str, detail: str, took: float, busy: float, compile_s: float, wrong: tuple[float, ...]
) -> None:
    """Two lines on one method."""
    total, norm, worst = (f"{100 * e:.2f} %" for e in wrong)
    print(
        f"{name:15s} {detail}: {took:.3f} s ({busy:.3f} s of processor time on all cores; "
        f"compilation {compile_s:.1f} s)"
    )
    print(f"{'':15s} error: total {total}, map {norm}, worst voxel {worst}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=128, help="voxels along each axis (128)")
    parser.add_argument("--days", type=float, default=100.0, help="time to simulate (100)")
    parser.add_argument("--diffusivity", type=float, default=0.1, help="mm²/day (0.1)")
    parser.add_argument("--growth-rate", type=float, default=0.1, help="1/day (0.1)")
    parser.add_argument("--tolerance", type=float, default=1e-2, help="relative error (0.01)")
    parser.add_argument("--repeats", type=int, default=7, help="runs to take the best of (7)")
    given = parser.parse_args()
    p = {"diffusivity_mm2_per_day": given.diffusivity, "growth_rate_per_day": given.growth_rate}
    start, tissue = tumour_and_tissue(given.size)
    stable_days = 1 / (6 * given.diffusivity)

    print(f"{given.size}³ voxels of 1 mm, {given.days:g} days, D = {given.diffusivity:g} mm²/day,")
    print(f"k = {given.growth_rate:g} /day, float32, {os.cpu_count()} cores; reference in float64")
    fine_days = min(0.3 / given.growth_rate, stable_days)
    exact, unsure = reference(start, tissue, p, given.days, fine_days)
    print(f"reference: total {exact.sum():.6g} mm³, converged to {unsure:.0e}\n")

    model = ReactionDiffusion(jnp.asarray(tissue))
    steps = steps_between(
        model,
        Plan(),
        0.0,
        given.days,
        largest_diffusivity_mm2_per_day=given.diffusivity,
        largest_growth_rate_per_day=given.growth_rate,
        tolerance=given.tolerance,
    )
    u = jnp.asarray(start, jnp.float32)
    arguments = ({name: jnp.float32(value) for name, value in p.items()}, u, model)

    def forward(p: dict[str, Array], u: Array, model: ReactionDiffusion) -> Array:
        return integrate(model, Plan(), p, u, steps)

    begun = time.perf_counter()
    compiled = jax.jit(forward).lower(*arguments).compile()
    compile_s = time.perf_counter() - begun
    took, busy = seconds(lambda: compiled(*arguments), given.repeats)
    copy = copy_bandwidth()
    detail = f"{steps.start_day.size} steps of {steps.stages} stages"
    report("mrphys", detail, took, busy, compile_s, errors(compiled(*arguments), exact))
    moved = bytes_moved(steps, given.size**3, 3, 1, 4)
    print(
        f"{'':15s} {moved / GIGA:.2f} GB moved at {moved / took / GIGA:.1f} GB/s, "
        f"{moved / took / copy:.0%} of the copy bandwidth ({copy / GIGA:.1f} GB/s): "
        f"at that the floor is {moved / copy:.3f} s"
    )

    gradient = jax.grad(lambda *arguments: forward(*arguments).sum(), (0, 1))
    backward = jax.jit(gradient).lower(*arguments).compile()
    reverse, _ = seconds(lambda: backward(*arguments), max(given.repeats // 3, 1))
    memory = [temporary_bytes(program) / GIGA for program in (compiled, backward)]
    print(
        f"{'':15s} gradient in D, k and the first state: {reverse:.2f} s, {reverse / took:.1f} x "
        f"forward; memory {memory[1]:.2f} GB instead of {memory[0]:.2f} GB\n"
    )

    conductance = model.conductance()
    count, wrong = int(np.ceil(given.days / stable_days)) // 2, (np.inf,)
    while wrong[0] > given.tolerance:
        count *= 2
        begun = time.perf_counter()
        compiled = euler.lower(u, conductance, p, given.days, count).compile()
        compile_s = time.perf_counter() - begun
        wrong = errors(compiled(u, conductance, p, given.days, count), exact)
    slower, busy = seconds(lambda: compiled(u, conductance, p, given.days, count), given.repeats)
    report("explicit Euler", f"{count} steps", slower, busy, compile_s, wrong)
    print(f"\nmrphys is {slower / took:.1f} times as fast as explicit Euler")


if __name__ == "__main__":
    main()
