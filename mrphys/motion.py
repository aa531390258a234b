"""Where spins are: positions as functions of time, for flow, rigid motion and diffusion."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from mrphys.rotation import rotated
from mrphys.tissue import Tissue
from mrphys.units import Values, check_finite
from mrphys.waveform import Waveform

Moving = Callable[[Float[Array, "spins 3"], Array], Float[Array, "spins 3"]]
"""The positions of spins that began at some, at a time in s: a `Motion`, or any function."""


class Motion(eqx.Module):
    """The positions in mm, (spins, 3), at a time in s of spins that began at `start_mm`.

    Any function of the two will do; a `Motion` may also hold numbers for each spin, in the fields
    that `of_spins` names, the spins along their first axis, which are cut in chunks with the spins.
    """

    @property
    def of_spins(self) -> tuple[str, ...]:
        """Fields with an entry for each spin."""
        return ()

    @abstractmethod
    def __call__(
        self, start_mm: Float[Array, "spins 3"], time_s: Array
    ) -> Float[Array, "spins 3"]: ...


def _real(value: Values) -> Float[Array, "..."]:
    return jnp.asarray(value, float)


class Flow(Motion):
    """r(t) = r(0) + v t + a t² / 2, velocity and acceleration one for all, (3,), or of each spin,
    (spins, 3)."""

    velocity_mm_per_s: Float[Array, "*spins 3"] = eqx.field(converter=_real)
    acceleration_mm_per_s2: Float[Array, "*spins 3"] = eqx.field(
        converter=_real, default=(0.0, 0.0, 0.0)
    )

    def __check_init__(self):
        for name in ("velocity_mm_per_s", "acceleration_mm_per_s2"):
            check_finite(f"Flow {name}", getattr(self, name))

    @property
    def of_spins(self) -> tuple[str, ...]:
        names = ("velocity_mm_per_s", "acceleration_mm_per_s2")
        return tuple(name for name in names if getattr(self, name).ndim == 2)

    def __call__(self, start_mm: Float[Array, "spins 3"], time_s: Array) -> Float[Array, "spins 3"]:
        velocity = jnp.broadcast_to(self.velocity_mm_per_s, start_mm.shape)
        acceleration = jnp.broadcast_to(self.acceleration_mm_per_s2, start_mm.shape)
        return start_mm + time_s * (velocity + time_s / 2 * acceleration)


class Rigid(Motion):
    """r(t) = c + R(t) (r(0) - c) + s(t) of a body.

    pose       of a time in s: the rotation vector of R, in rad, right-handed, and s in mm, (3,)
               each; `Keyframes`, or any function
    centre_mm  c

    >>> turned = Rigid(lambda t: (jnp.array([0.0, 0.0, jnp.pi / 2]) * t, jnp.zeros(3)))
    >>> turned(jnp.array([[1.0, 0.0, 0.0]]), jnp.asarray(1.0)).round(6) + 0.0
    Array([[0., 1., 0.]], dtype=float64)
    """

    pose: Callable[[Array], tuple[Float[Array, "3"], Float[Array, "3"]]]
    centre_mm: Float[Array, "3"] = eqx.field(converter=_real, default=(0.0, 0.0, 0.0))

    def __call__(self, start_mm: Float[Array, "spins 3"], time_s: Array) -> Float[Array, "spins 3"]:
        rotation, shift = self.pose(time_s)
        centre = jnp.asarray(self.centre_mm, start_mm.dtype)
        arm = (start_mm - centre[None]).T
        x, y, z = -rotation.astype(start_mm.dtype)
        turned = jnp.stack(rotated((arm[0], arm[1], arm[2]), (x, y, z)), axis=1)
        return turned + (centre + shift.astype(start_mm.dtype))[None]


class Keyframes(eqx.Module):
    """A pose given at times, linear between and held outside.

    time_s           (n,), increasing
    rotation_rad     rotation vectors, (n, 3)
    translation_mm   (n, 3)

    Raises InputError for lengths that differ and times that do not increase.
    """

    time_s: Float[Array, " n"] = eqx.field(converter=_real)
    rotation_rad: Float[Array, "n 3"] = eqx.field(converter=_real)
    translation_mm: Float[Array, "n 3"] = eqx.field(converter=_real)

    def __check_init__(self):
        shapes = self.time_s.shape, self.rotation_rad.shape, self.translation_mm.shape
        count = self.time_s.size
        if shapes != ((count,), (count, 3), (count, 3)) or not count:
            expected = "time_s (n,), rotation_rad and translation_mm (n, 3)"
            raise InputError(Problem("Keyframes", f"shapes {shapes}", expected))
        if not isinstance(self.time_s, Tracer) and np.any(np.diff(self.time_s) <= 0):
            raise InputError(Problem("Keyframes time_s", f"{self.time_s}", "increasing times"))

    def __call__(self, time_s: Array) -> tuple[Float[Array, "3"], Float[Array, "3"]]:
        along = jnp.concatenate([self.rotation_rad, self.translation_mm], axis=1)
        now = jax.vmap(lambda v: jnp.interp(time_s, self.time_s, v), in_axes=1)(along)
        return now[:3], now[3:]


class RandomWalk(Motion):
    """Free diffusion: the way of each spin from its start to where it is in each sample, in mm."""

    path_mm: Float[Array, "spins samples 3"]
    end_s: Float[Array, " samples"]

    @property
    def of_spins(self) -> tuple[str, ...]:
        return ("path_mm",)

    def __call__(self, start_mm: Float[Array, "spins 3"], time_s: Array) -> Float[Array, "spins 3"]:
        return start_mm + self.path_mm[:, jnp.sum(self.end_s < time_s)]


def random_walk(waveform: Waveform, q: Tissue, spins: int, key: Array) -> RandomWalk:
    """A walk at q.adc_mm2_per_s, its steps normal of variance 2 ADC dt along each axis, to be
    played with the waveform. Differentiable in ADC where that is positive."""
    samples = waveform.b1_hz.shape[0]
    dt = jnp.broadcast_to(waveform.dt_s, (samples,))
    since = dt / 2 + jnp.append(0.0, dt[:-1] / 2)
    variance = 2 * jnp.broadcast_to(q.adc_mm2_per_s, (spins,))[:, None] * since[None]
    moving = variance > 0
    size = jnp.where(moving, jnp.sqrt(jnp.where(moving, variance, 1.0)), 0.0)
    steps = size[..., None] * jax.random.normal(key, (spins, samples, 3), variance.dtype)
    return RandomWalk(jnp.cumsum(steps, axis=1), jnp.cumsum(dt))


def of_each_spin(motion: Moving | None) -> tuple[Motion | None, Moving | None]:
    """What of a motion is of each spin, and what of all; `eqx.combine` puts them together."""
    if not isinstance(motion, Motion):
        return None, motion
    names = motion.of_spins
    each = jax.tree.map(lambda _: False, motion)
    if names:
        each = eqx.tree_at(
            lambda m: [getattr(m, name) for name in names], each, [True] * len(names)
        )
    return eqx.partition(motion, each)
