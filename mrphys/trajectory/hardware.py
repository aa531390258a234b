"""What gradients can do."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from mrphys.units import PROTON_GYROMAGNETIC_RATIO_HZ_PER_T, check_range

Points = Float[Array | np.ndarray, "*shots samples axes"]


def gradients(
    k: Points, fov_mm: tuple[float | int, ...], dwell_s: float
) -> tuple[Float[Array, "*shots steps axes"], Float[Array, "*shots changes axes"]]:
    """G between samples in T/m and its slew rate in T/m/s.

        G = Δk / (γ/2π FOV Δt),    S = ΔG / Δt

    k in cycles per field of view, `fov_mm` of each axis.
    """
    check_range("gradients: fov_mm", list(fov_mm), 1.0, 1e4, "mm", "metres given for millimetres")
    check_range("gradients: dwell_s", dwell_s, 1e-8, 1e-2, "s", "microseconds given for seconds")
    points = jnp.asarray(k)
    if len(fov_mm) != points.shape[-1]:
        found = f"points of {points.shape[-1]} axes, a field of view of {len(fov_mm)}"
        raise InputError(Problem("gradients", found, "as many"))
    per_m = points * jnp.broadcast_to(1e3 / np.asarray(fov_mm), points.shape).astype(points.dtype)
    gradient = jnp.diff(per_m, axis=-2) / (PROTON_GYROMAGNETIC_RATIO_HZ_PER_T * dwell_s)
    return gradient, jnp.diff(gradient, axis=-2) / dwell_s


class Limits(eqx.Module):
    """Largest gradient and slew rate, of the vector of all axes.

    Good values: 0.04 T/m and 150 T/m/s for a clinical scanner, nerve stimulation apart.
    """

    gradient_t_per_m: float | int = 0.04
    slew_t_per_m_s: float | int = 150.0

    def __check_init__(self):
        check_range("Limits", self.gradient_t_per_m, 1e-4, 1.0, "T/m", "mT/m given for T/m")
        check_range("Limits", self.slew_t_per_m_s, 1.0, 1e4, "T/m/s", "T/m/ms given for T/m/s")

    def largest(
        self, k: Points, fov_mm: tuple[float | int, ...], dwell_s: float
    ) -> tuple[Float[Array, ""], Float[Array, ""]]:
        """The largest |G| in T/m and |dG/dt| in T/m/s of a trajectory."""
        gradient, slew = gradients(k, fov_mm, dwell_s)
        return jnp.sqrt(jnp.max(_squared(gradient))), jnp.sqrt(jnp.max(_squared(slew)))

    def excess(
        self, k: Points, fov_mm: tuple[float | int, ...], dwell_s: float
    ) -> Float[Array, ""]:
        """0 where a trajectory can be played, else how far it is from it: the mean of
        max(|G|² / G_max² - 1, 0) and of the slew rates' likewise, each of its own. Once
        differentiable everywhere, also where gradients rest."""
        gradient, slew = gradients(k, fov_mm, dwell_s)
        return _beyond(gradient, self.gradient_t_per_m) + _beyond(slew, self.slew_t_per_m_s)

    def check(self, k: Points, fov_mm: tuple[float | int, ...], dwell_s: float) -> None:
        """Raises InputError for a trajectory that cannot be played; a thousandth is let pass."""
        gradient, slew = (float(value) for value in self.largest(k, fov_mm, dwell_s))
        cause = "a dwell time or a field of view too small, or k in other units"
        problems = []
        if gradient > 1.001 * self.gradient_t_per_m:
            found, most = f"{gradient:.4g} T/m", f"at most {self.gradient_t_per_m:g} T/m"
            problems.append(Problem("trajectory: gradient", found, most, cause))
        if slew > 1.001 * self.slew_t_per_m_s:
            found, most = f"{slew:.4g} T/m/s", f"at most {self.slew_t_per_m_s:g} T/m/s"
            problems.append(Problem("trajectory: slew rate", found, most, cause))
        if problems:
            raise InputError(*problems)


def _squared(vectors: Float[Array, "... axes"]) -> Float[Array, "..."]:
    return jnp.sum(vectors**2, axis=-1)


def _beyond(vectors: Float[Array, "... axes"], most: float | int) -> Float[Array, ""]:
    return jnp.mean(jnp.maximum(_squared(vectors) / most**2 - 1, 0.0))
