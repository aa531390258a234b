"""The workloads on which quantitative models are timed and their standard deviations scored.

t2        monoexponential, 32 echoes; t1 from inversion recovery (7 TI), saturation recovery (6),
          variable flip angles (4) with known B1, Look-Locker (30); t2* from 8 gradient echoes; adc
          from 4 b-values, beside `fit_adc`; tofts: 50 times, K_trans and v_p linear
ivim      16 b-values, `fit_ivim`, of a tenth of the voxels: f is scored
dti       60 directions at 1000 s/mm² and 5 without, `fit_tensor`: FA is scored
dki       30 directions at 1000 s/mm², 30 at 2000 and 5 without, `fit_kurtosis`, of a tenth of the
          voxels: the kurtosis tensor's mean is scored
b1        double angle of magnitudes
epg       T2 and B1 from 32 echoes of 150°, all states, B1 0.6 to 1: T2 is scored
epg180    the same of 180°, B1 0.6 to 1.0 bounded by 1: B1 and 2 - B1 give one signal, and at B1 = 1
          B1 moves the signal to second order only: B1 is determined the less the nearer, and T2 is
          scored with what that costs
"""

from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import mrphys as mr
from mrphys.apparent_diffusion import fit_adc
from mrphys.diffusion import DiffusionTensor
from mrphys.diffusion_kurtosis import fit_kurtosis
from mrphys.diffusion_tensor import fit_tensor
from mrphys.field_maps import double_angle
from mrphys.ivim import IvimSignal, IvimTissue, fit_ivim
from mrphys.mapping import CONVERGED, FunctionModel

RNG = np.random.default_rng(0)
FLIPS_RAD, TR_S = np.deg2rad([2, 4, 10, 18]), 0.012
TI_S = (0.05, 0.2, 0.5, 1.0, 1.6, 2.5, 4.0)


class MonoExponential(mr.sequence.Sequence):
    """S_i = m0 exp(-TE_i / T2)."""

    te_s: Float[Array, " readouts"]
    averages: Float[Array, " readouts"]

    def signal(self, tissue):
        x = tissue.m0 * jnp.exp(-self.te_s / tissue.t2_s)
        return jax.lax.complex(x, jnp.zeros_like(x))

    @property
    def scan_time_s(self):
        return jnp.max(self.te_s)


class Tofts(eqx.Module):
    """What extended Tofts needs of a voxel."""

    ktrans_per_s: Float[Array, "..."]
    vp: Float[Array, "..."]
    kep_per_s: Float[Array, "..."]


class Uptake(eqx.Module):
    """v_p c + K_trans c * exp(-k_ep t), c = t exp(-t / τ): the convolution in closed form."""

    time_s: Float[Array, " readouts"]
    decay_s: float = 40.0

    def __call__(self, q: Tofts) -> Float[Array, " readouts"]:
        t, rate = self.time_s, 1 / self.decay_s
        gap = q.kep_per_s - rate
        input = t * jnp.exp(-t * rate)
        kernel = (input - (jnp.exp(-t * rate) - jnp.exp(-q.kep_per_s * t)) / gap) / gap
        return (q.vp * input + q.ktrans_per_s * kernel) / self.decay_s


class Hindered(eqx.Module):
    """A tensor of one axis, and a kurtosis that is alike in all directions."""

    across_mm2_per_s: Float[Array, "..."]
    more_mm2_per_s: Float[Array, "..."]
    axis: Float[Array, "... 3"]
    mkt: Float[Array, "..."]


class Cumulants(eqx.Module):
    """log S = -b D(g) + b² MD² MKT / 6."""

    b_s_per_mm2: Float[Array, " readouts"]
    directions: Float[Array, "readouts 3"]

    def __call__(self, q: Hindered) -> Float[Array, " readouts"]:
        b, md = self.b_s_per_mm2, q.across_mm2_per_s + q.more_mm2_per_s / 3
        along = q.across_mm2_per_s + q.more_mm2_per_s * (self.directions @ q.axis) ** 2
        return jnp.exp(-b * along + (b * md) ** 2 * q.mkt / 6)


class Pair(mr.sequence.Sequence):
    """Images at a flip angle of 60° and at 120°, fully relaxed."""

    averages: Float[Array, " readouts"]

    def signal(self, tissue):
        return tissue.m0 * jnp.sin(tissue.b1 * jnp.array([1, 2]) * jnp.pi / 3) + 0j

    @property
    def scan_time_s(self):
        return jnp.zeros(())


class Case(NamedTuple):
    """A workload: model, truth, what is free, and what else `fit` is told."""

    theta: Any
    q: Any
    free: tuple[str, ...]
    options: dict[str, Any]
    truth: Any = None
    kinds: tuple[str, ...] = ("complex", "rician", "gaussian")


def measured(case: Case, kind: str, snr: float) -> tuple[Array, float]:
    """Data of every voxel with noise, and the sd of its real part."""
    if isinstance(case.theta, FunctionModel):
        x = eqx.filter_jit(type(case.theta).signals)(case.theta, case.q)
        sd = float(jnp.mean(jnp.max(jnp.abs(x), axis=-1))) / snr
        noise = RNG.standard_normal((2, *x.shape), np.float32)
        data = x + sd * noise[0]
        return data if kind == "real" else jnp.hypot(data, sd * noise[1]), sd
    x = mr.simulate(case.theta, case.q)
    sd = float(jnp.mean(jnp.max(jnp.abs(x), axis=-1))) / snr
    data = mr.noise.complex_gaussian(case.theta, x, sd, jax.random.key(0))
    return data if kind == "complex" else jnp.abs(data), sd


def estimated(case: Case, kind: str, data: Array, sd: float) -> tuple[Array, Array, Array]:
    """Values and sds of what is scored, and whether a voxel is determined."""
    if kind == "fit_adc":
        found = fit_adc(case.theta, data, sd)
        return found.adc_mm2_per_s, found.adc_sd_mm2_per_s, jnp.isfinite(found.adc_sd_mm2_per_s)
    if kind == "double_angle":
        found = double_angle(np.pi / 3, data[..., 0], data[..., 1], sd)
        return found.b1, found.b1_sd, found.status == CONVERGED
    if kind == "fit_tensor":
        found = fit_tensor(case.theta, data, sd)
    elif kind == "fit_kurtosis":
        found = fit_kurtosis(case.options["theta"], data, sd)
    elif kind == "fit_ivim":
        found = fit_ivim(mr.sequence.diffusion_weighted(case.options["b"], 0.06), data, sd)
    else:
        options: dict[str, Any] = case.options | ({"rician": False} if kind == "gaussian" else {})
        found = mr.fit(case.theta, data, case.free, sd, **options)
    field = case.free[0]
    spread = getattr(found.sd, field)
    good = jnp.isfinite(spread) & (found.status == CONVERGED)
    return getattr(found.value, field), spread, good


def cases(voxels: int) -> dict[str, Case]:
    few = voxels // 10
    t1, t2 = RNG.uniform(0.6, 2.0, voxels), RNG.uniform(0.03, 0.15, voxels)
    b1 = RNG.uniform(0.8, 1.2, voxels)
    q, s = mr.Tissue(t1_s=t1, t2_s=0.1), mr.sequence
    echoes = mr.Tissue(t1_s=1.0, t2_s=t2)
    trains = mr.Tissue(t1_s=1.0, t2_s=t2[:few], b1=RNG.uniform(0.6, 1.0, few))
    water = mr.Tissue(t1_s=1.0, t2_s=0.1, adc_mm2_per_s=RNG.uniform(0.5e-3, 2e-3, voxels))
    low, high = np.array([[0.001, 0.01, 2e-3], [0.005, 0.1, 1.2e-2]])
    tofts = Tofts(*jnp.asarray(RNG.uniform(low, high, (voxels, 3)).T, jnp.float32))
    uptake = FunctionModel(Uptake(jnp.arange(50) * 6.0), jnp.ones(50))
    linear = ("ktrans_per_s", "vp")
    kinetic = {
        "known": Tofts(*[jnp.zeros(())] * 3),
        "linear": linear,
        "bounds": {"kep_per_s": (5e-4, 0.02)},
    }
    t1_free, t2_free, both = ("t1_s", "m0"), ("t2_s", "m0"), ("t2_s", "b1", "m0")
    return {
        "t2": Case(MonoExponential(jnp.arange(1, 33) * 0.01, jnp.ones(32)), echoes, t2_free, {}),
        "t2*": Case(s.multi_echo_gradient_echo(np.arange(1, 9) * 0.01), echoes, t2_free, {}),
        "vfa": Case(
            s.spoiled_gradient_echo(FLIPS_RAD, 0.002, TR_S),
            replace(q, b1=b1),
            t1_free,
            {"known": mr.Tissue(t1_s=1.0, t2_s=0.1, b1=b1)},
        ),
        "ir": Case(s.inversion_recovery(TI_S, 6.0), q, t1_free, {}),
        "sr": Case(s.saturation_recovery([0.1, 0.3, 0.7, 1.5, 3, 5], 6.0), q, t1_free, {}),
        "look-locker": Case(s.look_locker(0.12, 0.1, 30), q, t1_free, {}),
        "adc": Case(
            s.diffusion_weighted([0, 300, 700, 1000], 0.06),
            water,
            ("adc_mm2_per_s", "m0"),
            {},
            kinds=("complex", "rician", "gaussian", "fit_adc"),
        ),
        "tofts": Case(uptake, tofts, ("kep_per_s", *linear), kinetic, kinds=("real",)),
        "epg": Case(
            s.spin_echo_train(np.full(32, np.deg2rad(150)), 0.01),
            trains,
            both,
            {"bounds": {"b1": (0.4, 1.15)}},
        ),
        "epg180": Case(
            s.spin_echo_train(np.full(32, np.pi), 0.01),
            trains,
            both,
            {"bounds": {"b1": (0.4, 1.0)}},
        ),
    }


def others(voxels: int) -> dict[str, Case]:
    """What is not `mr.fit` alone."""
    few = voxels // 10
    b = np.array([0, 0, 0, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 600, 800])
    low, high = np.array([[0.8, 0.7e-3, 0.1, 0.01], [1.2, 1.5e-3, 0.35, 0.08]])
    blood = IvimTissue(*jnp.asarray(RNG.uniform(low, high, (few, 4)).T, jnp.float32))
    g = RNG.normal(size=(65, 3))
    g /= np.linalg.norm(g, axis=1, keepdims=True)
    axis = RNG.normal(size=(voxels, 3))
    axis /= np.linalg.norm(axis, axis=1, keepdims=True)
    across = RNG.uniform(0.2e-3, 0.6e-3, voxels)
    more = RNG.uniform(0.4e-3, 1.2e-3, voxels)
    six = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    parts = [across * (i == j) + more * axis[:, i] * axis[:, j] for i, j in six]
    fibres = mr.Tissue(t1_s=1.0, t2_s=0.1, tensor=DiffusionTensor(*map(jnp.float32, parts)))
    weighted = mr.sequence.diffusion_weighted([0] * 5 + [1000] * 60, 0.06, directions=g)
    field = RNG.uniform(0.7, 1.3, voxels)
    shells = np.array([0] * 5 + [1000, 2000] * 30)
    hindered = Hindered(
        *(jnp.float32(v[:few]) for v in (across, more, axis)),
        jnp.asarray(RNG.uniform(0.6, 1.2, few), jnp.float32),
    )
    return {
        "dki": Case(
            FunctionModel(Cumulants(jnp.float32(shells), jnp.float32(g)), jnp.ones(65)),
            hindered,
            ("mkt",),
            {"theta": mr.sequence.diffusion_weighted(shells, 0.06, directions=g)},
            kinds=("fit_kurtosis",),
        ),
        "ivim": Case(
            FunctionModel(IvimSignal(jnp.asarray(b, jnp.float32)), jnp.ones(16)),
            blood,
            ("perfusion_fraction",),
            {"b": b},
            kinds=("fit_ivim",),
        ),
        "dti": Case(
            weighted,
            fibres,
            ("fa",),
            {},
            truth=more / np.sqrt((across + more) ** 2 + 2 * across**2),
            kinds=("fit_tensor",),
        ),
        "b1": Case(
            Pair(jnp.ones(2)),
            mr.Tissue(t1_s=1.0, t2_s=0.1, b1=field),
            ("b1",),
            {},
            kinds=("double_angle",),
        ),
    }
