"""Patterns for a diffusion prior: that of which posterior samples lie close together."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float, Inexact, PRNGKeyArray

from learn.reconstruction.posterior import Denoise, reverse_diffusion
from learn.reconstruction.scans import Scan, add_noise
from learn.reconstruction.unrolled import solve
from learn.sampling.chosen import chosen
from learn.sampling.relaxed import Relaxed
from mrphys.encoding import Linear
from mrphys.units import check_count

Image = Inexact[Array, "..."]


def posterior_spread(
    denoise: Denoise,
    A: Linear,
    y: Image,
    x: Image,
    noise_sd: ArrayLike,
    key: PRNGKeyArray,
    *,
    largest: float = 0.5,
    smallest: float = 0.5,
    turns: int = 3,
    steps: int = 3,
    iterations: int = 8,
) -> Float[Array, ""]:
    """½ mean |x' - x|² over voxels, x' a sample of the posterior of y = A x + η: on average over x
    of the prior and η the posterior's E|x - E x|².

    The truth is itself a sample of its posterior. The Gibbs sampler of
    `learn.reconstruction.sample_posterior` therefore starts at it, with nothing to forget but x
    itself: few turns, whose ρ falls from `largest` to `smallest` noise_sd, all differentiated. What
    of x they have not forgotten makes the spread come out too small. Where a weight of `Chosen` is
    0 its derivative is up to twice that of the variance.

    Ravula et al. 2023, arXiv:2306.03284, where one step of denoising stands for the sampler.
    """
    for name, count in (("turns", turns), ("steps", steps)):
        check_count(f"posterior_spread: {name}", count)
    normal, sd = A.normal, jnp.asarray(noise_sd, x.real.dtype)
    last = smallest * sd
    levels = last * (largest / last) ** (1 - np.arange(turns) / max(turns - 1, 1))

    def turn(z: Image, at: tuple) -> tuple[Image, None]:
        rho, key = at
        keys = jax.random.split(key, 3)
        delta = (sd / rho) ** 2
        b = A.H(add_noise(y, sd, keys[0])) + delta * add_noise(z, rho, keys[1])
        made = z + solve(lambda v: normal(v) + delta * v, b - normal(z) - delta * z, iterations)
        return reverse_diffusion(denoise, made, rho, keys[2], steps=steps, end=0.1 * last), None

    start, rest = jax.random.split(key)
    drawn = add_noise(x, levels[0], start)
    drawn = jax.lax.scan(jax.checkpoint(turn), drawn, (levels, jax.random.split(rest, turns)))[0]
    away = drawn - x
    return jnp.mean(away.real**2 + away.imag**2) / 2


def spread_loss(
    sampling: Relaxed, scans: Scan, key: PRNGKeyArray, denoise: Denoise, **settings: Any
) -> Float[Array, ""]:
    """The mean spread over scans of all samples, each by a pattern of its own; `settings` of
    `posterior_spread`."""

    def one(scan: Scan, key: PRNGKeyArray) -> Float[Array, ""]:
        drawn, sampler = jax.random.split(key)
        seen = chosen(scan, sampling.draw(drawn))
        return posterior_spread(denoise, seen.A, seen.y, scan.x, scan.noise_sd, sampler, **settings)

    return jnp.mean(jax.vmap(one)(scans, jax.random.split(key, scans.noise_sd.shape[0])))
