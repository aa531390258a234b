"""The cores of a processor as devices, among which voxels are shared."""

import os

import jax

from mrphys.errors import InputError, Problem


def use_cores(count: int | None = None) -> int:
    """Let JAX see `count` cores of this machine as devices, all that this process may run on when
    None; returns how many there are now.

    Simulations, Jacobians and fits are shared among all devices of a process, and JAX makes the
    whole processor one device unless told otherwise, which plays the loops of a pulse train on a
    single core. To be called before anything is computed. Raises InputError where it is too late,
    or for no core.

    >>> use_cores()  # doctest: +SKIP
    2
    """
    if count is None:
        known = hasattr(os, "sched_getaffinity")
        count = len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1
    if count < 1:
        raise InputError(Problem("use_cores", f"{count} cores", "one or more"))
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if jax.local_device_count("cpu") != count:
            found = f"{jax.local_device_count('cpu')} devices already in use"
            cause = "something computed before"
            raise InputError(Problem("use_cores", found, "to be called first", cause)) from error
    return jax.local_device_count("cpu")
