"""Trajectories of benchmarks/learned_acquisition.py."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from acquisition_run import Asked, network, scores

import mrphys as mr
from learn import reconstruction as lr
from learn import sampling as ls
from learn import seeds

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

        found[name] = scores(name, net, one)
        kept[name] = np.asarray(k(seeds.unstack(net)[0], jax.random.key(0)))

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
