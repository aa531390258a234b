"""Densities, noise and what unfolding costs, against closed forms."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError, reconstruct
from mrphys.encoding import Encoding
from mrphys.reconstruction import density, g_factor, g_of, noise_map, pseudo_replicas
from tests.laws import check_gradient

RNG = np.random.default_rng(3)
SHAPE = (8, 6)
COILS = RNG.normal(size=(4, *SHAPE)) + 1j * RNG.normal(size=(4, *SHAPE))
SD = 0.1


def variances(A):
    """(AᴴA)⁻¹_rr, dense."""
    n = int(np.prod(SHAPE))
    N = np.asarray(A.normal(jnp.eye(n).reshape(n, *SHAPE))).reshape(n, n).T
    return np.diag(np.linalg.inv(N)).real.reshape(SHAPE)


def lattice(rows, columns, shift=0):
    i, j = np.indices(SHAPE)
    return (j % columns == 0) & ((i + shift * (j // columns)) % rows == 0)


@pytest.mark.parametrize("mask", [lattice(2, 1), lattice(4, 1), lattice(2, 2), lattice(2, 1, 1)])
def test_noise_is_that_of_the_dense_inverse(mask):
    """Lines, points, and lines shifted by one from column to column (CAIPIRINHA)."""
    A = Encoding.cartesian(mask, COILS)
    expected = SD * np.sqrt(variances(A))
    np.testing.assert_allclose(noise_map(A, SD), expected, rtol=1e-10)
    ratio = mask.size / mask.sum()
    least = SD * np.sqrt(ratio / np.sum(np.abs(COILS) ** 2, axis=0))
    np.testing.assert_allclose(g_factor(A), expected / least, rtol=1e-10)
    np.testing.assert_allclose(g_of(A, jnp.asarray(expected), SD), g_factor(A), rtol=1e-10)


def test_two_coils_and_two_aliases():
    """g = 1 / sqrt(1 - |ρ|²), ρ the correlation of the coils' values at both; 0 without signal."""
    two = COILS[:2].copy()
    two[:, 0, 0] = 0
    A = Encoding.cartesian(lattice(2, 1), two)
    other = np.roll(two, 4, axis=1)
    power = np.sum(np.abs(two) ** 2, axis=0)
    both = np.abs(np.sum(np.conj(two) * other, axis=0)) ** 2
    g = g_factor(A)
    there = (power > 0) & (np.roll(power, 4, axis=0) > 0)
    expected = 1 / np.sqrt(1 - both[there] / (power * np.roll(power, 4, axis=0))[there])
    np.testing.assert_allclose(g[there], expected, rtol=1e-10)
    assert g[0, 0] == 0
    np.testing.assert_allclose(g[4, 0], 1.0)


def test_replicas_have_the_sd_of_the_dense_inverse():
    """Also where λ shrinks noise; within what as many replicas can tell."""
    A = Encoding.cartesian(lattice(2, 1), COILS)
    y = A(RNG.normal(size=SHAPE) + 0j)
    options = {"iterations": 40, "tolerance": 1e-8}
    found = pseudo_replicas(A, y, noise_sd=SD, replicas=300, key=jax.random.key(0), **options)
    ratio = np.asarray(found.sd) / np.asarray(noise_map(A, SD))
    assert abs(ratio.mean() - 1) < 0.02
    assert np.abs(ratio - 1).max() < 4.5 / np.sqrt(4 * 299)
    n = int(np.prod(SHAPE))
    N = np.asarray(A.normal(jnp.eye(n).reshape(n, *SHAPE))).reshape(n, n).T
    inverse = np.linalg.inv(N + 5 * np.eye(n))
    expected = SD * np.sqrt(np.diag(inverse @ N @ inverse.conj().T).real.reshape(SHAPE))
    one = reconstruct(A, y, regularisation=5.0, noise_sd=SD, replicas=300, **options)
    assert one.sd is not None
    assert abs((one.sd / expected).mean() - 1) < 0.02


def test_replicas_of_other_methods():
    """Adjoint: σ at a unitary grid. What is shrunk is less noisy than what is not."""
    A = Encoding.cartesian(np.ones(SHAPE, bool))
    y = A(np.ones(SHAPE))
    at_once, sparse = (
        reconstruct(A, y, method, noise_sd=SD, replicas=100, **settings)
        for method, settings in (("adjoint", {}), ("tv", {"regularisation": 0.2, "iterations": 50}))
    )
    assert abs(at_once.sd.mean() / SD - 1) < 0.03
    assert sparse.sd.mean() < 0.5 * SD


def spokes(count, n):
    angle = np.pi * np.arange(count) / count
    line = np.arange(n) - n // 2 + 0.5
    return (line[None, :, None] * np.stack([np.cos(angle), np.sin(angle)], -1)[:, None]).reshape(
        -1, 2
    )


@pytest.mark.parametrize("kind", ["iterative", "areas"])
def test_densities_of_a_grid_and_of_spokes(kind):
    """1 on the grid; in proportion to the distance from the centre, where spokes are apart."""
    grid = np.stack(np.meshgrid(np.arange(8.0) - 4, np.arange(6.0) - 3, indexing="ij"), -1)
    A = Encoding.noncartesian(grid.reshape(-1, 2), shape=SHAPE)
    np.testing.assert_allclose(density(A, kind), 1, atol=1e-4)
    k = spokes(25, 16)
    w = np.asarray(density(Encoding.noncartesian(k, shape=(16, 16)), kind))
    r = np.hypot(*k.T)
    inside = (r > 1) & (r < 6)
    expected = np.pi * r / 25
    assert np.median(np.abs(w / expected - 1)[inside]) < 0.1
    assert np.abs(w / expected - 1)[inside].max() < 0.3


def test_the_adjoint_looks_like_the_image():
    """Of enough spokes, in frames each with its own, coils of any strength."""
    i, j = np.indices((16, 16)) - 8
    x = np.exp(-(i**2 + j**2) / 9) + 0.5j * np.exp(-((i - 2) ** 2 + j**2) / 6)
    coils = RNG.uniform(0.5, 2, (3, 1, 1)) * np.exp(1j * np.stack([i, j, i + j]) / 9)
    k = np.stack([spokes(25, 16), spokes(25, 16)[:, ::-1]])
    A = Encoding.noncartesian(k, coils)
    found = reconstruct(A, A(np.stack([x, 2 * x])), "adjoint")
    off, near = np.abs(found.image[1] - 2 * x), np.hypot(i, j) < 6
    assert np.linalg.norm(off) < 0.2 * np.linalg.norm(2 * x)
    assert np.linalg.norm(off[near]) < 0.1 * np.linalg.norm(2 * x)
    given = reconstruct(A, A(np.stack([x, 2 * x])), "adjoint", density=density(A))
    np.testing.assert_allclose(given.image, found.image)


def test_derivatives_of_the_adjoint_in_points():
    def image(v):
        A = Encoding.noncartesian(v["k"], shape=(4, 3), tolerance=1e-13)
        y = v["y"][0] + 1j * v["y"][1]
        return reconstruct(A, y, "adjoint", density=density(A, iterations=2)).image

    at = {"k": RNG.uniform(-1.4, 1.4, (7, 2)), "y": RNG.normal(size=(2, 7))}
    with jax.numpy_rank_promotion("allow"):
        check_gradient(image, at, rtol=1e-4, directions=3)


@pytest.mark.parametrize(
    ("build", "told"),
    [
        (lambda: g_factor(Encoding.cartesian(np.arange(8)[:, None] % 3 < 1, COILS)), "lattice"),
        (lambda: g_factor(Encoding.cartesian(lattice(2, 1))), "with coils"),
        (lambda: pseudo_replicas(Encoding.cartesian(lattice(2, 1)), np.ones(SHAPE), noise_sd=-1.0,
                                 key=jax.random.key(0)), "above 0"),
        (lambda: density(Encoding.noncartesian(spokes(3, 4), shape=(4, 4)), "voronoi"), "areas"),
    ],
)  # fmt: skip
def test_bad_input_says_what_is_wrong(build, told):
    with pytest.raises(InputError, match=told):
        build()
