"""Workloads of contrast agents, for `mapping_models.MODELS`."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from workload_models import FITS, Case, drawn

from mrphys import perfusion
from mrphys.mapping import FunctionModel

PER_MIN, FLOW = 60.0, 6000.0


class TwoRates(eqx.Module):
    """What extended Tofts needs of a voxel."""

    ktrans_per_s: Float[Array, "..."]
    vp: Float[Array, "..."]
    kep_per_s: Float[Array, "..."]


class Uptake(eqx.Module):
    """v_p c + K_trans c * exp(-k_ep t), c = t exp(-t / τ): the convolution in closed form."""

    time_s: Float[Array, " readouts"]
    decay_s: float = 40.0

    def __call__(self, q: TwoRates) -> Float[Array, " readouts"]:
        t, rate = self.time_s, 1 / self.decay_s
        gap = q.kep_per_s - rate
        input = t * jnp.exp(-t * rate)
        kernel = (input - (jnp.exp(-t * rate) - jnp.exp(-q.kep_per_s * t)) / gap) / gap
        return (q.vp * input + q.ktrans_per_s * kernel) / self.decay_s


def tofts(voxels: int) -> Case:
    """Extended Tofts by `mr.fit`, 50 times, K_trans and v_p linear."""
    ranges = {"ktrans_per_s": (0.001, 0.005), "vp": (0.01, 0.1), "kep_per_s": (2e-3, 1.2e-2)}
    q = TwoRates(*(jnp.asarray(v, jnp.float32) for v in drawn(voxels, **ranges).values()))
    options = {
        "known": TwoRates(*[jnp.zeros(())] * 3),
        "linear": ("ktrans_per_s", "vp"),
        "bounds": {"kep_per_s": (5e-4, 0.02)},
    }
    theta = FunctionModel(Uptake(jnp.arange(50) * 6.0), jnp.ones(50))
    return Case(theta, q, ("kep_per_s", "ktrans_per_s", "vp"), ("real",), options)


def kinetic(model: type[perfusion.Kinetics], **ranges: tuple[float, float]) -> Any:
    """A kinetic model of tumours, by `fit_kinetics`: a Parker input at 0.1 s, seen every second for
    330 s."""

    def case(voxels: int) -> Case:
        fine_s, times_s = np.arange(0, 330.05, 0.1), np.arange(0, 330.0, 1.0)
        artery = perfusion.arterial_input(fine_s, perfusion.parker_2006(fine_s, 30.0))
        seen = perfusion.ArterialInput(times_s, artery.at(jnp.asarray(times_s)))
        truth, series = (perfusion.dynamic_series(times_s, a) for a in (artery, seen))
        few = drawn(voxels, **ranges)
        q = model(**{name: jnp.asarray(v, jnp.float32) for name, v in few.items()})
        return Case(truth, q, tuple(ranges), ("fit_kinetics",), {"theta": series})

    return case


class Leaking(eqx.Module):
    """A series of curves of which an agent outside the vessels takes k2 of the mean's integral."""

    series: perfusion.DynamicSeries
    mean: Float[Array, " readouts"]

    @property
    def averages(self) -> Float[Array, " readouts"]:
        """One of each image."""
        return self.series.averages

    def signals(self, rows: Any, /) -> Float[Array, "voxels readouts"]:
        """Of a row of voxels."""
        whole = jnp.concatenate([jnp.zeros(1), jnp.cumsum((self.mean[1:] + self.mean[:-1]) / 2)])
        inside = self.series.signals(perfusion.Tofts(rows.flow_per_s, rows.volume))
        return inside - rows.k2_per_s[:, None] * whole[None]


class Vessels(eqx.Module):
    """What `Leaking` asks of a voxel."""

    flow_per_s: Float[Array, "..."]
    volume: Float[Array, "..."]
    k2_per_s: Float[Array, "..."]


def dsc(voxels: int) -> Case:
    """First pass seen every second for 120 s, flow 20 to 80 ml/100ml/min, volume 2 to 6 %, leakage
    corrected; images of equal noise, the SNR the peak's. Scored about what is told without noise:
    regularisation takes a part of the flow."""
    times_s = np.arange(0.0, 120.0, 1.0)
    bolus = 6 * np.exp(-0.5 * ((times_s - 25) / 3) ** 2)
    series = perfusion.dynamic_series(times_s, perfusion.arterial_input(times_s, bolus, 0.0))
    ranges = {
        "flow": (20 / FLOW, 80 / FLOW),
        "volume": (0.02, 0.06),
        "k2": (-0.002, 0.005),
    }
    q = Vessels(*(jnp.asarray(v, jnp.float32) for v in drawn(voxels, **ranges).values()))
    mean = series.signals(perfusion.Tofts(50 / FLOW, 0.04))[0]
    theta = Leaking(series, mean)
    options = {"times_s": times_s, "arterial": bolus, "reference": mean}
    case = Case(theta, q, ("cbv", "cbf_per_s", "mtt_s"), ("csvd",), options)
    still = FITS["csvd"](case, eqx.filter_jit(Leaking.signals)(theta, q), 1.0).value
    return case._replace(truth={name: getattr(still, name) for name in case.scored})


KINETICS: dict[str, Callable[[int], Case]] = {
    "tofts": tofts,
    "dsc": dsc,
    "dce tofts": kinetic(
        perfusion.Tofts, ktrans_per_s=(0.05 / PER_MIN, 0.3 / PER_MIN), ve=(0.1, 0.4)
    ),
    "dce extended": kinetic(
        perfusion.ExtendedTofts,
        ktrans_per_s=(0.05 / PER_MIN, 0.3 / PER_MIN),
        ve=(0.1, 0.4),
        vp=(0.01, 0.08),
    ),
    "dce patlak": kinetic(
        perfusion.Patlak, ps_per_s=(0.005 / PER_MIN, 0.1 / PER_MIN), vp=(0.02, 0.1)
    ),
    "dce uptake": kinetic(
        perfusion.TwoCompartmentUptake,
        fp_per_s=(20 / FLOW, 80 / FLOW),
        ps_per_s=(0.02 / PER_MIN, 0.1 / PER_MIN),
        vp=(0.05, 0.15),
    ),
    "dce exchange": kinetic(
        perfusion.TwoCompartmentExchange,
        fp_per_s=(20 / FLOW, 60 / FLOW),
        ps_per_s=(0.05 / PER_MIN, 0.2 / PER_MIN),
        ve=(0.1, 0.3),
        vp=(0.05, 0.15),
    ),
}
