"""Learned patterns beside random ones of variable density and equispaced ones, on heads never seen.

    python benchmarks/learned_acquisition.py --study lines
    python benchmarks/learned_acquisition.py --table

Every arm has its own networks, alike and trained alike: five seeds at once, each with its own start
and data; scans of 4 coils, noise of sd 0.02 where mean |x|² = 1. Checkpoints are in FOLDER, and a
run that was stopped goes on. Measured on 16 heads of test slices: of each arm the mean over seeds,
and what it gains over the others, seed by seed, with 95 % intervals (Student, n - 1).

lines, points     one of four taken: equispaced, variable density (a pattern drawn anew for every
                  scan), centre (the lowest frequencies alone), separate (the pattern learned for
                  the finished network of variable density), greedy (for least squares, of points
                  a few of the candidates drawn; then a network), joint
trajectories      8 shots of 1 ms: spokes, even (equispaced) or at random angles (variable
                  density), spiral of variable density; B-splines learned with a network, begun as
                  spokes (joint) or as a spiral (joint from spiral), or learned for the finished
                  network of the spiral (separate); within 40 mT/m and 150 T/m/s
spins             16 lines by 2 shots of a fast spin echo of 8 echoes, an image as of one perfect
                  echo at 40 ms, sharp: flips of 120° and lines fixed, or both learned with the
                  network (joint) or for it (separate), the power of the pulses no higher
prior             lines for a denoiser, by the spread of its posterior; images by plug-and-play
map               T2 from two images of 8 lines, early and late echoes: the error of ln T2
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
from acquisition_patterns import cartesian, prior
from acquisition_run import Asked
from acquisition_spins import spins
from acquisition_trajectories import trajectories
from scipy import stats

import mrphys as mr

mr.use_cores()
METRICS = ("psnr", "ssim", "nmse", "spread", "log_t2")

STUDIES: dict[str, Callable[[Asked], dict[str, dict]]] = {
    "lines": partial(cartesian, kind="lines"),
    "points": partial(cartesian, kind="points"),
    "trajectories": trajectories,
    "spins": partial(spins, kind="image"),
    "prior": prior,
    "map": partial(spins, kind="map"),
}


def interval(values: np.ndarray) -> dict[str, float]:
    """The mean over seeds and half of its 95 % interval."""
    half = np.nan
    if values.size > 1:
        half = stats.t.ppf(0.975, values.size - 1) * values.std(ddof=1) / np.sqrt(values.size)
    return {"mean": float(values.mean()), "half95": float(half)}


def summary(found: dict[str, dict]) -> list[dict]:
    """Of every arm its scores, and what it gains over each other, paired by seed."""
    means = {
        arm: {key: np.mean(by[key], axis=1) for key in METRICS if key in by}
        for arm, by in found.items()
    }
    rows = []
    for arm, by in means.items():
        row = {"arm": arm, **{key: interval(values) for key, values in by.items()}}
        row["gain"] = {
            other: {key: interval(by[key] - theirs[key]) for key in by}
            for other, theirs in means.items()
            if other != arm
        }
        rows.append(row)
    return rows


def told(path: Path) -> str:
    record = json.loads(path.read_text())
    lines = [f"{path.parent.name}: {record['seeds']} seeds, {record['steps']} steps, core-seconds "
             + ", ".join(f"{arm} {s:.0f}" for arm, s in record["seconds"].items())]  # fmt: skip
    for row in record["rows"]:
        line = f"  {row['arm']:17s}"
        for key, digits in zip(METRICS, (2, 4, 4, 5, 4), strict=True):
            if key in row:
                line += f"  {key} {row[key]['mean']:.{digits}f}"
        lines.append(line)
        for other, gain in row["gain"].items():
            told = (f"{k} {v['mean']:+.4f} ± {v['half95']:.4f}" for k, v in gain.items())
            lines.append(f"      over {other:17s} {',  '.join(told)}")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--study", choices=list(STUDIES))
    parser.add_argument("--size", type=int, default=64)
    parser.add_argument("--seeds", type=int, help="5 at 64, 1 above")
    parser.add_argument("--steps", type=int)
    parser.add_argument("--folder", type=Path, default=Path("results/learned_acquisition"))
    parser.add_argument("--table", action="store_true", help="what has been measured")
    given = parser.parse_args()
    if given.table:
        for path in sorted(given.folder.glob("*/found.json")):
            print(told(path))
        return
    if given.study is None:
        parser.error("--study or --table")
    count = given.seeds or (5 if given.size <= 64 else 1)
    asked = Asked(given.study, given.size, count, given.steps, given.folder)
    asked.folder.mkdir(parents=True, exist_ok=True)
    found = STUDIES[given.study](asked)
    record = {
        "seeds": count, "steps": asked.steps, "seconds": asked.seconds, "rows": summary(found),
        "scores": found,
    }  # fmt: skip
    (asked.folder / "found.json").write_text(json.dumps(record))
    print(told(asked.folder / "found.json"))


if __name__ == "__main__":
    main()
