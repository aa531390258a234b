"""Magnetic resonance physics: x = f(θ, q), y = A x + η, and back to q.

q  Tissue, tissue, phantom   what each voxel is: literature values, anatomy
θ  sequence                  what the scanner does
x  simulate                  the noiseless signal;  noise makes it a measurement
   mapping                   q from measurements, with its standard deviation
   information, cramer_rao   how well θ could determine q
   Volume, units, io         images in space, constants and range checks, files
"""

from mrphys import information, io, mapping, noise, phantom, sequence, tissue, units
from mrphys.errors import InputError, Problem
from mrphys.information import cramer_rao
from mrphys.simulate import simulate
from mrphys.tissue import Tissue
from mrphys.volume import Volume

__version__ = "0.1.0"
__all__ = [
    "InputError",
    "Problem",
    "Tissue",
    "Volume",
    "cramer_rao",
    "information",
    "io",
    "mapping",
    "noise",
    "phantom",
    "sequence",
    "simulate",
    "tissue",
    "units",
]
