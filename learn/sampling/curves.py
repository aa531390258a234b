"""Trajectories that gradients can play, moved by gradients of a loss."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray

from learn.reconstruction.scans import Scan, add_noise
from learn.reconstruction.supervised import normalised_distance
from mrphys.encoding import Encoding
from mrphys.trajectory import Limits, gradients, spline, spline_of
from mrphys.units import check_count

Points = Float[Array | np.ndarray, "shots samples axes"]
MARGIN = 0.98
"""Of the limits: the rest is for the raster on which gradients are played."""


def playable(
    k: Points,
    start: Points,
    limits: Limits,
    fov_mm: tuple[float | int, ...],
    dwell_s: float,
    edge: float | int,
) -> Float[Array, "shots samples axes"]:
    """The farthest point on the way from `start`, which can be played, to k that can be too, of
    each shot: start + t (k - start), 0 <= t <= 1.

    What can be played is convex: |k| <= edge, |G| <= G_max and |S| <= S_max are balls in linear
    functions of k. t is where the way first leaves one of them, the least root of quadratic
    equations, and has their derivative.
    """
    k, start = jnp.asarray(k), jnp.asarray(start)
    move = k - start
    most = (edge, limits.gradient_t_per_m, limits.slew_t_per_m_s)
    parts = zip((start, *gradients(start, fov_mm, dwell_s)),
                (move, *gradients(move, fov_mm, dwell_s)), most, strict=True)  # fmt: skip
    t = jnp.ones(k.shape[0], k.dtype)
    for here, along, radius in parts:
        t = jnp.minimum(t, jnp.min(_leaves(here / radius, along / radius), axis=-1))
    return start + t[:, None, None] * move


def _leaves(a: Array, b: Array) -> Array:
    """The t >= 0 at which |a + t b| = 1, |a| <= 1; 1 where that is later."""
    aa, ab, bb = (jnp.sum(u * v, axis=-1) for u, v in ((a, a), (a, b), (b, b)))
    inside = jnp.maximum(1 - aa, 0.0)
    out = aa + 2 * ab + bb > 1  # at t = 1
    root = jnp.sqrt(jnp.where(out, ab**2 + bb * inside, 1.0))
    # of two ways to write the root that without a difference
    far = jnp.where(ab > 0, inside / jnp.where(out, ab + root, 1.0), 1.0)
    near = jnp.where(ab > 0, 1.0, (root - ab) / jnp.where(out, bb, 1.0))
    return jnp.where(out, jnp.where(ab > 0, far, near), 1.0)


class Curves(nnx.Module):
    """Shots k = B c, B-splines of control points c, that begin as a given trajectory.

        k = playable(start + B c),   c learned from 0, in cycles per field of view

    start    (shots, samples, 2), inside the limits: where it touches one, only away from it leads
    points   control points of a shot
    matrix   |k| <= matrix / 2
    limits   of gradients, of which `MARGIN` is used

    Whatever c, what is called can be played; `beyond` tells how far c itself is from that, a
    penalty that keeps one sample from holding a shot back. `refined` has more points.

    Raises InputError for a start that cannot be played.

    Wang, Luo, Nielsen, Noll, Fessler 2022, doi:10.1109/TMI.2022.3161875 (BJORK).
    """

    def __init__(
        self, start: Points, points: int, matrix: int, fov_mm: tuple[float | int, ...],
        dwell_s: float, limits: Limits | None = None,
    ):  # fmt: skip
        check_count("Curves: points", points, 4)
        k = jnp.asarray(start)
        limits = limits or Limits()
        self.limits = Limits(MARGIN * limits.gradient_t_per_m, MARGIN * limits.slew_t_per_m_s)
        self.limits.check(k, fov_mm, dwell_s)
        self.control = nnx.Param(jnp.zeros((k.shape[0], points, k.shape[2]), k.dtype))
        self.start = nnx.Variable(k)
        self.matrix, self.fov_mm, self.dwell_s = matrix, fov_mm, dwell_s

    def _asked(self) -> Float[Array, "shots samples axes"]:
        start = self.start[...]
        return start + spline(self.control[...], start.shape[1])

    def __call__(self) -> Float[Array, "shots samples axes"]:
        """k in cycles per field of view, within the limits."""
        held = (self.limits, self.fov_mm, self.dwell_s, self.matrix / 2)
        return playable(self._asked(), self.start[...], *held)

    def beyond(self) -> Float[Array, ""]:
        """`mrphys.trajectory.Limits.excess` of what c asks for."""
        return self.limits.excess(self._asked(), self.fov_mm, self.dwell_s)

    def refined(self, points: int) -> "Curves":
        """The same shots with other control points, to go on from coarse to fine."""
        made = Curves(
            self.start[...], points, self.matrix, self.fov_mm, self.dwell_s,
            Limits(self.limits.gradient_t_per_m / MARGIN, self.limits.slew_t_per_m_s / MARGIN),
        )  # fmt: skip
        made.control[...] = spline_of(self() - self.start[...], points)
        return made


class Along(nnx.Module):
    """A trajectory and the network that is to make images of what is measured along it."""

    def __init__(self, sampling: Any, net: nnx.Module):
        self.sampling, self.net = sampling, net


def scan_along(k: Points, scan: Scan, key: PRNGKeyArray, tolerance: float = 1e-4) -> Scan:
    """The image of a scan measured along a trajectory with its coils and noise; samples weigh as
    Nyquist would have them, so that AᴴA of the whole of k-space is about 1.

    scan  of a grid, whose data are not used
    """
    flat = jnp.asarray(k, scan.x.real.dtype).reshape(-1, k.shape[-1])
    weight = jnp.full(flat.shape[0], (scan.x.size / flat.shape[0]) ** 0.5, flat.dtype)
    A = Encoding.noncartesian(flat, scan.A.coils, scan.x.shape, weight=weight, tolerance=tolerance)
    return Scan(A, add_noise(A(scan.x), scan.noise_sd, key), scan.x, scan.noise_sd)


def curves_loss(
    along: Any, scans: Scan, key: PRNGKeyArray, *, penalty: float = 1.0
) -> Float[Array, ""]:
    """The mean distance of images from the truth, and `penalty` times how far control points are
    beyond what can be played; of a batch of scans of any kind, whose images and coils are used."""
    k = along.sampling()

    def one(each: tuple[Scan, PRNGKeyArray]) -> Float[Array, ""]:
        seen = scan_along(k, *each)
        return normalised_distance(along.net(seen.A, seen.y), seen.x)

    keys = jax.random.split(key, scans.noise_sd.shape[0])
    return jnp.mean(jax.lax.map(one, (scans, keys))) + penalty * along.sampling.beyond()
