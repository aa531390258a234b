"""Inference engines over the physics: acquisition design so far.

optimise_design    θ that makes an uncertainty small within a scan time
"""

from learn.design import Design, optimise_design

__all__ = ["Design", "optimise_design"]
