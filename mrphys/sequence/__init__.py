"""θ, the sequence: what the scanner does to the spins.

Sequence              what all share: signal of a tissue, averages, scan time
  Train               pulses played from rest, by extended phase graphs
  Repeated            acquisitions each in its own steady state
  Saturation          of exchanging pools before a readout of water
  SpinEchoTrain       refocusing pulses about one axis
  DiffusionWeighted   spin-echo EPI at several diffusion weightings

spin_echo             spin_echo_train, spin_echo, stimulated_echo
gradient_echo         spoiled_gradient_echo, unbalanced_ssfp, dess, multi_echo_gradient_echo
balanced              balanced_ssfp
prepared              inversion_recovery, saturation_recovery, look_locker, mprage, mp2rage, molli,
                      t2_prepared
saturation            cest_saturation, mt_prepared_gradient_echo
fingerprinting        fingerprinting_fisp, fingerprinting_balanced
diffusion             diffusion_weighted

block, train, repeated  sequences of one's own, pulse by pulse
"""

from mrphys.sequence.balanced import balanced_ssfp
from mrphys.sequence.base import Sequence
from mrphys.sequence.diffusion import DiffusionWeighted, diffusion_weighted
from mrphys.sequence.fingerprinting import fingerprinting_balanced, fingerprinting_fisp
from mrphys.sequence.gradient_echo import (
    RF_SPOILING_RAD,
    dess,
    multi_echo_gradient_echo,
    spoiled_gradient_echo,
    unbalanced_ssfp,
)
from mrphys.sequence.prepared import (
    inversion_recovery,
    look_locker,
    molli,
    mp2rage,
    mprage,
    saturation_recovery,
    t2_prepared,
)
from mrphys.sequence.repeated import Repeated, repeated
from mrphys.sequence.saturation import (
    OffResonancePulse,
    Saturation,
    cest_saturation,
    mt_prepared_gradient_echo,
)
from mrphys.sequence.spin_echo import SpinEchoTrain, spin_echo, spin_echo_train, stimulated_echo
from mrphys.sequence.train import Train, block, train

__all__ = [
    "RF_SPOILING_RAD",
    "DiffusionWeighted",
    "OffResonancePulse",
    "Repeated",
    "Saturation",
    "Sequence",
    "SpinEchoTrain",
    "Train",
    "balanced_ssfp",
    "block",
    "cest_saturation",
    "dess",
    "diffusion_weighted",
    "fingerprinting_balanced",
    "fingerprinting_fisp",
    "inversion_recovery",
    "look_locker",
    "molli",
    "mp2rage",
    "mprage",
    "mt_prepared_gradient_echo",
    "multi_echo_gradient_echo",
    "repeated",
    "saturation_recovery",
    "spin_echo",
    "spin_echo_train",
    "spoiled_gradient_echo",
    "stimulated_echo",
    "t2_prepared",
    "train",
    "unbalanced_ssfp",
]
