"""Perfusion from an agent that stays in the vessels: volume, flow and transit time, by
deconvolution; and what its leakage does to them.

    c(t) = F ∫ c_a(τ) R(t - τ) dτ,   R(0) = 1,   V = ∫ c / ∫ c_a,   MTT = V / F

for curves in one unit, such as ΔR2*. Flows are in ml per ml of tissue and second, volumes in ml/ml:
`ML_PER_100ML_PER_MIN` converts. Meier, Zierler 1954, doi:10.1152/jappl.1954.6.12.731;
Østergaard et al. 1996, doi:10.1002/mrm.1910360510.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float, Inexact

from mrphys.errors import InputError, Problem
from mrphys.perfusion.arterial_input import check_series_times
from mrphys.units import check_finite, check_range

OSCILLATION = 0.035
"""Of the residue function, allowed by "osvd" (Wu et al. 2003)."""
THRESHOLDS = np.linspace(0.01, 0.6, 30)
"""Shares of the largest singular value from which on "osvd" keeps; "csvd" takes one."""
PENALTIES = np.geomspace(1e-3, 1.0, 30)
"""Of "tikhonov", relative to the largest singular value."""

Method = Literal["osvd", "csvd", "tikhonov"]


class VascularMaps(eqx.Module):
    """cbv (ml/ml), cbf_per_s (ml/ml/s), mtt_s, tmax_s (when the residue function peaks: the delay),
    and flow times residue function, `residue_per_s`. NaN where there is no flow.

    cbv_sd, cbf_sd_per_s, mtt_sd_s  standard deviations by the noise of the tissue's curve, infinite
             where there is no flow: of what is estimated about its mean. What regularisation takes
             from the flow, a bias, is not in them
    noise_sd of an image of the curve: as given, or of what the deconvolution leaves over
    """

    cbv: Float[Array, "*voxels"]
    cbf_per_s: Float[Array, "*voxels"]
    mtt_s: Float[Array, "*voxels"]
    tmax_s: Float[Array, "*voxels"]
    residue_per_s: Float[Array, "*voxels twice_readouts"]
    cbv_sd: Float[Array, "*voxels"]
    cbf_sd_per_s: Float[Array, "*voxels"]
    mtt_sd_s: Float[Array, "*voxels"]
    noise_sd: Float[Array, "*voxels"]


class Leakage(NamedTuple):
    """The curve without leakage, the share k1 of the reference curve in it, k2 of its integral, and
    their standard deviations by `noise_sd`, of an image of the curve: as given, or the residual.

    whole, toward_k2  what makes the noise of `corrected`: ∫ r, and k2's slope in each image
    """

    corrected: Float[Array, "*voxels readouts"]
    k1: Float[Array, "*voxels"]
    k2_per_s: Float[Array, "*voxels"]
    k1_sd: Float[Array, "*voxels"]
    k2_sd_per_s: Float[Array, "*voxels"]
    noise_sd: Float[Array, "*voxels"]
    whole: Float[Array, " readouts"]
    toward_k2: Float[Array, " readouts"]


def vascular_maps(
    times_s: ArrayLike,
    tissue: Float[Array | np.ndarray, "*voxels readouts"] | Leakage,
    arterial: Float[Array | np.ndarray, " images"],
    method: Method = "osvd",
    *,
    threshold: float = 0.1,
    kappa: ArrayLike = 1.0,
    noise_sd: ArrayLike | None = None,
) -> VascularMaps:
    """Volume, flow and transit time of every voxel.

    Curves are continued by as many zeros, so that the convolution is circular and a tissue curve
    may come before the arterial one (Wu et al. 2003, doi:10.1002/mrm.10522): its singular values
    are then the moduli of the input's Fourier transform. What is kept of them:

        csvd      those above `threshold` of the largest
        osvd      in each voxel as many as leave Σ|R''| / (2n max R) below 0.035
        tikhonov  all, weighed by s² / (s² + λ²); λ of each voxel by generalised cross-validation

    kappa = (1 - H_artery) / ((1 - H_capillary) ρ), about 0.7 ml/g, turns volumes of agent into
    volumes of blood per mass. `tissue` may be what `leakage_corrected` found: its noise is then
    that of the curve corrected, which is not alike in all images.

    The sds are exact for what is linear in the curve: the volume; the flow, the residue function's
    value where it peaks, for the singular values that are kept; and transit time to first
    order. They hold for an SNR of 20 or more, of the curve's peak. By "tikhonov" noise chooses λ,
    which moves flow and transit time by as much again: their sds are not told, but infinite.

    noise_sd is of an image of the curve, a number or a map; when None, that of `Leakage`, or of
    what the deconvolution leaves over. Differentiable in both curves. Raises InputError for times
    not evenly spaced, an input without a bolus, noise_sd <= 0, and shapes that do not match.
    """
    leak = tissue if isinstance(tissue, Leakage) else None
    curves = tissue.corrected if isinstance(tissue, Leakage) else tissue
    times, c, c_a = _checked(times_s, curves, arterial)
    if noise_sd is not None:
        check_range("dsc: noise_sd", noise_sd, float(jnp.finfo(jnp.float32).tiny), np.inf, "")
    elif leak is not None:
        noise_sd = leak.noise_sd
    step_s = (times[-1] - times[0]) / (times.size - 1)
    images = times.size
    neighbours = jnp.pad(c_a, 1)
    smooth = (neighbours[:-2] + 4 * c_a + neighbours[2:]) / 6  # both linear between images
    spectrum = jnp.fft.rfft(step_s * smooth, 2 * images)
    size = jnp.abs(spectrum)
    share = size / jnp.max(size)
    inverse = jnp.conj(spectrum) / jnp.where(size > 0, size, 1.0) ** 2
    area = jnp.trapezoid(c_a, times)

    edges = jnp.ones_like(times).at[np.array([0, -1])].set(0.5)
    to_volume = edges * step_s / area
    pairs = (2 * (images - jnp.arange(images))).at[0].set(images).astype(c.dtype)

    def of(c: Array, kappa: Array, noise: Array) -> tuple[Array, ...]:
        seen = jnp.fft.rfft(c, 2 * images)

        def residue(weight: Array) -> Array:
            return jnp.fft.irfft(seen * inverse * weight, 2 * images)

        if method == "csvd":
            weight = (share > threshold).astype(c.dtype)
        elif method == "osvd":
            weight = _least_oscillating(residue, share)
        else:
            weight = _cross_validated(seen, share)
        found = residue(weight)
        at, peak = jnp.argmax(found), jnp.max(found)
        flows = peak > 0
        peak = jnp.where(flows, peak, 1.0)
        volume = to_volume @ c
        late_s = jnp.where(at >= images, at - 2 * images, at) * step_s
        if noise_sd is None:
            left = jnp.fft.irfft(seen * (1 - weight), 2 * images)
            apart = jnp.fft.irfft(1 - weight, 2 * images)[:images] ** 2
            spare = jnp.sum(pairs * apart)
            noise = jnp.sqrt(jnp.sum(left[:images] ** 2) / jnp.where(spare > 0, spare, jnp.inf))
        kernel = jnp.fft.irfft(inverse * weight, 2 * images)
        to_flow = jnp.roll(kernel[::-1], at + 1)[:images]
        to_transit = (to_volume - volume / peak * to_flow) / peak
        rows = jnp.stack([kappa * to_volume, kappa * to_flow, to_transit])
        if leak is not None:
            rows = rows + (rows @ leak.whole)[:, None] * leak.toward_k2[None]
        told = flows & jnp.array([True, method != "tikhonov", method != "tikhonov"])
        sds = jnp.where(told, noise * jnp.linalg.norm(rows, axis=1), jnp.inf)
        three = jnp.where(flows, jnp.stack([kappa * peak, volume / peak, late_s]), jnp.nan)
        return kappa * volume, *three, kappa * found, *sds, noise

    wide = jnp.vectorize(of, signature="(t),(),()->(),(),(),(),(n),(),(),(),()")
    given = jnp.asarray(0.0 if noise_sd is None else noise_sd, c.dtype)
    return VascularMaps(*wide(c, jnp.asarray(kappa, c.dtype), given))


def _least_oscillating(
    residue: Callable[[Array], Array], share: Float[Array, " numbers"]
) -> Float[Array, " numbers"]:
    """What is kept at the smallest threshold at which the residue function oscillates little."""

    def tried(best: tuple[Array, Array], threshold: Array) -> tuple[tuple[Array, Array], None]:
        found, done = best
        kept = (share > threshold).astype(share.dtype)
        new = residue(kept)
        bends = jnp.abs(jnp.roll(new, -1) - 2 * new + jnp.roll(new, 1))
        calm = jnp.sum(bends) < OSCILLATION * bends.size * jnp.max(new)
        return (jnp.where(done, found, kept), done | calm), None

    begin = jnp.ones_like(share), jnp.zeros((), bool)
    return jax.lax.scan(tried, begin, jnp.asarray(THRESHOLDS, share.dtype))[0][0]


def _cross_validated(
    seen: Inexact[Array, " numbers"], share: Float[Array, " numbers"]
) -> Float[Array, " numbers"]:
    """Tikhonov's weights at the penalty of least |c - fit|² / (numbers not used)²."""
    power = jax.lax.stop_gradient(jnp.abs(seen) ** 2)

    def score(penalty: Array) -> Array:
        left = penalty**2 / (share**2 + penalty**2)
        return jnp.sum(left**2 * power) / jnp.sum(left) ** 2

    penalties = jnp.asarray(PENALTIES, share.dtype)
    best = penalties[jnp.argmin(jax.lax.map(score, penalties))]
    return share**2 / (share**2 + best**2)


def leakage_corrected(
    times_s: ArrayLike,
    tissue: Float[Array | np.ndarray, "*voxels readouts"],
    reference: Float[Array | np.ndarray, " images"],
    noise_sd: ArrayLike | None = None,
) -> Leakage:
    """ΔR2* freed of what an agent outside the vessels adds, by T1 (k2 > 0) or T2* (k2 < 0):

        c(t) ≈ k1 r(t) - k2 ∫ r,   corrected = c + k2 ∫ r

    by least squares, r the mean curve of tissue that does not leak. noise_sd is of an image of the
    curve, a number or a map; each voxel's residual when None. Linear; differentiable.
    Boxerman, Schmainda, Weisskoff 2006, AJNR Am J Neuroradiol 27:859-867.
    Raises InputError as `vascular_maps`.
    """
    times, c, r = _checked(times_s, tissue, reference)
    steps = jnp.diff(times) * (r[1:] + r[:-1]) / 2
    whole = jnp.concatenate([jnp.zeros(1, r.dtype), jnp.cumsum(steps)])
    aa, ab, bb = r @ r, -(r @ whole), whole @ whole
    determinant = aa * bb - ab**2
    toward_k1, toward_k2 = ((bb * r + ab * whole), -(aa * whole + ab * r))
    toward_k1, toward_k2 = toward_k1 / determinant, toward_k2 / determinant

    def of(c: Array, noise: Array) -> tuple[Array, ...]:
        k1, k2 = toward_k1 @ c, toward_k2 @ c
        if noise_sd is None:
            left = c - k1 * r + k2 * whole
            noise = jnp.sqrt(jnp.sum(left**2) / (times.size - 2))
        sds = noise * jnp.sqrt(bb / determinant), noise * jnp.sqrt(aa / determinant)
        return c + k2 * whole, k1, k2, *sds, noise

    wide = jnp.vectorize(of, signature="(t),()->(t),(),(),(),(),()")
    found = wide(c, jnp.asarray(0.0 if noise_sd is None else noise_sd, c.dtype))
    return Leakage(*found, whole=whole, toward_k2=toward_k2)


def _checked(times_s: ArrayLike, tissue: ArrayLike, arterial: ArrayLike) -> tuple[Array, ...]:
    where = "dsc"
    c = jnp.asarray(tissue)
    times, c_a = jnp.asarray(times_s, c.dtype), jnp.asarray(arterial, c.dtype)
    if c_a.shape != times.shape or c.shape[-1:] != times.shape:
        found = f"{times.shape} times, curves {c.shape} and {c_a.shape}"
        cause = "an input cut to the first pass, or time not last"
        raise InputError(Problem(where, found, "one value of each curve for each time", cause))
    if any(isinstance(value, Tracer) for value in (times, c_a)):
        return times, c, c_a
    check_series_times(f"{where}: times_s", times)
    steps = np.diff(np.asarray(times, float))
    check_range(f"{where}: longest / shortest step", np.ptp(steps) / steps.mean(), 0.0, 0.01, "")
    check_finite(f"{where}: arterial input", c_a)
    area, peak = float(jnp.trapezoid(c_a, times)), float(jnp.max(c_a))
    if not area > 0 or not peak > 0:
        found = f"an area of {area:g}, a peak of {peak:g}"
        cause = "signals, which fall, given for concentrations"
        raise InputError(Problem(f"{where}: arterial input", found, "a bolus above 0", cause))
    return times, c, c_a
