"""Where a patient's tumour is modelled: the tissue around it, cut out of the images' grid."""

import math
from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from scipy import ndimage

from mrphys.errors import InputError, Problem
from mrphys.volume import Volume
from oncology.anisotropy import cell_tensor, checked_tensor, tensor_faces
from oncology.cohort import Patient, Visit
from oncology.growth import GrowthMap, ReactionDiffusion
from oncology.quality import PLAUSIBLE, cavity_overlap


class Crop(eqx.Module):
    """A box of a larger grid."""

    box: tuple[tuple[int, int], ...] = eqx.field(static=True)
    full_shape: tuple[int, int, int] = eqx.field(static=True)

    @property
    def slices(self) -> tuple[slice, ...]:
        """The box as indices of the larger grid."""
        return tuple(slice(start, stop) for start, stop in self.box)

    def cut(self, volume: Volume) -> np.ndarray:
        """The box of an image on the larger grid."""
        return np.asarray(volume.data)[self.slices]

    def paste(self, field: Float[Array, "x y z"] | np.ndarray) -> np.ndarray:
        """The field on the larger grid, zero outside the box."""
        full = np.zeros(self.full_shape, np.asarray(field).dtype)
        full[self.slices] = np.asarray(field)
        return full


def reach_mm(
    days: float, diffusivity_mm2_per_day: float, growth_rate_per_day: float, least: float = 1e-3
) -> float:
    r"""How far beyond the tumour's edge density can exceed `least` after `days`.

    By comparison with linear growth, u <= exp(kt) P(a cell diffuses that far), and along any
    axis the latter is at most 2 exp(-d² / 4Dt): d = √(4 D t (k t + ln(2 / least))). The front
    itself, at 2 √(D k) t, is always inside (Fife 1979, doi:10.1007/978-3-642-93111-6, ch. 4).
    """
    growth = growth_rate_per_day * days + math.log(2 / least)
    return math.sqrt(4 * diffusivity_mm2_per_day * days * max(growth, 0.0))


def crop_around(visits: Sequence[Visit], margin_mm: float) -> Crop:
    """The box holding every visit's tumour and `margin_mm` on all sides, within the grid.

    Raises InputError when no visit has tumour.
    """
    masks = [np.asarray(visit.tumor.data) for visit in visits if not visit.planned]
    union = np.logical_or.reduce(masks) if masks else np.zeros((1, 1, 1), bool)
    if not union.any():
        raise InputError(Problem("crop_around", "no tumour at any visit", "a drawn tumour"))
    spacing = next(v.tumor.spacing_mm for v in visits if not v.planned)
    return Crop(_box(union, spacing, margin_mm), union.shape)


def cut_to_reach(
    model: ReactionDiffusion,
    u: Float[Array, "x y z"] | np.ndarray,
    days: float,
    diffusivity_mm2_per_day: float,
    growth_rate_per_day: float,
    least: float = 1e-3,
) -> tuple[Crop, ReactionDiffusion]:
    """The model on the box beyond which density stays under `least` for so many days from u, and
    that box. Rates are the largest there are. Raises InputError where u has no cells."""
    seen = np.asarray(u) > least
    if not seen.any():
        raise InputError(Problem("cut_to_reach", f"nothing above {least:g}", "a tumour"))
    margin = reach_mm(days, diffusivity_mm2_per_day, growth_rate_per_day, least)
    crop = Crop(_box(seen, model.spacing_mm, margin), seen.shape)
    grids = eqx.filter(model, lambda leaf: eqx.is_array(leaf) and leaf.shape == seen.shape)
    cut = jax.tree.map(lambda leaf: leaf[crop.slices], grids)
    if model.tensor is not None:
        cause = "cut the maps before `tensor_faces`"
        raise InputError(Problem("cut_to_reach", "a model with tensors", "one without", cause))
    if isinstance(model.growth_map, GrowthMap):
        along = zip(model.growth_map.along_axis, crop.slices, strict=True)
        bases = tuple(basis[part] for basis, part in along)
        cut = eqx.tree_at(
            lambda m: m.growth_map.along_axis, cut, bases, is_leaf=lambda x: x is None
        )
    return crop, eqx.combine(cut, model)


def _box(
    mask: np.ndarray, spacing_mm: Sequence[float], margin_mm: float
) -> tuple[tuple[int, int], ...]:
    """The box of a mask with a margin on all sides, within the grid."""
    box = []
    for axis, (n, step) in enumerate(zip(mask.shape, spacing_mm, strict=True)):
        along = np.flatnonzero(mask.any(axis=tuple(a for a in range(3) if a != axis)))
        margin = math.ceil(margin_mm / step)
        box.append((max(int(along[0]) - margin, 0), min(int(along[-1]) + margin + 1, n)))
    return tuple(box)


def habitable_tissue(patient: Patient, crop: Crop, seen: Sequence[Visit] = ()) -> np.ndarray:
    """Where cells can live: the tissue mask, or brain where tissue probabilities say so, or, with
    neither, anywhere; and wherever tumour was seen at the visits `seen` (all, unless given)."""
    tissue = patient.earliest("tissue")
    white, grey = patient.earliest("white_matter"), patient.earliest("grey_matter")
    if tissue is not None:
        habitable = crop.cut(tissue) > 0.5
    elif white is not None and grey is not None:
        habitable = crop.cut(white) + crop.cut(grey) > 0.25
    else:
        return np.ones([stop - start for start, stop in crop.box], bool)
    seen = seen or patient.scanned
    for visit in seen:
        habitable = habitable | crop.cut(visit.tumor)
    labels = np.empty(habitable.shape, np.int32)
    if ndimage.label(habitable, output=labels) != 1:
        tumor = np.logical_or.reduce([crop.cut(visit.tumor) for visit in seen])
        habitable = np.isin(labels, np.unique(labels[tumor])[np.unique(labels[tumor]) > 0])
    return habitable


def _empty_cavity(patient: Patient, cavity: Volume, crop: Crop) -> np.ndarray:
    """The cavity of a resection on a box. Raises InputError where tumour is drawn inside it on a
    scan that shows it."""
    overlaps = [p for visit in patient.scanned for p in cavity_overlap(patient, visit)]
    if overlaps:
        raise InputError(*overlaps)
    return crop.cut(cavity) > 0.5


def model_for(patient: Patient, crop: Crop, seen: Sequence[Visit] = ()) -> ReactionDiffusion:
    """The reaction-diffusion model of one patient on a box of the images' grid: habitable tissue,
    transport by tissue where it is known, drug delivery and dose maps where there are any. Only
    tumour at the visits `seen` tells where cells can live, not that to be forecast."""

    def image(name: str, scale: float = 1.0) -> Array | None:
        volume = patient.earliest(name)
        return None if volume is None else jnp.asarray(crop.cut(volume) / scale)

    dose = patient.earliest("dose_gy")
    prescribed = 1.0 if dose is None else float(np.max(np.asarray(dose.data)))
    _, largest, cause = PLAUSIBLE["dose_gy"]
    if prescribed > largest:
        found, expected = f"up to {prescribed:g} Gy", f"at most {largest:g} Gy"
        raise InputError(Problem("dose map", found, expected, cause))
    habitable = habitable_tissue(patient, crop, seen)
    measured = patient.earliest("tensor_mm2_per_s")
    faces = None
    if measured is not None:
        water, _ = checked_tensor(np.asarray(crop.cut(measured)), habitable)
        faces = tensor_faces(cell_tensor(water), habitable, measured.spacing_mm)
    cavity = patient.earliest("cavity")
    return ReactionDiffusion(
        habitable=jnp.asarray(habitable),
        cavity=None if cavity is None else jnp.asarray(_empty_cavity(patient, cavity, crop)),
        tensor=faces,
        white_matter=image("white_matter"),
        grey_matter=image("grey_matter"),
        drug_delivery=image("drug_delivery"),
        dose_shape=image("dose_gy", prescribed),
        spacing_mm=patient.scanned[0].tumor.spacing_mm,
    )
