"""What a design must keep to: limits on time, power and smoothness, of θ or of its variables."""

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

Variables = dict[str, Array]


class Constraint(NamedTuple):
    """value(θ, p) on one side of a limit, every number of it if it is an array.

    θ is the sequence and p its variables by name; `size` is the amount that counts as large, the
    limit's own unless given.
    """

    name: str
    value: Callable[[object, Variables], ArrayLike]
    side: Literal["at most", "at least", "equal to"]
    limit: float
    unit: str = ""
    size: float | None = None

    def excess(self, theta: object, p: Variables) -> Float[Array, " n"]:
        """By how much the limit is missed, in units of `size`; 0 or less where it is kept."""
        value = jnp.ravel(jnp.asarray(self.value(theta, p), float))
        over = (value - self.limit) / self.scale
        return -over if self.side == "at least" else over

    @property
    def scale(self) -> float:
        """What `excess` is counted in."""
        return self.size or abs(self.limit) or 1.0

    def missed(self, excess: Sequence[float] | np.ndarray | Array) -> float:
        """The largest miss of all numbers, in the constraint's unit."""
        found = np.asarray(excess)
        found = np.abs(found) if self.side == "equal to" else np.maximum(found, 0.0)
        return float(np.max(found, initial=0.0)) * self.scale

    def __str__(self) -> str:
        return f"{self.name} {self.side} {self.limit:g} {self.unit}".rstrip()


def scan_time_s(side: Literal["at most", "equal to"], limit: float) -> Constraint:
    """θ.scan_time_s, at most or equal to a limit."""
    return Constraint("scan time", lambda theta, p: theta.scan_time_s, side, limit, "s")


def pulse_energy_hz2_s(limit: float) -> Constraint:
    """θ.pulse_energy_hz2_s at most a limit: specific absorption is proportional to it."""
    return Constraint(
        "pulse energy", lambda theta, p: theta.pulse_energy_hz2_s, "at most", limit, "Hz² s"
    )


def smooth(
    name: str, train: Callable[[Variables], Array], most: float, unit: str = ""
) -> Constraint:
    """Neighbours in a train, a function of the variables, differ by at most `most`."""

    def squares(theta: object, p: Variables) -> Array:
        del theta
        return jnp.diff(train(p)) ** 2  # smooth where neighbours are equal

    return Constraint(f"squared steps of {name}", squares, "at most", most**2, f"{unit}²")


def spaced(name: str, least: float, unit: str = "s") -> Constraint:
    """Times in the list `name` rise by at least `least` from one to the next."""
    return Constraint(
        f"spacing of {name}", lambda theta, p: jnp.diff(p[name]), "at least", least, unit
    )


def values(
    constraints: Sequence[Constraint], theta: object, p: Variables
) -> tuple[Float[Array, " n"], ...]:
    """The excess of each."""
    return tuple(constraint.excess(theta, p) for constraint in constraints)
