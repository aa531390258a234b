"""Minimise f(u) in the unit box under equalities and inequalities, by an augmented Lagrangian."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.optimize import minimize

Vector = np.ndarray
Function = Callable[[Array], tuple[Array, Array]]

TOLERANCE = 1e-4
"""Of a constraint's size: what an equality may be missed by. Inequalities are kept."""
PENALTY = 10.0
GROWTH = 4.0
ROUNDS = 16


class Minimum(NamedTuple):
    """The best point met that keeps the constraints, its value, and the values along the way."""

    u: Vector
    value: float
    history: list[float]


def miss(excess: Vector, equal: Vector) -> float:
    """The largest miss of any constraint, in units of its size."""
    return float(np.max(np.where(equal, np.abs(excess), np.maximum(excess, 0.0)), initial=0.0))


def kept(excess: Vector, equal: Vector) -> bool:
    """Whether all constraints are."""
    return miss(excess[equal], equal[equal]) <= TOLERANCE and miss(
        excess[~equal], equal[~equal]
    ) <= 10 * float(jnp.finfo(float).eps)


def nearest(
    excess: Callable[[Array], Array], u: Vector, equal: Vector, margin: Vector
) -> tuple[Vector, Vector]:
    """From u down the sum of squared misses: a point that keeps all constraints, or misses them
    by the least there is near by; and its excesses."""

    @jax.jit
    def misses(u: Array) -> tuple[Array, Array]:
        c = excess(u)
        shifted = c + margin
        squares = jnp.where(equal, c, jnp.maximum(shifted, 0.0)) ** 2
        return jnp.sum(squares) / 2, c

    both = jax.jit(jax.value_and_grad(misses, has_aux=True))
    if kept(np.asarray(misses(jnp.asarray(u, float))[1]), equal):
        return u, np.asarray(misses(jnp.asarray(u, float))[1])

    def host(u: Vector) -> tuple[float, Vector]:
        (value, _), slope = both(jnp.asarray(u, float))
        return float(value), np.asarray(slope, np.float64)

    options = {"maxiter": 500, "maxfun": 1000, "ftol": 0.0, "gtol": 1e-9}
    found = minimize(
        host, u, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * u.size, options=options
    ).x
    return found, np.asarray(misses(jnp.asarray(found, float))[1])


def minimise(
    f: Function,
    u: Float[np.ndarray, " n"],
    equal: np.ndarray,
    margin: np.ndarray,
    *,
    restore: Callable[[Vector], Vector],
    steps: int,
    progress: Callable[[int, int, float], None],
) -> Minimum:
    """Minimise f(u)[0] over 0 <= u <= 1 with c = f(u)[1] = 0 where `equal`, else c <= 0.

        L = f/|f₀| + Σ_equal (λ c + ρ c²/2) + Σ_others (max(λ + ρ c, 0)² - λ²) / 2ρ

    is minimised over the box by L-BFGS-B (Byrd et al. 1995, doi 10.1137/0916069), then
    λ <- λ + ρ c, and ρ grows where c has not fallen by half (Conn, Gould, Toint 1991,
    doi 10.1137/0728030). `margin` is added to inequalities, so that what is left of them when the
    multipliers have converged lies on the right side; a search that ends before goes to the nearest
    point that keeps all, `restore(u)`. Where f is not finite the search turns back.
    """
    both = jax.jit(jax.value_and_grad(_lagrangian(f, jnp.asarray(equal)), has_aux=True))
    multiplier, penalty = np.zeros(equal.size), PENALTY
    best, history, last = (np.inf, u), [], {}
    scale = 1.0
    previous = np.inf

    def host(u: Vector) -> tuple[float, Vector]:
        arguments = [jnp.asarray(v, float) for v in (u, scale, multiplier, penalty, margin)]
        (value, (objective, excess)), slope = both(*arguments)
        slope = np.asarray(slope, np.float64)
        last.update(u=u.copy(), objective=float(objective), excess=np.asarray(excess))
        if not (np.isfinite(value) and np.isfinite(slope).all()):
            return 1e10, np.zeros_like(slope)
        consider()
        return float(value), slope

    def consider() -> None:
        nonlocal best
        if last["objective"] < best[0] and kept(last["excess"], equal):
            best = last["objective"], last["u"]

    def each(_u: Vector) -> None:
        history.append(last["objective"])
        progress(min(len(history), steps), steps, last["objective"])

    host(u)
    scale = abs(last["objective"]) or 1.0
    for _ in range(ROUNDS):
        left = steps - len(history)
        if left <= 0:
            break
        spend = max(left // 3, min(left, 10)) if equal.size else left
        options = {"maxiter": spend, "maxfun": 20 * spend, "ftol": 1e-12, "gtol": 1e-7}
        u = minimize(
            host, u, jac=True, method="L-BFGS-B", bounds=[(0, 1)] * u.size, callback=each,
            options=options,
        ).x  # fmt: skip
        if not equal.size:
            break
        host(u)
        excess = last["excess"] + np.where(equal, 0.0, margin)
        now = miss(excess, equal)
        multiplier = multiplier + penalty * excess
        multiplier = np.where(equal, multiplier, np.maximum(multiplier, 0.0))
        penalty = penalty if now <= previous / 2 else penalty * GROWTH
        previous = now
    if equal.size:
        host(restore(u))
    return Minimum(best[1], best[0], history)


def _lagrangian(f: Function, equal: Array) -> Callable:
    def lagrangian(u: Array, scale: Array, multiplier: Array, penalty: Array, margin: Array):
        value, excess = f(u)
        c = jnp.where(equal, excess, excess + margin)
        pushed = jnp.where(
            equal, multiplier + penalty * c, jnp.maximum(multiplier + penalty * c, 0)
        )
        return value / scale + jnp.sum(pushed**2 - multiplier**2) / (2 * penalty), (value, excess)

    return lagrangian
