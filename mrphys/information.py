"""How well a measurement can determine what it measures: Fisher information, Cramér-Rao bounds."""

from collections.abc import Callable, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, ArrayLike, Float, Inexact, PyTree

from mrphys.sequence.base import Sequence as MRSequence
from mrphys.simulate import TOLERANCE, as_rows, check_fields, over_voxels, slopes
from mrphys.tissue import Tissue


def fisher_information(
    model: Callable[[PyTree], Inexact[Array, " readouts"]], q: PyTree, noise_sd: ArrayLike
) -> Float[Array, "parameters parameters"]:
    """The Fisher information of q in model(q) + η.

        F = Re Σ_i (∂x_i/∂q)ᴴ (∂x_i/∂q) / σ_i²

    for η normal with sd σ_i in the real part, and in the imaginary part when the model is complex.
    noise_sd is one number or one for each readout. q is any tree of real numbers; rows and columns
    are in the order of `jax.flatten_util.ravel_pytree(q)`. The Jacobian is by forward mode.
    Differentiable. Source: Scharf, McWhorter 1993, doi 10.1016/0165-1684(93)90088-R.

    >>> decay = lambda q: q["m0"] * jnp.exp(-q["rate"] * jnp.array([0.0, 1.0]))
    >>> fisher_information(decay, {"m0": 1.0, "rate": 0.0}, noise_sd=0.5)
    Array([[ 8., -4.],
           [-4.,  4.]], dtype=float64)
    """
    flat, unravel = ravel_pytree(jax.tree.map(lambda value: jnp.asarray(value, float), q))

    def readouts(flat):
        x = model(unravel(flat))
        return jnp.stack([x.real, x.imag]) / jnp.broadcast_to(noise_sd, (2, *x.shape))

    jacobian = jax.jacfwd(readouts)(flat).reshape(-1, flat.size)
    return jacobian.T @ jacobian


def cramer_rao(
    theta: MRSequence,
    q: Tissue,
    wrt: Sequence[str] = ("adc_mm2_per_s", "m0"),
    *,
    noise_sd: ArrayLike,
) -> dict[str, Float[Array, "*voxels"]]:
    """The smallest standard deviations that unbiased estimates of q's fields can have.

    sd_k = sqrt((F⁻¹)_kk), all fields in `wrt` unknown, the others known. noise_sd is the sd of the
    real part of one average, one number or one for each voxel of q; theta's averages reduce it.
    A parameter that the readouts cannot tell has sd inf. Differentiable in θ, q and noise_sd,
    also where another parameter cannot be told. Complex data; magnitudes do as well where the SNR
    of every readout is above about 3. Raises InputError for names that are no field of Tissue.

    Source: Cavassila et al. 2001, doi 10.1002/nbm.701.
    """
    check_fields("cramer_rao: wrt", wrt)
    shape, rows = q.voxel_shape, as_rows(q)
    noise = jnp.broadcast_to(jnp.asarray(noise_sd, rows.m0.dtype), shape).reshape(-1)
    kept = theta.within(q, TOLERANCE)
    sds = over_voxels(eqx.Partial(_bounds, tuple(wrt)), kept, (rows, noise))
    return {name: sds[:, i].reshape(shape) for i, name in enumerate(wrt)}


def _bounds(
    wrt: tuple[str, ...], theta: MRSequence, voxels: tuple[Tissue, Float[Array, " voxels"]]
) -> Float[Array, "voxels parameters"]:
    """Cramér-Rao standard deviations of each voxel."""
    q, noise = voxels
    whitened = slopes(theta, q, wrt) / theta.readout_sd(noise)[None]
    both = jnp.concatenate([whitened.real, whitened.imag], axis=-1)
    information = jnp.einsum("pvr,qvr->vpq", both, both)
    return jax.vmap(_standard_deviations)(information)


def _standard_deviations(
    information: Float[Array, "parameters parameters"],
) -> Float[Array, " parameters"]:
    """sqrt(diag F⁻¹), inf for what lies in the null space of F.

    F is scaled to unit diagonal first. Where it is singular, the projector on its null space is
    added: that leaves the inverse on the rest, and its derivative, as they are.
    """
    diagonal = jnp.diagonal(information)
    seen = diagonal > 0
    scale = jnp.where(seen, jnp.sqrt(jnp.where(seen, diagonal, 1.0)), 1.0)
    correlation = information / jnp.outer(scale, scale)
    values, vectors = jnp.linalg.eigh(jax.lax.stop_gradient(correlation))
    tolerance = 16 * diagonal.size * jnp.finfo(diagonal.dtype).eps
    null = jnp.where((values < tolerance)[None, :], vectors, 0.0)
    variance = jnp.diagonal(jnp.linalg.inv(correlation + null @ null.T))
    hidden = (null**2).sum(1) > jnp.sqrt(tolerance)
    safe = jnp.where(hidden, 1.0, variance)
    return jnp.where(hidden, jnp.inf, jnp.sqrt(safe) / scale)
