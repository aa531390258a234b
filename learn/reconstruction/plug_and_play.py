"""The image at which data and a denoiser agree."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex

from learn.reconstruction.posterior import Denoise
from learn.reconstruction.unrolled import conjugate_gradients
from mrphys.encoding import Linear


def plug_and_play(
    denoise: Denoise,
    A: Linear,
    y: Complex[Array, "..."],
    noise_sd: ArrayLike,
    *,
    largest: float = 1.0,
    smallest: float = 1.0,
    anneal: int = 20,
    hold: int = 10,
    iterations: int = 20,
) -> Complex[Array, "..."]:
    """Alternating directions, the prior's proximal step a denoiser:

        x = argmin |A x - y|² / 2 noise_sd² + |x - v + u|² / 2ρ²,  v = D(x + u, ρ),  u ← u + x - v

    with ρ falling geometrically from `largest`, in units of images, to `smallest` noise_sd in
    `anneal` turns and staying there for `hold`; u, a multiplier times ρ², keeps its multiplier. Of
    a normal prior and its exact D it ends at the posterior mean, whatever ρ.

    Venkatakrishnan, Bouman, Wohlberg 2013, doi:10.1109/GlobalSIP.2013.6737048; Zhang et al. 2021,
    doi:10.1109/TPAMI.2021.3088914 (falling levels).
    """
    normal, back = A.normal, A.H(y)
    sd = jnp.asarray(noise_sd, back.dtype).real
    last = smallest * sd
    falling = last * (largest / last) ** (1 - jnp.arange(anneal) / max(anneal - 1, 1))
    levels = jnp.concatenate([falling, jnp.full((hold + 1,), last)]).astype(sd.dtype)

    def turn(state, rhos):
        v, u = state
        rho, next_rho = rhos
        delta = (sd / rho) ** 2
        b = back + delta * (v - u) - normal(v) - delta * v
        x = v + conjugate_gradients(lambda w: normal(w) + delta * w, b, iterations)
        v = denoise(x + u, rho)
        return (v, (u + x - v) * (next_rho / rho) ** 2), None

    start = back, jnp.zeros_like(back)
    return jax.lax.scan(turn, start, (levels[:-1], levels[1:]))[0][0]
