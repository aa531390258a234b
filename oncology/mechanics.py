r"""Tumours that push: quasi-static linear elasticity under the stress of growth,

.. math:: \nabla\cdot\big(2 G ε + λ_L (\nabla\cdot w) 1\big) = s \nabla u, \quad
    ε = (\nabla w + \nabla w^T) / 2,

w the displacement in mm, clamped at the border of the tissue, s u the stress of a density u.

Elasticity           the solid: displacement and stress of a density, on trilinear elements
displaced            anatomy moved by a displacement (mass effect)
MechanicallyCoupled  growth with D = D₀ exp(-γ σ_vm), σ_vm the von Mises stress

Matrices are never formed; conjugate gradients are preconditioned by the diagonal, and derivatives
come from the equation itself (implicit function theorem). Weis et al. 2013,
doi:10.1088/0031-9155/58/17/5851; Hormuth et al. 2017, doi:10.1098/rsif.2016.1010.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.scipy.ndimage import map_coordinates
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, ArrayLike, Bool, Float

from mrphys.errors import InputError, Problem
from oncology.growth import Parameters
from oncology.species import Densities, Mixture

CORNERS = np.array(list(itertools.product((0, 1), repeat=3)))


def _strain_of_corners(at: Sequence[float], spacing_mm: Sequence[float]) -> np.ndarray:
    """The matrix from 24 displacements (corner, axis) to six strains xx, yy, zz, xy, xz, yz (the
    last three engineering ones) at a point of the unit cell."""
    slopes = np.empty((8, 3))
    for axis in range(3):
        parts = [c * x + (1 - c) * (1 - x) for c, x in zip(CORNERS.T, at, strict=True)]
        parts[axis] = (2 * CORNERS[:, axis] - 1) / spacing_mm[axis]
        slopes[:, axis] = parts[0] * parts[1] * parts[2]
    strain = np.zeros((6, 8, 3))
    for axis in range(3):
        strain[axis, :, axis] = slopes[:, axis]
    for row, (a, b) in enumerate(((0, 1), (0, 2), (1, 2)), start=3):
        strain[row, :, a], strain[row, :, b] = slopes[:, b], slopes[:, a]
    return strain.reshape(6, 24)


def stiffness(poisson: float) -> Float[np.ndarray, "6 6"]:
    """Stress from strain in an isotropic solid of Young's modulus 1."""
    lame = poisson / ((1 + poisson) * (1 - 2 * poisson))
    shear = 1 / (2 * (1 + poisson))
    matrix = np.zeros((6, 6))
    matrix[:3, :3] = lame
    matrix += np.diag([2 * shear] * 3 + [shear] * 3)
    return matrix


class Elasticity(eqx.Module):
    """The solid that cells live in, and its clamped border.

    `youngs_modulus_kpa` (1 to 10 in brain and breast) where `tissue` is; Poisson's ratio below 0.5,
    where elements would lock (0.45 by default). Along axes of one voxel nothing moves (plane
    strain). Raises InputError for a modulus that is not positive or a ratio out of 0 to 0.49.
    """

    tissue: Bool[Array, "x y z"]
    youngs_modulus_kpa: Float[Array, "x y z"] | Float[Array, ""]
    spacing_mm: tuple[float, float, float] = eqx.field(static=True)
    poisson: float = eqx.field(static=True)

    def __init__(
        self,
        tissue: Bool[ArrayLike, "x y z"],
        youngs_modulus_kpa: ArrayLike = 3.0,
        spacing_mm: tuple[float, float, float] = (1.0, 1.0, 1.0),
        poisson: float = 0.45,
    ):
        if not 0 <= poisson <= 0.49:
            found, cause = (
                f"Poisson's ratio {poisson:g}",
                "a percentage, or an incompressible solid",
            )
            raise InputError(Problem("Elasticity", found, "0 to 0.49", cause))
        self.tissue = jnp.asarray(tissue)
        self.youngs_modulus_kpa = jnp.asarray(youngs_modulus_kpa, float)
        self.spacing_mm, self.poisson = spacing_mm, poisson
        modulus = self.youngs_modulus_kpa
        if not isinstance(modulus, Tracer) and not np.all(np.asarray(modulus) > 0):
            found = f"a modulus of {np.min(np.asarray(modulus)):g} kPa"
            raise InputError(Problem("Elasticity", found, "above zero"))

    def displacement_mm(
        self, u: Float[Array, "x y z"], stress_kpa: ArrayLike
    ) -> Float[Array, "3 x+1 y+1 z+1"]:
        """Of the corners of voxels, under the stress `stress_kpa` times u."""
        free = self._free().astype(u.dtype)
        modulus = jnp.where(self.tissue, self.youngs_modulus_kpa, 0.0).astype(u.dtype)
        element, load = self._element()
        push = jnp.asarray(stress_kpa, u.dtype) * jnp.where(self.tissue, u, 0.0)
        force = free * _scatter(jnp.asarray(load, u.dtype)[:, None, None, None] * push[None])
        matrix = jnp.asarray(element, u.dtype)

        def internal(w: Array) -> Array:
            inside = jnp.tensordot(matrix, _gather(free * w), 1) * modulus[None]
            return free * _scatter(inside) + (1 - free) * w

        own = jnp.asarray(np.diag(element), u.dtype)[:, None, None, None] * modulus[None]
        diagonal = free * _scatter(own) + (1 - free)
        tight = 1e-6 if u.dtype == jnp.float32 else 1e-11

        def solve(operator: Callable, right: Array) -> Array:
            return cg(operator, right, tol=tight, M=lambda r: r / diagonal)[0]

        return jax.lax.custom_linear_solve(internal, force, solve, symmetric=True)

    def stress_kpa(self, w: Float[Array, "3 x1 y1 z1"]) -> Float[Array, "6 x y z"]:
        """xx, yy, zz, xy, xz, yz in the middle of each voxel, of the elastic solid alone."""
        strain = _strain_of_corners((0.5, 0.5, 0.5), self.spacing_mm)
        to_stress = jnp.asarray(stiffness(self.poisson) @ strain, w.dtype)
        modulus = jnp.where(self.tissue, self.youngs_modulus_kpa, 0.0).astype(w.dtype)
        return jnp.tensordot(to_stress, _gather(w), 1) * modulus[None]

    def _element(self) -> tuple[np.ndarray, np.ndarray]:
        """Forces of 24 corner displacements on each other, and of a unit stress, kPa mm²."""
        volume = float(np.prod(self.spacing_mm))
        matrix, load = np.zeros((24, 24)), np.zeros(24)
        for at in itertools.product((0.5 - 12**-0.5, 0.5 + 12**-0.5), repeat=3):
            strain = _strain_of_corners(at, self.spacing_mm)
            matrix += strain.T @ stiffness(self.poisson) @ strain * volume / 8
            load += strain[:3].sum(0) * volume / 8
        return matrix, load

    def _free(self) -> Array:
        """Corners with tissue all around, along axes of several voxels."""
        free = self.tissue
        for axis, n in enumerate(self.tissue.shape):
            side = [(int(other == axis),) * 2 for other in range(3)]
            wide = jnp.pad(free, side, mode="edge" if n == 1 else "constant")
            lower = jax.lax.slice_in_dim(wide, 0, n + 1, axis=axis)
            free = lower & jax.lax.slice_in_dim(wide, 1, n + 2, axis=axis)
        moving = jnp.asarray([n > 1 for n in self.tissue.shape])
        return free[None] & moving[:, None, None, None]


def _gather(w: Float[Array, "3 x1 y1 z1"]) -> Float[Array, "24 x y z"]:
    """Displacements of the eight corners of each voxel."""
    x, y, z = (n - 1 for n in w.shape[1:])
    corners = [w[:, a : a + x, b : b + y, c : c + z] for a, b, c in CORNERS.tolist()]
    return jnp.concatenate(corners)


def _scatter(forces: Float[Array, "24 x y z"]) -> Float[Array, "3 x1 y1 z1"]:
    """The sum over voxels of forces on their corners: the transpose of `_gather`."""
    total = jnp.zeros((3, *(n + 1 for n in forces.shape[1:])), forces.dtype)
    for corner, part in zip(CORNERS, jnp.split(forces, 8), strict=True):
        total = total + jnp.pad(part, [(0, 0), *((int(c), 1 - int(c)) for c in corner)])
    return total


def von_mises_kpa(stress: Float[Array, "6 *voxels"]) -> Float[Array, "*voxels"]:
    """√(3/2) of the deviatoric stress' norm, smooth at zero."""
    xx, yy, zz, xy, xz, yz = stress
    normal = (xx - yy) ** 2 + (yy - zz) ** 2 + (zz - xx) ** 2
    return jnp.sqrt(normal / 2 + 3 * (xy**2 + xz**2 + yz**2) + 1e-12) - 1e-6


def displaced(
    field: Float[Array, "x y z"],
    displacement_mm: Float[Array, "3 x1 y1 z1"],
    spacing_mm: Sequence[float],
) -> Float[Array, "x y z"]:
    """What was at x - w(x) is at x: anatomy moved by the mass effect, trilinear, nearest outside.

    First order in w: for displacements of a few voxels that change slowly.
    """
    middle = _gather(displacement_mm).reshape(8, 3, *field.shape).mean(0)
    from_voxel = [
        jnp.asarray(index, field.dtype) - move / h
        for index, move, h in zip(np.indices(field.shape), middle, spacing_mm, strict=True)
    ]
    return map_coordinates(field, from_voxel, order=1, mode="nearest")


class MechanicallyCoupled(Mixture):
    r"""Logistic growth whose cells wander less where tissue is stressed,

    .. math:: \dot u = \nabla\cdot(D_0 e^{-γ σ_{vm}} \nabla u) + k u (1 - u).

    D_0 `diffusivity_mm2_per_day`, k `growth_rate_per_day`, γ `stress_sensitivity_per_kpa` >= 0 and
    the stress of a full voxel `growth_stress_kpa`; `youngs_modulus_kpa` one number or a map. σ_vm
    follows the density at each step.
    """

    youngs_modulus_kpa: Float[Array, "x y z"] | Float[Array, ""] = eqx.field(
        default=3.0, converter=lambda value: jnp.asarray(value, float)
    )
    poisson: float = eqx.field(static=True, default=0.45)
    names: ClassVar = ("tumour",)
    sensitivity: ClassVar = (1.0,)
    moves: ClassVar = (True,)
    follows_density: ClassVar = True

    @property
    def solid(self) -> Elasticity:
        """What the tumour pushes against."""
        return Elasticity(self.habitable, self.youngs_modulus_kpa, self.spacing_mm, self.poisson)

    def reaction(self, u: Densities, p: Parameters, around: Array | None) -> Densities:
        return jnp.asarray(p["growth_rate_per_day"]) * u * (1 - u)

    def diffusivity(self, u: Densities, p: Parameters) -> Sequence[ArrayLike]:
        solid = self.solid
        stress = solid.stress_kpa(solid.displacement_mm(u[0], p["growth_stress_kpa"]))
        slowed = jnp.exp(-jnp.asarray(p["stress_sensitivity_per_kpa"]) * von_mises_kpa(stress))
        return [p["diffusivity_mm2_per_day"] * slowed]
