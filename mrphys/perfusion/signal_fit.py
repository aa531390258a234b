"""From the signals of an examination to kinetic parameters, with all that makes them uncertain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact

from mrphys.mapping import ILL_DETERMINED, Estimate, fit
from mrphys.perfusion.fitting import fit_kinetics
from mrphys.perfusion.series import DynamicSeries
from mrphys.perfusion.signal import SpoiledEcho, concentration_errors, concentration_of_signal
from mrphys.perfusion.tracer_kinetics import Kinetics
from mrphys.tissue import Tissue
from mrphys.voxelwise import Model


def fit_signals(
    theta: tuple[Model, DynamicSeries],
    x: tuple[
        Inexact[Array | np.ndarray, "*voxels flips"], Float[Array | np.ndarray, "*voxels readouts"]
    ],
    model: type[Kinetics],
    baseline: slice,
    noise_sd: tuple[ArrayLike | None, ArrayLike | None] = (None, None),
    *,
    flip_rad: float,
    tr_s: float,
    relaxivity_l_per_mmol_s: float = 4.5,
    b1: ArrayLike = 1.0,
    b1_sd: ArrayLike = 0.0,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    **kinetics: Any,
) -> tuple[Estimate, Estimate]:
    """Kinetic parameters, and T1 before the agent, from two scans: one that tells T1, a spoiled
    gradient echo at several flip angles or any other sequence, and the dynamic series.

    theta     (scan that tells T1, dynamic series)
    x         signals of both, magnitudes
    baseline  images of the series before the bolus
    noise_sd  of the signals of both; None: each voxel's residual
    flip_rad, tr_s, relaxivity_l_per_mmol_s   of the dynamic series, a spoiled gradient echo, as
              asked for: what is played is b1 times as much
    b1, b1_sd number or map, and its standard deviation. It moves T1 and the flips of the series
              together, and so it is carried: dT1/dB1 is that of the first fit (implicit function
              theorem)
    kinetics  options of `fit_kinetics`: bounds, delay_s, arterial_sd, arterial_scale_sd, chunk

    The sd of each parameter is that of the noise of both scans, of the baseline, of B1 and of the
    input, to first order: see `mrphys.perfusion.propagation`. Voxels without a T1 are MASKED in the
    kinetic maps. Raises InputError as `mrphys.fit`, `concentration_of_signal` and `fit_kinetics`.
    """
    before, series = theta
    shape = x[1].shape[:-1]
    usable = jnp.isfinite(jnp.asarray(x[0])).all(axis=-1) & jnp.isfinite(x[1]).all(axis=-1)
    usable = usable if mask is None else usable & mask
    b1_map = jnp.broadcast_to(jnp.asarray(b1, float), shape)

    def mapped(b1: Array) -> tuple[Array, Estimate]:
        known = Tissue(t1_s=1.0, t2_s=0.1, b1=b1)
        found = fit(before, x[0], ("t1_s", "m0"), noise_sd[0], known=known, mask=usable)
        return found.value.t1_s, found

    t1, per_b1, found = jax.jvp(mapped, (b1_map,), (b1_map,), has_aux=True)
    good = found.status < ILL_DETERMINED
    echo = SpoiledEcho(flip_rad * b1_map, tr_s, jnp.where(good, t1, 1.0), relaxivity_l_per_mmol_s)
    c = concentration_of_signal(echo, x[1], baseline)
    sd = jnp.where(good, found.sd.t1_s, 0.0)
    errors = concentration_errors(echo, x[1], baseline, sd, jnp.asarray(b1_sd) / b1_map, per_b1)
    noise = None if noise_sd[1] is None else jnp.asarray(noise_sd[1]) * errors.scale
    noise = None if noise is None else jnp.where(noise > 0, noise, 1.0)
    options: Any = {"mask": usable & good, "errors": errors, **kinetics}
    return fit_kinetics(series, c, model, noise, **options), found
