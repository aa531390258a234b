"""Cosine and sine together against NumPy in float64, and their derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.rotation import cos_sin
from tests.laws import check_gradient


@pytest.mark.core
@pytest.mark.parametrize(("low", "high", "error"), [(-np.pi, np.pi, 2e-7), (-1000, 1000, 2e-7)])
def test_float32_against_float64(low, high, error):
    angle = np.linspace(low, high, 20001).astype(np.float32)
    cos, sin = cos_sin(jnp.asarray(angle))
    assert cos.dtype == sin.dtype == jnp.float32
    np.testing.assert_allclose(cos, np.cos(angle.astype(float)), atol=error)
    np.testing.assert_allclose(sin, np.sin(angle.astype(float)), atol=error)


def test_derivatives_at_zero_and_elsewhere():
    check_gradient(lambda x: jnp.stack(cos_sin(x)), jnp.array([0.0, 1.0, -4.0]), scale=1.0)
    second = jax.hessian(lambda x: cos_sin(x)[0])(jnp.asarray(0.3))
    assert float(second) == pytest.approx(-np.cos(0.3))
