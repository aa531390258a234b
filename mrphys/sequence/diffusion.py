"""Diffusion weighting: spin-echo echo-planar imaging at several b-values."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, ArrayLike, Complex, Float

from mrphys import epg, steady_state
from mrphys.errors import InputError, Problem
from mrphys.sequence.base import Sequence
from mrphys.sequence.train import averaged, check_train, refuse_pools
from mrphys.tissue import Tissue
from mrphys.units import check_b_value_s_per_mm2, check_time_s


class DiffusionWeighted(Sequence):
    """Spin-echo EPI with monoexponential diffusion weighting; build it by `diffusion_weighted`.

        S_i = M sin(α) sin²(β/2) exp(-TE/T2) exp(-b_i ADC),    α = b1 π/2,  β = b1 π

    with M the longitudinal magnetisation in the steady state of excitation α and crushed
    refocusing β, transverse magnetisation having decayed before the next excitation (TR >> T2):

        M = m0 (1 - E_r + E_r (1 - E_h) cos β) / (1 - E_r E_h cos α cos β)
        E_h = exp(-TE / 2 T1),  E_r = exp(-(TR - TE/2) / T1)

    At b1 = 1 this is m0 (1 - 2 exp(-(TR - TE/2)/T1) + exp(-TR/T1)), the saturation recovery of a
    spin echo. The echo refocuses b0; its phase is taken as zero. Diffusion is one direction or
    a trace weighting, without perfusion or kurtosis: b of about 100 to 1500 s/mm² in brain.

    Source: Stejskal, Tanner 1965, doi 10.1063/1.1695690; Le Bihan et al. 1986,
    doi 10.1148/radiology.161.2.3763909.
    """

    b_s_per_mm2: Float[Array, " readouts"]
    te_s: Float[Array, ""]
    tr_s: Float[Array, ""]
    averages: Float[Array, " readouts"]

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
        attenuation = jnp.exp(-jnp.multiply.outer(tissue.adc_mm2_per_s, self.b_s_per_mm2))
        signal = echo.imag[..., None] * attenuation
        return jax.lax.complex(signal, jnp.zeros_like(signal))

    @property
    def scan_time_s(self) -> Float[Array, ""]:
        """TR times the sum of averages."""
        return self.tr_s * jnp.sum(self.averages)


def diffusion_weighted(
    b_s_per_mm2: ArrayLike | list,
    te_s: ArrayLike,
    tr_s: ArrayLike = 8.0,
    averages: ArrayLike | list = 1.0,
) -> DiffusionWeighted:
    """A diffusion-weighted spin-echo EPI acquisition, one readout for each b-value.

    b_s_per_mm2  diffusion weightings, 0 to 20000 s/mm²
    te_s, tr_s   echo and repetition time, TE <= TR
    averages     how often each b-value is acquired, one number or one for each; need not be whole

    Differentiable in all four. Raises InputError for values outside their range or b-values and
    averages of different length.

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
    return DiffusionWeighted(b, te, tr, repeats)
