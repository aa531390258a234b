"""Parameters of one tumour from its visits, with a covariance that owns up to every error.

Maximum a posteriori by Levenberg-Marquardt over standard normal coordinates z of log-normal
priors; Jacobians by forward mode. The covariance is not that of voxel noise alone (which would
be far too narrow): the noise of the first map, which starts the tumour, and a smooth model error
pass through the estimator too,

    Cov(z) = H⁻¹ (Jᵀ J + K₁ K₁ᵀ + τ² K_q K_qᵀ + I) H⁻¹,   H = Jᵀ J + I,

with J the Jacobian of the whitened residuals, K₁ = Jᵀ ∂r/∂(first map) in units of its sd, and
K_q = Jᵀ ∂r/∂u A G for a model error τ A g, g a smooth field of unit variance, another one at
each visit (Kennedy & O'Hagan 2001, doi:10.1111/1467-9868.00294; the covariance of a misspecified
estimator: White 1982, doi:10.2307/1912526). Draws use the same linear map, so that errors of maps
and of parameters stay correlated.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from oncology.growth import ReactionDiffusion
from oncology.observe import SOFTNESS, CellularityMap, Observation, above_zero, below_full
from oncology.priors import LogNormal, physical
from oncology.smoothing import SmoothField
from oncology.timeline import Steps, integrate
from oncology.treatment import Plan

LEAST_MODEL_ERROR = 0.05
"""Relative error no map is predicted better than, whatever the residuals say: the reproducibility
of ADC between scans is no better (within-subject coefficient of variation 4.8 %: Newitt et al.
2019, doi:10.1002/jmri.26539)."""


class Inverse(eqx.Module):
    """The inverse problem of one patient: observations in order, the legs of time between them."""

    model: ReactionDiffusion
    plan: Plan
    observations: tuple[Observation, ...]
    legs: tuple[Steps, ...]
    priors: Mapping[str, LogNormal]

    @property
    def size(self) -> int:
        """Number of coordinates z."""
        local = 0 if self.model.growth_map is None else self.model.growth_map.size
        return len(self.priors) + local

    def predict(self, z: Float[Array, " n"], error: Array) -> tuple[Float[Array, "x y z"], ...]:
        """States at every visit after the first, started from the first observed with `error`."""
        p = physical(self.priors, z)
        u, states = self.observations[0].state(p, error), []
        for leg in self.legs:
            u = integrate(self.model, self.plan, p, u, leg)
            states.append(u)
        return tuple(states)

    def no_error(self) -> Array:
        """The first visit taken at its word."""
        return jnp.zeros_like(self.observations[0].error_sd)

    def compare(self, states: tuple[Float[Array, "x y z"], ...]) -> Float[Array, " m"]:
        """Whitened residuals of predicted states from every visit after the first."""
        pairs = zip(self.observations[1:], states, strict=True)
        none = jnp.zeros(0, self.no_error().dtype)
        return jnp.concatenate([none, *(seen.residual(u) for seen, u in pairs)])

    def misfit(self, z: Float[Array, " n"], error: Array) -> Float[Array, " m"]:
        """Whitened residuals of every visit after the first, started from it as in `predict`."""
        return self.compare(self.predict(z, error))


@eqx.filter_jit
def map_estimate(
    inverse: Inverse, start: Float[Array, " n"], rtol: float = 1e-6, atol: float = 1e-8
) -> Float[Array, " n"]:
    """z at the maximum of the posterior. Differentiable in everything `inverse` holds, both
    modes, by the implicit function theorem with the full Hessian (not the Gauss-Newton one)."""

    def residual(z: Array, inverse: Inverse) -> tuple[Array, Array]:
        return inverse.misfit(z, inverse.no_error()), z

    solver = optx.LevenbergMarquardt(rtol=rtol, atol=atol)
    z = start
    solution = optx.least_squares(
        residual, solver, z, inverse, options={"jac": "fwd"}, max_steps=200, throw=False
    )
    return solution.value


class Sources(eqx.Module):
    """Independent standard normal numbers of every source of error: noise, the first map, a model
    error at each later visit, and the prior."""

    white: Float[Array, " m"]
    start: Array
    field: Float[Array, "visits x y z"]
    prior: Float[Array, " n"]


class Gain(eqx.Module):
    """How the estimate answers to each source of error, linearised at the optimum."""

    inverse_hessian: Float[Array, "n n"]
    to_residual: Float[Array, "n m"]
    noise_share: Float[Array, " m"]
    to_first_map: Array
    to_model_error: Float[Array, "n visits x y z"]
    field: SmoothField

    def sources(self, key: Array) -> "Sources":
        """Every source of error, drawn."""
        keys, dtype = jax.random.split(key, 4), self.inverse_hessian.dtype
        shapes = (
            self.noise_share.shape,
            self.to_first_map.shape[1:],
            self.to_model_error.shape[1:],
            self.inverse_hessian.shape[:1],
        )
        drawn = zip(keys, shapes, strict=True)
        return Sources(*(jax.random.normal(k, shape, dtype) for k, shape in drawn))

    def pull(self, sources: "Sources", model_error: Array) -> tuple[Array, Array]:
        """How far the slope of the cost is moved by all sources but the first map, and by all."""
        n = self.inverse_hessian.shape[0]
        pull = self.to_residual @ (sources.white * self.noise_share) - sources.prior
        pull = pull + model_error * (self.to_model_error.reshape(n, -1) @ sources.field.ravel())
        return pull, pull + self.to_first_map.reshape(n, -1) @ sources.start.ravel()

    def covariance(self, model_error: Array) -> Float[Array, "n n"]:
        """Covariance of z under every source at once."""
        n = self.inverse_hessian.shape[0]
        spread = jnp.eye(n)
        for source in (
            self.to_residual * self.noise_share[None],
            self.to_first_map,
            model_error * self.to_model_error,
        ):
            rows = source.reshape(n, -1)
            spread = spread + rows @ rows.T
        return self.inverse_hessian @ spread @ self.inverse_hessian


class Draw(eqx.Module):
    """Coordinates z with the errors of the maps that go with them.

    `unsolved` is how far the last corrected z is from its own optimum, in squared posterior
    standard deviations; infinite without corrections.
    """

    z: Float[Array, " n"]
    first_error: Array
    white: Float[Array, " m"]
    unsolved: Float[Array, ""]


class Posterior(eqx.Module):
    """Where the parameters are, how sure that is, and why.

    `states` are the predicted visits at z; `model_error` is τ; `excess` the variance of the last
    map's residuals beyond noise, in units of the amplitude; `structure` the variance of their
    local average over that of noise (1 when nothing but noise is left). Where an engine has drawn
    `samples`, z and covariance are theirs, and `draw` takes one of them. Of whole
    fields the covariance is that of the named parameters alone, and the gain is
    empty.
    """

    z: Float[Array, " n"]
    covariance: Float[Array, "k k"]
    inverse: Inverse
    states: tuple[Float[Array, "x y z"], ...]
    model_error: Float[Array, ""]
    excess: Float[Array, ""]
    structure: Float[Array, ""]
    log_evidence: Float[Array, ""]
    gain: Gain
    samples: Draw | None = None

    def draw(self, key: Array, corrections: int = 0, side: ArrayLike = 1.0) -> Draw:
        """One tumour that could have given these images: randomised maximum likelihood (Oliver,
        He & Reynolds 1996), exact where the model is linear in z. Each of `corrections` is one
        more Newton step with the Jacobian kept from the optimum, for where it is not. With `side`
        -1 every error is that of side 1 mirrored, so that means over pairs hardly scatter
        (antithetic variates); samples are not mirrored."""
        if self.samples is not None:
            at = jax.random.randint(key, (), 0, self.samples.z.shape[0])
            return jax.tree.map(lambda leaf: leaf[at], self.samples)
        gain, first = self.gain, self.inverse.observations[0]
        sources = jax.tree.map(lambda x: jnp.asarray(side, x.dtype) * x, gain.sources(key))
        error = sources.start * first.error_sd
        pull, linear = gain.pull(sources, self.model_error)
        white = sources.white * gain.noise_share
        z = self.z - gain.inverse_hessian @ linear
        best, least = z, jnp.asarray(jnp.inf, z.dtype)
        for _ in range(corrections):
            slope = gain.to_residual @ self.inverse.misfit(z, error) + z + pull
            size = slope @ gain.inverse_hessian @ slope
            best, least = jnp.where(size < least, z, best), jnp.minimum(size, least)
            z = z - jnp.clip(gain.inverse_hessian @ slope, -1.0, 1.0)
        return Draw(best if corrections else z, error, white, least)


def amplitude(u: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
    """Where a model error acts: 2 √(u (1 - u)) is largest at half density, none in empty or full
    voxels."""
    inside = jnp.clip(u, 1e-6, 1 - 1e-6)
    return 2 * jnp.sqrt(inside * (1 - inside))


def correlation_length_mm(spacing_mm: tuple[float, ...]) -> float:
    """Over which a model error is correlated: two voxels of the finest spacing."""
    return 2 * min(spacing_mm)


def shared_voxels(model: ReactionDiffusion) -> float:
    """How many voxels about share their model error: those of a cube of one correlation length."""
    spacing, shape = model.spacing_mm, model.habitable.shape
    length = correlation_length_mm(spacing)
    sides = [max(length / h, 1.0) for h, n in zip(spacing, shape, strict=True) if n > 1]
    return float(np.prod(sides))


def innovation_length_mm(spacing_mm: tuple[float, ...]) -> float:
    """Over which what a map shows beyond its prediction is averaged: most of one voxel."""
    return 0.7 * min(spacing_mm)


class Estimate(eqx.Module):
    """The maximum of the posterior, and what the last map's residuals say beyond noise there.

    `excess` and `structure` as in `Posterior`. Everything here is differentiable in what the
    inverse problem holds.
    """

    z: Float[Array, " n"]
    inverse: Inverse
    states: tuple[Float[Array, "x y z"], ...]
    excess: Float[Array, ""]
    structure: Float[Array, ""]

    @property
    def model_error(self) -> Float[Array, ""]:
        """τ, at least the error no map is predicted better than."""
        return jnp.sqrt(jnp.maximum(self.excess, LEAST_MODEL_ERROR**2))


@eqx.filter_jit
def estimate_at(inverse: Inverse, z: Float[Array, " n"]) -> Estimate:
    """Predicted visits and residual statistics at a given z."""
    states = inverse.predict(z, inverse.no_error())
    excess, structure = _residual_statistics(inverse, states, _model_error_field(inverse))
    return Estimate(z, inverse, states, excess, structure)


def estimate(inverse: Inverse, rtol: float = 1e-6) -> Estimate:
    """The maximum of the posterior, twice: first for noise alone, which tells the model error,
    then with maps weighed by both. A growth map needs no second time: it is the model error."""
    prior_median = jnp.zeros(inverse.size)
    first = estimate_at(inverse, map_estimate(inverse, prior_median, rtol=rtol, atol=rtol))
    shows_error = any(isinstance(seen, CellularityMap) for seen in inverse.observations[1:])
    if inverse.model.growth_map is not None or not shows_error:
        return first
    weighed = expecting_model_error(first)
    return estimate_at(weighed, map_estimate(weighed, first.z, rtol=rtol, atol=rtol))


def _model_error_field(inverse: Inverse) -> SmoothField:
    spacing = inverse.model.spacing_mm
    return SmoothField(inverse.model.habitable.shape, spacing, correlation_length_mm(spacing))


def _log_evidence(residual: Array, z: Array, hessian: Array) -> Array:
    """Laplace's approximation, without the terms that any two models of the same maps share."""
    _, log_determinant = jnp.linalg.slogdet(hessian)
    return -(jnp.sum(residual**2) + jnp.sum(z**2) + log_determinant) / 2


@eqx.filter_jit
def log_evidence(inverse: Inverse, z: Float[Array, " n"]) -> Float[Array, ""]:
    """How well the model explains the maps, its freedom to do so accounted for."""
    none = inverse.no_error()
    jacobian = jax.jacfwd(inverse.misfit)(z, none)
    hessian = jacobian.T @ jacobian + jnp.eye(z.size)
    return _log_evidence(inverse.misfit(z, none), z, hessian)


@eqx.filter_jit
def posterior(inverse: Inverse, z: Float[Array, " n"]) -> Posterior:
    """The posterior around its maximum z."""
    none = inverse.no_error()
    field = _model_error_field(inverse)
    states = inverse.predict(z, none)
    residual = inverse.misfit(z, none)
    jacobian = jax.jacfwd(inverse.misfit)(z, none)
    hessian = jacobian.T @ jacobian + jnp.eye(z.size)

    later = inverse.observations[1:]
    share = jnp.concatenate([jnp.zeros(0, z.dtype), *(seen.noise_share for seen in later)])
    _, to_first = jax.vjp(lambda error: inverse.misfit(z, error), none)
    first_rows = jax.lax.map(lambda column: to_first(column)[0], jacobian.T)

    def through_field(column: Array) -> Array:
        slopes = zip(states, to_states(column)[0], strict=True)
        none = jnp.zeros((0, *inverse.model.habitable.shape), z.dtype)
        maps = [field.transpose(amplitude(state) * slope)[None] for state, slope in slopes]
        return jnp.concatenate([none, *maps])

    _, to_states = jax.vjp(inverse.compare, states)
    field_rows = jax.lax.map(through_field, jacobian.T)
    gain = Gain(
        jnp.linalg.inv(hessian),
        jacobian.T,
        share,
        first_rows * inverse.observations[0].error_sd[None],
        field_rows,
        field,
    )
    excess, structure = _residual_statistics(inverse, states, field)
    model_error = jnp.sqrt(jnp.maximum(excess, LEAST_MODEL_ERROR**2))
    evidence = _log_evidence(residual, z, hessian)
    covariance = gain.covariance(model_error)
    return Posterior(z, covariance, inverse, states, model_error, excess, structure, evidence, gain)


@eqx.filter_jit
def newton_step(found: Posterior) -> tuple[Float[Array, " n"], Float[Array, " n"]]:
    """The Gauss-Newton step that a search would still take, and the standard deviations by noise
    alone."""
    inverse, gain = found.inverse, found.gain
    slope = gain.to_residual @ inverse.misfit(found.z, inverse.no_error()) + found.z
    return -gain.inverse_hessian @ slope, jnp.sqrt(jnp.diag(gain.inverse_hessian))


@eqx.filter_jit
def sampled(found: Posterior, samples: Draw) -> Posterior:
    """The same posterior by draws, along the leading axis of each leaf: their mean and covariance
    in place of the optimum's."""
    z = jnp.mean(samples.z, axis=0)
    apart = samples.z - z[None]
    covariance = apart.T @ apart / (samples.z.shape[0] - 1)
    states = found.inverse.predict(z, found.inverse.no_error())
    changed = (z, covariance, states, samples)
    return eqx.tree_at(
        lambda f: (f.z, f.covariance, f.states, f.samples),
        found,
        changed,
        is_leaf=lambda leaf: leaf is None,
    )


@eqx.filter_jit
def with_errors(found: Posterior, z: Float[Array, "draws n"], key: Array) -> Draw:
    """The errors of the maps that go with each z, given it, to first order: Matheron's rule
    (Journel & Huijbregts 1978, Mining Geostatistics, ch. VII)."""
    gain, first = found.gain, found.inverse.observations[0]
    n = found.z.size
    to_field = found.model_error * gain.to_model_error.reshape(n, -1)
    to_first, to_white = gain.to_first_map.reshape(n, -1), gain.to_residual * gain.noise_share[None]
    rows = (to_white, to_first, to_field)
    spread = jnp.eye(n, dtype=z.dtype) + sum(part @ part.T for part in rows)

    def one(z: Array, key: Array) -> Draw:
        sources = gain.sources(key)
        _, pull = gain.pull(sources, found.model_error)
        wanted = -jnp.linalg.solve(gain.inverse_hessian, z - found.z)
        weight = jnp.linalg.solve(spread, wanted - pull)
        white = (sources.white + to_white.T @ weight) * gain.noise_share
        start = sources.start + (to_first.T @ weight).reshape(sources.start.shape)
        return Draw(z, start * first.error_sd, white, jnp.zeros((), z.dtype))

    return jax.vmap(one)(z, jax.random.split(key, z.shape[0]))


def _residual_statistics(
    inverse: Inverse, states: tuple[Array, ...], field: SmoothField
) -> tuple[Array, Array]:
    """Excess and structure of the last visit's residuals (see `Posterior`)."""
    last = inverse.observations[-1]
    if not states or not isinstance(last, CellularityMap):
        return jnp.zeros_like(field.along_axis[0][0, 0]), jnp.ones_like(field.along_axis[0][0, 0])
    u = states[-1]
    weight = last.mask.astype(u.dtype)
    error = jnp.where(last.mask, last.value - u, 0.0)
    noise = jnp.where(last.mask, last.sd, 0.0)
    excess = jnp.sum(error**2 - noise**2) / jnp.sum(weight * amplitude(u) ** 2)
    averaged = field(error) / jnp.maximum(jnp.sqrt(_power(field, noise**2)), 1e-12)
    return excess, jnp.sum(weight * averaged**2) / jnp.sum(weight)


def _power(field: SmoothField, variance: Array) -> Array:
    """Variance of a local average of independent noise."""
    squared = eqx.tree_at(lambda f: f.along_axis, field, tuple(m**2 for m in field.along_axis))
    return squared(variance)


def expecting_model_error(found: Posterior | Estimate) -> Inverse:
    """The inverse problem with its maps weighed by the model error the posterior found, each
    voxel's variance multiplied by the number of voxels in a cube of one correlation length, which
    about share their error. Weights need not be exact: the covariance holds for any."""
    inverse = found.inverse
    shared = shared_voxels(inverse.model)

    def widened(seen: Observation, u: Array) -> Observation:
        if not isinstance(seen, CellularityMap):
            return seen
        return seen.with_model_error(found.model_error**2 * amplitude(u) ** 2 * shared)

    later = zip(inverse.observations[1:], found.states, strict=True)
    observations = (inverse.observations[0], *(widened(seen, u) for seen, u in later))
    return eqx.tree_at(lambda i: i.observations, inverse, observations)


def assimilate(
    found: Posterior | Estimate, u: Float[Array, "x y z"], noise: Float[Array, "x y z"]
) -> Float[Array, "x y z"]:
    """The state at the last calibrated visit, from its prediction u and its map less `noise`.

    What the map shows beyond the prediction moves the state by its local mean, in which voxel
    noise averages out, and by the rest as far as residuals exceed noise there: the gain of a
    Kalman filter, voxel by voxel. Outside the mask only the edge's density is known.
    """
    last = found.inverse.observations[-1]
    if not isinstance(last, CellularityMap):
        raise InputError(Problem("assimilate", "a mask alone", "a cellularity map"))
    shown = jnp.where(last.mask, last.value - noise - u, -above_zero(u - last.edge))
    weight = last.habitable.astype(u.dtype)
    spacing = found.inverse.model.spacing_mm
    near = SmoothField(u.shape, spacing, innovation_length_mm(spacing))
    local = near.local_mean(shown, weight)
    excess = jnp.maximum(found.excess, 0.0) * amplitude(u) ** 2
    rest = jnp.where(last.mask, excess / (excess + last.sd**2) * (shown - local), 0.0)
    return jnp.where(last.habitable, _changed(u, local + rest), 0.0)


def _changed(u: Array, change: Array) -> Array:
    """u + change between empty and full, rounded over SOFTNESS; u itself where nothing changes."""
    width = SOFTNESS * change / jnp.sqrt(change**2 + SOFTNESS**2)
    return above_zero(below_full(u + change), width)


def interval(prior: LogNormal, z: float, sd: float) -> dict[str, float | str]:
    """Mean, sd and central 95 % interval of a log-normal parameter whose z is N(z, sd²)."""
    spread = prior.log_sd * sd
    middle = prior.median * np.exp(prior.log_sd * z)
    mean = middle * np.exp(spread**2 / 2)
    return {
        "mean": float(mean),
        "sd": float(mean * np.sqrt(np.expm1(spread**2))),
        "low95": float(middle * np.exp(-1.96 * spread)),
        "high95": float(middle * np.exp(1.96 * spread)),
        "unit": prior.unit,
    }
