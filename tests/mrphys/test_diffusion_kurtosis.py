import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys.diffusion_kurtosis import fit_kurtosis
from mrphys.diffusion_tensor import CONVERGED
from mrphys.noise import complex_gaussian
from mrphys.sequence import diffusion_weighted
from tests.laws import check_gradient

RNG = np.random.default_rng(0)
G = RNG.normal(size=(64, 3))
G /= np.linalg.norm(G, axis=1, keepdims=True)
B = np.repeat([0.0, 1000, 2000], [4, 30, 30])
THETA = diffusion_weighted(B, te_s=0.06, directions=G)


def mixtures(voxels):
    """D in µm²/ms and V = MD² W of two Gaussian compartments: 3 times the variance of D(n)."""
    rng = np.random.default_rng(1)
    along = rng.normal(size=(voxels, 3))
    along /= np.linalg.norm(along, axis=1, keepdims=True)
    square = along[:, :, None] * along[:, None]
    share = rng.uniform(0.3, 0.7, (voxels, 1, 1))
    first, second = 0.3 * np.eye(3) + 1.2 * square, 0.9 * np.eye(3) + 0.2 * square
    d = share * first + (1 - share) * second
    apart = first - second
    four = sum(np.einsum(f"vij,vkl->v{a}", apart, apart) for a in ("ijkl", "ikjl", "iljk")) / 3
    return d, 3 * (share * (1 - share))[..., None, None] * four[:, :, :, :, :]


def signals(d, v):
    b = B / 1e3
    second = np.einsum("ri,rj,vij->vr", G, G, d)
    fourth = np.einsum("ri,rj,rk,rl,vijkl->vr", G, G, G, G, v, optimize=True)
    return np.exp(-b * second + b**2 / 6 * fourth)


def kurtoses(d, v):
    """MK and MKT by very many directions of a spiral."""
    i = np.arange(4000) + 0.5
    z, phi = 1 - i / 2000, np.pi * (1 + 5**0.5) * i
    n = np.stack([np.sqrt(1 - z**2) * np.cos(phi), np.sqrt(1 - z**2) * np.sin(phi), z], 1)
    second = np.einsum("ri,rj,vij->vr", n, n, d)
    fourth = np.einsum("ri,rj,rk,rl,vijkl->vr", n, n, n, n, v, optimize=True)
    md = np.trace(d, axis1=1, axis2=2) / 3
    return (fourth / second**2).mean(1), fourth.mean(1) / md**2


@pytest.mark.core
def test_noiseless_tensors_are_found(rtol):
    d, v = mixtures(6)
    d = np.concatenate([d, [np.eye(3)]])
    isotropic = sum(
        np.einsum("ij,kl->" + a, np.eye(3), np.eye(3)) for a in ("ijkl", "ikjl", "iljk")
    )
    v = np.concatenate([v, [0.7 * isotropic / 3]])
    x = jnp.asarray(2 * signals(d, v))
    # What is freed of noise's bias moves with its variance: of next to no noise, not at all.
    est = fit_kurtosis(THETA, x, rtol(1e-7, 1e-4))
    mk, mkt = kurtoses(d, v)
    np.testing.assert_allclose(est.value.mk, mk, rtol=rtol(1e-4, 2e-3))
    np.testing.assert_allclose(est.value.mkt, mkt, rtol=rtol(1e-4, 2e-3))
    np.testing.assert_allclose([est.value.mk[6], est.value.mkt[6]], 0.7, rtol=rtol(1e-9, 2e-3))
    for found in (est, fit_kurtosis(THETA, x, 1e-3, rician=False)):
        np.testing.assert_allclose(1e3 * found.tensor.matrix(), d, atol=rtol(1e-10, 1e-3))
        np.testing.assert_allclose(found.value.m0, 2.0, rtol=rtol(1e-10, 1e-4))


@pytest.mark.core
def test_standard_deviations_are_calibrated():
    d, v = mixtures(3000)
    x = jnp.asarray(signals(d, v))
    y = jnp.abs(complex_gaussian(THETA, x + 0j, 0.02, jax.random.key(0)))
    est = fit_kurtosis(THETA, y, 0.02)
    mk, mkt = kurtoses(d, v)
    truths = {"md_mm2_per_s": np.trace(d, axis1=1, axis2=2) / 3e3, "mk": mk, "mkt": mkt}
    good = np.asarray(est.status) == CONVERGED
    assert good.mean() > 0.95
    for name, truth in truths.items():
        z = (np.asarray(getattr(est.value, name)) - truth) / np.asarray(getattr(est.sd, name))
        assert abs(z[good].std() - 1) < 0.06, name
        assert abs(z[good].mean()) < 0.3, name


def test_derivatives_are_right():
    d, v = mixtures(1)
    y = jnp.asarray(signals(d, v) * (1 + 0.01 * np.cos(np.arange(64))))

    def f(x):
        est = fit_kurtosis(THETA, x, 0.02)
        return est.value.mk, est.value.mkt, est.sd.mk, est.sd.mkt

    check_gradient(f, y, rtol=1e-5, atol=1e-6, directions=4)


def test_bad_input_is_refused():
    x = jnp.asarray(np.exp(-B / 1e3) * np.ones((2, 64)))
    one = np.where(B > 0, 1000.0, 0.0)
    with pytest.raises(InputError, match=r"16 of 22 unknowns.*one b-value"):
        fit_kurtosis(diffusion_weighted(one, 0.06, directions=G), x, 0.1)
    with pytest.raises(InputError, match="without directions"):
        fit_kurtosis(diffusion_weighted(B, 0.06), x, 0.1)
