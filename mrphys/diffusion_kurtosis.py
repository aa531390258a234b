"""q from x: diffusion and kurtosis tensors of magnitude images, their means and uncertainty."""

from collections import Counter
from itertools import combinations_with_replacement
from math import factorial, prod

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Inexact

from mrphys.diffusion_tensor import (
    PER_MS,
    UNKNOWN,
    TensorMap,
    check_diffusion,
    described,
    fit_maps,
    products,
    scalars,
)
from mrphys.sequence.diffusion import DiffusionWeighted

FOURTHS = tuple(combinations_with_replacement(range(3), 4))
"""xxxx, xxxy, ... zzzz."""
LEAST_ADC = 0.05
"""µm²/ms along a direction by which kurtosis may be divided."""


class KurtosisScalars(eqx.Module):
    """As `mrphys.diffusion_tensor.Scalars`, and of kurtosis:

    mk   mean over directions n of K(n) = MD² W(n) / D(n)²
    mkt  mean over directions of W(n): a fifth of the trace of the kurtosis tensor, steadier than mk
    """

    fa: Float[Array, "*voxels"]
    md_mm2_per_s: Float[Array, "*voxels"]
    ad_mm2_per_s: Float[Array, "*voxels"]
    rd_mm2_per_s: Float[Array, "*voxels"]
    m0: Float[Array, "*voxels"]
    mk: Float[Array, "*voxels"]
    mkt: Float[Array, "*voxels"]


def fit_kurtosis(
    theta: DiffusionWeighted,
    x: Inexact[Array, "*voxels readouts"],
    noise_sd: ArrayLike | None = None,
    mask: Bool[Array | np.ndarray, "..."] | None = None,
    rician: bool = True,
) -> TensorMap:
    """Diffusion and kurtosis of every voxel, from the magnitudes |x| along fifteen directions or
    more, at two b-values or more besides the least.

        log |x_i| = log m0 - b_i D(g_i) + b_i² MD² W(g_i) / 6,   D and W symmetric tensors

    by greatest likelihood of magnitudes, or, not `rician`, by weighted least squares in closed
    form, for signals 3 times their noise or more; MK and MKT, quotients of what has noise, freed of
    the bias that this gives them to second order; arguments, errors and result as of
    `mrphys.diffusion_tensor.fit_tensor`; value and sd are `KurtosisScalars`. Valid for b up to
    about 3 / (D K), beyond which the expansion turns. W is not held to what a real substance could
    have.

    Jensen et al. 2005, doi:10.1002/mrm.20508; Hansen et al. 2013, doi:10.1002/mrm.24743 (mkt).
    """
    b = theta.b_s_per_mm2[:, None] / PER_MS
    g = check_diffusion("fit_kurtosis", theta, x, noise_sd, mask)
    parts = [jnp.ones_like(b), -b * products(g), b**2 / 6 * _fourths(g)]
    lost = "one b-value besides the least, or fewer than fifteen directions"
    told = eqx.Partial(described, KurtosisScalars, _kurtoses, rician)
    matrix = jnp.concatenate(parts, axis=1)
    return fit_maps("fit_kurtosis", matrix, lost, told, theta, x, noise_sd, mask)


def _fourths(g: Float[Array, "some 3"]) -> Float[Array, "some 15"]:
    """What each of FOURTHS counts for in Σ g_i g_j g_k g_l V_ijkl."""
    columns = []
    for axes in FOURTHS:
        times = factorial(4) // prod(factorial(n) for n in Counter(axes).values())
        columns.append(times * g[:, axes[0]] * g[:, axes[1]] * g[:, axes[2]] * g[:, axes[3]])
    return jnp.stack(columns, axis=1)


def _sphere() -> tuple[np.ndarray, np.ndarray]:
    """Directions of half a sphere and weights whose sum is 1: Gauss in height, even in azimuth."""
    height, weight = np.polynomial.legendre.leggauss(16)
    height, weight = height[8:], weight[8:]
    azimuth = 2 * np.pi * np.arange(20) / 20
    z, phi = (a.ravel() for a in np.meshgrid(height, azimuth, indexing="ij"))
    across = np.sqrt(1 - z**2)
    return np.stack([across * np.cos(phi), across * np.sin(phi), z], 1), np.repeat(weight / 20, 20)


def _kurtoses(
    beta: Float[Array, "22 voxels"],
    eigenvalues: Float[Array, "3 voxels"],
    axes: Float[Array, "3 3 voxels"],
    covariance: Float[Array, "22 22 voxels"],
) -> tuple[Float[Array, "7 voxels"], Float[Array, "7 22 voxels"]]:
    """As `scalars`, and MK and MKT, of β = (log m0, D, V = MD² W), each a mean of quotients."""
    values, slopes = scalars(beta[:7], eigenvalues, axes, covariance[:7, :7])
    slopes = jnp.pad(slopes, [(0, 0), (0, 15), (0, 0)])
    n, weight = (jnp.asarray(part, beta.dtype) for part in _sphere())
    trace = jnp.zeros((1, 6), beta.dtype).at[:, :3].set(1 / 3)
    mk, toward_mk = _mean_quotient(products(n), _fourths(n), weight, beta, covariance)
    whole = (weight @ _fourths(n))[None]
    mkt, toward_mkt = _mean_quotient(trace, whole, jnp.ones_like(weight[:1]), beta, covariance)
    more = [jnp.concatenate([jnp.zeros_like(beta[:1]), part]) for part in (toward_mk, toward_mkt)]
    return jnp.concatenate([values, mk[None], mkt[None]]), jnp.concatenate(
        [slopes, jnp.stack(more)]
    )


def _mean_quotient(
    second: Float[Array, "some 6"],
    fourth: Float[Array, "some 15"],
    weight: Float[Array, " some"],
    beta: Float[Array, "22 voxels"],
    covariance: Float[Array, "22 22 voxels"],
) -> tuple[Float[Array, " voxels"], Float[Array, "21 voxels"]]:
    """Σ w V / D² of D = second · β, V = fourth · β, and its slope, freed of what noise adds to the
    quotient on average, to second order (s the covariances of D and V)

        w (V / D² + 2 s_DV / D³ - 3 V s_DD / D⁴)

    The slope is `UNKNOWN` where D is below twice its sd or `LEAST_ADC`: there is no such average.
    """
    d, v = second @ beta[1:7], fourth @ beta[7:]
    along = jnp.einsum("ni,ijv->njv", second, covariance[1:7, 1:])
    s_dd = jnp.einsum("njv,nj->nv", along[:, :6], second)
    s_dv = jnp.einsum("njv,nj->nv", along[:, 6:], fourth)
    known = ((d > LEAST_ADC) & (4 * s_dd < d**2)).all(axis=0)
    d = jnp.where(known[None], d, 1.0)
    w = weight[:, None]
    found = jnp.sum(w * (v / d**2 + 2 * s_dv / d**3 - 3 * v * s_dd / d**4), axis=0)
    toward_d = w * (-2 * v / d**3 - 6 * s_dv / d**4 + 12 * v * s_dd / d**5)
    toward_v = w * (1 / d**2 - 3 * s_dd / d**4)
    slope = jnp.concatenate([second.T @ toward_d, fourth.T @ toward_v])
    return found, jnp.where(known[None], slope, UNKNOWN)
