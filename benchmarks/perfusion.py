"""Kinetic models fitted: voxels a second, bias, precision and calibration, beside SciPy.

    python benchmarks/perfusion.py               # the table; --snr 50, --step-s 2.5, --voxels 20000

Truth is simulated from a Parker input at 0.1 s and seen every --step-s for 330 s, input and tissue
alike; noise has the sd of the mean peak over the SNR. Warm, float32, one CPU device a core, the
fastest of three rounds.

bias      mean of (estimate - truth) over the mean truth, each parameter
sd        of (estimate - truth), relative to the mean truth
z         sd of (estimate - truth) / sd;  excluded: voxels without a finite sd

scipy     `curve_fit` voxel by voxel, bounded, the convolution a sum over samples as OSIPI's
          contributions write it, in one process
trapezoid the same, the sum by the trapezoidal rule
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from scipy.optimize import curve_fit

from mrphys import perfusion, use_cores
from mrphys.mapping import CONVERGED
from mrphys.perfusion import (
    ExtendedTofts,
    Kinetics,
    Patlak,
    Tofts,
    TwoCompartmentExchange,
    TwoCompartmentUptake,
    fit_kinetics,
)

use_cores()
RNG = np.random.default_rng(0)
RIVAL_VOXELS = 400


def tissues(voxels: int) -> dict[str, Kinetics]:
    def some(low: float, high: float) -> np.ndarray:
        return RNG.uniform(low, high, voxels).astype(np.float32)

    return {
        "tofts": Tofts(some(0.05, 0.3) / 60, some(0.1, 0.4)),
        "extended tofts": ExtendedTofts(some(0.05, 0.3) / 60, some(0.1, 0.4), some(0.01, 0.08)),
        "patlak": Patlak(some(0.005, 0.1) / 60, some(0.02, 0.1)),
        "uptake": TwoCompartmentUptake(some(20, 80) / 6000, some(0.02, 0.1) / 60, some(0.05, 0.15)),
        "exchange": TwoCompartmentExchange(
            some(20, 60) / 6000, some(0.05, 0.2) / 60, some(0.1, 0.3), some(0.05, 0.15)
        ),
    }


def convolved(c: np.ndarray, rate: float, step_s: float, trapezoid: bool) -> np.ndarray:
    kernel = np.exp(-rate * step_s * np.arange(c.size))
    total = np.convolve(c, kernel)[: c.size]
    return step_s * (total - (c + c[0] * kernel) / 2 if trapezoid else total)


def rival(model: type[Kinetics], c: np.ndarray, step_s: float, trapezoid: bool) -> Any:
    """f(t, *parameters), its start and its upper bounds; None where there is no rival."""
    if model is ExtendedTofts:

        def extended(t, ktrans, ve, vp):
            return vp * c + ktrans * convolved(c, ktrans / ve, step_s, trapezoid)

        return extended, (0.01, 0.2, 0.01), (0.1, 1.0, 1.0)
    if model is Tofts:
        return (
            lambda t, ktrans, ve: ktrans * convolved(c, ktrans / ve, step_s, trapezoid),
            (0.01, 0.2),
            (0.1, 1.0),
        )
    return None


def line(name: str, who: str, rate: float, model: Kinetics, value, sd, good) -> str:
    fields = [field for field, truth in vars(model).items() if truth is not None]
    text = f"{name:16s}{who:11s}{rate:12,.0f}{1e2 * (1 - good.mean()):9.2f} %"
    for field in fields:
        truth = np.asarray(getattr(model, field))[: good.size]
        error = np.asarray(value[field], float)[good] - truth[good]
        scale = 1e2 / truth.mean()
        z = f"{(error / np.asarray(sd[field])[good]).std():.3f}" if sd else ""
        text += f"   {field:12s}{scale * error.mean():7.2f}{scale * error.std():7.2f}{z:>7s}"
    return text


def fastest_s(run: Callable[[], Any]) -> tuple[float, Any]:
    found, seconds = jax.block_until_ready(run()), []
    for _ in range(3):
        started = time.perf_counter()
        jax.block_until_ready(run())
        seconds.append(time.perf_counter() - started)
    return min(seconds), found


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--snr", type=float, default=20.0)
    parser.add_argument("--step-s", type=float, default=1.0)
    parser.add_argument("--voxels", type=int, default=100_000)
    asked = parser.parse_args()
    fine_s, times_s = np.arange(0, 330.05, 0.1), np.arange(0, 330.0, asked.step_s)
    artery = perfusion.arterial_input(fine_s, perfusion.parker_2006(fine_s, 30.0))
    seen = perfusion.ArterialInput(times_s, artery.at(jnp.asarray(times_s)))
    truth, series = (perfusion.dynamic_series(times_s, a) for a in (artery, seen))
    print(f"SNR {asked.snr:g}, {times_s.size} images, {jax.local_device_count()} devices")
    print(f"{'model':27s}{'voxels/s':>12s}{'excluded':>11s}   parameter: bias %, sd %, z")
    for name, q in tissues(asked.voxels).items():
        x = perfusion.concentration(truth, q)
        sd = float(jnp.mean(jnp.max(x, axis=-1))) / asked.snr
        data = x + sd * RNG.standard_normal(x.shape, np.float32)
        seconds, est = fastest_s(
            lambda data=data, q=q, sd=sd: fit_kinetics(series, data, type(q), sd)
        )
        finite = jnp.stack([jnp.isfinite(leaf) for leaf in jax.tree.leaves(est.sd)]).all(axis=0)
        good = np.asarray(finite & (est.status == CONVERGED))
        print(line(name, "mrphys", asked.voxels / seconds, q, vars(est.value), vars(est.sd), good))
        few = np.asarray(data[:RIVAL_VOXELS], float)
        for who in ("scipy", "trapezoid"):
            c = np.asarray(seen.plasma_mmol_per_l, float)
            chosen = rival(type(q), c, asked.step_s, who == "trapezoid")
            if chosen is None:
                continue
            f, start, high = chosen
            started = time.perf_counter()
            found = [curve_fit(f, times_s, y, p0=start, bounds=(1e-8, high))[0] for y in few]
            rate = len(few) / (time.perf_counter() - started)
            fields = [field for field, value in vars(q).items() if value is not None]
            value = dict(zip(fields, np.asarray(found).T, strict=True))
            print(line(name, who, rate, q, value, None, np.ones(len(few), bool)))


if __name__ == "__main__":
    main()
