"""Echo trains, fingerprints and isochromats a second, beside every rival installed, in one run.

    make bench-rivals                      # once: .cache/rivals, the rivals' own environment
    python benchmarks/simulate.py          # prints the table; --rounds 5 for steadier figures

Every figure is of a process of its own; ours and the rivals' alternate, and the fastest round of
each counts, the median of all rounds' calls beside it (warm, float32). Ours runs on one CPU device
and on one a core, rivals on as many threads as they take; their calls build the sequence too, ours
is compiled with it. Workloads, T1 0.5-2 s, T2 30-200 ms, B1 0.8-1.2 at random:

fse        32 echoes of 120°, 10 ms apart, all states; 10,000 voxels
mrf        500 repetitions of 12 ms after an inversion, 20 states; 1,000 voxels
gradient   of Σ |signal|² in every flip angle of either
jacobian   of mrf in T1, T2 and B1
design     gradient of the mean Cramér-Rao bound of T2 (T1, T2, m0 unknown) of fse, in every flip
           angle; 1,000 voxels
many       fse with 100,000 voxels: the same rate, memory of a chunk
bloch      1,000 samples of a pulse under a gradient; 10,000 isochromats

x theirs   a rival's time over ours, ours on all cores and on one device
x forward  over the fastest forward pass of the table, of as many voxels
error      greatest difference from ours in float64, over the greatest value; where a rival limits
           no orders or knows no relaxation, from ours without either
compile    tracing and compilation, nothing cached; a rival's first call
work       what XLA allots beyond arguments and result; peak is the whole process

Floor, for a kernel in C. A state, order and pulse costs 13 flops (a plane rotation 6, two sums and
two differences, three decays), a pulse 20 for cosine and sine: fse, of whose orders 272 can be
filled and seen, 4.2 kflop a train; mrf 140 kflop a fingerprint. A sample and isochromat costs 60
(field 8, quaternion of a polynomial 20, its product 24, relaxation and recovery 8). A gradient is
three forward passes, the Jacobian of three parameters four, the design's gradient three of four.
What leaves memory is tissue, 12 B, and result: 256 B of fse, 4 kB of mrf, 12 kB of its Jacobian.
The share is of a core of 16 float32 lanes, one operation a lane and cycle at 2.5 GHz: 40 Gflop/s,
10 GB/s; of as many cores as devices.
"""

import argparse
import json
import os
import resource
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
RIVALS = HERE.parents[1] / ".cache" / "rivals" / "bin" / "python"
PLAYED_BY = {
    "blochsim": "fse mrf gradient_fse gradient_mrf jacobian_mrf design bloch",
    "torchsim": "fse mrf gradient_fse gradient_mrf jacobian_mrf design bloch",
    "mrpro": "fse mrf gradient_fse gradient_mrf jacobian_mrf design",
    "mrzero": "fse mrf gradient_fse",
    "sycomore": "fse mrf",
    "sigpy": "bloch",
}
VOXELS = {"fse": 10_000, "mrf": 1_000, "gradient_fse": 10_000, "gradient_mrf": 1_000,
          "jacobian_mrf": 1_000, "design": 1_000, "many": 100_000, "bloch": 10_000}  # fmt: skip
FSE, MRF = 272 * 13 + 32 * 20, 500 * (20 * 13 + 20)
FLOOR = {  # flops and bytes a voxel
    "fse": (FSE, 268), "mrf": (MRF, 4012), "gradient_fse": (3 * FSE, 12),
    "gradient_mrf": (3 * MRF, 12), "jacobian_mrf": (4 * MRF, 12012), "design": (12 * FSE, 12),
    "many": (FSE, 268), "bloch": (60_000, 24),
}  # fmt: skip
FLOPS_PER_S, BYTES_PER_S = 40e9, 10e9
FORWARD = {"gradient_fse": "fse", "gradient_mrf": "mrf", "jacobian_mrf": "mrf", "design": "fse"}
TARGETS = [  # times as fast as a rival; or forward passes at most
    ("fse", "blochsim", 20), ("mrf", "blochsim", 3), ("design", "blochsim", 20),
    ("bloch", "", 5), ("gradient_fse", "forward", 5), ("gradient_mrf", "forward", 5),
    ("jacobian_mrf", "forward", 6),
]  # fmt: skip
REFERENCE = {  # what a rival of another model is compared with
    "mrf": {"mrzero": "mrf_all", "sycomore": "mrf_all"},
    "bloch": {"sigpy": "bloch_lossless"},
}
SLOW_S = 10.0
"""A call: it is then timed in one round."""

Results = dict[tuple[str, str], dict]


def inputs(voxels: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    phase = np.exp(1j * np.linspace(0, 2, 1000))
    return {
        "t1_s": rng.uniform(0.5, 2.0, voxels).astype(np.float32),
        "t2_s": rng.uniform(0.03, 0.2, voxels).astype(np.float32),
        "b1": rng.uniform(0.8, 1.2, voxels).astype(np.float32),
        "fse_rad": np.full(32, 2 * np.pi / 3, np.float32),
        "mrf_rad": np.deg2rad(10 + 50 * np.abs(np.sin(0.02 * np.arange(500)))).astype(np.float32),
        "b1_hz": (200 * np.sin(np.linspace(0, 3.1, 1000)) * phase).astype(np.complex64),
        "gradient_hz_per_mm": np.float32(20.0),
        "position_mm": np.linspace(-10, 10, voxels).astype(np.float32),
        "dt_s": np.float32(1e-5),
    }


def workload(name: str, path: str) -> tuple[Callable, tuple, Callable]:
    """A function of arrays, its arguments, and what makes of its result what rivals report."""
    from dataclasses import replace

    import equinox as eqx
    import jax
    import jax.numpy as jnp

    import mrphys as mr
    from mrphys.bloch import bloch
    from mrphys.simulate import sum_over_voxels
    from mrphys.waveform import Waveform

    def as_default(value):
        return jnp.asarray(value, complex if np.iscomplexobj(value) else float)

    given = {key: as_default(value) for key, value in np.load(path).items()}
    q = mr.Tissue(t1_s=given["t1_s"], t2_s=given["t2_s"], b1=given["b1"])

    def fse(flips):
        return mr.sequence.spin_echo_train(flips, 0.01)

    def mrf(flips):
        theta = mr.sequence.fingerprinting_fisp(flips, 0.012)
        return theta if name == "mrf_all" else replace(theta, orders=20)

    build = mrf if "mrf" in name else fse
    flips = given["mrf_rad" if build is mrf else "fse_rad"]

    def power(flips, q):
        def of_voxels(theta, rows):
            x = theta.signals(rows)
            return jnp.sum(x.real**2 + x.imag**2, axis=-1)

        return sum_over_voxels(of_voxels, build(flips), q.broadcast())

    def jacobian(flips, q):
        slopes = mr.jacobian(build(flips), q, ("t1_s", "t2_s", "b1"))
        return jnp.stack(list(slopes.values()), axis=1)

    def design(flips, q):
        bounds = mr.cramer_rao(fse(flips), q, ("t1_s", "t2_s", "m0"), noise_sd=0.01)
        return jnp.mean(bounds["t2_s"])

    def isochromats(b1_hz, q, line_mm):
        gradient = jnp.full((b1_hz.size, 3), given["gradient_hz_per_mm"])
        waveform = Waveform(given["dt_s"], b1_hz, gradient)
        return bloch(waveform, q, jnp.stack([line_mm] * 3, axis=1))

    if name.startswith("bloch"):
        if name == "bloch_lossless":
            ages = 1e9 * q.t1_s, 1e9 * q.t2_s
            q = eqx.tree_at(lambda q: (q.t1_s, q.t2_s), q, ages)
        arguments = given["b1_hz"], q, given["position_mm"]
        return isochromats, arguments, lambda m: np.hypot(m[:, 0], m[:, 1])
    if name.startswith("gradient"):
        return jax.grad(power), (flips, q), np.asarray
    if name == "design":
        return jax.grad(design), (flips, q), np.asarray
    if name.startswith("jacobian"):
        return jacobian, (flips, q), np.abs
    return lambda flips, q: mr.simulate(build(flips), q), (flips, q), np.abs


def ours(name: str, path: str, devices: int) -> None:
    """One workload of ours in this process, as a line of JSON."""
    import jax

    import mrphys as mr

    mr.use_cores(devices)
    call, arguments, as_array = workload(name, path)
    started = time.perf_counter()
    run = jax.jit(call).lower(*arguments).compile()
    first = time.perf_counter() - started
    memory: Any = run.memory_analysis()
    found = jax.block_until_ready(run(*arguments))
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 2 and len(seconds) < 100):
        started = time.perf_counter()
        jax.block_until_ready(run(*arguments))
        seconds.append(time.perf_counter() - started)
    measured = {
        "on": f"{devices} device{'s' * (devices > 1)}",
        "cores": devices,
        "first": first,
        "seconds": seconds,
        "work_mib": memory.temp_size_in_bytes / 2**20,
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }
    np.save(path.replace(".npz", ".found.npy"), as_array(found))
    print(json.dumps(measured))


def exactly(name: str, path: str) -> None:
    """What is to be found, in float64."""
    import jax

    jax.config.update("jax_enable_x64", True)
    call, arguments, as_array = workload(name, path)
    found = as_array(jax.jit(call)(*arguments))
    np.save(path.replace(".npz", f".{name}.npy"), found)
    print(json.dumps({}))


def measured(command: list[str], alone: list[str], **environment: str) -> dict | None:
    done = subprocess.run(
        [*alone, *command], capture_output=True, text=True, env={**os.environ, **environment}
    )
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        print(f"{' '.join(command[1:3])}: {why}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def merged(results: list[dict]) -> dict:
    """The fastest call, the median of all, the fastest start and the least memory."""
    calls = [second for result in results for second in result["seconds"]]
    least = {key: min(result[key] for result in results) for key in ("first", "peak_mib")}
    return {**results[0], **least, "seconds": min(calls), "median": statistics.median(calls)}


COLD = {"JAX_COMPILATION_CACHE_DIR": "", "JAX_ENABLE_COMPILATION_CACHE": "false"}


def measure_all(name: str, rounds: int, rivals: list[str], alone: list[str]) -> Results:
    """Every program's figures for one workload."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    own = [sys.executable, str(HERE)]
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/in.npz"
        np.savez(path, **inputs(VOXELS[name]))
        references = REFERENCE.get(name, {})
        players = [rival for rival in rivals if name in PLAYED_BY[rival].split()]
        for reference in {references.get(rival, name) for rival in ["mrphys", *players]}:
            measured([*own, "--exact", reference, path], alone, **COLD)
        commands = {
            f"mrphys {devices}": [*own, "--one", name, path, "--devices", str(devices)]
            for devices in sorted({1, cores or 1})
        }
        for rival in players:
            script = str(HERE.with_name(f"rival_{rival}.py"))
            commands[rival] = [str(RIVALS), script, name, path]
        gathered: dict[str, list[dict]] = {program: [] for program in commands}
        for _ in range(rounds):
            for program, command in commands.items():
                earlier = gathered[program]
                if earlier and min(earlier[0]["seconds"]) > SLOW_S:
                    continue
                result = measured(command, alone, **COLD)
                if result is None:
                    continue
                exact = np.load(f"{folder}/in.{references.get(program, name)}.npy")
                found = np.load(f"{folder}/in.found.npy").reshape(-1, *exact.shape[1:])
                error = np.abs(found - exact[: len(found)]).max() / np.abs(exact).max()
                earlier.append({**result, "error": float(error)})
    return {(name, program): merged(results) for program, results in gathered.items() if results}


def fastest(found: Results, name: str, program: str = "") -> float:
    """The fastest call of one program, or of any."""
    return min(
        (result["seconds"] for key, result in found.items()
         if key[0] == name and key[1].startswith(program)), default=np.nan,
    )  # fmt: skip


def forwards(found: Results, name: str, seconds: float) -> float:
    """Over the fastest forward pass of as many voxels."""
    of = FORWARD[name]
    return seconds / fastest(found, of) * VOXELS[of] / VOXELS[name]


HEADER = (
    f"{'workload':13} {'program':9} {'on':10} {'fastest':>11} {'median':>11} {'rate/s':>8} "
    f"{'floor':>6} {'x theirs':>13} {'x forward':>9} {'error':>8} {'compile':>8} "
    f"{'work':>9} {'peak':>9}"
)


def rows(found: Results, name: str) -> None:
    one, all_cores = fastest(found, name, "mrphys 1"), fastest(found, name, "mrphys")
    for (played, program), result in found.items():
        if played != name:
            continue
        seconds, rival = result["seconds"], not program.startswith("mrphys")
        flops, octets = (VOXELS[name] * each for each in FLOOR[name])
        floor = max(flops / FLOPS_PER_S, octets / BYTES_PER_S) / result["cores"] / seconds
        ratio = f"{seconds / all_cores:6.1f} {seconds / one:6.1f}" if rival else ""
        passes = f"{forwards(found, name, seconds):9.1f}" if name in FORWARD else ""
        work = f"{result['work_mib']:5.1f} MiB" if "work_mib" in result else ""
        print(
            f"{name:13} {program.split()[0]:9} {result['on']:10} {1e3 * seconds:8.2f} ms "
            f"{1e3 * result['median']:8.2f} ms {VOXELS[name] / seconds:8.2g} {floor:6.1%} "
            f"{ratio:>13} {passes:>9} {result['error']:8.1e} {result['first']:6.2f} s "
            f"{work:>9} {result['peak_mib']:5.0f} MiB",
            flush=True,
        )


def targets(found: Results) -> None:
    print("\ntargets")
    for name, against, wanted in TARGETS:
        mine = fastest(found, name, "mrphys")
        if against == "forward":
            times = forwards(found, name, mine)
            if np.isfinite(times):
                print(f"{name:13} {times:6.1f} forward passes, at most {wanted} wanted")
            continue
        theirs = {key[1]: r["seconds"] for key, r in found.items() if key[0] == name}
        theirs = {key: s for key, s in theirs.items() if key.startswith(against or key)}
        theirs = {key: s for key, s in theirs.items() if not key.startswith("mrphys")}
        if theirs:
            best = min(theirs, key=lambda key: theirs[key])
            print(f"{name:13} {theirs[best] / mine:6.1f} x as fast as {best}, {wanted} wanted")
    slowest = max((r["first"], *key) for key, r in found.items() if key[1].startswith("mrphys"))
    print(f"compile       {slowest[0]:6.2f} s at most ({slowest[1]}), 3 s wanted")
    many = fastest(found, "many", "mrphys 1") / fastest(found, "fse", "mrphys 1") / 10
    if np.isfinite(many):
        print(f"many          {many:6.2f} x the time a voxel of fse, on one device")


def devices(rounds: int, alone: list[str]) -> None:
    """Two one-thread devices beside one such."""
    seconds: dict[int, list[float]] = {1: [], 2: []}
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/in.npz"
        np.savez(path, **inputs(VOXELS["many"]))
        for _ in range(rounds):
            for count, calls in seconds.items():
                command = [sys.executable, str(HERE), "--one", "many", path]
                command += ["--devices", str(count), "--pinned"]
                flags = "--xla_cpu_multi_thread_eigen=false"
                found = measured(command, alone, XLA_FLAGS=flags)
                if found:
                    calls += found["seconds"]
    if all(seconds.values()):
        rate, best = (f(seconds[1]) / f(seconds[2]) for f in (statistics.median, min))
        print(
            f"devices       {rate:6.2f} x as many voxels a second, call after call, on two devices "
            f"of one thread as on one, 1.8 wanted ({best:.2f} x by the fastest call of each)"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each workload")
    parser.add_argument("--only", nargs="*", choices=VOXELS, default=list(VOXELS))
    parser.add_argument("--rivals", nargs="*", choices=PLAYED_BY, default=list(PLAYED_BY))
    parser.add_argument(
        "--alone", default="", metavar="COMMAND", help="put before each process, such as a lock"
    )
    parser.add_argument("--one", nargs=2, metavar=("WORKLOAD", "INPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--exact", nargs=2, metavar=("WORKLOAD", "INPUT"), help=argparse.SUPPRESS)
    parser.add_argument("--devices", type=int, default=1, help=argparse.SUPPRESS)
    parser.add_argument("--pinned", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.pinned and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: given.devices])
    if given.one:
        return ours(given.one[0], given.one[1], given.devices)
    if given.exact:
        return exactly(given.exact[0], given.exact[1])
    if not RIVALS.exists():
        print("no .cache/rivals: 'make bench-rivals' adds the rivals' rows")
    alone, found = shlex.split(given.alone), {}
    print(HEADER)
    for name in given.only:
        rivals = given.rivals if RIVALS.exists() else []
        found.update(measure_all(name, given.rounds, rivals, alone))
        rows(found, name)
    targets(found)
    if "many" in given.only:
        devices(given.rounds, alone)


if __name__ == "__main__":
    main()
