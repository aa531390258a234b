"""Sensitivities found against those simulated, coils compressed, noise whitened."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys.coils import combine, compression, espirit, inati, loop_array, mixed, walsh, whitening
from mrphys.encoding import fft
from mrphys.noise import receiver_noise
from tests.laws import check_gradient

SIZE, COILS = 48, 6


@pytest.fixture(scope="module")
def head():
    """Sensitivities of norm 1, an object with edges and phase, and where it is."""
    at = (np.arange(SIZE) - SIZE // 2) / SIZE * 220.0
    x, y = np.meshgrid(at, at, indexing="ij")
    points = np.stack([x, y, 0 * x], -1).reshape(-1, 3)
    far = np.maximum(np.linalg.norm(points, axis=1) / 130.0, 1.0)  # of no concern outside
    c = np.asarray(loop_array(points / far[:, None], COILS)).reshape(COILS, SIZE, SIZE)
    inside = (x / 75) ** 2 + (y / 90) ** 2 < 1
    image = inside * (1 + 0.4 * np.sin(x / 9) * np.cos(y / 7)) * np.exp(0.01j * x)
    return c / np.linalg.norm(c, axis=0), image, inside


def apart(found, c, where):
    """Largest sine of the angle between found and true, which no phase changes."""
    return np.sqrt(np.maximum(1 - np.abs(np.sum(np.conj(found) * c, axis=0)) ** 2, 0))[where].max()


def test_espirit_finds_the_coils_up_to_phase(head):
    c, image, inside = head
    k = np.asarray(fft(jnp.asarray(c * image), 2))
    found = np.asarray(espirit(k[:, 12:36, 12:36], (SIZE, SIZE)))
    power = np.sum(np.abs(found) ** 2, axis=0)
    np.testing.assert_allclose(power[inside], 1, atol=1e-9)
    assert np.all((power < 1e-12) | (np.abs(power - 1) < 1e-9)) and np.mean(power == 0) > 0.1
    assert apart(found, c, inside) < 0.04
    # maps are smooth: their phase is that of the coils times one that hardly varies
    turn = np.sum(np.conj(c) * found, axis=0)
    steps = np.abs(np.angle(turn[1:] * np.conj(turn[:-1])))[inside[1:] & inside[:-1]]
    assert steps.max() < 0.3


def test_espirit_in_three_dimensions_and_of_more_patches_than_numbers_in_one():
    """Coils that vary along each axis alike: a product of ramps, exact in a kernel of 3."""
    at = (np.arange(10) - 5) / 10
    x, y, z = np.meshgrid(at, at, at, indexing="ij")
    c = np.stack(
        [np.ones_like(x) + 0j, np.exp(2j * np.pi * x), 0.5 * np.exp(-2j * np.pi * (y + z))]
    )
    image = np.random.default_rng(0).normal(size=x.shape)
    k = np.asarray(fft(jnp.asarray(c * image), 3))
    found = np.asarray(espirit(k, (10, 10, 10), kernel=3, null_space=1e-3, crop=0.8))
    power = np.sum(np.abs(found) ** 2, axis=0)
    assert np.mean(power > 0) > 0.95
    assert apart(found, c / np.linalg.norm(c, axis=0), power > 0) < 0.02


@pytest.mark.parametrize("method", [walsh, inati])
def test_adaptive_maps_from_images(head, method):
    """In a smooth object, away from its edge by the width of the box."""
    c, image, inside = head
    images = jnp.asarray(c * np.where(inside, np.exp(0.01j * SIZE), 0))
    found = method(images, width=3)
    within = inside.copy()
    for _ in range(2):
        for axis in (0, 1):
            within &= np.roll(within, 1, axis) & np.roll(within, -1, axis)
    np.testing.assert_allclose(jnp.sum(jnp.abs(found) ** 2, axis=0)[within], 1, atol=1e-9)
    assert apart(np.asarray(found), c, within) < 0.03
    combined = combine(jnp.asarray(c * image), found)
    np.testing.assert_allclose(np.abs(combined)[within], np.abs(image)[within], rtol=2e-3)


def test_few_coils_hold_what_many_do(head):
    c, image, _ = head
    rng = np.random.default_rng(1)
    more = rng.normal(size=(20, COILS)) + 1j * rng.normal(size=(20, COILS))
    y = np.tensordot(more, c * image, 1)
    assert compression(y, 1 - 1e-9).shape == (COILS, 20)
    matrix = compression(y, 4)
    np.testing.assert_allclose(matrix @ jnp.conj(matrix.T), np.eye(4), atol=1e-12)
    few = mixed(y, matrix)
    s = np.linalg.svd(y.reshape(20, -1), compute_uv=False)
    assert np.sum(np.abs(few) ** 2) == pytest.approx(np.sum(s[:4] ** 2))


def test_whitened_noise_is_white_and_of_the_sd_said():
    rng = np.random.default_rng(2)
    root = rng.normal(size=(4, 4)) + 1j * rng.normal(size=(4, 4)) + 2 * np.eye(4)
    psi = jnp.asarray(root @ root.conj().T)
    zero = jnp.zeros((2, 4, 40_000), complex)
    noise, other = receiver_noise(zero, psi, jax.random.key(0))
    np.testing.assert_allclose(
        noise @ jnp.conj(noise.T) / 40_000, psi, atol=0.03 * float(psi.real.max())
    )
    whitener, sd = whitening(noise)
    after = mixed(other, whitener)
    both = np.cov(np.concatenate([after.real, after.imag]))
    np.testing.assert_allclose(both, sd**2 * np.eye(8), atol=0.03 * sd**2)
    assert sd == pytest.approx(np.sqrt(np.trace(psi).real / 8), rel=0.02)
    half, lower = whitening(noise, ratio=0.25)
    assert lower == pytest.approx(sd / 2)
    np.testing.assert_allclose(half, whitener, atol=1e-12)  # sizes are kept


def test_derivative_of_noise_in_its_covariance():
    y = jnp.zeros((2, 3), complex)

    def noisy(a):
        psi = jnp.array([[2.0, 0.0], [0.0, 1.0]]) + jnp.array([[0.0, 0.3j], [-0.3j, 0.0]]) * a
        return receiver_noise(y, psi, jax.random.key(1))

    check_gradient(noisy, jnp.asarray(0.7))


BAD = {
    "no noise scan": lambda: whitening(None),
    "at least two samples": lambda: whitening(np.ones((4, 6), complex)),
    "of 1 independent coils": lambda: whitening(np.ones((2, 9), complex)),
    "1 NaN": lambda: whitening(np.full((1, 9), 1.0).astype(complex) * [np.nan, *[1] * 8]),
    "without gaps": lambda: espirit(np.ones((2, 4, 4), complex), (8, 8)),
    "zeros; expected signal": lambda: espirit(np.zeros((2, 8, 8), complex), (8, 8)),
    "an odd number": lambda: walsh(np.ones((2, 8, 8), complex), width=4),
    "1 to 3 coils": lambda: compression(np.ones((3, 5), complex), 4),
    "as many coils": lambda: mixed(np.ones((3, 5), complex), np.ones((2, 4))),
}  # fmt: skip


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_is_said(said):
    with pytest.raises(InputError, match=said):
        BAD[said]()
