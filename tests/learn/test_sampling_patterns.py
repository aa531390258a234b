"""Patterns: budgets, derivatives through draws, selection."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from learn import reconstruction as lr
from learn import sampling as ls
from learn import train
from learn.sampling.patterns import radius
from mrphys.encoding import Encoding
from mrphys.errors import InputError
from tests.laws import check_adjoint, check_gradient

RNG = np.random.default_rng(0)
N = 8


def random(*shape):
    return jnp.asarray(RNG.normal(size=shape) + 1j * RNG.normal(size=shape))


EVERY = Encoding.cartesian(jnp.ones((1, N)), random(2, N, N))


@pytest.mark.parametrize("shape", [(1, 64), (32, 32)])
def test_baselines_take_exactly_so_many_and_the_centre(shape):
    count = shape[0] * shape[1] // 4
    middle = ls.centre_of(shape)
    drawn = [ls.variable_density(shape, count, jax.random.key(i)) for i in range(3)]
    for mask in (*drawn, ls.equispaced(shape, count)):
        assert mask.sum() == count and np.all(mask[middle])
    assert not np.array_equal(drawn[0], drawn[1])
    lowest, r = np.asarray(ls.lowest(shape, count)), radius(shape)
    assert lowest.sum() == count and r[lowest].max() <= r[~lowest].min()
    even = np.asarray(ls.equispaced(shape, count)) & ~middle
    if shape[0] == 1:
        steps = np.diff(np.flatnonzero(even[0, 34:]))
        assert set(steps) <= {4, 5}
    else:  # every other along both axes, but for what the centre takes of them
        x, y = np.nonzero(even)
        assert len(set(zip(x % 2, y % 2, strict=True))) == 1


def test_lines_of_variable_density_are_those_of_the_trainings():
    found = ls.variable_density((1, 64), 16, jax.random.key(3))
    np.testing.assert_array_equal(found, lr.line_mask(64, 4.0, jax.random.key(3)))


@pytest.mark.parametrize("total", [2.0, 7.5])
def test_chances_keep_the_budget_and_its_derivative(total):
    p = jnp.asarray(RNG.uniform(0.1, 0.9, (1, 10)))
    made = ls.with_budget(p, total)
    assert float(made.sum()) == pytest.approx(total, rel=1e-12)
    assert np.all((made >= 0) & (made <= 1))
    check_gradient(lambda p: ls.with_budget(p, total), p)
    ends = jax.jacrev(lambda p: ls.with_budget(p, total))(jnp.zeros((1, 10)))
    assert np.all(np.isfinite(ends))


def test_draws_take_exactly_so_many_each_with_its_chance():
    relaxed = ls.Relaxed((1, 32), 10, key=jax.random.key(1))
    draws = jax.jit(jax.vmap(relaxed.draw))(jax.random.split(jax.random.key(2), 4000))
    assert set(np.unique(draws)) == {0.0, 1.0}
    np.testing.assert_array_equal(draws.sum((1, 2)), 10)
    p = relaxed.chances()
    assert float(p.sum()) == pytest.approx(10)
    np.testing.assert_allclose(draws.mean(0), p, atol=0.03)
    assert relaxed.pattern().sum() == 10 and np.all(relaxed.pattern()[relaxed.middle])


def test_the_derivative_of_a_draw_is_that_of_its_chance():
    """Of a loss linear in samples exactly that of the expected loss, in every draw; of
    Σ (m - a)² with m drawn alone the mean is Σ 2 (p - a), where that of the expectation
    p (1 - a)² + (1 - p) a² is 1 - 2a."""
    cost = jnp.asarray(RNG.normal(size=(1, 32)))
    relaxed = ls.Relaxed((1, 32), 10, key=jax.random.key(1))
    graph, state = nnx.split(relaxed)

    def value(u, draws):
        moved = nnx.merge(graph, jax.tree.map(lambda _: u, state), copy=True)
        return jnp.sum(cost * (moved.draw(jax.random.key(5)) if draws else moved.chances()))

    u = relaxed.u[...]
    drawn, expected = (jax.grad(value)(u, draws) for draws in (True, False))
    np.testing.assert_allclose(drawn, expected, rtol=1e-12)
    assert np.abs(drawn).max() > 0
    p, a = 0.3, 0.2
    hard = jnp.asarray(jax.random.uniform(jax.random.key(0), (20000,)) < p, float)
    slope = jax.vmap(jax.grad(lambda p, h: (ls.straight_through(h, p) - a) ** 2), (None, 0))
    assert float(slope(p, hard).mean()) == pytest.approx(2 * (p - a), abs=0.02)
    push = jax.jvp(lambda p: ls.straight_through(jnp.ones(()), p), (jnp.asarray(p),), (2.0,))
    assert push[0] == 1 and push[1] == 2


def test_what_is_chosen_is_what_a_mask_encodes():
    mask = ls.variable_density((1, N), 4, jax.random.key(0))
    x, every = random(N, N), EVERY
    masked = Encoding.cartesian(mask, every.coils)
    scan = ls.chosen(lr.Scan(every, every(x), x, jnp.ones(())), mask)
    np.testing.assert_allclose(scan.A(x), masked(x), atol=1e-12)
    np.testing.assert_allclose(scan.A.H(scan.y), masked.H(masked(x)), atol=1e-12)
    np.testing.assert_allclose(scan.A.normal(x), masked.normal(x), atol=1e-12)
    check_adjoint(scan.A, scan.A.H, x, random(2, N, N))
    points = ls.Chosen(every, jnp.asarray(RNG.integers(0, 2, (N, N)), float))
    np.testing.assert_allclose(points.normal(x), points.H(points(x)), atol=1e-12)


def test_samples_not_taken_have_derivatives():
    """Of least squares in the weights of samples, zeros among them."""
    truth = random(N, N)
    y = EVERY(truth)

    def seen(w):
        A = ls.Chosen(EVERY, w)
        normal = A.normal
        return lr.solve(lambda v: normal(v) + 0.3 * v, A.H(y), 70)

    w = jnp.asarray(RNG.integers(0, 2, (1, N)), float)
    check_gradient(seen, w, scale=1.0, rtol=1e-5, directions=4)
    slope = jax.grad(lambda w: jnp.sum(jnp.abs(seen(w) - truth) ** 2))(w)
    assert np.all(slope[w == 0] < 0)


def test_greedy_takes_the_best_of_all_in_every_round():
    """Least squares of images whose best pattern every set of three, looked at, tells: of images
    without coils errors of lines add up. With coils they do not; each round is then looked at."""
    x = random(3, N, N) * jnp.asarray(np.linspace(0.2, 3.0, 3))[:, None, None]
    alone = Encoding.cartesian(jnp.ones((N, N)))

    def error(A):
        def loss(w):
            z = jax.vmap(lambda x: ls.Chosen(A, w).H(A(x)))(x)
            return jnp.sum(jnp.abs(z - x) ** 2)

        return loss

    loss = jax.jit(error(alone))
    found = ls.greedy(loss, np.zeros((1, N), bool), 3)
    sets = [np.isin(np.arange(N), c)[None] for c in combinations(range(N), 3)]
    values = [float(loss(jnp.asarray(s, float))) for s in sets]
    np.testing.assert_array_equal(found.pattern, sets[int(np.argmin(values))])
    assert found.losses[-1] == pytest.approx(min(values))
    loss = jax.jit(error(EVERY))
    found, taken = ls.greedy(loss, np.zeros((1, N), bool), 3, chunk=3), np.zeros((1, N))
    for i, value in zip(found.order, found.losses, strict=True):
        tried = [
            float(loss(jnp.asarray(taken + np.eye(N)[j]))) for j in range(N) if not taken[0, j]
        ]
        taken[0, i] = 1
        assert value == pytest.approx(min(tried)) == pytest.approx(float(loss(taken)))


def test_greedy_of_a_few_trials_and_several_at_once():
    cost = jnp.asarray(RNG.uniform(size=(4, 4)))
    start = np.zeros((4, 4), bool)
    start[2, 2] = True
    kept = {"trials": 6, "at_once": 2, "key": jax.random.key(0)}
    found = ls.greedy(lambda w: -jnp.sum(cost * w), start, 8, **kept)
    assert found.pattern.sum() == 8 and found.pattern[2, 2] and len(set(found.order)) == 7
    assert len(found.losses) == 4


def test_a_pattern_and_its_network_learn_together():
    """Of images that vary in two lines only, these are found."""
    lines = np.zeros((1, 16))
    lines[0, [3, 12]] = 1
    every = Encoding.cartesian(jnp.ones((1, 16)), jnp.ones((1, 16, 16)) + 0j)

    class Back(nnx.Module):
        def __call__(self, A, y):
            return A.H(y)

    def data(key):
        y = jax.random.normal(key, (2, 1, 16, 16)) * lines[None, None] + 0j
        A = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (2, *leaf.shape)), every)
        x = jax.vmap(lambda A, y: A.H(y))(A, y)
        return lr.Scan(A, y, x, jnp.ones(2))

    joint = ls.Joint(ls.Relaxed((1, 16), 5, centre=0.05, key=jax.random.key(0)), Back())
    made = train(joint, ls.joint_loss, data, optax.adam(0.1), 60, key=jax.random.key(1))
    assert np.all(made.net.sampling.pattern()[lines > 0])
    assert float(jnp.sum(made.net.sampling.chances())) == pytest.approx(5)


BAD = {
    "centre's": lambda: ls.variable_density((1, 64), 2, jax.random.key(0)),
    "acceleration": lambda: ls.equispaced((8, 8), 65),
    "of a start of 3": lambda: ls.greedy(jnp.sum, np.eye(3, dtype=bool), 2),
    "trials are drawn": lambda: ls.greedy(jnp.sum, np.zeros((2, 2), bool), 2, trials=2),
}  # fmt: skip


@pytest.mark.parametrize("said", BAD)
def test_what_cannot_be_is_said(said):
    with pytest.raises(InputError, match=said):
        BAD[said]()
