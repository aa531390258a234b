"""Voxels shared among the cores of a processor, each a device."""

import json
import subprocess
import sys

import numpy as np
import pytest

import mrphys as mr
from mrphys.errors import InputError

SHARED = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
import mrphys as mr
from mrphys.simulate import sum_over_voxels

count = mr.use_cores(int(sys.argv[1]))
q = mr.Tissue(t1_s=np.linspace(0.5, 1.5, 301), t2_s=0.08)
theta = mr.sequence.spin_echo_train(np.full(4, 2.0), 0.01)
cost = lambda theta, q: jnp.sum(jnp.abs(theta.signals(q)), axis=1)
total = lambda theta: sum_over_voxels(cost, theta, q.broadcast(), chunk=64)


def bounds():
    # many inverses at once, which devices of several threads never end
    many = mr.Tissue(t1_s=np.linspace(0.5, 1.5, 20_000), t2_s=0.08)
    flips = mr.sequence.spoiled_gradient_echo([0.05, 0.1, 0.4], 0.002, 0.01)
    call = lambda: mr.cramer_rao(flips, many, ("t1_s", "m0"), noise_sd=0.01, nuisance=("b0_hz",))
    found = [call()["t1_s"] for _ in range(20)]
    return found[-1][::1000].tolist()


print(json.dumps({
    "devices": count,
    "signal": jnp.abs(mr.simulate(theta, q, chunk=64)).sum(1).tolist(),
    "slope": jnp.abs(mr.jacobian(theta, q, chunk=64)["t2_s"]).sum(1).tolist(),
    "gradient": jax.grad(total)(theta).refocusing_rad.tolist(),
    "bound": bounds(),
}))
try:
    mr.use_cores(count + 1)
except mr.InputError as error:
    assert "called first" in str(error)
else:
    raise AssertionError
"""


def test_voxels_are_shared_among_cores():
    """301 voxels on one device and on three: the same signal, Jacobian and gradient."""
    found = {}
    for count in (1, 3):
        command = [sys.executable, "-c", SHARED, str(count)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert done.returncode == 0, done.stderr
        found[count] = json.loads(done.stdout)
        assert found[count].pop("devices") == count
    for key, alone in found[1].items():
        np.testing.assert_allclose(found[3][key], alone, rtol=1e-5, err_msg=key)


def test_no_core_is_refused():
    with pytest.raises(InputError, match="0 cores"):
        mr.use_cores(0)
