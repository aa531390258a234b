"""Where unknowns may lie, and the smooth coordinate in which nothing bounds them."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

REACH = 9.0
"""Of the coordinate u: a bound is then 1.2e-4 of the range away."""
AT_BOUND = 7.0
"""|u| from which an estimate counts as lying at its bound, within 1e-3 of the range."""


class Bounds(NamedTuple):
    """low < value < high, by a logistic coordinate u in which the value runs from -inf to inf:

        value = low + (high - low) s,   s = 1 / (1 + exp(-u))

    or of the logarithms, where both are positive and a decade or more apart (`logarithmic`).

    >>> round(float(Bounds(0.01, 1.0).value(jnp.zeros(()))), 6)
    0.1
    """

    low: float
    high: float

    @property
    def logarithmic(self) -> bool:
        """Whether ratios matter, not differences."""
        return self.low > 0 and self.high >= 10 * self.low

    def value(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value at u."""
        return self.at_share(jax.nn.sigmoid(u))

    def at_share(self, share: Float[Array, "..."]) -> Float[Array, "..."]:
        """The value that far from low to high."""
        if self.logarithmic:
            return self.low * jnp.exp(jnp.log(self.high / self.low) * share)
        return self.low + (self.high - self.low) * share

    def slope(self, u: Float[Array, "..."]) -> Float[Array, "..."]:
        """d value / du."""
        share = jax.nn.sigmoid(u)
        return self.per_share(share) * share * (1 - share)

    def per_share(self, share: Float[Array, "..."]) -> Float[Array, "..."]:
        """d value / d share."""
        if self.logarithmic:
            return jnp.log(self.high / self.low) * self.at_share(share)
        return jnp.full_like(share, self.high - self.low)

    def coordinate(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """u of a value, which is first moved inside the bounds."""
        if self.logarithmic:
            inside = jnp.maximum(value, self.low)
            share = jnp.log(inside / self.low) / jnp.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        share = jnp.clip(share, 1e-3, 1 - 1e-3)
        return jnp.log(share) - jnp.log1p(-share)

    def widest_sd(self, value: Float[Array, "..."]) -> Float[Array, "..."]:
        """The sd from which a value counts as not determined: itself where ratios matter, else half
        the range."""
        return value if self.logarithmic else jnp.full_like(value, (self.high - self.low) / 2)


TISSUE: dict[str, Bounds] = {
    "t1_s": Bounds(0.01, 20.0),
    "t2_s": Bounds(1e-3, 20.0),
    "t2prime_s": Bounds(1e-3, 20.0),
    "adc_mm2_per_s": Bounds(0.0, 0.01),
    "b1": Bounds(0.25, 2.0),
    "b0_hz": Bounds(-250.0, 250.0),
}
"""Of the fields of a Tissue, unless a fit is told others."""
