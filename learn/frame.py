"""What a network that maps reads and answers: signals in their own scale and phase, coordinates."""

from operator import attrgetter
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from mrphys.bounds import Bounds
from mrphys.voxelwise import Data, Model, Rows, as_rows, dot


class Asked(NamedTuple):
    """What a mapping is asked: unknowns in order, bounds of each (None: the amplitude), fields
    given of every voxel, the kind of data."""

    free: tuple[str, ...]
    bounds: tuple[Bounds | None, ...]
    given: tuple[str, ...]
    data: Data

    @property
    def amplitude(self) -> str | None:
        """The field in which the signal is linear."""
        return self.free[self.bounds.index(None)] if None in self.bounds else None


class Range(NamedTuple):
    """Of each number over the simulations."""

    low: Array
    high: Array
    mean: Array
    sd: Array

    @classmethod
    def of(cls, rows: Float[Array, "voxels numbers"]) -> "Range":
        """Measured; the sd of what does not vary is 1."""
        sd = jnp.std(rows, axis=0)
        steady = sd <= 1e3 * jnp.finfo(rows.dtype).eps * jnp.max(jnp.abs(rows), axis=0)
        return cls(rows.min(0), rows.max(0), rows.mean(0), jnp.where(steady, 1.0, sd))

    def outside(self, rows: Float[Array, "voxels numbers"], slack: Any) -> Bool[Array, " voxels"]:
        """Whether any number is, by more than the slack."""
        return ((rows < self.low[None] - slack) | (rows > self.high[None] + slack)).any(axis=1)


class Frame(NamedTuple):
    """The units in which a network reads and answers, measured on simulations.

    unit       root mean square of the signal, where it has no amplitude of its own
    reference  the combination of readouts that is strongest, whose phase is taken off
    signal, beside, coordinates    of the signal read, of what is read beside it (the logarithm of
                                   the noise, given fields), and of the unknowns answered
    """

    unit: Float[Array, ""]
    reference: Complex[Array, " readouts"] | None
    signal: Range
    beside: Range
    coordinates: Range


class Normalised(NamedTuple):
    """Rows of voxels in their own scale and phase."""

    rows: Rows
    scale: Float[Array, " voxels"]
    phase: Complex[Array, " voxels"] | None


def normalised(
    theta: Model, asked: Asked, unit: Array, reference: Array | None, x: Array
) -> Normalised:
    rows = as_rows(theta, asked.data, x)
    if asked.amplitude is None:
        return Normalised(tuple(row / unit for row in rows), jnp.full(x.shape[0], unit), None)
    count = sum(row.shape[0] for row in rows)
    scale = jnp.sqrt(dot(rows, rows) / count)
    rows = tuple(row / scale[None] for row in rows)
    if reference is None:
        return Normalised(rows, scale, None)
    along = jnp.conj(reference) @ jax.lax.complex(*rows)
    size = jnp.abs(along)
    phase = jnp.where(size > 0, along, 1.0) / jnp.where(size > 0, size, 1.0)
    turned = jax.lax.complex(*rows) * jnp.conj(phase)[None]
    return Normalised((turned.real, turned.imag), scale, phase)


def beside_signal(asked: Asked, scale: Array, sd: Array, q: Any) -> Float[Array, "voxels numbers"]:
    """What is read beside the signal."""
    return jnp.stack([jnp.log(sd / scale), *(attrgetter(n)(q) for n in asked.given)], axis=1)


def coordinates(asked: Asked, scale: Array, q: Any) -> Float[Array, "voxels free"]:
    """u of each free field; of the amplitude the logarithm, in the signal's scale."""
    pairs = zip(asked.free, asked.bounds, strict=True)
    return jnp.stack(
        [
            jnp.log(attrgetter(name)(q) / scale) if bound is None else
            bound.coordinate(attrgetter(name)(q))
            for name, bound in pairs
        ],
        axis=1,
    )  # fmt: skip


def inputs(frame: Frame, read: Normalised, beside: Array) -> Float[Array, "voxels inputs"]:
    # One unit for the whole signal: a readout that says little stays small.
    size = jnp.sqrt(jnp.mean(frame.signal.sd**2))
    signal = (jnp.concatenate(read.rows).T - frame.signal.mean[None]) / size
    return jnp.concatenate(
        [signal, (beside - frame.beside.mean[None]) / frame.beside.sd[None]], axis=1
    )


def pairs(
    theta: Model, asked: Asked, frame: Frame, q: Any, x: Array, sd: Array
) -> tuple[Float[Array, "voxels inputs"], Float[Array, "voxels free"]]:
    """What the network reads, and what it should answer."""
    read = normalised(theta, asked, frame.unit, frame.reference, x)
    u = coordinates(asked, read.scale, q)
    about = frame.coordinates
    return (
        inputs(frame, read, beside_signal(asked, read.scale, sd, q)),
        (u - about.mean[None]) / about.sd[None],
    )


def measured(theta: Model, asked: Asked, q: Any, x: Array, sd: Array) -> Frame:
    """The units, on simulations."""
    rows = as_rows(theta, asked.data, x)
    unit = jnp.sqrt(jnp.mean(jnp.concatenate(rows) ** 2))
    reference = None
    if asked.data == "complex" and asked.amplitude is not None:
        plain = jax.lax.complex(*rows)
        plain = plain / jnp.linalg.norm(plain, axis=0, keepdims=True)
        reference = jnp.linalg.eigh(plain @ jnp.conj(plain.T))[1][:, -1]
    read = normalised(theta, asked, unit, reference, x)
    return Frame(
        unit,
        reference,
        Range.of(jnp.concatenate(read.rows).T),
        Range.of(beside_signal(asked, read.scale, sd, q)),
        Range.of(coordinates(asked, read.scale, q)),
    )
