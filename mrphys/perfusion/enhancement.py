"""What a curve shows without a model: area, peak, slopes."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from mrphys.perfusion.arterial_input import check_series_times


class Enhancement(eqx.Module):
    """Of each voxel, in the curve's units.

    auc             area from arrival over the window asked for, by trapezia, in curve units · s
    peak            largest value from arrival on, reached at `time_to_peak_s` after it
    wash_in_per_s   mean slope from arrival to the peak
    wash_out_per_s  slope of the straight line through all from the peak on; 0 with the peak last
    """

    auc: Float[Array, "*voxels"]
    peak: Float[Array, "*voxels"]
    time_to_peak_s: Float[Array, "*voxels"]
    wash_in_per_s: Float[Array, "*voxels"]
    wash_out_per_s: Float[Array, "*voxels"]


def bolus_arrival_s(
    times_s: ArrayLike, c: Float[Array | np.ndarray, "*voxels readouts"], share: float = 0.1
) -> Float[Array, "*voxels"]:
    """When a curve last crosses a share of its peak on its way to it, between images linearly."""
    times, c = jnp.asarray(times_s), jnp.asarray(c)
    top = jnp.argmax(c, axis=-1)[..., None]
    level = share * jnp.max(c, axis=-1, keepdims=True)
    index = jnp.arange(c.shape[-1])
    below = (c < level) & (index.reshape((1,) * (c.ndim - 1) + (-1,)) < top)
    last = jnp.max(jnp.where(below, index.reshape((1,) * (c.ndim - 1) + (-1,)), -1), axis=-1)
    start = jnp.maximum(last, 0)[..., None]
    here, there = (jnp.take_along_axis(c, start + i, axis=-1) for i in (0, 1))
    rise = there - here
    part = jnp.where(rise > 0, (level - here) / jnp.where(rise > 0, rise, 1.0), 0.0)[..., 0]
    found = times[start[..., 0]] + part * (times[start[..., 0] + 1] - times[start[..., 0]])
    return jnp.where(last >= 0, found, times[0])


def enhancement(
    times_s: ArrayLike,
    c: Float[Array | np.ndarray, "*voxels readouts"],
    arrival_s: float,
    window_s: float = 60.0,
) -> Enhancement:
    """Area, peak and slopes of curves, concentrations or relative signals, 0 before arrival_s.

    Exact for curves linear between images. Differentiable in c. Raises InputError for times not
    increasing or in another unit, and a window that reaches beyond the series.

    Evelhoch 1999, doi:10.1002/(SICI)1522-2586(199909)10:3<254::AID-JMRI5>3.0.CO;2-9.
    """
    where = "enhancement"
    check_series_times(f"{where}: times_s", times_s)
    times, c = jnp.asarray(times_s, jnp.asarray(c).dtype), jnp.asarray(c)
    end_s = arrival_s + window_s
    if c.shape[-1:] != times.shape:
        found, expected = f"shape {c.shape}", f"a last axis of {times.size} images"
        raise InputError(Problem(f"{where}: c", found, expected, "time not last"))
    if not isinstance(times, Tracer) and not times[0] <= arrival_s < end_s <= times[-1]:
        found = f"{arrival_s:g} to {end_s:g} s"
        expected = f"within the series, {float(times[0]):g} to {float(times[-1]):g} s"
        cause = "minutes given for seconds, or a series too short for this window"
        raise InputError(Problem(f"{where}: arrival_s, window_s", found, expected, cause))
    start, stop = (jnp.clip(times, arrival_s, end_s)[i] for i in (slice(None, -1), slice(1, None)))
    width = jnp.diff(times)
    rise = jnp.diff(c, axis=-1) / width
    middle = c[..., :-1] + rise * ((start + stop) / 2 - times[:-1])
    auc = jnp.sum(middle * (stop - start), axis=-1)
    after = times >= arrival_s
    seen = jnp.where(after, c, -jnp.inf)
    top = jnp.argmax(seen, axis=-1)
    peak = jnp.max(seen, axis=-1)
    to_peak = times[top] - arrival_s
    segment = jnp.clip(jnp.searchsorted(times, arrival_s, side="right") - 1, 0, times.size - 2)
    first = c[..., segment] + rise[..., segment] * (arrival_s - times[segment])
    wash_in = (peak - first) / jnp.where(to_peak > 0, to_peak, 1.0)
    late = (times >= times[top][..., None]).astype(c.dtype)
    count = jnp.sum(late, axis=-1, keepdims=True)
    left_s = times - jnp.sum(late * times, axis=-1, keepdims=True) / count
    spread = jnp.sum(late * left_s**2, axis=-1)
    fall = jnp.sum(late * left_s * c, axis=-1) / jnp.where(spread > 0, spread, 1.0)
    return Enhancement(auc, peak, to_peak, jnp.where(to_peak > 0, wash_in, 0.0), fall)
