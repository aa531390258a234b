"""What is believed of a tumour's parameters before its images are seen."""

from collections.abc import Mapping
from types import MappingProxyType

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from oncology.chemotherapy import Immunotherapy
from oncology.treatment import Plan


class LogNormal(eqx.Module):
    """A positive parameter whose logarithm is normal: `median` exp(`log_sd` z), z ~ N(0, 1)."""

    median: float
    log_sd: float
    unit: str = eqx.field(static=True)
    source: str = eqx.field(static=True, default="")

    def __check_init__(self):
        if not (self.median > 0 and self.log_sd > 0):
            found = f"median {self.median}, log sd {self.log_sd}"
            raise InputError(Problem("LogNormal", found, "both above zero"))


GROWTH_MAP_SD_PER_DAY = 0.03
"""Spread of local growth rates about their mean, 1/day: of the order of the rate itself, as in
breast tumours mapped voxel by voxel (Weis et al. 2015, doi:10.1158/0008-5472.CAN-14-2945)."""

DECAY_PER_DAY: Mapping[str, float] = MappingProxyType(
    {"doxorubicin": 0.6, "cyclophosphamide": 3.25}
)
"""Decay of a drug's effect, 1/day (Christenson et al. 2025, doi:10.1038/s41540-025-00531-z)."""

DIFFUSIVITY = LogNormal(
    0.06,
    1.2,
    "mm^2/day",
    "gliomas 0.01-0.5 mm²/day: Harpold, Alvord & Swanson 2007, doi:10.1097/nen.0b013e31802d9000",
)
GROWTH_RATE = LogNormal(
    0.03,
    1.0,
    "1/day",
    "gliomas 0.003-0.1 /day: Harpold, Alvord & Swanson 2007; breast 0.01-0.1 /day: "
    "Weis et al. 2015, doi:10.1158/0008-5472.CAN-14-2945",
)
RADIOSENSITIVITY = LogNormal(
    0.035, 0.7, "1/Gy", "glioblastoma: Rockne et al. 2010, doi:10.1088/0031-9155/55/12/3271"
)
KILL = LogNormal(
    0.3, 1.0, "1/day", "breast cancer: Jarrett et al. 2018, doi:10.1088/1361-6560/aac040"
)
INFILTRATION_RATIO = LogNormal(
    0.8, 0.4, "1", "a front older than its growth has ratio 1; a young or treated one less or more"
)
IMMUNE_KILL = LogNormal(0.1, 1.0, "1/day", "of the order of the net shrinkage of responders")
ACTIVATION = LogNormal(0.15, 0.7, "1/day", "T cells expand within one to two weeks of a dose")
EXHAUSTION = LogNormal(0.05, 0.7, "1/day", "an effect that outlasts a dose by weeks")
UNKNOWN_DECAY = LogNormal(0.5, 1.0, "1/day", "an effect that lasts between hours and a week")


def default_priors(plan: Plan) -> dict[str, LogNormal]:
    """One prior for every parameter the model needs under this plan of treatment."""
    priors = {
        "diffusivity_mm2_per_day": DIFFUSIVITY,
        "growth_rate_per_day": GROWTH_RATE,
        "infiltration_ratio": INFILTRATION_RATIO,
    }
    if plan.radiotherapy is not None or plan.radionuclides:
        priors["radiosensitivity_per_gy"] = RADIOSENSITIVITY
    for course in plan.chemotherapy:
        if isinstance(course, Immunotherapy):
            priors[f"kill_{course.agent}_per_day"] = IMMUNE_KILL
            priors[f"activation_{course.agent}_per_day"] = ACTIVATION
            priors[f"exhaustion_{course.agent}_per_day"] = EXHAUSTION
            continue
        priors[f"kill_{course.agent}_per_day"] = KILL
        known = DECAY_PER_DAY.get(course.agent)
        priors[f"decay_{course.agent}_per_day"] = (
            UNKNOWN_DECAY if known is None else LogNormal(known, 0.2, "1/day", DECAY_SOURCE)
        )
    return priors


DECAY_SOURCE = "Christenson et al. 2025, doi:10.1038/s41540-025-00531-z"


def physical(
    priors: Mapping[str, LogNormal], z: Float[Array, " n"]
) -> dict[str, Array | ArrayLike]:
    """Parameters from standard normal coordinates: the priors' in their order, then those of the
    growth map, if any."""
    p: dict = {
        name: prior.median * jnp.exp(prior.log_sd * z[i])
        for i, (name, prior) in enumerate(priors.items())
    }
    if z.size > len(priors):
        p["growth_map_per_day"] = GROWTH_MAP_SD_PER_DAY * z[len(priors) :]
    return p
