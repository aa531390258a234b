"""Fields against nested differentiation, solutions against closed forms, parameters' covariance."""

from dataclasses import replace
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from learn.pinn import (
    LBFGS,
    MLP,
    PINN,
    SIREN,
    Adam,
    Condition,
    Data,
    FourierFeatures,
    GaussNewton,
    ModifiedMLP,
    Parameter,
    Region,
    taylor,
)
from learn.pinn.system import System
from learn.training import Diverged
from mrphys.errors import InputError
from tests.laws import check_gradient

INDICES = taylor.closed([(0, 1, 1)])
SMALL = partial(MLP, width=6, depth=1)
X = jnp.array([0.3, -0.2])


def nested(f, index, x):
    if not index:
        return f(x)
    return jax.jacfwd(lambda at: nested(f, index[1:], at))(x)[..., index[0]]


@pytest.mark.core
@pytest.mark.parametrize(
    "make",
    [
        SMALL,
        partial(ModifiedMLP, width=4, depth=1, activation=nnx.silu),
        partial(SIREN, width=4, depth=2),
        partial(FourierFeatures, features=3, keep=(0,), inner=partial(MLP, width=4, depth=1)),
    ],
    ids=["mlp", "modified", "siren", "fourier"],
)
def test_derivatives_are_those_of_nested_differentiation(make, rtol):
    field, x = make(2, 2, rngs=nnx.Rngs(0)), jnp.asarray(X, float)

    def through(x, n):
        return jnp.stack([n[0] * x[0] ** 3 * jnp.sin(x[1]), n[1] ** 2])

    def both(x):
        series = field.series(taylor.inputs(x, INDICES), INDICES)
        return series, taylor.compose(through, x, series, INDICES)

    series, made = jax.jit(both)(x)
    for f, found in ((field, series), (lambda x: through(x, field(x)), made)):
        expected = jax.jit(lambda x, f=f, all=tuple(found): [nested(f, i, x) for i in all])(x)
        for index, value in zip(found, expected, strict=True):
            size = float(jnp.abs(value).max()) + 1
            np.testing.assert_allclose(found[index], value, atol=size * rtol(1e-10, 2e-4))


def test_fourier_features_of_half_cycles_are_periodic():
    make = partial(FourierFeatures, frequencies=[[0.0, 0.5], [0.0, 1.0]], keep=(0,), inner=SMALL)
    field = make(2, 1, rngs=nnx.Rngs(0))
    ends = [field(jnp.array([0.3, x])) for x in (-1.0, 1.0)]
    np.testing.assert_allclose(*ends, atol=1e-12)
    assert abs(float((field(jnp.array([0.3, 0.2])) - ends[0])[0])) > 1e-3


def decay(**changes):
    given = {
        "inputs": {"t_day": (0.0, 2.0)},
        "residual": lambda u, at, p: u("t_day") + p["k"] * u(),
        "hard": lambda at, n: 1.0 + at["t_day"] * n,
        "field": SMALL,
        "p": {"k": 0.7},
    }
    return PINN(**given | changes)


def test_slopes_in_chunks_are_the_gradient_of_the_whole_and_of_the_jacobian():
    system = System(decay(p={"k": Parameter(0.5, (0.1, 2.0), prior=(0.6, 0.1))}), None, 450, float)
    params, fixed = system.draw(jax.random.key(1))
    rows = {"_x": system.pool[:450], "_share": jnp.full(450, 1 / 450)}

    def mean(params):
        return jnp.mean(jax.vmap(system.residual("residual", params, fixed))(rows) ** 2)

    value, slope = jax.jit(partial(system.slope, "residual", causal=0.0))(params, fixed, rows)
    expected = jax.jit(jax.value_and_grad(mean))(params)
    jax.tree.map(
        partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), (value, slope), expected
    )
    check_gradient(jax.jit(mean), params, scale=1.0, directions=4, rtol=1e-5)


def test_gauss_newton_reaches_what_adam_cannot_and_goes_on_from_checkpoints(tmp_path):
    t, newton = np.linspace(0, 2, 9), GaussNewton(steps=100, resample_every=30, patience=0)
    whole = partial(decay().fit, points=50, key=jax.random.key(0))
    runs = {"adam": Adam(steps=300, rate=1e-2), "newton": newton, "lbfgs": LBFGS(steps=100)}
    made = {name: whole(stages=[stage]) for name, stage in runs.items()}
    off = {n: np.abs(u({"t_day": t}) - np.exp(-0.7 * t)).max() for n, u in made.items()}
    assert off["newton"] < 1e-5 and 30 * off["newton"] < off["adam"] < 0.05
    assert off["lbfgs"] < 1e-2
    whole(stages=[replace(newton, steps=50)], folder=tmp_path)
    seen = []
    twice = whole(stages=[newton], folder=tmp_path, progress=lambda *at: seen.append(at[1]))
    assert seen == [100]
    np.testing.assert_array_equal(made["newton"]({"t_day": t}), twice({"t_day": t}))
    slope = made["newton"]({"t_day": t}, "t_day")
    np.testing.assert_allclose(slope, -0.7 * np.exp(-0.7 * t), atol=2e-4)


def test_posterior_of_a_rate_is_that_of_the_closed_form_for_each_member():
    t, sd, rng = np.linspace(0.1, 2, 12), 0.03, np.random.default_rng(0)
    y = np.exp(-0.7 * t) + sd * rng.normal(size=(2, 12))
    prior = (0.6, 0.05)
    problem = decay(p={"k": Parameter(0.5, (0.1, 2.0), prior)}, weights={"residual": 1e5})
    own = Data({"t_day": np.stack([t, t[::-1]])}, np.stack([y[0], y[1, ::-1]]), sd)
    made = problem.fit(
        own, points=50, members=2, key=jax.random.key(0),
        stages=[GaussNewton(steps=60, patience=0)],
    )  # fmt: skip
    with pytest.raises(InputError, match="data, t_day"):
        problem.fit(own, points=50, members=3, key=jax.random.key(0))
    k = np.full(2, 0.6)
    for _ in range(20):
        u = np.exp(-k[:, None] * t)
        slope = ((t * u) * (u - y)).sum(1) / sd**2 - (k - prior[0]) / prior[1] ** 2
        information = ((t * u) ** 2).sum(1) / sd**2 + 1 / prior[1] ** 2
        k = k + slope / information
    np.testing.assert_allclose(made.p["k"], k, atol=2e-2 * information[0] ** -0.5)
    np.testing.assert_allclose(made.p_sd["k"], information**-0.5, rtol=0.02)
    assert made({"t_day": t}).shape == (2, 12)


def test_balance_and_causal_weights_change_the_training_and_keep_the_solution():
    at = {"t_day": np.zeros(3)}
    soft = decay(hard=None, conditions={"start": Condition(at, lambda u, at, p: u() - 1)})
    t = np.linspace(0, 2, 9)
    for options in ({"balance": "gradients", "causal": 1.0}, {"balance": "ntk"}):
        adam = Adam(steps=200, rate=1e-2, resample_every=100, **options)
        made = soft.fit(points=50, stages=[adam], key=jax.random.key(0))
        assert np.abs(made({"t_day": t}) - np.exp(-0.7 * t)).max() < 0.1
        assert float(made.rest.weights["start"]) != 1.0


def test_disc_by_signed_distance_and_by_mask():
    disc = Region(("x", "y"), lambda x: jnp.linalg.norm(x) - 0.5)
    rng = np.random.default_rng(0)
    at = {"x": rng.uniform(-0.6, 0.6, 20), "y": rng.uniform(0.1, 0.6, 20)}
    edge = disc.boundary(at)
    np.testing.assert_allclose(np.hypot(edge["x"], edge["y"]), 0.5, rtol=1e-9)
    np.testing.assert_allclose(edge["normal_x"], edge["x"] / 0.5, atol=1e-9)
    axis = np.linspace(-1, 1, 81)
    mask = np.hypot(*np.meshgrid(axis, axis, indexing="ij")) < 0.5
    masked = Region.of_mask(("x", "y"), mask, (0.025, 0.025), (-1.0, -1.0))
    x = jnp.stack([at["x"], at["y"]], -1)
    found, true = (jax.vmap(region.distance)(x) for region in (masked, disc))
    np.testing.assert_allclose(found, true, atol=0.02)
    phi, slope = disc.phase({"x": jnp.array(0.5), "y": jnp.array(0.0)}, 0.1)
    np.testing.assert_allclose([phi, slope["x"], slope["y"]], [0.5, -15.0, 0.0], atol=1e-9)
    inside = PINN(
        inputs={"x": (-1.0, 1.0), "y": (-1.0, 1.0)}, region=disc, field=SMALL,
        residual=lambda u, at, p: u("x", "x") + u("y", "y") + 4.0,
        hard=lambda at, n: (0.25 - at["x"] ** 2 - at["y"] ** 2) * n,
    )  # fmt: skip
    made = inside.fit(points=60, stages=[GaussNewton(steps=40)], key=jax.random.key(0))
    np.testing.assert_allclose(made({"x": 0.1, "y": 0.2}), 0.2, atol=1e-4)


def test_bad_input_is_told():
    key, stages = jax.random.key(0), [GaussNewton(steps=50)]
    wrong = decay(residual=lambda u, at, p: jnp.stack([u(), u()])[:, None])
    with pytest.raises(InputError, match="function of one point"):
        wrong.fit(points=8, stages=stages, key=key)
    with pytest.raises(InputError, match="'x'"):
        decay(residual=lambda u, at, p: u("x")).fit(points=8, stages=stages, key=key)
    with pytest.raises(InputError, match="t_day = 5 and 0 more outside"):
        decay().fit(Data({"t_day": [1.0, 5.0]}, [0.1, 0.2], 0.1), points=8, stages=stages, key=key)
    with pytest.raises(InputError, match="a weight of 'edge'"):
        decay(weights={"edge": 2.0}).fit(points=8, stages=stages, key=key)
    with pytest.raises(InputError, match="low to high"):
        decay(inputs={"t_day": (1.0, 0.0)})
    with pytest.raises(InputError, match="no voxel"):
        Region.of_mask(("x",), np.zeros(3, bool), (1.0,), (0.0,))


def test_a_loss_that_is_not_finite_stops_with_step_and_term(tmp_path):
    bad = Condition({"t_day": [1.0]}, lambda u, at, p: jnp.log(u() - 1e9))
    with pytest.raises(Diverged, match=r"step 0: stage 0 Adam: the loss of term 'edge' is nan"):
        decay(conditions={"edge": bad}).fit(
            points=8, stages=[Adam(steps=5)], folder=tmp_path, key=jax.random.key(0)
        )
