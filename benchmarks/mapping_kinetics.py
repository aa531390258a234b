"""Tracer kinetics for benchmarks/mapping.py, by `fit_kinetics`.

Truth is simulated from a Parker input at 0.1 s and seen every second for 330 s, input and tissue
alike; noise has the sd of the mean peak over an SNR of 20 at most.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mrphys import perfusion
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

RNG = np.random.default_rng(0)
STEP_S, LAST_S, MOST_SNR = 1.0, 330.0, 20.0


class Kinetic(NamedTuple):
    """A model's true parameters, the series they are simulated in and the one that is fitted."""

    q: Kinetics
    fine: Any
    seen: Any

    @property
    def truth(self) -> dict[str, np.ndarray]:
        """Every parameter."""
        return {k: np.asarray(v) for k, v in vars(self.q).items() if v is not None}

    def measured(self, snr: float) -> tuple[Array, float]:
        """Concentrations with noise, and its sd."""
        x = perfusion.concentration(self.fine, self.q)
        sd = float(jnp.mean(jnp.max(x, axis=-1))) / min(snr, MOST_SNR)
        return x + sd * RNG.standard_normal(x.shape, np.float32), sd

    def estimated(self, data: Array, sd: float) -> dict[str, tuple[Array, Array, Array]]:
        """Of every parameter the values and sds, and which voxels are determined."""
        found = fit_kinetics(self.seen, data, type(self.q), sd)
        finite = jnp.stack([jnp.isfinite(leaf) for leaf in jax.tree.leaves(found.sd)])
        good = finite.all(axis=0) & (found.status == CONVERGED)
        value, spread = vars(found.value), vars(found.sd)
        return {name: (value[name], spread[name], good) for name in self.truth}


def kinetics(voxels: int) -> dict[str, Kinetic]:
    """Workloads by name, of half as many voxels."""
    few = voxels // 2

    def some(low: float, high: float) -> np.ndarray:
        return RNG.uniform(low, high, few).astype(np.float32)

    fine, times = np.arange(0, LAST_S + 0.05, 0.1), np.arange(0, LAST_S, STEP_S)
    artery = perfusion.arterial_input(fine, perfusion.parker_2006(fine, 30.0))
    seen = perfusion.ArterialInput(times, artery.at(jnp.asarray(times)))
    series = [perfusion.dynamic_series(times, a) for a in (artery, seen)]
    models = {
        "tofts": Tofts(some(0.05, 0.3) / 60, some(0.1, 0.4)),
        "extended tofts": ExtendedTofts(some(0.05, 0.3) / 60, some(0.1, 0.4), some(0.01, 0.08)),
        "patlak": Patlak(some(0.005, 0.1) / 60, some(0.02, 0.1)),
        "uptake": TwoCompartmentUptake(some(20, 80) / 6000, some(0.02, 0.1) / 60, some(0.05, 0.15)),
        "exchange": TwoCompartmentExchange(
            some(20, 60) / 6000, some(0.05, 0.2) / 60, some(0.1, 0.3), some(0.05, 0.15)
        ),
    }
    return {name: Kinetic(q, *series) for name, q in models.items()}
