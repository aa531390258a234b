"""A growth law learned across lesions beside six classical ones, on held-out readings.

    python benchmarks/lesion_law.py --data ../shared/data

Real lesions of five trials (doi:10.1371/journal.pcbi.1009822): records of six readings or more, the
last two held out, mean absolute error of the normalised volume over records, differences with 95 %
bootstrap intervals over lesions. Rows:

carried   the last fitting reading stays
six laws  each lesion fitted alone by least squares, a weak prior on its rates: with y the log of
          volume over its first, dy/dt = a | a - b e^y | a e^{-y/3} - b | a e^{-λy} - b | a - b y |
          e^{-λy} (a - b y), b >= 0 where it brakes  (the six of the source's paper)
descended four of them as TumorGrowth.jl fits them, stopped early (`rival_tumorgrowth.py`)
learned   `learn.BINN`: dd/dt = (G(d) + T(t) + M(s)) d of the diameter d, t since the first reading,
          s the lesion's own past slope; three networks learned from every step between two fitting
          readings of all lesions, solved by diffrax; a forecast starts from the last fitting one

Nothing was chosen by the held-out readings. The learned law's band is an ensemble's, fitted to data
with the noise found added again.
"""

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path
from time import perf_counter

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from lesion_records import HELD_OUT, diameter_mm, error_of, interval, read, volume_of
from rich.console import Console
from rich.table import Table
from rival_tumorgrowth import LAWS as DESCENDED
from rival_tumorgrowth import forecasts

import learn
from learn.binn import Discovered, Learned, ordinary
from learn.binn.search import least_squares
from learn.binn.solve import Terms

LEAST_MM, MOST_MM = 1.0, 230.0
RATE_PER_WEEK = 0.1
SLOPE_SHRUNK_WEEKS = 12.0
"""Weeks of a lesion's record that weigh as much as the belief that it has no slope of its own."""
Law = Callable[[Array, Array], Array]
LAWS: dict[str, Law] = {
    "exponential": lambda y, p: p[1] + 0 * y,
    "logistic": lambda y, p: p[1] - jnp.abs(p[2]) * jnp.exp(y),
    "classical Bertalanffy": lambda y, p: p[1] * jnp.exp(-y / 3) - p[2],
    "general Bertalanffy": lambda y, p: p[1] * jnp.exp(-jax.nn.sigmoid(p[3]) * y) - p[2],
    "Gompertz": lambda y, p: p[1] - jnp.abs(p[2]) * y,
    "general Gompertz": lambda y, p: (
        jnp.exp(-jax.nn.sigmoid(p[3]) * y) * (p[1] - jnp.abs(p[2]) * y)
    ),
}
STEPS, MOST_LOG = 24, 6.0


def classical(law: Law, weeks: list[np.ndarray], volumes: list[np.ndarray]) -> np.ndarray:
    """Held-out volumes foretold by each lesion's own fit, (lesions, held out)."""
    longest = max(map(len, weeks))
    padded = [np.pad(t - t[0], (0, longest - t.size), mode="edge") for t in weeks]
    time = jnp.asarray(np.stack(padded))
    seen = np.stack([np.arange(longest) < t.size - HELD_OUT for t in weeks])
    first = np.array([max(v[0], volume_of(np.array(LEAST_MM))) for v in volumes])
    padded = [np.pad(v, (0, longest - v.size), mode="edge") for v in volumes]
    relative = jnp.asarray(np.stack(padded) / first[:, None])

    def course(p: Array, t: Array) -> Array:
        def leg(y: Array, days: Array) -> tuple[Array, Array]:
            h = days / STEPS

            def step(_: int, y: Array) -> Array:
                a = law(y, p)
                b = law(jnp.clip(y + h / 2 * a, -MOST_LOG, MOST_LOG), p)
                return jnp.clip(y + h * b, -MOST_LOG, MOST_LOG)

            y = jax.lax.fori_loop(0, STEPS, step, y)
            return y, y

        return jnp.concatenate([p[:1], jax.lax.scan(leg, p[0], jnp.diff(t))[1]])

    def fit(t: Array, y: Array, mask: Array) -> Array:
        size = 0.1 * jnp.max(jnp.where(mask, y, 0.0)) + 1e-6
        scale = jnp.array([0.5, RATE_PER_WEEK, RATE_PER_WEEK, 1.0])

        def residual(p: Array) -> Array:
            off = jnp.where(mask, jnp.exp(course(p, t)) - y, 0.0) / size
            return jnp.concatenate([off, p / scale])

        return least_squares(residual, jnp.array([0.0, 0.01, 0.01, 0.0]), 60)[0]

    p = jax.jit(jax.vmap(fit))(time, relative, jnp.asarray(seen))
    found = np.exp(np.asarray(jax.jit(jax.vmap(course))(p, time))) * first[:, None]
    last = np.array([[t.size - 2, t.size - 1] for t in weeks])
    return np.take_along_axis(found, last, axis=1)


def slope_of(t: np.ndarray, d: np.ndarray) -> float:
    """Of the log diameter per week over all readings so far, shrunk towards none."""
    if t.size < 2:
        return 0.0
    x = t - t.mean()
    y = np.log(np.maximum(d, LEAST_MM))
    spread = np.sum(x**2)
    return float(np.sum(x * y) / (spread + SLOPE_SHRUNK_WEEKS**2))


def steps_of(weeks: list[np.ndarray], sizes: list[np.ndarray]) -> np.ndarray:
    """From each reading to the next: days since the first, length, slope before, both sizes."""
    rows = []
    for t, d in zip(weeks, sizes, strict=True):
        t = t - t[0]
        for i in range(t.size - 1):
            if t[i + 1] > t[i] and d[i] >= LEAST_MM:
                slope = slope_of(t[: i + 1], d[: i + 1])
                rows.append((t[i], t[i + 1] - t[i], slope, d[i], max(d[i + 1], LEAST_MM)))
    return np.array(rows)


def equation(table: np.ndarray) -> Callable[..., Array]:
    """The `solve` of steps that all take from 0 to 1."""
    since, length, slope = (jnp.asarray(column) for column in table.T[:3])

    def rate(d: Array, share: Array, terms: Terms) -> Array:
        inside = jnp.clip(d, LEAST_MM, MOST_MM)
        per_week = terms["G"](inside) + terms["T"](since + share * length) + terms["M"](slope)
        return length * per_week * inside

    return ordinary(rate, rtol=1e-4)


def learned(weeks: list[np.ndarray], volumes: list[np.ndarray], members: int) -> Discovered:
    """The networks, from fitting readings alone."""
    t = [v[:-HELD_OUT] for v in weeks]
    table = steps_of(t, [diameter_mm(v[:-HELD_OUT]) for v in volumes])
    high, span = RATE_PER_WEEK, float(table[:, 0].max() + table[:, 1].max())
    terms = {
        "G": partial(Learned, "u", (0.0, 150.0), -high, high),
        "T": partial(Learned, "since", (0.0, span), -high, high),
        "M": partial(Learned, "s", (-0.05, 0.05), -high, high, "rising"),
    }
    made, density = learn.BINN(terms, equation(table)), table[:, 3:5]
    key = jax.random.key(0)
    return made.fit(np.array([0.0, 1.0]), density, members=members, steps=40, key=key)


def foretold(made: Discovered, weeks: list[np.ndarray], volumes: list[np.ndarray]) -> np.ndarray:
    """Held-out volumes, (lesions, held out), from the last fitting reading."""
    sizes = [np.maximum(diameter_mm(v[:-HELD_OUT]), LEAST_MM) for v in volumes]
    slopes = [slope_of(t[:-HELD_OUT] - t[0], d) for t, d in zip(weeks, sizes, strict=True)]
    d = np.array([size[-1] for size in sizes])
    vanished = np.array([v[-HELD_OUT - 1] <= 0 for v in volumes])
    found = []
    for j in (-2, -1):
        since = np.array([t[j - 1] - t[0] for t in weeks])
        length = np.array([t[j] - t[j - 1] for t in weeks])
        table = np.stack([since, np.maximum(length, 1e-6), np.array(slopes)], axis=1)
        solve, times = equation(table), jnp.array([0.0, 1.0])
        terms = made.terms
        d = np.asarray(jax.jit(lambda d, s=solve, n=terms, t=times: s(n, d, t)[-1])(jnp.asarray(d)))
        found.append(np.where(vanished, 0.0, volume_of(d)))
    return np.stack(found, axis=1)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="(%(default)s)")
    parser.add_argument("--members", type=int, default=4, help="of the ensemble (%(default)s)")
    asked = parser.parse_args(arguments)
    found = read(asked.data)
    if found is None:
        return 0
    jax.config.update("jax_enable_x64", True)
    weeks, volumes = found
    held = np.stack([v[-HELD_OUT:] for v in volumes])
    errors = {"carried": error_of(np.stack([v[[-3, -3]] for v in volumes]), held)}
    seconds = {"carried": 0.0}
    fits: dict[str, Callable[[], np.ndarray]] = {
        name: partial(classical, law, weeks, volumes) for name, law in LAWS.items()
    }
    for name in DESCENDED:
        whole = partial(forecasts, name, weeks, volumes, HELD_OUT)
        fits[f"{name.replace('_', ' ')}, descended"] = lambda whole=whole: np.stack(whole())
    for name, fit in fits.items():
        began = perf_counter()
        errors[name] = error_of(fit(), held)
        seconds[name] = perf_counter() - began
        print(f"{name}: {np.nanmean(errors[name]):.6f}", flush=True)
    began = perf_counter()
    made = learned(weeks, volumes, asked.members)
    errors["learned"] = error_of(foretold(made, weeks, volumes), held)
    seconds["learned"] = perf_counter() - began
    rng = np.random.default_rng(0)
    table = Table(title=f"Mean absolute error, normalised volumes, {len(weeks)} lesions")
    for heading in ("law", "records", "error", "median", "learned less this [95 %]", "s"):
        table.add_column(heading, justify="right")
    for name, error in errors.items():
        use = np.isfinite(error)
        mean, low, high = interval((errors["learned"] - error)[use], rng)
        gain = f"{mean:+.6f} \\[{low:+.6f}, {high:+.6f}]"
        row = (f"{use.sum()}", f"{error[use].mean():.6f}", f"{np.median(error[use]):.6f}", gain)
        table.add_row(name, *row, f"{seconds[name]:.0f}")
    Console(width=110).print(table)
    for name, z, unit in (
        ("G", np.array([5.0, 20.0, 50.0, 100.0]), "mm"),
        ("T", np.array([0.0, 6.0, 12.0, 26.0, 52.0]), "weeks"),
        ("M", np.array([-0.03, -0.01, 0.0, 0.01, 0.03]), "per week"),
    ):
        value = made.values(name, z)
        pairs = zip(z, value[0], value.std(0), strict=True)
        print(name, "; ".join(f"{x:g} {unit}: {v:+.4f} ± {s:.4f}" for x, v, s in pairs))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
