"""x = f(θ, q): the noiseless signal of any sequence in any shape of voxels."""

import jax
from jaxtyping import Array, Complex

from mrphys.sequence.base import Sequence
from mrphys.tissue import Tissue


def simulate(
    theta: Sequence, q: Tissue, *, chunk: int | None = None
) -> Complex[Array, "*voxels readouts"]:
    """The signal of every voxel of q at every readout of theta.

    All voxels at once, or `chunk` at a time when memory is short. Differentiable in θ and q,
    forward and reverse; works inside jit.

    >>> import mrphys as mr
    >>> theta = mr.sequence.diffusion_weighted([0, 500, 1000], te_s=0.08)
    >>> simulate(theta, mr.tissue.literature("white_matter", shape=(4, 5))).shape
    (4, 5, 3)
    """
    shape = q.voxel_shape
    voxels = jax.tree.map(lambda value: value.reshape(-1), q.broadcast())
    size = voxels.m0.size if chunk is None else chunk
    if size >= voxels.m0.size:
        x = jax.vmap(theta.signal)(voxels)
    else:
        x = jax.lax.map(theta.signal, voxels, batch_size=size)
    return x.reshape(*shape, -1)
