"""Every curve that exponentials make of one arterial input, in a few numbers.

The curves f(k) = ∫ exp(-k (t - τ)) c_a(τ) dτ of all rates k, with c_a and ∫ c_a, nearly lie in a
space of a dozen dimensions. Data are projected on it once (least squares sees nothing of the rest)
and the curve at any k is read from a table: what a fit of many voxels costs no longer depends on
the number of images.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.perfusion.series import DynamicSeries
from mrphys.perfusion.tracer_kinetics import Exponentials

NODES = 256
"""Rates in the table, evenly spaced in log k; between them it is cubic."""
DROPPED = {"float32": 3e-7, "float64": 1e-11}
"""Singular values left out, relative to the largest."""


class Subspace(eqx.Module):
    """A `DynamicSeries` seen through an orthonormal basis; signals are those of `Exponentials`
    without delay, for rates within those given."""

    basis: Float[Array, "readouts numbers"]
    plasma: Float[Array, " numbers"]
    kept: Float[Array, " numbers"]
    table: Float[Array, "nodes two_numbers"]
    low: Float[Array, ""]
    spacing: Float[Array, ""]

    @property
    def averages(self) -> Float[Array, " numbers"]:
        """One."""
        return jnp.ones(self.plasma.shape, self.plasma.dtype)

    @eqx.filter_jit
    def project(
        self, x: Float[Array, "*voxels readouts"]
    ) -> tuple[Float[Array, "*voxels numbers"], Float[Array, "*voxels"]]:
        """Coordinates of data, and the square of what no curve could explain."""
        inside = x @ self.basis
        outside = jnp.sum((x - inside @ self.basis.T) ** 2, axis=-1)
        return inside, outside

    def signals(self, rows: Exponentials, /) -> Float[Array, "voxels numbers"]:
        """Of a row of voxels."""
        parts = [curve * inflow[:, None] for inflow, curve in self._curves(rows)]
        if rows.plasma is not None:
            parts.append(rows.plasma[:, None] * self.plasma[None])
        if rows.kept_per_s is not None:
            parts.append(rows.kept_per_s[:, None] * self.kept[None])
        return sum(parts[1:], parts[0])

    def _curves(self, rows: Exponentials) -> list[tuple[Array, Array]]:
        return [(inflow, self._curve(rate)) for inflow, rate in rows.exponentials()]

    def _curve(self, rate: Float[Array, " voxels"]) -> Float[Array, "voxels numbers"]:
        """By cubic Hermite interpolation in log k."""
        place = (jnp.log(rate) - self.low) / self.spacing
        cell = jnp.clip(jnp.floor(place), 0, len(self.table) - 2).astype(int)
        s = (place - cell)[:, None]
        here, there = self.table[cell], self.table[cell + 1]
        numbers = self.plasma.size
        return (
            (1 + 2 * s) * (1 - s) ** 2 * here[:, :numbers]
            + s * (1 - s) ** 2 * here[:, numbers:]
            + s**2 * (3 - 2 * s) * there[:, :numbers]
            - s**2 * (1 - s) * there[:, numbers:]
        )


def subspace(
    theta: DynamicSeries,
    slowest_per_s: float,
    fastest_per_s: float,
    numbers: int | None = None,
) -> Subspace:
    """The space of a series' curves for rates between two; of so many dimensions, when told."""
    log_k = np.linspace(np.log(slowest_per_s), np.log(fastest_per_s), NODES)
    spacing = float(log_k[1] - log_k[0])
    dtype = theta.arterial.plasma_mmol_per_l.dtype
    curves, slopes, plasma, kept = _table(theta, jnp.asarray(log_k, dtype))
    rows = np.asarray(jnp.concatenate([curves[::2], plasma, kept]), float)
    rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    _, sizes, directions = np.linalg.svd(rows, full_matrices=False)
    count = numbers or 8 * -(-int(np.sum(sizes > DROPPED[dtype.name] * sizes[0])) // 8)
    basis = jnp.asarray(directions[:count].T, dtype)
    table = jnp.concatenate([curves @ basis, spacing * (slopes @ basis)], axis=1)
    place = (jnp.asarray(log_k[0], dtype), jnp.asarray(spacing, dtype))
    return Subspace(basis, (plasma @ basis)[0], (kept @ basis)[0], table, *place)


@eqx.filter_jit
def _table(theta: DynamicSeries, log_k: Float[Array, " nodes"]) -> tuple[Array, ...]:
    """Curves and their derivatives in log k; the input itself and its integral."""
    one = jnp.ones_like(log_k)

    def curves(log_k: Array) -> Array:
        return theta.signals(Exponentials(inflow_per_s=one, rate_per_s=jnp.exp(log_k)))

    plasma = theta.signals(Exponentials(plasma=one[:1]))
    kept = theta.signals(Exponentials(kept_per_s=one[:1]))
    return *jax.jvp(curves, (log_k,), (one,)), plasma, kept
