# pyright: reportMissingImports=false
"""jinns' side of benchmarks/pinn.py: an Adam step on Burgers' equation, 4000 points, float32."""

import json
import time

import equinox as eqx
import jax
import jinns
import optax
from jinns.data import CubicMeshPDENonStatio
from jinns.loss import BurgersEquation, LossPDENonStatio
from jinns.parameters import Params

POINTS, STEPS = 4000, 50
layers = [(eqx.nn.Linear, 2, 64), (jax.nn.tanh,)]
for _ in range(3):
    layers += [(eqx.nn.Linear, 64, 64), (jax.nn.tanh,)]
layers += [(eqx.nn.Linear, 64, 1)]
u, weights = jinns.nn.PINN_MLP.create(
    key=jax.random.key(0), eqx_list=tuple(layers), eq_type="PDENonStatio"
)
params = Params(nn_params=weights, eq_params={"nu": 0.01 / jax.numpy.pi})
data = CubicMeshPDENonStatio(
    key=jax.random.key(1), n=POINTS, nb=None, ni=POINTS, domain_batch_size=None, dim=1,
    min_pts=(-1,), max_pts=(1,), tmin=0, tmax=1, method="uniform",
)  # fmt: skip
loss = LossPDENonStatio(
    u=u,
    dynamic_loss=BurgersEquation(Tmax=1),
    params=params,
    loss_weights=jinns.loss.LossWeightsPDENonStatio(dyn_loss=1.0),
)
_, batch = data.get_batch()
optimiser = optax.adam(1e-3)


@jax.jit
def step(params, memory):
    slope = eqx.filter_grad(lambda p: loss.evaluate(p, batch)[0])(params)
    change, memory = optimiser.update(slope, memory, params)
    return optax.apply_updates(params, change), memory


memory = optimiser.init(params)
params, memory = jax.block_until_ready(step(params, memory))
seconds = []
for _ in range(STEPS):
    started = time.perf_counter()
    params, memory = jax.block_until_ready(step(params, memory))
    seconds.append(time.perf_counter() - started)
print(json.dumps(seconds))
