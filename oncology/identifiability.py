r"""What the images tell of each parameter: its profile likelihood, and a verdict.

.. math:: D_i(c) = \min_{z: z_i = c} \Big( |r(z)|^2 + \sum_{j \ne i} z_j^2 / w^2 \Big) - \min_c,

r the whitened residuals, z standard normal coordinates of the priors. The parameter's own prior is
left out, those of the others are widened w = 3 times: a parameter that another can stand in for is
not found because the other's prior holds it. Where D stays below the 95 % point of chi squared out
to the edge, four standard deviations of the prior, the parameter is not identifiable on that side
in practice, whatever its curvature at the optimum says. Raue et al. 2009,
doi:10.1093/bioinformatics/btp358.

Residuals count as if independent; D is divided by how much wider the posterior's covariance is
than theirs, Cov_ii / (H^{-1})_ii, so that it is chi squared again where the model errs (Kent 1982,
doi:10.1093/biomet/69.1.19).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from oncology.inverse import Inverse, Posterior
from oncology.priors import LogNormal

WIDENED = 3.0
REACH = 4.0
"""Standard deviations of the prior from its median, as far as a profile is followed."""
CHI_SQUARED_95 = 3.841
BEYOND = 6.0
"""Deviance at which a profile has told enough."""
FIRST_STEP, STRIDE, MOST_POINTS = 0.5, 1.6, 20


@dataclass(frozen=True, eq=False)
class Profile:
    """One parameter's deviance over its values, which lie in order; `low95` and `high95` bound
    what the images allow, 0 and infinity where they set no bound."""

    name: str
    unit: str
    value: Float[np.ndarray, " points"]
    deviance: Float[np.ndarray, " points"]
    low95: float
    high95: float

    @property
    def verdict(self) -> str:
        """`identifiable`, `bounded above`, `bounded below` or `not identifiable`."""
        below, above = self.low95 > 0, np.isfinite(self.high95)
        if below and above:
            return "identifiable"
        return "bounded above" if above else "bounded below" if below else "not identifiable"

    def __str__(self) -> str:
        at = ", ".join(
            f"{d:.1f} at {v:.3g}" for d, v in zip(self.deviance, self.value, strict=True)
        )
        return f"{self.name} [{self.unit}] is {self.verdict}; deviance {at}"


def identifiability(
    found: Posterior,
    names: Sequence[str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Profile]:
    """The profile of each parameter (all, or those named), from the optimum outwards.

    `progress(name)` is called before each. Some ten optimisations a parameter.
    """
    priors = found.inverse.priors
    profiles = {}
    for name in names or priors:
        progress(name)
        profiles[name] = _profile(found, list(priors).index(name), name, priors[name])
    return profiles


def _profile(found: Posterior, i: int, name: str, prior: LogNormal) -> Profile:
    spread = float(found.covariance[i, i])
    naive = float(found.gain.inverse_hessian[i, i])
    wider = max(spread / naive, 1.0) if np.isfinite(spread) and naive > 0 else 1.0
    step = FIRST_STEP * float(np.clip(np.sqrt(naive * wider), 1e-3, 1.0))
    centre = float(np.clip(found.z[i], -REACH, REACH))
    kept = _least(found.inverse, found.z, jnp.asarray(i), jnp.asarray(centre, found.z.dtype))
    points = {centre: float(kept[1])}
    for side in (-1.0, 1.0):
        at, z, stride = centre, kept[0], step
        for _ in range(MOST_POINTS):
            at = float(np.clip(at + side * stride, -REACH, REACH))
            z, cost = _least(found.inverse, z, jnp.asarray(i), jnp.asarray(at, found.z.dtype))
            points[at] = float(cost)
            if abs(at) >= REACH or (points[at] - min(points.values())) / wider > BEYOND:
                break
            stride *= STRIDE
    z = np.array(sorted(points))
    deviance = np.array([points[at] for at in z]) - min(points.values())
    deviance = np.where(np.isfinite(deviance), deviance, np.inf) / wider
    value = prior.median * np.exp(prior.log_sd * z)
    ends = [_crossing(z, deviance, side) for side in (-1, 1)]
    low, high = (prior.median * np.exp(prior.log_sd * end) for end in ends)
    return Profile(name, prior.unit, value, deviance, float(low), float(high))


def _crossing(z: np.ndarray, deviance: np.ndarray, side: int) -> float:
    """Where the deviance passes 3.84 on one side of its least; infinite where it does not. Its
    signed root is interpolated, which is a straight line of a quadratic."""
    best = int(np.argmin(deviance))
    at, root = (z[best:], np.sqrt(deviance[best:]))
    if side < 0:
        at, root = (z[: best + 1][::-1], np.sqrt(deviance[: best + 1][::-1]))
    beyond = np.flatnonzero(root > np.sqrt(CHI_SQUARED_95))
    if not beyond.size:
        return side * np.inf
    j = int(beyond[0])
    if not np.isfinite(root[j]):
        return float(at[j])
    share = (np.sqrt(CHI_SQUARED_95) - root[j - 1]) / (root[j] - root[j - 1])
    return float(at[j - 1] + share * (at[j] - at[j - 1]))


@eqx.filter_jit
def _least(
    inverse: Inverse, start: Float[Array, " n"], i: Array, value: Array
) -> tuple[Float[Array, " n"], Float[Array, ""]]:
    """z at the least cost with one coordinate fixed, and that cost."""
    own = jnp.arange(start.size) == i
    weight = jnp.where(own, 0.0, 1 / WIDENED).astype(start.dtype)

    def residual(z: Array, inverse: Inverse) -> Array:
        held = jnp.where(own, value, z)
        return jnp.concatenate([inverse.misfit(held, inverse.no_error()), weight * z])

    def pinned(z: Array, inverse: Inverse) -> Array:
        return jnp.concatenate([residual(z, inverse), jnp.where(own, z - value, 0.0)])

    solver = optx.LevenbergMarquardt(rtol=1e-6, atol=1e-6)
    begin = jnp.where(own, value, start)
    solution = optx.least_squares(
        pinned, solver, begin, inverse, options={"jac": "fwd"}, max_steps=60, throw=False
    )
    z = jnp.where(own, value, solution.value)
    return z, jnp.sum(residual(z, inverse) ** 2)
