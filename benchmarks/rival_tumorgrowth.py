"""Lesions fitted one by one as TumorGrowth.jl 0.3 does by default, for `lesion_volumes.py`.

Each record's sum of squares, times ((v₀² + v∞²) / (2 v₀ v∞))^0.8, is descended from a guess by so
many steps of Adam at 1e-4, gradients multiplied by the square of each parameter's scale; a step
that would leave v₀, v∞ > 0 goes half way to the edge. Not run to convergence: where it stops is
part of what was published. The volume is that of the general Bertalanffy equation,
v∞ (1 + ((v₀/v∞)^λ - 1) e^{-ωt})^{1/λ}: logistic at λ = -1, classical at 1/3, Gompertz at 0.
"""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax

LEAST_VOLUME = float(np.finfo(float).eps)
PENALTY = 0.8
LEARNING_RATE = 1e-4
LAWS = {
    "logistic": (-1.0, False, 10_000),
    "gompertz": (0.0, False, 10_000),
    "classical_bertalanffy": (1 / 3, False, 10_000),
    "bertalanffy": (1 / 3, True, 20_000),
}
"""λ (where it starts, if free), whether it is free, steps of Adam."""
PUBLISHED_MODELS = (
    "exponential",
    "gompertz",
    "logistic",
    "classical_bertalanffy",
    "bertalanffy",
    "bertalanffy2",
    "neural",
    "neural2",
)


def published_errors(path: Path, lesions: int) -> dict[str, np.ndarray]:
    """Errors of every record by every model, from TumorGrowth.jl's `errors.jls`: a column-major
    matrix of float64 behind a short head."""
    raw, size = path.read_bytes(), 8 * lesions * len(PUBLISHED_MODELS)
    table = np.frombuffer(raw[len(raw) - size :], "<f8").reshape(len(PUBLISHED_MODELS), lesions)
    return dict(zip(PUBLISHED_MODELS, table, strict=True))


def kept(errors: dict[str, np.ndarray]) -> np.ndarray:
    """The records that the published table rests on: every model finite and none above 0.1."""
    table = np.stack(list(errors.values()))
    return np.all(np.isfinite(table) & (np.nan_to_num(table) <= 0.1), axis=0)


def guess(weeks: np.ndarray, volumes: np.ndarray) -> tuple[float, float, float]:
    """v₀, v∞ and ω that a record's descent starts from."""
    nonzero = volumes[volumes > LEAST_VOLUME]
    span = weeks[-1] - weeks[0]
    rise = 1.0 if nonzero.size == 1 else np.log(volumes.max() / nonzero.min())
    return float(volumes[0]), float(nonzero[-1]), float(rise / span)


def volume(p: jax.Array, shape: jax.Array | float, weeks: jax.Array) -> jax.Array:
    """v at weeks after the first reading; NaN where the equation has none."""
    start, limit, rate = p[0], p[1], p[2]
    fade = jnp.exp(-rate * weeks)
    if not isinstance(shape, jax.Array) and shape == 0:
        return limit * (start / limit) ** fade
    base = 1 + ((start / limit) ** shape - 1) * fade
    return jnp.where(base < 0, jnp.nan, jnp.where(base < 0, 1.0, base) ** (1 / shape) * limit)


def forecasts(
    law: str, weeks: list[np.ndarray], volumes: list[np.ndarray], held_out: int
) -> list[np.ndarray]:
    """Volumes of the last readings by one law fitted to the others, in float64."""
    shape, free, steps = LAWS[law]
    longest, lesions = max(map(len, weeks)), len(weeks)
    time, seen = np.zeros((lesions, longest)), np.zeros((lesions, longest))
    value = np.full((lesions, longest), LEAST_VOLUME)
    begin = np.zeros((lesions, 4))
    for i, (t, v) in enumerate(zip(weeks, volumes, strict=True)):
        time[i, : t.size], value[i, : t.size] = t - t[0], np.maximum(v, LEAST_VOLUME)
        seen[i, : t.size - held_out] = 1
        begin[i] = (*guess(t[:-held_out], v[:-held_out]), shape)
    scale = np.abs(begin[:, [1, 1, 2, 2]])
    scale[:, 3] = float(free)

    def curve(p: jax.Array, t: jax.Array) -> jax.Array:
        return volume(p, p[3] if free else shape, t)

    def loss(p: jax.Array, t: jax.Array, y: jax.Array, s: jax.Array) -> jax.Array:
        error = jnp.where(s > 0, curve(p, jnp.where(s > 0, t, 0.0)) - y, 0.0)
        apart = (p[0] ** 2 + p[1] ** 2) / (2 * p[0] * p[1])
        return jnp.sum(error**2) * apart**PENALTY

    adam = optax.adam(LEARNING_RATE)
    slope = jax.vmap(jax.value_and_grad(loss))

    @jax.jit
    def descend(p: jax.Array, t: jax.Array, y: jax.Array, s: jax.Array) -> jax.Array:
        def step(_, state):
            p, known, memory = state
            value, by_p = slope(p, t, y, s)
            known = jnp.where(jnp.isfinite(value)[:, None], p, known)
            change, memory = adam.update(by_p * scale**2, memory)
            new = p + change
            inside = jnp.where(new[:, :2] <= 0, p[:, :2] / 2, new[:, :2])
            return new.at[:, :2].set(inside), known, memory

        p, known, _ = jax.lax.fori_loop(0, steps, step, (p, p, adam.init(p)))
        return jnp.where(jnp.isfinite(slope(p, t, y, s)[0])[:, None], p, known)

    found = descend(*map(jnp.asarray, (begin, time, value, seen)))
    predicted = np.asarray(jax.vmap(curve)(found, jnp.asarray(time)))
    return [row[t.size - held_out : t.size] for row, t in zip(predicted, weeks, strict=True)]
