"""What to do next: when to scan, how to treat, by the gradient over the posterior.

optimise_visits, next_visits    days of scans that leave a forecast or a parameter least uncertain
optimise_fractionation          doses of radiotherapy under what organs at risk can bear
optimise_schedule               days and doses of drugs of one total
Tumours                         draws of the tumour to be treated: of a patient, or single numbers
gain                            what one regimen gains on another, on draws held out
"""

from oncology.decisions.fractionation import (
    TUMOUR_RATIO,
    Fractionation,
    Organ,
    optimise_fractionation,
    standard_course,
    weekdays,
)
from oncology.decisions.gain import Gain, Interval, compare, gain
from oncology.decisions.pictures import draw_treatment, draw_visits
from oncology.decisions.regimen import (
    Regimen,
    Tumours,
    burden_courses,
    expected,
    log_burdens,
    regimen,
    worst_decile,
)
from oncology.decisions.schedule import Schedule, optimise_schedule, standard_cycles
from oncology.decisions.visits import (
    Ensemble,
    NextVisits,
    Visits,
    VisitUncertainty,
    next_visits,
    optimise_visits,
)

__all__ = [
    "TUMOUR_RATIO",
    "Ensemble",
    "Fractionation",
    "Gain",
    "Interval",
    "NextVisits",
    "Organ",
    "Regimen",
    "Schedule",
    "Tumours",
    "VisitUncertainty",
    "Visits",
    "burden_courses",
    "compare",
    "draw_treatment",
    "draw_visits",
    "expected",
    "gain",
    "log_burdens",
    "next_visits",
    "optimise_fractionation",
    "optimise_schedule",
    "optimise_visits",
    "regimen",
    "standard_course",
    "standard_cycles",
    "weekdays",
    "worst_decile",
]
