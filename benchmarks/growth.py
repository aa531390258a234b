"""How fast and how right tumours grow on this machine, at the sizes of clinical scans, in float32.

    sphere      128³ voxels, 100 days, D = 0.1 mm²/day, k = 0.1 /day, error <= 1 %
    tissues     64³, 100 days, D = 1.0 and 0.1 mm²/day in white and grey matter, holes, k = 0.05
                /day, error <= 0.5 %
    breast      77x116x36, 120 days, D = 0.1, k = 0.05, as large as TumorTwin's demonstration
    brain       240x240x155, 365 days, D = 0.1, k = 0.03; whole, and cut to where cells can get

Each is held against the classical fourth-order Runge-Kutta method in float64 on the same grid (cut
to where cells can get). Errors are relative: of the total cellularity, of the map in the L2 norm;
and of the worst voxel as a share of the carrying capacity.

Bytes count every array a step has to read or write once, at the size it has in memory. Copy
bandwidth is that of numpy between two arrays too large for any cache, on all cores. A fraction
near 1 means that nothing but fewer or smaller arrays could be faster; above 1, caches helped.

Rivals on the sphere: explicit Euler with the same stencil, jitted, at the largest step that reaches
the tolerance; and TumorTwin, whose licence bars redistribution: --tumortwin names a folder with a
checkout of your own, its interpreter is --tumortwin-python.
"""

import argparse
import os
import subprocess
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax

from oncology import transport
from oncology.domain import cut_to_reach
from oncology.growth import ReactionDiffusion
from oncology.timeline import Steps, integrate, steps_between
from oncology.treatment import Plan

GIGA = 1e9
REPEATS = 7


@dataclass(frozen=True)
class Workload:
    """One row of the table, and the seconds it may take."""

    model: ReactionDiffusion
    start: np.ndarray
    days: float
    diffusivity: float
    growth_rate: float
    tolerance: float
    limit_s: float

    @property
    def p(self) -> dict[str, float]:
        rates = {"diffusivity_mm2_per_day": self.diffusivity}
        return rates | {"growth_rate_per_day": self.growth_rate}

    @property
    def steps(self) -> Steps:
        return steps_between(
            self.model,
            Plan(),
            0.0,
            self.days,
            largest_diffusivity_mm2_per_day=self.diffusivity,
            largest_growth_rate_per_day=self.growth_rate,
            tolerance=self.tolerance,
        )


def ball(shape: tuple[int, int, int], radius: float) -> np.ndarray:
    """In the middle of a grid."""
    axes = np.ogrid[tuple(slice(-(n - 1) / 2, (n - 1) / 2, n * 1j) for n in shape)]
    return np.sqrt(axes[0] ** 2 + axes[1] ** 2 + axes[2] ** 2) < radius


def tumour(shape: tuple[int, int, int]) -> np.ndarray:
    """A sharp-edged start: 5 mm, half the carrying capacity."""
    return np.where(ball(shape, 5.0), 0.5, 0.0)


def uniform(shape: tuple[int, int, int], tissue: np.ndarray, *numbers: float) -> Workload:
    return Workload(ReactionDiffusion(jnp.asarray(tissue)), tumour(shape), *numbers)


def sphere() -> Workload:
    shape = (128, 128, 128)
    return uniform(shape, ball(shape, 63.0), 100.0, 0.1, 0.1, 1e-2, 0.25)


def tissues() -> Workload:
    """White matter in thick stripes, grey between, and round holes without cells."""
    shape = (64, 64, 64)
    x, y, z = np.indices(shape)
    white = np.where(np.sin(x / 5) * np.sin(y / 6) + np.sin(z / 7) > 0, 1.0, 0.0)
    holes = (x % 16 - 8) ** 2 + (y % 21 - 10) ** 2 + (z % 18 - 9) ** 2 < 9
    model = ReactionDiffusion(
        jnp.asarray(ball(shape, 31.0) & ~holes),
        white_matter=jnp.asarray(white, jnp.float32),
        grey_matter=jnp.asarray(1 - white, jnp.float32),
        grey_to_white=0.1,
    )
    start = np.where(np.asarray(model.habitable), tumour(shape), 0.0)
    return Workload(model, start, 100.0, 1.0, 0.05, 5e-3, 0.1)


def breast() -> Workload:
    shape = (77, 116, 36)
    return uniform(shape, np.ones(shape, bool), 120.0, 0.1, 0.05, 5e-3, 0.15)


def brain() -> Workload:
    shape = (240, 240, 155)
    return uniform(shape, ball(shape, 76.0), 365.0, 0.1, 0.03, 5e-3, 10.0)


WORKLOADS: Mapping[str, Callable[[], Workload]] = {
    "sphere": sphere,
    "tissues": tissues,
    "breast": breast,
    "brain": brain,
}


def seconds(f: Callable[[], object], repeats: int = REPEATS) -> float:
    """Of the fastest of several runs."""
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        jax.block_until_ready(f())
        times.append(time.perf_counter() - start)
    return min(times)


def copy_bandwidth(megabytes: int = 512) -> float:
    """Bytes per second read and written by a copy on all cores."""
    cores = os.cpu_count() or 1
    source = np.ones((cores, megabytes * 2**20 // 4 // cores), np.float32)
    target = np.zeros_like(source)
    with ThreadPoolExecutor(cores) as pool:
        best = seconds(lambda: list(pool.map(np.copyto, target, source)))
    return 2 * source.nbytes / best


def bytes_moved(work: Workload) -> int:
    """Arrays read and written: two states for the first half of the reaction; per stage the
    latest state, those the recurrence looks back on (at most three more), the faces, the result."""
    steps, faces = work.steps, jax.eval_shape(work.model.conductance).faces
    states = 2 + sum(min(stage, 4) + 1 for stage in range(1, steps.stages + 1))
    face_bytes = sum(face.dtype.itemsize for face in faces)
    per_voxel = 4 * states + steps.stages * face_bytes
    return steps.start_day.size * work.start.size * per_voxel


def slope(u: Array, conductance: transport.Conductance, p: Mapping[str, float]) -> Array:
    """∇·(D ∇u) + k u (1 - u)."""
    spread = p["diffusivity_mm2_per_day"] * transport.divergence(u, conductance)
    return spread + p["growth_rate_per_day"] * u * (1 - u)


@eqx.filter_jit
def euler(
    u: Array, conductance: transport.Conductance, p: Mapping[str, float], days: float, count: int
) -> Array:
    """Explicit Euler in `count` equal steps."""
    h = days / count
    return lax.fori_loop(0, count, lambda _, v: v + h * slope(v, conductance, p), u)


@eqx.filter_jit
def runge_kutta(
    u: Array, conductance: transport.Conductance, p: Mapping[str, float], days: float, count: int
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


def reference(work: Workload) -> np.ndarray:
    """The converged field in float64, on the box that cells can reach, pasted back."""
    crop, model = cut_to_reach(
        work.model, work.start, work.days, work.diffusivity, work.growth_rate, least=1e-6
    )
    largest_days = min(0.3 / work.growth_rate, 1 / (6 * work.diffusivity))
    count = int(np.ceil(work.days / largest_days))
    with jax.enable_x64(True):
        model = jax.tree.map(lambda x: x.astype(float) if x.dtype == jnp.float32 else x, model)
        u = jnp.asarray(work.start[crop.slices], jnp.float64)
        return crop.paste(runge_kutta(u, model.conductance(), work.p, work.days, count))


def errors(found: Array | np.ndarray, exact: np.ndarray) -> tuple[float, float, float]:
    """Of the total, of the map (L2), of the worst voxel."""
    field = np.asarray(found, np.float64)
    total = abs(field.sum() / exact.sum() - 1)
    norm = np.linalg.norm((field - exact).ravel()) / np.linalg.norm(exact.ravel())
    return total, float(norm), float(np.abs(field - exact).max())


def compiled(f: Callable, work: Workload) -> tuple[Callable[[], Array], float]:
    """f(p, u, model) as one program, and the gigabytes it allocates beside its arguments."""
    p = {name: jnp.float32(value) for name, value in work.p.items()}
    arguments = (p, jnp.asarray(work.start, jnp.float32), work.model)
    program = jax.jit(f).lower(*arguments).compile()
    memory = program.memory_analysis()
    size = np.nan if memory is None else memory.temp_size_in_bytes / GIGA
    return lambda: program(*arguments), size


def forward(work: Workload) -> Callable:
    steps = work.steps
    return lambda p, u, model: integrate(model, Plan(), p, u, steps)


def show(name: str, work: Workload, took: float, memory: float, wrong: tuple, copy: float) -> None:
    steps, moved = work.steps, bytes_moved(work)
    total, norm, worst = (f"{100 * e:.2f} %" for e in wrong)
    verdict = "" if took <= work.limit_s and max(wrong[:2]) <= work.tolerance else "  MISSED"
    print(
        f"{name:8s} {steps.start_day.size:3d} steps of {steps.stages:2d} stages: {took:.3f} s "
        f"(limit {work.limit_s:g} s), {memory:.2f} GB{verdict}\n"
        f"{'':8s} error: total {total}, map {norm}, worst voxel {worst} "
        f"(limit {100 * work.tolerance:g} %)\n"
        f"{'':8s} {moved / GIGA:.2f} GB moved at {moved / took / GIGA:.1f} GB/s, "
        f"{moved / took / copy:.0%} of the copy bandwidth"
    )


def run(name: str, copy: float, repeats: int) -> dict[str, float]:
    """Seconds forward of one workload, whole and cut to where cells can get, shown with errors."""
    work = WORKLOADS[name]()
    program, memory = compiled(forward(work), work)
    took = seconds(program, repeats)
    exact = reference(work)
    show(name, work, took, memory, errors(program(), exact), copy)
    found = {"whole": took}
    if name in ("brain", "sphere"):
        crop, model = cut_to_reach(
            work.model, work.start, work.days, work.diffusivity, work.growth_rate, least=1e-3
        )
        rates = (work.diffusivity, work.growth_rate, work.tolerance, work.limit_s)
        less = Workload(model, work.start[crop.slices], work.days, *rates)
        program, memory = compiled(forward(less), less)
        found["cut"] = seconds(program, repeats)
        wrong = errors(crop.paste(program()), exact)
        show("  cut", less, found["cut"], memory, wrong, copy)
    if name == "sphere":
        backward = jax.grad(lambda *arguments: forward(work)(*arguments).sum(), (0, 1))
        program, memory = compiled(backward, work)
        reverse = seconds(program, repeats)
        print(
            f"{'':8s} gradient in D, k and the first state: {reverse:.2f} s, "
            f"{reverse / took:.1f} x forward (limit 6), {memory:.2f} GB (limit 1)"
        )
        slower, count = euler_s(work, exact)
        print(f"{'':8s} explicit Euler, {count} steps: {slower:.2f} s, {slower / took:.0f} x")
    return found


def euler_s(work: Workload, exact: np.ndarray) -> tuple[float, int]:
    """Seconds and steps of the coarsest explicit Euler, by doubling, within the tolerance."""
    u, conductance = jnp.asarray(work.start, jnp.float32), work.model.conductance()
    count, wrong = int(np.ceil(work.days * 6 * work.diffusivity)) // 2, np.inf
    while wrong > work.tolerance:
        count *= 2
        program = euler.lower(u, conductance, work.p, work.days, count).compile()
        wrong = errors(program(u, conductance, work.p, work.days, count), exact)[0]
    return seconds(lambda: program(u, conductance, work.p, work.days, count), 2), count


def tumortwin_s(checkout: Path, python: str) -> float:
    """Seconds TumorTwin takes for the sphere, in an interpreter that has what it needs."""
    script = Path(__file__).with_name("rival_tumortwin.py")
    told = subprocess.run(
        [python, str(script), str(checkout)], capture_output=True, text=True, check=True
    )
    return float(told.stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("workloads", nargs="*", help=f"some of {', '.join(WORKLOADS)} (all)")
    parser.add_argument("--repeats", type=int, default=REPEATS, help="runs to take the best of")
    parser.add_argument("--tumortwin", type=Path, help="a checkout of TumorTwin")
    parser.add_argument("--tumortwin-python", default="python3", help="an interpreter for it")
    given = parser.parse_args()
    copy = copy_bandwidth()
    print(f"float32, {os.cpu_count()} cores, copies at {copy / GIGA:.1f} GB/s\n")
    took = {name: run(name, copy, given.repeats) for name in given.workloads or WORKLOADS}
    if given.tumortwin and "sphere" in took:
        theirs = tumortwin_s(given.tumortwin, given.tumortwin_python)
        ratios = ", ".join(f"{theirs / t:.0f} x {how}" for how, t in took["sphere"].items())
        print(f"\nTumorTwin, the sphere: {theirs:.2f} s, {ratios}")
    elif "sphere" in took:
        print("\nTumorTwin: not asked for (--tumortwin CHECKOUT)")


if __name__ == "__main__":
    main()
