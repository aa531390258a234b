"""What is fitted beside sequences: functions, several acquisitions, some of the readouts."""

from collections.abc import Callable
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Inexact

from mrphys.errors import InputError, Problem
from mrphys.voxelwise import Model


class FunctionModel(eqx.Module):
    """A model given as a function of the parameters q of one voxel, a module with named fields.

    averages  how often each readout is averaged; its size is the number of readouts
    """

    signal: Callable[[Any], Inexact[Array, " readouts"]]
    averages: Float[Array, " readouts"]

    def signals(self, rows, /) -> Inexact[Array, "voxels readouts"]:
        """The signal of a row of voxels."""
        return jax.vmap(self.signal)(rows)


class Together(eqx.Module):
    """Several acquisitions of one tissue, readouts one after the other."""

    parts: tuple[Model, ...]

    @property
    def averages(self) -> Float[Array, " readouts"]:
        """Of all readouts."""
        return jnp.concatenate([part.averages for part in self.parts])

    def signals(self, rows, /) -> Inexact[Array, "voxels readouts"]:
        """Of all acquisitions."""
        return jnp.concatenate([part.signals(rows) for part in self.parts], axis=-1)


class Selected(eqx.Module):
    """A model of which some readouts are kept: those at the centre of k-space, which give an image
    its contrast.

    >>> import mrphys as mr
    >>> theta = mr.sequence.mp2rage([0.7, 2.5], [0.07, 0.09], 0.006, readouts=160, tr_s=5.0)
    >>> Selected(theta, (80, 240)).averages.shape
    (2,)
    """

    theta: Model
    readouts: tuple[int, ...] = eqx.field(static=True)

    def __check_init__(self):
        count = self.theta.averages.size
        if not self.readouts or not all(0 <= i < count for i in self.readouts):
            expected = f"of 0 to {count - 1}"
            raise InputError(Problem("Selected: readouts", str(self.readouts), expected))

    @property
    def averages(self) -> Float[Array, " readouts"]:
        """Of the readouts kept."""
        return self.theta.averages[np.asarray(self.readouts)]

    def signals(self, rows, /) -> Inexact[Array, "voxels readouts"]:
        """Of the readouts kept."""
        return self.theta.signals(rows)[:, np.asarray(self.readouts)]
