"""Apparent diffusion, tensors and intravoxel incoherent motion from diffusion weighting."""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float

from mrphys import sequence
from mrphys.diffusion_tensor import ISOTROPIC, fit_tensor
from mrphys.errors import InputError, Problem
from mrphys.ivim import fit_ivim
from mrphys.protocols.protocol import (
    NLLS,
    Output,
    Plan,
    Protocol,
    as_complex,
    check_distinct,
    closed_form,
    water,
)
from mrphys.series import B_VALUE, Series
from mrphys.tissue import Tissue

TE_S = 0.08
"""Of no account for the tensor."""


class Attenuation(eqx.Module):
    """m0 exp(-b ADC), relaxation part of m0."""

    b_s_per_mm2: Float[Array, " readouts"]

    def __call__(self, q: Tissue) -> Complex[Array, " readouts"]:
        return as_complex(q.m0 * jnp.exp(-self.b_s_per_mm2 * q.adc_mm2_per_s))


def _adc(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    b = series.each(B_VALUE)
    check_distinct(series, "b-values", b, 2)
    theta = closed_form(Attenuation(jnp.asarray(b)), b.size)
    return Plan(theta, ("adc_mm2_per_s", "m0"), series, water(), {})


def _ivim(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    b = series.each(B_VALUE)
    echo_s = series.one("EchoTime") if "EchoTime" in series.settings else TE_S
    theta = sequence.diffusion_weighted(b, echo_s)
    free = ("adc_mm2_per_s", "perfusion_fraction", "pseudo_adc_mm2_per_s", "m0")
    return Plan(theta, free, series, water(), {}, fit_ivim)


def _dti(series: Series) -> Plan:
    series = series.magnitudes() if series.is_complex else series
    b = series.each(B_VALUE)
    if series.directions is None:
        found, cause = "no directions", "no .bvec beside the images, or trace-weighted ones"
        raise InputError(Problem(series.where, found, "a direction of each gradient", cause))
    echo_s = series.one("EchoTime") if "EchoTime" in series.settings else TE_S
    theta = sequence.diffusion_weighted(b, echo_s, directions=series.directions)
    free = ("fa", "md_mm2_per_s", "ad_mm2_per_s", "rd_mm2_per_s", "m0")
    return Plan(theta, free, series, water(), {}, fit_tensor, unknowns=7)


S0 = Output("m0", "S0map", "arbitrary", "signal without diffusion weighting")


ADC = Protocol(
    "adc",
    ("dwi",),
    "ADC from diffusion weighting, all directions together",
    (
        Output("adc_mm2_per_s", "ADC", "mm^2/s", "apparent diffusion coefficient"),
        S0,
    ),
    NLLS,
    "Le Bihan et al. 1986, doi:10.1148/radiology.161.2.3763909",
    _adc,
)


IVIM = Protocol(
    "ivim",
    ("dwi",),
    "diffusion, and fraction and pseudo-diffusion of blood in capillaries, from low b too",
    (
        Output("adc_mm2_per_s", "D", "mm^2/s", "diffusion coefficient of tissue"),
        Output("perfusion_fraction", "f", "1", "share of the signal from capillaries"),
        Output("pseudo_adc_mm2_per_s", "Dstar", "mm^2/s", "pseudo-diffusion of blood"),
        S0,
    ),
    NLLS,
    "Le Bihan et al. 1988, doi:10.1148/radiology.168.2.3393671",
    _ivim,
)


DTI = Protocol(
    "dti",
    ("dwi",),
    "diffusion tensor from six directions or more: FA and diffusivities",
    (
        Output("fa", "FA", "1", "fractional anisotropy"),
        Output("md_mm2_per_s", "MD", "mm^2/s", "mean diffusivity"),
        Output("ad_mm2_per_s", "AD", "mm^2/s", "axial diffusivity"),
        Output("rd_mm2_per_s", "RD", "mm^2/s", "radial diffusivity"),
        S0,
    ),
    "weighted least squares of the logarithm, sd by propagation",
    "Salvador et al. 2005, doi:10.1002/hbm.20076",
    _dti,
    status=((ISOTROPIC, "isotropic: FA is below three of its sds"),),
)
