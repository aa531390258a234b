"""Irregular domains: where a signed distance is negative."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Bool, Float
from scipy.ndimage import distance_transform_edt

from mrphys.errors import InputError, Problem

PROJECTIONS = 8
"""Newton steps to the boundary."""


@dataclass(frozen=True)
class Region:
    """Where distance(x) < 0, of coordinates `names` in that order.

    `distance` may be any smooth function that is negative inside, 0 on the boundary and grows
    across it; `phase` needs a distance proper.
    """

    names: tuple[str, ...]
    distance: Callable[[Float[Array, " inputs"]], Float[Array, ""]]

    @classmethod
    def of_mask(
        cls,
        names: tuple[str, ...],
        mask: Bool[np.ndarray, "..."],
        spacing: tuple[float, ...],
        first: tuple[float, ...],
    ) -> "Region":
        """Of voxels that are true, their boundary half way to those that are not.

        `first` is the middle of the first voxel. Exact to half a voxel. Raises InputError for a
        mask of other dimensions, or without a voxel.
        """
        if not (mask.ndim == len(names) == len(spacing) == len(first)):
            found = f"{mask.ndim} axes, {len(spacing)} spacings, {len(first)} coordinates"
            raise InputError(Problem("Region.of_mask", found, f"{len(names)}: {names}"))
        if not mask.any():
            raise InputError(Problem("Region.of_mask: mask", "no voxel inside", "some"))
        edge = np.pad(mask, 1)
        inner = np.asarray(distance_transform_edt(edge, sampling=spacing))
        outer = np.asarray(distance_transform_edt(~edge, sampling=spacing))
        half = min(spacing) / 2
        signed = np.where(edge, half - inner, outer - half)

        def distance(x: Array) -> Array:
            at = (x - jnp.asarray(first, x.dtype)) / jnp.asarray(spacing, x.dtype) + 1
            table = jnp.asarray(signed, x.dtype)
            return map_coordinates(table, [*at[:, None]], order=1, mode="nearest")[0]

        return cls(names, distance)

    def inside(self, at: dict[str, np.ndarray]) -> Bool[np.ndarray, " points"]:
        """Whether each point is."""
        x = jnp.stack([jnp.asarray(at[name]) for name in self.names], -1)
        return np.asarray(jax.vmap(self.distance)(x) < 0)

    def boundary(self, at: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Points moved to the boundary along the gradient, with the normal outwards as `normal_x`,
        ... beside `x`, ...; the other coordinates as they are."""
        x = jnp.stack([jnp.asarray(at[name]) for name in self.names], -1)

        def step(x: Array, _: None) -> tuple[Array, None]:
            value, slope = jax.vmap(jax.value_and_grad(self.distance))(x)
            size = jnp.maximum(jnp.sum(slope**2, -1), jnp.finfo(x.dtype).tiny)
            return x - (value / size)[:, None] * slope, None

        x, _ = jax.lax.scan(step, x, None, length=PROJECTIONS)
        slope = jax.vmap(jax.grad(self.distance))(x)
        normal = slope / jnp.linalg.norm(slope, axis=-1, keepdims=True)
        moved = {name: np.asarray(x[:, i]) for i, name in enumerate(self.names)}
        turned = {f"normal_{name}": np.asarray(normal[:, i]) for i, name in enumerate(self.names)}
        return {**at, **moved, **turned}

    def phase(self, at: dict[str, Array], width: float) -> tuple[Array, dict[str, Array]]:
        """φ = (1 - tanh(3 d / width)) / 2 at a point, and ∂φ/∂x by coordinate.

        The diffuse domain: ∂(φ u)/∂t = div(φ D ∇u) + φ f(u) over the whole box has the solution
        without flux through the boundary as its limit for small `width`.

        Li, Lowengrub, Rätz, Voigt 2009, doi:10.4310/CMS.2009.v7.n1.a4.
        """
        x = jnp.stack([at[name] for name in self.names])

        def phi(x: Array) -> Array:
            return (1 - jnp.tanh(3 * self.distance(x) / width)) / 2

        value, slope = jax.value_and_grad(phi)(x)
        return value, dict(zip(self.names, slope, strict=True))
