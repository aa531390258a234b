"""x = f(θ, q): the noiseless signal of any sequence in any shape of voxels."""

import dataclasses
from collections.abc import Callable
from collections.abc import Sequence as Many
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Complex, Float, PyTree

from mrphys.devices import sharing
from mrphys.errors import InputError, Problem
from mrphys.sequence.base import Sequence
from mrphys.tissue import PARTS, Tissue
from mrphys.units import check_count, check_range

CHUNK = 256
"""Voxels simulated together: their states stay in a core's cache."""
LANES = 8
"""Of the processor's vectors in float32: what does not fill them is slow."""
LEAST = 128
"""Voxels that are worth a device."""

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
    inside jit. Raises InputError for anything that is no sequence or tissue, a tolerance or chunk
    out of range.

    >>> import mrphys as mr
    >>> theta = mr.sequence.diffusion_weighted([0, 500, 1000], te_s=0.08)
    >>> simulate(theta, mr.tissue.literature("white_matter", shape=(4, 5))).shape
    (4, 5, 3)
    """
    for name, value, kind in (("theta", theta, Sequence), ("q", q, Tissue)):
        if not isinstance(value, kind):
            found = f"a {type(value).__name__}"
            raise InputError(Problem(f"simulate: {name}", found, f"a {kind.__name__}"))
    check_range("simulate: tolerance", tolerance, 1e-15, 1.0, "of m0")
    if chunk is not None:
        check_count("simulate: chunk", chunk)
    if 0 in q.voxel_shape:
        shape = (*q.voxel_shape, theta.averages.size)
        return jnp.zeros(shape, jnp.result_type(q.m0, 1j))
    x = over_voxels(_signal, theta.within(q, tolerance), as_rows(q), chunk)
    return x.reshape(*q.voxel_shape, -1)


def _signal(theta: Sequence, rows: Tissue) -> Complex[Array, "voxels readouts"]:
    return theta.signals(rows)


def jacobian(
    theta: Sequence,
    q: Tissue,
    wrt: Many[str] = ("t1_s", "t2_s"),
    *,
    tolerance: float = TOLERANCE,
    chunk: int | None = CHUNK // 2,
) -> dict[str, Complex[Array, "*voxels readouts"]]:
    """∂x/∂q of every voxel at every readout, for each field of q named in `wrt`.

    By forward mode: one parameter of all voxels is moved at once. Other arguments as of
    `simulate`. Raises InputError for names that are no field of numbers.

    >>> import mrphys as mr
    >>> theta = mr.sequence.spin_echo(te_s=0.1)
    >>> slope = jacobian(theta, mr.Tissue(t1_s=1.0, t2_s=0.1), ["t2_s"])["t2_s"]
    >>> slope.imag.round(4)  # TE / T2² exp(-TE / T2)
    Array([3.6788], dtype=float64)
    """
    check_fields("jacobian: wrt", wrt)
    shape = q.voxel_shape
    f = eqx.Partial(_by_voxel, tuple(wrt))
    slopes = over_voxels(f, theta.within(q, tolerance), as_rows(q), chunk)
    return {name: slopes[:, i].reshape(*shape, -1) for i, name in enumerate(wrt)}


def _by_voxel(
    wrt: tuple[str, ...], theta: Sequence, rows: Tissue
) -> Complex[Array, "voxels parameters readouts"]:
    return jnp.moveaxis(slopes(theta, rows, wrt), 0, 1)


def slopes(
    theta: Sequence, rows: Tissue, wrt: tuple[str, ...]
) -> Complex[Array, "parameters voxels readouts"]:
    """∂x/∂q of a row of voxels."""
    return signals_and_slopes(theta, rows, wrt)[1]


def signals_and_slopes(
    theta: Sequence, rows: Tissue, wrt: tuple[str, ...]
) -> tuple[Complex[Array, "voxels readouts"], Complex[Array, "parameters voxels readouts"]]:
    """x and ∂x/∂q of a row of voxels. No voxel's signal knows of another's tissue: one direction
    moves a parameter of all of them. Fields that do not move have no derivative to carry."""
    now = [getattr(rows, name) for name in wrt]

    def signals(moving: list[Array]) -> Array:
        return theta.signals(
            eqx.tree_at(lambda q: [getattr(q, name) for name in wrt], rows, moving)
        )

    which = jnp.eye(len(wrt), dtype=bool)
    moves = [
        jnp.broadcast_to(row[:, None], (len(wrt), value.size)).astype(value.dtype)
        for row, value in zip(which, now, strict=True)
    ]
    along = jax.vmap(lambda move: jax.jvp(signals, (now,), (move,)), out_axes=(None, 0))
    return along(moves)


def check_fields(where: str, wrt: Many[str]) -> None:
    """Raises InputError for names that are no field of Tissue."""
    fields = [field.name for field in dataclasses.fields(Tissue) if field.name not in PARTS]
    unknown = [name for name in wrt if name not in fields]
    if unknown or not wrt:
        raise InputError(Problem(where, f"{unknown or 'nothing'}", f"of {', '.join(fields)}"))


def as_rows(q: Tissue) -> Tissue:
    """All voxels in one row, every field of every voxel."""
    shape = q.voxel_shape
    return jax.tree.map(lambda value: value.reshape(-1, *value.shape[len(shape) :]), q.broadcast())


@eqx.filter_jit
def over_voxels(
    f: Callable[[PyTree, PyTree], PyTree], theta: PyTree, rows: PyTree, chunk: int | None = CHUNK
) -> PyTree:
    """f(θ, rows) of a tree of arrays whose first axis is voxels, `chunk` rows at a time, spread
    over all devices of this process when each has a chunk. Derivatives are taken chunk by chunk."""
    count = jax.tree.leaves(rows)[0].shape[0]
    shares = _shares(count, chunk)

    def run(theta: PyTree, rows: PyTree) -> PyTree:
        count, size = _count_and_size(rows, chunk)
        if count <= size:
            return f(theta, rows)
        parts = jax.tree.map(partial(_cut, size=size), rows)
        found = jax.lax.map(jax.checkpoint(lambda row: f(theta, row)), parts)
        return jax.tree.map(lambda value: value.reshape(-1, *value.shape[2:])[:count], found)

    found = _on_devices(run, shares, PartitionSpec("voxels"))(theta, _filled(rows, shares))
    return found if count % shares == 0 else jax.tree.map(lambda value: value[:count], found)


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
    whole = jax.tree.leaves(rows)[0].shape[0]
    shares = _shares(whole, chunk)

    def run(theta: PyTree, parts: PyTree) -> PyTree:
        def add(total: PyTree, chunk: PyTree) -> PyTree:
            rows, index = chunk
            more, each = part(theta, rows, index < whole)
            return jax.tree.map(jnp.add, total, more), each

        count, size = _count_and_size(parts, chunk)
        rows, index = jax.tree.map(partial(_cut, size=size), parts)
        # What fills the last chunk up is beyond the last voxel.
        index = jnp.where(jnp.arange(index.size).reshape(index.shape) < count, index, whole)
        first = jax.tree.map(lambda value: value[0], rows)
        like, _ = jax.eval_shape(part, theta, first, index[0] < whole)
        start = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), like)
        total, each = jax.lax.scan(add, start, (rows, index))
        each = jax.tree.map(lambda value: value.reshape(-1, *value.shape[2:])[:count], each)
        return jax.lax.psum(total, "voxels") if shares > 1 else total, each

    out = PartitionSpec(), PartitionSpec("voxels")
    filled = _filled(rows, shares)
    index = jnp.arange(jax.tree.leaves(filled)[0].shape[0])
    total, each = _on_devices(run, shares, out)(theta, (filled, index))
    return total, jax.tree.map(lambda value: value[:whole], each)


def _shares(count: int, chunk: int | None) -> int:
    """Devices to share voxels among."""
    if chunk is None or count < 2 * LEAST:
        return 1
    devices = sharing()
    return devices if count >= devices * LEAST else 1


def _count_and_size(rows: PyTree, chunk: int | None) -> tuple[int, int]:
    """Voxels, and voxels of each chunk: such as fill the processor's vectors, and leave no chunk
    to fill up where there are."""
    count = jax.tree.leaves(rows)[0].shape[0]
    if chunk is None or count <= chunk:
        return count, count
    even = [size for size in range(chunk, chunk // 2, -1) if not (size % LANES or count % size)]
    return count, even[0] if even else chunk


def _filled(rows: PyTree, shares: int) -> PyTree:
    """With copies of the last voxel, until devices have as many each."""
    return jax.tree.map(lambda value: _padded(value, -value.shape[0] % shares), rows)


def _cut(value: Array, size: int) -> Array:
    """In chunks, the last filled up with copies of the last voxel."""
    value = _padded(value, -value.shape[0] % size)
    return value.reshape(-1, size, *value.shape[1:])


def _padded(value: Array, spare: int) -> Array:
    return jnp.pad(value, [(0, spare)] + [(0, 0)] * (value.ndim - 1), mode="edge")


def _on_devices(run: Callable, shares: int, out: PyTree) -> Callable:
    if shares == 1:
        return run
    mesh = Mesh(np.asarray(jax.local_devices()), ("voxels",))
    specs = PartitionSpec(), PartitionSpec("voxels")
    return jax.shard_map(run, mesh=mesh, in_specs=specs, out_specs=out, check_vma=False)
