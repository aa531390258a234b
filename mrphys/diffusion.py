r"""Diffusion of spins in a voxel: isotropic, or along and across fibres by a tensor.

Attenuation in an interval t during which the wavevector grows evenly from k to k + s:

    exp(-∫ k(τ)ᵀ D k(τ) dτ),   ∫ k kᵀ dτ = t ((k + s/2)(k + s/2)ᵀ + s sᵀ/12)

Stejskal & Tanner 1965, doi:10.1063/1.1695690; Basser, Mattiello, Le Bihan 1994,
doi:10.1016/S0006-3495(94)80775-1 (tensor).
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Float

from mrphys.units import real_array

_component = real_array("DiffusionTensor")


class DiffusionTensor(eqx.Module):
    """A symmetric tensor in mm²/s, in the scanner's axes: six components, each a number or of the
    tissue's voxel shape.

    >>> DiffusionTensor(xx=1.7e-3, yy=3e-4, zz=3e-4).along(jnp.array([1.0, 0.0, 0.0]))
    Array(0.0017, dtype=float64)
    """

    xx: Float[Array, "..."] = eqx.field(converter=_component, default=0.0)
    yy: Float[Array, "..."] = eqx.field(converter=_component, default=0.0)
    zz: Float[Array, "..."] = eqx.field(converter=_component, default=0.0)
    xy: Float[Array, "..."] = eqx.field(converter=_component, default=0.0)
    xz: Float[Array, "..."] = eqx.field(converter=_component, default=0.0)
    yz: Float[Array, "..."] = eqx.field(converter=_component, default=0.0)

    def along(self, vector: Float[Array, "... 3"]) -> Float[Array, "..."]:
        """vᵀ D v of each vector, in each voxel."""
        x, y, z = vector[..., 0], vector[..., 1], vector[..., 2]
        squares = ((x * x, self.xx), (y * y, self.yy), (z * z, self.zz))
        products = ((2 * x * y, self.xy), (2 * x * z, self.xz), (2 * y * z, self.yz))
        return sum((jnp.multiply.outer(v, d) for v, d in (*squares, *products)), jnp.zeros(()))

    def matrix(self) -> Float[Array, "*voxels 3 3"]:
        """The tensor as matrices."""
        rows = (
            (self.xx, self.xy, self.xz),
            (self.xy, self.yy, self.yz),
            (self.xz, self.yz, self.zz),
        )
        return jnp.stack([jnp.stack(jnp.broadcast_arrays(*row), -1) for row in rows], -2)


def attenuation_rate(
    wavevector_rad_per_mm: Float[Array, "... 3"],
    adc_mm2_per_s: Float[Array, "*voxels"],
    tensor: DiffusionTensor | None = None,
) -> Float[Array, "..."]:
    """kᵀ D k in 1/s, D = ADC 1 + tensor."""
    square = jnp.sum(wavevector_rad_per_mm**2, axis=-1)
    rate = jnp.multiply.outer(square, adc_mm2_per_s)
    return rate if tensor is None else rate + tensor.along(wavevector_rad_per_mm)
