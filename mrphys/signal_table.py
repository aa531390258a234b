"""Signals of two unknowns by a table: each entry a signal and its derivatives up to the second.

Where all that is known of a tissue is alike in every voxel, a voxel's signal is a function of two
numbers and an amplitude: of T2 and B1 in a train of echoes. Near entry i, at d entries' spacings
from it,

    s(d) = s_i + Σ_k d_k ∂_k s_i + ½ Σ_kl d_k d_l ∂_k ∂_l s_i

costs as much as reading 6 numbers a readout, whatever the sequence. Derivatives are differences of
sixth order between entries. Signals are of one phase, and told by their direction and size: a
series of directions errs as little where signals are weak.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact

from mrphys.simulate import over_voxels
from mrphys.voxelwise import Model, Question, Rows, as_rows, kept, with_fields

ENTRIES = (80, 48)
"""Along the unknown that is known better, and the other."""
BEYOND = 3
"""More of them to either side, for the differences."""
WORST = 1e-3
"""Of a signal, that its series may be off."""
ONE_PHASE = 1e-5


class SignalTable(eqx.Module):
    """Entries in the middles of equal shares of both bounds, whose first unknown is the one that
    the data tell better.

    jets      of each entry: the direction of its signal and the logarithm of its size, then ∂_1,
              ∂_2, ∂_1², ∂_1 ∂_2, ∂_2² of both, in spacings
    phase     exp(-iφ) of the phase of all signals
    error     of a direction, where its series is worst
    swapped   whether the first unknown is the second that was asked for
    """

    jets: Float[Array, "entries 6 numbers"]
    phase: Array
    error: Float[Array, ""]
    swapped: bool = eqx.field(static=True)

    def near(
        self, first: Float[Array, " voxels"], second: Float[Array, " voxels"]
    ) -> tuple[Array, Array]:
        """The direction of the signal and the logarithm of its size, (readouts + 1, voxels), and
        their derivatives in the first share."""
        at = [share * n - 0.5 for share, n in zip((first, second), ENTRIES, strict=True)]
        index = [
            jnp.clip(jnp.round(x), 0, n - 1).astype(int) for x, n in zip(at, ENTRIES, strict=True)
        ]
        d, e = ((x - i)[:, None] for x, i in zip(at, index, strict=True))
        jets = jnp.moveaxis(self.jets[index[0] * ENTRIES[1] + index[1]], 1, 0)
        value = jets[0] + d * (jets[1] + d / 2 * jets[3] + e * jets[4])
        value = value + e * (jets[2] + e / 2 * jets[5])
        slope = ENTRIES[0] * (jets[1] + d * jets[3] + e * jets[4])
        # Read as they lie, written so that vectors run along voxels.
        both = kept(jnp.stack([value, slope]), first[0] < jnp.inf)
        return both[0].T, both[1].T


def tabulated(ask: Question, theta: Model, known: eqx.Module) -> SignalTable | None:
    """The table of what is asked; None where there is none: not two unknowns and an amplitude,
    known parameters that vary, derivatives to be taken in θ, signals of several phases or of none,
    such as no series tells."""
    if len(ask.unknowns) != 2 or len(ask.amplitudes) != 1:
        return None
    if any(isinstance(leaf, Tracer) for leaf in jax.tree.leaves((theta, known))):
        return None
    maps = [np.asarray(leaf) for leaf in jax.tree.leaves(known)]
    if any((leaf != leaf[0]).any() for leaf in maps):
        return None
    known = jax.tree.map(lambda leaf: leaf[0], known)
    for swapped in (False, True):
        rows = _entries(ask, swapped, known)
        signals = over_voxels(_signals, theta, rows)
        kind = "complex" if jnp.iscomplexobj(signals) else "real"
        parts = as_rows(theta, kind, signals)
        jets, phase, told = _made(parts)
        off, error, better = (float(number) for number in told)
        if not (off < ONE_PHASE and error < WORST):
            return None
        if better >= 1:
            break
    return SignalTable(jets, phase, told[1], swapped)


def _signals(theta: Model, rows: eqx.Module) -> Inexact[Array, "entries readouts"]:
    return theta.signals(rows)


def _entries(ask: Question, swapped: bool, known: eqx.Module) -> eqx.Module:
    """Every combination of shares, and BEYOND more; amplitude 1."""
    order = slice(None, None, -1 if swapped else 1)
    shares = [(np.arange(-BEYOND, n + BEYOND) + 0.5) / n for n in ENTRIES]
    grid = np.stack(np.meshgrid(*shares, indexing="ij")).reshape(2, -1)
    rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, grid.shape[1:]), known)
    one = jnp.ones_like(jax.tree.leaves(rows)[0])
    pairs = zip(ask.bounds[order], grid, strict=True)
    values = [bound.at_share(jnp.asarray(share, one.dtype)) for bound, share in pairs]
    return with_fields(rows, ask.unknowns[order] + ask.amplitudes, [*values, one])


@jax.jit
def _made(parts: Rows) -> tuple[Array, Array, Float[Array, "3"]]:
    """Jets; exp(-iφ); how far the signals are from one phase, the error, and how many times as much
    as the second the first unknown's range moves the direction."""
    real = parts[0]
    phase, off = jnp.ones((), real.dtype), jnp.zeros((), real.dtype)
    if len(parts) == 2:
        turned = jax.lax.complex(*parts)
        phase = jnp.exp(-0.5j * jnp.angle(jnp.sum(turned**2)))
        turned = turned * phase
        real = turned.real
        off = jnp.max(jnp.abs(turned.imag)) / jnp.max(jnp.abs(real))
    size = jnp.sqrt(jnp.sum(real**2, axis=0))[None]
    field = jnp.concatenate([real / size, jnp.log(size)])
    field = field.reshape(-1, *(n + 2 * BEYOND for n in ENTRIES))
    one, other = (jnp.asarray(_differences(n), field.dtype) for n in ENTRIES)
    powers = ((0, 0), (1, 0), (0, 1), (2, 0), (1, 1), (0, 2))
    jets = jnp.stack(
        [jnp.einsum("ai,bj,rij->abr", one[p], other[q], field) for p, q in powers], axis=2
    )
    moved = [jnp.log(jnp.sum(jets[:, :, k, :-1] ** 2, axis=-1)).mean() / 2 for k in (1, 2)]
    better = jnp.exp(moved[0] - moved[1]) * ENTRIES[0] / ENTRIES[1]
    told = jnp.stack([off, _apart(jets), better])
    return jets.reshape(-1, *jets.shape[2:]), phase, told


def _differences(count: int) -> Float[np.ndarray, "3 entries wider"]:
    """Value, first and second derivative at each entry of entries and BEYOND, in spacings."""
    stencils = (
        (0, 0, 0, 1, 0, 0, 0),
        np.array((-1, 9, -45, 0, 45, -9, 1)) / 60,
        np.array((2, -27, 270, -490, 270, -27, 2)) / 180,
    )
    rows = np.arange(count)[:, None]
    matrices = np.zeros((3, count, count + 2 * BEYOND))
    for matrix, stencil in zip(matrices, stencils, strict=True):
        matrix[rows, rows + np.arange(2 * BEYOND + 1)] = stencil
    return matrices


def _apart(jets: Float[Array, "first second 6 numbers"]) -> Float[Array, ""]:
    """Half the largest difference of neighbours' series midway: what each is off."""
    value, d, e, dd, _, ee = jnp.moveaxis(jets[..., :-1], 2, 0)
    above, below = value + d / 2 + dd / 8, value - d / 2 + dd / 8
    right, left = value + e / 2 + ee / 8, value - e / 2 + ee / 8
    gaps = above[:-1] - below[1:], right[:, :-1] - left[:, 1:]
    return jnp.max(jnp.stack([jnp.max(jnp.sqrt(jnp.sum(gap**2, -1))) for gap in gaps])) / 2
