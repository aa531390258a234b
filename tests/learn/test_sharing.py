"""A batch shared among devices: the loss and the gradient of one device, keys of their own."""

import json
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import learn

SHARED = """
import json
import mrphys as mr
mr.use_cores(2)
import jax, jax.numpy as jnp, optax
from flax import nnx
import learn

net = nnx.Linear(2, 1, use_bias=False, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
batch = jnp.arange(8.0).reshape(4, 2) / 8, jnp.arange(4.0)[:, None]
loss = lambda net, batch, key: jnp.mean((net(batch[0]) - batch[1]) ** 2)
made = learn.train(net, learn.shared(loss), [batch], optax.sgd(0.1), 5, key=jax.random.key(0))
drawn = learn.shared(lambda net, batch, key: jax.random.normal(key))
told = {"losses": made.losses.tolist(), "kernel": made.net.kernel[...].ravel().tolist()}
told["drawn"] = float(drawn(net, batch, jax.random.key(1)))
try:
    learn.shared(loss)(net, jax.tree.map(lambda leaf: leaf[:3], batch), jax.random.key(0))
except mr.InputError as error:
    told["uneven"] = str(error)
print(json.dumps(told))
"""


def test_two_devices_share_a_batch():
    done = subprocess.run(
        [sys.executable, "-c", SHARED], capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    x, y, w, losses = np.arange(8.0).reshape(4, 2) / 8, np.arange(4.0), np.zeros(2), []
    for _ in range(5):
        losses.append(np.mean((x @ w - y) ** 2))
        w = w - 0.1 * 2 * x.T @ (x @ w - y) / 4
    np.testing.assert_allclose(found["losses"], losses, rtol=1e-5)
    np.testing.assert_allclose(found["kernel"], w, rtol=1e-5)
    keys = [jax.random.fold_in(jax.random.key(1), device) for device in range(2)]
    each = [float(jax.random.normal(key, dtype=jnp.float32)) for key in keys]
    np.testing.assert_allclose(found["drawn"], np.mean(each), rtol=1e-6)
    assert "a multiple of the devices" in found["uneven"]


def test_one_device_has_the_loss_itself():
    def loss(net, batch, key):
        return jnp.sum(net(batch)) + jax.random.normal(key)

    net, batch, key = nnx.Linear(2, 1, rngs=nnx.Rngs(0)), jnp.ones((3, 2)), jax.random.key(0)
    assert learn.shared(loss)(net, batch, key) == loss(net, batch, key)
