"""What a map needs: what it writes, which series it is for, and θ and the unknowns of a series."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Complex

from mrphys.errors import InputError, Problem
from mrphys.mapping import FunctionModel
from mrphys.series import Series
from mrphys.tissue import Tissue

T1_S, T2_S = 1.0, 0.08
"""Taken where a signal hardly depends on them."""
NLLS = "maximum likelihood (Levenberg-Marquardt, variable projection), sd by Cramér-Rao"


class Output(NamedTuple):
    """A field of q as a map: BIDS suffix, unit, what it is, and the factor to that unit."""

    field: str
    suffix: str
    unit: str
    what: str
    scale: float = 1.0


class Plan(NamedTuple):
    """What `mrphys.fit` is told: θ, the unknowns, q otherwise, bounds; readouts in its order.

    fit       a fast path in its place, of (θ, x, noise_sd), noise_sd None where it is to be found:
              its result has `value` and `sd` with the outputs as fields, `residual` and `status`
    unknowns  real numbers it finds in each voxel; as many as are free unless given
    told      whether that fit is told, fourth, what is known of its voxels
    lacking   voxels it cannot be for, by what they are without
    whole     what is done last, to whole maps by field: of (values, sds, where these stand)
    ratio     whether data are a ratio of signals: of any sign, and not near 0 where there is air
    posterior whether its values are means, where they are not straight over an sd
    noise     finds the noise of (images, where to fit) and says where, or None: for such data
    """

    theta: Any
    free: tuple[str, ...]
    series: Series
    known: eqx.Module
    bounds: dict[str, tuple[float, float]]
    fit: Callable[..., Any] | None = None
    unknowns: int | None = None
    told: bool = False
    lacking: Mapping[str, np.ndarray] = MappingProxyType({})
    whole: Callable[[dict, dict, np.ndarray], dict] | None = None
    ratio: bool = False
    posterior: bool = False
    noise: Callable[[np.ndarray, np.ndarray], tuple[float, str] | None] | None = None


class Protocol(NamedTuple):
    """A kind of series and the maps it gives, the first of them what it is for.

    suffixes  of the files it is for; the first in the table for a suffix is chosen unless told
    plan      of a series, raising InputError where settings are missing or make no sense
    b1        whether a map of the transmit field helps: a field of `Plan.known` then
    status    what its fit tells of voxels beyond `mrphys.mapping`, whose values stand
    """

    name: str
    suffixes: tuple[str, ...]
    title: str
    outputs: tuple[Output, ...]
    algorithm: str
    reference: str
    plan: Callable[[Series], Plan]
    b1: bool = False
    status: tuple[tuple[int, str], ...] = ()


T1 = Output("t1_s", "T1map", "s", "longitudinal relaxation time")
M0 = Output("m0", "M0map", "arbitrary", "signal of full relaxation, decay until the echo included")
B1 = Output("b1", "TB1map", "percent", "transmit field relative to nominal", 100.0)


def as_complex(x: Array) -> Complex[Array, "..."]:
    """As `mrphys.fit` expects of signals that have a phase."""
    return jax.lax.complex(x, jnp.zeros_like(x))


def closed_form(signal: Callable[[Any], Array], readouts: int) -> FunctionModel:
    """A model of one average each."""
    return FunctionModel(signal, jnp.ones(readouts))


def water() -> Tissue:
    """q of which nothing is known."""
    return Tissue(t1_s=T1_S, t2_s=T2_S)


def check_distinct(series: Series, name: str, values: np.ndarray, least: int) -> None:
    """Raise InputError for fewer different values than needed."""
    if np.unique(values).size < least:
        found = f"{np.unique(values).size} different {name} ({series.readouts} images)"
        cause = "images left out, or the sidecar of one image used for all"
        raise InputError(Problem(series.where, found, f"{least} or more", cause))
