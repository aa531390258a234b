import csv
from itertools import islice

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from learn.training import Diverged, train
from mrphys import InputError

KEY = jax.random.key(0)
ADAM = optax.adam(1e-2)


class Noisy(nnx.Module):
    """With all that a network carries: parameters, running statistics, a random stream."""

    def __init__(self, width=4):
        rngs, dtype = nnx.Rngs(0), jnp.float32  # as flax's running statistics
        self.hidden = nnx.Linear(1, width, dtype=dtype, rngs=rngs)
        self.norm = nnx.BatchNorm(width, dtype=dtype, rngs=rngs)
        self.drop = nnx.Dropout(0.2, rngs=rngs)
        self.out = nnx.Linear(width, 1, dtype=dtype, rngs=rngs)

    def __call__(self, x):
        return self.out(self.drop(nnx.tanh(self.norm(self.hidden(x)))))


@jax.jit
def sines(key):
    x = jax.random.uniform(key, (16, 1))
    return x, jnp.sin(3 * x)


def square(net, batch, key):
    x, y = batch
    return jnp.mean((net(x + 0.01 * jax.random.normal(key, x.shape)) - y) ** 2)


HELD_OUT = sines(jax.random.key(1))


@nnx.jit
def judge(net):
    net.eval()
    return square(net, HELD_OUT, KEY)


def evaluate(net):
    return float(judge(net))


def run(steps, **options):
    given = {"data": sines, "evaluate": evaluate, "every": 5, "key": KEY} | options
    return train(Noisy(), square, given.pop("data"), ADAM, steps, **given)


def numbers(net):
    leaves = jax.tree.leaves(nnx.state(net))
    keys = [jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) for leaf in leaves]
    return [
        np.array(jax.random.key_data(leaf) if key else leaf)  # a view would forbid donation
        for leaf, key in zip(leaves, keys, strict=True)
    ]


@pytest.mark.parametrize("data", ["function", "batches"])
def test_a_run_that_stops_and_resumes_is_the_run_that_does_not(tmp_path, data):
    batches = [sines(jax.random.key(i)) for i in range(7)]

    def given():
        return sines if data == "function" else iter(batches * 3)

    whole = run(20, data=given())
    seen = []
    first = run(10, data=given(), folder=tmp_path)
    resumed = run(20, data=given(), folder=tmp_path, progress=lambda *now: seen.append(now[:2]))
    assert seen == [(15, 20), (20, 20)]
    assert resumed.losses.tolist() == whole.losses.tolist()
    assert resumed.losses[:10].tolist() == first.losses.tolist()
    assert resumed.evaluations == whole.evaluations
    for one, other in zip(numbers(resumed.net), numbers(whole.net), strict=True):
        np.testing.assert_array_equal(one, other)
    # nothing is left to do, and nothing is done
    again = run(20, data=given(), folder=tmp_path, progress=lambda *now: pytest.fail())
    np.testing.assert_array_equal(numbers(again.net)[0], numbers(whole.net)[0])


def test_training_learns_and_leaves_the_network_it_was_given(tmp_path):
    net = Noisy()
    before = numbers(net)
    made = train(net, square, sines, ADAM, 100, key=KEY)
    assert np.mean(made.losses[-10:]) < 0.3 * np.mean(made.losses[:10])
    assert made.evaluations == {}
    for one, other in zip(numbers(net), before, strict=True):
        np.testing.assert_array_equal(one, other)
    # running statistics have moved too, without a gradient
    assert np.any(np.asarray(made.net.norm.mean[...]) != 0)


def test_the_lowest_evaluation_is_kept_also_after_resuming(tmp_path):
    told = iter([3.0, 1.0, 2.0, 4.0])
    nets = []

    def as_told(net):
        nets.append(numbers(net))
        return next(told)

    run(10, evaluate=as_told, folder=tmp_path)
    made = run(20, evaluate=as_told, folder=tmp_path)
    assert made.evaluations == {5: 3.0, 10: 1.0, 15: 2.0, 20: 4.0}
    for one, other in zip(numbers(made.net), nets[1], strict=True):
        np.testing.assert_array_equal(one, other)


def test_what_is_not_finite_stops_training_and_names_the_step(tmp_path):
    def broken(step, value):
        def data(key):
            # the 13th key is the only one of its kind
            bad = jnp.all(jax.random.key_data(key) == step)
            x, y = sines(key)
            return x, jnp.where(bad, value, y)

        return data

    thirteenth = jax.random.fold_in(jax.random.split(KEY)[0], 12)
    data = broken(jax.random.key_data(thirteenth), jnp.nan)
    with pytest.raises(Diverged, match=r"training step 12: the loss is nan.*hidden") as caught:
        run(20, data=data, folder=tmp_path)
    assert caught.value.step == 12
    # what was written before is sound, and training goes on from it
    assert run(20, folder=tmp_path).losses.tolist() == run(20).losses.tolist()


def test_a_gradient_that_is_not_finite_is_named_where_the_loss_is_finite():
    def edge(net, batch, key):
        return jnp.mean(jnp.sqrt(jnp.abs(net(batch) - jax.lax.stop_gradient(net(batch)))))

    net = nnx.Linear(1, 1, rngs=nnx.Rngs(0))
    with pytest.raises(Diverged, match=r"step 0: the loss is 0\.0, its gradient .*kernel"):
        train(net, edge, [jnp.ones((2, 1))], ADAM, 3, key=KEY)


def test_an_evaluation_that_is_not_finite_stops_training():
    with pytest.raises(Diverged, match="step 5: the evaluation after it is nan"):
        run(20, evaluate=lambda net: np.nan)


def test_one_compilation_serves_every_step_of_every_run():
    traced = []

    def counted(net, batch, key):
        traced.append(1)
        return square(net, batch, key)

    for steps in (3, 5):
        train(Noisy(), counted, sines, ADAM, steps, every=2, key=KEY)
    assert len(traced) == 1


def test_bad_input_is_said(tmp_path):
    run(5, folder=tmp_path)
    with pytest.raises(InputError, match="another key"):
        run(10, folder=tmp_path, key=jax.random.key(7))
    with pytest.raises(InputError, match=r"hidden.*found float32\[1, 4\]; expected float32\[1, 3"):
        train(Noisy(3), square, sines, ADAM, 10, folder=tmp_path, key=KEY)
    with pytest.raises(InputError, match="end at step 3"):
        run(5, data=islice([HELD_OUT] * 9, 3))
    with pytest.raises(InputError, match="no data"):
        run(5, data=[])
    with pytest.raises(InputError, match="steps"):
        run(0)


def test_training_stops_when_patience_ends_also_after_resuming(tmp_path):
    told = iter([3.0, 1.0, 2.0, 1.5, 0.5])
    options = {"evaluate": lambda net: next(told), "patience": 2, "folder": tmp_path}
    run(10, **options)
    made = run(50, **options)
    assert made.evaluations == {5: 3.0, 10: 1.0, 15: 2.0, 20: 1.5}
    assert run(50, **options).losses.size == 20


def test_a_log_has_a_row_for_each_evaluation_and_goes_on(tmp_path):
    def both(net):
        value = evaluate(net)
        return {"square": value, "root": value**0.5}

    log, folder = tmp_path / "log.csv", tmp_path / "checkpoints"
    run(10, evaluate=both, log=log, folder=folder)
    made = run(20, evaluate=both, log=log, folder=folder)
    with open(log, newline="") as file:
        rows = [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]
    assert [row["step"] for row in rows] == [5, 10, 15, 20]
    assert [row["square"] for row in rows] == list(made.evaluations.values())
    assert all(np.isclose(row["root"] ** 2, row["square"]) for row in rows)
    np.testing.assert_allclose([r["loss"] for r in rows], made.losses.reshape(4, 5).mean(1))
