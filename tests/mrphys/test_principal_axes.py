import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.principal_axes import principal_axes
from tests.laws import check_gradient

SIX = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))


def packed(matrices):
    return jnp.stack([jnp.asarray(matrices)[:, i, j] for i, j in SIX])


@pytest.mark.core
def test_they_are_those_of_lapack(rtol):
    rng = np.random.default_rng(0)
    matrices = rng.normal(size=(200, 3, 3))
    matrices = matrices + matrices.transpose(0, 2, 1)
    matrices[:20] *= 1e-6
    matrices[20:40] += 1e4 * np.eye(3)
    matrices[40] = 0
    matrices[41:60] = np.eye(3) + matrices[41:60, :1].transpose(0, 2, 1) * matrices[41:60, :1]
    values, axes = principal_axes(packed(matrices))
    size = np.abs(matrices).max(axis=(1, 2)) + 1e-30
    expected = np.linalg.eigvalsh(matrices)[:, ::-1]
    assert (np.abs(values.T - expected) <= rtol(1e-14, 2e-6) * size[:, None]).all()
    rebuilt = np.einsum("ak,abk,ack->kbc", values, axes, axes)
    assert (np.abs(rebuilt - matrices).max(axis=(1, 2)) <= rtol(1e-14, 2e-6) * size).all()


def test_derivatives_are_right_and_finite_where_eigenvalues_are_equal():
    rng = np.random.default_rng(1)
    check_gradient(principal_axes, jnp.asarray(rng.normal(size=(6, 2))), scale=0.1)
    one = jnp.array([[1.0], [1.0], [2.0], [0.0], [0.0], [0.0]])
    jacobian = jax.jacobian(principal_axes)(one)
    assert all(np.isfinite(part).all() for part in jacobian)
    # A rotation leaves eigenvalues, a stretch along the third axis moves the first alone.
    np.testing.assert_allclose(jacobian[0][:, 0, 2, 0], [1, 0, 0], atol=1e-15)
