"""Fingerprinting: trains of varying flip angles, phases and times after an inversion."""

import jax.numpy as jnp
import numpy as np

from mrphys.epg import DEFAULT_PULSE_S
from mrphys.sequence.train import Train, block, check_train, train
from mrphys.units import Values, check_range


def fingerprinting_fisp(
    flip_rad: Values,
    tr_s: Values,
    te_s: Values = 0.0,
    phase_rad: Values | None = None,
    inversion_s: Values | None = 0.02,
    *,
    on_resonance: bool = False,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
) -> Train:
    """Fingerprinting with a net gradient in every repetition, from full relaxation.

    flip_rad     one for each repetition and readout
    tr_s, te_s   one number, or one for each
    phase_rad    of the pulses and the receiver; all 0 when None
    inversion_s  time from an inversion pulse (flip π, spoiled) to the train; None for no inversion
    on_resonance  the tissue's b0_hz is 0: several times as fast where TR varies, which makes
                 off-resonance turn the states; of no account with one TR

    Jiang et al. 2015, doi:10.1002/mrm.25559. Raises InputError for TE > TR, angles and times out
    of range, lists of different length.
    """
    where = "fingerprinting_fisp"
    check_train(
        where,
        flip_rad=flip_rad,
        tr_s=tr_s,
        te_s=te_s,
        phase_rad=phase_rad,
    )
    check_train(where, lists=(), inversion_time_s=inversion_s)
    tr, te = jnp.asarray(tr_s, float), jnp.asarray(te_s, float)
    check_range(f"{where}: tr_s - te_s", tr - te, 0.0, np.inf, "s", "TE and TR interchanged")
    played = block(
        flip_rad,
        [te, tr - te],
        phase_rad=0.0 if phase_rad is None else phase_rad,
        shifts=[0, 1],
        reads=[True, False],
        one_axis=phase_rad is None and (tr.ndim == 0 or on_resonance),
        on_resonance=phase_rad is None and tr.ndim == 1 and on_resonance,
    )
    return train(
        _inverted(inversion_s, played),
        averages=averages,
        pulse_s=pulse_s,
        moment_rad_per_mm=moment_rad_per_mm,
        profile=profile,
    )


def fingerprinting_balanced(
    flip_rad: Values,
    tr_s: Values,
    te_s: Values | None = None,
    phase_rad: Values | None = None,
    inversion_s: Values | None = 0.02,
    *,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    profile: tuple[Values, Values] | None = None,
) -> Train:
    """Fingerprinting with balanced gradients: off-resonance is seen too. Arguments as
    `fingerprinting_fisp`; TE is TR / 2 and phases alternate between 0 and π unless given.

    Ma et al. 2013, doi:10.1038/nature11971. Raises InputError as `fingerprinting_fisp`.
    """
    where = "fingerprinting_balanced"
    times = {"tr_s": tr_s} if te_s is None else {"tr_s": tr_s, "te_s": te_s}
    check_train(where, lists=None, flip_rad=flip_rad, phase_rad=phase_rad, **times)
    check_train(where, lists=(), inversion_time_s=inversion_s)
    tr = jnp.asarray(tr_s, float)
    te = tr / 2 if te_s is None else jnp.asarray(te_s, float)
    check_range(f"{where}: tr_s - te_s", tr - te, 0.0, np.inf, "s", "TE and TR interchanged")
    alternating = jnp.pi * (jnp.arange(jnp.asarray(flip_rad).size) % 2)
    played = block(
        flip_rad,
        [te, tr - te],
        phase_rad=alternating if phase_rad is None else phase_rad,
        reads=[True, False],
    )
    blocks = _inverted(inversion_s, played)
    return train(blocks, averages=averages, pulse_s=pulse_s, profile=profile)


def _inverted(inversion_s: Values | None, played) -> list:
    if inversion_s is None:
        return [played]
    return [block(jnp.pi, [inversion_s], reads=[False], spoil=True), played]
