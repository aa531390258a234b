"""What a visit shows of the tumour's state, and the state it implies.

    cellularity        ADC -> fraction of carrying capacity
    CellularityMap     a visit with an ADC or cellularity map inside a drawn tumour
    VisibleMask        a visit with a drawn tumour only: density above a threshold

Both give the same three things: a whitened `residual` of a predicted state, the `state` they
imply at their own day, and how wrong that may be (`error_sd`).
"""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int
from scipy import ndimage

from mrphys.errors import InputError, Problem
from oncology.growth import Parameters

ENHANCING_THRESHOLD = 0.8
"""Density at the edge of contrast enhancement on T1 (Swanson 2008,
doi:10.1038/sj.bjc.6604125)."""
FLAIR_THRESHOLD = 0.16
"""Density at the edge of the T2/FLAIR abnormality (Swanson 2008)."""
LONGEST_TAIL_MM = 10.0
FULL = 0.999
"""The densest a state starts: at 1 a front would have no tail."""
SOFTNESS = 0.005
"""Width in density over which a limit is rounded, so that derivatives are continuous there."""


def cellularity(
    adc_mm2_per_s: Float[ArrayLike, "..."], adc_w_mm2_per_s: ArrayLike, adc_min_mm2_per_s: ArrayLike
) -> Float[Array, "..."]:
    """(ADC_w - ADC) / (ADC_w - ADC_min): 0 in free water, 1 in the densest voxel; not clipped.

    Anderson et al. 2000, doi:10.1016/S0730-725X(00)00147-8; Atuegwu et al. 2011,
    doi:10.1002/mrm.23203.

    >>> float(cellularity(1.5e-3, 3.0e-3, 0.5e-3).round(3))
    0.6
    """
    water = jnp.asarray(adc_w_mm2_per_s)
    return (water - jnp.asarray(adc_mm2_per_s)) / (water - adc_min_mm2_per_s)


def above_zero(
    x: Float[Array, "..."], width: Float[ArrayLike, "..."] = SOFTNESS
) -> Float[Array, "..."]:
    """max(x, 0), rounded to two continuous derivatives: x³ / (x² + width²) above 0, and 0 at 0."""
    positive = jnp.maximum(x, 0.0)
    return positive**3 / (positive**2 + jnp.asarray(width) ** 2 + 1e-30)


def below_full(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """min(u, FULL), rounded over SOFTNESS; low densities stay what they are."""
    return u - SOFTNESS * jax.nn.softplus((u - FULL) / SOFTNESS)


def noise_sd(
    value: Float[np.ndarray, "x y z"], mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple
) -> float:
    """Standard deviation of white noise in a map, from its second differences inside a mask.

    Robust (median absolute deviation over 0.6745) along the axes of the finest spacing, where
    anatomy varies least between neighbours; after Immerkær 1996, doi:10.1006/cviu.1996.0060.
    """
    differences = []
    for axis, spacing in enumerate(spacing_mm):
        if value.shape[axis] < 3 or spacing > 1.5 * min(spacing_mm):
            continue
        v, m = np.moveaxis(value, axis, 0), np.moveaxis(mask, axis, 0)
        inside = m[:-2] & m[1:-1] & m[2:]
        differences.append((v[:-2] - 2 * v[1:-1] + v[2:])[inside])
    together = np.concatenate([*differences, np.zeros(0)])
    together = together[np.isfinite(together)]
    if together.size < 8:
        return 0.05
    return float(np.median(np.abs(together)) / 0.6745 / np.sqrt(6))


def filled(mask: Bool[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The mask with the dark core of ring-shaped enhancement counted in: holes closed slice by
    slice along the last axis and in space."""
    closed = np.array(mask)
    for k in range(mask.shape[-1]):
        closed[..., k] = ndimage.binary_fill_holes(mask[..., k])
    return np.asarray(ndimage.binary_fill_holes(closed), bool)


def distance_mm(
    mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, ...]
) -> Float[np.ndarray, "x y z"]:
    """How far each voxel is from the nearest of a mask, 0 inside it."""
    distance = np.empty(mask.shape, float)
    ndimage.distance_transform_edt(~mask, spacing_mm, distances=distance)
    return distance


def infiltration_length_mm(p: Parameters) -> Array:
    """The length √(D/k) of a travelling front, times `infiltration_ratio` for a tumour whose past
    was not the model's; saturating at 10 mm where growth hardly is."""
    ratio = jnp.asarray(p["growth_rate_per_day"]) / jnp.asarray(p["diffusivity_mm2_per_day"])
    length = 1 / jnp.sqrt(jnp.maximum(ratio, 0.0) + LONGEST_TAIL_MM**-2)
    return length * p.get("infiltration_ratio", 1.0)


def front(
    distance_mm: Float[Array, "..."], density: ArrayLike, length_mm: ArrayLike
) -> Float[Array, "..."]:
    r"""Density at a distance ahead of where it is `density`, in a travelling Fisher-KPP front:

    .. math:: u(d) = \left[1 + (u_0^{-1/2} - 1)\, e^{d / \sqrt6 L}\right]^{-2}

    the exact wave of speed 5 √(D k / 6), L = √(D/k) in mm; negative distances lie behind. Zero
    where `density` is zero. Ablowitz & Zeppetella 1979, doi:10.1007/BF02462380.
    """
    some = jnp.asarray(density) > 1e-12
    level = jnp.where(some, density, 0.5)
    lengths = jnp.minimum(distance_mm / (np.sqrt(6) * length_mm), 40.0)
    odds = (1 / jnp.sqrt(level) - 1) * jnp.exp(lengths)
    return jnp.where(some, (1 + odds) ** -2.0, 0.0)


class Observation(eqx.Module):
    """One visit as the model sees it; `mask` is the tumour as drawn."""

    mask: eqx.AbstractVar[Bool[Array, "x y z"]]

    @property
    @abstractmethod
    def error_sd(self) -> Float[Array, "..."]:
        """Standard deviation of each independent error of the state the visit implies."""

    @abstractmethod
    def state(self, p: Parameters, error: Float[Array, "..."]) -> Float[Array, "x y z"]:
        """The state in [0, 1] the visit implies, had it been observed with `error` less."""

    @abstractmethod
    def residual(self, u: Float[Array, "x y z"]) -> Float[Array, " n"]:
        """Differences of a predicted state from the visit, in units of what is expected of them:
        the visit's noise, and a model error where one was stated."""

    def for_noise_alone(self) -> "Observation":
        """The same visit, no model error expected of its prediction."""
        return self

    @property
    @abstractmethod
    def noise_share(self) -> Float[Array, " n"]:
        """The part of each residual's unit that is the visit's own noise, at most 1."""


class CellularityMap(Observation):
    """Cellularity with its standard deviation inside a drawn tumour.

    The likelihood takes `value` as measured, below 0 and above 1 too. Outside the mask density is
    known only to be below what is visible, `edge`: a prediction is held against that alone. The
    state ahead of the mask falls off as a travelling front does from the density measured at the
    nearest voxel of the mask.
    """

    value: Float[Array, "x y z"]
    sd: Float[Array, "x y z"]
    expected_sd: Float[Array, "x y z"]
    mask: Bool[Array, "x y z"]
    habitable: Bool[Array, "x y z"]
    distance_mm: Float[Array, "x y z"]
    nearest: Int[Array, "3 x y z"]
    edge: Float[Array, ""]
    inside: Int[Array, " n"]
    outside: Int[Array, " m"]
    rim: Int[Array, " k"]

    def __init__(self, value, sd, mask, habitable, spacing_mm: tuple):
        mask = np.asarray(mask, bool)
        habitable = np.asarray(habitable, bool)
        _require_tumor(mask)
        nearest = np.empty((3, *mask.shape), np.int32)
        ndimage.distance_transform_edt(~mask, spacing_mm, return_indices=True, indices=nearest)
        distance = distance_mm(mask, spacing_mm)
        self.value = jnp.asarray(value)
        self.sd = jnp.broadcast_to(jnp.asarray(sd, self.value.dtype), mask.shape)
        self.expected_sd = self.sd
        self.mask = jnp.asarray(mask)
        self.habitable = jnp.asarray(habitable)
        self.distance_mm = jnp.asarray(distance, self.value.dtype)
        self.nearest = jnp.asarray(nearest)
        rim = mask & ~np.asarray(ndimage.binary_erosion(mask, border_value=1), bool)
        rim = rim if rim.any() else mask
        self.rim = jnp.asarray(np.flatnonzero(rim))
        self.edge = jnp.clip(jnp.mean(self.value[rim]), 0.0, 1.0)
        self.inside = jnp.asarray(np.flatnonzero(mask & habitable))
        near = (distance <= 4 * LONGEST_TAIL_MM) & habitable & ~mask
        self.outside = jnp.asarray(np.flatnonzero(near))

    @property
    def error_sd(self) -> Float[Array, "x y z"]:
        return jnp.where(self.mask, self.sd, 0.0)

    def state(self, p: Parameters, error: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        x, y, z = self.nearest
        level = above_zero(below_full(self.value - error))
        density = front(self.distance_mm, level[x, y, z], infiltration_length_mm(p))
        return jnp.where(self.habitable, density, 0.0)

    def residual(self, u: Float[Array, "x y z"]) -> Float[Array, " n"]:
        difference = (u - self.value).ravel()[self.inside]
        above = above_zero(u.ravel()[self.outside] - self.edge)
        expected = self.expected_sd.ravel()
        seen, unseen = difference / expected[self.inside], above / expected[self.outside]
        return jnp.concatenate([seen, unseen])

    @property
    def noise_share(self) -> Float[Array, " n"]:
        share = (self.sd / self.expected_sd).ravel()
        return jnp.concatenate([share[self.inside], share[self.outside]])

    def for_noise_alone(self) -> "CellularityMap":
        return self.with_model_error(jnp.zeros_like(self.sd))

    def with_model_error(self, variance: Float[Array, "x y z"]) -> "CellularityMap":
        """The same map, a prediction of it expected to err by `variance` besides the noise."""
        expected = jnp.sqrt(self.sd**2 + variance)
        return eqx.tree_at(lambda seen: seen.expected_sd, self, expected)


class VisibleMask(Observation):
    """A drawn tumour and nothing else: density exceeds `threshold` where it was drawn.

    The state is a travelling front's profile of the distance to the edge, at `threshold` on the
    edge itself. A prediction is compared by the logarithm of its visible
    volume, whose standard deviation is that of drawing it twice: voxel by voxel, a shift of the
    head by one voxel would pass for growth.
    """

    mask: Bool[Array, "x y z"]
    habitable: Bool[Array, "x y z"]
    signed_distance_mm: Float[Array, "x y z"]
    log_volume: Float[Array, ""]
    mm_per_log_volume: Float[Array, ""]
    threshold: float = eqx.field(static=True)
    voxel_volume_mm3: float = eqx.field(static=True)
    log_volume_sd: float = eqx.field(static=True)

    def __init__(self, mask, habitable, spacing_mm: tuple, threshold: float, log_volume_sd=0.15):
        mask = filled(np.asarray(mask, bool))
        _require_tumor(mask)
        distance = distance_mm(mask, spacing_mm) - distance_mm(~mask, spacing_mm)
        half = min(spacing_mm) / 2
        self.mask = jnp.asarray(mask)
        self.habitable = jnp.asarray(np.asarray(habitable, bool))
        self.signed_distance_mm = jnp.asarray(distance - half * np.sign(distance))
        self.voxel_volume_mm3 = float(np.prod(spacing_mm))
        self.log_volume = jnp.log(jnp.asarray(mask.sum() * self.voxel_volume_mm3))
        shell = np.abs(self.signed_distance_mm) < 4 * half
        self.mm_per_log_volume = jnp.asarray(mask.sum() / max(shell.sum(), 1) * 8 * half)
        self.threshold = threshold
        self.log_volume_sd = log_volume_sd

    @property
    def error_sd(self) -> Float[Array, ""]:
        return jnp.asarray(self.log_volume_sd, self.signed_distance_mm.dtype)

    def state(self, p: Parameters, error: Float[Array, ""]) -> Float[Array, "x y z"]:
        depth = self.signed_distance_mm + error * self.mm_per_log_volume
        profile = front(depth, self.threshold, infiltration_length_mm(p))
        return jnp.where(self.habitable, profile, 0.0)

    def residual(self, u: Float[Array, "x y z"]) -> Float[Array, " 1"]:
        volume = visible_volume_mm3(u, self.threshold, self.voxel_volume_mm3)
        return ((jnp.log(volume) - self.log_volume) / self.log_volume_sd)[None]

    @property
    def noise_share(self) -> Float[Array, " 1"]:
        return jnp.ones((1,), self.signed_distance_mm.dtype)


def _require_tumor(mask: np.ndarray) -> None:
    if not mask.any():
        raise InputError(
            Problem("observation", "an empty tumour mask", "one voxel of tumour or more")
        )


def visible_volume_mm3(
    u: Float[Array, "x y z"], threshold: ArrayLike, voxel_volume_mm3: float, width: ArrayLike = 0.02
) -> Float[Array, ""]:
    """Volume where u exceeds the threshold, softened over `width` in density so that it has a
    derivative; never quite zero."""
    return (jnp.sum(_seen(u, threshold, width)) + 1e-3) * voxel_volume_mm3


def visible_cellularity_mm3(
    u: Float[Array, "x y z"], threshold: ArrayLike, voxel_volume_mm3: float, width: ArrayLike = 0.02
) -> Float[Array, ""]:
    """Total cellularity where u exceeds the threshold: what a map inside a drawn tumour sums."""
    return jnp.sum(u * _seen(u, threshold, width)) * voxel_volume_mm3


def _seen(u: Array, threshold: ArrayLike, width: ArrayLike) -> Array:
    return jax.nn.sigmoid((u - threshold) / width)
