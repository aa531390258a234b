"""What comes next: the posterior predictive distribution of a tumour on a later day.

Each draw is one tumour that could have given the calibrated images: parameters, the errors of the
first map that go with them, the state at the last visit, and from there the model to the day
asked for. Means, standard deviations and intervals are over draws; the standard deviation of a map
also holds the error of the time step and a model error.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from oncology import observe
from oncology.appearance import LabelledMask
from oncology.calibration import Calibrated, largest, require_later, upper
from oncology.inverse import Draw, Posterior, amplitude, assimilate
from oncology.observe import CellularityMap, VisibleMask
from oncology.priors import physical
from oncology.timeline import Steps, course, integrate, steps_between

NEARLY_LINEAR = 0.05
"""Squared standard deviations by which a linear draw may miss its own optimum, per parameter."""
NEWTON_CORRECTIONS = 4
VOLUME, TOTAL = "volume_mm3", "total_cellularity_mm3"


@dataclass(frozen=True, eq=False)
class Forecast:
    """A forecast of one day, on the model's grid, and of volume and total from the first visit on.

    `samples` and `course` hold, per draw, visible volume and total cellularity in mm³: (draws,)
    on the day, and (draws, days) along `days`; `z` its parameters, as `priors.physical` takes them,
    without columns in an average of models.
    """

    calibrated: Calibrated
    day: float
    mean: Float[np.ndarray, "x y z"]
    sd: Float[np.ndarray, "x y z"]
    threshold: float
    days: Float[np.ndarray, " days"]
    course: dict[str, Float[np.ndarray, "draws days"]]
    z: Float[np.ndarray, "draws n"]

    @property
    def samples(self) -> dict[str, Float[np.ndarray, " draws"]]:
        """Each quantity on the forecast's day."""
        return {name: values[:, -1] for name, values in self.course.items()}

    @property
    def mask(self) -> np.ndarray:
        """Where the mean forecast is dense enough to be seen."""
        return self.mean > self.threshold

    def at(self, day: float) -> dict[str, Float[np.ndarray, " draws"]]:
        """Samples of each quantity on one of `days`."""
        index = int(np.argmin(np.abs(self.days - day)))
        return {name: values[:, index] for name, values in self.course.items()}


def last_state(found: Posterior) -> Float[Array, "x y z"]:
    """The state at the last calibrated visit: prediction and map weighed against each other, or
    the state its mask implies."""
    last = found.inverse.observations[-1]
    if found.states and isinstance(last, CellularityMap):
        return assimilate(found, found.states[-1], jnp.zeros_like(last.value))
    return last.state(physical(found.inverse.priors, found.z), jnp.zeros_like(last.error_sd))


def visible_density(found: Posterior) -> float:
    """Density at the edge of what was drawn at the last visit: the threshold of its image, or that
    which gives the last state the volume drawn."""
    last = found.inverse.observations[-1]
    if isinstance(last, (VisibleMask, LabelledMask)):
        return last.threshold
    u = np.asarray(last_state(found))
    drawn = min(int(np.sum(np.asarray(last.mask))), u.size - 1)
    return float(np.clip(np.sort(u.ravel())[u.size - drawn - 1], 1e-3, 0.95))


def _to_last_visit(
    found: Posterior, draw: Draw, measure: Callable[[Array], Any]
) -> tuple[dict[str, Any], Array, list]:
    """The parameters of a draw, its state at the last calibrated visit, what was measured on the
    first day and after each step of every leg."""
    inverse = found.inverse
    p, last = physical(inverse.priors, draw.z), inverse.observations[-1]
    u = inverse.observations[0].state(p, draw.first_error)
    parts = [jax.tree.map(lambda value: value[None], measure(u))]
    for leg in inverse.legs:
        u, along = course(inverse.model, inverse.plan, p, u, leg, measure)
        parts.append(along)
    if not inverse.legs:
        return p, u, parts
    if not isinstance(last, CellularityMap):
        white = draw.white[-last.noise_share.size]
        return p, last.state(p, white * last.error_sd), parts
    on_map = draw.white[draw.white.size - last.inside.size - last.outside.size :]
    units = on_map[: last.inside.size] * last.expected_sd.ravel()[last.inside]
    noise = jnp.zeros(u.size, u.dtype).at[last.inside].set(units)
    return p, assimilate(found, u, noise.reshape(u.shape)), parts


def corrections_needed(found: Posterior) -> int:
    """Newton corrections of each draw: none where the posterior is nearly linear."""
    trial = eqx.filter_jit(Posterior.draw)(found, jax.random.key(0), 1)
    nonlinear = float(trial.unsolved) > NEARLY_LINEAR * found.z.size
    return NEWTON_CORRECTIONS if nonlinear else 0


def drawn_states(
    found: Posterior, keys: Array
) -> tuple[dict[str, Float[Array, "draws ..."]], Float[Array, "draws x y z"]]:
    """Tumours that could have given the calibrated images, at the last visit: one a key."""
    corrections = corrections_needed(found)

    @jax.jit
    def one(key: Array) -> tuple[dict[str, Any], Array]:
        return _to_last_visit(found, found.draw(key, corrections), lambda _: None)[:2]

    drawn = [one(key) for key in keys]
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *drawn)


@eqx.filter_jit
def _tumor_drawn(
    found: Posterior, ahead: Steps, threshold: Array, corrections: int, key: Array, side: Array
) -> tuple[Array, Array, Array, tuple[dict[str, Array], ...]]:
    """One draw: its z, its state at the end, the variance of a model error there, and its visible
    volume and total after each step."""
    model, plan = found.inverse.model, found.inverse.plan
    voxel = float(np.prod(model.spacing_mm))
    draw = found.draw(key, corrections, side)

    def measure(u: Array) -> dict[str, Array]:
        return {
            VOLUME: observe.visible_volume_mm3(u, threshold, voxel, width=0.1 * threshold),
            TOTAL: observe.visible_cellularity_mm3(u, threshold, voxel, width=0.1 * threshold),
        }

    p, u, parts = _to_last_visit(found, draw, measure)
    u, along = course(model, plan, p, u, ahead, measure)
    parts.append(along)
    allowed = jnp.where(model.habitable, (found.model_error * amplitude(u)) ** 2, 0.0)
    return draw.z, u, allowed, tuple(parts)


def forecast(
    calibrated: Calibrated,
    day: float,
    key: Array,
    *,
    draws: int = 48,
    progress: Callable[[int, int], None] = lambda done, of: None,
) -> Forecast:
    """Forecast one day after the last calibrated visit, draws of the posterior in mirrored pairs.

    `progress(done, of)` is called as draws finish. Raises InputError for a day that is not after
    the last calibrated visit.
    """
    found = calibrated.posterior
    inverse = found.inverse
    last_day = calibrated.visits[-1].day
    require_later(day, last_day)
    ahead, finer = (
        steps_between(
            inverse.model,
            inverse.plan,
            last_day,
            day,
            largest_diffusivity_mm2_per_day=upper(found, "diffusivity_mm2_per_day", 3.0),
            largest_growth_rate_per_day=largest(inverse.priors, "growth_rate_per_day", 1.0),
            tolerance=calibrated.tolerance / refinement,
        )
        for refinement in (1, 4)
    )
    threshold = visible_density(found)
    corrections = corrections_needed(found)
    mean = square = error = 0.0
    collected: list = []
    coordinates: list = []
    keys = jax.random.split(key, draws)
    level, side = jnp.asarray(threshold, found.z.dtype), jnp.ones((), found.z.dtype)
    for i in range(draws):
        paired = i % 2 if found.samples is None else 0
        one, mirrored = keys[i - paired], side * (1 - 2 * paired)
        z, u, model_error, along = _tumor_drawn(found, ahead, level, corrections, one, mirrored)
        coordinates.append(np.asarray(z))
        u = np.asarray(u)
        mean, square = mean + u / draws, square + u**2 / draws
        error = error + np.asarray(model_error) / draws
        collected.append(jax.tree.map(np.asarray, along))
        progress(i + 1, draws)
    p = physical(inverse.priors, found.z)
    run = eqx.filter_jit(integrate)
    start = last_state(found)
    step_error = np.asarray(
        run(inverse.model, inverse.plan, p, start, ahead)
        - run(inverse.model, inverse.plan, p, start, finer)
    )
    spread = np.maximum(square - mean**2, 0.0) * draws / (draws - 1)
    sd = np.sqrt(spread + error + step_error**2)
    legs = [*inverse.legs, ahead]
    days = np.concatenate([[calibrated.visits[0].day], *(leg.end_day for leg in legs)])
    along = {
        name: np.stack([np.concatenate([part[name] for part in parts]) for parts in collected])
        for name in (VOLUME, TOTAL)
    }
    drawn = np.stack(coordinates)
    return Forecast(calibrated, day, np.asarray(mean), sd, threshold, days, along, drawn)
