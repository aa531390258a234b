"""Inference engines over the physics: acquisition design so far.

optimise_design    θ that makes an uncertainty small within time, power and hardware
constraints        what it must keep to
design_studies     designs worth knowing, each a function: `mrphys design`
"""

from learn import constraints
from learn.constraints import Constraint
from learn.design import Design, Held, optimise_design

__all__ = ["Constraint", "Design", "Held", "constraints", "optimise_design"]
