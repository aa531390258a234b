r"""How cells proliferate at one point: u is a fraction of the carrying capacity, k a rate in 1/day.

GrowthLaw            du/dt = reaction(u, k) - κ u: write `reaction`
  Exponential          k u
  Logistic             k u (1 - u)
  Bertalanffy          k u (u^{-λ} - 1) / λ: logistic at λ = -1, Gompertz at 0, classical at 1/3
    Gompertz             -k u ln u
  PowerLaw             k u^γ
  Allee                k u (1 - u) (u - A) / (u + τ): slower, or shrinking, where cells are few

One number or a field of them. All but Allee are stepped exactly, whatever the step, under a loss at
a constant rate κ. Where a per-capita rate would diverge at zero density it is frozen below a floor.
"""

from abc import abstractmethod
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax import lax
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from mrphys.units import check_range

FLOOR = 1e-6
"""Share of the carrying capacity below which per-capita rates are frozen: about ten cells in a
cubic millimetre of a solid tumour. A mechanism for few cells is in none of these laws."""


class GrowthLaw(eqx.Module):
    """Proliferation at one point: write `reaction`, the library batches and steps it."""

    substeps: ClassVar[int] = 100
    """Steps that `grow` makes of a whole interval; 1 where `step` is exact."""

    @abstractmethod
    def reaction(self, u: Float[Array, "..."], rate_per_day: Array) -> Float[Array, "..."]:
        """du/dt in 1/day at cellularity u, a fraction of the carrying capacity."""

    def step(
        self, u: Float[Array, "..."], rate_per_day: Array, kill: Array, step_days: Array
    ) -> Float[Array, "..."]:
        """u after `step_days` under growth and a linear loss `kill` (its rate times the step):
        the explicit midpoint rule, second order."""

        def slope(v: Array) -> Array:
            return step_days * self.reaction(v, rate_per_day) - kill * v

        return u + slope(u + slope(u) / 2)

    def grow(
        self, u: ArrayLike, rate_per_day: ArrayLike, days: ArrayLike, kill_per_day: ArrayLike = 0.0
    ) -> Float[Array, "..."]:
        """u after so many days at a constant rate of growth and of loss; all broadcast."""
        u, rate, days, loss = jnp.broadcast_arrays(
            *(jnp.asarray(x, float) for x in (u, rate_per_day, days, kill_per_day))
        )
        part = days / self.substeps
        return lax.fori_loop(
            0, self.substeps, lambda _, v: self.step(v, rate, loss * part, part), u
        )


class Exponential(GrowthLaw):
    r"""Every cell alike, for ever: :math:`\dot u = k u`. Volumes double in ln 2 / k days.

    k of any sign; valid while u << 1.
    """

    substeps: ClassVar[int] = 1

    def reaction(self, u: Float[Array, "..."], rate_per_day: Array) -> Float[Array, "..."]:
        """k u."""
        return rate_per_day * u

    def step(
        self, u: Float[Array, "..."], rate_per_day: Array, kill: Array, step_days: Array
    ) -> Float[Array, "..."]:
        """u exp(k h - kill)."""
        return u * jnp.exp(rate_per_day * step_days - kill)


class Logistic(GrowthLaw):
    r"""Logistic growth, :math:`\dot u = k u (1 - u)` (Verhulst 1838).

    k in 1/day, any sign; u in [0, 1] stays there. The volume doubles in ln 2 / k while u << 1.
    """

    substeps: ClassVar[int] = 1

    def reaction(self, u: Float[Array, "..."], rate_per_day: Array) -> Float[Array, "..."]:
        """k u (1 - u)."""
        return rate_per_day * u * (1 - u)

    def step(
        self, u: Float[Array, "..."], rate_per_day: Array, kill: Array, step_days: Array
    ) -> Float[Array, "..."]:
        r"""Exact for a loss at a constant rate over the step:
        :math:`u' = u e^r / (1 + u\,k h\,(e^r - 1)/r)`, r = k h - kill."""
        growth = jnp.asarray(rate_per_day * step_days)
        return _logistic(u, growth, growth - kill)


@jax.custom_jvp
def _logistic(u: Array, growth: Array, net: Array) -> Array:
    """u e^r / (1 + u g φ(r)), φ(r) = (e^r - 1) / r."""
    return u / (1 + u * growth * expm1_ratio(net)) * jnp.exp(net)


@_logistic.defjvp
def _logistic_slopes(primals: tuple, tangents: tuple) -> tuple[Array, Array]:
    """With q = u / (1 + u g φ), everything is a polynomial of q: one division a voxel, and sums of
    q and q² alone in reverse."""
    u, growth, net = primals
    by_u, by_growth, by_net = tangents
    ratio, slope = jax.jvp(expm1_ratio, (net,), (jnp.ones_like(net),))
    rise = jnp.exp(net)
    q = u / (1 + u * growth * ratio)
    change = rise * (1 - growth * ratio * q) ** 2 * by_u
    change = change + q * (rise * by_net)
    change = change - q**2 * (rise * (growth * slope * by_net + ratio * by_growth))
    return q * rise, change


def expm1_ratio(x: Array) -> Array:
    """(exp(x) - 1) / x, smooth through x = 0."""
    small = jnp.abs(x) < 1e-3
    safe = jnp.where(small, 1.0, x)
    series = 1 + x / 2 * (1 + x / 3 * (1 + x / 4))
    return jnp.where(small, series, jnp.expm1(safe) / safe)


def log1p_ratio(x: Array) -> Array:
    """log(1 + x) / x, smooth through x = 0."""
    small = jnp.abs(x) < 1e-3
    safe = jnp.where(small, 1.0, x)
    series = 1 - x * (1 / 2 - x * (1 / 3 - x * (1 / 4 - x / 5)))
    return jnp.where(small, series, jnp.log1p(safe) / safe)


class _Bernoulli(GrowthLaw):
    r"""Laws whose u^λ (ln u at λ = 0) obeys a linear equation of decay m. From u₀, with the net
    per-capita rate ρ₀ there,

    .. math:: \ln u = \ln u_0 + \ln(1 + λ x) / λ, \quad x = ρ_0 (1 - e^{-m t}) / m;

    below the floor, growth is exponential at the rate there. Steps may cross it, either way.
    """

    substeps: ClassVar[int] = 1

    @property
    @abstractmethod
    def power(self) -> Array:
        """λ."""

    @abstractmethod
    def per_capita(self, log_u: Array) -> Array:
        """reaction(u) / u per unit of k."""

    @abstractmethod
    def decay(self, growth: Array, kill: Array) -> Array:
        """m h of a step, from k h and κ h."""

    def reaction(self, u: Float[Array, "..."], rate_per_day: Array) -> Float[Array, "..."]:
        """u times the per-capita rate, frozen below the floor."""
        return rate_per_day * u * self.per_capita(jnp.log(jnp.maximum(u, FLOOR)))

    def step(
        self, u: Float[Array, "..."], rate_per_day: Array, kill: Array, step_days: Array
    ) -> Float[Array, "..."]:
        """Exact for a loss at a constant rate over the step."""
        growth, kill = jnp.asarray(rate_per_day * step_days), jnp.asarray(kill)
        floor = jnp.log(jnp.asarray(FLOOR, u.dtype))
        log_u = jnp.log(jnp.maximum(u, jnp.finfo(u.dtype).tiny))
        below = log_u < floor
        net = growth * self.per_capita(floor) - kill
        decay = self.decay(growth, kill)
        # Shares of the step spent below the floor at first, above it, and below it at last.
        rising, sinking = below & (net > 0), ~below & (net < 0)
        climb = jnp.where(rising, floor - log_u, 1.0) / jnp.where(rising, net, 1.0)
        first = jnp.where(below, jnp.minimum(climb, 1.0), 0.0)
        fall = jnp.where(sinking, log_u - floor, 0.0)
        depth = fall * expm1_ratio(self.power * fall) / jnp.where(sinking, -net, 1.0)
        sink = depth * log1p_ratio(jnp.maximum(decay * depth, LEAST))
        above = jnp.where(sinking, jnp.minimum(sink, 1.0), 1.0 - first)
        last = 1.0 - first - above
        pace = growth * self.per_capita(jnp.maximum(log_u, floor)) - kill
        x = pace * above * expm1_ratio(-decay * above)
        gain = x * log1p_ratio(jnp.maximum(self.power * x, LEAST))
        return u * jnp.exp(net * (first + last) + gain)


LEAST = -0.9999999
"""What λ x stays above where rounding or a negative rate would take it beyond -1."""


class Bertalanffy(_Bernoulli):
    r"""Growth through a surface, loss through the volume, :math:`\dot u = k u (u^{-λ} - 1) / λ`.

    λ = 1/3 (classical): k 3 (u^{2/3} - u), von Bertalanffy 1957, doi:10.1086/401873. Other λ, -1 to
    1, general: logistic at -1, Gompertz at 0, a constant inflow k (1 - u) at 1. k in 1/day, any
    sign; per-capita rates are frozen below FLOOR. Raises InputError for λ out of range.
    """

    exponent: Float[Array, ""] = eqx.field(default=1 / 3, converter=jnp.asarray)

    def __check_init__(self):
        check_range("Bertalanffy: exponent", self.exponent, -1.0, 1.0, "", "γ given for λ = 1 - γ")

    @property
    def power(self) -> Array:
        return self.exponent

    def per_capita(self, log_u: Array) -> Array:
        """(u^{-λ} - 1) / λ."""
        return -log_u * expm1_ratio(-self.power * log_u)

    def decay(self, growth: Array, kill: Array) -> Array:
        return growth + self.power * kill


class Gompertz(Bertalanffy):
    r"""Growth that slows exponentially, :math:`\dot u = -k u \ln u` (Gompertz 1825).

    k in 1/day, any sign; the per-capita rate is frozen at that of FLOOR below it. Laird 1964,
    doi:10.1038/bjc.1964.55 (tumours follow it).
    """

    exponent: Float[Array, ""] = eqx.field(default=0.0, converter=jnp.asarray)


class PowerLaw(_Bernoulli):
    r"""A part of the cells divides, :math:`\dot u = k u^γ`, γ in [0, 1]: 2/3 those on a surface.

    k in 1/day, any sign; no carrying capacity; the per-capita rate is frozen below FLOOR. Benzekry
    et al. 2014, doi:10.1371/journal.pcbi.1003800. Raises InputError for γ out of range.
    """

    exponent: Float[Array, ""] = eqx.field(default=2 / 3, converter=jnp.asarray)

    def __check_init__(self):
        check_range("PowerLaw: exponent", self.exponent, 0.0, 1.0, "", "λ = 1 - γ given for γ")

    @property
    def power(self) -> Array:
        return 1 - self.exponent

    def per_capita(self, log_u: Array) -> Array:
        """u^{γ - 1}."""
        return jnp.exp(-self.power * log_u)

    def decay(self, growth: Array, kill: Array) -> Array:
        return self.power * kill


class Allee(GrowthLaw):
    r"""Cells that help each other, :math:`\dot u = k u (1 - u) \frac{u - A}{u + τ}`.

    A > 0 (strong): below A a tumour dies out; -τ < A <= 0 (weak): it grows, but slowly while small.
    τ > 0 is the density over which that fades. k >= 0 in 1/day. Johnson et al. 2019,
    doi:10.1371/journal.pbio.3000399. Raises InputError for τ <= 0, A <= -τ or A >= 1.
    """

    threshold: Float[Array, ""] = eqx.field(default=0.01, converter=jnp.asarray)
    fading: Float[Array, ""] = eqx.field(default=0.05, converter=jnp.asarray)

    def __check_init__(self):
        if isinstance(self.threshold + self.fading, Tracer):
            return
        if not (self.fading > 0 and -self.fading < self.threshold < 1):
            found = f"A = {self.threshold:g}, τ = {self.fading:g}"
            raise InputError(Problem("Allee", found, "τ > 0 and -τ < A < 1"))

    def reaction(self, u: Float[Array, "..."], rate_per_day: Array) -> Float[Array, "..."]:
        """k u (1 - u) (u - A) / (u + τ)."""
        return rate_per_day * u * (1 - u) * (u - self.threshold) / (u + self.fading)
