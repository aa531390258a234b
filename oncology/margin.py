"""Where to irradiate: a margin of millimetres, or the region that a model holds densest.

At equal volume the two differ only in shape. A model in even tissue dilates the tumour as a margin
does; what it adds is the brain's own: barriers, and transport by tissue.

After Unkelbach et al. 2014, doi:10.1088/0031-9155/59/3/747 (isodensity as clinical target volume).
"""

import numpy as np
from jaxtyping import Bool, Float

from mrphys.errors import InputError, Problem
from oncology.observe import distance_mm


def uniform_margin(
    tumor: Bool[np.ndarray, "x y z"],
    tissue: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, ...],
    margin_mm: float,
) -> Bool[np.ndarray, "x y z"]:
    """Tissue within so many millimetres of the tumour, and the tumour."""
    return tumor | ((distance_mm(tumor, spacing_mm) <= margin_mm) & tissue)


def densest(
    density: Float[np.ndarray, "x y z"],
    tumor: Bool[np.ndarray, "x y z"],
    tissue: Bool[np.ndarray, "x y z"],
    voxels: int,
) -> Bool[np.ndarray, "x y z"]:
    """The tumour and the densest tissue beside it, so many voxels in all: inside one contour of
    density. Raises InputError for fewer voxels than the tumour's, or more than there are."""
    beside = np.flatnonzero(tissue & ~tumor)
    wanted = voxels - int(tumor.sum())
    if not 0 <= wanted <= beside.size:
        expected = f"{tumor.sum()} to {tumor.sum() + beside.size}"
        raise InputError(Problem("margin.densest: voxels", f"{voxels}", expected))
    order = np.argsort(-density.ravel()[beside], kind="stable")
    target = np.array(tumor)
    target.ravel()[beside[order[:wanted]]] = True
    return target


def covered(target: Bool[np.ndarray, "x y z"], later: Bool[np.ndarray, "x y z"]) -> float:
    """Share of a later tumour inside a target; 1 for none."""
    return float((target & later).sum() / later.sum()) if later.any() else 1.0


def voxels_to_cover(
    rank: Float[np.ndarray, "x y z"],
    tumor: Bool[np.ndarray, "x y z"],
    later: Bool[np.ndarray, "x y z"],
    tissue: Bool[np.ndarray, "x y z"],
    share: float,
) -> int:
    """Voxels of the smallest target that holds a share of a later tumour, grown from the tumour in
    order of falling `rank` (density, or the negative distance)."""
    beside = np.flatnonzero(tissue & ~tumor)
    order = beside[np.argsort(-rank.ravel()[beside], kind="stable")]
    missing = share * later.sum() - (later & tumor).sum()
    if missing <= 0:
        return int(tumor.sum())
    reached = np.cumsum(later.ravel()[order])
    at = int(np.searchsorted(reached, missing - 1e-9))
    return int(tumor.sum()) + min(at + 1, order.size)
