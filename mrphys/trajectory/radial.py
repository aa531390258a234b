"""Spokes through the middle of k-space."""

import math
from typing import Literal

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from mrphys.errors import InputError, Problem
from mrphys.units import check_count

GOLDEN = (1 + math.sqrt(5)) / 2
TINY = 7
"""The order of tiny golden angles unless given: 23.6°."""


def radial(
    spokes: int,
    samples: int,
    matrix: int,
    order: Literal["uniform", "golden", "tiny"] | int = "uniform",
) -> Float[Array, "spokes samples 2"]:
    """Diameters of the disc |k| <= matrix / 2, sample i of n at radius (i - n // 2) matrix / n.

    order  the angle of spoke j:
           uniform  π j / spokes
           golden   π j / φ, 111.25° apart, φ the golden ratio: any successive spokes cover evenly
           N        π j / (φ + N - 1), tiny golden angles, gentler to eddy currents; tiny is N = 7

    samples above the matrix are oversampling. Raises InputError for numbers below 1.

    Source: Winkelmann et al. 2007, doi:10.1109/TMI.2006.885337; Wundrak et al. 2015,
    doi:10.1109/TMI.2014.2382572.
    """
    _check("radial", spokes, samples, matrix)
    number = np.arange(spokes)
    if order == "uniform":
        angle = math.pi * number / spokes
    else:
        n = {"golden": 1, "tiny": TINY}.get(order, order) if isinstance(order, str) else order
        if not isinstance(n, int) or n < 1:
            expected = "uniform, golden, tiny or a whole number, 1 or more"
            raise InputError(Problem("radial: order", repr(order), expected))
        angle = math.pi * np.mod(number / (GOLDEN + n - 1), 2.0)
    direction = np.stack([np.cos(angle), np.sin(angle)], -1)
    return jnp.asarray(_radius(samples, matrix)[None, :, None] * direction[:, None])


def kooshball(
    spokes: int, samples: int, matrix: int, order: Literal["uniform", "golden"] = "golden"
) -> Float[Array, "spokes samples 3"]:
    """Diameters of the ball |k| <= matrix / 2, over half of the sphere.

    order  golden   z of spoke j from the two-dimensional golden means, (j 0.4656) mod 1, azimuth
                    2π (j 0.6823): any successive spokes cover the sphere evenly
           uniform  z in equal steps, azimuths in golden angles (Fibonacci)

    Raises InputError for numbers below 1.

    Source: Chan et al. 2009, doi:10.1002/mrm.21837; Swinbank, Purser 2006,
    doi:10.1256/qj.05.227.
    """
    _check("kooshball", spokes, samples, matrix)
    j = np.arange(spokes)
    if order == "golden":
        # roots of the Fibonacci matrix of two dimensions: v³ + v - 1 = 0 has 0.6823 and its square
        second = float(np.real(np.roots([1, 0, 1, -1])[-1]))
        z, turns = np.mod(j * second**2, 1.0), np.mod(j * second, 1.0)
    elif order == "uniform":
        z, turns = (j + 0.5) / spokes, np.mod(j / GOLDEN, 1.0)
    else:
        raise InputError(Problem("kooshball: order", repr(order), "uniform or golden"))
    across = np.sqrt(1 - z**2)
    angle = 2 * math.pi * turns
    direction = np.stack([across * np.cos(angle), across * np.sin(angle), z], -1)
    return jnp.asarray(_radius(samples, matrix)[None, :, None] * direction[:, None])


def _radius(samples: int, matrix: int) -> Float[np.ndarray, " samples"]:
    return (np.arange(samples) - samples // 2) * (matrix / samples)


def _check(where: str, spokes: int, samples: int, matrix: int) -> None:
    for name, value in (("spokes", spokes), ("samples", samples), ("matrix", matrix)):
        check_count(f"{where}: {name}", value)
