"""The cores of a processor as devices, among which voxels are shared."""

import os
import warnings

import jax

from mrphys.errors import InputError, Problem

THREADS = "PJRT_NPROC"
"""Threads of all devices together, as JAX reads it when it starts. Batched LAPACK calls run on them
and wait for them: where every thread runs a device (jaxlib 0.10), they wait forever."""


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
        count = cores()
    if count < 1:
        raise InputError(Problem("use_cores", f"{count} cores", "one or more"))
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError as error:
        if jax.local_device_count("cpu") != count:
            found = f"{jax.local_device_count('cpu')} devices already in use"
            cause = "something computed before"
            raise InputError(Problem("use_cores", found, "to be called first", cause)) from error
    else:
        os.environ[THREADS] = str(max(2 * count, _threads()))
    return jax.local_device_count("cpu")


def sharing() -> int:
    """Devices among which voxels are shared: all; one where several are a processor's and have no
    thread to spare, as those that only XLA_FLAGS made."""
    devices = jax.local_device_count()
    if devices > 1 and jax.default_backend() == "cpu" and _threads() <= devices:
        message = f"on one of {devices} devices: mrphys.use_cores() makes them safe to share"
        warnings.warn(message, stacklevel=2)
        return 1
    return devices


def cores() -> int:
    """Of this machine, that this process may run on."""
    known = hasattr(os, "sched_getaffinity")
    return len(os.sched_getaffinity(0)) if known else os.cpu_count() or 1


def _threads() -> int:
    """In JAX's pool."""
    given = os.environ.get(THREADS) or os.environ.get("NPROC") or ""
    return int(given) if given.isdigit() else cores()
