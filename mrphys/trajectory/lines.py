"""Lines of a grid, as a trajectory."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from mrphys.errors import InputError, Problem
from mrphys.units import check_count


def lines(
    rows: Sequence[int] | Int[np.ndarray, " rows"],
    samples: int,
    matrix: tuple[int, int],
    *,
    to_and_fro: bool = False,
) -> Float[Array, "rows samples 2"]:
    """Rows of a grid of (x, y) voxels in the order they are taken, row i at k_y = i - n_y // 2.

    to_and_fro  every other line from right to left, as EPI; sample i of n then at -k of the same

    Raises InputError for rows beyond the matrix.
    """
    check_count("lines: samples", samples)
    row = np.asarray(rows)
    if row.ndim != 1 or not row.size or row.min() < 0 or row.max() >= matrix[1]:
        found = f"rows {row.tolist() if row.size < 8 else f'{row.min()} to {row.max()}'}"
        raise InputError(Problem("lines: rows", found, f"0 to {matrix[1] - 1}"))
    along = (np.arange(samples) - samples // 2) * (matrix[0] / samples)
    k = np.zeros((row.size, samples, 2))
    k[..., 0] = along
    if to_and_fro:
        k[1::2, :, 0] = along[::-1]
    k[..., 1] = (row - matrix[1] // 2)[:, None]
    return jnp.asarray(k)
