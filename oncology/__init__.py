"""The patient: visits, mechanistic growth and treatment, calibration, forecasts.

read_patient, check      a folder of visits and treatments, and what is wrong with it
ReactionDiffusion        growth, transport and treatment of a field of cells
calibrate, forecast      parameters with their posterior; the distribution of a later day
"""

from oncology.calibration import Calibrated, CellularityScale, calibrate
from oncology.cohort import Patient, Treatment, Visit, read_patient, write_patient
from oncology.forecast import Forecast, forecast
from oncology.growth import GrowthLaw, GrowthMap, Logistic, ReactionDiffusion
from oncology.observe import cellularity
from oncology.priors import LogNormal, default_priors
from oncology.quality import check

__all__ = [
    "Calibrated",
    "CellularityScale",
    "Forecast",
    "GrowthLaw",
    "GrowthMap",
    "LogNormal",
    "Logistic",
    "Patient",
    "ReactionDiffusion",
    "Treatment",
    "Visit",
    "calibrate",
    "cellularity",
    "check",
    "default_priors",
    "forecast",
    "read_patient",
    "write_patient",
]
