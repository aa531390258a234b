# pyright: reportMissingImports=false
"""jinns' side of benchmarks/pinn.py --only newton: natural gradients, float64, conditions hard.

python benchmarks/rival_jinns_newton.py wave 50    # steps; prints seconds and relative error
"""

import json
import sys
import time

import equinox as eqx
import jax
import jax.numpy as jnp
import jinns
import numpy as np
from jinns.data import CubicMeshPDENonStatio
from jinns.loss import LossPDENonStatio, PDENonStatio
from jinns.parameters import Params

jax.config.update("jax_enable_x64", True)
name, steps = sys.argv[1], int(sys.argv[2])
D, K = (0.01, 1.0) if name == "wave" else (0.1, 0.0)
low, high, last, points = (-1.0, 2.0, 4.0, 1000) if name == "wave" else (0.0, 1.0, 1.0, 800)


def wave(t, x, xp=np):
    """Ablowitz and Zeppetella's."""
    steep, speed = (K / (6 * D)) ** 0.5, 5 * (K * D / 6) ** 0.5
    return (1 + xp.exp(steep * (x - speed * t))) ** -2.0


def cooling(t, x, xp=np):
    """Two modes."""
    modes = [xp.exp(-D * (n * xp.pi) ** 2 * t) * xp.sin(n * xp.pi * x) for n in (1, 3)]
    return modes[0] + modes[1] / 2


exact = wave if name == "wave" else cooling


def scaled(tx, params):
    """To [-1, 1], as ours."""
    return jnp.stack([2 * tx[0] / last - 1, (2 * tx[1] - low - high) / (high - low)])


def hard(tx, n, params):
    """What `pinn_problems.py` has."""
    t, x = tx
    along = (x - low) / (high - low)
    edges = (1 - along) * (exact(t, low, jnp) - exact(0.0, low, jnp))
    edges = edges + along * (exact(t, high, jnp) - exact(0.0, high, jnp))
    return exact(0.0, x, jnp) + edges + t * (x - low) * (high - x) * n


class Equation(PDENonStatio):
    """u_t = D u_xx + K u (1 - u)."""

    def equation(self, t_x, u, params):
        """Its residual at a point."""

        def at(t_x):
            return jnp.squeeze(u(t_x, params))

        slope = jax.grad(at)
        curved = jax.grad(lambda t_x: slope(t_x)[1])(t_x)[1:2]
        value = at(t_x)
        return slope(t_x)[0:1] - D * curved - K * value * (1 - value)


layers = (
    (eqx.nn.Linear, 2, 20), (jax.nn.tanh,), (eqx.nn.Linear, 20, 20), (jax.nn.tanh,),
    (eqx.nn.Linear, 20, 1),
)  # fmt: skip
u, weights = jinns.nn.PINN_MLP.create(
    key=jax.random.key(0), eqx_list=layers, eq_type="PDENonStatio",
    input_transform=scaled, output_transform=hard,
)  # fmt: skip
params = Params(nn_params=weights, eq_params={})
data = CubicMeshPDENonStatio(
    key=jax.random.key(1), n=points, nb=None, ni=1, domain_batch_size=None, dim=1,
    min_pts=(low,), max_pts=(high,), tmin=0.0, tmax=last, method="uniform",
)  # fmt: skip
one = jinns.loss.LossWeightsPDENonStatio(dyn_loss=1.0)
loss = LossPDENonStatio(u=u, dynamic_loss=Equation(), params=params, loss_weights=one)
began = time.perf_counter()
found = jinns.solve(
    n_iter=steps, init_params=params, data=data, loss=loss, verbose=False,
    optimizer=jinns.optimizers.vanilla_ngd(),
)  # fmt: skip
params = jax.block_until_ready(found[0])
seconds = time.perf_counter() - began
t, x = np.meshgrid(np.linspace(0, last, 81), np.linspace(low, high, 151), indexing="ij")
at = jnp.stack([t.ravel(), x.ravel()], -1)
made = np.asarray(jax.vmap(lambda tx: jnp.squeeze(u(tx, params)))(at)).reshape(t.shape)
truth = exact(t, x)
print(json.dumps([seconds, float(np.linalg.norm(made - truth) / np.linalg.norm(truth))]))
