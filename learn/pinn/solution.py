"""What a training found: a field that can be asked, parameters with their uncertainty."""

from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from learn.pinn import taylor
from learn.pinn.system import INSIDE, Params, Rest, System
from learn.pinn.terms import Points
from mrphys.errors import InputError, Problem

RIDGE = 1e-9
"""On the network's weights, of the root mean square of the Jacobian's columns, where p's
covariance is taken: weights that nothing determines are held."""


@dataclass(frozen=True, eq=False)
class Solution:
    """Called with coordinates it gives u; of several members the first axis is theirs."""

    system: System
    params: Params
    rest: Rest
    own: dict[str, Array]
    losses: dict[str, np.ndarray]
    members: int

    def __call__(self, at: Points, *by: str) -> np.ndarray:
        """u where `at` says, or its derivative: solution({"t": 1.0, "x": x}, "x")."""
        missing = [name for name in self.system.names if name not in at]
        if missing:
            raise InputError(Problem("Solution", f"no {missing[0]!r}", str(self.system.names)))
        given = np.broadcast_arrays(*(np.asarray(at[name], float) for name in self.system.names))
        with self.system.problem.precision():
            x = jnp.asarray(np.stack([v.ravel() for v in given], -1), self.system.dtype)
            found = np.asarray(self._at(tuple(by))(self.params, self.rest.fixed, x))
        several = () if self.system.problem.outputs == 1 else found.shape[-1:]
        ahead = (self.members,) if self.members > 1 else ()
        return found.reshape((*ahead, *given[0].shape, *several))

    @cached_property
    def _compiled(self) -> dict[tuple[str, ...], Any]:
        return {}

    def _at(self, by: tuple[str, ...]) -> Any:
        if by not in self._compiled:
            index = tuple(sorted(self.system.names.index(name) for name in by))

            def found(params: Params, fixed: Any, x: Array) -> Array:
                u_at = self.system.field(params, fixed, taylor.closed([index]))
                return jax.lax.map(lambda x: u_at(x)(*by), x, batch_size=1024)

            each = jax.vmap(found, (0, 0, None)) if self.members > 1 else found
            self._compiled[by] = jax.jit(each)
        return self._compiled[by]

    @cached_property
    def p(self) -> dict[str, np.ndarray]:
        """Parameters, the known ones too."""
        with self.system.problem.precision():
            return {n: np.asarray(v) for n, v in self.system.parameters(self.params).items()}

    def unknown(self, name: str, member: int = 0) -> Any:
        """A network of `PINN.unknown`, as found."""
        params, fixed = self.params, self.rest.fixed
        if self.members > 1:
            params, fixed = jax.tree.map(lambda v: v[member], (params, fixed))
        return self.system._net(name, params, fixed)

    @cached_property
    def covariance(self) -> Float[np.ndarray, "..."]:
        """Of the parameters sought, in order: Laplace's, the field's weights integrated out.

        Readings have the noise given; an equation's residual counts as noise of variance n / (w m)
        at each of m points, n the readings and w its weight: what is exact has a large w.
        """
        system = self.system
        if system.data is None:
            cause = "a problem without data has no noise"
            raise InputError(Problem("Solution.covariance", "no data", "data", cause))
        with system.problem.precision():
            one = jax.jit(partial(_covariance, system))
            if self.members == 1:
                return np.asarray(one(self.params, self.rest, self.own))
            slices = [
                jax.tree.map(lambda v, i=i: v[i], (self.params, self.rest, self.own))
                for i in range(self.members)
            ]
            return np.stack([np.asarray(one(*each)) for each in slices])

    @property
    def p_sd(self) -> dict[str, np.ndarray]:
        """Of the parameters sought."""
        sds = np.sqrt(np.diagonal(self.covariance, axis1=-2, axis2=-1))
        return {name: sds[..., i] for i, name in enumerate(self.system.free)}

    def residual(self, at: Points) -> Float[np.ndarray, " points"]:
        """Root sum of squares of the equations at points of one member."""
        system = self.system
        with system.problem.precision():
            given = np.broadcast_arrays(*(np.asarray(at[name], float) for name in system.names))
            x = jnp.asarray(np.stack([v.ravel() for v in given], -1), system.dtype)
            r = jax.vmap(system.residual(INSIDE, self.params, self.rest.fixed))({"_x": x})
            return np.asarray(jnp.sqrt(jnp.sum(r**2, -1))).reshape(given[0].shape)


def _covariance(
    system: System, params: Params, rest: Rest, own: dict[str, Array]
) -> Float[Array, "parameters parameters"]:
    """By the triangular factor of the Jacobian with p's columns last."""
    _, jac = system.jacobian(params, rest, own, 0.0)
    weights = sum(leaf.size for leaf in jax.tree.leaves(params["networks"]))
    # jax.tree sorts by name: "networks" before "p", whose own names are sorted too
    order = sorted(system.free)
    size = jnp.sqrt(jnp.mean(jac[:, :weights] ** 2) * jac.shape[0])
    held = RIDGE * size * jnp.eye(weights, jac.shape[1], dtype=jac.dtype)
    factor = jnp.linalg.qr(jnp.concatenate([jac, held]), mode="r")[weights:, weights:]
    inverse = jnp.linalg.inv(factor)
    slope = jnp.stack([system.free[n].coordinate.slope(params["p"][n]) for n in order])
    found = slope[:, None] * (inverse @ inverse.T) * slope[None] / system.readings
    place = jnp.array([order.index(n) for n in system.free], int)
    return found[place][:, place]
