"""The problems of benchmarks/pinn.py: each with a solution from elsewhere."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from numpy.polynomial.hermite import hermgauss
from numpy.polynomial.legendre import leggauss
from scipy.linalg import eigh

from learn.pinn import (
    MLP,
    PINN,
    Adam,
    Condition,
    FourierFeatures,
    GaussNewton,
    Region,
    Stage,
)

Points = dict[str, np.ndarray]


class Solved(NamedTuple):
    """A problem, how it is sought, and what is true at points."""

    pinn: PINN
    points: int
    stages: Sequence[Stage]
    at: Points
    truth: np.ndarray
    limit: float
    limit_s: float


def wave() -> Solved:
    """u_t = D u_xx + k u (1 - u); u = (1 + exp(√(k/6D) (x - 5 √(kD/6) t)))⁻² (Ablowitz, Zeppetella
    1979, doi:10.1007/BF02462380)."""
    D, k = 0.01, 1.0
    steep, speed = (k / (6 * D)) ** 0.5, 5 * (k * D / 6) ** 0.5

    def u(t, x, xp=np):
        return (1 + xp.exp(steep * (x - speed * t))) ** -2.0

    def made(at, n):
        x = at["x"]
        along = (x + 1) / 3
        edges = (1 - along) * (u(at["t"], -1.0, jnp) - u(0.0, -1.0, jnp))
        edges = edges + along * (u(at["t"], 2.0, jnp) - u(0.0, 2.0, jnp))
        return u(0.0, x, jnp) + edges + at["t"] * (x + 1) * (2 - x) * n

    pinn = PINN(
        inputs={"t": (0.0, 4.0), "x": (-1.0, 2.0)},
        residual=lambda u, at, p: u("t") - D * u("x", "x") - k * u() * (1 - u()),
        hard=made,
        field=partial(MLP, width=20, depth=2),
        dtype="float64",
    )
    t, x = np.meshgrid(np.linspace(0, 4, 81), np.linspace(-1, 2, 151), indexing="ij")
    stages = [GaussNewton(steps=250, patience=0, resample_every=50)]
    return Solved(pinn, 1000, stages, {"t": t, "x": x}, u(t, x), 1e-3, 120.0)


def cooling() -> Solved:
    """u_t = u_xx / 10 between ends held at 0: two modes in closed form; smooth."""

    def u(t, x):
        slow, fast = (np.exp(-0.1 * (n * np.pi) ** 2 * t) * np.sin(n * np.pi * x) for n in (1, 3))
        return slow + fast / 2

    pinn = PINN(
        inputs={"t": (0.0, 1.0), "x": (0.0, 1.0)},
        residual=lambda u, at, p: u("t") - 0.1 * u("x", "x"),
        hard=lambda at, n: (
            jnp.sin(jnp.pi * at["x"])
            + jnp.sin(3 * jnp.pi * at["x"]) / 2
            + at["t"] * at["x"] * (1 - at["x"]) * n
        ),
        field=partial(MLP, width=20, depth=2),
        dtype="float64",
    )
    t, x = np.meshgrid(np.linspace(0, 1, 51), np.linspace(0, 1, 51), indexing="ij")
    stages = [GaussNewton(steps=400, patience=0)]
    return Solved(pinn, 800, stages, {"t": t, "x": x}, u(t, x), 1e-5, 120.0)


def burgers() -> Solved:
    """u_t + u u_x = ν u_xx, ν = 0.01 / π, u(0, x) = -sin πx; by Cole and Hopf's integral."""
    nu = 0.01 / np.pi
    nodes, weights = hermgauss(200)

    def u(t, x):
        y = x[:, None] - 2 * np.sqrt(nu * t) * nodes
        e = np.exp(-np.cos(np.pi * y) / (2 * np.pi * nu)) * weights
        return -(np.sin(np.pi * y) * e).sum(1) / e.sum(1)

    pinn = PINN(
        inputs={"t": (0.0, 1.0), "x": (-1.0, 1.0)},
        residual=lambda u, at, p: u("t") + u() * u("x") - nu * u("x", "x"),
        hard=lambda at, n: -jnp.sin(jnp.pi * at["x"]) + at["t"] * (1 - at["x"] ** 2) * n,
        field=partial(MLP, width=20, depth=3),
        dtype="float64",
    )
    t, x = np.meshgrid(np.linspace(0.01, 1, 100), np.linspace(-1, 1, 401), indexing="ij")
    truth = np.stack([u(time, x[0]) for time in t[:, 0]])
    stages = [Adam(steps=2000), GaussNewton(steps=250, patience=0, resample_every=50)]
    return Solved(pinn, 2000, stages, {"t": t, "x": x}, truth, 1e-3, 120.0)


def allen_cahn() -> Solved:
    """u_t = 1e-4 u_xx + 5 (u - u³), u(0, x) = x² cos πx, periodic; by splitting, the reaction exact
    and diffusion by FFT, 512 points and 10⁴ steps."""
    count, steps = 512, 10_000
    x = np.linspace(-1, 1, count, endpoint=False)
    decay = np.exp(-1e-4 * (2 * np.pi * np.fft.rfftfreq(count, 2 / count)) ** 2 / steps)
    grow = np.exp(5 / steps)
    u, told = x**2 * np.cos(np.pi * x), []
    for step in range(steps + 1):
        if step % 100 == 0:
            told.append(u)
        u = u * np.sqrt(grow / (1 + u**2 * (grow - 1)))
        u = np.fft.irfft(decay * np.fft.rfft(u))
        u = u * np.sqrt(grow / (1 + u**2 * (grow - 1)))
    pinn = PINN(
        inputs={"t": (0.0, 1.0), "x": (-1.0, 1.0)},
        residual=lambda u, at, p: u("t") - 1e-4 * u("x", "x") - 5 * (u() - u() ** 3),
        hard=lambda at, n: at["x"] ** 2 * jnp.cos(jnp.pi * at["x"]) + at["t"] * n,
        field=partial(
            FourierFeatures,
            frequencies=[[0.0, k / 2] for k in range(1, 9)],
            keep=(0,),
            inner=partial(MLP, width=24, depth=2),
        ),
        dtype="float64",
    )
    t, x = np.meshgrid(np.linspace(0, 1, 101), x, indexing="ij")
    stages = [
        GaussNewton(steps=100, patience=0, resample_every=20, causal=5.0),
        GaussNewton(steps=300, patience=0, resample_every=25),
    ]
    return Solved(pinn, 3000, stages, {"t": t, "x": x}, np.stack(told), 1e-3, 600.0)


BEND, LOBES, DIFFUSIVITY = 0.12, 3, 0.1
"""The domain is the image of the unit disc by z = w + BEND w^LOBES."""


def _disc(count: int = 14) -> tuple[Callable, np.ndarray, np.ndarray]:
    """Modes of heat without flux in the bent disc: Galerkin with ρ^(m + 2j) cos mθ, in which
    |z'(w)|² u_t = D Δ_w u is a generalised eigenvalue problem."""
    powers = [(m, m + 2 * j) for m in range(count) for j in range(count // 2)]
    nodes, weights = leggauss(60)
    rho, turn = (nodes + 1) / 2, 2 * np.pi * np.arange(128) / 128
    area = np.outer(weights / 2 * rho, np.full(128, 2 * np.pi / 128)).ravel()
    rho, turn = (v.ravel() for v in np.meshgrid(rho, turn, indexing="ij"))

    def basis(rho, turn):
        return np.stack([rho**n * np.cos(m * turn) for m, n in powers], -1)

    radial = np.stack([n * rho ** max(n - 1, 0) * np.cos(m * turn) for m, n in powers], -1)
    round_ = np.stack([-m * rho ** max(n - 1, 0) * np.sin(m * turn) for m, n in powers], -1)
    stretch = np.abs(1 + BEND * LOBES * (rho * np.exp(1j * turn)) ** (LOBES - 1)) ** 2
    shapes = basis(rho, turn)
    mass = shapes.T @ (shapes * (area * stretch)[:, None])
    stiff = radial.T @ (radial * area[:, None]) + round_.T @ (round_ * area[:, None])
    scale = 1 / np.sqrt(np.diag(mass))
    value, vector = np.linalg.eigh(scale[:, None] * mass * scale)
    kept = value > 1e-12 * value[-1]
    reduce = scale[:, None] * vector[:, kept] / np.sqrt(value[kept])
    rates, modes = eigh(reduce.T @ stiff @ reduce)
    return basis, rates, reduce @ modes


def heat() -> Solved:
    """u_t = D Δu in a domain of three lobes without flux through its boundary."""
    basis, rates, modes = _disc()
    some = modes[:, [0, 1, 3, 6]] * np.array([1.0, 0.5, 0.3, 0.2])
    decay = DIFFUSIVITY * rates[[0, 1, 3, 6]]

    def u(t, rho, turn):
        return (basis(rho, turn) @ some * np.exp(-decay * t[..., None])).sum(-1)

    def place(rho, turn):
        w = rho * np.exp(1j * turn)
        z = w + BEND * w**LOBES
        return z.real, z.imag

    outline = np.stack(place(1.0, 2 * np.pi * np.arange(720) / 720), -1)
    edge = np.roll(outline, -1, 0) - outline

    def signed(x):
        ahead = x - outline
        along = jnp.clip(jnp.sum(ahead * edge, -1) / jnp.sum(edge**2, -1), 0.0, 1.0)
        near = jnp.min(jnp.sum((ahead - along[:, None] * edge) ** 2, -1))
        crosses = (outline[:, 1] > x[1]) != (jnp.roll(outline[:, 1], -1) > x[1])
        at = outline[:, 0] + (x[1] - outline[:, 1]) / edge[:, 1] * edge[:, 0]
        inside = jnp.sum(crosses & (x[0] < at)) % 2 == 1
        return jnp.sqrt(near + 1e-30) * jnp.where(inside, -1.0, 1.0)

    # the start as a polynomial of the place: its reading at Sobol points, a soft condition
    rng = np.random.default_rng(0)
    turn, rho = 2 * np.pi * rng.random(600), np.sqrt(rng.random(600))
    x, y = place(rho, turn)
    begin = {"t": np.zeros(600), "x": x, "y": y, "u": u(np.zeros(600), rho, turn)}
    turn = 2 * np.pi * rng.random(600)
    x, y = place(1.0, turn)
    slope = np.exp(1j * turn) * (1 + BEND * LOBES * np.exp(1j * turn) ** (LOBES - 1))
    slope = slope / np.abs(slope)
    border = {"t": rng.random(600), "x": x, "y": y}
    border |= {"normal_x": slope.real, "normal_y": slope.imag}
    pinn = PINN(
        inputs={"t": (0.0, 1.0), "x": (-1.2, 1.2), "y": (-1.2, 1.2)},
        residual=lambda u, at, p: u("t") - DIFFUSIVITY * (u("x", "x") + u("y", "y")),
        conditions={
            "start": Condition(begin, lambda u, at, p: u() - at["u"]),
            "border": Condition(
                border, lambda u, at, p: at["normal_x"] * u("x") + at["normal_y"] * u("y")
            ),
        },
        region=Region(("x", "y"), signed),
        weights={"start": 100.0, "border": 1.0},
        field=partial(MLP, width=20, depth=2),
        dtype="float64",
    )
    turn, rho = 2 * np.pi * rng.random(4000), np.sqrt(rng.random(4000))
    x, y, t = *place(rho, turn), rng.random(4000)
    stages = [GaussNewton(steps=150, patience=0)]
    return Solved(pinn, 1000, stages, {"t": t, "x": x, "y": y}, u(t, rho, turn), 1e-3, 120.0)


PROBLEMS = {
    "cooling": cooling,
    "wave": wave,
    "heat": heat,
    "burgers": burgers,
    "allen-cahn": allen_cahn,
}
