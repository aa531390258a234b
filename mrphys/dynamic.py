"""Contrast-enhanced dynamic series of a scanner, made ready for `mrphys.perfusion`, and their maps.

signal -> baseline and bolus arrival -> concentration by T1 -> arterial input -> kinetic parameters
"""

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.stats import norm
from jaxtyping import Array, Bool, Float

from mrphys import perfusion
from mrphys.errors import InputError, Problem
from mrphys.mapping import FAILED, MASKED
from mrphys.perfusion.conversion import AMPLITUDES, RATES
from mrphys.perfusion.signal import baseline_mean
from mrphys.series import Series
from mrphys.units import check_range, check_time_s
from mrphys.volume import Volume

KINETICS: dict[str, type[perfusion.Kinetics]] = {
    "extended_tofts": perfusion.ExtendedTofts,
    "tofts": perfusion.Tofts,
    "patlak": perfusion.Patlak,
    "2cxm": perfusion.TwoCompartmentExchange,
    "uptake": perfusion.TwoCompartmentUptake,
}
REFERENCES = {
    "extended_tofts": "Tofts 1997, doi:10.1002/jmri.1880070113",
    "tofts": "Tofts, Kermode 1991, doi:10.1002/mrm.1910170208",
    "patlak": "Patlak, Blasberg, Fenstermacher 1983, doi:10.1038/jcbfm.1983.1",
    "2cxm": "Brix et al. 2004, doi:10.1002/mrm.20161",
    "uptake": "Pradel et al. 2003, doi:10.1097/01.rli.0000065424.86361.31",
}
POPULATION = {"parker": perfusion.parker_2006, "georgiou": perfusion.georgiou_2019}
WINDOW_S = 60.0
"""Over which the area is taken (Evelhoch 1999)."""
STRONGEST = 0.02
"""Share of voxels, those that enhance most, whose mean tells when the bolus arrives."""
LARGEST = 30.0
"""Concentrations above so many peaks of the input are noise near full relaxation."""


@dataclass(frozen=True, eq=False)
class Dynamic:
    """What the images of a dynamic series do not say of themselves.

    t1_s, t1_sd_s  before the agent and its sd: a number, or a map on the grid of the images
    kinetics       of KINETICS
    aif            "parker" or "georgiou", from the bolus arrival on; a measured `ArterialInput` in
                   s after the first image; or a mask of an artery, whose mean signal is taken
    haematocrit    of whole blood, where the input is not yet of plasma
    blood_t1_s     of the blood in the mask; the median of t1_s there unless given
    baseline       images before the bolus; those before it is found to arrive unless given
    arrival_s      of the bolus, after the first image; found unless given
    interval_s     between images, where the files give no times
    delay_s        of tissue relative to the input, sought up to this, earlier or later; 0: none
    """

    t1_s: float | Volume | None = None
    t1_sd_s: float | Volume = 0.0
    kinetics: str = "extended_tofts"
    aif: str | perfusion.ArterialInput | Volume = "parker"
    haematocrit: float = perfusion.HAEMATOCRIT
    relaxivity_l_per_mmol_s: float = 4.5
    blood_t1_s: float | None = None
    baseline: int | None = None
    arrival_s: float | None = None
    interval_s: float | None = None
    delay_s: float = 6.0


class Before(eqx.Module):
    """Of each voxel, before the agent; b1 relative to nominal."""

    t1_s: Float[Array, "..."]
    t1_sd_s: Float[Array, "..."]
    b1: Float[Array, "..."]


class Examination(NamedTuple):
    """θ of a dynamic series: its times and input, and how signals show an agent.

    before  images before the bolus
    """

    series: perfusion.DynamicSeries
    kinetics: type[perfusion.Kinetics]
    before: int
    arrival_s: float
    window_s: float
    delay_s: tuple[float, float] | None
    flip_rad: float
    tr_s: float
    relaxivity_l_per_mmol_s: float

    def echo(self, before: Before) -> perfusion.SpoiledEcho:
        """As these voxels are excited."""
        flip = self.flip_rad * before.b1
        return perfusion.SpoiledEcho(flip, self.tr_s, before.t1_s, self.relaxivity_l_per_mmol_s)

    def concentration(self, x: Array, before: Before) -> Array:
        """Of signals, mmol/l."""
        return perfusion.concentration_of_signal(self.echo(before), x, slice(0, self.before))

    @property
    def fields(self) -> tuple[str, ...]:
        """What is found in each voxel."""
        names = [name for name in self.kinetics.__annotations__ if name != "delay_s"]
        shown = ["auc", "peak", "time_to_peak_s"][self.window_s < WINDOW_S :]
        return (*names, *(["delay_s"] if self.delay_s else []), *shown)

    @property
    def unknowns(self) -> int:
        """Of a curve, its baseline among them."""
        terms = AMPLITUDES[self.kinetics] + RATES[self.kinetics]
        return len(terms) + 1 + bool(self.delay_s)


def examination(
    series: Series, of: Dynamic
) -> tuple[Series, Examination, Before, Bool[np.ndarray, "x y z"]]:
    """The series by time, θ, what is known of its voxels, and where there is no T1.

    Raises InputError for settings that are missing or make no sense, a T1 or an artery on another
    grid, a baseline that the bolus reaches, an input shorter than the series.
    """
    where = f"{series.where}: dce"
    if of.kinetics not in KINETICS:
        raise InputError(Problem("kinetics", repr(of.kinetics), f"one of {', '.join(KINETICS)}"))
    check_range("haematocrit", of.haematocrit, 0.0, 0.8, "(ratio)", "per cent given for a ratio")
    check_range("delay_s", of.delay_s, 0.0, 60.0, "s", "milliseconds given for seconds")
    check_range("relaxivity", of.relaxivity_l_per_mmol_s, 0.1, 100.0, "l/mmol/s", "per mol, or ms")
    series = _in_time(series.magnitudes() if series.is_complex else series, of.interval_s)
    times = series.each("VolumeTiming")
    times = times - times[0]
    tr_s = series.one("RepetitionTimeExcitation", "RepetitionTime", most=1.0)
    flip_rad = float(np.deg2rad(series.one("FlipAngle", most=180.0)))
    if "EchoTime" in series.settings:
        series.one("EchoTime", most=1.0)
    t1, lacking = _t1(of.t1_s, series)
    images = np.asarray(series.images.data, np.float32)
    enhancing = _strongest(images.reshape(-1, times.size))
    arrival_s, baseline = _before(where, times, enhancing, of)
    end_s = min(WINDOW_S, float(times[-1]) - arrival_s)
    echo = (flip_rad, tr_s, of.relaxivity_l_per_mmol_s)
    arterial = _input(of, series, times, arrival_s, baseline, t1, echo)
    theta = perfusion.dynamic_series(times, arterial)
    delays = (-of.delay_s, of.delay_s) if of.delay_s else None
    kinetics = KINETICS[of.kinetics]
    made = Examination(theta, kinetics, baseline.stop, arrival_s, end_s, delays, *echo)
    t1_sd = of.t1_sd_s
    if isinstance(t1_sd, Volume):
        t1_sd = np.nan_to_num(_aligned("t1_sd", t1_sd, series), posinf=0.0).reshape(-1)
    known = Before(*(jnp.asarray(value, float) for value in (t1, t1_sd, 1.0)))
    return _told(series, of, made), made, known, lacking


def _told(series: Series, of: Dynamic, made: Examination) -> Series:
    """With what the maps' sidecars say of the analysis."""
    aif = of.aif if isinstance(of.aif, str) else "measured"
    said = {
        "KineticModel": of.kinetics,
        "ArterialInput": "mean over a mask" if isinstance(of.aif, Volume) else aif,
        "ArterialInputHaematocrit": None if aif == "measured" else of.haematocrit,
        "BolusArrivalTime": made.arrival_s,
        "BaselineImages": made.before,
        "Relaxivity": of.relaxivity_l_per_mmol_s,
    }
    about = {**(series.about or {}), **{k: v for k, v in said.items() if v is not None}}
    return replace(series, about=about)


def _in_time(series: Series, interval_s: float | None) -> Series:
    """With VolumeTiming, in order of it."""
    about, settings = series.about or {}, series.settings
    if interval_s is None and "VolumeTiming" not in settings:
        interval_s = about.get("TemporalResolution")
        if interval_s is None and {"RepetitionTime", "RepetitionTimeExcitation"} <= {*settings}:
            whole, one = series.one("RepetitionTime"), series.one("RepetitionTimeExcitation")
            interval_s = whole if whole > 1.5 * one else None
    if interval_s is not None:
        check_range("interval between images", interval_s, 0.1, 300.0, "s", "milliseconds")
        timing = interval_s * np.arange(series.readouts)
        return replace(series, settings={**settings, "VolumeTiming": timing})
    if "VolumeTiming" not in settings:
        expected = "VolumeTiming or TemporalResolution in the sidecar, or --interval in s"
        cause = "RepetitionTime is that of the excitations"
        raise InputError(Problem(series.where, "no times of the images", expected, cause))
    return series.sorted_by("VolumeTiming")


def _aligned(where: str, volume: Volume, series: Series) -> np.ndarray:
    if volume.data.ndim != 3 or not volume.same_grid(series.images):
        found = volume.placed if volume.data.ndim == 3 else f"shape {volume.data.shape}"
        expected = f"the images' grid: {series.images.placed}"
        cause = "not resampled to the dynamic series, or of another session"
        raise InputError(Problem(where, found, expected, cause))
    return np.asarray(volume.data, np.float32)


def _t1(t1: float | Volume | None, series: Series) -> tuple[Any, Bool[np.ndarray, "x y z"]]:
    """A number or a map, 1 where it has none, and where that is."""
    where, lacking = "t1", np.zeros(series.images.shape, bool)
    if t1 is None:
        expected = "--t1 with a T1 map before the agent, or one number in s"
        raise InputError(Problem(where, "nothing", expected))
    if not isinstance(t1, Volume):
        check_time_s(where, t1, low=0.05)
        return t1, lacking
    values = _aligned(where, t1, series)
    there = np.isfinite(values) & (values > 0)
    middle = float(np.median(values[there])) if there.any() else 0.0
    if not 0.02 <= middle <= 20.0:
        cause = "milliseconds given for seconds" if middle else "an empty map"
        raise InputError(Problem(where, f"a median of {middle:g} s", "0.02 to 20 s", cause))
    good = there & (values >= 0.02) & (values <= 20.0)
    return np.where(good, values, 1.0).reshape(-1), ~good


def _strongest(rows: Float[np.ndarray, "voxels images"]) -> Float[np.ndarray, " images"]:
    """The mean curve of the bright voxels that enhance most."""
    rows = rows[np.isfinite(rows).all(axis=1)]
    level = rows.mean(axis=1)
    rows = rows[level > 0.3 * np.percentile(level, 99)] if len(rows) else rows
    if not len(rows):
        raise InputError(Problem("dce", "no finite image above 0", "images of tissue"))
    rise = np.percentile(rows, 90, axis=1) - rows[:, :2].mean(axis=1)
    count = min(max(10, round(STRONGEST * len(rows))), len(rows))
    return rows[np.argsort(rise)[-count:]].mean(axis=0)


def _before(
    where: str, times: np.ndarray, curve: Float[np.ndarray, " images"], of: Dynamic
) -> tuple[float, slice]:
    """When the bolus arrives, and the images before."""
    first = curve[: of.baseline or 2].mean()
    found_s = float(jax.jit(perfusion.bolus_arrival_s)(times, curve - first))
    arrival_s = found_s if of.arrival_s is None else of.arrival_s
    check_range("arrival_s", arrival_s, 0.0, float(times[-1]), "s", "milliseconds, or minutes")
    count = int(np.sum(times < arrival_s)) - 1 if of.baseline is None else of.baseline
    if of.baseline is None:
        count = max(count, int(times[0] < arrival_s))
    if not 1 <= count < times.size:
        found = f"{count} images of {times.size}, the bolus arriving at {arrival_s:.3g} s"
        cause = "a series that starts with the bolus, or another --arrival"
        raise InputError(Problem(f"{where}: baseline", found, "one or more before it", cause))
    baseline_mean(where, jnp.asarray(curve)[None], slice(0, count))
    if of.arrival_s is not None and of.arrival_s < times[count - 1]:
        found = f"{count} images until {times[count - 1]:g} s"
        expected = f"images before the bolus at {of.arrival_s:g} s"
        raise InputError(Problem(f"{where}: baseline", found, expected))
    return arrival_s, slice(0, count)


def _input(
    of: Dynamic,
    series: Series,
    times: np.ndarray,
    arrival_s: float,
    baseline: slice,
    t1: Any,
    echo: tuple[float, float, float],
) -> perfusion.ArterialInput:
    if isinstance(of.aif, perfusion.ArterialInput):
        return of.aif
    if isinstance(of.aif, str):
        if of.aif not in POPULATION:
            expected = f"{', '.join(POPULATION)}, a .tsv file or a mask"
            raise InputError(Problem("aif", repr(of.aif), expected))
        end_s = float(times[-1]) - arrival_s + of.delay_s
        after = np.concatenate([np.arange(0.0, 120.0, 0.5), np.arange(120.0, end_s + 2.0, 2.0)])
        blood = POPULATION[of.aif](after)
        return perfusion.arterial_input(arrival_s + after, blood, of.haematocrit)
    inside = np.nan_to_num(_aligned("aif", of.aif, series)) > 0
    rows = np.asarray(series.images.data, np.float32)[inside]
    rows = rows[np.isfinite(rows).all(axis=1)]
    if not len(rows):
        raise InputError(Problem("aif", "no finite voxel in the mask", "voxels of an artery"))
    blood_t1 = of.blood_t1_s
    if blood_t1 is None:
        blood_t1 = float(np.median(t1[inside.reshape(-1)])) if np.ndim(t1) else float(t1)
    flip_rad, tr_s, relaxivity = echo
    blood = perfusion.SpoiledEcho(flip_rad, tr_s, blood_t1, relaxivity)
    c = np.asarray(perfusion.concentration_of_signal(blood, rows.mean(axis=0), baseline))
    if not np.isfinite(c).all():
        found = f"{int(np.isnan(c).sum())} images brighter than full relaxation"
        cause = "inflow, or a T1 of blood that is too short: --blood-t1"
        raise InputError(Problem("aif", found, "signals that a concentration gives", cause))
    return perfusion.arterial_input(times, c, of.haematocrit)


@eqx.filter_jit
def _converted(
    theta: Examination, x: Float[Array, "voxels readouts"], before: Before
) -> tuple[Array, Any]:
    first = slice(0, theta.before)
    errors = perfusion.concentration_errors(theta.echo(before), x, first, before.t1_sd_s)
    return theta.concentration(x, before), errors


@eqx.filter_jit
def _shown(
    theta: Examination,
    x: Float[Array, "voxels readouts"],
    before: Before,
    noise_sd: Float[Array, "voxels"],
) -> tuple[dict[str, Array], dict[str, Array]]:
    """What curves show without a model. The sds of area and peak are those of noise and T1 to first
    order; that of the time to peak, up to twice its error, is over the images which noise may have
    kept from being it, and between images."""

    def seen(x: Array, t1: Array) -> tuple[Array, Array]:
        moved = eqx.tree_at(lambda q: q.t1_s, before, t1)
        c = theta.concentration(x, moved)
        late = perfusion.enhancement(theta.series.times_s, c, theta.arrival_s, theta.window_s)
        return jnp.stack([late.auc, late.peak, late.time_to_peak_s]), c

    t1 = jnp.broadcast_to(before.t1_s, x.shape[:1])
    values, pull, c = jax.vjp(seen, x, t1, has_aux=True)
    sds = []
    for row in jnp.eye(3, dtype=x.dtype)[:2]:
        by_signal, by_t1 = pull(jnp.broadcast_to(row[:, None], values.shape))
        square = noise_sd**2 * jnp.sum(by_signal**2, axis=1)
        sds.append(jnp.sqrt(square + (before.t1_sd_s * by_t1) ** 2))
    times = theta.series.times_s
    late = (times >= theta.arrival_s)[None] & jnp.isfinite(c)
    gap = (c - values[1][:, None]) / (jnp.sqrt(2.0) * jnp.maximum(sds[1], 1e-12))[:, None]
    chance = jnp.where(late, norm.cdf(jnp.where(late, gap, 0.0)), 0.0)
    apart = ((times - theta.arrival_s)[None] - values[2][:, None]) ** 2
    between = jnp.median(jnp.diff(times)) ** 2 / 12
    sds.append(jnp.sqrt(jnp.sum(chance * apart, axis=1) / jnp.sum(chance, axis=1) + between))
    names = ("auc", "peak", "time_to_peak_s")
    return dict(zip(names, values, strict=True)), dict(zip(names, sds, strict=True))


def fit_examination(
    theta: Examination,
    x: Float[Array | np.ndarray, "voxels readouts"],
    noise_sd: Any,
    before: Before,
) -> Any:
    """Kinetic parameters of signals by `mrphys.perfusion.fit_kinetics`, T1's sd carried, with area,
    peak and time to peak; `value` and `sd` by the names of `Examination.fields`.

    `residual` is in units of the signal. FAILED where no concentration gives the signal.
    """
    x = jnp.asarray(x, theta.series.times_s.dtype)
    c, errors = _converted(theta, x, before)
    peak = jnp.max(theta.series.arterial.plasma_mmol_per_l)
    usable = jnp.isfinite(c).all(axis=1) & (jnp.abs(c) <= LARGEST * peak).all(axis=1)
    c = jnp.where(usable[:, None], c, 0.0)
    scale = jnp.where(usable & (errors.scale > 0), errors.scale, 1.0)
    errors = jax.tree.map(lambda v: jnp.where(jnp.isfinite(v), v, 0.0), errors)
    noise = None if noise_sd is None else noise_sd * scale
    found = perfusion.fit_kinetics(
        theta.series, c, theta.kinetics, noise, mask=usable, errors=errors, delay_s=theta.delay_s
    )
    residual = jnp.where(usable, found.residual / scale, 0.0)
    here = residual if noise_sd is None else jnp.full(x.shape[:1], noise_sd, x.dtype)
    values, sds = _shown(theta, x, before, here)
    fitted = found.status != MASKED
    for name in theta.fields:
        if name not in values:
            values[name], sds[name] = getattr(found.value, name), getattr(found.sd, name)
        values[name] = jnp.where(fitted, values[name], 0.0)
        sds[name] = jnp.where(fitted, sds[name], jnp.inf)
    return SimpleNamespace(
        value=SimpleNamespace(**values),
        sd=SimpleNamespace(**sds),
        residual=residual,
        status=jnp.where(fitted, found.status, FAILED),
    )
