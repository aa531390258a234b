from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys import InputError
from mrphys import diffusion_tensor as dti
from mrphys.diffusion import DiffusionTensor
from mrphys.diffusion_tensor import fit_tensor
from mrphys.noise import complex_gaussian
from mrphys.sequence import diffusion_weighted
from tests.laws import check_gradient

SIX = ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
RNG = np.random.default_rng(0)
G = RNG.normal(size=(34, 3))
G /= np.linalg.norm(G, axis=1, keepdims=True)
B = np.where(np.arange(34) % 8 == 3, 0.0, 1000.0)
THETA = diffusion_weighted(B, te_s=0.06, averages=np.linspace(1, 2, 34), directions=G)


def tissue(eigenvalues, seed=0):
    """Tensors of given eigenvalues along random axes, and the axes."""
    eigenvalues = np.asarray(eigenvalues)
    rng = np.random.default_rng(seed)
    axes = np.linalg.qr(rng.normal(size=(len(eigenvalues), 3, 3)))[0]
    d = np.einsum("vxk,vk,vyk->vxy", axes, eigenvalues, axes)
    return mr.Tissue(t1_s=1.0, t2_s=0.08, tensor=DiffusionTensor(*[d[:, i, j] for i, j in SIX])), d


def fibres(voxels, seed=0):
    rng = np.random.default_rng(seed)
    across = rng.uniform(0.3e-3, 0.6e-3, (voxels, 1))
    along = across + rng.uniform(0.5e-3, 1.1e-3, (voxels, 1))
    return np.concatenate([along, across * 1.2, across], axis=1)


def scalars(e):
    md = e.mean(axis=1)
    fa = np.sqrt(1.5 * ((e - md[:, None]) ** 2).sum(1) / (e**2).sum(1))
    return {"fa": fa, "md_mm2_per_s": md, "ad_mm2_per_s": e[:, 0], "rd_mm2_per_s": e[:, 1:].mean(1)}


@pytest.mark.core
def test_noiseless_tensors_are_found(rtol):
    e = np.concatenate([fibres(10), [[1.5e-3, 1.5e-3, 0.2e-3], [1e-3, 1e-3, 1e-3]]])
    q, d = tissue(e)
    x = mr.simulate(THETA, q).reshape(3, 4, -1)
    est = fit_tensor(THETA, -x, 1e-4)
    for name, expected in scalars(e).items():
        found = getattr(est.value, name).ravel()
        np.testing.assert_allclose(found, expected, rtol=rtol(1e-11, 1e-4), atol=rtol(1e-7, 1e-3))
    np.testing.assert_allclose(est.tensor.matrix().reshape(-1, 3, 3), d, atol=rtol(1e-14, 1e-7))
    main = est.eigenvectors.reshape(-1, 3, 3)[:10, 0]
    along = np.einsum("vx,vxy,vy->v", main, d[:10], main)
    np.testing.assert_allclose(along, e[:10, 0], rtol=rtol(1e-12, 1e-5))
    np.testing.assert_allclose(est.value.m0.ravel(), x[0, 0, 3].real, rtol=rtol(1e-12, 1e-5))
    expected = np.full(12, dti.CONVERGED)
    expected[11] = dti.ISOTROPIC
    np.testing.assert_array_equal(est.status.ravel(), expected)
    order = RNG.permutation(34)
    again = fit_tensor(
        diffusion_weighted(B[order], 0.06, averages=THETA.averages[order], directions=G[order]),
        x[..., order],
        1e-4,
    )
    np.testing.assert_allclose(again.value.fa, est.value.fa, rtol=rtol(1e-9, 1e-4), atol=1e-3)


@pytest.mark.core
@pytest.mark.parametrize(("snr", "told"), [(50, True), (20, True), (20, False)])
def test_standard_deviations_are_calibrated(snr, told):
    e = fibres(10_000)
    q, _ = tissue(e)
    x = mr.simulate(THETA, q)
    noise_sd = float(jnp.abs(x).max()) / snr
    y = jnp.abs(complex_gaussian(THETA, x, noise_sd, jax.random.key(0)))
    est = fit_tensor(THETA, y, noise_sd if told else None)
    common = np.sqrt(np.mean(np.square(est.noise_sd)))
    np.testing.assert_allclose(common, noise_sd, rtol=0.02)
    good = np.asarray(est.status) == dti.CONVERGED
    assert good.mean() > 0.98
    for name, truth in scalars(e).items():
        scale = common / np.asarray(est.noise_sd)
        z = (getattr(est.value, name) - truth) / (getattr(est.sd, name) * scale)
        assert abs(z[good].std() - 1) < 0.04
        assert abs(z[good].mean()) < 0.15


def test_it_is_weighted_least_squares():
    q, _ = tissue(fibres(10_000))
    y = np.abs(complex_gaussian(THETA, mr.simulate(THETA, q), 0.02, jax.random.key(1)))
    design = np.concatenate(
        [np.ones((34, 1)), -B[:, None] * np.stack([G[:, i] * G[:, j] for i, j in SIX], 1)], axis=1
    )
    design[:, 4:] *= 2
    est = fit_tensor(THETA, jnp.asarray(y))
    for i in range(3):
        first = design @ np.linalg.lstsq(design, np.log(y[i]))[0]
        w = np.sqrt(THETA.averages) * np.exp(first)
        beta = np.linalg.lstsq(w[:, None] * design, w * np.log(y[i]))[0]
        np.testing.assert_allclose(est.tensor.xy[i], beta[4], rtol=1e-8)
        left = w * (np.log(y[i]) - design @ beta)
        np.testing.assert_allclose(est.residual[i], np.sqrt((left**2).sum() / 27), rtol=1e-8)
        covariance = np.linalg.inv((w**2 * design.T) @ design)
        sd = np.sqrt(covariance[1:4, 1:4].sum()) / 3 * est.residual[i]
        np.testing.assert_allclose(est.sd.md_mm2_per_s[i], sd, rtol=1e-8)


def test_derivatives_are_right():
    q, _ = tissue(fibres(2))
    y = jnp.abs(complex_gaussian(THETA, mr.simulate(THETA, q), 0.02, jax.random.key(1)))

    def f(p):
        theta = replace(THETA, b_s_per_mm2=p["b"], directions=p["g"], averages=p["averages"])
        est = fit_tensor(theta, p["x"], p["noise"])
        return est.value, est.sd, est.residual, 1e3 * est.tensor.xy

    p = {"b": THETA.b_s_per_mm2, "g": THETA.directions, "averages": THETA.averages, "x": y,
         "noise": jnp.asarray(0.02)}  # fmt: skip
    check_gradient(f, p, rtol=1e-6, atol=1e-7, directions=6)


@pytest.mark.core
def test_a_voxel_says_what_became_of_it():
    q, _ = tissue([[1.7e-3, 0.4e-3, 0.3e-3]] * 12)
    x = jnp.abs(mr.simulate(THETA, q))
    air = jnp.abs(complex_gaussian(THETA, 0j * x, 0.01, jax.random.key(0)))
    x = x.at[1].set(0.0).at[2].set(air[2]).at[3, 4].set(jnp.nan).at[5, 0].set(0.0)
    mask = np.arange(12) != 4
    est = fit_tensor(THETA, x, 0.01, mask)
    kinds = [dti.CONVERGED, dti.FAILED, dti.ILL_DETERMINED, dti.FAILED, dti.MASKED, dti.CONVERGED]
    np.testing.assert_array_equal(est.status[:6], kinds)
    hidden = jnp.array([1, 2, 3, 4])
    assert np.isinf(est.sd.fa[hidden]).all() and np.isinf(est.sd.md_mm2_per_s[hidden]).all()
    np.testing.assert_allclose(est.value.fa[5], est.value.fa[0], rtol=1e-3)

    def loss(x):
        est = fit_tensor(THETA, x, 0.01)
        return est.value.fa.sum() + (1 / est.sd.fa).sum() + est.eigenvectors.sum()

    assert np.isfinite(jax.jit(jax.grad(loss))(x)).all()


def test_bad_input_is_refused():
    x = jnp.asarray(np.exp(-1e-3 * B) * np.ones((4, 34)))
    for match, theta, data, noise, mask in (
        ("without directions", diffusion_weighted(B, 0.06), x, 0.1, None),
        ("last axis of 34", THETA, x.T, 0.1, None),
        ("another image", THETA, x, 0.1, np.ones(3, bool)),
        ("another image", THETA, x, jnp.ones(3), None),
        ("noise_sd", THETA, x, 0.0, None),
        ("sorted otherwise", THETA, x[:, np.argsort(-x[0])][:, ::-1], 0.1, None),
        ("4 of 7 unknowns.*in a plane", diffusion_weighted(B, 0.06, directions=[[1, 0, 0]] * 17
            + [[0, 1, 0]] * 9 + [[0.6, 0.8, 0]] * 8), x, 0.1, None),
        ("6 of 7", diffusion_weighted([1000.0] * 34, 0.06, directions=G), x, 0.1, None),
    ):  # fmt: skip
        with pytest.raises(InputError, match=match):
            fit_tensor(theta, data, noise, mask)


@pytest.mark.parametrize(
    ("directions", "says"),
    [
        (G.T, "transpose"),
        (G[:5], r"shape \(34, 3\)"),
        (2 * G, "length 2.*folded"),
        (np.where(B[:, None] > 0, G, np.nan), "write zeros"),
        (np.zeros((34, 3)), "without direction"),
    ],
)
def test_gradient_tables_that_are_wrong_are_refused(directions, says):
    with pytest.raises(InputError, match=says):
        diffusion_weighted(B, 0.06, directions=directions)


def test_a_tensor_needs_directions():
    q, _ = tissue(fibres(1))
    with pytest.raises(InputError, match="directions"):
        mr.simulate(diffusion_weighted(B, 0.06), q)
