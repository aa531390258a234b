"""x from y without training: min ½|A x - y|² + λ R(x).

reconstruct      any method, by name; λ from the noise; sd by replicas
  CGSense        R = ½|x|², or none: conjugate gradients
  L1Wavelet      R = |details of W x|₁: FISTA;  wavelets: the transform W
  TotalVariation R = Σ_r |D x|: primal-dual
  LowRank        R = Σ_b |x_b|_*, of blocks of a series: FISTA
density          of samples along a trajectory, for the adjoint
g_factor, noise_map, g_of    what unfolding costs
pseudo_replicas  the sd of any of them
correct_motion   an image and the poses of shots, together
Method           what a regularisation of one's own needs
"""

from mrphys.reconstruction import wavelets
from mrphys.reconstruction.cg_sense import CGSense
from mrphys.reconstruction.density import density
from mrphys.reconstruction.g_factor import g_factor, g_of, noise_map
from mrphys.reconstruction.low_rank import LowRank
from mrphys.reconstruction.method import Method
from mrphys.reconstruction.motion import MotionCorrected, correct_motion
from mrphys.reconstruction.reconstruct import reconstruct
from mrphys.reconstruction.replicas import Replicas, pseudo_replicas
from mrphys.reconstruction.result import CONVERGED, STOPPED, UNREACHED, Reconstruction
from mrphys.reconstruction.total_variation import TotalVariation
from mrphys.reconstruction.wavelets import L1Wavelet

__all__ = [
    "CONVERGED",
    "STOPPED",
    "UNREACHED",
    "CGSense",
    "L1Wavelet",
    "LowRank",
    "Method",
    "MotionCorrected",
    "Reconstruction",
    "Replicas",
    "TotalVariation",
    "correct_motion",
    "density",
    "g_factor",
    "g_of",
    "noise_map",
    "pseudo_replicas",
    "reconstruct",
    "wavelets",
]
