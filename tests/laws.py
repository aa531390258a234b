"""Laws that operators, gradients and integrators must obey, whatever they compute."""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree
from jaxtyping import PyTree


def check_gradient(
    f: Callable,
    x: PyTree,
    *,
    scale: PyTree | None = None,
    rtol: float = 1e-6,
    atol: float = 1e-10,
    directions: int = 16,
    seed: int = 0,
) -> None:
    """Forward- and reverse-mode derivatives of f at x agree with finite differences.

    The finite difference is central with one Richardson step, of fourth order:
    (4 D(h/2) - D(h)) / 3. Each number in x is perturbed alone when there are at most `directions`
    of them, otherwise `directions` random combinations are. `scale` (one number, or a tree like x)
    gives the size over which f varies; |x| where that is nonzero, else 1. `atol` is relative to the
    largest derivative.
    """
    if not jax.config.jax_enable_x64:  # pyright: ignore[reportAttributeAccessIssue]
        raise RuntimeError("finite differences need float64")
    x_flat, unravel = ravel_pytree(jax.tree.map(lambda v: jnp.asarray(v, float), x))
    if scale is None:
        scales = jnp.where(x_flat == 0, 1.0, jnp.abs(x_flat))
    elif not isinstance(scale, dict) and jnp.ndim(scale) == 0:
        scales = jnp.full_like(x_flat, scale)
    else:
        scales = ravel_pytree(jax.tree.map(lambda v: jnp.asarray(v, float), scale))[0]

    def real_f(unit_steps):
        """f over steps counted in scales, as one real vector."""
        y, _ = ravel_pytree(f(unravel(x_flat + scales * unit_steps)))
        return jnp.concatenate([y.real, y.imag]) if jnp.iscomplexobj(y) else y

    real_f = jax.jit(real_f)
    here = jnp.zeros_like(x_flat)
    rng = np.random.default_rng(seed)
    if x_flat.size <= directions:
        tangents = np.eye(x_flat.size)
    else:
        tangents = rng.standard_normal((directions, x_flat.size)) / np.sqrt(x_flat.size)

    h = float(jnp.finfo(x_flat.dtype).eps) ** 0.2
    y, pullback = jax.vjp(real_f, here)
    cotangent = jnp.asarray(rng.standard_normal(y.shape))
    (gradient,) = pullback(cotangent)
    assert np.all(np.isfinite(gradient)), f"reverse mode is not finite: {gradient}"

    finite, forward = [], []
    for tangent in tangents:
        step = h * jnp.asarray(tangent)
        coarse = (real_f(step) - real_f(-step)) / (2 * h)
        fine = (real_f(step / 2) - real_f(-step / 2)) / h
        finite.append((4 * fine - coarse) / 3)
        forward.append(jax.jvp(real_f, (here,), (jnp.asarray(tangent),))[1])
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
