"""Learned reconstruction beside CG-SENSE, wavelets and total variation, on heads and patients never
seen.

    python benchmarks/learned_reconstruction.py --method modl     # trains, then measures
    python benchmarks/learned_reconstruction.py --table

Trains one method on simulated heads (learn.reconstruction.draw_image), and slices of three patients
where MRPHYS_DATA has glioblastoma_progression, of 128² voxels, scanned with 4 coils at R = 4 and 8,
then measures it, and writes FOLDER/METHOD_SIZE.json. Checkpoints are beside it, and a run that was
stopped goes on.

unet     Aᴴy and a U-Net               modl     unrolled, CG inside, weights shared
varnet   unrolled, a U-Net each step   ssdu     MoDL without images, from halves of the samples
score    a denoiser of any level: posterior mean of samples, and plug-and-play

Test data: heads of test slices, a subject each; six slices each of three other patients. Noise of
sd 0.02 where mean |x|² = 1. PSNR, SSIM, NMSE and HFEN are means over subjects with bootstrapped
95 % intervals, `gain` the difference from the L1-wavelet of the same subjects, whose weight is the
best on validation heads for each R; SSIM's is another than that of the other metrics.
"""

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from learned_reconstruction_models import (
    ACCELERATIONS,
    BATCH,
    COILS,
    FOLDER,
    LEARNED,
    STEPS,
    VALIDATION,
    Method,
    images,
    learned,
    network,
    optimiser,
    scanned,
    test_sets,
    to_learn_from,
    tuned,
    untrained,
)

import learn
from learn import reconstruction as lr

METRICS = ("psnr", "ssim", "nmse", "hfen")
RIVAL, RESAMPLED = "l1-wavelet", 4000


def trained(method: str, size: int, steps: int, folder: Path) -> Any:
    """The network, where it was best on validation heads."""
    keys = jax.random.split(jax.random.key(0), 4)
    bank = to_learn_from(size, keys[0])
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
        lowest: Any = jax.jit(lambda net: lr.denoising_loss(net, jnp.repeat(held, 4, 0), again))
        loss: Any = lr.denoising_loss
    else:
        both = [scanned(held[i::2], r, keys[2]) for i, r in enumerate(ACCELERATIONS)]
        validation = jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *both)
        loss = lr.ssdu_loss if method == "ssdu" else lr.supervised_loss
        lowest = lr.judge({"nmse": lr.nmse, "psnr": lr.psnr, "ssim": lr.ssim}, validation)
    started = time.perf_counter()

    def told(step: int, of: int, value: float) -> None:
        print(f"{step}/{of}  loss {value:.4f}  {time.perf_counter() - started:.0f} s", flush=True)

    made = learn.train(
        network(method), loss, data, optimiser(steps), steps, evaluate=lowest, every=100,
        folder=folder / "checkpoints", log=folder / "log.csv", progress=told, key=keys[3],
    )  # fmt: skip
    return made.net


def rivals(size: int, r: int, folder: Path) -> dict[str, Method]:
    """Zero-filled; and each tuned, wavelets for SSIM too."""
    weights = {name: by[str(r)] for name, by in tuned(size, folder).items()}
    found: dict[str, Method] = {"zero-filled": lambda A, y: A.H(y)}
    found |= {name: untrained(name, of["psnr"]) for name, of in weights.items()}
    return found | {f"{RIVAL}, for SSIM": untrained(RIVAL, weights[RIVAL]["ssim"])}


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


def judged(methods: dict[str, Method], size: int, folder: Path, known: list[dict]) -> list[dict]:
    """A row for each method, test and R; rivals of which there are rows are not measured again."""
    rows = []
    for kind, (x, each) in test_sets(size).items():
        for r in ACCELERATIONS:
            scans = scanned(x, r, jax.random.key(6))
            before = {row["method"]: row for row in known if (row["test"], row["R"]) == (kind, r)}
            asked = methods | {k: m for k, m in rivals(size, r, folder).items() if k not in before}
            found = {name: row["subjects"] for name, row in before.items()}
            for name, values in measures(asked, scans).items():
                found[name] = {k: v.reshape(-1, each).mean(1).tolist() for k, v in values.items()}
                found[name]["seconds"] = [float(np.nanmean(values["seconds"]))]
            for name, values in found.items():
                row = {"method": name, "test": kind, "R": r, "subjects": values}
                for key in METRICS:
                    best = found[f"{RIVAL}, for SSIM" if key == "ssim" else RIVAL][key]
                    row[key] = summary(np.array(values[key]))
                    row[f"gain_{key}"] = summary(np.array(values[key]) - np.array(best))
                rows.append(row)
                if name in asked:
                    print(line(row), flush=True)
    return rows


def line(row: dict) -> str:
    text = f"{row['method']:21s}{row['test']:9s} R = {row['R']} "
    for key, digits in (("psnr", 2), ("ssim", 4)):
        for name in (key, f"gain_{key}"):
            v = row[name]
            low, high = (f"{v[end]:.{digits}f}" for end in ("low95", "high95"))
            text += f"  {name} {v['mean']:.{digits}f} [{low}, {high}]"
    text += f"  nmse {row['nmse']['mean']:.4f}  hfen {row['hfen']['mean']:.3f}"
    return text + f"  n = {len(row['subjects']['psnr'])}"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--method", choices=LEARNED)
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--steps", type=int)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--table", action="store_true", help="what has been measured")
    parser.add_argument("--only-train", action="store_true", help="measure another time")
    asked = parser.parse_args()
    before = asked.folder / f"rivals_{asked.size}.json"
    if asked.table:
        for path in [before, *sorted(asked.folder.glob(f"*_{asked.size}.json"))]:
            told = json.loads(path.read_text())
            if "rows" in told and (path == before) == (told.get("method") is None):
                print(f"{path.stem}: {told['steps']} steps in {told['seconds']:.0f} s")
                print("\n".join(line(row) for row in told["rows"]))
        return
    if asked.method is None:
        parser.error("--method or --table")
    name = f"{asked.method}_{asked.size}"
    steps = asked.steps or STEPS[asked.method]
    folder = asked.folder / name
    folder.mkdir(parents=True, exist_ok=True)
    started = time.perf_counter()
    net = trained(asked.method, asked.size, steps, folder)
    seconds = time.perf_counter() - started
    print(f"{steps} steps, trained in {seconds:.0f} s", flush=True)
    if asked.only_train:
        return
    known = json.loads(before.read_text())["rows"] if before.exists() else []
    rows = judged(learned(asked.method, net), asked.size, asked.folder, known)
    mine = set(learned(asked.method, net))
    told = {"method": asked.method, "size": asked.size, "steps": steps, "seconds": seconds}
    told["rows"] = [row for row in rows if row["method"] in mine]
    (asked.folder / f"{name}.json").write_text(json.dumps(told, indent=1))
    rest = {"steps": 0, "seconds": 0.0, "rows": [r for r in rows if r["method"] not in mine]}
    before.write_text(json.dumps(rest, indent=1))


if __name__ == "__main__":
    main()
