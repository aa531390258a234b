import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.bounds import AT_BOUND, Bounds
from mrphys.least_squares import (
    FIRST,
    NUMBERS,
    in_parts,
    inverse_diagonal,
    levenberg_marquardt,
    solve,
)


def lower(matrices):
    return [[jnp.asarray(matrices[:, i, j]) for j in range(i + 1)] for i in range(4)]


@pytest.mark.core
def test_unrolled_elimination_is_that_of_lapack(rtol, dtype):
    rng = np.random.default_rng(0)
    roots = rng.normal(size=(50, 4, 6))
    matrices = (roots @ roots.swapaxes(1, 2)).astype(dtype)
    right = rng.normal(size=(50, 4)).astype(dtype)
    found = jnp.stack(solve(lower(matrices), list(jnp.asarray(right.T))), axis=-1)
    expected = np.linalg.solve(matrices.astype(float), right[..., None])[..., 0]
    np.testing.assert_allclose(found, expected, rtol=rtol(1e-9, 5e-3), atol=rtol(1e-9, 1e-3))
    variances = jnp.stack(inverse_diagonal(lower(matrices)), axis=-1)
    expected = np.linalg.inv(matrices.astype(float))[:, range(4), range(4)]
    np.testing.assert_allclose(variances, expected, rtol=rtol(1e-8, 5e-3))


def test_every_voxel_comes_down_rosenbrocks_valley():
    """r = (10 (y - x²), a - x), of least cost 0 at (a, a²)."""
    a = jnp.linspace(0.5, 1.5, 7)

    def evaluate(u):
        x, y = u
        r, s = 10 * (y - x**2), a - x
        slope = [20 * x * r + s, -10 * r]
        return (r**2 + s**2) / 2, slope, [[400 * x**2 + 1], [-200 * x, jnp.full_like(x, 100.0)]]

    start = [jnp.full(7, -1.2), jnp.ones(7)]
    found = levenberg_marquardt(evaluate, start, [9.0, 9.0], 200)
    np.testing.assert_allclose(found.at, jnp.stack([a, a**2]), rtol=1e-7)


def test_the_few_that_take_long_are_searched_together():
    """r = x² + b from far away: where b is 0, steps only halve x."""
    b = jnp.where(jnp.arange(601) % 50 == 7, 0.0, -1.0)
    tried = []

    def search(b, start, iterations):
        def evaluate(u):
            (x,) = u
            r = x**2 + b
            return r**2 / 2, [-2 * x * r], [[4 * x**2]]

        jax.debug.callback(lambda n: tried.append(int(n)), iterations)
        return levenberg_marquardt(evaluate, start, [9.0], iterations)

    at, step = in_parts(search, b, [jnp.full(601, 1.5)], 60, NUMBERS)
    np.testing.assert_allclose(at[0], jnp.where(b == 0, 0.0, 1.0), atol=1e-4)
    np.testing.assert_allclose(step, 0.0, atol=1e-4)
    jax.effects_barrier()
    assert tried == [FIRST] * 3 + [60]


@pytest.mark.parametrize("bounds", [Bounds(0.01, 20.0), Bounds(-3.0, 2.0)])
def test_coordinates_of_bounds(bounds):
    value = jnp.linspace(max(bounds.low, 0.02) if bounds.logarithmic else -2.9, 1.9, 9)
    u = bounds.coordinate(value)
    np.testing.assert_allclose(bounds.value(u), value, rtol=1e-10, atol=1e-10)
    step = 1e-6
    finite = (bounds.value(u + step) - bounds.value(u - step)) / (2 * step)
    np.testing.assert_allclose(bounds.slope(u), finite, rtol=1e-6)
    assert abs(float(bounds.coordinate(jnp.asarray(bounds.high)))) < AT_BOUND
