r"""Closed forms of steady states and recoveries: fast models, and the oracles of the engines.

ernst, ernst_angle_rad         gradient echo, ideally spoiled
freeman_hill, balanced         balanced SSFP on resonance; at any off-resonance, any phase advance
ssfp_fid, ssfp_echo            net gradient in every repetition (FISP, PSIF, DESS)
apparent_t1_s, apparent_m0, look_locker       readouts that hurry a recovery
inversion_recovery, saturation_recovery, spin_echo    pulses of any angle, any TR
mprage, mp2rage                spoiled trains after an inversion
magnetisation_transfer, saturated     continuous wave: a semi-solid pool, any number of pools

Signals are complex and as `mrphys.simulate` gives them: a pulse of phase 0 turns about x, the
receiver follows it, off-resonance adds exp(-2πi b0 t). Pulses are instantaneous, transverse
magnetisation is spoiled where not said otherwise, and

    E1 = exp(-TR/T1),   E2 = exp(-TR/T2)

Arguments are numbers or arrays that broadcast, in seconds, radians and hertz; a flip angle is the
one that the spins see, b1 times the nominal. Valid for times >= 0, T1 and T2 > 0 and any angle,
the limits of zero angle and zero time among them; nothing is checked, so that everything works
under jit and vmap. Differences of nearly equal exponentials are written so that float32 keeps its
digits.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float, Int

from mrphys.epg import transmit
from mrphys.exchange import SemiSolid, generator, steady
from mrphys.tissue import Tissue
from mrphys.units import Values

Signal = Complex[Array, "..."]
Real = Float[Array, "..."]


def _arrays(*values: Values) -> list[Array]:
    """As real arrays of one shape."""
    arrays = [jnp.asarray(value, float) for value in values]
    shape = np.broadcast_shapes(*(array.shape for array in arrays))
    return [jnp.broadcast_to(array, shape) for array in arrays]


def _lost(time_s: Array, t_s: Array) -> Array:
    """1 - exp(-t/T)."""
    return -jnp.expm1(-time_s / t_s)


def _lost_per_s(time_s: Array, t_s: Array) -> Array:
    """(1 - exp(-t/T)) / t, 1/T at t = 0."""
    x = time_s / t_s
    small = jnp.abs(x) < 1e-2
    near = 1 - x / 2 * (1 - x / 3 * (1 - x / 4 * (1 - x / 5)))
    return jnp.where(small, near, -jnp.expm1(-x) / jnp.where(small, 1.0, x)) / t_s


def _ratio(over: Array, under: Array, otherwise: Array | float) -> Array:
    """Their ratio, `otherwise` where it is 0 / 0."""
    some = under != 0
    return jnp.where(some, over / jnp.where(some, under, 1.0), otherwise)


def _seen(size: Array, te_s: Array, rate: Array, b0_hz: Array) -> Signal:
    """i size exp(-TE rate) exp(-2πi b0 TE)."""
    left, turn = size * jnp.exp(-te_s * rate), 2 * jnp.pi * b0_hz * te_s
    return jax.lax.complex(left * jnp.sin(turn), left * jnp.cos(turn))


def ernst(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2star_s: Values = np.inf,
    *,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
) -> Signal:
    """The spoiled gradient echo:

        i m0 sin α (1 - E1) / (1 - E1 cos α) exp(-TE/T2*) exp(-2πi b0 TE)

    Ernst & Anderson 1966, doi:10.1063/1.1719961.

    >>> complex(ernst(ernst_angle_rad(0.01, 1.0), 0.0, 0.01, 1.0).round(4))
    0.0707j
    """
    flip, te, tr, t1, t2star, m0, b0 = _arrays(flip_rad, te_s, tr_s, t1_s, t2star_s, m0, b0_hz)
    return _seen(jnp.sin(flip) * apparent_m0(flip, tr, t1, m0), te, 1 / t2star, b0)


def ernst_angle_rad(tr_s: Values, t1_s: Values) -> Real:
    """The angle of the largest spoiled signal, arccos E1, written tan²(α/2) = tanh(TR / 2 T1).

    Its derivative is infinite at TR = 0, and given as 0 there.
    """
    tr, t1 = _arrays(tr_s, t1_s)
    square = jnp.tanh(tr / (2 * t1))
    some = square > 0
    return jnp.where(some, 2 * jnp.arctan(jnp.sqrt(jnp.where(some, square, 1.0))), 0.0)


def freeman_hill(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2_s: Values,
    *,
    m0: Values = 1.0,
) -> Signal:
    """Balanced SSFP on resonance with pulses of alternating phase:

        i m0 sin α (1 - E1) / (1 - (E1 - E2) cos α - E1 E2) exp(-TE/T2)

    E2 is of TR whatever TE. At TR → 0 it is sin α / (1 + cos α + (1 - cos α) T1/T2). Freeman & Hill
    1971, doi:10.1016/0022-2364(71)90082-6.
    """
    return balanced(flip_rad, te_s, tr_s, t1_s, t2_s, m0=m0)


def balanced(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2_s: Values,
    *,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
    advance_rad: Values = np.pi,
) -> Signal:
    """Balanced SSFP whose pulses advance in phase by `advance_rad`: with θ = 2π b0 TR + advance

        i m0 sin α (1 - E1) (1 - E2 exp(iθ)) / D exp(-TE/T2) exp(-2πi b0 TE)
        D = (1 - E1 cos α)(1 - E2 cos θ) - E2 (E1 - cos α)(E2 - cos θ)

    Of one isochromat, in the phase of the pulse before the echo. Written with 1 - E over TR and

        D = (1 - E1)(1 - E2)² + (E1 + E2)(1 - E2)(1 - cos α) + E2 (1 - E1)(1 + cos α)(1 - cos θ)

    it has its limit at TR → 0. Freeman & Hill 1971, doi:10.1016/0022-2364(71)90082-6.
    """
    flip, te, tr, t1, t2, m0, b0, advance = _arrays(
        flip_rad, te_s, tr_s, t1_s, t2_s, m0, b0_hz, advance_rad
    )
    e1, e2, rate1, rate2 = _lost(tr, t1), _lost(tr, t2), _lost_per_s(tr, t1), _lost_per_s(tr, t2)
    angle = 2 * jnp.pi * b0 * tr + advance
    tip, turn = 2 * jnp.sin(flip / 2) ** 2, 2 * jnp.sin(angle / 2) ** 2
    under = rate1 * (e2**2 + (1 - e2) * (2 - tip) * turn) + rate2 * (2 - e1 - e2) * tip
    size = m0 * _ratio(jnp.sin(flip) * rate1, under, 0.0)
    across, along = e2 + (1 - e2) * turn, (1 - e2) * jnp.sin(angle)
    return jax.lax.complex(across, -along) * _seen(size, te, 1 / t2, b0)


def ssfp_fid(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2_s: Values,
    *,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
    t2prime_s: Values = np.inf,
) -> Signal:
    """The echo after the pulse (FISP, GRASS, S+) where a gradient dephases by whole turns in every
    repetition and pulses have one phase:

        i m0 tan(α/2) (1 - (E1 - cos α) (1 - E2²) / r) exp(-TE/T2*) exp(-2πi b0 TE)
        r² = (1 - E2²) ((1 - E1 cos α)² - E2² (E1 - cos α)²)

    `balanced` averaged over one turn of θ, without diffusion. Gyngell 1989,
    doi:10.1016/0022-2364(89)90083-8; Hänicke & Vogel 2003, doi:10.1002/mrm.10410.
    """
    flip, te, tr, t1, t2, m0, b0, t2prime = _arrays(
        flip_rad, te_s, tr_s, t1_s, t2_s, m0, b0_hz, t2prime_s
    )
    tip, sin, rate1, before, root = _dephased(flip, tr, t1, t2)
    # (1 - a/r) tan(α/2); where a > 0 and it would cancel, times (1 + a/r) / (1 + a/r).
    late = before > 0
    under = root * jnp.where(late, root + before, 1.0)
    tan = sin / jnp.where(late, 1.0, 2 - tip)
    early_size = tan * (1 - _ratio(before, root, 1.0))
    size = jnp.where(late, _ratio(tip * sin * rate1, under, 0.0), early_size)
    return _seen(m0 * size, te, 1 / t2 + 1 / t2prime, b0)


def ssfp_echo(
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2_s: Values,
    *,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
    t2prime_s: Values = np.inf,
) -> Signal:
    """The echo `te_s` before the next pulse (PSIF, CE-FAST, S-) of the sequence of `ssfp_fid`:

        -i m0 tan(α/2) (1 - (1 - E1 cos α)(1 - E2²) / r) exp(TE/T2 - TE/T2') exp(2πi b0 TE)

    Gyngell 1989, doi:10.1016/0022-2364(89)90083-8; Hänicke & Vogel 2003, doi:10.1002/mrm.10410.
    """
    flip, te, tr, t1, t2, m0, b0, t2prime = _arrays(
        flip_rad, te_s, tr_s, t1_s, t2_s, m0, b0_hz, t2prime_s
    )
    tip, sin, rate1, _, root = _dephased(flip, tr, t1, t2)
    e1, e2 = jnp.exp(-tr / t1), jnp.exp(-tr / t2)
    after = (_lost(tr, t1) + e1 * tip) * jnp.sqrt(_lost_per_s(tr, t2 / 2))
    size = m0 * _ratio(tip * sin * rate1 * e2**2, root * (root + after), 0.0)
    return _seen(-size, -te, 1 / t2 - 1 / t2prime, b0)


def _dephased(flip: Array, tr: Array, t1: Array, t2: Array) -> tuple[Array, ...]:
    """1 - cos α, sin α, (1 - E1²) / TR, a = (E1 - cos α) √((1 - E2²) / TR) and √(a² + that sin² α),
    which is r / √(TR (1 - E2²)): nothing vanishes with TR."""
    tip, sin = 2 * jnp.sin(flip / 2) ** 2, jnp.sin(flip)
    rate1, rate2 = _lost_per_s(tr, t1 / 2), _lost_per_s(tr, t2 / 2)
    before = (tip - _lost(tr, t1)) * jnp.sqrt(rate2)
    square = before**2 + rate1 * sin**2
    some = square > 0
    return tip, sin, rate1, before, jnp.where(some, jnp.sqrt(jnp.where(some, square, 1.0)), 0.0)


def apparent_m0(flip_rad: Values, tr_s: Values, t1_s: Values, m0: Values = 1.0) -> Real:
    """M0*, to which spoiled readouts of flip α every TR drive the longitudinal magnetisation:

        m0 (1 - E1) / (1 - E1 cos α)

    m0 without any flip. Deichmann & Haase 1992, doi:10.1016/0022-2364(92)90347-A.
    """
    flip, tr, t1, m0 = _arrays(flip_rad, tr_s, t1_s, m0)
    grown = _lost(tr, t1)
    return m0 * _ratio(grown, grown + (1 - grown) * 2 * jnp.sin(flip / 2) ** 2, 1.0)


def apparent_t1_s(flip_rad: Values, tr_s: Values, t1_s: Values) -> Real:
    """T1*, with which they drive it there: 1/T1* = 1/T1 - ln(cos α) / TR, for |α| < π/2 and TR > 0.

    Deichmann & Haase 1992, doi:10.1016/0022-2364(92)90347-A.
    """
    flip, tr, t1 = _arrays(flip_rad, tr_s, t1_s)
    return 1 / (1 / t1 - jnp.log(jnp.cos(flip)) / tr)


def look_locker(
    readout: Int[Array | np.ndarray, "..."] | int,
    flip_rad: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2star_s: Values = np.inf,
    *,
    ti_s: Values = 0.0,
    inversion_rad: Values = np.pi,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
) -> Signal:
    """The n-th of the readouts (from 0) every TR after an inversion from full relaxation and TI:

        i sin α (M0* + (M(TI) - M0*) (E1 cos α)ⁿ) exp(-TE/T2*) exp(-2πi b0 TE)
        M(TI) = m0 (1 - (1 - cos α_inv) exp(-TI/T1))

    (E1 cos α)ⁿ being exp(-n TR / T1*). Look & Locker 1970, doi:10.1063/1.1684482.
    """
    times = (te_s, tr_s, t1_s, t2star_s, ti_s)
    flip, te, tr, t1, t2star, ti, inversion, m0, b0, count = _arrays(
        flip_rad, *times, inversion_rad, m0, b0_hz, readout
    )
    start = m0 * (1 - (1 - jnp.cos(inversion)) * jnp.exp(-ti / t1))
    held = (jnp.exp(-tr / t1) * jnp.cos(flip)) ** count.astype(int)
    m = apparent_m0(flip, tr, t1, m0) * (1 - held) + start * held
    return _seen(jnp.sin(flip) * m, te, 1 / t2star, b0)


def inversion_recovery(
    ti_s: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2star_s: Values = np.inf,
    *,
    flip_rad: Values = np.pi / 2,
    inversion_rad: Values = np.pi,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
) -> Signal:
    """A pulse β, TI, excitation α, repeated every TR: i sin α M exp(-TE/T2*) exp(-2πi b0 TE) with

        M = m0 (1 - E_i + cos β E_i (1 - E_r)) / (1 - cos α cos β E_i E_r)
        E_i = exp(-TI/T1),   E_r = exp(-(TR - TI)/T1)

    m0 (1 - 2 E_i + E1) of perfect pulses.
    """
    ti, te, tr, t1, t2star, flip, inversion, m0, b0 = _arrays(
        ti_s, te_s, tr_s, t1_s, t2star_s, flip_rad, inversion_rad, m0, b0_hz
    )
    before, after = jnp.exp(-ti / t1), _lost(tr - ti, t1)
    over = _lost(ti, t1) + jnp.cos(inversion) * before * after
    under = _lost(tr, t1) + jnp.exp(-tr / t1) * (1 - jnp.cos(flip) * jnp.cos(inversion))
    return _seen(m0 * jnp.sin(flip) * _ratio(over, under, 1.0), te, 1 / t2star, b0)


def saturation_recovery(
    ti_s: Values,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2star_s: Values = np.inf,
    *,
    flip_rad: Values = np.pi / 2,
    saturation_rad: Values = np.pi / 2,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
) -> Signal:
    """`inversion_recovery` after a pulse of π/2: i m0 (1 - exp(-TI/T1)) exp(-TE/T2*) of a perfect
    one, whatever TR."""
    pulses = {"flip_rad": flip_rad, "inversion_rad": saturation_rad}
    return inversion_recovery(ti_s, te_s, tr_s, t1_s, t2star_s, m0=m0, b0_hz=b0_hz, **pulses)


def spin_echo(
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2_s: Values,
    *,
    excitation_rad: Values = np.pi / 2,
    refocusing_rad: Values = np.pi,
    m0: Values = 1.0,
) -> Signal:
    """Excitation α, a crushed refocusing pulse β at TE/2, repeated every TR:

        i M sin α sin²(β/2) exp(-TE/T2)
        M = m0 (1 - E_r + E_r (1 - E_h) cos β) / (1 - E_r E_h cos α cos β)
        E_h = exp(-TE / 2 T1),   E_r = exp(-(TR - TE/2) / T1)

    m0 (1 - 2 exp(-(TR - TE/2)/T1) + E1) of perfect pulses. Hahn 1950, doi:10.1103/PhysRev.80.580.
    """
    te, tr, t1, t2, excitation, refocusing, m0 = _arrays(
        te_s, tr_s, t1_s, t2_s, excitation_rad, refocusing_rad, m0
    )
    rest, turned = jnp.exp(-(tr - te / 2) / t1), jnp.cos(refocusing)
    over = _lost(tr - te / 2, t1) + rest * _lost(te / 2, t1) * turned
    under = _lost(tr, t1) + jnp.exp(-tr / t1) * (1 - jnp.cos(excitation) * turned)
    echo = jnp.sin(excitation) * jnp.sin(refocusing / 2) ** 2
    return _seen(m0 * echo * _ratio(over, under, 1.0), te, 1 / t2, jnp.zeros_like(te))


def mprage(
    ti_s: Values,
    flip_rad: Values,
    echo_spacing_s: Values,
    readouts: int,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2star_s: Values = np.inf,
    *,
    inversion_rad: Values = np.pi,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
) -> Signal:
    """The readout at TI, number `readouts // 2` of its train, of `mp2rage` with one train.

    Mugler & Brookeman 1990, doi:10.1002/mrm.1910150117.
    """
    ti, flip = (jnp.asarray(value, float)[None] for value in (ti_s, flip_rad))
    times = (echo_spacing_s, readouts, te_s, tr_s, t1_s, t2star_s)
    both = {"inversion_rad": inversion_rad, "m0": m0, "b0_hz": b0_hz}
    return mp2rage(ti, flip, *times, **both)[..., 0]


def mp2rage(
    ti_s: Values,
    flip_rad: Values,
    echo_spacing_s: Values,
    readouts: int,
    te_s: Values,
    tr_s: Values,
    t1_s: Values,
    t2star_s: Values = np.inf,
    *,
    inversion_rad: Values = np.pi,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
) -> Signal:
    """The readouts at the TIs, number `readouts // 2` of their trains, in the steady state of
    inversion and spoiled trains every TR: one more axis, the last.

    ti_s, flip_rad   of each train along their first axis

    What happens to the longitudinal magnetisation between two points is M → A M + B, with

        free for t:        A = exp(-t/T1),       B = m0 (1 - A)
        n readouts:        A = (E1 cos α)ⁿ,      B = M0* (1 - A)    of echo spacing and flip α
        a whole repetition: M = B / (1 - A)

    Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.
    """
    delays, flips = jnp.asarray(ti_s, float), jnp.asarray(flip_rad, float)
    trains = range(delays.shape[0])
    spacing, te, tr, t1, t2star, inversion, m0, b0, *each = _arrays(
        echo_spacing_s, te_s, tr_s, t1_s, t2star_s, inversion_rad, m0, b0_hz,
        *(delays[i] for i in trains), *(flips[i] for i in trains),
    )  # fmt: skip
    first, now = readouts // 2, jnp.zeros_like(tr)
    kept, gained, seen = jnp.cos(inversion), jnp.zeros_like(tr), []

    def towards(goal: Array, left: Array) -> tuple[Array, Array]:
        return kept * left, gained * left + goal * (1 - left)

    for delay, flip in zip(each[: len(trains)], each[len(trains) :], strict=True):
        goal, each_left = apparent_m0(flip, spacing, t1, m0), jnp.exp(-spacing / t1) * jnp.cos(flip)
        kept, gained = towards(m0, jnp.exp(-(delay - first * spacing - now) / t1))
        kept, gained = towards(goal, each_left**first)
        seen.append((jnp.sin(flip), kept, gained))
        kept, gained = towards(goal, each_left ** (readouts - first))
        now = delay + (readouts - first) * spacing
    kept, gained = towards(m0, jnp.exp(-(tr - now) / t1))
    m = _ratio(gained, 1 - kept, m0)
    return jnp.stack([_seen(sin * (a * m + b), te, 1 / t2star, b0) for sin, a, b in seen], axis=-1)


def magnetisation_transfer(
    offset_hz: Values,
    b1_hz: Values,
    t1_s: Values,
    t2_s: Values,
    semisolid: SemiSolid,
    *,
    m0: Values = 1.0,
    b0_hz: Values = 0.0,
) -> Real:
    """Longitudinal magnetisation of water under a continuous wave `offset_hz` from it, in exchange
    with a semi-solid pool of fraction f and rate k, its relaxation R and saturation W:

        m0 (R1 (R + W + k) + f k R) / ((R1 + W_w)(R + W + k) + f k (R + W))
        W_w = (2π b1)² T2 / (1 + (2π Δ T2)²),   W = π (2π b1)² g(Δ)

    the steady state of the Bloch-McConnell equations, exactly. Henkelman et al. 1993,
    doi:10.1002/mrm.1910290607.
    """
    fields = (semisolid.fraction, semisolid.exchange_rate_hz, semisolid.t1_s, semisolid.t2_s)
    offset, b1, t1, t2, m0, b0, fraction, rate, t1s, t2s = _arrays(
        offset_hz, b1_hz, t1_s, t2_s, m0, b0_hz, *fields
    )
    bound = SemiSolid(fraction, rate, t1s, t2s, semisolid.lineshape)
    shift, square = offset - b0, (2 * jnp.pi * b1) ** 2
    direct = square * t2 / (1 + (2 * jnp.pi * shift * t2) ** 2)
    fading = 1 / t1s + jnp.pi * square * bound.absorption_s(shift)
    over = (fading + rate) / t1 + fraction * rate / t1s
    return m0 * over / ((1 / t1 + direct) * (fading + rate) + fraction * rate * fading)


def saturated(offset_hz: Values, b1_hz: Values, q: Tissue) -> Float[Array, "*voxels offsets"]:
    """Longitudinal magnetisation of water under a continuous wave at each offset from it: the
    steady state of the Bloch-McConnell equations of all pools of q (`mrphys.exchange`).

    McConnell 1958, doi:10.1063/1.1744152.
    """
    offset, b1 = _arrays(jnp.atleast_1d(jnp.asarray(offset_hz, float)), b1_hz)
    rows = jax.tree.map(lambda value: value.reshape(-1), q.broadcast())

    def water(q: Tissue, offset: Array, b1: Array) -> Array:
        still = (q.m0, q.t1_s, q.t2_s, q.b0_hz, q.pools, q.semisolid)
        return steady(*generator(*still, transmit(q) * b1, offset))[2]

    along = jax.vmap(water, in_axes=(None, 0, 0))
    return jax.vmap(along, in_axes=(0, None, None))(rows, offset, b1).reshape(*q.voxel_shape, -1)
