"""One number for how uncertain a measurement leaves the tissue: what a design makes small."""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from mrphys.information import (
    covariance,
    noise_rows,
    prior_information,
    rows_information,
    shares,
    undetermined,
)
from mrphys.sequence.base import Sequence as MRSequence
from mrphys.simulate import TOLERANCE, as_rows, check_fields, over_voxels, sum_over_voxels
from mrphys.tissue import Tissue

SHARPNESS = 32.0

Kind = Literal["A", "D", "E"]
Over = Literal["mean", "worst", "prior"]


class _Question(NamedTuple):
    """What is asked of the information of each voxel."""

    unknown: tuple[str, ...]
    about: int
    kind: Kind
    rician: bool


class _Voxels(NamedTuple):
    """A row of voxels, and what the answer is measured by."""

    q: Tissue
    noise_sd: Float[Array, " voxels"]
    weights: Float[Array, " voxels"]
    scale: Float[Array, "voxels about"]
    prior: Float[Array, "voxels unknown unknown"]


class Uncertainty(eqx.Module):
    """loss(θ): the Cramér-Rao bounds of a population of tissue as one number. Build it by
    `uncertainty`, which explains all arguments."""

    q: Tissue
    voxels: _Voxels
    question: _Question = eqx.field(static=True)
    over: Over = eqx.field(static=True)
    per_time: bool = eqx.field(static=True)

    def __call__(self, theta: MRSequence) -> Float[Array, ""]:
        kept, voxels = theta.within(self.q, TOLERANCE), self.voxels
        if self.over == "mean":
            value = sum_over_voxels(eqx.Partial(_weighed, self.question), kept, voxels)
        elif self.over == "worst":
            each = over_voxels(eqx.Partial(_criteria, self.question), kept, voxels)
            power = jax.nn.logsumexp(SHARPNESS * jnp.log(each)) - jnp.log(each.size)
            value = jnp.exp(power / SHARPNESS)
        else:
            found = over_voxels(eqx.Partial(_informations, self.question), kept, voxels)
            mean = jnp.einsum("v,vpq->pq", voxels.weights, found) + voxels.prior[0]
            scale = voxels.weights @ voxels.scale
            value = _criterion(self.question, mean[None], scale[None])[0]
        return value * jnp.sqrt(theta.scan_time_s) if self.per_time else value

    def undetermined(self, theta: MRSequence) -> list[str]:
        """Combinations of unknowns that θ cannot tell, of the first voxel that has any; in words
        as `mrphys.information.undetermined`."""
        kept, names = theta.within(self.q, TOLERANCE), self.question.unknown
        found = over_voxels(eqx.Partial(_informations, self.question), kept, self.voxels)
        for i, matrix in enumerate(found + self.voxels.prior):
            values = [getattr(self.voxels.q, name)[i] for name in names]
            named = undetermined(matrix, names, values)
            if named:
                return named
        return []


def _informations(
    ask: _Question, theta: MRSequence, voxels: _Voxels
) -> Float[Array, "voxels unknown unknown"]:
    return rows_information(ask.unknown, ask.rician, theta, (voxels.q, voxels.noise_sd))


def _criteria(ask: _Question, theta: MRSequence, voxels: _Voxels) -> Float[Array, " voxels"]:
    return _criterion(ask, _informations(ask, theta, voxels) + voxels.prior, voxels.scale)


def _weighed(ask: _Question, theta: MRSequence, voxels: _Voxels) -> Float[Array, " voxels"]:
    return voxels.weights * _criteria(ask, theta, voxels)


def _criterion(
    ask: _Question,
    information: Float[Array, "voxels unknown unknown"],
    scale: Float[Array, "voxels about"],
) -> Float[Array, " voxels"]:
    n = ask.about
    spread = covariance(information)[:, :n, :n] / scale[:, :, None] / scale[:, None, :]
    infinite = jnp.any(jnp.isinf(spread), axis=(1, 2))
    safe = jnp.where(infinite[:, None, None], jnp.eye(n, dtype=spread.dtype)[None], spread)
    if ask.kind == "A":
        value = jnp.sqrt(jnp.trace(safe, axis1=1, axis2=2) / n)
    elif ask.kind == "D":
        value = jnp.exp(jnp.linalg.slogdet(safe)[1] / (2 * n))
    else:
        longest = jnp.linalg.eigh(jax.lax.stop_gradient(safe))[1][..., -1]
        value = jnp.sqrt(jnp.einsum("vp,vpq,vq->v", longest, safe, longest))
    return jnp.where(infinite, jnp.inf, value)


def uncertainty(
    q: Tissue,
    wrt: Sequence[str],
    *,
    noise_sd: ArrayLike,
    nuisance: Sequence[str] = ("m0",),
    kind: Kind = "A",
    over: Over = "mean",
    weights: ArrayLike | None = None,
    scale: Mapping[str, ArrayLike] | None = None,
    prior_sd: Mapping[str, ArrayLike] | None = None,
    rician: bool = False,
    per_time: bool = False,
) -> Uncertainty:
    """A function of θ alone, for design: how uncertain it leaves the fields `wrt` of the tissue q.

        C = S⁻¹ (F + P)⁻¹ S⁻¹ over `wrt`,   `nuisance` being unknown too
        A: sqrt(tr C / n)    D: det(C)^(1/2n)    E: sqrt(the largest eigenvalue of C)

    n fields, so that each is the relative sd of one parameter where there is but one.

    scale     S, the size over which a field matters, by name; its value in each voxel unless given
    over      "mean" of the voxels with `weights`; "worst", their power mean of exponent 32, from
              n^(-1/32) of the largest to it; "prior": of J = Σ w F + P, van Trees's bound of the
              mean square error over a population (`mrphys.information.van_trees`)
    per_time  times the square root of scan_time_s: designs of different durations compare by it

    Other arguments as of `mrphys.cramer_rao`. Infinite where θ cannot tell a field of `wrt`;
    `undetermined(θ)` then says which combination. Differentiable in θ, E once. Raises InputError
    for names that are no field of Tissue, and a field whose value is 0 without a scale.

    Source: Pukelsheim 1993, Optimal Design of Experiments (criteria); Zhao et al. 2019,
    doi 10.1109/TMI.2018.2873704 (of fingerprints).

    >>> from mrphys.sequence import diffusion_weighted
    >>> q = Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=1e-3)
    >>> loss = uncertainty(q, ["adc_mm2_per_s"], noise_sd=0.01)
    >>> loss.undetermined(diffusion_weighted([500], te_s=0.07))
    ['adc_mm2_per_s +100 % with m0 +50 %']
    """
    unknown = (*wrt, *(name for name in nuisance if name not in wrt))
    check_fields("uncertainty: wrt", wrt)
    check_fields("uncertainty: wrt and nuisance", unknown)
    for found, choices in ((kind, ("A", "D", "E")), (over, ("mean", "worst", "prior"))):
        if found not in choices:
            raise InputError(Problem("uncertainty", repr(found), f"one of {', '.join(choices)}"))
    rows = as_rows(q)
    sizes = dict(scale or {})
    columns = [jnp.abs(jnp.asarray(sizes.get(name, getattr(rows, name)), float)) for name in wrt]
    for name, column in zip(wrt, columns, strict=True):
        if not bool(jnp.all(column > 0)):
            expected = "a scale above 0: the value is no measure of what matters"
            raise InputError(Problem(f"uncertainty: scale of {name}", "0", expected))
    count, dtype = rows.m0.size, rows.m0.dtype
    prior = prior_information(unknown, prior_sd, dtype)
    voxels = _Voxels(
        rows,
        noise_rows(q, noise_sd),
        shares(q, weights).astype(dtype),
        jnp.stack([jnp.broadcast_to(column, (count,)) for column in columns], 1).astype(dtype),
        jnp.broadcast_to(prior, (count, *prior.shape)),
    )
    question = _Question(unknown, len(wrt), kind, rician)
    return Uncertainty(q, voxels, question, over, per_time)
