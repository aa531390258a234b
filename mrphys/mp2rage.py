"""q from x: T1 from MP2RAGE, by the combination of its two images.

    S = Re(conj(x_1) x_2) / (|x_1|² + |x_2|²),   -1/2 <= S <= 1/2

knows no proton density, no T2* and no receive field; scanners call it UNI.

TwoTrains   the two images in closed form
uni         S of the images
fit_uni     T1 of S
fit_images  T1 of the images themselves, by S

Marques et al. 2010, doi:10.1016/j.neuroimage.2009.10.002.
"""

from functools import partial

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Bool, Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.mapping import Estimate
from mrphys.tissue import Tissue
from mrphys.units import Values, check_count, check_range, check_time_s, shape_of
from mrphys.voxelwise import AT_BOUNDARY, CONVERGED, FAILED, ILL_DETERMINED, MASKED

INVERSION = 0.96
"""Of an adiabatic pulse (Marques et al. 2010)."""
T1_S = (0.05, 6.0)
"""Looked for between these."""
ENTRIES, HALVINGS = 96, 20

Mask = Bool[Array | np.ndarray, "..."] | None


class LongitudinalTime(eqx.Module):
    """T1, the one thing that S tells."""

    t1_s: Float[Array, "*voxels"]


class TwoTrains(eqx.Module):
    """MP2RAGE in its steady state: the centre of each of two spoiled trains of `shots` pulses.

    Before pulse j of a train that starts with M, in units of m0,

        M_j = M c^j + (1 - E) (1 - c^j) / (1 - c),   c = E cos(b1 α),   E = exp(-spacing / T1)

    with recovery in the gaps before, between and after the trains. The inversion is adiabatic: it
    turns M to -`inversion` M whatever the transmit field. Decay until the echo is part of m0.
    """

    flip_rad: Float[Array, "2"]
    gaps_s: Float[Array, "3"]
    spacing_s: Float[Array, ""]
    inversion: Float[Array, ""]
    before: int = eqx.field(static=True)
    shots: int = eqx.field(static=True)

    def __call__(self, q: Tissue) -> Complex[Array, "2"]:
        """Both images of one voxel."""
        e, rest = jnp.exp(-self.spacing_s / q.t1_s), jnp.exp(-self.gaps_s / q.t1_s)
        angle = q.b1.real * self.flip_rad

        def train(state, i: int, pulses: int):
            """M = slope M(TR before) + shift after some pulses of a train."""
            c = e * jnp.cos(angle[i])
            left = c**pulses
            return left * state[0], left * state[1] + (1 - e) * (1 - left) / (1 - c)

        def recovered(state, i: int):
            return rest[i] * state[0], rest[i] * state[1] + 1 - rest[i]

        first = recovered((-self.inversion, jnp.zeros_like(e)), 0)
        second = recovered(train(first, 0, self.shots), 1)
        slope, shift = recovered(train(second, 1, self.shots), 2)
        steady = shift / (1 - slope)
        seen = [train(start, i, self.before) for i, start in enumerate((first, second))]
        m = jnp.stack([slope * steady + shift for slope, shift in seen])
        x = q.m0 * jnp.sin(angle) * m
        return jax.lax.complex(x, jnp.zeros_like(x))


def two_trains(
    ti_s: Values,
    flip_rad: Values,
    spacing_s: Values,
    shots: tuple[int, int],
    tr_s: Values,
    inversion: Values = INVERSION,
) -> TwoTrains:
    """MP2RAGE from the settings of a scan.

    ti_s, flip_rad  of the centre of k-space of each image
    spacing_s       of the pulses of a train: BIDS RepetitionTimeExcitation
    shots           pulses of a train before the centre of k-space, and from it on
    tr_s            between inversions: BIDS RepetitionTimePreparation
    inversion       efficiency of the inversion pulse

    Raises InputError for times out of range or in ms, angles in degrees, trains that do not fit.

    >>> two_trains((0.8, 2.7), (0.09, 0.1), 0.007, (60, 100), 5.0).gaps_s.round(2)
    Array([0.38, 0.78, 1.6 ], dtype=float64)
    """
    where = "two_trains"
    check_time_s(f"{where}: ti_s", ti_s)
    check_time_s(f"{where}: spacing_s", spacing_s, low=1e-4, high=0.5)
    check_time_s(f"{where}: tr_s", tr_s, low=1e-3, high=60.0)
    check_range(f"{where}: flip_rad", flip_rad, 1e-3, np.pi / 2, "rad", "degrees given for radians")
    check_range(f"{where}: inversion", inversion, 0.1, 1.0, "", "an angle, or per cent")
    for name, value in (("ti_s", ti_s), ("flip_rad", flip_rad)):
        if shape_of(where, value) != (2,):
            found = f"shape {shape_of(where, value)}"
            raise InputError(Problem(f"{where}: {name}", found, "one number for each image"))
    for count, least in zip(shots, (0, 1), strict=True):
        check_count(f"{where}: shots", count, least)
    before, count = shots[0], sum(shots)
    times, spacing, tr = (jnp.asarray(value, float) for value in (ti_s, spacing_s, tr_s))
    starts = jnp.stack([*(times - before * spacing), tr])
    ends = jnp.stack([jnp.zeros_like(tr), *(times + (count - before) * spacing)])
    gaps = starts - ends
    if not isinstance(gaps, Tracer) and float(jnp.min(gaps)) < 0:
        length = float(count * spacing)
        found = f"trains of {length:.3g} s around {float(times[0]):g} and {float(times[1]):g} s"
        expected = f"room for both, one after the other, within tr_s = {float(tr):g} s"
        cause = "other numbers of shots, times in other units"
        raise InputError(Problem(where, found, expected, cause))
    flips = jnp.asarray(flip_rad, float)
    return TwoTrains(flips, gaps, spacing, jnp.asarray(inversion, float), before, count)


def uni(x: Complex[Array, "*voxels 2"]) -> Float[Array, "*voxels"]:
    """S of both images; 0 where both are 0. Real images with their sign do as well."""
    size = _size(x)
    return jnp.where(size > 0, _along(x).real / jnp.where(size > 0, size, 1.0), 0.0)


def uni_sd(x: Complex[Array, "*voxels 2"], noise_sd: ArrayLike) -> Float[Array, "*voxels"]:
    """sd of S where each part of both images has noise of sd σ:

        var S = σ² (1 - 4 S²) / P + (2 σ² / P)²,   P = |x_1|² + |x_2|²

    the second term of next order, all there is at S = 1/2. Infinite where both are 0.
    """
    size, s = _size(x), uni(x)
    share = jnp.asarray(noise_sd) ** 2 / jnp.where(size > 0, size, 1.0)
    variance = share * jnp.maximum(1 - 4 * s**2, 0.0) + (2 * share) ** 2
    return jnp.where(size > 0, jnp.sqrt(jnp.where(size > 0, variance, 1.0)), jnp.inf)


def fit_uni(
    theta: TwoTrains,
    s: Float[Array, "*voxels"],
    s_sd: ArrayLike,
    b1: ArrayLike = 1.0,
    mask: Mask = None,
) -> Estimate:
    """T1 of S, where S falls with T1 (between its largest and its smallest value).

    theta      the scan; one `jax.jit` serves all voxels
    s, s_sd    between -1/2 and 1/2, and sd: `uni`, `uni_sd`
    b1         transmit field relative to nominal, a number or a map
    mask       True where to fit

    By a table of T1 from 0.05 to 6 s at the b1 of each voxel, halving and a Newton step: exact to
    rounding. The Estimate's value and sd are of a `LongitudinalTime`. Its status: AT_BOUNDARY where
    S is beyond what any T1 gives, T1 the nearest; ILL_DETERMINED where the sd exceeds T1; FAILED
    where S is not finite or b1 not above 0. sd is infinite but where CONVERGED. Differentiable in
    theta, s, s_sd and b1. Raises InputError for S out of range, s_sd <= 0.
    """
    _check_uni(s, s_sd)
    t1, slope, beyond = _inverted(theta, s, jnp.asarray(b1, s.dtype))
    sd = jnp.asarray(s_sd) / jnp.maximum(jnp.abs(slope), jnp.finfo(s.dtype).tiny)
    status = jnp.where(beyond, AT_BOUNDARY, jnp.where(sd <= t1, CONVERGED, ILL_DETERMINED))
    status = jnp.where(jnp.isfinite(s) & (jnp.asarray(b1) > 0), status, FAILED)
    if mask is not None:
        status = jnp.where(jnp.asarray(mask), status, MASKED)
    return Estimate(
        value=LongitudinalTime(jnp.where((status == FAILED) | (status == MASKED), 0.0, t1)),
        sd=LongitudinalTime(jnp.where(status == CONVERGED, sd, jnp.inf)),
        phase_rad={},
        residual=jnp.zeros_like(s),
        noise_sd=jnp.broadcast_to(jnp.asarray(s_sd, s.dtype), s.shape),
        status=status,
    )


def fit_images(
    theta: TwoTrains,
    x: Complex[Array, "*voxels 2"],
    noise_sd: ArrayLike | None = None,
    b1: ArrayLike = 1.0,
    mask: Mask = None,
) -> Estimate:
    """T1 of both complex images, by their S.

    Both have one phase but for its sign: what is across it is noise, |Im(conj(x_1) x_2)| / √P, and
    the residual, of one degree of freedom. noise_sd is of each part, the residual of each voxel
    where it is None. Otherwise as `fit_uni`, whose Estimate this is; FAILED where both are 0.
    """
    size = _size(x)
    across = jnp.abs(_along(x).imag) / jnp.sqrt(jnp.where(size > 0, size, 1.0))
    sigma = across if noise_sd is None else jnp.broadcast_to(jnp.asarray(noise_sd), across.shape)
    s = jnp.where(size > 0, uni(x), jnp.nan)
    spread = jnp.where(size > 0, jnp.maximum(uni_sd(x, sigma), jnp.finfo(s.dtype).tiny), 1.0)
    found = fit_uni(theta, s, spread, b1, mask)
    left = jnp.where((found.status == FAILED) | (found.status == MASKED), 0.0, across)
    return eqx.tree_at(lambda e: (e.residual, e.noise_sd), found, (left, sigma))


def _along(x: Array) -> Array:
    return jnp.conj(x[..., 0]) * x[..., 1]


def _size(x: Array) -> Array:
    """P."""
    return jnp.sum(x.real**2 + x.imag**2, axis=-1)


def _inverted(theta: TwoTrains, s: Array, b1: Array) -> tuple[Array, Array, Array]:
    """T1, dS/dT1 there, and whether S is beyond the branch that falls."""

    @partial(jnp.vectorize, signature="(),()->()")
    def curve(t1: Array, b1: Array) -> Array:
        return uni(theta(Tissue(t1_s=t1, t2_s=0.1, b1=b1)))

    still, shape = jax.lax.stop_gradient, s.shape
    s, b1 = s.reshape(-1), b1.reshape(-1)  # one of b1, or one for each of s
    grid, place = jnp.geomspace(*T1_S, ENTRIES, dtype=s.dtype), jnp.arange(ENTRIES)[None]
    table = still(curve(grid[None], b1[:, None]))
    top = jnp.argmax(table, axis=-1, keepdims=True)
    after = jnp.where(place >= top, table, jnp.inf)
    bottom = jnp.argmin(after, axis=-1, keepdims=True)
    first, last = (jnp.take_along_axis(table, i, -1)[:, 0] for i in (top, bottom))
    held = still(jnp.where(jnp.isfinite(s), jnp.clip(s, last, first), first))
    above = (table > held[:, None]) & (place >= top) & (place < bottom)
    least = top[:, 0] + jnp.maximum(jnp.sum(above, axis=-1) - 1, 0)
    low, high = (jnp.log(grid)[jnp.minimum(least + i, ENTRIES - 1)] for i in (0, 1))

    def halve(_, ends: tuple[Array, Array]) -> tuple[Array, Array]:
        low, high = ends
        middle = (low + high) / 2
        beneath = curve(jnp.exp(middle), still(b1)) > held
        return jnp.where(beneath, middle, low), jnp.where(beneath, high, middle)

    low, high = jax.lax.fori_loop(0, HALVINGS, halve, (low, high))
    near = still(jnp.exp((low + high) / 2))
    at, slope = jax.jvp(lambda t1: curve(t1, b1), (near,), (jnp.ones_like(near),))
    beyond = ~((s <= first) & (s >= last))
    usable = (slope < 0) & ~beyond
    t1 = near + jnp.where(usable, s - at, 0.0) / jnp.where(usable, slope, -1.0)
    return t1.reshape(shape), slope.reshape(shape), beyond.reshape(shape)


def _check_uni(s: Array, s_sd: ArrayLike) -> None:
    if not isinstance(s, Tracer):
        most = float(jnp.max(jnp.abs(s), initial=0.0, where=jnp.isfinite(s)))
        if most > 0.5 * (1 + 1e-3):
            found, cause = f"values to {most:g}", "UNI in a scanner's units, 0 to 4095"
            raise InputError(Problem("fit_uni: s", found, "-0.5 to 0.5", cause))
    check_range("fit_uni: s_sd", s_sd, 1e-38, np.inf, "", "a noise sd of 0")
