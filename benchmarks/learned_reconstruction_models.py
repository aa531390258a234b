"""Methods of reconstruction, learned and not, with what they are trained, tuned and tested on."""

import json
import os
from collections.abc import Callable
from functools import cache, partial
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
from mrphys.reconstruction import L1Wavelet

Method = Callable[[Any, Any], Any]
"""x of (A, y)."""

FOLDER = Path("results/learned_reconstruction")
COILS, NOISE_SD, ACCELERATIONS = 4, 0.02, (4, 8)
LEARNED = ("unet", "modl", "varnet", "ssdu", "score")
STEPS = {"unet": 1500, "modl": 1200, "varnet": 2000, "ssdu": 1000, "score": 2000}
BATCH = {"unet": 4, "modl": 2, "varnet": 2, "ssdu": 2, "score": 4}
HEADS, VALIDATION, BANK = 32, 16, 768
LEARNED_FROM, TESTED_ON = ("01", "03", "05"), ("02", "04", "06")
"""Patients."""
DENSE, SPARSE = np.linspace(0.2, 0.8, 12), np.linspace(0.25, 0.7, 6)
"""Their slices, in parts of the head."""
ITERATIONS = {"cg-sense": 30, "l1-wavelet": 150, "tv": 300}
RATIO, FIRST = 10**0.25, -8
"""Of one weight tried to the next, and the power of the first."""


def network(method: str) -> Any:
    """As it is before training."""
    rngs = nnx.Rngs(0)
    if method == "unet":
        return lr.UNetReconstruction(32, 3, rngs=rngs)
    if method == "varnet":
        return lr.VariationalNetwork(16, 2, 5, rngs=rngs)
    if method == "score":
        return lr.Denoiser(32, 3, rngs=rngs)
    return lr.MoDL(24, 2, 5, rngs=rngs)


def images(size: int, role: Any, count: int, key: Any) -> Any:
    """So many heads, made a few at a time."""
    draw = jax.jit(jax.vmap(partial(lr.draw_image, lr.atlas(size, role))))
    few = min(count, 32)
    keys = jax.random.split(key, count).reshape(-1, few)
    return jnp.concatenate([draw(some) for some in keys])


def patients(size: int, which: tuple[str, ...], slices: Any, visit: str, key: Any) -> Any:
    """Slices of patients one after the other, or None where there are no patients."""
    shared = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    folder = Path(os.environ.get("MRPHYS_DATA", shared)) / "glioblastoma_progression"
    if not folder.is_dir():
        return None
    name = f"{visit}_Scan_T1.nii.gz"
    found = lr.patient_images(folder, size, key, name, slices=slices, patients=which)
    return jnp.concatenate(list(found.values()))


def to_learn_from(size: int, key: Any) -> Any:
    """Heads; and slices of patients, where they are, at both visits, each mirrored too."""
    keys = jax.random.split(key, 5)
    every = [images(size, "train", BANK, keys[0])]
    for i, visit in enumerate(("Pre", "Post")):
        for j, mirrored in enumerate((False, True)):
            found = patients(size, LEARNED_FROM, DENSE, visit, keys[1 + 2 * i + j])
            if found is not None:
                every.append(found[:, ::-1] if mirrored else found)
    return jnp.concatenate(every)


def test_sets(size: int) -> dict[str, tuple[Any, int]]:
    """Images, and how many in a row are one subject's."""
    found = {"heads": (images(size, "test", HEADS, jax.random.key(3)), 1)}
    slices = patients(size, TESTED_ON, SPARSE, "Post", jax.random.key(4))
    return found if slices is None else found | {"patients": (slices, len(SPARSE))}


def scanned(x: Any, acceleration: float, key: Any, noise_sd: float = NOISE_SD, **how: Any) -> Any:
    """Scans of images, one line of so many."""
    draw = partial(
        lr.draw_scan, **{"coils": COILS} | how, accelerations=(acceleration,),
        noise_sd=(noise_sd, noise_sd),
    )  # fmt: skip
    return jax.jit(jax.vmap(draw))(x, jax.random.split(key, x.shape[0]))


def optimiser(steps: int) -> optax.GradientTransformation:
    rate = optax.warmup_cosine_decay_schedule(0.0, 2e-3, 100, max(steps, 101), 1e-5)
    return optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))


def loaded(method: str, size: int, folder: Path = FOLDER) -> Any:
    """A network as trained; None where it has not been."""
    where = folder / f"{method}_{size}" / "checkpoints"
    if not where.is_dir():
        return None
    key = jax.random.split(jax.random.key(0), 4)[3]
    made = learn.train(
        network(method), lr.supervised_loss, [], optimiser(STEPS[method]), 1, folder=where, key=key
    )
    return made.net


def learned(method: str, net: Any) -> dict[str, Method]:
    """Methods by name: of a prior, two. What is measured is brought to the level of images."""
    if method != "score":
        return {method: net}
    return {
        "posterior": lambda A, y, noise_sd=NOISE_SD: posterior(net, A, y, noise_sd).mean,
        "plug-and-play": partial(plug_and_play, net),
    }


def posterior(net: Any, A: Any, y: Any, noise_sd: Any = NOISE_SD, samples: int = 4) -> Any:
    """Draws, in the units of y."""
    size = lr.level(A, y)
    found = lr.sample_posterior(
        net, A, y / size, noise_sd / size, jax.random.key(5), samples=samples, anneal=20, hold=4,
        steps=6, iterations=10,
    )  # fmt: skip
    return jax.tree.map(lambda leaf: size * leaf, found)


def plug_and_play(net: Any, A: Any, y: Any, noise_sd: Any = NOISE_SD) -> Any:
    size = lr.level(A, y)
    found = lr.plug_and_play(net, A, y / size, noise_sd / size, smallest=1.5, iterations=10)
    return size * found


def untrained(name: str, weight: Any) -> Method:
    """CG-SENSE, wavelets with moving grids, or total variation, of a weight."""
    method = L1Wavelet(shifts=True) if name == "l1-wavelet" else name

    def solve(A: Any, y: Any) -> Any:
        return mr.reconstruct(
            A, y, method, regularisation=weight, iterations=ITERATIONS[name], tolerance=0.0
        ).image

    return solve


def tuned(size: int, folder: Path = FOLDER) -> dict[str, dict[str, dict[str, float]]]:
    """Weights by method, acceleration and metric: the best on validation heads, between two worse
    ones. Found once, and kept in a file."""
    path = folder / f"tuned_{size}.json"
    if path.exists():
        return json.loads(path.read_text())
    x = images(size, "validation", VALIDATION, jax.random.key(1))
    found: dict = {name: {str(r): {} for r in ACCELERATIONS} for name in ITERATIONS}
    for name in ITERATIONS:
        score = jax.jit(partial(_scores, name))
        for r in ACCELERATIONS:
            scans = scanned(x, r, jax.random.key(2))
            each = [jax.tree.map(lambda leaf, i=i: leaf[i], scans) for i in range(VALIDATION)]

            @cache
            def at(i: int, score: Any = score, each: Any = each) -> dict[str, float]:
                rows = jax.device_get([score(RATIO**i, scan) for scan in each])
                return {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}

            for metric in ("psnr", "ssim"):
                best = _highest(lambda i, at=at, metric=metric: at(i)[metric], FIRST)
                found[name][str(r)][metric] = float(RATIO**best)
                told = f"{name}, R = {r}, {metric}: {at(best)[metric]:.4f} at {RATIO**best:.2g}"
                beside = ", ".join(f"{at(best + i)[metric]:.4f}" for i in (-1, 1))
                print(f"{told}, beside it {beside}", flush=True)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))
    return found


def _scores(name: str, weight: Any, scan: lr.Scan) -> dict[str, Any]:
    made = untrained(name, weight)(scan.A, scan.y)
    return {"psnr": lr.psnr(made, scan.x), "ssim": lr.ssim(made, scan.x)}


def _highest(f: Callable[[int], float], start: int) -> int:
    """Where f of whole numbers is no lower than on either side, uphill from a start."""
    now = start
    while True:
        best = max((now - 1, now, now + 1), key=f)
        if f(best) <= f(now):
            return now
        now = best
