"""Batches shared among devices, such as `mrphys.use_cores` makes of cores."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
from flax import nnx
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P
from jaxtyping import Array, Float, PRNGKeyArray

from mrphys.devices import sharing
from mrphys.errors import InputError, Problem

Loss = Callable[[Any, Any, PRNGKeyArray], Float[Array, ""]]


def shared(loss: Loss) -> Loss:
    """loss(net, batch, key) for `learn.train`, each device taking as many examples of the batch:

        L = 1/D Σ_d loss(net, batch_d, key_d)

    the same number where a loss is the mean over examples, along the leading axis of every leaf,
    and its gradient. Convolutions of few channels keep one core busy: two devices halve nearly what
    a step of them takes. Keys differ from device to device, and what is drawn by them therefore
    with how many there are. Running statistics of the network stay as they are. Of one device it is
    the loss itself.

    Raises InputError for a batch that cannot be shared evenly.
    """

    def among(net: Any, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
        devices = sharing()
        if devices == 1:
            return loss(net, batch, key)
        counts = {leaf.shape[0] for leaf in jax.tree.leaves(batch)}
        if any(count % devices for count in counts):
            found = f"{', '.join(map(str, sorted(counts)))} examples, {devices} devices"
            raise InputError(Problem("learn.shared: batch", found, "a multiple of the devices"))
        graph, state = nnx.split(net)

        def local(state: Any, batch: Any, key: PRNGKeyArray) -> Float[Array, ""]:
            own = jax.random.fold_in(key, jax.lax.axis_index("batch"))
            return jax.lax.pmean(loss(nnx.merge(graph, state), batch, own), "batch")

        mesh = Mesh(np.asarray(jax.local_devices()), ("batch",))
        specs = P(), P("batch"), P()
        return jax.shard_map(
            local, mesh=mesh, in_specs=specs, out_specs=P(), check_vma=False
        )(state, batch, key)  # fmt: skip

    return among
