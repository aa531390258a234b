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
"""µm²/ms along a direction that kurtosis is divided by."""


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
) -> TensorMap:
    """Diffusion and kurtosis of every voxel, from the magnitudes |x| along fifteen directions or
    more, at two b-values or more besides the least.

        log |x_i| = log m0 - b_i D(g_i) + b_i² MD² W(g_i) / 6,   D and W symmetric tensors

    by weighted least squares in closed form, arguments, errors and result as of
    `mrphys.diffusion_tensor.fit_tensor`; value and sd are `KurtosisScalars`. Valid for b up to
    about 3 / (D K), beyond which the expansion turns, and signals 3 times their noise or more. W is
    not held to what a real substance could have.

    Jensen et al. 2005, doi:10.1002/mrm.20508; Hansen et al. 2013, doi:10.1002/mrm.24743 (mkt).
    """
    b = theta.b_s_per_mm2[:, None] / PER_MS
    g = check_diffusion("fit_kurtosis", theta, x, noise_sd, mask)
    parts = [jnp.ones_like(b), -b * products(g), b**2 / 6 * _fourths(g)]
    lost = "one b-value besides the least, or fewer than fifteen directions"
    told = eqx.Partial(described, KurtosisScalars, _kurtoses)
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
) -> tuple[Float[Array, "7 voxels"], Float[Array, "7 22 voxels"]]:
    """As `scalars`, and MK and MKT, of β = (log m0, D, MD² W)."""
    values, slopes = scalars(beta[:7], eigenvalues, axes)
    slopes = jnp.pad(slopes, [(0, 0), (0, 15), (0, 0)])
    n, weight = (jnp.asarray(part, beta.dtype) for part in _sphere())
    second, fourth = products(n), _fourths(n)
    along = second @ beta[1:7]
    kept = along > LEAST_ADC
    along = jnp.maximum(along, LEAST_ADC)
    share = weight[:, None] / along**2
    v = fourth @ beta[7:]
    mk = jnp.sum(share * v, axis=0)
    toward_d = -2 * second.T @ jnp.where(kept, share * v / along, 0.0)
    toward_mk = jnp.concatenate([jnp.zeros_like(beta[:1]), toward_d, fourth.T @ share])
    md, mean = values[1], (weight @ fourth)[:, None]
    square = jnp.where(md**2 > 0, md**2, 1.0)
    mkt = jnp.sum(mean * beta[7:], axis=0) / square
    safe = jnp.where(md**2 > 0, md, 1.0)
    toward_mkt = -2 * (mkt / safe)[None] * slopes[1]
    toward_mkt = toward_mkt.at[7:].add(mean / square[None])
    return jnp.concatenate([values, mk[None], mkt[None]]), jnp.concatenate(
        [slopes, toward_mk[None], toward_mkt[None]]
    )
