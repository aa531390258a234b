"""Fingerprints: the entry of a dictionary of simulated signals that a measured one looks like.

    theta = mr.sequence.fingerprinting_fisp(flip_rad, tr_s)
    book = mr.fingerprint.dictionary(theta, {"t1_s": t1_s, "t2_s": t2_s})
    match = book.match(x)
    est = mr.fit(theta, x, ("t1_s", "t2_s", "m0"), noise_sd, start=match.value)

The last line leaves the grid, and gives every map its standard deviation and status.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Bool, Float, Inexact, Int

from mrphys.errors import InputError, Problem
from mrphys.sequence.base import Sequence
from mrphys.simulate import TOLERANCE, over_voxels
from mrphys.tissue import Tissue
from mrphys.units import Values, check_count, check_finite, check_range
from mrphys.voxelwise import Model, with_fields

__all__ = ["Dictionary", "Match", "dictionary"]

T1_S, T2_S = 1.0, 0.1
"""Of tissue of which nothing is said."""
ENERGY = 1 - 1e-6
BLOCK = 1024
"""Entries, and voxels, that are compared at a time."""


class Match(eqx.Module):
    """The entries that signals look like. Maps have the voxels' shape.

    value        q: fields of the grid and the amplitude; the others as they were given
    phase_rad    of the amplitude
    correlation  |d · x| / |d| |x| of the compressed signals, |x| of all of x: 1 where the model
                 holds and noise is none, 0 where there is no signal or no mask
    index        of the entry in the dictionary's
    """

    value: Any
    phase_rad: Float[Array, "*voxels"]
    correlation: Float[Array, "*voxels"]
    index: Int[Array, "*voxels"]


class Dictionary(eqx.Module):
    """Signals of a grid of tissues, on the few directions that hold their energy; build by
    `dictionary`.

    entries  q of each
    atoms    signals of norm 1 on the basis
    size     what norm they had, where the amplitude is 1
    basis    orthonormal directions among readouts that are counted √averages times (`gain`), so
             that all have noise alike
    lost     the largest share of an entry's energy that is on no direction
    """

    entries: Any
    atoms: Inexact[Array, "entries rank"]
    size: Float[Array, " entries"]
    basis: Inexact[Array, "readouts rank"]
    gain: Float[Array, " readouts"]
    lost: Float[Array, ""]
    linear: str = eqx.field(static=True)
    magnitude: bool = eqx.field(static=True)

    def match(
        self,
        x: Inexact[Array | np.ndarray, "*voxels readouts"],
        *,
        mask: Bool[Array | np.ndarray, "..."] | None = None,
        block: int = BLOCK,
    ) -> Match:
        """The entry with the largest inner product with each voxel's signal,

            argmax over j of |d_j · x| / |d_j|,   amplitude d_j · x / |d_j|²

        compressed alike, so that what the entry lacks of x is least. What is so found correlates
        with x less than the best by 2 (√lost + lost) at most. In blocks of `block` voxels by as
        many entries, over all devices: memory beyond the dictionary and maps is a block's. Not to
        be differentiated: the entries are steps; `mr.fit(..., start=match.value)` is, and finds
        what lies between them. Raises InputError for shapes that do not match, numbers not finite
        in the mask, complex signals for a dictionary of magnitudes and the reverse.

        Ma et al. 2013, doi:10.1038/nature11971.
        """
        signals = jnp.asarray(x)
        shape = signals.shape[:-1]
        self._check(signals, mask)
        check_count("match: block", block)
        rows = signals.reshape(-1, signals.shape[-1])
        if mask is not None:
            rows = jnp.where(jnp.asarray(mask).reshape(-1)[:, None], rows, 0.0)
        kind = self.atoms.dtype if jnp.iscomplexobj(rows) else self.atoms.real.dtype
        index, product, share = over_voxels(
            eqx.Partial(_nearest, block), self, rows.astype(kind), block
        )
        amplitude, phase = jnp.abs(product) / self.size[index], jnp.angle(product)
        q = jax.tree.map(lambda leaf: leaf[index].reshape(shape), self.entries)
        return Match(
            with_fields(q, (self.linear,), (amplitude.reshape(shape),)),
            phase.reshape(shape),
            share.reshape(shape),
            index.reshape(shape),
        )

    def _check(self, x: Array, mask: Any) -> None:
        problems = []
        if x.ndim < 1 or x.shape[-1] != self.gain.size:
            expected = f"a last axis of {self.gain.size} readouts"
            cause = "readouts not on the last axis"
            problems.append(Problem("match: x", f"shape {x.shape}", expected, cause))
        elif jnp.iscomplexobj(x) and not jnp.iscomplexobj(self.atoms):
            expected = "magnitudes, of which the dictionary is made"
            problems.append(Problem("match: x", "complex numbers", expected))
        elif not self.magnitude and jnp.iscomplexobj(self.atoms) and not jnp.iscomplexobj(x):
            expected = "complex signals, or a dictionary(..., magnitude=True)"
            problems.append(Problem("match: x", "real numbers", expected, "magnitude images"))
        if mask is not None and mask.shape != x.shape[:-1]:
            expected = f"shape {x.shape[:-1]}"
            problems.append(Problem("match: mask", f"shape {mask.shape}", expected))
        if problems:
            raise InputError(*problems)
        if not isinstance(x, Tracer) and not isinstance(mask, Tracer):
            inside = x if mask is None else x[jnp.asarray(mask)]
            check_finite("match: x", inside, "voxels blanked with NaN; leave them out by the mask")


def dictionary(
    theta: Model,
    grid: Mapping[str, Values],
    *,
    known: eqx.Module | None = None,
    magnitude: bool = False,
    energy: float = ENERGY,
    linear: str = "m0",
    block: int = BLOCK,
) -> Dictionary:
    """The signals of every combination of the values of `grid`, compressed.

    theta      any sequence, or module with `averages` and `signals(rows)`
    grid       the values of each field of q, a list each; entries of T2 above T1 are left out
    known      the other fields, one number each: T1 1 s and T2 0.1 s when None
    magnitude  of complex signals, for magnitude images
    energy     share of all entries' energy, each of norm 1, that the basis must hold: it has the
               fewest of the singular vectors that do
    linear     the field in which the signal is linear

    In blocks: memory is the compressed entries, a block of `block` signals, and a matrix readouts
    by readouts, whose eigenvectors are the singular vectors. Signals are simulated twice, once for
    the basis. In float32 the basis holds no more than 1 - 1e-6 for sure. Raises InputError for
    names that are no field, empty or not finite lists, a field of known that is no single number,
    a share of energy out of range, no entry left or one without signal.

    McGivney et al. 2014 (compression), doi:10.1109/TMI.2014.2337321.

    >>> import mrphys as mr
    >>> theta = mr.sequence.multi_echo_gradient_echo([0.005, 0.02, 0.05])
    >>> book = dictionary(theta, {"t2_s": [0.02, 0.04, 0.06]})
    >>> match = book.match(mr.simulate(theta, mr.Tissue(t1_s=1.0, t2_s=[0.04, 0.06], m0=2.0)))
    >>> match.value.t2_s
    Array([0.04, 0.06], dtype=float64)
    """
    where = "dictionary"
    check_range(f"{where}: energy", energy, 0.0, 1.0, "of the whole")
    check_count(f"{where}: block", block)
    q = _entries(where, grid, known, linear)
    if isinstance(theta, Sequence) and isinstance(q, Tissue):
        theta = theta.within(q, TOLERANCE)
    gain = jnp.sqrt(theta.averages)
    f = eqx.Partial(_signals, magnitude, gain)
    count = jax.tree.leaves(q)[0].shape[0]
    starts = range(0, count, block)

    def signals(start: int) -> tuple[Array, Array]:
        """A block and what of it is not repeated to fill it."""
        which = np.arange(start, start + min(block, count))
        rows = jax.tree.map(lambda leaf: leaf[np.minimum(which, count - 1)], q)
        return over_voxels(f, theta, rows), jnp.asarray(which < count)

    grams = [np.asarray(_gram(*signals(start))) for start in starts]
    kind = grams[0].dtype
    gram = np.sum(grams, axis=0, dtype=np.result_type(kind, np.float64))
    if not np.isfinite(gram).all():
        raise InputError(Problem(f"{where}: grid", "an entry without signal", "signals"))
    basis = jnp.asarray(_directions(gram, energy), kind)
    atoms, size, left = (
        jnp.concatenate(parts)[:count]
        for parts in zip(*(_compressed(basis, signals(start)[0]) for start in starts), strict=True)
    )
    return Dictionary(q, atoms, size, basis, gain, jnp.max(left), linear, magnitude)


def _entries(where: str, grid: Mapping[str, Values], known: Any, linear: str) -> eqx.Module:
    """q of every combination of a grid that may be."""
    given = known is not None
    known = known if given else Tissue(t1_s=T1_S, t2_s=T2_S)
    lists = {name: np.asarray(values) for name, values in grid.items()}
    problems = [] if grid else [Problem(f"{where}: grid", "no field", "a list for each field")]
    for name in (*grid, linear):
        try:
            attrgetter(name)(known)
        except AttributeError:
            has = ", ".join(vars(known))
            problems.append(Problem(f"{where}: grid", repr(name), f"a field: {has}"))
    for name, values in lists.items():
        if values.ndim != 1 or values.size == 0 or not np.issubdtype(values.dtype, np.number):
            problems.append(Problem(f"{where}: grid", f"{name} {values!r}", "a list of numbers"))
        elif not np.isfinite(values).all():
            problems.append(Problem(f"{where}: grid", f"{name} not finite", "finite numbers"))
    if any(jnp.size(leaf) != 1 for leaf in jax.tree.leaves(known)):
        expected = "one number for each field; what varies belongs in the grid"
        problems.append(Problem(f"{where}: known", "a map", expected))
    if linear in grid:
        problems.append(Problem(f"{where}: grid", linear, "no amplitude: every match finds it"))
    if problems:
        raise InputError(*problems)
    every = dict(zip(lists, np.meshgrid(*lists.values(), indexing="ij"), strict=True))
    every = {name: values.reshape(-1) for name, values in every.items()}
    t1, t2 = (every.get(name, getattr(known, name, None)) for name in ("t1_s", "t2_s"))
    if t1 is not None and t2 is not None and (given or {"t1_s", "t2_s"} <= set(every)):
        possible = np.broadcast_to(np.asarray(t2 <= t1), next(iter(every.values())).shape)
        every = {name: values[possible] for name, values in every.items()}
    count = next(iter(every.values())).size
    if count == 0:
        raise InputError(Problem(f"{where}: grid", "T2 above T1 in all entries", "T2 <= T1"))
    fields = [jnp.asarray(values, float) for values in every.values()]
    q = with_fields(known, (*every, linear), (*fields, jnp.ones(())))
    return jax.tree.map(lambda leaf: jnp.broadcast_to(leaf.reshape(-1), count), q)


def _signals(magnitude: bool, gain: Array, theta: Model, rows: Any) -> Array:
    """Of a row of voxels, of norm that counts each readout by its averages."""
    x = theta.signals(rows)
    return (jnp.abs(x) if magnitude else x) * gain[None].astype(x.real.dtype)


@jax.jit
def _gram(x: Array, real: Array) -> Array:
    """Σ over a block's entries of d dᴴ, d of norm 1."""
    d = jnp.where(real[:, None], x / jnp.linalg.norm(x, axis=1, keepdims=True), 0.0)
    return d.T @ d.conj()


def _directions(gram: np.ndarray, energy: float) -> np.ndarray:
    """The fewest singular vectors that hold the energy."""
    energies, vectors = np.linalg.eigh(gram)
    held = np.cumsum(energies[::-1]) / np.sum(energies)
    rank = 1 + int(np.sum(held < energy))
    return vectors[:, ::-1][:, :rank]


@jax.jit
def _compressed(basis: Array, x: Array) -> tuple[Array, Array, Array]:
    """Of a block: atoms, their size, the share of energy lost."""
    parts = x @ basis.conj()
    size = jnp.linalg.norm(parts, axis=1)
    left = jnp.linalg.norm(x - parts @ basis.T, axis=1) / jnp.linalg.norm(x, axis=1)
    return parts / size[:, None], size, left**2


def _nearest(block: int, book: Dictionary, x: Array) -> tuple[Array, Array, Array]:
    """Of a row of signals: index of the entry, its product with the signal, their correlation."""
    weighed = x * book.gain[None].astype(x.real.dtype)
    parts = weighed @ book.basis.conj()
    count = book.size.size
    width = min(block, count)
    starts = jnp.minimum(width * jnp.arange(-(-count // width)), count - width)

    def compare(best: tuple[Array, Array], start: Array) -> tuple[tuple[Array, Array], None]:
        atoms = jax.lax.dynamic_slice_in_dim(book.atoms, start, width)
        score = _squared(parts, atoms)
        here = jnp.argmax(score, axis=1)
        most = jnp.take_along_axis(score, here[:, None], axis=1)[:, 0]
        better = most > best[0]
        return (jnp.where(better, most, best[0]), jnp.where(better, start + here, best[1])), None

    begin = jnp.full(len(x), -1.0, parts.real.dtype), jnp.zeros(len(x), int)
    index = jax.lax.scan(compare, begin, starts)[0][1]
    product = jnp.sum(parts * book.atoms[index].conj(), axis=1)
    norm = jnp.linalg.norm(weighed, axis=1)
    share = jnp.where(norm > 0, jnp.abs(product) / jnp.where(norm > 0, norm, 1.0), 0.0)
    return index, product, share


def _squared(x: Array, atoms: Array) -> Float[Array, "voxels entries"]:
    """|d · x|² of each pair. Two products of real matrices outrun one of complex ones."""
    if not jnp.iscomplexobj(x):
        return (x @ atoms.T) ** 2
    both = jnp.concatenate([atoms.real, atoms.imag], axis=1).T
    along = jnp.concatenate([x.real, x.imag], axis=1) @ both
    across = jnp.concatenate([x.imag, -x.real], axis=1) @ both
    return along**2 + across**2
