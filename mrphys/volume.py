"""An image in space: an array and the affine that places its voxels, in millimetres."""

from collections.abc import Sequence
from functools import partial
from typing import Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float, Shaped
from nibabel import orientations

from mrphys.errors import InputError, Problem

Method = Literal["linear", "nearest"]


class Volume(eqx.Module):
    """An array over space, its voxel (i, j, k) centred at `affine @ (i, j, k, 1)` mm in RAS+.

    `data` is (x, y, z) or (x, y, z, channels), NumPy or JAX, any dtype; an axis may be one voxel
    thick. `affine` is a 4x4 invertible matrix, kept in float64 whatever the data's precision.
    Raises InputError for data of other ranks, and for an affine that is not 4x4, finite,
    invertible, with last row (0, 0, 0, 1).

    The affine is static: `jax.jit` compiles once per geometry, and derivatives are with respect
    to the data only.

    >>> volume = Volume(np.zeros((4, 4, 1)), np.diag([2.0, 2.0, 5.0, 1.0]))
    >>> volume.spacing_mm, volume.orientation, volume.voxel_volume_mm3
    ((2.0, 2.0, 5.0), 'RAS', 20.0)
    """

    data: Shaped[Array | np.ndarray, "..."]
    _affine: tuple[tuple[float, ...], ...] = eqx.field(static=True)

    def __init__(self, data: Shaped[Array | np.ndarray, "..."], affine):
        affine = np.asarray(affine, np.float64)
        problems = list(_problems(data.shape, affine))
        if problems:
            raise InputError(*problems)
        self.data = data
        self._affine = tuple(map(tuple, affine.tolist()))

    @property
    def affine(self) -> Float[np.ndarray, "4 4"]:
        """From voxel indices to RAS+ millimetres, float64."""
        return np.array(self._affine)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Voxels along each axis, channels apart."""
        x, y, z = self.data.shape[:3]
        return x, y, z

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Distance between neighbouring voxel centres along each axis."""
        x, y, z = np.linalg.norm(self.affine[:3, :3], axis=0).tolist()
        return x, y, z

    @property
    def voxel_volume_mm3(self) -> float:
        """Volume of one voxel: the triple product |(a × b) · c| of its edges."""
        a, b, c = self.affine[:3, :3].T
        return float(abs(np.cross(a, b) @ c))

    @property
    def orientation(self) -> str:
        """Where each array axis points, to the closest anatomical direction: "RAS", "LPS", ..."""
        return "".join(orientations.aff2axcodes(self.affine))

    @property
    def placed(self) -> str:
        """Where the voxels are, in words."""
        size = " x ".join(f"{step:.4g}" for step in self.spacing_mm)
        origin = ", ".join(f"{place:.4g}" for place in self.affine[:3, 3])
        return f"{self.shape} voxels of {size} mm from ({origin}) mm"

    def with_data(self, data: Shaped[Array | np.ndarray, "..."]) -> "Volume":
        """The same place with other data. Raises InputError when the voxels do not match."""
        if data.shape[:3] != self.shape:
            raise InputError(
                Problem(
                    "Volume.with_data",
                    f"data of shape {data.shape}",
                    f"voxels {self.shape}",
                    "data of another image",
                )
            )
        return Volume(data, self.affine)

    def same_grid(self, other: "Volume", tolerance_mm: float = 1e-3) -> bool:
        """Whether the voxels coincide: equal shapes, corner voxels within the tolerance."""
        if self.shape != other.shape:
            return False
        last = np.array(self.shape) - 1
        corners = np.array([[*(last * bits), 1] for bits in np.ndindex(2, 2, 2)]).T
        apart = (self.affine - other.affine)[:3] @ corners
        return bool(np.linalg.norm(apart, axis=0).max() <= tolerance_mm)

    def crop(self, slices: Sequence[slice]) -> "Volume":
        """The voxels within three slices of unit step; each stays where it is in space.

        Raises InputError for an empty crop or another step.
        """
        starts, lengths = [], []
        for axis, (size, taken) in enumerate(zip(self.shape, slices, strict=True)):
            start, stop, step = taken.indices(size)
            if step != 1 or stop <= start:
                raise InputError(
                    Problem(
                        f"Volume.crop, axis {axis}",
                        f"{taken} of {size} voxels",
                        "at least one voxel, with step 1",
                        "a mask that is empty",
                    )
                )
            starts.append(start)
            lengths.append(stop - start)
        window = tuple(slice(a, a + n) for a, n in zip(starts, lengths, strict=True))
        affine = self.affine
        affine[:3, 3] += affine[:3, :3] @ starts
        return Volume(self.data[window], affine)

    def to_canonical(self) -> "Volume":
        """Axes permuted and flipped, nothing interpolated, to point closest to R, A and S.

        >>> flipped = Volume(np.arange(3.0).reshape(3, 1, 1), np.diag([-1.0, 1.0, 1.0, 1.0]))
        >>> flipped.orientation, flipped.to_canonical().data.ravel()
        ('LAS', array([2., 1., 0.]))
        """
        turns = orientations.io_orientation(self.affine)
        order = np.argsort(turns[:, 0])
        rest = range(3, self.data.ndim)
        data = self.data.transpose(*order.tolist(), *rest)
        data = data[tuple(slice(None, None, int(turn)) for turn in turns[order, 1])]
        return Volume(data, self.affine @ orientations.inv_ornt_aff(turns, self.shape))

    def resample_to(
        self,
        target: "Volume | tuple[np.ndarray, tuple[int, int, int]]",
        method: Method = "linear",
        fill: float = 0.0,
    ) -> "Volume":
        """This image at the voxel centres of a Volume, or of an (affine, shape).

        `linear` is trilinear and differentiable in the data; `nearest` keeps labels and dtype,
        halves rounding up. The field of view reaches half a voxel beyond the outermost centres:
        there the outermost voxel's value holds (so a slice is as thick as its spacing), and
        `fill` beyond. Nothing is smoothed before sampling more coarsely.
        """
        affine, shape = (target.affine, target.shape) if isinstance(target, Volume) else target
        to_own = np.linalg.inv(self.affine) @ np.asarray(affine, np.float64)
        return Volume(_sample(self.data, to_own, tuple(shape), method, fill), affine)

    def resample_spacing(
        self,
        spacing_mm: float | tuple[float, float, float],
        method: Method = "linear",
        fill: float = 0.0,
    ) -> "Volume":
        """This image on voxels of another size, about the same centre, axes kept.

        The number of voxels is the nearest that fills the field of view, at least one an axis.
        """
        wanted = np.broadcast_to(np.asarray(spacing_mm, np.float64), (3,))
        if not (np.isfinite(wanted).all() and (wanted > 0).all()):
            raise InputError(
                Problem("Volume.resample_spacing", f"{spacing_mm} mm", "positive spacings in mm")
            )
        zoom = wanted / np.array(self.spacing_mm)
        size = np.maximum(1, np.rint(np.array(self.shape) / zoom)).astype(int)
        affine = self.affine
        shift = (np.array(self.shape) - 1) / 2 - zoom * (size - 1) / 2
        affine[:3, 3] += affine[:3, :3] @ shift
        affine[:3, :3] *= zoom[None, :]
        x, y, z = size.tolist()
        return self.resample_to((affine, (x, y, z)), method, fill)


def _problems(shape: tuple[int, ...], affine: np.ndarray):
    if len(shape) not in (3, 4) or 0 in shape:
        found = f"data of shape {shape}"
        cause = "a single slice without its third axis" if len(shape) == 2 else ""
        yield Problem("Volume", found, "non-empty (x, y, z) or (x, y, z, channels)", cause)
    if affine.shape != (4, 4):
        yield Problem("Volume", f"an affine of shape {affine.shape}", "4x4, voxel to RAS+ mm")
    elif not np.isfinite(affine).all():
        yield Problem(
            "Volume", "an affine with NaN or infinity", "finite numbers", "a damaged header"
        )
    elif not np.array_equal(affine[3], [0, 0, 0, 1]):
        yield Problem("Volume", f"an affine with last row {affine[3]}", "0 0 0 1", "a transpose")
    elif np.linalg.matrix_rank(affine[:3, :3]) < 3:
        yield Problem(
            "Volume",
            "a singular affine",
            "three independent axes",
            "a header with a zero voxel size",
        )


@partial(jax.jit, static_argnames=("shape", "method"))
def _sample(data, to_own, shape, method, fill):
    """Data at the voxels of another grid, whose indices `to_own` (4x4) carries to the data's."""
    i, j, k = jnp.meshgrid(*(jnp.arange(n, dtype=float) for n in shape), indexing="ij", sparse=True)
    places = [row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_own[:3]]
    if method == "nearest":
        rounded = [jnp.floor(place + 0.5).astype(int) for place in places]
        clipped = [jnp.clip(p, 0, n - 1) for p, n in zip(rounded, data.shape, strict=False)]
        sampled = data[tuple(clipped)]
    else:
        data = data.astype(jnp.result_type(data, jnp.float32))
        linear = partial(map_coordinates, coordinates=places, order=1, mode="nearest")
        sampled = linear(data) if data.ndim == 3 else jax.vmap(linear, -1, -1)(data)

    rounding = 1e-3  # of a voxel: more than float32 loses in the largest images
    inside = jnp.ones(shape, bool)
    for place, size in zip(places, data.shape, strict=False):
        inside &= (place >= -0.5 - rounding) & (place <= size - 0.5 + rounding)
    inside = inside.reshape(inside.shape + (1,) * (data.ndim - 3))
    return jnp.where(inside, sampled, jnp.asarray(fill, sampled.dtype))
