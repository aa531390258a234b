"""The wavelet transform beside PyWavelets'."""

import jax.numpy as jnp
import numpy as np
import pytest

from mrphys.reconstruction.wavelets import transform

pytestmark = pytest.mark.oracle


@pytest.mark.parametrize(
    ("name", "shape", "levels"), [("db1", (8, 8), 3), ("db4", (16, 32), 2), ("db7", (16, 8, 24), 1)]
)
def test_bands_are_those_of_pywavelets(rival, name, shape, levels):
    x = np.random.default_rng(0).normal(size=shape)
    found = rival("ask_pywavelets", x=x, name=name, levels=levels)["c"]
    ours = np.asarray(transform(jnp.asarray(x), len(shape), name, levels))
    np.testing.assert_allclose(np.abs(ours), np.abs(found), atol=1e-10)
