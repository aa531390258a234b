"""When to give drugs, and how much each time: the same total, another timetable.

standard_cycles     doses of 1 every two or three weeks
optimise_schedule   doses on candidate days that leave fewest cells for the same total of each drug

Where a drug kills in proportion to its concentration and cells grow exponentially, ln of what is
left depends on the total alone once the drug is gone: no timetable gains. What can gain is a
largest effect (`Saturating`: small doses often), growth that slows as tumours fill their room, and
an endpoint that counts time (Norton & Simon 1977, Cancer Treat. Rep. 61, 1307).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from learn.constraints import Constraint
from learn.design import Design, optimise_design
from mrphys.errors import InputError, Problem
from oncology.decisions.gain import Gain, gain
from oncology.decisions.regimen import (
    Tumours,
    chemotherapy_of,
    loss_of,
    regimen,
)
from oncology.treatment import Chemotherapy, Plan, Saturating

Drug = Chemotherapy | Saturating


def standard_cycles(
    agents: Sequence[str], first_day: float = 0.0, *, cycles: int = 4, weeks: float = 3.0
) -> tuple[Chemotherapy, ...]:
    """Doses of 1 of each agent every so many weeks: four cycles of doxorubicin and
    cyclophosphamide every three, or every two as dose-dense therapy has it (Citron et al. 2003,
    doi:10.1200/JCO.2003.09.081)."""
    days = first_day + 7 * weeks * np.arange(cycles)
    return tuple(Chemotherapy(days, np.ones(cycles), agent) for agent in agents)


class Schedule(NamedTuple):
    """What was chosen: drugs with doses under 0.001 left out, the search, and the gain on draws
    held out over each standard, by its name."""

    drugs: tuple[Drug, ...]
    design: Design
    gains: dict[str, Gain]


def optimise_schedule(
    tumours: Tumours,
    standards: Mapping[str, Sequence[Drug]],
    until_day: float,
    *,
    days: Sequence[float] | None = None,
    largest_dose: float = 1.0,
    window_days: float = 14.0,
    largest_in_window: float = 1.0,
    objective: str = "expected",
    endpoint: str = "burden",
    others: Plan | None = None,
    tolerance: float = 1e-3,
    starts: int = 3,
    steps: int = 60,
    progress: Callable[[int, int, float], None] = lambda step, of, value: None,
) -> Schedule:
    """Doses of each drug on candidate days, with the total of the standards, that leave fewest
    cells on `until_day`.

    tumours            draws; every second one is held out, to say what was gained
    standards          timetables by name, of the same drugs and totals; the first gives kinetics
    days               candidates: weekly from the first standard day to the last, unless given
    largest_dose       of one day, and `largest_in_window` of any `window_days`, relative: what
                       marrow bears (1 in 14 days is as dose-dense as AC is given)
    objective          "expected" or "worst decile" of the log burden over draws
    endpoint           "burden" on the last day, or "mean burden" over all days
    others             what else is given

    Raises InputError for standards of different drugs or totals, a total that no timetable within
    the limits gives, fewer than four draws, and days beyond `until_day`.
    """
    usual = {name: tuple(drugs) for name, drugs in standards.items()}
    first = next(iter(usual.values()))
    totals = _totals(usual)
    every = np.concatenate([np.asarray(d.days) for drugs in usual.values() for d in drugs])
    chosen_days = np.arange(every.min(), every.max() + 1, 7.0) if days is None else np.array(days)
    _check(tumours, chosen_days, until_day, totals, largest_dose, window_days, largest_in_window)
    plans = others or Plan()
    chosen_on, told_on = tumours.some(slice(0, None, 2)), tumours.some(slice(1, None, 2))
    blank = tuple(_given(drug, chosen_days, np.zeros(chosen_days.size)) for drug in first)
    base = regimen(tumours, chemotherapy_of(plans, blank), until_day, tolerance)
    begun = np.full(chosen_days.size, 1 / chosen_days.size)
    inside = np.abs(chosen_days[:, None] - chosen_days) < window_days
    ahead = (inside & (chosen_days[:, None] <= chosen_days)).astype(float)
    kept = []
    for agent, total in totals.items():
        kept += [
            Constraint(
                f"total of {agent}", lambda theta, p, a=agent: jnp.sum(p[a]), "equal to", total
            ),
            Constraint(
                f"{agent} in {window_days:g} days",
                lambda theta, p, a=agent: ahead @ p[a],
                "at most",
                largest_in_window,
            ),
        ]
    made = optimise_design(
        lambda p: base.given(p),
        {agent: total * begun for agent, total in totals.items()},
        loss_of(chosen_on, objective, endpoint),
        limits={agent: (0.0, largest_dose) for agent in totals},
        constraints=kept,
        starts=starts,
        steps=steps,
        progress=progress,
    )
    drugs = tuple(_trimmed(drug, chosen_days, made.variables[drug.agent]) for drug in first)
    instead = regimen(tumours, chemotherapy_of(plans, drugs), until_day, tolerance)
    gains = {
        name: gain(
            told_on,
            regimen(tumours, chemotherapy_of(plans, standard), until_day, tolerance),
            instead,
            endpoint,
        )
        for name, standard in usual.items()
    }
    return Schedule(drugs, made, gains)


def _totals(standards: Mapping[str, tuple[Drug, ...]]) -> dict[str, float]:
    """Of each drug. Raises InputError where standards differ."""
    totals = {
        name: {drug.agent: float(drug.doses.sum()) for drug in drugs}
        for name, drugs in standards.items()
    }
    (first, expected), *rest = totals.items()
    for name, found in rest:
        if found.keys() != expected.keys() or any(
            abs(found[a] - expected[a]) > 1e-6 * expected[a] for a in expected
        ):
            problem = Problem(
                f"standard {name!r}", f"totals {found}", f"those of {first!r}: {expected}"
            )
            raise InputError(problem)
    return expected


def _check(
    tumours: Tumours,
    days: np.ndarray,
    until_day: float,
    totals: Mapping[str, float],
    largest_dose: float,
    window_days: float,
    largest_in_window: float,
) -> None:
    where, problems = "optimise_schedule", []
    if tumours.draws < 4:
        expected = "four or more: half of them are held out"
        problems.append(Problem(where, f"{tumours.draws} draws", expected))
    if days.size < 1 or days.max() >= until_day or days.min() < tumours.start_day:
        found = f"days {days.min():g} to {days.max():g}" if days.size else "no day"
        expected = f"days from {tumours.start_day:g} to before {until_day:g}"
        problems.append(Problem(f"{where}: days", found, expected))
    elif problems == []:
        spans = 1 + np.floor((days.max() - days.min()) / window_days)
        most = min(
            days.size * largest_dose, spans * min(largest_in_window, days.size * largest_dose)
        )
        for agent, total in totals.items():
            if total > most * (1 + 1e-9):
                found = f"a total of {total:g}, at most {most:g} in these days"
                cause = "too few days, or limits too low"
                problems.append(Problem(f"{where}: {agent}", found, "room for it", cause))
    if problems:
        raise InputError(*problems)


def _given(drug: Drug, days: np.ndarray, doses: np.ndarray) -> Drug:
    """The same drug on other days."""
    course = drug.course if isinstance(drug, Saturating) else drug
    moved = eqx.tree_at(lambda d: (d.days, d.doses), course, (days, doses))
    return Saturating(moved) if isinstance(drug, Saturating) else moved


def _trimmed(drug: Drug, days: np.ndarray, doses: Array) -> Drug:
    found = np.asarray(doses, float)
    return _given(drug, days[found > 1e-3], found[found > 1e-3])
