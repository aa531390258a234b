"""q from x: the diffusion tensor of magnitude images, its anisotropy, and their uncertainty."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact, Int

from mrphys.diffusion import DiffusionTensor
from mrphys.errors import InputError, Problem
from mrphys.log_linear import Design, covariance, design, deviations, fit_logarithm, fit_magnitude
from mrphys.noise import magnitude
from mrphys.principal_axes import principal_axes
from mrphys.sequence.diffusion import DiffusionWeighted
from mrphys.simulate import over_voxels
from mrphys.units import check_range
from mrphys.voxelwise import AT_BOUNDARY, CONVERGED, FAILED, ILL_DETERMINED, MASKED

ISOTROPIC = 5
CHUNK = 1024
PER_MS = 1e3
"""b counts in ms/µm² and diffusivities in µm²/ms, both near 1 in float32."""
UNKNOWN, WIDEST = 1e10, 1e6
"""A slope of what is not determined, and the sd, of 1 or of the value, from which none is told."""
CLEARLY = 3.0
"""Standard deviations from which an anisotropy is told from none."""


class Scalars(eqx.Module):
    """Of a tensor with eigenvalues λ1 >= λ2 >= λ3; each of the voxels' shape.

    fa             sqrt(3/2) |D - MD 1| / |D|
    md_mm2_per_s   (λ1 + λ2 + λ3) / 3;  ad_mm2_per_s  λ1;  rd_mm2_per_s  (λ2 + λ3) / 2
    m0             the signal at b = 0, relaxation included
    """

    fa: Float[Array, "*voxels"]
    md_mm2_per_s: Float[Array, "*voxels"]
    ad_mm2_per_s: Float[Array, "*voxels"]
    rd_mm2_per_s: Float[Array, "*voxels"]
    m0: Float[Array, "*voxels"]


class TensorMap(eqx.Module):
    """Diffusion tensors and how far to trust them.

    value, sd  Scalars (or more, of a richer model) and their standard deviations, infinite where
               they are not determined
    tensor     D, in the axes of the gradients' directions
    eigenvalues_mm2_per_s  (..., 3), the greatest first;  eigenvectors  (..., which, xyz), each of
               arbitrary sign
    residual   sd of what the model leaves over, in the signal's units: near noise_sd where it holds
    noise_sd   as given, or the residual where it was not
    status     CONVERGED; ISOTROPIC: FA is below three of its sds, which are then no longer those of
               a Gaussian, and eigenvectors are arbitrary; AT_BOUNDARY: an eigenvalue is not
               positive; ILL_DETERMINED: MD is below its sd; MASKED; FAILED: no signal, not finite
    """

    value: Any
    sd: Any
    tensor: DiffusionTensor
    eigenvalues_mm2_per_s: Float[Array, "*voxels 3"]
    eigenvectors: Float[Array, "*voxels 3 3"]
    residual: Float[Array, "*voxels"]
    noise_sd: Float[Array, "*voxels"]
    status: Int[Array, "*voxels"]


def fit_tensor(
    theta: DiffusionWeighted,
    x: Inexact[Array, "*voxels readouts"],
    noise_sd: ArrayLike | None = None,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    rician: bool = False,
) -> TensorMap:
    """The diffusion tensor of every voxel, from the magnitudes |x| along at least six directions.

        log |x_i| = log m0 - b_i g_iᵀ D g_i

    by least squares weighed by the signals of an unweighted fit, in closed form; readouts in any
    order. Standard deviations are the information's, to first order in the noise. Valid where
    signals are 3 times their noise or more: below, the noise floor of magnitudes adds to the
    logarithm, and `rician` does better: the tensor of greatest likelihood of magnitudes, from there
    by a few steps (`mrphys.log_linear.fit_magnitude`), at a fraction of the speed.

    noise_sd is of the real part of one average, one number or one for each voxel; each voxel's
    residual when None. Differentiable in b-values, directions, averages, x and noise_sd. Raises
    InputError for a sequence without directions, b-values and directions that do not determine
    seven unknowns, shapes that do not match, signals that grow with b, noise_sd <= 0.

    Basser, Mattiello, Le Bihan 1994, doi:10.1006/jmrb.1994.1037; Salvador et al. 2005,
    doi:10.1002/hbm.20076 (weights).
    """
    b = theta.b_s_per_mm2 / PER_MS
    g = check_diffusion("fit_tensor", theta, x, noise_sd, mask)
    matrix = jnp.concatenate([jnp.ones_like(g[:, :1]), -b[:, None] * products(g)], axis=1)
    lost = "fewer than six directions, directions in a plane or on a cone, or one b-value"
    told = eqx.Partial(described, Scalars, scalars, rician)
    return fit_maps("fit_tensor", matrix, lost, told, theta, x, noise_sd, mask)


def products(g: Float[Array, "some 3"]) -> Float[Array, "some 6"]:
    """What xx, yy, zz, xy, xz, yz count for in gᵀ D g."""
    x, y, z = g.T
    return jnp.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z], axis=1)


def fit_maps(
    where: str,
    matrix: Float[Array, "readouts unknowns"],
    lost: str,
    told: Callable[..., Any],
    theta: DiffusionWeighted,
    x: Inexact[Array, "*voxels readouts"],
    noise_sd: ArrayLike | None,
    mask: Bool[Array | np.ndarray, "..."] | None,
) -> Any:
    """What told(design, x, noise_sd) tells of chunks of voxels, as maps of x's shape; `matrix`
    is the design of the logarithm."""
    shape = x.shape[:-1]
    normal = design(where, matrix, theta.averages, lost)
    inside = jnp.ones(shape, bool) if mask is None else jnp.asarray(mask)
    rows = magnitude(x).reshape(-1, x.shape[-1])
    noise = None if noise_sd is None else jnp.broadcast_to(jnp.asarray(noise_sd), shape).ravel()
    given = jax.tree.map(lambda v: v.astype(rows.dtype), (normal, rows, noise))
    found = over_voxels(eqx.Partial(_in_mask, told), given[0], (*given[1:], inside.ravel()), CHUNK)
    return jax.tree.map(lambda value: value.reshape(*shape, *value.shape[1:]), found)


def _in_mask(told: Callable[..., Any], normal: Design, rows: tuple) -> Any:
    x, noise, inside = rows
    usable = jnp.isfinite(x).all(axis=1) & (x > 0).any(axis=1) & inside
    found = told(normal, jnp.where(usable[:, None], x, 1.0).T, noise)
    blank = jax.tree.map(jnp.zeros_like, found)
    sd = jax.tree.map(lambda value: jnp.full_like(value, jnp.inf), found.sd)
    status = jnp.where(inside, FAILED, MASKED)
    blank = eqx.tree_at(lambda t: (t.sd, t.status), blank, (sd, status))

    def chosen(value: Array, other: Array) -> Array:
        where = usable.reshape(-1, *[1] * (value.ndim - 1))
        return jnp.where(where, value, other.astype(value.dtype))

    return jax.tree.map(chosen, found, blank)


def described(
    kind: type[eqx.Module],
    scalars: Callable[..., tuple[Array, Array]],
    rician: bool,
    normal: Design,
    x: Float[Array, "readouts voxels"],
    noise: Float[Array, " voxels"] | None,
) -> TensorMap:
    """A chunk of voxels: maps of a kind and their sds, from scalars(β, eigenvalues, axes, cov(β)),
    which gives them and their slopes in β = (log m0, D, ...)."""
    fit = jax.lax.optimization_barrier(fit_logarithm(normal, x))
    noise_sd = fit.residual if noise is None else noise
    if rician:
        some = jnp.where(noise_sd > 0, noise_sd, 1.0)
        fit = jax.lax.optimization_barrier(fit_magnitude(normal, x, some, fit))
    eigenvalues, axes = principal_axes(fit.beta[1:7])
    values, slopes = scalars(fit.beta, eigenvalues, axes, covariance(normal, fit, noise_sd))
    sds = deviations(normal, fit, noise_sd, slopes)
    status, known = _judged(values, sds, eigenvalues)
    status = jnp.where(fit.arrived, status, FAILED)
    known = (known & fit.arrived)[None] & _told(values, sds)
    return TensorMap(
        _of_rows(kind, values),
        _of_rows(kind, jnp.where(known, sds, jnp.inf)),
        DiffusionTensor(*(fit.beta[1:7] / PER_MS)),
        eigenvalues.T / PER_MS,
        jnp.moveaxis(axes, -1, 0),
        fit.residual,
        noise_sd,
        status,
    )


def scalars(
    beta: Float[Array, "7 voxels"],
    eigenvalues: Float[Array, "3 voxels"],
    axes: Float[Array, "3 3 voxels"],
    covariance: Float[Array, "7 7 voxels"],
) -> tuple[Float[Array, "5 voxels"], Float[Array, "5 7 voxels"]]:
    """FA, MD, AD, RD in µm²/ms and m0, and their derivatives in β = (log m0, D).

    FA² = 3/2 s/n of s = |D - MD 1|², n = |D|²;  dFA = 3 (D - MD 1 - s/n D) : dD / 2 n FA.
    """
    six, zero = beta[1:], jnp.zeros_like(beta[0])
    one = jnp.ones_like(zero)
    trace = jnp.stack([one, one, one, zero, zero, zero])
    md = (six[0] + six[1] + six[2]) / 3
    double = 2 - trace
    centred = six - md[None] * trace
    square = jnp.sum(double * centred**2, axis=0)
    there = square > 0
    square = jnp.where(there, square, 1.0)
    whole = square + 3 * md**2
    fa = jnp.sqrt(1.5 * square / whole)
    toward_fa = (1.5 / (fa * whole))[None] * double * (centred - (square / whole)[None] * six)
    x, y, z = axes[0]
    toward_ad = jnp.stack([x * x, y * y, z * z, 2 * x * y, 2 * x * z, 2 * y * z])
    m0 = jnp.exp(beta[0])
    values = jnp.stack(
        [
            jnp.where(there, fa, 0.0),
            md,
            eigenvalues[0],
            (eigenvalues[1] + eigenvalues[2]) / 2,
            m0,
        ]
    )
    tensors = jnp.stack(
        [jnp.where(there[None], toward_fa, 0.0), trace / 3, toward_ad, (trace - toward_ad) / 2]
    )
    slopes = jnp.concatenate([jnp.zeros_like(tensors[:, :1]), tensors], axis=1)
    toward_m0 = jnp.stack([m0, *jnp.zeros_like(six)])
    return values, jnp.concatenate([slopes, toward_m0[None]])


def _of_rows(kind: Any, rows: Float[Array, "some voxels"]) -> Any:
    """A module of maps from rows, of which those in mm²/s are given in µm²/ms."""
    names = kind.__dataclass_fields__
    scale = {name: 1 / PER_MS if name.endswith("_mm2_per_s") else 1.0 for name in names}
    return kind(*[row * scale[name] for name, row in zip(names, rows, strict=True)])


def _judged(
    values: Float[Array, "some voxels"],
    sds: Float[Array, "some voxels"],
    eigenvalues: Float[Array, "3 voxels"],
) -> tuple[Int[Array, " voxels"], Bool[Array, " voxels"]]:
    """The status of rows that begin with FA and MD, and whether they are determined."""
    known = sds[1] < jnp.abs(values[1])
    status = jnp.where(values[0] <= CLEARLY * sds[0], ISOTROPIC, CONVERGED)
    status = jnp.where(eigenvalues[2] <= 0, AT_BOUNDARY, status)
    return jnp.where(known & _told(values, sds).all(axis=0), status, ILL_DETERMINED), known


def _told(values: Float[Array, "some voxels"], sds: Float[Array, "some voxels"]) -> Array:
    return sds < WIDEST * jnp.maximum(jnp.abs(jax.lax.stop_gradient(values)), 1.0)


def check_diffusion(
    where: str, theta: DiffusionWeighted, x: Any, noise_sd: Any, mask: Any
) -> Float[Array, "readouts 3"]:
    """The directions of a sequence that has them. Raises InputError for what does not match."""
    b, shape, problems = theta.b_s_per_mm2, x.shape[:-1], []
    if theta.directions is None:
        expected = "diffusion_weighted(..., directions=...)"
        problems.append(Problem(where, "b-values without directions", expected))
    if x.shape[-1:] != b.shape:
        expected = f"a last axis of {b.size} readouts"
        problems.append(Problem(f"{where}: x", f"shape {x.shape}", expected, "readouts not last"))
    for name, value in (("mask", mask), ("noise_sd", noise_sd)):
        if value is not None and jnp.shape(value) not in (() if name == "mask" else ((), shape)):
            if jnp.shape(value) == shape:
                continue
            found = f"shape {jnp.shape(value)}"
            problems.append(Problem(f"{where}: {name}", found, f"shape {shape}", "another image"))
    if problems:
        raise InputError(*problems)
    if noise_sd is not None:
        smallest = float(jnp.finfo(jnp.float32).tiny)
        check_range(f"{where}: noise_sd", noise_sd, smallest, float("inf"), "(signal units)")
    _check_order(where, b, x, mask)
    return jnp.asarray(theta.directions)


def _check_order(where: str, b: Any, x: Any, mask: Any) -> None:
    """Signals fall with b, on the whole."""
    if any(isinstance(value, Tracer) for value in (b, x, mask)) or x.size == 0:
        return
    weight = np.asarray(b, np.float64)
    least, most = weight == weight.min(), weight == weight.max()
    chosen = jnp.isfinite(x).all(axis=-1, keepdims=True)
    chosen &= True if mask is None else jnp.asarray(mask)[..., None]
    mean = np.asarray(jnp.sum(jnp.where(chosen, jnp.abs(x), 0.0), axis=tuple(range(x.ndim - 1))))
    low, high = mean[least].mean(), mean[most].mean()
    if high > 1.2 * low > 0:
        found = f"{high / low:.2f} times the signal at the largest b that is at the smallest"
        cause = "b-values sorted otherwise than the images"
        raise InputError(Problem(f"{where}: x", found, "signals that fall with b", cause))
