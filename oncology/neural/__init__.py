"""A tumour inverted with more than a stepper: three methods for the problem of `oncology.Onset`.

discrete_loss   the field itself unknown on the grid; the equation may err
pinn            a network obeys the equation, many patients in one program
binn            the growth law left open, learned through the stepper
front           log odds of density as a departure from linear growth; tissue as a diffuse domain

All begin with the ball of the same radii (`oncology.radial`) and answer with `onset.Inferred`.
"""

from oncology.neural.binn import Crowding, grown, learn_growth
from oncology.neural.discrete_loss import Solved, least_discrete_loss
from oncology.neural.front import Front, Surroundings
from oncology.neural.pinn import invert

__all__ = [
    "Crowding",
    "Front",
    "Solved",
    "Surroundings",
    "grown",
    "invert",
    "learn_growth",
    "least_discrete_loss",
]
