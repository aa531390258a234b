"""Known truths to measure: the MNI brain, geometric shapes, lesions, and their tissue."""

from collections.abc import Mapping

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Float

from mrphys.errors import InputError, Problem
from mrphys.tissue import Tissue, literature
from mrphys.units import check_range
from mrphys.volume import Volume

Fractions = Mapping[str, ArrayLike]

# The head of the 1 mm template: 148 x 188 x 156 voxels, which 2 and 4 mm voxels tile.
_HEAD = (slice(24, 172), slice(24, 212), slice(0, 156))


class BrainPhantom(eqx.Module):
    """An adult brain: what fraction of each voxel is white matter, grey matter and CSF.

    The three fractions sum to `brain`, which is the fraction of the voxel inside the brain: 0 or 1
    at 1 mm, between at the boundary on coarser grids. `t1w` is a T1-weighted image, 0 to 1.
    """

    white_matter: Volume
    grey_matter: Volume
    csf: Volume
    brain: Volume
    t1w: Volume

    @property
    def fractions(self) -> dict[str, Float[Array | np.ndarray, "x y z"]]:
        """By the names of the tissue literature."""
        names = ("white_matter", "grey_matter", "csf")
        return {name: getattr(self, name).data for name in names}

    def tissue(self, field_t: float | int = 3.0) -> Tissue:
        """`tissue_from_fractions` of this brain."""
        return tissue_from_fractions(self.fractions, field_t)


def brain(spacing_mm: float | int = 2.0) -> BrainPhantom:
    """The MNI152 average brain at 1, 2 or 4 mm, from the maps that nilearn ships; no download.

    Coarser grids are exact block means of the 1 mm grid and lie in the same physical space, so a
    truth at one spacing and a model at another describe one patient. CSF is what of the brain mask
    is neither white nor grey matter. The template is larger than most brains and symmetric.
    Raises InputError for another spacing.

    Source: Fonov et al. 2011, doi 10.1016/j.neuroimage.2010.07.033.
    """
    if spacing_mm not in (1, 2, 4):
        raise InputError(Problem("brain: spacing_mm", f"{spacing_mm} mm", "1, 2 or 4 mm"))
    from nilearn import datasets

    image = datasets.load_mni152_template(resolution=1)
    t1w, white, grey, mask = (
        np.asarray(load(resolution=1).dataobj, np.float32)[_HEAD]
        for load in (
            datasets.load_mni152_template,
            datasets.load_mni152_wm_template,
            datasets.load_mni152_gm_template,
            datasets.load_mni152_brain_mask,
        )
    )
    affine = np.array(image.affine)
    affine[:3, 3] += affine[:3, :3] @ [axis.start for axis in _HEAD]
    total = np.maximum(white + grey, 1)
    white, grey = mask * white / total, mask * grey / total
    maps = (white, grey, mask - white - grey, mask, t1w)
    return BrainPhantom(*(_block_mean(Volume(data, affine), int(spacing_mm)) for data in maps))


def _block_mean(volume: Volume, size: int) -> Volume:
    """Means over cubes of size³ voxels, which must tile the volume."""
    x, y, z = (length // size for length in volume.shape)
    blocks = np.asarray(volume.data, np.float64).reshape(x, size, y, size, z, size)
    affine = volume.affine
    affine[:3, 3] += affine[:3, :3] @ np.full(3, (size - 1) / 2)
    affine[:3, :3] *= size
    return Volume(blocks.mean((1, 3, 5)).astype(volume.data.dtype), affine)


def sphere(
    shape: tuple[int, int, int],
    spacing_mm: float | tuple[float, float, float],
    radius_mm: ArrayLike,
    centre_mm: tuple[float, float, float] = (0.0, 0.0, 0.0),
) -> Volume:
    """The fraction of each voxel inside a sphere, on a grid centred at the origin.

    The boundary is a ramp one voxel wide along its normal, so the volume is right to second order
    in spacing / radius. Differentiable in radius_mm. Raises InputError for a negative radius or a
    spacing <= 0.
    """
    spacing = np.broadcast_to(np.asarray(spacing_mm, float), (3,))
    check_range("sphere: spacing_mm", spacing, 1e-6, np.inf, "mm")
    check_range("sphere: radius_mm", radius_mm, 0.0, np.inf, "mm")
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = -spacing * (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    offset = index * spacing + affine[:3, 3] - np.asarray(centre_mm)
    distance = np.linalg.norm(offset, axis=-1)
    along = np.linalg.norm(offset * spacing, axis=-1)
    width = np.where(distance > 0, along / np.where(distance > 0, distance, 1), spacing.min())
    return Volume(jnp.clip((radius_mm - distance) / width + 0.5, 0.0, 1.0), affine)


def with_lesion(
    fractions: Fractions, name: str, lesion: Float[Array | np.ndarray, "*voxels"]
) -> dict[str, Array]:
    """Fractions after a lesion has replaced its share of every tissue in the voxel.

    The lesion, between 0 and 1, takes that part of what is there, so the sum is unchanged; to an
    existing fraction of that name it adds. Raises InputError outside 0 to 1.
    """
    check_range("with_lesion: lesion", lesion, 0.0, 1.0, "of the voxel")
    spared = {key: jnp.asarray(value) * (1 - lesion) for key, value in fractions.items()}
    taken = sum((jnp.asarray(value) * lesion for value in fractions.values()), jnp.zeros(()))
    return {**spared, name: spared.get(name, 0.0) + taken}


def tissue_from_fractions(fractions: Fractions, field_t: float | int = 3.0) -> Tissue:
    """The tissue of voxels that mix several, from literature values at 1.5 or 3 T.

    fractions  by literature name, each between 0 and 1, arrays of one shape, summing to 1 or less

    m0 is Σ f m0, so what is left of the voxel is empty. 1/T1, 1/T2 and the ADC are means weighted
    by volume, as for water in fast exchange; a sum of separate decays would differ. Where a voxel
    is empty they are the plain mean of the tissues named. Differentiable in the fractions. Raises
    InputError for unknown names or fields, and for fractions outside 0 to 1.
    """
    if not fractions:
        raise InputError(Problem("tissue_from_fractions", "no fractions", "one tissue or more"))
    pure = [literature(name, field_t) for name in fractions]
    parts = jnp.stack([jnp.asarray(part) for part in fractions.values()])
    check_range("tissue_from_fractions", parts, -1e-6, 1 + 1e-6, "of the voxel", "per cent")
    total = parts.sum(0)
    check_range("tissue_from_fractions: sum", total, -1e-6, 1 + 1e-5, "of the voxel", "overlap")
    empty = total <= 0
    weights = jnp.where(empty[None], 1 / len(pure), parts / jnp.where(empty, 1.0, total)[None])

    def mix(values, weights):
        return jnp.tensordot(jnp.stack(values).astype(weights.dtype), weights, axes=1)

    return Tissue(
        m0=mix([tissue.m0 for tissue in pure], parts),
        t1_s=1 / mix([1 / tissue.t1_s for tissue in pure], weights),
        t2_s=1 / mix([1 / tissue.t2_s for tissue in pure], weights),
        adc_mm2_per_s=mix([tissue.adc_mm2_per_s for tissue in pure], weights),
    )
