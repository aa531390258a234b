"""The whole chain as one differentiable function: acquisition -> ADC -> cellularity -> calibration
-> forecast -> error, and the forecast's uncertainty as thermal noise alone would make it.

One gradient runs from the last of these back to each b-value and number of averages.
"""

from collections.abc import Mapping

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

import mrphys as mr
from mrphys.apparent_diffusion import fit_adc
from mrphys.noise import complex_gaussian
from mrphys.sequence.diffusion import DiffusionWeighted
from oncology.calibration import CellularityScale
from oncology.growth import ReactionDiffusion
from oncology.inverse import Inverse, assimilate, estimate
from oncology.observe import CellularityMap, cellularity
from oncology.priors import LogNormal, physical
from oncology.timeline import Steps, integrate
from oncology.treatment import Plan


class Chain(eqx.Module):
    """A tumour to be scanned on two days and forecast for a third.

    `tissue` holds q of the voxels inside the drawn tumour at each scan, `first_state` the true
    cellularity at the first; `truth` is the cellularity to be forecast, compared over `scored`.
    """

    model: ReactionDiffusion
    plan: Plan
    legs: tuple[Steps, ...]
    ahead: Steps
    priors: Mapping[str, LogNormal]
    tissue: tuple[mr.Tissue, ...]
    blank: tuple[CellularityMap, ...]
    first_state: Float[Array, "x y z"]
    truth: Float[Array, "x y z"]
    scored: Bool[Array, "x y z"]
    scale: CellularityScale = eqx.field(static=True)
    noise_sd: float = eqx.field(static=True)

    def observe(self, theta: DiffusionWeighted, key: Array) -> tuple[CellularityMap, ...]:
        """Scan every visit, map ADC, turn it into cellularity with its standard deviation."""
        span = self.scale.adc_w_mm2_per_s - self.scale.adc_min_mm2_per_s
        seen = []
        for i, (q, blank) in enumerate(zip(self.tissue, self.blank, strict=True)):
            noise_key = jax.random.fold_in(key, i)
            x = complex_gaussian(theta, mr.simulate(theta, q), self.noise_sd, noise_key)
            adc = fit_adc(theta, x, self.noise_sd)
            value = cellularity(
                adc.adc_mm2_per_s, self.scale.adc_w_mm2_per_s, self.scale.adc_min_mm2_per_s
            )
            seen.append(_filled_in(blank, value, adc.adc_sd_mm2_per_s / span))
        return tuple(seen)

    def forecast(self, theta: DiffusionWeighted, key: Array) -> Float[Array, "x y z"]:
        """The calibrated model's state on the day to be forecast. The calibration is converged so
        tightly that its derivative, by the implicit function theorem, is that of the optimum."""
        observations = self.observe(theta, key)
        inverse = Inverse(self.model, self.plan, observations, self.legs, self.priors)
        found = estimate(inverse, rtol=1e-12)
        u = assimilate(found, found.states[-1], jnp.zeros_like(self.truth))
        return integrate(self.model, self.plan, physical(self.priors, found.z), u, self.ahead)

    def error(self, theta: DiffusionWeighted, key: Array) -> Float[Array, ""]:
        """Root-mean-square error of the forecast cellularity over the scored voxels."""
        squares = jnp.where(self.scored, (self.forecast(theta, key) - self.truth) ** 2, 0.0)
        return jnp.sqrt(jnp.sum(squares) / jnp.sum(self.scored))

    def uncertainty(
        self, theta: DiffusionWeighted, z: Float[Array, " n"], linear: "Linearised"
    ) -> Float[Array, ""]:
        """Relative standard deviation of the forecast's total cellularity that thermal noise at θ
        leaves, linearised at z: noise of the first map, of the last, and the prior."""
        first, last = (self._expected_sd(theta, i) for i in (0, -1))
        weighted = linear.slope / last[:, None]
        hessian = weighted.T @ weighted + jnp.eye(z.size)
        through_start = jax.lax.map(
            lambda column: linear.to_first(column / last**2), linear.slope.T
        )
        from_start = through_start * first[None, :]
        spread = hessian + from_start @ from_start.T
        inverse_hessian = jnp.linalg.inv(hessian)
        gradient = inverse_hessian @ linear.total_slope
        return jnp.sqrt(gradient @ spread @ gradient) / jnp.sum(self.truth)

    def _expected_sd(self, theta: DiffusionWeighted, visit: int) -> Float[Array, " n"]:
        """Cramér-Rao standard deviation of cellularity in each voxel of a visit's tumour."""
        bound = mr.cramer_rao(theta, self.tissue[visit], noise_sd=self.noise_sd)
        return bound["adc_mm2_per_s"] / (self.scale.adc_w_mm2_per_s - self.scale.adc_min_mm2_per_s)

    def linearised(self, z: Float[Array, " n"], first_state: Array) -> "Linearised":
        """How the last map and the forecast's total answer to z and to the first map."""
        first, last = self.blank[0].inside, self.blank[-1].inside

        def seen(z: Array, u: Array) -> Array:
            p = physical(self.priors, z)
            for leg in self.legs:
                u = integrate(self.model, self.plan, p, u, leg)
            return u

        def total(z: Array) -> Array:
            p = physical(self.priors, z)
            return jnp.sum(integrate(self.model, self.plan, p, seen(z, first_state), self.ahead))

        slope = jax.jacfwd(lambda z: seen(z, first_state).ravel()[last])(z)
        return Linearised(slope, jax.jacfwd(total)(z), self, z, first_state, first, last)


class Linearised(eqx.Module):
    """Sensitivities of one chain at one point (see `Chain.linearised`)."""

    slope: Float[Array, "m n"]
    total_slope: Float[Array, " n"]
    chain: Chain
    z: Float[Array, " n"]
    first_state: Float[Array, "x y z"]
    first: Int[Array, " k"]
    last: Int[Array, " m"]

    def to_first(self, column: Float[Array, " m"]) -> Float[Array, " k"]:
        """The transpose of what a change of the first map does to the last."""
        chain = self.chain
        p = physical(chain.priors, self.z)

        def seen(change: Array) -> Array:
            u = self.first_state.ravel().at[self.first].add(change).reshape(self.first_state.shape)
            for leg in chain.legs:
                u = integrate(chain.model, chain.plan, p, u, leg)
            return u.ravel()[self.last]

        _, transpose = jax.vjp(seen, jnp.zeros(self.first.size, self.first_state.dtype))
        return transpose(column)[0]


def _filled_in(blank: CellularityMap, value: Array, sd: Array) -> CellularityMap:
    """The map with measured values and standard deviations inside its mask."""

    def placed(inside: Array, elsewhere: float) -> Array:
        flat = jnp.full(blank.value.size, elsewhere, inside.dtype)
        return flat.at[blank.inside].set(inside).reshape(blank.value.shape)

    typical = jnp.sqrt(jnp.mean(sd**2))
    sd = jnp.where(blank.mask, placed(sd, 1.0), typical)
    edge = jnp.mean(placed(value, 0.0).ravel()[blank.rim])
    return eqx.tree_at(
        lambda seen: (seen.value, seen.sd, seen.expected_sd, seen.edge),
        blank,
        (placed(value, 0.0), sd, sd, jnp.clip(edge, 0.0, 1.0)),
    )


def inside(q: mr.Tissue, mask: Bool[np.ndarray, "x y z"]) -> mr.Tissue:
    """The tissue of the voxels inside a mask, in one row."""
    return jax.tree.map(lambda values: values[mask], q.broadcast())
