"""What other images show of a tumour's state, and how noisy they are.

label_probabilities     densities -> shares of background, necrosis, oedema, enhancement
LabelledMask            a visit with drawn labels: one visible volume for each contour
transfer_per_min        vessels -> Ktrans of dynamic contrast enhancement
Tracer                  cells -> uptake of positron emission tomography, blurred by its resolution
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, ArrayLike, Bool, Float, Int

from mrphys.errors import InputError, Problem
from oncology.growth import Parameters
from oncology.observe import (
    ENHANCING_THRESHOLD,
    FLAIR_THRESHOLD,
    Observation,
    VisibleMask,
    visible_volume_mm3,
)

NECROTIC, OEDEMA, ENHANCING = 1, 2, 4
"""The BraTS labels (Menze et al. 2015, doi:10.1109/TMI.2014.2377694); 0 is background."""
LABELS = np.array([0, NECROTIC, OEDEMA, ENHANCING])

NECROTIC_SHARE = 0.5
"""Share of dead cells in a voxel beyond which a core is drawn as necrotic."""
WIDTH = 0.02


def label_probabilities(
    cells: Float[Array, "..."],
    necrotic: Float[Array, "..."] | None = None,
    *,
    oedema: ArrayLike = FLAIR_THRESHOLD,
    enhancing: ArrayLike = ENHANCING_THRESHOLD,
    necrosis: ArrayLike = NECROTIC_SHARE,
    width: ArrayLike = WIDTH,
) -> Float[Array, "4 ..."]:
    """How likely each of LABELS is drawn at a density of living cells and one of dead ones.

    A contour follows a threshold of the total to within `width`, a logistic scale in density;
    inside that of the whole tumour, dead tissue is necrotic and the densest enhances. The four add
    up to 1. Thresholds: Swanson 2008, doi:10.1038/sj.bjc.6604125.
    """
    dead = jnp.zeros_like(cells) if necrotic is None else necrotic
    total = cells + dead

    def beyond(density: Array, threshold: ArrayLike) -> Array:
        return jax.nn.sigmoid((density - threshold) / width)

    whole, core = beyond(total, oedema), beyond(dead, necrosis)
    dense = beyond(total, enhancing)
    inside = whole * (1 - core)
    return jnp.stack([1 - whole, whole * core, inside * (1 - dense), inside * dense])


def draw_labels(probabilities: Float[Array, "4 ..."], key: Array) -> Int[Array, "..."]:
    """One labelled map as a reader may draw it, voxel by voxel."""
    drawn = jax.random.categorical(key, jnp.log(probabilities + 1e-12), axis=0)
    return jnp.asarray(LABELS)[drawn]


class LabelledMask(Observation):
    """A visit with labels: the whole tumour at the T2/FLAIR threshold, its core (enhancing and
    necrotic) at that of enhancement.

    The state is that of the whole tumour's contour, as in `VisibleMask`; a prediction is compared
    by the logarithms of both visible volumes. Raises InputError for labels of another kind, and
    where a label is missing.
    """

    whole: VisibleMask
    core: VisibleMask
    mask: Bool[Array, "x y z"]

    def __init__(self, labels, habitable, spacing_mm: tuple, log_volume_sd: float = 0.15):
        labels = np.asarray(labels)
        unknown = sorted(set(np.unique(labels).tolist()) - set(LABELS.tolist()))
        if unknown:
            cause = "labels of another convention (3 for enhancing in BraTS since 2023)"
            raise InputError(Problem("labels", f"{unknown}", "0, 1, 2 and 4", cause))
        core = np.isin(labels, (NECROTIC, ENHANCING))
        whole = labels > 0
        self.whole = VisibleMask(whole, habitable, spacing_mm, FLAIR_THRESHOLD, log_volume_sd)
        self.core = VisibleMask(core, habitable, spacing_mm, ENHANCING_THRESHOLD, log_volume_sd)
        self.mask = self.whole.mask

    @property
    def threshold(self) -> float:
        """Density at the edge of the whole."""
        return self.whole.threshold

    @property
    def error_sd(self) -> Float[Array, ""]:
        return self.whole.error_sd

    def state(self, p: Parameters, error: Float[Array, ""]) -> Float[Array, "x y z"]:
        return self.whole.state(p, error)

    def residual(self, u: Float[Array, "x y z"]) -> Float[Array, " 2"]:
        return jnp.concatenate([self.whole.residual(u), self.core.residual(u)])

    @property
    def noise_share(self) -> Float[Array, " 2"]:
        return jnp.concatenate([self.whole.noise_share, self.core.noise_share])

    def volumes_mm3(self, u: Float[Array, "x y z"]) -> Float[Array, " 2"]:
        """Visible volumes of a state: whole and core."""
        voxel = self.whole.voxel_volume_mm3
        seen = (self.whole.threshold, self.core.threshold)
        return jnp.stack([visible_volume_mm3(u, threshold, voxel) for threshold in seen])


def transfer_per_min(
    vessels: Float[Array, "..."], normal_per_min: ArrayLike, full_per_min: ArrayLike
) -> Float[Array, "..."]:
    """Ktrans, 1/min, of a density of leaky vessels: linear from that of normal tissue to that of a
    full voxel. `mr.perfusion` makes images of it, and maps of them.

    >>> float(transfer_per_min(jnp.asarray(0.5), 0.0, 0.2).round(3))
    0.1
    """
    low = jnp.asarray(normal_per_min)
    return low + (jnp.asarray(full_per_min) - low) * vessels


class Tracer(eqx.Module):
    """Uptake of a tracer, relative to normal tissue: 1 + `contrast` times the density of living
    cells, seen with a Gaussian point spread of `fwhm_mm` and noise that grows with its root.

    `noise_sd` is that of a voxel of normal tissue. Edges are those of a closed box. Contrast 1 to 3
    for amino acids in glioma: Albert et al. 2016, doi:10.1093/neuonc/now058.
    """

    along_axis: tuple[Float[Array, "n n"], ...]
    contrast: float = eqx.field(static=True)
    noise_sd: float = eqx.field(static=True)

    def __init__(
        self,
        shape: tuple[int, ...],
        spacing_mm: tuple[float, ...],
        fwhm_mm: float = 5.0,
        contrast: float = 2.0,
        noise_sd: float = 0.1,
    ):
        if not fwhm_mm > 0:
            raise InputError(Problem("Tracer", f"fwhm_mm = {fwhm_mm:g}", "above zero"))
        blurs = []
        for n, h in zip(shape, spacing_mm, strict=True):
            apart = (np.arange(n)[:, None] - np.arange(n)) * h
            mirrored = (np.arange(n)[:, None] + np.arange(n) + 1) * h
            sd = fwhm_mm / np.sqrt(8 * np.log(2))
            images = [x + 2 * n * h * turn for x in (apart, mirrored) for turn in (-1, 0, 1)]
            kernel = np.exp(-(np.stack(images) ** 2) / (2 * sd**2)).sum(axis=0)
            blurs.append(jnp.asarray(kernel / kernel.sum(0, keepdims=True)))
        self.along_axis = tuple(blurs)
        self.contrast, self.noise_sd = contrast, noise_sd

    def uptake(self, living: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """What is expected to be seen."""
        seen = 1 + self.contrast * living
        for axis, blur in enumerate(self.along_axis):
            seen = jnp.moveaxis(jnp.tensordot(blur.astype(seen.dtype), seen, (1, axis)), 0, axis)
        return seen

    def sd(self, living: Float[Array, "x y z"]) -> Float[Array, "x y z"]:
        """Standard deviation of a voxel."""
        return self.noise_sd * jnp.sqrt(self.uptake(living))

    def scan(self, living: Float[Array, "x y z"], key: Array) -> Float[Array, "x y z"]:
        """One noisy image."""
        noise = jax.random.normal(key, living.shape, living.dtype)
        return self.uptake(living) + self.sd(living) * noise
