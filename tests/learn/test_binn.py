"""Terms, solvers, laws: against closed forms and truths that are known."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from learn.binn import (
    BINN,
    Combination,
    Learned,
    Switch,
    compare,
    cosines,
    ordinary,
    regress,
    smoothed,
    spreading,
)
from mrphys.errors import InputError
from tests.laws import check_gradient, order_of_convergence

X, TIMES = np.linspace(0.05, 0.95, 10), np.array([0.0, 0.5, 1.0, 1.5])
KEY = jax.random.key(0)


def logistic(rngs):
    functions = {"1": jnp.ones_like, "z": lambda z: z}
    return Combination("u", (0.0, 1.0), functions, {"1": 0.5, "z": -0.5})


@pytest.mark.core
def test_a_learned_term_keeps_bounds_and_direction_whatever_its_weights():
    z = jnp.linspace(-0.5, 1.5, 50)
    for direction, sign in (("rising", 1), ("falling", -1)):
        for seed in range(2):
            term = Learned("u", (0.0, 1.0), -1.0, 2.0, direction, 0.5, rngs=nnx.Rngs(seed))
            state = jax.tree.map(lambda v: 3 * v - 1, nnx.state(term))
            nnx.update(term, state)
            values = term(z)
            assert (sign * jnp.diff(values) >= 0).all()
            assert ((values >= -1) & (values <= 2)).all()
    flat = Learned("u", (0.0, 1.0), 0.0, 2.0, None, 0.5, width=1, rngs=nnx.Rngs(0))
    flat.v[...] = jnp.zeros(1)
    np.testing.assert_allclose(flat(z), 0.5, rtol=1e-6)


def test_spreading_conserves_converges_and_has_gradients():
    terms = {"D": lambda u: 0.05 + 0 * u}
    errors, sizes = [], [8, 16, 32]
    for n in sizes:
        x = (np.arange(n) + 0.5) / n
        solve = jax.jit(partial(spreading(x, TIMES, 0.06), terms))
        u = solve(jnp.asarray(1 + np.cos(np.pi * x)), jnp.asarray(TIMES))
        true = 1 + np.exp(-0.05 * np.pi**2 * TIMES[:, None]) * np.cos(np.pi * x)
        np.testing.assert_allclose(u.mean(1), 1, rtol=1e-12)
        errors.append(float(np.abs(u - true).max()))
    assert 1.8 < order_of_convergence(errors, [1 / n for n in sizes]) < 2.3
    late, t = {"T": lambda t: t, "G": lambda u: 0.7 * (1 - u)}, jnp.asarray(TIMES)
    solve = spreading(X, TIMES, 0.05)
    grown = solve(terms | late, jnp.full(10, 0.2), t)[:, 3]
    odds = 0.25 * np.exp(0.35 * TIMES**2)
    np.testing.assert_allclose(grown, odds / (1 + odds), rtol=1e-4)

    # Barenblatt's: a hump of mass 1 that spreads by D(u) = u
    x = (np.arange(40) - 19.5) / 20
    age = 0.01 + TIMES[:3, None] / 100
    hump = np.maximum((9 / 4) ** (2 / 3) / 6 - x**2 / (6 * age ** (2 / 3)), 0) / age ** (1 / 3)
    solve_porous = spreading(x, TIMES[:3] / 100, 2.0)
    porous = solve_porous({"D": lambda u: u}, jnp.asarray(hump[0]), t[:3] / 100)
    np.testing.assert_allclose(porous, hump, atol=0.05)
    law = {"D": lambda u: 0 * u, "G": lambda u: 1 - u, "K": lambda x: 1 + x}
    uneven = solve(law, jnp.full(10, 0.2), t)
    odds = 0.2 / (0.8 + X) * np.exp(TIMES[:, None])
    np.testing.assert_allclose(uneven, (1 + X) * odds / (1 + odds), rtol=1e-3)

    def end(p):
        law = {"D": lambda u: p[0] * u, "G": lambda u: p[1] * (1 - u), "K": lambda x: 1 + x}
        return solve(law, 0.2 + 0.1 * jnp.cos(jnp.pi * X), t)[-1]

    check_gradient(end, jnp.array([0.04, 0.8]), finite_at=[jnp.zeros(2)])


def test_an_ordinary_equation_recovers_logistic_growth_as_a_law_with_its_uncertainty():
    times, rng = np.linspace(0, 4, 9), np.random.default_rng(0)
    odds = np.array([[0.1], [0.4]]) * np.exp(1.2 * times)
    true = 32 * odds / (1 + odds)
    y = true + 0.1 * np.maximum(true, 1) ** 0.2 * rng.normal(size=odds.shape)
    solve = ordinary(lambda u, t, terms: terms["G"](u) * u)
    falling = partial(Learned, "u", (0.0, 32.0), -0.5, 3.0, "falling", width=1)
    found = BINN({"G": falling}, solve, gamma=0.2).fit(
        times, y, modes=np.ones(1), members=3, steps=25, key=KEY
    )
    u = np.linspace(5, 29, 9)
    np.testing.assert_allclose(found.values("G", u)[0], 1.2 * (1 - u / 32), atol=0.12)
    law = found.equation("G", {"1": jnp.ones_like, "z": lambda z: z})
    assert law.functions == ("1", "z") and str(law).startswith("G(u) = 1.")
    assert "no data of u outside" in law.warnings[-1]
    np.testing.assert_allclose(found.noise_sd, 0.1, rtol=0.5)
    off = (found.profiles - y) * np.maximum(found.profiles, 1) ** -0.2
    np.testing.assert_allclose(found.score, (off**2).mean(1), rtol=1e-9)


@pytest.fixture(scope="module")
def profiles():
    first = np.stack([level * (1 - 0.8 * np.exp(-20 * (X - 0.5) ** 2)) for level in (0.2, 0.5)])
    law = {"D": lambda u: 0.02 + 0 * u, "G": lambda u: 1.0 - u}
    u = spreading(X, TIMES, 0.05)(law, jnp.asarray(first), jnp.asarray(TIMES))
    noise = 0.005 * np.random.default_rng(0).normal(size=(2, 4, 10))
    return np.moveaxis(np.asarray(u), 0, 1) + noise


def test_the_true_candidate_wins_and_profiles_reach_the_noise(profiles):
    constant = lambda rngs: Combination("u", (0.0, 1.0), {"1": jnp.ones_like}, {"1": 0.01})  # noqa: E731
    delay = lambda rngs: Switch("t", (0.0, 1.5), 0.2, 0.2)  # noqa: E731
    solve = spreading(X, TIMES, 0.05)
    candidates = {
        "delayed": BINN({"D": constant, "G": logistic, "T": delay}, solve, gamma=0.0),
        "at once": BINN({"D": constant, "G": logistic}, solve, gamma=0.0),
    }
    fits = compare(candidates, TIMES, profiles, modes=cosines(6, 10), key=KEY)
    assert next(iter(fits)) == "at once"
    found = fits["at once"]
    np.testing.assert_allclose(found.terms["D"](jnp.zeros(1)), 0.02, rtol=0.1)
    np.testing.assert_allclose(found.score, 0.005**2, rtol=0.6)


def test_a_field_learns_the_same_terms_without_a_solver(profiles):
    constant = lambda rngs: Combination("u", (0.0, 1.0), {"1": jnp.ones_like}, {"1": 0.01})  # noqa: E731
    binn = BINN({"D": constant, "G": logistic}, spreading(X, TIMES, 0.05), gamma=0.0)
    found = binn.fit_field(
        TIMES, X, profiles, 0.005, points=60, width=8, depth=2, adam=50, steps=80, key=KEY
    )
    u = jnp.linspace(0.1, 0.7, 5)
    np.testing.assert_allclose(found.terms["G"](u), 1 - u, atol=0.06)
    np.testing.assert_allclose(found.terms["D"](u), 0.02, rtol=0.25)


def test_smoothing_keeps_a_profile_and_takes_noise():
    x, rng = np.linspace(0, 1, 40), np.random.default_rng(0)
    true = 1 + np.sin(2 * np.pi * x)
    noisy = true + 0.1 * rng.normal(size=40)
    off = [np.std(u - true) for u in (smoothed(x, noisy), noisy)]
    assert off[0] < 0.6 * off[1]


def test_a_law_is_the_shortest_within_the_band():
    z, rng = np.linspace(0, 2, 40), np.random.default_rng(0)
    c = np.array([0.5, -0.2]) + 0.01 * rng.normal(size=(30, 2))
    law = regress("G", "u", z, c @ np.stack([z, z**2]))
    assert law.functions == ("z", "z²") and not law.warnings
    np.testing.assert_allclose(law.coefficients, [0.5, -0.2], atol=0.006)
    np.testing.assert_allclose(law.sds, 0.01, rtol=0.4)
    assert str(law).startswith("G(u) = 0.") and str(law).endswith(") u²") and ") u - 0." in str(law)
    with pytest.raises(InputError, match="library 'log': found not finite at u = 0"):
        regress("G", "u", z, c @ np.stack([z, z**2]), {"log": jnp.log})
    with pytest.raises(InputError, match="three or more"):
        regress("G", "u", z, np.ones((1, 40)))
    bent = regress("G", "u", z, np.sin(5 * z) + 1e-3 * rng.normal(size=(5, 40)))
    assert "not of this library" in bent.warnings[0]


def test_bad_input_is_told():
    solve, learned = spreading(X, TIMES, 0.05), partial(Learned, "u", (0.0, 1.0), 0.0, 1.0)
    late = partial(Learned, "t", (0.0, 1.0), 0.0, 1.0)
    with pytest.raises(InputError, match="cannot be told"):
        BINN({"G": learned}, solve).fit(TIMES[:2], np.ones((1, 2, 10)), key=KEY)
    with pytest.raises(InputError, match="cannot be identified"):
        BINN({"T": late}, solve).fit(TIMES[:3], np.ones((4, 3, 10)), key=KEY)
    with pytest.raises(InputError, match="axes in another order"):
        BINN({"G": learned}, solve).fit(TIMES, np.ones((4, 10, 4)), key=KEY)
    with pytest.raises(InputError, match="even"):
        spreading(X**2, TIMES, 0.05)
    with pytest.raises(InputError, match="low < start < high"):
        learned(start=2.0, rngs=nnx.Rngs(0))
