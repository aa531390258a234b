"""A run of benchmarks/learned_acquisition.py: heads, networks of all seeds, checkpoints, scores."""

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
from learn import reconstruction as lr
from learn import sampling as ls
from learn import seeds

COILS, NOISE_SD, ACCELERATION = 4, 0.02, 4
TRAINING, HEADS, BATCH = 256, 16, 2
RATE, PATTERN_RATE = 3e-3, 0.03
PATTERN_RATES = {"trajectories": 0.05, "spins": 0.1, "map": 0.1}
"""Of logits; of control points and lines in cycles per field of view."""
STEPS = {"lines": 150, "points": 100, "trajectories": 80, "spins": 80, "map": 80, "prior": 60}


class Clock:
    """Seconds of both cores that a training took, those before it was stopped included."""

    def __init__(self, path: Path):
        self.path, self.started = path, time.process_time()
        self.before = float(path.read_text()) if path.exists() else 0.0

    def seconds(self) -> float:
        now = self.before + time.process_time() - self.started
        self.path.write_text(f"{now:.1f}")
        return now


class Asked:
    """Size, seeds, steps and folder of a run."""

    def __init__(self, study: str, size: int, count: int, steps: int | None, folder: Path):
        self.size, self.count = size, count
        self.steps = steps or STEPS[study]
        self.rate = PATTERN_RATES.get(study, PATTERN_RATE)
        self.folder = folder / f"{study}_{size}"
        self.seconds: dict[str, float] = {}

    def images(self, role: Any, count: int, key: Any) -> Any:
        of = lr.atlas(self.size, role)
        draw = jax.jit(jax.vmap(partial(lr.draw_image, of)))
        return jnp.concatenate([draw(k) for k in jax.random.split(key, count).reshape(-1, 8)])

    def trained(
        self, arm: str, nets: Any, loss: Callable, data: Callable, *, only: str | None = None
    ) -> Any:
        """A network of each seed; `only` a part: net or sampling."""

        def rate(part: str, peak: float) -> Any:
            if only not in (None, part):
                return optax.set_to_zero()
            warm = min(10, self.steps // 2)
            return optax.adam(
                optax.warmup_cosine_decay_schedule(0.0, peak, warm, self.steps, peak / 30)
            )

        each = learn.shared(loss)

        def total(net: Any, batch: Any, key: Any) -> Any:
            return jnp.sum(seeds.of_each(each, net, batch, jax.random.split(key, self.count)))

        clock = Clock(self.folder / f"{arm}.seconds")

        def told(step: int, of: int, value: float) -> None:
            now = clock.seconds()
            print(f"{arm} {step}/{of}  loss {value / self.count:.4f}  {now:.0f} s", flush=True)

        optimiser = ls.apart(rate("sampling", self.rate), rate("net", RATE))
        made = learn.train(
            seeds.stack(nets), total, data, optimiser, self.steps, every=50,
            folder=self.folder / arm, log=self.folder / f"{arm}.csv", progress=told,
            key=jax.random.key(7),
        )  # fmt: skip
        self.seconds[arm] = clock.seconds()
        return made.net

    def batches(self) -> Callable:
        """Scans of all samples, of every seed its own."""
        bank = self.images("train", TRAINING, jax.random.key(0))

        @jax.jit
        def data(key: Any) -> Any:
            which, scan = jax.random.split(key)
            at = jax.random.randint(which, (self.count, BATCH), 0, TRAINING)
            each = jax.random.split(scan, (self.count, BATCH))
            return jax.vmap(jax.vmap(lambda i, k: all_samples(bank[i], k)))(at, each)

        return data

    def keep(self, what: dict[str, Any]) -> None:
        """Patterns, in patterns.npz."""
        every: dict[str, Any] = {name: np.asarray(each) for name, each in what.items()}
        np.savez(self.folder / "patterns.npz", **every)

    def test_scans(self) -> Any:
        x = self.images("test", HEADS, jax.random.key(3))
        return jax.vmap(all_samples)(x, jax.random.split(jax.random.key(4), HEADS))


def all_samples(x: Any, key: Any) -> lr.Scan:
    return lr.draw_scan(x, key, coils=COILS, accelerations=(1.0,), noise_sd=(NOISE_SD, NOISE_SD))


def network(seed: int, width: int = 6) -> Any:
    return lr.MoDL(width, 2, 2, 6, rngs=nnx.Rngs(seed))


def scores(name: str, net: Any, judged: Callable) -> dict[str, list[list[float]]]:
    """judged(network, i) of each test head and seed, by metric: (seeds, heads); means are told."""

    @nnx.jit
    def each(net: Any) -> Any:
        return seeds.of_each(
            lambda one: jax.lax.map(lambda i: judged(one, i), jnp.arange(HEADS)), net
        )

    found = {metric: np.asarray(values) for metric, values in each(net).items()}
    print(name, {metric: round(float(v.mean()), 4) for metric, v in found.items()}, flush=True)
    return {metric: values.tolist() for metric, values in found.items()}
