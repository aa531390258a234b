"""θ, the sequence: what the scanner does to the spins.

Sequence            what all share: signal of a tissue, averages, scan time
  DiffusionWeighted spin-echo EPI at several diffusion weightings
"""

from mrphys.sequence.base import Sequence
from mrphys.sequence.diffusion import DiffusionWeighted, diffusion_weighted

__all__ = ["DiffusionWeighted", "Sequence", "diffusion_weighted"]
