"""How far an image is from the truth: PSNR, SSIM, NMSE, HFEN; of magnitudes."""

import jax.numpy as jnp
import numpy as np
from jax.scipy.signal import convolve
from jaxtyping import Array, Float, Inexact

Image = Inexact[Array | np.ndarray, "x y"]

WINDOW_SD, WINDOW = 1.5, 11
"""Voxels; Wang et al. 2004."""
K1, K2 = 0.01, 0.03
LOG_SD, LOG = 1.5, 15
"""Voxels; Ravishankar and Bresler 2011."""


def psnr(x: Image, truth: Image) -> Float[Array, ""]:
    """10 log10(max truth² / mean (|x| - |truth|)²), in dB.

    >>> psnr(jnp.full((4, 4), 0.9), jnp.ones((4, 4))).round(3)
    Array(20., dtype=float64)
    """
    a, b = jnp.abs(x), jnp.abs(truth)
    return 10 * jnp.log10(jnp.max(b) ** 2 / jnp.mean((a - b) ** 2))


def nmse(x: Image, truth: Image) -> Float[Array, ""]:
    """|x - truth|² / |truth|², of magnitudes."""
    a, b = jnp.abs(x), jnp.abs(truth)
    return jnp.sum((a - b) ** 2) / jnp.sum(b**2)


def ssim(x: Image, truth: Image) -> Float[Array, ""]:
    """The mean structural similarity

        (2 µ_a µ_b + C1) (2 σ_ab + C2) / ((µ_a² + µ_b² + C1) (σ_a² + σ_b² + C2))

    in a normal window of sd 1.5 voxels, 11 wide, wherever it lies wholly inside the image;
    C = (K max truth)². 1 for two alike.

    Wang, Bovik, Sheikh, Simoncelli 2004, doi:10.1109/TIP.2003.819861.
    """
    a, b = jnp.abs(x), jnp.abs(truth)
    one = np.exp(-((np.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * WINDOW_SD**2))
    window = jnp.asarray(one / one.sum(), a.dtype)

    def mean(z: Array) -> Array:
        z = convolve(z, window[:, None], "valid", method="direct")
        return convolve(z, window[None], "valid", method="direct")

    at_a, at_b = mean(a), mean(b)
    var_a, var_b = mean(a * a) - at_a**2, mean(b * b) - at_b**2
    both = mean(a * b) - at_a * at_b
    c1, c2 = (K1 * jnp.max(b)) ** 2, (K2 * jnp.max(b)) ** 2
    alike = (2 * at_a * at_b + c1) * (2 * both + c2)
    return jnp.mean(alike / ((at_a**2 + at_b**2 + c1) * (var_a + var_b + c2)))


def hfen(x: Image, truth: Image) -> Float[Array, ""]:
    """The high-frequency error norm |L x - L truth| / |L truth|, of magnitudes; L the Laplacian of
    a normal kernel of sd 1.5 voxels, 15 wide, of sum 0.

    Ravishankar and Bresler 2011, doi:10.1109/TMI.2010.2090538.
    """
    a, b = jnp.abs(x), jnp.abs(truth)
    at = np.arange(LOG) - LOG // 2
    square = at[:, None] ** 2 + at[None] ** 2
    normal = np.exp(-square / (2 * LOG_SD**2))
    kernel = normal / normal.sum() * (square - 2 * LOG_SD**2) / LOG_SD**4
    kernel = jnp.asarray(kernel - kernel.mean(), a.dtype)
    high, left = (convolve(z, kernel, "same", method="direct") for z in (b, a - b))
    return jnp.linalg.norm(left) / jnp.linalg.norm(high)


def all_metrics(x: Image, truth: Image) -> dict[str, Float[Array, ""]]:
    """Each by its name."""
    return {each.__name__: each(x, truth) for each in (psnr, ssim, nmse, hfen)}
