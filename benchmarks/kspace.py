"""Reconstruction and non-uniform transforms beside MRpro and SigPy, and the floor of bare FFTs.

    make bench-rivals                    # once: .cache/rivals, the rivals' own environment
    python benchmarks/kspace.py          # prints the table; --rounds 5 for steadier figures

Every figure is of a process of its own, warm, single precision, all cores; ours and the rivals'
alternate. 256², 8 coils, brain-sized ellipses with noise:

cg-sense    each 4th line and 16 in the middle, 10 iterations from 0, Aᴴ y included
l1-wavelet  the same with db4, 4 levels and 50 iterations of FISTA (MRpro: its pgd, all levels'
            averages penalised too; SigPy: its app, as deep as it goes)
points      cg-sense and l1-wavelet of ours with points of the grid left out by chance, which needs
            transforms along both axes
nufft       200 spokes of 256 samples to a relative error of 5e-4
gradient    of ½|A x - y|² in all points of that trajectory (MRpro: pytorch-finufft beneath it)

floor       bare FFTs of 8 x 256², in the same process as ours: 21 for 10 iterations and Aᴴ y, 101
            for 50
x ours      a rival's fastest call over ours
off         |x - x_ours| / |x_ours|: how far apart what was found is
"""

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve()
RIVALS = HERE.parents[1] / ".cache" / "rivals" / "bin" / "python"
FFTS = {"cg-sense": 21, "l1-wavelet": 101, "cg-sense points": 21, "l1-wavelet points": 101}
PLAYED = {
    "mrpro": ("cg-sense", "l1-wavelet", "nufft", "gradient"),
    "sigpy": ("cg-sense", "l1-wavelet", "nufft"),
}
WORKLOADS = (*FFTS, "nufft", "gradient")
WANTED = {  # at most so many floors, or so much of the fastest rival
    "cg-sense": 2.5, "cg-sense points": 2.5, "l1-wavelet": 4.0, "l1-wavelet points": 4.0,
    "nufft": 1.0, "gradient": 1.0,
}  # fmt: skip
N, COILS, SPOKES = 256, 8, 200


def inputs(name: str) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    r = np.stack(np.meshgrid(*[np.linspace(-1, 1, N)] * 2, indexing="ij"))
    x = sum(
        value * (((r[0] - a) / h) ** 2 + ((r[1] - b) / w) ** 2 < 1)
        for value, a, b, h, w in (
            (1.0, 0, 0, 0.8, 0.65), (-0.4, 0, 0, 0.72, 0.58), (0.3, 0.2, 0.2, 0.2, 0.15),
            (0.5, -0.3, -0.15, 0.1, 0.2),
        )
    ) * np.exp(0.6j * r[0])  # fmt: skip
    angle = 2 * np.pi * np.arange(COILS) / COILS
    place = 1.3 * np.stack([np.cos(angle), np.sin(angle)])[:, :, None, None]
    coils = np.exp(-np.sum((r[:, None] - place) ** 2, axis=0) + 1j * angle[:, None, None])
    coils = coils / np.sqrt(np.sum(np.abs(coils) ** 2, axis=0))
    mask = np.zeros((N, N), np.float32)
    mask[::4] = mask[N // 2 - 8 : N // 2 + 8] = 1
    if name.endswith("points"):
        mask = (rng.uniform(size=(N, N)) < 0.25).astype(np.float32)
    noise = 0.01 * (rng.normal(size=coils.shape) + 1j * rng.normal(size=coils.shape))
    k_space = np.fft.fftshift(
        np.fft.fft2(np.fft.ifftshift(coils * x, (-2, -1)), norm="ortho"), (-2, -1)
    )
    turn = np.pi * np.arange(SPOKES) / SPOKES
    line = (np.arange(N) - N // 2 + 0.5)[None, :, None]
    k = (line * np.stack([np.cos(turn), np.sin(turn)], -1)[:, None]).reshape(-1, 2)
    samples = rng.normal(size=(COILS, k.shape[0])) + 1j * rng.normal(size=(COILS, k.shape[0]))
    made = {"x": x, "coils": coils, "y": mask * (k_space + noise), "samples": samples}
    return {
        **{key: value.astype(np.complex64) for key, value in made.items()},
        "mask": mask,
        "k": k.astype(np.float32),
        "weight": np.float32(0.003),
    }


def ours(name: str, path: str) -> None:
    """One workload of ours in this process, as a line of JSON."""
    import jax
    import jax.numpy as jnp

    import mrphys as mr

    given = {key: jnp.asarray(value) for key, value in np.load(path).items()}
    if name in FFTS:
        A = mr.Encoding.cartesian(given["mask"], given["coils"])
        method = name.split()[0]
        wavelets = method == "l1-wavelet"
        weight, iterations = (given["weight"], 50) if wavelets else (None, 10)

        def solve():
            return mr.reconstruct(
                A, given["y"], method,
                regularisation=weight, iterations=iterations, tolerance=0.0,
            ).image  # fmt: skip

        run = solve
    else:

        def encoded(k):
            A = mr.Encoding.noncartesian(k, given["coils"], tolerance=5e-4)
            return A(given["x"])

        def cost(k):
            left = encoded(k) - given["samples"]
            return 0.5 * jnp.sum(left.real**2 + left.imag**2)

        call = jax.jit(encoded if name == "nufft" else jax.grad(cost))

        run = partial(call, given["k"])

    floor = []
    if name in FFTS:
        each = given["coils"] * given["x"]
        bare = jax.jit(jnp.fft.fft2)
        floor = timed(lambda: jax.block_until_ready(bare(each)), 0.5)
    seconds = timed(lambda: jax.block_until_ready(run()), 3.0)
    np.save(path.replace(".npz", ".found.npy"), run())
    print(json.dumps({"seconds": seconds, "floor": floor}))


def timed(call, enough_s: float) -> list[float]:
    call()
    seconds = []
    while len(seconds) < 3 or sum(seconds) < enough_s:
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def measured(command: list[str], alone: list[str]) -> dict | None:
    done = subprocess.run([*alone, *command], capture_output=True, text=True, env=dict(os.environ))
    if done.returncode:
        why = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        print(f"{' '.join(command[1:3])}: {why}", file=sys.stderr)
        return None
    return json.loads(done.stdout.strip().splitlines()[-1])


def compare(name: str, rounds: int, alone: list[str], rivals: Path) -> None:
    """The rows of one workload."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/in.npz"
        arrays: Any = inputs(name)
        np.savez(path, **arrays)
        commands = {"mrphys": [sys.executable, str(HERE), "--one", name, path]}
        for rival, played in PLAYED.items():
            if name in played and rivals.exists():
                script = str(HERE.with_name(f"rival_{rival}_kspace.py"))
                commands[rival] = [str(rivals), script, name, path]
        calls: dict[str, list[float]] = {program: [] for program in commands}
        floors: list[float] = []
        found: dict[str, np.ndarray] = {}
        for _ in range(rounds):
            for program, command in commands.items():
                result = measured(command, alone)
                if result is not None:
                    calls[program] += result["seconds"]
                    floors += result.get("floor", [])
                    found[program] = np.load(f"{folder}/in.found.npy").ravel()
    if not calls["mrphys"]:
        return
    mine = min(calls["mrphys"])
    floor = FFTS.get(name, 0) * min(floors, default=0.0)
    for program, seconds in calls.items():
        if not seconds:
            continue
        over = f"{min(seconds) / floor:7.2f}" if floor else ""
        typical = FFTS.get(name, 0) * statistics.median(floors) if floors else 0.0
        middle = f"{statistics.median(seconds) / typical:7.2f}" if typical else ""
        theirs = f"{min(seconds) / mine:7.2f}" if program != "mrphys" else ""
        off = np.linalg.norm(found[program] - found["mrphys"]) / np.linalg.norm(found["mrphys"])
        fastest, median = 1e3 * min(seconds), 1e3 * statistics.median(seconds)
        print(
            f"{name:18} {program:7} {fastest:9.2f} {median:9.2f} "
            f"{over:>8} {middle:>8} {theirs:>8} {off:8.1e}",
            flush=True,
        )
    if floor:
        print(f"{name:18} floor   {1e3 * floor:9.2f} {1e3 * typical:9.2f}   at most "
              f"{WANTED[name]} floors wanted")  # fmt: skip
    else:
        fastest = min((min(s) for p, s in calls.items() if p != "mrphys" and s), default=np.nan)
        print(f"{name:18} wanted  {1e3 * fastest:9.2f}             on par with the fastest rival")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3, help="processes of each workload")
    parser.add_argument("--only", nargs="*", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rivals", type=Path, default=RIVALS, help="their environment's Python")
    parser.add_argument(
        "--alone", default="", metavar="COMMAND", help="put before each process, such as a lock"
    )
    parser.add_argument("--one", nargs=2, metavar=("WORKLOAD", "INPUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        return ours(*given.one)
    if not given.rivals.exists():
        print("no .cache/rivals: 'make bench-rivals' adds the rivals' rows")
    print(f"{'workload':18} {'program':7} {'fastest':>9} {'median ms':>9} {'x floor':>8} "
          f"{'median':>8} {'x ours':>8} {'off':>8}")  # fmt: skip
    for name in given.only:
        compare(name, given.rounds, shlex.split(given.alone), given.rivals)


if __name__ == "__main__":
    main()
