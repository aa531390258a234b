"""Poses of shots found again, and the image with them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import InputError
from mrphys.encoding import Encoding
from mrphys.reconstruction import correct_motion
from tests.laws import QUICKLY

N, SHOTS, VOXEL = 24, 3, (2.0, 2.0)
ANGLES, SHIFTS = np.deg2rad([0.0, 4.0, -3.0]), np.array([[0, 0], [1.5, -2.0], [-1.0, 2.5]])
BLOBS = ((1, (0, 0), 0.15), (1j, (0.12, -0.1), 0.08), (-0.5, (-0.12, 0.08), 0.07))
U, V = np.meshgrid(*[(np.arange(N) - N // 2) / N] * 2, indexing="ij")
LINE = np.arange(N)[None] % SHOTS
TURN = np.pi / 2 * np.arange(4)[:, None, None]
COILS = np.exp(1j * TURN - (U - 0.5 * np.cos(TURN)) ** 2 - (V - 0.5 * np.sin(TURN)) ** 2)
EVERY = np.ones((N, N), bool)
A = Encoding.cartesian(EVERY, COILS).shots(LINE, SHOTS)


def seen(angle, shift_mm):
    """Round blobs, whose centres turn about the centre voxel and move: no image is turned."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    x = np.zeros((N, N), complex)
    for height, place, size in BLOBS:
        a, b = turn @ place + shift_mm / (N * np.array(VOXEL))
        x += height * np.exp(-((U - a) ** 2 + (V - b) ** 2) / size**2)
    return x


def data():
    """Of four coils, line after line from another shot."""
    y = np.zeros((4, N, N), complex)
    for shot in range(SHOTS):
        z = np.fft.ifftshift(COILS * seen(ANGLES[shot], SHIFTS[shot]), (1, 2))
        y += np.fft.fftshift(np.fft.fft2(z, norm="ortho"), (1, 2)) * (shot == LINE)
    return jnp.asarray(y)


def test_poses_and_image_are_found_again():
    """And the image is differentiable at these poses: linear in data, its own derivative."""
    y = data()

    def corrected(y):
        found = correct_motion(A, y, VOXEL, regularisation=1e-6, iterations=12)
        return found.image, found

    def with_slopes(y):
        image, push, found = jax.linearize(corrected, y, has_aux=True)
        (pulled,) = jax.linear_transpose(push, y)(jnp.conj(image))
        return found, push(y), pulled

    found, along, pulled = jax.jit(with_slopes, compiler_options=QUICKLY)(y)
    assert found.converged
    np.testing.assert_allclose(found.motion.rotation_rad, ANGLES, atol=np.deg2rad(0.05))
    np.testing.assert_allclose(found.motion.shift_mm, SHIFTS, atol=0.05)
    x = seen(0.0, np.zeros(2))
    blurred = mr.reconstruct(Encoding.cartesian(EVERY, COILS), y, regularisation=1e-6).image
    error, before = (np.linalg.norm(image - x) for image in (found.image, blurred))
    assert error < 0.02 * before
    assert float(found.residual) < 1e-3 * float(jnp.max(jnp.abs(y)))
    np.testing.assert_allclose(along, found.image, atol=1e-8)
    power = float(jnp.sum(jnp.abs(found.image) ** 2))
    np.testing.assert_allclose(float(jnp.sum(pulled * y).real), power, rtol=1e-5)


def test_bad_input_is_said():
    y = jnp.ones((4, N, N), complex)
    slices = Encoding.cartesian(EVERY, np.stack([COILS, COILS], 1), axes=2)
    for other in (Encoding.cartesian(EVERY, COILS), slices.slices_at_once(np.zeros((2, 1, 1)))):
        with pytest.raises(InputError, match="no shots"):
            correct_motion(other, y, VOXEL)
    with pytest.raises(InputError, match="as many"):
        correct_motion(A, y, (1.0, 1.0, 1.0))
    with pytest.raises(InputError, match="mm"):
        correct_motion(A, y, (0.002 / 1e3, 0.002 / 1e3))
    with pytest.raises(InputError, match="1 NaN"):
        correct_motion(A, y.at[0, 0, 0].set(jnp.nan), VOXEL)
