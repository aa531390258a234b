r"""A tumour that is a ball: the radially symmetric solution, and the scales that radii tell.

.. math:: \partial_t u = \frac{D}{r^2} \partial_r (r^2 \partial_r u) + k u (1 - u)

Shells of equal thickness; diffusion exact by the eigenvectors of its matrix, growth exact, Strang's
splitting between them. Milliseconds for a whole history, so that D, k and the age that explain the
radii of all contours are found before any image is looked at: where every other method starts.

Radii from segmentations: Zhang et al. 2025, doi:10.1016/j.media.2024.103423.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Bool, Float

from mrphys.errors import InputError, Problem
from oncology.growth_laws import Logistic
from oncology.onset import (
    AGE_STEPS,
    DIFFUSIVITY,
    GAP_STEPS,
    GROWTH_RATE,
    NAMES,
    READER_WIDTH,
    SEED_DENSITY,
    SEED_RADIUS_MM,
    Onset,
    log_odds,
)
from oncology.priors import physical

SHELLS = 96
RADIUS_SD = 0.1
"""Of log radii: tumours are no balls."""


class Ball(eqx.Module):
    """Shells out to `reach_mm`, without flux through the last."""

    reach_mm: float = eqx.field(static=True)
    decay: Float[Array, " n"]
    to_modes: Float[Array, "n n"]
    from_modes: Float[Array, "n n"]

    def __init__(self, reach_mm: float):
        edge = np.linspace(0, reach_mm, SHELLS + 1)
        volume = np.diff(edge**3) / 3
        area = edge[1:-1] ** 2 / (reach_mm / SHELLS)
        flux = np.zeros((SHELLS, SHELLS))
        inner = np.arange(SHELLS - 1)
        np.add.at(flux, (inner, inner + 1), area)
        np.add.at(flux, (inner + 1, inner), area)
        flux -= np.diag(flux.sum(1))
        root = np.sqrt(volume)
        decay, modes = np.linalg.eigh(flux / root[:, None] / root[None])
        self.reach_mm = reach_mm
        self.decay = jnp.asarray(np.minimum(decay, 0.0), float)
        self.to_modes = jnp.asarray(modes.T * root[None], float)
        self.from_modes = jnp.asarray(modes / root[:, None], float)

    @property
    def radius_mm(self) -> Float[np.ndarray, " n"]:
        """Of the middle of each shell."""
        return (np.arange(SHELLS) + 0.5) * self.reach_mm / SHELLS

    def seed(self) -> Float[Array, " n"]:
        """The first cells."""
        return SEED_DENSITY * jnp.exp(-jnp.asarray(self.radius_mm**2, float) / SEED_RADIUS_MM**2)

    def grown(
        self, p: Mapping[str, Array], u: Float[Array, " n"], days: Array, steps: int
    ) -> Float[Array, "steps n"]:
        """The state after each of so many steps, `days` in all."""
        law, h = Logistic(), days / steps
        none = jnp.zeros((), u.dtype)
        decay = jnp.exp(p[DIFFUSIVITY] * h * self.decay)

        def step(u: Array, _: None) -> tuple[Array, Array]:
            u = law.step(u, p[GROWTH_RATE], none, h / 2)
            u = jnp.maximum(self.from_modes @ (decay * (self.to_modes @ u)), 0.0)
            u = law.step(u, p[GROWTH_RATE], none, h / 2)
            return u, u

        return jax.lax.scan(step, u, None, length=steps)[1]

    def radius_of(self, u: Float[Array, " n"], threshold: Array) -> Float[Array, ""]:
        """Of the ball in which density exceeds a threshold, on average over the reader's doubt."""
        inside = jax.nn.sigmoid((log_odds(u) - log_odds(threshold)) / READER_WIDTH)
        edge = np.linspace(0, self.reach_mm, SHELLS + 1)
        volume = jnp.asarray(np.diff(edge**3), u.dtype)
        return jnp.cbrt(jnp.sum(inside * volume) + 1e-3)


def radius_mm(mask: Bool[np.ndarray, "x y z"], spacing_mm: tuple[float, ...]) -> float:
    """Of a ball of a mask's volume."""
    return float(np.cbrt(3 * mask.sum() * np.prod(spacing_mm) / (4 * np.pi)))


class Scales(eqx.Module):
    """z of D, k and age that explain the radii in tissue of which D holds on average."""

    z: Float[Array, " 3"]
    ball: Ball
    share: Float[Array, ""]
    onset: Onset

    def parameters(self) -> dict[str, Array]:
        """D on average over the tissue, k, age."""
        return _average(self.onset, self.z, self.share)

    def course(self) -> tuple[Float[Array, " times"], Float[Array, "times n"]]:
        """Days from the first scan, and the ball's states, from the seed to the last visit."""
        p, u = self.parameters(), self.ball.seed()
        day, age = [-p["age_day"][None]], p["age_day"]
        states = [u[None]]
        start = -age
        legs = [(age, AGE_STEPS), *((gap, GAP_STEPS) for gap in self.onset.gaps_day)]
        for days, steps in legs:
            states.append(self.ball.grown(p, states[-1][-1], days, steps))
            day.append(start + days * (jnp.arange(steps) + 1) / steps)
            start = start + days
        return jnp.concatenate(day), jnp.concatenate(states)


def _average(onset: Onset, z: Array, share: Array) -> dict[str, Array]:
    p = {name: jnp.asarray(v) for name, v in physical(onset.priors, z).items()}
    return p | {DIFFUSIVITY: p[DIFFUSIVITY] * share}


def scales(onset: Onset, radii_mm: Float[np.ndarray, "visits contours"]) -> Scales:
    """D, k and age from the radii of every visit's contours, by the ball and the priors.

    Raises InputError for radii that are not positive.
    """
    radii = np.asarray(radii_mm, float)
    if not (np.isfinite(radii) & (radii > 0)).all():
        raise InputError(Problem("scales", f"radii {radii.tolist()} mm", "above zero"))
    field = np.asarray(onset.relative_diffusivity)
    axes = np.meshgrid(
        *(np.arange(n) * h for n, h in zip(field.shape, onset.spacing_mm, strict=True)),
        indexing="ij",
    )
    apart = sum((x - c) ** 2 for x, c in zip(axes, np.asarray(onset.centre_mm), strict=True))
    near = field[(apart < (1.5 * radii.max()) ** 2) & (field > 0)]
    ball, share = Ball(float(4 * radii.max() + 20)), jnp.asarray(near.mean(), float)
    z = _explained(onset, ball, share, jnp.asarray(np.log(radii), float))
    return Scales(z, ball, share, onset)


@eqx.filter_jit
def _explained(onset: Onset, ball: Ball, share: Array, log_radii: Array) -> Float[Array, " 3"]:
    def residual(z: Array, _: None) -> Array:
        p = _average(onset, z, share)
        u = ball.grown(p, ball.seed(), p["age_day"], AGE_STEPS)[-1]
        states = [u]
        for gap in onset.gaps_day:
            states.append(ball.grown(p, states[-1], gap, GAP_STEPS)[-1])
        found = jnp.stack(
            [
                jnp.stack([jnp.log(ball.radius_of(u, c)) for c in visit.threshold])
                for visit, u in zip(onset.visits, states, strict=True)
            ]
        )
        return jnp.concatenate([((found - log_radii) / RADIUS_SD).ravel(), z])

    solver = optx.LevenbergMarquardt(rtol=1e-5, atol=1e-5)
    options = {"jac": "fwd"}
    start = jnp.zeros(len(NAMES))
    return optx.least_squares(
        residual, solver, start, None, options=options, max_steps=100, throw=False
    ).value
