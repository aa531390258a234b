"""Orthogonal wavelets: a transform of images of any size, and reconstruction by few of them."""

from functools import cache, partial, reduce
from math import comb
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, PRNGKeyArray

from mrphys.errors import InputError, Problem
from mrphys.reconstruction.method import Method
from mrphys.reconstruction.proximal import fista, shrink
from mrphys.units import check_count

NAMES = tuple(f"db{order}" for order in range(1, 9))


@cache
def low_pass(name: str) -> Float[np.ndarray, " taps"]:
    """h of Daubechies's wavelet of 1 to 8 vanishing moments, of least phase, Σ h = sqrt(2).

    The roots inside the circle of the one polynomial that makes the squared response maximally
    flat. Daubechies 1988, doi:10.1002/cpa.3160410705.

    >>> low_pass("db2").round(6)
    array([ 0.482963,  0.836516,  0.224144, -0.12941 ])
    """
    if name not in NAMES:
        raise InputError(Problem("wavelet", repr(name), f"one of {', '.join(NAMES)}"))
    moments = int(name[2:])
    y = np.roots([comb(moments - 1 + k, k) for k in range(moments - 1, -1, -1)])
    z = 1 - 2 * y + np.sqrt((1 - 2 * y) ** 2 - 1 + 0j)
    z = np.where(np.abs(z) < 1, z, 1 / z)
    h = np.real(np.poly(np.concatenate([-np.ones(moments), z])))
    return h * np.sqrt(2) / h.sum()


@partial(jax.jit, static_argnames=("axes", "name", "levels"))
def transform(
    x: Inexact[Array, "..."], axes: int, name: str = "db4", levels: int = 4
) -> Inexact[Array, "..."]:
    """W x over the last axes, W orthogonal, as large as x: averages first along each axis, then
    differences, of the averages again, and so on.

        low_k = Σ_m h_m x_{2k+m},   high_k = Σ_m (-1)^m h_{M-1-m} x_{2k+m},   2k + m modulo n

    The last of an odd number of voxels is kept as it is, among the averages; an axis of one is left
    alone. Mallat 1989, doi:10.1109/34.192463.

    >>> transform(jnp.asarray([1.0, 1.0, 3.0, 1.0]), 1, "db1", 2).round(3)
    Array([ 3.   , -1.   ,  0.   ,  1.414], dtype=float64)
    """
    return _packed(x, axes, partial(_forward, axes=axes, name=name, levels=levels))


@partial(jax.jit, static_argnames=("axes", "name", "levels"))
def inverse(
    c: Inexact[Array, "..."], axes: int, name: str = "db4", levels: int = 4
) -> Inexact[Array, "..."]:
    """Wᵀ c = W⁻¹ c."""
    return _packed(c, axes, partial(_backward, axes=axes, name=name, levels=levels))


class L1Wavelet(Method):
    """x = argmin ½|A x - y|² + λ Σ |details of W x|, by FISTA.

    wavelet  "db1" (Haar) to "db8"
    levels   how often averages are split again; averages of the last level are not penalised
    shifts   whether each iteration moves the wavelets' grid by chance, which takes their blocks
             away and leaves an image of a little more than the least energy

    Lustig, Donoho, Pauly 2007, doi:10.1002/mrm.21391; Figueiredo, Nowak 2003,
    doi:10.1109/TIP.2003.814255 (shifts).
    """

    wavelet: str = "db4"
    levels: int = 4
    shifts: bool = False

    needs_weight: ClassVar[bool] = True
    iterations: ClassVar[int] = 100
    tolerance: ClassVar[float] = 1e-4

    def __check_init__(self):
        low_pass(self.wavelet)
        check_count("L1Wavelet: levels", self.levels)

    def check(self, shape, axes):
        if max(shape[-axes:]) < 2:
            raise InputError(
                Problem("l1-wavelet", f"images of shape {shape}", "two voxels or more")
            )

    def energy(self, x, axes):
        c = transform(x, axes, self.wavelet, self.levels)
        return jnp.sum(jnp.where(self._averages(x.shape, axes), 0.0, jnp.abs(c)))

    def proximal(
        self, x: Complex[Array, "..."], axes: int, by: Float[Array, ""], key: PRNGKeyArray
    ) -> Complex[Array, "..."]:
        """Wᵀ of the shrunk W x."""
        where = tuple(range(-axes, 0))
        by_voxels = jax.random.randint(key, (axes,), 0, 2**self.levels)
        x = jnp.roll(x, by_voxels, where) if self.shifts else x
        c = transform(x, axes, self.wavelet, self.levels)
        c = jnp.where(self._averages(x.shape, axes), c, shrink(c, by))
        x = inverse(c, axes, self.wavelet, self.levels)
        return jnp.roll(x, -by_voxels, where) if self.shifts else x

    def search(self, data, weight, start, stop, key):
        def proximal(x, by, key):
            return self.proximal(x, data.axes, by, key)

        return fista(data, proximal, weight, start, stop, key)

    def _averages(self, shape: tuple[int, ...], axes: int) -> np.ndarray:
        """Which coefficients are averages of the last level."""
        averages = np.ones((1,) * len(shape), bool)
        for axis in range(len(shape) - axes, len(shape)):
            n = shape[axis]
            for _ in range(self.levels):
                n = (n + 1) // 2
            along = np.arange(shape[axis]) < n
            averages = averages & along.reshape(-1, *[1] * (len(shape) - 1 - axis))
        return averages


def _packed(x: Inexact[Array, "..."], axes: int, transform) -> Inexact[Array, "..."]:
    """By a transform of real images (images, *shape): the parts of complex ones are two."""
    shape = x.shape[x.ndim - axes :]
    if not jnp.iscomplexobj(x):
        return transform(x.reshape(-1, *shape)).reshape(x.shape)
    parts = jnp.stack([x.real, x.imag]).reshape(-1, *shape)
    real, imaginary = transform(parts).reshape(2, *x.shape)
    return jax.lax.complex(real, imaginary)


def _corner(shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Of averages."""
    return (slice(None), *(slice(0, (n + 1) // 2) for n in shape[1:]))


def _forward(x: Array, axes: int, name: str, levels: int) -> Array:
    c = x
    for _ in range(axes):
        c = jnp.moveaxis(_split(c, name), 1, -1)
    if levels == 1:
        return c
    corner = _corner(x.shape)
    return c.at[corner].set(_forward(c[corner], axes, name, levels - 1))


def _backward(c: Array, axes: int, name: str, levels: int) -> Array:
    if levels > 1:
        corner = _corner(c.shape)
        c = c.at[corner].set(_backward(c[corner], axes, name, levels - 1))
    for _ in range(axes):
        c = _joined(jnp.moveaxis(c, -1, 1), name)
    return c


def _taps(name: str) -> tuple[Float[np.ndarray, "taps"], Float[np.ndarray, "taps"]]:
    low = low_pass(name)
    return low, (-1.0) ** np.arange(low.size) * low[::-1]


def _split(x: Array, name: str) -> Array:
    """Averages, then differences, of axis 1."""
    n = x.shape[1]
    if n == 1:
        return x
    half = n // 2
    low, high = _taps(name)
    around = jnp.pad(
        x[:, : 2 * half], [(0, 0), (0, low.size - 2), *[(0, 0)] * (x.ndim - 2)], "wrap"
    )
    around = jax.lax.optimization_barrier(around)
    pairs = around.reshape(x.shape[0], -1, 2, *x.shape[2:])

    def filtered(taps: np.ndarray) -> Array:
        terms = [float(tap) * pairs[:, i // 2 : i // 2 + half, i % 2] for i, tap in enumerate(taps)]
        return reduce(jnp.add, terms)

    return jnp.concatenate([filtered(low), x[:, 2 * half :], filtered(high)], axis=1)


def _joined(c: Array, name: str) -> Array:
    """The inverse, and the transpose, of `_split`."""
    n = c.shape[1]
    if n == 1:
        return c
    half = n // 2
    taps = _taps(name)
    before = taps[0].size // 2 - 1
    ends = [(0, 0), (before, 0), *[(0, 0)] * (c.ndim - 2)]
    bands = [jnp.pad(band, ends, "wrap") for band in (c[:, :half], c[:, n - half :])]
    bands = jax.lax.optimization_barrier(bands)

    def voxels(odd: int) -> Array:
        terms = [
            float(filter_[2 * i + odd]) * band[:, before - i : before - i + half]
            for band, filter_ in zip(bands, taps, strict=True)
            for i in range(before + 1)
        ]
        return reduce(jnp.add, terms)

    pairs = jnp.stack([voxels(0), voxels(1)], axis=2)
    x = pairs.reshape(c.shape[0], 2 * half, *c.shape[2:])
    return jnp.concatenate([x, c[:, half : n - half]], axis=1)
