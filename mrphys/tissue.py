"""q, the tissue: what a voxel is made of, and what the literature says it should be."""

from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jaxtyping import Array, Float, Inexact

from mrphys.diffusion import DiffusionTensor
from mrphys.errors import InputError, Problem
from mrphys.exchange import Pool, SemiSolid
from mrphys.units import (
    WATER_DIFFUSIVITY_37C_MM2_PER_S,
    Values,
    check_adc_mm2_per_s,
    check_finite,
    check_range,
    check_t2_of_t1,
    check_time_s,
    real_array,
)


def _real_or_complex(value: Values) -> Inexact[Array, "..."]:
    check_finite("Tissue b1", value)
    array = jnp.asarray(value)
    return array if jnp.issubdtype(array.dtype, jnp.inexact) else array.astype(float)


def _as_pools(value: Pool | tuple | list | None) -> tuple:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (value,)


PARTS = ("tensor", "pools", "semisolid")


class Tissue(eqx.Module):
    """The magnetic resonance properties of one voxel, or of any shape of voxels.

    t1_s, t2_s     longitudinal and transverse relaxation times
    m0             equilibrium magnetisation, relative to free water
    adc_mm2_per_s  apparent diffusion coefficient
    b1             transmit field, relative to nominal; complex where its phase matters
    b0_hz          off-resonance
    t2prime_s      reversible dephasing, 1/T2* = 1/T2 + 1/T2'; infinite for none
    tensor         diffusion by direction (`mrphys.diffusion.DiffusionTensor`), ADC then 0
    pools          that exchange with water (`mrphys.exchange.Pool`), and `semisolid`

    Each is a number or an array; together they broadcast to `voxel_shape`. Raises InputError when
    they do not, when a value is outside the physical range (0 < T1, T2 <= 20 s, T2 <= 2 T1,
    0 <= ADC <= 0.01 mm²/s, |b1| <= 5, a real b1 >= 0, 0 <= m0, 0 < T2'), or is NaN; values being
    traced are not looked at. Differentiable in every field.

    >>> Tissue(t1_s=[0.8, 1.2], t2_s=0.08).voxel_shape
    (2,)
    """

    t1_s: Float[Array, "..."] = eqx.field(converter=real_array("Tissue t1_s"))
    t2_s: Float[Array, "..."] = eqx.field(converter=real_array("Tissue t2_s"))
    m0: Float[Array, "..."] = eqx.field(converter=real_array("Tissue m0"), default=1.0)
    adc_mm2_per_s: Float[Array, "..."] = eqx.field(
        converter=real_array("Tissue adc_mm2_per_s"), default=0.0
    )
    b1: Inexact[Array, "..."] = eqx.field(converter=_real_or_complex, default=1.0)
    b0_hz: Float[Array, "..."] = eqx.field(converter=real_array("Tissue b0_hz"), default=0.0)
    t2prime_s: Float[Array, "..."] = eqx.field(
        converter=real_array("Tissue t2prime_s"), default=np.inf
    )
    tensor: DiffusionTensor | None = None
    pools: tuple[Pool, ...] = eqx.field(converter=_as_pools, default=())
    semisolid: SemiSolid | None = None

    def __check_init__(self):
        self._check_parts()
        shapes = {name: np.shape(value) for name, value in vars(self).items() if name not in PARTS}
        try:
            np.broadcast_shapes(*(leaf.shape for leaf in jax.tree.leaves(self)))
        except ValueError:
            found = ", ".join(f"{name} {shape}" for name, shape in shapes.items() if shape)
            raise InputError(
                Problem("Tissue", found, "shapes that broadcast", "maps of different images")
            ) from None
        check_range("Tissue m0", self.m0, 0.0, np.inf, "(relative to water)")
        check_time_s("Tissue t1_s", self.t1_s, low=1e-6)
        check_time_s("Tissue t2_s", self.t2_s, low=1e-6)
        check_adc_mm2_per_s("Tissue adc_mm2_per_s", self.adc_mm2_per_s)
        if self.tensor is not None:
            self._check_tensor(self.tensor)
        size = jnp.abs(self.b1) if jnp.iscomplexobj(self.b1) else self.b1
        check_range("Tissue b1", size, 0.0, 5.0, "of nominal", "per cent given for a ratio")
        check_finite("Tissue b0_hz", self.b0_hz)
        if not isinstance(self.t2prime_s, Tracer) and not np.all(np.asarray(self.t2prime_s) > 0):
            found = f"{float(np.min(np.asarray(self.t2prime_s))):g} s"
            raise InputError(Problem("Tissue t2prime_s", found, "above 0 s, infinite for none"))
        check_t2_of_t1("Tissue", self.t1_s, self.t2_s)

    def _check_parts(self) -> None:
        kinds = [("tensor", self.tensor, DiffusionTensor), ("semisolid", self.semisolid, SemiSolid)]
        kinds += [("pools", pool, Pool) for pool in self.pools]
        for name, part, kind in kinds:
            if part is not None and not isinstance(part, kind):
                found = type(part).__name__
                raise InputError(Problem(f"Tissue {name}", f"a {found}", f"a {kind.__name__}"))

    def _check_tensor(self, tensor: DiffusionTensor) -> None:
        leaves = jax.tree.leaves((tensor, self.adc_mm2_per_s))
        if any(isinstance(leaf, Tracer) for leaf in leaves):
            return
        if np.any(np.asarray(self.adc_mm2_per_s) != 0):
            found = "an ADC and a diffusion tensor"
            raise InputError(Problem("Tissue", found, "one of them"))
        lowest, highest = np.linalg.eigvalsh(np.asarray(tensor.matrix()))[..., [0, 2]].T
        if not (np.all(lowest >= -1e-9) and np.all(highest <= 0.01)):
            found = f"eigenvalues from {np.min(lowest):g} to {np.max(highest):g} mm²/s"
            raise InputError(
                Problem("Tissue tensor", found, "0 to 0.01 mm²/s", "m²/s or µm²/ms given for mm²/s")
            )

    @property
    def t2star_s(self) -> Float[Array, "..."]:
        """1 / (1/T2 + 1/T2')."""
        return 1 / (1 / self.t2_s + 1 / self.t2prime_s)

    @property
    def voxel_shape(self) -> tuple[int, ...]:
        """The shape all fields broadcast to."""
        return np.broadcast_shapes(*(value.shape for value in jax.tree.leaves(self)))

    def broadcast(self) -> "Tissue":
        """The same tissue with every field of shape `voxel_shape`."""
        return jax.tree.map(lambda value: jnp.broadcast_to(value, self.voxel_shape), self)


class Measured(NamedTuple):
    """A published value with its standard deviation between subjects (None: not given)."""

    value: float
    sd: float | None
    source: str


class Literature(NamedTuple):
    """What is published of a tissue at one field; None where no source is at hand."""

    t1_s: Measured
    t2_s: Measured
    adc_mm2_per_s: Measured | None
    m0: Measured | None


STANISZ = "Stanisz et al. 2005, doi 10.1002/mrm.20605 (bovine, 37 °C)"
ROONEY = "Rooney et al. 2007, doi 10.1002/mrm.21122 (no dependence on field found)"
SPIJKERMAN = "Spijkerman et al. 2018, doi 10.1007/s10334-017-0659-3 (3 T, taken for 1.5 T too)"
HELENIUS = "Helenius et al. 2002, AJNR Am J Neuroradiol 23:194-199 (1.5 T, 80 adults)"
HOLZ = "Holz et al. 2000, doi 10.1039/b005319h (free water, 37 °C)"
OROS = "Oros-Peusquens et al. 2019, doi 10.3389/fneur.2019.01333 (3 T, 21 adults)"
DE_BLANK = "de Blank et al. 2019, doi 10.1159/000501696 (3 T, high grade, children, young adults)"
TOH = "Toh et al. 2008, doi 10.3174/ajnr.A0872 (glioblastoma, solid enhancing part)"
RAKOW_PENNER = "Rakow-Penner et al. 2006, doi 10.1002/jmri.20469"
PARSIAN = "Parsian et al. 2012, doi 10.1148/radiol.12112672 (normal tissue at biopsy)"

_WHITE_ADC, _WHITE_M0 = Measured(0.70e-3, 0.03e-3, HELENIUS), Measured(0.691, 0.017, OROS)
_GREY_ADC, _GREY_M0 = Measured(0.89e-3, 0.04e-3, HELENIUS), Measured(0.837, 0.012, OROS)
_CSF = Literature(
    Measured(4.3, 0.2, ROONEY),
    Measured(2.03, None, SPIJKERMAN),
    Measured(WATER_DIFFUSIVITY_37C_MM2_PER_S, None, HOLZ),
    Measured(1.0, None, OROS),
)
_FIBROGLANDULAR_ADC = Measured(1.81e-3, 0.47e-3, PARSIAN)


def _relaxation(t1_ms, t2_ms, source, adc=None, m0=None) -> Literature:
    t1, t2 = (Measured(value / 1e3, sd / 1e3, source) for value, sd in (t1_ms, t2_ms))
    return Literature(t1, t2, adc, m0)


LITERATURE: dict[str, dict[float, Literature]] = {
    "white_matter": {
        1.5: _relaxation((884, 50), (72, 4), STANISZ, _WHITE_ADC, _WHITE_M0),
        3.0: _relaxation((1084, 45), (69, 3), STANISZ, _WHITE_ADC, _WHITE_M0),
    },
    "grey_matter": {
        1.5: _relaxation((1124, 50), (95, 8), STANISZ, _GREY_ADC, _GREY_M0),
        3.0: _relaxation((1820, 114), (99, 7), STANISZ, _GREY_ADC, _GREY_M0),
    },
    "csf": {1.5: _CSF, 3.0: _CSF},
    "glioma": {
        3.0: _relaxation((1863, 70), (90, 13), DE_BLANK, Measured(0.963e-3, 0.119e-3, TOH)),
    },
    "fibroglandular": {
        1.5: _relaxation((1266.2, 81.8), (57.5, 10.2), RAKOW_PENNER, _FIBROGLANDULAR_ADC),
        3.0: _relaxation((1444.8, 92.7), (54.4, 9.4), RAKOW_PENNER, _FIBROGLANDULAR_ADC),
    },
    "adipose": {
        1.5: _relaxation((296.0, 12.9), (53.3, 2.1), RAKOW_PENNER),
        3.0: _relaxation((366.8, 7.8), (53.0, 1.5), RAKOW_PENNER),
    },
}


def literature_entry(name: str, field_t: float | int) -> Literature:
    """The published values of a tissue at 1.5 or 3 T, each with its source.

    Raises InputError for a tissue or field that the table does not hold.

    >>> literature_entry("white_matter", 3.0).t1_s.source
    'Stanisz et al. 2005, doi 10.1002/mrm.20605 (bovine, 37 °C)'
    """
    if name not in LITERATURE:
        raise InputError(Problem("tissue", repr(name), f"one of {', '.join(LITERATURE)}"))
    if field_t not in LITERATURE[name]:
        fields = " or ".join(f"{field:g} T" for field in LITERATURE[name])
        raise InputError(Problem(f"tissue {name}", f"{field_t:g} T", fields))
    return LITERATURE[name][field_t]


def literature(name: str, field_t: float | int = 3.0, shape: tuple[int, ...] = ()) -> Tissue:
    """A Tissue of published mean values, filling `shape`.

    Where no source is at hand, m0 is that of free water and the ADC is 0; `literature_entry` tells.
    Raises InputError for a tissue or field that the table does not hold.

    >>> float(literature("csf", field_t=1.5).m0)
    1.0
    """
    entry = literature_entry(name, field_t)
    known: dict[str, Any] = {
        key: jnp.full(shape, measured.value)
        for key, measured in entry._asdict().items()
        if measured
    }
    return Tissue(**known)
