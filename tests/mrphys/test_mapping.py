from dataclasses import replace
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jaxtyping import Array, Float
from scipy.optimize import least_squares

import mrphys as mr
from mrphys import InputError, mapping
from mrphys.information import cramer_rao
from mrphys.mapping import FunctionModel, fit
from mrphys.noise import complex_gaussian
from mrphys.tissue import Tissue
from tests.laws import check_gradient
from tests.mrphys.decay import Decay

ECHOES = Decay(0.012 * jnp.arange(1.0, 9.0), jnp.linspace(1.0, 2.0, 8))
INVERSION = mr.sequence.inversion_recovery([0.05, 0.2, 0.5, 1.0, 1.6, 2.5, 4.0], tr_s=6.0)
FREE = ("t2_s", "m0")


def tissue(voxels=2000, seed=0, **fields):
    rng = np.random.default_rng(seed)
    some = {
        "t1_s": rng.uniform(0.6, 2.0, voxels),
        "t2_s": rng.uniform(0.04, 0.12, voxels),
    }
    every: dict[str, Any] = some | {"m0": rng.uniform(0.8, 1.2, voxels)} | fields
    return Tissue(**every)


def noisy(theta, q, noise_sd, seed=0):
    return complex_gaussian(theta, mr.simulate(theta, q), noise_sd, jax.random.key(seed))


def pull(est, q, name):
    """(estimate - truth) / sd where there is one, and the share where there is not."""
    sd = np.asarray(getattr(est.sd, name))
    known = np.isfinite(sd) & (np.asarray(est.status) == mapping.CONVERGED)
    error = np.asarray(getattr(est.value, name) - getattr(q, name))
    return error[known] / sd[known], 1 - known.mean()


SPGR = mr.sequence.spoiled_gradient_echo(np.deg2rad([2, 4, 10, 18]), te_s=0.002, tr_s=0.012)
B1 = np.random.default_rng(1).uniform(0.8, 1.2, 2000)
MODELS = {
    "t2": (ECHOES, "t2_s", {}, False),
    "inversion recovery": (INVERSION, "t1_s", {}, True),
    "saturation recovery": (
        mr.sequence.saturation_recovery([0.1, 0.3, 0.7, 1.5, 3.0, 5.0], tr_s=6.0),
        "t1_s", {}, False),
    "variable flip angle": (SPGR, "t1_s", {"b1": B1}, True),
    "look-locker": (mr.sequence.look_locker(0.12, 0.1, 30), "t1_s", {}, True),
    "t2*": (mr.sequence.multi_echo_gradient_echo(np.arange(1, 7) * 0.012), "t2_s", {}, True),
    "adc": (mr.sequence.diffusion_weighted([0, 300, 700, 1000], 0.06), "adc_mm2_per_s",
            {"adc_mm2_per_s": np.linspace(0.6e-3, 2e-3, 2000)}, False),
}  # fmt: skip


def also(*names):
    return [pytest.param(name, marks=pytest.mark.long) for name in names]


@pytest.mark.core
@pytest.mark.parametrize(
    "model",
    [
        "t2",
        "inversion recovery",
        *also("variable flip angle", "t2*", "saturation recovery", "look-locker", "adc"),
    ],
)
def test_standard_deviations_are_calibrated(model):
    theta, name, fields, magnitudes = MODELS[model]
    q = tissue(**fields)
    noise_sd = float(jnp.abs(mr.simulate(theta, q)).max(axis=-1).mean()) / 50
    y = noisy(theta, q, noise_sd)
    known = replace(q, **{"m0": 1.0, name: getattr(q, name)[0]})
    est = fit(theta, jnp.abs(y) if magnitudes else y, (name, "m0"), noise_sd, known=known)
    for field in (name, "m0"):
        score, excluded = pull(est, q, field)
        assert excluded < 0.01
        assert abs(score.mean()) < 0.12
        assert abs(score.std() - 1) < 0.06
    np.testing.assert_allclose(jnp.sqrt(jnp.mean(est.residual**2)), noise_sd, rtol=0.03)


@pytest.mark.core
def test_noiseless_signals_are_inverted(rtol):
    q = tissue(50).broadcast()
    q = jax.tree.map(lambda value: value.reshape(5, 10), q)
    y = mr.simulate(INVERSION, q)
    for data in (y, jnp.abs(y), y * jnp.exp(0.7j)):
        est = fit(INVERSION, data, ("t1_s", "m0"), 1e-4)
        # Near a null even a little noise has its floor.
        exact = 1e-8 if jnp.iscomplexobj(data) else 1e-5
        np.testing.assert_allclose(est.value.t1_s, q.t1_s, rtol=rtol(exact, 2e-3))
        np.testing.assert_allclose(est.value.m0, q.m0, rtol=rtol(exact, 1e-3))
        assert (est.status == mapping.CONVERGED).all()
    np.testing.assert_allclose(est.phase_rad["m0"], 0.7, rtol=rtol(1e-8, 1e-3))


def test_it_is_the_optimum_that_scipy_finds_and_the_bound_that_cramer_rao_says():
    q = tissue()
    y = noisy(ECHOES, q, 0.05)
    est = fit(ECHOES, y, FREE, 0.05)
    gain = np.sqrt(ECHOES.averages)
    for i in range(3):

        def left(p, i=i):
            t2_s, re, im = p
            x = np.asarray(mr.simulate(ECHOES, Tissue(t1_s=1.0, t2_s=t2_s)))
            gap = gain * ((re + 1j * im) * x - y[i])
            return np.concatenate([gap.real, gap.imag])

        p = least_squares(left, [0.06, 1.0, 0.1], x_scale=[0.1, 1, 1], xtol=1e-12, gtol=1e-12).x
        np.testing.assert_allclose(est.value.t2_s[i], p[0], rtol=1e-5)
        np.testing.assert_allclose(est.value.m0[i], np.hypot(p[1], p[2]), rtol=1e-5)
    bound = cramer_rao(ECHOES, est.value, wrt=FREE, noise_sd=0.05)
    np.testing.assert_allclose(est.sd.t2_s, bound["t2_s"], rtol=1e-6)
    np.testing.assert_allclose(est.sd.m0, bound["m0"], rtol=1e-6)


@pytest.mark.parametrize(
    "kind", ["rician", *also("complex", "gaussian magnitude", "noise unknown")]
)
def test_derivatives_are_those_of_the_optimum(kind):
    theta = mr.sequence.look_locker(0.2, 0.3, 8)

    def flips(theta):
        return theta.blocks[1].flip_rad

    y = noisy(theta, tissue(2, seed=3), 0.04)
    noise = None if kind == "noise unknown" else jnp.asarray(0.04)

    def f(p):
        x = p["re"] + 1j * p["im"]
        est = fit(
            eqx.tree_at(lambda t: t.blocks[1].flip_rad, theta, p["flip"]),  # pyright: ignore
            x if kind == "complex" else jnp.abs(x),
            ("t1_s", "m0"),
            p.get("noise"),
            known=Tissue(t1_s=1.0, t2_s=0.08, b1=p["b1"]),
            rician={"complex": None, "rician": True}.get(kind, False),
        )
        return est.value.t1_s, est.value.m0, est.sd.t1_s, est.residual

    p = {"re": y.real, "im": y.imag, "flip": flips(theta), "b1": jnp.array([0.9, 1.1])}
    p = p if noise is None else p | {"noise": noise}
    check_gradient(f, p, scale=0.1, rtol=1e-6, atol=1e-7, directions=6)


def test_magnitudes_know_their_noise_floor():
    q = tissue(t2_s=0.03, m0=1.0)
    y = jnp.abs(noisy(ECHOES, q, 0.15))
    aware = fit(ECHOES, y, FREE, 0.15)
    naive = fit(ECHOES, y, FREE, 0.15, rician=False)
    score, excluded = pull(aware, q, "t2_s")
    assert excluded < 0.03 and abs(score.std() - 1) < 0.12
    assert abs(np.median(aware.value.t2_s) / 0.03 - 1) < 0.02
    assert np.median(naive.value.t2_s) / 0.03 - 1 > 0.1


def test_noise_is_estimated_for_its_degrees_of_freedom():
    q = tissue()
    y = noisy(ECHOES, q, 0.02)
    for data, kind in ((y, None), (jnp.abs(y), True)):
        est = fit(ECHOES, data, FREE, rician=kind)
        np.testing.assert_allclose(jnp.sqrt(jnp.mean(est.noise_sd**2)), 0.02, rtol=0.02)
        np.testing.assert_array_equal(est.noise_sd > 0, True)


def test_stimulated_echoes_tell_the_transmit_field():
    theta = mr.sequence.spin_echo_train(np.full(16, 2.6), 0.01)
    q = tissue(1000, b1=np.random.default_rng(2).uniform(0.6, 0.9, 1000))
    est = fit(theta, noisy(theta, q, 0.02), ("t2_s", "b1", "m0"), 0.02,
              known=Tissue(t1_s=q.t1_s, t2_s=0.1), bounds={"b1": (0.4, 1.15)})  # fmt: skip
    for field in ("t2_s", "b1"):
        score, excluded = pull(est, q, field)
        assert excluded < 0.05 and abs(score.std() - 1) < 0.07


def test_several_scans_share_the_tissue():
    q = tissue()
    scans = (ECHOES, INVERSION)
    y = [noisy(scan, q, 0.02, i) for i, scan in enumerate(scans)]
    est = fit(scans, y, ("t1_s", "t2_s", "m0"), 0.02)
    alone = fit(ECHOES, y[0], FREE, 0.02)
    for field in ("t1_s", "t2_s", "m0"):
        score, excluded = pull(est, q, field)
        assert excluded == 0 and abs(score.std() - 1) < 0.1
    assert (est.sd.m0 < alone.sd.m0).all()


class Uptake(eqx.Module):
    plasma: Float[Array, "..."]
    transfer_per_s: Float[Array, "..."]
    washout_per_s: Float[Array, "..."]


def uptake(q):
    t = jnp.arange(0.0, 300, 10)
    input = jnp.exp(-t / 60)
    kernel = (jnp.exp(-t / 60) - jnp.exp(-q.washout_per_s * t)) / (q.washout_per_s - 1 / 60)
    return q.plasma * input + q.transfer_per_s * kernel


def test_any_function_with_two_amplitudes():
    rng = np.random.default_rng(0)
    q = Uptake(
        *(jnp.asarray(rng.uniform(*r, 2000)) for r in ((0.05, 0.1), (0.002, 0.004), (4e-3, 9e-3)))
    )
    model = FunctionModel(uptake, jnp.ones(30))
    y = jax.vmap(uptake)(q) + 2e-3 * rng.normal(size=(2000, 30))
    names = ("plasma", "transfer_per_s", "washout_per_s")
    est = fit(model, y, names, 2e-3, known=Uptake(*[jnp.zeros(())] * 3), linear=names[:2],
              bounds={"washout_per_s": (1e-3, 5e-2)})  # fmt: skip
    for field in names:
        score, excluded = pull(est, q, field)
        assert excluded < 0.02 and abs(score.std() - 1) < 0.06


@pytest.mark.core
def test_a_voxel_says_what_became_of_it():
    q = tissue(6, m0=1.0)
    y = noisy(ECHOES, q, 0.01)
    y = y.at[1].set(0).at[3].set(1.0)
    mask = np.array([True, True, True, True, True, False])
    est = fit(ECHOES, y, ("t2_s", "t1_s", "m0"), 0.01, mask=mask)
    assert np.isinf(est.sd.t1_s).all()  # perfect refocusing knows nothing of T1
    est = fit(ECHOES, y, FREE, 0.01, mask=mask)
    C = mapping.CONVERGED
    expected = [C, mapping.FAILED, C, mapping.AT_BOUNDARY, C, mapping.MASKED]
    np.testing.assert_array_equal(est.status, expected)
    assert np.isinf(est.sd.t2_s[jnp.array([1, 5])]).all() and est.value.t2_s[1] == 0
    assert np.isfinite(est.sd.t2_s[jnp.array([0, 2, 4])]).all()

    def loss(y, noise_sd):
        est = fit(ECHOES, y, FREE, noise_sd, mask=jnp.asarray(mask))
        return est.value.t2_s.sum() + (1 / est.sd.t2_s).sum() + est.residual.sum()

    broken = y.at[5].set(jnp.nan)
    for gradient in jax.jit(jax.grad(loss, (0, 1)))(broken, jnp.full(6, 0.01, y.real.dtype)):
        assert np.isfinite(gradient).all()


def test_masks_and_chunks_change_nothing():
    y = noisy(ECHOES, tissue(), 0.02)
    whole = fit(ECHOES, y, FREE, 0.02).value.t2_s
    mask = np.arange(2000) % 3 > 0
    part = fit(ECHOES, y, FREE, jnp.full(2000, 0.02), mask=mask, chunk=100).value.t2_s
    np.testing.assert_allclose(part[mask], whole[mask], rtol=1e-7)
    assert (part[~mask] == 0).all()


def bad(**changes):
    y = jnp.ones((3, 8)) + 0j
    return {"theta": ECHOES, "x": y, "free": FREE, "noise_sd": 0.1} | changes


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (bad(x=jnp.ones((3, 8)).at[1, 2].set(jnp.nan)), "1 NaN.*mask"),
        (bad(x=jnp.ones((8, 3))), "last axis of 8 readouts"),
        (bad(x=-jnp.ones((3, 8))), "magnitude of -1.*complex"),
        (bad(mask=np.zeros(3, bool)), "no voxel"),
        (bad(mask=np.ones(4, bool)), "another image"),
        (bad(noise_sd=0.0), "noise_sd"),
        (bad(noise_sd=np.ones(4)), "another image"),
        (bad(free=("t2_ms",)), "'t2_ms'.*t1_s, t2_s"),
        (bad(free=("t2star_s",)), "infinite t2prime_s"),
        (bad(free=("t2_s", "t2_s")), "each once"),
        (bad(known=Tissue(t1_s=np.ones(4), t2_s=0.1)), "another image"),
        (bad(free=("t2_s",), bounds={"t2_s": (0.1, 0.01)}), "low < high"),
        (bad(theta=mr.sequence.spin_echo(0.02), x=jnp.ones((3, 1))), "too many fields free"),
        (bad(theta=[ECHOES, ECHOES]), "one array for each"),
        (bad(rician=True), "magnitudes"),
        (bad(x=-np.ones((3, ECHOES.averages.size), int)), "a magnitude of -1"),
    ],
)  # fmt: skip
def test_bad_input_is_refused(call, says):
    with pytest.raises(InputError, match=says):
        fit(**call)


@pytest.mark.parametrize("kind", ["complex", *also("magnitude")])
def test_readouts_that_do_not_count_are_as_good_as_none(kind):
    q = tissue(40)
    y = noisy(ECHOES, q, 0.02)
    y = y if kind == "complex" else jnp.abs(y)
    fewer = Decay(ECHOES.te_s[1:6], ECHOES.averages[1:6])
    used = np.zeros(y.shape, bool)
    used[:20, 1:6] = used[21:, :] = True
    used[20, 0] = True
    spoiled = jnp.where(used, y, jnp.nan)
    for noise_sd in (0.02, None):
        est = fit(ECHOES, spoiled, FREE, noise_sd, mask=used)
        few = fit(fewer, y[:20, 1:6], FREE, noise_sd)
        all_of = fit(ECHOES, y[21:], FREE, noise_sd)
        for part, other in ((slice(20), few), (slice(21, None), all_of)):
            for a, b in ((est.value, other.value), (est.sd, other.sd)):
                np.testing.assert_allclose(a.t2_s[part], b.t2_s, rtol=1e-5)
                np.testing.assert_allclose(a.m0[part], b.m0, rtol=1e-5)
            np.testing.assert_allclose(est.residual[part], other.residual, rtol=1e-5)
        assert est.status[20] in (mapping.FAILED, mapping.ILL_DETERMINED, mapping.AT_BOUNDARY)
        assert np.isinf(est.sd.t2_s[20])
