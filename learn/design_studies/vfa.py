"""Variable flip angles for T1."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

import mrphys as mr
from learn.constraints import Constraint
from learn.design import optimise_design
from learn.design_studies.study import Line, Panel, Progress, Row, Study, degrees, silent
from mrphys.units import check_range, check_time_s

LOWEST_RAD, HIGHEST_RAD = np.deg2rad(0.5), np.deg2rad(90.0)


def known_flips_rad(t1_s: float, tr_s: float) -> tuple[float, float]:
    """The two flips of least T1 variance at equal averages, where the signal is 1/√2 of Ernst's:

        tan(α/2) = (√2 ± 1) sqrt((1 - E1) / (1 + E1)),   E1 = exp(-TR/T1)

    Deoni, Rutt, Peters 2003, doi:10.1002/mrm.10407; Schabel, Morrell 2009,
    doi:10.1088/0031-9155/54/1/N01.
    """
    e1 = np.exp(-tr_s / t1_s)
    root = np.sqrt((1 - e1) / (1 + e1))
    low, high = (2 * np.arctan((np.sqrt(2) + sign) * root) for sign in (-1, 1))
    return float(low), float(high)


def vfa(
    t1_s: Sequence[float] = (1.0,),
    tr_s: float = 0.015,
    flips: int = 2,
    *,
    averages: float = 1.0,
    free_averages: bool = False,
    steps: int = 60,
    starts: int = 1,
    progress: Progress = silent,
) -> Study:
    """Flip angles of an ideally spoiled gradient echo that leave T1 least uncertain, m0 unknown;
    several T1 count alike. `averages` of each flip, or as their mean where they are free too.

    Raises InputError for times out of range, and fewer than two flips.
    """
    check_time_s("vfa: t1_s", list(t1_s), low=1e-3)
    check_range("vfa: tr_s", tr_s, 1e-4, 5.0, "s", "milliseconds given for seconds")
    check_range("vfa: flips", flips, 2.0, 16.0, "flip angles", "two unknowns, T1 and m0")
    q = mr.Tissue(t1_s=jnp.asarray(t1_s), t2_s=jnp.asarray(t1_s) / 10)
    loss = mr.uncertainty(q, ["t1_s"], noise_sd=1e-3)

    def build(p):
        return mr.sequence.spoiled_gradient_echo(
            p["flip_rad"], 0.0, tr_s, averages=p.get("averages", averages)
        )

    ernst = np.arccos(np.exp(-tr_s / np.mean(t1_s)))
    start = {"flip_rad": np.clip(ernst * np.linspace(0.7, 1.5, flips), 0.01, 1.5)}
    limits = {"flip_rad": (LOWEST_RAD, HIGHEST_RAD)}
    constraints = []
    if free_averages:
        start["averages"] = np.full(flips, averages)
        limits["averages"] = (1e-2 * averages, flips * averages)
        constraints = [
            Constraint(
                "averages", lambda theta, p: jnp.sum(p["averages"]), "equal to", flips * averages
            )
        ]
    made = optimise_design(
        build, start, loss, limits=limits, constraints=constraints,
        steps=steps, starts=starts, progress=progress,
    )  # fmt: skip
    known = known_flips_rad(t1_s[0], tr_s) if (flips, len(t1_s)) == (2, 1) else None
    if free_averages:
        known = None
    order = np.argsort(np.asarray(made.variables["flip_rad"]))
    rows = [
        Row(
            f"flip angle {i + 1}",
            float(degrees(start["flip_rad"])[i]),
            float(degrees(made.variables["flip_rad"])[j]),
            "°",
            None if known is None else float(np.rad2deg(known[i])),
        )
        for i, j in enumerate(order)
    ]
    if free_averages:
        after = np.asarray(made.variables["averages"])[order]
        rows += [Row(f"averages {i + 1}", averages, float(n)) for i, n in enumerate(after)]
    rows.append(Row("sd of T1 at SNR 1000 of m0", 100 * made.before, 100 * made.after, "%"))
    return Study(
        "vfa", "flip angles for T1", made, rows, _panels(q, tr_s, start["flip_rad"], made.variables)
    )


def _panels(q: mr.Tissue, tr_s: float, start: np.ndarray, after: dict) -> list[Panel]:
    flips = np.linspace(LOWEST_RAD, max(1.3 * float(np.max(after["flip_rad"])), 0.3), 200)
    signal = np.abs(mr.simulate(mr.sequence.spoiled_gradient_echo(flips, 0.0, tr_s), q))
    lines = [Line("", degrees(flips), row, "0.8") for row in signal]
    for when, chosen in (("before", start), ("after", after["flip_rad"])):
        at = np.abs(mr.simulate(mr.sequence.spoiled_gradient_echo(chosen, 0.0, tr_s), q))
        lines += [
            Line(when if i == 0 else "", degrees(chosen), row, when, "o")
            for i, row in enumerate(at)
        ]
    t1 = np.geomspace(0.3, 3.0, 60)
    wide = mr.Tissue(t1_s=t1, t2_s=t1 / 10)
    bounds = [
        Line(when, t1, 100 * np.asarray(_sd(chosen, tr_s, wide)) / t1, when)
        for when, chosen in (("before", start), ("after", after["flip_rad"]))
    ]
    return [
        Panel("signal", "flip [°]", "signal / m0", lines),
        Panel("bound at equal averages", "T1 [s]", "sd of T1 [%]", bounds),
    ]


def _sd(flips, tr_s: float, q: mr.Tissue):
    theta = mr.sequence.spoiled_gradient_echo(flips, 0.0, tr_s)
    return mr.cramer_rao(theta, q, ("t1_s",), nuisance=("m0",), noise_sd=1e-3)["t1_s"]
