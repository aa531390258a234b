r"""A growth law left open, learned through the stepper: the universal differential equation.

.. math:: \partial_t u = \nabla\cdot(D(u)\,s(x)\nabla u) + G(u)\,u

`grown` is the `solve` that `learn.BINN` asks for: terms D and G of density (or constants) in a
patient's tissue, from one map of density to those of later days. `from_onset` starts from first
cells of unknown site and age and answers with what a reader would draw.

Rackauckas et al. 2020, arXiv:2001.04385; Lagergren et al. 2020, doi:10.1371/journal.pcbi.1008462.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from learn.binn import BINN, Discovered, Solve, Term
from learn.binn.solve import Terms
from mrphys.errors import InputError, Problem
from oncology import transport
from oncology.growth import ReactionDiffusion
from oncology.onset import (
    AGE_STEPS,
    DIFFUSIVITY,
    GAP_STEPS,
    GROWTH_RATE,
    NAMES,
    Inferred,
    Onset,
)
from oncology.priors import LogNormal

LONGEST_STEP = 0.3
"""Of growth in one step, G h."""
DEPARTURE = 0.3
"""Prior sd of a network's weights: of log G, about half as much at any density."""


def stepped(
    terms: Terms, faces: transport.Conductance, u: Array, days: Array, stages: int
) -> Array:
    """Half a step of growth, u exp(G h / 2) by the midpoint rule, one of diffusion, half a step."""
    diffusivity = terms["D"]

    def growth(u: Array, days: Array) -> Array:
        middle = u * jnp.exp(terms["G"](u) * days / 2)
        return u * jnp.exp(terms["G"](middle) * days)

    u = growth(u, days / 2)
    if getattr(diffusivity, "of", "u") == "u":
        faces, square = faces.weighted(diffusivity(u)), days
    else:
        square = diffusivity(jnp.zeros((), u.dtype)) * days
    u = jnp.maximum(transport.diffuse(u, faces, square, stages), 0.0)
    return growth(u, days / 2)


def grown(
    model: ReactionDiffusion,
    times_day: Float[np.ndarray, " times"],
    most_diffusivity_mm2_per_day: float,
    most_growth_per_day: float,
) -> Solve:
    """Densities u (assays, x, y, z) in a patient's tissue, for `learn.BINN`.

    Steps are stable up to `most_diffusivity` and no longer than 0.3 / `most_growth`. A term whose
    `of` is not "u" is a constant. Raises InputError for days that do not rise.
    """
    times = np.asarray(times_day, float)
    if times.ndim != 1 or times.size < 2 or not (np.diff(times) > 0).all():
        raise InputError(Problem("neural.grown: times_day", f"{times}", "two or more, rising"))
    gap = float(np.diff(times).max())
    steps = int(np.ceil(gap * most_growth_per_day / LONGEST_STEP))
    shape, spacing = model.habitable.shape, model.spacing_mm
    stages = transport.stages_needed(gap / steps, most_diffusivity_mm2_per_day, shape, spacing)
    faces = transport.face_conductance(
        jnp.asarray(model.relative_diffusivity(), float), model.spacing_mm
    )

    def solve(terms: Terms, u0: Array, times: Array) -> Array:
        def one(u: Array) -> Array:
            def leg(u: Array, days: Array) -> tuple[Array, Array]:
                def body(u: Array, _: None) -> tuple[Array, None]:
                    return stepped(terms, faces, u, days / steps, stages), None

                u = jax.lax.scan(jax.checkpoint(body), u, None, length=steps)[0]
                return u, u

            return jnp.concatenate([u[None], jax.lax.scan(leg, u, jnp.diff(times))[1]])

        return jnp.moveaxis(jax.vmap(one)(u0), 0, 1)

    return solve


class Amount(Term):
    """One number with a log-normal prior, whatever it is called with."""

    def __init__(self, prior: LogNormal, start: float = 0.0, *, rngs: nnx.Rngs):
        del rngs
        self.of, self.reach = "1", (0.0, 1.0)
        self.median, self.log_sd = prior.median, prior.log_sd
        self.z = nnx.Param(jnp.asarray(start, jnp.result_type(float)))

    def prior(self) -> Float[Array, " 1"]:
        return self.z[...][None]

    def __call__(self, z: Array) -> Array:
        """median exp(sd z)."""
        return self.median * jnp.exp(self.log_sd * self.z[...]) + jnp.zeros_like(jnp.asarray(z))


class Site(Term):
    """Three standard normal numbers: where a tumour began."""

    def __init__(self, *, rngs: nnx.Rngs):
        del rngs
        self.of, self.reach = "1", (0.0, 1.0)
        self.z = nnx.Param(jnp.zeros(3, jnp.result_type(float)))

    def prior(self) -> Float[Array, " 3"]:
        return self.z[...]

    def __call__(self, z: Array) -> Array:
        """The numbers themselves."""
        del z
        return self.z[...]


class Crowding(Term):
    """G(u) = k (1 - u) exp(n(u) - n(0)), n(u) = v·tanh(w û + b), û in [-1, 1]: a law that is
    logistic until data say otherwise, with k's own log-normal prior and sd `DEPARTURE` of each v.
    """

    def __init__(self, prior: LogNormal, start: float = 0.0, width: int = 4, *, rngs: nnx.Rngs):
        self.of, self.reach = "u", (0.0, 1.0)
        self.median, self.log_sd = prior.median, prior.log_sd
        dtype, draw = jnp.result_type(float), rngs.params.normal
        self.z = nnx.Param(jnp.asarray(start, dtype))
        self.w = nnx.Param(2.0 * draw((width,), dtype))  # pyright: ignore[reportCallIssue]
        self.b = nnx.Param(draw((width,), dtype))  # pyright: ignore[reportCallIssue]
        self.v = nnx.Param(jnp.zeros((width,), dtype))

    def prior(self) -> Float[Array, " numbers"]:
        z = self.z[...][None]
        return jnp.concatenate([z, self.w[...] / 2, self.b[...], self.v[...] / DEPARTURE])

    @property
    def rate_per_day(self) -> Array:
        """k."""
        return self.median * jnp.exp(self.log_sd * self.z[...])

    def __call__(self, z: Array) -> Array:
        """G at each density."""
        u = jnp.clip(jnp.asarray(z), 0.0, 1.0)

        def bent(u: Array) -> Array:
            h = jnp.multiply.outer(2 * u - 1, self.w[...])
            return jnp.tanh(h + jnp.broadcast_to(self.b[...], h.shape)) @ self.v[...]

        return self.rate_per_day * (1 - u) * jnp.exp(bent(u) - bent(jnp.zeros((), u.dtype)))


def from_onset(problem: Onset) -> Solve:
    """What a reader would draw of a tumour with terms D, G, age and site, for `learn.BINN`: chances
    (times, 1, contours, voxels), those of the first time, before the onset, zero."""
    faces = transport.face_conductance(problem.relative_diffusivity, problem.spacing_mm)

    def solve(terms: Terms, u0: Array, times: Array) -> Array:
        del times
        seen = [
            jax.nn.sigmoid(visit.doubt(visit.at_voxels(u)))
            for visit, u in zip(problem.visits, states_of(problem, faces, terms), strict=True)
        ]
        return jnp.stack([jnp.zeros_like(u0[0]), *seen])[:, None]

    return solve


def states_of(
    problem: Onset, faces: transport.Conductance, terms: Terms
) -> tuple[Float[Array, "x y z"], ...]:
    """On the days of all visits."""
    none = jnp.zeros((), problem.relative_diffusivity.dtype)
    place = problem.parameters(jnp.concatenate([jnp.zeros(len(NAMES)), terms["site"](none)]))
    u, states = problem.seed(place), []
    legs = [(terms["age"](none), AGE_STEPS), *((gap, GAP_STEPS) for gap in problem.gaps_day)]
    for days, steps in legs:
        u = _leg(problem, faces, terms, u, days / steps, steps)
        states.append(u)
    return tuple(states)


def _leg(
    problem: Onset, faces: transport.Conductance, terms: Terms, u: Array, step: Array, steps: int
) -> Array:
    def body(u: Array, _: None) -> tuple[Array, None]:
        return stepped(terms, faces, u, step, problem.stages), None

    return jax.lax.scan(body, u, None, length=steps)[0]


class Opened(eqx.Module):
    """What was found with the growth law left open: as `Inferred`, and the terms."""

    inferred: Inferred
    discovered: Discovered = eqx.field(static=True)

    def after(self, days: float, steps: int = GAP_STEPS) -> Float[Array, "x y z"]:
        """The state so many days after the last visit, by the law that was learned."""
        problem = self.inferred.onset
        faces = transport.face_conductance(problem.relative_diffusivity, problem.spacing_mm)
        u, step = self.inferred.states[-1], jnp.asarray(days / steps)
        return _leg(problem, faces, self.discovered.terms, u, step, steps)


def learn_growth(
    problem: Onset, start: Float[Array, " 3"], *, steps: int = 12, key: PRNGKeyArray
) -> Opened:
    """Age, D, site and the growth law G(u) of one tumour from its contours, by `learn.BINN` from
    `start` (`oncology.radial`); the covariance of z with the network's numbers integrated out."""
    made = dict(zip(NAMES, np.asarray(start).tolist(), strict=True))
    priors = problem.priors
    binn = BINN(
        {
            "D": _factory(Amount, priors[DIFFUSIVITY], made[DIFFUSIVITY]),
            "G": _factory(Crowding, priors[GROWTH_RATE], made[GROWTH_RATE]),
            "age": _factory(Amount, priors[NAMES[0]], made[NAMES[0]]),
            "site": Site,
        },
        from_onset(problem),
    )
    inside = np.stack([np.asarray(visit.inside, float) for visit in problem.visits])
    density = np.concatenate([np.zeros_like(inside[:1]), inside])[None]
    days = np.concatenate([[0.0], np.cumsum(np.asarray(problem.gaps_day))])
    times = np.concatenate([[-priors[NAMES[0]].median], days])
    found = binn.fit(times, density, steps=steps, key=key)
    z, covariance, states = _explained(binn, problem, found.members[0])
    return Opened(Inferred(problem, z, covariance, states), found)


def _factory(kind: Callable[..., Term], prior: LogNormal, start: float) -> Callable[..., Term]:
    return partial(kind, prior, start)


def _explained(
    binn: BINN, problem: Onset, params: dict[str, Any]
) -> tuple[Array, Array, tuple[Array, ...]]:
    """z, its covariance by the expected information of contours and priors, and the states."""
    faces = transport.face_conductance(problem.relative_diffusivity, problem.spacing_mm)
    flat, unravel = ravel_pytree(params)

    def doubts(flat: Array) -> tuple[Array, tuple[Array, ...]]:
        states = states_of(problem, faces, binn.merged(unravel(flat)))
        pairs = zip(problem.visits, states, strict=True)
        return jnp.concatenate([v.doubt(v.at_voxels(u)).ravel() for v, u in pairs]), states

    def place(flat: Array) -> Array:
        terms = binn.merged(unravel(flat))
        return jnp.concatenate([terms[n].z[...].reshape(-1) for n in ("age", "D", "G", "site")])

    def priors(flat: Array) -> Array:
        return jnp.concatenate([t.prior() for t in binn.merged(unravel(flat)).values()])

    @jax.jit
    def found(flat: Array) -> tuple[Array, Array, tuple[Array, ...]]:
        chance, states = doubts(flat)
        chance = jax.nn.sigmoid(chance)
        slope, held = jax.jacfwd(lambda f: doubts(f)[0])(flat), jax.jacfwd(priors)(flat)
        information = slope.T @ ((chance * (1 - chance))[:, None] * slope) + held.T @ held
        pick = jax.jacfwd(place)(flat)
        return place(flat), pick @ jnp.linalg.solve(information, pick.T), states

    return found(flat)
