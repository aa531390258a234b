"""A problem made of numbers: unknowns, points, and the residual of every term at them."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Array, Float, PRNGKeyArray, PyTree
from scipy.stats import qmc

from learn.pinn import taylor
from learn.pinn.taylor import Index
from learn.pinn.terms import Data, Local, Residual, Rows, derivatives_asked, rows
from mrphys.errors import InputError, Problem

CHUNK = 200
"""Points whose series through a network stay in a core's cache."""
CANDIDATES = 4
"""Of which adaptive resampling chooses one."""
INSIDE = "residual"
"""The term of the equations themselves; "prior" that of the parameters."""

Params = dict[str, Any]
Weights = dict[str, Float[Array, ""]]


class Term(NamedTuple):
    """A residual, the derivatives it asks for, its points (none: they are drawn)."""

    residual: Residual
    indices: tuple[Index, ...]
    rows: Rows | None


class Rest(NamedTuple):
    """What is carried along: points inside, weights of the terms, numbers of the networks that do
    not learn."""

    points: Float[Array, "points inputs"]
    weights: Weights
    fixed: PyTree


class System:
    """The problem with its data, for `members` trainings at once."""

    def __init__(self, problem: Any, data: Data | None, points: int, dtype: Any):
        self.problem, self.data, self.count = problem, data, points
        self.names, self.dtype = tuple(problem.inputs), jnp.dtype(dtype)
        span = np.array(list(problem.inputs.values()), float)
        self.middle, self.half = span.mean(1), np.diff(span)[:, 0] / 2
        self.free = {k: v for k, v in problem.p.items() if not isinstance(v, float | int)}
        self.known = {k: v for k, v in problem.p.items() if isinstance(v, float | int)}
        self.graphs: dict[str, nnx.GraphDef] = {}
        self.draw(jax.random.key(0))  # the graphs
        self.pool = self._pool()
        self.terms = self._terms()

    def draw(self, key: PRNGKeyArray) -> tuple[Params, PyTree]:
        """Unknowns to start from, and what of the networks does not learn."""
        problem, made = self.problem, {}
        keys = jax.random.split(key, 1 + len(problem.unknown))
        factories = {"": lambda rngs: problem.field(len(self.names), problem.outputs, rngs=rngs)}
        factories |= dict(problem.unknown)
        for (name, factory), own in zip(factories.items(), keys, strict=True):
            graph, *made[name] = nnx.split(factory(rngs=nnx.Rngs(own)), nnx.Param, ...)
            self.graphs[name] = graph
        start = {n: v.coordinate.coordinate(jnp.asarray(v.start)) for n, v in self.free.items()}
        params = {"networks": {n: param for n, (param, _) in made.items()}, "p": start}
        return self._cast(params), self._cast({n: rest for n, (_, rest) in made.items()})

    def _cast(self, tree: PyTree) -> PyTree:
        return jax.tree.map(
            lambda v: v.astype(self.dtype) if jnp.issubdtype(v.dtype, jnp.floating) else v, tree
        )

    def parameters(self, params: Params) -> dict[str, Array]:
        """p, of what is sought and what is known."""
        found = {n: v.coordinate.value(params["p"][n]) for n, v in self.free.items()}
        return found | {n: jnp.asarray(v, self.dtype) for n, v in self.known.items()}

    def residual(self, name: str, params: Params, fixed: PyTree) -> Callable[[Rows], Array]:
        """Of a term at one of its points, a vector."""
        term = self.terms[name]
        u_at, p = self.field(params, fixed, term.indices), self.everything(params, fixed)

        def at_point(row: Rows) -> Float[Array, " equations"]:
            known = {n: v for n, v in row.items() if n not in ("_x", "_share")}
            at = dict(zip(self.names, row["_x"], strict=True)) | known
            return jnp.atleast_1d(term.residual(u_at(row["_x"]), at, p))

        return at_point

    def everything(self, params: Params, fixed: PyTree) -> dict[str, Any]:
        """p with the unknown functions, which are called."""
        merged = {n: self._net(n, params, fixed) for n in self.problem.unknown}
        return self.parameters(params) | merged

    def field(
        self, params: Params, fixed: PyTree, indices: tuple[Index, ...]
    ) -> Callable[[Float[Array, " inputs"]], Local]:
        """u at a point, in its units and with the conditions that hold by construction."""
        net, problem = self._net("", params, fixed), self.problem
        middle, half = (jnp.asarray(v, self.dtype) for v in (self.middle, self.half))

        def u_at(x: Float[Array, " inputs"]) -> Local:
            unit = taylor.inputs(x, indices)
            scaled = {i: term / half for i, term in unit.items()} | {(): (x - middle) / half}
            n = net.series(scaled, indices)
            if problem.unit != 1.0:
                n = {i: problem.unit * term for i, term in n.items()}
            if problem.hard is not None:
                n = taylor.compose(self._hard, x, n, indices)
            return Local(self.names, n, problem.outputs)

        return u_at

    def _hard(self, x: Array, n: Array) -> Array:
        at = dict(zip(self.names, x, strict=True))
        made: Any = self.problem.hard
        return jnp.atleast_1d(made(at, n[0] if self.problem.outputs == 1 else n))

    def _net(self, name: str, params: Params, fixed: PyTree) -> Any:
        return nnx.merge(self.graphs[name], params["networks"][name], fixed[name], copy=True)

    def rows_of(self, name: str, rest: Rest, own: Mapping[str, Array]) -> Rows:
        """A term's points; `own` has a member's data."""
        given = self.terms[name].rows
        if given is None:
            share = jnp.full(rest.points.shape[0], 1 / rest.points.shape[0], self.dtype)
            return {"_x": rest.points, "_share": share}
        return given | dict(own) if name == "data" else given

    def prior(self, params: Params) -> Float[Array, " numbers"]:
        """(p - mean) / sd of the parameters that have a prior."""
        p = self.parameters(params)
        priors = {n: v.prior for n, v in self.free.items() if v.prior is not None}
        found = [(p[n] - mean) / sd for n, (mean, sd) in priors.items()]
        return jnp.stack(found) if found else jnp.zeros(0, self.dtype)

    @property
    def readings(self) -> int:
        """Of a member; 1 without data."""
        return 1 if self.data is None else self.data.readings

    def weights(self) -> Weights:
        """To start from: as given, else 1."""
        unknown = set(self.problem.weights) - set(self.terms)
        if unknown:
            found = f"a weight of {min(unknown)!r}"
            raise InputError(Problem("PINN: weights", found, f"of {', '.join(self.terms)}"))
        return {n: jnp.asarray(self.problem.weights.get(n, 1.0), self.dtype) for n in self.terms}

    def _terms(self) -> dict[str, Term]:
        problem, made = self.problem, {}
        p = self.everything(*self.draw(jax.random.key(0)))

        def term(name: str, residual: Residual, at: Rows | None) -> Term:
            known = [n for n in at or {} if n not in ("_x", "_share")]
            asked = derivatives_asked(
                f"PINN: {name}", residual, self.names, problem.outputs, known, p, self.dtype
            )
            return Term(residual, taylor.closed(asked), at)

        made[INSIDE] = term(INSIDE, problem.residual, None)
        for name, condition in problem.conditions.items():
            at = rows(f"PINN: condition {name}", problem.inputs, condition.at, self.dtype)
            made[name] = term(name, condition.residual, at)
        if self.data is not None:
            at = self.data_rows(0)
            made["data"] = term("data", self.data.residual, at)
        return made

    def data_rows(self, member: int) -> Rows:
        """Points of a member's readings. Raises InputError where one is outside."""
        data, problem = self.data, self.problem
        assert data is not None
        places = data.places(member)
        beside = {"_value": np.atleast_2d(data.value)[0], "_sd": data.sd}
        at = rows("PINN: data", problem.inputs, {**places, **beside}, self.dtype)
        if problem.region is not None:
            out = ~problem.region.inside({n: places[n] for n in self.names})
            if out.any():
                cause = "another origin or unit"
                found = f"{out.sum()} points outside the region"
                raise InputError(Problem("PINN: data", found, "inside", cause))
        return at

    def _pool(self) -> Float[Array, "candidates inputs"]:
        """Sobol points inside, the first `count` of them even."""
        wanted = CANDIDATES * 4 * self.count
        low, high = self.middle - self.half, self.middle + self.half
        drawn = qmc.Sobol(len(self.names), rng=0)
        x = np.zeros((0, len(self.names)))
        for _ in range(64):
            new = low + (high - low) * drawn.random(2 ** int(np.ceil(np.log2(wanted))))
            if self.problem.region is not None:
                new = new[self.problem.region.inside(dict(zip(self.names, new.T, strict=True)))]
            x = np.concatenate([x, new])[:wanted]
            if len(x) == wanted:
                return jnp.asarray(x, self.dtype)
        found = f"{len(x)} of {wanted} points inside"
        raise InputError(Problem("PINN: region", found, "a larger share of the inputs' ranges"))

    @property
    def time(self) -> int | None:
        """Of the inputs, the one along which causes come before effects."""
        names = [i for i, name in enumerate(self.names) if name == "t" or name.startswith("t_")]
        return names[0] if names else None

    def sorted(self, points: Float[Array, "points inputs"]) -> Float[Array, "points inputs"]:
        """By time, where there is one."""
        return points if self.time is None else points[jnp.argsort(points[:, self.time])]

    def resampled(self, params: Params, fixed: PyTree, key: PRNGKeyArray) -> Array:
        """Points where the residual is large, more of them: density |r|² / mean |r|² + 1.

        Wu, Zhu, Tan, Kartha, Lu 2023, doi:10.1016/j.cma.2022.115671.
        """
        some_key, chosen_key = jax.random.split(key)
        size = CANDIDATES * self.count
        some = jax.random.choice(some_key, self.pool.shape[0], (size,), replace=False)
        candidates = self.pool[some]
        r = jax.vmap(self.residual(INSIDE, params, fixed))({"_x": candidates})
        square = jnp.sum(r**2, -1)
        density = square / jnp.maximum(jnp.mean(square), jnp.finfo(self.dtype).tiny) + 1
        noisy = jnp.log(density) + jax.random.gumbel(chosen_key, (size,), self.dtype)
        return self.sorted(candidates[jax.lax.top_k(noisy, self.count)[1]])

    def slope(
        self, name: str, params: Params, fixed: PyTree, rows: Rows, causal: float
    ) -> tuple[Float[Array, ""], Params]:
        """Mean square of a term, and its gradient, a chunk of points at a time.

        Where `causal` is not 0, a chunk counts exp(-causal Σ) with Σ the share of the mean square
        of all before it in time: later is learned after earlier.

        Wang, Sankaran, Perdikaris 2024, doi:10.1016/j.cma.2024.116813.
        """
        count = rows["_share"].shape[0]
        parts = -(-count // CHUNK)
        spare = parts * (-(-count // parts)) - count

        def cut(v: Array) -> Array:
            padded = jnp.concatenate([v, jnp.repeat(v[-1:], spare, 0)]) if spare else v
            return padded.reshape(parts, -1, *v.shape[1:])

        chunks = jax.tree.map(cut, rows)
        if spare:
            chunks["_share"] = chunks["_share"].at[-1, -spare:].set(0)

        def square(params: Params, chunk: Rows) -> Array:
            r = jax.vmap(self.residual(name, params, fixed))(chunk)
            return jnp.sum(chunk["_share"][:, None] * r**2)

        def more(sums: tuple, chunk: Rows) -> tuple[tuple, None]:
            mean, so_far, slope = sums
            value, new = jax.value_and_grad(square)(params, chunk)
            if causal:
                c = jnp.exp(-causal * so_far)
                new = jax.tree.map(lambda v: c * v, new)
                mean, so_far = mean + c * value, so_far + value
            else:
                mean = mean + value
            return (mean, so_far, jax.tree.map(jnp.add, slope, new)), None

        zero = jnp.zeros((), self.dtype)
        begin = zero, zero, jax.tree.map(jnp.zeros_like, params)
        if parts == 1:
            (mean, _, slope), _ = more(begin, jax.tree.map(lambda v: v[0], chunks))
        else:
            (mean, _, slope), _ = jax.lax.scan(more, begin, chunks)
        return mean, slope

    def vector(
        self, params: Params, rest: Rest, own: Mapping[str, Array], causal: float
    ) -> dict[str, Float[Array, " numbers"]]:
        """Residuals by term, whose squares add up to the terms' weighted means."""
        made = {}
        for name in self.terms:
            rows = self.rows_of(name, rest, own)
            r = jax.vmap(self.residual(name, params, rest.fixed))(rows)
            size = self.row_sizes(name, rows, r, rest.weights[name], causal)
            made[name] = (size[:, None] * r).ravel()
        return made | {"prior": self.prior(params) / self.readings**0.5}

    def row_sizes(
        self, name: str, rows: Rows, r: Array, weight: Array, causal: float
    ) -> Float[Array, " points"]:
        """√(weight share), of later points less where `causal`."""
        share = rows["_share"]
        if causal and name == INSIDE:
            square = share * jnp.sum(jax.lax.stop_gradient(r) ** 2, -1)
            share = share * jnp.exp(-causal * (jnp.cumsum(square) - square))
        return jnp.sqrt(weight * share)

    def jacobian(
        self, params: Params, rest: Rest, own: Mapping[str, Array], causal: float
    ) -> tuple[Float[Array, " numbers"], Float[Array, "numbers unknowns"]]:
        """All residuals in one vector, and their derivatives in the unknowns."""
        values, slopes = [], []
        for name in self.terms:
            rows = self.rows_of(name, rest, own)

            def at(row: Rows, params: Params = params, name: str = name) -> tuple[Array, Array]:
                r = self.residual(name, params, rest.fixed)(row)
                return r, r

            def both(row: Rows, at: Callable = at) -> tuple[Params, Array]:
                return jax.jacrev(lambda params: at(row, params), has_aux=True)(params)

            slope, r = jax.vmap(both)(rows)
            size = self.row_sizes(name, rows, r, rest.weights[name], causal)
            values.append((size[:, None] * r).ravel())
            flat = [leaf.reshape(*r.shape, -1) for leaf in jax.tree.leaves(slope)]
            wide = size[:, None, None] * jnp.concatenate(flat, -1)
            slopes.append(wide.reshape(r.size, -1))
        prior, scale = self.prior(params), self.readings**0.5
        if prior.size:
            flat = [
                leaf.reshape(prior.size, -1)
                for leaf in jax.tree.leaves(jax.jacrev(self.prior)(params))
            ]
            values.append(prior / scale)
            slopes.append(jnp.concatenate(flat, -1) / scale)
        return jnp.concatenate(values), jnp.concatenate(slopes)
