"""Elasticity against Lamé's inclusion, confined compression, rigid motions and exact energies."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.errors import InputError
from oncology.mechanics import (
    Elasticity,
    MechanicallyCoupled,
    _gather,
    _scatter,
    displaced,
    stiffness,
    von_mises_kpa,
)
from oncology.species import evolve
from oncology.timeline import Steps
from oncology.treatment import Plan
from tests.laws import check_adjoint, check_gradient

displacement = jax.jit(lambda solid, u, stress: solid.displacement_mm(u, stress))


def corners(shape, spacing_mm):
    """Positions of the corners of voxels, mm."""
    grid = np.indices([n + 1 for n in shape])
    return grid * np.reshape(spacing_mm, (3, 1, 1, 1))


@pytest.mark.core
def test_confined_compression(rtol):
    """A bar between walls: (λ + 2 G) w' = s (u - mean u), exactly at the corners of voxels."""
    n, h, s = 30, 0.8, 2.0
    solid = Elasticity(np.ones((n, 1, 1), bool), 3.0, (h, 1.0, 1.0), 0.3)
    u = np.random.default_rng(0).random(n)
    modulus = 3.0 * (1 - 0.3) / ((1 + 0.3) * (1 - 0.6))
    expected = np.concatenate([[0], np.cumsum(s * (u - u.mean()) / modulus * h)])
    w = displacement(solid, jnp.asarray(u, float)[:, None, None], s)
    assert w.shape == (3, n + 1, 2, 2)
    np.testing.assert_allclose(w[0, :, 0, 0], expected, atol=rtol(1e-9, 1e-4))
    np.testing.assert_array_equal(w[1:], 0.0)


def test_a_sphere_that_grows_in_a_clamped_ball():
    """Lamé: w = A r inside the inclusion, B r + C / r² outside, nothing at the wall."""
    size, a, b, s, e, nu = 31, 7.3, 14.5, 1.0, 2.0, 0.3
    middle = (size - 1) / 2
    r = np.sqrt(((np.indices((size,) * 3) - middle) ** 2).sum(0))
    soft = np.clip(a + 0.5 - r, 0, 1)
    solid = Elasticity(r < b, e, (1.0, 1.0, 1.0), nu)
    w = displacement(solid, jnp.asarray(soft, jnp.float32), s)
    where = corners((size,) * 3, (1, 1, 1)) - (size / 2)
    radius = np.sqrt((where**2).sum(0))
    radial = (np.asarray(w) * where).sum(0) / radius
    lame, shear = e * nu / ((1 + nu) * (1 - 2 * nu)), e / (2 * (1 + nu))
    # continuity of w and of radial stress at a, w(b) = 0
    bulk = 3 * lame + 2 * shear
    rows = [[a, -a, -(a**-2)], [bulk, -bulk, 4 * shear * a**-3], [0, b, b**-2]]
    inside, linear, inverse = np.linalg.solve(rows, [0, s, 0])
    expected = np.where(radius < a, inside * radius, linear * radius + inverse / radius**2)
    near = (radius > 2) & (radius < 11)
    assert np.abs(radial - expected)[near].max() < 0.06 * expected.max()


def test_forces_of_exact_fields():
    """Rigid motions need none; a linear field has the energy of its strain, ε : C : ε V / 2."""
    shape, h, nu = (4, 3, 5), (1.0, 1.3, 0.7), 0.4
    solid = Elasticity(np.ones(shape, bool), 2.0, h, nu)
    element, load = solid._element()
    x = corners(shape, h)
    rotation = np.array([[0, 0.1, -0.2], [-0.1, 0, 0.3], [0.2, -0.3, 0]])
    rigid = jnp.asarray(np.einsum("ij,jxyz->ixyz", rotation, x) + 0.5)
    np.testing.assert_allclose(jnp.tensordot(element, _gather(rigid), 1), 0, atol=1e-12)
    slope = np.random.default_rng(1).standard_normal((3, 3))
    w = jnp.asarray(np.einsum("ij,jxyz->ixyz", slope, x))
    strain = (slope + slope.T) / 2
    six = np.array([*np.diag(strain), *(2 * strain[[0, 0, 1], [1, 2, 2]])])
    volume = np.prod(shape) * np.prod(h)
    energy = jnp.vdot(w, _scatter(2.0 * jnp.tensordot(element, _gather(w), 1))) / 2
    assert float(energy) == pytest.approx(six @ stiffness(nu) @ six * volume, rel=1e-12)
    stress = solid.stress_kpa(w)
    expected = 2.0 * stiffness(nu) @ six
    np.testing.assert_allclose(stress, np.broadcast_to(expected[:, None, None, None], stress.shape))
    work = jnp.vdot(w, _scatter(jnp.broadcast_to(load[:, None, None, None], (24, *shape))))
    assert float(work) == pytest.approx(np.trace(slope) * volume, rel=1e-12)


def test_gathering_is_the_transpose_of_scattering():
    rng = np.random.default_rng(2)
    w, f = jnp.asarray(rng.random((3, 4, 3, 5))), jnp.asarray(rng.random((24, 3, 2, 4)))
    check_adjoint(_gather, _scatter, w, f)


def test_von_mises_of_pressure_and_of_pull():
    assert float(von_mises_kpa(jnp.array([2.0, 2.0, 2.0, 0, 0, 0]))) == pytest.approx(0, abs=1e-6)
    assert float(von_mises_kpa(jnp.array([2.0, 0, 0, 0, 0, 0]))) == pytest.approx(2, rel=1e-5)
    assert float(von_mises_kpa(jnp.array([0, 0, 0, 2.0, 0, 0]))) == pytest.approx(2 * 3**0.5)
    assert np.isfinite(jax.grad(von_mises_kpa)(jnp.zeros(6))).all()


def test_anatomy_moves_with_the_displacement():
    field = jnp.asarray(np.random.default_rng(3).random((8, 7, 1)))
    w = jnp.zeros((3, 9, 8, 2)).at[0].set(3.0)
    moved = displaced(field, w, (1.5, 1.0, 1.0))
    np.testing.assert_allclose(moved[2:], field[:-2], rtol=1e-12)
    check_gradient(lambda x: displaced(field, x, (1.5, 1.0, 1.0)), w + 0.3, scale=0.1, rtol=1e-5)


def plane(shape=(5, 4, 1)):
    tissue = jnp.ones(shape, bool).at[0, 0].set(False)
    u = jnp.asarray(np.random.default_rng(4).random(shape))
    return tissue, u


def test_gradients_of_displacement_and_of_what_stress_slows():
    tissue, u = plane()

    def slowed(x):
        model = MechanicallyCoupled(tissue, (1.0, 1.2, 1.0), x["modulus"])
        w = model.solid.displacement_mm(x["u"], x["stress"])
        p = {"growth_stress_kpa": x["stress"], "diffusivity_mm2_per_day": 0.3}
        return model.diffusivity(x["u"][None], p | {"stress_sensitivity_per_kpa": 0.4})[0], w

    modulus = jnp.asarray(2 + np.random.default_rng(5).random(tissue.shape))
    where = {"u": u, "modulus": modulus, "stress": jnp.asarray(1.5)}
    still = where | {"stress": jnp.zeros(())}
    check_gradient(slowed, where, rtol=1e-5, atol=1e-7, directions=4, finite_at=[still])


def test_stress_slows_invasion():
    model = MechanicallyCoupled(jnp.ones((11, 9, 1), bool))
    u = jnp.zeros((1, 11, 9, 1)).at[0, 4:7, 3:6].set(0.8)
    steps = Steps(np.array([0.0, 3.0, 6.0]), np.array([3.0, 6.0, 9.0]), np.zeros(3), 5)
    p = {"diffusivity_mm2_per_day": 0.3, "growth_rate_per_day": 0.05, "growth_stress_kpa": 2.0}

    @jax.jit
    def spread(sensitivity):
        told = p | {"stress_sensitivity_per_kpa": sensitivity}
        v = evolve(model, Plan(), told, u, steps)[0]
        return jnp.sum(v * (jnp.indices(v.shape)[0] - 5.0) ** 2)

    assert float(spread(20.0)) < 0.7 * float(spread(0.0))


@pytest.mark.parametrize("wrong", [{"poisson": 0.5}, {"youngs_modulus_kpa": -1.0}])
def test_impossible_solids_are_errors(wrong):
    with pytest.raises(InputError):
        Elasticity(np.ones((3, 3, 3), bool), **wrong)
