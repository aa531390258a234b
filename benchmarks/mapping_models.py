"""The workloads on which quantitative models are timed and their standard deviations scored.

`MODELS` makes a Case of each for a number of voxels: the truth, what is measured of it, how it is
fitted, and what is scored. Tissues are drawn evenly from ranges of brain and body at 1.5 to 3 T
(Stanisz et al. 2005, doi:10.1002/mrm.20605) unless stated; protocols are what scanners play.
"""

from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

import mrphys as mr
from mrphys import perfusion
from mrphys.apparent_diffusion import fit_adc
from mrphys.diffusion import DiffusionTensor
from mrphys.diffusion_kurtosis import fit_kurtosis
from mrphys.diffusion_tensor import ISOTROPIC, fit_tensor
from mrphys.field_maps import actual_flip, bloch_siegert, double_angle, static_field
from mrphys.ivim import IvimSignal, IvimTissue, fit_ivim
from mrphys.mapping import CONVERGED, FunctionModel, Selected
from mrphys.sequence.repeated import repeated
from mrphys.sequence.train import block
from mrphys.t2_spectrum import fit_t2_spectrum

WATER: dict[str, Any] = {"t1_s": 1.0, "t2_s": 0.1}
FLIPS_RAD, TR_S = np.deg2rad([2, 4, 10, 18]), 0.012
TI_S = (0.05, 0.2, 0.5, 1.0, 1.6, 2.5, 4.0)


class Case(NamedTuple):
    """A workload.

    theta, q  what is played, and the truth of every voxel
    scored    fields of q, or of `truth`, that are scored; the first in the table of speeds
    kinds     data and fit: one of FITS
    options   of the fit
    truth     what is scored and no field of q
    """

    theta: Any
    q: Any
    scored: tuple[str, ...]
    kinds: tuple[str, ...] = ("complex", "rician")
    options: Any = MappingProxyType({})
    truth: Any = MappingProxyType({})

    def true(self, name: str) -> np.ndarray:
        """The truth of a field that is scored."""
        return np.asarray(self.truth[name] if name in self.truth else getattr(self.q, name))


def measured(case: Case, kind: str, snr: float, seed: int = 0) -> tuple[Array, float]:
    """Data of every voxel with noise, and the sd of the real part of one average: the mean over
    voxels of the largest readout, over the SNR."""
    if isinstance(case.theta, mr.sequence.Sequence):
        x = mr.simulate(case.theta, case.q)
    else:
        x = eqx.filter_jit(type(case.theta).signals)(case.theta, case.q)
    sd = float(jnp.mean(jnp.max(jnp.abs(x), axis=-1))) / snr
    noise = np.random.default_rng(seed).standard_normal((2, *x.shape), np.float32)
    noise *= sd / np.sqrt(np.asarray(case.theta.averages, np.float32))
    if kind in REAL:
        return x + noise[0], sd
    data = x + (noise[0] + 1j * noise[1])
    return data if kind in COMPLEX else jnp.abs(data), sd


class Told(NamedTuple):
    """Values and sds by what is scored, and whether a voxel is determined."""

    values: dict[str, np.ndarray]
    sds: dict[str, np.ndarray]
    good: np.ndarray


def estimated(case: Case, kind: str, data: Array, sd: float) -> Told:
    """What the fit of a kind tells. A voxel is left out where it does not say CONVERGED (ISOTROPIC
    is for FA alone), or where an sd is infinite."""
    found = FITS[kind](case, data, sd)
    values = {name: np.asarray(getattr(found.value, name)) for name in case.scored}
    sds = {name: np.asarray(getattr(found.sd, name)) for name in case.scored}
    good = np.asarray(found.status == CONVERGED)
    if "fa" not in case.scored:
        good = good | np.asarray(found.status == ISOTROPIC)
    for spread in sds.values():
        good = good & np.isfinite(spread)
    return Told(values, sds, good)


def by_fit(case: Case, data: Array, sd: float, **more: Any) -> Any:
    """`mr.fit` of what the case says is free, or scored."""
    options: Any = {"free": case.scored} | dict(case.options) | more
    return mr.fit(case.theta, data, noise_sd=sd, **options)


def by_dictionary(case: Case, data: Array, sd: float) -> Any:
    """The nearest entry, and `mr.fit` from there."""
    grid = {"t1_s": np.geomspace(0.3, 3.0, 40), "t2_s": np.geomspace(0.02, 0.4, 40)}
    start = mr.fingerprint.dictionary(case.theta, grid).match(data).value
    return by_fit(case, data, sd, start=start)


def _adc(case: Case, data: Array, sd: float) -> Any:
    found = fit_adc(case.theta, data, sd)
    spread = SimpleNamespace(adc_mm2_per_s=found.adc_sd_mm2_per_s, m0=found.m0_sd)
    status = jnp.where(jnp.isfinite(found.adc_sd_mm2_per_s), CONVERGED, -1)
    return SimpleNamespace(value=found, sd=spread, status=status)


def _transmit(found: Any) -> Any:
    return SimpleNamespace(value=found, sd=SimpleNamespace(b1=found.b1_sd), status=found.status)


def _static(case: Case, data: Array, sd: float) -> Any:
    found = static_field(case.options["te_s"], data, sd, unwrap=False)
    spread = SimpleNamespace(b0_hz=found.b0_sd_hz)
    return SimpleNamespace(value=found, sd=spread, status=found.status)


def _spectrum(case: Case, data: Array, sd: float) -> Any:
    found = fit_t2_spectrum(case.options["theta"], data, sd)
    spread = SimpleNamespace(fast=found.fast_sd)
    return SimpleNamespace(value=found, sd=spread, status=found.status)


def _deconvolved(case: Case, data: Array, sd: float) -> Any:
    times_s, arterial, reference = (case.options[n] for n in ("times_s", "arterial", "reference"))
    leak = perfusion.leakage_corrected(times_s, data, reference, sd)
    found = perfusion.vascular_maps(times_s, leak, arterial, "csvd")
    spread = SimpleNamespace(cbv=found.cbv_sd, cbf_per_s=found.cbf_sd_per_s, mtt_s=found.mtt_sd_s)
    return SimpleNamespace(value=found, sd=spread, status=jnp.zeros(data.shape[0], int))


FITS: dict[str, Callable[[Case, Array, float], Any]] = {
    "complex": by_fit,
    "rician": by_fit,
    "real": by_fit,
    "gaussian": lambda case, data, sd: by_fit(case, data, sd, rician=False),
    "dictionary": by_dictionary,
    "fit_adc": _adc,
    "fit_tensor": lambda case, data, sd: fit_tensor(case.theta, data, sd),
    "fit_kurtosis": lambda case, data, sd: fit_kurtosis(case.options["theta"], data, sd),
    "fit_ivim": lambda case, data, sd: fit_ivim(case.options["theta"], data, sd),
    "double_angle": lambda case, data, sd: _transmit(
        double_angle(np.pi / 3, data[..., 0], data[..., 1], sd)
    ),
    "actual_flip": lambda case, data, sd: _transmit(
        actual_flip(np.pi / 3, (0.02, 0.1), data[..., 0], data[..., 1], sd)
    ),
    "bloch_siegert": lambda case, data, sd: _transmit(
        bloch_siegert(case.options["nominal_rad"], data[..., 0], data[..., 1], sd)
    ),
    "static_field": _static,
    "fit_t2_spectrum": _spectrum,
    "csvd": _deconvolved,
    "fit_kinetics": lambda case, data, sd: perfusion.fit_kinetics(
        case.options["theta"], data, type(case.q), sd
    ),
}
COMPLEX = {"complex", "dictionary", "bloch_siegert", "static_field"}
REAL = {"real", "fit_kinetics", "csvd"}


def drawn(voxels: int, /, **ranges: tuple[float, float]) -> dict[str, np.ndarray]:
    """Fields of tissue, each even in its range."""
    rng = np.random.default_rng(0)
    return {name: rng.uniform(*pair, voxels) for name, pair in ranges.items()}


def water(**fields: Any) -> Any:
    """A tissue of which not all is said."""
    return mr.Tissue(**(WATER | fields))


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


def t2(voxels: int) -> Case:
    """32 echoes from 10 ms."""
    theta = MonoExponential(jnp.arange(1, 33) * 0.01, jnp.ones(32))
    q = water(**drawn(voxels, t2_s=(0.03, 0.15), m0=(0.8, 1.2)))
    return Case(theta, q, ("t2_s", "m0"), ("complex", "rician", "gaussian"))


def t2_star(voxels: int) -> Case:
    """8 gradient echoes from 10 ms."""
    theta = mr.sequence.multi_echo_gradient_echo(np.arange(1, 9) * 0.01)
    q = water(**drawn(voxels, t2_s=(0.03, 0.15), m0=(0.8, 1.2)))
    return Case(theta, q, ("t2_s", "m0"), ("complex", "rician", "gaussian"))


def t2_star_b0(voxels: int) -> Case:
    """And B0, of the phase of 8 echoes 5 ms apart."""
    theta = mr.sequence.multi_echo_gradient_echo(np.arange(1, 9) * 0.005)
    q = water(**drawn(voxels, t2_s=(0.02, 0.08), b0_hz=(-80, 80), m0=(0.8, 1.2)))
    options = {"bounds": {"b0_hz": (-100, 100)}}
    return Case(theta, q, ("t2_s", "b0_hz", "m0"), ("complex",), options)


T1 = {"t1_s": (0.6, 2.0), "m0": (0.8, 1.2)}


def vfa(voxels: int) -> Case:
    """Flip angles of 2, 4, 10 and 18°, TR 12 ms, B1 known."""
    theta = mr.sequence.spoiled_gradient_echo(FLIPS_RAD, 0.002, TR_S)
    q = water(**drawn(voxels, b1=(0.8, 1.2), **T1))
    return Case(theta, q, ("t1_s", "m0"), options={"known": water(b1=q.b1)})


def ir(voxels: int) -> Case:
    """Inversion recovery, 7 TI; of magnitudes the polarity is found."""
    theta = mr.sequence.inversion_recovery(TI_S, 6.0)
    return Case(theta, water(**drawn(voxels, **T1)), ("t1_s", "m0"))


def sr(voxels: int) -> Case:
    """Saturation recovery, 6 delays."""
    theta = mr.sequence.saturation_recovery([0.1, 0.3, 0.7, 1.5, 3, 5], 6.0)
    return Case(theta, water(**drawn(voxels, **T1)), ("t1_s", "m0"))


def look_locker(voxels: int) -> Case:
    """30 readouts of 7°, 0.1 s apart."""
    theta = mr.sequence.look_locker(0.12, 0.1, 30)
    return Case(theta, water(**drawn(voxels, **T1)), ("t1_s", "m0"))


def molli(voxels: int) -> Case:
    """5(3)3, twelve pulses an image, T2 known."""
    q = water(t2_s=0.05, **drawn(voxels, **T1))
    options = {"known": water(t2_s=0.05)}
    return Case(mr.sequence.molli(pulses=12), q, ("t1_s", "m0"), options=options)


def mp2rage(voxels: int) -> Case:
    """Both images, complex, flips of 4° and 5°, TR 5 s, B1 known."""
    trains = mr.sequence.mp2rage([0.7, 2.5], np.deg2rad([4, 5]), 0.006, readouts=160, tr_s=5.0)
    theta = Selected(trains, (80, 240))
    q = water(t2_s=0.06, **drawn(voxels, b1=(0.8, 1.2), **T1))
    return Case(theta, q, ("t1_s", "m0"), ("complex",), {"known": water(t2_s=0.06, b1=q.b1)})


def train(
    flip_deg: float, b1: tuple[float, float], bounds: tuple[float, float]
) -> Callable[[int], Case]:
    """T2 and B1 from 32 echoes, all states. At 180° B1 moves the signal to second order only, and
    two B1 give one signal: it is determined the less the nearer."""

    def case(voxels: int) -> Case:
        theta = mr.sequence.spin_echo_train(np.full(32, np.deg2rad(flip_deg)), 0.01)
        q = water(**drawn(voxels, t2_s=(0.03, 0.15), b1=b1, m0=(0.8, 1.2)))
        options = {"bounds": {"b1": bounds}}
        return Case(theta, q, ("t2_s", "b1", "m0"), ("complex", "rician"), options)

    return case


class TwoPools(eqx.Module):
    """A share of water that decays fast, in a train of perfect echoes."""

    te_s: Float[Array, " readouts"]

    def __call__(self, q: Any) -> Float[Array, " readouts"]:
        fast, slow = jnp.exp(-self.te_s / 0.02), jnp.exp(-self.te_s / q.t2_s)
        return q.fast * fast + (1 - q.fast) * slow


class Pools(eqx.Module):
    """What `TwoPools` asks of a voxel."""

    fast: Float[Array, "..."]
    t2_s: Float[Array, "..."]


def spectrum(voxels: int) -> Case:
    """Myelin water: 48 echoes from 8 ms, T2 of 20 ms in 5 to 25 % beside one of 70 to 90 ms."""
    few = drawn(voxels, fast=(0.05, 0.25), t2_s=(0.07, 0.09))
    q = Pools(*(jnp.asarray(few[name], jnp.float32) for name in ("fast", "t2_s")))
    theta = mr.sequence.spin_echo_train(np.full(48, np.pi), 0.008)
    model = FunctionModel(TwoPools(jnp.arange(1, 49) * 0.008), jnp.ones(48))
    return Case(model, q, ("fast",), ("fit_t2_spectrum",), {"theta": theta})


class Pair(mr.sequence.Sequence):
    """Images at a flip angle of 60° and at 120°, fully relaxed."""

    averages: Float[Array, " readouts"]

    def signal(self, tissue):
        return tissue.m0 * jnp.sin(tissue.b1 * jnp.array([1, 2]) * jnp.pi / 3) + 0j

    @property
    def scan_time_s(self):
        return jnp.zeros(())


def b1(voxels: int) -> Case:
    """Double angle."""
    q = water(**drawn(voxels, b1=(0.7, 1.3)))
    return Case(Pair(jnp.ones(2)), q, ("b1",), ("double_angle",))


def afi(voxels: int) -> Case:
    """Actual flip angle of 60°, TR 20 and 100 ms: of the steady state, T1 known, and of Yarnykh's
    formula, which is to first order in TR / T1. Magnitudes know B1 up to where the second image
    vanishes, at 101.5°."""
    parts = (block(np.pi / 3, [0.0, tr], reads=[True, False], spoil=True) for tr in (0.02, 0.1))
    q = water(**drawn(voxels, b1=(0.7, 1.3)))
    options = {"free": ("b1", "m0"), "bounds": {"b1": (0.2, 1.69)}}
    return Case(repeated(tuple(parts)), q, ("b1",), ("rician", "actual_flip"), options)


class Shifted(eqx.Module):
    """m0 exp(±iφ b1²)."""

    nominal_rad: float

    def __call__(self, q: Any) -> Array:
        turn = jnp.array([1.0, -1.0]) * self.nominal_rad * q.b1.real**2
        return q.m0 * jnp.exp(1j * turn)


def bloch(voxels: int) -> Case:
    """Bloch-Siegert, a phase of 70° at nominal B1."""
    q = jax.tree.map(lambda v: jnp.broadcast_to(v, voxels), water(**drawn(voxels, b1=(0.7, 1.3))))
    model = FunctionModel(Shifted(1.2), jnp.ones(2))
    return Case(model, q, ("b1",), ("bloch_siegert",), {"nominal_rad": 1.2})


def b0(voxels: int) -> Case:
    """The phase of 6 echoes 2.3 ms apart."""
    te_s = 0.0023 * np.arange(1, 7)
    q = water(**drawn(voxels, t2_s=(0.02, 0.08), b0_hz=(-150, 150)))
    theta = mr.sequence.multi_echo_gradient_echo(te_s)
    return Case(theta, q, ("b0_hz",), ("static_field",), {"te_s": te_s})


def adc(voxels: int) -> Case:
    """b of 0, 300, 700 and 1000 s/mm²."""
    theta = mr.sequence.diffusion_weighted([0, 300, 700, 1000], 0.0, 20.0)
    q = water(**drawn(voxels, adc_mm2_per_s=(0.5e-3, 2e-3), m0=(0.8, 1.2)))
    kinds = ("complex", "rician", "gaussian", "fit_adc")
    return Case(theta, q, ("adc_mm2_per_s", "m0"), kinds)


def ivim(voxels: int) -> Case:
    """16 b-values, each of 3 directions and 4 signal averages, as of livers (Koh, Collins, Orton
    2011, doi:10.2214/AJR.10.5515)."""
    b = np.array([0, 0, 0, 10, 20, 30, 50, 75, 100, 150, 200, 300, 400, 500, 600, 800])
    ranges = {
        "m0": (0.8, 1.2),
        "adc_mm2_per_s": (0.7e-3, 1.5e-3),
        "perfusion_fraction": (0.1, 0.35),
        "pseudo_adc_mm2_per_s": (0.01, 0.08),
    }
    blood = drawn(voxels, **ranges)
    q = IvimTissue(*(jnp.asarray(v, jnp.float32) for v in blood.values()))
    theta = mr.sequence.diffusion_weighted(b, 0.06, averages=12.0)
    model = FunctionModel(IvimSignal(theta.b_s_per_mm2), theta.averages)
    scored = ("perfusion_fraction", "adc_mm2_per_s", "pseudo_adc_mm2_per_s", "m0")
    return Case(model, q, scored, ("fit_ivim",), {"theta": theta})


def directions(count: int) -> np.ndarray:
    """Spread over a sphere along a spiral."""
    i = np.arange(count) + 0.5
    z, turn = 1 - i / count, np.pi * (1 + 5**0.5) * i
    across = np.sqrt(1 - z**2)
    return np.stack([across * np.cos(turn), across * np.sin(turn), z], 1)


def axes(voxels: int) -> np.ndarray:
    """Of fibres, anywhere."""
    axis = np.random.default_rng(1).normal(size=(voxels, 3))
    return axis / np.linalg.norm(axis, axis=1, keepdims=True)


def dti(voxels: int) -> Case:
    """60 directions at 1000 s/mm² and 5 images without; FA 0.4 to 0.9."""
    g = np.concatenate([directions(5), directions(60)])
    axis = axes(voxels)
    q = drawn(voxels, across=(0.2e-3, 0.6e-3), more=(0.4e-3, 1.2e-3))
    across, more = q["across"], q["more"]
    six = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    parts = [across * (i == j) + more * axis[:, i] * axis[:, j] for i, j in six]
    fibres = water(tensor=DiffusionTensor(*map(jnp.float32, parts)))
    theta = mr.sequence.diffusion_weighted([0] * 5 + [1000] * 60, 0.06, directions=g)
    fa = more / np.sqrt((across + more) ** 2 + 2 * across**2)
    truth = {"fa": fa, "md_mm2_per_s": across + more / 3}
    return Case(theta, fibres, tuple(truth), ("fit_tensor",), truth=truth)


class Kurtosis(eqx.Module):
    """exp(-b D(g) + b² V(g) / 6), b in ms/µm²."""

    b: Float[Array, " readouts"]
    g: Float[Array, "readouts 3"]

    def __call__(self, q: Any) -> Float[Array, " readouts"]:
        g = self.g
        second = jnp.einsum("ri,rj,ij->r", g, g, q.d)
        fourth = jnp.einsum("ri,rj,rk,rl,ijkl->r", g, g, g, g, q.v)
        return jnp.exp(-self.b * second + self.b**2 / 6 * fourth)


class Fibres(eqx.Module):
    """D in µm²/ms and V = MD² W of a voxel."""

    d: Float[Array, "*voxels 3 3"]
    v: Float[Array, "*voxels 3 3 3 3"]


def kurtosis(voxels: int) -> Case:
    """30 directions at 1000 and 30 at 2000 s/mm², 4 images without (Jensen, Helpern 2010,
    doi:10.1002/nbm.1518); a fast compartment of 50 to 80 % and a slow one, as in brain: MD 0.7 to
    1.1 µm²/ms, MK 0.6 to 1.2."""
    few = voxels
    axis = axes(few)
    square = axis[:, :, None] * axis[:, None]
    share = drawn(few, share=(0.5, 0.8))["share"][:, None, None]
    first, second = 1.1 * np.eye(3) + 0.6 * square, 0.2 * np.eye(3) + 0.3 * square
    d, apart = share * first + (1 - share) * second, first - second
    four = sum(np.einsum(f"vij,vkl->v{a}", apart, apart) for a in ("ijkl", "ikjl", "iljk"))
    v = (share * (1 - share))[..., None, None] * np.asarray(four)
    n = directions(2000)
    along = np.einsum("ri,rj,vij->vr", n, n, d)
    # V(n) is 3 times the variance of D(n) between compartments.
    turned = np.einsum("ri,rj,vij->vr", n, n, apart)
    fourth = 3 * share[:, :, 0] * (1 - share[:, :, 0]) * turned**2
    md = np.trace(d, axis1=1, axis2=2) / 3
    truth = {
        "mk": (fourth / along**2).mean(1),
        "mkt": fourth.mean(1) / md**2,
        "md_mm2_per_s": md / 1e3,
        "m0": np.ones(few),
    }
    b = np.repeat([0.0, 1000, 2000], [4, 30, 30])
    g = np.concatenate([directions(4), directions(30), directions(30)[:, [1, 2, 0]]])
    theta = mr.sequence.diffusion_weighted(b, 0.06, directions=g)
    model = FunctionModel(Kurtosis(jnp.asarray(b / 1e3), jnp.asarray(g)), theta.averages)
    fibres = Fibres(jnp.asarray(d, jnp.float32), jnp.asarray(v, jnp.float32))
    return Case(model, fibres, tuple(truth), ("fit_kurtosis",), {"theta": theta}, truth)


def fingerprint(voxels: int) -> Case:
    """200 repetitions with a net gradient after an inversion, TR 12 ms (Jiang et al. 2015,
    doi:10.1002/mrm.25559, cut short): a dictionary, and Gauss-Newton off its grid."""
    i = np.arange(200)
    flips = np.deg2rad(10 + 50 * np.abs(np.sin(i * np.pi / 100)))
    theta = mr.sequence.fingerprinting_fisp(flips, 0.012)
    q = water(**drawn(voxels, t1_s=(0.5, 2.0), t2_s=(0.04, 0.2), m0=(0.8, 1.2)))
    return Case(theta, q, ("t1_s", "t2_s", "m0"), ("dictionary",))


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


PER_MIN, FLOW = 60.0, 6000.0
MODELS: dict[str, Callable[[int], Case]] = {
    "t2": t2,
    "t2*": t2_star,
    "t2* b0": t2_star_b0,
    "vfa": vfa,
    "ir": ir,
    "sr": sr,
    "look-locker": look_locker,
    "molli": molli,
    "mp2rage": mp2rage,
    "epg": train(150, (0.6, 1.0), (0.4, 1.15)),
    "epg180": train(180, (0.6, 1.0), (0.4, 1.0)),
    "t2 spectrum": spectrum,
    "b1": b1,
    "afi": afi,
    "bloch-siegert": bloch,
    "b0": b0,
    "adc": adc,
    "ivim": ivim,
    "dti": dti,
    "kurtosis": kurtosis,
    "fingerprint": fingerprint,
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
FEWER = {"t2 spectrum": 100, "fingerprint": 20, "molli": 20} | dict.fromkeys(
    ("mp2rage", "epg", "epg180", "ivim", "kurtosis"), 10
)
"""How many times fewer voxels of slow models are timed."""
