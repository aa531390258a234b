"""Sensitivities from images of each coil: the local covariance, or smoothing to and fro."""

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float, Inexact

from mrphys.coils.principal import TINY, principal
from mrphys.errors import InputError, Problem
from mrphys.units import check_finite

ITERATIONS = 12


def walsh(
    images: Inexact[Array | np.ndarray, "coils ..."], *, width: int = 5
) -> Complex[Array, "coils ..."]:
    """Sensitivities (coils, *shape) as the principal eigenvectors of the local covariance

        R_ij(r) = Σ_r' near r  x_i(r') x_j(r')*

    over a box `width` voxels wide: the combination Σ c* x of greatest signal to noise. Σ|c|² = 1.
    The phase is such that the coils' principal combination of the whole image is real. Line after
    line along the first axis. Raises InputError for a width that is not odd, and numbers that are
    not finite.

    Source: Walsh, Gmitro, Marcellin 2000,
    doi:10.1002/(SICI)1522-2594(200005)43:5<682::AID-MRM10>3.0.CO;2-G.
    """
    return _walsh(_looked_at("walsh", images, width), width)


def inati(
    images: Inexact[Array | np.ndarray, "coils ..."],
    *,
    width: int = 5,
    iterations: int = 5,
) -> Complex[Array, "coils ..."]:
    """Sensitivities (coils, *shape) and a combined image x that explain each other:

        c ← smooth(x* y_c),  c ← c / |c|,  x ← Σ c* y_c

    with the phase of x taken into c's smooth part in each turn, so that c has no jumps. Needs a few
    times the images in memory whatever the number of coils. Σ|c|² = 1. Raises as `walsh`.

    Source: Inati, Hansen, Kellman 2014, Proc. ISMRM 22, 4407.
    """
    return _inati(_looked_at("inati", images, width), width, iterations)


def combine(
    images: Inexact[Array, "coils ..."], maps: Inexact[Array, "coils ..."]
) -> Complex[Array, "..."]:
    """Σ_c c* x_c / Σ_c |c|², the least-squares image; 0 where no coil hears."""
    power = jnp.sum(jnp.abs(maps) ** 2, axis=0)
    total = jnp.sum(jnp.conj(maps) * images, axis=0)
    return jnp.where(power > 0, total / jnp.where(power > 0, power, 1.0), 0.0)


def _looked_at(where: str, images: Inexact[Array | np.ndarray, "coils ..."], width: int) -> Array:
    x = jnp.asarray(images)
    if width < 1 or width % 2 == 0:
        raise InputError(Problem(f"{where}: width", f"{width}", "an odd number of voxels"))
    if not 2 <= x.ndim <= 4:
        raise InputError(Problem(where, f"images {x.shape}", "(coils, *shape), one to three axes"))
    check_finite(f"{where}: images", x)
    if not isinstance(x, Tracer) and not np.any(np.asarray(x)):
        raise InputError(Problem(f"{where}: images", "zeros", "signal"))
    return x.astype(jnp.result_type(x.dtype, jnp.complex64))


@partial(jax.jit, static_argnames="width")
def _walsh(x: Complex[Array, "coils ..."], width: int) -> Complex[Array, "coils ..."]:
    coils, lines = x.shape[:2]
    flat = x.reshape(coils, -1)
    _, turned = jnp.linalg.eigh(flat @ jnp.conj(flat.T))
    half = width // 2
    padded = jnp.pad(x, ((0, 0), (half, half), *[(0, 0)] * (x.ndim - 2)))

    def line(first: Array) -> Array:
        near = jax.lax.dynamic_slice_in_dim(padded, first, width, axis=1)
        r = jnp.einsum("il...,jl...->ij...", near, jnp.conj(near))
        for axis in range(2, r.ndim):
            r = _box(r, axis, width)
        return principal(r.reshape(coils, coils, -1), turned[:, -1], ITERATIONS)[1]

    c = jax.lax.map(line, jnp.arange(lines))
    return jnp.moveaxis(c, 1, 0).reshape(x.shape)


@partial(jax.jit, static_argnames=("width", "iterations"))
def _inati(
    y: Complex[Array, "coils ..."], width: int, iterations: int
) -> Complex[Array, "coils ..."]:
    every = tuple(range(1, y.ndim))

    def along(direction: Array) -> Array:
        return direction.reshape(-1, *[1] * (y.ndim - 1))

    mean = jnp.sum(y, axis=every)
    mean = mean / jnp.sqrt(jnp.sum(jnp.abs(mean) ** 2) + TINY)
    x = jnp.sum(jnp.conj(along(mean)) * y, axis=0)

    def turn(_: Any, state: tuple[Array, Array]) -> tuple[Array, Array]:
        x = state[0]
        c = y * jnp.conj(x)[None]
        for axis in every:
            c = _box(c, axis, width)
        c = c / jnp.sqrt(jnp.sum(_power(c), axis=0) + TINY)[None]
        x = jnp.sum(jnp.conj(c) * y, axis=0)
        mean = jnp.sum(c * x[None], axis=every)
        mean = mean / jnp.sqrt(jnp.sum(_power(mean)) + TINY)
        phase = jnp.sum(jnp.conj(along(mean)) * c, axis=0)
        phase = phase / jnp.sqrt(_power(phase) + TINY)
        return x * phase, c * jnp.conj(phase)[None]

    return jax.lax.fori_loop(0, iterations, turn, (x, jnp.zeros_like(y)))[1]


def _power(z: Complex[Array, "..."]) -> Float[Array, "..."]:
    return z.real**2 + z.imag**2


def _box(z: Complex[Array, "..."], axis: int, width: int) -> Complex[Array, "..."]:
    """Sums over `width` neighbours."""
    half = width // 2
    padded = jnp.pad(z, [(half, half) if i == axis else (0, 0) for i in range(z.ndim)])
    total = jnp.zeros_like(z)
    for i in range(width):
        total = total + jax.lax.slice_in_dim(padded, i, i + z.shape[axis], axis=axis)
    return total
