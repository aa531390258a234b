"""From spins to images: operators, signals of tissues, derivatives in the sequence."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import mrphys as mr
from learn import reconstruction as lr
from learn import sampling as ls
from learn.sampling import from_spins as fs
from mrphys.encoding import Encoding
from mrphys.errors import InputError
from tests.laws import check_adjoint, check_gradient

RNG = np.random.default_rng(0)
N, ECHOES, SPACING_S = 8, 3, 0.012


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape) + 1j * RNG.normal(size=shape))


SPINS = lr.Spins(random(2, N, N), jnp.asarray([1.0, 0.7]), jnp.asarray([1.1, 0.8]),
                 jnp.asarray([0.09, 0.04]))  # fmt: skip
COILS = random(2, N, N)
KY = jnp.asarray([[-2.0, 0.0, 1.3]])
ORDER = np.array([[2, 0, 1]])


def train_of(flips):
    return mr.sequence.spin_echo_train(flips, SPACING_S)


def played(flips=(2.5, 2.0, 2.2), **kept):
    return fs.Played(train_of, np.array(flips), (0.5, 3.2), KY, ORDER, **kept)


def test_rows_are_lines_of_the_grid_and_an_operator():
    x = random(N, N)
    A = fs.Rows(KY[0], COILS)
    check_adjoint(A, A.H, x, random(2, N, 3))
    grid = np.fft.fft(np.asarray(A(x)), axis=1, norm="ortho")
    full = np.asarray(Encoding.cartesian(jnp.ones((N, N)), COILS)(x))
    sign = np.exp(2j * np.pi * np.arange(N) * (N // 2) / N)
    centred = np.fft.fftshift(grid * sign[None, :, None], axes=1)
    np.testing.assert_allclose(centred[..., :2], full[..., [N // 2 - 2, N // 2]], atol=1e-10)


def test_each_line_sees_its_echo():
    """With perfect pulses exp(-n spacing / T2), the readout of each line its own."""
    made = fs.Played(lambda v: train_of(v * 0 + np.pi), np.full(3, 2.0), (0.5, 3.2), KY, ORDER)
    A, y = nnx.jit(lambda made: made(SPINS, COILS, 0.0, jax.random.key(0)))(made)
    for line, echo in enumerate(ORDER[0]):
        decay = SPINS.m0 * jnp.exp(-(echo + 1) * SPACING_S / SPINS.t2_s)
        x = jnp.einsum("t,txy->xy", decay, SPINS.parts)
        np.testing.assert_allclose(y[0, :, :, line], fs.Rows(KY[0], COILS)(x)[..., line], atol=1e-9)
    assert A.ky.shape == (1, 3)


def test_values_stay_within_limits_and_power():
    made = played()
    np.testing.assert_allclose(made.values(), [2.5, 2.0, 2.2], rtol=1e-12)
    made.theta[...] = 50.0 * jnp.ones(3)
    np.testing.assert_allclose(made.values(), 3.2)
    weak = played(power=6.0)
    weak.theta[...] = jnp.asarray([3.0, -1.0, 50.0])
    assert float(jnp.sum(weak.values() ** 2)) == pytest.approx(6.0, rel=1e-12)
    np.testing.assert_array_equal(made.lines(2), jnp.clip(KY, -1, 0))
    with pytest.raises(InputError, match="between"):
        played(flips=(2.5, 2.0, 3.3))


def test_derivative_of_images_in_sequence_and_lines():
    class Inverse(nnx.Module):
        def __call__(self, A, y):
            return lr.solve(lambda v: A.normal(v) + 0.3 * v, A.H(y), 70)

    learner = fs.Learner(played(power=9.0), Inverse())
    graph, state = nnx.split(learner)
    asked = fs.Asked(SPINS, COILS, jnp.asarray(0.01))
    batch = jax.tree.map(lambda leaf: leaf[None], asked)

    def loss(at):
        moved = nnx.merge(graph, state, copy=True)
        moved.sampling.theta[...], moved.sampling.ky[...] = at
        target = mr.sequence.spin_echo(0.03)
        return fs.image_loss(moved, batch, jax.random.key(0), target=target)

    at = (jnp.asarray([1.0, -0.3, 0.2]), KY)
    check_gradient(loss, at, scale=0.3, rtol=1e-5, directions=6)


def test_a_map_knows_no_more_than_its_images():
    """Of one tissue a constant is right, and the error is that of the constant the network has at
    first: its last layer begins at 0."""
    parts = jnp.ones((1, N, N)) + 0j
    ones = jnp.ones(6)
    every = jnp.concatenate([parts] + [0 * parts] * 5)
    alone = lr.Spins(every, ones, ones, 0.04 * ones)
    maps = fs.map_network(1, 4, 1, rngs=nnx.Rngs(0))

    class Back(nnx.Module):
        def __call__(self, A, y):
            return A.H(y)

    learner = fs.Learner(played(), Back(), maps)
    asked = fs.Asked(alone, COILS, jnp.asarray(0.01))
    error = nnx.jit(fs.map_error)(learner, asked, jax.random.key(0))
    assert float(error) == pytest.approx(np.log(2), rel=1e-6)
    assert ls.Learner is fs.Learner
