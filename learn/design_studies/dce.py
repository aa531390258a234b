"""When to sample a contrast-enhanced series."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from learn.constraints import Constraint
from learn.design import optimise_design
from learn.design_studies.study import Line, Panel, Progress, Row, Study, silent
from mrphys.information import fisher_information, standard_deviations
from mrphys.units import check_range

NAMES = ("ktrans_per_min", "ve", "vp")
TISSUE = (0.15, 0.25, 0.04)
FINE_S = 0.5


def parker_mm(t_s: ArrayLike) -> Float[Array, "..."]:
    """Concentration in blood plasma, mM, t after a bolus arrives (haematocrit 0.42):

        Σ_n A_n / (σ_n √2π) exp(-(t - T_n)² / 2σ_n²) + α exp(-β t) / (1 + exp(-s (t - τ)))

    of Parker et al. 2006, doi:10.1002/mrm.21066, in minutes; 0 before.
    """
    t = jnp.asarray(t_s, float) / 60
    first = 0.809 / (0.0563 * np.sqrt(2 * np.pi)) * jnp.exp(-((t - 0.17046) ** 2) / 2 / 0.0563**2)
    second = 0.330 / (0.132 * np.sqrt(2 * np.pi)) * jnp.exp(-((t - 0.365) ** 2) / 2 / 0.132**2)
    slow = 1.050 * jnp.exp(-0.1685 * t) / (1 + jnp.exp(-38.078 * (t - 0.483)))
    return jnp.where(t > 0, (first + second + slow) / (1 - 0.42), 0.0)


def extended_tofts_mm(
    p: Float[Array, "3"], t_s: Float[Array, " samples"], arrival_s: float, end_s: float
) -> Float[Array, " samples"]:
    """vp Cp(t) + Ktrans ∫₀ᵗ Cp(u) exp(-Ktrans (t - u) / ve) du, by trapezoids of half a second and
    linear between them. Tofts et al. 1999, Journal of Magnetic Resonance Imaging 10:223-232.
    """
    ktrans, ve, vp = p[0] / 60, p[1], p[2]
    fine = jnp.arange(0.0, end_s + FINE_S, FINE_S)
    plasma = parker_mm(fine - arrival_s)
    later = fine[:, None] - fine[None, :]
    kernel = jnp.where(later >= 0, jnp.exp(-ktrans / ve * jnp.maximum(later, 0.0)), 0.0)
    kernel = kernel * jnp.where(later == 0, 0.5, 1.0)
    leaked = ktrans * FINE_S * (kernel @ plasma)
    return jnp.interp(t_s, fine, vp * plasma + leaked)


def dce(
    samples: int = 24,
    total_s: float = 300.0,
    *,
    shortest_s: float = 2.0,
    arrival_s: float = 20.0,
    tissue: tuple[float, float, float] = TISSUE,
    noise_mm: float = 0.03,
    steps: int = 200,
    starts: int = 4,
    progress: Progress = silent,
) -> Study:
    """Times of `samples` images within `total_s` that leave Ktrans, ve and vp least uncertain.

    No two closer than `shortest_s`, beside even sampling. The model is extended Tofts with
    Parker's arterial input, known and arriving at `arrival_s`; noise_mm is the sd of a
    concentration. The loss is the root mean square of the three relative bounds, averaged over
    arrivals up to 4 s early and late, so that no sample leans on a moment of the bolus that nobody
    knows beforehand.

    Raises InputError where the samples do not fit: which limit, and by how much.
    """
    check_range("dce: samples", samples, 4.0, 1000.0, "samples", "three unknowns")
    check_range("dce: total_s", total_s, arrival_s + 10, 3600.0, "s", "minutes given for seconds")
    check_range("dce: tissue", np.array(tissue), 1e-4, 5.0, "Ktrans per minute, ve, vp")
    cause = "per cent given for fractions"
    check_range("dce: ve, vp", list(tissue[1:]), 0.0, 1.0, "of the voxel", cause)
    check_range("dce: ve + vp", tissue[1] + tissue[2], 0.0, 1.0, "of the voxel", cause)
    check_range("dce: shortest_s", shortest_s, 0.01, total_s, "s", "milliseconds, or a sign")
    values = jnp.asarray(tissue, float)
    arrivals = arrival_s + np.array([-4.0, 0.0, 4.0])

    def sds(times: Array, arrival: float) -> Array:
        found = fisher_information(
            lambda p: extended_tofts_mm(p, times, arrival, total_s), values, noise_mm
        )
        return standard_deviations(found) / values

    def loss(times: Array) -> Array:
        each = [jnp.sqrt(jnp.mean(sds(times, float(arrival)) ** 2)) for arrival in arrivals]
        return jnp.mean(jnp.stack(each))

    even = np.linspace(0.0, total_s, samples)
    made = optimise_design(
        lambda p: p["times_s"], {"times_s": even}, loss,
        limits={"times_s": (0.0, total_s)},
        constraints=[
            Constraint(
                "time between samples", lambda theta, p: jnp.diff(theta),
                "at least", shortest_s, "s",
            )
        ],
        steps=steps, starts=starts, progress=progress,
    )  # fmt: skip
    before, after = (np.asarray(sds(jnp.asarray(t), arrival_s)) for t in (made.start, made.theta))
    labels = ("Ktrans", "ve", "vp")
    rows = [
        Row(f"sd of {label}", 100 * float(a), 100 * float(b), "%")
        for label, a, b in zip(labels, before, after, strict=True)
    ]
    fine = jnp.linspace(0.0, total_s, 400)
    lines = [Line("", fine, extended_tofts_mm(values, fine, arrival_s, total_s), "0.8")]
    for when, times in (("before", made.start), ("after", made.theta)):
        seen = extended_tofts_mm(values, times, arrival_s, total_s)
        lines.append(Line(when, times, seen, when, "o" if when == "after" else "|"))
    gaps = [
        Line(when, np.arange(1, samples), np.diff(np.asarray(times)), when, ".-")
        for when, times in (("before", made.start), ("after", made.theta))
    ]
    panels = [
        Panel("samples", "time [s]", "concentration [mM]", lines),
        Panel("time to the next", "sample", "s", gaps),
    ]
    return Study("dce", "when to sample a DCE series", made, rows, panels)
