"""FISTA: smooth data, and a penalty whose proximal map is known."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Complex, Float, PRNGKeyArray

from mrphys.reconstruction.data_term import DataTerm
from mrphys.reconstruction.method import Found, Stop, iterate, relative_change

Images = Complex[Array, "..."]


def fista(
    data: DataTerm,
    proximal: Callable[[Images, Float[Array, ""], PRNGKeyArray], Images],
    weight: Float[Array, ""],
    start: Images | None,
    stop: Stop,
    key: PRNGKeyArray,
) -> Found:
    """argmin ½|A x - y|² + λ R(x), by

        x⁺ = prox_{λR/L}(z - (N z - b) / L),   z⁺ = x⁺ + (t - 1) / t⁺ (x⁺ - x),

    t⁺ = (1 + sqrt(1 + 4t²)) / 2, from 1 again where the momentum runs uphill. Ends where
    |x⁺ - x| <= tolerance |x⁺|. proximal(x, s, key) is argmin_u ½|u - x|² + s R(u).

    Beck, Teboulle 2009, doi:10.1137/080716542; O'Donoghue, Candès 2015,
    doi:10.1007/s10208-013-9150-3 (restart).
    """
    step = 1 / data.bound
    start = jnp.zeros_like(data.b) if start is None else start

    def improve(now, count):
        x, z, t = now
        down = z - step * (data.normal(z) - data.b)
        new = proximal(down, weight * step, jax.random.fold_in(key, count))
        uphill = jnp.sum((z - new).real * (new - x).real + (z - new).imag * (new - x).imag) > 0
        t = jnp.where(uphill, 1.0, t)
        after = (1 + jnp.sqrt(1 + 4 * t**2)) / 2
        return (new, new + ((t - 1) / after) * (new - x), after), relative_change(new, x)

    begin = start, start, jnp.ones_like(data.bound)
    (x, _, _), count, history, arrived = iterate(improve, begin, stop)
    return Found(x, count, history, arrived)


def shrink(c: Images, by: Float[Array, ""]) -> Images:
    """c max(1 - s / |c|, 0), the proximal map of |c|; 0 and its slopes too where |c| <= s."""
    squares = c.real**2 + c.imag**2
    kept = squares > by**2
    size = jnp.sqrt(jnp.where(kept, squares, 1.0))
    return jnp.where(kept, c * (1 - by / size), 0)
