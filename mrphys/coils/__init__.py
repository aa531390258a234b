"""Receive coils: what each hears of each voxel, simulated or found in its data.

loop_array, loop_field     loops of wire, by the law of Biot and Savart
espirit                    maps from the middle of k-space, as the eigenvectors of what it repeats
walsh, inati               maps from images, by their local covariance or by iterated smoothing
combine                    one image of all coils'
whitening                  noise made equal and independent, from a scan of noise
compression                few virtual coils that hold nearly all of the signal
mixed                      data or sensitivities after either
"""

from mrphys.coils.adaptive import combine, inati, walsh
from mrphys.coils.compression import compression
from mrphys.coils.espirit import espirit
from mrphys.coils.loops import loop_array, loop_field
from mrphys.coils.whitening import mixed, whitening

__all__ = [
    "combine",
    "compression",
    "espirit",
    "inati",
    "loop_array",
    "loop_field",
    "mixed",
    "walsh",
    "whitening",
]
