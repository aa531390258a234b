"""How well a measurement can determine what it measures: Fisher information, Cramér-Rao bounds."""

from collections.abc import Callable, Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, Inexact, PyTree

from mrphys.errors import InputError, Problem
from mrphys.rician import information_per_power
from mrphys.sequence.base import Sequence as MRSequence
from mrphys.simulate import TOLERANCE, as_rows, check_fields, over_voxels, signals_and_slopes
from mrphys.tissue import Tissue

ADC_AND_M0 = ("adc_mm2_per_s", "m0")


def fisher_information(
    model: Callable[[PyTree], Inexact[Array, " readouts"]],
    q: PyTree,
    noise_sd: ArrayLike,
    *,
    rician: bool = False,
) -> Float[Array, "parameters parameters"]:
    """The Fisher information of q in model(q) + η, or in its magnitude.

        F = Re Σ_i (∂x_i/∂q)ᴴ (∂x_i/∂q) / σ_i²,    rician: Σ_i ρ(|x_i|/σ_i) (∂|x_i|/∂q)² / σ_i²

    for η normal with sd σ_i in the real part, and in the imaginary part when the model is complex;
    ρ is that of `mrphys.rician.information_per_power`. noise_sd is one number or one for each
    readout. q is any tree of real numbers; rows and columns are in the order of
    `jax.flatten_util.ravel_pytree(q)`. What the model depends on and q does not hold is known; what
    q holds and nobody asks for is a nuisance. The Jacobian is by forward mode. Differentiable,
    also where x is 0. Source: Scharf, McWhorter 1993, doi 10.1016/0165-1684(93)90088-R.

    >>> decay = lambda q: q["m0"] * jnp.exp(-q["rate"] * jnp.array([0.0, 1.0]))
    >>> fisher_information(decay, {"m0": 1.0, "rate": 0.0}, noise_sd=0.5)
    Array([[ 8., -4.],
           [-4.,  4.]], dtype=float64)
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda value: jnp.asarray(value, float), q))

    def both(flat: Array) -> tuple[Array, Array]:
        x = model(unravel(flat))
        return x, x

    jacobian, x = jax.jacfwd(both, has_aux=True)(flat)
    whitened = _whitened(jacobian.T, x, jnp.broadcast_to(noise_sd, x.shape), rician)
    return whitened @ whitened.T


def information(
    theta: MRSequence,
    q: Tissue,
    wrt: Sequence[str] = ADC_AND_M0,
    *,
    noise_sd: ArrayLike,
    rician: bool = False,
) -> Float[Array, "*voxels parameters parameters"]:
    """The Fisher information of the fields `wrt` of every voxel of q, in their order and units.

    noise_sd is the sd of the real part of one average, one number or one for each voxel of q;
    theta's averages reduce it. Complex data, or their magnitudes where `rician`. Differentiable in
    θ, q and noise_sd. Raises InputError for names that are no field of Tissue.
    """
    check_fields("information: wrt", wrt)
    shape, rows = q.voxel_shape, as_rows(q)
    f = eqx.Partial(rows_information, tuple(wrt), rician)
    found = over_voxels(f, theta.within(q, TOLERANCE), (rows, noise_rows(q, noise_sd)))
    return found.reshape(*shape, len(wrt), len(wrt))


def noise_rows(q: Tissue, noise_sd: ArrayLike) -> Float[Array, " voxels"]:
    """noise_sd of every voxel of q, in one row."""
    noise = jnp.asarray(noise_sd, q.m0.dtype)
    return jnp.broadcast_to(noise, q.voxel_shape).reshape(-1)


def rows_information(
    wrt: tuple[str, ...],
    rician: bool,
    theta: MRSequence,
    voxels: tuple[Tissue, Float[Array, " voxels"]],
) -> Float[Array, "voxels parameters parameters"]:
    """The Fisher information of a row of voxels and their noise."""
    q, noise = voxels
    x, slopes = _signals_and_slopes(theta, q, wrt)
    whitened = _whitened(slopes, x, theta.readout_sd(noise), rician)
    return jnp.einsum("pvr,qvr->vpq", whitened, whitened)


def _signals_and_slopes(theta: MRSequence, q: Tissue, wrt: tuple[str, ...]) -> tuple[Array, Array]:
    """As `mrphys.simulate.signals_and_slopes`, x itself taken for the slope of m0: no signal is
    anything but proportional to it."""
    others = tuple(name for name in wrt if name != "m0")
    if len(others) == len(wrt) or not others:
        return signals_and_slopes(theta, q, wrt)
    unit = eqx.tree_at(lambda q: q.m0, q, jnp.ones_like(q.m0))
    x, slopes = signals_and_slopes(theta, unit, others)
    slopes = slopes * q.m0[None, :, None]
    at = wrt.index("m0")
    return x * q.m0[:, None], jnp.concatenate([slopes[:at], x[None], slopes[at:]])


def _whitened(
    slope: Inexact[Array, "parameters ..."],
    x: Inexact[Array, "..."],
    sd: Float[Array, "..."],
    rician: bool,
) -> Float[Array, "parameters ..."]:
    """Slopes in units of the noise, whose products are the information."""
    if rician:
        along = jnp.real(jnp.conj(x / sd)[None] * (slope / sd[None]))
        power = jnp.real(x / sd) ** 2 + jnp.imag(x / sd) ** 2
        return along * jnp.sqrt(information_per_power(power))[None]
    slope = slope / sd[None]
    if not jnp.iscomplexobj(slope):
        return slope
    return jnp.concatenate([slope.real, slope.imag], axis=-1)


def cramer_rao(
    theta: MRSequence,
    q: Tissue,
    wrt: Sequence[str] = ADC_AND_M0,
    *,
    noise_sd: ArrayLike,
    nuisance: Sequence[str] = (),
    prior_sd: Mapping[str, ArrayLike] | None = None,
    rician: bool = False,
) -> dict[str, Float[Array, "*voxels"]]:
    """The smallest standard deviations that unbiased estimates of q's fields can have.

        sd_k = sqrt(((F + P)⁻¹)_kk),    P = diag(1 / prior_sd²)

    with the fields in `wrt` and `nuisance` unknown and the others known. noise_sd is the sd of the
    real part of one average, one number or one for each voxel of q; theta's averages reduce it.
    `prior_sd` is what is known of fields before the measurement, normal around q (the mean square
    error over such a prior is bounded by `van_trees`). Magnitudes where `rician`, else complex
    data. A parameter that the readouts cannot tell has sd inf; `undetermined` says which go
    together. Differentiable in θ, q and noise_sd, also where another parameter cannot be told.
    Raises InputError for names that are no field of Tissue.

    Source: Cavassila et al. 2001, doi 10.1002/nbm.701.
    """
    unknown = (*wrt, *(name for name in nuisance if name not in wrt))
    found = information(theta, q, unknown, noise_sd=noise_sd, rician=rician)
    prior = prior_information(unknown, prior_sd, found.dtype)
    found = found + jnp.broadcast_to(prior, found.shape)
    sds = standard_deviations(found)
    return {name: sds[..., i] for i, name in enumerate(wrt)}


def van_trees(
    theta: MRSequence,
    q: Tissue,
    wrt: Sequence[str] = ADC_AND_M0,
    *,
    noise_sd: ArrayLike,
    prior_sd: Mapping[str, ArrayLike] | None = None,
    weights: ArrayLike | None = None,
    rician: bool = False,
) -> dict[str, Float[Array, ""]]:
    """The smallest root mean square errors that any estimates, biased or not, can have over a
    population of tissue.

        rms_k >= sqrt((J⁻¹)_kk),    J = Σ_v w_v F(q_v) + P

    The voxels of q are draws from the population, or nodes with weights w (equal when None; they
    are made to add up to 1); P is the information of the prior itself, 1/prior_sd² of a normal one
    and 0 of a field not named. Other arguments and errors as `cramer_rao`.

    Source: Van Trees 1968, Detection, Estimation, and Modulation Theory I, 2.4.
    """
    found = information(theta, q, wrt, noise_sd=noise_sd, rician=rician)
    share = shares(q, weights)
    mean = jnp.einsum("v,vpq->pq", share, found.reshape(-1, len(wrt), len(wrt)))
    sds = standard_deviations(mean + prior_information(tuple(wrt), prior_sd, mean.dtype))
    return {name: sds[i] for i, name in enumerate(wrt)}


def shares(q: Tissue, weights: ArrayLike | None) -> Float[Array, " voxels"]:
    """Weights of all voxels that add up to 1."""
    given = jnp.broadcast_to(jnp.asarray(1.0 if weights is None else weights, float), q.voxel_shape)
    return (given / jnp.sum(given)).reshape(-1)


def prior_information(
    names: tuple[str, ...], prior_sd: Mapping[str, ArrayLike] | None, dtype: jnp.dtype
) -> Float[Array, "parameters parameters"]:
    """diag(1 / prior_sd²). Raises InputError for names that are not unknown, sds not above 0."""
    given = dict(prior_sd or {})
    strange = [name for name in given if name not in names]
    if strange:
        found = ", ".join(strange)
        raise InputError(Problem("prior_sd", found, f"of the unknown {', '.join(names)}"))
    for name, sd in given.items():
        if not isinstance(sd, Tracer) and not np.all(np.asarray(sd) > 0):
            raise InputError(Problem(f"prior_sd of {name}", f"{sd}", "above 0"))
    return jnp.diag(jnp.array([1 / given.get(name, np.inf) ** 2 for name in names], dtype))


def efficiency(
    theta: MRSequence,
    q: Tissue,
    wrt: Sequence[str] = ADC_AND_M0,
    *,
    noise_sd: ArrayLike,
    nuisance: Sequence[str] = (),
    prior_sd: Mapping[str, ArrayLike] | None = None,
    rician: bool = False,
) -> dict[str, Float[Array, "*voxels"]]:
    """Precision per square root of scan time, in 1/sqrt(s): q_k / (sd_k sqrt(T)).

    T is theta's scan_time_s. What repeating θ leaves alone: designs of different duration compare
    by it. Arguments and errors as `cramer_rao`.
    """
    sds = cramer_rao(
        theta, q, wrt, noise_sd=noise_sd, nuisance=nuisance, prior_sd=prior_sd, rician=rician
    )
    root = jnp.sqrt(theta.scan_time_s)
    return {name: getattr(q, name) / (sd * root) for name, sd in sds.items()}


def standard_deviations(
    information: Float[Array, "*voxels parameters parameters"],
) -> Float[Array, "*voxels parameters"]:
    """sqrt(diag F⁻¹), inf for what lies in the null space of F."""
    hidden, variances = _inverse(information)
    variance = jnp.diagonal(variances, axis1=-2, axis2=-1)
    return jnp.where(hidden, jnp.inf, jnp.sqrt(jnp.where(hidden, 1.0, variance)))


def covariance(
    information: Float[Array, "*voxels parameters parameters"],
) -> Float[Array, "*voxels parameters parameters"]:
    """F⁻¹; rows and columns of what lies in the null space of F are 0, and inf on the diagonal."""
    hidden, inverse = _inverse(information)
    either = hidden[..., :, None] | hidden[..., None, :]
    infinite = jnp.where(jnp.eye(hidden.shape[-1], dtype=bool), jnp.inf, 0.0)
    return jnp.where(either, infinite, inverse)


@jax.jit
def variances_of(
    information: Float[Array, "parameters parameters"],
    slopes: Float[Array, "functions parameters"],
) -> Float[Array, " functions"]:
    """gᵀ F⁻¹ g of each row g, the slopes of a function of the parameters: the least variance that
    unbiased estimates of the function can have; inf for one that the null space of F moves.

    >>> both = jnp.array([[4.0, 4.0], [4.0, 4.0]])  # of the sum of two parameters alone
    >>> variances_of(both, jnp.array([[1.0, 1.0], [1.0, 0.0]]))
    Array([0.25,  inf], dtype=float64)
    """
    correlation, scale = _scaled(information)
    null = _null_space(jax.lax.stop_gradient(correlation))
    inverse = jnp.linalg.inv(correlation + null @ null.T)
    along = slopes / scale[None]
    reach = jnp.sum((along @ null) ** 2, axis=1)
    hidden = reach > jnp.sqrt(_tolerance(correlation)) * jnp.sum(along**2, axis=1)
    seen = along - (along @ null) @ null.T
    variance = jnp.einsum("fp,pq,fq->f", seen, inverse, seen)
    return jnp.where(hidden, jnp.inf, jnp.where(hidden, 1.0, variance))


@jax.jit
def _inverse(
    information: Float[Array, "*voxels parameters parameters"],
) -> tuple[Array, Float[Array, "*voxels parameters parameters"]]:
    """What cannot be told, and the inverse on the rest.

    F is scaled to unit diagonal first. Where it is singular, the projector on its null space is
    added: that leaves the inverse on the rest, and its derivative, as they are.
    """
    correlation, scale = _scaled(information)
    null = _null_space(jax.lax.stop_gradient(correlation))
    inverse = jnp.linalg.inv(correlation + null @ jnp.swapaxes(null, -1, -2))
    hidden = jnp.sum(null**2, axis=-1) > jnp.sqrt(_tolerance(correlation))
    return hidden, inverse / (scale[..., :, None] * scale[..., None, :])


def _scaled(information: Array) -> tuple[Array, Array]:
    """With unit diagonal, and the square roots of the diagonal, 1 where it is 0."""
    diagonal = jnp.diagonal(information, axis1=-2, axis2=-1)
    seen = diagonal > 0
    scale = jnp.where(seen, jnp.sqrt(jnp.where(seen, diagonal, 1.0)), 1.0)
    return information / scale[..., :, None] / scale[..., None, :], scale


def _tolerance(correlation: Array) -> float:
    return 16 * correlation.shape[-1] * float(jnp.finfo(correlation.dtype).eps)


def _null_space(correlation: Array) -> Array:
    """Its vectors as columns, the others 0."""
    values, vectors = jnp.linalg.eigh(correlation)
    return jnp.where((values < _tolerance(correlation))[..., None, :], vectors, 0.0)


def undetermined(
    information: Float[Array, "parameters parameters"],
    names: Sequence[str],
    values: Sequence[ArrayLike] | None = None,
) -> list[str]:
    """Each combination of parameters that moves no readout, in words; none where F is regular.

    With `values`, changes are relative to them, in per cent of the parameter that moves most.

    >>> both = jnp.array([[4.0, -2.0], [-2.0, 1.0]])  # of the product of m0 and b1 alone
    >>> undetermined(both, ("m0", "b1"), (1.0, 2.0))
    ['m0 +100 % with b1 +100 %']
    """
    correlation, scale = _scaled(jnp.asarray(information, float))
    null = np.asarray(_null_space(correlation))
    size = np.ones(len(names)) if values is None else np.abs(np.asarray(values, float))
    unit = 1.0 if values is None else 100.0
    found = []
    for vector in null.T:
        if not np.any(vector):
            continue
        move = np.where(
            size > 0, vector / np.asarray(scale) / np.where(size > 0, size, 1.0), vector
        )
        most = np.abs(move).max()
        move = move / move[np.argmax(np.abs(move) > 0.999 * most)]
        parts = [
            name if values is None else f"{name} {unit * part:+.3g} %"
            for name, part in zip(names, move, strict=True)
            if abs(part) > 1e-3
        ]
        if len(parts) == 1:
            alone = next(n for n, part in zip(names, move, strict=True) if abs(part) > 1e-3)
            parts = [f"{alone} alone"]
        found.append(" with ".join(parts))
    return found
