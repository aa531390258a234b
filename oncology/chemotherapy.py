r"""Drugs and the immune system against cells: the loss of ln u, in closed form between two days.

Chemotherapy       doses of one agent whose effect decays exponentially; write `exposure` for others
  OneCompartment     absorbed at one rate, eliminated at another
  TwoCompartment     exchanged between blood and tissue, eliminated from blood
  Immunotherapy      effector cells, activated by doses and exhausted later
Saturating         the kill rate of any of them, with a largest value (E_max)

Agents act independently: survivals multiply, losses of ln u add up (Bliss 1939,
doi:10.1111/j.1744-7348.1939.tb06990.x).
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from oncology.growth_laws import expm1_ratio


class Chemotherapy(eqx.Module):
    r"""Doses of one agent, :math:`\kappa(t) = \alpha \sum_j d_j e^{-\beta (t - t_j)}, t \ge t_j`.

    α the kill rate just after a dose of 1, β the decay of the effect, both in 1/day: their names
    in the parameters are `kill_<agent>_per_day` and `decay_<agent>_per_day`. Doses are relative.
    Jarrett et al. 2018, doi:10.1088/1361-6560/aac040 (chemotherapy with exponential decay, and
    its weighting by a map of drug delivery).
    """

    days: Float[np.ndarray, " doses"]
    doses: Float[np.ndarray, " doses"]
    agent: str = eqx.field(static=True)

    def exposure(self, p: Mapping[str, ArrayLike], since_days: Array) -> Array:
        """∫ of the effect of one dose of 1, relative to that of `kill`, until so long after it."""
        return _decayed(self._of(p, "decay"), since_days)

    def kill(self, p: Mapping[str, ArrayLike], start_day: ArrayLike, end_day: ArrayLike) -> Array:
        """∫ κ dt from `start_day` to `end_day`, in closed form."""
        start, end = (self.exposure(p, self._since(day)) for day in (start_day, end_day))
        return self._of(p, "kill") * jnp.sum(self.doses * (end - start))

    def concentration(self, p: Mapping[str, ArrayLike], day: ArrayLike) -> Array:
        """κ / α: the effect at one time, relative to that of `kill`; a dose counts at once."""
        since, given = self._since(day), jnp.asarray(day) >= self.days
        now = jax.jvp(lambda t: self.exposure(p, t), (since,), (jnp.ones_like(since),))[1]
        return jnp.sum(jnp.where(given, self.doses * now, 0.0))

    def _since(self, day: ArrayLike) -> Array:
        return jnp.maximum(jnp.asarray(day) - self.days, 0.0)

    def _of(self, p: Mapping[str, ArrayLike], name: str) -> Array:
        return jnp.asarray(p[f"{name}_{self.agent}_per_day"])


def _decayed(rate: Array, since: Array) -> Array:
    """(1 - e^{-rate t}) / rate."""
    return since * expm1_ratio(-rate * since)


class OneCompartment(Chemotherapy):
    r"""A dose absorbed at the rate k_a and eliminated at k_e,

    .. math:: c(t) = \frac{k_a}{k_a - k_e} (e^{-k_e t} - e^{-k_a t}),

    of area 1 / k_e. Parameters `kill_<agent>_per_day`, `absorption_...` (k_a) and
    `elimination_<agent>_per_day` (k_e), equal or not. Bateman 1910; Gibaldi & Perrier 1982, ch. 1.
    """

    def exposure(self, p: Mapping[str, ArrayLike], since_days: Array) -> Array:
        return _bateman(self._of(p, "absorption"), self._of(p, "elimination"), since_days)


def _bateman(rise: Array, fall: Array, since: Array) -> Array:
    """k_a times the divided difference of (1 - e^{-k t}) / k, at its mean slope where both meet."""
    difference, middle = rise - fall, (rise + fall) / 2
    apart = jnp.abs(difference) > 1e-3 * middle
    one = jnp.ones_like(since) * middle
    slope = jax.jvp(lambda k: _decayed(k, since), (one,), (jnp.ones_like(one),))[1]
    parted = (_decayed(fall, since) - _decayed(rise, since)) / jnp.where(apart, difference, 1.0)
    return rise * jnp.where(apart, parted, -slope)


class TwoCompartment(Chemotherapy):
    r"""A bolus in blood that exchanges with tissue,

    .. math:: \dot c = -(k_{10} + k_{12}) c + k_{21} c_2, \quad \dot c_2 = k_{12} c - k_{21} c_2,

    of area 1 / k_10. Parameters `kill_<agent>_per_day`, `elimination_...` (k_10), `to_tissue_...`
    (k_12 > 0) and `from_tissue_<agent>_per_day` (k_21). Gibaldi & Perrier 1982, ch. 2.
    """

    def exposure(self, p: Mapping[str, ArrayLike], since_days: Array) -> Array:
        out, there, back = (self._of(p, n) for n in ("elimination", "to_tissue", "from_tissue"))
        total = out + there + back
        root = jnp.sqrt(total**2 - 4 * out * back)
        fast, slow = (total + root) / 2, (total - root) / 2
        quick = (fast - back) * _decayed(fast, since_days)
        return (quick + (back - slow) * _decayed(slow, since_days)) / root


class Immunotherapy(Chemotherapy):
    r"""Effector cells that doses activate, and that exhaust,

    .. math:: \dot a = -k_a a, \quad \dot e = k_a a - k_e e, \quad \kappa = \alpha e,

    a rising by the dose: the response comes late. Cells are killed by mass action (Kuznetsov et al.
    1994, doi:10.1007/BF02460644), here with as many effectors as doses bring, whatever the
    tumour. Parameters `kill_<agent>_per_day`, `activation_...` (k_a) and
    `exhaustion_<agent>_per_day` (k_e).
    """

    def exposure(self, p: Mapping[str, ArrayLike], since_days: Array) -> Array:
        return _bateman(self._of(p, "activation"), self._of(p, "exhaustion"), since_days)


NODES, WEIGHTS = np.polynomial.legendre.leggauss(8)


class Saturating(eqx.Module):
    r"""A drug with a largest effect, :math:`\kappa = \alpha\,c / (c + c_{50})`, c that of `course`.

    α is `kill_<agent>_per_day`, c_50 > 0 `half_effect_<agent>`, relative as doses are. Integrated
    by Gauss-Legendre quadrature with 8 points a step. Holford & Sheiner 1981,
    doi:10.2165/00003088-198106060-00002.
    """

    course: Chemotherapy

    @property
    def days(self) -> Float[np.ndarray, " doses"]:
        return self.course.days

    @property
    def doses(self) -> Float[np.ndarray, " doses"]:
        return self.course.doses

    @property
    def agent(self) -> str:
        return self.course.agent

    def kill(self, p: Mapping[str, ArrayLike], start_day: ArrayLike, end_day: ArrayLike) -> Array:
        """∫ κ dt from `start_day` to `end_day`, no dose inside."""
        start, end = jnp.asarray(start_day), jnp.asarray(end_day)
        days = start + (end - start) * (NODES + 1) / 2
        c = jax.vmap(lambda day: self.course.concentration(p, day))(days)
        effect = c / (c + jnp.asarray(p[f"half_effect_{self.agent}"]))
        strength = jnp.asarray(p[f"kill_{self.agent}_per_day"])
        return strength * (end - start) / 2 * jnp.sum(WEIGHTS * effect)

    def concentration(self, p: Mapping[str, ArrayLike], day: ArrayLike) -> Array:
        """That of the course."""
        return self.course.concentration(p, day)
