r"""Priors from a cohort: what calibrated patients tell of the next one (empirical Bayes).

    log θ_j ~ N(μ, diag ω²),      what patient j's images tell: p(images_j | θ_j)

of every parameter θ that all of them share. A posterior over its prior is what the images alone
tell, here as a Gaussian in log θ: precision S⁻¹ - 1 in the prior's standard deviations. θ_j is
integrated out, and (μ, log ω) maximises the evidence of all patients with what is believed of any
cohort before: μ from the priors they were calibrated with, ω half-normal with those priors' spread.
In log ω that density is zero at ω = 0, so that few patients never look all alike (Chung et al.
2013, doi:10.1007/s11336-013-9328-2). The next patient's prior is as wide as ω and what is not known
of μ, together (Harville & Jeske 1992, doi:10.1080/01621459.1992.10475274). Morris 1983,
doi:10.1080/01621459.1983.10477920.
"""

from collections.abc import Sequence

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optimistix as optx
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from oncology.inverse import Posterior
from oncology.priors import LogNormal


class Told(eqx.Module):
    """What each patient's images tell of the shared parameters, in standard deviations of one
    prior: precision, and precision times mean."""

    precision: Float[Array, "patients n n"]
    pull: Float[Array, "patients n"]

    def log_evidence(
        self, mean: Float[Array, " n"], sd: Float[Array, " n"]
    ) -> Float[Array, " patients"]:
        """log p(images | μ, ω) of every patient, but for what does not depend on them."""
        own = sd**-2

        def one(precision: Array, pull: Array) -> Array:
            both = precision + jnp.diag(own)
            total = pull + own * mean
            middle = jnp.linalg.solve(both, total)
            _, log_determinant = jnp.linalg.slogdet(both)
            rest = jnp.sum(jnp.log(own)) - log_determinant - jnp.sum(own * mean**2)
            return (total @ middle + rest) / 2

        return jax.vmap(one)(self.precision, self.pull)


class Cohort(eqx.Module):
    """μ and ω of the shared parameters, in standard deviations of `base` from its medians, and how
    surely μ is known."""

    base: dict[str, LogNormal]
    mean: Float[Array, " n"]
    sd: Float[Array, " n"]
    mean_sd: Float[Array, " n"]
    patients: int = eqx.field(static=True)

    @property
    def priors(self) -> dict[str, LogNormal]:
        """Of the next patient: for `oncology.calibrate`."""
        wide = jnp.sqrt(self.sd**2 + self.mean_sd**2)
        source = f"{self.patients} patients of the same cohort"
        return {
            name: LogNormal(
                prior.median * float(np.exp(prior.log_sd * float(self.mean[i]))),
                prior.log_sd * float(wide[i]),
                prior.unit,
                source,
            )
            for i, (name, prior) in enumerate(self.base.items())
        }


def told(found: Posterior, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Precision and pull of one patient's images on the parameters named, the others integrated
    out under their priors."""
    at = [list(found.inverse.priors).index(name) for name in names]
    covariance = np.asarray(found.covariance)[np.ix_(at, at)]
    inverse = np.linalg.inv(covariance)
    values, vectors = np.linalg.eigh(inverse - np.eye(len(at)))
    precision = (vectors * np.maximum(values, 0.0)) @ vectors.T
    # As much as is left of the pull where rounding or a wide posterior leaves no precision.
    mean = np.linalg.pinv(precision) @ inverse @ np.asarray(found.z)[at]
    return precision, precision @ mean


def learn_cohort(patients: Sequence[Posterior]) -> Cohort:
    """The cohort that these patients were drawn from, each calibrated under the same priors.

    Raises InputError for no patients, for priors that differ, and where no parameter is shared.
    """
    if not patients:
        raise InputError(Problem("learn_cohort", "no patients", "one calibrated patient or more"))
    first = patients[0].inverse.priors
    base = {
        name: prior
        for name, prior in first.items()
        if all(name in found.inverse.priors for found in patients)
    }
    if not base:
        raise InputError(Problem("learn_cohort", "no parameter of all patients", "one or more"))
    for name, prior in base.items():
        for found in patients:
            other = found.inverse.priors[name]
            if (other.median, other.log_sd) != (prior.median, prior.log_sd):
                what = f"{name}: medians {prior.median:g} and {other.median:g}"
                raise InputError(Problem("learn_cohort", what, "the same priors for all patients"))
    rows = [told(found, list(base)) for found in patients]
    given = Told(*(jnp.asarray(np.stack(part), float) for part in zip(*rows, strict=True)))
    mean, sd, mean_sd = _most_likely(given)
    return Cohort(base, mean, sd, mean_sd, len(patients))


@eqx.filter_jit
def _most_likely(given: Told) -> tuple[Array, Array, Array]:
    n = given.pull.shape[1]

    def badness(h: Array, given: Told) -> Array:
        mean, log_sd = h[:n], h[n:]
        sd = jnp.exp(log_sd)
        before = jnp.sum(log_sd - sd**2 / 2 - mean**2 / 2)
        return -(jnp.sum(given.log_evidence(mean, sd)) + before)

    start = jnp.zeros(2 * n)
    solver = optx.BFGS(rtol=1e-8, atol=1e-8)
    h = optx.minimise(badness, solver, start, given, max_steps=400, throw=False).value
    hessian = jax.hessian(badness)(h, given)
    mean_sd = jnp.sqrt(jnp.diag(jnp.linalg.inv(hessian))[:n])
    return h[:n], jnp.exp(h[n:]), mean_sd
