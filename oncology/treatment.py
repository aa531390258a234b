"""Everything given to a patient, one point at a time.

Chemotherapy, Immunotherapy      oncology/chemotherapy.py
Radiotherapy, Radionuclide       oncology/radiotherapy.py
Resection                        cells cut out on a day
Plan, plan                       a patient's treatments as these
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from oncology.chemotherapy import Chemotherapy, Immunotherapy, Saturating
from oncology.radiotherapy import Radionuclide, Radiotherapy, linear_quadratic
from oncology.schedule import Treatment

__all__ = [
    "Chemotherapy",
    "Plan",
    "Radionuclide",
    "Radiotherapy",
    "Resection",
    "linear_quadratic",
    "plan",
]

RESECTED_DENSITY = 0.16
"""Density a surgeon sees, that at the edge of the T2/FLAIR abnormality (Swanson 2008,
doi:10.1038/sj.bjc.6604125)."""


class Resection(eqx.Module):
    """A share (`extent`, 0 to 1) of the visible tumour is cut out on one day: all of the cavity
    where the model knows it, else where density exceeds `density`, softened over 0.02.

    Raises InputError for an extent beyond 0 to 1.
    """

    day: float = eqx.field(static=True)
    extent: float = eqx.field(static=True, default=1.0)
    density: float = eqx.field(static=True, default=RESECTED_DENSITY)

    def __check_init__(self):
        if not 0 <= self.extent <= 1:
            found, cause = f"an extent of {self.extent:g}", "a percentage"
            raise InputError(Problem("Resection", found, "0 to 1 of the tumour", cause))

    def remaining(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """What is left of a density without a known cavity."""
        return u * (1 - self.extent * jax.nn.sigmoid((u - self.density) / 0.02))


class Plan(eqx.Module):
    """Everything given to one patient that the model knows.

    `sensitisers` name agents of `chemotherapy` that make radiation more effective by a factor of
    1 + `sensitisation_<agent>` times their concentration at the fraction.
    """

    chemotherapy: tuple[Chemotherapy | Saturating, ...] = ()
    radiotherapy: Radiotherapy | None = None
    radionuclides: tuple[Radionuclide, ...] = ()
    resections: tuple[Resection, ...] = ()
    sensitisers: tuple[str, ...] = eqx.field(static=True, default=())

    @property
    def event_days(self) -> tuple[float, ...]:
        """Days on which something changes abruptly, each once, in order."""
        days = [d for agent in self.chemotherapy for d in agent.days.tolist()]
        days += [d for source in self.radionuclides for d in source.days.tolist()]
        days += [resection.day for resection in self.resections]
        if self.radiotherapy is not None:
            days += self.radiotherapy.event_days
        return tuple(sorted(set(days)))

    def drug_kill(
        self, p: Mapping[str, ArrayLike], start_day: ArrayLike, end_day: ArrayLike
    ) -> Array | float:
        """Loss of ln u between two days by all drugs where they are fully delivered."""
        return sum((agent.kill(p, start_day, end_day) for agent in self.chemotherapy), 0.0)

    def sensitisation(self, p: Mapping[str, ArrayLike], day: ArrayLike) -> Array | float:
        """By what radiosensitivity is multiplied on a day."""
        factor = 1.0
        for agent in self.chemotherapy:
            if agent.agent in self.sensitisers:
                strength = jnp.asarray(p[f"sensitisation_{agent.agent}"])
                factor = factor + strength * agent.concentration(p, day)
        return factor


def plan(treatments: Iterable[Treatment]) -> Plan:
    """The treatments of a patient folder: drugs and radionuclides agent by agent, each with the
    simplest kinetics; fractions; resections, whose dose is the extent."""
    given = tuple(treatments)

    def courses(kind: str, build: Callable[..., Any]) -> list:
        agents = sorted({t.agent for t in given if t.kind == kind})
        rows = [[t for t in given if t.kind == kind and t.agent == a] for a in agents]
        return [
            build(np.array([t.day for t in row]), np.array([t.dose for t in row]), agent)
            for agent, row in zip(agents, rows, strict=True)
        ]

    fractions = [t for t in given if t.kind == "radiotherapy"]
    drugs = courses("chemotherapy", Chemotherapy) + courses("immunotherapy", Immunotherapy)
    return Plan(
        chemotherapy=tuple(drugs),
        radiotherapy=Radiotherapy(
            np.array([t.day for t in fractions]), np.array([t.dose for t in fractions])
        )
        if fractions
        else None,
        radionuclides=tuple(courses("radionuclide", Radionuclide)),
        resections=tuple(Resection(t.day, t.dose) for t in given if t.kind == "resection"),
    )
