from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.stats import truncnorm

from mrphys.water_pools import _positive, nodes_s, series, share
from tests.laws import check_gradient

EDGES_S = (0.01, 0.04, 0.2, 2.0)
TE_S = 0.008 * np.arange(1, 49)
BASIS = series(jnp.exp(-TE_S[None, None] / nodes_s(EDGES_S)[..., None]))


def echoes(shares, t2_s):
    return np.sum(shares[..., None] * np.exp(-TE_S / t2_s[..., None]), axis=-2)


def drawn(voxels, snr, seed=0):
    """Mixtures as probable as those that are known before, and magnitudes of them."""
    rng = np.random.default_rng(seed)
    low, high = np.log(EDGES_S[:-1]), np.log(EDGES_S[1:])
    shares = rng.dirichlet(np.ones(3), voxels)
    x = echoes(shares, np.exp(rng.uniform(low, high, (voxels, 3))))
    noise = rng.standard_normal((2, *x.shape)) / snr
    return shares[:, 0], jnp.asarray(np.abs(x + noise[0] + 1j * noise[1]))


each = jax.jit(jax.vmap(share, (None, 0, None)))


def test_series_are_the_echoes_between_their_nodes():
    for pool, t2_s in enumerate((0.0137, 0.111, 1.7)):
        low, high = np.log(EDGES_S[pool]), np.log(EDGES_S[pool + 1])
        y = 2 * (np.log(t2_s) - low) / (high - low) - 1
        terms = np.zeros((3, 6))
        terms[pool] = np.cos(np.arange(6) * np.arccos(y))
        np.testing.assert_allclose(BASIS @ terms.ravel(), np.exp(-TE_S / t2_s), atol=2e-4)


def test_what_is_above_zero_is_sampled_as_scipy_does():
    even = (np.arange(4000) + 0.5) / 4000
    for mean, sd in ((2.0, 1.0), (-1.0, 0.5), (-9.0, 1.0)):
        found, mass = _positive(jnp.array(mean), jnp.array(sd**-2), jnp.asarray(even))
        exact = truncnorm(-mean / sd, np.inf, loc=mean, scale=sd)
        np.testing.assert_allclose(found.mean(), exact.mean(), rtol=0.015)
        np.testing.assert_allclose(found.std(), exact.std(), rtol=0.03)
        z = np.linspace(-mean / sd, -mean / sd + 20, 400_001)
        density = np.exp(-(z**2) / 2) / np.sqrt(2 * np.pi)
        np.testing.assert_allclose(mass, np.log(np.trapezoid(density, z)), atol=1e-4)


@pytest.mark.parametrize(("snr", "shares"), [(30.0, (0.2, 0.7, 0.1)), (60.0, (0.5, 0.3, 0.2))])
def test_it_is_the_sum_over_everything_there_may_be(snr, shares):
    x = echoes(np.array(shares), np.array([0.02, 0.08, 0.9]))
    x = x + np.random.default_rng(1).standard_normal(48) / snr
    # Amplitudes on a grid are a third of the way from the share; T2 on grids of equal logarithms.
    count = 24
    grids = [
        np.exp(np.log(low) + (np.log(high) - np.log(low)) * (np.arange(count) + 0.5) / count)
        for low, high in pairwise(EDGES_S)
    ]
    decays = [np.exp(-TE_S[:, None] / grid) for grid in grids]
    rng, logs, means, squares = np.random.default_rng(2), [], [], []
    even = rng.dirichlet(np.ones(3), 4000)
    for i in range(count):
        for j in range(count):
            pair = np.stack([decays[0][:, i], decays[1][:, j]])
            first = even[:, :2] @ pair
            for k in range(0, count, 3):
                signal = first + even[:, 2:] * decays[2][:, k]
                power, along = (signal**2).sum(axis=1), signal @ x
                # The size, of which m0² dm0 is as probable, is summed over as a Gaussian's.
                size = along / power
                log = snr**2 * along**2 / power / 2 - np.log(power) / 2 + 2 * np.log(size)
                top = log.max()
                weight = np.exp(log - top)
                logs.append(top + np.log(weight.sum()))
                means.append((weight * even[:, 0]).sum() / weight.sum())
                squares.append((weight * even[:, 0] ** 2).sum() / weight.sum())
    weight = np.exp(np.array(logs) - max(logs))
    mean = (weight * means).sum() / weight.sum()
    sd = np.sqrt((weight * squares).sum() / weight.sum() - mean**2)
    # Far above its noise a magnitude is a Gaussian of mean A + σ²/2A, and so are these.
    found = share(BASIS, jnp.asarray(np.sqrt(x**2 + snr**-2)), jnp.asarray(1 / snr))
    assert found.points > 60
    np.testing.assert_allclose(found.mean, mean, atol=0.12 * sd)
    np.testing.assert_allclose(found.sd, sd, rtol=0.1)


@pytest.mark.core
def test_shares_lie_about_the_mean_as_their_sd_says():
    true, x = drawn(1500, 40.0)
    found = each(BASIS, x, jnp.asarray(1 / 40))
    z = (np.asarray(found.mean) - true) / np.asarray(found.sd)
    assert abs(z.mean()) < 0.08
    assert 0.93 < z.std() < 1.07
    assert np.mean(np.asarray(found.points) > 16) > 0.99


def test_derivatives_are_right():
    _, x = drawn(1, 60.0, seed=3)
    check_gradient(
        lambda given: share(*given)[:2],
        (BASIS, x[0], jnp.asarray(1 / 60)),
        scale=1e-4,
        rtol=1e-4,
        atol=1e-5,
        directions=6,
    )
