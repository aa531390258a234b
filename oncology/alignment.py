"""Rigid alignment of two images of one head: six numbers found by correlation, coarse to fine.

RigidMotion    where each point of one image lies in the other
correlation    how well the two images agree under a motion, differentiable in it
align          the motion of largest correlation
"""

from dataclasses import replace
from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.ndimage import map_coordinates
from jaxtyping import Array, Float
from scipy import ndimage

from mrphys.errors import InputError, Problem
from mrphys.volume import Method, Volume
from oncology.likeness import shift_mm

SMOOTHING_MM = (8.0, 4.0, 2.0)
SAMPLING_MM = 4.0
LEAST_OVERLAP = 0.2
HEAD_RADIUS_MM = 80.0
SMALLEST_STEP_MM = 0.003
MOST_STEPS = 50


class RigidMotion(eqx.Module):
    r"""Where a point x of the fixed image lies in the moving one: T(x) = R (x - c) + c + t.

    R turns by |r| radians about the direction of `rotation_rad` (r), right-handed, by Rodrigues'
    formula; t is `translation_mm` and c `centre_mm`, all in RAS+.

    >>> quarter = RigidMotion(jnp.array([0.0, 0.0, np.pi / 2]), jnp.zeros(3), jnp.zeros(3))
    >>> np.abs(quarter.matrix @ jnp.array([1.0, 0.0, 0.0, 1.0])).round(6).tolist()
    [0.0, 1.0, 0.0, 1.0]
    """

    rotation_rad: Float[Array, "3"]
    translation_mm: Float[Array, "3"]
    centre_mm: Float[Array, "3"]

    @property
    def rotation(self) -> Float[Array, "3 3"]:
        """R = exp(K), K v = r × v: an orthogonal matrix of determinant 1."""
        x, y, z = self.rotation_rad
        none = jnp.zeros_like(x)
        cross = jnp.array([[none, -z, y], [z, none, -x], [-y, x, none]])
        square = self.rotation_rad @ self.rotation_rad
        small = square < 1e-4
        angle = jnp.sqrt(jnp.where(small, 1.0, square))
        sine = jnp.where(small, 1 - square / 6 * (1 - square / 20), jnp.sin(angle) / angle)
        versine = jnp.where(
            small, 0.5 - square / 24 * (1 - square / 30), (1 - jnp.cos(angle)) / angle**2
        )
        return jnp.eye(3) + sine * cross + versine * (cross @ cross)

    @property
    def matrix(self) -> Float[Array, "4 4"]:
        """T, on homogeneous coordinates in mm."""
        rotation = self.rotation
        shift = self.centre_mm + self.translation_mm - rotation @ self.centre_mm
        last = jnp.array([[0.0, 0.0, 0.0, 1.0]], shift.dtype)
        return jnp.concatenate([jnp.concatenate([rotation, shift[:, None]], axis=1), last])

    @property
    def inverse(self) -> "RigidMotion":
        """Where a point of the moving image lies in the fixed one."""
        back = -(self.rotation.T @ self.translation_mm)
        return RigidMotion(-self.rotation_rad, back, self.centre_mm)

    def apply(
        self, volume: Volume, grid: Volume, method: Method = "linear", fill: float = 0.0
    ) -> Volume:
        """The moving image as it appears on the grid of the fixed one, by `Volume.resample_to`."""
        carried = np.linalg.inv(np.asarray(self.matrix, np.float64)) @ volume.affine
        carried[3] = 0, 0, 0, 1
        return Volume(volume.data, carried).resample_to(grid, method, fill)


def no_motion(fixed: Volume) -> RigidMotion:
    """The identity, about the centre of an image."""
    middle = fixed.affine @ [*(np.array(fixed.shape) - 1) / 2, 1]
    return RigidMotion(jnp.zeros(3), jnp.zeros(3), jnp.asarray(middle[:3], float))


class _Overlay(eqx.Module):
    """Two images at one scale. `seen` marks what was imaged: not the empty slices of padding.
    `smaller` is the volume imaged of the smaller image, in voxels of the fixed one."""

    fixed: Float[Array, "x y z"]
    fixed_seen: Float[Array, "x y z"]
    moving: Float[Array, "i j k"]
    moving_seen: Float[Array, "i j k"]
    fixed_to_mm: Float[Array, "4 4"]
    mm_to_moving: Float[Array, "4 4"]
    smaller: Float[Array, ""]

    def weighted(self, motion: RigidMotion) -> tuple[Array, Array]:
        """The weight of each fixed voxel, 1 where both images were taken, falling to 0 over one
        voxel at the edge of the moving one; and the moving image there."""
        to_moving = self.mm_to_moving @ motion.matrix @ self.fixed_to_mm
        i, j, k = jnp.meshgrid(
            *(jnp.arange(n, dtype=to_moving.dtype) for n in self.fixed.shape),
            indexing="ij",
            sparse=True,
        )
        places = [row[0] * i + row[1] * j + row[2] * k + row[3] for row in to_moving[:3]]
        sample = partial(map_coordinates, coordinates=places, order=1)
        weight = self.fixed_seen * sample(self.moving_seen, mode="constant", cval=0.0)
        return weight, sample(self.moving, mode="nearest")

    def residual(self, motion: RigidMotion) -> Float[Array, " n"]:
        """√w (f̂ - m̂) of the images standardised to zero mean and Σ w f̂² = 1, so that its sum of
        squares is 2 (1 - correlation)."""
        weight, moved = self.weighted(motion)
        root = jnp.sqrt(jnp.maximum(weight, 1e-12))
        a, b = (_standardised(image, weight) for image in (self.fixed, moved))
        return (root * (a - b)).ravel()

    def overlap(self, motion: RigidMotion) -> Float[Array, ""]:
        """The volume imaged in both, as a share of that of the smaller."""
        return jnp.sum(self.weighted(motion)[0]) / self.smaller


def _standardised(image: Array, weight: Array) -> Array:
    tiny = jnp.finfo(image.dtype).tiny
    centred = image - jnp.sum(weight * image) / jnp.maximum(jnp.sum(weight), tiny)
    return centred / jnp.sqrt(jnp.maximum(jnp.sum(weight * centred**2), tiny))


def _overlay(
    fixed: Volume, moving: Volume, smoothing_mm: float = 0.0, sampling_mm: float = 0.0
) -> _Overlay:
    """Both images smoothed by a Gaussian of this sd within what was imaged, the fixed one sampled
    so far apart."""

    def smooth(volume: Volume, seen: np.ndarray) -> np.ndarray:
        sd = [smoothing_mm / spacing for spacing in volume.spacing_mm]
        data = np.nan_to_num(np.asarray(volume.data, np.float64)) * seen
        weight = ndimage.gaussian_filter(seen.astype(np.float64), sd)
        return ndimage.gaussian_filter(data, sd) / np.maximum(weight, 1e-3)

    stride = [max(1, int(sampling_mm / s)) for s in fixed.spacing_mm]
    kept = tuple(slice(None, None, step) for step in stride)
    seen, moving_seen = _imaged(fixed), _imaged(moving)
    voxel = fixed.voxel_volume_mm3 * np.prod(stride)
    smaller = min(seen[kept].sum(), moving_seen.sum() * moving.voxel_volume_mm3 / voxel)
    return _Overlay(
        jnp.asarray(smooth(fixed, seen)[kept], float),
        jnp.asarray(seen[kept], float),
        jnp.asarray(smooth(moving, moving_seen), float),
        jnp.asarray(moving_seen, float),
        jnp.asarray(fixed.affine @ np.diag([*stride, 1]), float),
        jnp.asarray(np.linalg.inv(moving.affine), float),
        jnp.asarray(smaller, float),
    )


def _imaged(volume: Volume) -> np.ndarray:
    """1 in every slice along the coarsest axis that holds more than one value, 0 in padding."""
    data = np.asarray(volume.data)
    axis = 2 - int(np.argmax(volume.spacing_mm[::-1]))
    shown = np.ptp(data, axis=tuple(a for a in range(3) if a != axis)) > 0
    shape = [1, 1, 1]
    shape[axis] = -1
    return np.broadcast_to(shown.reshape(shape), data.shape)


def correlation(motion: RigidMotion, fixed: Volume, moving: Volume) -> Float[Array, ""]:
    """Normalised cross-correlation of two images under a motion, over what both show: 1 when they
    differ by gain and offset only, after both are shown on one grid. Differentiable in the motion
    but for the kinks of trilinear interpolation.
    """
    return 1 - _misfit(_overlay(fixed, moving), motion) / 2


@eqx.filter_jit
def _misfit(overlay: _Overlay, motion: RigidMotion) -> Float[Array, ""]:
    return jnp.sum(overlay.residual(motion) ** 2)


def align(
    fixed: Volume, moving: Volume, smoothing_mm: tuple[float, ...] = SMOOTHING_MM
) -> RigidMotion:
    r"""The rigid motion under which two images of one head correlate best.

    Levenberg-Marquardt on :math:`\sum_x w(x) (\hat f(x) - \hat m(T x))^2 = 2 (1 - \mathrm{NCC})`,
    images standardised over their overlap, so that gains and offsets do not matter; first with
    both smoothed by a Gaussian of sd `smoothing_mm[0]`, then by the next, at points about 4 mm
    apart. Started from no motion or from the shift that phase correlation shows, whichever
    correlates better. Slices of one value are taken for padding. Valid for turns of up to about
    15° and images of one contrast.

    Raises InputError for images with channels, without contrast, with less than three voxels
    along an axis, or that overlap in less than a fifth of the smaller.

    Lewis 1995, Vision Interface, 120-123 (normalised cross-correlation); Jenkinson et al. 2002,
    doi:10.1006/nimg.2002.1132 (rigid alignment of heads, weights at the edge of view).
    """
    for name, image in (("fixed", fixed), ("moving", moving)):
        _require_an_image(name, image)
    levels = [_overlay(fixed, moving, sd, SAMPLING_MM) for sd in smoothing_mm]
    start = no_motion(fixed)
    shifted = replace(start, translation_mm=_phase_shift_mm(fixed, moving))
    tried = [(motion, *_normal_equations(levels[0], motion)) for motion in (start, shifted)]
    overlapping = [row for row in tried if row[-1] >= LEAST_OVERLAP]
    if not overlapping:
        found = f"images of which {float(tried[0][-1]):.0%} of the smaller is in view of the other"
        cause = "two parts of the body, or a wrong origin in a header"
        raise InputError(Problem("align", found, f"at least {LEAST_OVERLAP:.0%}", cause))
    motion = min(overlapping, key=lambda row: float(row[1]))[0]
    for level in levels:
        motion = _descend(level, motion)
    return motion


@eqx.filter_jit
def _normal_equations(overlay: _Overlay, motion: RigidMotion) -> tuple[Array, Array, Array, Array]:
    """The misfit, its Gauss-Newton slope and curvature in six steps in mm (turns counted at the
    radius of a head), and the overlap."""

    def residual(step: Array) -> tuple[Array, Array]:
        r = overlay.residual(_stepped(motion, step))
        return r, r

    jacobian, r = jax.jacfwd(residual, has_aux=True)(jnp.zeros(6))
    return r @ r, jacobian.T @ r, jacobian.T @ jacobian, overlay.overlap(motion)


def _stepped(motion: RigidMotion, step: Float[Array, "6"]) -> RigidMotion:
    turn, shift = step[:3] / HEAD_RADIUS_MM, step[3:]
    return RigidMotion(motion.rotation_rad + turn, motion.translation_mm + shift, motion.centre_mm)


def _descend(overlay: _Overlay, motion: RigidMotion) -> RigidMotion:
    """The nearest minimum of the misfit where the images still overlap."""
    damping = 1e-3
    misfit, slope, curvature, _ = _normal_equations(overlay, motion)
    for _ in range(MOST_STEPS):
        diagonal = jnp.diag(jnp.diag(curvature) + 1e-12)
        step = -jnp.linalg.solve(curvature + damping * diagonal, slope)
        ahead = _stepped(motion, step)
        there = _normal_equations(overlay, ahead)
        if there[0] < misfit and there[3] >= LEAST_OVERLAP:
            motion, (misfit, slope, curvature, _) = ahead, there
            damping = max(damping / 10, 1e-6)
        else:
            damping *= 10
        if jnp.abs(step).max() < SMALLEST_STEP_MM:
            break
    return motion


def _require_an_image(name: str, image: Volume) -> None:
    where, data = f"align, the {name} image", np.asarray(image.data)
    if data.ndim != 3 or min(data.shape) < 3:
        expected = "one value in each voxel, at least three voxels along each axis"
        raise InputError(Problem(where, f"shape {data.shape}", expected, "a single slice"))
    if not np.ptp(np.nan_to_num(data)) > 0:
        raise InputError(Problem(where, "one value everywhere", "an image", "an empty file"))


def _phase_shift_mm(fixed: Volume, moving: Volume) -> Float[Array, "3"]:
    """The shift of the moving image in RAS+, by phase correlation on the fixed one's grid."""
    there = moving if moving.same_grid(fixed) else moving.resample_to(fixed)
    along_axes, _ = shift_mm(fixed, there)
    return jnp.asarray(fixed.affine[:3, :3] / fixed.spacing_mm @ along_axes, float)
