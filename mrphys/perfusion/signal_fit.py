"""From the signals of an examination to kinetic parameters, with all that makes them uncertain."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact

from mrphys.mapping import ILL_DETERMINED, Estimate, fit
from mrphys.noise import magnitude
from mrphys.perfusion.fitting import fit_kinetics
from mrphys.perfusion.series import DynamicSeries
from mrphys.perfusion.signal import SpoiledEcho, concentration_errors, concentration_of_signal
from mrphys.perfusion.tracer_kinetics import Kinetics
from mrphys.simulate import as_rows, over_voxels
from mrphys.tissue import Tissue
from mrphys.voxelwise import Model, with_fields


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
              together, and so it is carried: with dT1/dB1 of the first fit
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
    known = Tissue(t1_s=1.0, t2_s=0.1, b1=b1_map)
    found = fit(before, x[0], ("t1_s", "m0"), noise_sd[0], known=known, mask=usable)
    good = found.status < ILL_DETERMINED
    per_b1 = over_voxels(_t1_per_b1, before, as_rows(found.value)).reshape(shape)
    t1, t1_sd, t1_per_b1 = (
        jnp.where(good, value, other)
        for value, other in ((found.value.t1_s, 1.0), (found.sd.t1_s, 0.0), (per_b1, 0.0))
    )
    echo = SpoiledEcho(flip_rad * b1_map, tr_s, t1, relaxivity_l_per_mmol_s)
    c = concentration_of_signal(echo, x[1], baseline)
    errors = concentration_errors(echo, x[1], baseline, t1_sd, b1_sd / b1_map, t1_per_b1)
    noise = None if noise_sd[1] is None else jnp.asarray(noise_sd[1]) * errors.scale
    noise = None if noise is None else jnp.where(noise > 0, noise, 1.0)
    options: Any = {"mask": usable & good, "errors": errors, **kinetics}
    return fit_kinetics(series, c, model, noise, **options), found


def _t1_per_b1(before: Model, rows: Tissue) -> Float[Array, " voxels"]:
    """dT1 / d log B1 of a fit of magnitudes: that of -(JᵀJ)⁻¹ Jᵀ ∂f/∂log B1."""

    def along(name: str) -> Array:
        size = getattr(rows, name)
        moved = with_fields(jax.tree.map(jnp.zeros_like, rows), (name,), (size,))
        return jax.jvp(lambda q: magnitude(before.signals(q)), (rows,), (moved,))[1]

    t1, m0, b1 = (along(name) for name in ("t1_s", "m0", "b1"))

    def dot(a: Array, b: Array) -> Array:
        return jnp.sum(a * b, axis=-1)

    alone = dot(t1, t1) - dot(t1, m0) ** 2 / dot(m0, m0)
    return -rows.t1_s * (dot(t1, b1) - dot(t1, m0) * dot(m0, b1) / dot(m0, m0)) / alone
