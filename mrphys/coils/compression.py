"""Few virtual coils in place of many."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Inexact

from mrphys.errors import InputError, Problem
from mrphys.units import check_finite


def compression(
    y: Inexact[Array | np.ndarray, "coils ..."], keep: int | float = 0.99
) -> Complex[Array, "virtual coils"]:
    """The rows that hold most of the signal: principal components of the coils.

    keep  a number of virtual coils, or the least part of the energy to keep, below 1

    Rows are orthonormal, so that white noise stays white with its sd: whiten first. Raises
    InputError for more coils than there are, a part that is not in (0, 1), samples that are not
    finite, and for none but zeros.

    Source: Buehrer et al. 2007, doi:10.1002/mrm.21237; Huang et al. 2008,
    doi:10.1016/j.mri.2007.04.010.
    """
    flat = np.asarray(y).reshape(np.shape(y)[0], -1)
    coils, whole = flat.shape[0], isinstance(keep, int | np.integer)
    if (whole and not 1 <= keep <= coils) or (not whole and not 0 < keep < 1):
        expected = f"1 to {coils} coils, or a part of the energy between 0 and 1"
        raise InputError(Problem("compression: keep", f"{keep}", expected))
    check_finite("compression: data", flat)
    values, vectors = np.linalg.eigh(flat @ flat.conj().T)
    values, vectors = np.maximum(values[::-1], 0), vectors[:, ::-1]
    if values[0] == 0:
        raise InputError(Problem("compression: data", "zeros", "signal"))
    held = np.cumsum(values) / values.sum()
    count = int(keep) if whole else int(np.searchsorted(held, keep) + 1)
    return jnp.asarray(vectors[:, :count].conj().T)
