"""Fingerprints: flip angles and repetition times for T1 and T2 at once."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, PRNGKeyArray
from scipy.interpolate import BSpline

import mrphys as mr
from learn.constraints import scan_time_s, smooth
from learn.design import optimise_design
from learn.design_studies.study import Line, Panel, Progress, Row, Study, degrees, silent
from mrphys.noise import complex_gaussian
from mrphys.sequence import Train
from mrphys.simulate import TOLERANCE, as_rows
from mrphys.units import check_range

SHORTEST_TR_S, LONGEST_TR_S = 0.0115, 0.016
TE_S = 0.003
LOBE = 200
PEAKS_DEG = (40.0, 70.0, 30.0, 55.0)
UNKNOWN = ("t1_s", "t2_s", "m0")
KNOT = 8
"""Repetitions from one knot of the flips' cubic spline to the next."""
T1_COUNTS = 1.4
"""Times as much as T2, whose bound has more to gain: so that neither is bought with the other."""


def jiang_train(repetitions: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Flips and repetition times in the style of Jiang et al. 2015, doi:10.1002/mrm.25559: lobes of
    200 pulses, half sines from 5° to peaks of 30° to 70°, times that wander from 11.5 to 14.5 ms.
    """
    n = np.arange(repetitions)
    peaks = np.array(PEAKS_DEG)[(n // LOBE) % len(PEAKS_DEG)]
    flips = 5 + (peaks - 5) * np.sin(np.pi * (n % LOBE) / LOBE)
    waves = [np.sin(2 * np.pi * f * n / 500 + phase) for f, phase in ((7, 0), (13, 1), (29, 2))]
    wander = sum(waves) / len(waves)
    return np.deg2rad(flips), SHORTEST_TR_S + 0.0015 * (1 + np.clip(wander, -1, 1))


def splines(repetitions: int) -> np.ndarray:
    """Cubic B-splines of a train, one a column, their knots `KNOT` repetitions apart. They add up
    to 1: trains stay within the limits of their coefficients."""
    last = repetitions - 1.0
    inner = np.linspace(0.0, last, max(round(last / KNOT), 1) + 1)
    knots = np.concatenate([[0.0] * 3, inner, [last] * 3])
    return BSpline.design_matrix(np.arange(repetitions), knots, 3).toarray()


def tissues(count: int = 4, b1: float = 1.0) -> mr.Tissue:
    """A grid of T1 from 0.6 to 2 s and T2 from 40 to 140 ms, count of each."""
    t1, t2 = np.meshgrid(np.geomspace(0.6, 2.0, count), np.geomspace(0.04, 0.14, count))
    return mr.Tissue(t1_s=t1.ravel(), t2_s=t2.ravel(), b1=b1)


def fingerprint(
    repetitions: int = 500,
    *,
    q: mr.Tissue | None = None,
    noise_sd: float = 0.002,
    highest_deg: float = 70.0,
    step_deg: float = 6.0,
    steps: int = 300,
    starts: int = 1,
    draws: int = 32,
    progress: Progress = silent,
) -> Study:
    """An inversion and `repetitions` of FISP that leave T1 and T2 least uncertain, m0 unknown.

    Beside `jiang_train`: no more time, flips of 0 to `highest_deg` that change by at most
    `step_deg` from one to the next and follow a cubic spline (Crafts et al. 2022,
    doi:10.1002/mrm.29212), repetition times of 11.5 to 16 ms in steps of 10 µs. The loss is the
    root mean square of both relative bounds, that of T1 counted `T1_COUNTS` times, averaged over
    the tissues (`tissues` unless given), on resonance. `draws` noisy fingerprints of each tissue
    are fitted with either train (`realised_sd`).

    Zhao et al. 2019, doi:10.1109/TMI.2018.2873704. Raises InputError for values out of range.
    """
    check_range("fingerprint: repetitions", repetitions, 8.0, 3000.0, "repetitions")
    check_range("fingerprint: highest_deg", highest_deg, 70.0, 180.0, "°")
    check_range("fingerprint: step_deg", step_deg, 0.1, 180.0, "°", "radians given for degrees")
    check_range("fingerprint: noise_sd", noise_sd, 1e-9, 10.0, "of m0", "an SNR, or no noise")
    q = tissues() if q is None else q
    flips, tr = jiang_train(repetitions)
    shortest = mr.sequence.fingerprinting_fisp(flips, SHORTEST_TR_S, TE_S)
    orders = shortest.within(q, TOLERANCE).orders

    def build(p) -> Train:
        theta = mr.sequence.fingerprinting_fisp(p["flip_rad"], p["tr_s"], TE_S, on_resonance=True)
        return replace(theta, orders=orders)

    common = build({"flip_rad": flips, "tr_s": tr})
    highest_rad = np.deg2rad(highest_deg)
    spline = splines(repetitions)
    knots = np.linalg.lstsq(spline, flips, rcond=None)[0]
    basis = jnp.asarray(spline, float)
    made = optimise_design(
        lambda p: build({"flip_rad": basis @ p["knots_rad"], "tr_s": p["tr_s"]}),
        {"knots_rad": np.clip(knots, 0.0, highest_rad), "tr_s": tr},
        mr.uncertainty(
            q, ["t1_s", "t2_s"], noise_sd=noise_sd,
            scale={"t1_s": q.t1_s / T1_COUNTS, "t2_s": q.t2_s},
        ),
        limits={"knots_rad": (0.0, highest_rad), "tr_s": (SHORTEST_TR_S, LONGEST_TR_S)},
        constraints=[
            scan_time_s("at most", float(common.scan_time_s)),
            smooth("flips", lambda p: basis @ p["knots_rad"], np.deg2rad(step_deg), "rad"),
        ],
        raster={"tr_s": 1e-5},
        steps=steps, starts=starts, progress=progress,
    )  # fmt: skip
    made = made._replace(start=common)
    key = jax.random.key(0)
    rows, bounds = [], {}
    for when, theta in (("before", made.start), ("after", made.theta)):
        found = mr.cramer_rao(theta, q, ("t1_s", "t2_s"), nuisance=("m0",), noise_sd=noise_sd)
        bounds[when] = {name: np.asarray(sd / getattr(q, name)) for name, sd in found.items()}
        if draws:
            realised = realised_sd(theta, q, noise_sd, key, draws=draws)
            bounds[when] |= {f"{name} fitted": np.asarray(v) for name, v in realised.items()}
    for name, label in (("t1_s", "T1"), ("t2_s", "T2")):
        for suffix, kind in (("", "bound"), (" fitted", "fitted")):
            if name + suffix in bounds["after"]:
                pair = [100 * np.mean(bounds[when][name + suffix]) for when in ("before", "after")]
                rows.append(Row(f"sd of {label}, {kind}", float(pair[0]), float(pair[1]), "%"))
    for label, of in (("scan time", "scan_time_s"), ("pulse energy", "pulse_energy_hz2_s")):
        before, after = (float(getattr(theta, of)) for theta in (made.start, made.theta))
        rows.append(Row(label, before, after, "s" if label == "scan time" else "Hz² s"))
    return Study("fingerprint", "a fingerprint for T1 and T2", made, rows, _panels(made, q, bounds))


def realised_sd(
    theta: Train,
    q: mr.Tissue,
    noise_sd: float,
    key: PRNGKeyArray,
    *,
    draws: int = 32,
) -> dict[str, Float[Array, " voxels"]]:
    """Relative root mean square errors of T1, T2 and m0 when `draws` noisy signals of each voxel
    are fitted (`mrphys.fit`, searching from the truth): what the bound promises."""
    many = jax.tree.map(lambda value: jnp.repeat(value, draws), as_rows(q))
    x = complex_gaussian(theta, mr.simulate(theta, many), noise_sd, key)
    found = mr.fit(theta, x, UNKNOWN, noise_sd, known=many, start=many).value
    errors = {name: getattr(found, name) / getattr(many, name) - 1 for name in UNKNOWN}
    return {
        name: jnp.sqrt(jnp.mean(error.reshape(-1, draws) ** 2, axis=1))
        for name, error in errors.items()
    }


def _panels(made, q: mr.Tissue, bounds: dict) -> list[Panel]:
    number = np.arange(1, np.size(made.variables["tr_s"]) + 1)
    flips, times, signals = [], [], []
    middle = jax.tree.map(lambda value: value[np.size(value) // 2], as_rows(q))
    for when, theta in (("before", made.start), ("after", made.theta)):
        played = theta.blocks[-1]
        flips.append(Line(when, number, degrees(played.flip_rad), when))
        times.append(Line(when, number, 1e3 * np.sum(np.asarray(played.times_s), 1), when))
        signals.append(Line(when, number, np.abs(mr.simulate(theta, middle)), when))
    order = np.argsort(np.asarray(as_rows(q).t2_s), kind="stable")
    spread = [
        Line(f"{label} {when}", 1e3 * np.asarray(as_rows(q).t2_s)[order],
             100 * bounds[when][name][order], when, style)
        for when in ("before", "after")
        for name, label, style in (("t1_s", "T1", "x"), ("t2_s", "T2", "o"))
    ]  # fmt: skip
    return [
        Panel("flips", "repetition", "flip [°]", flips),
        Panel("repetition times", "repetition", "TR [ms]", times),
        Panel("signal of a tissue in the middle", "repetition", "|signal| / m0", signals),
        Panel("bounds", "T2 [ms]", "sd [%]", spread),
    ]
