"""q from x: water that diffuses and blood that runs through capillaries, told apart by low b."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact

from mrphys.errors import InputError, Problem
from mrphys.mapping import Estimate, FunctionModel, fit
from mrphys.noise import magnitude
from mrphys.sequence.diffusion import DiffusionWeighted

SPLIT_S_PER_MM2 = 200.0
"""From here on little of the blood's signal is left."""
BOUNDS = {
    "adc_mm2_per_s": (1e-4, 4e-3),
    "perfusion_fraction": (0.0, 0.7),
    "pseudo_adc_mm2_per_s": (4e-3, 0.5),
}
TRIALS = 12


class IvimTissue(eqx.Module):
    """What intravoxel incoherent motion asks of a voxel; each a number or of the voxels' shape.

    m0                    the signal at b = 0, relaxation included
    adc_mm2_per_s         D of water in tissue
    perfusion_fraction    f of the signal from capillaries
    pseudo_adc_mm2_per_s  D* there
    """

    m0: Float[Array, "..."]
    adc_mm2_per_s: Float[Array, "..."]
    perfusion_fraction: Float[Array, "..."]
    pseudo_adc_mm2_per_s: Float[Array, "..."]


class IvimSignal(eqx.Module):
    """S_i = m0 ((1 - f) exp(-b_i D) + f exp(-b_i D*)). Le Bihan et al. 1988,
    doi:10.1148/radiology.168.2.3393671."""

    b_s_per_mm2: Float[Array, " readouts"]

    def __call__(self, q: IvimTissue) -> Float[Array, " readouts"]:
        """Of one voxel."""
        f, b = q.perfusion_fraction, self.b_s_per_mm2
        slow, fast = jnp.exp(-b * q.adc_mm2_per_s), jnp.exp(-b * q.pseudo_adc_mm2_per_s)
        return q.m0 * ((1 - f) * slow + f * fast)


def fit_ivim(
    theta: DiffusionWeighted,
    x: Inexact[Array, "*voxels readouts"],
    noise_sd: ArrayLike | None = None,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    rician: bool = True,
) -> Estimate:
    """D, f, D* and m0 of every voxel, from the magnitudes |x| of four or more b-values.

    All four together by `mrphys.fit`, whose arguments and whose Estimate these are, from a start in
    segments: D and m0 (1 - f) log-linearly from b >= 200 s/mm², f from the least b, D* of a dozen
    the best. Within 0.1 <= D <= 4 < D* <= 500 µm²/ms, f <= 0.7. b-values in any order.

    Where f is a few times its sd, D* is hardly known and says so. Raises InputError for fewer than
    two b-values on either side of 200 s/mm², and as `mrphys.fit` does.
    """
    _check(theta.b_s_per_mm2, x)
    size = magnitude(x)
    model = FunctionModel(IvimSignal(theta.b_s_per_mm2), theta.averages)
    return fit(
        model,
        size,
        ("adc_mm2_per_s", "perfusion_fraction", "pseudo_adc_mm2_per_s", "m0"),
        noise_sd,
        known=IvimTissue(*[jnp.ones(())] * 4),
        bounds=BOUNDS,
        mask=mask,
        rician=rician,
        start=segmented(theta.b_s_per_mm2, jax.lax.stop_gradient(size)),
    )


@jax.jit
def segmented(
    b_s_per_mm2: Float[Array, " readouts"], x: Float[Array, "*voxels readouts"]
) -> IvimTissue:
    """Where the search begins; finite for any voxel."""
    rows = x.reshape(-1, x.shape[-1])
    found = jax.vmap(_segments, (None, 0))(b_s_per_mm2.astype(x.dtype), rows)
    return jax.tree.map(lambda value: value.reshape(x.shape[:-1]), found)


def _segments(b: Float[Array, " readouts"], x: Float[Array, " readouts"]) -> IvimTissue:
    x = jnp.where(jnp.isfinite(x), x, 0.0)
    unit = jnp.where(jnp.max(x) > 0, jnp.max(x), 1.0)
    x = jnp.maximum(x / unit, 1e-3)
    weight = jnp.where(b >= SPLIT_S_PER_MM2, x**2, 0.0)
    weight = weight / jnp.sum(weight)
    middle, height = jnp.sum(weight * b), jnp.sum(weight * jnp.log(x))
    gap = b - middle
    slope = jnp.sum(weight * gap * jnp.log(x)) / jnp.sum(weight * gap**2)
    adc = jnp.clip(-slope, *BOUNDS["adc_mm2_per_s"])
    m0 = jnp.mean(x, where=b == jnp.min(b))
    f = jnp.clip(1 - jnp.exp(height + adc * middle) / m0, 0.02, 0.6)
    blood = x / m0 - (1 - f) * jnp.exp(-b * adc)
    trials = jnp.geomspace(6e-3, 0.3, TRIALS).astype(x.dtype)
    left = blood[None] - f * jnp.exp(-jnp.multiply.outer(trials, b))
    return IvimTissue(m0 * unit, adc, f, trials[jnp.argmin(jnp.sum(left**2, axis=-1))])


def _check(b_s_per_mm2: Array, x: Array) -> None:
    if isinstance(b_s_per_mm2, Tracer):
        return
    b = np.unique(np.asarray(b_s_per_mm2))
    high = int(np.sum(b >= SPLIT_S_PER_MM2))
    if min(high, b.size - high) < 2:
        found = f"{b.size - high} b-values below {SPLIT_S_PER_MM2:g} s/mm² and {high} above"
        cause = "a diffusion scan without low b-values"
        raise InputError(Problem("fit_ivim", found, "two or more different on either side", cause))
    if x.shape[-1:] != b_s_per_mm2.shape:
        expected = f"a last axis of {b_s_per_mm2.size} readouts"
        raise InputError(Problem("fit_ivim: x", f"shape {x.shape}", expected))
