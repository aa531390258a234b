r"""Cells that wander along fibres: ∇·(D ∇u) for a tensor D(x), without negative weights.

selling             D = Σ w_e e eᵀ with integer offsets e and weights w_e >= 0
tensor_faces        the same as what crosses between voxels and their neighbours x + e
cell_tensor         the tensor of cells from that of water
checked_tensor      a measured tensor, repaired where it is not positive definite

Sums over weighted differences u(x + e) - u(x) can neither make a density negative nor lose cells,
which finite differences of the mixed derivatives can. Fehrenbach & Mirebeau 2014,
J. Math. Imaging Vis. 49, 123.
"""

import itertools
from collections.abc import Sequence

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Bool, Float, Int

from mrphys.errors import InputError, Problem
from oncology.transport import Conductance

LARGEST_RATIO = 20.0
"""Eigenvalues of a tensor of cells are never farther apart: offsets would grow long."""

PAIRS = tuple(itertools.combinations(range(4), 2))


def selling(
    tensor: Float[np.ndarray, "n 3 3"],
) -> tuple[Int[np.ndarray, "n 6 3"], Float[np.ndarray, "n 6"]]:
    """Six offsets and weights of each positive tensor, D = Σ w e eᵀ, w >= 0.

    A superbase (b0, b1, b2, b3), sum zero, is made D-obtuse: while b_i and b_j are acute, -b_i, b_j
    and the sums of b_i with the others take their place. Then w = -b_iᵀ D b_j and e = b_k x b_l.
    Raises InputError where that does not end, as for tensors that are not positive.
    """
    start = np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [-1, -1, -1]])
    bases = np.tile(start, (len(tensor), 1, 1))
    size = np.trace(tensor, axis1=1, axis2=2)
    negative = np.sum(np.linalg.eigvalsh(tensor)[:, 0] < -1e-9 * np.abs(size))
    if negative:
        cause = "noise, or channels in another order"
        found = f"{negative} tensors with a negative eigenvalue"
        raise InputError(Problem("selling", found, "positive definite tensors", cause))
    for _ in range(500):
        products = np.einsum("nia,nab,njb->nij", bases, tensor, bases)
        upper = np.stack([products[:, i, j] for i, j in PAIRS], axis=1)
        worst = upper.argmax(axis=1)
        acute = np.flatnonzero(upper.max(axis=1) > 1e-9 * size)
        if not acute.size:
            break
        for pair, (i, j) in enumerate(PAIRS):
            rows = acute[worst[acute] == pair]
            others = [k for k in range(4) if k not in (i, j)]
            for k in others:
                bases[rows, k] += bases[rows, i]
            bases[rows, i] *= -1
    else:
        found, cause = f"{acute.size} tensors without an obtuse superbase", "nearly singular"
        raise InputError(Problem("selling", found, "eigenvalues less far apart", cause))
    offsets = []
    for i, j in PAIRS:
        k, other = (m for m in range(4) if m not in (i, j))
        offsets.append(np.cross(bases[:, k], bases[:, other], axis=1))
    return np.stack(offsets, axis=1), np.maximum(-upper, 0.0)


class TensorFaces(eqx.Module):
    """Conductances along offsets, per unit of D, and how much stiffer they are than those of a
    scalar diffusivity of 1."""

    conductance: Conductance
    stiffness: float = eqx.field(static=True)


def tensor_faces(
    tensor: Float[np.ndarray, "x y z 3 3"],
    habitable: Bool[np.ndarray, "x y z"],
    spacing_mm: Sequence[float],
) -> TensorFaces:
    """The flux balance of D(x) where cells can live, tensors in mm²/day or relative.

    Between x and x + e the mean weight of both; none where no path of face neighbours inside
    `habitable` leads from one to the other within the box they span. Along axes of one voxel
    nothing moves. Raises InputError for tensors that are not positive there.
    """
    shape = habitable.shape
    per_mm = np.array([1 / h if n > 1 else 0.0 for n, h in zip(shape, spacing_mm, strict=True)])
    inside = np.flatnonzero(habitable)
    offsets, weights = selling(tensor[habitable] * per_mm[:, None] * per_mm)
    strides = np.array([shape[1] * shape[2], shape[2], 1])
    sign = np.sign(offsets @ np.array([10**8, 10**4, 1]))
    offsets = offsets * sign[:, :, None]
    used = weights > 1e-7 * weights.max(initial=0.0)
    kinds = np.unique(offsets[used], axis=0)
    faces, total = [], np.zeros(shape)
    for kind in kinds:
        weight = np.zeros(habitable.size)
        share = np.where(np.all(offsets == kind, axis=2), weights, 0.0).sum(axis=1)
        weight[inside] = share
        here, there = _ends(shape, kind)
        weight = weight.reshape(shape)
        across = np.zeros(shape)
        reachable = _connected(habitable, kind)[here]
        across[here] = np.where(reachable, (weight[here] + weight[there]) / 2, 0.0)
        total[here] += across[here]
        total[there] += across[here]
        faces.append(jnp.asarray(across.ravel()))
    along = [int(kind @ strides) for kind in kinds]
    scalar = 2 * np.sum(per_mm**2)
    conductance = Conductance(tuple(faces), tuple(along), (1.0,) * len(kinds))
    return TensorFaces(conductance, float(max(total.max() / scalar, 1e-9)))


def _ends(shape: Sequence[int], offset: np.ndarray) -> tuple[tuple, tuple]:
    """Slices of all x and all x + offset with both inside the grid."""
    here = tuple(slice(max(-o, 0), n - max(o, 0)) for n, o in zip(shape, offset, strict=True))
    there = tuple(slice(max(o, 0), n + min(o, 0)) for n, o in zip(shape, offset, strict=True))
    return here, there


def _connected(habitable: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """Whether steps along the axes, each towards x + offset, lead there through the mask."""
    reached: dict[tuple[int, ...], np.ndarray] = {}
    for corner in itertools.product(*(range(abs(o) + 1) for o in offset)):
        here, there = _ends(habitable.shape, np.array(corner) * np.sign(offset))
        free = np.zeros_like(habitable)
        free[here] = habitable[there]
        before = [
            reached[tuple(np.subtract(corner, step))]
            for step in np.eye(3, dtype=int)
            if tuple(np.subtract(corner, step)) in reached
        ]
        reached[corner] = np.logical_or.reduce(before) & free if before else free
    return reached[tuple(np.abs(offset).tolist())]


def cell_tensor(
    water: Float[np.ndarray, "*voxels 3 3"], exaggeration: float = 1.0
) -> Float[np.ndarray, "*voxels 3 3"]:
    """T^r / (tr T^r / 3): a tensor of cells, of mean diffusivity 1, along the axes of water's.

    r = `exaggeration`: 0 isotropic, 1 as anisotropic as water, 2 or 3 as gliomas along white matter
    may be (Jbabdi et al. 2005, doi:10.1002/mrm.20625); eigenvalues at most LARGEST_RATIO apart.
    Zero where there is no tensor.
    """
    values, axes = np.linalg.eigh(water)
    largest = values[..., -1:]
    some = largest[..., 0] > 0
    relative = np.clip(values / np.where(largest > 0, largest, 1.0), 1e-6, None) ** exaggeration
    relative = np.maximum(relative, 1 / LARGEST_RATIO)
    relative = relative / relative.mean(axis=-1, keepdims=True) * some[..., None]
    return np.einsum("...ia,...a,...ja->...ij", axes, relative, axes)


MOST_REPAIRED = 0.2
"""Share of voxels beyond which a tensor map is refused."""


def checked_tensor(
    channels: Float[np.ndarray, "x y z 6"], mask: Bool[np.ndarray, "x y z"], where: str = "tensor"
) -> tuple[Float[np.ndarray, "x y z 3 3"], list[Problem]]:
    """Tensors from xx, yy, zz, xy, xz, yz, positive definite inside a mask, and what was repaired.

    Where an eigenvalue is not positive (noise, motion) or not a number, the mean tensor of the mask
    takes its place, and a warning says in how many voxels. Raises InputError where that is more
    than a fifth of them: another order of channels, or no tensor at all.
    """
    full = channels[..., [[0, 3, 4], [3, 1, 5], [4, 5, 2]]].astype(float)
    finite = np.all(np.isfinite(full), axis=(-1, -2))
    smallest = np.linalg.eigvalsh(np.where(finite[..., None, None], full, 0.0))[..., 0]
    bad = mask & ~(finite & (smallest > 0))
    if not bad.any():
        return full, []
    share = bad.sum() / mask.sum()
    found = f"{bad.sum()} of {mask.sum()} tensors not positive definite"
    if share > MOST_REPAIRED:
        cause = "channels in another order than xx, yy, zz, xy, xz, yz, or b-vectors flipped"
        raise InputError(Problem(where, found, "positive eigenvalues nearly everywhere", cause))
    full[bad] = full[mask & ~bad].mean(axis=0)
    cause = "noise; the mean tensor took their place"
    return full, [Problem(where, found, "positive eigenvalues", cause, "warning")]
