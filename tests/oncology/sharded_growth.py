"""One field, and a cohort, over several devices or processes: the same as on one device.

Alone, this script makes two devices; `sharded_growth.py PORT PROCESS` is one of two hosts.
"""

import os
import re
import sys

if __name__ == "__main__" and len(sys.argv) == 1:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from oncology.growth import ReactionDiffusion
from oncology.timeline import Steps, integrate
from oncology.treatment import Plan


def main():
    if len(sys.argv) > 1:
        port, process = sys.argv[1:]
        jax.distributed.initialize(f"localhost:{port}", 2, int(process))

    shape = (12, 5, 6)
    rng = np.random.default_rng(0)
    habitable, start = rng.random(shape) > 0.1, rng.random(shape).astype(np.float32)
    days = np.array([0.0, 1.0, 2.5])
    steps = Steps(days[:-1], days[1:], np.zeros(2), 3)

    @jax.jit
    def total_and_gradient(rates, u, habitable):
        p = dict(zip(("diffusivity_mm2_per_day", "growth_rate_per_day"), rates, strict=True))

        def total(p):
            u_end = integrate(ReactionDiffusion(habitable), Plan(), p, u, steps)
            return jnp.sum(u_end**2), u_end

        return jax.grad(total, has_aux=True)(p)

    def laid_out(array, sharding):
        return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])

    rates = np.array([0.4, 0.2], np.float32)
    here = jax.local_devices()[0]
    alone = total_and_gradient(*jax.device_put((rates, start, habitable), here))
    mesh = Mesh(np.array(jax.devices()), ("x",))
    across, everywhere = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("x",), ()))
    shared = laid_out(rates, everywhere), laid_out(start, across), laid_out(habitable, across)
    program = total_and_gradient.lower(*shared).compile()
    found = program(*shared)

    patients = jnp.stack([start, start**2]), jnp.stack([rates, 2 * rates])
    each = jax.jit(jax.vmap(lambda u, rates: total_and_gradient(rates, u, habitable)[1]))
    cohort = each(*(laid_out(np.asarray(array), across) for array in patients))
    for shard in cohort.addressable_shards:
        one = int(shard.index[0].start or 0)
        u, rate = (jax.device_put(array[one], here) for array in patients)
        expected = total_and_gradient(rate, u, jax.device_put(habitable, here))[1]
        np.testing.assert_allclose(np.asarray(shard.data)[0], expected, atol=1e-6)

    assert len(jax.devices()) == 2, jax.devices()
    operations = set(
        re.findall(r" (collective-permute|all-gather|all-to-all)", str(program.as_text()))
    )
    assert operations == {"collective-permute"}, operations
    for shard in found[1].addressable_shards:
        np.testing.assert_allclose(shard.data, np.asarray(alone[1])[shard.index], atol=1e-6)
    for name, slope in found[0].items():
        np.testing.assert_allclose(slope.addressable_shards[0].data, alone[0][name], rtol=1e-4)
    print("the same")


if __name__ == "__main__":
    main()
