# pyright: reportMissingImports=false
"""PyWavelets' periodic transform, level by level, averages first. What it calls the origin of a
filter of M taps lies M/2 - 1 before its end: images are rolled there and back."""

import sys
from pathlib import Path

import numpy as np
import pywt

folder = Path(sys.argv[1])
with np.load(folder / "given.npz") as arrays:
    given = dict(arrays)
name, x = str(given["name"]), given["x"]
taps = pywt.Wavelet(name).dec_len
axes = tuple(range(x.ndim))


def packed(x, levels):
    rolled = np.roll(x, (1 - taps // 2,) * x.ndim, axes)
    bands = pywt.dwtn(rolled, name, mode="periodization")
    c = np.empty_like(x)
    for band, values in bands.items():
        corner = tuple(
            slice(0, n // 2) if part == "a" else slice(n // 2, n)
            for part, n in zip(band, x.shape, strict=True)
        )
        c[corner] = packed(values, levels - 1) if set(band) == {"a"} and levels > 1 else values
    return c


np.savez(folder / "found.npz", c=packed(x, int(given["levels"])))
