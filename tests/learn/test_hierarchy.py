"""A network that follows a hierarchy, and what its nodes carry."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from learn.hierarchy import HierarchyNetwork
from mrphys.errors import InputError
from tests.laws import check_gradient

LINKS = (
    {"adc": ["cellular"], "ktrans": ["leaky"], "t2": ["leaky", "cellular"]},
    {"cellular": ["growth"], "leaky": ["supply"]},
)


@pytest.fixture(scope="module")
def net():
    return HierarchyNetwork(LINKS, rngs=nnx.Rngs(0))


def test_a_node_sees_only_what_feeds_it(net):
    slope = jax.jacrev(lambda x: jnp.concatenate(net.layers(x)[1:]))(jnp.array([0.1, 0.2, 0.3]))
    fed = np.array([[1, 0, 1], [0, 1, 1], [1, 0, 1], [0, 1, 1]], bool)
    assert [*net.names[1], *net.names[2]] == ["cellular", "leaky", "growth", "supply"]
    np.testing.assert_array_equal(np.asarray(slope) != 0, fed)


def test_attributions_of_features_add_up_and_those_of_a_layer_to_what_passes_it(net):
    x, baseline = jnp.array([[0.5, -0.4, 0.8]]), jnp.zeros(3)
    carried = net.attributions(x, baseline)
    whole = net(x)[0, 0] - net(baseline)[0]
    total = sum(float(carried[name][0]) for name in net.names[0])
    np.testing.assert_allclose(total, whole, rtol=1e-3)
    last = net.heads[1]
    h, h0 = net.layers(x[0])[2], net.layers(baseline)[2]
    top = {n: carried[n][0] for n in net.names[2]}
    expected = (h - h0) * last.kernel[...][:, 0] / 2
    np.testing.assert_allclose([top["growth"], top["supply"]], expected, rtol=1e-3)
    check_gradient(lambda x: net(x)[0], x[0])


def test_links_that_do_not_meet_are_told():
    with pytest.raises(InputError, match="'leaki'"):
        HierarchyNetwork(({"adc": ["leaki"]}, {"leaky": ["growth"]}), rngs=nnx.Rngs(0))
    with pytest.raises(InputError, match="leads nowhere"):
        HierarchyNetwork(({"adc": []},), rngs=nnx.Rngs(0))
