"""What tissue does with a tracer: its impulse response, a sum of exponentials.

    C(t) = v_p c_a(t) + Σ_j inflow_j ∫ exp(-(outflow_j / volume_j) (t - τ)) c_a(τ) dτ

with c_a the concentration in arterial plasma, which may come with a delay, and C that in tissue.
What is a special case of what:

    TwoCompartmentExchange  F_p, PS, v_e, v_p: plasma and interstitium, exchanging
      -> v_e large              TwoCompartmentUptake  F_p, PS, v_p: nothing comes back
           -> F_p large           Patlak              PS, v_p: plasma as in the artery
      -> F_p large              ExtendedTofts         K_trans, v_e, v_p: plasma as in the artery
           -> v_p = 0             Tofts               K_trans, v_e
           -> v_e large           Patlak

Flows and permeabilities are per second: ml of plasma per ml of tissue and second. `PER_MIN` and
`ML_PER_100ML_PER_MIN` convert:  fp_per_s = 25 * ML_PER_100ML_PER_MIN,  fp_per_s / PER_MIN.

Sourbron, Buckley 2012, doi:10.1088/0031-9155/57/2/R1; names as in OSIPI's lexicon CAPLEX
(Dickie et al. 2024, doi:10.1002/mrm.29840).
"""

from abc import abstractmethod
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mrphys.perfusion.convolution import Washout
from mrphys.units import Values

PER_MIN = 1 / 60
"""One per minute, in 1/s."""
ML_PER_100ML_PER_MIN = 1 / 6000
"""1 ml per 100 ml of tissue and minute, in 1/s."""


def _real(value: Values | None) -> Any:
    """As an array of real numbers; None, for what a fit is to find or is not there, as it is."""
    if value is None:
        return None
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.floating) else array.astype(float)


class Response(NamedTuple):
    """v_p, None for 0, and the exponentials."""

    plasma: Float[Array, " voxels"] | None
    washouts: tuple[Washout, ...]


class Kinetics(eqx.Module):
    """q of a tracer: fields are numbers or maps, `delay_s` None for no arterial delay.

    A new model is a class with those fields and `response`; `mrphys.fit` takes it, with a
    `DynamicSeries`.
    """

    @property
    @abstractmethod
    def delay_s(self) -> Float[Array, "..."] | None:
        """How much later than elsewhere the input comes; a field."""

    @abstractmethod
    def response(self) -> Response:
        """The impulse response of one voxel, by elementwise arithmetic."""


class Tofts(Kinetics):
    """Interstitium alone: K_trans exp(-K_trans t / v_e). Tofts, Kermode 1991,
    doi:10.1002/mrm.1910170208."""

    ktrans_per_s: Float[Array, "..."] = eqx.field(converter=_real)
    ve: Float[Array, "..."] = eqx.field(converter=_real)
    delay_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)

    def response(self) -> Response:
        """See the class."""
        return Response(None, (Washout(self.ktrans_per_s, self.ktrans_per_s, self.ve),))


class ExtendedTofts(Kinetics):
    """v_p δ(t) + K_trans exp(-K_trans t / v_e). Tofts 1997, doi:10.1002/jmri.1880070113."""

    ktrans_per_s: Float[Array, "..."] = eqx.field(converter=_real)
    ve: Float[Array, "..."] = eqx.field(converter=_real)
    vp: Float[Array, "..."] = eqx.field(converter=_real)
    delay_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)

    def response(self) -> Response:
        """See the class."""
        return Response(self.vp, (Washout(self.ktrans_per_s, self.ktrans_per_s, self.ve),))


class Patlak(Kinetics):
    """v_p δ(t) + PS. Patlak, Blasberg, Fenstermacher 1983, doi:10.1038/jcbfm.1983.1."""

    ps_per_s: Float[Array, "..."] = eqx.field(converter=_real)
    vp: Float[Array, "..."] = eqx.field(converter=_real)
    delay_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)

    def response(self) -> Response:
        """See the class."""
        return Response(self.vp, (trapped(self.ps_per_s),))


class TwoCompartmentUptake(Kinetics):
    """F_p (1 - E) exp(-t / T) + F_p E,  E = PS / (F_p + PS),  T = v_p / (F_p + PS).

    Pradel et al. 2003, doi:10.1097/01.rli.0000065424.86361.31 (K_trans = E F_p).
    """

    fp_per_s: Float[Array, "..."] = eqx.field(converter=_real)
    ps_per_s: Float[Array, "..."] = eqx.field(converter=_real)
    vp: Float[Array, "..."] = eqx.field(converter=_real)
    delay_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)

    def response(self) -> Response:
        """See the class."""
        through = self.fp_per_s + self.ps_per_s
        share = self.fp_per_s / jnp.where(through > 0, through, 1.0)
        washed = Washout(self.fp_per_s * share, through, self.vp)
        return Response(None, (washed, trapped(self.ps_per_s * share)))


class TwoCompartmentExchange(Kinetics):
    """F_p ((1 - w) exp(-k₋ t) + w exp(-k₊ t)): with σ = a + b + d, a = v_p PS, b = v_e (F_p + PS),
    d² = (a - b)² + 4 v_p v_e PS²,

        k₋ = 2 F_p PS / σ,   k₊ = σ / (2 v_p v_e),   w = (d + g) / 2d,   g = v_e (F_p - PS) - a

    the roots of the balances v_p c_p' = F_p (c_a - c_p) + PS (c_e - c_p) and
    v_e c_e' = PS (c_p - c_e), and w from h(0) = F_p, h'(0) = -F_p² / v_p. As d² - g² =
    4 v_e² F_p PS, neither share cancels; any parameter may be 0.
    Brix et al. 2004, doi:10.1002/mrm.20161; Sourbron, Buckley 2012, doi:10.1088/0031-9155/57/2/R1.
    """

    fp_per_s: Float[Array, "..."] = eqx.field(converter=_real)
    ps_per_s: Float[Array, "..."] = eqx.field(converter=_real)
    ve: Float[Array, "..."] = eqx.field(converter=_real)
    vp: Float[Array, "..."] = eqx.field(converter=_real)
    delay_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)

    def response(self) -> Response:
        """See the class."""
        fp, ps, ve, vp = self.fp_per_s, self.ps_per_s, self.ve, self.vp
        a, b = vp * ps, ve * (fp + ps)
        square = (a - b) ** 2 + 4 * vp * ve * ps**2
        distinct = square > 0
        d = jnp.where(distinct, jnp.sqrt(jnp.where(distinct, square, 1.0)), 0.0)
        total = a + b + d
        g = ve * (fp - ps) - a
        mostly_fast = g >= 0
        large = jnp.where(distinct, d + jnp.where(mostly_fast, g, -g), 1.0)
        small = jnp.where(distinct, 4 * ve**2 * fp * ps / large, 0.0)
        twice = jnp.where(distinct, 2 * d, 1.0)
        slow = fp * jnp.where(distinct & mostly_fast, small, large) / twice
        fast = fp * jnp.where(distinct & mostly_fast, large, small) / twice
        volume = jnp.where(total > 0, total, 1.0)
        return Response(
            None, (Washout(slow, 2 * fp * ps, volume), Washout(fast, total, 2 * vp * ve))
        )


class Exponentials(Kinetics):
    """Any of the above, in the numbers in which it is easiest to fit: amplitudes of plasma, of what
    stays (rate 0), of two exponentials, and their rates. None where there is no such term."""

    plasma: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)
    kept_per_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)
    inflow_per_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)
    rate_per_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)
    inflow2_per_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)
    rate2_per_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)
    delay_s: Float[Array, "..."] | None = eqx.field(converter=_real, default=None)

    def exponentials(self) -> list[tuple[Array, Array]]:
        """(inflow, rate) of those there are."""
        pairs = [(self.inflow_per_s, self.rate_per_s), (self.inflow2_per_s, self.rate2_per_s)]
        return [(inflow, rate) for inflow, rate in pairs if inflow is not None and rate is not None]

    def response(self) -> Response:
        """See the class."""
        washouts = [Washout(a, k, jnp.ones_like(k)) for a, k in self.exponentials()]
        if self.kept_per_s is not None:
            washouts.append(trapped(self.kept_per_s))
        return Response(self.plasma, tuple(washouts))


def trapped(inflow: Float[Array, "..."]) -> Washout:
    """What flows in and stays."""
    return Washout(inflow, jnp.zeros_like(inflow), jnp.ones_like(inflow))
