"""Networks in a stack are those of before."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from learn import seeds


def test_a_stack_answers_as_its_networks_and_gives_them_back():
    nets = [nnx.Linear(2, 3, rngs=nnx.Rngs(i)) for i in range(3)]
    x = jnp.asarray(np.random.default_rng(0).normal(size=(3, 2)))
    stack = seeds.stack(nets)
    answers = seeds.of_each(lambda net, x: net(x), stack, x)
    expected = jnp.stack([net(row) for net, row in zip(nets, x, strict=True)])
    np.testing.assert_allclose(answers, expected, rtol=1e-6)
    for net, again in zip(nets, seeds.unstack(stack), strict=True):
        np.testing.assert_array_equal(again.kernel[...], net.kernel[...])

    def loss(net):
        return jnp.sum(seeds.of_each(lambda net, x: jnp.sum(net(x) ** 2), net, x))

    slope = nnx.grad(loss)(stack)
    alone = nnx.grad(lambda net: jnp.sum(net(x[1]) ** 2))(nets[1])
    np.testing.assert_allclose(slope["kernel"][...][1], alone["kernel"][...], rtol=1e-6)
    assert jax.tree.leaves(nnx.state(stack))[0].shape[0] == 3
