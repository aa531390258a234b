"""Magnetic resonance physics: x = f(θ, q), y = A x + η, and back to q.

q  Tissue, tissue, phantom   what each voxel is: literature values, anatomy
θ  sequence, rf              what the scanner does; pulses sample by sample
x  simulate                  the noiseless signal;  noise makes it a measurement
   epg, bloch                the engines: extended phase graphs, isochromats
y  simulate_scan, SpinCloud  the raw signal of any Pulseq file;  coils receive it
q  fit, mapping              q from x, with its standard deviation: any sequence, any model
   apparent_diffusion        its fast path for ADC
   information, cramer_rao   how well θ could determine q
   perfusion                 contrast agents: kinetics, flow, volume, from signal to maps
   Volume, units, io         images in space, constants and range checks, files
"""

from mrphys import (
    apparent_diffusion,
    bloch,
    coils,
    epg,
    exchange,
    information,
    io,
    mapping,
    noise,
    perfusion,
    phantom,
    rf,
    sequence,
    tissue,
    units,
)
from mrphys.errors import InputError, Problem
from mrphys.exchange import Pool, SemiSolid
from mrphys.information import cramer_rao
from mrphys.mapping import Estimate, fit
from mrphys.scan import simulate_scan
from mrphys.simulate import simulate
from mrphys.spins import SpinCloud
from mrphys.tissue import Tissue
from mrphys.volume import Volume

__version__ = "0.1.0"
__all__ = [
    "Estimate",
    "InputError",
    "Pool",
    "Problem",
    "SemiSolid",
    "SpinCloud",
    "Tissue",
    "Volume",
    "apparent_diffusion",
    "bloch",
    "coils",
    "cramer_rao",
    "epg",
    "exchange",
    "fit",
    "information",
    "io",
    "mapping",
    "noise",
    "perfusion",
    "phantom",
    "rf",
    "sequence",
    "simulate",
    "simulate_scan",
    "tissue",
    "units",
]
