"""Ktrans of an undersampled contrast-enhanced series: the error of the map, not of the images.

    python benchmarks/dynamic_contrast.py

A slice of a brain with a tumour, an enhancing rim and a core, seen every 6 s for 4 minutes by a
spoiled gradient echo, 48², 6 coils; other lines in every frame, dense in the centre, one in 8;
noise of sd 0.03 where mean |x|² is 1 before the agent. Extended Tofts with a Parker input, T1 and
coils known. Of 4 patients, of the tumour: the root mean square error of Ktrans and its bias, in per
cent of the mean, with bootstrapped 95 % intervals over patients, and seconds.

full          every line, CG-SENSE, then `mr.fit` of each voxel
cg-sense      each frame by itself, then the same
low-rank      locally low rank, then the same
k-space       `mr.fit` of data, given A; 30 steps, which do not always reach the optimum
k-space, TV   the same, log Ktrans, ve and vp with total variation

Weights are the best of those tried on another patient.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Float
from learned_reconstruction import interval

import mrphys as mr
from learn import reconstruction as lr
from learn.reconstruction.anatomy import smooth
from mrphys import perfusion
from mrphys.joint import TotalVariation

FRAMES, INTERVAL_S, BOLUS_S = 40, 6.0, 24.0
COILS, NOISE_SD, PATIENTS = 6, 0.03, 4
ITERATIONS = 30
"""Of fits from k-space."""
T1_S = (0.85, 1.35, 4.0, 1.5)
"""Of white and grey matter, fluid and tumour."""
BRIGHT = (0.8, 0.9, 1.0, 0.95)
BOUNDS = {"ktrans_per_s": (1e-6, 0.02), "ve": (0.02, 1.0), "vp": (1e-4, 0.3)}
FREE = ("ktrans_per_s", "ve", "vp", "s0")
TRIED: dict[str, tuple[float, ...]] = {
    "cg-sense": (1e-3, 1e-2, 1e-1),
    "low-rank": (5e-2, 1e-1, 2e-1, 4e-1),
    "k-space, TV": (0.1, 0.3),
}


class Agent(eqx.Module):
    """What a voxel does with the agent, and how it looks before: s0, complex."""

    ktrans_per_s: Float[Array, "..."]
    ve: Float[Array, "..."]
    vp: Float[Array, "..."]
    s0: Float[Array, "..."]
    t1_s: Float[Array, "..."]


class Echoes(eqx.Module):
    """Signals of a spoiled gradient echo while the agent passes."""

    series: perfusion.DynamicSeries
    flip_rad: float = 0.26
    tr_s: float = 0.005

    @property
    def averages(self) -> Float[Array, " readouts"]:
        """One of each frame."""
        return self.series.averages

    def signals(self, rows: Agent, /) -> Complex[Array, "voxels readouts"]:
        """Of a row of voxels, complex as what they are read from is."""
        c = self.series.signals(perfusion.ExtendedTofts(rows.ktrans_per_s, rows.ve, rows.vp))
        echo = perfusion.SpoiledEcho(self.flip_rad, self.tr_s, rows.t1_s)
        return perfusion.signal_of_concentration(echo, c, rows.s0) + 0j


class Examination(NamedTuple):
    """A patient's truth, and images before noise, frames first."""

    q: Agent
    x: Array
    coils: Array
    brain: Bool[np.ndarray, "n n"]
    tumour: Bool[np.ndarray, "n n"]


def echoes() -> Echoes:
    times_s, fine_s = INTERVAL_S * np.arange(FRAMES), np.arange(0, INTERVAL_S * FRAMES, 2.0)
    artery = perfusion.arterial_input(fine_s, perfusion.parker_2006(fine_s, BOLUS_S))
    return Echoes(perfusion.dynamic_series(times_s, artery))


def patient(size: int, seed: int) -> Examination:
    """A slice of the test brain with a tumour of 14 to 22 mm in radius."""
    keys = jax.random.split(jax.random.key(seed), 8)
    heads = lr.atlas(size, "test").fractions
    large = jnp.argsort(-jnp.sum(heads, axis=(1, 2, 3)))[: heads.shape[0] // 2]
    slices = heads[large[jax.random.randint(keys[0], (), 0, large.size)]] / 255
    parts = slices.reshape(3, size, 2, size, 2).mean((2, 4))
    inside = parts.sum(0) > 0.5
    place = (np.arange(size) - (size - 1) / 2) * 240.0 / size
    central = inside & (np.hypot(place[:, None], place[None]) < 50)
    at = jax.random.choice(keys[1], jnp.argwhere(central, size=int(central.sum())))
    far = jnp.hypot(place[:, None] - place[at[0]], place[None] - place[at[1]])
    radius = jax.random.uniform(keys[2], minval=14.0, maxval=22.0)
    depth = far / radius + 0.12 * smooth(keys[3], size, 8)
    tumour, core = (depth < 1) & inside, depth < 0.5
    uneven = jnp.exp(0.25 * smooth(keys[4], size, 8))
    ktrans = jnp.where(tumour, jnp.where(core, 0.06, 0.18) * uneven, 0.003)
    ktrans = ktrans * perfusion.PER_MIN
    ve = jnp.where(tumour, jnp.where(core, 0.45, 0.3), 0.2)
    vp = jnp.where(tumour, jnp.where(core, 0.02, 0.06), 0.025)
    parts = jnp.concatenate([jnp.where(tumour, 0.0, parts), tumour[None].astype(float)])
    share = parts / jnp.maximum(parts.sum(0), 1e-6)
    t1 = jnp.where(inside, jnp.tensordot(jnp.asarray(T1_S), share, 1), 1.0)
    s0 = jnp.tensordot(jnp.asarray(BRIGHT), parts, 1) * inside
    s0 = s0 / jnp.sqrt(jnp.mean(s0**2))
    q = Agent(ktrans, ve, vp, s0, t1)
    phase = jnp.exp(1j * smooth(keys[5], size, 4))
    curves = echoes().signals(jax.tree.map(jnp.ravel, q)).reshape(size, size, FRAMES)
    x = jnp.moveaxis(curves * phase[..., None], -1, 0)
    coils = lr.draw_coils(COILS, size, keys[6])
    return Examination(q, x, coils, np.asarray(inside), np.asarray(tumour))


def scanned(of: Examination, acceleration: int, seed: int) -> tuple[mr.Encoding, Array]:
    """A and y, other lines in every frame."""
    keys, size = jax.random.split(jax.random.key(seed), 2), of.x.shape[-1]
    each = jax.random.split(keys[0], FRAMES)
    mask = jax.vmap(lambda key: lr.line_mask(size, acceleration, key))(each)
    A = mr.Encoding.cartesian(mask, of.coils)
    noise = jax.random.normal(keys[1], (2, FRAMES, COILS, size, size))
    return A, A(of.x) + NOISE_SD * jax.lax.complex(*noise) * A.taken


def fitted(of: Examination, x: Array, **options: Any) -> Any:
    """Maps of signals of every voxel, or of data."""
    blank = jnp.ones(of.brain.shape)
    known = Agent(blank, blank, blank, blank, of.q.t1_s)
    return mr.fit(
        echoes(), x, FREE, known=known, linear=("s0",), bounds=BOUNDS, mask=of.brain, **options
    ).value


def from_images(of: Examination, A: Any, y: Array, method: str, weight: float) -> Agent:
    x = mr.reconstruct(A, y, method, regularisation=weight).image
    return fitted(of, jnp.moveaxis(x, 0, -1))


def from_data(of: Examination, A: Any, y: Array, width: float | None = None) -> Agent:
    prior = {} if width is None else dict.fromkeys(FREE[:3], TotalVariation(jnp.asarray(width)))
    operator = eqx.Partial(lambda A, x: A(jnp.moveaxis(x, -1, 0)), A)
    return fitted(of, y, noise_sd=NOISE_SD, operator=operator, prior=prior, iterations=ITERATIONS)


def methods(weights: dict[str, float]) -> dict[str, Callable[..., Agent]]:
    """Of (examination, A, y), by name."""
    images = {
        name: partial(from_images, method=name, weight=weights[name])
        for name in ("cg-sense", "low-rank")
    }
    width = weights["k-space, TV"]
    return images | {"k-space": from_data, "k-space, TV": partial(from_data, width=width)}


def errors(of: Examination, found: Agent) -> tuple[float, float]:
    """Root mean square and bias of Ktrans in the tumour, per cent of the mean."""
    truth, map_ = (np.asarray(q.ktrans_per_s)[of.tumour] for q in (of.q, found))
    away = 100 * (map_ - truth) / truth.mean()
    return float(np.sqrt(np.mean(away**2))), float(away.mean())


def tuned(size: int, acceleration: int) -> dict[str, float]:
    """Of the weights tried those of the least error on a patient of their own."""
    of = patient(size, 100)
    A, y = scanned(of, acceleration, 100)
    best = {}
    for name, weights in TRIED.items():
        each = [errors(of, methods(dict.fromkeys(TRIED, w))[name](of, A, y))[0] for w in weights]
        best[name] = weights[int(np.argmin(each))]
        told = ", ".join(f"{e:.0f} at {w:g}" for w, e in zip(weights, each, strict=True))
        print(f"R = {acceleration}, {name}: error of {told}", flush=True)
    return best


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=48)
    parser.add_argument("--patients", type=int, default=PATIENTS)
    parser.add_argument("--acceleration", type=int, default=8)
    given = parser.parse_args()
    r = given.acceleration
    rows: dict[tuple[str, int], list[tuple[float, float, float]]] = {}
    chosen = {r: methods(tuned(given.size, r))}
    chosen[1] = {"full": partial(from_images, method="cg-sense", weight=1e-3)}
    for seed in range(given.patients):
        of = patient(given.size, seed)
        for each, named in chosen.items():
            A, y = scanned(of, each, seed)
            for name, method in named.items():
                started = time.perf_counter()
                found = jax.block_until_ready(method(of, A, y))
                seconds = time.perf_counter() - started
                rows.setdefault((name, each), []).append((*errors(of, found), seconds))
    print(f"{'':14s} R   error of Ktrans, %          bias, %                   s")
    for (name, each), of_patients in sorted(rows.items(), key=lambda row: row[0][1]):
        text = f"{name:14s}{each:2d} "
        away, bias, seconds = np.array(of_patients).T
        for values in (away, bias):
            low, high = interval(values)
            text += f"  {values.mean():6.1f} [{low:6.1f}, {high:6.1f}]"
        print(text + f"  {np.median(seconds):6.1f}")


if __name__ == "__main__":
    main()
