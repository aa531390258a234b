"""Linear operators as algebra: A(x), A.H(y), A.normal(x), A @ B."""

from abc import abstractmethod
from collections.abc import Callable

import equinox as eqx
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Complex, Inexact

Numbers = Inexact[Array | np.ndarray, "..."]


class Linear(eqx.Module):
    """y = A x. A subclass has `__call__` and `adjoint`, ⟨A x, y⟩ = ⟨x, Aᴴ y⟩, and `normal` where
    AᴴA is cheaper than one after the other."""

    @abstractmethod
    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        """A x."""

    @abstractmethod
    def adjoint(self, y: Numbers, /) -> Complex[Array, "..."]:
        """Aᴴ y."""

    @property
    def H(self) -> "Linear":
        """Aᴴ, an operator."""
        return Adjoint(self)

    @property
    def normal(self) -> Callable[[Numbers], Complex[Array, "..."]]:
        """AᴴA, a function of images. What it needs is computed here: keep it, and call it often."""
        return Normal(self)

    @property
    def taken(self) -> Bool[Array, "..."]:
        """Where data are samples, along the last axes of y; all unless it says otherwise."""
        return jnp.ones((), bool)

    @property
    def axes(self) -> int | None:
        """How many of the last axes of x are of space; None where all are."""
        return None

    def __matmul__(self, other: "Linear") -> "Linear":
        """x ↦ A (B x)."""
        return Product(self, other)


class Adjoint(Linear):
    """Aᴴ of A."""

    of: Linear

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        return self.of.adjoint(x)

    def adjoint(self, y: Numbers, /) -> Complex[Array, "..."]:
        return self.of(y)

    @property
    def H(self) -> Linear:
        return self.of


class Product(Linear):
    """A B."""

    left: Linear
    right: Linear

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        return self.left(self.right(x))

    def adjoint(self, y: Numbers, /) -> Complex[Array, "..."]:
        return self.right.adjoint(self.left.adjoint(y))

    @property
    def taken(self) -> Bool[Array, "..."]:
        return self.left.taken

    @property
    def axes(self) -> int | None:
        return self.right.axes

    @property
    def normal(self) -> Callable[[Numbers], Complex[Array, "..."]]:
        return Between(self.left.normal, self.right)


class Normal(eqx.Module):
    """Aᴴ A, one after the other."""

    of: Linear

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        return self.of.adjoint(self.of(x))


class Between(eqx.Module):
    """Bᴴ N B."""

    normal: Callable[[Numbers], Complex[Array, "..."]]
    right: Linear

    def __call__(self, x: Numbers, /) -> Complex[Array, "..."]:
        return self.right.adjoint(self.normal(self.right(x)))
