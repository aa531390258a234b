"""Chunks of voxels, their Jacobians, and gradients summed chunk by chunk."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys.errors import InputError
from mrphys.simulate import over_voxels, sum_over_voxels
from tests.laws import check_gradient

Q = mr.Tissue(
    t1_s=np.linspace(0.5, 1.5, 70).reshape(7, 10), t2_s=0.08, b1=0.9 + 0.2j, m0=0.7, b0_hz=3.0
)
THETA = mr.sequence.fingerprinting_fisp(np.linspace(0.2, 1.0, 6), 0.012, 0.004)


def test_chunks_of_any_size_are_all_at_once():
    whole = mr.simulate(THETA, Q, chunk=None)
    assert whole.shape == (7, 10, 6)
    for chunk in (1, 32, 48, 69, 70, 500):
        np.testing.assert_allclose(mr.simulate(THETA, Q, chunk=chunk), whole, atol=1e-12)


def test_jacobian_is_that_of_each_voxel():
    wrt = ("t1_s", "b0_hz", "m0")
    found = mr.jacobian(THETA, Q, wrt, chunk=32)
    row = jax.tree.map(lambda value: value[4, 7], Q.broadcast())
    for name in wrt:
        one = jax.jacfwd(
            lambda value, name=name: THETA.signal(
                mr.Tissue(**{**vars(row), name: value})  # pyright: ignore[reportArgumentType]
            )
        )(getattr(row, name))
        np.testing.assert_allclose(found[name][4, 7], one, atol=1e-12)
    np.testing.assert_allclose(found["m0"], mr.simulate(THETA, Q) / 0.7, atol=1e-12)


def test_jacobian_refuses_what_is_no_number_of_tissue():
    for wrt in (["t9_s"], ["pools"], []):
        with pytest.raises(InputError, match="jacobian: wrt"):
            mr.jacobian(THETA, Q, wrt)


def test_gradient_of_a_sum_is_taken_chunk_by_chunk():
    rows = {"rate": jnp.linspace(0.1, 2.0, 70), "name": jnp.arange(70)}

    def cost(theta, rows):
        return jnp.sin(theta["a"] * rows["rate"]) * jnp.exp(-theta["b"] * rows["rate"])

    def total(p, chunk=32):
        together = {"rate": p["rate"], "name": rows["name"]}
        return sum_over_voxels(cost, {"a": p["a"], "b": p["b"]}, together, chunk)

    p = {"a": jnp.asarray(1.3), "b": jnp.asarray(0.4), "rate": rows["rate"]}
    check_gradient(total, p)
    for chunk in (None, 32, 64, 70):
        plain = jax.grad(lambda p: jnp.sum(cost(p, p)))(p)
        jax.tree.map(np.testing.assert_allclose, jax.grad(lambda p: total(p, chunk))(p), plain)  # noqa: B023
    curvature = jax.grad(lambda a: jax.grad(total)(p | {"a": a})["a"])(p["a"])
    expected = jax.grad(jax.grad(lambda a: jnp.sum(cost(p | {"a": a}, p))))(p["a"])
    np.testing.assert_allclose(curvature, expected, rtol=1e-9)


def test_trees_of_any_results_come_back_in_order():
    def f(theta, rows):
        return {"double": theta * rows, "pair": jnp.stack([rows, -rows], axis=1)}

    rows = jnp.arange(70.0)
    found = over_voxels(f, jnp.asarray(2.0), rows, 32)
    np.testing.assert_array_equal(found["double"], 2 * rows)
    np.testing.assert_array_equal(found["pair"][:, 1], -rows)
