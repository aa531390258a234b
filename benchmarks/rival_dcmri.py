# pyright: reportMissingImports=false
"""dcmri's side of benchmarks/mapping.py: extended Tofts ("HF", high flow) pixel by pixel.

It fits signals. Of a saturated readout whose TR is short they are linear in concentration,
S = R10 + r1 c, so that it sees the same data; S0 and the input are known. One process.
"""

import dcmri
import numpy as np
from rival_fits import Given, Method, measure

HAEMATOCRIT, TR_S = 0.45, 1e-6


def workload(name: str, given: Given) -> list[Method]:
    t = given["time_s"]

    def run(x: np.ndarray) -> Given:
        tissue = dcmri.TissueArray(
            (len(x),),
            kinetics="HF",
            sequence="SS",
            ca=given["plasma"] * (1 - HAEMATOCRIT),
            t=t,
            free={"vb": [0.0, 1.0], "PS": [0.0, 0.1], "vi": [1e-4, 1.0]},
            r1=1.0,
            R10=np.ones(len(x)),
            H=HAEMATOCRIT,
            S0=np.full(len(x), 1 / TR_S),
            TR=TR_S,
            FA=90.0,
        )
        tissue.train(t, 1 + np.asarray(x, float), init_s0=False)
        return {
            "ktrans_per_s": tissue.PS,
            "ve": tissue.vi,
            "vp": tissue.vb * (1 - HAEMATOCRIT),
        }

    return [Method("dcmri", 200, run)]


measure(workload)
