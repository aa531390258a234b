"""Networks with physics in their calls: solutions, derivatives, units, and that they learn."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from learn import reconstruction as lr
from learn import train
from mrphys.encoding import Encoding
from tests.laws import check_gradient

RNG = np.random.default_rng(0)
SIZE = 16


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape) + 1j * RNG.normal(size=shape))


COILS = random(3, SIZE, SIZE)
COILS = COILS / jnp.linalg.norm(COILS, axis=0, keepdims=True)
MASK = lr.line_mask(SIZE, 2.0, jax.random.key(0))
A = Encoding.cartesian(np.broadcast_to(MASK, (SIZE, SIZE)), COILS)
NETS = {
    "unet": lambda: lr.UNetReconstruction(4, 1, rngs=nnx.Rngs(0)),
    "modl": lambda: lr.MoDL(4, 1, 2, 6, rngs=nnx.Rngs(0)),
    "varnet": lambda: lr.VariationalNetwork(4, 1, 2, rngs=nnx.Rngs(0)),
}


def test_solve_is_differentiated_as_the_solution():
    """In b, and in what the operator depends on, in both modes; complex and Hermitian."""
    root = random(5, 5)
    b0 = random(5)

    def f(at):
        def matvec(v):
            return root.conj().T @ (root @ v) * at["scale"] + at["weight"] * v

        return lr.solve(matvec, b0 * at["b"], 12)

    at = {"scale": 0.7, "weight": 1.3, "b": np.linspace(0.5, 1.5, 5)}
    check_gradient(f, at, rtol=1e-6)
    dense = 0.7 * root.conj().T @ root + 1.3 * np.eye(5)
    np.testing.assert_allclose(f(at), np.linalg.solve(dense, b0 * at["b"]), rtol=1e-9)


def test_steps_from_nothing_stay_at_nothing():
    b = jnp.zeros(4, complex)
    value, slope = jax.value_and_grad(
        lambda w: jnp.sum(jnp.abs(lr.solve(lambda v: w * v, b, 5)) ** 2)
    )(2.0)
    assert value == 0 and slope == 0


@pytest.mark.parametrize("name", NETS)
def test_networks_begin_at_physics_answer_in_any_unit_and_learn(name):
    net = NETS[name]()
    truth = random(SIZE, SIZE)
    y = A(truth)
    call = nnx.jit(lambda net, y: net(A, y))
    np.testing.assert_allclose(call(net, 1e3 * y), 1e3 * call(net, y), rtol=1e-9)
    if name == "unet":  # its last layer begins at 0
        np.testing.assert_allclose(call(net, y), A.H(y), rtol=1e-9)
    if name == "modl":
        made, weight = call(net, y), np.exp(-3.0)
        size = lr.level(A, y)
        x = A.H(y)
        for _ in range(2):
            x = lr.conjugate_gradients(lambda v: A.normal(v) + weight * v, A.H(y) + weight * x, 6)
        np.testing.assert_allclose(made, x, atol=1e-9 * size)
    if name == "varnet":  # 8 steps of conjugate gradients, then two down the slope
        x = lr.conjugate_gradients(A.normal, A.H(y), 8)
        for _ in range(2):
            x = x - A.H(A(x) - y)
        np.testing.assert_allclose(call(net, y), x, atol=1e-9 * lr.level(A, y))
    batch = lr.Scan(*jax.tree.map(lambda leaf: leaf[None], (A, y, truth, jnp.ones(()))))
    found = train(net, lr.supervised_loss, [batch], optax.adam(1e-2), 25, key=jax.random.key(0))
    assert found.losses[-1] < 0.9 * found.losses[0]


def test_a_unet_reads_the_noise_level_and_halves_and_doubles():
    net = lr.UNet(4, 2, noisy=True, rngs=nnx.Rngs(1))
    leaf = net.last.kernel
    leaf[...] = jnp.ones_like(leaf[...])
    told = net.down[0].told.kernel
    told[...] = jnp.asarray(RNG.normal(size=told.shape))
    x = random(SIZE, SIZE)
    assert not np.allclose(net(x, jnp.asarray(0.1)), net(x, jnp.asarray(1.0)))
    from learn.reconstruction.unet import doubled, halved

    h = jnp.asarray(RNG.normal(size=(4, 6, 3)))
    np.testing.assert_allclose(halved(doubled(h)), h, rtol=1e-12)
    np.testing.assert_allclose(halved(h)[1, 2], h[2:4, 4:6].mean((0, 1)), rtol=1e-12)


def test_a_split_shares_samples_out_and_keeps_the_centre():
    keys = jax.random.split(jax.random.key(1), 200)
    parts = jax.jit(jax.vmap(lambda key: lr.split(A, 0.4, key)))(keys)
    shown, out = (np.asarray(part.sampling.weight) for part in parts)
    np.testing.assert_array_equal(shown + out, np.broadcast_to(A.sampling.weight, shown.shape))
    assert np.all(shown * out == 0)
    assert np.sum(out) / np.sum(shown + out) == pytest.approx(0.4, abs=0.02)
    assert np.all(out[:, 6:11, 6:11] == 0)


def test_held_out_data_are_foretold_only_from_those_shown():
    """The loss sees no image, and no network input has samples it is judged by."""
    seen = []

    class Spy(nnx.Module):
        def __call__(self, A, y):
            seen.append(A)
            return A.H(y)

    y = A(random(SIZE, SIZE))
    scan = lr.Scan(A, y, jnp.full((SIZE, SIZE), np.nan + 0j), jnp.ones(()))
    batch = jax.tree.map(lambda leaf: leaf[None], scan)
    value = lr.ssdu_loss(Spy(), batch, jax.random.key(3))
    assert np.isfinite(value) and len(seen) == 1
    along = Encoding.noncartesian(RNG.uniform(-7, 7, (50, 2)), shape=(SIZE, SIZE), tolerance=1e-9)
    shown, out = lr.split(along, 0.3, jax.random.key(0))
    np.testing.assert_allclose(shown.sampling.weight + out.sampling.weight, 1)


def test_distance_has_a_derivative_where_nothing_differs():
    x = random(4, 4)
    slope = jax.grad(lambda s: lr.normalised_distance(s * x, x))(1.0)
    assert np.isfinite(slope)
    assert float(lr.normalised_distance(1.1 * x, x)) == pytest.approx(0.1, rel=1e-5)
