"""Smooth random fields on a voxel grid, and local averages: what a model leaves out is smooth."""

from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float


class SmoothField(eqx.Module):
    """White noise averaged by a Gaussian kernel, separably, to unit variance everywhere.

    The correlation of two voxels a distance d apart is exp(-d² / (4 length²)).
    """

    along_axis: tuple[Float[Array, "n n"], ...]

    def __init__(self, shape: Sequence[int], spacing_mm: Sequence[float], length_mm: float):
        matrices = []
        for n, spacing in zip(shape, spacing_mm, strict=True):
            position = np.arange(n) * spacing
            kernel = np.exp(-((position[:, None] - position[None, :]) ** 2) / (2 * length_mm**2))
            matrices.append(jnp.asarray(kernel / np.linalg.norm(kernel, axis=1, keepdims=True)))
        self.along_axis = tuple(matrices)

    def __call__(self, white: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """A field of unit variance from independent standard normal numbers."""
        for axis, matrix in enumerate(self.along_axis):
            white = jnp.moveaxis(jnp.tensordot(matrix, white, axes=(1, axis)), 0, axis)
        return white

    def transpose(self, field: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """The adjoint of drawing a field."""
        for axis, matrix in enumerate(self.along_axis):
            field = jnp.moveaxis(jnp.tensordot(matrix.T, field, axes=(1, axis)), 0, axis)
        return field

    def local_mean(
        self, value: Float[Array, "x y z"], weight: Float[Array, "x y z"]
    ) -> Float[Array, "x y z"]:
        """Weighted mean of `value` around each voxel; zero where no weight is near."""
        reached = self(weight)
        return self(value * weight) / jnp.maximum(reached, 1e-6)
