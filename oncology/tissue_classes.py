"""Brain, fluid and white matter told apart on one T1-weighted image, as far as it shows them.

No atlas and no network: intensities and shape. Parenchyma is the commonest brightness of a head;
what is darker is fluid, what is brighter is fat, vessel or enhancement. White and grey matter are
two normal distributions of the image with its slow shading removed; where they overlap so far that
voxels cannot be assigned (d' below `TELLING`), the answer is that they cannot be told apart.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from mrphys.errors import InputError, Problem

DARK, BRIGHT = 0.65, 1.4
"""Of the brightness of parenchyma: fluid below, fat and vessels above."""
NECK_MM, SHADING_MM = 4.0, 25.0
TELLING = 2.0
"""d' from which white and grey matter count as told apart: 84 % of voxels are then right."""
LEAST_SHARE = 0.15
"""Of either: a distribution of fewer voxels is not a tissue but what the other leaves."""


@dataclass(frozen=True, eq=False)
class Tissue:
    """What one image shows. `white_matter` is a probability in the parenchyma, None where white and
    grey matter cannot be told apart; d' is the distance of their means in standard deviations."""

    brain: Bool[np.ndarray, "x y z"]
    fluid: Bool[np.ndarray, "x y z"]
    white_matter: Float[np.ndarray, "x y z"] | None
    d_prime: float

    @property
    def parenchyma(self) -> Bool[np.ndarray, "x y z"]:
        """Where cells can live."""
        return self.brain & ~self.fluid

    def relative_diffusivity(self, grey_to_white: float = 0.2) -> Float[np.ndarray, "x y z"]:
        """D(x) / D: by tissue where it is known, else 1 in all parenchyma."""
        if self.white_matter is None:
            return self.parenchyma.astype(float)
        share = self.white_matter + grey_to_white * (1 - self.white_matter)
        return share * self.parenchyma


def classify(
    t1w: Float[np.ndarray, "x y z"],
    tumor: Bool[np.ndarray, "x y z"],
    spacing_mm: tuple[float, float, float],
) -> Tissue:
    """Brain, fluid and, where it shows, white matter. The tumour is brain whatever its brightness.

    Raises InputError for an image without parenchyma: no peak of brightness above the background.
    """
    image = np.asarray(t1w, float)
    usual = _commonest(image)
    inside = (image > DARK * usual) & (image < BRIGHT * usual)
    core = np.zeros_like(inside)
    radius = [NECK_MM / h for h in spacing_mm[:2]]
    disc = _disc(radius)
    for k in range(image.shape[2]):
        core[..., k] = ndimage.binary_opening(inside[..., k], disc)
    labels = np.empty(core.shape, np.int32)
    if not ndimage.label(core, output=labels):
        raise InputError(Problem("tissue.classify", "no connected parenchyma", "a head"))
    sizes = np.bincount(labels.ravel())[1:]
    brain = labels == 1 + int(sizes.argmax())
    for k in range(image.shape[2]):
        around = np.pad(brain[..., k], 16)
        closed = ndimage.binary_closing(around, disc, iterations=2)[16:-16, 16:-16]
        brain[..., k] = ndimage.binary_fill_holes(closed)
    brain |= tumor
    smooth = np.asarray(ndimage.gaussian_filter(image, [1.0 / h for h in spacing_mm[:2]] + [0.0]))
    fluid = brain & (smooth < DARK * usual) & ~tumor
    near = np.asarray(ndimage.binary_dilation(tumor, iterations=3), bool)
    even = brain & ~fluid & ~near & inside
    weight = ndimage.gaussian_filter(even.astype(float), [SHADING_MM / h for h in spacing_mm])
    shade = ndimage.gaussian_filter(image * even, [SHADING_MM / h for h in spacing_mm])
    flat = smooth / np.maximum(shade / np.maximum(weight, 1e-3), 0.1 * usual)
    share, d_prime = two_classes(flat[even])
    if d_prime < TELLING:
        return Tissue(brain, fluid, None, d_prime)
    return Tissue(brain, fluid, np.where(brain & ~fluid, share(flat), 0.0), d_prime)


def _commonest(image: np.ndarray) -> float:
    """Of the brightness of parenchyma: the highest peak above the first third of the range."""
    top = float(np.percentile(image, 99))
    counts, edges = np.histogram(image[image > 0.15 * top], 200)
    if not top > 0 or counts.sum() < 100:
        raise InputError(Problem("tissue.classify", "one value nearly everywhere", "an image"))
    smooth = ndimage.gaussian_filter1d(counts.astype(float), 3)
    return float(edges[int(smooth.argmax())] + np.diff(edges[:2])[0] / 2)


def _disc(radius: list[float]) -> np.ndarray:
    reach = [max(1, int(np.ceil(r))) for r in radius]
    x, y = np.ogrid[-reach[0] : reach[0] + 1, -reach[1] : reach[1] + 1]
    return (x / radius[0]) ** 2 + (y / radius[1]) ** 2 <= 1


def two_classes(
    values: Float[np.ndarray, " n"], iterations: int = 200
) -> tuple[Callable[[np.ndarray], np.ndarray], float]:
    """Two normal distributions by expectation and maximisation: a function that gives the
    probability of the brighter one, and d' of the two, 0 where one has less than `LEAST_SHARE`.

    Dempster, Laird, Rubin 1977, doi:10.1111/j.2517-6161.1977.tb01600.x.
    """
    mean = np.quantile(values, [0.25, 0.75])
    sd, share = np.full(2, values.std()), np.full(2, 0.5)

    def chance(x: np.ndarray) -> np.ndarray:
        scaled = (x[..., None] - mean) / sd
        log = np.log(share / sd) - scaled**2 / 2
        return 1 / (1 + np.exp(np.clip(log[..., 0] - log[..., 1], -60, 60)))

    for _ in range(iterations):
        bright = chance(values)
        weight = np.stack([1 - bright, bright])
        share = np.maximum(weight.mean(1), 1e-6)
        mean = (weight @ values) / np.maximum(weight.sum(1), 1e-9)
        spread = weight * (values[None] - mean[:, None]) ** 2
        sd = np.sqrt(np.maximum(spread.sum(1) / np.maximum(weight.sum(1), 1e-9), 1e-12))
    d_prime = float((mean[1] - mean[0]) / np.sqrt(np.mean(sd**2)))
    return chance, d_prime if share.min() >= LEAST_SHARE else 0.0
