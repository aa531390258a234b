"""Learned reconstruction beside the tuned L1-wavelet, on heads and patients never seen.

    python benchmarks/learned_reconstruction.py --method modl --size 128
    python benchmarks/learned_reconstruction.py --table

Trains one method on simulated heads (learn.reconstruction.draw_image) scanned with 4 coils at R = 4
and 8, then measures it, and writes FOLDER/METHOD_SIZE.json; checkpoints are beside it, and a run
that was stopped goes on. Of MoDL at 128 a step took 0.8 s on two cores.

unet     Aᴴy and a U-Net               modl     unrolled, CG inside, weights shared
varnet   unrolled, a U-Net each step   ssdu     MoDL without images, from halves of the samples
score    a denoiser of any level: posterior mean of samples, and plug-and-play

Test data: heads of test slices, a subject each; T1 slices of glioblastoma patients (where
MRPHYS_DATA has glioblastoma_progression), three of each. Noise of sd 0.02 where mean |x|² = 1.
PSNR, SSIM, NMSE and HFEN are means over subjects with bootstrapped 95 % intervals, `gain` the
difference from the L1-wavelet of the same subjects; its weight is the one of 10 with the best PSNR
on validation heads, for each R.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx

import learn
import mrphys as mr
from learn import reconstruction as lr

COILS, NOISE_SD, ACCELERATIONS = 4, 0.02, (4, 8)
HEADS, VALIDATION, RESAMPLED = 32, 16, 4000
WEIGHTS = np.geomspace(1e-4, 0.1, 10)
METRICS = ("psnr", "ssim", "nmse", "hfen")
BANK = {64: 2048, 128: 768}
STEPS = {"unet": (4000, 4000), "modl": (3000, 3000), "varnet": (3000, 3000), "ssdu": (3000, 3000),
         "score": (8000, 6000)}  # fmt: skip
BATCH = {"unet": 4, "modl": 2, "varnet": 2, "ssdu": 2, "score": 4}


def network(method: str) -> Any:
    rngs = nnx.Rngs(0)
    if method == "unet":
        return lr.UNetReconstruction(32, 3, rngs=rngs)
    if method == "varnet":
        return lr.VariationalNetwork(20, 2, 5, rngs=rngs)
    if method == "score":
        return lr.Denoiser(32, 3, rngs=rngs)
    return lr.MoDL(32, 2, 5, rngs=rngs)


def images(size: int, role: Any, count: int, key: Any) -> Any:
    """So many heads, made a few at a time."""
    of = lr.atlas(size, role)
    draw = jax.jit(jax.vmap(partial(lr.draw_image, of)))
    few = min(count, 32)
    keys = jax.random.split(key, count).reshape(-1, few)
    return jnp.concatenate([draw(some) for some in keys])


def scanned(x: Any, acceleration: float, key: Any) -> lr.Scan:
    draw = partial(
        lr.draw_scan, coils=COILS, accelerations=(acceleration,), noise_sd=(NOISE_SD, NOISE_SD)
    )
    return jax.jit(jax.vmap(draw))(x, jax.random.split(key, x.shape[0]))


def trained(method: str, size: int, steps: int, folder: Path) -> Any:
    """The network, where it was best on validation heads."""
    keys = jax.random.split(jax.random.key(0), 4)
    bank = images(size, "train", BANK.get(size, 512), keys[0])
    held = images(size, "validation", VALIDATION, keys[1])
    batch = BATCH[method]

    @jax.jit
    def data(key: Any) -> Any:
        which, scan = jax.random.split(key)
        x = bank[jax.random.choice(which, bank.shape[0], (batch,), replace=False)]
        if method == "score":
            return x
        return jax.vmap(partial(lr.draw_scan, coils=COILS))(x, jax.random.split(scan, batch))

    if method == "score":
        again = jax.random.key(9)
        lowest: Any = nnx.jit(lambda net: lr.denoising_loss(net, jnp.repeat(held, 4, 0), again))
        loss: Any = lr.denoising_loss
    else:
        both = [scanned(held[i::2], r, keys[2]) for i, r in enumerate(ACCELERATIONS)]
        validation = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *both)
        loss = lr.ssdu_loss if method == "ssdu" else lr.supervised_loss
        lowest = lr.judge({"nmse": lr.nmse, "psnr": lr.psnr, "ssim": lr.ssim}, validation)
    rate = optax.warmup_cosine_decay_schedule(0.0, 1e-3, 100, steps, 1e-5)
    started = time.perf_counter()

    def told(step: int, of: int, value: float) -> None:
        print(f"{step}/{of}  loss {value:.4f}  {time.perf_counter() - started:.0f} s", flush=True)

    made = learn.train(
        network(method), loss, data, optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
        steps, evaluate=lowest, every=250, patience=8, folder=folder / "checkpoints",
        log=folder / "log.csv", progress=told, key=keys[3],
    )  # fmt: skip
    return made.net


Method = Callable[[Any, Any], Any]


def learned(method: str, net: Any) -> dict[str, Method]:
    """x of (A, y) by name."""
    if method != "score":
        return {method: net}

    def measured(solve: Callable, A: Any, y: Any) -> Any:
        size = lr.level(A, y)
        return size * solve(net, A, y / size, NOISE_SD / size)

    def mean(denoise: Any, A: Any, y: Any, sd: Any) -> Any:
        few = {"samples": 4, "anneal": 20, "hold": 4, "steps": 6, "iterations": 10}
        return lr.sample_posterior(denoise, A, y, sd, jax.random.key(5), **few).mean

    def plugged(denoise: Any, A: Any, y: Any, sd: Any) -> Any:
        return lr.plug_and_play(denoise, A, y, sd, smallest=1.5, iterations=10)

    return {"posterior": partial(measured, mean), "plug-and-play": partial(measured, plugged)}


def classical(size: int) -> dict[int, dict[str, Method]]:
    """Zero-filled, and the L1-wavelet tuned on validation heads, for each acceleration."""
    found: dict[int, dict[str, Method]] = {}
    x = images(size, "validation", VALIDATION, jax.random.key(1))
    for r in ACCELERATIONS:
        found[r] = {"zero-filled": lambda A, y: A.H(y)}
        scans = scanned(x, r, jax.random.key(2))
        scores = []
        for weight in WEIGHTS:
            values = measures({"": wavelet(weight)}, scans)[""]["psnr"]
            scores.append(float(np.mean(values)))
        best = float(WEIGHTS[int(np.argmax(scores))])
        print(f"L1-wavelet, R = {r}: weight {best:.4f} of {np.round(scores, 2)}", flush=True)
        found[r]["l1-wavelet"] = wavelet(best)
    return found


def wavelet(weight: float) -> Method:
    def solve(A: Any, y: Any) -> Any:
        found = mr.reconstruct(
            A, y, "l1-wavelet", regularisation=weight, iterations=150, tolerance=0.0
        )
        return found.image

    return solve


def measures(methods: dict[str, Method], scans: lr.Scan) -> dict[str, dict[str, np.ndarray]]:
    """Each metric of each scan, by method; and seconds a scan."""
    found = {}
    for name, method in methods.items():
        each = jax.jit(lambda s, method=method: lr.all_metrics(method(s.A, s.y), s.x))
        rows = []
        for i in range(scans.x.shape[0]):
            started = time.perf_counter()
            one = jax.tree.map(lambda leaf, i=i: leaf[i], scans)
            rows.append(jax.device_get(each(one)) | {"seconds": time.perf_counter() - started})
        found[name] = {key: np.array([row[key] for row in rows]) for key in rows[0]}
        found[name]["seconds"][0] = np.nan  # compiled
    return found


def summary(values: np.ndarray) -> dict[str, float]:
    """The mean over subjects and its 95 % interval."""
    rng = np.random.default_rng(0)
    draws = rng.choice(values, (RESAMPLED, values.size)).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return {"mean": float(values.mean()), "low95": float(low), "high95": float(high)}


def test_sets(size: int) -> dict[str, tuple[Any, int]]:
    """Images, and how many in a row are one subject's."""
    found = {"heads": (images(size, "test", HEADS, jax.random.key(3)), 1)}
    shared = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("MRPHYS_DATA", shared)) / "glioblastoma_progression"
    if folder.is_dir():
        patients = lr.patient_images(folder, size, jax.random.key(4))
        found["patients"] = (jnp.concatenate(list(patients.values())), len(lr.patients.SLICES))
    return found


def judged(method: str, net: Any, size: int) -> list[dict]:
    rows, before = [], classical(size)
    for kind, (x, each) in test_sets(size).items():
        for r in ACCELERATIONS:
            found = measures(before[r] | learned(method, net), scanned(x, r, jax.random.key(6)))
            by_subject = {
                name: {key: np.mean(value.reshape(-1, each), 1) for key, value in values.items()}
                for name, values in found.items()
            }
            rival = by_subject["l1-wavelet"]
            for name, values in by_subject.items():
                row = {"method": name, "test": kind, "R": r, "subjects": values["psnr"].size}
                row["seconds"] = float(np.nanmean(found[name]["seconds"]))
                for key in METRICS:
                    row[key] = summary(values[key])
                    row[f"gain_{key}"] = summary(values[key] - rival[key])
                rows.append(row)
                print(line(row), flush=True)
    return rows


def line(row: dict) -> str:
    text = f"{row['method']:14s}{row['test']:9s} R = {row['R']} "
    for key, digits in (("psnr", 2), ("ssim", 4)):
        for name in (key, f"gain_{key}"):
            v = row[name]
            low, high = (f"{v[end]:.{digits}f}" for end in ("low95", "high95"))
            text += f"  {name} {v['mean']:.{digits}f} [{low}, {high}]"
    return text + f"  nmse {row['nmse']['mean']:.4f}  hfen {row['hfen']['mean']:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=list(STEPS))
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--folder", type=Path, default=Path("results/learned_reconstruction"))
    parser.add_argument("--table", action="store_true", help="what has been measured")
    asked = parser.parse_args()
    if asked.table:
        for path in sorted(asked.folder.glob("*.json")):
            told = json.loads(path.read_text())
            print(f"{path.stem}: {told['steps']} steps in {told['seconds']:.0f} s")
            print("\n".join(line(row) for row in told["rows"]))
        return
    if asked.method is None:
        parser.error("--method or --table")
    name = f"{asked.method}_{asked.size}"
    steps = asked.steps or STEPS[asked.method][asked.size > 64]
    folder = asked.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    net = trained(asked.method, asked.size, steps, folder)
    seconds = time.perf_counter() - started
    print(f"trained in {seconds:.0f} s", flush=True)
    told = {"method": asked.method, "size": asked.size, "steps": steps, "seconds": seconds}
    told["rows"] = judged(asked.method, net, asked.size)
    (asked.folder / f"{name}.json").write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
