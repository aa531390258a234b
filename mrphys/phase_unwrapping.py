"""Phases of an image that are known but for turns, made to go together in space."""

import numpy as np
from jaxtyping import Float, Integer
from scipy import sparse
from scipy.sparse.csgraph import breadth_first_order, connected_components, minimum_spanning_tree

TURN = 2 * np.pi


def turns(
    phase_rad: Float[np.ndarray, "*voxels"], sd_rad: Float[np.ndarray, "*voxels"]
) -> Integer[np.ndarray, "*voxels"]:
    """How many turns to add to each phase so that neighbours differ by less than half a turn where
    that can be; 0 where `sd_rad` is infinite. Of each connected region the median is 0.

    Neighbours along the axes are joined by the spanning tree of least Σ c, c² = Δφ² + σ_a² + σ_b²,
    Δφ the wrapped difference: what jumps or is noise comes last. Ching, Toennies, Rosenfeld 1992,
    doi:10.1109/83.148608.
    """
    good = np.isfinite(sd_rad) & np.isfinite(phase_rad)
    count = int(good.sum())
    if count == 0:
        return np.zeros(phase_rad.shape, int)
    index = np.where(good, np.cumsum(good).reshape(good.shape) - 1, -1)
    ends = []
    for axis in range(index.ndim):
        a, b = (np.take(index, range(*at), axis).ravel() for at in _pairs(index.shape[axis]))
        ends.append(np.stack([a, b])[:, (a >= 0) & (b >= 0)])
    a, b = np.concatenate(ends, axis=1) if ends else np.zeros((2, 0), int)
    phase, variance = phase_rad[good], sd_rad[good] ** 2
    cost = np.sqrt(_wrapped(phase[a] - phase[b]) ** 2 + variance[a] + variance[b])
    # The tree's library takes 0 for no edge.
    graph = sparse.coo_array((cost + 1e-9, (a, b)), shape=(count, count)).tocsr()
    tree = minimum_spanning_tree(graph)
    regions, region = connected_components(tree, directed=False)
    parent = _parents(tree, region, count)
    jump = np.rint((phase[parent] - phase) / TURN).astype(int)
    found = _along(parent, jump)
    middle = np.array([np.median(part) for part in _parts(phase + TURN * found, region, regions)])
    found = found - np.rint(middle / TURN).astype(int)[region]
    whole = np.zeros(phase_rad.shape, int)
    whole[good] = found
    return whole


def _pairs(length: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (0, length - 1), (1, length)


def _wrapped(difference: np.ndarray) -> np.ndarray:
    return difference - TURN * np.rint(difference / TURN)


def _parents(tree, region: np.ndarray, count: int) -> np.ndarray:
    """Of each voxel the next towards its region's root, which is its own."""
    roots = np.unique(region, return_index=True)[1]
    above = sparse.coo_array((np.ones(roots.size), (np.full(roots.size, count), roots)))
    above.resize((count + 1, count + 1))
    tree = tree.tocoo()
    joined = sparse.coo_array((np.ones(tree.nnz), tree.coords), shape=(count + 1, count + 1))
    order = breadth_first_order((joined + above).tocsr(), count, directed=False)
    parent = order[1][:count]
    return np.where(parent == count, np.arange(count), parent)


def _along(parent: np.ndarray, jump: np.ndarray) -> np.ndarray:
    """Σ of jumps from the root to each voxel, by doubling the way."""
    while np.any(parent != parent[parent]):
        jump, parent = jump + jump[parent], parent[parent]
    return jump


def _parts(values: np.ndarray, region: np.ndarray, regions: int) -> list[np.ndarray]:
    order = np.argsort(region, kind="stable")
    return np.split(values[order], np.cumsum(np.bincount(region, minlength=regions))[:-1])
