"""Tensors against what they are sums of, exact derivatives, spreading Gaussians and masks."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology import transport
from oncology.anisotropy import cell_tensor, checked_tensor, selling, tensor_faces
from oncology.growth import ReactionDiffusion
from oncology.timeline import integrate, steps_between
from oncology.treatment import Plan

diffuse = jax.jit(transport.diffuse, static_argnames="stages")
SPACING_MM = (1.0, 1.2, 0.8)


def tensors(count, ratio, seed=0):
    """Random axes; eigenvalues from 1 to 1/ratio."""
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.standard_normal((count, 3, 3)))[0]
    values = ratio ** -np.concatenate([np.zeros((count, 1)), rng.random((count, 2))], axis=1)
    return np.einsum("nia,na,nja->nij", axes, values, axes)


def everywhere(tensor, shape):
    return np.broadcast_to(tensor, (*shape, 3, 3))


@pytest.mark.parametrize("ratio", [1.0, 10.0, 1000.0])
def test_tensors_are_sums_over_offsets_with_positive_weights(ratio):
    d = tensors(200, ratio)
    offsets, weights = selling(d)
    found = np.einsum("ne,nei,nej->nij", weights, offsets, offsets)
    np.testing.assert_allclose(found, d, atol=1e-7)
    assert (weights >= 0).all()
    assert np.abs(offsets).max() <= 1 if ratio == 1 else True


def test_no_positive_tensor_no_offsets():
    with pytest.raises(InputError, match="positive definite"):
        selling(np.array([[[1.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 1.0]]]))


def test_divergence_of_quadratics_is_exact_inside():
    """∇·(D ∇u) = tr(D H) of u = xᵀ H x / 2, for voxels of uneven sides."""
    shape = (11, 10, 12)
    d, hessian = tensors(1, 6.0)[0], np.array([[1.0, 0.3, -0.2], [0.3, -0.5, 0.7], [-0.2, 0.7, 2]])
    x = np.moveaxis(np.indices(shape), 0, -1) * SPACING_MM
    u = jnp.asarray(np.einsum("...i,ij,...j->...", x, hessian, x) / 2)
    faces = tensor_faces(everywhere(d, shape), np.ones(shape, bool), SPACING_MM)
    found = transport.divergence(u, faces.conductance)[4:-4, 4:-4, 4:-4]
    np.testing.assert_allclose(found, np.trace(d @ hessian), rtol=1e-6)


def test_an_isotropic_tensor_is_a_scalar():
    rng = np.random.default_rng(1)
    habitable, u = rng.random((6, 5, 7)) > 0.2, jnp.asarray(rng.random((6, 5, 7)))
    faces = tensor_faces(everywhere(np.eye(3), habitable.shape), habitable, SPACING_MM)
    scalar = transport.face_conductance(jnp.asarray(habitable), SPACING_MM)
    found, expected = (transport.divergence(u, c) for c in (faces.conductance, scalar))
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert faces.stiffness == pytest.approx(1.0)


@pytest.mark.parametrize("shape", [(21, 19, 23), (31, 29, 1)])
def test_a_point_spreads_along_the_tensor(shape):
    """Covariance 2 D t, exactly; no density below zero at explicit steps; nothing lost."""
    d, days = tensors(1, 8.0, seed=4)[0], 2.0
    live = [axis for axis, n in enumerate(shape) if n > 1]
    faces = tensor_faces(everywhere(d, shape), np.ones(shape, bool), SPACING_MM)
    u = jnp.zeros(shape).at[tuple(n // 2 for n in shape)].set(1.0)
    for _ in range(8):
        u = diffuse(u, faces.conductance, days / 8, stages=3)
    x = (np.moveaxis(np.indices(shape), 0, -1) - np.array(shape) // 2) * SPACING_MM
    covariance = np.einsum("xyz,xyzi,xyzj->ij", u, x, x)
    np.testing.assert_allclose(
        covariance[np.ix_(live, live)], 2 * days * d[np.ix_(live, live)], atol=2e-3
    )
    assert float(u.sum()) == pytest.approx(1.0, rel=1e-12)
    once = jnp.zeros(shape).at[tuple(n // 2 for n in shape)].set(1.0)
    step = 0.4 / (faces.stiffness * sum(2 / SPACING_MM[axis] ** 2 for axis in live))
    assert float((once + step * transport.divergence(once, faces.conductance)).min()) >= 0


def test_no_cell_jumps_a_wall_or_a_corner():
    """A slanted tensor, walls one voxel thick: along an axis, along a diagonal."""
    d = 0.1 * np.eye(3) + np.outer([2, 1, 0], [2, 1, 0]) / 5
    x, y, _ = np.indices((12, 12, 2))
    for wall in (x == 6, (x + y == 11) | (x + y == 12)):
        side = (x < 6) if wall[6, 0, 0] else (x + y < 11)
        faces = tensor_faces(everywhere(d, wall.shape), ~wall, (1.0, 1.0, 1.0))
        u = jnp.where(side, 1.0, 0.0)
        for _ in range(3):
            u = diffuse(u, faces.conductance, 0.5, stages=5)
        np.testing.assert_allclose(u[~side & ~wall], 0.0, atol=0)
        np.testing.assert_allclose(u[side], 1.0, rtol=1e-12)


def test_tumours_invade_along_fibres():
    """The model takes the tensor, its steps are stable, the front is longer along the fibres."""
    shape, fibre = (33, 33, 1), np.array([1.0, 1.0, 0.0]) / np.sqrt(2)
    water = 1e-3 * (0.4 * np.eye(3) + np.outer(fibre, fibre))
    habitable = np.ones(shape, bool)
    tensor = tensor_faces(cell_tensor(everywhere(water, shape), 2.0), habitable, (1.0, 1.0, 1.0))
    model = ReactionDiffusion(jnp.asarray(habitable), tensor=tensor)
    p = {"diffusivity_mm2_per_day": 0.3, "growth_rate_per_day": 0.1}
    limits = {"largest_diffusivity_mm2_per_day": 0.3, "largest_growth_rate_per_day": 0.1}
    steps = steps_between(model, Plan(), 0.0, 40.0, **limits)
    start = jnp.zeros(shape).at[16, 16].set(0.8)
    u = integrate(model, Plan(), p, start, steps)
    x = np.moveaxis(np.indices(shape[:2]), 0, -1) - 16.0
    along, across = x @ fibre[:2], x @ np.array([fibre[0], -fibre[1]])
    spread = [float(np.sum(np.asarray(u)[..., 0] * w**2)) for w in (along, across)]
    assert spread[0] > 2 * spread[1]
    assert float(u.min()) >= 0 and float(u.max()) <= 1


def test_cell_tensors_have_mean_one_and_water_s_axes():
    water = 1e-3 * tensors(20, 5.0)
    for power in (0.0, 1.0, 3.0):
        cells = cell_tensor(water, power)
        np.testing.assert_allclose(np.trace(cells, axis1=1, axis2=2), 3.0, rtol=1e-12)
        commutes = cells @ water - water @ cells
        np.testing.assert_allclose(commutes, 0, atol=1e-15)
    np.testing.assert_allclose(cell_tensor(water, 0.0), everywhere(np.eye(3), (20,)), atol=1e-12)
    np.testing.assert_array_equal(cell_tensor(np.zeros((2, 3, 3))), 0.0)


def test_tensors_are_repaired_or_refused():
    good = np.array([1.0, 0.6, 0.5, 0.1, 0.0, -0.05]) * 1e-3
    channels = np.tile(good, (4, 4, 4, 1))
    mask = np.ones((4, 4, 4), bool)
    assert checked_tensor(channels, mask)[1] == []
    channels[0, 0, 0], channels[1, 1, 1, 0] = -good, np.nan
    repaired, told = checked_tensor(channels, mask)
    assert "2 of 64" in str(told[0])
    assert np.linalg.eigvalsh(repaired).min() > 0
    with pytest.raises(InputError, match="another order"):
        checked_tensor(channels[..., [3, 4, 5, 0, 1, 2]], mask)
