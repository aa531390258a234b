"""Solutions of equations whose terms are functions: differentiable, for `BINN`."""

from collections.abc import Callable, Mapping

import diffrax
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy.interpolate import make_smoothing_spline

from mrphys.errors import InputError, Problem

Terms = Mapping[str, Callable[[Array], Array]]
Solve = Callable[[Terms, Array, Array], Array]
"""u = solve(terms, u0, times), times on the first axis."""

SAFETY = 0.4
"""Of the step at which explicit diffusion becomes unstable, ½ dx² / D."""


def spreading(
    positions: Float[np.ndarray, " positions"],
    times: Float[np.ndarray, " times"],
    most_diffusivity: float,
) -> Solve:
    """Of u_t = ∂/∂x (D(u) ∂u/∂x) + T(t) G(u / K(x)) u, without flux through the ends.

    Finite volumes at the positions, which must be even, D at faces from the mean of u, at least 0;
    Heun's second-order steps, as many as `most_diffusivity` needs. Of the terms D is needed; G, T
    and K are 0, 1 and 1 unless there. u0 may have any axes before that of positions.
    """
    x, t = np.asarray(positions, float), np.asarray(times, float)
    gaps = np.diff(x)
    problems = []
    if x.size < 3 or not np.allclose(gaps, gaps.mean(), rtol=1e-3) or gaps[0] <= 0:
        problems.append(Problem("binn.spreading: positions", f"{x}", "three or more, even, rising"))
    if t.size < 2 or not (np.diff(t) > 0).all():
        problems.append(Problem("binn.spreading: times", f"{t}", "two or more, rising"))
    if problems:
        raise InputError(*problems)
    dx = float(gaps.mean())
    steps = int(np.ceil(np.max(np.diff(t)) / (SAFETY * dx**2 / most_diffusivity)))

    def solve(terms: Terms, u0: Array, times: Array) -> Array:
        place = jnp.asarray(x, u0.dtype)
        capacity = terms["K"](place) if "K" in terms else jnp.ones_like(place)
        capacity = capacity.reshape((1,) * (u0.ndim - 1) + (-1,))

        def rate(u: Array, time: Array) -> Array:
            between = jnp.maximum((u[..., 1:] + u[..., :-1]) / 2, 0)
            flux = terms["D"](between) * jnp.diff(u) / dx
            ends = [(0, 0)] * (u.ndim - 1) + [(1, 1)]
            made = jnp.diff(jnp.pad(flux, ends)) / dx
            if "G" in terms:
                early = terms["T"](time) if "T" in terms else jnp.ones((), u.dtype)
                made = made + early * terms["G"](u / capacity) * u
            return made

        def interval(u: Array, span: Array) -> tuple[Array, Array]:
            dt = (span[1] - span[0]) / steps

            def step(i: Array, u: Array) -> Array:
                now = span[0] + i * dt
                first = rate(u, now)
                second = rate(u + dt * first, now + dt)
                return u + dt * (first + second) / 2

            def body(u: Array, i: Array) -> tuple[Array, None]:
                return step(i, u), None

            u, _ = jax.lax.scan(body, u, jnp.arange(steps))
            return u, u

        spans = jnp.stack([times[:-1], times[1:]], -1)
        _, later = jax.lax.scan(interval, u0, spans)
        return jnp.concatenate([u0[None], later])

    return solve


def smoothed(
    positions: Float[np.ndarray, " positions"], profiles: Float[np.ndarray, "... positions"]
) -> Float[np.ndarray, "... positions"]:
    """Each profile's smoothing spline, as smooth as its generalised cross-validation says, at least
    0: a start with less noise. Five positions or more."""
    x, y = np.asarray(positions, float), np.asarray(profiles, float)
    flat = [make_smoothing_spline(x, row)(x) for row in y.reshape(-1, x.size)]
    return np.maximum(np.stack(flat), 0).reshape(y.shape)


def cosines(count: int, positions: int) -> Float[np.ndarray, "count positions"]:
    """cos πk (i + ½) / n, the modes of a profile without flux through its ends."""
    return np.cos(np.pi * np.outer(np.arange(count), np.arange(positions) + 0.5) / positions)


def ordinary(rate: Callable[[Array, Array, Terms], Array], rtol: float = 1e-5) -> Solve:
    """Of du/dt = rate(u, t, terms), by diffrax' Tsit5 with steps to `rtol`.

    u0 may have any axes; all are stepped together.
    """

    def solve(terms: Terms, u0: Array, times: Array) -> Array:
        # forward mode too: BINN's Jacobians have few columns and many rows
        solved = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, u, args: rate(u, jnp.asarray(t), terms)),
            diffrax.Tsit5(),
            times[0],
            times[-1],
            None,
            u0,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=rtol, atol=rtol * 1e-2),
            adjoint=diffrax.ForwardMode(),
            max_steps=16**3,
        )
        assert solved.ys is not None
        return solved.ys

    return solve
