"""The workloads on which quantitative models are timed and their standard deviations scored.

`MODELS` makes a Case of each for a number of voxels: the truth, what is measured of it, how it is
fitted, and what is scored. Tissues are drawn evenly from ranges of brain and body at 1.5 to 3 T
(Stanisz et al. 2005, doi:10.1002/mrm.20605) unless stated; protocols are what scanners play.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from kinetic_models import KINETICS
from workload_models import Case, drawn, water

import mrphys as mr
from mrphys.diffusion import DiffusionTensor
from mrphys.ivim import IvimSignal, IvimTissue
from mrphys.mapping import FunctionModel, Selected
from mrphys.sequence.repeated import repeated
from mrphys.sequence.train import block

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
    options = {"bounds": {"b0_hz": (-100.0, 100.0)}}
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
    flip_deg: float, b1: tuple[float, float], bounds: tuple[float, float], posterior: bool = False
) -> Callable[[int], Case]:
    """T2 and B1 from 32 echoes, all states. At 180° B1 moves the signal to second order only, and
    two B1 give one signal: it is determined the less the nearer, and means follow bounds, which are
    to be what B1 may be."""

    def case(voxels: int) -> Case:
        theta = mr.sequence.spin_echo_train(np.full(32, np.deg2rad(flip_deg)), 0.01)
        q = water(**drawn(voxels, t2_s=(0.03, 0.15), b1=b1, m0=(0.8, 1.2)))
        options = {"bounds": {"b1": bounds}, "posterior": posterior}
        return Case(theta, q, ("t2_s", "b1", "m0"), ("complex", "rician"), options)

    return case


class ThreePools(eqx.Module):
    """Shares of water that decay fast and slowly beside the rest, in a train of perfect echoes."""

    te_s: Float[Array, " readouts"]

    def __call__(self, q: Any) -> Float[Array, " readouts"]:
        short, middle, long = (jnp.exp(-self.te_s / t2) for t2 in (q.short_s, q.middle_s, q.long_s))
        return q.fast * short + (1 - q.fast - q.slow) * middle + q.slow * long


class Pools(eqx.Module):
    """What `ThreePools` asks of a voxel."""

    fast: Float[Array, "..."]
    slow: Float[Array, "..."]
    short_s: Float[Array, "..."]
    middle_s: Float[Array, "..."]
    long_s: Float[Array, "..."]


def spectrum(voxels: int) -> Case:
    """Myelin water: 48 echoes from 8 ms of every mixture of three pools, T2 below 40 ms, up to
    200 ms and above: what a voxel may be before anything is known of it."""
    shares = np.random.default_rng(3).dirichlet(np.ones(3), voxels)
    edges = np.log([0.01, 0.04, 0.2, 2.0])
    names = ("short_s", "middle_s", "long_s")
    few = drawn(voxels, **dict(zip(names, pairwise(edges), strict=True)))
    fields = (shares[:, 0], shares[:, 2], *(np.exp(few[name]) for name in names))
    q = Pools(*(jnp.asarray(field, jnp.float32) for field in fields))
    return _echoes(q)


def white_matter(voxels: int) -> Case:
    """Myelin water: the same echoes, T2 of 20 ms in 5 to 25 % beside one of 70 to 90 ms."""
    few = drawn(voxels, fast=(0.05, 0.25), middle_s=(0.07, 0.09))
    fast, middle_s = (jnp.asarray(few[name], jnp.float32) for name in ("fast", "middle_s"))
    ones = jnp.ones_like(fast)
    return _echoes(Pools(fast, 0 * ones, 0.02 * ones, middle_s, ones))


def _echoes(q: Pools) -> Case:
    theta = mr.sequence.spin_echo_train(np.full(48, np.pi), 0.008)
    model = FunctionModel(ThreePools(jnp.arange(1, 49) * 0.008), jnp.ones(48))
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
    "epg mean": train(150, (0.6, 1.0), (0.4, 1.15), posterior=True),
    "epg180 mean": train(180, (0.6, 1.0), (0.6, 1.0), posterior=True),
    "t2 spectrum": spectrum,
    "white matter": white_matter,
    "b1": b1,
    "afi": afi,
    "bloch-siegert": bloch,
    "b0": b0,
    "adc": adc,
    "ivim": ivim,
    "dti": dti,
    "kurtosis": kurtosis,
    "fingerprint": fingerprint,
    **KINETICS,
}
FEWER = {"t2 spectrum": 100, "fingerprint": 20, "molli": 20} | dict.fromkeys(
    ("mp2rage", "epg", "epg180", "epg mean", "epg180 mean", "ivim", "kurtosis"), 10
)
"""How many times fewer voxels of slow models are timed."""
