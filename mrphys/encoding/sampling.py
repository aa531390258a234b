"""F: the spectrum of images where it is sampled, on the grid or along a trajectory.

    y(k) = Σ_r x(r) exp(-2πi k·r) / sqrt(voxels)

k in cycles per field of view, r in fields of view, voxel i of n at (i - n // 2) / n.
"""

import math
from collections.abc import Callable
from functools import cache

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from mrphys.encoding.nonuniform import to_grid, to_points

Images = Inexact[Array, "..."]
Points = Float[Array, "samples axes"]


@cache
def _ramp(n: int) -> np.ndarray:
    """exp(2πi k c / n), c = n // 2: signs for even n."""
    centre = n // 2
    if n % 2 == 0:
        return (-1.0) ** np.arange(n)
    return np.exp(2j * np.pi * ((np.arange(n) * centre) % n) / n)


def _centred(x: Images, axes: int, forward: bool) -> Images:
    """Unitary transforms of the last axes, both sides centred: a shift by half of the samples is a
    sign from one to the next, which costs less than moving them."""
    shape = x.shape[-axes:]
    turn = 1.0 + 0.0j
    for i, n in enumerate(shape):
        ramp = _ramp(n) if forward else np.conj(_ramp(n))
        along = jnp.asarray(ramp, x.dtype if np.iscomplexobj(ramp) else x.real.dtype)
        x = x * along.reshape(*[1] * (x.ndim - axes + i), n, *[1] * (axes - 1 - i))
        turn *= np.exp(-2j * np.pi * ((n // 2) ** 2 % n) / n)
    where = tuple(range(-axes, 0))
    transform = jnp.fft.fftn if forward else jnp.fft.ifftn
    x = transform(x, axes=where, norm="ortho")
    for i, n in enumerate(shape):
        ramp = _ramp(n) if forward else np.conj(_ramp(n))
        if i == 0:
            ramp = ramp * (turn if forward else np.conj(turn))
            ramp = ramp if np.max(np.abs(np.imag(ramp))) > 1e-9 else np.real(ramp)
        along = jnp.asarray(ramp, x.dtype if np.iscomplexobj(ramp) else x.real.dtype)
        x = x * along.reshape(*[1] * (x.ndim - axes + i), n, *[1] * (axes - 1 - i))
    return x


def fft(x: Images, axes: int) -> Images:
    """The centred, unitary Fourier transform of the last `axes` axes.

    >>> fft(jnp.zeros((4, 4), complex).at[2, 2].set(4.0), 2).round(6).real[0]
    Array([1., 1., 1., 1.], dtype=float64)
    """
    return _centred(x, axes, True)


def ifft(y: Images, axes: int) -> Images:
    """The inverse, and the adjoint, of `fft`."""
    return _centred(y, axes, False)


class Cartesian(eqx.Module):
    """Samples on the grid: weight 0 where none is taken, 1 where one is.

    Samples have the axes of the grid, zeros where none is taken; frames come before. Weights have
    one entry on an axis along which they are alike: AᴴA then needs no transform along it.
    """

    weight: Float[Array, "*frames_and_grid"]
    shape: tuple[int, ...] = eqx.field(static=True)

    @property
    def frames(self) -> tuple[int, ...]:
        """The shape of the frames that differ in their samples."""
        return self.weight.shape[: self.weight.ndim - len(self.shape)]

    @property
    def samples(self) -> tuple[int, ...]:
        """The shape of the samples of a frame and coil."""
        return self.shape

    def spectrum(self, z: Images, inner: int, mixes: bool) -> Images:
        """At all places of the grid, not yet weighted, of images (..., *frames, *inner, *shape);
        without frames where all have the same images."""
        y = fft(z, len(self.shape))
        before = z.ndim - len(self.shape) - inner
        return jnp.expand_dims(y, [before + i for i in range(len(self.frames))]) if mixes else y

    def image(self, y: Images, inner: int, mixes: bool) -> Images:
        """The adjoint of `spectrum`."""
        if mixes:
            after = len(self.shape) + inner
            y = jnp.sum(y, axis=[-after - 1 - i for i in range(len(self.frames))])
        return ifft(y, len(self.shape))

    def kernels(self, weight: Inexact[Array, "..."], inner: int, mixes: bool) -> Images:
        """Of weights (*frames, *inner, *shape), what multiplies spectra in AᴴA."""
        if mixes:
            weight = jnp.sum(weight, axis=range(len(self.frames)))
        return jnp.fft.ifftshift(weight, axes=range(-len(self.shape), 0))

    def convolved(self, z: Images, multiply: Callable[[Images], Images], varying: int) -> Images:
        """z with its spectrum multiplied by kernels, which vary along the last axes only; what is
        centred stays so."""
        axes = tuple(range(-varying, 0))
        if not axes:
            return multiply(z)
        return jnp.fft.ifftn(multiply(jnp.fft.fftn(z, axes=axes)), axes=axes)


class Along(eqx.Module):
    """Samples along a trajectory.

    k          cycles per field of view, frames of samples of one to three axes
    weight     of each sample
    tolerance  relative error of the transform

    Barnett, Magland, af Klinteberg 2019, doi:10.1137/18M120885X.
    """

    k: Float[Array, "*frames samples axes"]
    weight: Float[Array, "*frames samples"]
    shape: tuple[int, ...] = eqx.field(static=True)
    tolerance: float = eqx.field(static=True)

    @property
    def frames(self) -> tuple[int, ...]:
        """The shape of the frames that differ in their samples."""
        return self.k.shape[:-2]

    @property
    def samples(self) -> tuple[int, ...]:
        """The shape of the samples of a frame and coil."""
        return self.k.shape[-2:-1]

    def spectrum(self, z: Images, inner: int, mixes: bool) -> Images:
        """At the points, not yet weighted, of images (..., *frames, *inner, *shape); without frames
        where all have the same images."""

        def transform(z: Images, k: Points) -> Images:
            y = to_points(z.reshape(-1, *self.shape), self._angles(k), self.tolerance)
            return y.reshape(*z.shape[: z.ndim - len(self.shape)], -1)

        if mixes:
            y = transform(z, self.k.reshape(-1, self.k.shape[-1]))
            y = y.reshape(*y.shape[:-1], *self.k.shape[:-1])
            count = len(self.frames)
            y = jnp.moveaxis(
                y, range(-1 - count, -1), range(y.ndim - 1 - inner - count, y.ndim - 1 - inner)
            )
        else:
            y = self._of_frames(transform, z, inner + len(self.shape))
        return y / math.sqrt(math.prod(self.shape))

    def image(self, y: Images, inner: int, mixes: bool) -> Images:
        """The adjoint of `spectrum`."""

        def transform(y: Images, k: Points) -> Images:
            return self._gridded(self.shape, y, k)

        if mixes:
            x = transform(self._merged(y, inner), self.k.reshape(-1, self.k.shape[-1]))
        else:
            x = self._of_frames(transform, y, inner + 1)
        return x / math.sqrt(math.prod(self.shape))

    def kernels(self, weight: Inexact[Array, "..."], inner: int, mixes: bool) -> Images:
        """Of weights (*frames, *inner, samples), what multiplies the spectra of images in twice the
        field of view in AᴴA, which sees only differences of places (Toeplitz).

        Fessler et al. 2005, doi:10.1109/TSP.2005.853152.
        """
        twice = tuple(2 * n for n in self.shape)
        axes = tuple(range(-len(self.shape), 0))

        def transform(w: Images, k: Points) -> Images:
            return self._gridded(twice, w, k)

        real = not jnp.iscomplexobj(weight)
        weight = weight.astype(jnp.result_type(weight.dtype, jnp.complex64))
        if mixes:
            h = transform(self._merged(weight, inner), self.k.reshape(-1, self.k.shape[-1]))
        else:
            h = self._of_frames(transform, weight, inner + 1)
        for axis in axes:  # places differ by less than the field of view
            inside = jnp.arange(h.shape[axis]) > 0
            h = h * jnp.expand_dims(inside, [i for i in range(h.ndim) if i != h.ndim + axis])
        kernels = jnp.fft.fftn(jnp.fft.ifftshift(h, axes=axes), axes=axes) / math.prod(self.shape)
        return kernels.real if real else kernels

    def convolved(self, z: Images, multiply: Callable[[Images], Images], varying: int) -> Images:
        """z with its spectrum multiplied by kernels."""
        axes = tuple(range(-varying, 0))
        twice = [2 * n for n in self.shape]
        back = jnp.fft.ifftn(multiply(jnp.fft.fftn(z, s=twice, axes=axes)), axes=axes)
        return back[(..., *[slice(0, n) for n in self.shape])]

    def _gridded(self, shape: tuple[int, ...], y: Images, k: Points) -> Images:
        x = to_grid(shape, y.reshape(-1, y.shape[-1]), self._angles(k), self.tolerance)
        return x.reshape(*y.shape[:-1], *shape)

    def _angles(self, k: Points) -> list[Float[Array, " samples"]]:
        turns = k / jnp.asarray(self.shape, k.dtype)[None]
        angle = 2 * math.pi * (turns - jax.lax.stop_gradient(jnp.round(turns)))
        return [angle[:, axis] for axis in range(k.shape[-1])]

    def _merged(self, y: Images, inner: int) -> Images:
        """Samples of all frames on one axis."""
        count = len(self.frames)
        y = jnp.moveaxis(
            y, range(y.ndim - 1 - inner - count, y.ndim - 1 - inner), range(-1 - count, -1)
        )
        return y.reshape(*y.shape[: y.ndim - 1 - count], -1)

    def _of_frames(
        self, transform: Callable[[Images, Points], Images], z: Images, after: int
    ) -> Images:
        """transform(z, k) of each frame, whose axes `after` others follow: one after the other, as
        the library's batches share their points."""
        count = len(self.frames)
        if not count:
            return transform(z, self.k)
        first = z.ndim - after - count
        z = jnp.moveaxis(z, range(first, first + count), range(count))
        z = z.reshape(-1, *z.shape[count:])
        k = self.k.reshape(-1, *self.k.shape[-2:])
        out = jax.lax.map(lambda frame: transform(*frame), (z, k))
        out = out.reshape(*self.frames, *out.shape[1:])
        return jnp.moveaxis(out, range(count), range(first, first + count))
