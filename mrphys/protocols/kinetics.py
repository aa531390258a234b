"""Tracer kinetics from contrast-enhanced dynamic series."""

from functools import partial

from mrphys.dynamic import REFERENCES, Dynamic, examination, fit_examination
from mrphys.protocols.protocol import Output, Plan, Protocol
from mrphys.series import Series


def plan_dce(of: Dynamic, series: Series) -> Plan:
    series, theta, known, lacking = examination(series, of)
    return Plan(
        theta, theta.fields, series, known, {}, fit_examination, theta.unknowns, told=True,
        lacking={"without T1": lacking},
    )  # fmt: skip


DCE = Protocol(
    "dce",
    ("dce", "DCE"),
    "Ktrans, ve, vp, ... of a contrast-enhanced dynamic spoiled gradient echo; needs --t1",
    (
        Output("ktrans_per_s", "Ktrans", "1/min", "transfer constant of plasma", 60.0),
        Output("fp_per_s", "Fp", "ml/100ml/min", "plasma flow", 6000.0),
        Output("ps_per_s", "PS", "1/min", "permeability surface area product", 60.0),
        Output("ve", "ve", "1", "volume fraction of the interstitium"),
        Output("vp", "vp", "1", "volume fraction of plasma"),
        Output("delay_s", "delay", "s", "arrival in tissue after the arterial input's"),
        Output("auc", "AUC60", "mmol/l*s", "area under the concentration's first 60 s"),
        Output("peak", "peak", "mmol/l", "largest concentration"),
        Output("time_to_peak_s", "TTP", "s", "from the bolus arrival to the peak"),
    ),
    "least squares of concentrations, sd by Cramér-Rao with noise of the baseline and T1",
    REFERENCES["extended_tofts"],
    partial(plan_dce, Dynamic()),
    b1=True,
)
