"""A: what a scanner makes of an image."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Complex, Float, Inexact, Int

from mrphys.devices import cores
from mrphys.encoding.linear import Linear, Normal, Numbers
from mrphys.encoding.sampling import Along, Cartesian
from mrphys.encoding.segments import segments
from mrphys.encoding.terms import Terms
from mrphys.errors import InputError, Problem
from mrphys.units import check_finite

LARGE, CHAINS = 2**18, 8
"""Numbers of all coils' images from which on coils are shared among threads, at most so many."""
FEW_KERNELS = 16
"""Above so many, one transform after the other costs less than all of the convolution's kernels."""


class Encoding(Linear):
    """y = A x: coils, then the spectrum where it is sampled.

        y_cj = Σ_r exp(-2πi k_j·r) c_c(r) x(r) / sqrt(voxels)

    and, with terms (`subspace`, `slices_at_once`, `shots`, `off_resonance`, in any combination),

        y_cj = Σ_l b_lj Σ_r exp(-2πi k_j·r) c_c(r) w_l(r) x_s(l)(r) / sqrt(voxels)

    x  (..., *frames, *images, *shape): images of a subspace, of slices or of shots where there are,
       no frames where all are made of the same images
    y  (..., *frames, coils, *samples): a Cartesian scan's samples are a grid, zeros where none is
       taken; without coils no axis of theirs

    k in cycles per field of view, r in fields of view, voxel i of n at (i - n // 2) / n; centred,
    unitary. `A.H(y)` is the adjoint, `A.normal` AᴴA: of the grid by a product, along trajectories
    by a convolution (Toeplitz), right to the transform's tolerance. Differentiable in x, y, points
    of the trajectory, coils and fields.
    """

    sampling: Cartesian | Along
    coils: Complex[Array, "..."] | None = None
    terms: Terms | None = None

    @staticmethod
    def cartesian(
        mask: Bool[Array | np.ndarray, "..."] | Float[Array | np.ndarray, "..."],
        coils: Inexact[Array | np.ndarray, "..."] | None = None,
        *,
        axes: int | None = None,
    ) -> "Encoding":
        """On a grid of one to three axes.

        mask   (*frames, *shape), what is sampled; an axis of one entry is alike along the coils'
               axis. Numbers weigh samples
        coils  (coils, *shape), or (coils, slices, *shape) for `slices_at_once`, then with `axes`
        axes   how many axes are of space; unless given, those of the coils, or all of the mask's

        Raises InputError where shapes do not match, a frame samples nothing, or coils are not
        finite.

        >>> A = Encoding.cartesian(jnp.ones((4, 6), bool))
        >>> A(jnp.ones((4, 6))).round(6)[2, 3]
        Array(4.898979+0.j, dtype=complex128)
        """
        maps = None if coils is None else jnp.asarray(coils)
        weight = jnp.asarray(mask)
        count = axes or (weight.ndim if maps is None else maps.ndim - 1)
        if not 1 <= count <= 3 or count > weight.ndim:
            found = f"a mask of shape {weight.shape}, {count} axes of space"
            raise InputError(Problem("Encoding.cartesian", found, "one to three axes of space"))
        shape = weight.shape[-count:] if maps is None else maps.shape[-count:]
        grid = weight.shape[-count:]
        if any(m not in (1, n) for m, n in zip(grid, shape, strict=True)):
            cause = "axes in another order, or a mask of another matrix"
            found = f"mask {grid}, coils {shape}"
            raise InputError(Problem("Encoding.cartesian", found, "one shape", cause))
        precision = jnp.zeros((), maps.dtype).real.dtype if maps is not None else float
        weight = weight.astype(precision)
        if not isinstance(weight, Tracer):
            check_finite("Encoding.cartesian: mask", weight)
            taken = np.asarray(weight).reshape(-1, math.prod(grid)).any(axis=1)
            if not taken.all():
                found = f"no sample in frame {int(np.argmin(taken))} of {taken.size}"
                raise InputError(Problem("Encoding.cartesian: mask", found, "one sample or more"))
            weight = _one_where_alike(weight, count)
        return Encoding(Cartesian(weight, shape), _received(maps, shape, weight.dtype))

    @staticmethod
    def noncartesian(
        trajectory: Float[Array | np.ndarray, "*frames samples axes"],
        coils: Inexact[Array | np.ndarray, "..."] | None = None,
        shape: Sequence[int] | None = None,
        *,
        weight: Float[Array | np.ndarray, "*frames samples"] | None = None,
        tolerance: float = 1e-6,
    ) -> "Encoding":
        """Along a trajectory.

        trajectory  cycles per field of view, |k| at most half of the matrix
        coils       (coils, *shape), or (coils, slices, *shape) for `slices_at_once`
        shape       voxels along each axis; the coils' unless given
        weight      of each sample, 1 unless given
        tolerance   relative error of the transform; single precision reaches 1e-6

        Raises InputError where shapes do not match, and for points that are not finite, beyond the
        matrix, or, as it seems, in other units.
        """
        k = jnp.asarray(trajectory)
        axes = k.shape[-1]
        maps = None if coils is None else jnp.asarray(coils)
        if shape is None:
            if maps is None:
                raise InputError(Problem("Encoding.noncartesian", "neither coils nor shape", "one"))
            shape = maps.shape[-axes:]
        size = tuple(int(n) for n in shape)
        if not 1 <= axes <= 3 or len(size) != axes:
            found = f"points of {axes} axes, an image of {len(size)}"
            raise InputError(Problem("Encoding.noncartesian", found, "one to three of each"))
        check_points("Encoding.noncartesian: trajectory", k, size)
        w = jnp.ones(k.shape[:-1], k.dtype) if weight is None else jnp.asarray(weight, k.dtype)
        if w.shape != k.shape[:-1]:
            found = f"weights {w.shape} of points {k.shape[:-1]}"
            raise InputError(Problem("Encoding.noncartesian: weight", found, "one for each point"))
        return Encoding(Along(k, w, size, float(tolerance)), _received(maps, size, k.dtype))

    def subspace(self, basis: Inexact[Array | np.ndarray, "frames images"]) -> "Encoding":
        """Frames x_t = Σ_k basis_tk x_k of few images x_k: contrasts over time, echoes, a
        dictionary's singular vectors. The sampling has one axis of frames.

        Tamir et al. 2017, doi:10.1002/mrm.26102 (shuffling).
        """
        frames = self.sampling.frames
        basis = jnp.asarray(basis)
        if len(frames) != 1 or basis.shape[0] != frames[0]:
            found = f"a basis of {basis.shape[0]} frames, sampling of {frames}"
            raise InputError(Problem("Encoding.subspace", found, "as many, on one axis"))
        count = basis.shape[1]
        each = tuple(range(count))
        b = basis.reshape(*basis.shape, *[1] * len(self.sampling.samples))
        return self._with(Terms(b, None, count, each, (0,) * count, True, b.ndim - 2))

    def slices_at_once(self, phase_rad: Float[Array | np.ndarray, "slices ..."]) -> "Encoding":
        """Slices excited together, the signal of slice s turned by a phase in each sample (CAIPI).

        phase_rad  (slices, *samples), axes of one entry where it is alike

        Breuer et al. 2005, doi:10.1002/mrm.20401; Setsompop et al. 2012, doi:10.1002/mrm.23097.
        """
        phase = jnp.asarray(phase_rad)
        axes = len(self.sampling.samples)
        _fits("Encoding.slices_at_once: phase_rad[0]", phase.shape[1:], self.sampling.samples)
        count = phase.shape[0]
        maps = self.coils
        if maps is not None and maps.shape[1:] != (count, *self.sampling.shape):
            found = f"{count} slices of {self.sampling.shape}, coils {maps.shape}"
            raise InputError(Problem("Encoding.slices_at_once", found, "(coils, slices, *shape)"))
        each = tuple(range(count))
        b = jnp.exp(1j * phase).reshape(*[1] * len(self.sampling.frames), *phase.shape)
        return self._with(Terms(b, None, count, each, each, False, axes))

    def shots(self, shot: Int[Array | np.ndarray, "..."], count: int) -> "Encoding":
        """Samples of a grid taken in shots, each of an image of its own: x (shots, *shape), such as
        `RigidMotion` makes of one.

        shot  the number of the shot of each sample, of the grid's shape or axes of one entry
        """
        label = np.asarray(shot)
        axes = len(self.sampling.samples)
        _fits("Encoding.shots: shot", label.shape, self.sampling.samples)
        if label.min() < 0 or label.max() >= count:
            found, expected = f"shots {label.min()} to {label.max()}", f"0 to {count - 1}"
            raise InputError(Problem("Encoding.shots", found, expected))
        taken = label[None] == np.arange(count).reshape(-1, *[1] * axes)
        b = jnp.asarray(taken, self.sampling.weight.dtype).reshape(
            *[1] * len(self.sampling.frames), *taken.shape
        )
        return self._with(Terms(b, None, count, tuple(range(count)), (0,) * count, False, axes))

    def off_resonance(
        self,
        b0_hz: Float[Array | np.ndarray, "*shape"],
        time_s: Float[Array | np.ndarray, "..."],
        *,
        r2star_per_s: Float[Array | np.ndarray, "*shape"] | None = None,
        span: tuple[float, float] | None = None,
        tolerance: float = 1e-3,
    ) -> "Encoding":
        """Precession and decay while samples are taken: exp(-(R2* + 2πi b0) t) of each voxel.

        time_s  of each sample, (*samples) or axes of one entry, from where the image is as it is
                (an echo's time, say, there 0)
        span    the lowest and highest b0 in Hz for which segments are made: the map's unless given;
                needed where it is traced

        By segments in time, as many as the tolerance needs (`mrphys.encoding.segments`); the
        derivative in b0 and R2* is that of the segments.
        """
        shape, samples = self.sampling.shape, self.sampling.samples
        field = jnp.asarray(b0_hz, self.sampling.weight.dtype)
        time = np.asarray(time_s, float)
        if field.shape != shape:
            found = f"a map of shape {field.shape}, images of {shape}"
            raise InputError(Problem("Encoding.off_resonance: b0_hz", found, "one shape"))
        _fits("Encoding.off_resonance: time_s", time.shape, samples)
        decay = None if r2star_per_s is None else jnp.asarray(r2star_per_s, field.dtype)
        made = segments(field, time, decay, span, tolerance)
        b = made.over_time.reshape(*[1] * len(self.sampling.frames), *made.over_time.shape)
        count = b.shape[len(self.sampling.frames)]
        zeros = (0,) * count
        return self._with(Terms(b, made.over_voxels, 0, zeros, zeros, False, len(samples)))

    def _with(self, terms: Terms) -> "Encoding":
        made = terms if self.terms is None else self.terms.times(terms)
        return Encoding(self.sampling, self.coils, made)

    def weighted(self, weight: Float[Array | np.ndarray, "..."]) -> "Encoding":
        """Each sample times a weight besides: a mask of some, the root of a density."""
        now = self.sampling.weight
        _fits(
            "Encoding.weighted", np.shape(weight), (*self.sampling.frames, *self.sampling.samples)
        )
        return eqx.tree_at(lambda A: A.sampling.weight, self, now * jnp.asarray(weight, now.dtype))

    def by_thread(self) -> list[tuple["Encoding", slice]]:
        """Of some of the coils each, and which: itself, or, of many coils' large images on a
        processor, whose transforms keep one thread busy each, one for every thread."""
        coils = self.coils
        if coils is None or coils.size < LARGE or jax.default_backend() != "cpu":
            return [(self, slice(None))]
        chains = min(cores(), coils.shape[0], CHAINS)
        ends = [coils.shape[0] * i // chains for i in range(chains + 1)]
        some = [slice(*pair) for pair in pairwise(ends)]
        return [(eqx.tree_at(lambda A: A.coils, self, coils[which]), which) for which in some]

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        parts = self.by_thread()
        if isinstance(self.sampling, Along) or len(parts) == 1:
            return self._measured(x)
        axis = -len(self.sampling.samples) - 1
        return jnp.concatenate([A._measured(x) for A, _ in parts], axis=axis)

    def _measured(self, x: Numbers) -> Complex[Array, "..."]:
        y = self.sampling.spectrum(self._parts(x), self._inner, self._mixes)
        if self.terms is not None:
            y = jnp.sum(_times(y, self._by_coil(self.terms.over_samples)), axis=self._terms_at)
        return _times(y, self._by_coil(self.sampling.weight))

    def adjoint(self, y: Numbers, /) -> Complex[Array, "..."]:
        coils = () if self.coils is None else self.coils.shape[:1]
        _check("data", y, (*self.sampling.frames, *coils, *self.sampling.samples))
        parts = self.by_thread()
        if isinstance(self.sampling, Along) or len(parts) == 1:
            return self._imaged(y)
        after = (slice(None),) * len(self.sampling.samples)
        return reduce(jnp.add, [A._imaged(y[(..., which, *after)]) for A, which in parts])

    def _imaged(self, y: Numbers) -> Complex[Array, "..."]:
        y = _times(_as_complex(y), self._by_coil(self.sampling.weight))
        if self.terms is not None:
            b = self._by_coil(self.terms.over_samples)
            y = _times(jnp.expand_dims(y, self._terms_at), jnp.conj(b))
        return self._whole(self.sampling.image(y, self._inner, self._mixes))

    @property
    def taken(self) -> Bool[Array, "..."]:
        return self._by_coil(self.sampling.weight) != 0

    @property
    def axes(self) -> int:
        return len(self.sampling.shape)

    @property
    def normal(self) -> Callable[[Numbers], Complex[Array, "..."]]:
        terms = self.terms
        if terms is None:
            return self._kernels(self.sampling.weight**2)
        if isinstance(self.sampling, Along) and len(terms.reads) ** 2 > FEW_KERNELS:
            return Normal(self)
        axis = terms.over_samples.ndim - terms.sample_axes
        b = terms.over_samples
        pairs = jnp.conj(jnp.expand_dims(b, axis)) * jnp.expand_dims(b, axis - 1)
        weight = jnp.expand_dims(self.sampling.weight**2, (axis - 1, axis))
        return self._kernels(pairs * weight)

    @property
    def _mixes(self) -> bool:
        return self.terms is not None and self.terms.mixes

    @property
    def _inner(self) -> int:
        """Axes between frames and space or samples."""
        return (self.terms is not None) + (self.coils is not None)

    @property
    def _terms_at(self) -> int:
        """The axis of terms in data."""
        return -len(self.sampling.samples) - 1 - (self.coils is not None)

    def _by_coil(self, each: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
        """With an axis for coils before that of samples."""
        at = -len(self.sampling.samples) - 1
        return each if self.coils is None else jnp.expand_dims(each, at)

    def _kernels(self, weight: Inexact[Array, "..."]) -> "Gram":
        """Of weights of samples in the sum over samples of AᴴA."""
        inner = weight.ndim - self.sampling.weight.ndim
        kernels = self.sampling.kernels(weight, inner, self._mixes)
        axes = len(self.sampling.shape)
        order = tuple(sorted(range(axes), key=lambda axis: kernels.shape[axis - axes] > 1))
        varying = sum(n > 1 for n in kernels.shape[-axes:])
        kernels = turned(kernels, order)
        kernels = kernels if self.coils is None else jnp.expand_dims(kernels, -axes - 1)
        return Gram(self._with_axes(order), kernels, order, varying)

    def _with_axes(self, order: tuple[int, ...]) -> "Encoding":
        """Of images whose axes are in another order."""
        if order == tuple(range(len(order))) or isinstance(self.sampling, Along):
            return self
        shape = tuple(self.sampling.shape[axis] for axis in order)
        coils, terms = self.coils, self.terms
        if terms is not None:
            voxels = terms.over_voxels
            voxels = None if voxels is None else turned(voxels, order)
            terms = replace(
                terms, over_samples=turned(terms.over_samples, order), over_voxels=voxels
            )
        sampling = Cartesian(turned(self.sampling.weight, order), shape)
        return Encoding(sampling, None if coils is None else turned(coils, order), terms)

    def _parts(self, x: Numbers) -> Complex[Array, "..."]:
        """Images of each term and coil, (..., *frames, *terms, *coils, *shape)."""
        shape, terms = self.sampling.shape, self.terms
        frames = () if self._mixes else self.sampling.frames
        images = (terms.images,) if terms is not None and terms.images else ()
        _check("images", x, (*frames, *images, *shape))
        z, at = _as_complex(x), -len(shape) - 1
        if terms is not None:
            z = jnp.take(z, np.asarray(terms.reads), axis=at) if images else jnp.expand_dims(z, at)
            z = z if terms.over_voxels is None else _times(z, terms.over_voxels)
        return z if self.coils is None else _times(jnp.expand_dims(z, at), self._maps())

    def _whole(self, z: Complex[Array, "..."]) -> Complex[Array, "..."]:
        """The adjoint of `_parts`."""
        shape, terms = self.sampling.shape, self.terms
        at = -len(shape) - 1
        if self.coils is not None:
            z = jnp.sum(_times(z, jnp.conj(self._maps())), axis=at)
        if terms is None:
            return z
        z = z if terms.over_voxels is None else _times(z, jnp.conj(terms.over_voxels))
        if not terms.images:
            return jnp.sum(z, axis=at)
        if terms.reads == tuple(range(terms.images)):
            return z
        z = jnp.moveaxis(z, at, 0)
        x = jnp.zeros((terms.images, *z.shape[1:]), z.dtype).at[np.asarray(terms.reads)].add(z)
        return jnp.moveaxis(x, 0, at)

    def _maps(self) -> Complex[Array, "..."]:
        """Of coils: (coils, *shape), or (terms, coils, *shape)."""
        maps, axes = self.coils, len(self.sampling.shape)
        assert maps is not None
        if maps.ndim == axes + 1:
            return maps
        slices = (0,) if self.terms is None else self.terms.slices
        maps = jnp.moveaxis(maps, 1, 0)[np.asarray(slices)]
        return maps[0] if self.terms is None else maps


def _received(
    maps: Inexact[Array, "..."] | None, shape: tuple[int, ...], dtype: jnp.dtype
) -> Complex[Array, "..."] | None:
    """Coils, looked at."""
    if maps is None:
        return None
    axes = len(shape)
    if maps.ndim not in (axes + 1, axes + 2) or maps.shape[-axes:] != shape:
        found = f"coils {maps.shape} of images {shape}"
        raise InputError(Problem("Encoding: coils", found, "(coils, *shape)"))
    check_finite("Encoding: coils", maps)
    return maps.astype(jnp.result_type(dtype, jnp.complex64))


def check_points(where: str, k: Float[Array, "..."], shape: tuple[int, ...]) -> None:
    """Points in cycles per field of view: as far as the matrix asks, and not in other units."""
    if isinstance(k, Tracer):
        return
    check_finite(where, k)
    farthest = np.abs(np.asarray(k)).reshape(-1, len(shape)).max(axis=0)
    edge = np.array(shape) / 2
    found = f"points as far as {', '.join(f'{far:.4g}' for far in farthest)}"
    expected = f"cycles per field of view, up to {', '.join(f'{n:g}' for n in edge)}"
    if np.any(farthest > 1.02 * edge + 0.5):
        cause = "1/m or rad/m, not times the field of view, or a matrix too small"
        raise InputError(Problem(where, found, expected, cause))
    if farthest.max() <= 0.51 < edge.max() / 2:
        raise InputError(Problem(where, found, expected, "cycles per voxel; times the matrix"))
    if abs(farthest.max() / np.pi - 1) < 0.03 and edge.max() > 8:
        raise InputError(Problem(where, found, expected, "radians per voxel; times matrix / 2π"))


def _fits(where: str, shape: tuple[int, ...], samples: tuple[int, ...]) -> None:
    alike = len(shape) == len(samples) and all(
        m in (1, n) for m, n in zip(shape, samples, strict=True)
    )
    if not alike:
        raise InputError(Problem(where, f"shape {shape}", f"{samples}, or 1 where alike"))


class Gram(eqx.Module):
    """AᴴA by one convolution, its kernels made once; along the axes in which they vary, which come
    last, as transforms of contiguous axes cost least.

    order    axes of space, as encoding and kernels have them
    varying  how many of them
    """

    encoding: Encoding
    kernels: Inexact[Array, "..."]
    order: tuple[int, ...] = eqx.field(static=True)
    varying: int = eqx.field(static=True)

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        back = tuple(int(i) for i in np.argsort(self.order))
        return turned(self.in_order(turned(jnp.asarray(x), self.order)), back)

    def in_order(self, x: Numbers, /) -> Complex[Array, "..."]:
        """Of images whose axes of space are in `order` already, as what it gives."""
        return reduce(jnp.add, [self._of(each, x) for each, _ in self.encoding.by_thread()])

    def _of(self, encoding: Encoding, x: Numbers) -> Complex[Array, "..."]:
        at = -len(encoding.sampling.shape) - 1 - (encoding.coils is not None)

        def multiply(z: Complex[Array, "..."]) -> Complex[Array, "..."]:
            if encoding.terms is None:
                return _times(z, self.kernels)
            return jnp.sum(_times(jnp.expand_dims(z, at - 1), self.kernels), axis=at)

        return encoding._whole(
            encoding.sampling.convolved(encoding._parts(x), multiply, self.varying)
        )


def turned(z: Inexact[Array, "..."], order: tuple[int, ...]) -> Inexact[Array, "..."]:
    """The last axes in another order."""
    before = z.ndim - len(order)
    return jnp.transpose(z, (*range(before), *(before + axis for axis in order)))


def _one_where_alike(weight: Float[Array, "..."], axes: int) -> Float[Array, "..."]:
    """One entry on those of the last axes along which all are alike."""
    for axis in range(weight.ndim - axes, weight.ndim):
        first = jax.lax.slice_in_dim(weight, 0, 1, axis=axis)
        weight = first if bool(jnp.all(weight == first)) else weight
    return weight


def _as_complex(x: Numbers) -> Complex[Array, "..."]:
    x = jnp.asarray(x)
    return x.astype(jnp.result_type(x.dtype, jnp.complex64))


def _times(z: Inexact[Array, "..."], weight: Inexact[Array, "..."]) -> Inexact[Array, "..."]:
    """z weight, along the last axes."""
    return z * weight.reshape(*[1] * (z.ndim - weight.ndim), *weight.shape)


def _check(what: str, value: Numbers, shape: tuple[int, ...]) -> None:
    if value.shape[value.ndim - len(shape) :] != shape or value.ndim < len(shape):
        expected = f"(..., {', '.join(map(str, shape))})"
        raise InputError(Problem(f"Encoding: {what}", f"shape {value.shape}", expected))
