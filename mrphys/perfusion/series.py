"""θ of a dynamic series: when images are taken, and what reaches the tissue."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from mrphys.perfusion.arterial_input import ArterialInput, check_series_times
from mrphys.perfusion.convolution import Washout, step, washed_out
from mrphys.perfusion.tracer_kinetics import Kinetics
from mrphys.simulate import over_voxels


class DynamicSeries(eqx.Module):
    """A dynamic series and its arterial input; what `mrphys.fit` needs of a model. Its signal is
    the concentration in tissue, mmol/l. Build it with `dynamic_series`.

    aligned  the input is sampled when images are taken, and has no delay unless q says so
    """

    times_s: Float[Array, " readouts"]
    arterial: ArterialInput
    aligned: bool = eqx.field(static=True)

    @property
    def averages(self) -> Float[Array, " readouts"]:
        """One of each image."""
        return jnp.ones_like(self.times_s)

    def signals(self, rows: Kinetics, /) -> Float[Array, "voxels readouts"]:
        """Of a row of voxels."""
        rows = jax.tree.map(jnp.atleast_1d, rows)
        plasma, washouts = rows.response()
        nodes_s, c = self.arterial.times_s, self.arterial.plasma_mmol_per_l
        voxels = np.broadcast_shapes(*(leaf.shape for leaf in jax.tree.leaves(rows)))
        if self.aligned and rows.delay_s is None:
            total = jnp.zeros((1, 1), c.dtype) if plasma is None else plasma[None] * c[:, None]
            for washout in washouts:
                total = total + washed_out(washout, nodes_s, c)
            return total.T
        late_s = jnp.zeros(voxels, c.dtype) if rows.delay_s is None else rows.delay_s
        times_s = self.times_s[:, None] - late_s[None]
        at = jnp.clip(jnp.searchsorted(nodes_s, times_s, side="right") - 1, 0, len(nodes_s) - 1)
        past_s = jnp.maximum(times_s - nodes_s[at], 0.0)
        here, there = c[at], self.arterial.at(times_s)
        seen = jnp.zeros(times_s.shape, c.dtype) if plasma is None else plasma[None] * there
        for washout in washouts:
            states = washed_out(washout, nodes_s, c)
            decay, before, after = step(Washout(*(part[None] for part in washout)), past_s)
            inside = decay * jnp.take_along_axis(states, at, axis=0) + before * here + after * there
            seen = seen + jnp.where(times_s >= nodes_s[0], inside, 0.0)
        return seen.T


def dynamic_series(
    times_s: ArrayLike, arterial: ArterialInput, delay_s: float | None = None
) -> DynamicSeries:
    """A series of images at times_s, fed by an arterial input.

    delay_s moves the whole input. Raises InputError for times not increasing or in another unit,
    and an input that is shorter than the series.
    """
    times = jnp.asarray(times_s)
    times = times if jnp.issubdtype(times.dtype, jnp.floating) else times.astype(float)
    where = "dynamic_series"
    check_series_times(f"{where}: times_s", times)
    nodes = arterial.times_s if delay_s is None else arterial.times_s + delay_s
    if isinstance(times, Tracer) or isinstance(nodes, Tracer):
        return DynamicSeries(times, eqx.tree_at(lambda a: a.times_s, arterial, nodes), False)
    step_s = float(np.median(np.diff(np.asarray(times))))
    missing_s = float(times[-1] - nodes[-1])
    if missing_s > step_s:
        found = f"an input that ends {missing_s:g} s before the series"
        cause = "an input of another series, or cut to the first pass"
        raise InputError(Problem(where, found, "an input as long as the series", cause))
    if float(nodes[0]) > float(times[-1]):
        raise InputError(Problem(where, "an input after the series", "one during it"))
    aligned = nodes.shape == times.shape and bool(jnp.all(nodes == times))
    return DynamicSeries(times, eqx.tree_at(lambda a: a.times_s, arterial, nodes), aligned)


def concentration(theta: DynamicSeries, q: Kinetics) -> Float[Array, "*voxels readouts"]:
    """C(t) of any shape of voxels, mmol/l: see `mrphys.perfusion.tracer_kinetics`.

    Exact where the input is linear between its samples; otherwise of second order in their spacing.
    Differentiable in θ and q, forward and reverse, finite also where flows or volumes are 0.

    >>> import mrphys as mr
    >>> times_s = np.arange(0.0, 300.0, 2.0)
    >>> artery = mr.perfusion.arterial_input(times_s, mr.perfusion.parker_2006(times_s, 20.0))
    >>> q = mr.perfusion.ExtendedTofts(ktrans_per_s=[0.001, 0.004], ve=0.2, vp=0.05)
    >>> concentration(mr.perfusion.dynamic_series(times_s, artery), q).shape
    (2, 150)
    """
    shape = np.broadcast_shapes(*(jnp.shape(leaf) for leaf in jax.tree.leaves(q)))
    rows = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, shape).reshape(-1), q)
    return over_voxels(_signals, theta, rows).reshape(*shape, -1)


def _signals(theta: DynamicSeries, rows: Kinetics) -> Float[Array, "voxels readouts"]:
    return theta.signals(rows)
