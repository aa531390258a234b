"""The adjoint with densities: an image at once."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.encoding import Encoding, Linear
from mrphys.errors import InputError, Problem
from mrphys.reconstruction.data_term import misfit, power, sampled
from mrphys.reconstruction.density import density
from mrphys.reconstruction.method import Found
from mrphys.units import check_range

Weighed = tuple[Found, Float[Array, ""], Float[Array, ""], Float[Array, ""]]


def adjoint(
    A: Linear, y: Complex[Array, "..."], kind: str | Float[Array | np.ndarray, "..."]
) -> Weighed:
    """Aᴴ W y / Σ_c |c_c|², with |y|², |A x - y|² and how many data there are."""
    weights = None
    if isinstance(A, Encoding):
        weights = density(A, kind) if isinstance(kind, str) else _given(A, kind)
    return _combined(A, y, weights)


def _given(A: Encoding, kind: Float[Array | np.ndarray, "..."]) -> Float[Array, "..."]:
    expected = (*A.sampling.frames, *A.sampling.samples)
    weights = jnp.asarray(kind, A.sampling.weight.dtype)
    alike = len(weights.shape) == len(expected) and all(
        m in (1, n) for m, n in zip(weights.shape, expected, strict=True)
    )
    if not alike:
        found = f"shape {weights.shape}"
        raise InputError(Problem("reconstruct: density", found, f"{expected}"))
    check_range("reconstruct: density", weights, 0.0, float("inf"), "")
    return weights


@eqx.filter_jit
def _combined(A: Linear, y: Complex[Array, "..."], weights: Float[Array, "..."] | None) -> Weighed:
    x = combined(A, y, weights)
    taken = jnp.broadcast_to(sampled(A, y), y.shape)
    count = jnp.sum(taken, dtype=x.real.dtype)
    none = jnp.zeros(0, x.real.dtype)
    found = Found(x, jnp.zeros((), int), none, jnp.ones((), bool))
    return found, power(A, y), misfit(A, x, y), count


def combined(
    A: Linear, y: Complex[Array, "..."], weights: Float[Array, "..."] | None
) -> Complex[Array, "..."]:
    """Aᴴ W y / Σ_c |c_c|²: coils combined as their sensitivities say, 0 where none receives.

    Roemer et al. 1990, doi:10.1002/mrm.1910160203.
    """
    if weights is not None and isinstance(A, Encoding):
        by_coil = (
            weights if A.coils is None else jnp.expand_dims(weights, -len(A.sampling.samples) - 1)
        )
        y = y * by_coil.reshape(*[1] * (y.ndim - by_coil.ndim), *by_coil.shape)
    x = A.H(y)
    if not isinstance(A, Encoding) or A.coils is None:
        return x
    received = jnp.sum(A.coils.real**2 + A.coils.imag**2, axis=0)
    received = received.reshape(*[1] * (x.ndim - received.ndim), *received.shape)
    return jnp.where(received > 0, x / jnp.where(received > 0, received, 1), 0)
