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
from scipy import stats

import learn
import mrphys as mr
from learn import reconstruction as lr
from learn import sampling as ls
from learn import seeds

mr.use_cores()
COILS, NOISE_SD, ACCELERATION = 4, 0.02, 4
TRAINING, HEADS, BATCH = 256, 16, 2
RATE, PATTERN_RATE = 3e-3, 0.03
PATTERN_RATES = {"trajectories": 0.05, "spins": 0.1, "map": 0.1}
"""Of logits; of control points and lines in cycles per field of view."""
STEPS = {"lines": 150, "points": 100, "trajectories": 80, "spins": 80, "map": 80, "prior": 60}
METRICS = ("psnr", "ssim", "nmse", "spread", "log_t2")


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


def scores(net: Any, judged: Callable) -> dict[str, list[list[float]]]:
    """judged(network, i) of each test head and seed, by metric: (seeds, heads)."""

    @nnx.jit
    def each(net: Any) -> Any:
        return seeds.of_each(
            lambda one: jax.lax.map(lambda i: judged(one, i), jnp.arange(HEADS)), net
        )

    return {name: np.asarray(values).tolist() for name, values in each(net).items()}


# ---- lines and points ----


def cartesian(asked: Asked, kind: Any) -> dict[str, dict]:
    shape = ls.shape_of(asked.size, kind)
    count = round(np.prod(shape) / ACCELERATION)
    data, test = asked.batches(), asked.test_scans()
    keys = jax.random.split(jax.random.key(11), asked.count)
    found, patterns = {}, {}

    def with_patterns(draw: Callable) -> Callable:
        """The loss of scans each by draw(network, key)."""

        def loss(net: Any, scans: Any, key: Any) -> Any:
            def one(scan: Any, key: Any) -> Any:
                seen = ls.chosen(scan, draw(net, key))
                return lr.normalised_distance(net.net(seen.A, seen.y), scan.x)

            keys = jax.random.split(key, scans.noise_sd.shape[0])
            return jnp.mean(jax.vmap(one)(scans, keys))

        return loss

    def judge(name: str, net: Any, draw: Callable) -> None:
        def one(net: Any, i: Any) -> Any:
            scan = jax.tree.map(lambda leaf: leaf[i], test)
            seen = ls.chosen(scan, draw(net, jax.random.fold_in(jax.random.key(5), i)))
            return lr.all_metrics(net.net(seen.A, seen.y), scan.x)

        found[name] = scores(net, one)
        print(
            name, {key: round(float(np.mean(v)), 4) for key, v in found[name].items()}, flush=True
        )

    def relaxed(seed: int) -> Any:
        return ls.Relaxed(shape, count, key=keys[seed])

    each = range(asked.count)
    starts = [ls.Joint(relaxed(i), network(i)) for i in each]
    joint = asked.trained("joint", starts, ls.joint_loss, data)
    judge("joint", joint, lambda net, key: net.sampling.pattern())
    patterns["joint"] = [one.sampling.pattern() for one in seeds.unstack(joint)]

    drawn = lambda net, key: ls.variable_density(shape, count, key)  # noqa: E731
    random = asked.trained("variable density", starts, with_patterns(drawn), data)
    judge("variable density", random, drawn)
    patterns["variable density"] = [drawn(None, key) for key in keys]

    even = lambda net, key: ls.equispaced(shape, count)  # noqa: E731
    regular = asked.trained("equispaced", starts, with_patterns(even), data)
    judge("equispaced", regular, even)
    patterns["equispaced"] = [even(None, None)]

    middle = lambda net, key: ls.lowest(shape, count)  # noqa: E731
    judge("centre", asked.trained("centre", starts, with_patterns(middle), data), middle)
    patterns["centre"] = [middle(None, None)]

    fixed = [ls.Joint(relaxed(i), one.net) for i, one in enumerate(seeds.unstack(random))]
    separate = asked.trained("separate", fixed, ls.joint_loss, data, only="sampling")
    judge("separate", separate, lambda net, key: net.sampling.pattern())
    patterns["separate"] = [one.sampling.pattern() for one in seeds.unstack(separate)]

    grown = [grow(asked, shape, count, i) for i in each]
    held = [Held(mask, one.net) for mask, one in zip(grown, starts, strict=True)]
    kept = lambda net, key: net.mask[...] > 0  # noqa: E731
    judge("greedy", asked.trained("greedy", held, with_patterns(kept), data), kept)
    patterns["greedy"] = grown
    asked.keep(patterns)
    return found


class Held(nnx.Module):
    """A network beside a pattern that stays."""

    def __init__(self, mask: Any, net: nnx.Module):
        self.mask, self.net = nnx.Variable(mask.astype(float)), net


TRIALS, ROUNDS = 96, 40
"""Of points: candidates of a round, and how many there are."""


def grow(asked: Asked, shape: Any, count: int, seed: int) -> Any:
    """For least squares of eight heads, or four where points are grown."""
    keep = asked.folder / f"greedy_{seed}.npy"
    if keep.exists():
        return jnp.asarray(np.load(keep))
    x = asked.images("train", 8, jax.random.key(100 + seed))[: 8 if 1 in shape else 4]
    keys = jax.random.split(jax.random.key(200 + seed), 8)[: x.shape[0]]
    scans = jax.vmap(all_samples)(x, keys)

    def loss(w: Any) -> Any:
        def one(scan: Any) -> Any:
            A = ls.chosen(scan, w).A
            normal = A.normal
            z = lr.conjugate_gradients(lambda v: normal(v) + 0.01 * v, A.H(scan.y), 8)
            return lr.normalised_distance(z, scan.x)

        return jnp.mean(jax.vmap(one)(scans))

    def told(done: int, of: int, value: float) -> None:
        print(f"greedy {seed}: {done}/{of}  {value:.4f}", flush=True)

    every = {} if 1 in shape else {"trials": TRIALS, "at_once": count // ROUNDS}
    made = ls.greedy(
        loss, ls.centre_of(shape), count, chunk=4, progress=told,
        key=jax.random.key(300 + seed), **every,
    )  # fmt: skip
    np.save(keep, made.pattern)
    return made.pattern


# ---- trajectories ----

SHOTS, SAMPLES, FOV, DWELL_S = 8, 256, (240.0, 240.0), 4e-6
START = 0.9
"""Of gradients and slew rates, for a spiral from which curves begin: the rest is theirs."""


def trajectories(asked: Asked) -> dict[str, dict]:
    """Eight shots of 1 ms."""
    n, each = asked.size, range(asked.count)
    data, test = asked.batches(), asked.test_scans()
    found, kept = {}, {}

    def begun(net: Any, start: Any) -> Any:
        return ls.Along(ls.Curves(start, 24, n, FOV, DWELL_S), net)

    def measured(net: Any, scans: Any, key: Any, k: Callable) -> Any:
        def one(each: Any) -> Any:
            seen = ls.scan_along(k(net, each[1]), *each)
            return lr.normalised_distance(net.net(seen.A, seen.y), seen.x)

        keys = jax.random.split(key, scans.noise_sd.shape[0])
        return jnp.mean(jax.lax.map(one, (scans, keys)))

    def judge(name: str, net: Any, k: Callable) -> None:
        def one(net: Any, i: Any) -> Any:
            scan = jax.tree.map(lambda leaf: leaf[i], test)
            key = jax.random.fold_in(jax.random.key(5), i)
            seen = ls.scan_along(k(net, key), scan, key)
            return lr.all_metrics(net.net(seen.A, seen.y), seen.x)

        found[name] = scores(net, one)
        kept[name] = np.asarray(k(seeds.unstack(net)[0], jax.random.key(0)))
        print(
            name, {key: round(float(np.mean(v)), 4) for key, v in found[name].items()}, flush=True
        )

    own = lambda net, key: net.sampling()  # noqa: E731
    turning, slower = spiral(n), spiral(n, START)
    starts = [begun(network(i, 4), spokes(n, "even")) for i in each]
    judge("joint", asked.trained("joint", starts, ls.curves_loss, data), own)
    turned = [begun(network(i, 4), slower) for i in each]
    learned = asked.trained("joint from spiral", turned, ls.curves_loss, data)
    judge("joint from spiral", learned, own)
    fixed = {
        "equispaced": lambda net, key: spokes(n, "even"),
        "variable density": lambda net, key: spokes(n, key),
        "spiral": lambda net, key: turning,
    }
    for name, k in fixed.items():
        net = asked.trained(name, starts, partial(measured, k=k), data)
        judge(name, net, k)
    before = [begun(one.net, slower) for one in seeds.unstack(net)]
    judge("separate", asked.trained("separate", before, ls.curves_loss, data, only="sampling"), own)
    for i, one in enumerate(seeds.unstack(learned)):
        gradient, slew = mr.trajectory.Limits().largest(one.sampling(), FOV, DWELL_S)
        print(f"joint {i}: {1e3 * gradient:.1f} mT/m, {slew:.0f} T/m/s", flush=True)
        mr.io.write_readouts(
            asked.folder / f"joint_{i}.seq", one.sampling(), FOV, DWELL_S, thickness_mm=5.0
        )
    asked.keep(kept)
    return found


def spokes(n: int, order: Any) -> Any:
    """Even, or at random angles of a key; with room at the edge of k-space."""
    if isinstance(order, str):
        return 0.97 * mr.trajectory.radial(SHOTS, SAMPLES, n)
    angle = jax.random.uniform(order, (SHOTS,), maxval=np.pi)
    direction = jnp.stack([jnp.cos(angle), jnp.sin(angle)], -1)
    radius = 0.97 * (jnp.arange(SAMPLES) - SAMPLES // 2) * n / SAMPLES
    return radius[None, :, None] * direction[:, None]


def spiral(n: int, part: float = 1.0) -> Any:
    """Twice as dense in the middle as outside, just as dense as there is time for, with a part of
    what gradients can do; its last samples may lie beyond the time and are left out."""
    limits = mr.trajectory.Limits()
    limits = mr.trajectory.Limits(part * limits.gradient_t_per_m, part * limits.slew_t_per_m_s)

    def of(dense: float) -> Any:
        return mr.trajectory.spiral(
            SHOTS, n, FOV[0], DWELL_S, limits=limits, density=lambda r: dense * (1.5 - 0.75 * r)
        )

    low, high = 0.02, 2.0
    for _ in range(16):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if of(middle).shape[1] < SAMPLES else (low, middle)
    return of(high)[:, :SAMPLES]


# ---- from spins ----

SHOTS_OF_SPINS, ECHOES, SPACING_S, TR_S = 2, 8, 0.01, 3.0
TARGET_TE_S = 0.04


def spins(asked: Asked, kind: Any) -> dict[str, dict]:
    """Sixteen lines of a fast spin echo, or eight of each of two images of another."""
    n, each = asked.size, range(asked.count)
    train_heads, test_heads = lr.atlas(n, "train"), lr.atlas(n, "test")
    target = mr.sequence.spin_echo_train([np.pi], TARGET_TE_S, tr_s=TR_S)
    loss = ls.map_loss if kind == "map" else partial(ls.image_loss, target=target)
    found, kept = {}, {}

    def drawn(of: Any, key: Any) -> ls.Asked:
        keys = jax.random.split(key, 2)
        head = lr.draw_spins(of, keys[0])
        size = jnp.sqrt(jnp.mean(jnp.abs(ls.target_image(target, head)) ** 2))
        head = head._replace(parts=head.parts / size)
        return ls.Asked(head, lr.draw_coils(COILS, n, keys[1]), jnp.asarray(NOISE_SD))

    @jax.jit
    def data(key: Any) -> Any:
        keys = jax.random.split(key, (asked.count, BATCH))
        return jax.vmap(jax.vmap(partial(drawn, train_heads)))(keys)

    test = jax.jit(jax.vmap(partial(drawn, test_heads)))(jax.random.split(jax.random.key(3), HEADS))

    def learner(seed: int, ky: Any, net: Any = None) -> Any:
        readout = order(kind)
        sampling = ls.Played(
            lambda v: mr.sequence.spin_echo_train(v, SPACING_S, tr_s=TR_S),
            np.full(ECHOES, np.deg2rad(120.0)), (np.deg2rad(10.0), np.deg2rad(180.0)),
            ky, readout, power=ECHOES * np.deg2rad(120.1) ** 2,
        )  # fmt: skip
        if net is not None:
            return ls.Learner(sampling, net.net, net.maps)
        maps = ls.map_network(2, 8, 2, rngs=nnx.Rngs(50 + seed)) if kind == "map" else None
        return ls.Learner(sampling, network(seed, 4), maps)

    def judge(name: str, nets: Any) -> None:
        def one(net: Any, i: Any) -> Any:
            head, key = jax.tree.map(lambda leaf: leaf[i], test), jax.random.key(5)
            if kind == "map":
                return {"log_t2": -ls.map_error(net, head, jax.random.fold_in(key, i))}
            x = net.images(head, jax.random.fold_in(key, i))[0]
            return lr.all_metrics(x, ls.target_image(target, head.spins))

        found[name] = scores(nets, one)
        kept[f"{name} flips"] = np.stack([one.sampling.values() for one in seeds.unstack(nets)])
        kept[f"{name} lines"] = np.stack([one.sampling.lines(n) for one in seeds.unstack(nets)])
        print(
            name, {key: round(float(np.mean(v)), 4) for key, v in found[name].items()}, flush=True
        )

    def random(seed: int) -> Any:
        masks = [
            ls.variable_density((1, n), lines, jax.random.key(1000 * seed + i))
            for i, lines in enumerate([16] if kind == "image" else [8, 8])
        ]
        return arranged(masks, n)

    even = arranged([ls.equispaced((1, n), 16)] if kind == "image"
                    else [ls.equispaced((1, n), 8)] * 2, n)  # fmt: skip
    starts = [learner(i, random(i)) for i in each]
    judge("variable density", asked.trained("variable density", starts, loss, data, only="net"))
    begun = [learner(i, even) for i in each]
    fixed = asked.trained("equispaced", begun, loss, data, only="net")
    judge("equispaced", fixed)
    judge("joint", asked.trained("joint", begun, loss, data))
    again = [learner(i, even, one) for i, one in enumerate(seeds.unstack(fixed))]
    judge("separate", asked.trained("separate", again, loss, data, only="sampling"))
    asked.keep(kept)
    return found


def order(kind: Any) -> np.ndarray:
    """Which echo takes which line, lines from one edge of k-space to the other: two shots, or for
    a map four, of which the first image has the early echoes."""
    if kind == "image":
        return np.repeat(np.arange(ECHOES), SHOTS_OF_SPINS)[None]
    half = ECHOES // 2
    early = np.repeat(np.arange(half), 2)
    return np.stack([early, early + half])


def arranged(masks: list, n: int) -> Any:
    """k_y of patterns' lines, increasing."""
    return np.stack([np.flatnonzero(np.asarray(mask)) - n // 2 for mask in masks]).astype(float)


# ---- for a diffusion prior ----


class Pattern(nnx.Module):
    """Chances alone: the prior is not trained with them."""

    def __init__(self, sampling: ls.Relaxed):
        self.sampling = sampling


def prior(asked: Asked) -> dict[str, dict]:
    """Lines for one denoiser."""
    shape = ls.shape_of(asked.size, "lines")
    count = asked.size // ACCELERATION
    denoiser = denoising(asked)
    data, test, found = asked.batches(), asked.test_scans(), {}
    keys = jax.random.split(jax.random.key(11), asked.count)

    def judge(name: str, nets: Any, draw: Callable) -> None:
        def one(net: Any, i: Any) -> Any:
            scan = jax.tree.map(lambda leaf: leaf[i], test)
            key = jax.random.fold_in(jax.random.key(5), i)
            seen = ls.chosen(scan, draw(net, key))
            x = lr.plug_and_play(
                denoiser, seen.A, seen.y, NOISE_SD, smallest=1.5, anneal=15, hold=5, iterations=8
            )
            spread = ls.posterior_spread(
                denoiser, seen.A, seen.y, scan.x, NOISE_SD, key, turns=6, largest=2.0, steps=4
            )
            return lr.all_metrics(x, scan.x) | {"spread": spread}

        found[name] = scores(nets, one)
        print(
            name, {key: round(float(np.mean(v)), 4) for key, v in found[name].items()}, flush=True
        )

    def loss(net: Any, scans: Any, key: Any) -> Any:
        return ls.spread_loss(net.sampling, scans, key, denoiser, turns=2, steps=2)

    starts = [Pattern(ls.Relaxed(shape, count, key=key)) for key in keys]
    learned = asked.trained("spread", starts, loss, data)
    judge("spread", learned, lambda net, key: net.sampling.pattern())
    judge("variable density", seeds.stack(starts), lambda net, key: ls.variable_density(
        shape, count, jax.random.fold_in(key, jnp.argmax(net.sampling.u[...]))))  # fmt: skip
    judge("equispaced", seeds.stack(starts), lambda net, key: ls.equispaced(shape, count))
    judge("centre", seeds.stack(starts), lambda net, key: ls.lowest(shape, count))
    patterns = [one.sampling.pattern() for one in seeds.unstack(learned)]
    asked.keep({"spread": patterns, "equispaced": [ls.equispaced(shape, count)]})
    return found


def denoising(asked: Asked) -> Any:
    bank = asked.images("train", TRAINING, jax.random.key(0))
    steps = 4 * asked.steps
    rate = optax.cosine_decay_schedule(2e-3, steps, 0.03)

    @jax.jit
    def data(key: Any) -> Any:
        return bank[jax.random.randint(key, (4,), 0, TRAINING)]

    clock = Clock(asked.folder / "denoiser.seconds")

    def said(step: int, of: int, value: float) -> None:
        print(f"denoiser {step}/{of}  loss {value:.4f}  {clock.seconds():.0f} s", flush=True)

    net = lr.Denoiser(8, 3, rngs=nnx.Rngs(0))
    made = learn.train(
        net, lr.denoising_loss, data, optax.adam(rate), steps, every=50,
        folder=asked.folder / "denoiser", progress=said, key=jax.random.key(8),
    )  # fmt: skip
    asked.seconds["denoiser"] = clock.seconds()
    return made.net


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
