r"""Several kinds of cells on one grid, each growing, turning into others and wandering.

Mixture                  write `reaction` at one point and `diffusivity`; the library steps them
  DensityDependent         one kind, D(u) = D (1 - a u) u^m
  GoOrGrow                 cells that migrate and cells that divide
  TwoSpeciesGlioma         infiltrating, and the dense and enhancing that it becomes
  Hypoxia                  proliferating, quiescent and necrotic, with oxygen
  Angiogenesis             tumour and the vessels that feed it
evolve                   through a plan of treatment

Strang splitting as in `timeline`: half a step of the reaction (the midpoint rule), diffusion (RKL2;
at a density-dependent D, that half a step ahead), half a step of the reaction: second order.
"""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.scipy.sparse.linalg import cg
from jaxtyping import Array, ArrayLike, Bool, Float

from oncology import transport
from oncology.growth import Grown, Parameters
from oncology.timeline import Steps
from oncology.treatment import Plan, linear_quadratic

Densities = Float[Array, "species x y z"]


class Mixture(Grown):
    """Densities of several kinds of cells, shares of one carrying capacity.

    `names` says which, `sensitivity` what of a treatment each feels; a kind with `moves` False
    stays where it is.
    """

    habitable: Bool[Array, "x y z"]
    spacing_mm: tuple[float, float, float] = eqx.field(static=True, default=(1.0, 1.0, 1.0))
    names: ClassVar[tuple[str, ...]]
    sensitivity: ClassVar[tuple[float, ...]]
    moves: ClassVar[tuple[bool, ...]]
    follows_density: ClassVar[bool] = False

    @abstractmethod
    def reaction(self, u: Densities, p: Parameters, around: Array | None) -> Densities:
        """du/dt of every kind, 1/day."""

    @abstractmethod
    def diffusivity(self, u: Densities, p: Parameters) -> Sequence[ArrayLike]:
        """D of every kind in mm²/day: a number, or a field if it `follows_density`."""

    def around(self, u: Densities, p: Parameters) -> Array | None:
        """A field that follows the cells at once, such as oxygen."""
        return None


def evolve(model: Mixture, plan: Plan, p: Parameters, u: Densities, steps: Steps) -> Densities:
    """Densities at the end of `steps`; differentiable in p and u, one checkpoint a step.

    Fractions of radiotherapy and drugs of the plan act on each kind by its `sensitivity`.
    """
    open_faces = transport.face_conductance(model.habitable, model.spacing_mm)
    open_faces = open_faces.with_halo(steps.stages)
    felt = jnp.asarray(model.sensitivity, u.dtype)[:, None, None, None]

    def react(v: Array, days: Array) -> Array:
        half = v + days / 2 * model.reaction(v, p, model.around(v, p))
        return v + days * model.reaction(half, p, model.around(half, p))

    def spread(v: Array, at: Array, days: Array) -> Array:
        rates = model.diffusivity(at, p)
        kinds = []
        for kind, rate, moves in zip(v, rates, model.moves, strict=True):
            if not moves:
                kinds.append(kind)
            elif model.follows_density:
                weighted = open_faces.weighted(jnp.broadcast_to(jnp.asarray(rate), kind.shape))
                kinds.append(transport.diffuse(kind, weighted, days, steps.stages))
            else:
                kinds.append(transport.diffuse(kind, open_faces, rate * days, steps.stages))
        return jnp.stack(kinds)

    def advance(v: Array, step: tuple[Array, ...]) -> tuple[Array, None]:
        start, end, dose, together = step
        days = end - start
        loss = jnp.asarray(plan.drug_kill(p, start, end), v.dtype)
        if plan.radiotherapy is not None:
            alpha = p["radiosensitivity_per_gy"] * plan.sensitisation(p, start)
            ratio = p.get("alpha_over_beta_gy", plan.radiotherapy.alpha_over_beta_gy)
            v = v * jnp.exp(felt * linear_quadratic(alpha, dose, ratio, together))
        v = react(v * jnp.exp(-felt * loss / 2), days / 2)
        ahead = spread(v, v, days / 2) if model.follows_density else v
        v = react(spread(v, ahead, days), days / 2)
        return v * jnp.exp(-felt * loss / 2), None

    together = steps.fraction_gy if steps.together_gy is None else steps.together_gy
    table = (steps.start_day, steps.end_day, steps.fraction_gy, together)
    table = jax.tree.map(lambda column: jnp.asarray(column, u.dtype), table)
    return jax.lax.scan(jax.checkpoint(advance), u, table)[0]


class DensityDependent(Mixture):
    r"""Logistic growth of cells that wander the faster the denser they are, or the slower,

    .. math:: \dot u = \nabla\cdot(D u^m (1 - a u) \nabla u) + k u (1 - u).

    m >= 0 and a <= 1 (fields of the model), D `diffusivity_mm2_per_day`, k `growth_rate_per_day`.
    m = 1 gives sharp fronts: Murray 2002, doi:10.1007/b98868, ch. 13.4.
    """

    power: float = eqx.field(static=True, default=1.0)
    crowding: float = eqx.field(static=True, default=0.0)
    names: ClassVar = ("tumour",)
    sensitivity: ClassVar = (1.0,)
    moves: ClassVar = (True,)
    follows_density: ClassVar = True

    def reaction(self, u: Densities, p: Parameters, around: Array | None) -> Densities:
        return jnp.asarray(p["growth_rate_per_day"]) * u * (1 - u)

    def diffusivity(self, u: Densities, p: Parameters) -> Sequence[ArrayLike]:
        some = u > 0
        raised = jnp.where(some, jnp.where(some, u, 1.0) ** self.power, float(self.power == 0))
        return [p["diffusivity_mm2_per_day"] * raised[0] * (1 - self.crowding * u[0])]


class GoOrGrow(Mixture):
    r"""Cells m migrate or g divide, never both; T = m + g,

    .. math:: \dot m = D \nabla^2 m - a(T) m + b (1 - s(T)) g, \quad
        \dot g = k g (1 - T) + a(T) m - b (1 - s(T)) g,

    with a = b s(T) and s = T / (T + `switch_density`): where cells are dense they settle. b is
    `switch_rate_per_day`. Hatzikirou et al. 2012, doi:10.1093/imammb/dqq011; Pham et al. 2012,
    doi:10.1080/17513758.2011.590610.
    """

    names: ClassVar = ("migrating", "dividing")
    sensitivity: ClassVar = (0.5, 1.0)
    moves: ClassVar = (True, False)

    def reaction(self, u: Densities, p: Parameters, around: Array | None) -> Densities:
        migrating, dividing = u
        total = migrating + dividing
        settled = total / (total + p["switch_density"])
        rate = p["switch_rate_per_day"]
        settling = rate * (settled * migrating - (1 - settled) * dividing)
        growth = p["growth_rate_per_day"] * dividing * (1 - total)
        return jnp.stack([-settling, growth + settling])

    def diffusivity(self, u: Densities, p: Parameters) -> Sequence[ArrayLike]:
        return [p["diffusivity_mm2_per_day"], 0.0]


class TwoSpeciesGlioma(Mixture):
    r"""Infiltrating cells i, seen on T2, become enhancing cells e where they crowd; T = i + e,

    .. math:: \dot i = D \nabla^2 i + k i (1 - T) - c\,s(T) i, \quad
        \dot e = D_e \nabla^2 e + k_e e (1 - T) + c\,s(T) i,

    s a step at `crowded_density` of width 0.05, c `conversion_rate_per_day`, D_e and k_e
    `enhancing_diffusivity_mm2_per_day` and `enhancing_growth_rate_per_day`. After Subramanian,
    Gholami & Biros 2019, doi:10.1007/s00285-019-01383-y.
    """

    names: ClassVar = ("infiltrating", "enhancing")
    sensitivity: ClassVar = (1.0, 1.0)
    moves: ClassVar = (True, True)

    def reaction(self, u: Densities, p: Parameters, around: Array | None) -> Densities:
        infiltrating, enhancing = u
        room = 1 - infiltrating - enhancing
        crowded = jax.nn.sigmoid((1 - room - p["crowded_density"]) / 0.05)
        turned = p["conversion_rate_per_day"] * crowded * infiltrating
        growth = p["growth_rate_per_day"] * infiltrating * room
        enhancing_growth = p["enhancing_growth_rate_per_day"] * enhancing * room
        return jnp.stack([growth - turned, enhancing_growth + turned])

    def diffusivity(self, u: Densities, p: Parameters) -> Sequence[ArrayLike]:
        return [p["diffusivity_mm2_per_day"], p["enhancing_diffusivity_mm2_per_day"]]


class Hypoxia(Mixture):
    r"""Proliferating cells a rest (q) where oxygen o lacks, and die (n) where it lacks for long,

    .. math:: \dot a = D \nabla^2 a + k a (1 - T) o - w (1 - o) a + w o q, \quad
        \dot q = w (1 - o) a - w o q - d (1 - o) q, \quad \dot n = d (1 - o) q;

    oxygen, relative to that of tissue without cells, is steady at every moment,

    .. math:: L^2 \nabla^2 o = (1 + c (a + q / 2)) o - 1.

    w `switch_rate_per_day`, d `death_rate_per_day`, L `penetration_mm`, c `consumption`, over
    supply. After the PIHNA model without angiogenesis: Swanson et al. 2011,
    doi:10.1158/0008-5472.CAN-11-1399.
    """

    names: ClassVar = ("proliferating", "quiescent", "necrotic")
    sensitivity: ClassVar = (1.0, 0.5, 0.0)
    moves: ClassVar = (True, False, False)

    def reaction(self, u: Densities, p: Parameters, around: Array | None) -> Densities:
        proliferating, quiescent, necrotic = u
        oxygen = jnp.asarray(around)
        rate = p["switch_rate_per_day"]
        resting = rate * ((1 - oxygen) * proliferating - oxygen * quiescent)
        dying = p["death_rate_per_day"] * (1 - oxygen) * quiescent
        room = 1 - proliferating - quiescent - necrotic
        growth = p["growth_rate_per_day"] * proliferating * room * oxygen
        return jnp.stack([growth - resting, resting - dying, dying])

    def diffusivity(self, u: Densities, p: Parameters) -> Sequence[ArrayLike]:
        return [p["diffusivity_mm2_per_day"], 0.0, 0.0]

    def around(self, u: Densities, p: Parameters) -> Array:
        """Oxygen, by conjugate gradients; its derivative by the implicit function theorem."""
        faces = transport.face_conductance(self.habitable, self.spacing_mm)
        use = 1 + jnp.asarray(p["consumption"]) * (u[0] + u[1] / 2)
        reach = jnp.asarray(p["penetration_mm"]) ** 2
        supply = jnp.ones_like(use)

        def balance(o: Array) -> Array:
            return use * o - reach * transport.divergence(o, faces)

        tight = 1e-6 if u.dtype == jnp.float32 else 1e-12

        def solve(operator: Callable, right: Array) -> Array:
            return cg(operator, right, tol=tight, M=lambda r: r / use)[0]

        return jax.lax.custom_linear_solve(balance, supply, solve, symmetric=True)


class Angiogenesis(Mixture):
    r"""Tumour t whose capacity is what its vessels v can feed, and that calls for more,

    .. math:: \dot t = D \nabla^2 t + k t (1 - t / θ), \quad θ = θ_0 + (1 - θ_0) v, \quad
        \dot v = D_v \nabla^2 v + k_v v t (1 - v),

    θ_0 `capacity_without_vessels` > 0, D_v and k_v `vessel_diffusivity_mm2_per_day` and
    `vessel_growth_rate_per_day`; v = 1 feeds a full voxel. After Hormuth et al. 2019,
    doi:10.1007/s10439-019-02262-9.
    """

    names: ClassVar = ("tumour", "vessels")
    sensitivity: ClassVar = (1.0, 0.0)
    moves: ClassVar = (True, True)

    def reaction(self, u: Densities, p: Parameters, around: Array | None) -> Densities:
        tumour, vessels = u
        least = jnp.asarray(p["capacity_without_vessels"])
        capacity = least + (1 - least) * vessels
        growth = p["growth_rate_per_day"] * tumour * (1 - tumour / capacity)
        return jnp.stack(
            [growth, p["vessel_growth_rate_per_day"] * vessels * tumour * (1 - vessels)]
        )

    def diffusivity(self, u: Densities, p: Parameters) -> Sequence[ArrayLike]:
        return [p["diffusivity_mm2_per_day"], p["vessel_diffusivity_mm2_per_day"]]
