"""Laws that operators, gradients and integrators must obey, whatever they compute."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree

QUICKLY = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
"""Compiled for few calls."""


def check_gradient(
    f: Callable,
    x: PyTree,
    *,
    scale: PyTree | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-10,
    directions: int = 16,
    seed: int = 0,
    finite_at: Sequence[PyTree] = (),
) -> None:
    """Forward- and reverse-mode derivatives of f at x agree with finite differences.

    The finite difference is central with one Richardson step, of fourth order:
    (4 D(h/2) - D(h)) / 3. Each number in x is perturbed alone when there are at most `directions`
    of them, otherwise `directions` random combinations are. `scale` (one number, or a tree like x)
    gives the size over which f varies; |x| where that is nonzero, else 1. `atol` is relative to the
    largest derivative. At the points `finite_at` derivatives need only be finite.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise RuntimeError("finite differences need float64")

    def flattened(tree: PyTree) -> tuple[jax.Array, Callable]:
        return ravel_pytree(jax.tree.map(lambda v: jnp.asarray(v, float), tree))

    here, unravel = flattened(x)
    if scale is None:
        scales = jnp.where(here == 0, 1.0, jnp.abs(here))
    elif not isinstance(scale, dict) and jnp.ndim(scale) == 0:
        scales = jnp.full_like(here, scale)
    else:
        scales = flattened(scale)[0]

    @jax.jit
    def real_f(at):
        """f as one real vector."""
        y, _ = ravel_pytree(f(unravel(at)))
        return jnp.concatenate([y.real, y.imag]) if jnp.iscomplexobj(y) else y

    # Two compilations in all: the values of the differences are those beside the forward slopes.
    value_and_slope = jax.jit(
        lambda at, along: jax.jvp(real_f, (at,), (along,)), compiler_options=QUICKLY
    )
    pulled_back = jax.jit(
        lambda at, cotangent: jax.vjp(real_f, at)[1](cotangent)[0], compiler_options=QUICKLY
    )
    rng = np.random.default_rng(seed)
    if here.size <= directions:
        tangents = np.eye(here.size)
    else:
        tangents = rng.standard_normal((directions, here.size)) / np.sqrt(here.size)

    h = float(jnp.finfo(here.dtype).eps) ** 0.2
    cotangent = jnp.asarray(rng.standard_normal(jax.eval_shape(real_f, here).shape))
    gradient = scales * pulled_back(here, cotangent)
    for at in (here, *(flattened(point)[0] for point in finite_at)):
        for mode, slope in (
            ("reverse", pulled_back(at, cotangent)),
            ("forward", value_and_slope(at, scales)[1]),
        ):
            assert np.all(np.isfinite(slope)), f"{mode} mode is not finite at {at}: {slope}"

    finite, forward = [], []
    for tangent in tangents:
        along = scales * jnp.asarray(tangent)

        def moved(by: float, along: jax.Array = along) -> jax.Array:
            return value_and_slope(here + by * along, along)[0]

        coarse = (moved(h) - moved(-h)) / (2 * h)
        fine = (moved(h / 2) - moved(-h / 2)) / h
        finite.append((4 * fine - coarse) / 3)
        forward.append(value_and_slope(here, along)[1])
    finite, forward = np.asarray(finite), np.asarray(forward)
    assert np.all(np.isfinite(finite)), "finite differences are not finite: choose another point"

    allowed = atol * max(np.abs(finite).max(initial=0.0), np.finfo(float).tiny)
    np.testing.assert_allclose(forward, finite, rtol, allowed, err_msg="forward mode")
    reverse, expected = tangents @ np.asarray(gradient), finite @ np.asarray(cotangent)
    allowed = atol * max(np.abs(expected).max(initial=0.0), np.finfo(float).tiny)
    np.testing.assert_allclose(reverse, expected, rtol, allowed, err_msg="reverse mode")


def check_adjoint(
    forward: Callable, transpose: Callable, x: PyTree, y: PyTree, *, rtol: float = 1e-12
) -> None:
    """⟨A x, y⟩ = ⟨x, Aᴴ y⟩, to rtol of |A x| |y|."""
    ax, aty = (ravel_pytree(tree)[0] for tree in (forward(x), transpose(y)))
    x_flat, y_flat = (ravel_pytree(tree)[0] for tree in (x, y))
    left, right = jnp.vdot(y_flat, ax), jnp.vdot(aty, x_flat)
    size = jnp.linalg.norm(ax) * jnp.linalg.norm(y_flat)
    assert abs(left - right) <= rtol * size, f"<Ax, y> = {left} but <x, A^H y> = {right}"


def order_of_convergence(errors: Sequence[float], steps: Sequence[float]) -> float:
    """The p of error = C stepᵖ, by regression of log error on log step."""
    return float(np.polyfit(np.log(np.asarray(steps)), np.log(np.asarray(errors)), 1)[0])
