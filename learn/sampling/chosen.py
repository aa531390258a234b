"""Scans of which a pattern takes samples, with a derivative in each, those not taken too."""

import jax.numpy as jnp
from jaxtyping import Array, Bool, Complex, Float

from learn.reconstruction.scans import Scan
from mrphys.encoding import Encoding, Linear
from mrphys.encoding.encoding import Gram
from mrphys.encoding.linear import Numbers


class Chosen(Linear):
    """A of all samples on the grid, of which those of weight w count:

        A x = w F C x,   Aᴴ y = (F C)ᴴ w y,   AᴴA x = (F C)ᴴ w F C x

    right for w of 0 and 1, and linear in w: w² of `Encoding.weighted` has no derivative where w is
    0, so that no sample not yet taken could ever be. Between, w is the weight of a sample in a sum
    of squares. Data hold every sample; where w is 0 they are not looked at.
    """

    every: Encoding
    weight: Float[Array, "x y"]

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        return self._weighed(self.every(x))

    def adjoint(self, y: Numbers, /) -> Complex[Array, "..."]:
        return self.every.adjoint(self._weighed(y))

    @property
    def normal(self) -> Gram:
        kernels = jnp.fft.ifftshift(self.weight)
        kernels = kernels if self.every.coils is None else kernels[None]
        varying = sum(n > 1 for n in self.weight.shape)
        return Gram(self.every, kernels, (0, 1), varying)

    @property
    def taken(self) -> Bool[Array, "..."]:
        return self.weight != 0

    @property
    def axes(self) -> int:
        return self.every.axes

    def _weighed(self, y: Numbers) -> Complex[Array, "..."]:
        return jnp.asarray(y) * self.weight.reshape(*[1] * (y.ndim - 2), *self.weight.shape)


def chosen(scan: Scan, weight: Float[Array, "x y"] | Bool[Array, "x y"]) -> Scan:
    """A scan of all samples, of which a pattern counts."""
    w = weight.astype(scan.x.real.dtype)
    return scan._replace(A=Chosen(scan.A, w))
