"""How alike two images of one patient are before any registration: shift and resolution."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from numpy import fft

from mrphys.volume import Volume

CORRELATION_BANDWIDTH = 0.15
SMALLEST_SPECTRUM = 64


@dataclass(frozen=True)
class Resolution:
    """What an image resolves along one axis.

    `bandwidth` [cycles per voxel] holds 99.9 % of its spectral power. `trace` is the height of
    the highest line in the spectrum of its mean absolute second difference, over the median, at
    `trace_frequency`: noise gives 3, an image interpolated from another matrix tens.
    """

    bandwidth: float
    trace: float
    trace_frequency: float


def shift_mm(first: Volume, second: Volume) -> tuple[Float[np.ndarray, "3"], float]:
    """How far the second image lies from the first on the same grid, by phase correlation.

    The inverse transform of F₂ conj(F₁) / |F₂ F₁|, smoothed by a Gaussian of sd 0.15 cycles per
    voxel, peaks at the shift; a parabola through the peak gives fractions of a voxel. Returns the
    shift along each array axis [mm] and the peak over the correlation's standard deviation: below
    about 11 for unrelated images. Valid for shifts of up to a quarter of the field of view;
    rotation lowers the peak.

    Source: Kuglin and Hines 1975, Proc. IEEE Int. Conf. Cybernetics and Society, 163-165.
    """
    spectra = [fft.rfftn(_windowed(image)) for image in (first, second)]
    cross = spectra[1] * spectra[0].conj()
    size = np.abs(cross)
    cross /= np.maximum(size, max(1e-6 * size.max(), np.finfo(size.dtype).tiny))
    frequencies = [fft.fftfreq(n) for n in first.shape[:2]] + [fft.rfftfreq(first.shape[2])]
    squared = sum(f**2 for f in np.ix_(*frequencies))
    smooth = np.exp(-squared / (2 * CORRELATION_BANDWIDTH**2))
    correlation = fft.irfftn(cross * smooth, first.shape, axes=(0, 1, 2))
    peak = np.unravel_index(correlation.argmax(), first.shape)
    shift = [_peak_near(correlation, peak, axis) for axis in range(3)]
    return np.array(shift) * first.spacing_mm, float(
        correlation[peak] / max(correlation.std(), 1e-30)
    )


def _windowed(image: Volume) -> np.ndarray:
    """The image without its mean, fading to zero at the edges of every axis but single voxels."""
    data = np.nan_to_num(np.asarray(image.data, np.float32))
    windows = [np.hanning(n + 2)[1:-1] if n > 1 else np.ones(1) for n in image.shape]
    return (data - data.mean()) * np.prod(np.broadcast_arrays(*np.ix_(*windows)), axis=0)


def _peak_near(correlation: np.ndarray, peak: tuple, axis: int) -> float:
    """Where along an axis the parabola through a maximum and its neighbours peaks, in voxels."""
    size = correlation.shape[axis]
    if size < 3:
        return 0.0
    line = np.moveaxis(correlation, axis, 0)[
        (slice(None), *(p for other, p in enumerate(peak) if other != axis))
    ]
    below, top, above = line[(peak[axis] + np.arange(-1, 2)) % size]
    bend = below - 2 * top + above
    place = peak[axis] + (0.5 * (below - above) / bend if bend else 0.0)
    return float(place - size if place > size / 2 else place)


def resolution(image: Volume) -> dict[int, Resolution]:
    """What the image resolves along each array axis of at least 64 voxels.

    Spectra are means over all lines through the body, Hann-windowed. Interpolation from a matrix
    of other size makes the second difference of the image vary periodically: Gallagher 2005,
    "Detection of linear and cubic interpolation in JPEG compressed images", doi
    10.1109/CRV.2005.33. Here frequencies above 0.1 cycles per voxel are searched: below it anatomy
    has lines of its own.
    """
    data = np.nan_to_num(np.asarray(image.data, np.float32))
    return {
        axis: _resolution(np.moveaxis(data, axis, 0).reshape(size, -1))
        for axis, size in enumerate(image.shape)
        if size >= SMALLEST_SPECTRUM and np.ptp(data) > 0
    }


def _resolution(lines: np.ndarray) -> Resolution:
    """Lines of an image, (voxels, lines)."""
    brightness = np.abs(lines).max(axis=0)
    lines = lines[:, brightness > 0.05 * brightness.max()]
    window = np.hanning(len(lines))
    power = np.abs(fft.rfft((lines - lines.mean(axis=0)) * window[:, None], axis=0)) ** 2
    share = np.cumsum(power.mean(axis=1)) / power.mean(axis=1).sum()
    bandwidth = np.searchsorted(share, 0.999) / len(lines)
    bend = np.abs(np.diff(lines, n=2, axis=0)).mean(axis=1)
    spectrum = np.abs(fft.rfft((bend - bend.mean()) * window[1:-1]))
    frequency = fft.rfftfreq(len(bend))
    spectrum, frequency = spectrum[frequency > 0.1], frequency[frequency > 0.1]
    trace = spectrum.max() / max(np.median(spectrum), np.finfo(float).tiny)
    return Resolution(float(bandwidth), float(trace), float(frequency[spectrum.argmax()]))
