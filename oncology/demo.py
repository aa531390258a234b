"""The virtual patient from acquisition to forecast, the gradient through all of it, and a better
acquisition for it."""

from collections.abc import Callable
from dataclasses import dataclass

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from learn.constraints import Variables, scan_time_s
from learn.design import Design, optimise_design
from mrphys.sequence.diffusion import DiffusionWeighted
from oncology.calibration import largest
from oncology.chain import Chain, inside
from oncology.cohort import Patient
from oncology.domain import Crop, model_for
from oncology.observe import CellularityMap
from oncology.priors import default_priors
from oncology.scores import scored_region
from oncology.timeline import steps_between
from oncology.treatment import plan
from oncology.virtual_patient import (
    NOISE_SD,
    SCALE,
    TOLERANCE,
    TRUTH,
    VirtualPatient,
    default_acquisition,
    grow,
    scanned_patient,
)

HIGHEST_B_S_PER_MM2 = 3000.0


def demo_chain() -> tuple[Chain, VirtualPatient]:
    """The demo's patient on the demo's own grid, as one differentiable chain."""
    virtual = grow()
    patient = scanned_patient(virtual, default_acquisition(), jax.random.key(0))
    return chain_of(virtual, patient), virtual


def chain_of(virtual: VirtualPatient, patient: Patient) -> Chain:
    """Scan on the first two days, forecast the third."""
    shape = virtual.t1w.shape
    crop = Crop(tuple((0, n) for n in shape), shape)
    model = model_for(patient, crop)
    treatments = plan(virtual.treatments)
    priors = default_priors(treatments)
    first, second, third = virtual.days
    legs = [
        steps_between(
            model,
            treatments,
            start,
            end,
            largest_diffusivity_mm2_per_day=largest(priors, "diffusivity_mm2_per_day"),
            largest_growth_rate_per_day=largest(priors, "growth_rate_per_day", 1.0),
            tolerance=TOLERANCE,
        )
        for start, end in ((first, second), (second, third))
    ]
    habitable = np.asarray(model.habitable)
    masks = [virtual.visible(i) & habitable for i in range(3)]
    blank = tuple(
        CellularityMap(np.zeros(shape), np.ones(shape), mask, habitable, model.spacing_mm)
        for mask in masks[:2]
    )
    return Chain(
        model=model,
        plan=treatments,
        legs=(legs[0],),
        ahead=legs[1],
        priors=priors,
        tissue=tuple(inside(virtual.tissue[i], masks[i]) for i in range(2)),
        blank=blank,
        first_state=jnp.asarray(np.where(habitable, virtual.cellularity[0], 0.0)),
        truth=jnp.asarray(virtual.cellularity[2]),
        scored=jnp.asarray(scored_region((masks[1], masks[2]), habitable, model.spacing_mm)),
        scale=SCALE,
        noise_sd=NOISE_SD,
    )


@dataclass(frozen=True)
class GradientCheck:
    """One component of the gradient beside its central difference."""

    name: str
    value: float
    gradient: float
    finite_difference: float

    @property
    def relative_difference(self) -> float:
        """|gradient - difference| / |difference|."""
        return abs(self.gradient - self.finite_difference) / abs(self.finite_difference)


def check_gradient(
    chain: Chain,
    theta: DiffusionWeighted,
    key: Array,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> list[GradientCheck]:
    """d(forecast error)/d(each b-value and each number of averages), by one reverse pass through
    the chain and by central differences of the whole chain, noise draw fixed.

    Differences are Richardson's from steps h and h/2, h being 1 % of the value.
    """
    count = theta.b_s_per_mm2.size
    start = jnp.concatenate([theta.b_s_per_mm2, theta.averages])

    def error(values: Array) -> Array:
        b, averages = values[:count], values[count:]
        return chain.error(DiffusionWeighted(b, theta.te_s, theta.tr_s, averages), key)

    of = 1 + 4 * start.size
    gradient = jax.jit(jax.grad(error))(start).block_until_ready()
    progress(1, of)
    run = jax.jit(error)
    names = [f"b{i + 1}, s/mm²" for i in range(count)]
    names += [f"averages at b{i + 1}" for i in range(count)]
    checks = []
    for i, name in enumerate(names):
        differences = []
        for j, step in enumerate((1e-2, 5e-3)):
            h = step * max(float(start[i]), 100.0 if i < count else 1.0)
            plus, minus = (run(start.at[i].add(sign * h)) for sign in (1, -1))
            differences.append(float(plus - minus) / (2 * h))
            progress(1 + 4 * i + 2 * (j + 1), of)
        extrapolated = (4 * differences[1] - differences[0]) / 3
        checks.append(GradientCheck(name, float(start[i]), float(gradient[i]), extrapolated))
    return checks


def truth_coordinates(chain: Chain) -> Array:
    """The true parameters as coordinates z of the priors."""
    return jnp.array(
        [
            np.log(TRUTH[name] / prior.median) / prior.log_sd if name in TRUTH else 0.0
            for name, prior in chain.priors.items()
        ]
    )


def improve_design(
    chain: Chain,
    theta: DiffusionWeighted,
    progress: Callable[[int, int, float], None] = lambda step, of, loss: None,
) -> Design:
    """The b-values and averages that leave the forecast's total least uncertain, at θ's scan
    time, for the tumour as it truly is (a locally optimal design, Chernoff 1953,
    doi:10.1214/aoms/1177728915)."""
    z = truth_coordinates(chain)
    first = chain.first_state
    linear = eqx.filter_jit(Chain.linearised)(chain, z, first)
    lowest, total = theta.b_s_per_mm2[:1], float(jnp.sum(theta.averages))

    def build(p: Variables) -> DiffusionWeighted:
        b = jnp.concatenate([lowest, p["b_s_per_mm2"]])
        return DiffusionWeighted(b, theta.te_s, theta.tr_s, p["averages"])

    return optimise_design(
        build,
        {"b_s_per_mm2": theta.b_s_per_mm2[1:], "averages": theta.averages},
        lambda design: chain.uncertainty(design, z, linear),
        limits={"b_s_per_mm2": (1.0, HIGHEST_B_S_PER_MM2), "averages": (1.0, total)},
        constraints=[scan_time_s("equal to", float(theta.scan_time_s))],
        steps=40,
        progress=progress,
    )
