r"""The posterior by ensembles of forward runs, no derivative taken on the way.

transformed   one Kalman update of an ensemble, exact for linear models (square root, no noise)
invert        the parameters of all visits at once: randomised maximum likelihood, its
              sensitivities regressed over the ensemble
Filter        visit after visit: parameters and state of every member, moved at each scan

An update multiplies the ensemble's departures X from its mean by a matrix of its own size,

.. math:: T = (I + Y^T Y / (N - 1))^{-1/2}, \quad
    w = \frac{1}{N - 1} T^2 Y^T d,

Y the departures of the predicted residuals, whitened, and d the observed ones less the mean's:
Bishop, Etherton & Majumdar 2001, doi:10.1175/1520-0493(2001)129<0420:ASWTET>2.0.CO;2; Hunt,
Kostelich & Szunyogh 2007, doi:10.1016/j.physd.2006.11.008. A state has more numbers than there are
members: it is moved by what is seen near each voxel alone, each member by its own T (there), while
parameters are moved by all. Inversion: Iglesias, Law & Stuart 2013,
doi:10.1088/0266-5611/29/4/045001; Chen & Oliver 2013, doi:10.1007/s10596-013-9351-5.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from oncology.inverse import (
    LEAST_MODEL_ERROR,
    Draw,
    Inverse,
    Posterior,
    amplitude,
    correlation_length_mm,
    posterior,
    sampled,
    shared_voxels,
    with_errors,
)
from oncology.observe import CellularityMap, Observation, above_zero, below_full
from oncology.priors import physical
from oncology.smoothing import SmoothField
from oncology.timeline import integrate

ITERATIONS = 8
LONGEST_STEP = 1.0
"""Of any coordinate in one iteration, in standard deviations of its prior."""
MOST_SPREAD = 0.5
"""Standard deviations of the prior over which sensitivities are regressed at most."""
TEMPERS = 4
SETTLED, SMALL_STEP = 3, 0.05
"""Iteration after which errors are taken anew; the step, in standard deviations, that ends it."""


def transformed(
    residual: Float[Array, "members m"],
) -> tuple[Float[Array, " members"], Float[Array, "members members"]]:
    """Weights of the mean and the departures after whitened residuals (prediction less
    observation) were seen: new mean = mean + w X, new departures = T X, X (members, n)."""
    members = residual.shape[0]
    mean = jnp.mean(residual, axis=0)
    y = residual - mean[None]
    return _transform(y @ y.T / (members - 1), -(y @ mean) / (members - 1))


def _transform(gram: Array, pull: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(gram)
    shrunk = 1 + jnp.maximum(values, 0.0)
    weight = vectors @ ((vectors.T @ pull) / shrunk)
    return weight, (vectors / jnp.sqrt(shrunk)[None]) @ vectors.T


def spread_exactly(key: Array, members: int, size: int) -> Float[Array, "members size"]:
    """Standard normal numbers whose mean over members is 0 and whose covariance is the identity.

    Raises InputError for no more members than numbers.
    """
    if members <= size:
        what, expected = f"{members} members", f"more than the {size} unknowns"
        raise InputError(Problem("ensemble", what, expected))
    z = jax.random.normal(key, (members, size))
    z = z - jnp.mean(z, axis=0)[None]
    half = jnp.linalg.cholesky(z.T @ z / (members - 1))
    return jax.scipy.linalg.solve_triangular(half, z.T, lower=True).T


@eqx.filter_jit
def _iteration(
    inverse: Inverse, z: Array, tilt: Draw, extra: Array, prior: Array
) -> tuple[Array, Array]:
    """One Gauss-Newton step of every member on its own perturbed problem, the Jacobian regressed
    on runs without errors over the same z; and the largest step."""
    run = jax.vmap(inverse.misfit)
    still = jnp.broadcast_to(inverse.no_error(), tilt.first_error.shape)
    middle = jnp.mean(z, axis=0)[None]
    apart = z - middle
    widest = jnp.max(jnp.std(z, axis=0))
    near = middle + apart * jnp.minimum(1.0, MOST_SPREAD / widest)
    clean = run(near, still)
    slope = jnp.linalg.lstsq(near - middle, clean - jnp.mean(clean, axis=0)[None])[0]
    hessian = slope @ slope.T + jnp.eye(z.shape[1])
    seen = run(z, tilt.first_error) + tilt.white + extra
    step = jnp.linalg.solve(hessian, slope @ seen.T + (z - prior).T).T
    step = jnp.clip(step, -LONGEST_STEP, LONGEST_STEP)
    sd = jnp.sqrt(jnp.diag(jnp.linalg.inv(hessian)))
    return z - step, jnp.max(jnp.abs(step) / sd[None])


def invert(inverse: Inverse, key: Array, members: int = 100) -> Posterior:
    """The posterior by an ensemble of perturbed problems, each with its own errors of the maps.

    `inverse` weighs maps by the model error expected of them (`oncology.inverse.estimate`). Two
    runs a member and iteration, at most eight iterations; what a model error adds is taken where
    the ensemble is at first, and again where it has got to. Raises InputError for no more members
    than unknowns.
    """
    keys = jax.random.split(key, members + 1)
    z = prior = spread_exactly(keys[0], members, inverse.size)
    tilt, extra = _errors(posterior(inverse, jnp.mean(z, axis=0)), keys[1:])
    for iteration in range(ITERATIONS):
        if iteration == SETTLED:
            tilt, extra = _errors(posterior(inverse, jnp.mean(z, axis=0)), keys[1:])
        z, moved = _iteration(inverse, z, tilt, extra, prior)
        if iteration > SETTLED and float(moved) < SMALL_STEP:
            break
    found = posterior(inverse, jnp.mean(z, axis=0))
    return sampled(found, eqx.tree_at(lambda draw: draw.z, tilt, z))


@eqx.filter_jit
def _errors(base: Posterior, keys: Array) -> tuple[Draw, Array]:
    """Errors of the maps, and what a model error adds to the residuals, to first order."""
    gain, inverse = base.gain, base.inverse

    def one(key: Array) -> tuple[Draw, Array]:
        drawn = gain.sources(key)
        fields = base.model_error * jax.vmap(gain.field)(drawn.field)
        pairs = zip(base.states, fields, strict=True)
        moved = tuple(amplitude(u) * field for u, field in pairs)
        _, extra = jax.jvp(inverse.compare, (base.states,), (moved,))
        first = drawn.start * inverse.observations[0].error_sd
        white = drawn.white * gain.noise_share
        return Draw(drawn.prior, first, white, jnp.zeros((), white.dtype)), extra

    return jax.vmap(one)(keys)


class Filter(eqx.Module):
    """An ensemble on its way through the visits: coordinates z and the state of every member, on
    the day of the last of `seen` visits.

    With `near_mm` a state follows what is seen so far from each voxel, and z what can be laid to
    it by regression, in four parts with runs between (Emerick & Reynolds 2013,
    doi:10.1016/j.cageo.2012.03.011): over a wide prior one straight line errs. Without, both are
    updated together, exactly where the model is linear and members outnumber unknowns. A model
    error joins each member on the way.
    """

    inverse: Inverse
    z: Float[Array, "members n"]
    states: Float[Array, "members x y z"]
    model_error: Float[Array, ""]
    seen: int = eqx.field(static=True, default=1)
    near_mm: float | None = eqx.field(static=True, default=None)

    @eqx.filter_jit
    def grown(self, key: Array) -> Float[Array, "members x y z"]:
        """The states on the day of the next visit."""
        inverse, leg = self.inverse, self.inverse.legs[self.seen - 1]
        spacing = inverse.model.spacing_mm
        field = SmoothField(self.states.shape[1:], spacing, correlation_length_mm(spacing))

        def one(z: Array, u: Array, white: Array) -> Array:
            p = physical(inverse.priors, z)
            u = integrate(inverse.model, inverse.plan, p, u, leg)
            return u + self.model_error * amplitude(u) * field(white)

        white = jax.random.normal(key, self.states.shape, self.states.dtype)
        return jax.vmap(one)(self.z, self.states, white)

    def assimilated(self, key: Array) -> "Filter":
        """The filter after the next visit. Raises InputError where there is none left."""
        if self.seen >= len(self.inverse.observations):
            what = f"all {self.seen} visits seen"
            raise InputError(Problem("Filter", what, "another visit"))
        if self.near_mm is None:
            z, states = self._together(self.grown(key))
            return self._after(z, states)
        for_errors, *for_noise = jax.random.split(key, TEMPERS + 1)
        now = self
        for one in for_noise:
            z, states = now._apart(now.grown(for_errors), one)
            now = eqx.tree_at(lambda f: f.z, now, z)
        return now._after(now.z, states)

    def _after(self, z: Array, states: Array) -> "Filter":
        return Filter(self.inverse, z, states, self.model_error, self.seen + 1, self.near_mm)

    @property
    def _visit(self) -> Observation:
        return self.inverse.observations[self.seen].for_noise_alone()

    @eqx.filter_jit
    def _together(self, u: Array) -> tuple[Array, Array]:
        weight, turn = transformed(jax.vmap(self._visit.residual)(u))
        z, moved = (_applied(x, weight, turn) for x in (self.z, u))
        return z, self._kept(moved)

    @eqx.filter_jit
    def _apart(self, u: Array, key: Array) -> tuple[Array, Array]:
        visit, model = self._visit, self.inverse.model
        residual = jax.vmap(visit.residual)(u)
        z = _regressed(self.z, residual, shared_voxels(model), key)
        if isinstance(visit, CellularityMap):
            moved = _locally(u, residual, visit, model.spacing_mm, float(self.near_mm or 0.0))
        else:
            moved = _applied(u, *transformed(residual))
        return z, self._kept(moved)

    def _kept(self, moved: Array) -> Array:
        kept = above_zero(below_full(moved))
        return jnp.where(self.inverse.model.habitable, kept, 0.0)


def begun(
    inverse: Inverse,
    key: Array,
    members: int = 100,
    model_error: float = LEAST_MODEL_ERROR,
    near_mm: float | None = None,
) -> Filter:
    """The ensemble at the first visit: parameters from their priors, states as that visit implies
    them, each with its own errors. Raises InputError for no more members than parameters."""
    keys = jax.random.split(key)
    first = inverse.observations[0]
    z = spread_exactly(keys[0], members, inverse.size)
    shape = (members, *inverse.no_error().shape)
    error = jax.random.normal(keys[1], shape, z.dtype) * first.error_sd[None]
    states = jax.vmap(lambda z, e: first.state(physical(inverse.priors, z), e))(z, error)
    return Filter(inverse, z, states, jnp.asarray(model_error, z.dtype), 1, near_mm)


def filtered(inverse: Inverse, key: Array, members: int = 100, **options: float) -> Posterior:
    """Every visit assimilated in turn, the last ensemble as a posterior: the errors of the maps
    that go with each member's parameters are drawn given them. `options` are those of `begun`."""
    keys = jax.random.split(key, len(inverse.observations) + 1)
    now = begun(inverse, keys[0], members, **options)
    for one in keys[1:-1]:
        now = now.assimilated(one)
    found = posterior(inverse, jnp.mean(now.z, axis=0))
    return sampled(found, with_errors(found, now.z, keys[-1]))


def _applied(x: Array, weight: Array, turn: Array) -> Array:
    """The ensemble x after an update."""
    mean = jnp.mean(x, axis=0)[None]
    apart = x - mean
    return mean + jnp.tensordot(turn + weight[None], apart, 1)


def _regressed(z: Array, residual: Array, shared: float, key: Array) -> Array:
    """z after a part of what is seen, by the gain that regression on z gives: what z does not
    account for is noise there, which so many voxels share, and moves each member as it is."""
    mean, level = jnp.mean(z, axis=0)[None], jnp.mean(residual, axis=0)[None]
    slope = jnp.linalg.lstsq(z - mean, residual - level)[0]
    left = residual - level - (z - mean) @ slope
    variance = 1 + shared * jnp.sum(left**2, axis=0) / (z.shape[0] - z.shape[1] - 1)
    weighed = slope / (TEMPERS * variance)[None]
    prior = jnp.linalg.inv((z - mean).T @ (z - mean) / (z.shape[0] - 1))
    gain = jnp.linalg.solve(prior + weighed @ slope.T, weighed)
    noise = np.sqrt(TEMPERS) * jax.random.normal(key, residual.shape, residual.dtype)
    return z - (residual + noise) @ gain.T


def _locally(
    u: Array, residual: Array, visit: CellularityMap, spacing_mm: Sequence[float], near_mm: float
) -> Array:
    """States moved by the residuals near each voxel, weighed down by a Gaussian of distance."""
    members, grid = u.shape[0], u.shape[1:]
    at = jnp.concatenate([visit.inside, visit.outside])
    level = jnp.mean(residual, axis=0)
    y = jnp.zeros((members, u[0].size), u.dtype).at[:, at].set(residual - level[None])
    d = jnp.zeros(u[0].size, u.dtype).at[at].set(level)
    y, d = y.reshape(u.shape), d.reshape(grid)
    field = SmoothField(grid, spacing_mm, near_mm)
    unit = tuple(matrix / jnp.diag(matrix)[:, None] for matrix in field.along_axis)
    near = eqx.tree_at(lambda f: f.along_axis, field, unit)
    gram = jax.vmap(jax.vmap(near))(y[:, None] * y[None]) / (members - 1)
    pull = -jax.vmap(near)(y * d[None]) / (members - 1)

    def one(gram: Array, pull: Array, x: Array) -> Array:
        return _applied(x, *_transform(gram, pull))

    columns = (
        gram.reshape(members, members, -1),
        pull.reshape(members, -1),
        u.reshape(members, -1),
    )
    moved = jax.vmap(one, in_axes=-1, out_axes=-1)(*columns)
    return moved.reshape(u.shape)
