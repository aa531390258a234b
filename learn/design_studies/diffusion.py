"""b-values and averages for the apparent diffusion coefficient."""

from collections.abc import Sequence

import jax.numpy as jnp
import numpy as np

import mrphys as mr
from learn.constraints import Constraint
from learn.design import optimise_design
from learn.design_studies.study import Line, Panel, Progress, Row, Study, silent
from mrphys.units import check_adc_mm2_per_s, check_range, check_time_s

KNOWN_B_ADC = {False: 1.1089, True: 1.2785}
"""b ADC of two points at one echo time, averages free or not: x = 1 + exp(-x) or 1 + exp(-2x),
where (1 + exp(x)) / x or (1 + exp(2x)) / x² is least. Xing et al. 1997,
doi:10.1016/S0730-725X(97)00037-4."""
HIGHEST_B = 5000.0


def diffusion(
    adc_mm2_per_s: Sequence[float] = (1e-3,),
    te_s: float = 0.075,
    averages: float = 16.0,
    b_values: int = 2,
    *,
    free_averages: bool = True,
    rician_snr: float | None = None,
    steps: int = 80,
    starts: int = 1,
    progress: Progress = silent,
) -> Study:
    """b-values beside b = 0 that leave the ADC least uncertain, m0 unknown, at a fixed echo time.

    `averages` in all, shared equally or as is best. `rician_snr`: magnitudes, of this SNR at b = 0
    in one average. Raises InputError for values out of range.
    """
    check_adc_mm2_per_s("diffusion: adc_mm2_per_s", list(adc_mm2_per_s))
    check_range("diffusion: b_values", b_values, 2.0, 16.0, "b-values, b = 0 among them")
    check_range("diffusion: averages", averages, float(b_values), np.inf, "averages", "one of each")
    check_range("diffusion: adc_mm2_per_s", list(adc_mm2_per_s), 1e-5, 0.01, "mm²/s")
    check_time_s("diffusion: te_s", te_s, high=1.0)
    if rician_snr is not None:
        check_range("diffusion: rician_snr", rician_snr, 0.1, np.inf, "", "decibels, or a noise sd")
    q = mr.Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=jnp.asarray(adc_mm2_per_s))

    def build(p):
        b = jnp.concatenate([jnp.zeros(1), p["b_s_per_mm2"]])
        return mr.sequence.diffusion_weighted(b, te_s, averages=p.get("averages", equal))

    equal = averages / b_values
    typical = float(np.mean(adc_mm2_per_s))
    start = {"b_s_per_mm2": np.minimum(np.linspace(0.4, 0.8, b_values)[1:] / typical, 4900.0)}
    limits = {"b_s_per_mm2": (1.0, HIGHEST_B)}
    constraints = []
    if free_averages:
        start["averages"] = np.full(b_values, equal)
        limits["averages"] = (1e-2 * equal, averages)
        constraints = [
            Constraint("averages", lambda theta, p: jnp.sum(p["averages"]), "equal to", averages)
        ]
    first = mr.sequence.diffusion_weighted([0.0], te_s).signal(mr.Tissue(t1_s=1.0, t2_s=0.08))
    noise_sd = float(first.real[0]) / (rician_snr or 100.0)
    loss = mr.uncertainty(q, ["adc_mm2_per_s"], noise_sd=noise_sd, rician=rician_snr is not None)
    made = optimise_design(
        build, start, loss, limits=limits, constraints=constraints,
        steps=steps, starts=starts, progress=progress,
    )  # fmt: skip
    order = np.argsort(np.asarray(made.variables["b_s_per_mm2"]))
    plain = b_values == 2 and len(adc_mm2_per_s) == 1 and rician_snr is None
    rows = [
        Row(
            f"b-value {i + 2}",
            float(start["b_s_per_mm2"][i]),
            float(made.variables["b_s_per_mm2"][j]),
            "s/mm²",
            KNOWN_B_ADC[free_averages] / typical if plain else None,
        )
        for i, j in enumerate(order)
    ]
    if free_averages:
        share = np.asarray(made.theta.averages)[np.concatenate([[0], 1 + order])]
        rows += [Row(f"averages of b-value {i + 1}", equal, float(n)) for i, n in enumerate(share)]
    snr = f"SNR {rician_snr or 100:g}"
    rows.append(Row(f"sd of ADC at {snr} of b = 0", 100 * made.before, 100 * made.after, "%"))
    adc = np.linspace(0.3, 3.0, 60) * 1e-3
    wide = mr.Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=adc)
    lines, points = [], []
    for when, theta in (("before", made.start), ("after", made.theta)):
        sd = mr.cramer_rao(theta, wide, noise_sd=noise_sd, rician=rician_snr is not None)
        lines.append(Line(when, 1e3 * adc, 100 * np.asarray(sd["adc_mm2_per_s"]) / adc, when))
        points.append(Line(when, theta.b_s_per_mm2, theta.averages, when, "o"))
    panels = [
        Panel("acquisition", "b [s/mm²]", "averages", points),
        Panel("bound", "ADC [1e-3 mm²/s]", "sd of ADC [%]", lines),
    ]
    return Study("diffusion", "b-values for the ADC", made, rows, panels)
