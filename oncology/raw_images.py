"""Images of raw data: noise whitened, coils compressed and estimated, reconstructed, in space."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import jax
import numpy as np
from jaxtyping import Complex, Float

from mrphys.coils import compression, espirit, inati, mixed, walsh, whitening
from mrphys.errors import InputError, Problem
from mrphys.raw import RawData
from mrphys.reconstruction import CONVERGED, STOPPED, UNREACHED, reconstruct

MANY_COILS, KEPT = 12, 0.99
"""More coils than these are compressed to virtual ones that hold this part of the energy."""
CoilMethod = Literal["espirit", "walsh", "inati"]
ENDED = {
    CONVERGED: "converged",
    STOPPED: "stopped at the last iteration",
    UNREACHED: "no regularisation leaves as much as the noise",
}


@dataclass(frozen=True)
class RawImages:
    """x of raw data, (slices, *frames, *shown), frames of `raw.series` without slices, and how
    each slice's reconstruction ended."""

    raw: RawData
    x: Complex[np.ndarray, "..."]
    sd: Float[np.ndarray, "..."] | None
    noise_sd: float | None
    noise_from: str
    coils: int
    regularisation: tuple[float, ...]
    residual: tuple[float, ...]
    iterations: tuple[int, ...]
    status: tuple[str, ...]


def make_images(
    raw: RawData,
    method: str = "cg-sense",
    *,
    maps: Complex[np.ndarray, "coils ..."] | None = None,
    coil_method: CoilMethod = "espirit",
    virtual: int | None = None,
    regularisation: float | None = None,
    iterations: int | None = None,
    replicas: int = 0,
    seed: int = 0,
    progress: Callable[[str, int, int], None] = lambda what, done, of: None,
) -> RawImages:
    """Reconstruct every slice of raw data; frames of a slice together.

    maps      sensitivities (coils, *shape), or (slices, coils, *shape); estimated unless given
    virtual   coils to keep; of more than 12 as many as hold 99 % of the energy
    progress  called with what is done, and how many slices of how many

    Noise is that of its scan, after whitening; without one that of the edge of k-space. Raises
    InputError for sensitivities that do not fit, and as `RawData.calibration` and `reconstruct` do.
    """
    slices = raw.y.shape[raw.series.index("slice")] if "slice" in raw.series else 1
    sensitivities = _given(maps, raw, slices)
    sd, source = None, "not estimated"
    back = np.eye(raw.coils)
    if raw.noise is not None:
        whitener, sd = whitening(raw.noise, ratio=raw.noise_ratio)
        source = "the noise scan, prewhitened"
        raw = replace(raw.mixed(whitener), noise=None)
        sensitivities = _mixed(sensitivities, whitener)
        back = np.linalg.inv(np.asarray(whitener))
    elif regularisation is None and method != "adjoint":
        sd, source = raw.edge_noise_sd(), "the edge of k-space"
    keep = virtual or (KEPT if raw.coils > MANY_COILS else raw.coils)
    if keep != raw.coils:
        matrix = compression(np.moveaxis(raw.y, len(raw.series), 0), keep)
        raw, sensitivities = raw.mixed(matrix), _mixed(sensitivities, matrix)
        back = back @ np.conj(np.asarray(matrix)).T
    found, sds, ends = [], [], []
    for s in range(slices):
        one = raw.select(slice=s) if "slice" in raw.series else raw
        progress("coils", s, slices)
        if sensitivities is not None:
            c = sensitivities[s]
        else:
            c = _of_unit_power(estimated(one, coil_method), back)
        progress("images", s, slices)
        result = reconstruct(
            one.encoding(c), one.y, method, noise_sd=sd, regularisation=regularisation,
            iterations=iterations, replicas=replicas, key=jax.random.key(seed),
        )  # fmt: skip
        found.append(np.asarray(one.cropped(result.image)))
        if result.sd is not None:
            sds.append(np.asarray(one.cropped(result.sd)))
        ends.append(result)
        progress("images", s + 1, slices)
    return RawImages(
        raw, np.stack(found), np.stack(sds) if sds else None, sd, source, raw.coils,
        tuple(float(r.regularisation) for r in ends), tuple(float(r.residual) for r in ends),
        tuple(int(r.iterations) for r in ends), tuple(ENDED[int(r.status)] for r in ends),
    )  # fmt: skip


def estimated(raw: RawData, how: CoilMethod = "espirit") -> Complex[np.ndarray, "coils ..."]:
    """Sensitivities of one slice, from the middle of its k-space or from the images of that."""
    if raw.coils == 1:
        return np.ones((1, *raw.shape), raw.y.dtype)
    calibration = raw.calibration()
    if how == "espirit":
        return np.asarray(espirit(calibration, raw.shape))
    from mrphys.encoding import ifft

    whole = np.zeros((raw.coils, *raw.shape), raw.y.dtype)
    region = [slice(n // 2 - m // 2, n // 2 - m // 2 + m) for n, m in zip(
        raw.shape, calibration.shape[1:], strict=True)]  # fmt: skip
    window = np.ones(())
    for n in calibration.shape[1:]:
        window = np.multiply.outer(window, np.hanning(n + 2)[1:-1])
    whole[(slice(None), *region)] = calibration * window.astype(np.finfo(raw.y.dtype).dtype)
    images = ifft(jax.numpy.asarray(whole), len(raw.shape))
    return np.asarray({"walsh": walsh, "inati": inati}[how](images))


def _given(
    maps: Complex[np.ndarray, "..."] | None, raw: RawData, slices: int
) -> Complex[np.ndarray, "slices coils ..."] | None:
    if maps is None:
        return None
    one = (raw.coils, *raw.shape)
    if maps.shape == one:
        maps = np.broadcast_to(maps, (slices, *one))
    if maps.shape != (slices, *one) or not np.iscomplexobj(maps):
        found, expected = f"{maps.dtype} {maps.shape}", f"complex {one} or {(slices, *one)}"
        cause = "maps of the images shown, without oversampling, or of another scan"
        raise InputError(Problem("sensitivities", found, expected, cause))
    return maps


def _of_unit_power(c: Complex[np.ndarray, "..."], back: np.ndarray) -> np.ndarray:
    """Σ|c|² = 1 of the coils as they were received, by the matrix that leads back to them, so that
    an image's brightness does not depend on the noise."""
    power = np.linalg.norm(np.tensordot(back, c, axes=1), axis=0)
    return (c / np.where(power > 0, power, 1.0)).astype(c.dtype)


def _mixed(maps: Any, matrix: Any) -> Any:
    return None if maps is None else np.asarray(mixed(maps, matrix, axis=1))
