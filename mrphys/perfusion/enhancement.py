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
    c = jnp.asarray(c)
    times = jnp.asarray(times_s, c.dtype)

    def of(c: Array) -> Array:
        level = share * jnp.max(c)
        below = (c < level) & (jnp.arange(c.size) < jnp.argmax(c))
        last = jnp.max(jnp.where(below, jnp.arange(c.size), -1))
        at = jnp.clip(last, 0, c.size - 2)
        rise = c[at + 1] - c[at]
        part = jnp.where(rise > 0, (level - c[at]) / jnp.where(rise > 0, rise, 1.0), 0.0)
        return jnp.where(last >= 0, times[at] + part * (times[at + 1] - times[at]), times[0])

    return jnp.vectorize(of, signature="(t)->()")(c)


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
    c = jnp.asarray(c)
    times, end_s = jnp.asarray(times_s, c.dtype), arrival_s + window_s
    if c.shape[-1:] != times.shape:
        found, expected = f"shape {c.shape}", f"a last axis of {times.size} images"
        raise InputError(Problem(f"{where}: c", found, expected, "time not last"))
    if not isinstance(times, Tracer) and not times[0] <= arrival_s < end_s <= times[-1]:
        found = f"{arrival_s:g} to {end_s:g} s"
        expected = f"within the series, {float(times[0]):g} to {float(times[-1]):g} s"
        cause = "minutes given for seconds, or a series too short for this window"
        raise InputError(Problem(f"{where}: arrival_s, window_s", found, expected, cause))

    def of(c: Array) -> tuple[Array, ...]:
        slopes = jnp.diff(c) / jnp.diff(times)
        inside = jnp.clip(times, arrival_s, end_s)
        middle = c[:-1] + slopes * ((inside[1:] + inside[:-1]) / 2 - times[:-1])
        top = jnp.argmax(jnp.where(times >= arrival_s, c, -jnp.inf))
        peak, to_peak_s = c[top], times[top] - arrival_s
        before = jnp.clip(jnp.searchsorted(times, arrival_s, side="right") - 1, 0, times.size - 2)
        first = c[before] + slopes[before] * (arrival_s - times[before])
        wash_in = (peak - first) / jnp.where(to_peak_s > 0, to_peak_s, 1.0)
        late = (times >= times[top]).astype(c.dtype)
        centred_s = late * (times - jnp.sum(late * times) / jnp.sum(late))
        spread = jnp.sum(centred_s**2)
        wash_out = jnp.sum(centred_s * c) / jnp.where(spread > 0, spread, 1.0)
        wash_in = jnp.where(to_peak_s > 0, wash_in, 0.0)
        return jnp.sum(middle * jnp.diff(inside)), peak, to_peak_s, wash_in, wash_out

    return Enhancement(*jnp.vectorize(of, signature="(t)->(),(),(),(),()")(c))
