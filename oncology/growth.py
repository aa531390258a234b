"""How a tumour grows and spreads where it may live.

ReactionDiffusion    ∂u/∂t = ∇·(D(x) ∇u) + reaction(u, k(x)) - kill(x, t) u on a voxel grid
GrowthMap            k(x) = k + Σ c_j B_j(x): smooth local departures from one rate
Habitats             one departure a region
GrowthField          one departure a voxel, smooth a priori
"""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from oncology import transport
from oncology.anisotropy import TensorFaces
from oncology.growth_laws import GrowthLaw, Logistic
from oncology.radiotherapy import oxygen_modification
from oncology.smoothing import SmoothField

Parameters = Mapping[str, ArrayLike]


def _cubic_bspline(t: np.ndarray) -> np.ndarray:
    t = np.abs(t)
    return np.where(t < 1, 2 / 3 - t**2 + t**3 / 2, np.where(t < 2, (2 - t) ** 3 / 6, 0.0))


class GrowthMap(eqx.Module):
    """Local departures of the growth rate, δk(x) = Σ c_j B_j(x): cubic B-splines on a lattice.

    Built over `region` with one control point every `control_mm`, scaled so that independent
    coefficients of standard deviation s give δk a standard deviation of s on average over the
    region. Splines that hardly touch it are left out; outside their support δk = 0.
    """

    along_axis: tuple[Float[Array, "n m"], ...]
    lattice: tuple[int, ...] = eqx.field(static=True)
    kept: tuple[int, ...] = eqx.field(static=True)

    def __init__(
        self, region: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, ...], control_mm: float
    ):
        voxels = np.argwhere(region)
        along_axis = []
        for axis, (n, spacing) in enumerate(zip(region.shape, spacing_mm, strict=True)):
            if n == 1:
                along_axis.append(np.ones((1, 1)))
                continue
            first, last = voxels[:, axis].min() * spacing, voxels[:, axis].max() * spacing
            count = int(np.ceil((last - first) / control_mm)) + 3
            middle = (first + last) / 2
            centres = middle + control_mm * (np.arange(count) - (count - 1) / 2)
            position = np.arange(n)[:, None] * spacing
            along_axis.append(_cubic_bspline((position - centres[None, :]) / control_mm))
        reach = np.einsum("xyz,xi,yj,zk->ijk", region.astype(float), *along_axis)
        self.lattice = reach.shape
        largest = reach.max()
        self.kept = tuple(np.flatnonzero(reach.ravel() > 0.02 * largest).tolist())
        squares = np.zeros(reach.size)
        squares[list(self.kept)] = 1
        variance = np.einsum(
            "ijk,xi,yj,zk->xyz", squares.reshape(reach.shape), *(b**2 for b in along_axis)
        )
        scale = variance[region].mean() ** (-1 / 6)
        self.along_axis = tuple(jnp.asarray(scale * b) for b in along_axis)

    @property
    def size(self) -> int:
        """How many coefficients."""
        return len(self.kept)

    def __call__(self, coefficients: Float[Array, " m"]) -> Float[Array, "x y z"]:
        """δk(x) in the unit of the coefficients."""
        lattice = jnp.zeros(int(np.prod(self.lattice)), coefficients.dtype)
        field = lattice.at[np.array(self.kept)].set(coefficients).reshape(self.lattice)
        for axis, basis in enumerate(self.along_axis):
            field = jnp.moveaxis(jnp.tensordot(basis, field, axes=(1, axis)), 0, axis)
        return field


class Habitats(eqx.Module):
    """One departure of the growth rate in each of several regions, as a GrowthMap of them.

    `labels` are 0 outside and 1, 2, ... in the habitats, such as those that clustering perfusion
    and diffusion finds (Jardim-Perassi et al. 2019, doi:10.1158/0008-5472.CAN-19-0213).
    """

    labels: Int[Array, "x y z"]
    size: int = eqx.field(static=True)

    def __init__(self, labels: Int[np.ndarray, "x y z"]):
        self.labels = jnp.asarray(labels)
        self.size = int(np.max(labels))

    def __call__(self, coefficients: Float[Array, " m"]) -> Float[Array, "x y z"]:
        """δk(x) in the unit of the coefficients."""
        return jnp.concatenate([jnp.zeros(1, coefficients.dtype), coefficients])[self.labels]


class GrowthField(eqx.Module):
    """Local departures of the growth rate: a smooth field with a coefficient for every voxel.

    Over `length_mm` they are alike; independent coefficients of standard deviation s give δk(x) a
    standard deviation of s everywhere. A `GrowthMap` for fields.
    """

    field: SmoothField
    shape: tuple[int, int, int] = eqx.field(static=True)

    def __init__(
        self, shape: tuple[int, int, int], spacing_mm: tuple[float, ...], length_mm: float
    ):
        self.field = SmoothField(shape, spacing_mm, length_mm)
        self.shape = shape

    @property
    def size(self) -> int:
        """How many coefficients."""
        return int(np.prod(self.shape))

    def __call__(self, coefficients: Float[Array, " m"]) -> Float[Array, "x y z"]:
        """δk(x) in the unit of the coefficients."""
        return self.field(coefficients.reshape(self.shape))


class Grown(eqx.Module):
    """Anything that grows on a grid of voxels: where, how large they are, how stiff transport is
    over that of a diffusivity of 1 everywhere."""

    habitable: eqx.AbstractVar[Bool[Array, "x y z"]]
    spacing_mm: eqx.AbstractVar[tuple[float, float, float]]

    @property
    def stiffness(self) -> float:
        return 1.0


class ReactionDiffusion(Grown):
    r"""Cells that proliferate and wander: the Fisher-KPP equation in a patient's anatomy.

    .. math:: \partial_t u = \nabla\cdot(D(x)\nabla u) + k(x) u (1 - u) - \kappa(x, t) u

    u is a fraction of the carrying capacity, with zero flux through the boundary of `habitable`.
    `white_matter` and `grey_matter`, when given, make D(x) = D (w + ratio g) / (w + g), D being
    the diffusivity in white matter; otherwise D is the same everywhere cells can live.
    A `tensor` takes their place where D depends on direction (`oncology.anisotropy.tensor_faces`).
    `drug_delivery` and `dose_shape` scale chemotherapy and radiotherapy voxel by voxel; where
    `oxygen_mmhg` lacks, radiation does less. A `cavity` is empty and closed after a resection.
    Valid for D >= 0 and any k; spacing in mm may differ between axes.

    Swanson, Alvord & Murray 2000, doi:10.1046/j.1365-2184.2000.00177.x (the model, and the
    fivefold diffusivity of white over grey matter).
    """

    habitable: Bool[Array, "x y z"]
    white_matter: Float[Array, "x y z"] | None = None
    grey_matter: Float[Array, "x y z"] | None = None
    drug_delivery: Float[Array, "x y z"] | None = None
    dose_shape: Float[Array, "x y z"] | None = None
    oxygen_mmhg: Float[Array, "x y z"] | None = None
    cavity: Bool[Array, "x y z"] | None = None
    tensor: TensorFaces | None = None
    growth_map: GrowthMap | Habitats | GrowthField | None = None
    law: GrowthLaw = Logistic()
    spacing_mm: tuple[float, float, float] = eqx.field(static=True, default=(1.0, 1.0, 1.0))
    grey_to_white: float = eqx.field(static=True, default=0.2)

    def relative_diffusivity(self) -> Float[Array, "x y z"] | Bool[Array, "x y z"]:
        """D(x) / D: zero where cells cannot live; the habitable mask itself when D is the same
        everywhere else."""
        if self.white_matter is None or self.grey_matter is None:
            return self.habitable
        brain = self.white_matter + self.grey_matter
        mixed = self.white_matter + self.grey_to_white * self.grey_matter
        share = jnp.where(brain > 0.05, mixed / jnp.maximum(brain, 0.05), self.grey_to_white)
        return share * self.habitable

    def diffusivity(self, p: Parameters) -> Float[Array, "x y z"]:
        """D(x) in mm²/day, zero where cells cannot live."""
        return jnp.asarray(p["diffusivity_mm2_per_day"]) * self.relative_diffusivity()

    def conductance(self) -> transport.Conductance:
        """What crosses each voxel face per unit of D."""
        if self.tensor is not None:
            return self.tensor.conductance
        return transport.face_conductance(self.relative_diffusivity(), self.spacing_mm)

    def dose_share(self) -> Array | None:
        """What a voxel gets of a dose in Gy, times what oxygen makes of it; None for all of it."""
        if self.oxygen_mmhg is None:
            return self.dose_shape
        share = oxygen_modification(self.oxygen_mmhg)
        return share if self.dose_shape is None else share * self.dose_shape

    @property
    def stiffness(self) -> float:
        return 1.0 if self.tensor is None else self.tensor.stiffness

    def growth_rate(self, p: Parameters) -> Array:
        """k(x) in 1/day: one number, or a field when there is a growth map."""
        rate = jnp.asarray(p["growth_rate_per_day"])
        if self.growth_map is None:
            return rate
        return rate + self.growth_map(jnp.asarray(p["growth_map_per_day"]))
