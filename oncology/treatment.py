"""What treatment does to cells, one point at a time.

linear_quadratic       the logarithm of the survival of one fraction of radiotherapy
Chemotherapy           doses of one agent, each killing at a rate that decays exponentially
Radiotherapy           fractions on their days
plan                   a patient's treatments as these
"""

from collections.abc import Iterable, Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from oncology.schedule import Treatment

ALPHA_OVER_BETA_GY = 10.0
"""α/β of high-grade glioma and most early-responding tumours, Gy (Barendsen 1982,
doi:10.1016/0360-3016(82)90459-X; used for glioma by Rockne et al. 2009,
doi:10.1007/s00285-008-0219-6)."""


def linear_quadratic(
    radiosensitivity_per_gy: ArrayLike,
    dose_gy: ArrayLike,
    alpha_over_beta_gy: float = ALPHA_OVER_BETA_GY,
) -> Array:
    r"""log S = -α d (1 + d / (α/β)): the surviving share S of cells after one dose d.

    α >= 0 in 1/Gy, d >= 0 in Gy, valid for 0 to about 10 Gy per fraction.
    Fowler 1989, doi:10.1259/0007-1285-62-740-679.

    >>> float(round(linear_quadratic(0.1, 2.0), 3))
    -0.24
    """
    return -jnp.asarray(radiosensitivity_per_gy) * dose_gy * (1 + dose_gy / alpha_over_beta_gy)


class Chemotherapy(eqx.Module):
    r"""Doses of one agent, :math:`\kappa(t) = \alpha \sum_j d_j e^{-\beta (t - t_j)}, t \ge t_j`.

    α the kill rate just after a dose of 1, β the decay of the effect, both in 1/day: their names
    in the parameters are `kill_<agent>_per_day` and `decay_<agent>_per_day`. Doses are relative.
    Jarrett et al. 2018, doi:10.1088/1361-6560/aad7b9 (chemotherapy with exponential decay, and
    its weighting by a map of drug delivery).
    """

    days: Float[np.ndarray, " doses"]
    doses: Float[np.ndarray, " doses"]
    agent: str = eqx.field(static=True)

    def kill(self, p: Mapping[str, ArrayLike], start_day: ArrayLike, end_day: ArrayLike) -> Array:
        """∫ κ dt from `start_day` to `end_day`, in closed form."""
        decay = jnp.asarray(p[f"decay_{self.agent}_per_day"])
        since_start = jnp.maximum(jnp.asarray(start_day) - self.days, 0.0)
        since_end = jnp.maximum(jnp.asarray(end_day) - self.days, 0.0)
        exposure = (jnp.exp(-decay * since_start) - jnp.exp(-decay * since_end)) / decay
        return jnp.asarray(p[f"kill_{self.agent}_per_day"]) * jnp.sum(self.doses * exposure)


class Radiotherapy(eqx.Module):
    """Fractions of external radiotherapy: days and Gy; the parameter is `radiosensitivity_per_gy`
    (the linear-quadratic α)."""

    days: Float[np.ndarray, " fractions"]
    doses_gy: Float[np.ndarray, " fractions"]
    alpha_over_beta_gy: float = eqx.field(static=True, default=ALPHA_OVER_BETA_GY)


class Plan(eqx.Module):
    """Everything given to one patient that the model knows."""

    chemotherapy: tuple[Chemotherapy, ...] = ()
    radiotherapy: Radiotherapy | None = None

    @property
    def event_days(self) -> tuple[float, ...]:
        """Days on which something changes abruptly, each once, in order."""
        days = [d for agent in self.chemotherapy for d in agent.days.tolist()]
        if self.radiotherapy is not None:
            days += self.radiotherapy.days.tolist()
        return tuple(sorted(set(days)))


def plan(treatments: Iterable[Treatment]) -> Plan:
    """The chemotherapy (agent by agent) and radiotherapy among `treatments`; other kinds are left
    out, and `forecast` warns of them."""
    given = tuple(treatments)
    agents = sorted({t.agent for t in given if t.kind == "chemotherapy"})
    courses = [[t for t in given if t.kind == "chemotherapy" and t.agent == a] for a in agents]
    fractions = [t for t in given if t.kind == "radiotherapy"]
    return Plan(
        chemotherapy=tuple(
            Chemotherapy(
                np.array([t.day for t in course]), np.array([t.dose for t in course]), agent
            )
            for agent, course in zip(agents, courses, strict=True)
        ),
        radiotherapy=Radiotherapy(
            np.array([t.day for t in fractions]), np.array([t.dose for t in fractions])
        )
        if fractions
        else None,
    )
