"""Sampling against posteriors known in closed form."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from scipy import stats

from learn import reconstruction as lr
from learn import train
from mrphys.encoding import Encoding

RNG = np.random.default_rng(0)
N, SD, SMALL = 6, 0.3, 0.3
COVARIANCE = np.exp(-np.abs(np.arange(N)[:, None] - np.arange(N)) / 3.0)
ROOTS, TURN = (jnp.asarray(part) for part in np.linalg.eigh(COVARIANCE))
MEANS = jnp.asarray(RNG.normal(size=(3, N)) + 1j * RNG.normal(size=(3, N))) * 1.5
SHARES = jnp.asarray([0.5, 0.3, 0.2])
MAPS = RNG.normal(size=(2, N)) + 1j * RNG.normal(size=(2, N))
A = Encoding.cartesian(
    np.array([1, 0, 1, 1, 0, 0], bool), MAPS / np.linalg.norm(MAPS, axis=0, keepdims=True)
)


def normal_denoiser(x, sigma):
    """E[x₀ | x] of x₀ ~ N(0, C)."""
    return TURN @ (ROOTS / (ROOTS + sigma**2) * (TURN.T @ x))


def mixture_denoiser(x, sigma):
    """E[x₀ | x] of x₀ ~ Σ p_k N(m_k, s² C)."""
    roots = SMALL**2 * ROOTS
    away = (x[None] - MEANS) @ TURN
    logs = -jnp.sum(jnp.abs(away) ** 2 / (2 * (roots + sigma**2))[None], axis=1)
    share = jax.nn.softmax(jnp.log(SHARES) + logs)
    each = MEANS + (away * (roots / (roots + sigma**2))[None]) @ TURN.T
    return share @ each


def draw(key, kind):
    keys = jax.random.split(key, 3)
    real, imaginary = jax.random.normal(keys[0], (2, N))
    x = TURN @ (jnp.sqrt(ROOTS) * jax.lax.complex(real, imaginary))
    if kind == "mixture":
        x = MEANS[jax.random.categorical(keys[1], jnp.log(SHARES))] + SMALL * x
    noise = jax.random.normal(keys[2], (2, 2, N))
    return x, A(x) + SD * jax.lax.complex(*noise) * A.sampling.weight[None]


DENOISERS = {"normal": normal_denoiser, "mixture": mixture_denoiser}


def ranks(kind, trials, samples, **options):
    """Of truths among samples, (trials, 2 N)."""

    @jax.jit
    def all_of(keys):
        def one(key):
            first, second = jax.random.split(key)
            x, y = draw(first, kind)
            found = lr.sample_posterior(
                DENOISERS[kind], A, y, SD, second, samples=samples, iterations=6, **options
            )
            return x, found.samples

        return jax.vmap(one)(keys)

    x, drawn = map(np.asarray, all_of(jax.random.split(jax.random.key(1), trials)))
    below = [part(drawn) < part(x)[:, None] for part in (np.real, np.imag)]
    return np.concatenate([each.sum(1) for each in below], axis=1)


def check_calibrated(found, samples, within):
    for cut in (1, 2, samples // 4):
        nominal = 1 - 2 * cut / (samples + 1)
        inside = np.mean((found >= cut) & (found <= samples - cut))
        assert inside == pytest.approx(nominal, abs=within), f"coverage of {nominal:.0%}"
    counts = [np.bincount(each, minlength=samples + 1) for each in found.T]
    p = [stats.chisquare(each).pvalue for each in counts]
    assert min(p) > 0.01 / len(p), f"ranks are not uniform: p = {np.round(p, 4)}"


@pytest.mark.parametrize("kind", DENOISERS)
def test_samples_are_calibrated(kind):
    found = ranks(kind, 400, 9, anneal=16, hold=4, steps=10)
    check_calibrated(found, 9, 0.03)


@pytest.mark.long
@pytest.mark.parametrize("kind", DENOISERS)
def test_samples_of_many_trials_are_calibrated(kind):
    found = ranks(kind, 2000, 19, anneal=40, hold=10, steps=16, smallest=0.2)
    check_calibrated(found, 19, 0.01)


def test_reverse_diffusion_draws_the_clean_image_that_belongs_to_a_noisy_one():
    """Mean and covariance of x₀ given x, of a normal prior: C (C + σ²)⁻¹ x, (1/C + 1/σ²)⁻¹."""
    x = jnp.asarray(RNG.normal(size=N) + 1j * RNG.normal(size=N))
    sigma = 0.8

    @jax.jit
    @jax.vmap
    def drawn(key):
        return lr.reverse_diffusion(
            normal_denoiser, x, jnp.asarray(sigma), key, steps=16, end=jnp.asarray(0.01)
        )

    found = np.asarray(drawn(jax.random.split(jax.random.key(0), 20000)))
    expected = np.linalg.inv(np.linalg.inv(COVARIANCE) + np.eye(N) / sigma**2)
    np.testing.assert_allclose(found.mean(0), normal_denoiser(x, sigma), atol=0.025)
    np.testing.assert_allclose(np.cov(found.real.T), expected, atol=0.025)
    np.testing.assert_allclose(np.cov(found.imag.T), expected, atol=0.025)


def test_plug_and_play_of_a_normal_prior_ends_at_the_posterior_mean():
    _, y = draw(jax.random.key(3), "normal")
    gram = np.stack([np.asarray(A.normal(row)) for row in jnp.eye(N) + 0j], axis=1)
    mean = np.linalg.solve(gram / SD**2 + np.linalg.inv(COVARIANCE), A.H(y) / SD**2)
    for smallest in (1.0, 0.5):
        found = lr.plug_and_play(
            normal_denoiser, A, y, SD, smallest=smallest, hold=150, iterations=6
        )
        np.testing.assert_allclose(found, mean, atol=1e-6)


def test_a_denoiser_that_learns_nothing_loses_one_at_every_level_and_learns():
    net = lr.Denoiser(4, 1, rngs=nnx.Rngs(0))
    pure = jax.random.normal(jax.random.key(0), (2, 64, 16, 16)) * np.sqrt(0.5)
    noise = jax.lax.complex(*pure)
    assert float(nnx.jit(lr.denoising_loss)(net, noise, jax.random.key(1))) == pytest.approx(
        1, abs=0.05
    )
    flat = jnp.exp(1j * jax.random.uniform(jax.random.key(2), (8, 1, 1), maxval=6.0)) * jnp.ones(
        (8, 16, 16)
    )
    made = train(net, lr.denoising_loss, [flat], optax.adam(1e-2), 120, key=jax.random.key(0))
    assert np.mean(made.losses[-10:]) < 0.6
