"""The spread of a posterior known in closed form, and its derivative in the samples taken."""

import jax
import jax.numpy as jnp
import numpy as np

from learn import sampling as ls
from learn.reconstruction.scans import add_noise
from mrphys.encoding import Encoding, fft, ifft

N, NOISE, LAST = 8, 0.3, 0.3
PRIOR = np.geomspace(1.5, 0.3, N)
"""Of the real part of a line of k-space. Each is alone: of a normal prior the variance of both
parts given data is 2 s² σ² / (w s² + σ²)."""
W = jnp.asarray([[0, 1, 0, 1, 1, 0, 0, 1.0]])
EVERY = Encoding.cartesian(jnp.ones((N, N)))


def by_line(x, factor):
    return ifft(fft(x, 2) * factor[None], 2)


def denoise(x, sigma):
    return by_line(x, PRIOR**2 / (PRIOR**2 + sigma**2))


def spread(w, key):
    keys = jax.random.split(key, 3)
    zero = jnp.zeros((N, N)) + 0j
    x = by_line(add_noise(zero, jnp.asarray(1.0), keys[0]), jnp.asarray(PRIOR))
    y = add_noise(EVERY(x), jnp.asarray(NOISE), keys[1])
    settings = {"turns": 6, "steps": 6, "largest": 10.0, "smallest": LAST, "iterations": 12}
    return ls.posterior_spread(denoise, ls.Chosen(EVERY, w), y, x, NOISE, keys[2], **settings)


BOTH = jax.jit(jax.vmap(jax.value_and_grad(spread), (None, 0)))


def test_spread_is_that_of_the_normal_posterior_and_its_derivative_ranks_lines():
    """The level in which the sampler ends, ρ = 0.3 σ, widens the data's noise to σ² + ρ². Data
    used with a small weight bring the sample nearer by up to twice what the variance loses."""
    keys = jax.random.split(jax.random.key(0), 400)
    values, slopes = BOTH(W, keys)
    noise, square = NOISE**2 * (1 + LAST**2), jnp.asarray(PRIOR**2)[None]

    def closed(w):
        return 2 * jnp.mean(square * noise / (w * square + noise))

    value, slope = jax.value_and_grad(closed)(W)
    np.testing.assert_allclose(values.mean(), value, rtol=0.05)
    ratio = (slopes.mean(0) / slope)[W == 0]
    assert np.all((ratio > 1.0) & (ratio < 2.1)), ratio
    order = np.argsort(slopes.mean(0)[W == 0])
    np.testing.assert_array_equal(order, np.argsort(slope[W == 0]))
    along = jnp.asarray(np.random.default_rng(0).normal(size=W.shape))
    step = 1e-6 * along
    finite = (BOTH(W + step, keys)[0] - BOTH(W - step, keys)[0]) / 2e-6
    np.testing.assert_allclose(jnp.sum(slopes * along[None], (1, 2)), finite, rtol=1e-4, atol=1e-4)
