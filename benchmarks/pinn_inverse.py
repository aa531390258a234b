"""Fisher-KPP from 200 readings with 2 % noise: D and k beside the Cramér-Rao bound.

    python benchmarks/pinn_inverse.py --draws 200

Truth and bound come from a Chebyshev solution of its own: the start is known, both ends are closed.
"""

import argparse
import time
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.integrate import solve_ivp
from scipy.stats import qmc

from learn.pinn import MLP, PINN, Condition, Data, GaussNewton, Parameter

TRUE = {"D": 0.02, "k": 1.2}
READINGS, NOISE = 200, 0.02
END = 4.0
EDGES = np.linspace(0, END, 60)


def start(x, xp=np):
    """u(0, x)."""
    return 0.4 + 0.25 * xp.cos(np.pi * x) + 0.1 * xp.cos(3 * np.pi * x)


def chebyshev(D: float, k: float, t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """u at (t, x) by collocation at Chebyshev's points, no flux, RK of order 8."""
    n = 48
    i = np.arange(n + 1)
    at = np.cos(np.pi * i / n)
    c = np.where((i == 0) | (i == n), 2.0, 1.0) * (-1.0) ** i
    d = np.outer(c, 1 / c) / (at[:, None] - at + np.eye(n + 1))
    d = 2 * (d - np.diag(d.sum(1)))  # on [0, 1]
    closed = d.copy()
    closed[[0, -1]] = 0
    second = d @ closed
    solved = solve_ivp(
        lambda _, u: D * second @ u + k * u * (1 - u), (0, END), start((at + 1) / 2),
        method="Radau", rtol=1e-9, atol=1e-11, dense_output=True,
    )  # fmt: skip
    table = np.linalg.inv(np.polynomial.chebyshev.chebvander(at, n)) @ solved.sol(t)
    return np.einsum("ji,ij->j", np.polynomial.chebyshev.chebvander(2 * x - 1, n), table)


def problem() -> tuple[PINN, dict[str, np.ndarray], np.ndarray, dict[str, float]]:
    """PINN, points, readings without noise, and the bounds."""
    t, x = (qmc.Sobol(2, rng=1).random(256)[:READINGS] * (0.96 * END, 1.0)).T
    t = 0.04 * END + t
    truth = chebyshev(**TRUE, t=t, x=x)
    slopes = []
    for name in TRUE:
        moved = [chebyshev(**TRUE | {name: TRUE[name] * (1 + h)}, t=t, x=x) for h in (1e-3, -1e-3)]
        slopes.append((moved[0] - moved[1]) / (2e-3 * TRUE[name]))
    information = np.array(slopes) @ np.array(slopes).T / NOISE**2
    bound = np.sqrt(np.diag(np.linalg.inv(information)))
    walls = {
        f"wall {x:g}": Condition({"t": EDGES, "x": np.full(60, x)}, lambda u, at, p: u("x"))
        for x in (0.0, 1.0)
    }
    pinn = PINN(
        inputs={"t": (0.0, END), "x": (0.0, 1.0)},
        residual=lambda u, at, p: u("t") - p["D"] * u("x", "x") - p["k"] * u() * (1 - u()),
        hard=lambda at, n: start(at["x"], jnp) + at["t"] * n,
        conditions=walls,
        p={"D": Parameter(0.05, (1e-3, 0.5)), "k": Parameter(0.5, (0.05, 10.0))},
        weights={"residual": 1e4, "wall 0": 1e3, "wall 1": 1e3},
        field=partial(MLP, width=12, depth=2),
        dtype="float64",
    )
    return pinn, {"t": t, "x": x}, truth, dict(zip(TRUE, bound, strict=True))


def main() -> None:
    """Prints truth, estimate and bound; and how often intervals cover."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--members", type=int, default=50)
    draws, members = (parser.parse_args().draws, parser.parse_args().members)
    pinn, at, truth, bound = problem()
    began = time.perf_counter()
    clean = pinn.fit(
        Data(at, truth, NOISE), points=400, key=jax.random.key(0),
        stages=[GaussNewton(steps=400, patience=0)],
    )  # fmt: skip
    said = ", ".join(f"{n} {float(clean.p[n]):.5f} (true {v:g})" for n, v in TRUE.items())
    print(f"without noise: {said}; {time.perf_counter() - began:.0f} s")
    rng = np.random.default_rng(0)
    found, sds = {n: [] for n in TRUE}, {n: [] for n in TRUE}
    began = time.perf_counter()
    for _ in range(draws // members):
        noisy = truth + NOISE * rng.normal(size=(members, READINGS))
        fit = pinn.fit(
            Data(at, noisy, NOISE), points=400, members=members, start=clean,
            stages=[GaussNewton(steps=15, damping=1e-8, patience=0)], key=jax.random.key(0),
        )  # fmt: skip
        for name in TRUE:
            found[name].append(fit.p[name])
            sds[name].append(fit.p_sd[name])
    seconds = (time.perf_counter() - began) / draws
    for name, true in TRUE.items():
        p, sd = np.concatenate(found[name]), np.concatenate(sds[name])
        first = (p[0] - true) / bound[name]
        inside = np.mean(np.abs(p - true) < 1.96 * sd)
        print(
            f"{name}: bound {bound[name]:.2e}, sd of {draws} fits {p.std(ddof=1):.2e}, Laplace's "
            f"{np.median(sd):.2e}; first {first:+.2f} bounds off, mean "
            f"{(p.mean() - true) / bound[name]:+.2f}; 95 % intervals cover {100 * inside:.1f} %"
        )
    print(f"{seconds:.2f} s a fit")


if __name__ == "__main__":
    main()
