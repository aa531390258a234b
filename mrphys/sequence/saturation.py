"""Saturation before a readout of water: chemical exchange and magnetisation transfer."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mrphys.epg import transmit
from mrphys.errors import InputError, Problem
from mrphys.exchange import generator, propagate
from mrphys.sequence.base import Sequence
from mrphys.tissue import Tissue
from mrphys.units import Values, check_finite, check_range, check_time_s


class Saturation(Sequence):
    """Water after saturation at each of several offsets; build it by `cest_saturation`.

    From equilibrium, `pulses` rectangular pulses of `duration_s` with `gap_s` between, by the
    exponential of the Bloch-McConnell matrix; then an ideal excitation of π/2: i M_z of water.
    The tissue's b1 scales the field, its b0 shifts water, its pools exchange.
    """

    offsets_hz: Float[Array, " readouts"]
    b1_hz: Float[Array, ""]
    duration_s: Float[Array, ""]
    gap_s: Float[Array, ""]
    recovery_s: Float[Array, ""]
    averages: Float[Array, " readouts"]
    pulses: int = eqx.field(static=True)

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        shape = tissue.m0.shape
        rows = jax.tree.map(lambda value: value.reshape(-1), tissue)
        mz = jax.vmap(lambda q: jax.vmap(lambda offset: self._water(q, offset))(self.offsets_hz))
        seen = mz(rows)
        return jax.lax.complex(jnp.zeros_like(seen), seen).reshape(*shape, -1)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def _water(self, q: Tissue, offset_hz: Array) -> Float[Array, ""]:
        still = (q.m0, q.t1_s, q.t2_s, q.b0_hz, q.pools, q.semisolid)
        on = generator(*still, transmit(q) * self.b1_hz, offset_hz)
        off = generator(*still, jnp.zeros_like(q.m0), offset_hz)
        m = jnp.zeros_like(on[1]).at[2].set(q.m0)
        for p, pool in enumerate(q.pools):
            m = m.at[3 * p + 5].set(pool.fraction * q.m0)
        if q.semisolid is not None:
            m = m.at[-1].set(q.semisolid.fraction * q.m0)

        def pulse(m: Array, _: None) -> tuple[Array, None]:
            rested = propagate(*off, m, self.gap_s)
            return propagate(*on, rested, self.duration_s), None

        m = propagate(*on, m, self.duration_s)
        return cast(Array, jax.lax.scan(pulse, m, None, length=self.pulses - 1)[0])[2]

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """Saturation and recovery of every offset, as often as it is averaged."""
        once = self.pulses * self.duration_s + (self.pulses - 1) * self.gap_s + self.recovery_s
        return once * jnp.sum(self.averages)

    @property
    def pulse_energy_hz2_s(self) -> Float[Array, ""]:
        """∫ B1² dt of the saturation of all offsets."""
        return self.offsets_hz.size * self.pulses * self.duration_s * self.b1_hz**2


def cest_saturation(
    offsets_hz: Values,
    b1_hz: Values,
    duration_s: Values,
    *,
    pulses: int = 1,
    gap_s: Values = 0.0,
    recovery_s: Values = 5.0,
    averages: Values = 1.0,
) -> Saturation:
    """Saturation at each offset from water, one readout each: a Z spectrum.

    b1_hz       field of the pulses, γB1/2π: 1 µT is 42.6 Hz
    duration_s  of each of `pulses`, `gap_s` apart; continuous wave when there is one
    recovery_s  for the scan time: every offset starts from equilibrium

    Zhou & van Zijl 2006, doi:10.1016/j.pnmrs.2006.01.001. Raises InputError for values out of
    range and no pulse.

    >>> from mrphys.exchange import Pool
    >>> amide = Pool(fraction=0.001, exchange_rate_hz=30.0, shift_hz=447.0)
    >>> q = Tissue(t1_s=1.0, t2_s=0.08, pools=(amide,)).broadcast()
    >>> z = cest_saturation([-447.0, 447.0], b1_hz=60.0, duration_s=3.0).signal(q).imag
    >>> bool(z[1] < z[0])  # the pool is seen at its own shift
    True
    """
    where = "cest_saturation"
    offsets = jnp.atleast_1d(jnp.asarray(offsets_hz, float))
    check_finite(f"{where}: offsets_hz", offsets)
    check_range(f"{where}: b1_hz", b1_hz, 0.0, 1e5, "Hz", "microtesla are 42.6 Hz each")
    for name, time in (("duration_s", duration_s), ("gap_s", gap_s), ("recovery_s", recovery_s)):
        check_time_s(f"{where}: {name}", time, high=60.0)
    if pulses < 1:
        raise InputError(Problem(f"{where}: pulses", f"{pulses}", "one or more"))
    return Saturation(
        offsets_hz=offsets,
        b1_hz=jnp.asarray(b1_hz, float),
        duration_s=jnp.asarray(duration_s, float),
        gap_s=jnp.asarray(gap_s, float),
        recovery_s=jnp.asarray(recovery_s, float),
        averages=jnp.broadcast_to(jnp.asarray(averages, float), offsets.shape),
        pulses=pulses,
    )
