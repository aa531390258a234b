"""Passive transport of cells: ∇·(D ∇u) on voxels, conservative, masked, of second order in time.

    face_conductance    D and the habitable mask -> what crosses each voxel face
    divergence          the flux balance of every voxel
    diffuse             one stabilised Runge-Kutta-Legendre (RKL2) step of any size
    stages_needed       how many stages keep that step stable

Fields are flattened, so that a voxel's neighbours lie at fixed distances (strides) in memory.
Closed faces stop what would wrap around the ends of rows. A halo of empty planes before and after
the grid shrinks by one plane at each stage: every stage is one pass over memory, without branches.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir
from jaxtyping import Array, ArrayLike, Bool, Float, Shaped


class Conductance(eqx.Module):
    """What crosses the face between each voxel and the next, along every axis with several voxels.

    `faces` (mm²/day, or open and closed for a diffusivity of 1) are flattened, with `halo` closed
    planes before and after the grid. Times `per_mm2`, the inverse squares of the voxel spacings.
    """

    faces: tuple[Shaped[Array, " faces"], ...]
    strides: tuple[int, ...] = eqx.field(static=True)
    per_mm2: tuple[float, ...] = eqx.field(static=True)
    halo: int = eqx.field(static=True, default=0)

    @property
    def plane(self) -> int:
        """Voxels in the slowest plane of the flattened grid."""
        return max(self.strides, default=0)

    def with_halo(self, planes: int) -> "Conductance":
        """The same with at least so many closed planes before and after the grid."""
        missing = max(planes - self.halo, 0)
        faces = tuple(jnp.pad(face, missing * self.plane) for face in self.faces)
        return Conductance(faces, self.strides, self.per_mm2, self.halo + missing)

    def weighted(self, field: Float[Array, "x y z"]) -> "Conductance":
        """The same times the mean of a field on both sides of a face: for a diffusivity that
        follows density, which a harmonic mean would stop where there is none."""
        flat = jnp.pad(field.ravel(), (self.halo * self.plane, (self.halo + 1) * self.plane))
        faces = []
        for face, stride in zip(self.faces, self.strides, strict=True):
            beyond = lax.slice_in_dim(flat, stride, stride + face.size)
            faces.append(face * (lax.slice_in_dim(flat, 0, face.size) + beyond) / 2)
        return Conductance(tuple(faces), self.strides, self.per_mm2, self.halo)

    def within(self, mask: Bool[Array, "x y z"]) -> "Conductance":
        """The same with every face closed that has not both its voxels in a mask."""
        inside = jnp.pad(mask.ravel(), (self.halo * self.plane, (self.halo + 1) * self.plane))
        faces = []
        for face, stride in zip(self.faces, self.strides, strict=True):
            beyond = lax.slice_in_dim(inside, stride, stride + face.size)
            both = lax.slice_in_dim(inside, 0, face.size) & beyond
            faces.append(jnp.where(both, face, jnp.zeros((), face.dtype)))
        return Conductance(tuple(faces), self.strides, self.per_mm2, self.halo)


def face_conductance(
    diffusivity_mm2_per_day: Float[Array, "x y z"] | Bool[Array, "x y z"],
    spacing_mm: Sequence[float],
) -> Conductance:
    r"""Harmonic-mean conductance of every voxel face.

    .. math:: c_{i+1/2} = \frac{2 D_i D_{i+1}}{(D_i + D_{i+1})\, h^2}

    Cells cannot live where D = 0, so the conductance of a face with D = 0 on either side vanishes:
    zero flux through the boundary of the habitable tissue and of the grid. Exact for a steady flux
    across a jump of D on a face (Patankar 1980, ch. 4.2.3). A mask stands for D = 1 where it is
    true, at a quarter of the memory: scale the step by D.
    """
    field, shape = diffusivity_mm2_per_day, diffusivity_mm2_per_day.shape
    faces, strides = [], []
    for axis in [axis for axis, n in enumerate(shape) if n > 1]:
        lower = lax.slice_in_dim(field, 0, -1, axis=axis)
        upper = lax.slice_in_dim(field, 1, None, axis=axis)
        if field.dtype == bool:
            across = lower & upper
        else:
            open_face = (lower > 0) & (upper > 0)
            total = jnp.where(open_face, lower + upper, 1.0)
            across = jnp.where(open_face, 2 * lower * upper / total, 0.0)
        last = [(0, int(other == axis)) for other in range(len(shape))]
        faces.append(jnp.pad(across, last).ravel())
        strides.append(math.prod(shape[axis + 1 :]))
    per_mm2 = tuple(float(h) ** -2 for h, n in zip(spacing_mm, shape, strict=True) if n > 1)
    return Conductance(tuple(faces), tuple(strides), per_mm2)


def _window(flat: Array, size: int, shift: int = 0) -> Array:
    """`size` entries from the middle of `flat`, or `shift` entries after it."""
    start = (flat.shape[0] - size) // 2 + shift
    return lax.slice_in_dim(flat, start, start + size)


def _balance(u: Array, conductance: Conductance) -> Array:
    """∇·(D ∇u) for all of a flattened u but its first and last plane."""
    size = u.shape[0] - 2 * conductance.plane
    here = _window(u, size)
    balance = jnp.zeros_like(here)
    axes = zip(conductance.faces, conductance.strides, conductance.per_mm2, strict=True)
    for faces, stride, per_mm2 in axes:
        inflow = _window(faces, size) * (_window(u, size, stride) - here)
        outflow = _window(faces, size, -stride) * (here - _window(u, size, -stride))
        balance = balance + per_mm2 * (inflow - outflow)
    return balance


def divergence(u: Float[Array, "x y z"], conductance: Conductance) -> Float[Array, "x y z"]:
    """∇·(D ∇u), in 1/day for D in mm²/day: the sum over faces of conductance times difference. Sums
    to zero but for rounding, since what leaves one voxel enters its neighbour."""
    flat = jnp.pad(u.ravel(), conductance.plane)
    return _balance(flat, conductance.with_halo(1)).reshape(u.shape)


def stages_needed(
    step_days: float,
    largest_diffusivity_mm2_per_day: float,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> int:
    """Stages s of a stable RKL2 step: (s² + s - 2) / 4 >= step / step_explicit, s odd and >= 3.

    step_explicit = 2 / λ with λ = 4 D Σ 1/h² the largest eigenvalue of the operator. Odd s damps
    every mode (Meyer, Balsara & Aslam 2014, doi:10.1016/j.jcp.2013.08.021, eq. 20).
    """
    ratio = -_stiffest(step_days, largest_diffusivity_mm2_per_day, shape, spacing_mm) / 2
    stages = math.ceil((math.sqrt(9 + 16 * ratio) - 1) / 2 - 1e-9)
    return max(3, stages + (stages + 1) % 2)


MIDPOINT_ERROR = 0.14
"""Largest error of the stiffest mode by which the midpoint rule serves: there, tumours grown with
it and with three stages differ by a tenth of the splitting error."""


def cheapest_stages(
    step_days: float,
    largest_diffusivity_mm2_per_day: float,
    shape: Sequence[int],
    spacing_mm: Sequence[float],
) -> int:
    """As `stages_needed`, but two (the midpoint rule, R(z) = 1 + z + z²/2) where the error
    |R(z) - exp z| of the stiffest mode, z = -λ step, is small: at half an explicit step."""
    z = _stiffest(step_days, largest_diffusivity_mm2_per_day, shape, spacing_mm)
    if abs(1 + z + z**2 / 2 - math.exp(z)) <= MIDPOINT_ERROR:
        return 2
    return stages_needed(step_days, largest_diffusivity_mm2_per_day, shape, spacing_mm)


def _stiffest(
    step_days: float, diffusivity: float, shape: Sequence[int], spacing_mm: Sequence[float]
) -> float:
    """-λ step of the fastest mode of a grid."""
    per_mm2 = sum(4 / h**2 for n, h in zip(shape, spacing_mm, strict=True) if n > 1)
    return -step_days * diffusivity * per_mm2


def _legendre_coefficients(stages: int) -> tuple[np.ndarray, ...]:
    """b, w, μ, ν, μ~ and γ~ of the recurrence (eq. 17)."""
    j = np.arange(stages + 1)
    b = np.full(stages + 1, 1 / 3)
    b[2:] = (j[2:] ** 2 + j[2:] - 2) / (2 * j[2:] * (j[2:] + 1))
    w = np.asarray(4 / (stages**2 + stages - 2))
    previous, before = np.roll(b, 1), np.roll(b, 2)
    with np.errstate(divide="ignore", invalid="ignore"):
        mu = (2 * j - 1) / j * b / previous
        nu = -(j - 1) / j * b / before
    mu_step = mu * w
    mu_step[1] = b[1] * w
    return b, w, mu, nu, mu_step, -(1 - previous) * mu_step


def _keep(flat: Array) -> Array:
    """The same field, in memory: copying the last voxel of its halo over the first (both empty)
    keeps the compiler from computing each stage anew, seven times a voxel, inside the next."""
    return lax.dynamic_update_slice(flat, flat[-1:], (0,))


def diffuse(
    u: Float[Array, "x y z"], conductance: Conductance, step_days: ArrayLike, stages: int
) -> Float[Array, "x y z"]:
    """One RKL2 step of ∂u/∂t = ∇·(D ∇u): second order, stable for steps up to
    (stages² + stages - 2) / 4 explicit ones, at `stages` flux balances each. With the conductance
    of a unit diffusivity, pass D times the step. Two stages are the explicit midpoint rule.

    Meyer, Balsara & Aslam 2014, doi:10.1016/j.jcp.2013.08.021, eqs. 16-18, written in changes from
    Y₀ (so that rounding loses no cells), with the first balance taken from Y₁ - Y₀.
    """
    if not conductance.strides:
        return u
    wide = conductance.with_halo(stages)
    step = jnp.asarray(step_days, u.dtype)
    grid = (wide.strides, wide.per_mm2, wide.halo)
    return rkl2_step.bind(u, step, *wide.faces, grid=grid, stages=stages, sloped=False)[0]


def _run_stages(
    u: Array, step_days: Array, *faces: Array, grid: tuple, stages: int, sloped: bool
) -> tuple[Array, ...]:
    r"""R(hA) u and, if `sloped`, its derivative in the step h,

    .. math:: A\,\Big[u + b_s w \sum_{j = s-1, s-3, \dots > 0} \frac{2j+1}{b_j} (Y_j - u)\Big],

    from P_s' = Σ (2j + 1) P_j: one flux balance beyond those of the step.
    """
    conductance = Conductance(faces, *grid)
    plane = conductance.plane
    b, w, *recurrence = _legendre_coefficients(stages)
    mu, nu, mu_step, gamma_step = (c.tolist() for c in recurrence)
    start = _keep(jnp.pad(u.ravel(), stages * plane))
    first = _window(start, start.shape[0] - 2 * plane)
    first = _keep(first + mu_step[1] * step_days * _balance(start, conductance))
    before, now = start, first
    middle = start.shape[0] - 2 * (stages - 1) * plane
    changes = jnp.zeros(middle, u.dtype)
    if sloped and stages % 2 == 0:
        changes = float(3 * b[stages] * w / b[1]) * (
            _window(first, middle) - _window(start, middle)
        )
    for j in range(2, stages + 1):
        size = now.shape[0] - 2 * plane
        origin = _window(start, size)
        change = (
            mu[j] * (_window(now, size) - origin)
            + nu[j] * (_window(before, size) - origin)
            + gamma_step[j] / mu_step[1] * (_window(first, size) - origin)
            + mu_step[j] * step_days * _balance(now, conductance)
        )
        before, now = now, _keep(origin + change) if j < stages else origin + change
        if sloped and j < stages and (stages - j) % 2:
            share = float(b[stages] * w * (2 * j + 1) / b[j])
            changes = changes + share * (_window(now, middle) - _window(start, middle))
    if not sloped:
        return (now.reshape(u.shape),)
    slope = _balance(_keep(_window(start, middle) + changes), conductance)
    slope = lax.dynamic_update_slice(slope, slope[:1], (0,))  # in memory, as by _keep
    return now.reshape(u.shape), slope.reshape(u.shape)


def _derivative(primals: Sequence, tangents: Sequence, **static: Any) -> tuple:
    """Linear in u; in the step by one number; in the faces stage by stage."""
    if static["sloped"]:
        moved = tuple(ad.instantiate_zeros(tangent) for tangent in tangents)
        return jax.jvp(partial(_run_stages, **static), tuple(primals), moved)
    u, step_days, *faces = primals
    by_u, by_step, *by_faces = tangents
    change = jnp.zeros_like(u)
    if isinstance(by_step, ad.Zero):
        (result,) = rkl2_step.bind(*primals, **static)
    else:
        result, slope = rkl2_step.bind(*primals, **static | {"sloped": True})
        change = change + by_step * slope
    if not isinstance(by_u, ad.Zero):
        change = change + rkl2_step.bind(by_u, step_days, *faces, **static)[0]
    if not all(isinstance(face, ad.Zero) for face in by_faces):
        moved = tuple(ad.instantiate_zeros(face) for face in by_faces)
        rest = {name: static[name] for name in ("grid", "stages")}
        change = change + rkl2_by_faces.bind(u, step_days, *faces, *moved, **rest)[0]
    return (result,), (change,)


def _along_faces(u: Array, step_days: Array, *both: Array, grid: tuple, stages: int) -> tuple:
    """The derivative of a step along changes of its faces, which follow the faces in `both`."""
    half = len(both) // 2
    of_faces = partial(_run_stages, u, step_days, grid=grid, stages=stages, sloped=False)
    return (jax.jvp(of_faces, both[:half], both[half:])[1][0],)


def _faces_pulled_back(
    cotangent: Array, u: Array, step_days: Array, faces: Sequence[Array], grid: tuple, stages: int
) -> list[Array]:
    r"""What a cotangent of a step is for each face: with Λ_j the cotangent of Y_j,

    .. math:: -h \sum_j \tilde\mu_j\, (\Delta \Lambda_j) (\Delta Y_{j-1}) / \text{spacing}^2,

    Δ the differences across faces. The Y are made once more, the Λ by the recurrence backwards:
    two flux balances a stage, none of them differentiated. Faces of the halo, always closed, get 0.
    """
    conductance = Conductance(tuple(faces), *grid)
    plane, inner = conductance.plane, u.size
    *_, mu, nu, mu_step, gamma_step = (c.tolist() for c in _legendre_coefficients(stages)[2:])

    def balance(y: Array) -> Array:
        return step_days * _balance(y, conductance)

    def jump(y: Array, stride: int) -> Array:
        return _window(y, inner, stride) - _window(y, inner)

    start = _keep(jnp.pad(u.ravel(), stages * plane))
    y = [start, _keep(_window(start, start.size - 2 * plane) + mu_step[1] * balance(start))]
    for j in range(2, stages):
        size = y[-1].size - 2 * plane
        origin = _window(start, size)
        change = mu[j] * (_window(y[-1], size) - origin) + nu[j] * (_window(y[-2], size) - origin)
        change = change + gamma_step[j] / mu_step[1] * (_window(y[1], size) - origin)
        y.append(_keep(origin + change + mu_step[j] * balance(y[-1])))
    back = [_keep(jnp.pad(cotangent.ravel(), stages * plane))]
    for j in range(stages, 1, -1):
        size = back[-1].size - 2 * plane
        before = mu[j] * _window(back[-1], size) + mu_step[j] * balance(back[-1])
        if j < stages:
            before = before + nu[j + 1] * _window(back[-2], size)
        if j == 2:
            late = zip(range(stages, 1, -1), back, strict=True)
            before = before + sum(
                gamma_step[i] / mu_step[1] * _window(later, size) for i, later in late
            )
        back.append(_keep(before))
    found = []
    for stride, per_mm2 in zip(conductance.strides, conductance.per_mm2, strict=True):
        pairs = zip(range(stages, 0, -1), back, reversed(y), strict=True)
        total = sum(mu_step[j] * jump(later, stride) * jump(now, stride) for j, later, now in pairs)
        found.append(jnp.pad(-step_days * per_mm2 * total, conductance.halo * plane))
    return found


def _transpose_faces(
    cotangents: Any, u: Array, step_days: Array, *both: Any, **static: Any
) -> list:
    half = len(both) // 2
    nothing = [None] * (2 + half)
    if isinstance(cotangents[0], ad.Zero):
        return [*nothing, *(None for _ in range(half))]
    return [*nothing, *_faces_pulled_back(cotangents[0], u, step_days, both[:half], **static)]


def _transpose(cotangents: Any, u: Any, step_days: Array, *faces: Array, **static: Any) -> list:
    """A polynomial of the self-adjoint flux balance is its own transpose."""
    (cotangent,) = cotangents
    if not isinstance(cotangent, ad.Zero):
        (cotangent,) = rkl2_step.bind(cotangent, step_days, *faces, **static)
    return [cotangent, None, *(None for _ in faces)]


def _batch_of(f: Callable, operands: Sequence, axes: Sequence, **static: Any) -> tuple:
    found = jax.vmap(partial(f, **static), axes)(*operands)
    return found, (0,) * len(found)


# Operations of their own, because JAX would transpose them stage by stage, many times slower.
rkl2_step = Primitive("rkl2_step")
rkl2_step.multiple_results = True
rkl2_step.def_impl(jax.jit(_run_stages, static_argnames=("grid", "stages", "sloped")))
rkl2_step.def_abstract_eval(lambda u, *_, sloped, **__: (u, u) if sloped else (u,))
mlir.register_lowering(rkl2_step, mlir.lower_fun(_run_stages, multiple_results=True))
ad.primitive_jvps[rkl2_step] = _derivative
ad.primitive_transposes[rkl2_step] = _transpose
batching.primitive_batchers[rkl2_step] = partial(_batch_of, _run_stages)

rkl2_by_faces = Primitive("rkl2_by_faces")
rkl2_by_faces.multiple_results = True
rkl2_by_faces.def_impl(jax.jit(_along_faces, static_argnames=("grid", "stages")))
rkl2_by_faces.def_abstract_eval(lambda u, *_, **__: (u,))
mlir.register_lowering(rkl2_by_faces, mlir.lower_fun(_along_faces, multiple_results=True))
ad.primitive_jvps[rkl2_by_faces] = lambda primals, tangents, **static: jax.jvp(
    partial(_along_faces, **static), tuple(primals), tuple(map(ad.instantiate_zeros, tangents))
)
ad.primitive_transposes[rkl2_by_faces] = _transpose_faces
batching.primitive_batchers[rkl2_by_faces] = partial(_batch_of, _along_faces)
