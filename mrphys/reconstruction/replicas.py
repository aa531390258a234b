"""How uncertain an image is, by pseudo-replicas: data with noise added again and again."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Complex, Float, Inexact, PRNGKeyArray

from mrphys.encoding import Encoding, Linear
from mrphys.errors import InputError, Problem
from mrphys.reconstruction.data_term import sampled
from mrphys.reconstruction.density import density
from mrphys.reconstruction.method import Method
from mrphys.reconstruction.reconstruct import reconstruct
from mrphys.units import check_count


class Replicas(eqx.Module):
    """Of the images of replicas: their mean, the sd of their real part (of real and imaginary
    parts together), and how many there were."""

    mean: Complex[Array, "..."]
    sd: Float[Array, "..."]
    count: int = eqx.field(static=True)


def pseudo_replicas(
    A: Linear,
    y: Inexact[Array | np.ndarray, "..."],
    method: str | Method = "cg-sense",
    *,
    noise_sd: ArrayLike,
    replicas: int = 64,
    key: PRNGKeyArray,
    **options: Any,
) -> Replicas:
    """Images of y + η, η complex Gaussian of sd noise_sd in each part where samples were taken.

        sd² = Σ_i |x_i - x̄|² / 2 (n - 1),   of relative standard error 1 / (2 sqrt(n - 1))

    of any method that `reconstruct` has, with its options; λ must be given where it needs one.
    For a linear one it is that of the image of y itself. Of a nonlinear one it is the image's
    answer to noise besides the noise that y has, and knows nothing of its bias.

    Raises InputError as `reconstruct`, and for fewer than two replicas.

    Robson et al. 2008, doi:10.1002/mrm.21728.
    """
    check_count("pseudo_replicas: replicas", replicas, 2)
    if not 0 < float(np.asarray(noise_sd)) < jnp.inf:
        found = f"{float(np.asarray(noise_sd)):g}"
        raise InputError(
            Problem("pseudo_replicas: noise_sd", found, "above 0, in the data's units")
        )
    data = jnp.asarray(y)
    data = data.astype(jnp.result_type(data.dtype, jnp.complex64))
    kind: Any = options.get("density", "iterative")
    if isinstance(A, Encoding) and isinstance(kind, str) and method == "adjoint":
        options = {**options, "density": density(A, kind)}  # once, not in each replica
    keys = jax.random.split(key, replicas)
    sd = jnp.asarray(noise_sd, data.real.dtype)
    mean, squares = _moments(A, data, method, sd, keys, options)
    return Replicas(mean, jnp.sqrt(squares / (2 * (replicas - 1))), replicas)


@eqx.filter_jit
def _moments(
    A: Linear,
    y: Complex[Array, "..."],
    method: str | Method,
    sd: Float[Array, ""],
    keys: Array,
    options: dict[str, Any],
) -> tuple[Complex[Array, "..."], Float[Array, "..."]]:
    """Mean and Σ |x - x̄|², one replica after the other (Welford 1962, doi:10.2307/1266577)."""
    taken = sampled(A, y)

    def another(now, key):
        count, mean, squares = now
        noise, chance = jax.random.split(key)
        real, imaginary = sd * jax.random.normal(noise, (2, *y.shape), y.real.dtype)
        noisy = jnp.where(taken, y + jax.lax.complex(real, imaginary), 0)
        x = reconstruct(A, noisy, method, key=chance, **options).image
        off = x - mean
        mean = mean + off / (count + 1)
        squares = squares + off.real * (x - mean).real + off.imag * (x - mean).imag
        return (count + 1, mean, squares), None

    like = jax.eval_shape(A.H, y)
    begin = (
        jnp.zeros((), sd.dtype),
        jnp.zeros(like.shape, like.dtype),
        jnp.zeros(like.shape, sd.dtype),
    )
    return jax.lax.scan(another, begin, keys)[0][1:]
