"""What the scanner plays, sample by sample."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mrphys.errors import InputError, Problem
from mrphys.units import Values, check_finite, check_time_s


def _complex(value: Values) -> Complex[Array, "..."]:
    array = jnp.asarray(value)
    return array if jnp.iscomplexobj(array) else array.astype(jnp.result_type(float, 1j))


class Waveform(eqx.Module):
    """What the scanner plays: n samples, each held for its dwell time.

    dt_s                dwell time, one or one for each sample
    b1_hz               transmit field γB1/2π: (n,), or (n, channels); its phase is the pulse's
    gradient_hz_per_mm  γG/2π along x, y, z: (n, 3); none when not given
    frequency_hz        of the carrier from resonance: the field is b1_hz exp(-2πi frequency t), so
                        that a positive one addresses b0_hz > 0; None for 0

    Raises InputError for lengths that differ, times that are not positive and numbers not finite.
    """

    dt_s: Float[Array, "..."] = eqx.field(converter=lambda v: jnp.asarray(v, float))
    b1_hz: Complex[Array, "samples ..."] = eqx.field(converter=_complex)
    gradient_hz_per_mm: Float[Array, "samples 3"] | None = eqx.field(
        converter=lambda v: None if v is None else jnp.asarray(v), default=None
    )
    frequency_hz: Float[Array, ""] | None = eqx.field(
        converter=lambda v: None if v is None else jnp.asarray(v, float), default=None
    )

    def __check_init__(self):
        count = self.b1_hz.shape[0]
        gradient = self.gradient_hz_per_mm
        shapes = {"dt_s": self.dt_s.shape, "b1_hz": self.b1_hz.shape}
        if gradient is not None:
            shapes["gradient_hz_per_mm"] = gradient.shape
            check_finite("Waveform gradient_hz_per_mm", gradient)
        match = self.dt_s.shape in ((), (count,)) and self.b1_hz.ndim <= 2
        if not count or not match or (gradient is not None and gradient.shape != (count, 3)):
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items())
            expected = "as many samples of each, at least one: (n,), (n,) and (n, 3)"
            raise InputError(Problem("Waveform", found, expected))
        if self.frequency_hz is not None:
            check_finite("Waveform frequency_hz", self.frequency_hz)
        check_time_s("Waveform dt_s", self.dt_s, high=1.0)
        check_finite("Waveform b1_hz", jnp.abs(self.b1_hz))

    @property
    def duration_s(self) -> Float[Array, ""]:
        """Time of all samples."""
        return jnp.sum(jnp.broadcast_to(self.dt_s, self.b1_hz.shape[:1]))
