"""Images that data and a prior both allow, drawn: uncertainty as samples."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float, Inexact, PRNGKeyArray

from learn.reconstruction.scans import add_noise
from learn.reconstruction.unrolled import conjugate_gradients
from mrphys.encoding import Linear
from mrphys.units import check_count

Image = Inexact[Array, "..."]
Denoise = Callable[[Image, Float[Array, ""]], Image]
"""D(x, σ) = E[x₀ | x₀ + σ ε = x]."""


class Posterior(NamedTuple):
    """Samples, their mean, and the root of the mean |x - mean|² of each voxel."""

    samples: Complex[Array, "samples ..."]
    mean: Complex[Array, "..."]
    sd: Float[Array, "..."]


def reverse_diffusion(
    denoise: Denoise,
    x: Image,
    sigma: Float[Array, ""],
    key: PRNGKeyArray,
    *,
    steps: int,
    end: Float[Array, ""],
) -> Image:
    """A draw of x₀ given x = x₀ + σ ε: the diffusion run backwards from level σ to `end`, then D.

    With levels σ_i falling geometrically, h = ln(σ_i / σ_{i+1}), D_i of the state x_i,

        x_{i+1} = e^{-2h} x_i + (1 - e^{-2h}) (D_i + (D_i - D_{i-1}) / 2) + σ_{i+1} s ε,
        s² = 1 - e^{-2h}

    of second order in h. The process is that of the forward diffusion reversed, which noise of
    another strength would not be: only so is x₀ paired with x.

    Lu et al. 2022, arXiv:2211.01095 (SDE-DPM-Solver++ 2M).
    """
    h = jnp.log(sigma / end) / steps
    kept = jnp.exp(-2 * h)

    def step(state, at):
        x, before, first = state
        i, key = at
        now = sigma * jnp.exp(-h * i)
        found = denoise(x, now)
        ahead = jnp.where(first, 0.0, 0.5) * (found - before)
        x = kept * x + (1 - kept) * (found + ahead)
        x = add_noise(x, now * jnp.exp(-h) * jnp.sqrt(1 - kept), key)
        return (x, found, jnp.zeros((), bool)), None

    keys = jax.random.split(key, steps)
    counts = jnp.arange(steps, dtype=sigma.dtype)
    start = x, jnp.zeros_like(x), jnp.ones((), bool)
    x = jax.lax.scan(step, start, (counts, keys))[0][0]
    return denoise(x, end)


def sample_posterior(
    denoise: Denoise,
    A: Linear,
    y: Complex[Array, "..."],
    noise_sd: ArrayLike,
    key: PRNGKeyArray,
    *,
    samples: int = 8,
    largest: float = 3.0,
    smallest: float = 0.3,
    anneal: int = 30,
    hold: int = 10,
    steps: int = 12,
    iterations: int = 20,
) -> Posterior:
    """Draws of x given y = A x + η, by a denoiser's prior: a split Gibbs sampler.

    Of p(x, z) ∝ p(z) exp(-|x - z|² / 2ρ² - |A x - y|² / 2 noise_sd²), by turns

        x | z   normal, exact but for conjugate gradients:
                (AᴴA + δ) x = Aᴴ(y + noise_sd ε) + δ (z + ρ ε'),  δ = (noise_sd / ρ)²
        z | x   `reverse_diffusion` from level ρ

    with ρ falling geometrically from `largest`, where nothing sticks, to `smallest` noise_sd in
    `anneal` turns, and staying there for `hold`. What z is drawn from is p(z | y) with a noise of
    variance noise_sd² + ρ² AAᴴ: exact as smallest → 0, steps, hold → ∞; nothing else is
    approximate, neither is the likelihood of noisy states, which guided diffusion must guess.

    noise_sd    of the real part of a sample, in the units of y; images in those of the denoiser
    largest     ρ at first, in units of images
    steps       evaluations of D in each turn
    iterations  of conjugate gradients

    Wu et al. 2024, arXiv:2405.18782; Xu, Chi 2024, arXiv:2403.17042; Vono, Dobigeon, Chainais 2019,
    doi:10.1109/TSP.2019.2894825.
    """
    for name, count in (("samples", samples), ("anneal", anneal), ("steps", steps)):
        check_count(f"sample_posterior: {name}", count)
    normal, shape = A.normal, jax.eval_shape(A.H, y)
    sd = jnp.asarray(noise_sd, shape.dtype).real
    last = smallest * sd
    falling = last * (largest / last) ** (1 - jnp.arange(anneal) / max(anneal - 1, 1))
    levels = jnp.concatenate([falling, jnp.full((hold,), last)]).astype(sd.dtype)

    def turn(z: Image, at) -> tuple[Image, None]:
        rho, key = at
        keys = jax.random.split(key, 3)
        delta = (sd / rho) ** 2
        b = A.H(add_noise(y, sd, keys[0])) + delta * add_noise(z, rho, keys[1])
        x = z + conjugate_gradients(
            lambda v: normal(v) + delta * v, b - normal(z) - delta * z, iterations
        )
        return reverse_diffusion(denoise, x, rho, keys[2], steps=steps, end=0.1 * last), None

    def one(key: PRNGKeyArray) -> Image:
        start, rest = jax.random.split(key)
        z = add_noise(jnp.zeros(shape.shape, shape.dtype), jnp.asarray(largest, sd.dtype), start)
        return jax.lax.scan(turn, z, (levels, jax.random.split(rest, levels.size)))[0]

    drawn = jax.lax.map(one, jax.random.split(key, samples))
    mean = jnp.mean(drawn, axis=0)
    away = jnp.sum(jnp.abs(drawn - mean[None]) ** 2, axis=0)
    return Posterior(drawn, mean, jnp.sqrt(away / max(samples - 1, 1)))
