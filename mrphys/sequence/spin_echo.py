"""Spin echoes: trains of refocusing pulses, single echoes, stimulated echoes."""

import math
from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys import epg
from mrphys.epg import DEFAULT_PULSE_S, Block, Surroundings
from mrphys.epg_real import echo_train
from mrphys.epg_recovery import after_echo_train
from mrphys.errors import InputError, Problem
from mrphys.sequence.base import Sequence
from mrphys.sequence.train import (
    Profile,
    Train,
    across_slice,
    block,
    check_train,
    shared,
    train,
    weights,
)
from mrphys.tissue import Tissue
from mrphys.units import Values, check_range
from mrphys.wavevectors import Moment, Wavevectors


class SpinEchoTrain(Sequence):
    """Refocusing pulses about the axis of the excited magnetisation; build by `spin_echo_train`.

    All coherence pathways of the train are followed, stimulated echoes among them; every pulse
    lies between equal crushers, so that off-resonance and T2' leave the echoes alone. The signal
    of a fully relaxed voxel whose pulses are perfect is i m0 exp(-n spacing / T2).

    Repeated every TR, excitation α finds in its place the steady state

        M = (m0 (1 - E) + E cos ρ R) / (1 - E (cos ρ K cos α + sin ρ sin α e_N))

    with E = exp(-(TR - N spacing)/T1), K what the train leaves of Z_0, R what recovers meanwhile
    (`mrphys.epg_recovery`), e_N the last echo of M = 1, and ρ the pulse that turns it back to z
    (driven equilibrium), 0 without. What crushers have modulated, transverse or along z, is taken
    to be gone by the next excitation: they differ from train to train, or it diffuses.

    `phase_rad` of pulses about other axes, and pools, are followed by the general engine.

    Hennig 1988, doi:10.1016/0022-2364(88)90128-X; Hennig, Weigel, Scheffler 2003 (variable flip
    angles), doi:10.1002/mrm.10391; Becker, Ferretti, Farrar 1969, doi:10.1021/ja01054a059 (driven
    equilibrium).
    """

    refocusing_rad: Float[Array, " readouts"]
    echo_spacing_s: Float[Array, ""]
    excitation_rad: Float[Array, ""]
    averages: Float[Array, " readouts"]
    pulse_s: Float[Array, ""]
    moment_rad_per_mm: Moment | None = None
    profile: Profile | None = None
    tr_s: Float[Array, ""] | None = None
    restore_rad: Float[Array, ""] | None = None
    phase_rad: Float[Array, " readouts"] | None = None
    excited: Float[Array, " positions"] | None = None

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        if self.profile is None or self.excited is None:
            return across_slice(self._readouts, tissue, self.profile)
        scale = self.profile[0]
        turned = scale != 0  # elsewhere there is no echo
        relative = jnp.where(turned, self.excited / jnp.where(turned, scale, 1.0), 0.0)
        return across_slice(self._readouts, tissue, self.profile, relative)

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        return self.signal(rows)

    def _readouts(
        self, tissue: Tissue, relative: Array | None = None
    ) -> Complex[Array, "readouts voxels"]:
        """Of an excitation by `relative` times the nominal flip angle, if given."""
        if relative is not None:
            self = replace(self, excitation_rad=self.excitation_rad * relative)
        if epg.has_pools(tissue) or self.phase_rad is not None:
            return self._of_general_engine(tissue)
        excitation = self.excitation_rad * epg.transmit(tissue)
        excited = jnp.sin(excitation)
        train_of = (self.refocusing_rad, self.echo_spacing_s, self.moment_rad_per_mm)
        if self.tr_s is None:
            echoes = excited[None] * echo_train(tissue, *train_of)
        else:
            unit = eqx.tree_at(lambda q: q.m0, tissue, jnp.ones_like(tissue.m0))
            echoes = excited[None] * echo_train(unit, *train_of)
            kept, recovered = after_echo_train(tissue, *train_of)
            left, back = kept * jnp.cos(excitation), 0.0
            if self.restore_rad is not None:
                restore = self.restore_rad * epg.transmit(tissue)
                back = jnp.sin(restore) * echoes[-1]
                left, recovered = jnp.cos(restore) * left, jnp.cos(restore) * recovered
            rest = jnp.exp(-(self.tr_s - self._train_s) / tissue.t1_s)
            start = (tissue.m0 * (1 - rest) + rest * recovered) / (1 - rest * (left + back))
            echoes = start[None] * echoes
        return epg.in_phase(jax.lax.complex(jnp.zeros_like(echoes), echoes), tissue)

    def _of_general_engine(self, tissue: Tissue) -> Complex[Array, "readouts voxels"]:
        blocks = self.blocks
        once = train(blocks, pulse_s=self.pulse_s, moment_rad_per_mm=self.moment_rad_per_mm)
        if self.tr_s is None:
            return once.readouts(tissue)
        waves = Wavevectors.on_line(once.most_orders)
        around = Surroundings(self.moment_rad_per_mm, waves, self.pulse_s)
        rest = epg.equilibrium(tissue, len(waves))
        shape = rest.longitudinal[..., 0, :].shape

        def played(z: Array) -> tuple[Array, Array]:
            """From Z_0 of all pools, (pools, voxels), to Z_0 a TR later; and the readouts."""
            start = rest.longitudinal.at[..., 0, :].set(z.reshape(shape).astype(rest.plus.dtype))
            states, seen = rest._replace(longitudinal=start), []
            for part in blocks:
                states, echoes = part.play(tissue, states, around)
                seen.append(echoes)
            after = states.longitudinal[..., 0, :].real
            return after.reshape(z.shape), jnp.concatenate(seen)

        zero = jnp.zeros((math.prod(shape[:-1]), shape[-1]), tissue.m0.dtype)
        drive = played(zero)[0]
        unit = jnp.eye(len(zero), dtype=zero.dtype)[:, :, None]
        columns = jax.vmap(lambda e: played(jnp.broadcast_to(e, zero.shape))[0] - drive)(unit)
        system = unit[..., 0][None] - jnp.moveaxis(columns, (0, 1, 2), (2, 1, 0))
        steady = jnp.linalg.solve(system, drive.T[..., None])[..., 0].T
        return epg.in_phase(played(steady)[1], tissue)

    @property
    def _train_s(self) -> Float[Array, ""]:
        return self.echo_spacing_s * self.refocusing_rad.size

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The same events one by one, for any engine: excitation, refocusing pulses, and where
        there is a TR what follows until its end."""
        phase = jnp.pi / 2 if self.phase_rad is None else self.phase_rad
        excite, refocus = _blocks(
            self.refocusing_rad, self.echo_spacing_s, self.excitation_rad, phase
        )
        if self.tr_s is None:
            return excite, refocus
        half, rest = self.echo_spacing_s / 2, self.tr_s - self._train_s
        if self.restore_rad is None:
            return excite, refocus, block(0.0, [rest - half], reads=[False], spoil=True)
        *others, last = range(self.refocusing_rad.size)
        before = [jax.tree.map(lambda value: value[: len(others)], refocus)] if others else []
        final = block(
            self.refocusing_rad[last],
            [half],
            phase_rad=refocus.phase_rad[last],
            receiver_rad=0.0,
            shifts=[1],
            reads=[True],
            ticks=1,
        )
        restore = block(-self.restore_rad, [rest], reads=[False], spoil=True)
        return excite, *before, final, restore

    @property
    def echo_times_s(self) -> Float[Array, " readouts"]:
        """When echoes form, after the excitation."""
        return self.echo_spacing_s * jnp.arange(1, self.refocusing_rad.size + 1)

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """TR, or without one the duration of the train, as often as the average readout is
        repeated."""
        once = self._train_s if self.tr_s is None else self.tr_s
        return once * jnp.mean(self.averages)

    @property
    def pulse_energy_hz2_s(self) -> Float[Array, ""]:
        """∫ B1² dt over all pulses, B1 in Hz, each rectangular: Σ α² / (4 π² pulse_s)."""
        squares = jnp.sum(self.refocusing_rad**2) + self.excitation_rad**2
        squares = squares if self.restore_rad is None else squares + self.restore_rad**2
        return squares / (4 * jnp.pi**2 * self.pulse_s)


def spin_echo_train(
    refocusing_rad: Values,
    echo_spacing_s: Values,
    excitation_rad: Values = np.pi / 2,
    phase_rad: Values | None = None,
    *,
    tr_s: Values | None = None,
    restore_rad: Values | None = None,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
    excitation_profile: tuple[Values, Values] | None = None,
) -> SpinEchoTrain | Train:
    """A train of spin echoes (CPMG, FSE, TSE, HASTE): one readout for each refocusing pulse.

    refocusing_rad     flip angles, one for each echo
    echo_spacing_s     time between refocusing pulses, longer than a pulse
    phase_rad          phases of the refocusing pulses, that of the excitation being 0; the axis of
                       the magnetisation, π/2, when None (Carr-Purcell-Meiboom-Gill)
    moment_rad_per_mm  dephasing by the gradients of half a spacing, for diffusion
    profile            flip angles across the slice relative to nominal, and their weights
                       (`mrphys.rf.flip_profile` of the refocusing pulse)
    excitation_profile of the excitation at the same positions, which is as `profile` unless given
    tr_s               time from one excitation to the next, in the steady state of which the train
                       is played; None from full relaxation
    restore_rad        flip angle of a pulse at the last echo that turns it back to z (driven
                       equilibrium, fast recovery), usually that of the excitation; needs `tr_s`

    Differentiable in all but `phase_rad=None`. Raises InputError for times or angles out of range,
    lists of different length, a spacing shorter than a pulse, a train longer than TR.

    >>> theta = spin_echo_train(np.full(4, np.pi), echo_spacing_s=0.01)
    >>> theta.signal(Tissue(t1_s=1.0, t2_s=0.1)).imag.round(4)
    Array([0.9048, 0.8187, 0.7408, 0.6703], dtype=float64)
    """
    where = "spin_echo_train"
    check_train(
        where,
        lists=("refocusing_rad", "phase_rad"),
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
    if tr_s is not None:
        check_train(where, lists=(), tr_s=tr_s, restore_flip_rad=restore_rad)
        after = jnp.asarray(tr_s, float) - (flips.size + (restore_rad is None) / 2) * spacing
        cause = "a train longer than TR"
        check_range(f"{where}: tr_s - length of the train", after, 0.0, np.inf, "s", cause)
    elif restore_rad is not None:
        raise InputError(Problem(f"{where}: restore_rad", "no tr_s", "a TR to restore it for"))
    excited = _excited(where, profile, excitation_profile)
    if phase_rad is None or tr_s is not None or excited is not None:
        return SpinEchoTrain(
            refocusing_rad=flips,
            echo_spacing_s=spacing,
            excitation_rad=jnp.asarray(excitation_rad, float),
            **shared(where, flips.size, averages, pulse_s, moment_rad_per_mm, profile),
            excited=excited,
            tr_s=None if tr_s is None else jnp.asarray(tr_s, float),
            restore_rad=None if restore_rad is None else jnp.asarray(restore_rad, float),
            phase_rad=None
            if phase_rad is None
            else jnp.broadcast_to(jnp.asarray(phase_rad, float), flips.shape),
        )
    excite, refocus = _blocks(flips, spacing, excitation_rad, phase_rad)
    return train(
        [excite, refocus],
        averages=averages,
        pulse_s=pulse_s,
        moment_rad_per_mm=moment_rad_per_mm,
        profile=profile,
    )


def _excited(
    where: str,
    profile: tuple[Values, Values] | None,
    excitation_profile: tuple[Values, Values] | None,
) -> Float[Array, " positions"] | None:
    """Relative flip angles of the excitation where those of the refocusing pulses are."""
    refocused, excited = weights(profile), weights(excitation_profile)
    if excited is None:
        return None
    if refocused is None or refocused[0].shape != excited[0].shape:
        found = f"excitation_profile at {excited[0].size} positions"
        raise InputError(Problem(where, found, "the positions of `profile`"))
    return excited[0]


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
    check_train("spin_echo", lists=(), refocusing_rad=refocusing_rad)
    return spin_echo_train(jnp.asarray(refocusing_rad, float)[None], te_s, excitation_rad)


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
    check_train("stimulated_echo", lists=(), te_s=te_s, mixing_s=mixing_s, flip_rad=flip_rad)
    half, flip = jnp.asarray(te_s, float) / 2, jnp.asarray(flip_rad, float)
    encode = block(flip, [half], shifts=[1], reads=[False])
    store = block(flip, [mixing_s], reads=[False], spoil=True)
    recall = block(flip, [half], shifts=[1], reads=[True])
    return train([encode, store, recall], moment_rad_per_mm=moment_rad_per_mm)
