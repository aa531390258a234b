"""Images of patients as images to reconstruct."""

from collections.abc import Sequence
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, PRNGKeyArray

from learn.reconstruction.anatomy import smooth
from mrphys.encoding import fft, ifft
from mrphys.errors import InputError, Problem
from mrphys.io import read_nifti

SLICES = (0.3, 0.45, 0.6)
"""Of those that are not empty, from below."""


def patient_images(
    folder: str | Path,
    size: int,
    key: PRNGKeyArray,
    name: str = "Post_Scan_T1.nii.gz",
    *,
    slices: Sequence[float] = SLICES,
    patients: Sequence[str] | None = None,
) -> dict[str, Complex[Array, "slices size size"]]:
    """Axial slices by patient, of folders that hold a volume of that name: what a scan of size²
    voxels sees of them, with a smooth phase, of mean |x|² = 1.

    slices    which of those that are not empty, in parts of their number, from below
    patients  names of folders, all unless given

    A phase encoded axis is the last, front to back. Magnitudes have no phase: it is invented, as
    that of `draw_image`. Raises InputError where no folder has such a volume.
    """
    found = {}
    for path in sorted(Path(folder).glob(f"*/{name}")):
        if patients is not None and path.parent.name not in patients:
            continue
        volume = np.asarray(read_nifti(path).data, np.float32)
        filled = np.flatnonzero(volume.reshape(-1, volume.shape[2]).any(axis=0))
        kept = [filled[int(part * filled.size)] for part in slices]
        images = []
        for at in kept:
            key, now = jax.random.split(key)
            images.append(_seen(jnp.asarray(_square(volume[:, :, at])), size, now))
        found[path.parent.name] = jnp.stack(images)
    if not found:
        raise InputError(Problem(str(folder), f"no folder with {name}", "one for each patient"))
    return found


def _square(image: np.ndarray) -> np.ndarray:
    n = max(image.shape)
    before = [(n - m) // 2 for m in image.shape]
    return np.pad(image, [(b, n - m - b) for b, m in zip(before, image.shape, strict=True)])


def _seen(image: Array, size: int, key: PRNGKeyArray) -> Complex[Array, "size size"]:
    n = image.shape[0]
    phase = smooth(key, n, 4)
    fine = fft(jax.lax.complex(image * jnp.cos(phase), image * jnp.sin(phase)), 2)
    cut = slice(n // 2 - size // 2, n // 2 - size // 2 + size)
    x = ifft(fine[cut, cut], 2)
    return x / jnp.sqrt(jnp.mean(jnp.abs(x) ** 2))
