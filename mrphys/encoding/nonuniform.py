"""Sums at points that lie anywhere, by a library that knows this machine's device.

jax-finufft (Barnett, Magland, af Klinteberg 2019, doi:10.1137/18M120885X) on a processor, and on
CUDA where it was built for it; nufftax, in JAX alone, on every other device:
`pip install mrphys[accelerator]`.
"""

import math
from collections.abc import Sequence

import jax
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem

Angles = Sequence[Float[Array, " samples"]]
"""2π times the place in cycles per voxel, of each axis."""


def to_points(
    z: Complex[Array, "batch *shape"], angles: Angles, tolerance: float
) -> Complex[Array, "batch samples"]:
    """Σ_r z(r) exp(-i angle·r), r whole numbers, 0 the middle."""
    if finufft_serves():
        from jax_finufft import nufft2

        return nufft2(z, *angles, iflag=-1, eps=tolerance)
    transform = getattr(_nufftax(), f"nufft{len(angles)}d2")
    last_first = angles[::-1]
    return jax.vmap(lambda f: transform(*last_first, f, eps=tolerance, isign=-1))(z)


def to_grid(
    shape: tuple[int, ...], y: Complex[Array, "batch samples"], angles: Angles, tolerance: float
) -> Complex[Array, "batch *shape"]:
    """Σ_j y_j exp(i angle_j·r), the adjoint."""
    if finufft_serves():
        from jax_finufft import nufft1

        return nufft1(shape, y, *angles, iflag=1, eps=tolerance)
    transform = getattr(_nufftax(), f"nufft{len(angles)}d1")
    last_first, modes = angles[::-1], shape[::-1] if len(shape) > 1 else math.prod(shape)
    return jax.vmap(lambda c: transform(*last_first, c, modes, eps=tolerance, isign=1))(y)


def finufft_serves() -> bool:
    """Whether jax-finufft knows the device that JAX computes on."""
    backend = jax.default_backend()
    if backend == "cpu":
        return True
    from jax_finufft import lowering

    return backend in ("gpu", "cuda") and lowering.jax_finufft_gpu is not None


def _nufftax():
    try:
        import nufftax  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        found = f"a device ({jax.default_backend()}) for which jax-finufft was not built"
        expected = "nufftax: pip install mrphys[accelerator]"
        raise InputError(Problem("Encoding.noncartesian", found, expected)) from error
    return nufftax
