"""x from y, without training."""

from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Complex, Float, Inexact, PRNGKeyArray

from mrphys.encoding import Linear
from mrphys.errors import InputError, Problem
from mrphys.reconstruction import cg_sense
from mrphys.reconstruction.adjoint import adjoint
from mrphys.reconstruction.data_term import DataTerm, data_term, misfit
from mrphys.reconstruction.discrepancy import find_weight
from mrphys.reconstruction.low_rank import LowRank
from mrphys.reconstruction.method import Found, Method, Stop
from mrphys.reconstruction.result import CONVERGED, STOPPED, UNREACHED, Reconstruction
from mrphys.reconstruction.total_variation import TotalVariation
from mrphys.reconstruction.wavelets import L1Wavelet
from mrphys.units import check_count, check_finite, check_number, check_range

METHODS: dict[str, type[Method]] = {
    "cg-sense": cg_sense.CGSense,
    "l1-wavelet": L1Wavelet,
    "tv": TotalVariation,
    "low-rank": LowRank,
}


def reconstruct(
    A: Linear,
    y: Inexact[Array | np.ndarray, "..."],
    method: str | Method = "cg-sense",
    *,
    regularisation: ArrayLike | None = None,
    noise_sd: ArrayLike | None = None,
    iterations: int | None = None,
    tolerance: float | None = None,
    start: Inexact[Array | np.ndarray, "..."] | None = None,
    density: str | Float[Array | np.ndarray, "..."] = "iterative",
    replicas: int = 0,
    key: PRNGKeyArray | None = None,
    differentiable: bool = False,
    **settings: Any,
) -> Reconstruction:
    """An image x of data y = A x + η.

        adjoint     Aᴴ W y / Σ|c|², at once, W the density of samples (`density`)
        cg-sense    argmin ½|A x - y|² + ½λ|x|²                 (`CGSense`)
        l1-wavelet  argmin ½|A x - y|² + λ|details of W x|₁      (`L1Wavelet`)
        tv          argmin ½|A x - y|² + λ Σ_r |D x|             (`TotalVariation`)
        low-rank    argmin ½|A x - y|² + λ Σ_b |x_b|_*           (`LowRank`)

    method          a name, its `settings` those of the class; or an object of such a class
    regularisation  λ, in units of the data times a sensitivity; found unless given
    noise_sd        of the real part of a datum, noise being white (prewhitened). λ is then found,
                    by the discrepancy principle |A x - y|² = 2 M noise_sd², of M data, within 5 %.
                    With regularisation=0, conjugate gradients stop there instead
    iterations      at most; of the method's class unless given, as the tolerance
    start           x where the search begins, 0 unless given
    density         for the adjoint: how (`mrphys.reconstruction.density`), or weights
    replicas        of the data, with noise added, from whose images `sd` is found; takes noise_sd
    key             of chance: shifts and replicas
    differentiable  steps of proximal and primal-dual methods can be differentiated in reverse mode,
                    all `iterations` of them; adjoint and cg-sense always can

    Leading axes of y beyond A's are images of one problem. Derivatives are those at a λ that stays.
    Raises InputError for data that do not fit A, are not finite or nothing but 0, a noise_sd not
    above 0, a negative λ, and where neither λ nor noise is given to a method that needs one.

    >>> from mrphys import Encoding
    >>> A = Encoding.cartesian(jnp.ones((4, 4), bool))
    >>> reconstruct(A, A(jnp.eye(4)), "cg-sense").image.real.round(6)[1]
    Array([0., 1., 0., 0.], dtype=float64)
    """
    y = jnp.asarray(y)
    y = y.astype(jnp.result_type(y.dtype, jnp.complex64))
    if noise_sd is not None:
        check_number("reconstruct: noise_sd", noise_sd)
        if not isinstance(noise_sd, Tracer) and not 0 < float(np.asarray(noise_sd)) < np.inf:
            found, expected = f"{float(np.asarray(noise_sd)):g}", "above 0, in the data's units"
            raise InputError(Problem("reconstruct: noise_sd", found, expected))
    if regularisation is not None:
        check_number("reconstruct: regularisation", regularisation)
        check_range("reconstruct: regularisation", regularisation, 0.0, float("inf"), "")
    check_count("reconstruct: replicas", replicas, 0)
    if noise_sd is None and replicas:
        raise InputError(Problem("reconstruct: replicas", "no noise_sd", "that of a datum"))
    key = jax.random.key(0) if key is None else key
    if isinstance(method, str) and method == "adjoint":
        found, squares, left, count = adjoint(A, y, density)
        _seen(y, squares)
        result = _told(found, jnp.zeros_like(squares), left, count)
    else:
        chosen = _method(method, settings)
        stop = Stop(
            chosen.iterations if iterations is None else iterations,
            chosen.tolerance if tolerance is None else tolerance,
            differentiable,
        )
        check_count("reconstruct: iterations", stop.iterations)
        check_range("reconstruct: tolerance", stop.tolerance, 0.0, 1.0, "")
        result = _searched(A, y, chosen, regularisation, noise_sd, start, stop, key)
    if not replicas or noise_sd is None:
        return result
    from mrphys.reconstruction.replicas import pseudo_replicas

    if regularisation is not None and method != "adjoint":  # stopped early: just as early again
        iterations, tolerance = max(int(result.iterations), 1), 0.0
    found = pseudo_replicas(
        A, y, method, noise_sd=noise_sd, replicas=replicas, key=jax.random.fold_in(key, 1),
        regularisation=None if method == "adjoint" else result.regularisation,
        iterations=iterations, tolerance=tolerance, start=start, density=density, **settings,
    )  # fmt: skip
    return eqx.tree_at(lambda r: r.sd, result, found.sd, is_leaf=lambda leaf: leaf is None)


def _searched(
    A: Linear,
    y: Complex[Array, "..."],
    method: Method,
    weight: ArrayLike | None,
    noise_sd: ArrayLike | None,
    start: Inexact[Array | np.ndarray, "..."] | None,
    stop: Stop,
    key: PRNGKeyArray,
) -> Reconstruction:
    data = _prepared(A, y)
    _seen(y, data.squares)
    shape, dtype = data.shape, data.b.dtype
    method.check(shape, data.axes)
    at = None if start is None else jnp.asarray(start, dtype)
    if at is not None and at.shape != shape:
        raise InputError(Problem("reconstruct: start", f"shape {at.shape}", f"{shape}"))
    if weight is not None or noise_sd is None:
        if weight is None and method.needs_weight:
            expected = "regularisation, or noise_sd, from which it is found"
            raise InputError(Problem(type(method).__name__, "neither λ nor noise", expected))
        by = jnp.asarray(0.0 if weight is None else weight, data.bound.dtype)
        early = isinstance(method, cg_sense.CGSense) and noise_sd is not None and start is None
        enough = None
        if early and not isinstance(by, Tracer) and float(by) == 0:
            enough = 2 * data.count * jnp.asarray(noise_sd, data.bound.dtype) ** 2
        return _solved(A, y, data, method, by, at, stop, key, enough)[0]
    if isinstance(y, Tracer) or isinstance(noise_sd, Tracer):
        expected = "regularisation, as it is searched for outside of jit and grad"
        raise InputError(Problem("reconstruct", "traced data and no λ", expected))
    sd = float(np.asarray(noise_sd))
    wanted = 2 * float(data.count) * sd**2
    typical = float(jnp.max(jnp.abs(data.b)) / data.bound)

    def discrepancy(by: float, near: Reconstruction | None) -> tuple[float, Reconstruction]:
        begin = at if near is None else near.image
        found, squares = _solved(
            A, y, data, method, jnp.asarray(by, data.bound.dtype), begin, stop, key, None
        )
        return float(squares) / wanted, found

    first = sd * float(jnp.sqrt(data.bound))
    first = first**2 / typical**2 if isinstance(method, cg_sense.CGSense) else first
    _, result, found = find_weight(discrepancy, first)
    status = result.status if found else jnp.full_like(result.status, UNREACHED)
    return eqx.tree_at(lambda r: r.status, result, status)


_prepared = eqx.filter_jit(data_term)


@eqx.filter_jit
def _solved(
    A: Linear,
    y: Complex[Array, "..."],
    data: DataTerm,
    method: Method,
    weight: Float[Array, ""],
    start: Complex[Array, "..."] | None,
    stop: Stop,
    key: PRNGKeyArray,
    enough: Float[Array, ""] | None,
) -> tuple[Reconstruction, Float[Array, ""]]:
    """With |A x - y|²."""
    start = None if start is None else data.turned(start)
    if enough is None:
        found = method.search(data, weight, start, stop, key)
    else:
        found = cg_sense.solve(data, weight, start, stop, enough)
    found = found._replace(x=data.back(found.x))
    squares = misfit(A, found.x, y)
    return _told(found, weight, squares, data.count), squares


def _told(
    found: Found, weight: Float[Array, ""], squares: Float[Array, ""], count: Float[Array, ""]
) -> Reconstruction:
    status = jnp.where(found.arrived, CONVERGED, STOPPED)
    left = jnp.sqrt(jax.lax.stop_gradient(squares) / (2 * count))
    return Reconstruction(found.x, None, weight, left, found.iterations, found.history, status)


def _seen(y: Complex[Array, "..."], squares: Float[Array, ""]) -> None:
    """Raises InputError unless data are finite and some not 0."""
    if isinstance(squares, Tracer):
        return
    power = float(squares)
    if not np.isfinite(power):
        check_finite("reconstruct: data", y, "a file cut short, or a division by 0 before")
    if power == 0:
        found, expected = "0 wherever samples were taken", "a signal"
        cause = "the mask of another scan, or lines that were never filled"
        raise InputError(Problem("reconstruct: data", found, expected, cause))


def _method(method: str | Method, settings: dict[str, Any]) -> Method:
    if isinstance(method, Method):
        if settings:
            found = f"{', '.join(settings)} beside an object"
            raise InputError(Problem("reconstruct: method", found, "settings in the object"))
        return method
    if method not in METHODS:
        expected = f"one of adjoint, {', '.join(METHODS)}"
        raise InputError(Problem("reconstruct: method", repr(method), expected))
    return METHODS[method](**settings)
