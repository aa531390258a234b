"""Growth laws against an independent integrator, their limits, closed forms and each other."""

import equinox as eqx
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from mrphys.errors import InputError
from oncology.growth_laws import (
    FLOOR,
    Allee,
    Bertalanffy,
    Exponential,
    Gompertz,
    Logistic,
    PowerLaw,
)
from tests.laws import check_gradient

LAWS = {
    "exponential": Exponential(),
    "logistic": Logistic(),
    "gompertz": Gompertz(),
    "classical": Bertalanffy(),
    "general": Bertalanffy(-0.4),
    "power": PowerLaw(),
    "allee": Allee(),
}
EXACT = [name for name, law in LAWS.items() if law.substeps == 1]
STARTS = np.array([1e-9, 0.3 * FLOOR, 3 * FLOOR, 1e-3, 0.2, 0.9, 1.0])


@pytest.mark.core
@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(("rate", "loss"), [(0.05, 0.0), (0.05, 0.3), (0.0, 0.1), (-0.003, 0.0)])
def test_laws_against_an_independent_integrator(name, rate, loss, rtol):
    """In ln u, from below the floor and above it, growing through it and sinking through it."""
    law, days = LAWS[name], 8.0
    reaction = eqx.filter_jit(law.reaction)

    def slope(_, log_u):
        u = np.exp(log_u)
        return np.asarray(reaction(jnp.asarray(u), jnp.asarray(rate)), np.float64) / u - loss

    exact = solve_ivp(slope, (0, days), np.log(STARTS), rtol=1e-9, atol=1e-11, max_step=0.2)
    found = eqx.filter_jit(law.grow)(STARTS, rate, days, loss)
    allowed = rtol(1e-6, 3e-5) if name in EXACT else 5e-4
    np.testing.assert_allclose(np.log(found), exact.y[:, -1], atol=allowed)


@pytest.mark.core
def test_bertalanffy_is_a_family(rtol):
    """Logistic at λ = -1, Gompertz at 0 and, smoothly, near it; u' = k (1 - u) at 1."""
    u, rest = jnp.array([0.01, 0.3, 0.8]), (0.3, 4.0, 0.1)
    close = {"rtol": rtol(1e-10, 1e-4)}
    found = Bertalanffy(-1.0).grow(u, *rest)
    np.testing.assert_allclose(found, Logistic().grow(u, *rest), **close)
    shift = 0.1 / 0.3
    exact = jnp.exp((jnp.log(u) + shift) * jnp.exp(-1.2) - shift)
    np.testing.assert_allclose(Gompertz().grow(u, *rest), exact, **close)
    near = Bertalanffy(1e-5).grow(u, *rest)
    np.testing.assert_allclose(near, exact, rtol=1e-4)
    confined = Bertalanffy(1.0).grow(u, 0.3, 4.0, 0.1)
    end = 0.3 / 0.4
    np.testing.assert_allclose(confined, end + (u - end) * np.exp(-1.6), **close)
    np.testing.assert_allclose(PowerLaw(1.0).grow(u, *rest), u * np.exp(0.8), **close)
    radius = (u ** (1 / 3) + 0.3 * 4 / 3) ** 3
    np.testing.assert_allclose(PowerLaw().grow(u, 0.3, 4.0), radius, **close)


@pytest.mark.core
@pytest.mark.parametrize("name", EXACT)
def test_two_half_steps_are_one(name, rtol):
    """As exact steps must be, across the floor as well."""
    law = LAWS[name]
    for loss in (0.0, 0.9):
        half = law.grow(law.grow(STARTS, 0.1, 5.0, loss), 0.1, 5.0, loss)
        whole = law.grow(STARTS, 0.1, 10.0, loss)
        np.testing.assert_allclose(np.log(half), np.log(whole), atol=rtol(1e-9, 1e-4))


def test_a_strong_allee_effect_kills_small_tumours_and_a_weak_one_slows_them():
    strong, weak = Allee(0.1, 0.05), Allee(-0.02, 0.05)
    grown = strong.grow(jnp.array([0.05, 0.1, 0.2]), 0.2, 10.0)
    assert grown[0] < 0.05 and grown[2] > 0.2
    assert float(grown[1]) == pytest.approx(0.1)
    rates = weak.reaction(jnp.array([1e-6, 0.1]), jnp.asarray(0.2)) / jnp.array([1e-6, 0.1]) / 0.2
    assert 0 < rates[0] < rates[1]
    assert float(rates[0]) == pytest.approx(0.02 / 0.05, rel=1e-3)


@pytest.mark.parametrize("name", LAWS)
def test_gradients_of_growth(name):
    """In density, rates, time and exponent; finite at zero, at the floor and without rates."""
    law = LAWS[name]

    def grown(x):
        shaped = type(law)(x["exponent"]) if "exponent" in x else law
        return shaped.grow(x["u"], x["rate"], x["days"], x["loss"])

    def at(u, rate, loss):
        u = jnp.asarray(u, float)
        where = {"u": u, "rate": jnp.asarray(rate), "days": jnp.asarray(3.0), "loss": loss}
        shapes = {"classical": 0.4, "general": -0.4, "power": 0.6}
        return where | ({"exponent": jnp.asarray(shapes[name])} if name in shapes else {})

    check_gradient(
        grown,
        at([1e-8, 1e-3, 0.4, 0.97], 0.2, jnp.asarray(0.1)),
        rtol=1e-5,
        atol=1e-7,
        finite_at=[at([0.0, FLOOR, 1.0, 1e-9], *rates) for rates in ((0.2, 0.1), (0.0, 0.0))],
    )


@pytest.mark.parametrize(
    "build", [lambda: Bertalanffy(1.5), lambda: PowerLaw(-0.1), lambda: Allee(0.1, 0.0)]
)
def test_shapes_out_of_range_are_errors(build):
    with pytest.raises(InputError):
        build()
