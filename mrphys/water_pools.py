r"""How much of a voxel's water decays fast, when no T2 of it is known: a posterior of three pools.

    x = K(T2_1) a_1 + K(T2_2) a_2 + K(T2_3) a_3 + η,      share = a_1 / (a_1 + a_2 + a_3)

a short, a middle and a long T2, each within its own range, every logarithm of it as probable, and
every amplitude a >= 0. Given T2 the amplitudes are a Gaussian cut off at 0, which is sampled one
after another, each knowing those before it, and weighted by what is left of the Gaussian. T2 are
sampled by importance: from what is known before, then from a t-distribution of the mean and spread
that were found, once with the likelihood tempered. The points are those of Sobol's sequence, the
same in every voxel. Magnitudes are of Rice's distribution, taken as straight in the amplitude about
the mean signal of the sampling before.

Geweke 1991, Computing Science and Statistics 23:571-578 (a Gaussian cut off); Oh, Berger 1992,
doi:10.1080/00949659208811410 (adaptive importance sampling).
"""

from functools import lru_cache
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import log_ndtr, ndtr, ndtri
from jaxtyping import Array, Float
from numpy.polynomial import chebyshev
from scipy.special import gammaincinv
from scipy.stats import norm, qmc

from mrphys.likelihood import bessel_ratio, rician_information

DEGREE = 5
"""Of a train's echoes in log T2 over a pool's range: within 2e-4 of the first."""
POINTS = 512
TEMPERED = (0.1, 1.0, 1.0)
"""The power of the likelihood in each sampling."""
TAIL = 8
"""Degrees of freedom of the t-distribution."""
WIDER = 1.1
FAR = 8.0
"""Sds from which a Gaussian's tail is that of exp(-x²/2)/x."""
ORDER = (0, 2, 1)
"""Amplitudes nearest to 0 are sampled first."""
LEAST_NOISE = 1e-3
"""Of the greatest signal: what interpolation in T2 and B1 is good for."""


class Share(NamedTuple):
    """Mean and sd of the share that decays fast, and of how many points' worth they are."""

    mean: Float[Array, ""]
    sd: Float[Array, ""]
    points: Float[Array, ""]


class _Points(NamedTuple):
    """Points of a Gaussian and of a t-distribution, the latter's log density, even numbers."""

    normal: np.ndarray
    heavy: np.ndarray
    log_density: np.ndarray
    even: np.ndarray


@lru_cache
def _points() -> _Points:
    sobol = qmc.Sobol(7, rng=0).random(POINTS)
    normal = norm.ppf(sobol[:, :3])
    heavy = normal * np.sqrt(TAIL / (2 * gammaincinv(TAIL / 2, sobol[:, 3:4])))
    log_density = -(TAIL + 3) / 2 * np.log1p((heavy**2).sum(axis=1) / TAIL)
    return _Points(normal, heavy, log_density, sobol[:, 4:].T)


def nodes_s(edges_s: tuple[float, float, float, float]) -> Float[np.ndarray, "pools nodes"]:
    """T2 at which a train must be known, for `series`."""
    low, high = np.log(edges_s[:-1])[:, None], np.log(edges_s[1:])[:, None]
    return np.exp(low + (high - low) * (chebyshev.chebpts1(2 * DEGREE) + 1) / 2)


def series(signals: Float[Array, "*b1 pools nodes readouts"]) -> Float[Array, "*b1 readouts terms"]:
    """Chebyshev's series in log T2 of signals at `nodes_s`, pool after pool."""
    nodes = chebyshev.chebpts1(2 * DEGREE)
    inverse = np.linalg.pinv(chebyshev.chebvander(nodes, DEGREE))
    terms = jnp.einsum("cn,...pnr->...rpc", jnp.asarray(inverse), signals)
    return terms.reshape(*terms.shape[:-2], -1)


def share(
    basis: Float[Array, "readouts terms"], x: Float[Array, " readouts"], noise: Float[Array, ""]
) -> Share:
    """The share of the first pool in the magnitudes x of a voxel, their noise's sd known.

    `basis` is what `series` gives. Differentiable in all three.
    """
    dtype = x.dtype
    still = _points()
    normal, heavy, log_density, even = (jnp.asarray(v, dtype) for v in still)
    m = x / noise
    signal = jnp.sqrt(jnp.maximum(m**2 - 1, 0.25))
    centre, spread = jnp.zeros(3, dtype), jnp.eye(3, dtype=dtype)
    points, density = normal, -jnp.sum(normal**2, axis=1) / 2
    for power in TEMPERED:
        information = rician_information(signal)
        score = m * bessel_ratio(m * signal) - signal
        at = centre[None] + points @ spread.T
        fit, log_likelihood, parts = _amplitudes(basis, information, signal, score, at, even)
        log_weight = power * log_likelihood - jnp.sum(at**2, axis=1) / 2 - density
        weight = jax.nn.softmax(log_weight)
        signal = jnp.maximum(basis @ (fit @ weight), 0.01)
        centre = weight @ at
        off = at - centre[None]
        narrow = jnp.eye(3, dtype=dtype) * 1e-6
        spread = WIDER * jnp.linalg.cholesky((off.T * weight[None]) @ off + narrow)
        points, density = heavy, log_density
    fast = parts[0] / (parts[0] + parts[1] + parts[2])
    mean = jnp.sum(weight * fast)
    sd = jnp.sqrt(jnp.sum(weight * (fast - mean) ** 2))
    return Share(mean, sd, 1 / jnp.sum(weight**2))


def _amplitudes(
    basis: Array,
    information: Array,
    signal: Array,
    score: Array,
    at: Float[Array, "points pools"],
    even: Array,
) -> tuple[Float[Array, "terms points"], Float[Array, " points"], Float[Array, "pools points"]]:
    """Of T2 at the quantiles ndtr(at) of their ranges: amplitudes at random, in terms of the basis
    and by pool, and the log of what their Gaussian integrates to."""
    polynomial = _chebyshev(2 * ndtr(at.T) - 1)
    square = jnp.reshape((basis.T * information[None]) @ basis, (3, DEGREE + 1, 3, DEGREE + 1))
    right = jnp.reshape(basis.T @ (information * signal + score), (3, DEGREE + 1))

    def product(i: int, j: int) -> Array:
        return jnp.sum(polynomial[:, i] * (square[i, :, j] @ polynomial[:, j]), axis=0)

    first, second, last = ORDER
    reach = [right[i] @ polynomial[:, i] for i in ORDER]
    a22, a12, a02 = product(last, last), product(second, last), product(first, last)
    # What is left of the Gaussian when the last, then the second, amplitude is integrated over.
    tilt = a12 / a22
    a11, a01 = product(second, second), product(first, second)
    b11 = jnp.maximum(a11 - tilt * a12, 1e-6 * a11)
    b01 = a01 - tilt * a02
    second_reach = reach[1] - tilt * reach[2]
    a00 = product(first, first)
    c00 = jnp.maximum(a00 - a02**2 / a22 - b01**2 / b11, 1e-6 * a00)
    first_reach = reach[0] - a02 / a22 * reach[2] - b01 / b11 * second_reach
    best0 = first_reach / c00
    best1 = (second_reach - b01 * best0) / b11
    best = _in_order(best0, best1, (reach[2] - a02 * best0 - a12 * best1) / a22)
    # Of what is left over: the difference of two great squares would be rounding's.
    left = score[:, None] + information[:, None] * (
        signal[:, None] - basis @ _fit(polynomial, best)
    )
    inside = -jnp.sum(left**2 / information[:, None], axis=0) / 2 - jnp.log(c00 * b11 * a22) / 2
    x0, log0 = _positive(best0, c00, even[0])
    x1, log1 = _positive((second_reach - b01 * x0) / b11, b11, even[1])
    x2, log2 = _positive((reach[2] - a02 * x0 - a12 * x1) / a22, a22, even[2])
    parts = _in_order(x0, x1, x2)
    return _fit(polynomial, parts), inside + log0 + log1 + log2, parts


def _in_order(*parts: Array) -> Float[Array, "pools points"]:
    """By pool, of amplitudes in the order of their sampling."""
    return jnp.stack([parts[ORDER.index(pool)] for pool in range(3)])


def _fit(polynomial: Array, parts: Array) -> Float[Array, "terms points"]:
    """The signal of amplitudes, in terms of the basis."""
    terms = jnp.moveaxis(polynomial, 1, 0) * parts[:, None]
    return jnp.reshape(terms, (-1, parts.shape[1]))


def _chebyshev(y: Float[Array, "pools points"]) -> Float[Array, "terms pools points"]:
    terms = [jnp.ones_like(y), y]
    for _ in range(DEGREE - 1):
        terms.append(2 * y * terms[-1] - terms[-2])
    return jnp.stack(terms)


def _positive(mean: Array, precision: Array, even: Array) -> tuple[Array, Array]:
    """At the quantiles `even`, a Gaussian cut off below 0; and the log of what is above."""
    root = jnp.sqrt(precision)
    low = -mean * root
    far = low > FAR
    least = float(jnp.finfo(even.dtype).tiny)
    near = -ndtri(jnp.clip(even * ndtr(jnp.where(far, 0.0, -low)), least, 1 - 1e-7))
    tail = jnp.sqrt(jnp.where(far, low, FAR) ** 2 - 2 * jnp.log(even))
    return jnp.maximum(mean + jnp.where(far, tail, near) / root, 0.0), log_ndtr(-low)
