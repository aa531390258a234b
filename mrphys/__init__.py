"""Magnetic resonance physics: x = f(θ, q), y = A x + η, and back to q.

q  Tissue, tissue, phantom   what each voxel is: literature values, anatomy
θ  sequence, rf              what the scanner does; pulses sample by sample
x  simulate, jacobian        the noiseless signal and its slopes;  noise makes it a measurement
   epg, bloch                the engines: extended phase graphs, isochromats
   steady_state              closed forms of steady states and recoveries
y  simulate_scan, SpinCloud  the raw signal of any Pulseq file;  coils receive it
φ  trajectory, coils         where samples lie, under hardware limits; what each coil hears
y  RawData, io.read_raw      samples of ISMRMRD, fastMRI or `simulate_scan`, ready for A
A  Encoding, encoding        coils, grids, trajectories, off-resonance, motion: A(x), A.H(y)
x  reconstruct, reconstruction   images from y: adjoint, CG-SENSE, wavelets, TV, low rank
q  fit, mapping              q from x, with its standard deviation: any sequence, any model
   apparent_diffusion        its fast path for ADC;  diffusion_tensor, diffusion_kurtosis, ivim
   mp2rage                   T1 of a ratio of two images
   field_maps, t2_spectrum   B1 and B0; how much decays at each T2
   joint                     priors of neighbours, data that mix voxels: fit(prior=, operator=)
   fingerprint               dictionaries and the entries that signals look like
   protocols, maps           from a scanner's files to maps: one table of models, noise found
   information, cramer_rao   how well θ could determine q;  uncertainty makes it one number
   perfusion                 contrast agents: kinetics, flow, volume, from signal to maps
   Volume, units, io         images in space, constants and range checks, files
   use_cores                 every core of a processor as a device
"""

from mrphys import (
    apparent_diffusion,
    bloch,
    coils,
    diffusion_kurtosis,
    diffusion_tensor,
    encoding,
    epg,
    exchange,
    field_maps,
    fingerprint,
    information,
    io,
    ivim,
    joint,
    mapping,
    mp2rage,
    noise,
    perfusion,
    phantom,
    reconstruction,
    rf,
    sequence,
    steady_state,
    t2_spectrum,
    tissue,
    trajectory,
    units,
)
from mrphys.devices import use_cores
from mrphys.encoding import Encoding
from mrphys.errors import InputError, Problem
from mrphys.exchange import Pool, SemiSolid
from mrphys.information import cramer_rao
from mrphys.mapping import Estimate, fit
from mrphys.optimality import Uncertainty, uncertainty
from mrphys.raw import RawData
from mrphys.reconstruction import Reconstruction, reconstruct
from mrphys.scan import simulate_scan
from mrphys.simulate import jacobian, simulate
from mrphys.spins import SpinCloud
from mrphys.tissue import Tissue
from mrphys.volume import Volume

__version__ = "0.1.0"
__all__ = [
    "Encoding",
    "Estimate",
    "InputError",
    "Pool",
    "Problem",
    "RawData",
    "Reconstruction",
    "SemiSolid",
    "SpinCloud",
    "Tissue",
    "Uncertainty",
    "Volume",
    "apparent_diffusion",
    "bloch",
    "coils",
    "cramer_rao",
    "diffusion_kurtosis",
    "diffusion_tensor",
    "encoding",
    "epg",
    "exchange",
    "field_maps",
    "fingerprint",
    "fit",
    "information",
    "io",
    "ivim",
    "jacobian",
    "joint",
    "mapping",
    "mp2rage",
    "noise",
    "perfusion",
    "phantom",
    "reconstruct",
    "reconstruction",
    "rf",
    "sequence",
    "simulate",
    "simulate_scan",
    "steady_state",
    "t2_spectrum",
    "tissue",
    "trajectory",
    "uncertainty",
    "units",
    "use_cores",
]
