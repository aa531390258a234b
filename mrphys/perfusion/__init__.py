from mrphys.perfusion.arterial_input import (
    ArterialInput,
    arterial_input,
    georgiou_2019,
    parker_2006,
)
from mrphys.perfusion.series import DynamicSeries, concentration, dynamic_series
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
from mrphys.perfusion.fitting import fit_kinetics
