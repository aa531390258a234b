"""Total variation: images whose edges are few, and which may be sharp."""

from typing import ClassVar

import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.reconstruction.method import Found, Method, iterate, relative_change
from mrphys.units import check_range

Images = Complex[Array, "..."]


class TotalVariation(Method):
    """x = argmin ½|A x - y|² + λ Σ_r |D x(r)|, isotropic.

    D are the differences to the next voxel along each axis of space, none after the last, and along
    the axis before (frames, images of a subspace) times `over_time`, where there is one. By the
    primal-dual steps of Condat and Vũ, p in the dual ball |p(r)| <= λ,

        x⁺ = x - τ (N x - b + Dᴴ p),   p⁺ = P(p + σ D(2 x⁺ - x)),   1/τ - σ|D|² = L/2

    of one AᴴA each and no inner solver. Ends where both x and p change by no more than the
    tolerance, relatively.

    Rudin, Osher, Fatemi 1992, doi:10.1016/0167-2789(92)90242-F; Condat 2013,
    doi:10.1007/s10957-012-0245-9; Chambolle, Pock 2011, doi:10.1007/s10851-010-0251-1.
    """

    over_time: float = 1.0

    needs_weight: ClassVar[bool] = True
    iterations: ClassVar[int] = 300
    tolerance: ClassVar[float] = 1e-3

    def __check_init__(self):
        check_range("TotalVariation: over_time", self.over_time, 0.0, float("inf"), "")

    def check(self, shape, axes):
        if max(shape[-axes:]) < 2:
            raise InputError(Problem("tv", f"images of shape {shape}", "two voxels or more"))

    def energy(self, x, axes):
        d = differences(x, self._scales(x, axes))
        squares = jnp.sum(d.real**2 + d.imag**2, axis=0)
        return jnp.sum(jnp.where(squares > 0, jnp.sqrt(jnp.where(squares > 0, squares, 1)), 0))

    def search(self, data, weight, start, stop, key):
        start = jnp.zeros_like(data.b) if start is None else start
        scales = self._scales(start, data.axes)
        norm = 4 * sum(scale**2 for scale in scales)
        sigma = data.bound / (2 * norm)
        tau = 1 / (data.bound / 2 + sigma * norm)

        def improve(now, _):
            x, p = now
            new = x - tau * (data.normal(x) - data.b + transposed(p, scales))
            dual = in_ball(p + sigma * differences(2 * new - x, scales), weight)
            return (new, dual), jnp.maximum(relative_change(new, x), relative_change(dual, p))

        begin = start, jnp.zeros((len(scales), *start.shape), start.dtype)
        (x, _), count, history, arrived = iterate(improve, begin, stop)
        return Found(x, count, history, arrived)

    def _scales(self, x: Images, axes: int) -> tuple[float, ...]:
        """Of the differences along the last axes."""
        return (self.over_time,) * (x.ndim > axes) + (1.0,) * axes


def differences(x: Images, scales: tuple[float, ...]) -> Complex[Array, "axes ..."]:
    """D x: to the next voxel along each of the last axes, 0 at the last."""
    parts = []
    for axis, scale in zip(range(x.ndim - len(scales), x.ndim), scales, strict=True):
        ends = [(0, int(i == axis)) for i in range(x.ndim)]
        parts.append(jnp.pad(scale * jnp.diff(x, axis=axis), ends))
    return jnp.stack(parts)


def transposed(p: Complex[Array, "axes ..."], scales: tuple[float, ...]) -> Images:
    """Dᴴ p."""
    total = jnp.zeros_like(p[0])
    for i, scale in enumerate(scales):
        axis = p.ndim - 1 - len(scales) + i
        count = p.shape[1 + axis] - 1
        inner = scale * jnp.take(p[i], jnp.arange(count), axis=axis)
        before, after = ([(0, 0)] * (p.ndim - 1) for _ in range(2))
        before[axis], after[axis] = (1, 0), (0, 1)
        total = total + jnp.pad(inner, before) - jnp.pad(inner, after)
    return total


def in_ball(p: Complex[Array, "axes ..."], radius: Float[Array, ""]) -> Complex[Array, "axes ..."]:
    """The nearest p of |p(r)| <= radius."""
    squares = jnp.sum(p.real**2 + p.imag**2, axis=0, keepdims=True)
    outside = squares > radius**2
    size = jnp.sqrt(jnp.where(outside, squares, 1))
    return p * jnp.where(outside, radius / size, 1)
