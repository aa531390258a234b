"""The simplest sequence that can be fitted, for tests: quickly compiled."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

import mrphys as mr


class Decay(mr.sequence.Sequence):
    """m0 exp(-TE / T2): spin echoes."""

    te_s: Float[Array, " readouts"]
    averages: Float[Array, " readouts"]

    def signal(self, tissue):
        x = tissue.m0 * jnp.exp(-self.te_s / tissue.t2_s)
        return jax.lax.complex(x, jnp.zeros_like(x))

    @property
    def scan_time_s(self):
        return jnp.max(self.te_s)
