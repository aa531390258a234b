# pyright: reportMissingImports=false
"""DeepXDE's side of benchmarks/pinn.py, on JAX: rival_jinns.py's step."""

import json
import os
import time

os.environ["DDE_BACKEND"] = "jax"
import deepxde as dde
import jax
import numpy as np

POINTS, STEPS = 4000, 50


def burgers(x, u):
    du_dx = dde.grad.jacobian(u, x, i=0, j=0)[0]
    du_dt = dde.grad.jacobian(u, x, i=0, j=1)[0]
    du_dxx = dde.grad.hessian(u, x, i=0, j=0)[0]
    return du_dt + u[0] * du_dx - 0.01 / np.pi * du_dxx


domain = dde.geometry.GeometryXTime(dde.geometry.Interval(-1, 1), dde.geometry.TimeDomain(0, 1))
data = dde.data.TimePDE(domain, burgers, [], num_domain=POINTS)
model = dde.Model(data, dde.nn.FNN([2, 64, 64, 64, 64, 1], "tanh", "Glorot normal"))
model.compile("adam", lr=1e-3)
model.train(iterations=2, display_every=10**6, verbose=0)
seconds = []
for _ in range(STEPS):
    started = time.perf_counter()
    model._train_step(model.train_state.X_train, model.train_state.y_train, [])
    jax.block_until_ready(model.params)
    seconds.append(time.perf_counter() - started)
print(json.dumps(seconds))
