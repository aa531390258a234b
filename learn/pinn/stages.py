"""How the unknowns are sought: first order while far away, second order to the last digits."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
import optax
from jax.flatten_util import ravel_pytree
from jaxtyping import Array, Float, PRNGKeyArray

from learn.pinn.system import INSIDE, Params, Rest, System, Weights
from learn.training import TrainingState

TRACED = 256
"""Points on which the tangent kernel's trace is taken."""
REMEMBERED = 0.9
"""Of a weight, when it is balanced anew."""
EASE, STIFFEN, TRIALS = 1 / 3, 4.0, 8
LEAST = {4: 1e-7, 8: 1e-15}
"""Damping, of the mean square of a column of the Jacobian; by bytes of a number."""

Own = Mapping[str, Array]
Means = dict[str, Float[Array, ""]]
Step = Callable[[TrainingState, Own, PRNGKeyArray], tuple[TrainingState, Means]]


@dataclass(frozen=True, kw_only=True)
class Stage(ABC):
    """A part of a training.

    steps           at most so many
    causal          ε of the weights exp(-ε Σ of the residual before) in time; 0: none
    resample_every  steps after which points are drawn anew where the residual is large; 0: never
    patience        steps within which the loss must fall by `fall`, or the stage ends; 0: never
    """

    steps: int
    causal: float = 0.0
    resample_every: int = 0
    patience: int = 0
    fall: float = 1e-2

    @abstractmethod
    def memory(self, system: System, params: Params) -> Any:
        """What it remembers, at the start."""

    @abstractmethod
    def moved(
        self, system: System, params: Params, rest: Rest, memory: Any, step: Array, own: Own
    ) -> tuple[Params, Rest, Any, Means]:
        """One step on the points there are; and the terms' means before it."""

    def step(self, system: System) -> Step:
        """Points drawn anew in their time, then `moved`."""

        def one(state: TrainingState, own: Own, key: PRNGKeyArray) -> tuple[TrainingState, Means]:
            params, rest, memory, count = state
            if self.resample_every:
                drawn = jax.lax.cond(
                    (count % self.resample_every == 0) & (count > 0),
                    lambda: system.resampled(params, rest.fixed, jax.random.fold_in(key, count)),
                    lambda: rest.points,
                )
                rest = rest._replace(points=drawn)
            params, rest, memory, means = self.moved(system, params, rest, memory, count, own)
            return TrainingState(params, rest, memory, count + 1), means

        return one


@dataclass(frozen=True, kw_only=True)
class Adam(Stage):
    """Kingma and Ba's, its rate falling by a cosine to `last_rate` over the stage.

    balance "gradients" gives every term the weight Σ |∇L| / |∇L_k| (Wang, Teng, Perdikaris 2021,
    doi:10.1137/20M1318043), "ntk" Σ tr K / tr K_k of the tangent kernel (Wang, Yu, Perdikaris 2022,
    doi:10.1016/j.jcp.2021.110768), each `balance_every` steps, smoothed; those of `PINN.weights`
    are the start.
    """

    steps: int = 3000
    rate: float = 3e-3
    last_rate: float = 1e-5
    balance: Literal["gradients", "ntk"] | None = None
    balance_every: int = 100

    @property
    def optimiser(self) -> optax.GradientTransformation:
        """Of optax."""
        alpha = self.last_rate / self.rate
        return optax.adam(optax.cosine_decay_schedule(self.rate, self.steps, alpha))

    def memory(self, system: System, params: Params) -> Any:
        return self.optimiser.init(params)

    def moved(
        self, system: System, params: Params, rest: Rest, memory: Any, step: Array, own: Own
    ) -> tuple[Params, Rest, Any, Means]:
        found = {}
        for name in system.terms:
            rows = system.rows_of(name, rest, own)
            causal = self.causal if name == INSIDE else 0.0
            found[name] = system.slope(name, params, rest.fixed, rows, causal)
        if self.balance is not None and len(found) > 1:
            rest = rest._replace(
                weights=jax.lax.cond(
                    step % self.balance_every == 0,
                    lambda: self._balanced(system, params, rest, own, found),
                    lambda: rest.weights,
                )
            )
        means = {name: mean for name, (mean, _) in found.items()}
        slopes = [slope for _, slope in found.values()]
        weights = [rest.weights[name] for name in found]
        slope = jax.tree.map(
            lambda *leaves: (
                sum(w * v for w, v in zip(weights[1:], leaves[1:], strict=True))
                + weights[0] * leaves[0]
            ),
            *slopes,
        )
        prior, pulled = jax.value_and_grad(
            lambda params: jnp.sum(system.prior(params) ** 2) / system.readings
        )(params)
        means["prior"] = prior
        slope = jax.tree.map(jnp.add, slope, pulled)
        change, memory = self.optimiser.update(slope, memory, params)
        moved: Any = optax.apply_updates(params, change)
        return moved, rest, memory, means

    def _balanced(
        self, system: System, params: Params, rest: Rest, own: Own, found: dict[str, tuple]
    ) -> Weights:
        if self.balance == "gradients":
            sizes = {name: jnp.sqrt(_square(slope)) for name, (_, slope) in found.items()}
        else:
            sizes = {}
            for name in found:
                rows = system.rows_of(name, rest, own)
                count = rows["_share"].shape[0]
                some = jnp.linspace(0, count - 1, min(TRACED, count)).astype(int)

                def trace(row: dict, name: str = name) -> Array:
                    slope = jax.jacrev(lambda q: system.residual(name, q, rest.fixed)(row))(params)
                    return _square(slope)

                rows = jax.tree.map(lambda v, some=some: v[some], rows)
                sizes[name] = jnp.mean(jax.vmap(trace)(rows))
        total = sum(sizes.values())
        tiny = jnp.finfo(system.dtype).tiny
        return {
            name: REMEMBERED * rest.weights[name]
            + (1 - REMEMBERED) * total / jnp.maximum(size, jnp.maximum(tiny, 1e-6 * total))
            for name, size in sizes.items()
        }


def _square(tree: Any) -> Array:
    leaves = jax.tree.leaves(tree)
    return sum((jnp.sum(v**2) for v in leaves[1:]), jnp.sum(leaves[0] ** 2))


@dataclass(frozen=True, kw_only=True)
class LBFGS(Stage):
    """Limited-memory BFGS with a zoom line search, of optax.

    Liu, Nocedal 1989, doi:10.1007/BF01589116.
    """

    steps: int = 1000
    pairs: int = 20
    patience: int = 200

    @property
    def optimiser(self) -> optax.GradientTransformationExtraArgs:
        """Of optax."""
        return optax.lbfgs(memory_size=self.pairs)

    def memory(self, system: System, params: Params) -> Any:
        return self.optimiser.init(params)

    def moved(
        self, system: System, params: Params, rest: Rest, memory: Any, step: Array, own: Own
    ) -> tuple[Params, Rest, Any, Means]:
        def means_of(params: Params) -> Means:
            found = system.vector(params, rest, own, self.causal)
            return {name: jnp.sum(r**2) for name, r in found.items()}

        def total(params: Params) -> tuple[Array, Means]:
            means = means_of(params)
            return jnp.sum(jnp.stack(list(means.values()))), means

        (value, means), slope = jax.value_and_grad(total, has_aux=True)(params)
        change, memory = self.optimiser.update(
            slope, memory, params, value=value, grad=slope, value_fn=lambda q: total(q)[0]
        )
        moved: Any = optax.apply_updates(params, change)
        return moved, rest, memory, means


@dataclass(frozen=True, kw_only=True)
class GaussNewton(Stage):
    """(JᵀJ + λ D) δ = -Jᵀ r with all residuals r in one vector, D the mean square of J's columns:
    the natural gradient of the least-squares energy, damped as Levenberg and Marquardt do.

    λ falls threefold with every step that lowers Σ r² and rises fourfold until one does. Where
    unknowns are more than residuals, the smaller system is solved. A step costs rows x unknowns²:
    for networks of up to a few thousand weights. In float32 rounding ends it early.

    Müller, Zeinhofer 2023, Achieving high accuracy with PINNs via energy natural gradients.
    """

    steps: int = 200
    damping: float = 1e-3
    patience: int = 20

    def memory(self, system: System, params: Params) -> Any:
        return jnp.asarray(self.damping, system.dtype)

    def moved(
        self, system: System, params: Params, rest: Rest, memory: Any, step: Array, own: Own
    ) -> tuple[Params, Rest, Any, Means]:
        r, jac = system.jacobian(params, rest, own, self.causal)
        here = jnp.sum(r**2)
        size = jnp.sum(jac**2) / jac.shape[1]
        flat, unravel = ravel_pytree(params)
        few = jac.shape[0] < jac.shape[1]
        gram = jac @ jac.T if few else jac.T @ jac
        slope = r if few else jac.T @ r
        eye = jnp.eye(gram.shape[0], dtype=gram.dtype)
        sizes = self._there(system, rest, own, params)

        def trial(now: tuple) -> tuple:
            count, damping, _, _ = now
            factor = jax.scipy.linalg.cho_factor(gram + damping * size * eye)
            change = jax.scipy.linalg.cho_solve(factor, slope)
            moved = flat - (jac.T @ change if few else change)
            found = system.vector(unravel(moved), rest, own, 0.0)
            cost = sum((jnp.sum((sizes.get(n, 1.0) * v) ** 2) for n, v in found.items()), 0.0)
            better = cost < here
            return (
                count + 1,
                jnp.where(better, damping * EASE, damping * STIFFEN),
                jnp.where(better, moved, flat),
                better,
            )

        begin = jnp.zeros((), int), memory, flat, jnp.zeros((), bool)
        _, damping, moved, _ = jax.lax.while_loop(
            lambda now: ~now[3] & (now[0] < TRIALS), trial, begin
        )
        least = LEAST[system.dtype.itemsize]
        means = {n: jnp.sum(v**2) for n, v in system.vector(params, rest, own, self.causal).items()}
        return unravel(moved), rest, jnp.clip(damping, least, 1e8), means

    def _there(self, system: System, rest: Rest, own: Own, params: Params) -> dict[str, Array]:
        """Causal weights as they were before the step."""
        if not self.causal:
            return {}
        rows = system.rows_of(INSIDE, rest, own)
        r = jax.vmap(system.residual(INSIDE, params, rest.fixed))(rows)
        one = jnp.ones((), system.dtype)
        ratio = [system.row_sizes(INSIDE, rows, r, one, causal) for causal in (self.causal, 0.0)]
        return {INSIDE: jnp.repeat(ratio[0] / ratio[1], r.shape[1])}
