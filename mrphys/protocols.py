"""The maps that series of images can give, model by model: the table that `mrphys map` reads.

A new model is one `Protocol` in MODELS: the BIDS suffixes it is for, what it writes, and `plan`,
which turns the settings of a series into θ and says what is unknown.
"""

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import sequence
from mrphys.diffusion_tensor import ISOTROPIC, fit_tensor
from mrphys.dynamic import REFERENCES, Dynamic, examination, fit_examination
from mrphys.errors import InputError, Problem
from mrphys.ivim import fit_ivim
from mrphys.mapping import FunctionModel
from mrphys.phase_unwrapping import turns
from mrphys.sequence.repeated import repeated
from mrphys.sequence.train import block
from mrphys.series import B_VALUE, Series
from mrphys.steady_state import ernst
from mrphys.tissue import Tissue

T1_S, T2_S = 1.0, 0.08
"""Taken where a signal hardly depends on them."""
TE_S = 0.08
"""Of no account for the tensor."""
MOST_B1 = 2.0
INVERSION = 0.96
"""Of an adiabatic pulse (Marques et al. 2010)."""


class Output(NamedTuple):
    """A field of q as a map: BIDS suffix, unit, what it is, and the factor to that unit."""

    field: str
    suffix: str
    unit: str
    what: str
    scale: float = 1.0


class Plan(NamedTuple):
    """What `mrphys.fit` is told: θ, the unknowns, q otherwise, bounds; readouts in its order.

    fit       a fast path in its place, of (θ, x, noise_sd), noise_sd None where it is to be found:
              its result has `value` and `sd` with the outputs as fields, `residual` and `status`
    unknowns  real numbers it finds in each voxel; as many as are free unless given
    told      whether that fit is told, fourth, what is known of its voxels
    lacking   voxels it cannot be for, by what they are without
    whole     what is done last, to whole maps by field: of (values, sds, where these stand)
    """

    theta: Any
    free: tuple[str, ...]
    series: Series
    known: eqx.Module
    bounds: dict[str, tuple[float, float]]
    fit: Callable[..., Any] | None = None
    unknowns: int | None = None
    told: bool = False
    lacking: Mapping[str, np.ndarray] = MappingProxyType({})
    whole: Callable[[dict, dict, np.ndarray], dict] | None = None


class Protocol(NamedTuple):
    """A kind of series and the maps it gives, the first of them what it is for.

    suffixes  of the files it is for; the first in the table for a suffix is chosen unless told
    plan      of a series, raising InputError where settings are missing or make no sense
    b1        whether a map of the transmit field helps: a field of `Plan.known` then
    status    what its fit tells of voxels beyond `mrphys.mapping`, whose values stand
    """

    name: str
    suffixes: tuple[str, ...]
    title: str
    outputs: tuple[Output, ...]
    algorithm: str
    reference: str
    plan: Callable[[Series], Plan]
    b1: bool = False
    status: tuple[tuple[int, str], ...] = ()


def _complex(x: Array) -> Complex[Array, "..."]:
    return jax.lax.complex(x, jnp.zeros_like(x))


def _closed_form(signal: Callable[[Any], Array], readouts: int) -> FunctionModel:
    return FunctionModel(signal, jnp.ones(readouts))


def _water() -> Tissue:
    return Tissue(t1_s=T1_S, t2_s=T2_S)


def _distinct(series: Series, name: str, values: np.ndarray, least: int) -> None:
    if np.unique(values).size < least:
        found = f"{np.unique(values).size} different {name} ({series.readouts} images)"
        cause = "images left out, or the sidecar of one image used for all"
        raise InputError(Problem(series.where, found, f"{least} or more", cause))


class Decay(eqx.Module):
    """m0 exp(-TE / T2): spin echoes refocused by perfect pulses."""

    te_s: Float[Array, " readouts"]

    def __call__(self, q: Tissue) -> Complex[Array, " readouts"]:
        return _complex(q.m0 * jnp.exp(-self.te_s / q.t2_s))


class Attenuation(eqx.Module):
    """m0 exp(-b ADC), relaxation part of m0."""

    b_s_per_mm2: Float[Array, " readouts"]

    def __call__(self, q: Tissue) -> Complex[Array, " readouts"]:
        return _complex(q.m0 * jnp.exp(-self.b_s_per_mm2 * q.adc_mm2_per_s))


class Excitation(eqx.Module):
    """m0 sin(b1 α), fully relaxed."""

    flip_rad: Float[Array, " readouts"]

    def __call__(self, q: Tissue) -> Complex[Array, " readouts"]:
        return _complex(q.m0 * jnp.sin(q.b1.real * self.flip_rad))


class Spoiled(eqx.Module):
    """The steady state of an ideally spoiled gradient echo, decay until the echo part of m0."""

    flip_rad: Float[Array, " readouts"]
    tr_s: Float[Array, ""]

    def __call__(self, q: Tissue) -> Complex[Array, " readouts"]:
        return ernst(q.b1.real * self.flip_rad, 0.0, self.tr_s, q.t1_s, m0=q.m0)


class Inverted(eqx.Module):
    """What recovers after an inversion: `depth` is 2 for a perfect one from full relaxation."""

    t1_s: Float[Array, "..."]
    m0: Float[Array, "..."]
    depth: Float[Array, "..."]


class Recovery(eqx.Module):
    """m0 (1 - depth exp(-TI / T1)): any inversion, any TR that is the same for all TI, after an
    excitation of 90°."""

    ti_s: Float[Array, " readouts"]

    def __call__(self, q: Inverted) -> Complex[Array, " readouts"]:
        return _complex(q.m0 * (1 - q.depth * jnp.exp(-self.ti_s / q.t1_s)))


class TwoTrains(eqx.Module):
    """MP2RAGE in its steady state: the centre of each of two spoiled trains of `shots` pulses.

    Before pulse j of a train that starts with M, in units of m0,

        M_j = M c^j + (1 - E) (1 - c^j) / (1 - c),   c = E cos(b1 α),   E = exp(-spacing / T1)

    with recovery in the gaps before, between and after the trains. The inversion is adiabatic: it
    turns M to -0.96 M whatever the transmit field.
    """

    flip_rad: Float[Array, "2"]
    gaps_s: Float[Array, "3"]
    spacing_s: Float[Array, ""]
    before: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)

    def __call__(self, q: Tissue) -> Complex[Array, "2"]:
        e, rest = jnp.exp(-self.spacing_s / q.t1_s), jnp.exp(-self.gaps_s / q.t1_s)
        angle = q.b1.real * self.flip_rad

        def train(state, i: int, pulses: int):
            """M = slope M(TR before) + shift after some pulses of a train."""
            c = e * jnp.cos(angle[i])
            left = c**pulses
            return left * state[0], left * state[1] + (1 - e) * (1 - left) / (1 - c)

        def recovered(state, i: int):
            return rest[i] * state[0], rest[i] * state[1] + 1 - rest[i]

        first = recovered((-INVERSION, jnp.zeros_like(e)), 0)
        second = recovered(train(first, 0, self.shots), 1)
        slope, shift = recovered(train(second, 1, self.shots), 2)
        steady = shift / (1 - slope)
        seen = [train(start, i, self.before) for i, start in enumerate((first, second))]
        m = jnp.stack([slope * steady + shift for slope, shift in seen])
        return _complex(q.m0 * jnp.sin(angle) * m)


def _vfa(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    flips = series.each("FlipAngle", most=180.0)
    _distinct(series, "FlipAngle", flips, 2)
    tr = series.one("RepetitionTimeExcitation", "RepetitionTime", most=1.0)
    kind = str((series.about or {}).get("PulseSequenceType", "SPGR"))
    if "SSFP" in kind.upper():
        cause = "images for DESPOT2"
        raise InputError(Problem(series.where, kind, "a spoiled gradient echo", cause))
    spoiled = Spoiled(jnp.asarray(np.deg2rad(flips)), jnp.asarray(tr))
    return Plan(_closed_form(spoiled, flips.size), ("t1_s", "m0"), series, _water(), {})


def _irt1(series: Series) -> Plan:
    series = series.sorted_by("InversionTime")
    times = series.each("InversionTime")
    _distinct(series, "InversionTime", times, 3)
    known = Inverted(*(jnp.asarray(value) for value in (T1_S, 1.0, 2.0)))
    theta = _closed_form(Recovery(jnp.asarray(times)), times.size)
    return Plan(theta, ("t1_s", "depth", "m0"), series, known, {"depth": (0.5, 3.0)})


def _mp2rage(series: Series) -> Plan:
    series = series.sorted_by("InversionTime")
    if series.readouts != 2 or not series.is_complex:
        what = "complex" if series.is_complex else "magnitude"
        found = f"{series.readouts} {what} image(s)"
        cause = "part-phase left out: magnitudes do not tell which way the first image points"
        expected = "inv-1 and inv-2, each with part-mag and part-phase"
        raise InputError(Problem(series.where, found, expected, cause))
    about = series.about or {}
    shots = np.ravel(np.asarray(about.get("NumberShots", []), float)).tolist()
    if len(shots) == 1:
        fraction = float(about.get("SlicePartialFourier", about.get("PartialFourierPE", 1.0)))
        shots = [shots[0] * (fraction - 0.5), shots[0] / 2]
    if len(shots) != 2:
        expected = "NumberShots: [before, after] the centre of k-space, or their sum"
        raise InputError(Problem(series.where, f"NumberShots {shots or 'missing'}", expected))
    before, count = round(shots[0]), round(shots[0]) + round(shots[1])
    spacing = series.one("RepetitionTimeExcitation", most=0.5)
    delays, train = series.each("InversionTime"), count * spacing
    ends = np.array([0.0, *(delays + (count - before) * spacing)])
    starts = np.array([*(delays - before * spacing), series.one("RepetitionTimePreparation")])
    gaps = starts - ends
    if gaps.min() < 0:
        found = f"trains of {train:.3g} s at {delays[0]:g} and {delays[1]:g} s that do not fit"
        expected = "room for both after the inversion and before RepetitionTimePreparation"
        raise InputError(Problem(series.where, found, expected, "other NumberShots, or TI"))
    flips = jnp.asarray(np.deg2rad(series.each("FlipAngle")))
    trains = TwoTrains(flips, jnp.asarray(gaps), jnp.asarray(spacing), before, count)
    return Plan(_closed_form(trains, 2), ("t1_s", "m0"), series, _water(), {})


def _mese(series: Series) -> Plan:
    series = series.sorted_by("EchoTime")
    times = series.each("EchoTime")
    _distinct(series, "EchoTime", times, 2)
    theta = _closed_form(Decay(jnp.asarray(times)), times.size)
    return Plan(theta, ("t2_s", "m0"), series, _water(), {})


def _epg(series: Series) -> Plan:
    series = series.sorted_by("EchoTime")
    times = series.each("EchoTime")
    _distinct(series, "EchoTime", times, 3)
    spacing = float(times[0])
    if not np.allclose(times, spacing * np.arange(1, times.size + 1), rtol=0.01):
        found = f"echo times {', '.join(f'{t:g}' for t in times)} s"
        expected = "every echo of an evenly spaced train, TE_n = n TE_1; or --model mese"
        raise InputError(Problem(series.where, found, expected, "echoes left out"))
    flip = 180.0
    if "FlipAngle" in series.settings and series.one("FlipAngle") > 100.0:
        flip = min(series.one("FlipAngle"), 180.0)
    theta = sequence.spin_echo_train(np.full(times.size, np.deg2rad(flip)), spacing)
    bounds = {"b1": (0.4, 180.0 / flip)}
    return Plan(theta, ("t2_s", "b1", "m0"), series, _water(), bounds)


def _megre(series: Series) -> Plan:
    series = series.sorted_by("EchoTime")
    times = series.each("EchoTime", most=1.0)
    _distinct(series, "EchoTime", times, 2)
    theta = sequence.multi_echo_gradient_echo(times)
    if not series.is_complex:
        return Plan(theta, ("t2_s", "m0"), series, _water(), {})
    least = float(np.diff(times).min())
    steps = np.diff(times) / least
    even = np.allclose(steps, np.rint(steps), atol=0.02)
    reach = (0.75 if even else 0.5) / least
    return Plan(
        theta, ("t2_s", "b0_hz", "m0"), series, _water(), {"b0_hz": (-reach, reach)},
        whole=partial(_unwrapped, 1 / least) if even else None,
    )  # fmt: skip


def _unwrapped(turn_hz: float, values: dict, sds: dict, good: np.ndarray) -> dict:
    """B0, which echoes so many seconds apart tell but for turns, going together in space."""
    b0 = values["b0_hz"]
    phase, sd = (2 * np.pi * v / turn_hz for v in (b0, np.where(good, sds["b0_hz"], np.inf)))
    return {"b0_hz": b0 + turn_hz * turns(phase, sd)}


def _adc(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    b = series.each(B_VALUE)
    _distinct(series, "b-values", b, 2)
    theta = _closed_form(Attenuation(jnp.asarray(b)), b.size)
    return Plan(theta, ("adc_mm2_per_s", "m0"), series, _water(), {})


def _ivim(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    b = series.each(B_VALUE)
    echo_s = series.one("EchoTime") if "EchoTime" in series.settings else TE_S
    theta = sequence.diffusion_weighted(b, echo_s)
    free = ("adc_mm2_per_s", "perfusion_fraction", "pseudo_adc_mm2_per_s", "m0")
    return Plan(theta, free, series, _water(), {}, fit_ivim)


def _dti(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    b = series.each(B_VALUE)
    if series.directions is None:
        found, cause = "no directions", "no .bvec beside the images, or images of a GE scanner"
        raise InputError(Problem(series.where, found, "a direction of each gradient", cause))
    echo_s = series.one("EchoTime") if "EchoTime" in series.settings else TE_S
    theta = sequence.diffusion_weighted(b, echo_s, directions=series.directions)
    free = ("fa", "md_mm2_per_s", "ad_mm2_per_s", "rd_mm2_per_s", "m0")
    return Plan(theta, free, series, _water(), {}, fit_tensor, unknowns=7)


def _dce(of: Dynamic, series: Series) -> Plan:
    series, theta, known, lacking = examination(series, of)
    return Plan(
        theta, theta.fields, series, known, {}, fit_examination, theta.unknowns, told=True,
        lacking={"without T1": lacking},
    )  # fmt: skip


def dynamic(of: Dynamic) -> Protocol:
    """The model `dce` with what the images do not say: T1, the arterial input, the kinetics."""
    protocol = MODELS["dce"]
    reference = REFERENCES.get(of.kinetics, protocol.reference)
    return protocol._replace(plan=partial(_dce, of), reference=reference)


def _double_angle(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    flips = series.each("FlipAngle")
    _distinct(series, "FlipAngle", flips, 2)
    theta = _closed_form(Excitation(jnp.asarray(np.deg2rad(flips))), flips.size)
    most = min(MOST_B1, 180.0 / float(flips.max()))
    return Plan(theta, ("b1", "m0"), series, _water(), {"b1": (0.2, most)})


def _actual_flip(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    series = series.sorted_by("RepetitionTimeExcitation", "RepetitionTime")
    times = series.each("RepetitionTimeExcitation", "RepetitionTime", most=2.0)
    _distinct(series, "RepetitionTimeExcitation", times, 2)
    if series.readouts != 2:
        found = f"{series.readouts} images"
        raise InputError(Problem(series.where, found, "two: acq-tr1 and acq-tr2"))
    flip = series.one("FlipAngle")
    parts = tuple(
        block(np.deg2rad(flip), [0.0, tr], reads=[True, False], spoil=True) for tr in times
    )
    most = min(MOST_B1, 180.0 / flip)
    return Plan(repeated(parts), ("b1", "m0"), series, _water(), {"b1": (0.2, most)})


T1 = Output("t1_s", "T1map", "s", "longitudinal relaxation time")
T2 = Output("t2_s", "T2map", "s", "transverse relaxation time")
M0 = Output("m0", "M0map", "arbitrary", "signal of full relaxation, decay until the echo included")
S0 = Output("m0", "S0map", "arbitrary", "signal without diffusion weighting")
B1 = Output("b1", "TB1map", "percent", "transmit field relative to nominal", 100.0)
NLLS = "maximum likelihood (Levenberg-Marquardt, variable projection), sd by Cramér-Rao"

_ALL = (
    Protocol(
        "vfa",
        ("VFA",),
        "T1 from spoiled gradient echoes of several flip angles; --b1 corrects them",
        (T1, M0),
        NLLS,
        "Deoni et al. 2005, doi:10.1002/mrm.20314",
        _vfa,
        b1=True,
    ),
    Protocol(
        "irt1",
        ("IRT1",),
        "T1 from inversion recovery, polarity and depth of the inversion found",
        (T1, M0, Output("depth", "inversiondepth", "1", "2 for a perfect inversion")),
        NLLS,
        "Barral et al. 2010, doi:10.1002/mrm.22497",
        _irt1,
    ),
    Protocol(
        "mp2rage",
        ("MP2RAGE",),
        "T1 from two complex gradient-echo trains after an adiabatic inversion; --b1 corrects them",
        (T1, M0),
        NLLS,
        "Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002",
        _mp2rage,
        b1=True,
    ),
    Protocol(
        "mese",
        ("MESE",),
        "T2 from spin echoes, refocused perfectly: monoexponential",
        (T2, M0),
        NLLS,
        "Carr, Purcell 1954, doi:10.1103/PhysRev.94.630",
        _mese,
    ),
    Protocol(
        "epg",
        ("MESE",),
        "T2 and B1 from a spin-echo train with its stimulated echoes; --b1 gives B1",
        (T2, B1, M0),
        NLLS,
        "Hennig 1988, doi:10.1016/0022-2364(88)90128-X",
        _epg,
        b1=True,
    ),
    Protocol(
        "megre",
        ("MEGRE",),
        "T2* from gradient echoes, and B0, unwrapped in space, where they have their phase",
        (
            Output("t2_s", "T2starmap", "s", "observed transverse relaxation time"),
            Output("b0_hz", "fieldmap", "Hz", "off-resonance, phase falling where positive"),
            M0,
        ),
        NLLS,
        "Chavhan et al. 2009, doi:10.1148/rg.295095034",
        _megre,
    ),
    Protocol(
        "adc",
        ("dwi",),
        "ADC from diffusion weighting, all directions together",
        (
            Output("adc_mm2_per_s", "ADC", "mm^2/s", "apparent diffusion coefficient"),
            S0,
        ),
        NLLS,
        "Le Bihan et al. 1986, doi:10.1148/radiology.161.2.3763909",
        _adc,
    ),
    Protocol(
        "ivim",
        ("dwi",),
        "diffusion, and fraction and pseudo-diffusion of blood in capillaries, from low b too",
        (
            Output("adc_mm2_per_s", "D", "mm^2/s", "diffusion coefficient of tissue"),
            Output("perfusion_fraction", "f", "1", "share of the signal from capillaries"),
            Output("pseudo_adc_mm2_per_s", "Dstar", "mm^2/s", "pseudo-diffusion of blood"),
            S0,
        ),
        NLLS,
        "Le Bihan et al. 1988, doi:10.1148/radiology.168.2.3393671",
        _ivim,
    ),
    Protocol(
        "dti",
        ("dwi",),
        "diffusion tensor from six directions or more: FA and diffusivities",
        (
            Output("fa", "FA", "1", "fractional anisotropy"),
            Output("md_mm2_per_s", "MD", "mm^2/s", "mean diffusivity"),
            Output("ad_mm2_per_s", "AD", "mm^2/s", "axial diffusivity"),
            Output("rd_mm2_per_s", "RD", "mm^2/s", "radial diffusivity"),
            S0,
        ),
        "weighted least squares of the logarithm, sd by propagation",
        "Salvador et al. 2005, doi:10.1002/hbm.20076",
        _dti,
        status=((ISOTROPIC, "isotropic: FA is below three of its sds"),),
    ),
    Protocol(
        "dce",
        ("dce", "DCE"),
        "Ktrans, ve, vp, ... of a contrast-enhanced dynamic spoiled gradient echo; needs --t1",
        (
            Output("ktrans_per_s", "Ktrans", "1/min", "transfer constant of plasma", 60.0),
            Output("fp_per_s", "Fp", "ml/100ml/min", "plasma flow", 6000.0),
            Output("ps_per_s", "PS", "1/min", "permeability surface area product", 60.0),
            Output("ve", "ve", "1", "volume fraction of the interstitium"),
            Output("vp", "vp", "1", "volume fraction of plasma"),
            Output("delay_s", "delay", "s", "arrival in tissue after the arterial input's"),
            Output("auc", "AUC60", "mmol/l*s", "area under the concentration's first 60 s"),
            Output("peak", "peak", "mmol/l", "largest concentration"),
            Output("time_to_peak_s", "TTP", "s", "from the bolus arrival to the peak"),
        ),
        "least squares of concentrations, sd by Cramér-Rao with noise of the baseline and T1",
        REFERENCES["extended_tofts"],
        partial(_dce, Dynamic()),
        b1=True,
    ),
    Protocol(
        "dam",
        ("TB1DAM",),
        "B1 from excitations of two flip angles, fully relaxed",
        (B1, M0),
        NLLS,
        "Insko, Bolinger 1993, doi:10.1006/jmra.1993.1133",
        _double_angle,
    ),
    Protocol(
        "afi",
        ("TB1AFI",),
        "B1 from a spoiled steady state of two repetition times",
        (B1,),
        NLLS,
        "Yarnykh 2007, doi:10.1002/mrm.21120",
        _actual_flip,
    ),
)
MODELS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
SUFFIXES = {suffix: model.name for model in reversed(_ALL) for suffix in model.suffixes}


def likely_model(series: Series) -> str | None:
    """The model of a series by its suffix, else by what its images differ in; None if unclear."""
    if series.suffix:
        return SUFFIXES.get(series.suffix)
    about = str((series.about or {}).get("ScanningSequence", ""))
    echoes = "mese" if "SE" in about else "megre" if "GR" in about else None
    by_setting = {
        B_VALUE: "adc",
        "InversionTime": "irt1",
        "FlipAngle": "vfa",
        "EchoTime": echoes,
    }
    varied = [
        name
        for name, values in series.settings.items()
        if name in by_setting and np.unique(values).size > 1
    ]
    return by_setting[varied[0]] if len(varied) == 1 else None
