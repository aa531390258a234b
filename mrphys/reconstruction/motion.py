"""An image and the poses it was seen in, found together from shots."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix
from jaxtyping import Array, Complex, Float, Int

from mrphys.encoding import Encoding, RigidMotion
from mrphys.encoding.sampling import Cartesian
from mrphys.errors import InputError, Problem
from mrphys.reconstruction.reconstruct import reconstruct
from mrphys.reconstruction.result import Reconstruction
from mrphys.units import check_count, check_finite, check_range

SMALL = 1e-3
"""Of the data's energy, what a mm is worth: the unit of F, so that first steps are of some mm."""
COARSE = 0.25
"""Of the edge of k-space, the sd of the Gaussian that weighs samples at first."""
FARTHEST_RAD = 1.5
"""No pose is turned by more, `RigidMotion`'s shears being right within a quarter turn."""


class MotionCorrected(eqx.Module):
    """x, and where it was.

    image      in the pose of the first shot
    motion     of each shot
    residual   sd of the real part of what is left over in a datum: near the noise's, or the poses
               are not found
    steps      of the search
    converged  whether it ended before its steps ran out
    """

    image: Complex[Array, "*shape"]
    motion: RigidMotion
    residual: Float[Array, ""]
    steps: Int[Array, ""]
    converged: Array


def correct_motion(
    A: Encoding,
    y: Complex[Array | np.ndarray, "..."],
    voxel_mm: tuple[float, ...],
    *,
    regularisation: float = 1e-3,
    radius_mm: float = 60.0,
    iterations: int = 15,
    most: int = 80,
    tolerance: float = 1e-5,
) -> MotionCorrected:
    """The poses p of shots, and with them the image, that explain data best:

        min over p of F(p) = min over x of ½|A P(p) x - y|² + ½λ|x|²

    A of `Encoding.shots`, P of `RigidMotion`, the first shot's pose 0. The inner minimum is
    CG-SENSE's; as it is one, ∂F/∂p is that of the misfit at x held (Danskin), the gradient through
    A P alone. Outside, BFGS from no motion, angles times `radius_mm` beside shifts in mm: first of
    samples weighted down away from the centre, exp(-½ (|k| / ¼ k_max)²), of which F has fewer
    minima, then of all. Where shots lack much of the centre, or motion exceeds a few voxels,
    another minimum may be found; a `residual` above the noise's tells. One as low proves nothing
    where coils alone explain each shot: many coils, few lines. The image is differentiable in y,
    coils and fields, at poses that stay.

    regularisation  λ, in units of AᴴA
    iterations      of the inner conjugate gradients
    most            steps of each outer search, which ends where F changes by less than `tolerance`
                    of itself, and poses by as much of a mm

    Raises InputError for an encoding without shots, voxels of another number of axes, and data that
    are not finite.

    Cordero-Grande et al. 2016, doi:10.1109/TCI.2016.2557069; Haskell, Cauley, Wald 2018,
    doi:10.1109/TMI.2018.2805718.
    """
    axes, terms = len(A.sampling.shape), A.terms
    if terms is None or terms.images < 2 or terms.mixes or any(terms.slices):
        raise InputError(Problem("correct_motion: A", "no shots", "Encoding.shots of two or more"))
    if axes not in (2, 3) or len(voxel_mm) != axes:
        found = f"{len(voxel_mm)} axes of voxels, {axes} of images"
        raise InputError(Problem("correct_motion: voxel_mm", found, "two or three, as many"))
    check_count("correct_motion: most", most)
    check_range("correct_motion: radius_mm", radius_mm, 1e-3, 1e4, "mm")
    check_range("correct_motion: voxel_mm", np.asarray(voxel_mm), 1e-3, 1e3, "mm")
    data = jnp.asarray(y)
    check_finite("correct_motion: y", data)
    dtype, shots, turns = data.real.dtype, terms.images, 1 if axes == 2 else 3

    def moved(p: Float[Array, "moving moves"]) -> RigidMotion:
        whole = jnp.concatenate([jnp.zeros((1, turns + axes), dtype), p])
        angle = FARTHEST_RAD * jnp.tanh(whole[:, :turns] / (radius_mm * FARTHEST_RAD))
        return RigidMotion(angle[:, 0] if axes == 2 else angle, whole[:, turns:], voxel_mm)

    def best(A: Encoding, y: Complex[Array, "..."], P: RigidMotion) -> Reconstruction:
        return reconstruct(
            A @ P, y, "cg-sense", regularisation=regularisation, iterations=iterations,
            tolerance=0.0,
        )  # fmt: skip

    def searched(
        A: Encoding, y: Complex[Array, "..."], start: Float[Array, "moving moves"]
    ) -> optimistix.Solution:
        scale = 2 * SMALL * jnp.sum(y.real**2 + y.imag**2)

        def misfit(p: Float[Array, "moving moves"], _: None) -> Float[Array, ""]:
            x = jax.lax.stop_gradient(best(A, y, moved(jax.lax.stop_gradient(p))).image)
            away = (A @ moved(p))(x) - y
            square = jnp.sum(away.real**2 + away.imag**2)
            return (square + regularisation * jnp.sum(x.real**2 + x.imag**2)) / scale

        search = optimistix.BFGS(rtol=tolerance, atol=tolerance)
        return optimistix.minimise(misfit, search, start, max_steps=most, throw=False)

    still, measured = jax.lax.stop_gradient((A, data))
    window = _gaussian(A, COARSE)
    by_coil = window if A.coils is None else jnp.expand_dims(window, -len(A.sampling.samples) - 1)
    by_coil = by_coil.reshape(*[1] * (data.ndim - by_coil.ndim), *by_coil.shape)
    none = jnp.zeros((shots - 1, turns + axes), dtype)
    near = searched(still.weighted(window), measured * by_coil, none)
    found = searched(still, measured, near.value)
    motion = moved(jax.lax.stop_gradient(found.value))
    image = best(A, data, motion)
    steps = jnp.asarray(near.stats["num_steps"] + found.stats["num_steps"])
    arrived = found.result == optimistix.RESULTS.successful
    return MotionCorrected(image.image, motion, image.residual, steps, arrived)


def _gaussian(A: Encoding, sd: float) -> Float[Array, "..."]:
    """exp(-½ (|k| / (sd k_max))²) of each sample, with axes of frames."""
    sampling, shape = A.sampling, A.sampling.shape
    if isinstance(sampling, Cartesian):
        grid = np.meshgrid(*[(np.arange(n) - n // 2) / (n / 2) for n in shape], indexing="ij")
        k = jnp.asarray(np.stack(grid, -1), sampling.weight.dtype)
        k = k.reshape(*[1] * len(sampling.frames), *k.shape)
    else:
        k = jax.lax.stop_gradient(sampling.k) / jnp.asarray(shape, sampling.k.dtype) * 2
    return jnp.exp(-jnp.sum(k**2, axis=-1) / (2 * sd**2))
