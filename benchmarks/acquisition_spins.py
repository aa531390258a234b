"""Flip angles and lines from spins, of benchmarks/learned_acquisition.py."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from acquisition_run import BATCH, COILS, HEADS, NOISE_SD, Asked, network, scores
from flax import nnx

import mrphys as mr
from learn import reconstruction as lr
from learn import sampling as ls
from learn import seeds

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

        found[name] = scores(name, nets, one)
        kept[f"{name} flips"] = np.stack([one.sampling.values() for one in seeds.unstack(nets)])
        kept[f"{name} lines"] = np.stack([one.sampling.lines(n) for one in seeds.unstack(nets)])

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
