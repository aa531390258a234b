"""What makes a signal of more than one image: subspaces, slices at once, shots, off-resonance.

    y_j = Σ_l b_lj F(w_l x_s(l))_j

Each term l has a weight b for each sample, a weight w for each voxel, and reads one of the images.
"""

import equinox as eqx
import jax.numpy as jnp
from jaxtyping import Array, Inexact


class Terms(eqx.Module):
    """The sum over l.

    over_samples  b, (*frames, terms, *samples), axes of one entry where it is alike
    over_voxels   w, (terms, *shape), or None where it is 1
    images        how many images there are, on an axis of x before those of space; 0: one, no axis
    reads         which image each term reads
    slices        which of several slices each term is of, and so of the maps of the coils
    mixes         whether all frames are made of the same images, not each of its own
    sample_axes   axes of samples
    """

    over_samples: Inexact[Array, "..."]
    over_voxels: Inexact[Array, "..."] | None
    images: int = eqx.field(static=True)
    reads: tuple[int, ...] = eqx.field(static=True)
    slices: tuple[int, ...] = eqx.field(static=True)
    mixes: bool = eqx.field(static=True)
    sample_axes: int = eqx.field(static=True)

    def times(self, other: "Terms") -> "Terms":
        """Both sums at once: a term for each pair, and an image for each pair of images, the
        other's fastest."""
        after = self.over_samples.ndim - self.sample_axes
        left = jnp.expand_dims(self.over_samples, after)
        samples = left * jnp.expand_dims(other.over_samples, after - 1)
        samples = samples.reshape(*samples.shape[: after - 1], -1, *samples.shape[after + 1 :])
        pairs = [(i, j) for i in range(len(self.reads)) for j in range(len(other.reads))]
        parts = [
            part.over_voxels[jnp.asarray(index)]
            for part, index in zip((self, other), zip(*pairs, strict=True), strict=True)
            if part.over_voxels is not None
        ]
        fastest = max(other.images, 1)
        return Terms(
            samples,
            None if not parts else parts[0] if len(parts) == 1 else parts[0] * parts[1],
            max(self.images, 1) * fastest if self.images or other.images else 0,
            tuple(self.reads[i] * fastest + other.reads[j] for i, j in pairs),
            tuple(self.slices[i] + other.slices[j] for i, j in pairs),
            self.mixes or other.mixes,
            self.sample_axes,
        )
