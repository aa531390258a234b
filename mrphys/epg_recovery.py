r"""Longitudinal magnetisation that outlasts a train of refocusing pulses.

Before pulses between equal crushers the excited magnetisation fills odd orders and Z_0 even ones:
the two never meet. Z_0 and what pulses turn out of it, F_0 to F_2 and back in two spacings, are
real where pulses share an axis, and off-resonance grows with the order. The part of Z_0 that the
last m pulses leave is that of the same m in reverse, so one reversed train gives what is left of
the start and of all that recovers between pulses.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from mrphys.epg import attenuation, down, relaxation, transmit, up
from mrphys.rotation import cos_sin, turned
from mrphys.tissue import Tissue
from mrphys.wavevectors import Wavevectors


def after_echo_train(
    tissue: Tissue,
    flip_rad: Float[Array, " echoes"],
    spacing_s: Array,
    moment_rad_per_mm: Array | None = None,
) -> tuple[Float[Array, " voxels"], Float[Array, " voxels"]]:
    """Z_0 at the last echo: how much is left of that after the excitation, half a spacing before
    the first pulse, and what is added by recovery. Arguments as `epg_real.echo_train`."""
    orders = flip_rad.shape[0] // 2 + 1
    flips = flip_rad[::-1, None] * transmit(tissue)[None]
    e1, e2 = relaxation(tissue, spacing_s)
    lost = (jnp.ones(()),) * 3
    if moment_rad_per_mm is not None:
        rates = attenuation(tissue, Wavevectors.on_line(orders), 1, 2 * moment_rad_per_mm)
        lost = tuple(jnp.exp(-rate * spacing_s) for rate in rates)

    def pulse(states: tuple, event: tuple) -> tuple[tuple, Array]:
        f, g, z = states
        angle, cos, sin = (part[None] for part in event)
        half, z = turned((f - g) / 2, z, angle, (cos, sin))
        middle = (f + g) / 2
        left = z[0]
        f, g = e2 * lost[0] * (middle + half), e2 * lost[1] * (middle - half)
        below = down(g)
        return (up(f, -below[0]), below, e1 * lost[2] * z), left

    empty = jnp.zeros((orders, tissue.m0.size), flips.dtype)
    _, left = jax.lax.scan(pulse, (empty, empty, empty.at[0].set(1.0)), (flips, *cos_sin(flips)))
    half = jnp.exp(-spacing_s / 2 / tissue.t1_s)
    between = (1 - half**2) * jnp.sum(left[:-1], axis=0) + (1 - half) * left[-1]
    return half**2 * left[-1], tissue.m0 * (1 - half + half * between)
