"""What a reconstruction found, and how it ended."""

import equinox as eqx
from jaxtyping import Array, Float, Inexact, Int

CONVERGED, STOPPED, UNREACHED = range(3)


class Reconstruction(eqx.Module):
    """An image, and how far to trust it.

    image           x, as A takes it
    sd              of its real part, by pseudo-replicas; None unless they were asked for
    regularisation  λ, given or found; 0 without
    residual        sd of the real part of what the image leaves over in a datum,
                    sqrt(|A x - y|² / 2M) of M data: near noise_sd where the discrepancy holds
    iterations      of the last search
    history         what the stopping rule watches, after each iteration; NaN beyond the last
    status          CONVERGED; STOPPED: iterations ran out before the tolerance was met; UNREACHED:
                    no λ leaves as much as the noise, this one comes nearest
    """

    image: Inexact[Array, "..."]
    sd: Float[Array, "..."] | None
    regularisation: Float[Array, ""]
    residual: Float[Array, ""]
    iterations: Int[Array, ""]
    history: Float[Array, " iterations"]
    status: Int[Array, ""]

    @property
    def converged(self) -> bool:
        """Whether the stopping rule was met, and the discrepancy where it was asked for."""
        return bool(self.status == CONVERGED)
