from dataclasses import replace
from functools import partial
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import mrphys as mr
from learn import learn_mapping, read_mapping, write_mapping
from learn.mapping import OUTSIDE_PRIOR
from mrphys import InputError
from mrphys.mapping import CONVERGED, FAILED, ILL_DETERMINED, MASKED, FunctionModel
from mrphys.tissue import Tissue
from tests.laws import check_gradient

KEY = jax.random.key(0)
small = partial(learn_mapping, width=32, depth=1, batch=256, every=200, learning_rate=1e-2, key=KEY)


class Echoes(mr.sequence.Sequence):
    """m0 (1 - exp(-TR / T1)) exp(-TE / T2)."""

    te_s: Float[Array, " readouts"]
    averages: Float[Array, " readouts"]

    def signal(self, tissue):
        x = tissue.m0 * (1 - jnp.exp(-1.0 / tissue.t1_s)) * jnp.exp(-self.te_s / tissue.t2_s)
        return jax.lax.complex(x, jnp.zeros_like(x))

    @property
    def scan_time_s(self):
        return jnp.max(self.te_s)


ECHOES = Echoes(0.02 * jnp.arange(1.0, 7.0), jnp.array([1.0, 1.0, 1.0, 2.0, 2.0, 2.0]))
FREE = ("t2_s", "m0")
PRIOR = {"t2_s": (0.03, 0.2), "t1_s": (0.5, 2.0)}


def tissue(voxels=4000):
    rng = np.random.default_rng(0)
    t2_s, t1_s = rng.uniform(0.05, 0.12, voxels), rng.uniform(0.6, 1.8, voxels)
    return Tissue(t1_s=t1_s, t2_s=t2_s, m0=rng.uniform(100.0, 300.0, voxels))


def noisy(theta, q, snr, turn=0.0):
    """The signal, turned, with its noise, a share of m0."""
    rng, sd = np.random.default_rng(1), np.array(q.m0 / snr)
    x = np.asarray(mr.simulate(theta, q)) * np.exp(1j * turn)
    noise = rng.standard_normal((2, *x.shape)) * sd[..., None] / np.sqrt(theta.averages)
    return x + noise[0] + 1j * noise[1], sd


@pytest.fixture(scope="module")
def learned():
    return small(ECHOES, PRIOR, (0.002, 0.05), FREE, given=("t1_s",), steps=1000)


def pull(est, q, name):
    value, sd, truth = (np.asarray(getattr(one, name)) for one in (est.value, est.sd, q))
    return (value - truth) / truth, (value - truth) / sd


@pytest.mark.parametrize("snr", [150.0, 40.0])
def test_it_errs_as_the_fit_does_and_knows_how_much(learned, snr):
    q = tissue()
    x, sd = noisy(ECHOES, q, snr, turn=2.0)
    est = learned(x, sd, known=q)
    fitted = mr.fit(ECHOES, x, FREE, noise_sd=sd, known=q, start=est.value)
    assert np.mean(np.asarray(est.status) == CONVERGED) > 0.995
    for name in FREE:
        error, z = pull(est, q, name)
        least = np.asarray(getattr(fitted.sd, name) / getattr(q, name))  # Cramér and Rao's
        assert abs(np.median(error)) < 0.2 * np.median(least)
        assert np.sqrt(np.mean((error / least) ** 2)) < 1.1
        assert 0.8 < np.std(z) < 1.2
        together = np.corrcoef(error, pull(fitted, q, name)[0])[0, 1]
        assert together > 0.97
    # T2 and m0 err against each other, and the covariance says how much
    errors = np.stack([pull(est, q, name)[1] for name in FREE])
    sds = np.sqrt(np.asarray(jnp.diagonal(est.covariance, axis1=1, axis2=2)))
    said = np.median(np.asarray(est.covariance)[:, 0, 1] / sds[:, 0] / sds[:, 1])
    assert np.asarray(np.corrcoef(errors))[0, 1] == pytest.approx(said, abs=0.05)
    phase = np.angle(np.exp(1j * (np.asarray(est.phase_rad["m0"]) - 2.0)))
    assert np.abs(np.mean(phase)) < 1e-3
    assert np.sqrt(np.mean(np.asarray(est.residual / sd) ** 2)) == pytest.approx(1, abs=0.05)


def test_a_linear_model_of_a_normal_prior_gives_the_exact_posterior():
    class Plane(eqx.Module):
        a: Float[Array, "..."]
        b: Float[Array, "..."]
        faint: Float[Array, "..."]

    matrix = jnp.array([[1.0, 0.5, 0.1], [0.3, -1.0, 0.1], [0.7, 0.7, -0.2], [-0.4, 0.6, 0.0]])
    theta = FunctionModel(lambda p: matrix @ jnp.stack([p.a, p.b, p.faint]), averages=jnp.ones(4))

    def prior(key, voxels):
        return Plane(*jax.random.normal(key, (3, voxels)))

    free, far = ("a", "b", "faint"), (-1000.0, 1000.0)  # the logistic coordinate is then straight
    made = small(
        theta, prior, 0.8, free, known=Plane(*[jnp.zeros(())] * 3), linear=(),
        bounds=dict.fromkeys(free, far), steps=600, width=8,
    )  # fmt: skip
    rng = np.random.default_rng(0)
    x = rng.standard_normal((500, 3)) @ np.asarray(matrix.T) + 0.8 * rng.standard_normal((500, 4))
    est = made(x, 0.8)
    exact = np.linalg.inv(np.asarray(matrix.T @ matrix) / 0.8**2 + np.eye(3))
    mean = x @ np.asarray(matrix) / 0.8**2 @ exact
    sd = np.sqrt(np.diag(exact))
    off = (np.stack([getattr(est.value, name) for name in free], axis=1) - mean) / sd
    assert np.sqrt(np.mean(off**2)) < 0.06
    scaled = np.asarray(est.covariance) / sd[:, None] / sd[None, :]
    expected = np.broadcast_to(exact / sd[:, None] / sd[None, :], scaled.shape)
    inside = np.asarray(est.status) == ILL_DETERMINED  # of the faint one data say nothing
    assert inside.mean() > 0.95
    np.testing.assert_allclose(scaled[inside], expected[inside], atol=0.15)
    np.testing.assert_allclose(np.mean(scaled[inside], axis=0), expected[0], atol=0.03)
    # no network of such data does better: the entropy of the posterior is the least loss
    entropy = np.log(np.linalg.det(2 * np.pi * np.e * exact)) / 2
    units = jnp.log(made.frame.coordinates.sd * 500.0)  # of u, where p = 500 u
    assert min(made.evaluations.values()) + np.sum(units) == pytest.approx(entropy, abs=0.03)


@pytest.mark.long
def test_magnitudes_are_learned_with_their_noise_floor():
    theta = replace(ECHOES, te_s=0.03 * jnp.arange(1.0, 7.0), averages=jnp.ones(6))
    made = small(theta, {"t2_s": (0.02, 0.2)}, (0.005, 0.02), FREE, data="magnitude", steps=1000)
    q = Tissue(t1_s=1.0, t2_s=0.04, m0=np.ones(4000))
    x, sd = noisy(theta, q, 80.0)  # the last echoes are noise
    est = made(np.abs(x), sd)
    error, z = pull(est, q, "t2_s")
    assert abs(np.median(error)) < 0.3 * np.std(error)
    assert 0.85 < np.std(z) < 1.15
    assert np.mean(np.asarray(est.status) == CONVERGED) > 0.99


def test_a_signal_of_any_size_phase_and_shape_is_mapped(learned):
    q = tissue(8)
    x, sd = noisy(ECHOES, q, 100.0)
    est = learned(x, sd, known=q)
    turned = learned(1e-3j * x, 1e-3 * sd, known=q)
    np.testing.assert_allclose(turned.value.t2_s, est.value.t2_s, 1e-10)
    np.testing.assert_allclose(turned.value.m0, 1e-3 * est.value.m0, 1e-10)
    np.testing.assert_allclose(turned.sd.m0, 1e-3 * est.sd.m0, 1e-10)
    square = jax.tree.map(
        lambda leaf: leaf.reshape(2, 4), replace(q, adc_mm2_per_s=0 * q.m0).broadcast()
    )
    shaped = learned(x.reshape(2, 4, 6), sd.reshape(2, 4), known=square)
    np.testing.assert_allclose(shaped.value.t2_s.reshape(-1), est.value.t2_s, 1e-10)
    assert shaped.covariance.shape == (2, 4, 2, 2)
    np.testing.assert_allclose(est.sd.t2_s**2, est.covariance[:, 0, 0], 1e-10)


def test_voxels_unlike_the_prior_say_so(learned):
    t2_s = [0.08, 0.6, 0.004, 0.08, 0.08, 0.08, 0.08, 0.08]
    q = Tissue(t1_s=1.0, t2_s=t2_s, m0=np.full(8, 200.0))
    x, sd = noisy(ECHOES, q, 100.0)
    x[3], x[4] = 0, np.nan
    x[5, ::2] *= 1.3  # no decay
    sd[6:] = 1e-3, 2000.0
    est = learned(x, sd, known=q)
    strange = OUTSIDE_PRIOR
    expected = [CONVERGED, strange, strange, FAILED, FAILED, strange, strange, strange]
    assert est.status.tolist() == expected
    assert np.isfinite(est.sd.t2_s).tolist() == [status == CONVERGED for status in expected]
    assert est.value.m0[3] == 0
    other = learned(x, sd, known=replace(q, t1_s=4.0))
    assert other.status[0] == strange  # T1 was never 4 s
    masked = learned(x, sd, known=q, mask=np.arange(8) > 0)
    assert masked.status[0] == MASKED
    assert masked.value.t2_s[0] == 0
    assert masked.sd.t2_s[0] == np.inf


def test_gradients_of_estimate_and_sd(learned):
    q = tissue(2)
    x, sd = noisy(ECHOES, q, 60.0)

    def maps(parts, sd, t1_s):
        re, im = parts
        est = learned(jax.lax.complex(re, im), sd, known=replace(q, t1_s=t1_s))
        return est.value.t2_s, est.value.m0, est.sd.t2_s, est.covariance, est.residual

    check_gradient(lambda given: maps(*given), ((x.real, x.imag), sd, q.t1_s), rtol=1e-5)


def test_a_mapping_is_written_and_read(learned, tmp_path):
    write_mapping(tmp_path / "t2.h5", learned)
    again = read_mapping(tmp_path / "t2.h5", ECHOES)
    q = tissue(8)
    x, sd = noisy(ECHOES, q, 100.0)
    for one, other in zip(
        jax.tree.leaves(again(x, sd, known=q)),
        jax.tree.leaves(learned(x, sd, known=q)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert again.evaluations == learned.evaluations
    with pytest.raises(InputError, match="another protocol"):
        read_mapping(tmp_path / "t2.h5", replace(ECHOES, te_s=ECHOES.te_s * 1.1))
    with pytest.raises(InputError, match="another kind of q"):
        read_mapping(tmp_path / "t2.h5", ECHOES, known=FunctionModel(lambda q: q, jnp.ones(1)))
    mr.io.write_results(tmp_path / "other.h5", {"a": 1.0}, {}, {})
    with pytest.raises(InputError, match="write_mapping"):
        read_mapping(tmp_path / "other.h5", ECHOES)


BAD = {
    "no field": ({"free": ("t2", "m0")}, "'t2'.*a field of Tissue"),
    "no prior": ({"prior": {"t1_s": (0.5, 2.0)}}, "none of t2_s"),
    "prior out of order": ({"prior": PRIOR | {"t2_s": (0.2, 0.03)}}, "low < high"),
    "prior outside bounds": ({"bounds": {"t2_s": (0.05, 0.1)}}, "within"),
    "neither free nor given": ({"prior": PRIOR | {"b1": (0.8, 1.2)}}, "'b1'.*free or given"),
    "noise": ({"noise_sd": (0.0, 0.1)}, "noise_sd"),
    "no bounds": ({"free": ("t2prime_s", "m0"), "bounds": {"t2prime_s": (0.0, np.inf)}}, "finite"),
    "varies unsaid": (
        {"prior": lambda key, n: Tissue(t1_s=1.0, t2_s=jnp.linspace(0.03, 0.2, n)),
         "free": ("m0",), "given": ()}, "'t2_s'.*free or given"),
    "not linear": ({"linear": ("t2_s",)}, "double"),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_bad_question_is_refused(what):
    changed, message = BAD[what]
    given: Any = {"prior": PRIOR, "noise_sd": 0.02, "free": FREE, "given": ("t1_s",)} | changed
    if what == "not linear":
        given |= {"free": ("t2_s",), "prior": PRIOR, "linear": ("t2_s",)}
    with pytest.raises(InputError, match=message):
        learn_mapping(ECHOES, **given, steps=1, key=KEY)


def test_bad_data_are_refused(learned):
    q = tissue(3)
    x, sd = noisy(ECHOES, q, 100.0)
    for arguments, known, message in (
        ((x[:, :5], sd), q, "6 readouts"),
        ((np.abs(x), sd), q, "complex data, as learned"),
        ((x, sd[:2]), q, "another image"),
        ((x, sd), None, "no t1_s"),
        ((x, 0.0), q, "noise_sd"),
    ):
        with pytest.raises(InputError, match=message):
            learned(*arguments, known=known)
