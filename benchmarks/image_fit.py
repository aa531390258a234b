"""T2 and complex m0 of an image straight from undersampled k-space of several coils.

    python benchmarks/image_fit.py               # 128², 8 echoes, 8 coils, every fourth line
    python benchmarks/image_fit.py --no-prior    # what the data alone tell: sds of right size

Cartesian lines, dense in the centre, another draw for every echo; sensitivities known, their sum of
squares 1; noise of sd 0.005 of the largest m0 in every datum; total variation of log T2; float32,
masked to the head. Warm, the fastest of three; maps and their sds. Floor: an iteration of conjugate
gradients is A and its adjoint, 2 FFTs of every echo of every coil: all of them at the speed of
those FFTs alone.
"""

import argparse
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array
from mapping_models import MonoExponential

import mrphys as mr
from mrphys.joint import TotalVariation

NOISE_SD, WIDTH = 0.005, 0.05


def head(size: int) -> tuple[mr.Tissue, np.ndarray, np.ndarray]:
    """Ellipses of T2 0.05 to 0.3 s, their mask, and a smooth phase."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    t2_s, m0 = np.full((size, size), 0.08), np.full((size, size), 0.8)
    mask = (y / 0.9) ** 2 + (x / 0.75) ** 2 < 1
    for y0, x0, b, a, t2, rho in (
        (0.0, 0.0, 0.75, 0.6, 0.06, 0.7), (-0.1, 0.22, 0.3, 0.12, 0.3, 1.0),
        (-0.1, -0.22, 0.3, 0.12, 0.3, 1.0), (0.45, 0.1, 0.15, 0.2, 0.12, 0.9),
        (0.4, -0.3, 0.08, 0.08, 0.05, 0.6),
    ):  # fmt: skip
        inside = ((y - y0) / b) ** 2 + ((x - x0) / a) ** 2 < 1
        t2_s[inside], m0[inside] = t2, rho
    q = mr.Tissue(t1_s=1.0, t2_s=jnp.asarray(t2_s), m0=jnp.asarray(np.where(mask, m0, 0.0)))
    return q, mask, np.exp(1j * (0.5 + 0.8 * x - 0.6 * y * x))


def sensitivities(size: int, coils: int) -> np.ndarray:
    """(coils, size, size): broad, around the head, sum of squares 1."""
    y, x = np.meshgrid(*[np.linspace(-1, 1, size)] * 2, indexing="ij")
    angle = 2 * np.pi * np.arange(coils)[:, None, None] / coils
    far = (y - 1.2 * np.sin(angle)) ** 2 + (x - 1.2 * np.cos(angle)) ** 2
    maps = np.exp(-far / 0.7 + 1j * (angle + 0.5 * x * np.cos(angle) + 0.5 * y * np.sin(angle)))
    return maps / np.sqrt((np.abs(maps) ** 2).sum(0))


def lines(size: int, echoes: int, every: int, rng: np.random.Generator) -> np.ndarray:
    """(echoes, size): which lines are sampled: those of the centre, and of the others one, at
    random, of each run of as many as leave size / every in all."""
    k = np.arange(size) - size // 2
    masks = np.zeros((echoes, size), bool)
    masks[:, np.abs(k) <= size // (8 * every)] = True
    outer = np.flatnonzero(~masks[0])
    runs = np.array_split(outer, size // every - masks[0].sum())
    for mask in masks:
        mask[[rng.choice(run) for run in runs]] = True
    return np.fft.ifftshift(masks, axes=1)


class Sampled:
    """A: signals (size, size, echoes) to k-space (coils, echoes, size, size), 0 where not sampled.
    Counts its calls where it is told to."""

    def __init__(self, maps: Array, masks: Array, counted: bool = False):
        self.maps, self.masks, self.counted, self.calls = maps, masks, counted, 0

    def forward(self, x: Array) -> Array:
        """Two steps of a jitted function: expand, transform."""
        k = jnp.fft.fft2(self.maps[:, None] * jnp.moveaxis(x, -1, 0), norm="ortho")
        return jnp.where(self.masks[:, :, None], k, 0.0)

    def __call__(self, x: Array) -> Array:
        if not self.counted:
            return self.forward(x)

        def count() -> None:
            self.calls += 1

        def counted(_, x: Array) -> Array:
            jax.debug.callback(count)
            return self.forward(x)

        def back(_, y: Array) -> Array:
            jax.debug.callback(count)
            return jax.linear_transpose(self.forward, x)(y)[0]

        return jax.custom_derivatives.linear_call(counted, back, (), x)


def fastest(f, times: int = 3) -> tuple[float, float]:
    """Seconds of the first call, and of the fastest of those after."""
    seconds = []
    for _ in range(times + 1):
        started = time.perf_counter()
        jax.block_until_ready(f())
        seconds.append(time.perf_counter() - started)
    return seconds[0], min(seconds[1:])


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--size", type=int, default=128)
    parser.add_argument("--echoes", type=int, default=8)
    parser.add_argument("--coils", type=int, default=8)
    parser.add_argument("--every", type=int, default=4)
    parser.add_argument("--no-prior", action="store_true")
    given = parser.parse_args()
    size, echoes, coils = given.size, given.echoes, given.coils
    rng = np.random.default_rng(0)
    q, mask, phase = head(size)
    theta = MonoExponential(0.0125 * jnp.arange(1.0, echoes + 1), jnp.ones(echoes))
    x = mr.simulate(theta, q) * phase[..., None]
    maps = jnp.asarray(sensitivities(size, coils), x.dtype)
    masks = jnp.asarray(lines(size, echoes, given.every, rng))
    operator = Sampled(maps, masks)
    y = operator(x)
    noise = rng.normal(size=(2, *y.shape)).astype(np.float32)
    y = jnp.where(y != 0, y + NOISE_SD * jax.lax.complex(*jnp.asarray(noise)), 0.0)

    free, prior = ("t2_s", "m0"), {} if given.no_prior else {"t2_s": TotalVariation(WIDTH)}
    known = mr.Tissue(t1_s=jnp.ones((size, size)), t2_s=0.1)

    def run(theta=theta, operator=operator):
        return mr.fit(
            theta, y, free, NOISE_SD, known=known, mask=mask, operator=operator, prior=prior
        )

    first, seconds = fastest(run)
    est = run()
    transform = jax.jit(lambda k: jnp.fft.fft2(k, norm="ortho"))
    _, fft_s = fastest(lambda: transform(y), 20)
    counting = Sampled(maps, masks, counted=True)
    jax.block_until_ready(run(operator=counting))
    floor = counting.calls * fft_s
    print(f"first call          {first:9.2f} s, with compilation")
    print(f"warm                {seconds:9.2f} s")
    print(f"FFTs of all coils   {counting.calls:9d}   of {1e3 * fft_s:.2f} ms, 2 an iteration")
    print(f"floor               {floor:9.2f} s, {seconds / floor:.1f} times as fast")

    def mean(te_s):
        moved = eqx.tree_at(lambda theta: theta.te_s, theta, te_s)
        return jnp.mean(run(moved).value.t2_s)

    slope = jax.jit(jax.grad(mean))
    _, again = fastest(lambda: slope(theta.te_s))
    print(f"gradient            {again:9.2f} s of the mean of T2 in every echo time, fit and all")
    sure = np.asarray(est.status == mr.mapping.CONVERGED)
    off, truth = np.asarray(est.value.t2_s - q.t2_s)[mask], np.asarray(q.t2_s)[mask]
    score = (off / np.asarray(est.sd.t2_s)[mask])[sure[mask]]
    print(f"error of T2         {100 * np.sqrt(np.mean((off / truth) ** 2)):9.2f} % rms")
    print(f"(T2 - truth) / sd   {score.std():9.2f}   rms")
    print(f"determined          {100 * sure[mask].mean():9.2f} % of {mask.sum()} voxels")


if __name__ == "__main__":
    main()
