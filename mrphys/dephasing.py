"""Static dephasing within a voxel, T2', by a few isochromats of different offsets."""

import jax.numpy as jnp
from jaxtyping import Array, Float


def dephasing(
    t2prime_s: Float[Array, " voxels"], longest_s: Float[Array, ""], isochromats: int
) -> tuple[Float[Array, " isochromats"], Float[Array, "voxels isochromats"]]:
    r"""Offsets in Hz, of all voxels, and their weights in each, which sum to 1:

        Σ_k w_k exp(-2πi δ_k t) = exp(-|t| / T2'),   |t| <= T = longest_s

    by the Fourier series of the right side over the period 2 T, δ_k = k / 2 T, |k| <= n:

        w_0 = (1 - e^-x) / x,   w_k = x (1 - (-1)^k e^-x) / (x² + π² k²),   x = T / T2'

    what is missing from 1 after n terms given to them in proportion to |k|. It errs by less than
    0.2 x / n, most within T / n of 0 and T, as a series cannot have their cusps. Exact for
    infinite T2', and there too of the right slope in 1 / T2', since no offset depends on it.
    isochromats is 2 n + 1.
    """
    n = isochromats // 2
    x = longest_s / t2prime_s
    small = x < 1e-3
    some = jnp.where(small, 1.0, x)
    zeroth = jnp.where(small, 1 - x / 2 * (1 - x / 3 * (1 - x / 4)), -jnp.expm1(-some) / some)
    k = jnp.arange(1, n + 1, dtype=x.dtype)
    sign = jnp.where(k % 2 == 0, 1.0, -1.0).astype(x.dtype)
    left = 1 - sign[None] * jnp.exp(-x)[:, None]
    series = x[:, None] * left / (x[:, None] ** 2 + (jnp.pi * k[None]) ** 2)
    missing = (1 - zeroth) / 2 - series.sum(axis=1)
    series = series + missing[:, None] * (k / jnp.sum(k))[None]
    offsets = jnp.concatenate([-k[::-1], jnp.zeros(1, x.dtype), k]) / (2 * longest_s)
    return offsets, jnp.concatenate([series[:, ::-1], zeroth[:, None], series], axis=1)
