"""Precession and decay while samples are taken, by segments in time."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem

MOST = 64
BINS, DECAYS = 4 * MOST, 9
"""Rates between which errors are looked for."""


class Segments(NamedTuple):
    """b, (segments, *samples), and w, (segments, *shape)."""

    over_time: Complex[Array, "segments ..."]
    over_voxels: Complex[Array, "segments ..."]


def segments(
    b0_hz: Float[Array, "..."],
    time_s: Float[np.ndarray, "..."],
    r2star_per_s: Float[Array, "..."] | None,
    span: tuple[float, float] | None,
    tolerance: float,
) -> Segments:
    """exp(-ρ t) ≈ Σ_l b_l(t) exp(-ρ τ_l), ρ = R2* + 2πi b0, τ_l evenly over the times.

    b by least squares over rates ρ within their span, with as few segments as keep the largest
    error there below the tolerance. Raises InputError where more than 64 are needed, or where the
    span is not known.

    Sutton, Noll, Fessler 2003, doi:10.1109/TMI.2002.808360; Man, Pauly, Macovski 1997,
    doi:10.1002/mrm.1910370523.
    """
    if span is None:
        if isinstance(b0_hz, Tracer):
            expected = "the lowest and highest b0 that may come"
            raise InputError(Problem("off_resonance: span", "none, of a traced map", expected))
        span = float(jnp.min(b0_hz)), float(jnp.max(b0_hz))
    decays = np.zeros(1)
    if r2star_per_s is not None:
        if isinstance(r2star_per_s, Tracer):
            raise InputError(Problem("off_resonance: r2star_per_s", "a traced map", "numbers"))
        decays = np.linspace(float(jnp.min(r2star_per_s)), float(jnp.max(r2star_per_s)), DECAYS)
    hz = np.linspace(*span, BINS)
    rates = (decays[:, None] + 2j * np.pi * hz[None]).ravel()
    times, place = np.unique(time_s, return_inverse=True)
    exact = np.exp(-rates[:, None] * times[None])
    turns = (span[1] - span[0]) * np.ptp(times)
    for count in range(1, MOST + 1 if turns < MOST else 1):
        centres = np.linspace(times[0], times[-1], count) if count > 1 else times[[times.size // 2]]
        basis = np.exp(-rates[:, None] * centres[None])
        b = np.linalg.lstsq(basis, exact, rcond=1e-12)[0]
        if np.max(np.abs(basis @ b - exact)) <= tolerance:
            break
    else:
        found = f"b0 from {span[0]:.0f} to {span[1]:.0f} Hz over {np.ptp(times):.3g} s"
        expected = f"at most {MOST} segments of error {tolerance:g}"
        raise InputError(Problem("off_resonance", found, expected, "b0 in rad/s, or times in ms"))
    dtype = jnp.result_type(b0_hz.dtype, jnp.complex64)
    over_time = b[:, place.reshape(time_s.shape)]
    tau = jnp.asarray(centres, b0_hz.dtype).reshape(-1, *[1] * b0_hz.ndim)
    w = jnp.exp(jax.lax.complex(jnp.zeros(()), -2 * jnp.pi * tau * b0_hz[None]).astype(dtype))
    if r2star_per_s is not None:
        w = w * jnp.exp(-tau * r2star_per_s[None])
    return Segments(jnp.asarray(over_time, dtype), w)
