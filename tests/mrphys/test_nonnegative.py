import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import nnls

from mrphys.nonnegative import nonnegative

TE_S, T2_S = 0.01 * np.arange(1, 33), np.geomspace(0.01, 2, 24)
BASIS = np.exp(-TE_S[:, None] / T2_S)
FIND = jax.jit(nonnegative)


@pytest.mark.core
@pytest.mark.parametrize("weight", [1e-5, 0.1, 1.0])
def test_it_is_what_scipy_finds(weight, rtol):
    if weight == 1e-5 and rtol(True, False) is False:
        pytest.skip("beyond float32's digits")
    rng = np.random.default_rng(0)
    s = rng.uniform(0, 1, (40, 24)) * (rng.uniform(size=(40, 24)) < 0.1)
    x = s @ BASIS.T + 0.02 * rng.normal(size=(40, 32))
    x[0] = -1.0
    tall = np.concatenate([BASIS, weight * np.eye(24)])
    matrix = jnp.asarray(np.repeat((tall.T @ tall)[:, :, None], 40, axis=2))
    found = FIND(matrix, jnp.asarray((x @ BASIS).T))
    expected = np.array([nnls(tall, np.concatenate([row, np.zeros(24)]))[0] for row in x])
    assert found.solved.all()
    np.testing.assert_allclose(found.at.T, expected, atol=rtol(1e-7, 3e-2))
    if rtol(True, False):
        np.testing.assert_array_equal(found.passive.T, expected > 0)
        chosen = np.flatnonzero(expected[1])
        part = np.linalg.inv((tall.T @ tall)[np.ix_(chosen, chosen)])
        np.testing.assert_allclose(found.inverse[np.ix_(chosen, chosen, [1])][..., 0], part, 1e-4)
