"""Lines and points of benchmarks/learned_acquisition.py: for a network, for a diffusion prior."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from acquisition_run import (
    ACCELERATION,
    NOISE_SD,
    TRAINING,
    Asked,
    Clock,
    all_samples,
    network,
    scores,
)
from flax import nnx

import learn
from learn import reconstruction as lr
from learn import sampling as ls
from learn import seeds


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

        found[name] = scores(name, net, one)

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

        found[name] = scores(name, nets, one)

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
