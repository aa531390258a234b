"""Growth laws against an independent integrator, growth maps against what they promise."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp

from oncology.growth import GrowthLaw, GrowthMap, Logistic, ReactionDiffusion
from tests.laws import check_gradient, order_of_convergence


class Gompertz(GrowthLaw):
    """-k u log u: a law with no step of its own."""

    def reaction(self, u, rate_per_day):
        return -rate_per_day * u * jnp.log(u)


class PlainLogistic(GrowthLaw):
    """The logistic law, stepped by the general rule."""

    def reaction(self, u, rate_per_day):
        return Logistic().reaction(u, rate_per_day)


def step(law, *numbers):
    """`law.step` of plain numbers: u, rate, kill, days."""
    return law.step(*(jnp.asarray(number, float) for number in numbers))


@pytest.mark.core
@pytest.mark.parametrize("rate", [0.3, 0.0, -0.1])
@pytest.mark.parametrize("loss_per_day", [0.0, 0.3, 0.3001, 1.2])
def test_logistic_step_is_exact(rate, loss_per_day, rtol):
    days, start = 4.0, np.array([0.0, 1e-6, 0.2, 0.9, 1.0])
    exact = solve_ivp(
        lambda _, u: rate * u * (1 - u) - loss_per_day * u, (0, days), start, rtol=1e-12, atol=1e-16
    ).y[:, -1]
    found = step(Logistic(), start, rate, loss_per_day * days, days)
    np.testing.assert_allclose(found, exact, rtol=rtol(1e-10, 2e-6), atol=1e-16)


@pytest.mark.core
@pytest.mark.parametrize("net", [-1.01e-3, -0.99e-3, -1e-9, 0.0, 1e-9, 0.99e-3, 1.01e-3])
def test_logistic_step_is_smooth_where_growth_balances_loss(net, rtol):
    """(exp r - 1) / r and its derivative by a long series, on both sides of every branch."""
    growth, u = 0.5, 0.4
    term = [net**n for n in range(6)]
    ratio = sum(t / f for t, f in zip(term, (1, 2, 6, 24, 120, 720), strict=True))
    slope = sum(n * t / f for n, t, f in zip((1, 2, 3, 4), term, (2, 6, 24, 120), strict=False))
    down = 1 + u * growth * ratio
    expected = u * np.exp(net) / down
    by_loss = -expected + u * np.exp(net) / down**2 * u * growth * slope

    of_loss = jax.value_and_grad(lambda loss: step(Logistic(), u, growth, loss, 1.0))
    value, gradient = of_loss(jnp.asarray(growth - net))
    assert float(value) == pytest.approx(expected, rel=rtol(1e-12, 1e-6))
    assert float(gradient) == pytest.approx(by_loss, rel=rtol(1e-8, 1e-3))


def test_two_half_steps_are_one_whole_step():
    u = jnp.linspace(0, 1, 11)
    half = step(Logistic(), step(Logistic(), u, 0.2, 0.15, 1.5), 0.2, 0.15, 1.5)
    np.testing.assert_allclose(half, step(Logistic(), u, 0.2, 0.3, 3.0), rtol=1e-13)


def test_general_step_is_of_second_order():
    days, u = 3.0, jnp.array([0.05, 0.4, 0.8])
    exact = {
        PlainLogistic(): step(Logistic(), u, 0.3, 0.3, days),
        # log u decays towards -loss / k at rate k
        Gompertz(): jnp.exp((jnp.log(u) + 0.1 / 0.3) * jnp.exp(-0.3 * days) - 0.1 / 0.3),
    }
    for law, expected in exact.items():
        errors, counts = [], np.array([8, 16, 32, 64])
        for n in counts:
            v = u
            for _ in range(n):
                v = step(law, v, 0.3, 0.3 / n, days / n)
            errors.append(float(jnp.abs(v - expected).max()))
        assert order_of_convergence(errors, days / counts) == pytest.approx(2, abs=0.1)


@pytest.mark.parametrize(
    "where",
    [
        (0.3, 0.2, 0.4, 2.0),
        (0.0, 0.2, 0.4, 2.0),
        (0.3, 0.0, 0.0, 2.0),
        (0.3, 0.2, 0.1, 2.0),
    ],
)
def test_gradients_of_the_logistic_step(where):
    check_gradient(
        lambda x: Logistic().step(x[0], x[1], x[2], x[3]), jnp.array(where, float), scale=0.1
    )


def ball(shape=(20, 16, 1), radius=6.0):
    position = np.indices(shape) - (np.reshape(shape, (3, 1, 1, 1)) - 1) / 2
    return np.sqrt((position**2).sum(0)) <= radius


def growth_map(region=None):
    return GrowthMap(ball() if region is None else region, (1.0, 1.0, 1.0), 4.0)


def test_growth_map_has_unit_spread_over_its_region():
    """Independent coefficients of sd s give δk an sd of s: by the exact variance, Σ B_j(x)²."""
    for region in (ball(), ball((12, 12, 10), 5.0)):
        field = growth_map(region)
        columns = jax.vmap(field)(jnp.eye(field.size))
        variance = np.asarray((columns**2).sum(0))
        assert variance[region].mean() == pytest.approx(1, rel=1e-6)
        assert variance[region].min() > 0.5
        assert variance[region].max() < 1.6


def test_growth_map_can_be_constant_over_its_region():
    """Cubic B-splines are a partition of unity: equal coefficients make an even field."""
    field = growth_map()(jnp.ones(growth_map().size))
    inside = np.asarray(field)[ball(radius=4.0)]
    assert inside.std() < 0.02 * inside.mean()


def test_growth_map_is_linear_and_smooth():
    field = growth_map()
    rng = np.random.default_rng(0)
    a, b = jnp.asarray(rng.standard_normal((2, field.size)))
    np.testing.assert_allclose(field(2 * a - b), 2 * field(a) - field(b), atol=1e-12)
    # of one spline, no second difference exceeds that of its peak: B'' = -2 and h / control = 1/4
    spline = np.asarray(field(jnp.eye(field.size)[field.size // 2])).squeeze()
    assert np.abs(np.diff(spline, 2, axis=0)).max() <= 2 / 4**2 * spline.max() * 1.5


def test_growth_map_is_zero_far_from_its_region():
    region = np.zeros((40, 8, 1), bool)
    region[4:8] = True
    field = growth_map(region)
    np.testing.assert_array_equal(field(jnp.ones(field.size))[25:], 0.0)


def test_gradient_of_a_growth_map():
    field = growth_map()
    check_gradient(field, jnp.linspace(-1.0, 1.0, field.size))


def test_diffusivity_follows_the_tissue():
    white = jnp.array([1.0, 0.0, 0.5, 0.0, 1.0])[:, None, None]
    grey = jnp.array([0.0, 1.0, 0.5, 0.0, 0.0])[:, None, None]
    habitable = jnp.array([True, True, True, True, False])[:, None, None]
    model = ReactionDiffusion(habitable, white, grey, grey_to_white=0.2)
    found = model.diffusivity({"diffusivity_mm2_per_day": 0.5})
    np.testing.assert_allclose(found.ravel(), [0.5, 0.1, 0.3, 0.1, 0.0], rtol=1e-12)
    uniform = ReactionDiffusion(habitable).diffusivity({"diffusivity_mm2_per_day": 0.5})
    np.testing.assert_allclose(uniform.ravel(), [0.5, 0.5, 0.5, 0.5, 0.0], rtol=1e-12)


def test_growth_rate_is_the_global_rate_plus_the_map():
    field = growth_map()
    model = ReactionDiffusion(jnp.asarray(ball()), growth_map=field)
    p = {"growth_rate_per_day": 0.1, "growth_map_per_day": jnp.full(field.size, 0.02)}
    np.testing.assert_allclose(model.growth_rate(p), 0.1 + field(p["growth_map_per_day"]))
