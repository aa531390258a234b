"""Learned reconstruction beside CG-SENSE, wavelets and total variation, on heads and patients never
seen.

    python benchmarks/learned_reconstruction.py --size 64             # all of it, one table
    python benchmarks/learned_reconstruction.py --methods modl        # 128²: trained one by one
    python benchmarks/learned_reconstruction.py --table               # of what has been measured

Trains on simulated heads (learn.reconstruction.draw_image), and slices of three patients where
MRPHYS_DATA has glioblastoma_progression, scanned with 4 coils at R = 4 and 8, then measures every
method that it has trained, and those without training. In FOLDER are checkpoints, from which a run
that was stopped goes on, and METHOD_SIZE.json of what was measured.

unet     Aᴴy and a U-Net               modl     unrolled, CG inside, weights shared
varnet   unrolled, a U-Net each step   ssdu     MoDL without images, from halves of the samples
score    a denoiser of any level: posterior mean of samples, and plug-and-play

Test data: heads of test slices, a subject each; six slices each of three other patients. Noise of
sd 0.02 where mean |x|² = 1. A row is of one method, test and R: the means over subjects of PSNR,
SSIM, NMSE and HFEN, and in brackets the bootstrapped 95 % interval over subjects of the difference
from the L1-wavelet of the same scans, + better, - worse, ~ neither surely. The weights of methods
without training are those best on validation heads, for each R and each metric alone.
"""

import argparse
import json
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from learned_reconstruction_models import (
    ACCELERATIONS,
    FOLDER,
    NETWORKS,
    SIGNS,
    STEPS,
    UNTRAINED,
    Method,
    learned,
    scanned,
    test_sets,
    trained,
    tuned,
    untrained,
)

from learn import reconstruction as lr

RIVAL, RESAMPLED = "l1-wavelet", 4000
ORDER = ("zero-filled", "cg-sense", RIVAL, "tv", *NETWORKS[:-1], "posterior mean", "plug-and-play")
DIGITS = {"psnr": 2, "ssim": 4, "nmse": 4, "hfen": 3}

Values = dict[str, dict[str, dict[str, list[float]]]]
"""By test, R and metric, of each subject."""


def measured(methods: dict[str, dict[str, Method]], size: int, counted: int | None) -> Values:
    """Of a method, which may be another for each R and metric: `methods[R][metric]`."""
    found: Values = {}
    for kind, (x, each) in test_sets(size).items():
        found[kind] = {}
        for r in ACCELERATIONS:
            scans = scanned(x, r, jax.random.key(6))
            by_metric = methods[str(r)]
            rows: dict[int, Any] = {}
            for method in by_metric.values():
                if id(method) not in rows:
                    rows[id(method)] = scores(method, scans, each * counted if counted else None)
            found[kind][str(r)] = {
                metric: rows[id(method)][metric].reshape(-1, each).mean(1).tolist()
                for metric, method in by_metric.items()
            }
            some = next(iter(by_metric.values()))
            found[kind][str(r)]["seconds"] = [float(np.median(rows[id(some)]["seconds"][1:]))]
    return found


def scores(method: Method, scans: lr.Scan, count: int | None) -> dict[str, np.ndarray]:
    """Each metric of each scan; and seconds a scan, those of the first with compilation."""
    one = jax.jit(lambda s: lr.all_metrics(method(s.A, s.y, s.noise_sd), s.x))
    rows = []
    for i in range(min(count or len(scans.x), len(scans.x))):
        started = time.perf_counter()
        found = jax.device_get(one(jax.tree.map(lambda leaf, i=i: leaf[i], scans)))
        rows.append(found | {"seconds": time.perf_counter() - started})
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def interval(values: np.ndarray) -> tuple[float, float]:
    """Of the mean over subjects, 95 %."""
    draws = np.random.default_rng(0).choice(values, (RESAMPLED, values.size)).mean(1)
    low, high = np.percentile(draws, [2.5, 97.5])
    return float(low), float(high)


def table(folder: Path, size: int) -> None:
    """Of all files of this size; and where the learned ones do not win."""
    files = {name: folder / f"{name}_{size}.json" for name in ORDER}
    told = {name: json.loads(path.read_text()) for name, path in files.items() if path.exists()}
    rival = told[RIVAL]["values"]
    print(f"{'':16s}{'':9s} R " + "".join(f"{key:>32s}" for key in SIGNS) + "  subjects  s")
    short: dict[str, list[str]] = {}
    for kind in rival:
        for r in map(str, ACCELERATIONS):
            for name, of in told.items():
                values, text = of["values"][kind][r], f"{name:16s}{kind:9s} {r} "
                count = len(values["psnr"])
                for key, sign in SIGNS.items():
                    mine = np.array(values[key])
                    away = mine - np.array(rival[kind][r][key][:count])
                    low, high = interval(away)
                    mark = "+" if min(sign * low, sign * high) > 0 else "~"
                    mark = "-" if max(sign * low, sign * high) < 0 else mark
                    digits = DIGITS[key]
                    gain = f"{low:+.{digits}f}, {high:+.{digits}f}"
                    gain = "" if name == RIVAL else f"[{gain}]{mark}"
                    text += f"{mine.mean():9.{digits}f} {gain:22s}"
                    if "steps" in of and mark != "+":
                        short.setdefault(f"{name}, {kind}, R = {r}", []).append(f"{key}{mark}")
                print(text + f"{count:8d}  {values['seconds'][0]:.3f}")
    print("not surely better than l1-wavelet (~), or worse (-):")
    print("\n".join(f"  {row}: {' '.join(keys)}" for row, keys in short.items()) or "  nowhere")
    for name, of in told.items():
        if "steps" in of:
            print(f"{name}: {of['steps']} steps in {of['seconds']:.0f} s")


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--methods", nargs="*", choices=NETWORKS, default=NETWORKS)
    parser.add_argument("--size", type=int, choices=STEPS, default=128)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--subjects", type=int, help="on whom the posterior is measured; all")
    parser.add_argument("--table", action="store_true", help="only")
    parser.add_argument("--only-train", action="store_true")
    asked = parser.parse_args()
    folder, size = asked.folder, asked.size
    if asked.table:
        return table(folder, size)
    folder.mkdir(parents=True, exist_ok=True)

    def kept(name: str, methods: dict[str, dict[str, Method]], about: dict[str, Any]) -> None:
        """Measured unless a file says the same already."""
        path = folder / f"{name}_{size}.json"
        if path.exists() and json.loads(path.read_text()) | about == json.loads(path.read_text()):
            return
        values = measured(methods, size, asked.subjects if name == "posterior mean" else None)
        path.write_text(json.dumps(about | {"values": values}, indent=1))
        print(f"{name} measured", flush=True)

    for name in asked.methods:
        net, seconds = trained(name, size, folder)
        if not asked.only_train:
            for each, method in learned(name, net).items():
                alike = {str(r): dict.fromkeys(SIGNS, method) for r in ACCELERATIONS}
                kept(each, alike, {"steps": STEPS[size][name], "seconds": seconds})
    if asked.only_train:
        return None
    nothing: Method = lambda A, y, noise_sd: A.H(y)  # noqa: E731
    kept("zero-filled", {str(r): dict.fromkeys(SIGNS, nothing) for r in ACCELERATIONS}, {})
    weights = tuned(size, folder)
    for name in UNTRAINED:
        by_r = {}
        for r, of in weights[name].items():
            alike = {weight: untrained(name, weight) for weight in of.values()}
            by_r[r] = {metric: alike[weight] for metric, weight in of.items()}
        kept(name, by_r, {"weights": weights[name]})
    return table(folder, size)


if __name__ == "__main__":
    main()
