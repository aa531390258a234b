"""An object in several poses: rotations by shears, shifts by phases, exactly invertible."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex, Float

from mrphys.encoding.linear import Linear, Numbers
from mrphys.errors import InputError, Problem
from mrphys.units import check_finite, check_range


class RigidMotion(Linear):
    """x ↦ (..., poses, *shape): the image as each pose shows it.

        x_s(r) = x(R_s⁻¹ (r - d_s))

    about the centre voxel n // 2, R right-handed; in two axes about the third. Each rotation about
    an axis is three shears, each shear and shift a phase in the spectrum of one axis: band-limited,
    energy kept, the adjoint its inverse. What leaves the field of view comes in on its other side.
    In three axes R = Rx Ry Rz, each within a quarter turn; shears blur nothing but turn corners
    over beyond that. Differentiable in poses.

    rotation_rad    (poses,) in two axes, else (poses, 3): angles about x, y and z
    shift_mm        (poses, axes)
    voxel_mm        (axes,)

    Larkin, Oldfield, Klemm 1997, doi:10.1016/S0030-4018(97)00097-7; Eddy, Fitzgerald, Noll 1996,
    doi:10.1002/mrm.1910360617.
    """

    rotation_rad: Float[Array, "poses ..."]
    shift_mm: Float[Array, "poses axes"]
    voxel_mm: tuple[float, ...] = eqx.field(static=True)

    def __init__(self, rotation_rad, shift_mm, voxel_mm):
        self.rotation_rad = jnp.asarray(rotation_rad, float)
        self.shift_mm = jnp.asarray(shift_mm, float)
        self.voxel_mm = tuple(float(v) for v in voxel_mm)

    def __check_init__(self):
        axes, poses = len(self.voxel_mm), self.shift_mm.shape[0]
        turns = (poses,) if axes == 2 else (poses, 3)
        if axes not in (2, 3) or self.shift_mm.shape[1:] != (axes,):
            found = f"shifts {self.shift_mm.shape}, voxels of {axes} axes"
            raise InputError(Problem("RigidMotion", found, "two or three of each"))
        if self.rotation_rad.shape != turns:
            raise InputError(
                Problem("RigidMotion: rotation_rad", f"{self.rotation_rad.shape}", f"{turns}")
            )
        check_finite("RigidMotion: shift_mm", self.shift_mm)
        most = np.pi / 2
        cause = "degrees given for radians"
        check_range("RigidMotion: rotation_rad", self.rotation_rad, -most, most, "rad", cause)

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        axes = len(self.voxel_mm)
        x = jnp.asarray(x)
        x = jnp.expand_dims(x.astype(jnp.result_type(x.dtype, jnp.complex64)), -axes - 1)
        for plane, angle in self._turns():
            x = self._turned(x, plane, angle)
        return self._shifted(x, 1.0)

    def adjoint(self, y: Numbers, /) -> Complex[Array, "..."]:
        y = jnp.asarray(y)
        x = self._shifted(y.astype(jnp.result_type(y.dtype, jnp.complex64)), -1.0)
        for plane, angle in reversed(self._turns()):
            x = self._turned(x, plane, -angle)
        return jnp.sum(x, axis=-len(self.voxel_mm) - 1)

    @property
    def axes(self) -> int:
        return len(self.voxel_mm)

    def _turns(self) -> list[tuple[tuple[int, int], Float[Array, " poses"]]]:
        """Planes, the first axis turning to the second, and angles, in order."""
        if len(self.voxel_mm) == 2:
            return [((0, 1), self.rotation_rad)]
        about = self.rotation_rad
        return [((0, 1), about[:, 2]), ((2, 0), about[:, 1]), ((1, 2), about[:, 0])]

    def _turned(
        self, x: Complex[Array, "..."], plane: tuple[int, int], angle: Float[Array, " poses"]
    ) -> Complex[Array, "..."]:
        first, second = plane
        half = -jnp.tan(angle / 2)
        x = self._sheared(x, first, second, half)
        x = self._sheared(x, second, first, jnp.sin(angle))
        return self._sheared(x, first, second, half)

    def _sheared(
        self, x: Complex[Array, "..."], along: int, by: int, slope: Float[Array, " poses"]
    ) -> Complex[Array, "..."]:
        """Moved along one axis by slope times the place on another, in mm."""
        axes = len(self.voxel_mm)
        n = x.shape[by - axes]
        place = (np.arange(n) - n // 2) * self.voxel_mm[by] / self.voxel_mm[along]
        voxels = slope[:, None] * jnp.asarray(place, slope.dtype)[None]
        shape = [voxels.shape[0], *[1] * axes]
        shape[1 + by] = n
        return self._moved(x, along, voxels.reshape(shape))

    def _shifted(self, x: Complex[Array, "..."], sign: float) -> Complex[Array, "..."]:
        axes = len(self.voxel_mm)
        for axis in range(axes):
            voxels = sign * self.shift_mm[:, axis] / self.voxel_mm[axis]
            x = self._moved(x, axis, voxels.reshape(-1, *[1] * axes))
        return x

    def _moved(
        self, x: Complex[Array, "..."], axis: int, voxels: Float[Array, "poses ..."]
    ) -> Complex[Array, "..."]:
        """x(i - voxels) along an axis."""
        axes = len(self.voxel_mm)
        n = x.shape[axis - axes]
        frequency = np.fft.fftfreq(n).reshape(-1, *[1] * (axes - 1 - axis))
        frequency = jnp.asarray(frequency, voxels.dtype)
        turns = voxels * frequency.reshape(*[1] * (voxels.ndim - frequency.ndim), *frequency.shape)
        phase = jnp.exp((-2j * jnp.pi * turns).astype(x.dtype))
        spectrum = jnp.fft.fft(x, axis=axis - axes)
        spectrum = spectrum * phase.reshape(*[1] * (x.ndim - phase.ndim), *phase.shape)
        return jnp.fft.ifft(spectrum, axis=axis - axes)
