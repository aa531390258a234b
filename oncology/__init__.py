"""The patient: visits, mechanistic growth and treatment, calibration, forecasts.

read_patient, check      a folder of visits and treatments, and what is wrong with it
ReactionDiffusion        growth, transport and treatment of a field of cells
Mixture, evolve          the same for several kinds of cells
GrowthLaw                its reaction at one point: Logistic, Gompertz, Bertalanffy, Allee, ...
calibrate, forecast      parameters with their posterior; the distribution of a later day

More on posteriors in rooms of their own: identifiability, sampling, ensemble, fields, hierarchy,
comparison.
"""

from oncology.calibration import Calibrated, CellularityScale, calibrate
from oncology.cohort import Patient, Treatment, Visit, read_patient, write_patient
from oncology.forecast import Forecast, forecast
from oncology.growth import GrowthMap, ReactionDiffusion
from oncology.growth_laws import (
    Allee,
    Bertalanffy,
    Exponential,
    Gompertz,
    GrowthLaw,
    Logistic,
    PowerLaw,
)
from oncology.observe import cellularity
from oncology.priors import LogNormal, default_priors
from oncology.quality import check
from oncology.species import Mixture, evolve

__all__ = [
    "Allee",
    "Bertalanffy",
    "Calibrated",
    "CellularityScale",
    "Exponential",
    "Forecast",
    "Gompertz",
    "GrowthLaw",
    "GrowthMap",
    "LogNormal",
    "Logistic",
    "Mixture",
    "Patient",
    "PowerLaw",
    "ReactionDiffusion",
    "Treatment",
    "Visit",
    "calibrate",
    "cellularity",
    "check",
    "default_priors",
    "evolve",
    "forecast",
    "read_patient",
    "write_patient",
]
