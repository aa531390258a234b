"""Gradient echoes: spoiled ideally or by radio frequency, unbalanced, with several echoes."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.epg import DEFAULT_PULSE_S
from mrphys.sequence.repeated import Repeated, repeated
from mrphys.sequence.train import Train, block, check_train, train
from mrphys.units import Values, check_count, check_range, shape_of

RF_SPOILING_RAD = float(np.deg2rad(117.0))
"""Increment of the phase increment (Zur, Wood, Neuringer 1991, doi:10.1002/mrm.1910210210)."""


def quadratic_phase_rad(repetitions: int, increment_rad: Values) -> Float[Array, " n"]:
    """Phases φ_n = n (n + 1) ψ / 2 of RF spoiling."""
    n = jnp.arange(repetitions)
    return jnp.asarray(increment_rad, float) * (n * (n + 1) / 2)


def spoiled_gradient_echo(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    repetitions: int | None = None,
    *,
    rf_spoiling_rad: float | None = None,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
) -> Train | Repeated:
    """A spoiled gradient echo (SPGR, FLASH): the steady state of each flip angle given (one readout
    each, variable flip angles are several), or, with `repetitions`, the transient from full
    relaxation, one readout for each repetition. Spoiling is ideal (no transverse magnetisation
    survives a repetition) unless `rf_spoiling_rad` is given, the increment of a quadratic phase
    together with a gradient of one unit moment after each readout: `RF_SPOILING_RAD` is 117°.

    In the steady state with ideal spoiling (Ernst & Anderson 1966, doi:10.1063/1.1719961):

        i m0 sin α (1 - E1) / (1 - E1 cos α) exp(-TE/T2*) exp(-2πi b0 TE)

    Haase et al. 1986, doi:10.1016/0022-2364(86)90433-6. Raises InputError for TE > TR, angles and
    times out of range.
    """
    where = "spoiled_gradient_echo"
    lists = ("flip_rad",) if repetitions is None else None
    check_train(where, lists=lists, flip_rad=flip_rad, te_s=te_s, tr_s=tr_s)
    check_train(where, lists=(), rf_spoiling_rad=rf_spoiling_rad)
    _check_repetitions(where, repetitions)
    te, tr = _within_repetition(where, te_s, tr_s)
    shifts = [0, 0] if rf_spoiling_rad is None else [0, 1]
    pattern = {"shifts": shifts, "reads": [True, False], "spoil": rf_spoiling_rad is None}
    shared = {
        "averages": averages,
        "pulse_s": pulse_s,
        "moment_rad_per_mm": moment_rad_per_mm,
        "profile": profile,
    }
    increment = 0.0 if rf_spoiling_rad is None else rf_spoiling_rad
    if repetitions is None:
        flips = jnp.ravel(jnp.asarray(flip_rad, float))
        acquisitions = [(block(flip, [te, tr - te], **pattern),) for flip in flips]
        return repeated(*acquisitions, spoiling_rad=increment, **shared)
    played = block(
        flip_rad,
        [te, tr - te],
        phase_rad=quadratic_phase_rad(repetitions, increment),
        repetitions=repetitions,
        **pattern,
    )
    return train([played], **shared)


def unbalanced_ssfp(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    repetitions: int | None = None,
    *,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    moment_rad_per_mm: Values | None = None,
    profile: tuple[Values, Values] | None = None,
) -> Train | Repeated:
    """Gradient echoes with a net gradient in every repetition and pulses of one phase (FISP, GRASS,
    SSFP-FID): the steady state of one flip angle, or the transient from full relaxation, one
    readout for each repetition or flip angle.

    Scheffler 1999, Concepts in Magnetic Resonance 11:291-304.
    Raises InputError as `spoiled_gradient_echo`.
    """
    where = "unbalanced_ssfp"
    steady = repetitions is None and shape_of(where, flip_rad) == ()
    check_train(where, lists=() if steady else None, flip_rad=flip_rad, te_s=te_s, tr_s=tr_s)
    _check_repetitions(where, repetitions)
    te, tr = _within_repetition(where, te_s, tr_s)
    pattern = {"shifts": [0, 1], "reads": [True, False]}
    shared = {
        "averages": averages,
        "pulse_s": pulse_s,
        "moment_rad_per_mm": moment_rad_per_mm,
        "profile": profile,
    }
    if steady:
        return repeated((block(flip_rad, [te, tr - te], **pattern),), **shared)
    played = block(
        flip_rad, [te, tr - te], repetitions=repetitions, one_axis=tr.ndim == 0, **pattern
    )
    return train([played], **shared)


def dess(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    repetitions: int | None = None,
    *,
    averages: Values = 1.0,
    moment_rad_per_mm: Values | None = None,
) -> Train | Repeated:
    """Double-echo steady state: in each repetition an echo S+ at TE and, after the net gradient,
    S- at TR - TE. The steady state, or the transient from full relaxation: readouts alternate.

    Bruder et al. 1988, doi:10.1002/mrm.1910070105. Raises InputError for TE above TR / 2.
    """
    where = "dess"
    lists = () if repetitions is None else None
    check_train(where, lists=lists, flip_rad=flip_rad, te_s=te_s, tr_s=tr_s)
    _check_repetitions(where, repetitions)
    te, tr = jnp.asarray(te_s, float), jnp.asarray(tr_s, float)
    check_range(f"{where}: tr_s - 2 te_s", tr - 2 * te, 0.0, np.inf, "s", "TE above TR / 2")
    played = block(
        flip_rad,
        [te, tr - 2 * te, te],
        repetitions=repetitions,
        shifts=[0, 1, 0],
        reads=[True, True, False],
    )
    if repetitions is None:
        return repeated((played,), averages=averages, moment_rad_per_mm=moment_rad_per_mm)
    return train([played], averages=averages, moment_rad_per_mm=moment_rad_per_mm)


def multi_echo_gradient_echo(
    echo_times_s: Values, flip_rad: Values = np.pi / 2, *, averages: Values = 1.0
) -> Train:
    """Several gradient echoes of one excitation, from full relaxation:

        i m0 sin α exp(-TE/T2*) exp(-2πi b0 TE)

    Raises InputError for echo times that do not increase.

    >>> from mrphys.tissue import Tissue
    >>> q = Tissue(t1_s=1.0, t2_s=0.1, t2prime_s=0.1)
    >>> multi_echo_gradient_echo([0.0, 0.05]).signal(q).imag.round(4)
    Array([1.    , 0.3679], dtype=float64)
    """
    where = "multi_echo_gradient_echo"
    check_train(where, lists=("echo_times_s",), echo_times_s=echo_times_s, flip_rad=flip_rad)
    times = jnp.atleast_1d(jnp.asarray(echo_times_s, float))
    gaps = jnp.diff(times, prepend=0.0)
    cause = "echo times out of order"
    check_range(f"{where}: steps of echo_times_s", gaps, 0.0, np.inf, "s", cause)
    played = block(flip_rad, list(gaps), reads=[True] * times.size)
    return train([played], averages=averages)


def _check_repetitions(where: str, repetitions: int | None) -> None:
    if repetitions is not None:
        check_count(f"{where}: repetitions", repetitions)


def _within_repetition(where: str, te_s: Values, tr_s: Values) -> tuple[Array, Array]:
    te, tr = jnp.asarray(te_s, float), jnp.asarray(tr_s, float)
    check_range(f"{where}: tr_s - te_s", tr - te, 0.0, np.inf, "s", "TE and TR interchanged")
    return te, tr
