"""A gradient echo that tells two tissues apart."""

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np

import mrphys as mr
from learn.constraints import Constraint
from learn.constraints import pulse_energy_hz2_s as energy_at_most
from learn.design import optimise_design
from learn.design_studies.study import Line, Panel, Progress, Row, Study, degrees, silent
from mrphys.errors import InputError, Problem
from mrphys.units import check_range

TR_S, LONGEST_TR_S = 0.005, 3.0
TE_S = (0.002, 0.12)


def contrast(
    first: str = "white_matter",
    second: str = "grey_matter",
    total_s: float = 120.0,
    lines: int = 128,
    *,
    field_t: float = 3.0,
    noise_sd: float = 0.05,
    energy_hz2_s: float | None = None,
    steps: int = 80,
    starts: int = 4,
    progress: Progress = silent,
) -> Study:
    """Flip angle, TE and TR of a spoiled gradient echo that show two tissues of the literature most
    unlike in `total_s`.

        CNR = |S_first - S_second| / noise_sd × sqrt(averages),   averages = total_s / (lines TR)

    noise_sd of one average, whose signal is 1 for fully relaxed water; at least one average, and 2
    ms between TE and TR. Where the literature has no proton density of either, they count as equal.
    Raises InputError for a tissue that the literature does not hold and times out of range.
    """
    check_range("contrast: total_s", total_s, 1.0, 7200.0, "s", "milliseconds given for seconds")
    check_range("contrast: lines", lines, 1.0, 4096.0, "lines of k-space")
    if first == second:
        expected = "two tissues that differ"
        raise InputError(Problem("contrast", f"{first} beside itself", expected))
    pair = [mr.tissue.literature(name, field_t) for name in (first, second)]
    if any(mr.tissue.literature_entry(name, field_t).m0 is None for name in (first, second)):
        pair = [replace(tissue, m0=jnp.ones(())) for tissue in pair]
    q = jax.tree.map(lambda *values: jnp.stack(values), *pair)
    longest = min(LONGEST_TR_S, total_s / lines)
    check_range("contrast: total_s / lines", longest, 2 * TR_S, np.inf, "s", "too many lines")

    def build(p):
        averages = total_s / (lines * p["tr_s"])
        theta = mr.sequence.spoiled_gradient_echo(p["flip_rad"], p["te_s"], p["tr_s"])
        return replace(theta, averages=jnp.atleast_1d(averages))

    def cnr(theta):
        x = mr.simulate(theta, q)[:, 0]
        return jnp.abs(x[0] - x[1]) / noise_sd * jnp.sqrt(theta.averages[0])

    start = {"flip_rad": np.deg2rad(30.0), "te_s": 0.003, "tr_s": min(0.1, longest)}
    constraints = [
        Constraint("TR - TE", lambda theta, p: p["tr_s"] - p["te_s"], "at least", 0.002, "s")
    ]
    if energy_hz2_s is not None:
        constraints.append(energy_at_most(energy_hz2_s))
    made = optimise_design(
        build, start, lambda theta: -cnr(theta),
        limits={"flip_rad": (np.deg2rad(1.0), np.pi / 2), "te_s": TE_S, "tr_s": (TR_S, longest)},
        constraints=constraints, steps=steps, starts=starts, progress=progress,
    )  # fmt: skip
    after = made.variables
    rows = [
        Row("flip", float(degrees(start["flip_rad"])), float(degrees(after["flip_rad"])), "°"),
        Row("TE", 1e3 * start["te_s"], 1e3 * float(after["te_s"]), "ms"),
        Row("TR", 1e3 * start["tr_s"], 1e3 * float(after["tr_s"]), "ms"),
        Row("averages", float(made.start.averages[0]), float(made.theta.averages[0])),
        Row("contrast to noise", -made.before, -made.after),
    ]
    return Study(
        "contrast", f"{first} beside {second}".replace("_", " "), made, rows, _panels(made, q)
    )


def _panels(made, q: mr.Tissue) -> list[Panel]:
    decays, marks = [], []
    for when, theta in (("before", made.start), ("after", made.theta)):
        x = np.abs(mr.simulate(theta, q)[:, 0])
        marks.append(Line(when, [0, 1], x, when, "o-"))
    flips = np.linspace(0.01, np.pi / 2, 90)
    for when, theta in (("before", made.start), ("after", made.theta)):
        block = theta.acquisitions[0][0]
        te_s, rest = np.asarray(block.times_s[0])
        many = mr.sequence.spoiled_gradient_echo(flips, te_s, te_s + rest)
        x = np.abs(mr.simulate(many, q))
        decays.append(Line(when, degrees(flips), np.abs(x[0] - x[1]), when))
        here = float(block.flip_rad[0])
        one = np.abs(mr.simulate(theta, q)[:, 0])
        decays.append(Line("", [np.rad2deg(here)], [abs(one[0] - one[1])], when, "o"))
    return [
        Panel("signal of the two", "tissue", "|signal| / water", marks),
        Panel("contrast of one average", "flip [°]", "difference / water", decays),
    ]
