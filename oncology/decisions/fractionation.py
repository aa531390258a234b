r"""How to divide radiotherapy: doses that leave fewest cells for what an organ at risk can bear.

For fractions d_j far apart the biologically effective dose is

.. math:: BED = \sum_j s d_j \Big(1 + \frac{s d_j}{α/β}\Big),

s the share of the dose that the tissue gets (1 in a tumour). At one BED of the organ the tumour's
is B/s + Σ d² (1/ρ_T - s/ρ_O), with ρ the two α/β: without repopulation few large fractions are
best where α/β of the tumour is below that of the organ over s, many small ones where it is above
(Mizuta et al. 2012, Int. J. Radiat. Oncol. Biol. Phys. 84, 829). Repopulation shortens (Bortfeld et
al. 2015, doi:10.1287/ijoc.2015.0659).
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from learn.constraints import Constraint, Variables
from learn.design import Design, optimise_design
from mrphys.errors import InputError, Problem
from mrphys.units import check_range
from oncology.decisions.gain import Gain, gain
from oncology.decisions.regimen import (
    Regimen,
    Tumours,
    loss_of,
    regimen,
)
from oncology.priors import LogNormal
from oncology.radiotherapy import ALPHA_OVER_BETA_GY, Radiotherapy
from oncology.treatment import Plan

LARGEST_FRACTION_GY = 10.0
"""Up to which the linear-quadratic model is reasonably well validated (Brenner 2008, Semin. Radiat.
Oncol. 18, 234)."""


TUMOUR_RATIO = LogNormal(
    ALPHA_OVER_BETA_GY, 0.3, "Gy", "early-responding tumours: Barendsen 1982; its spread assumed"
)
"""Of the tumour's α/β, where nothing else is known of it."""


class Organ(NamedTuple):
    """Tissue that must be spared: its α/β in Gy, and the share of the tumour's dose it gets.

    The default is necrosis of the brain, α/β = 3 Gy: 5 % of it at a BED of 120 Gy, 72 Gy in
    fractions of 2 (Lawrence et al. 2010, Int. J. Radiat. Oncol. Biol. Phys. 76, S20).
    """

    alpha_over_beta_gy: float = 3.0
    share: float = 1.0
    name: str = "brain"

    def bed_gy(self, doses_gy: Float[Array, " fractions"] | np.ndarray) -> Array:
        """Biologically effective dose of fractions far apart.

        >>> round(float(Organ().bed_gy(jnp.full(36, 2.0))), 9)
        120.0
        """
        dose = self.share * jnp.asarray(doses_gy)
        return jnp.sum(dose * (1 + dose / self.alpha_over_beta_gy))


def weekdays(first_day: float, fractions: int, holidays: Sequence[int] = (5, 6)) -> np.ndarray:
    """Days of daily fractions, the first on a Monday, none on the days of the week `holidays`.

    >>> weekdays(3.0, 6)
    array([ 3.,  4.,  5.,  6.,  7., 10.])
    """
    every = np.arange(7 * fractions)
    return first_day + every[~np.isin(every % 7, list(holidays))][:fractions].astype(float)


def standard_course(first_day: float = 0.0, fractions: int = 30, dose_gy: float = 2.0):
    """30 fractions of 2 Gy on weekdays: Stupp et al. 2005, doi:10.1056/NEJMoa043330."""
    return Radiotherapy(weekdays(first_day, fractions), np.full(fractions, dose_gy))


class Fractionation(NamedTuple):
    """What was chosen.

    course, standard   fractions of both, those under 0.01 Gy left out
    design             of the search that won; of_lengths the loss of each length of the course
    organs             (organ, BED under the standard, BED under the choice)
    gain               on draws held out
    """

    course: Radiotherapy
    standard: Radiotherapy
    design: Design
    of_lengths: dict[int, float]
    organs: list[tuple[Organ, float, float]]
    gain: Gain


def optimise_fractionation(
    tumours: Tumours,
    until_day: float,
    *,
    standard: Radiotherapy | None = None,
    organs: Sequence[Organ] = (Organ(),),
    lengths: Sequence[int] = (20, 25, 30, 35),
    largest_gy: float = LARGEST_FRACTION_GY,
    raster_gy: float | None = None,
    objective: str = "expected",
    endpoint: str = "burden",
    others: Plan | None = None,
    tolerance: float = 1e-3,
    starts: int = 3,
    steps: int = 60,
    progress: Callable[[int, int, float], None] = lambda step, of, value: None,
) -> Fractionation:
    """Doses of each fraction that leave fewest cells on `until_day`, no organ's BED above that of
    the standard.

    tumours     draws; every second one is held out, to say what was gained
    standard    30 x 2 Gy from the tumours' first day, unless given
    lengths     numbers of weekdays from the standard's first day: a search for each
    largest_gy  of a fraction; raster_gy rounds doses down to steps
    objective   "expected" or "worst decile" of the log burden over draws
    others      what else is given, in a plan without radiotherapy

    Repair between fractions, kick-off and α/β of the tumour are those of `standard`, α/β unless
    `tumours.p` has `alpha_over_beta_gy`. Raises InputError for fewer than four draws, an
    `until_day` before the last fraction, and for limits that nothing keeps.
    """
    given = standard_course(tumours.start_day) if standard is None else standard
    _check(tumours, given, organs, lengths, largest_gy)
    first = float(given.days[0])
    plans = others or Plan()
    chosen_on, told_on = tumours.some(slice(0, None, 2)), tumours.some(slice(1, None, 2))
    loss = loss_of(chosen_on, objective, endpoint)
    limits = [
        Constraint(
            f"BED of {organ.name}",
            lambda theta, p, organ=organ: organ.bed_gy(p["dose_gy"]),
            "at most",
            float(organ.bed_gy(given.doses_gy)),
            "Gy",
        )
        for organ in organs
    ]
    searches: dict[int, tuple[Design, Regimen]] = {}
    for i, length in enumerate(lengths):
        days = weekdays(first, length)
        blank = _with_doses(given, days, np.zeros(length))
        base = regimen(tumours, _plan(plans, blank), until_day, tolerance)

        def told(step: int, of: int, value: float, done: int = i * starts * steps) -> None:
            progress(done + step, len(lengths) * of, value)

        def build(p: Variables, base: Regimen = base) -> Regimen:
            return base.given({"radiotherapy": p["dose_gy"]})

        ways = [jnp.asarray(way) for way in _begun(organs, given, length, largest_gy)]
        begun = min(ways, key=lambda way: float(loss(build({"dose_gy": way}))))
        made = optimise_design(
            build,
            {"dose_gy": begun},
            loss,
            limits={"dose_gy": (0.0, largest_gy)},
            constraints=limits,
            raster=None if raster_gy is None else {"dose_gy": raster_gy},
            starts=starts,
            steps=steps,
            progress=told,
        )
        searches[length] = made, base
    best = min(searches, key=lambda length: searches[length][0].after)
    made, _ = searches[best]
    doses = np.asarray(made.variables["dose_gy"], float)
    kept = doses > 0.01
    course = _with_doses(given, weekdays(first, best)[kept], doses[kept])
    usual = regimen(tumours, _plan(plans, given), until_day, tolerance)
    instead = regimen(tumours, _plan(plans, course), until_day, tolerance)
    return Fractionation(
        course,
        given,
        made,
        {length: search[0].after for length, search in searches.items()},
        [(o, float(o.bed_gy(given.doses_gy)), float(o.bed_gy(course.doses_gy))) for o in organs],
        gain(told_on, usual, instead, endpoint),
    )


def _check(
    tumours: Tumours,
    standard: Radiotherapy,
    organs: Sequence[Organ],
    lengths: Sequence[int],
    largest_gy: float,
) -> None:
    where = "optimise_fractionation"
    check_range(f"{where}: largest_gy", largest_gy, 0.1, 30.0, "Gy", "cGy")
    check_range(f"{where}: doses", standard.doses_gy, 0.0, 30.0, "Gy", "cGy")
    for organ in organs:
        check_range(f"{where}: α/β", organ.alpha_over_beta_gy, 0.1, 100.0, "Gy", "α or β alone")
        check_range(f"{where}: share", organ.share, 1e-3, 2.0, "of the dose", "percent")
    if tumours.draws < 4:
        expected = "four or more: half of them are held out"
        raise InputError(Problem(where, f"{tumours.draws} draws", expected))
    if not lengths or min(lengths) < 1:
        raise InputError(Problem(f"{where}: lengths", f"{tuple(lengths)}", "one fraction or more"))


def _begun(
    organs: Sequence[Organ], standard: Radiotherapy, length: int, largest_gy: float
) -> list[np.ndarray]:
    """Where a search may begin, the best of: equal doses on all days, on half of them, ... on one,
    and the largest doses first, as many as every organ bears, and one of what is left."""
    beds = [float(organ.bed_gy(standard.doses_gy)) * (1 - 1e-4) for organ in organs]
    ways, fractions = [], length
    while True:
        dose = min(_equal(organs, beds, fractions), largest_gy)
        ways.append(np.where(np.arange(length) < fractions, dose, 0.0))
        if fractions == 1:
            break
        fractions = (fractions + 1) // 2
    packed = np.zeros(length)
    for day in range(length):
        left = [b - float(o.bed_gy(packed)) for o, b in zip(organs, beds, strict=True)]
        packed[day] = min(_equal(organs, left, 1), largest_gy)
    return [*ways, packed]


def _equal(organs: Sequence[Organ], beds_gy: Sequence[float], fractions: int) -> float:
    """The dose of each of so many equal fractions that gives no organ more than its BED."""
    found = []
    for organ, bed in zip(organs, beds_gy, strict=True):
        ratio = organ.alpha_over_beta_gy
        root = np.sqrt(1 + 4 * max(bed, 0.0) / (fractions * ratio))
        found.append(ratio * (root - 1) / 2 / organ.share)
    return float(min(found))


def _with_doses(like: Radiotherapy, days: np.ndarray, doses_gy: np.ndarray) -> Radiotherapy:
    return eqx.tree_at(lambda c: (c.days, c.doses_gy), like, (days, doses_gy))


def _plan(others: Plan, course: Radiotherapy) -> Plan:
    return eqx.tree_at(lambda p: p.radiotherapy, others, course, is_leaf=lambda x: x is None)
