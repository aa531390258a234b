"""Echo trains and fingerprints a second, beside blochsim, in one run.

    make bench-rivals                      # once: .cache/rivals, the rivals' own environment
    python benchmarks/simulate.py          # prints the table; --rounds 5 for steadier figures

Every figure is of a process of its own; ours and the rival's alternate, and the fastest round of
each counts (warm, float32, compilation apart). Workloads, T1 0.5-2 s, T2 30-200 ms, B1 0.8-1.2 at
random:

fse        32 echoes of 120°, 10 ms apart, all states; 10,000 voxels
mrf        500 repetitions of 12 ms after an inversion, 20 states; 1,000 voxels
gradient   of Σ |signal|² in every flip angle of either
jacobian   of mrf in T1, T2 and B1
design     gradient of the mean Cramér-Rao bound of T2 (T1, T2, m0 unknown) of fse, in every flip
           angle; 1,000 voxels
many       fse with 100,000 voxels: the same rate, memory of a chunk
bloch      1,000 samples of a pulse under a gradient; 10,000 isochromats

Floor: a state and order costs 12 flops an echo (a plane rotation of two states, a sum and a
difference, three decays), so fse 32 x 17 x 12 = 6.5 kflop a train and mrf 500 x 20 x 12 = 120
kflop a fingerprint; what leaves memory is the signal, 256 B and 4 kB. The floor's rate is stated
for a core of 16 float32 lanes, one operation a lane and cycle at 2.5 GHz: 40 Gflop/s.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
RIVALS = HERE.parents[1] / ".cache" / "rivals" / "bin" / "python"
FLOOR_FLOPS = 4e10
FLOPS = {"fse": 32 * 17 * 12, "mrf": 500 * 20 * 12, "many": 32 * 17 * 12}
VOXELS = {"fse": 10_000, "mrf": 1_000, "gradient_fse": 10_000, "gradient_mrf": 1_000,
          "jacobian_mrf": 1_000, "design": 1_000, "many": 100_000, "bloch": 10_000}  # fmt: skip
AT_RIVAL = ("fse", "mrf", "gradient_fse", "gradient_mrf", "jacobian_mrf")


def inputs(voxels: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "t1_s": rng.uniform(0.5, 2.0, voxels).astype(np.float32),
        "t2_s": rng.uniform(0.03, 0.2, voxels).astype(np.float32),
        "b1": rng.uniform(0.8, 1.2, voxels).astype(np.float32),
        "fse_rad": np.full(32, 2 * np.pi / 3, np.float32),
        "mrf_rad": np.deg2rad(10 + 50 * np.abs(np.sin(0.02 * np.arange(500)))).astype(np.float32),
    }


def ours(name: str, path: str) -> None:
    """One workload of ours in this process, as a line of JSON."""
    from dataclasses import replace

    import jax
    import jax.numpy as jnp

    import mrphys as mr
    from mrphys.bloch import bloch
    from mrphys.simulate import over_voxels
    from mrphys.waveform import Waveform

    given = {key: jnp.asarray(value) for key, value in np.load(path).items()}
    q = mr.Tissue(t1_s=given["t1_s"], t2_s=given["t2_s"], b1=given["b1"])

    def fse(flips):
        return mr.sequence.spin_echo_train(flips, 0.01)

    def mrf(flips):
        return replace(mr.sequence.fingerprinting_fisp(flips, 0.012), orders=20)

    build = mrf if name.endswith("mrf") else fse
    flips = given["mrf_rad" if build is mrf else "fse_rad"]
    chunk = {"gradient_fse": 128, "gradient_mrf": 128, "jacobian_mrf": 128}.get(name, 512)

    def power(flips, q):
        return jnp.sum(jnp.abs(mr.simulate(build(flips), q, chunk=chunk)) ** 2)

    def jacobian(flips, q):
        def slopes(theta, rows):
            still = jax.tree.map(jnp.zeros_like, rows)
            moves = [replace(still, **{key: jnp.ones_like(rows.m0)}) for key in wrt]
            together = jax.tree.map(lambda *parts: jnp.stack(parts), *moves)
            along = jax.vmap(lambda move: jax.jvp(theta.signal, (rows,), (move,))[1])
            return jnp.moveaxis(along(together), 0, 1)

        wrt = ("t1_s", "t2_s", "b1")
        return over_voxels(slopes, build(flips), q.broadcast(), chunk)

    def design(flips, q):
        bounds = mr.cramer_rao(fse(flips), q, ("t1_s", "t2_s", "m0"), noise_sd=0.01)
        return jnp.mean(bounds["t2_s"])

    def isochromats(flips, q):
        samples = jnp.exp(1j * jnp.linspace(0, 2, 1000)) * 200 * jnp.sin(jnp.linspace(0, 3.1, 1000))
        waveform = Waveform(1e-5, samples, jnp.full((1000, 3), 20.0))
        line = jnp.linspace(-10, 10, q.t1_s.size)
        return bloch(waveform, q, jnp.stack([line] * 3, axis=1))

    call = {
        "gradient_fse": jax.grad(power),
        "gradient_mrf": jax.grad(power),
        "jacobian_mrf": jacobian,
        "design": jax.grad(design),
        "bloch": isochromats,
    }.get(name, lambda flips, q: mr.simulate(build(flips), q, chunk=chunk))
    started = time.perf_counter()
    run = jax.jit(call).lower(flips, q).compile()
    first = time.perf_counter() - started
    found = jax.block_until_ready(run(flips, q))
    seconds = []
    while len(seconds) < 3 or (sum(seconds) < 2 and len(seconds) < 50):
        started = time.perf_counter()
        jax.block_until_ready(run(flips, q))
        seconds.append(time.perf_counter() - started)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    if name in ("fse", "mrf"):
        np.save(path.replace(".npz", ".found.npy"), np.abs(found))
        with jax.enable_x64(True):
            precise = jax.tree.map(lambda v: jnp.asarray(np.asarray(v), jnp.float64), q)
            exact = mr.simulate(build(jnp.asarray(np.asarray(flips), jnp.float64)), precise)
            np.save(path.replace(".npz", ".exact.npy"), np.abs(exact))
    print(json.dumps({"first": first, "seconds": min(seconds), "peak_mib": peak}))


def measured(command: list[str], **environment: str) -> dict | None:
    done = subprocess.run(
        command, capture_output=True, text=True, env={**os.environ, **environment}, timeout=600
    )
    if done.returncode:
        print(f"{' '.join(command[1:3])}: {done.stderr.strip().splitlines()[-1]}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def fastest(results: list[dict | None]) -> dict | None:
    kept = [result for result in results if result]
    return min(kept, key=lambda result: result["seconds"]) if kept else None


def table(rounds: int, names: list[str]) -> None:
    print(f"{'workload':13} {'ours':>9} {'rate/s':>9} {'floor':>6} {'compile':>8} {'peak':>8} "
          f"{'blochsim':>9} {'ratio':>6} {'error':>8} {'rival’s':>8}")  # fmt: skip
    cold = {"JAX_COMPILATION_CACHE_DIR": "", "JAX_ENABLE_COMPILATION_CACHE": "false"}
    for name in names:
        with tempfile.TemporaryDirectory() as folder:
            path, theirs = f"{folder}/in.npz", f"{folder}/rival.npz"
            np.savez(path, **inputs(VOXELS[name]))
            np.savez(theirs, **inputs(VOXELS[name]))
            mine, rival = [], []
            for _ in range(rounds):
                mine.append(measured([sys.executable, str(HERE), "--one", name, path], **cold))
                if RIVALS.exists() and name in AT_RIVAL:
                    script = str(HERE.with_name("rival_blochsim.py"))
                    rival.append(measured([str(RIVALS), script, name, theirs]))
            best, other = fastest(mine), fastest(rival)
            if best is None:
                continue
            rate = VOXELS[name] / best["seconds"]
            floor = f"{rate * FLOPS[name] / FLOOR_FLOPS:.0%}" if name in FLOPS else ""
            row = f"{name:13} {1e3 * best['seconds']:6.2f} ms {rate:9.3g} {floor:>6} "
            row += f"{best['first']:6.2f} s {best['peak_mib']:4.0f} MiB "
            if other:
                ratio = other["seconds"] / best["seconds"]
                row += f"{1e3 * other['seconds']:6.0f} ms {ratio:5.1f}x "
            if name in ("fse", "mrf"):
                exact = np.load(path.replace(".npz", ".exact.npy"))
                found = [path, *([theirs] if other else [])]
                errors = [np.load(p.replace(".npz", ".found.npy")).reshape(exact.shape) - exact
                          for p in found]  # fmt: skip
                row += " ".join(f"{np.abs(error).max():8.1e}" for error in errors)
            print(row, flush=True)


def devices() -> None:
    """Two one-thread devices beside one."""
    flags = "--xla_cpu_multi_thread_eigen=false --xla_force_host_platform_device_count="
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/in.npz"
        np.savez(path, **inputs(VOXELS["many"]))
        seconds = []
        for count in (1, 2):
            command = [sys.executable, str(HERE), "--one", "many", path]
            if hasattr(os, "sched_setaffinity") and count == 1:
                command = ["taskset", "-c", "0", *command]
            found = measured(command, XLA_FLAGS=f"{flags}{count}")
            if found is None:
                return
            seconds.append(found["seconds"])
    print(f"two devices beside one, 100,000 trains: {seconds[0] / seconds[1]:.2f}x")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each workload")
    parser.add_argument("--only", nargs="*", choices=VOXELS, default=list(VOXELS))
    parser.add_argument("--one", nargs=2, metavar=("WORKLOAD", "INPUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        ours(*given.one)
        return
    if not RIVALS.exists():
        print("no .cache/rivals: 'make bench-rivals' adds blochsim's columns")
    table(given.rounds, given.only)
    devices()


if __name__ == "__main__":
    main()
