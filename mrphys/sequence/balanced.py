"""Balanced steady-state free precession: no net gradient in a repetition."""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mrphys.epg import DEFAULT_PULSE_S
from mrphys.sequence.repeated import Repeated, repeated
from mrphys.sequence.train import Train, block, check_train, train
from mrphys.units import Values, check_count, check_range, shape_of


def balanced_ssfp(
    flip_rad: Values,
    tr_s: Values,
    te_s: Values | None = None,
    repetitions: int | None = None,
    *,
    advance_rad: Values = np.pi,
    catalyst: bool = True,
    averages: Values = 1.0,
    pulse_s: Values = DEFAULT_PULSE_S,
    profile: tuple[Values, Values] | None = None,
) -> Train | Repeated:
    """Balanced SSFP (TrueFISP, FIESTA): the steady state of one flip angle, or the transient.

    The steady state has one readout. With `repetitions`, or a list of flip angles, there is one
    for each repetition from full relaxation, after a pulse of half the first angle and opposite
    phase half a repetition before when `catalyst` (Deimling & Heid 1994). TE is TR / 2 unless
    given; phases advance by `advance_rad`. Off-resonance b0_hz makes the bands, and T2' averages
    over them: at TR / 2 it is nearly refocused in the pass band where TR << T2' (Scheffler & Hennig
    2003, doi:10.1002/mrm.10351).

    Oppelt et al. 1986; Freeman & Hill 1971, doi:10.1016/0022-2364(71)90082-6 (steady state).
    Raises InputError for TE > TR, angles and times out of range.
    """
    where = "balanced_ssfp"
    steady = repetitions is None and shape_of(where, flip_rad) == ()
    times = {"tr_s": tr_s} if te_s is None else {"tr_s": tr_s, "te_s": te_s}
    check_train(where, lists=() if steady else None, flip_rad=flip_rad, **times)
    check_train(where, lists=(), advance_rad=advance_rad)
    if repetitions is not None:
        check_count(f"{where}: repetitions", repetitions)
    tr = jnp.asarray(tr_s, float)
    te = tr / 2 if te_s is None else jnp.asarray(te_s, float)
    check_range(f"{where}: tr_s - te_s", tr - te, 0.0, np.inf, "s", "TE and TR interchanged")
    intervals = [te, tr - te]
    shared = {"averages": averages, "pulse_s": pulse_s, "profile": profile}
    if steady:
        played = block(flip_rad, intervals, reads=[True, False])
        return repeated((played,), advance_rad=advance_rad, **shared)
    count = repetitions or jnp.size(jnp.asarray(flip_rad))
    played = block(
        flip_rad,
        intervals,
        reads=[True, False],
        phase_rad=jnp.arange(count) * jnp.asarray(advance_rad, float),
        repetitions=count,
        ticks=2 if tr.ndim == te.ndim == 0 else None,
    )
    blocks = [played]
    if catalyst:
        half: Array = jnp.ravel(jnp.asarray(flip_rad, float))[0] / 2
        before = -jnp.asarray(advance_rad, float)
        first = jnp.ravel(tr)[0] / 2
        blocks.insert(0, block(half, [first], reads=[False], phase_rad=before, ticks=1))
    return train(blocks, **shared)
