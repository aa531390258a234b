"""φ learned: which samples to take, for images of a kind and a reconstruction.

baselines     variable_density, equispaced,   lines (1, n) or points (n, n), exactly so many
              lowest
selection     greedy                          one sample after the other, for any loss of a pattern
relaxation    Relaxed, Joint, joint_loss      chances with a budget; with a network at once
prior         posterior_spread, spread_loss   for diffusion priors: samples that lie close together
trajectories  Curves, Along, curves_loss      B-splines that gradients can play; with a network
from spins    Played, Learner, image_loss,    sequence, lines and networks at once
              map_loss
operators     Chosen, chosen                  A of a pattern, differentiable in each sample

Learned by `learn.train(joint, joint_loss, scans, apart(optax.adam(0.03), optax.adam(1e-3)), ...)`
of scans of all samples.
"""

from learn.sampling.apart import apart
from learn.sampling.chosen import Chosen, chosen
from learn.sampling.curves import Along, Curves, curves_loss, playable, scan_along
from learn.sampling.from_spins import (
    Asked,
    Learner,
    Played,
    image_loss,
    map_error,
    map_loss,
    map_network,
    target_image,
)
from learn.sampling.greedy import Greedy, greedy
from learn.sampling.patterns import centre_of, equispaced, lowest, shape_of, variable_density
from learn.sampling.relaxed import Joint, Relaxed, joint_loss, straight_through, with_budget
from learn.sampling.spread import posterior_spread, spread_loss

__all__ = [
    "Along",
    "Asked",
    "Chosen",
    "Curves",
    "Greedy",
    "Joint",
    "Learner",
    "Played",
    "Relaxed",
    "apart",
    "centre_of",
    "chosen",
    "curves_loss",
    "equispaced",
    "greedy",
    "image_loss",
    "joint_loss",
    "lowest",
    "map_error",
    "map_loss",
    "map_network",
    "playable",
    "posterior_spread",
    "scan_along",
    "shape_of",
    "spread_loss",
    "straight_through",
    "target_image",
    "variable_density",
    "with_budget",
]
