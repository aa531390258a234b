"""T1, T2 and T2* from gradient and spin echoes of several flip angles, inversion or echo times."""

from functools import partial

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import sequence
from mrphys.errors import InputError, Problem
from mrphys.phase_unwrapping import turns
from mrphys.protocols.protocol import (
    B1,
    M0,
    NLLS,
    T1,
    T1_S,
    Output,
    Plan,
    Protocol,
    as_complex,
    check_distinct,
    closed_form,
    water,
)
from mrphys.series import Series
from mrphys.steady_state import ernst
from mrphys.tissue import Tissue


class Decay(eqx.Module):
    """m0 exp(-TE / T2): spin echoes refocused by perfect pulses."""

    te_s: Float[Array, " readouts"]

    def __call__(self, q: Tissue) -> Complex[Array, " readouts"]:
        return as_complex(q.m0 * jnp.exp(-self.te_s / q.t2_s))


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
        return as_complex(q.m0 * (1 - q.depth * jnp.exp(-self.ti_s / q.t1_s)))


def _vfa(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    flips = series.each("FlipAngle", most=180.0)
    check_distinct(series, "FlipAngle", flips, 2)
    tr = series.one("RepetitionTimeExcitation", "RepetitionTime", most=1.0)
    kind = str((series.about or {}).get("PulseSequenceType", "SPGR"))
    if "SSFP" in kind.upper():
        cause = "images for DESPOT2"
        raise InputError(Problem(series.where, kind, "a spoiled gradient echo", cause))
    spoiled = Spoiled(jnp.asarray(np.deg2rad(flips)), jnp.asarray(tr))
    return Plan(closed_form(spoiled, flips.size), ("t1_s", "m0"), series, water(), {})


def _irt1(series: Series) -> Plan:
    series = series.sorted_by("InversionTime")
    times = series.each("InversionTime")
    check_distinct(series, "InversionTime", times, 3)
    known = Inverted(*(jnp.asarray(value) for value in (T1_S, 1.0, 2.0)))
    theta = closed_form(Recovery(jnp.asarray(times)), times.size)
    return Plan(theta, ("t1_s", "depth", "m0"), series, known, {"depth": (0.5, 3.0)})


def _mese(series: Series) -> Plan:
    series = series.sorted_by("EchoTime")
    times = series.each("EchoTime")
    check_distinct(series, "EchoTime", times, 2)
    theta = closed_form(Decay(jnp.asarray(times)), times.size)
    return Plan(theta, ("t2_s", "m0"), series, water(), {})


def _epg(series: Series) -> Plan:
    series = series.sorted_by("EchoTime")
    times = series.each("EchoTime")
    check_distinct(series, "EchoTime", times, 3)
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
    return Plan(theta, ("t2_s", "b1", "m0"), series, water(), bounds, posterior=True)


def _megre(series: Series) -> Plan:
    series = series.sorted_by("EchoTime")
    times = series.each("EchoTime", most=1.0)
    check_distinct(series, "EchoTime", times, 2)
    theta = sequence.multi_echo_gradient_echo(times)
    if not series.is_complex:
        return Plan(theta, ("t2_s", "m0"), series, water(), {})
    least = float(np.diff(times).min())
    steps = np.diff(times) / least
    even = np.allclose(steps, np.rint(steps), atol=0.02)
    reach = (0.75 if even else 0.5) / least
    return Plan(
        theta, ("t2_s", "b0_hz", "m0"), series, water(), {"b0_hz": (-reach, reach)},
        whole=partial(_unwrapped, 1 / least) if even else None,
    )  # fmt: skip


def _unwrapped(turn_hz: float, values: dict, sds: dict, good: np.ndarray) -> dict:
    """B0, which echoes so many seconds apart tell but for turns, going together in space."""
    b0 = values["b0_hz"]
    phase, sd = (2 * np.pi * v / turn_hz for v in (b0, np.where(good, sds["b0_hz"], np.inf)))
    return {"b0_hz": b0 + turn_hz * turns(phase, sd)}


T2 = Output("t2_s", "T2map", "s", "transverse relaxation time")


VFA = Protocol(
    "vfa",
    ("VFA",),
    "T1 from spoiled gradient echoes of several flip angles; --b1 corrects them",
    (T1, M0),
    NLLS,
    "Deoni et al. 2005, doi:10.1002/mrm.20314",
    _vfa,
    b1=True,
)


IRT1 = Protocol(
    "irt1",
    ("IRT1",),
    "T1 from inversion recovery, polarity and depth of the inversion found",
    (T1, M0, Output("depth", "inversiondepth", "1", "2 for a perfect inversion")),
    NLLS,
    "Barral et al. 2010, doi:10.1002/mrm.22497",
    _irt1,
)


MESE = Protocol(
    "mese",
    ("MESE",),
    "T2 from spin echoes, refocused perfectly: monoexponential",
    (T2, M0),
    NLLS,
    "Carr, Purcell 1954, doi:10.1103/PhysRev.94.630",
    _mese,
)


EPG = Protocol(
    "epg",
    ("MESE",),
    "T2 and B1 from a spin-echo train with its stimulated echoes; --b1 gives B1",
    (T2, B1, M0),
    NLLS,
    "Hennig 1988, doi:10.1016/0022-2364(88)90128-X",
    _epg,
    b1=True,
)


MEGRE = Protocol(
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
)
