"""Inference engines over the physics: acquisition design, learned maps.

optimise_design    θ that makes an uncertainty small within time, power and hardware
constraints        what it must keep to
design_studies     designs worth knowing, each a function: `mrphys design`
PINN               a field that obeys any equation, and its parameters (`learn.pinn`)
BINN               unknown terms of an equation as functions, and their laws (`learn.binn`)
HierarchyNetwork   layers that follow a given hierarchy, and what each node carries
learn_mapping      q from x by a network trained on simulations, with its covariance; and its file
training           one step and one loop, checkpoints that resume: for whatever is learned
shared             a loss whose batch all devices share
networks           flax nnx modules, and the door to pure functions
"""

from learn import binn, constraints, networks, pinn, training
from learn.binn import BINN
from learn.constraints import Constraint
from learn.design import Design, Held, optimise_design
from learn.hierarchy import HierarchyNetwork
from learn.mapping import LearnedEstimate, LearnedMapping, learn_mapping
from learn.mapping_file import read_mapping, write_mapping
from learn.pinn import PINN
from learn.sharing import shared
from learn.training import Diverged, Trained, train

__all__ = [
    "BINN",
    "PINN",
    "Constraint",
    "Design",
    "Diverged",
    "Held",
    "HierarchyNetwork",
    "LearnedEstimate",
    "LearnedMapping",
    "Trained",
    "binn",
    "constraints",
    "learn_mapping",
    "networks",
    "optimise_design",
    "pinn",
    "read_mapping",
    "shared",
    "train",
    "training",
    "write_mapping",
]
