"""What reaches the tissue: measured and population arterial input functions."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from mrphys.units import Values, check_finite, check_range

SHORTEST_S, LONGEST_S = 20.0, 7200.0
"""Duration of a series, outside of which its times are taken to be in another unit."""
HAEMATOCRIT = 0.42
"""Of large vessels (Parker et al. 2006)."""


def _real(value: Values) -> Float[Array, "..."]:
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


def check_series_times(where: str, times_s: Values) -> None:
    """Raise InputError unless times increase strictly and span 20 s to 2 h."""
    if isinstance(times_s, Tracer):
        return
    times = np.asarray(times_s)
    check_finite(where, times)
    if times.ndim != 1 or times.size < 3:
        raise InputError(Problem(where, f"shape {times.shape}", "3 or more times, one axis"))
    backwards = int(np.sum(np.diff(times) <= 0))
    if backwards:
        found = f"{backwards} of {times.size - 1} steps not forwards"
        cause = "images sorted by slice or name, not by time; or repeated images"
        raise InputError(Problem(where, found, "strictly increasing times", cause))
    span = float(times[-1] - times[0])
    if not SHORTEST_S <= span <= LONGEST_S:
        cause = "minutes given for seconds" if span < SHORTEST_S else "milliseconds for seconds"
        expected = f"a series of {SHORTEST_S:g} to {LONGEST_S:g} s"
        raise InputError(Problem(where, f"a span of {span:g} s", expected, cause))


class ArterialInput(eqx.Module):
    """c_a(t), the concentration in arterial plasma: linear between samples, 0 before the first,
    as the last thereafter.

    times_s            strictly increasing
    plasma_mmol_per_l  may dip below 0 by noise

    Raises InputError for times not increasing or in another unit, numbers not finite, an input
    that is nowhere positive, a peak outside 0.02 to 200 mmol/l. Differentiable in both fields.
    """

    times_s: Float[Array, " nodes"] = eqx.field(converter=_real)
    plasma_mmol_per_l: Float[Array, " nodes"] = eqx.field(converter=_real)

    def __check_init__(self):
        where = "ArterialInput"
        check_series_times(f"{where} times_s", self.times_s)
        if self.times_s.shape != self.plasma_mmol_per_l.shape:
            found = f"{self.times_s.shape} times, {self.plasma_mmol_per_l.shape} concentrations"
            raise InputError(Problem(where, found, "one concentration for each time"))
        if isinstance(self.plasma_mmol_per_l, Tracer):
            return
        check_finite(f"{where} plasma_mmol_per_l", self.plasma_mmol_per_l)
        peak = float(np.max(np.asarray(self.plasma_mmol_per_l)))
        if not 0.02 <= peak <= 200:
            cause = "mol/l given for mmol/l" if peak > 0 else "a sign, or a region without a vessel"
            cause = "µmol/l given for mmol/l" if peak > 200 else cause
            expected = "a peak of 0.02 to 200 mmol/l"
            raise InputError(Problem(where, f"a peak of {peak:g} mmol/l", expected, cause))

    def at(self, times_s: Float[Array, "..."]) -> Float[Array, "..."]:
        """c_a at any times."""
        late = times_s >= self.times_s[0]
        return jnp.where(late, jnp.interp(times_s, self.times_s, self.plasma_mmol_per_l), 0.0)


def arterial_input(
    times_s: Values, blood_mmol_per_l: Values, haematocrit: Values = HAEMATOCRIT
) -> ArterialInput:
    """The input of a concentration in whole blood, measured or of a population:

        c_plasma = c_blood / (1 - haematocrit)

    haematocrit 0 for concentrations already in plasma. Raises InputError as `ArterialInput`, and
    for a haematocrit outside 0 to 0.8.

    >>> times_s = np.arange(0.0, 300.0, 1.0)
    >>> arterial_input(times_s, parker_2006(times_s)).plasma_mmol_per_l.max().round(2)
    Array(10.42, dtype=float64)
    """
    where = "arterial_input: haematocrit"
    check_range(where, haematocrit, 0.0, 0.8, "(ratio)", "per cent given for a ratio")
    return ArterialInput(times_s, _real(blood_mmol_per_l) / (1 - _real(haematocrit)))


_PARKER_GAUSSIANS = ((0.809, 0.17046, 0.0563), (0.330, 0.365, 0.132))


def parker_2006(times_s: Values, arrival_s: Values = 0.0) -> Float[Array, "..."]:
    """Concentration in whole blood, mmol/l, of 0.1 mmol/kg given at 3 ml/s; 0 before arrival.

        Σ_n A_n / (σ_n √2π) exp(-(t - T_n)² / 2σ_n²) + α exp(-β t) / (1 + exp(-s (t - τ)))

    t in minutes. Parker et al. 2006, doi:10.1002/mrm.21066.
    """
    seconds = _real(times_s) - _real(arrival_s)
    t = jnp.maximum(seconds, 0.0) / 60
    total = 1.050 * jnp.exp(-0.1685 * t) * jax.nn.sigmoid(38.078 * (t - 0.483))
    for area, centre, width in _PARKER_GAUSSIANS:
        height = area / (width * np.sqrt(2 * np.pi))
        total = total + height * jnp.exp(-((t - centre) ** 2) / (2 * width**2))
    return jnp.where(seconds >= 0, total, 0.0)


_GEORGIOU_CLEARANCE = ((0.374305, 0.112691), (0.331186, 1.174524), (10.060789, 16.019586))
_GEORGIOU_ALPHA, _GEORGIOU_BETA_MIN, _GEORGIOU_CIRCULATION_MIN = 5.266959, 0.03207895, 0.1285564


def georgiou_2019(times_s: Values, arrival_s: Values = 0.0) -> Float[Array, "..."]:
    """Concentration in whole blood, mmol/l, of 0.1 mmol/kg: gamma variates, one for each passage
    of the circulation, under three rates of clearance; 0 before arrival.

        Σ_j A_j exp(-m_j t) Σ_k g(t - k τ; k + (k + 1) α),   g(t; a) = tᵃ exp(-t/β) / (β^(a+1) a!)

    t in minutes. The constants are those published, with the digits that their rounding took:
    found by least squares from the published curve, which they meet to 3e-5 mmol/l.
    Georgiou et al. 2019, doi:10.1002/mrm.27524; Horsfield et al. 2009,
    doi:10.1088/0031-9155/54/9/023.
    """
    seconds = _real(times_s) - _real(arrival_s)
    t = jnp.maximum(seconds, 0.0) / 60
    clearance = sum(a * jnp.exp(-rate * t) for a, rate in _GEORGIOU_CLEARANCE)
    return jnp.where(seconds > 0, clearance * _passages(t), 0.0)


def _passages(t: Float[Array, "..."]) -> Float[Array, "..."]:
    """Σ_k of gamma variates. From some passage on the blood is mixed: their sum is then one over
    the mean delay of a passage, which is where the series ends."""
    alpha, beta, lag = _GEORGIOU_ALPHA, _GEORGIOU_BETA_MIN, _GEORGIOU_CIRCULATION_MIN
    delay = lag + beta * (1 + alpha)
    mixed = 24 * delay

    def passage(total: Array, k: Array) -> tuple[Array, None]:
        power = (k + 1) * alpha + k
        left = t - k * lag
        early = left <= 0
        u = jnp.where(early, 1.0, left)
        log = power * jnp.log(u / beta) - u / beta - jax.scipy.special.gammaln(power + 1)
        return total + jnp.where(early, 0.0, jnp.exp(log) / beta), None

    total, _ = jax.lax.scan(passage, jnp.zeros_like(t), jnp.arange(48, dtype=t.dtype))
    return jnp.where(t < mixed, total, 1 / delay)
