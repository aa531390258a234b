"""T1 of prepared sequences by `mr.fit`, against the formulas that are used elsewhere."""

from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float

import mrphys as mr
from mrphys import InputError, mapping
from mrphys.mapping import FunctionModel, Selected, fit
from mrphys.noise import complex_gaussian
from mrphys.tissue import Tissue

FREE = ("t1_s", "m0")
VOXELS = 1000


def tissue(voxels=VOXELS, low_s=0.7, high_s=1.8, **fields):
    rng = np.random.default_rng(0)
    t1, m0 = rng.uniform(low_s, high_s, voxels), rng.uniform(0.8, 1.2, voxels)
    return Tissue(t1_s=t1, m0=m0, **({"t2_s": 0.06} | fields))


def scores(est, q):
    good = np.asarray(est.status) == mapping.CONVERGED
    assert good.mean() > 0.97
    return np.asarray((est.value.t1_s - q.t1_s) / est.sd.t1_s)[good]


class Recovery(eqx.Module):
    """S(t) = a - b exp(-t / T1*)."""

    a: Float[Array, "..."]
    b: Float[Array, "..."]
    t1star_s: Float[Array, "..."]


def recovery(time_s, x):
    """Three parameters of a recovery whose sign is known."""
    time = jnp.asarray(time_s)
    model = FunctionModel(lambda p: p.a - p.b * jnp.exp(-time / p.t1star_s), jnp.ones(time.size))
    return fit(model, x, ("a", "b", "t1star_s"), 1e-3, known=Recovery(*[jnp.ones(())] * 3),
               linear=("a", "b"), bounds={"t1star_s": (0.05, 10.0)}).value  # fmt: skip


@pytest.mark.long
def test_mp2rage_is_fitted_from_both_images_and_agrees_with_the_lookup_of_their_combination():
    trains = mr.sequence.mp2rage([0.7, 2.5], [0.07, 0.09], 0.006, readouts=32, tr_s=5.0)
    theta = Selected(trains, (16, 48))
    b1 = np.full(VOXELS, 0.9)
    q = tissue(b1=b1)
    x = mr.simulate(trains, q)[:, [16, 48]]
    noise = jax.random.normal(jax.random.key(0), (2, *x.shape))
    y = x * jnp.exp(0.4j) + 2e-4 * (noise[0] + 1j * noise[1])
    known = Tissue(t1_s=1.0, t2_s=0.06, b1=b1)

    def combined(x):
        one, two = x[..., 0], x[..., 1]
        return np.real(np.conj(one) * two) / (np.abs(one) ** 2 + np.abs(two) ** 2)

    t1 = np.linspace(0.3, 4.0, 400)
    table = combined(mr.simulate(trains, Tissue(t1_s=t1, t2_s=0.06, b1=0.9))[:, [16, 48]])
    falls = np.diff(table) < 0
    end = np.argmin(falls) if not falls.all() else t1.size - 1
    looked_up = np.interp(combined(y), table[: end + 1][::-1], t1[: end + 1][::-1])
    est = fit(theta, y, FREE, 2e-4, known=known)
    z = scores(est, q)
    assert abs(z.std() - 1) < 0.08 and abs(z.mean()) < 0.1
    # Three real numbers from four: the combination loses little.
    np.testing.assert_allclose(np.median(np.abs(looked_up / est.value.t1_s - 1)), 0.0, atol=0.01)
    exact = fit(theta, x, FREE, 1e-5, known=known)
    np.testing.assert_allclose(exact.value.t1_s, q.t1_s, rtol=1e-6)
    np.testing.assert_allclose(np.interp(combined(x), table[: end + 1][::-1], t1[: end + 1][::-1]),
                               q.t1_s, rtol=1e-3)  # fmt: skip


def test_look_locker_is_what_the_correction_of_t1_star_finds():
    flip, tr = 0.15, 0.08
    theta = mr.sequence.look_locker(flip, tr, 40)
    q = tissue(50)
    x = mr.simulate(theta, q)
    star = recovery(tr * np.arange(40), x.imag).t1star_s
    corrected = 1 / (1 / star + np.log(np.cos(flip)) / tr)
    np.testing.assert_allclose(corrected, q.t1_s, rtol=1e-4)
    found = fit(theta, jnp.abs(x), FREE, 1e-4).value.t1_s
    np.testing.assert_allclose(found, corrected, rtol=1e-3)


@pytest.mark.long
def test_molli_is_fitted_where_the_look_locker_correction_is_biased():
    theta = mr.sequence.molli(pulses=12)
    q = tissue(200, t2_s=0.05)
    known = Tissue(t1_s=1.0, t2_s=0.05)
    x = mr.simulate(theta, q)
    exact = fit(theta, jnp.abs(x), FREE, 1e-4, known=known)
    np.testing.assert_allclose(exact.value.t1_s, q.t1_s, rtol=1e-3)
    y = jnp.abs(complex_gaussian(theta, x, 0.005, jax.random.key(0)))
    z = scores(fit(theta, y, FREE, 0.005, known=known), q)
    assert abs(z.std() - 1) < 0.15 and abs(z.mean()) < 0.25
    time = np.concatenate([0.1 + np.arange(5), 0.18 + np.arange(3)])
    p = recovery(time, x.imag)
    usual = p.t1star_s * (p.b / p.a - 1)
    assert np.median(usual / q.t1_s - 1) < -0.01


@pytest.mark.long
def test_the_polarity_of_magnitudes_is_found_even_at_the_null():
    ti = [0.05, 0.2, 0.5, 1.0, 1.6, 2.5, 4.0]
    theta = mr.sequence.inversion_recovery(ti, tr_s=8.0)
    null = replace(tissue(), t1_s=np.full(VOXELS, 1.0 / np.log(2)))
    for q in (tissue(), null):
        x = mr.simulate(theta, q)
        y = complex_gaussian(theta, x, 0.02, jax.random.key(0))
        z = scores(fit(theta, jnp.abs(y), FREE, 0.02), q)
        assert abs(z.std() - 1) < 0.08 and abs(z.mean()) < 0.1


def test_readouts_that_are_not_there_are_refused():
    theta = mr.sequence.look_locker(0.1, 0.1, 4)
    for readouts in ((), (4,), (-1,)):
        with pytest.raises(InputError, match="of 0 to 3"):
            Selected(theta, readouts)
