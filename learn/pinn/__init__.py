"""A field that obeys any equation: networks trained on residuals, in physical units.

PINN       the problem: inputs, residual, conditions, region, parameters; `fit` solves it
fields     MLP, ModifiedMLP, SIREN, FourierFeatures: with every derivative, by Taylor mode
terms      Condition, Data, Parameter
stages     Adam, LBFGS, GaussNewton
region     irregular domains by mask or signed distance, sharp or diffuse
Solution   the field that was found, p, its covariance
"""

from learn.pinn.fields import MLP, SIREN, Field, FourierFeatures, ModifiedMLP
from learn.pinn.problem import PINN
from learn.pinn.region import Region
from learn.pinn.solution import Solution
from learn.pinn.stages import LBFGS, Adam, GaussNewton, Stage
from learn.pinn.terms import Condition, Data, Local, Parameter

__all__ = [
    "LBFGS",
    "MLP",
    "PINN",
    "SIREN",
    "Adam",
    "Condition",
    "Data",
    "Field",
    "FourierFeatures",
    "GaussNewton",
    "Local",
    "ModifiedMLP",
    "Parameter",
    "Region",
    "Solution",
    "Stage",
]
