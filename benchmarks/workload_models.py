"""What a workload of the mapping benchmarks is, how it is measured and how it is fitted."""

from collections.abc import Callable
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array

import mrphys as mr
from mrphys import perfusion
from mrphys.apparent_diffusion import fit_adc
from mrphys.diffusion_kurtosis import fit_kurtosis
from mrphys.diffusion_tensor import ISOTROPIC, fit_tensor
from mrphys.field_maps import actual_flip, bloch_siegert, double_angle, static_field
from mrphys.ivim import fit_ivim
from mrphys.mapping import CONVERGED
from mrphys.t2_spectrum import fit_t2_spectrum

WATER: dict[str, Any] = {"t1_s": 1.0, "t2_s": 0.1}


class Case(NamedTuple):
    """A workload.

    theta, q  what is played, and the truth of every voxel
    scored    fields of q, or of `truth`, that are scored; the first in the table of speeds
    kinds     data and fit: one of FITS
    options   of the fit
    truth     what is scored and no field of q
    """

    theta: Any
    q: Any
    scored: tuple[str, ...]
    kinds: tuple[str, ...] = ("complex", "rician")
    options: Any = MappingProxyType({})
    truth: Any = MappingProxyType({})

    def true(self, name: str) -> np.ndarray:
        """The truth of a field that is scored."""
        return np.asarray(self.truth[name] if name in self.truth else getattr(self.q, name))


def measured(case: Case, kind: str, snr: float, seed: int = 0) -> tuple[Array, float]:
    """Data of every voxel with noise, and the sd of the real part of one average: the mean over
    voxels of the largest readout, over the SNR."""
    if isinstance(case.theta, mr.sequence.Sequence):
        x = mr.simulate(case.theta, case.q)
    else:
        x = eqx.filter_jit(type(case.theta).signals)(case.theta, case.q)
    sd = float(jnp.mean(jnp.max(jnp.abs(x), axis=-1))) / snr
    noise = np.random.default_rng(seed).standard_normal((2, *x.shape), np.float32)
    noise *= sd / np.sqrt(np.asarray(case.theta.averages, np.float32))
    if kind in REAL:
        return x + noise[0], sd
    data = x + (noise[0] + 1j * noise[1])
    return data if kind in COMPLEX else jnp.abs(data), sd


class Told(NamedTuple):
    """Values and sds by what is scored, and whether a voxel is determined."""

    values: dict[str, np.ndarray]
    sds: dict[str, np.ndarray]
    good: np.ndarray


def estimated(case: Case, kind: str, data: Array, sd: float) -> Told:
    """What the fit of a kind tells. A voxel is left out where it does not say CONVERGED (ISOTROPIC
    is for FA alone), or where an sd is infinite."""
    found = FITS[kind](case, data, sd)
    values = {name: np.asarray(getattr(found.value, name)) for name in case.scored}
    sds = {name: np.asarray(getattr(found.sd, name)) for name in case.scored}
    good = np.asarray(found.status == CONVERGED)
    if "fa" not in case.scored:
        good = good | np.asarray(found.status == ISOTROPIC)
    for spread in sds.values():
        good = good & np.isfinite(spread)
    return Told(values, sds, good)


def by_fit(case: Case, data: Array, sd: float, **more: Any) -> Any:
    """`mr.fit` of what the case says is free, or scored."""
    options: Any = {"free": case.scored} | dict(case.options) | more
    return mr.fit(case.theta, data, noise_sd=sd, **options)


def by_dictionary(case: Case, data: Array, sd: float) -> Any:
    """The nearest entry, and `mr.fit` from there."""
    grid = {"t1_s": np.geomspace(0.3, 3.0, 40), "t2_s": np.geomspace(0.02, 0.4, 40)}
    start = mr.fingerprint.dictionary(case.theta, grid).match(data).value
    return by_fit(case, data, sd, start=start)


def _adc(case: Case, data: Array, sd: float) -> Any:
    found = fit_adc(case.theta, data, sd)
    spread = SimpleNamespace(adc_mm2_per_s=found.adc_sd_mm2_per_s, m0=found.m0_sd)
    status = jnp.where(jnp.isfinite(found.adc_sd_mm2_per_s), CONVERGED, -1)
    return SimpleNamespace(value=found, sd=spread, status=status)


def _transmit(found: Any) -> Any:
    return SimpleNamespace(value=found, sd=SimpleNamespace(b1=found.b1_sd), status=found.status)


def _static(case: Case, data: Array, sd: float) -> Any:
    found = static_field(case.options["te_s"], data, sd, unwrap=False)
    spread = SimpleNamespace(b0_hz=found.b0_sd_hz)
    return SimpleNamespace(value=found, sd=spread, status=found.status)


def _spectrum(case: Case, data: Array, sd: float) -> Any:
    found = fit_t2_spectrum(case.options["theta"], data, sd)
    spread = SimpleNamespace(fast=found.fast_sd)
    return SimpleNamespace(value=found, sd=spread, status=found.status)


def _deconvolved(case: Case, data: Array, sd: float) -> Any:
    times_s, arterial, reference = (case.options[n] for n in ("times_s", "arterial", "reference"))
    leak = perfusion.leakage_corrected(times_s, data, reference, sd)
    found = perfusion.vascular_maps(times_s, leak, arterial, "csvd")
    spread = SimpleNamespace(cbv=found.cbv_sd, cbf_per_s=found.cbf_sd_per_s, mtt_s=found.mtt_sd_s)
    return SimpleNamespace(value=found, sd=spread, status=jnp.zeros(data.shape[0], int))


FITS: dict[str, Callable[[Case, Array, float], Any]] = {
    "complex": by_fit,
    "rician": by_fit,
    "real": by_fit,
    "gaussian": lambda case, data, sd: by_fit(case, data, sd, rician=False),
    "dictionary": by_dictionary,
    "fit_adc": _adc,
    "fit_tensor": lambda case, data, sd: fit_tensor(case.theta, data, sd),
    "fit_kurtosis": lambda case, data, sd: fit_kurtosis(case.options["theta"], data, sd),
    "fit_ivim": lambda case, data, sd: fit_ivim(case.options["theta"], data, sd),
    "double_angle": lambda case, data, sd: _transmit(
        double_angle(np.pi / 3, data[..., 0], data[..., 1], sd)
    ),
    "actual_flip": lambda case, data, sd: _transmit(
        actual_flip(np.pi / 3, (0.02, 0.1), data[..., 0], data[..., 1], sd)
    ),
    "bloch_siegert": lambda case, data, sd: _transmit(
        bloch_siegert(case.options["nominal_rad"], data[..., 0], data[..., 1], sd)
    ),
    "static_field": _static,
    "fit_t2_spectrum": _spectrum,
    "csvd": _deconvolved,
    "fit_kinetics": lambda case, data, sd: perfusion.fit_kinetics(
        case.options["theta"], data, type(case.q), sd
    ),
}
COMPLEX = {"complex", "dictionary", "bloch_siegert", "static_field"}
REAL = {"real", "fit_kinetics", "csvd"}


def drawn(voxels: int, /, **ranges: tuple[float, float]) -> dict[str, np.ndarray]:
    """Fields of tissue, each even in its range."""
    rng = np.random.default_rng(0)
    return {name: rng.uniform(*pair, voxels) for name, pair in ranges.items()}


def water(**fields: Any) -> Any:
    """A tissue of which not all is said."""
    return mr.Tissue(**(WATER | fields))
