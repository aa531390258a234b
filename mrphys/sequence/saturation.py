"""Saturation before readouts of water: chemical exchange and magnetisation transfer."""

from typing import cast

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.epg import DEFAULT_PULSE_S, Part, States, Surroundings, has_pools, transmit
from mrphys.errors import InputError, Problem
from mrphys.exchange import generator, propagate, step
from mrphys.sequence.base import Sequence
from mrphys.sequence.repeated import Repeated, repeated
from mrphys.sequence.train import averaged, block, check_train
from mrphys.tissue import Tissue
from mrphys.units import Values, check_count, check_number, check_range
from mrphys.wavevectors import Shift


class OffResonancePulse(Part):
    """A long pulse `offset_hz` from water, transverse magnetisation spoiled before and after, to
    stand among the blocks of a sequence.

    Each sample of `b1_hz`, held for its part of the duration, by the exponential of the
    Bloch-McConnell matrix: direct saturation of water, of every pool and of the semi-solid.
    """

    b1_hz: Float[Array, " samples"]
    pulse_duration_s: Float[Array, ""]
    offset_hz: Float[Array, ""]

    shifts: tuple[Shift, ...] = eqx.field(static=True, default=())
    reads: tuple[bool, ...] = eqx.field(static=True, default=())
    spoil: bool = eqx.field(static=True, default=True)

    @property
    def intervals_s(self) -> Float[Array, "1 1"]:
        return self.pulse_duration_s[None, None]

    def energy_hz2_s(self, pulse_s: Array) -> Float[Array, ""]:
        del pulse_s
        return jnp.mean(self.b1_hz**2) * self.pulse_duration_s

    def play(
        self, tissue: Tissue, states: States, around: Surroundings
    ) -> tuple[States, Complex[Array, "0 voxels"]]:
        """The states after it. Only order 0 recovers; the others change as it does otherwise."""
        del around
        kept, recovered = jax.vmap(self._map)(tissue)
        z = states.longitudinal if has_pools(tissue) else states.longitudinal[None]
        after = jnp.einsum("vpq,qov->pov", kept.astype(z.dtype), z)
        after = after.at[:, 0].add(recovered.T.astype(z.dtype))
        nothing = jnp.zeros_like(states.plus)
        after = after.reshape(states.longitudinal.shape)
        return States(nothing, nothing, after), jnp.zeros((0, tissue.m0.size), nothing.dtype)

    def _map(self, q: Tissue) -> tuple[Float[Array, "p p"], Float[Array, " p"]]:
        """M_z of water, pools and semi-solid to what they become, in one voxel."""
        still = (q.m0, q.t1_s, q.t2_s, q.b0_hz, q.pools, q.semisolid)
        time_s = self.pulse_duration_s / self.b1_hz.size

        def sample(steps: Array, b1_hz: Array) -> tuple[Array, None]:
            return step(
                *generator(*still, transmit(q) * b1_hz, self.offset_hz), time_s
            ) @ steps, None

        liquid = 1 + len(q.pools)
        size = 3 * liquid + (q.semisolid is not None)
        whole = cast(
            Array, jax.lax.scan(sample, jnp.eye(size + 1, dtype=q.m0.dtype), self.b1_hz)[0]
        )
        z = jnp.array([*range(2, 3 * liquid, 3), *([size - 1] if q.semisolid is not None else [])])
        return whole[z][:, z], whole[z, size]


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
    offsets = _list(f"{where}: offsets_hz", offsets_hz, np.inf)
    check_number(f"{where}: b1_hz", b1_hz)
    check_range(f"{where}: b1_hz", b1_hz, 0.0, 1e5, "Hz", "microtesla are 42.6 Hz each")
    check_train(where, lists=(), duration_s=duration_s, gap_s=gap_s, recovery_s=recovery_s)
    check_count(f"{where}: pulses", pulses)
    return Saturation(
        offsets_hz=offsets,
        b1_hz=jnp.asarray(b1_hz, float),
        duration_s=jnp.asarray(duration_s, float),
        gap_s=jnp.asarray(gap_s, float),
        recovery_s=jnp.asarray(recovery_s, float),
        averages=averaged(where, averages, offsets.size),
        pulses=pulses,
    )


def _list(where: str, value: Values, most: float, likely_cause: str = "") -> Float[Array, " n"]:
    """A number or list in Hz, no larger than `most`, as a list; raises InputError."""
    check_range(where, value, -most, most, "Hz", likely_cause)
    array = jnp.atleast_1d(jnp.asarray(value, float))
    if array.ndim != 1 or not array.size:
        raise InputError(Problem(where, f"shape {array.shape}", "a number, or a list"))
    return array


def mt_prepared_gradient_echo(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    offsets_hz: Values,
    b1_hz: Values,
    saturation_s: Values,
    *,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
) -> Repeated:
    """A spoiled gradient echo, each repetition after an off-resonance pulse: the steady state at
    each offset from water, one readout each.

    b1_hz         field of the saturation pulse, γB1/2π: one number, or samples of its envelope
    saturation_s  its duration, part of TR
    pulse_s       duration of the excitation, which saturates a semi-solid pool as well

    Of a semi-solid pool of the tissue comes magnetisation transfer: MTR = 1 - S(offset) / S(far).
    Transverse magnetisation is spoiled before each pulse. Henkelman et al. 1993,
    doi:10.1002/mrm.1910290607; Sled & Pike 2001, doi:10.1002/mrm.1278. Raises InputError for times
    that do not fit TR, angles, fields and times out of range.

    >>> from mrphys.exchange import SemiSolid
    >>> q = Tissue(t1_s=1.0, t2_s=0.08, semisolid=SemiSolid(0.13, 40.0)).broadcast()
    >>> x = mt_prepared_gradient_echo(0.1, 0.003, 0.03, [1500.0, 1e5], 250.0, 0.01).signal(q)
    >>> bool(abs(x[0]) < 0.7 * abs(x[1]))
    True
    """
    where = "mt_prepared_gradient_echo"
    times = {"te_s": te_s, "tr_s": tr_s, "saturation_s": saturation_s}
    check_train(where, lists=(), flip_rad=flip_rad, **times)
    offsets = _list(f"{where}: offsets_hz", offsets_hz, np.inf)
    field = _list(f"{where}: b1_hz", b1_hz, 1e5, "microtesla are 42.6 Hz each")
    lasting, te = jnp.asarray(saturation_s, float), jnp.asarray(te_s, float)
    rest = jnp.asarray(tr_s, float) - lasting - te
    cause = "a saturation pulse and TE longer than TR"
    check_range(f"{where}: tr_s - saturation_s - te_s", rest, 0.0, np.inf, "s", cause)
    excited = block(flip_rad, [te, rest], reads=[True, False], spoil=True)
    acquisitions = [
        (OffResonancePulse(b1_hz=field, pulse_duration_s=lasting, offset_hz=offset), excited)
        for offset in offsets
    ]
    return repeated(*acquisitions, averages=averages, pulse_s=pulse_s)
