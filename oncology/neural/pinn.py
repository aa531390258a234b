r"""Where a tumour reaches beyond what a scan shows, and how it grew: a network obeys growth.

`learn.PINN` of the log odds v (`oncology.neural.front`), for one patient or many in one program:

1. radii of the contours -> D, k and age of a ball (`oncology.radial`), with its whole history
2. networks learn that history: the radially symmetric solution
3. in the patient's tissue, a diffuse domain with D(x), they obey

   φ v_t = D (E (∇²v + (1 - 2u) |∇v|²) + ∇E·∇v) + φ k,   E = φ D(x) / D

   start from a seed of unknown site and age, and follow the contours of all visits; D, k, age and
   site have the priors of `Onset`. Where u < 10⁻⁴ nothing is asked.

After Zhang et al. 2025, doi:10.1016/j.media.2024.103423, who fit u, not its log odds, to one scan;
diffuse domain: Li, Lowengrub, Rätz, Voigt 2009, doi:10.4310/CMS.2009.v7.n1.a4.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray
from scipy import ndimage
from scipy.interpolate import RegularGridInterpolator

from learn.pinn import MLP, PINN, Adam, Condition, Data, Parameter, Solution, Stage
from learn.pinn.problem import Progress
from learn.pinn.terms import At, Local
from mrphys.errors import InputError, Problem
from oncology.neural.front import Front, Surroundings
from oncology.observe import distance_mm
from oncology.onset import (
    DIFFUSIVITY,
    GROWTH_RATE,
    NAMES,
    READER_WIDTH,
    SEED_DENSITY,
    SEED_RADIUS_MM,
    SITE_SD_MM,
    Inferred,
    Onset,
    log_odds,
)
from oncology.priors import LogNormal
from oncology.radial import Scales, scales

PHASE_WIDTH_MM, EVEN_MM = 4.0, 2.5
FAINT = -9.0
"""Log odds below which the equation is not asked for."""
EQUATION = 100.0
"""Weight of the mean square of the equation, in units of the ball's k."""
SEEDED, SEEDED_MM, SEEDED_SD = 400, 14.0, 0.1
"""Points where the start is held, how far out, to what log odds."""
MARGIN_LENGTHS = 6.0
"""Infiltration lengths of the field beyond the widest contour."""
HISTORY, HISTORY_SD = 3000, 0.1
SITE = ("site_x", "site_y", "site_z")
FIRST = (Adam(steps=1200, rate=5e-3, last_rate=1e-4),)
THEN = (Adam(steps=3000, rate=5e-3, last_rate=1e-4, resample_every=500),)


class Drawn(Data):
    """Contours: √(-2 log p) of what was drawn at a point, 1 inside or 0; `edge` is the log odds of
    the contour's density."""

    def residual(self, u: Local, at: At, p: Any) -> Array:
        doubt = (log_odds(jax.nn.sigmoid(u())) - at["edge"]) / READER_WIDTH
        against = jnp.where(at["_value"] > 0.5, -doubt, doubt)
        return jnp.sqrt(2 * jax.nn.softplus(against) + jnp.finfo(against.dtype).tiny)


@dataclass(frozen=True)
class Frame:
    """The equations of every patient, in a box of `half_mm` on either side of the middle."""

    half_mm: float
    priors: Mapping[str, LogNormal]

    def parameters(self, p: Any) -> tuple[Array, Array, Array, Array]:
        """Age, D, k and the site, mm from the middle."""
        drawn = {n: v.median * jnp.exp(v.log_sd * p[n]) for n, v in self.priors.items()}
        age, d, k = (drawn[name] for name in NAMES)
        return age, d, k, SITE_SD_MM * jnp.stack([p[name] for name in SITE])

    def place_mm(self, at: At) -> Float[Array, " 3"]:
        """From the middle."""
        return self.half_mm * jnp.stack([at[name] for name in "xyz"])

    def equation(self, u: Local, at: At, p: Any) -> Array:
        """What growth is off by, in units of the ball's k."""
        _, d, k, _ = self.parameters(p)
        around = p["surroundings"]
        phase, e, *rise = around(self.place_mm(at))
        v, half = u(), self.half_mm
        slope = [u(name) / half for name in "xyz"]
        bend = (u("x", "x") + u("y", "y") + u("z", "z")) / half**2
        steep = slope[0] ** 2 + slope[1] ** 2 + slope[2] ** 2
        pull = rise[0] * slope[0] + rise[1] * slope[1] + rise[2] * slope[2]
        spread = e * (bend + (1 - 2 * jax.nn.sigmoid(v)) * steep) + pull
        off = phase * u("t") * 2 / around.span_day[...] - d * spread - phase * k
        asked = jax.lax.stop_gradient(jax.nn.sigmoid(v - FAINT))
        return asked * off / around.ball[...][0]

    def begun(self, u: Local, at: At, p: Any) -> Array:
        """What the first cells are off by, grown linearly by as much as the age is beyond the
        ball's."""
        age, d, k, site = self.parameters(p)
        k_ball, age_ball, d_ball = p["surroundings"].ball[...]
        del k_ball, d
        beyond = age - age_ball
        wide = jnp.maximum(1 + 4 * d_ball * beyond / SEED_RADIUS_MM**2, 0.2)
        square = jnp.sum((self.place_mm(at) - site) ** 2) / SEED_RADIUS_MM**2
        dense = jnp.log(SEED_DENSITY) - 1.5 * jnp.log(wide) - square / wide
        dense = jnp.minimum(dense, -0.02)
        v = dense - jnp.log(-jnp.expm1(dense)) + k * beyond
        asked = jax.lax.stop_gradient(jax.nn.sigmoid(v - FAINT))
        return asked * (u() - v) / SEEDED_SD


def invert(
    problems: Sequence[Onset],
    radii_mm: Sequence[Float[np.ndarray, "visits contours"]],
    *,
    width: int = 32,
    depth: int = 3,
    points: int = 2000,
    first: Sequence[Stage] = FIRST,
    then: Sequence[Stage] = THEN,
    folder: str | Path | None = None,
    progress: Progress = lambda stage, step, of, loss: None,
    key: PRNGKeyArray,
) -> list[Inferred]:
    """Every patient's tumour from its contours and their radii, all trained in one program.

    points   at which the equation is asked for
    first    stages in which the ball is learned; `then` those in the patient's tissue
    folder   of checkpoints: what is there is continued

    Raises InputError for problems that differ in grid, visits, readings or priors.
    """
    _require_alike(problems)
    count = len(problems)
    balls = [scales(each, radii) for each, radii in zip(problems, radii_mm, strict=True)]
    half = max(_reach_mm(b, radii) for b, radii in zip(balls, radii_mm, strict=True))
    frame = Frame(half, problems[0].priors)
    inner = partial(MLP, width=width, depth=depth)
    net = partial(Front, inner=inner)
    around = [surroundings(each, ball) for each, ball in zip(problems, balls, strict=True)]
    fronts = [
        Front(4, numbers=_numbers(ball, half), inner=inner, rngs=nnx.Rngs(0)) for ball in balls
    ]
    fixed = {"": _fixed(fronts), "surroundings": _fixed(around)}
    ranges = {name: (-1.0, 1.0) for name in "txyz"}
    folders = [None if folder is None else Path(folder) / name for name in ("ball", "patient")]

    ball = PINN(inputs=ranges, residual=lambda u, at, p: 0 * u(), field=net)
    learn = partial(ball.fit, history(balls, half), points=8, members=count, key=key)
    begin = _with_fixed(learn(stages=[]), fixed)
    shaped = learn(stages=first, start=begin, folder=folders[0], progress=progress)

    free = {name: Parameter(0.0, (-5.0, 5.0), (0.0, 1.0)) for name in (*NAMES, *SITE)}
    patient = PINN(
        inputs=ranges,
        residual=frame.equation,
        p=free,
        field=net,
        conditions={"seed": Condition(_around_the_seed(half), frame.begun)},
        weights={"residual": EQUATION},
        unknown={"surroundings": lambda rngs: around[0]},
    )
    learn = partial(
        patient.fit, drawn(problems, balls, half), points=points, members=count, key=key
    )
    begin = _with_fixed(learn(stages=[]), fixed)
    z = _together([ball.z for ball in balls])
    known = {n: free[n].coordinate.coordinate(z[..., i]) for i, n in enumerate(NAMES)}
    networks = begin.params["networks"] | {"": shaped.params["networks"][""]}
    begin = replace(begin, params={"networks": networks, "p": begin.params["p"] | known})
    found = learn(stages=then, start=begin, folder=folders[1], progress=progress)
    return [_inferred(each, found, i, half, balls[i]) for i, each in enumerate(problems)]


def _require_alike(problems: Sequence[Onset]) -> None:
    first = problems[0]
    kinds = [
        (p.relative_diffusivity.shape, p.spacing_mm, [v.voxels.shape for v in p.visits], p.priors)
        for p in problems
    ]
    if any(kind != kinds[0] for kind in kinds):
        expected = f"{first.relative_diffusivity.shape} voxels, {len(first.visits)} visits, as many"
        cause = "grids cropped to each tumour; give all of them one size"
        raise InputError(Problem("pinn.invert", "problems that differ", expected, cause))


def _together(each: Sequence[Any]) -> Any:
    """Arrays of all members, or those of the only one."""
    if len(each) == 1:
        return each[0]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _fixed(modules: Sequence[nnx.Module]) -> Any:
    return _together([nnx.split(module, nnx.Param, ...)[2] for module in modules])


def _with_fixed(begin: Solution, fixed: dict[str, Any]) -> Solution:
    own = {name: fixed[name] for name in begin.rest.fixed}
    return replace(begin, rest=begin.rest._replace(fixed=own))


def _reach_mm(ball: Scales, radii_mm: np.ndarray) -> float:
    p = ball.parameters()
    length = float(jnp.sqrt(p[DIFFUSIVITY] / p[GROWTH_RATE]))
    return 1.25 * float(np.max(radii_mm)) + MARGIN_LENGTHS * length


def _span_day(ball: Scales) -> Array:
    """From the ball's seed to the last visit."""
    return ball.parameters()[NAMES[0]] + jnp.sum(ball.onset.gaps_day)


def _numbers(ball: Scales, half_mm: float) -> Float[Array, " 4"]:
    p = ball.parameters()
    return jnp.stack([_span_day(ball), p[GROWTH_RATE], p[DIFFUSIVITY], jnp.asarray(half_mm)])


def surroundings(problem: Onset, ball: Scales) -> Surroundings:
    """A patient's tissue as a diffuse domain of `PHASE_WIDTH_MM`; beyond it D(x) of its edge.

    Networks of this size do not follow D(x) from voxel to voxel: over `EVEN_MM` it is replaced by
    what a mixture lets through, exp(mean log D + var log D / 6) (Matheron's; Gelhar & Axness 1983,
    doi:10.1029/WR019i001p00161).
    """
    share = np.asarray(problem.relative_diffusivity, float)
    habitable, spacing = share > 0, problem.spacing_mm
    inner, outer = distance_mm(~habitable, spacing), distance_mm(habitable, spacing)
    phase = (1 - np.tanh(3 * (outer - inner) / PHASE_WIDTH_MM)) / 2
    nearest = np.empty((3, *share.shape), np.int32)
    ndimage.distance_transform_edt(~habitable, spacing, return_indices=True, indices=nearest)
    log, sd = np.log(share[tuple(nearest)]), [EVEN_MM / h for h in spacing]
    mean = ndimage.gaussian_filter(log, sd)
    variance = np.maximum(ndimage.gaussian_filter(log**2, sd) - mean**2, 0.0)
    e = phase * np.exp(mean + variance / 6)
    several = [axis for axis, n in enumerate(share.shape) if n > 1]
    rise = [np.gradient(e, spacing[a], axis=a) if a in several else 0 * e for a in range(3)]
    p = ball.parameters()
    tables = jnp.asarray(np.stack([phase, e, *rise]), float)
    numbers = jnp.stack([p[GROWTH_RATE], p[NAMES[0]], p[DIFFUSIVITY]])
    return Surroundings(tables, -problem.centre_mm, spacing, _span_day(ball), numbers)


def history(balls: Sequence[Scales], half_mm: float, seed: int = 0) -> Data:
    """Log odds of balls at random times and places."""
    rng = np.random.default_rng(seed)
    rows: list[tuple[np.ndarray, ...]] = []
    for ball in balls:
        day, states = (np.asarray(v, float) for v in ball.course())
        t = 2 * (day - day[0]) / (day[-1] - day[0]) - 1
        dense = np.clip(states, 1e-12, 1 - 1e-6)
        odds = np.log(dense) - np.log1p(-dense)
        look = RegularGridInterpolator((t, ball.ball.radius_mm), odds, bounds_error=False)
        direction = rng.normal(size=(20 * HISTORY, 3))
        direction /= np.linalg.norm(direction, axis=1)[:, None]
        radius = half_mm * rng.random(20 * HISTORY)
        at = rng.uniform(-1, 1, 20 * HISTORY)
        value = look((at, np.maximum(radius, ball.ball.radius_mm[0])))
        kept = np.flatnonzero(value > FAINT - 2)[:HISTORY]
        place = (direction * (radius / half_mm)[:, None])[kept]
        rows.append((at[kept], *place.T, value[kept]))
    t, x, y, z, value = (v[0] if len(v) == 1 else v for v in map(np.stack, zip(*rows, strict=True)))
    return Data({"t": t, "x": x, "y": y, "z": z}, value, HISTORY_SD)


def drawn(problems: Sequence[Onset], balls: Sequence[Scales], half_mm: float) -> Drawn:
    """The contours of every visit as readings at points; a voxel beyond the field's edge counts at
    that edge."""
    rows = []
    for problem, ball in zip(problems, balls, strict=True):
        span, age = float(_span_day(ball)), float(ball.parameters()[NAMES[0]])
        days = age + np.concatenate([[0.0], np.cumsum(np.asarray(problem.gaps_day))])
        columns = []
        for day, visit in zip(days, problem.visits, strict=True):
            index = np.unravel_index(np.asarray(visit.voxels), problem.relative_diffusivity.shape)
            mm = np.stack(index, -1) * problem.spacing_mm - np.asarray(problem.centre_mm)
            place = np.clip(mm / half_mm, -1, 1)
            shape = visit.voxels.shape
            edge = np.broadcast_to(np.asarray(log_odds(visit.threshold))[:, None], shape)
            t = np.full(shape, min(2 * day / span - 1, 1.0))
            inside = np.asarray(visit.inside, float)
            columns.append(np.stack([t, *np.moveaxis(place, -1, 0), edge, inside]))
        rows.append(np.stack(columns, 1).reshape(6, -1))
    table = np.stack(rows, 1)
    t, x, y, z, edge, inside = table[:, 0] if len(rows) == 1 else table
    return Drawn({"t": t, "x": x, "y": y, "z": z, "edge": edge}, inside, 1.0)


def _around_the_seed(half_mm: float) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    place = rng.normal(size=(SEEDED, 3))
    place *= (rng.random(SEEDED) ** (1 / 3) / np.linalg.norm(place, axis=1))[:, None]
    place *= SEEDED_MM / half_mm
    return {"t": np.full(SEEDED, -1.0), **dict(zip("xyz", place.T, strict=True))}


def _inferred(problem: Onset, found: Solution, i: int, half_mm: float, ball: Scales) -> Inferred:
    """Of one member: z, its covariance, and the network's field on the grid at every visit."""
    names = (*NAMES, *SITE)
    several = found.members > 1
    z = jnp.stack([jnp.asarray(found.p[n][i] if several else found.p[n]) for n in names])
    covariance = jnp.asarray(found.covariance[i] if several else found.covariance)
    shape, spacing = problem.relative_diffusivity.shape, problem.spacing_mm
    axes = [
        np.clip((np.arange(n) * h - c) / half_mm, -1, 1)
        for n, h, c in zip(shape, spacing, np.asarray(problem.centre_mm), strict=True)
    ]
    x, y, w = np.meshgrid(*axes, indexing="ij")
    habitable = problem.relative_diffusivity > 0
    span = float(_span_day(ball))
    days = float(ball.parameters()[NAMES[0]]) + np.cumsum([0.0, *np.asarray(problem.gaps_day)])
    states = []
    for day in days:
        v = found({"t": min(2 * day / span - 1, 1.0), "x": x, "y": y, "z": w})
        u = jax.nn.sigmoid(jnp.asarray(v[i] if several else v, float))
        states.append(jnp.where(habitable, u, 0.0))
    return Inferred(problem, z, covariance, tuple(states))
