"""Spins to be scanned: tissue at points in space."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from mrphys.errors import InputError, Problem
from mrphys.motion import Moving
from mrphys.tissue import Tissue
from mrphys.units import check_finite


class SpinCloud(eqx.Module):
    """Points of tissue, each precessing as one spin.

    position_mm  (n, 3), in the scanner's x, y, z
    q            the tissue of each; its m0 is the magnetisation of the whole point
    motion       where each is at a time in s from the beginning of the scan, `position_mm` being
                 where it starts (`mrphys.motion`); None: at rest

    Raises InputError when the numbers of points differ, or a position is not finite. Differentiable
    in all.

    >>> SpinCloud(jnp.zeros((2, 3)), Tissue(t1_s=1.0, t2_s=[0.1, 0.2])).size
    2
    """

    position_mm: Float[Array, "spins 3"] = eqx.field(converter=jnp.asarray)
    q: Tissue
    motion: Moving | None = None

    def __check_init__(self):
        check_finite("SpinCloud position_mm", self.position_mm)
        if self.q.voxel_shape not in ((), (self.size,)):
            found = f"{self.size} positions and tissue of shape {self.q.voxel_shape}"
            raise InputError(Problem("SpinCloud", found, "one tissue for each position"))

    @property
    def size(self) -> int:
        """How many points."""
        return self.position_mm.shape[0]

    @classmethod
    def from_volume(
        cls,
        q: Tissue,
        affine: Float[np.ndarray, "4 4"],
        *,
        spins: tuple[int, int, int] = (2, 2, 2),
        inside: Bool[np.ndarray, "x y z"] | None = None,
        seed: int | None = 0,
    ) -> "SpinCloud":
        """A tissue of shape (x, y, z) as several spins a voxel.

        affine  from voxel indices to mm, voxel centres at whole numbers
        spins   how many along each axis of a voxel; gradients spoil the signal of a voxel only
                where their spins differ in phase by a whole turn or more
        inside  voxels to take; those with m0 > 0 when not given (m0 must then be concrete)
        seed    of the place of each spin at random in its cell, which keeps echoes from reappearing
                after several spoilers; None puts spins at the cells' centres

        A spin's m0 is the voxel's times its share of the voxel's volume in mm³, so the signal does
        not depend on the grid. Where the tissue has t2prime_s, R2' is a Lorentzian distribution of
        b0_hz over the spins of a voxel, drawn at its quantiles: exp(-R2' |t - t_echo|) as their
        number grows. Raises InputError unless the tissue has three axes.
        """
        if len(q.voxel_shape) != 3:
            found = f"tissue of shape {q.voxel_shape}"
            raise InputError(Problem("SpinCloud.from_volume", found, "a volume (x, y, z)"))
        if min(spins) < 1:
            raise InputError(Problem("SpinCloud.from_volume", f"{spins} spins", "at least one"))
        maps = q.broadcast()
        chosen = np.asarray(maps.m0) > 0 if inside is None else np.asarray(inside, bool)
        index = np.stack(np.nonzero(chosen), -1)
        rng = np.random.default_rng(seed)
        cells = np.stack(np.meshgrid(*map(np.arange, spins), indexing="ij"), -1).reshape(-1, 3)
        places = np.broadcast_to(cells, (len(index), *cells.shape))
        inner = np.full(places.shape, 0.5) if seed is None else rng.random(places.shape)
        voxel = index[:, None, :] + (places + inner) / np.array(spins) - 0.5
        affine = np.asarray(affine, np.float64)
        position = voxel.reshape(-1, 3) @ affine[:3, :3].T + affine[:3, 3]

        share = abs(np.linalg.det(affine[:3, :3])) / len(cells)
        taken = jax.tree.map(lambda value: value[tuple(index.T)], maps)
        taken = jax.tree.map(lambda value: jnp.repeat(value, len(cells), axis=0), taken)
        taken = eqx.tree_at(lambda tissue: tissue.m0, taken, taken.m0 * share)
        taken = _dephased(taken, len(index), len(cells), rng)
        return cls(jnp.asarray(position, taken.m0.dtype), taken)


def _dephased(q: Tissue, voxels: int, spins: int, rng: np.random.Generator) -> Tissue:
    """R2' as offsets of b0_hz: quantiles of the Lorentzian of half width R2'/2π, in random order.

    The quantiles are those of the halves of the distribution in pairs, so their mean is zero.
    """
    t2prime_s = getattr(q, "t2prime_s", None)
    if t2prime_s is None:
        return q
    quantile = (np.arange(spins) + 0.5) / spins
    order = np.argsort(rng.random((voxels, spins)), axis=1)
    offset = np.tan(np.pi * (quantile[order].reshape(-1) - 0.5)) / (2 * np.pi)
    shifted = q.b0_hz + jnp.asarray(offset, q.b0_hz.dtype) / t2prime_s
    return eqx.tree_at(
        lambda tissue: (tissue.b0_hz, tissue.t2prime_s),
        q,
        (shifted, jnp.full_like(t2prime_s, jnp.inf)),
    )
