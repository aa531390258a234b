"""Receive loops against the closed form on a loop's axis, and their symmetry."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys.coils import loop_array, loop_field
from tests.laws import check_gradient


def test_the_field_on_the_axis():
    """2π a² / (a² + z²)^{3/2} along the normal."""
    z = np.array([-30.0, 0.0, 12.0, 80.0])
    points = np.stack([0 * z, 0 * z, z], axis=1)
    field = loop_field(points, np.zeros(3), np.array([0.0, 0.0, 1.0]), 25.0)
    np.testing.assert_allclose(field[:, 2], 2 * np.pi * 25**2 / (25**2 + z**2) ** 1.5, rtol=1e-9)
    np.testing.assert_allclose(field[:, :2], 0, atol=1e-12)


def test_far_away_a_loop_is_a_dipole():
    r = np.array([[300.0, 400.0, 500.0]])
    moment = np.pi * 4.0**2 * np.array([0.0, 0.0, 1.0])
    size = np.linalg.norm(r)
    dipole = (3 * r * (r @ moment)[:, None] / size**2 - moment) / size**3
    field = loop_field(r, np.zeros(3), np.array([0.0, 0.0, 1.0]), 4.0)
    np.testing.assert_allclose(field, dipole, rtol=1e-3)


def test_an_array_is_even_at_its_centre_and_near_at_its_coils():
    angle = 2 * np.pi * np.arange(8) / 8
    ring = 80 * np.stack([np.cos(angle), np.sin(angle), 0 * angle], axis=1)
    points = np.concatenate([np.zeros((1, 3)), ring])
    c = np.abs(loop_array(points, 8))
    assert np.sqrt((c[:, 0] ** 2).sum()) == pytest.approx(1.0)
    np.testing.assert_allclose(c[:, 0], c[0, 0], rtol=1e-6)
    np.testing.assert_array_equal(c[:, 1:].argmax(axis=0), np.arange(8))


def test_derivative_in_the_points():
    centre, normal = np.array([0.0, 0.0, 3.0]), np.array([1.0, 1.0, 0.0])
    check_gradient(
        lambda r: loop_field(r, centre, normal, 5.0, segments=16), jnp.array([[1.0, 2.0, -1.0]])
    )


def test_points_near_the_wires_are_refused():
    with pytest.raises(InputError, match="array too small"):
        loop_array(np.array([[149.0, 0.0, 0.0]]), 4)
    with pytest.raises(InputError, match="one or more"):
        loop_array(np.zeros((1, 3)), 0)
