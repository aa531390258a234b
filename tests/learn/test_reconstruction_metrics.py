"""Metrics against their definitions, window by window."""

import jax.numpy as jnp
import numpy as np
import pytest

from learn.reconstruction import all_metrics, hfen, nmse, psnr, ssim

RNG = np.random.default_rng(0)
TRUTH = RNG.uniform(0, 2, (20, 17))
IMAGE = np.abs(TRUTH + 0.1 * RNG.normal(size=TRUTH.shape))


def slow_ssim(a, b):
    """One window after the other, with weighted means and covariances."""
    at = np.arange(11) - 5
    weight = np.exp(-(at[:, None] ** 2 + at[None] ** 2) / (2 * 1.5**2))
    weight = weight / weight.sum()
    c1, c2 = (0.01 * b.max()) ** 2, (0.03 * b.max()) ** 2
    found = []
    for i in range(a.shape[0] - 10):
        for j in range(a.shape[1] - 10):
            p, q = a[i : i + 11, j : j + 11], b[i : i + 11, j : j + 11]
            mp, mq = (weight * p).sum(), (weight * q).sum()
            cov = np.cov(p.ravel(), q.ravel(), aweights=weight.ravel(), ddof=0)
            found.append(
                (2 * mp * mq + c1) * (2 * cov[0, 1] + c2)
                / ((mp**2 + mq**2 + c1) * (cov[0, 0] + cov[1, 1] + c2))
            )  # fmt: skip
    return np.mean(found)


def test_ssim_is_the_mean_over_windows():
    assert float(ssim(IMAGE, TRUTH)) == pytest.approx(slow_ssim(IMAGE, TRUTH), rel=1e-9)
    assert float(ssim(TRUTH, TRUTH)) == pytest.approx(1)


def test_psnr_and_nmse_of_a_known_error():
    off = TRUTH + 0.1
    assert float(psnr(off, TRUTH)) == pytest.approx(20 * np.log10(TRUTH.max() / 0.1))
    assert float(nmse(1.1 * TRUTH, TRUTH)) == pytest.approx(0.01)


def test_hfen_sees_edges_not_levels():
    """0 for a constant inside; the error of the curvature of cos for one of another height."""
    x, y = np.meshgrid(np.arange(40.0), np.arange(40.0), indexing="ij")
    wave = 2 + np.cos(2 * np.pi * x / 5)
    assert float(hfen(wave, wave)) == 0
    assert float(hfen(1.2 * wave, wave)) == pytest.approx(0.2)
    # the Laplacian of a normal kernel passes frequency w as w² exp(-w² s² / 2)
    slow, fast = np.cos(2 * np.pi * y / 20), np.cos(2 * np.pi * y / 5)
    ratio = float(hfen(5 + fast + 0.1 * slow, 5 + fast) / hfen(5 + fast + 0.1 * fast, 5 + fast))
    w = 2 * np.pi / np.array([20, 5])
    gain = w**2 * np.exp(-(w**2) * 1.5**2 / 2)
    assert ratio < 3 * gain[0] / gain[1]


def test_only_magnitudes_count():
    turned = jnp.asarray(TRUTH) * jnp.exp(1j * jnp.asarray(RNG.uniform(0, 6, TRUTH.shape)))
    found = all_metrics(turned * (1 + 1e-9), jnp.asarray(TRUTH))
    assert float(found["nmse"]) < 1e-16
    assert float(found["ssim"]) == pytest.approx(1)
