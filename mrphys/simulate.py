"""x = f(θ, q): the noiseless signal of any sequence in any shape of voxels."""

from collections.abc import Callable
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Complex, Float, PyTree

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
    count, size, shares = _shared_out(rows, chunk)
    if count <= size:
        return f(theta, rows)

    def run(theta: PyTree, rows: PyTree) -> PyTree:
        return jax.lax.map(jax.checkpoint(lambda row: f(theta, row)), rows)

    cut = partial(_cut, size=size, shares=shares)
    found = _on_devices(run, shares, PartitionSpec("voxels"))(theta, jax.tree.map(cut, rows))
    return jax.tree.map(lambda value: value.reshape(-1, *value.shape[2:])[:count], found)


def sum_over_voxels(
    f: Callable[[PyTree, PyTree], Float[Array, " voxels"]],
    theta: PyTree,
    rows: PyTree,
    chunk: int | None = CHUNK // 2,
) -> Float[Array, ""]:
    """Σ over voxels of f(θ, rows), in chunks and over devices as `over_voxels`.

    Where it is differentiated, the gradient of a chunk is taken while its value is: a pass of f
    less than through `over_voxels`, which must go through each chunk again.

    >>> rows = jnp.arange(1000.0)
    >>> jax.grad(lambda theta: sum_over_voxels(lambda t, r: t * r, theta, rows))(1.0)
    Array(499500., dtype=float64, weak_type=True)
    """
    return _sum(theta, rows, f=f, chunk=chunk)


@eqx.filter_custom_jvp
def _sum(theta: PyTree, rows: PyTree, *, f: Callable, chunk: int | None) -> Array:
    def part(theta: PyTree, rows: PyTree, real: Array) -> tuple[Array, None]:
        return jnp.sum(jnp.where(real, f(theta, rows), 0.0)), None

    return _accumulated(part, theta, rows, chunk)[0]


@_sum.def_jvp
def _sum_with_gradient(primals: tuple, tangents: tuple, *, f: Callable, chunk: int | None):
    def where_moving(moving: bool) -> PyTree:
        return jax.tree.map(
            lambda value, tangent: value if (tangent is not None) == moving else None,
            primals,
            tangents,
            is_leaf=lambda value: value is None,
        )

    (theta, rows), (still_theta, still_rows) = where_moving(True), where_moving(False)

    def part(theta: PyTree, rows: PyTree, real: Array) -> tuple[PyTree, PyTree]:
        theta, still = theta
        rows, still_rows = rows

        def total(moving: tuple) -> Array:
            now = f(eqx.combine(moving[0], still), eqx.combine(moving[1], still_rows))
            return jnp.sum(jnp.where(real, now, 0.0))

        value, (slope, row_slopes) = jax.value_and_grad(total)((theta, rows))
        return (value, slope), row_slopes

    (value, slope), row_slopes = _accumulated(part, (theta, still_theta), (rows, still_rows), chunk)
    products = jax.tree.map(lambda g, t: jnp.sum(g * t), (slope, row_slopes), tangents)
    return value, sum(jax.tree.leaves(products), jnp.zeros_like(value))


@eqx.filter_jit
def _accumulated(part: Callable, theta: PyTree, rows: PyTree, chunk: int | None) -> PyTree:
    """Of part(θ, rows, which of them are real) -> (a, b): Σ a over chunks, and all b."""
    count, size, shares = _shared_out(rows, chunk)
    rows = jax.tree.map(partial(_cut, size=size, shares=shares), rows)
    chunks = jax.tree.leaves(rows)[0].shape[0]
    real = (jnp.arange(chunks * size) < count).reshape(chunks, size)

    def run(theta: PyTree, parts: tuple) -> PyTree:
        def add(total: PyTree, chunk: tuple) -> PyTree:
            more, each = part(theta, *chunk)
            return jax.tree.map(jnp.add, total, more), each

        like, _ = jax.eval_shape(part, theta, *jax.tree.map(lambda value: value[0], parts))
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        total, each = jax.lax.scan(add, start, parts)
        return jax.lax.psum(total, "voxels") if shares > 1 else total, each

    out = PartitionSpec(), PartitionSpec("voxels")
    total, each = _on_devices(run, shares, out)(theta, (rows, real))
    return total, jax.tree.map(lambda value: value.reshape(-1, *value.shape[2:])[:count], each)


def _shared_out(rows: PyTree, chunk: int | None) -> tuple[int, int, int]:
    """Voxels, voxels of a chunk, and devices to share chunks among."""
    devices = jax.local_device_count()
    count = jax.tree.leaves(rows)[0].shape[0]
    size = count if chunk is None else min(chunk, -(-count // devices))
    return count, size, devices if count >= devices * size else 1


def _cut(value: Array, size: int, shares: int) -> Array:
    """In chunks, as many for each device, the last filled up with copies of the last voxel."""
    count = value.shape[0]
    chunks = -(-count // (size * shares)) * shares
    spare = [(0, chunks * size - count)] + [(0, 0)] * (value.ndim - 1)
    return jnp.pad(value, spare, mode="edge").reshape(chunks, size, *value.shape[1:])


def _on_devices(run: Callable, shares: int, out: PyTree) -> Callable:
    if shares == 1:
        return run
    mesh = Mesh(np.asarray(jax.local_devices()), ("voxels",))
    specs = PartitionSpec(), PartitionSpec("voxels")
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
