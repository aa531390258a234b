"""Methods of reconstruction, learned and not, with what they are trained, tuned and tested on."""

import json
import os
import time
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

mr.use_cores()
Method = Callable[[Any, Any, Any], Any]
"""x of (A, y, noise_sd)."""

FOLDER = Path("results/learned_reconstruction")
COILS, NOISE_SD, ACCELERATIONS = 4, 0.02, (4, 8)
NETWORKS = ("unet", "varnet", "modl", "ssdu", "score")
STEPS = {
    64: {"unet": 1500, "modl": 1200, "varnet": 2000, "ssdu": 600, "score": 1200},
    128: {"unet": 600, "modl": 600, "varnet": 600, "ssdu": 500, "score": 800},
}
RATE = {64: 2e-3, 128: 1e-3}
"""By size: at 128² networks begin as they ended at 64²."""
BATCH = {"unet": 4, "modl": 2, "varnet": 2, "ssdu": 2, "score": 4}
HEADS, VALIDATION, BANK = 32, 16, 768
LEARNED_FROM, TESTED_ON = ("01", "03", "05"), ("02", "04", "06")
"""Patients."""
DENSE, SPARSE = np.linspace(0.2, 0.8, 12), np.linspace(0.25, 0.7, 6)
"""Their slices, in parts of the head."""
UNTRAINED = {"cg-sense": 30, "l1-wavelet": 150, "tv": 300}
"""Iterations."""
WEIGHTS = 10 ** np.linspace(-4, 1, 21)
SIGNS = {"psnr": 1, "ssim": 1, "nmse": -1, "hfen": -1}
"""Of what is better."""
SAMPLES = 4


def network(method: str) -> Any:
    """As it is before training."""
    rngs = nnx.Rngs(0)
    if method == "unet":
        return lr.UNetReconstruction(16, 3, rngs=rngs)
    if method == "varnet":
        return lr.VariationalNetwork(12, 2, 8, rngs=rngs)
    if method == "score":
        return lr.Denoiser(24, 3, rngs=rngs)
    return lr.MoDL(16, 2, 4, rngs=rngs) if method == "ssdu" else lr.MoDL(24, 2, 5, rngs=rngs)


def images(size: int, role: Any, count: int, key: Any) -> Any:
    """So many heads, made a few at a time."""
    draw = jax.jit(jax.vmap(partial(lr.draw_image, lr.atlas(size, role))))
    few = min(count, 32)
    keys = jax.random.split(key, count).reshape(-1, few)
    return jnp.concatenate([draw(some) for some in keys])


def reference(name: str) -> Path:
    """A folder of the reference data, there or not."""
    shared = Path(__file__).resolve().parents[1].parent / "shared" / "data"
    return Path(os.environ.get("MRPHYS_DATA", shared)) / name


def patients(size: int, which: tuple[str, ...], slices: Any, visit: str, key: Any) -> Any:
    """Slices of patients one after the other, or None where there are no patients."""
    folder = reference("glioblastoma_progression")
    if not folder.is_dir():
        return None
    name = f"{visit}_Scan_T1.nii.gz"
    found = lr.patient_images(folder, size, key, name, slices=slices, patients=which)
    return jnp.concatenate(list(found.values()))


@cache
def to_learn_from(size: int) -> Any:
    """Heads; and slices of patients, where they are, at both visits, each mirrored too."""
    keys = jax.random.split(jax.random.split(jax.random.key(0), 4)[0], 5)
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


def trained(method: str, size: int, folder: Path) -> tuple[Any, float]:
    """The network, where it was best on validation heads, and the seconds that it took, those at
    smaller sizes included."""
    net, earlier = (network(method), 0.0) if size == 64 else trained(method, size // 2, folder)
    steps = STEPS[size][method]
    keys = jax.random.split(jax.random.key(0), 4)
    bank = to_learn_from(size)
    held = images(size, "validation", VALIDATION, keys[1])
    batch = BATCH[method]

    @jax.jit
    def drawn(bank: Any, key: Any) -> Any:
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
    rate = optax.warmup_cosine_decay_schedule(0.0, RATE[size], 100, steps, 1e-5)
    optimiser = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate))
    where = folder / f"{method}_{size}"
    where.mkdir(parents=True, exist_ok=True)
    clock = where / "seconds.txt"
    before = float(clock.read_text()) if clock.exists() else 0.0
    started = time.perf_counter()

    def told(step: int, of: int, value: float) -> None:
        seconds = before + time.perf_counter() - started
        clock.write_text(f"{seconds:.1f}")
        print(f"{method} {step}/{of}  loss {value:.4f}  {seconds:.0f} s", flush=True)

    made = learn.train(
        net, learn.shared(loss), partial(drawn, bank), optimiser, steps, evaluate=lowest, every=100,
        folder=where / "checkpoints", log=where / "log.csv", progress=told, key=keys[3],
    )  # fmt: skip
    graph, state = nnx.split(made.net)
    alone = nnx.merge(graph, jax.device_put(state, jax.local_devices()[0]))
    return alone, earlier + float(clock.read_text())


def learned(name: str, net: Any) -> dict[str, Method]:
    """Methods by name: of a prior, two."""
    if name != "score":
        return {name: lambda A, y, noise_sd: net(A, y)}
    return {
        "posterior mean": lambda A, y, noise_sd: posterior(net, A, y, noise_sd).mean,
        "plug-and-play": partial(plug_and_play, net),
    }


def posterior(net: Any, A: Any, y: Any, noise_sd: Any, samples: int = SAMPLES) -> lr.Posterior:
    """Draws, in the units of y, brought to the level of what the prior learned from."""
    size = lr.level(A, y)
    found = lr.sample_posterior(
        net, A, y / size, noise_sd / size, jax.random.key(5), samples=samples, anneal=14, hold=2,
        steps=4, iterations=10,
    )  # fmt: skip
    return jax.tree.map(lambda leaf: size * leaf, found)


def plug_and_play(net: Any, A: Any, y: Any, noise_sd: Any) -> Any:
    size = lr.level(A, y)
    found = lr.plug_and_play(net, A, y / size, noise_sd / size, smallest=1.5, iterations=10)
    return size * found


def untrained(name: str, weight: Any) -> Method:
    """CG-SENSE, wavelets with moving grids, or total variation, of a weight."""
    method = L1Wavelet(shifts=True) if name == "l1-wavelet" else name

    def solve(A: Any, y: Any, noise_sd: Any) -> Any:
        return mr.reconstruct(
            A, y, method, regularisation=weight, iterations=UNTRAINED[name], tolerance=0.0
        ).image

    return solve


def tuned(size: int, folder: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Weights by method, acceleration and metric: of `WEIGHTS` the best on validation heads. Found
    once, and kept in a file."""
    path = folder / f"tuned_{size}.json"
    if path.exists():
        return json.loads(path.read_text())
    x = images(size, "validation", VALIDATION, jax.random.key(1))
    found: dict = {name: {} for name in UNTRAINED}
    for name in UNTRAINED:
        score = jax.jit(
            lambda weight, scan, name=name: lr.all_metrics(
                untrained(name, weight)(scan.A, scan.y, scan.noise_sd), scan.x
            )
        )
        for r in ACCELERATIONS:
            scans = scanned(x, r, jax.random.key(2))
            each = [jax.tree.map(lambda leaf, i=i: leaf[i], scans) for i in range(VALIDATION)]
            rows = [[jax.device_get(score(weight, scan)) for scan in each] for weight in WEIGHTS]
            best = {
                metric: int(np.argmax([sign * np.mean([m[metric] for m in row]) for row in rows]))
                for metric, sign in SIGNS.items()
            }
            found[name][str(r)] = {metric: float(WEIGHTS[i]) for metric, i in best.items()}
            edge = [metric for metric, i in best.items() if i in (0, len(WEIGHTS) - 1)]
            told = ", ".join(f"{metric} {WEIGHTS[i]:.2g}" for metric, i in best.items())
            print(
                f"{name}, R = {r}: λ for {told}", *(f"{m}: at the edge" for m in edge), flush=True
            )
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(found, indent=1))
    return found
