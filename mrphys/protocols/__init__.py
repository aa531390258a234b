"""The maps that series of images can give, model by model: the table that `mrphys map` reads.

A new model is one `Protocol` in MODELS: the BIDS suffixes it is for, what it writes, and `plan`,
which turns the settings of a series into θ and says what is unknown.
"""

from functools import partial

import numpy as np

from mrphys.dynamic import REFERENCES, Dynamic
from mrphys.protocols.diffusion import ADC, DTI, IVIM
from mrphys.protocols.kinetics import DCE, plan_dce
from mrphys.protocols.mp2rage import MP2RAGE, UNI
from mrphys.protocols.protocol import Output, Plan, Protocol
from mrphys.protocols.relaxation import EPG, IRT1, MEGRE, MESE, VFA
from mrphys.protocols.transmit_field import AFI, DAM
from mrphys.series import B_VALUE, Series

_ALL = (VFA, IRT1, MP2RAGE, UNI, MESE, EPG, MEGRE, ADC, IVIM, DTI, DCE, DAM, AFI)
MODELS: dict[str, Protocol] = {protocol.name: protocol for protocol in _ALL}
SUFFIXES = {suffix: model.name for model in reversed(_ALL) for suffix in model.suffixes}


def dynamic(of: Dynamic) -> Protocol:
    """The model `dce` with what the images do not say: T1, the arterial input, the kinetics."""
    protocol = MODELS["dce"]
    reference = REFERENCES.get(of.kinetics, protocol.reference)
    return protocol._replace(plan=partial(plan_dce, of), reference=reference)


def likely_model(series: Series) -> str | None:
    """The model of a series by its suffix, else by what its images differ in; None if unclear."""
    if series.suffix:
        return SUFFIXES.get(series.suffix)
    about = str((series.about or {}).get("ScanningSequence", ""))
    echoes = "mese" if "SE" in about else "megre" if "GR" in about else None
    by_setting = {
        B_VALUE: "adc",
        "InversionTime": "irt1",
        "FlipAngle": "vfa",
        "EchoTime": echoes,
    }
    varied = [
        name
        for name, values in series.settings.items()
        if name in by_setting and np.unique(values).size > 1
    ]
    return by_setting[varied[0]] if len(varied) == 1 else None


__all__ = ["MODELS", "SUFFIXES", "Output", "Plan", "Protocol", "dynamic", "likely_model"]
