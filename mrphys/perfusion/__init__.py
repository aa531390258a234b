"""Perfusion and permeability: an agent's passage, from signal to maps.

artery  arterial_input, parker_2006, georgiou_2019   what reaches the tissue
signal  concentration_of_signal, SpoiledEcho         mmol/l from T1-weighted signals, and back
        relaxation_change_per_s                      ΔR2* from T2*-weighted ones
θ, q    dynamic_series, ExtendedTofts, ...           when it is seen, and what tissue does with it
x       concentration                                exact for an input linear between samples
q       fit_kinetics                                 maps with their sds
        fit_signals                                  the same from signals: T1, B1, input carried
        vascular_maps, leakage_corrected             volume, flow, transit time by deconvolution
        enhancement, bolus_arrival_s                 what a curve shows without a model
"""

from mrphys.perfusion.arterial_input import (
    HAEMATOCRIT,
    ArterialInput,
    arterial_input,
    georgiou_2019,
    parker_2006,
)
from mrphys.perfusion.dsc import Leakage, VascularMaps, leakage_corrected, vascular_maps
from mrphys.perfusion.enhancement import Enhancement, bolus_arrival_s, enhancement
from mrphys.perfusion.fitting import fit_kinetics
from mrphys.perfusion.series import DynamicSeries, concentration, dynamic_series
from mrphys.perfusion.signal import (
    ConcentrationErrors,
    SpoiledEcho,
    concentration_errors,
    concentration_of_signal,
    relaxation_change_per_s,
    signal_of_concentration,
)
from mrphys.perfusion.signal_fit import fit_signals
from mrphys.perfusion.tracer_kinetics import (
    ML_PER_100ML_PER_MIN,
    PER_MIN,
    Exponentials,
    ExtendedTofts,
    Kinetics,
    Patlak,
    Tofts,
    TwoCompartmentExchange,
    TwoCompartmentUptake,
)

__all__ = [
    "HAEMATOCRIT",
    "ML_PER_100ML_PER_MIN",
    "PER_MIN",
    "ArterialInput",
    "ConcentrationErrors",
    "DynamicSeries",
    "Enhancement",
    "Exponentials",
    "ExtendedTofts",
    "Kinetics",
    "Leakage",
    "Patlak",
    "SpoiledEcho",
    "Tofts",
    "TwoCompartmentExchange",
    "TwoCompartmentUptake",
    "VascularMaps",
    "arterial_input",
    "bolus_arrival_s",
    "concentration",
    "concentration_errors",
    "concentration_of_signal",
    "dynamic_series",
    "enhancement",
    "fit_kinetics",
    "fit_signals",
    "georgiou_2019",
    "leakage_corrected",
    "parker_2006",
    "relaxation_change_per_s",
    "signal_of_concentration",
    "vascular_maps",
]
