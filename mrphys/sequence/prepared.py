"""Sequences that prepare the longitudinal magnetisation, then look at it."""

from collections.abc import Sequence as Many
from dataclasses import replace

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from mrphys.epg import Block
from mrphys.errors import InputError, Problem
from mrphys.sequence.repeated import Repeated, repeated
from mrphys.sequence.train import Train, block, check_train, train
from mrphys.units import Values, check_count, check_range, shape_of


def inversion_recovery(
    ti_s: Values,
    tr_s: Values,
    te_s: Values = 0.0,
    flip_rad: Values = np.pi / 2,
    inversion_rad: Values = np.pi,
    *,
    averages: Values = 1.0,
) -> Repeated:
    """Inversion recovery, one readout for each TI, each in the steady state of its TR:

        i m0 (1 - 2 exp(-TI/T1) + exp(-TR/T1)) exp(-TE/T2*)    for perfect pulses

    Inversion, TI, excitation, TE, readout, and the rest of TR; transverse magnetisation is spoiled
    before the excitation and at the end. Raises InputError for TI + TE > TR, times and angles out
    of range.
    """
    where = "inversion_recovery"
    return _recovery(where, inversion_rad, ti_s, tr_s, te_s, flip_rad, averages)


def saturation_recovery(
    ti_s: Values,
    tr_s: Values,
    te_s: Values = 0.0,
    flip_rad: Values = np.pi / 2,
    *,
    averages: Values = 1.0,
) -> Repeated:
    """Saturation recovery: `inversion_recovery` after a pulse of π/2.

    i m0 (1 - exp(-TI/T1)) exp(-TE/T2*)    for perfect pulses
    """
    where = "saturation_recovery"
    return _recovery(where, np.pi / 2, ti_s, tr_s, te_s, flip_rad, averages)


def _recovery(
    where: str,
    prepare_rad: Values,
    ti_s: Values,
    tr_s: Values,
    te_s: Values,
    flip_rad: Values,
    averages: Values,
) -> Repeated:
    check_train(where, lists=("ti_s",), ti_s=ti_s, tr_s=tr_s, te_s=te_s, flip_rad=flip_rad)
    check_train(where, lists=(), inversion_flip_rad=prepare_rad)
    delays, tr, te = jnp.ravel(jnp.asarray(ti_s, float)), jnp.asarray(tr_s, float), te_s
    rest = tr - delays - jnp.asarray(te, float)
    check_range(f"{where}: tr_s - ti_s - te_s", rest, 0.0, np.inf, "s", "TI and TR interchanged")
    acquisitions = [
        (
            block(prepare_rad, [delay], reads=[False], spoil=True),
            block(flip_rad, [te, left], reads=[True, False], spoil=True),
        )
        for delay, left in zip(delays, rest, strict=True)
    ]
    return repeated(*acquisitions, averages=averages)


def look_locker(
    flip_rad: Values,
    tr_s: Values,
    readouts: int,
    te_s: Values = 0.0,
    ti_s: Values = 0.0,
    inversion_rad: Values = np.pi,
    *,
    averages: Values = 1.0,
) -> Train:
    """Look-Locker: inversion from full relaxation, TI, then spoiled excitations every TR.

    Look & Locker 1970, doi:10.1063/1.1684482; Deichmann & Haase 1992,
    doi:10.1016/0022-2364(92)90347-A. Raises InputError for TE > TR, times and angles out of range.
    """
    where = "look_locker"
    lists = ("flip_rad",)
    check_train(where, lists=lists, flip_rad=flip_rad, tr_s=tr_s, te_s=te_s, ti_s=ti_s)
    check_train(where, lists=(), inversion_flip_rad=inversion_rad)
    check_count(f"{where}: readouts", readouts)
    prepare = block(inversion_rad, [ti_s], reads=[False], spoil=True)
    return train([prepare, _spoiled(where, flip_rad, tr_s, te_s, readouts)], averages=averages)


def _spoiled(where: str, flip_rad: Values, tr_s: Values, te_s: Values, readouts: int) -> Block:
    tr, te = jnp.asarray(tr_s, float), jnp.asarray(te_s, float)
    check_range(f"{where}: tr_s - te_s", tr - te, 0.0, np.inf, "s", "TE and TR interchanged")
    return block(flip_rad, [te, tr - te], reads=[True, False], repetitions=readouts, spoil=True)


def mprage(
    ti_s: Values,
    flip_rad: Values,
    echo_spacing_s: Values,
    readouts: int,
    tr_s: Values,
    te_s: Values = 0.0,
    inversion_rad: Values = np.pi,
    *,
    averages: Values = 1.0,
) -> Repeated:
    """MPRAGE in its steady state: every readout of the train. TI runs from the inversion to the
    excitation in the middle of the train, readout `readouts // 2`.

    Mugler & Brookeman 1990, doi:10.1002/mrm.1910150117. Raises InputError where the train does not
    fit between inversion and TR.
    """
    where = "mprage"
    check_train(where, lists=("flip_rad",), ti_s=ti_s, flip_rad=flip_rad)
    return _prepared_trains(
        where, [ti_s], [flip_rad], echo_spacing_s, readouts, tr_s, te_s, inversion_rad, averages
    )


def mp2rage(
    ti_s: Values,
    flip_rad: Values,
    echo_spacing_s: Values,
    readouts: int,
    tr_s: Values,
    te_s: Values = 0.0,
    inversion_rad: Values = np.pi,
    *,
    averages: Values = 1.0,
) -> Repeated:
    """MP2RAGE in its steady state: two trains after one inversion, at two TIs with two flip angles;
    all readouts of the first, then of the second.

    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002. Raises InputError where the trains
    do not fit.
    """
    where = "mp2rage"
    check_train(where, ti_s=ti_s, flip_rad=flip_rad)
    for name, value in (("ti_s", ti_s), ("flip_rad", flip_rad)):
        shape = shape_of(where, value)
        if shape not in ((), (2,)):
            found = f"shape {shape}"
            raise InputError(
                Problem(f"{where}: {name}", found, "one number, or one for each train")
            )
    delays = jnp.broadcast_to(jnp.asarray(ti_s, float), (2,))
    flips = jnp.broadcast_to(jnp.asarray(flip_rad, float), (2,))
    return _prepared_trains(
        where,
        list(delays),
        list(flips),
        echo_spacing_s,
        readouts,
        tr_s,
        te_s,
        inversion_rad,
        averages,
    )


def _prepared_trains(
    where: str,
    ti_s: Many[Values],
    flip_rad: Many[Values],
    echo_spacing_s: Values,
    readouts: int,
    tr_s: Values,
    te_s: Values,
    inversion_rad: Values,
    averages: Values,
) -> Repeated:
    """Inversion, then spoiled trains centred on each TI, then rest until TR."""
    check_train(where, lists=(), echo_spacing_s=echo_spacing_s, tr_s=tr_s, te_s=te_s)
    check_train(where, lists=(), inversion_flip_rad=inversion_rad)
    check_count(f"{where}: readouts", readouts)
    spacing = jnp.asarray(echo_spacing_s, float)
    starts = [jnp.asarray(ti, float) - (readouts // 2) * spacing for ti in ti_s]
    ends: list[Array] = [jnp.zeros(()), *(start + readouts * spacing for start in starts)]
    gaps = [start - end for start, end in zip(starts, ends[:-1], strict=True)]
    gaps.append(jnp.asarray(tr_s, float) - ends[-1])
    for gap in gaps:
        cause = "trains that overlap, or a TR too short"
        check_range(f"{where}: time between trains", gap, 0.0, np.inf, "s", cause)
    blocks = [block(inversion_rad, [gaps[0]], reads=[False], spoil=True)]
    for flip, gap in zip(flip_rad, gaps[1:], strict=True):
        blocks.append(_spoiled(where, flip, spacing, te_s, readouts))
        blocks.append(block(0.0, [gap], reads=[False], spoil=True))
    return repeated(tuple(blocks), averages=averages)


def molli(
    flip_rad: Values = np.pi * 35 / 180,
    beat_s: Values = 1.0,
    first_ti_s: Values = (0.1, 0.18),
    images: Many[int] = (5, 3),
    pauses: Many[int] = (3,),
    tr_s: Values = 2.7e-3,
    pulses: int = 60,
    inversion_rad: Values = np.pi,
    *,
    averages: Values = 1.0,
) -> Train:
    """Modified Look-Locker inversion recovery: single balanced SSFP images on successive heartbeats
    after each inversion, 5(3)3 unless told otherwise. One readout an image, at the centre of its
    `pulses`, the phase of the balanced pulses taken out.

    Messroghli et al. 2004, doi:10.1002/mrm.20110. Raises InputError where an image does not fit
    between inversion and the next beat.
    """
    where = "molli"
    check_train(where, lists=(), flip_rad=flip_rad, beat_s=beat_s, tr_s=tr_s)
    check_train(where, lists=(), inversion_flip_rad=inversion_rad)
    check_train(where, first_ti_s=first_ti_s)
    for count in images:
        check_count(f"{where}: images", count)
    for count in pauses:
        check_count(f"{where}: pauses", count, least=0)
    check_count(f"{where}: pulses", pulses)
    given = (*shape_of(where, first_ti_s), len(images))[0]
    if not images or given != len(images) or len(pauses) < len(images) - 1:
        found = f"{len(images)} images, {given} first_ti_s, {len(pauses)} pauses"
        expected = "images and a TI after each inversion, a pause between two"
        raise InputError(Problem(where, found, expected))
    beat, tr = jnp.asarray(beat_s, float), jnp.asarray(tr_s, float)
    delays = jnp.broadcast_to(jnp.asarray(first_ti_s, float), (len(images),))
    flips = jnp.asarray(flip_rad, float)
    middle = pulses // 2
    to_centre, length = (middle + 1) * tr, (pulses + 0.5) * tr

    def part(low: int, high: int) -> Block:
        return block(
            flips,
            [tr / 2, tr / 2],
            phase_rad=jnp.pi * (jnp.arange(low, high) % 2),
            reads=[high - low == 1, False],
            repetitions=high - low,
            ticks=2,
        )

    catalyst = block(flips / 2, [tr / 2], phase_rad=np.pi, reads=[False], ticks=1)
    image = [catalyst, part(0, middle), part(middle, middle + 1), part(middle + 1, pulses)]

    def rest(wait_s: Array) -> Block:
        cause = "an image longer than its beat, or a TI too short for it"
        check_range(f"{where}: time between images", wait_s, 0.0, np.inf, "s", cause)
        return block(0.0, [wait_s], reads=[False], spoil=True)

    blocks: list[Block] = []
    for i, count in enumerate(images):
        if i:
            wait = (pauses[i - 1] + 1) * beat - (length - to_centre) - delays[i]
            blocks.append(rest(wait))
        lead = rest(delays[i] - to_centre)
        blocks.append(
            replace(lead, flip_rad=jnp.broadcast_to(jnp.asarray(inversion_rad, float), (1,)))
        )
        for j in range(count):
            blocks += image if j == 0 else [rest(beat - length), *image]
    return train(blocks, averages=averages)


def t2_prepared(
    preparation_s: Values,
    tr_s: Values,
    flip_rad: Values = np.pi / 2,
    te_s: Values = 0.0,
    refocusing: int = 4,
    *,
    averages: Values = 1.0,
) -> Repeated:
    """T2 preparation, then one excitation: a readout for each preparation time, each in the steady
    state of its TR. A pulse of π/2 about x, `refocusing` pulses of π about y at equal spacing, a
    pulse of -π/2 about x, spoiling:

        M_z → M_z exp(-T/T2)    for perfect pulses

    Brittain et al. 1995, doi:10.1002/mrm.1910330515. Raises InputError for T + TE > TR, times and
    angles out of range.
    """
    where = "t2_prepared"
    lists = ("preparation_s",)
    check_train(where, lists=lists, preparation_s=preparation_s, flip_rad=flip_rad)
    check_train(where, lists=(), te_s=te_s, tr_s=tr_s)
    check_count(f"{where}: refocusing", refocusing)
    times = jnp.ravel(jnp.asarray(preparation_s, float))
    rest = jnp.asarray(tr_s, float) - times - jnp.asarray(te_s, float)
    cause = "the preparation longer than TR"
    check_range(f"{where}: tr_s - preparation_s - te_s", rest, 0.0, np.inf, "s", cause)
    acquisitions = []
    for time, left in zip(times, rest, strict=True):
        half = time / (2 * refocusing)
        acquisitions.append(
            (
                block(np.pi / 2, [half], reads=[False], ticks=1),
                block(
                    np.pi,
                    [2 * half],
                    phase_rad=np.pi / 2,
                    reads=[False],
                    repetitions=refocusing - 1,
                    ticks=2,
                ),
                block(np.pi, [half], phase_rad=np.pi / 2, reads=[False], ticks=1),
                block(np.pi / 2, [0.0], phase_rad=np.pi, reads=[False], spoil=True),
                block(flip_rad, [te_s, left], reads=[True, False], spoil=True),
            )
        )
    return repeated(*acquisitions, averages=averages)
