"""SciPy's side of benchmarks/mapping.py: `curve_fit` voxel by voxel, as OSIPI's contributions do.

Bounded where they bound, from the starts that they take; log-linear ones where the model has them;
amplitudes relative to each voxel's largest signal. The convolution of extended Tofts is a sum over
samples, or by the trapezoidal rule. One process.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from rival_fits import Given, Method, measure
from scipy.optimize import curve_fit

VOXELS = 400


def each(
    f: Callable[..., np.ndarray], at: np.ndarray, start: Any, bounds: Any, names: tuple[str, ...]
) -> Callable[[np.ndarray], Given]:
    """A fit of every row; `start` may be a function of the row."""

    def run(x: np.ndarray) -> Given:
        found = []
        for row in np.asarray(x, float):
            first = start(row) if callable(start) else start
            try:
                found.append(curve_fit(f, at, row, p0=first, bounds=bounds)[0])
            except RuntimeError:
                found.append(np.full(len(names), np.nan))
        return dict(zip(names, np.asarray(found).T, strict=True))

    return run


def spoiled(flip: np.ndarray, tr_s: float, x: np.ndarray, b1: np.ndarray) -> Given:
    """T1 of angles that differ from voxel to voxel, from DESPOT1's straight line."""
    found = []
    for row, scale in zip(np.asarray(x, float), b1, strict=True):
        angle = scale * flip

        def signal(angle, m0, t1):
            e = np.exp(-tr_s / t1)
            return m0 * np.sin(angle) * (1 - e) / (1 - np.cos(angle) * e)

        slope, cut = np.polyfit(row / np.tan(angle), row / np.sin(angle), 1)
        slope = np.clip(slope, 1e-3, 1 - 1e-4)
        first = max(cut / (1 - slope), 1e-3), np.clip(-tr_s / np.log(slope), 0.02, 10.0)
        limits = (0.0, 0.01), (np.inf, 20.0)
        found.append(curve_fit(signal, angle, row, p0=first, bounds=limits)[0][1])
    return {"t1_s": np.asarray(found)}


def convolved(c: np.ndarray, rate: float, step_s: float, trapezoid: bool) -> np.ndarray:
    kernel = np.exp(-rate * step_s * np.arange(c.size))
    total = np.convolve(c, kernel)[: c.size]
    return step_s * (total - (c + c[0] * kernel) / 2 if trapezoid else total)


def kinetic(name: str, given: Given) -> list[Method]:
    t, c = given["time_s"], given["plasma"]
    step = float(t[1] - t[0])
    names, first, high = ("ktrans_per_s", "ve"), [0.01, 0.2], [0.1, 1.0]
    if name == "dce extended":
        names, first, high = (*names, "vp"), [*first, 0.01], [*high, 1.0]

    def method(who: str, trapezoid: bool) -> Method:
        def f(t, ktrans, ve, vp=0.0):
            return vp * c + ktrans * convolved(c, ktrans / ve, step, trapezoid)

        return Method(who, VOXELS, each(f, t, first, (1e-8, high), names))

    return [method("scipy", False), method("scipy trapezoid", True)]


def decay(given: Given) -> Method:
    te = given["te_s"]

    def start(row):
        few = row > 0.2 * row.max()
        slope, cut = np.polyfit(te[few], np.log(row[few]), 1)
        return np.exp(cut), np.clip(-1 / min(slope, -1e-2), 2e-3, 5.0)

    def signal(te, m0, t2):
        return m0 * np.exp(-te / t2)

    limits = (0.0, 1e-3), (np.inf, 20.0)
    return Method("scipy", VOXELS, each(signal, te, start, limits, ("m0", "t2_s")))


def diffusion(given: Given) -> Method:
    b = given["b_s_per_mm2"]

    def start(row):
        slope, cut = np.polyfit(b, np.log(row), 1)
        return np.exp(cut), np.clip(-1e3 * slope, 1e-3, 9.0)

    def signal(b, m0, d):
        return m0 * np.exp(-1e-3 * b * d)

    limits = (0.0, 0.0), (np.inf, 10.0)
    fit = each(signal, b, start, limits, ("m0", "d"))
    return Method("scipy", VOXELS, lambda x: {"adc_mm2_per_s": 1e-3 * fit(x)["d"]})


def incoherent(given: Given) -> Method:
    b = given["b_s_per_mm2"]

    def signal(b, s0, f, fast, slow):
        return s0 * (f * np.exp(-b * fast) + (1 - f) * np.exp(-b * slow))

    limits = (0.7, 0.0, 0.005, 0.0), (1.3, 1.0, 0.2, 0.005)
    names = "s0", "perfusion_fraction", "fast", "slow"
    fit = each(signal, b, (1.0, 0.1, 0.03, 0.001), limits, names)
    return Method("scipy", VOXELS, lambda x: fit(x / x[:, b == 0].mean(1)[:, None]))


def workload(name: str, given: Given) -> list[Method]:
    if name == "vfa":
        flips, tr = given["flip_rad"], float(given["tr_s"])
        return [Method("scipy", VOXELS, lambda x, b1: spoiled(flips, tr, x, b1), ("b1",))]
    if name.startswith("dce"):
        return kinetic(name, given)
    return [{"t2": decay, "adc": diffusion, "ivim": incoherent}[name](given)]


measure(workload)
