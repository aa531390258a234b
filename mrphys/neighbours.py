"""What is known of a map beforehand: how neighbours differ."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Bool, Float, PRNGKeyArray

from mrphys.bounds import Bounds

Map = Float[Array, " voxels"]


def _number(value: ArrayLike) -> Array:
    return jnp.asarray(value, float)


class Prior(eqx.Module):
    """What is known of differences between neighbours, of a field's logarithm where its bounds are
    positive and a decade or more apart, else of the field."""

    @abstractmethod
    def energy(self, squares: Float[Array, "..."]) -> Float[Array, "..."]:
        """-log p of each voxel's sum of squared differences to the next along each axis."""

    def weight(self, squares: Float[Array, "..."]) -> Float[Array, "..."]:
        """2 d energy / d squares: of the parabola that touches the energy from above."""
        return 2 * jax.grad(lambda s: jnp.sum(self.energy(s)))(squares)


class Quadratic(Prior):
    """Gaussian differences: squares / 2 sd²."""

    sd: Float[Array, ""] = eqx.field(converter=_number)

    def energy(self, squares):
        return squares / (2 * self.sd**2)


class TotalVariation(Prior):
    """Laplacian differences, isotropic: sqrt(squares + ε²) / scale, ε = scale / 10. Keeps edges.

    Rudin, Osher, Fatemi 1992, doi:10.1016/0167-2789(92)90242-F; weights as Vogel, Oman 1996,
    doi:10.1137/0917016.
    """

    scale: Float[Array, ""] = eqx.field(converter=_number)

    def energy(self, squares):
        return jnp.sqrt(squares + (self.scale / 10) ** 2) / self.scale


class Neighbours(eqx.Module):
    """A prior of one map of an image, as a function of its bounds' coordinate u."""

    prior: Prior
    inside: Bool[Array, " voxels"]
    bounds: Bounds = eqx.field(static=True)
    shape: tuple[int, ...] = eqx.field(static=True)

    def energy(self, u: Map) -> Float[Array, ""]:
        """-log p, but for a constant."""
        return jnp.sum(self.prior.energy(self._squares(self._scale(u))))

    def bent(self, u: Map, p: Map) -> Map:
        """The second derivative of the energy, times p."""
        return jax.jvp(jax.grad(self.energy), (u,), (p,))[1]

    def touched(self, u: Map, p: Map) -> Map:
        """g' Dᵀ w D g' p, w the weights at u: of the parabola that touches the energy."""
        weight = self.prior.weight(self._squares(self._scale(u)))

        def parabola(g: Map) -> Array:
            return sum((jnp.sum(weight * d**2) for d in self._differences(g)), jnp.zeros(())) / 2

        return self._slope(u) * jax.grad(parabola)(self._slope(u) * p)

    def random_slope(self, u: Map, key: PRNGKeyArray) -> Map:
        """Of mean 0, its covariance `touched`."""
        weight = jnp.sqrt(self.prior.weight(self._squares(self._scale(u))))
        noise = jax.random.normal(key, (len(self.shape), *self.shape), u.dtype)

        def along(g: Map) -> Array:
            return jnp.sum(weight[None] * noise * jnp.stack(self._differences(g)))

        return self._slope(u) * jax.grad(along)(u)

    def stiffness(self, u: Map) -> Map:
        """About the diagonal of `touched`."""
        weight = self.prior.weight(self._squares(self._scale(u))).reshape(-1)
        return 2 * len(self.shape) * weight * self._slope(u) ** 2

    def _scale(self, u: Map) -> Map:
        """On which differences count: the logarithm where ratios matter."""
        value = self.bounds.value(u)
        return jnp.log(value) if self.bounds.logarithmic else value

    def _slope(self, u: Map) -> Map:
        slope = self.bounds.slope(u)
        return slope / self.bounds.value(u) if self.bounds.logarithmic else slope

    def _differences(self, g: Map) -> list[Array]:
        """To the next voxel along each axis, 0 at the image's and the mask's edge."""
        image, inside = g.reshape(self.shape), self.inside.reshape(self.shape)
        found = []
        for axis in range(len(self.shape)):
            step = jnp.diff(image, axis=axis, append=jnp.take(image, jnp.array([-1]), axis))
            both = inside & jnp.roll(inside, -1, axis)
            found.append(jnp.where(both, step, 0.0))
        return found

    def _squares(self, g: Map) -> Array:
        return sum((d**2 for d in self._differences(g)), jnp.zeros(self.shape))
