"""Raw data as read: samples, where they were taken, of what, in which order."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Inexact, Int

from mrphys.coils import mixed, whitening
from mrphys.encoding import Encoding, fft
from mrphys.encoding.encoding import check_points
from mrphys.errors import InputError, Problem
from mrphys.fourier import density_weights
from mrphys.units import check_finite
from mrphys.volume import Volume

Place = tuple[tuple[float, float, float, float], ...]


@dataclass(frozen=True)
class RawData:
    """y of a scan, and what `Encoding` needs to know of it.

    y           (*series, coils, *samples): on a grid, zeros where no sample is, or along readouts
    shape       voxels of the images that are encoded, along two or three axes
    fov_mm      their field of view
    mask        (*series, *shape) of a grid: roots of the numbers of averages, 0 where no sample is;
                samples are their sum over that root, so that noise is alike in all
    trajectory  (*series, samples, axes) in cycles per field of view; one of mask and trajectory
    series      names of the axes before the coils, of "slice", "contrast", "phase", "repetition",
                "set"
    shown       voxels of the images meant, in the middle of `shape`
    readout     samples of each readout of a trajectory
    noise       (coils, samples) of a scan of noise, where there is one
    noise_ratio variance of the noise in y over that in `noise`
    affine      from voxels of a volume as `volume` makes it to RAS+ mm, where it is known
    provenance  what the file tells of its origin

    Raises InputError for samples that are not finite, images of which no sample was taken, shapes
    that do not match, and trajectories that seem in other units.
    """

    y: Complex[np.ndarray, "..."]
    shape: tuple[int, ...]
    fov_mm: tuple[float, ...]
    mask: Float[np.ndarray, "..."] | None = None
    trajectory: Float[np.ndarray, "..."] | None = None
    series: tuple[str, ...] = ()
    shown: tuple[int, ...] = ()
    readout: int = 0
    noise: Complex[np.ndarray, "coils samples"] | None = None
    noise_ratio: float = 1.0
    affine: Float[np.ndarray, "4 4"] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        if not self.shown:
            object.__setattr__(self, "shown", self.shape)
        where = str(self.provenance.get("file", "RawData"))
        if (self.mask is None) == (self.trajectory is None):
            raise InputError(Problem(where, "mask and trajectory, or neither", "one of them"))
        outer = self.y.shape[: len(self.series)]
        given = self.mask if self.mask is not None else self.trajectory
        assert given is not None
        samples = self.shape if self.mask is not None else given.shape[-2:-1]
        tail = self.shape if self.mask is not None else (*samples, len(self.shape))
        problems = []
        if given.shape != (*outer, *tail):
            name = "mask" if self.mask is not None else "trajectory"
            found = f"a {name} of shape {given.shape}, samples {self.y.shape}"
            problems.append(Problem(where, found, f"{(*outer, *tail)}"))
        if self.y.ndim != len(outer) + 1 + len(samples) or self.y.shape[len(outer) + 1 :] != (
            samples
        ):
            found = f"samples {self.y.shape}"
            problems.append(Problem(where, found, f"{(*outer, 'coils', *samples)}"))
        if self.noise is not None and self.noise.shape[0] != self.coils:
            found = f"noise of {self.noise.shape[0]} coils, samples of {self.coils}"
            problems.append(Problem(where, found, "the same coils"))
        if problems:
            raise InputError(*problems)
        cause = "a damaged file, or an overflow in its conversion"
        check_finite(f"{where}: samples", self.y, cause)
        if self.trajectory is not None:
            check_points(f"{where}: trajectory", jnp.asarray(self.trajectory), self.shape)
        there = np.ones(outer, bool) if self.mask is None else self._taken(outer)
        if not there.all() or not self.y.size:
            index = tuple(int(i) for i in np.argwhere(~there)[0]) if there.size else ()
            name = ", ".join(f"{n} {i}" for n, i in zip(self.series, index, strict=True))
            cause = "an interrupted scan, or lines flagged as something else"
            found = f"no sampled line{' of ' + name if name else ''}"
            raise InputError(Problem(where, found, "one line or more in every image", cause))

    def _taken(self, outer: tuple[int, ...]) -> np.ndarray:
        assert self.mask is not None
        return np.asarray(np.any(self.mask != 0, axis=tuple(range(len(outer), self.mask.ndim))))

    @property
    def coils(self) -> int:
        """How many."""
        return self.y.shape[len(self.series)]

    @property
    def _real(self) -> np.dtype:
        return np.finfo(self.y.dtype).dtype

    @property
    def readouts(self) -> int:
        """Of a trajectory, in each image."""
        return 0 if self.trajectory is None else self.trajectory.shape[-2] // max(self.readout, 1)

    def select(self, **index: int) -> "RawData":
        """One place of axes of the series: `raw.select(slice=3, repetition=0)`. Raises InputError
        for an axis or a place that is not there."""
        made = self
        for name, i in index.items():
            if name not in made.series:
                there = ", ".join(made.series) or "none"
                raise InputError(Problem("RawData.select", f"axis {name!r}", f"of {there}"))
            axis = made.series.index(name)
            count = made.y.shape[axis]
            if not -count <= i < count:
                found = f"{name} {i} of {count}"
                raise InputError(Problem("RawData.select", found, f"0 to {count - 1}"))
            rest = tuple(n for n in made.series if n != name)
            taken = {
                key: np.take(value, i, axis=axis)
                for key in ("y", "mask", "trajectory")
                if (value := getattr(made, key)) is not None
            }
            affine = made.affine
            if name == "slice" and affine is not None:
                affine = affine.copy()
                affine[:3, 3] += affine[:3, 2] * (i % count)
            made = replace(made, series=rest, affine=affine, **taken)
        return made

    def lines(self, which: Int[np.ndarray, " kept"]) -> "RawData":
        """Some of a trajectory's readouts. Raises InputError on a grid."""
        if self.trajectory is None or not self.readout:
            raise InputError(Problem("RawData.lines", "a grid", "readouts along a trajectory"))
        samples = (which[:, None] * self.readout + np.arange(self.readout)[None]).ravel()
        k = np.take(self.trajectory, samples, axis=-2)
        return replace(self, y=np.take(self.y, samples, axis=-1), trajectory=k)

    def whitened(self) -> tuple["RawData", float]:
        """With noise that is independent from coil to coil, and the sd of its real and imaginary
        part (`mrphys.coils.whitening`). Raises InputError without a scan of noise."""
        whitener, sd = whitening(self.noise, ratio=self.noise_ratio)
        return replace(self.mixed(whitener), noise_ratio=1.0), sd

    def mixed(self, matrix: Inexact[Array | np.ndarray, "virtual coils"]) -> "RawData":
        """Of virtual coils, by a matrix of `mrphys.coils.compression`."""
        y = np.asarray(mixed(self.y, matrix, axis=len(self.series)))
        noise = None
        if self.noise is not None:
            noise = np.asarray(mixed(self.noise, matrix)) * np.sqrt(self.noise_ratio)
        return replace(self, y=y.astype(self.y.dtype), noise=noise, noise_ratio=1.0)

    def edge_noise_sd(self) -> float:
        """The sd of the real part of noise from the outermost tenth of k-space, for want of a scan
        of noise: half the median eigenvalue of the coils' covariance there, as signal fills few of
        many coils' combinations. Of few coils an upper bound. Raises InputError where less than 16
        samples, or twice the coils, were taken there."""
        if self.mask is not None:
            places = np.meshgrid(
                *[np.abs(np.arange(n) - n // 2) / (n / 2) for n in self.shape], indexing="ij"
            )
            outside = (np.max(places, axis=0) > 0.9) & (self.mask > 0)
        else:
            assert self.trajectory is not None
            reach = np.max(np.abs(self.trajectory), axis=tuple(range(self.trajectory.ndim - 1)))
            share = self.trajectory / np.maximum(reach, 1e-6)
            outside = np.linalg.norm(share, axis=-1) > 0.9
        there = np.moveaxis(self.y, len(self.series), 0)[:, outside]
        least = max(16, 2 * self.coils)
        if there.shape[1] < least:
            found = f"{there.shape[1]} samples in the outermost tenth of k-space"
            raise InputError(Problem("noise", found, f"{least} or more, or a scan of noise"))
        covariance = there @ there.conj().T / there.shape[1]
        return float(np.sqrt(np.median(np.linalg.eigvalsh(covariance)) / 2))

    def encoding(
        self, coils: Inexact[Array | np.ndarray, "..."] | None = None, *, tolerance: float = 1e-6
    ) -> Encoding:
        """A of y = A x + η: series are frames. Slices have coils of their own: `select` one first.

        Raises InputError for more than one slice with coils, and coils of another number or shape.
        """
        if "slice" in self.series and coils is not None:
            found = "several slices with one set of coils"
            raise InputError(Problem("RawData.encoding", found, "raw.select(slice=...) first"))
        if coils is None:
            maps = None if self.coils > 1 else jnp.ones((1, *self.shape), self.y.dtype)
        else:
            maps = jnp.asarray(coils, self.y.dtype)
            if maps.shape[0] != self.coils:
                found = f"sensitivities of {maps.shape[0]} coils, samples of {self.coils}"
                cause = "maps of another scan, or before compression"
                raise InputError(Problem("RawData.encoding: coils", found, "as many", cause))
        if maps is None:
            found = f"{self.coils} coils without sensitivities"
            raise InputError(Problem("RawData.encoding", found, "mrphys.coils.espirit or others"))
        if self.mask is not None:
            return Encoding.cartesian(self.mask, maps)
        return Encoding.noncartesian(self._k(), maps, tolerance=tolerance)

    def _k(self) -> Float[np.ndarray, "..."]:
        assert self.trajectory is not None
        return self.trajectory.astype(self._real)

    def density(self) -> Float[np.ndarray, "..."]:
        """What each sample weighs in an adjoint: its part of k-space in cells of a cycle per field
        of view (`mrphys.fourier.density_weights`); on a grid one over the averages."""
        if self.mask is not None:
            return np.divide(1.0, self.mask**2, out=np.zeros_like(self.mask), where=self.mask > 0)
        assert self.trajectory is not None
        axes = len(self.shape)
        each = self.trajectory.reshape(-1, *self.trajectory.shape[-2:])
        weights = np.stack([density_weights(k, (1.0,) * axes) for k in each])
        return weights.reshape(self.trajectory.shape[:-1]).astype(self._real)

    def images(self) -> Complex[Array, "..."]:
        """(*series, coils, *shape), the adjoint of each coil, samples weighed by their density."""
        w = np.expand_dims(self.density(), len(self.series)).astype(self._real)
        samples = np.expand_dims(self.mask, len(self.series)) if self.mask is not None else 1.0
        y = jnp.asarray((self.y * w * samples).astype(self.y.dtype))
        if self.mask is not None:
            return Encoding.cartesian(np.ones(self.shape, y.real.dtype)).H(y)
        k = self._k()
        flat = [
            Encoding.noncartesian(points, shape=self.shape, tolerance=1e-4).H(one)
            for points, one in zip(
                k.reshape(-1, *k.shape[-2:]), y.reshape(-1, *y.shape[-2:]), strict=True
            )
        ]
        return jnp.stack(flat).reshape(*y.shape[:-1], *self.shape)

    def calibration(self, width: int = 24) -> Complex[np.ndarray, "coils ..."]:
        """The middle of k-space, (coils, *region), from all frames of a slice: the largest region
        without gaps, at most `width` along each axis; along trajectories from density-compensated
        images. Raises InputError for several slices, and where the middle was not sampled."""
        if "slice" in self.series:
            expected = "raw.select(slice=...) first"
            raise InputError(Problem("RawData.calibration", "several slices", expected))
        before = tuple(range(len(self.series)))
        if self.mask is None:
            axes = len(self.shape)
            spectrum = np.asarray(fft(jnp.mean(self.images(), axis=before), axes))
            width_of = [min(width, n) for n in self.shape]
            return spectrum[(slice(None), *_middle(self.shape, width_of))]
        weight = np.sum(self.mask**2, axis=before)
        root = np.expand_dims(self.mask, len(self.series))
        total = np.sum(self.y * root, axis=before)
        mean = np.divide(total, weight[None], out=np.zeros_like(total), where=weight[None] > 0)
        region, growing = [1] * len(self.shape), True
        while growing:  # by turns, so that no axis takes another's room
            growing = False
            for axis, n in enumerate(self.shape):
                more = [m + (i == axis) for i, m in enumerate(region)]
                if more[axis] <= min(width, n) and np.all(weight[_middle(self.shape, more)] > 0):
                    region, growing = more, True
        if min(region) < 2 <= min(self.shape):
            cause = "regular undersampling without calibration lines: give sensitivities"
            found = "gaps in the middle of k-space"
            raise InputError(Problem("RawData.calibration", found, "lines there", cause))
        return mean[(slice(None), *_middle(self.shape, region))]

    def cropped(self, image: Inexact[Array | np.ndarray, "..."]) -> Inexact[Array, "..."]:
        """The field of view meant, of images (..., *shape)."""
        return jnp.asarray(image)[(..., *_middle(self.shape, self.shown))]

    def volume(self, image: Inexact[Array | np.ndarray, "..."]) -> Volume:
        """Images (x, y), (x, y, z) or (x, y, z, frames) of the voxels shown, z the slices of two
        axes, in space. Where the file tells no place, about the middle."""
        data = np.asarray(image)
        data = data[..., None] if data.ndim == 2 else data
        affine = self.affine
        if affine is None:
            step = [f / n for f, n in zip(self.fov_mm, self.shape, strict=True)]
            step = (*step, 1.0)[:3]
            affine = np.diag([*step, 1.0])
            affine[:3, 3] = [-s * (n // 2) for s, n in zip(step, data.shape, strict=False)]
        return Volume(data, affine)


def _middle(shape: tuple[int, ...], size: Any) -> tuple[slice, ...]:
    return tuple(
        slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(shape, size, strict=True)
    )
