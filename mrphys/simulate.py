"""x = f(θ, q): the noiseless signal of any sequence in any shape of voxels."""

from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Complex, PyTree

from mrphys.sequence.base import Sequence
from mrphys.tissue import Tissue

CHUNK = 256
"""Voxels simulated together: their states stay in a core's cache."""


TOLERANCE = 1e-4
"""Of m0: what series that a sequence cuts short may err by."""


def simulate(
    theta: Sequence, q: Tissue, *, tolerance: float = TOLERANCE, chunk: int | None = CHUNK
) -> Complex[Array, "*voxels readouts"]:
    """The signal of every voxel of q at every readout of theta.

    In chunks of `chunk` voxels (None: all at once), spread over all devices of this process;
    memory beyond the signal is that of a chunk, also in reverse mode. Series that a sequence cuts
    short, such as the orders of an extended phase graph, err by less than `tolerance` of m0; where
    q or θ is being traced nothing is cut. Differentiable in θ and q, forward and reverse; works
    inside jit.

    >>> import mrphys as mr
    >>> theta = mr.sequence.diffusion_weighted([0, 500, 1000], te_s=0.08)
    >>> simulate(theta, mr.tissue.literature("white_matter", shape=(4, 5))).shape
    (4, 5, 3)
    """
    shape = q.voxel_shape
    rows = jax.tree.map(lambda value: value.reshape(-1, *value.shape[len(shape) :]), q.broadcast())
    x = over_voxels(_signal, theta.within(q, tolerance), rows, chunk)
    return x.reshape(*shape, -1)


def _signal(theta: Sequence, rows: Tissue) -> Complex[Array, "voxels readouts"]:
    return theta.signals(rows)


@eqx.filter_jit
def over_voxels(
    f: Callable[[PyTree, PyTree], PyTree], theta: PyTree, rows: PyTree, chunk: int | None = CHUNK
) -> PyTree:
    """f(θ, rows) of a tree of arrays whose first axis is voxels, `chunk` rows at a time, spread
    over all devices of this process when each has a chunk. Derivatives are taken chunk by chunk."""
    devices = jax.local_devices()
    count = jax.tree.leaves(rows)[0].shape[0]
    size = count if chunk is None else min(chunk, -(-count // len(devices)))
    if count <= size:
        return f(theta, rows)
    shares = len(devices) if count >= len(devices) * size else 1
    chunks = -(-count // (size * shares)) * shares

    def cut(value: Array) -> Array:
        spare = [(0, chunks * size - count)] + [(0, 0)] * (value.ndim - 1)
        return jnp.pad(value, spare, mode="edge").reshape(chunks, size, *value.shape[1:])

    def run(theta: PyTree, rows: PyTree) -> PyTree:
        return jax.lax.map(jax.checkpoint(lambda row: f(theta, row)), rows)

    if shares > 1:
        mesh = Mesh(np.asarray(devices), ("voxels",))
        across = PartitionSpec("voxels")
        run = jax.shard_map(
            run, mesh=mesh, in_specs=(PartitionSpec(), across), out_specs=across, check_vma=False
        )
    found = run(theta, jax.tree.map(cut, rows))
    return jax.tree.map(lambda value: value.reshape(-1, *value.shape[2:])[:count], found)
