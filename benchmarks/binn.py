"""Scratch assays in silico: is the true law found again?

    python benchmarks/binn.py --repeats 10

38 positions, 5 times, 6 densities, 3 replicates as Jin et al. published them (mm, days, cells/mm²),
noise 18 max(u, 1)^0.2 a replicate; truths Fisher-KPP, porous Fisher and delayed growth, solved four
times as fine by LSODA. A repeat counts where the true form has the lowest BIC of the four
candidates. Errors of D and T G are root mean squares of networks relative to the truth, over the
middle 95 % of the densities measured and all times; profiles are compared with the noise put in.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
from scipy.integrate import solve_ivp

from learn.binn import BINN, Combination, Learned, Switch, compare, cosines, smoothed, spreading

jax.config.update("jax_enable_x64", True)
X = 0.025 + 0.05 * np.arange(38)
TIMES = np.array([0.0, 0.5, 1.0, 1.5, 2.0])
CAPACITY, MOST = 1700.0, 0.1
NOISE, REPLICATES = 18.0, 3

TRUTHS: dict[str, tuple[Callable, Callable, Callable]] = {
    "Fisher": (lambda u: 0.02 + 0 * u, lambda u: 1.0 * (1 - u / CAPACITY), lambda t: 1.0),
    "porous": (lambda u: 0.07 * u / CAPACITY, lambda u: 1.0 * (1 - u / CAPACITY), lambda t: 1.0),
    "delayed": (
        lambda u: 0.02 + 0 * u,
        lambda u: 1.4 * (1 - u / CAPACITY),
        lambda t: 1 / (1 + np.exp(-(t - 0.5) / 0.1)),
    ),
}


def assays(name: str) -> np.ndarray:
    """Six densities without noise: (assays, times, positions)."""
    D, G, T = TRUTHS[name]
    fine = 4
    x = X[0] - 0.025 + 0.05 / fine * (np.arange(38 * fine) + 0.5)
    dx = x[1] - x[0]

    def rate(t, u):
        flux = D((u[1:] + u[:-1]) / 2) * np.diff(u) / dx
        return np.diff(np.concatenate([[0], flux, [0]])) / dx + T(t) * G(u) * u

    made = []
    for level in (200, 280, 360, 440, 520, 600):
        scratch = 1 / (1 + np.exp((0.45 - np.abs(x - 0.95)) / 0.06))
        solved = solve_ivp(
            rate, (0, 2), level * scratch, "LSODA", TIMES, rtol=1e-8, atol=1e-6,
            lband=1, uband=1,
        )  # fmt: skip
        made.append(solved.y.T.reshape(5, 38, fine).mean(-1))
    return np.stack(made)


def noisy(truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The mean of the replicates."""
    noise = rng.normal(size=(REPLICATES, *truth.shape)).mean(0)
    return np.maximum(truth + NOISE * np.maximum(truth, 1) ** 0.2 * noise, 0)


def laws() -> dict[str, BINN]:
    """Candidates: constant or rising diffusivity, growth at once or after a delay."""
    solve = spreading(X, TIMES, MOST)

    def logistic(rngs):
        functions = {"1": lambda z: 1 + 0 * z, "z": lambda z: z}
        return Combination("u", (0, CAPACITY), functions, {"1": 0.8, "z": -0.8}, CAPACITY)

    def constant(rngs):
        return Combination("u", (0, CAPACITY), {"1": lambda z: 1 + 0 * z}, {"1": 0.03})

    def rising(rngs):
        return Combination("u", (0, CAPACITY), {"z": lambda z: z}, {"z": 0.05}, CAPACITY)

    def delay(rngs):
        return Switch("t", (0, 2), 0.3, 0.15)

    return {
        "Fisher": BINN({"D": constant, "G": logistic}, solve),
        "porous": BINN({"D": rising, "G": logistic}, solve),
        "delayed": BINN({"D": constant, "G": logistic, "T": delay}, solve),
        "porous delayed": BINN({"D": rising, "G": logistic, "T": delay}, solve),
    }


def networks(delayed: bool) -> BINN:
    """Diffusivity that does not fall with density, growth that does."""
    reach = (0.0, CAPACITY)
    terms = {
        "D": partial(Learned, "u", reach, 0.0, MOST, "rising", 0.03),
        "G": partial(Learned, "u", reach, -1.0, 2.4, "falling", 0.7),
    }
    if delayed:
        terms["T"] = partial(Learned, "t", (0.0, 2.0), 0.0, 1.0, "rising", 0.7)
    return BINN(terms, spreading(X, TIMES, MOST))


def _off(found: np.ndarray, true: np.ndarray) -> float:
    return float(np.linalg.norm(found - true) / np.linalg.norm(true))


def main() -> None:
    """Prints a row for each truth."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--networks", type=int, default=10, help="repeats with networks too")
    asked = parser.parse_args()
    repeats = asked.repeats
    start, modes = partial(smoothed, X), cosines(10, 38)
    candidates, learned = laws(), {False: networks(False), True: networks(True)}
    for name, (D, G, T) in TRUTHS.items():
        truth, began = assays(name), time.perf_counter()
        right, off, floor = 0, {"D": [], "TG": []}, []
        for repeat in range(repeats):
            key = jax.random.key(repeat)
            y = noisy(truth, np.random.default_rng(repeat))
            best = compare(candidates, TIMES, y, start=start, modes=modes, key=key)
            right += next(iter(best)) == name
            if repeat >= asked.networks:
                continue
            found = learned[name == "delayed"].fit(TIMES, y, start=start, modes=modes, key=key)
            u = np.linspace(np.quantile(y, 0.025), np.quantile(y, 0.975), 50)
            off["D"].append(_off(found.values("D", u)[0], D(u)))
            t = np.linspace(0, 2, 21)
            growth = found.values("G", u)[0]
            early = found.values("T", t)[0] if name == "delayed" else np.ones(21)
            true = np.outer(np.broadcast_to(T(t), t.shape), G(u))
            off["TG"].append(_off(np.outer(early, growth), true))
            profile = found.profiles - truth
            floor.append(
                np.sqrt(
                    np.mean((found.profiles - y)[:, 1:] ** 2) / np.mean((truth - y)[:, 1:] ** 2)
                )
            )
            del profile
        print(
            f"{name:8} selected {right} of {repeats}; error of D median "
            f"{100 * np.median(off['D']):.1f} % (largest {100 * max(off['D']):.1f}), of T G median "
            f"{100 * np.median(off['TG']):.1f} % (largest {100 * max(off['TG']):.1f}); profiles "
            f"{np.median(floor):.3f} of the noise; {(time.perf_counter() - began) / repeats:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
