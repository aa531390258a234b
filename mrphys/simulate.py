"""x = f(θ, q): the noiseless signal of any sequence in any shape of voxels."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Complex

from mrphys.sequence.base import Sequence
from mrphys.tissue import Tissue

CHUNK = 256
"""Voxels simulated together: their states stay in a core's cache."""


def simulate(
    theta: Sequence, q: Tissue, *, tolerance: float = 1e-4, chunk: int | None = CHUNK
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
    return _simulate(theta.within(q, tolerance), q, chunk)


@eqx.filter_jit
def _simulate(theta: Sequence, q: Tissue, chunk: int | None) -> Array:
    shape = q.voxel_shape
    voxels = jax.tree.map(
        lambda value: value.reshape(-1, *value.shape[len(shape) :]), q.broadcast()
    )
    count = voxels.m0.size
    devices = jax.local_devices()
    per_device = -(-count // len(devices))
    size = count if chunk is None else min(chunk, per_device)
    if count <= size:
        return theta.signal(voxels).reshape(*shape, -1)
    shares = len(devices) if count >= len(devices) * size else 1
    rows = -(-count // (size * shares)) * shares

    def chunks(value: Array) -> Array:
        spare = [(0, rows * size - count)] + [(0, 0)] * (value.ndim - 1)
        return jnp.pad(value, spare, mode="edge").reshape(rows, size, *value.shape[1:])

    def run(theta: Sequence, rows: Tissue) -> Array:
        return jax.lax.map(jax.checkpoint(lambda q: theta.signal(q)), rows)

    rowed = jax.tree.map(chunks, voxels)
    if shares > 1:
        mesh = Mesh(np.asarray(devices), ("voxels",))
        across = PartitionSpec("voxels")
        run = jax.shard_map(
            run, mesh=mesh, in_specs=(PartitionSpec(), across), out_specs=across, check_vma=False
        )
    x = run(theta, rowed)
    return x.reshape(rows * size, -1)[:count].reshape(*shape, -1)
