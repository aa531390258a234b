"""`learn.BINN`: unknown terms of an equation, learned from sparse noisy data."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray
from threadpoolctl import threadpool_limits

from learn.binn.equation import Equation, regress
from learn.binn.search import least_squares
from learn.binn.solve import Solve
from learn.binn.terms import LIBRARY, Term
from learn.pinn import MLP, PINN, Adam, Data, GaussNewton
from mrphys.errors import InputError, Problem
from mrphys.units import check_count

GAMMA = 0.2
"""Noise grows as max(|u|, 1)^γ: what Lagergren et al. found in scratch assays."""
EQUATION_SD = 0.02
"""Of the field's equations, in sizes of u a range of time, that counts as noise."""


@dataclass(frozen=True, eq=False)
class BINN:
    """Terms of an equation as functions to be learned; `solve` says which equation.

        minimise  Σ ((û - u) max(|û|, 1)^-γ / σ)² + Σ prior²,   û = solve(terms, u0, times)

    terms    factories(rngs=) by name: `Learned` networks, `Combination`s, `Switch`es
    solve    u = solve(terms, u0, times), differentiable: `spreading(...)`, `ordinary(...)`, or a
             tumour's stepper
    gamma    γ; σ is the root mean square of what is left

    Lagergren, Nardini, Baker, Simpson, Flores 2020, doi:10.1371/journal.pcbi.1008462; through the
    solver as Rackauckas et al. 2020, arXiv:2001.04385.
    """

    terms: Mapping[str, Callable[..., Term]]
    solve: Solve
    gamma: float = GAMMA

    def draw(self, key: PRNGKeyArray) -> tuple[dict[str, Any], dict[str, Any]]:
        """Graphs and parameters of the terms."""
        graphs, params = {}, {}
        for i, (name, factory) in enumerate(self.terms.items()):
            made = factory(rngs=nnx.Rngs(jax.random.fold_in(key, i)))
            graphs[name], params[name] = nnx.split(made)
        return graphs, params

    @cached_property
    def _graphs(self) -> dict[str, Any]:
        return self.draw(jax.random.key(0))[0]

    def merged(self, params: Mapping[str, Any]) -> dict[str, Any]:
        """The terms themselves."""
        return {n: nnx.merge(self._graphs[n], params[n], copy=True) for n in self.terms}

    @cached_property
    def _search(self) -> Callable:
        """Parameters, Σ r² from start, times, readings; compiled once."""

        def residual(both: Any, times: Array, u0: Array, modes: Array, y: Array) -> Array:
            params, amounts = both
            begin = u0 + jnp.tensordot(amounts, modes, 1)
            terms = self.merged(params)
            found = self.solve(terms, begin, times)
            off = (found - y) * weight(found, self.gamma)
            off = (off if modes.shape[0] else off[1:]).ravel()
            noise = jnp.sqrt(jax.lax.stop_gradient(jnp.mean(off**2)))
            priors = [noise * term.prior() for term in terms.values()]
            return jnp.concatenate([off, *priors])

        @partial(jax.jit, static_argnums=5)
        def search(
            start: Any, times: Array, u0: Array, modes: Array, y: Array, steps: int
        ) -> tuple[Any, Array, Array]:
            begin = start, jnp.zeros((u0.shape[0], modes.shape[0]), u0.dtype)
            both, end = least_squares(lambda b: residual(b, times, u0, modes, y), begin, steps)
            return both[0], u0 + jnp.tensordot(both[1], modes, 1), end.cost

        return search

    def fit(
        self,
        times: Float[np.ndarray, " times"],
        density: np.ndarray,
        *,
        start: Callable[[np.ndarray], np.ndarray] = lambda first: first,
        modes: Float[np.ndarray, "modes *space"] | None = None,
        members: int = 1,
        steps: int = 60,
        key: PRNGKeyArray,
    ) -> "Discovered":
        """The terms through the solver, each assay solved forward from its first reading.

        start     what is solved from, of the readings at the first time (assays, ...): themselves,
                  or partial(`smoothed`, positions)
        modes     by which the starts are corrected together with the terms, as `cosines`: noise in
                  a first reading is then weighed against that in all others
        members   networks drawn apart, all but the first fitted to readings with the noise found
                  added once more: their spread is the uncertainty
        steps     of Levenberg and Marquardt, at most

        Raises InputError for readings that are too few for the terms, or not finite.
        """
        times, density = np.asarray(times, float), np.asarray(density, float)
        self._check(times, density)
        check_count("BINN.fit: members", members)
        y = jnp.moveaxis(jnp.asarray(density), 1, 0)
        t = jnp.asarray(times)
        keys = jax.random.split(key, (members, 2))
        with threadpool_limits(1, "blas"):
            u0 = jnp.asarray(start(density[:, 0]))
            shapes = np.zeros((0, *u0.shape[1:])) if modes is None else np.asarray(modes, float)
            params, u0, cost = self._search(
                self.draw(keys[0, 0])[1], t, u0, jnp.asarray(shapes), y, steps
            )
            if not np.isfinite(float(cost)):
                cause = "a solver unstable between the terms' bounds: more steps, tighter bounds"
                raise InputError(Problem("BINN.fit: solve", "no finite solution", "one", cause))
            readings = y.size if len(shapes) else y[1:].size
            free = max(readings - self.numbers - len(shapes) * len(density), 1)
            sd = float(np.sqrt(cost / free))
            found = [params]
            for own in keys[1:]:
                noise = jax.random.normal(own[1], y.shape, y.dtype) * sd / weight(y, self.gamma)
                begin, again = self.draw(own[0])[1], y + noise
                u0_again = jnp.asarray(start(np.maximum(np.asarray(again[0]), 0)))
                found.append(self._search(begin, t, u0_again, jnp.asarray(shapes), again, steps)[0])
        begun = np.asarray(u0)
        return Discovered(self, tuple(found), times, density, begun, sd, float(cost), readings)

    @property
    def numbers(self) -> int:
        """Unknowns of the terms."""
        return sum(leaf.size for leaf in jax.tree.leaves(self.draw(jax.random.key(0))[1]))

    @property
    def _of_time(self) -> bool:
        terms = self.merged(self.draw(jax.random.key(0))[1]).values()
        return any(term.of == "t" for term in terms)

    def _check(self, times: np.ndarray, density: np.ndarray) -> None:
        problems = []
        if density.ndim < 2 or density.shape[1] != times.size:
            found, expected = f"shape {density.shape}", f"(assays, {times.size} times, ...)"
            problems.append(Problem("BINN: density", found, expected, "axes in another order"))
        elif not np.isfinite(density).all():
            bad = f"{(~np.isfinite(density)).sum()} readings not finite"
            problems.append(Problem("BINN: density", bad, "numbers"))
        elif density[:, 1:].size < self.numbers:
            found = f"{density[:, 1:].size} readings after the first time"
            cause = f"{', '.join(self.terms)} cannot be told from them: fewer terms or narrower"
            problems.append(Problem("BINN: density", found, f"{self.numbers} or more", cause))
        if times.ndim != 1 or times.size < 2 or not (np.diff(times) > 0).all():
            problems.append(Problem("BINN: times", f"{times}", "two or more, rising"))
        elif times.size < 4 and self._of_time:
            cause = "a term of time beside others cannot be identified"
            problems.append(Problem("BINN: times", f"{times.size}", "four or more", cause))
        if problems:
            raise InputError(*problems)

    def fit_field(
        self,
        times: Float[np.ndarray, " times"],
        positions: Float[np.ndarray, " positions"],
        density: Float[np.ndarray, "assays times positions"],
        noise_sd: float,
        *,
        points: int = 600,
        width: int = 16,
        depth: int = 3,
        adam: int = 1000,
        steps: int = 100,
        key: PRNGKeyArray,
    ) -> "Discovered":
        """The same terms inside the residual of a field network with one output an assay:

            u_t = D(u) u_xx + D'(u) u_x² + T(t) G(u / K(x)) u

        No solver is differentiated and nothing starts from a noisy profile; the equation is obeyed
        to `EQUATION_SD`. `noise_sd` is that of readings whose density is 1.
        """
        times, density = np.asarray(times, float), np.asarray(density, float)
        self._check(times, density)
        size, span = float(np.abs(density).max()), float(np.ptp(times))
        count = density.shape[0]
        t, x = np.meshgrid(times, np.asarray(positions, float), indexing="ij")
        at = {"t": np.tile(t.ravel(), count), "x": np.tile(x.ravel(), count)}
        at["assay"] = np.repeat(np.arange(count), t.size)
        value = density.ravel()

        def residual(u: Any, place: Any, p: Any) -> Array:
            z, slope = u(), u("x")
            d, rise = jax.vmap(jax.value_and_grad(p["D"]))(z)
            made = u("t") - d * u("x", "x") - rise * slope**2
            if "G" in p:
                early = p["T"](place["t"]) if "T" in p else 1.0
                made = made - early * p["G"](z / (p["K"](place["x"]) if "K" in p else 1.0)) * z
            return made * span / (size * EQUATION_SD)

        pinn = PINN(
            inputs={"t": (times[0], times[-1]), "x": (float(x.min()), float(x.max()))},
            residual=residual,
            outputs=count,
            unit=size,
            unknown=self.terms,
            field=partial(MLP, width=width, depth=depth),
            weights={"residual": 1.0 / count},
        )
        sd = noise_sd / np.asarray(weight(value, self.gamma))

        def reading(u: Any, place: Any, p: Any) -> Array:
            del p
            return jnp.atleast_1d(u())[place["assay"].astype(int)]

        data = Data(at, value, sd, reading)
        stages = [Adam(steps=adam), GaussNewton(steps=steps)]
        made = pinn.fit(data, points=points, stages=stages, key=key)
        params = {n: nnx.split(made.unknown(n))[1] for n in self.terms}
        first = {"t": np.full(density.shape[2], times[0]), "x": np.asarray(positions, float)}
        u0 = np.maximum(np.atleast_2d(made(first).T if count > 1 else made(first)), 0)
        counted = density[:, 1:].size
        found = Discovered(self, (params,), times, density, u0, noise_sd, np.nan, counted)
        later = ((found.profiles - density) * np.asarray(weight(found.profiles, self.gamma)))[:, 1:]
        return replace(found, cost=float(np.sum(later**2)))


def weight(u: Any, gamma: float) -> Array:
    """max(|u|, 1)^-γ."""
    return jnp.maximum(jnp.abs(u), 1.0) ** -gamma


@dataclass(frozen=True, eq=False)
class Discovered:
    """Terms that were learned, of every member of the ensemble; the first is of the data as given.

    start      from which `profiles` are solved
    noise_sd   of readings whose density is 1
    cost       Σ ((û - u) max(|û|, 1)^-γ)² of so many `readings`, with that of the prior; those of
               the first time are among them only where starts were corrected
    """

    binn: BINN
    members: tuple[dict[str, Any], ...]
    times: np.ndarray
    density: np.ndarray
    start: np.ndarray
    noise_sd: float
    cost: float
    readings: int

    @cached_property
    def terms(self) -> dict[str, Term]:
        """By name, to be called: terms["D"](u)."""
        return self.binn.merged(self.members[0])

    def values(self, name: str, z: Any) -> Float[np.ndarray, "members points"]:
        """A term of every member."""
        z = jnp.asarray(z, float)
        return np.stack([np.asarray(self.binn.merged(p)[name](z)) for p in self.members])

    @cached_property
    def profiles(self) -> Float[np.ndarray, "assays times *space"]:
        """Solved forward from each start."""
        return np.moveaxis(np.asarray(self.at_times(self.start, self.times)), 0, 1)

    def at_times(self, u0: Any, times: Any) -> Array:
        """solve(terms, u0, times)."""
        solved = jax.jit(lambda p, *rest: self.binn.solve(self.binn.merged(p), *rest))
        return solved(self.members[0], jnp.asarray(u0, float), jnp.asarray(times, float))

    @cached_property
    def score(self) -> Float[np.ndarray, " assays"]:
        """Mean of ((û - u) max(|û|, 1)^-γ)² of each assay, all times."""
        off = (self.profiles - self.density) * np.asarray(weight(self.profiles, self.binn.gamma))
        return np.mean(off.reshape(off.shape[0], -1) ** 2, axis=1)

    @property
    def bic(self) -> float:
        """n log(Σ r² / n) + k log n of terms with k numbers: the lower the better."""
        n = self.readings
        return float(n * np.log(self.cost / n) + self.binn.numbers * np.log(n))

    def covered(self, name: str) -> tuple[float, float]:
        """From where to where the data know a term."""
        of = self.terms[name].of
        if of == "u":
            return float(self.density.min()), float(self.density.max())
        if of == "t":
            return float(self.times[0]), float(self.times[-1])
        return self.terms[name].reach

    def equation(
        self, name: str, library: Mapping[str, Callable[[Array], Array]] = LIBRARY
    ) -> Equation:
        """The law a term follows, by `regress` over what the data cover; it has a warning where the
        term reaches further than they do."""
        low, high = self.covered(name)
        of = self.terms[name].of
        if of == "u":
            z = np.quantile(self.density, np.linspace(0.01, 0.99, 60))
        else:
            z = np.linspace(low, high, 60)
        made = regress(name, of, z, self.values(name, z), library)
        reach = self.terms[name].reach
        warnings = made.warnings
        if reach[0] < low - 1e-9 or reach[1] > high + 1e-9:
            warnings += (f"no data of {of} outside {low:.4g} to {high:.4g}",)
        return replace(made, warnings=warnings)


def compare(
    candidates: Mapping[str, BINN],
    times: Float[np.ndarray, " times"],
    density: Float[np.ndarray, "assays times *space"],
    *,
    start: Callable[[np.ndarray], np.ndarray] = lambda first: first,
    modes: Float[np.ndarray, "modes *space"] | None = None,
    key: PRNGKeyArray,
) -> dict[str, Discovered]:
    """Every candidate fitted, the best by Bayes' information criterion first."""
    fits = {
        n: binn.fit(times, density, start=start, modes=modes, key=key)
        for n, binn in candidates.items()
    }
    return dict(sorted(fits.items(), key=lambda pair: pair[1].bic))
