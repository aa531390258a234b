"""What every sequence can say of itself."""

from abc import abstractmethod

import equinox as eqx
import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from mrphys.tissue import Tissue


class Sequence(eqx.Module):
    """A sequence of readouts. A new one names its `averages` and writes `signal` and `scan_time_s`.

    averages  how often each readout is acquired and summed as complex numbers; real-valued, so
              that designs can be optimised by gradients
    """

    averages: eqx.AbstractVar[Float[Array, " readouts"]]

    @abstractmethod
    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        """The noiseless signal of one voxel, or of a tissue whose fields all have one shape."""

    def signals(self, rows: Tissue) -> Complex[Array, "voxels readouts"]:
        """The signal of a row of voxels; a family that gains by playing them together says how."""
        return jax.vmap(self.signal)(rows)

    @property
    @abstractmethod
    def scan_time_s(self) -> Float[Array, ""]:
        """The time the acquisition takes."""

    def within(self, q: Tissue, tolerance: float) -> "Sequence":
        """The same sequence, cut short where it can be for an error below `tolerance` of m0."""
        del q, tolerance
        return self

    def readout_sd(self, noise_sd: ArrayLike) -> Float[Array, "*voxels readouts"]:
        """Noise of each averaged readout, noise_sd / sqrt(averages).

        noise_sd is the standard deviation of the real and of the imaginary part of a single
        average: one number, or one for each voxel.
        """
        return jnp.multiply.outer(jnp.asarray(noise_sd), 1 / jnp.sqrt(self.averages))
