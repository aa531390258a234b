r"""A tumour from its first cells: diffusivity, growth rate, age and site from drawn contours.

.. math:: \partial_t u = \nabla\cdot(D(x)\nabla u) + k u (1 - u), \quad
          u(-T, x) = A\,e^{-|x - x_0|^2 / s^2}

Day 0 is the first scan; T is the age then, x₀ the site. What a scan shows are contours: a voxel is
drawn inside that of threshold c with probability σ((g(u) - g(c)) / w), g the log odds of density.
Ahead of a front g falls by 1 / √(D/k) a millimetre, so that w is a reader's doubt as a length.

    Contours       one visit: voxels that tell where each contour runs, and on which side they are
    Onset          the inverse problem: tissue, visits, priors; states and misfit at any z
    most_probable  its solution through the stepper
    Inferred       z, its covariance, the states it was found with: of this and every other method

From one scan D T and k T follow, not D, k and T: the priors say the rest.
"""

from collections.abc import Mapping, Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mrphys.errors import InputError, Problem
from oncology import transport
from oncology.growth_laws import Logistic
from oncology.observe import distance_mm, filled
from oncology.priors import LogNormal, physical

SEED_DENSITY, SEED_RADIUS_MM = 0.9, 4.0
SITE_SD_MM = 10.0
"""Prior of the site about the middle of what was drawn, along each axis."""
READER_WIDTH = 0.22
"""w: log odds over which drawing is in doubt, about a millimetre in a front of 3 mm length."""
LEAST_DENSITY = 1e-3
"""Below which densities are alike."""
AGE_STEPS, GAP_STEPS = 32, 8
MOST_DEVIATIONS = 2.5
"""Of the priors, up to which steps are stable; diffusion is capped beyond."""
AGE = LogNormal(150.0, 0.4, "day", "of a seed of 4 mm to a mass that is scanned, at these rates")
DIFFUSIVITY, GROWTH_RATE = "diffusivity_mm2_per_day", "growth_rate_per_day"
NAMES = ("age_day", DIFFUSIVITY, GROWTH_RATE)
"""In the order of trees, which sort by name."""


def log_odds(u: Float[Array, "..."]) -> Float[Array, "..."]:
    """log((u + ε) / (1 - u + ε)) of a density between 0 and 1."""
    inside = jnp.clip(u, 0.0, 1.0)
    return jnp.log(inside + LEAST_DENSITY) - jnp.log(1 - inside + LEAST_DENSITY)


class Contours(eqx.Module):
    """One visit's contours: `inside` says which of `voxels` were drawn within that of `threshold`.

    Voxels lie apart, because neighbours are drawn by one stroke and share their error.
    """

    voxels: Int[Array, "contours n"]
    inside: Bool[Array, "contours n"]
    threshold: Float[Array, " contours"]

    def doubt(self, density: Float[Array, "contours n"]) -> Float[Array, "contours n"]:
        """(g(u) - g(c)) / w of densities at the voxels."""
        return (log_odds(density) - log_odds(self.threshold)[:, None]) / READER_WIDTH

    def at_voxels(self, u: Float[Array, "x y z"]) -> Float[Array, "contours n"]:
        """A field at the voxels."""
        return u.ravel()[self.voxels]

    def residual(self, density: Float[Array, "contours n"]) -> Float[Array, "contours n"]:
        """√(-2 log p) of what was drawn, densities at the voxels given: squares add up to the
        deviance."""
        doubt = self.doubt(density)
        against = jnp.where(self.inside, -doubt, doubt)
        return jnp.sqrt(2 * jax.nn.softplus(against) + jnp.finfo(against.dtype).tiny)


def contours(
    masks: Mapping[float, Bool[np.ndarray, "x y z"]],
    habitable: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
    readings: int = 1500,
    apart_mm: float = 4.0,
) -> Contours:
    """Of masks by the density at their edge: of a lattice of voxels `apart_mm`, the `readings`
    nearest to each edge; dark cores count as inside. Raises InputError for an empty mask, or one
    with fewer voxels around."""
    stride = [max(1, round(apart_mm / h)) for h in spacing_mm]
    lattice = np.zeros(habitable.shape, bool)
    pairs = zip(stride, habitable.shape, strict=True)
    lattice[tuple(slice(min(step, n) // 2, None, step) for step, n in pairs)] = True
    places = np.flatnonzero(lattice & habitable)
    if places.size < readings:
        found = f"{places.size} voxels {apart_mm:g} mm apart in habitable tissue"
        raise InputError(Problem("contours", found, f"{readings} or more", "fewer readings"))
    voxels, inside = [], []
    for mask in masks.values():
        if not mask.any():
            raise InputError(Problem("contours", "an empty mask", "one voxel of tumour or more"))
        drawn = filled(mask)
        distance = distance_mm(drawn, spacing_mm) + distance_mm(~drawn, spacing_mm)
        nearest = places[np.argsort(distance.ravel()[places], kind="stable")[:readings]]
        voxels.append(np.sort(nearest))
        inside.append(drawn.ravel()[voxels[-1]])
    return Contours(
        jnp.asarray(np.stack(voxels)), jnp.asarray(np.stack(inside)), jnp.asarray([*masks], float)
    )


class Onset(eqx.Module):
    """The inverse problem of one tumour: tissue, visits `gaps_day` apart, priors.

    z are standard normal coordinates: of log T, log D and log k, and of the site about `centre_mm`.
    Millimetres count from the first voxel's middle.
    """

    relative_diffusivity: Float[Array, "x y z"]
    visits: tuple[Contours, ...]
    gaps_day: Float[Array, " gaps"]
    centre_mm: Float[Array, " 3"]
    priors: Mapping[str, LogNormal]
    spacing_mm: tuple[float, float, float] = eqx.field(static=True)
    stages: int = eqx.field(static=True)

    @property
    def size(self) -> int:
        """Coordinates z."""
        return len(NAMES) + 3

    def parameters(self, z: Float[Array, " 6"]) -> dict[str, Array]:
        """D, k, the age and `site_mm`."""
        p = {name: jnp.asarray(v) for name, v in physical(self.priors, z[: len(NAMES)]).items()}
        return p | {"site_mm": self.centre_mm + SITE_SD_MM * z[len(NAMES) :]}

    def seed(self, p: Mapping[str, Array]) -> Float[Array, "x y z"]:
        """u at the onset."""
        return seed(p["site_mm"], self.relative_diffusivity, self.spacing_mm)

    def grown(
        self, p: Mapping[str, Array], u: Float[Array, "x y z"], days: ArrayLike, steps: int
    ) -> Float[Array, "x y z"]:
        """The state so many days later."""
        step = jnp.asarray(days) / steps

        def body(u: Array, _: None) -> tuple[Array, None]:
            return self.one_step(p, u, step), None

        return jax.lax.scan(jax.checkpoint(body), u, None, length=steps)[0]

    def one_step(self, p: Mapping[str, Array], u: Array, days: Array) -> Array:
        """Half a step of growth, one of diffusion, half a step of growth."""
        law, none = Logistic(), jnp.zeros((), u.dtype)
        k, half = p[GROWTH_RATE], days / 2
        faces = transport.face_conductance(self.relative_diffusivity, self.spacing_mm)
        u = law.step(u, k, none, half)
        u = transport.diffuse(u, faces, self.diffusion(p, days), self.stages)
        return law.step(u, k, none, half)

    def diffusion(self, p: Mapping[str, Array], days: Array) -> Array:
        """D times a step, mm², at most what is stable."""
        per_mm2 = sum(4 / h**2 for h in self.spacing_mm)
        most = (self.stages**2 + self.stages - 2) / 2 / per_mm2
        return jnp.minimum(p[DIFFUSIVITY] * days, most)

    def states(self, z: Float[Array, " 6"]) -> tuple[Float[Array, "x y z"], ...]:
        """On the days of all visits."""
        p = self.parameters(z)
        u = self.grown(p, self.seed(p), p["age_day"], AGE_STEPS)
        states = [u]
        for gap in self.gaps_day:
            u = self.grown(p, u, gap, GAP_STEPS)
            states.append(u)
        return tuple(states)

    def compare(self, states: Sequence[Float[Array, "x y z"]]) -> Float[Array, " m"]:
        """Residuals of all visits' contours."""
        pairs = zip(self.visits, states, strict=True)
        return jnp.concatenate([v.residual(v.at_voxels(u)).ravel() for v, u in pairs])

    def misfit(self, z: Float[Array, " 6"]) -> Float[Array, " m"]:
        """`compare` of the model's own states."""
        return self.compare(self.states(z))


def seed(
    site_mm: Float[Array, " 3"],
    relative_diffusivity: Float[Array, "x y z"],
    spacing_mm: Sequence[float],
) -> Float[Array, "x y z"]:
    """A e^{-|x - x₀|² / s²}, the first cells, where cells can live."""
    shape, dtype = relative_diffusivity.shape, relative_diffusivity.dtype
    square = jnp.zeros(shape, dtype)
    for axis, (n, h) in enumerate(zip(shape, spacing_mm, strict=True)):
        if n == 1:
            continue
        along = (jnp.arange(n, dtype=dtype) * h - site_mm[axis]) ** 2
        square = square + jnp.expand_dims(along, [a for a in range(3) if a != axis])
    dense = SEED_DENSITY * jnp.exp(-square / SEED_RADIUS_MM**2)
    return jnp.where(relative_diffusivity > 0, dense, 0.0)


def onset(
    relative_diffusivity: Float[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
    masks: Sequence[Mapping[float, Bool[np.ndarray, "x y z"]]],
    days: Sequence[float],
    priors: Mapping[str, LogNormal],
    readings: int = 1500,
    apart_mm: float = 4.0,
) -> Onset:
    """The inverse problem of visits with masks by threshold, read as by `contours`.

    Raises InputError for days that do not rise from one visit to the next, priors of other
    parameters, or a mask that is empty.
    """
    problems = []
    if len(masks) != len(days) or not len(days) or not (np.diff(days) > 0).all():
        found = f"{len(masks)} visits on days {list(days)}"
        problems.append(Problem("onset", found, "one day a visit, rising"))
    if set(priors) != set(NAMES):
        problems.append(Problem("onset: priors", ", ".join(priors), ", ".join(NAMES)))
    if problems:
        raise InputError(*problems)
    habitable = np.asarray(relative_diffusivity) > 0
    visits = tuple(contours(m, habitable, spacing_mm, readings, apart_mm) for m in masks)
    widest = np.logical_or.reduce([np.asarray(m) for m in masks[0].values()])
    centre = np.argwhere(widest).mean(0) * spacing_mm
    ordered = {name: priors[name] for name in NAMES}

    def most(name: str) -> float:
        return ordered[name].median * float(np.exp(MOST_DEVIATIONS * ordered[name].log_sd))

    gaps = np.diff(np.asarray(days, float))
    step = max(most("age_day") / AGE_STEPS, *gaps / GAP_STEPS) if gaps.size else 0.0
    step = max(step, most("age_day") / AGE_STEPS)
    stages = transport.stages_needed(step, most(DIFFUSIVITY), habitable.shape, spacing_mm)
    return Onset(
        jnp.asarray(relative_diffusivity, float),
        visits,
        jnp.asarray(gaps),
        jnp.asarray(centre),
        ordered,
        spacing_mm,
        stages,
    )


class Inferred(eqx.Module):
    """What a method found: z with its covariance, and the states on the visits' days, which a
    method that lets the equation err does not take from z alone."""

    onset: Onset
    z: Float[Array, " 6"]
    covariance: Float[Array, "6 6"]
    states: tuple[Float[Array, "x y z"], ...]

    @property
    def p(self) -> dict[str, Array]:
        """Parameters at z."""
        return self.onset.parameters(self.z)

    @eqx.filter_jit
    def after(self, days: ArrayLike, steps: int = GAP_STEPS) -> Float[Array, "x y z"]:
        """The state so many days after the last visit."""
        return self.onset.grown(self.p, self.states[-1], days, steps)


@eqx.filter_jit
def most_probable(problem: Onset, start: Float[Array, " 6"], rtol: float = 1e-4) -> Inferred:
    """z of the highest posterior through the stepper, by Levenberg and Marquardt in forward mode;
    its covariance by the expected information of the contours and the prior."""

    def residual(z: Array, problem: Onset) -> Array:
        return jnp.concatenate([problem.misfit(z), z])

    solver = optx.LevenbergMarquardt(rtol=rtol, atol=rtol)
    found = optx.least_squares(
        residual, solver, start, problem, options={"jac": "fwd"}, max_steps=60, throw=False
    )
    z = found.value
    return Inferred(problem, z, posterior_covariance(problem, z), problem.states(z))


def posterior_covariance(problem: Onset, z: Float[Array, " 6"]) -> Float[Array, "6 6"]:
    """(Jᵀ p (1 - p) J + 1)⁻¹, J the derivatives of the log odds that a voxel is drawn inside."""

    def doubts(z: Array) -> Array:
        pairs = zip(problem.visits, problem.states(z), strict=True)
        return jnp.concatenate([v.doubt(v.at_voxels(u)).ravel() for v, u in pairs])

    chance = jax.nn.sigmoid(doubts(z))
    slope = jax.jacfwd(doubts)(z)
    return jnp.linalg.inv(slope.T @ ((chance * (1 - chance))[:, None] * slope) + jnp.eye(z.size))
