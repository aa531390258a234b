r"""What radiation does to cells: the linear-quadratic model from a fraction to a decaying source.

linear_quadratic       log S of one fraction
Radiotherapy           fractions on their days; incomplete repair; accelerated repopulation
Radionuclide           a dose whose rate decays
oxygen_modification    how much less a dose counts where oxygen lacks
dose_equivalent_gy     biologically effective dose of a course

Sublethal damage repairs at the rate μ; what two doses do together is weighted with e^{-μ Δt}
between them (Lea & Catcheside 1942, doi:10.1007/BF02982830; Brenner et al. 1998,
doi:10.2307/3579648).
"""

import math
from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from mrphys.units import check_range

ALPHA_OVER_BETA_GY = 10.0
"""α/β of high-grade glioma and most early-responding tumours, Gy (Barendsen 1982,
doi:10.1016/0360-3016(82)90459-X; used for glioma by Rockne et al. 2009,
doi:10.1007/s00285-008-0219-6)."""

REPAIR_HALFTIME_H = 1.5
"""Half-time of the repair of sublethal damage, hours: 0.5 to 3 in most tissues (Brenner et al.
1998)."""

KICKOFF_DAYS = 28.0
"""When repopulation accelerates after the first fraction (Withers, Taylor & Maciejewski 1988,
doi:10.3109/02841868809090333)."""


def linear_quadratic(
    radiosensitivity_per_gy: ArrayLike,
    dose_gy: ArrayLike,
    alpha_over_beta_gy: ArrayLike = ALPHA_OVER_BETA_GY,
    together_gy: ArrayLike | None = None,
) -> Array:
    r"""log S = -α d (1 + q / (α/β)): the surviving share S of cells after one dose d.

    α >= 0 in 1/Gy, d >= 0 in Gy, valid for 0 to about 10 Gy per fraction. q, `together_gy`, is d
    itself for a short dose on repaired cells. Fowler 1989, doi:10.1259/0007-1285-62-740-679.

    >>> float(round(linear_quadratic(0.1, 2.0), 3))
    -0.24
    """
    together = dose_gy if together_gy is None else together_gy
    return -jnp.asarray(radiosensitivity_per_gy) * dose_gy * (1 + together / alpha_over_beta_gy)


def oxygen_modification(
    oxygen_mmhg: Float[ArrayLike, "..."], enhancement: float = 3.0, half_mmhg: float = 3.0
) -> Float[Array, "..."]:
    """(m p + K) / (p + K) / m: the dose that counts, over that in well-oxygenated cells, at the
    partial pressure p >= 0 of oxygen; 1/m without any.

    m the largest oxygen enhancement ratio, K where it is halfway. Alper & Howard-Flanders 1956,
    doi:10.1038/178978a0.

    >>> float(oxygen_modification(0.0) * 3)
    1.0
    """
    pressure = jnp.asarray(oxygen_mmhg)
    return (enhancement * pressure + half_mmhg) / (pressure + half_mmhg) / enhancement


def protraction(repairs: float) -> float:
    """Lea-Catcheside G of a dose at a constant rate over T, μT repairs: 2 (x - 1 + e^{-x}) / x².

    >>> protraction(0.0)
    1.0
    """
    x = repairs
    return 1 - x / 3 + x**2 / 12 if x < 1e-3 else 2 * (x + math.expm1(-x)) / x**2


class Radiotherapy(eqx.Module):
    r"""Fractions of external radiotherapy: days and Gy; the parameter is `radiosensitivity_per_gy`
    (the linear-quadratic α), and `alpha_over_beta_gy` where it is one of p instead of the field.

    With a `repair_halftime_h`, what earlier fractions left unrepaired counts too, and a fraction
    over `duration_h` counts less:

    .. math:: \log S_j = -α d_j (1 + q_j / (α/β)), \quad
        q_j = G d_j + 2 \sum_{i<j} d_i e^{-μ (t_j - t_i)};

    without, repair is complete from one fraction to the next and each is short. From `kickoff_day`
    to the last fraction, tumours grow faster by `repopulation_per_day`. Raises InputError for doses
    below 0 or above 100 Gy.
    """

    days: Float[np.ndarray, " fractions"]
    doses_gy: Float[np.ndarray, " fractions"]
    alpha_over_beta_gy: float = eqx.field(static=True, default=ALPHA_OVER_BETA_GY)
    repair_halftime_h: float | None = eqx.field(static=True, default=None)
    duration_h: float = eqx.field(static=True, default=0.0)
    kickoff_day: float | None = eqx.field(static=True, default=None)

    def __check_init__(self):
        check_range("Radiotherapy: doses_gy", self.doses_gy, 0.0, 100.0, "Gy", "doses in cGy")

    def together_gy(self) -> Float[np.ndarray, " fractions"]:
        """q of each fraction, as in `linear_quadratic`; those of one day add up, repair or not."""
        same = np.sum(np.where(self.days[:, None] == self.days, self.doses_gy, 0.0), axis=1)
        if self.repair_halftime_h is None:
            return same
        per_day = 24 * math.log(2) / self.repair_halftime_h
        apart = self.days[:, None] - self.days
        weights = np.where(apart > 0, 2 * np.exp(-per_day * np.maximum(apart, 0.0)), 0.0)
        short = protraction(per_day * self.duration_h / 24)
        return short * same + weights @ self.doses_gy

    def repopulating(self, start_day: ArrayLike, end_day: ArrayLike) -> Array | float:
        """The share of an interval in which tumours grow faster."""
        if self.kickoff_day is None:
            return 0.0
        first = jnp.maximum(jnp.asarray(start_day), self.kickoff_day)
        last = jnp.minimum(jnp.asarray(end_day), self.days.max())
        return jnp.maximum(last - first, 0.0) / (jnp.asarray(end_day) - start_day)

    @property
    def event_days(self) -> list[float]:
        """Those of fractions, and the beginning of repopulation."""
        extra = [] if self.kickoff_day is None else [self.kickoff_day]
        return [*self.days.tolist(), *extra]


def dose_equivalent_gy(course: Radiotherapy) -> float:
    """Biologically effective dose, -log S / α: n d (1 + d / (α/β)) for n fractions far apart.

    >>> round(dose_equivalent_gy(Radiotherapy(np.arange(30.0), np.full(30, 2.0))), 9)
    72.0
    """
    return float(np.sum(course.doses_gy * (1 + course.together_gy() / course.alpha_over_beta_gy)))


class Radionuclide(eqx.Module):
    r"""Injections of a source bound in the tumour, each giving its dose D_i at a decaying rate,

    .. math:: r(t) = \sum_i λ D_i e^{-λ (t - t_i)}, \quad
        κ = α r \Big(1 + \frac{2}{α/β} \int_{-\infty}^t r(s) e^{-μ (t - s)} ds\Big),

    λ of the effective half-life (decay and washout together). The parameter is
    `radiosensitivity_per_gy`. Dale 1985, doi:10.1259/0007-1285-58-690-515. Raises InputError for
    half-lives of effect and of repair that are not positive or the same.
    """

    days: Float[np.ndarray, " injections"]
    doses_gy: Float[np.ndarray, " injections"]
    agent: str = eqx.field(static=True, default="")
    effective_halflife_days: float = eqx.field(static=True, default=2.5)
    alpha_over_beta_gy: float = eqx.field(static=True, default=ALPHA_OVER_BETA_GY)
    repair_halftime_h: float = eqx.field(static=True, default=REPAIR_HALFTIME_H)

    def __check_init__(self):
        effect, repair = self.effective_halflife_days, self.repair_halftime_h / 24
        if not (effect > 0 and repair > 0 and abs(effect / repair - 1) > 0.01):
            found = f"half-lives of {effect:g} days (dose) and {repair:g} days (repair)"
            cause = "hours given for days"
            raise InputError(Problem("Radionuclide", found, "both positive, and not equal", cause))

    def kill(
        self,
        p: Mapping[str, ArrayLike],
        start_day: ArrayLike,
        end_day: ArrayLike,
        share: ArrayLike = 1.0,
    ) -> Array:
        """∫ κ dt from `start_day` to `end_day`, in closed form, where a `share` of the dose is."""
        decay = math.log(2) / self.effective_halflife_days
        repair = 24 * math.log(2) / self.repair_halftime_h
        rates, day = decay * self.doses_gy, self.days

        def lasting(rate: float, hours: Array) -> Array:
            return -jnp.expm1(-rate * hours) / rate

        first = jnp.maximum(jnp.asarray(start_day), day)
        left = jnp.maximum(jnp.asarray(end_day) - first, 0.0)
        linear = jnp.sum(rates * jnp.exp(-decay * (first - day)) * lasting(decay, left))
        both = jnp.maximum(first[:, None], first[None, :])
        left = jnp.maximum(jnp.asarray(end_day) - both, 0.0)
        now = rates[:, None] * jnp.exp(-decay * (both - day[:, None]))
        unrepaired = [
            rates[None, :] * jnp.exp(-rate * (both - day[None, :])) * lasting(decay + rate, left)
            for rate in (decay, repair)
        ]
        pairs = jnp.sum(now * (unrepaired[0] - unrepaired[1])) / (repair - decay)
        scale = jnp.asarray(p["radiosensitivity_per_gy"]) * share
        return scale * (linear + share * (2 * pairs / self.alpha_over_beta_gy))
