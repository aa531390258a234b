"""Diffusion weighting: spin-echo echo-planar imaging at several b-values."""

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, ArrayLike, Complex, Float

from mrphys import epg, steady_state
from mrphys.errors import InputError, Problem
from mrphys.sequence.base import Sequence
from mrphys.sequence.train import averaged, check_train, refuse_pools
from mrphys.tissue import Tissue
from mrphys.units import check_b_value_s_per_mm2, check_finite, check_time_s, shape_of


class DiffusionWeighted(Sequence):
    """Spin-echo EPI with monoexponential diffusion weighting; build it by `diffusion_weighted`.

        S_i = M sin(α) sin²(β/2) exp(-TE/T2) exp(-b_i ADC),    α = b1 π/2,  β = b1 π

    with M the longitudinal magnetisation in the steady state of excitation α and crushed
    refocusing β, transverse magnetisation having decayed before the next excitation (TR >> T2):

        M = m0 (1 - E_r + E_r (1 - E_h) cos β) / (1 - E_r E_h cos α cos β)
        E_h = exp(-TE / 2 T1),  E_r = exp(-(TR - TE/2) / T1)

    At b1 = 1 this is m0 (1 - 2 exp(-(TR - TE/2)/T1) + exp(-TR/T1)), the saturation recovery of a
    spin echo. The echo refocuses b0; its phase is taken as zero. Diffusion is one direction or
    a trace weighting, without perfusion or kurtosis: b of about 100 to 1500 s/mm² in brain. With
    directions g, of a tissue that has a tensor D, the ADC of readout i is g_iᵀ D g_i.

    Source: Stejskal, Tanner 1965, doi 10.1063/1.1695690; Le Bihan et al. 1986,
    doi 10.1148/radiology.161.2.3763909.
    """

    b_s_per_mm2: Float[Array, " readouts"]
    te_s: Float[Array, ""]
    tr_s: Float[Array, ""]
    averages: Float[Array, " readouts"]
    directions: Float[Array, "readouts 3"] | None = None

    def signal(self, tissue: Tissue) -> Complex[Array, "*voxels readouts"]:
        refuse_pools(tissue)
        flip = epg.transmit(tissue) * jnp.pi / 2
        echo = steady_state.spin_echo(
            self.te_s,
            self.tr_s,
            tissue.t1_s,
            tissue.t2_s,
            excitation_rad=flip,
            refocusing_rad=2 * flip,
            m0=tissue.m0,
        )
        signal = echo.imag[..., None] * jnp.exp(-self._exponent(tissue))
        return jax.lax.complex(signal, jnp.zeros_like(signal))

    def _exponent(self, tissue: Tissue) -> Float[Array, "*voxels readouts"]:
        if tissue.tensor is None:
            return jnp.multiply.outer(tissue.adc_mm2_per_s, self.b_s_per_mm2)
        if self.directions is None:
            found = "a tissue with a diffusion tensor"
            raise InputError(Problem("signal", found, "an ADC, or a sequence with directions"))
        adc = jnp.moveaxis(tissue.tensor.along(self.directions), 0, -1)
        return adc * jnp.broadcast_to(self.b_s_per_mm2, adc.shape)

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """TR times the sum of averages."""
        return self.tr_s * jnp.sum(self.averages)


def diffusion_weighted(
    b_s_per_mm2: ArrayLike | list,
    te_s: ArrayLike,
    tr_s: ArrayLike = 8.0,
    averages: ArrayLike | list = 1.0,
    directions: ArrayLike | list | None = None,
) -> DiffusionWeighted:
    """A diffusion-weighted spin-echo EPI acquisition, one readout for each b-value.

    b_s_per_mm2  diffusion weightings, 0 to 20000 s/mm²
    te_s, tr_s   echo and repetition time, TE <= TR
    averages     how often each b-value is acquired, one number or one for each; need not be whole
    directions   (b-values, 3): of each gradient, of unit length, of no account where b is 0

    Differentiable in all of them. Raises InputError for values outside their range, b-values and
    averages or directions of different number, directions that are not of unit length.

    >>> theta = diffusion_weighted([0, 1000], te_s=0.08, averages=[1, 3])
    >>> float(theta.scan_time_s)
    32.0
    """
    where = "diffusion_weighted"
    check_b_value_s_per_mm2(f"{where}: b_s_per_mm2", b_s_per_mm2)
    b = jnp.asarray(b_s_per_mm2, float)
    if b.ndim != 1 or not b.size:
        raise InputError(Problem(where, f"b-values of shape {b.shape}", "a list of b-values"))
    repeats = averaged(where, averages, b.size)
    check_train(where, lists=(), te_s=te_s, tr_s=tr_s)
    check_time_s(f"{where}: te_s", te_s, high=1.0)
    te, tr = jnp.asarray(te_s, float), jnp.asarray(tr_s, float)
    check_time_s(f"{where}: tr_s - te_s", tr - te, high=60.0)
    along = None if directions is None else _directions(f"{where}: directions", directions, b)
    return DiffusionWeighted(b, te, tr, repeats, along)


def _directions(where: str, directions: ArrayLike | list, b: Array) -> Float[Array, "readouts 3"]:
    shape = shape_of(where, directions)
    if shape != (b.size, 3):
        cause = "three rows, as FSL writes them; transpose" if shape == (3, b.size) else ""
        raise InputError(Problem(where, f"shape {shape}", f"shape ({b.size}, 3)", cause))
    check_finite(where, directions, "no direction given where b is 0; write zeros")
    given = jnp.asarray(directions, float)
    if not isinstance(given, Tracer) and not isinstance(b, Tracer):
        length = np.linalg.norm(np.asarray(given), axis=1)
        wrong = (np.abs(length - 1) > 0.02) & (np.asarray(b) > 0)
        if wrong.any():
            found = f"{int(wrong.sum())} of {b.size} directions, length {length[wrong][0]:.3g}"
            cause = "a weighted readout without direction, or b-values folded into the lengths"
            raise InputError(Problem(where, found, "length 1 where b > 0", cause))
    return given
