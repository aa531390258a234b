"""An inverse problem whose residuals are a formula in z: engines tested without a tumour."""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

from oncology.inverse import Inverse, Posterior, posterior
from oncology.observe import Observation
from tests.oncology.small_problem import SHAPE, problem

MATRIX = np.array([[2.0, 1.0], [-1.0, 3.0], [0.5, 1.5]])
SEEN = np.array([1.0, -0.5, 0.7])


class Formula(eqx.Module):
    """matrix (s(z₁), z₂ + bend z₁²) - seen + first e: linear, or a banana; s is the identity, or a
    logistic step of height `step`. e is the first visit's error, of standard deviation 1."""

    matrix: Array = eqx.field(converter=jnp.asarray, default_factory=lambda: MATRIX)
    seen: Array = eqx.field(converter=jnp.asarray, default_factory=lambda: SEEN)
    first: Array = eqx.field(converter=jnp.asarray, default_factory=lambda: np.zeros(3))
    bend: Array = eqx.field(converter=jnp.asarray, default=0.0)
    step: Array = eqx.field(converter=jnp.asarray, default=0.0)

    def __call__(self, z: Array) -> Array:
        stepped = jnp.where(self.step > 0, self.step * jax.nn.sigmoid(3 * z[0]), z[0])
        return self.matrix @ jnp.stack([stepped, z[1] + self.bend * z[0] ** 2]) - self.seen


class Numbers(Observation):
    """A visit that sees the formula of the first numbers of its state."""

    mask: Array
    of: Formula

    @property
    def error_sd(self) -> Array:
        return jnp.ones(())

    def state(self, p, error: Array) -> Array:
        return jnp.zeros(SHAPE)

    def residual(self, u: Array) -> Array:
        return self.of(u.ravel()[:2]) + self.of.first * u.ravel()[2]

    @property
    def noise_share(self) -> Array:
        return jnp.ones(3)


class Direct(Inverse):
    """Its state is z and the error of the first visit."""

    def predict(self, z: Array, error: Array) -> tuple[Array, ...]:
        numbers = jnp.concatenate([z, error[None]])
        return (jnp.zeros(np.prod(SHAPE)).at[:3].set(numbers).reshape(SHAPE),)


def inverse_of(of: Formula) -> Direct:
    """The inverse problem of two parameters."""
    base = problem(0.5, visits=1)
    seen = Numbers(jnp.ones(SHAPE, bool), of)
    return Direct(base.model, base.plan, (seen, seen), base.legs, base.priors)


def laplace(of: Formula) -> Posterior:
    """Its posterior, the model without error."""
    found = posterior(inverse_of(of), optimum(of))
    none = jnp.zeros(())
    return eqx.tree_at(
        lambda f: (f.model_error, f.covariance), found, (none, found.gain.covariance(none))
    )


@jax.jit
def optimum(of: Formula) -> Array:
    """Where |of(z)|² + |z|² is least, by Newton's method."""

    def cost(z: Array) -> Array:
        return jnp.sum(of(z) ** 2) + jnp.sum(z**2)

    def newton(_: int, z: Array) -> Array:
        return z - jnp.linalg.solve(jax.hessian(cost)(z), jax.grad(cost)(z))

    return jax.lax.fori_loop(0, 40, newton, jnp.zeros(2))
