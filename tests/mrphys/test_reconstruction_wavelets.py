"""The wavelet transform against the filter bank that defines it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys.reconstruction.wavelets import NAMES, L1Wavelet, inverse, low_pass, transform
from tests.laws import check_gradient

RNG = np.random.default_rng(1)


@pytest.mark.parametrize("name", NAMES)
def test_filters_are_orthonormal_and_blind_to_polynomials(name):
    """Σ h_m h_{m+2k} = δ_k, and as many moments of the high pass vanish as the name says."""
    h = low_pass(name)
    for k in range(h.size // 2):
        assert abs(h[2 * k :] @ h[: h.size - 2 * k] - (k == 0)) < 5e-15
    g = (-1.0) ** np.arange(h.size) * h[::-1]
    for power in range(h.size // 2):
        moment = g @ (np.arange(h.size) / h.size) ** power
        assert abs(moment) < 1e-11


@pytest.mark.parametrize(
    ("shape", "name", "levels"),
    [((8,), "db1", 3), ((9, 6), "db2", 2), ((5, 1, 4), "db4", 4), ((2, 7), "db8", 3)],
)
def test_transform_is_orthogonal_of_any_shape(shape, name, levels):
    n, axes = int(np.prod(shape)), len(shape)
    columns = transform(jnp.eye(n).reshape(n, *shape), axes, name, levels).reshape(n, n)
    np.testing.assert_allclose(columns @ columns.T, np.eye(n), atol=1e-13)
    back = inverse(jnp.eye(n).reshape(n, *shape), axes, name, levels).reshape(n, n)
    np.testing.assert_allclose(back, columns.T, atol=1e-13)


def bank(x, h):
    """Σ_m h_m x_{2k+m} along the first axis, as slow and plain as it gets."""
    n = x.shape[0]
    return np.array([
        sum(h[m] * x[(2 * k + m) % n] for m in range(h.size)) for k in range(n // 2)
    ])  # fmt: skip


def test_bands_are_those_of_the_filter_bank():
    x = RNG.normal(size=(8, 12)) + 1j * RNG.normal(size=(8, 12))
    h = low_pass("db3")
    g = (-1.0) ** np.arange(h.size) * h[::-1]
    bands = {
        (i, j): bank(bank(x, first).T, second).T
        for i, first in enumerate((h, g))
        for j, second in enumerate((h, g))
    }
    c = transform(jnp.asarray(x), 2, "db3", 1)
    np.testing.assert_allclose(c[:4, 6:], bands[0, 1], atol=1e-13)
    np.testing.assert_allclose(c[4:], np.hstack([bands[1, 0], bands[1, 1]]), atol=1e-13)
    deeper = transform(jnp.asarray(x), 2, "db3", 2)
    again = bands[0, 0]
    np.testing.assert_allclose(deeper[:2, :3], bank(bank(again, h).T, h).T, atol=1e-13)
    np.testing.assert_allclose(deeper[4:], c[4:], atol=1e-13)


@pytest.mark.core
def test_comes_back_in_three_axes(dtype, rtol):
    x = jnp.asarray(RNG.normal(size=(2, 8, 6, 10)), dtype)
    c = jax.jit(lambda x: transform(x, 3, "db4", 2))(x)
    assert c.dtype == dtype
    np.testing.assert_allclose(jnp.linalg.norm(c), jnp.linalg.norm(x), rtol(1e-13, 1e-5))
    np.testing.assert_allclose(inverse(c, 3, "db4", 2), x, atol=rtol(1e-13, 1e-5))


def test_derivatives_of_what_shrinks():
    """Also where a coefficient is 0, or at the threshold."""
    sparse = L1Wavelet(wavelet="db2", levels=2)
    x = RNG.normal(size=(6, 4)) + 1.0

    def shrunk(v):
        return sparse.proximal(v["x"] + 0.3j, 2, v["by"], jax.random.key(0))

    at = {"x": x, "by": np.asarray(0.4)}
    check_gradient(shrunk, at, directions=4, finite_at=({"x": 0 * x, "by": np.asarray(0.0)},))


def test_bad_wavelets_are_named():
    with pytest.raises(InputError, match="one of db1"):
        L1Wavelet(wavelet="haar")
    with pytest.raises(InputError, match="levels"):
        L1Wavelet(levels=0)
