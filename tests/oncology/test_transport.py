"""Transport against dense matrices, exact eigenfunctions, conservation and its stability bound."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numpy.polynomial import legendre
from scipy.optimize import brentq
from scipy.special import ive

from oncology import transport
from tests.laws import check_adjoint, check_gradient, order_of_convergence

diffuse = jax.jit(transport.diffuse, static_argnames="stages")
SPACING_MM = (1.0, 2.0, 0.5)
SHAPES = [(5, 4, 6), (7, 6, 1), (1, 5, 4), (9, 1, 1), (1, 1, 1)]


def irregular(shape, seed=0):
    """Diffusivities between 0.1 and 1.1 with a fifth of the voxels uninhabitable, and a field."""
    rng = np.random.default_rng(seed)
    diffusivity = (0.1 + rng.random(shape)) * (rng.random(shape) > 0.2)
    return jnp.asarray(diffusivity, float), jnp.asarray(rng.random(shape), float)


def dense_operator(diffusivity, spacing_mm):
    """∇·(D ∇) as a matrix, face by face."""
    diffusivity = np.asarray(diffusivity, np.float64)
    matrix = np.zeros((diffusivity.size, diffusivity.size))
    number = np.arange(diffusivity.size).reshape(diffusivity.shape)
    for voxel, axis in itertools.product(np.ndindex(diffusivity.shape), range(3)):
        beyond = tuple(np.add(voxel, np.eye(3, dtype=int)[axis]))
        if beyond[axis] == diffusivity.shape[axis]:
            continue
        a, b = diffusivity[voxel], diffusivity[beyond]
        if a > 0 and b > 0:
            i, j = number[voxel], number[beyond]
            across = 2 / (1 / a + 1 / b) / spacing_mm[axis] ** 2
            matrix[np.ix_([i, j], [i, j])] += across * np.array([[-1, 1], [1, -1]])
    return matrix


def cosine_mode(shape, waves):
    """An eigenfunction of the box with closed walls, and its eigenvalue per unit of D."""
    mode, rate = jnp.ones(shape), 0.0
    for axis, (n, m, h) in enumerate(zip(shape, waves, SPACING_MM, strict=True)):
        along = jnp.cos(jnp.pi * m * (jnp.arange(n) + 0.5) / n)
        mode = mode * jnp.expand_dims(along, [other for other in range(3) if other != axis])
        rate -= (2 / h * np.sin(np.pi * m / (2 * n))) ** 2
    return mode, rate


@pytest.mark.core
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_divergence_is_the_sum_over_faces(shape, rtol):
    diffusivity, u = irregular(shape)
    found = transport.divergence(u, transport.face_conductance(diffusivity, SPACING_MM))
    expected = dense_operator(diffusivity, SPACING_MM) @ np.asarray(u, np.float64).ravel()
    np.testing.assert_allclose(found.ravel(), expected, atol=rtol(1e-13, 1e-5))


def test_a_mask_stands_for_unit_diffusivity():
    diffusivity, u = irregular((5, 4, 6))
    mask = diffusivity > 0
    found = diffuse(u, transport.face_conductance(mask, SPACING_MM), 0.3, stages=5)
    unit = transport.face_conductance(mask.astype(float), SPACING_MM)
    np.testing.assert_allclose(found, diffuse(u, unit, 0.3, stages=5), rtol=1e-14)


def test_divergence_and_diffusion_are_self_adjoint():
    diffusivity, u = irregular((5, 4, 6))
    _, v = irregular((5, 4, 6), seed=1)
    conductance = transport.face_conductance(diffusivity, SPACING_MM)
    for operator in (
        lambda w: transport.divergence(w, conductance),
        lambda w: transport.diffuse(w, conductance, 0.1, 3),
    ):
        check_adjoint(operator, operator, u, v)


@pytest.mark.core
@pytest.mark.parametrize("stages", [3, 5, 11])
def test_a_step_multiplies_a_mode_by_the_legendre_polynomial(stages, rtol):
    """R(z) = 1 - b + b P_s(1 + 4 z / (s² + s - 2)), b = (s² + s - 2) / (2 s (s + 1)):
    Meyer, Balsara & Aslam 2014, eqs. 12-15."""
    shape, d = (6, 5, 8), 0.3
    mode, rate = cosine_mode(shape, (2, 1, 5))
    conductance = transport.face_conductance(jnp.full(shape, d), SPACING_MM)
    step_days = 1.5
    size = stages**2 + stages - 2
    b = size / (2 * stages * (stages + 1))
    polynomial = legendre.Legendre.basis(stages)
    growth = 1 - b + b * polynomial(1 + 4 * rate * d * step_days / size)
    found = diffuse(mode, conductance, step_days, stages=stages)
    np.testing.assert_allclose(found, growth * mode, atol=rtol(1e-13, 1e-5))


def test_modes_of_a_box_decay_at_their_exact_rate():
    shape, d, days = (16, 8, 12), 0.2, 5.0
    mode, rate = cosine_mode(shape, (2, 1, 1))
    conductance = transport.face_conductance(jnp.full(shape, d), SPACING_MM)
    u = 1 + mode
    for _ in range(50):
        u = diffuse(u, conductance, days / 50, stages=3)
    np.testing.assert_allclose(u, 1 + mode * np.exp(rate * d * days), atol=2e-5)
    continuum = -sum(
        (np.pi * m / (n * h)) ** 2 for n, m, h in zip(shape, (2, 1, 1), SPACING_MM, strict=True)
    )
    assert rate == pytest.approx(continuum, rel=0.02)


@pytest.mark.core
def test_a_point_spreads_as_the_heat_kernel_of_a_lattice(rtol):
    """Π exp(-2 θ) I_m(2 θ) with θ = D t / h², m voxels away; its variance is 2 D t, exactly."""
    shape, d, days = (25, 15, 45), 0.2, 8.0
    u = jnp.zeros(shape).at[12, 7, 22].set(1.0)
    conductance = transport.face_conductance(jnp.ones(shape, bool), SPACING_MM)
    for _ in range(40):
        u = diffuse(u, conductance, d * days / 40, stages=5)
    for axis, (n, h) in enumerate(zip(shape, SPACING_MM, strict=True)):
        along = np.asarray(u, np.float64).sum(tuple(other for other in range(3) if other != axis))
        away = np.arange(n) - n // 2
        np.testing.assert_allclose(along, ive(np.abs(away), 2 * d * days / h**2), atol=2e-3)
        assert np.sum(along * (away * h) ** 2) == pytest.approx(2 * d * days, rel=rtol(2e-5, 1e-4))


@pytest.mark.core
def test_cells_are_conserved_in_an_irregular_mask(rtol):
    diffusivity, u = irregular((20, 18, 16))
    conductance = transport.face_conductance(diffusivity, SPACING_MM)
    before = np.sum(np.asarray(u, np.float64))
    for _ in range(50):
        u = diffuse(u, conductance, 0.6, stages=7)
    after = np.sum(np.asarray(u, np.float64))
    assert after == pytest.approx(before, rel=rtol(1e-12, 1e-6))


@pytest.mark.core
def test_nothing_crosses_a_closed_face_or_a_corner():
    """Two halves of a mask, and two boxes that touch along an edge only, never mix."""
    halves = jnp.ones((8, 6, 4), bool).at[4].set(False)
    corner = jnp.zeros((8, 6, 4), bool).at[:4, :3].set(True).at[4:, 3:].set(True)
    for mask in (halves, corner):
        u = jnp.where(mask, 1.0, 0.0).at[4:].set(0.0)
        spread = diffuse(u, transport.face_conductance(mask, SPACING_MM), 0.2, stages=5)
        np.testing.assert_array_equal(spread[4:], 0.0)
        np.testing.assert_allclose(spread[:4], u[:4], rtol=1e-6)


def test_rows_do_not_wrap_around():
    shape = (4, 5, 6)
    conductance = transport.face_conductance(jnp.ones(shape, bool), (1.0, 1.0, 1.0))
    change = transport.divergence(jnp.zeros(shape).at[1, 4, 5].set(1.0), conductance)
    reached = set(map(tuple, np.argwhere(change > 0).tolist()))
    assert reached == {(0, 4, 5), (2, 4, 5), (1, 3, 5), (1, 4, 4)}


def test_steady_flux_crosses_a_jump_of_diffusivity():
    """At the same flux everywhere, the gradient is steeper where D is smaller."""
    d = jnp.where(jnp.arange(12) < 6, 1.0, 0.2)[:, None, None]
    edges = np.concatenate([[0], np.cumsum(1 / np.asarray(d).ravel())])
    u = jnp.asarray((edges[1:] + edges[:-1]) / 2)[:, None, None]
    change = transport.divergence(u, transport.face_conductance(d, (1.0, 1.0, 1.0)))
    np.testing.assert_allclose(change[1:-1], 0.0, atol=1e-14)
    np.testing.assert_allclose(change[jnp.array([0, -1])].ravel(), [1.0, -1.0], rtol=1e-12)


def test_second_order_in_space_across_a_jump_on_a_face():
    """Slowest mode of two layers with closed ends: cos(q₁ x) and A cos(q₂ (1 - x)), with
    D₁ q₁² = D₂ q₂² and D₁ q₁ tan(q₁/2) = -D₂ q₂ tan(q₂/2); inside a larger masked grid."""
    d1, d2, days = 1.0, 0.25, 0.2
    q2 = brentq(lambda q: d1 * q / 2 * np.tan(q / 4) + d2 * q * np.tan(q / 2), np.pi + 0.01, 6.0)
    q1 = q2 * np.sqrt(d2 / d1)
    steps, errors, spacings = 400, [], []
    for n in (8, 12, 16, 24):
        h = 1 / n
        x = (np.arange(-2, n + 2) + 0.5) * h
        beyond = np.cos(q1 / 2) / np.cos(q2 / 2) * np.cos(q2 * (1 - x))
        mode = np.where(x < 0.5, np.cos(q1 * x), beyond)
        inside = (x > 0) & (x < 1)
        d = jnp.asarray(np.where(inside, np.where(x < 0.5, d1, d2), 0.0))[:, None, None]
        conductance = transport.face_conductance(d, (h, h, h))
        u = jnp.asarray(mode * inside)[:, None, None]
        u = jax.lax.fori_loop(
            0,
            steps,
            lambda _, v, c=conductance: diffuse(v, c, days / steps, stages=3),
            u,
        )
        expected = mode * np.exp(-d1 * q1**2 * days)
        errors.append(np.abs(u.ravel() - expected)[inside].max())
        spacings.append(h)
    assert order_of_convergence(errors, spacings) == pytest.approx(2, abs=0.15)


def test_second_order_in_time():
    """At steps of 1 to 8 explicit ones, against the matrix exponential."""
    diffusivity, u = irregular((6, 5, 4))
    matrix = dense_operator(diffusivity, (1.0, 1.0, 1.0))
    conductance = transport.face_conductance(diffusivity, (1.0, 1.0, 1.0))
    values, vectors = np.linalg.eigh(matrix)
    days = 4.0
    smooth = vectors @ (np.exp(values) * (vectors.T @ np.asarray(u).ravel()))
    expected = vectors @ (np.exp(values * days) * (vectors.T @ smooth))
    errors, counts = [], np.array([4, 6, 8, 12, 16])
    for count in counts:
        v = jnp.asarray(smooth).reshape(u.shape)
        for _ in range(count):
            v = diffuse(v, conductance, days / count, stages=7)
        errors.append(np.abs(v.ravel() - expected).max())
    assert order_of_convergence(errors, days / counts) == pytest.approx(2, abs=0.2)


@pytest.mark.core
@pytest.mark.parametrize("stages", [3, 5, 9])
def test_stages_are_enough_and_only_just(stages):
    """At the bound the stiffest mode of a grid stays bounded; with steps half as long again it
    does not."""
    shape, d = (12, 12, 12), 0.5
    spacing_mm = (1.0, 1.5, 0.8)
    explicit_days = 1 / (2 * d * sum(h**-2 for h in spacing_mm))
    bound_days = (stages**2 + stages - 2) / 4 * explicit_days
    assert transport.stages_needed(bound_days, d, shape, spacing_mm) == stages
    assert transport.stages_needed(1.01 * bound_days, d, shape, spacing_mm) == stages + 2
    conductance = transport.face_conductance(jnp.full(shape, d), spacing_mm)
    _, u = irregular(shape)
    largest = {}
    for excess in (1.0, 1.5):
        v = u
        for _ in range(60):
            v = diffuse(v, conductance, excess * bound_days, stages=stages)
        largest[excess] = float(jnp.abs(v).max())
    assert largest[1.0] <= 1
    assert not largest[1.5] <= 10


def test_two_stages_are_the_midpoint_rule_and_serve_for_short_steps():
    """R(z) = 1 + z + z²/2, and its derivative 1 + z, on the modes of an irregular mask."""
    diffusivity, u = irregular((4, 3, 3))
    conductance = transport.face_conductance(diffusivity, SPACING_MM)
    a = dense_operator(diffusivity, SPACING_MM)
    h, v = 0.07, np.asarray(u).ravel()
    found, slope = jax.jvp(lambda t: transport.diffuse(u, conductance, t, 2), (h,), (1.0,))
    np.testing.assert_allclose(found.ravel(), v + h * a @ v + h**2 / 2 * a @ a @ v, rtol=1e-12)
    np.testing.assert_allclose(slope.ravel(), a @ v + h * a @ a @ v, atol=1e-12)
    explicit_days = 2 / (4 * sum(h**-2 for h in SPACING_MM))
    chosen = [
        transport.cheapest_stages(share * explicit_days, 1.0, (9, 9, 9), SPACING_MM)
        for share in (0.0, 0.45, 0.55, 2.4, 2.6)
    ]
    assert chosen == [2, 2, 3, 3, 5]


def test_axes_of_one_voxel_need_no_stages():
    thick, thin = (
        transport.stages_needed(10.0, 1.0, (64, 64, 1), (2.0, 2.0, h)) for h in (100.0, 0.1)
    )
    assert thick == thin == 7
    assert transport.stages_needed(10.0, 0.0, (64, 64, 64), (1.0, 1.0, 1.0)) == 3


def test_gradients_in_state_step_and_diffusivity():
    diffusivity, u = irregular((4, 3, 2))
    inside = diffusivity > 0

    def spread(p):
        d = jnp.where(inside, p["diffusivity"], 0.0)
        conductance = transport.face_conductance(d, SPACING_MM)
        return transport.diffuse(p["u"], conductance, p["step"], 5)

    where = {"u": u, "step": 0.2, "diffusivity": jnp.where(inside, diffusivity, 0.5)}
    check_gradient(spread, where)


def test_reverse_mode_in_faces_is_that_of_the_stages():
    """Where the diffusivity follows density: against automatic differentiation of the recurrence,
    in u through the faces, in the diffusivity and in the step."""
    stages, (diffusivity, u) = 5, irregular((5, 4, 6))
    weights = irregular((5, 4, 6), 1)[1]

    def plain(u, conductance, step_days):
        wide = conductance.with_halo(stages)
        grid = (wide.strides, wide.per_mm2, wide.halo)
        options = {"grid": grid, "stages": stages, "sloped": False}
        return transport._run_stages(u, step_days, *wide.faces, **options)[0]

    def seen(step, u, diffusivity, days):
        faces = transport.face_conductance(diffusivity, SPACING_MM).weighted(0.3 + u)
        return jnp.vdot(weights, step(u, faces, days))

    def own(u, faces, days):
        return transport.diffuse(u, faces, days, stages)

    slopes = [
        jax.jit(jax.grad(seen, (1, 2, 3)), static_argnums=0)(step, u, diffusivity, jnp.asarray(0.1))
        for step in (own, plain)
    ]
    for found, expected in zip(*slopes, strict=True):
        size = np.abs(np.asarray(expected)).max()
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-12 * size)


def test_second_derivatives():
    """Through the step's own rules for derivatives, whose derivatives must be right too."""
    diffusivity, u = irregular((3, 2, 2))
    where = {"u": u, "step": jnp.asarray(0.2), "diffusivity": diffusivity + 0.1}

    @jax.grad
    def slope(p):
        conductance = transport.face_conductance(p["diffusivity"], SPACING_MM)
        return jnp.sum(jnp.sin(3 * transport.diffuse(p["u"], conductance, p["step"], 3)))

    check_gradient(slope, where, rtol=1e-5, atol=1e-8, directions=4)


def test_a_batch_is_each_of_its_members():
    diffusivity, u = irregular((5, 4, 6))
    conductance = transport.face_conductance(diffusivity, SPACING_MM)
    fields, steps = jnp.stack([u, u**2]), jnp.array([0.1, 0.2])
    batch = jax.vmap(lambda v, step: diffuse(v, conductance, step, stages=3))(fields, steps)
    for found, v, step in zip(batch, fields, steps, strict=True):
        np.testing.assert_allclose(found, diffuse(v, conductance, step, stages=3), rtol=1e-13)


def test_gradients_are_finite_and_right_without_diffusion():
    mask = irregular((4, 3, 2))[0] > 0
    _, u = irregular((4, 3, 2))
    conductance = transport.face_conductance(mask, SPACING_MM)

    def spread(step):
        return transport.diffuse(u, conductance, step, 3)

    tangent = jax.jvp(spread, (0.0,), (1.0,))[1]
    np.testing.assert_allclose(tangent, transport.divergence(u, conductance), atol=1e-13)

    @jax.grad
    def by_diffusivity(d):
        return jnp.sum(transport.divergence(u, transport.face_conductance(d, SPACING_MM)) ** 2)

    assert np.all(np.isfinite(by_diffusivity(jnp.zeros_like(u))))
