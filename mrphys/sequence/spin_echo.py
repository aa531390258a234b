"""Spin echoes: trains of refocusing pulses, single echoes, stimulated echoes."""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import epg
from mrphys.epg import DEFAULT_PULSE_S, Block
from mrphys.epg_real import echo_train
from mrphys.sequence.base import Sequence
from mrphys.sequence.train import (
    Profile,
    Train,
    across_slice,
    block,
    check_train,
    train,
    weights,
)
from mrphys.tissue import Tissue
from mrphys.units import Values, check_range
from mrphys.wavevectors import Moment


class SpinEchoTrain(Sequence):
    """Refocusing pulses about the axis of the excited magnetisation; build by `spin_echo_train`.

    All coherence pathways of the train are followed, stimulated echoes among them; every pulse
    lies between equal crushers, so that off-resonance and T2' leave the echoes alone. The signal
    of a fully relaxed voxel whose pulses are perfect is i m0 exp(-n spacing / T2).

    Hennig 1988, doi:10.1016/0022-2364(88)90128-X; Hennig, Weigel, Scheffler 2003 (variable flip
    angles), doi:10.1002/mrm.10391.
    """

    refocusing_rad: Float[Array, " readouts"]
    echo_spacing_s: Float[Array, ""]
    excitation_rad: Float[Array, ""]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    moment_rad_per_mm: Moment | None = None
    profile: Profile | None = None

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        return across_slice(self._readouts, tissue, self.profile)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def _readouts(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        if epg.has_pools(tissue):
            played = train(
                self.blocks, pulse_s=self.pulse_s, moment_rad_per_mm=self.moment_rad_per_mm
            )
            return played.readouts(tissue)
        excited = jnp.sin(self.excitation_rad * epg.transmit(tissue))
        echoes = excited[None] * echo_train(
            tissue, self.refocusing_rad, self.echo_spacing_s, self.moment_rad_per_mm
        )
        return epg.in_phase(jax.lax.complex(jnp.zeros_like(echoes), echoes), tissue)

    @property
    def blocks(self) -> tuple[Block, Block]:
        """The same events one by one, for any engine: excitation, then refocusing pulses."""
        return _blocks(self.refocusing_rad, self.echo_spacing_s, self.excitation_rad, jnp.pi / 2)

    @property
    def echo_times_s(self) -> Float[Array, " readouts"]:
        """When echoes form, after the excitation."""
        return self.echo_spacing_s * jnp.arange(1, self.refocusing_rad.size + 1)

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """Duration of the train, as often as the average readout is repeated."""
        return self.echo_spacing_s * self.refocusing_rad.size * jnp.mean(self.averages)

    @property
    def pulse_energy_hz2_s(self) -> Float[Array, ""]:
        """∫ B1² dt over all pulses, B1 in Hz, each rectangular: Σ α² / (4 π² pulse_s)."""
        squares = jnp.sum(self.refocusing_rad**2) + self.excitation_rad**2
        return squares / (4 * jnp.pi**2 * self.pulse_s)


def spin_echo_train(
    refocusing_rad: Values,
    echo_spacing_s: Values,
    excitation_rad: Values = np.pi / 2,
    phase_rad: Values | None = None,
    *,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
) -> SpinEchoTrain | Train:
    """A train of spin echoes (CPMG, FSE, TSE, HASTE): one readout for each refocusing pulse.

    refocusing_rad     flip angles, one for each echo
    echo_spacing_s     time between refocusing pulses, longer than a pulse
    phase_rad          phases of the refocusing pulses, that of the excitation being 0; the axis of
                       the magnetisation, π/2, when None (Carr-Purcell-Meiboom-Gill)
    moment_rad_per_mm  dephasing by the gradients of half a spacing, for diffusion
    profile            flip angles across the slice relative to nominal, and their weights

    From full relaxation. Differentiable in all but `phase_rad=None`. Raises InputError for times
    or angles out of range, lists of different length, and a spacing shorter than a pulse.

    >>> theta = spin_echo_train(np.full(4, np.pi), echo_spacing_s=0.01)
    >>> theta.signal(Tissue(t1_s=1.0, t2_s=0.1)).imag.round(4)
    Array([0.9048, 0.8187, 0.7408, 0.6703], dtype=float64)
    """
    where = "spin_echo_train"
    check_train(
        where,
        refocusing_rad=refocusing_rad,
        phase_rad=phase_rad,
        echo_spacing_s=echo_spacing_s,
        excitation_flip_rad=excitation_rad,
    )
    spacing = jnp.asarray(echo_spacing_s, float)
    spare = spacing - jnp.asarray(pulse_s, float)
    cause = "an echo spacing shorter than the pulses"
    check_range(f"{where}: echo_spacing_s - pulse_s", spare, 0.0, np.inf, "s", cause)
    flips = jnp.atleast_1d(jnp.asarray(refocusing_rad, float))
    if phase_rad is None:
        moment = None if moment_rad_per_mm is None else jnp.asarray(moment_rad_per_mm, float)
        return SpinEchoTrain(
            refocusing_rad=flips,
            echo_spacing_s=spacing,
            excitation_rad=jnp.asarray(excitation_rad, float),
            averages=jnp.broadcast_to(jnp.asarray(averages, float), flips.shape),
            pulse_s=jnp.asarray(pulse_s, float),
            moment_rad_per_mm=moment,
            profile=weights(profile),
        )
    excite, refocus = _blocks(flips, spacing, excitation_rad, phase_rad)
    return train(
        [excite, refocus],
        averages=averages,
        pulse_s=pulse_s,
        moment_rad_per_mm=moment_rad_per_mm,
        profile=profile,
    )


def _blocks(
    refocusing_rad: Array, spacing_s: Array, excitation_rad: Values, phase_rad: Values
) -> tuple[Block, Block]:
    half = spacing_s / 2
    excite = block(excitation_rad, [half], shifts=[1], reads=[False], ticks=1)
    refocus = block(
        refocusing_rad,
        [half, half],
        phase_rad=phase_rad,
        receiver_rad=0.0,
        shifts=[1, 1],
        reads=[True, False],
        ticks=2,
    )
    return excite, refocus


def spin_echo(
    te_s: Values, refocusing_rad: Values = np.pi, excitation_rad: Values = np.pi / 2
) -> SpinEchoTrain | Train:
    """One spin echo at TE (Hahn 1950, doi:10.1103/PhysRev.80.580), from full relaxation:

    i m0 sin α sin²(β/2) exp(-TE/T2)
    """
    return spin_echo_train(jnp.atleast_1d(jnp.asarray(refocusing_rad, float)), te_s, excitation_rad)


def stimulated_echo(
    te_s: Values,
    mixing_s: Values,
    flip_rad: Values = np.pi / 2,
    *,
    moment_rad_per_mm: Values | None = None,
) -> Train:
    """The stimulated echo of three equal pulses (STEAM), from full relaxation:

        -i m0 / 2 sin³ α exp(-TM/T1) exp(-TE/T2) exp(-b ADC)

    TE/2 after the first pulse and after the third, TM between second and third, where transverse
    magnetisation is spoiled. `moment_rad_per_mm` q of the gradient in each half of TE, even over
    it: b = q² (TM + TE/3).

    Frahm et al. 1985, doi:10.1016/0022-2364(85)90260-8. Raises InputError as `spin_echo_train`.

    >>> float(stimulated_echo(0.02, 0.1).signal(Tissue(t1_s=1.0, t2_s=0.1))[0].imag.round(4))
    -0.3704
    """
    check_train("stimulated_echo", te_s=te_s, mixing_s=mixing_s, flip_rad=flip_rad)
    half, flip = jnp.asarray(te_s, float) / 2, jnp.asarray(flip_rad, float)
    encode = block(flip, [half], shifts=[1], reads=[False])
    store = block(flip, [mixing_s], reads=[False], spoil=True)
    recall = block(flip, [half], shifts=[1], reads=[True])
    return train([encode, store, recall], moment_rad_per_mm=moment_rad_per_mm)
