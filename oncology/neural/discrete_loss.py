r"""The field itself as the unknown: a discrete loss on all steps of a tumour at once.

.. math:: \min_{u, z}\; \sum_n \Big|\frac{u_n - \Phi_z(u_{n-1})}{s_n}\Big|^2 + |r(u)|^2 + |z|^2,
          \quad u_0 = \mathrm{seed}(z), \quad s_n = q \sqrt{h_n}\, 2\sqrt{u (1 - u)}

Φ is one step of the stepper, r the contours' residuals, z the coordinates of age, D, k and site.
The equation may err by s: the field follows the contours where growth is not the model's, and the
parameters say how sure they then are. For s → 0 it is `onset.most_probable`.

Gauss and Newton's step is sought in the errors e_n and z instead of u, which is the same plane:
δu_n = Φ' δu_{n-1} + ∂Φ/∂z δz + s_n δe_n is one sweep forward, its transpose one back, and the
normal matrix 1 + GᵀHᵀHG of conjugate gradients has as many eigenvalues beyond 1 as contours tell.
The field is not integrated: steps are all corrected at once, by as much as lowers the loss.

The idea: Balcerak et al. 2025, doi:10.1038/s41467-025-60366-4 (GliODIL; Adam on a multigrid);
Karnakov, Litvinov, Koumoutsakos 2024, doi:10.1093/pnasnexus/pgae005 (ODIL).
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, Float

from oncology.inverse import amplitude
from oncology.onset import AGE_STEPS, GAP_STEPS, NAMES, Inferred, Onset

MODEL_ERROR = 0.003
"""q: of the equation, after a day, at half density."""
SHORTEST = 1 / 16
"""Of the steps tried along a direction."""


class Unknowns(NamedTuple):
    """The field after every step, and z."""

    field: Float[Array, "steps x y z"]
    z: Float[Array, " 6"]


class Solved(eqx.Module):
    """What was found, with the discrete loss after each step, and its share of the equation."""

    inferred: Inferred
    field: Float[Array, "steps x y z"]
    loss: Float[Array, " iterations"]
    equation: Float[Array, ""]


class _Loss(eqx.Module):
    """The discrete loss of one problem."""

    onset: Onset
    model_error: float

    @property
    def visits(self) -> np.ndarray:
        """Steps after which there is a visit."""
        return AGE_STEPS - 1 + GAP_STEPS * np.arange(len(self.onset.visits))

    def days(self, z: Array) -> Float[Array, " steps"]:
        """Length of every step."""
        aging = self.onset.parameters(z)[NAMES[0]] / AGE_STEPS
        gaps = jnp.repeat(
            self.onset.gaps_day / GAP_STEPS,
            GAP_STEPS,
            total_repeat_length=GAP_STEPS * (len(self.onset.visits) - 1),
        )
        return jnp.concatenate([jnp.broadcast_to(aging, (AGE_STEPS,)), gaps.astype(z.dtype)])

    def step(self, z: Array, u: Array, n: Array) -> Array:
        """Φ."""
        return self.onset.one_step(self.onset.parameters(z), u, self.days(z)[n])

    def before(self, unknowns: Unknowns) -> Array:
        """The state before every step."""
        first = self.onset.seed(self.onset.parameters(unknowns.z))
        return jnp.concatenate([first[None], unknowns.field[:-1]])

    def integrated(self, z: Array) -> Array:
        """The model's own field."""
        first = self.onset.seed(self.onset.parameters(z))

        def body(u: Array, n: Array) -> tuple[Array, Array]:
            u = self.step(z, u, n)
            return u, u

        return jax.lax.scan(body, first, jnp.arange(self.days(z).size))[1]

    def errors(self, unknowns: Unknowns, scale: Array) -> Array:
        """e: of the equation at every step, in units of what is expected."""
        steps = jnp.arange(scale.shape[0])

        def one(pair: tuple[Array, Array, Array, Array]) -> Array:
            before, after, s, n = pair
            return (after - self.step(unknowns.z, before, n)) / s

        return jax.lax.map(one, (self.before(unknowns), unknowns.field, scale, steps))

    def scale(self, unknowns: Unknowns) -> Array:
        """s: of every step and voxel, by the model's own field at z, which is never rough."""
        root = jnp.sqrt(self.days(unknowns.z))[:, None, None, None]
        return self.model_error * root * jax.vmap(amplitude)(self.integrated(unknowns.z))

    def data(self, field: Array) -> tuple[Array, Array]:
        """The contours' residuals, and their slopes in the density of each voxel."""
        found = []
        for visit, at in zip(self.onset.visits, self.visits, strict=True):
            density = visit.at_voxels(field[at])
            found.append(jax.jvp(visit.residual, (density,), (jnp.ones_like(density),)))
        r, slope = zip(*found, strict=True)
        return jnp.stack(r), jnp.stack(slope)

    def readings(self, change: Array) -> Array:
        """A change of the field at the contours' voxels."""
        pairs = zip(self.onset.visits, self.visits, strict=True)
        return jnp.stack([visit.at_voxels(change[at]) for visit, at in pairs])

    def value(self, unknowns: Unknowns, scale: Array) -> tuple[Array, Array]:
        """The loss, and the equation's part."""
        equation = jnp.sum(self.errors(unknowns, scale) ** 2)
        r, _ = self.data(unknowns.field)
        return equation + jnp.sum(r**2) + jnp.sum(unknowns.z**2), equation

    def sweep(self, here: Unknowns, scale: Array, e: Array, dz: Array) -> Array:
        """δu of errors and a change of z, through the steps' derivatives."""
        befores = self.before(here)

        def of_seed(z: Array) -> Array:
            return self.onset.seed(self.onset.parameters(z))

        first = jax.jvp(of_seed, (here.z,), (dz,))[1]

        def body(du: Array, at: tuple[Array, ...]) -> tuple[Array, Array]:
            before, s, e, n = at
            along = jax.jvp(lambda z, u: self.step(z, u, n), (here.z, before), (dz, du))[1]
            along = along + s * e
            return along, along

        steps = jnp.arange(scale.shape[0])
        return jax.lax.scan(body, first, (befores, scale, e, steps))[1]


@eqx.filter_jit
def least_discrete_loss(
    problem: Onset,
    start: Float[Array, " 6"],
    *,
    model_error: float = MODEL_ERROR,
    iterations: int = 8,
    inner: int = 25,
) -> Solved:
    """The field and z of least discrete loss, from the model's own field at `start`, by Gauss and
    Newton's steps of `inner` conjugate gradients each; the covariance of z with the field
    integrated out."""
    loss = _Loss(problem, model_error)
    begin = Unknowns(loss.integrated(start), start)

    def direction(here: Unknowns, scale: Array) -> tuple[Unknowns, tuple[Callable, Array]]:
        r, slope = loss.data(here.field)
        e = loss.errors(here, scale)
        still = loss.sweep(here, scale, -e, jnp.zeros_like(here.z))

        def seen(errors: Array, dz: Array) -> Array:
            return slope * loss.readings(loss.sweep(here, scale, errors, dz))

        back = jax.linear_transpose(seen, e, here.z)

        def normal(both: tuple[Array, Array]) -> tuple[Array, Array]:
            pulled = back(seen(*both))
            return both[0] + pulled[0], both[1] + pulled[1]

        pull = back(r + slope * loss.readings(still))
        right = -pull[0], -pull[1] - here.z
        found: Any = cg(normal, right, maxiter=inner, tol=1e-3)[0]
        errors, dz = found
        return Unknowns(still + loss.sweep(here, scale, errors, dz), dz), (normal, e)

    def improve(here: Unknowns, _: None) -> tuple[Unknowns, Array]:
        scale = loss.scale(here)
        change = direction(here, scale)[0]
        now = loss.value(here, scale)[0]

        def moved(share: Array) -> Unknowns:
            field = jnp.clip(here.field + share * change.field, 0.0, 1.0)
            return Unknowns(field, here.z + share * change.z)

        def worse(state: tuple[Array, Array]) -> Array:
            return ~(state[1] < now) & (state[0] >= SHORTEST)

        def shorter(state: tuple[Array, Array]) -> tuple[Array, Array]:
            share = state[0] / 2
            return share, loss.value(moved(share), scale)[0]

        full = jnp.ones((), here.z.dtype)
        share, found = jax.lax.while_loop(worse, shorter, (full, loss.value(moved(full), scale)[0]))
        better = found < now
        new = jax.tree.map(lambda a, b: jnp.where(better, a, b), moved(share), here)
        return new, jnp.minimum(found, now)

    end, losses = jax.lax.scan(improve, begin, None, length=iterations)
    scale = loss.scale(end)
    _, (normal, e) = direction(end, scale)

    def column(unit: Array) -> Array:
        found: Any = cg(normal, (jnp.zeros_like(e), unit), maxiter=inner, tol=1e-3)[0]
        return found[1]

    covariance = jax.lax.map(column, jnp.eye(start.size, dtype=start.dtype))
    covariance = (covariance + covariance.T) / 2
    states = tuple(end.field[at] for at in loss.visits)
    equation = loss.value(end, scale)[1]
    return Solved(Inferred(problem, end.z, covariance, states), end.field, losses, equation)
