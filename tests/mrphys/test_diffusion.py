import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mrphys import InputError
from mrphys.sequence import diffusion_weighted
from mrphys.simulate import simulate
from mrphys.tissue import Tissue
from tests.laws import check_gradient


def spin_echo_by_rotation(m0, t1, t2, b1, te, tr, repetitions=200):
    """Magnetisation followed through hard pulses, relaxation and crushers until it is steady."""

    def relax(mxy, mz, time):
        return mxy * np.exp(-time / t2), m0 + (mz - m0) * np.exp(-time / t1)

    excite, refocus, mz = b1 * np.pi / 2, b1 * np.pi, m0
    for _ in range(repetitions):
        mxy, mz = mz * np.sin(excite), mz * np.cos(excite)
        mxy, mz = relax(mxy, mz, te / 2)
        mxy, mz = mxy * np.sin(refocus / 2) ** 2, mz * np.cos(refocus)  # crushers keep the echo
        mxy, mz = relax(mxy, mz, te / 2)
        echo = mxy
        _, mz = relax(mxy, mz, tr - te)
    return echo


@pytest.mark.core
@pytest.mark.parametrize("b1", [1.0, 0.8, 1.15])
@pytest.mark.parametrize("tr", [0.4, 2.0, 8.0])
def test_steady_state_is_that_of_repeated_rotations(b1, tr, rtol):
    q = Tissue(t1_s=1.1, t2_s=0.07, m0=0.7, b1=b1)
    x = simulate(diffusion_weighted([0.0], te_s=0.09, tr_s=tr), q)
    expected = spin_echo_by_rotation(0.7, 1.1, 0.07, b1, 0.09, tr)
    np.testing.assert_allclose(x, [expected], rtol=rtol(1e-12, 1e-5))


@pytest.mark.core
def test_full_recovery_leaves_transverse_relaxation_and_diffusion(rtol):
    q = Tissue(t1_s=0.5, t2_s=0.08, m0=2.0, adc_mm2_per_s=1e-3, b0_hz=40.0)
    x = simulate(diffusion_weighted([0, 500, 1000], te_s=0.08, tr_s=30.0), q)
    expected = 2 * np.exp(-1) * np.exp([0, -0.5, -1])
    np.testing.assert_allclose(x, expected, rtol=rtol(1e-12, 1e-5))


@pytest.mark.core
@pytest.mark.parametrize("chunk", [None, 1, 5, 100])
def test_a_map_is_its_voxels_one_by_one(chunk, rtol):
    rng = np.random.default_rng(0)
    t1, adc = rng.uniform(0.5, 2, (3, 4)), rng.uniform(0, 3e-3, (3, 4))
    theta = diffusion_weighted([0, 700], te_s=0.08)
    x = jax.jit(lambda q: simulate(theta, q, chunk=chunk))(
        Tissue(t1_s=t1, t2_s=0.08, adc_mm2_per_s=adc)
    )
    for i, j in np.ndindex(3, 4):
        one = theta.signal(Tissue(t1_s=t1[i, j], t2_s=0.08, adc_mm2_per_s=adc[i, j]))
        np.testing.assert_allclose(x[i, j], one, rtol=rtol(1e-14, 1e-6))


def test_gradients_in_design_and_tissue():
    def f(p):
        theta = diffusion_weighted(p["b"], p["te"], p["tr"], p["averages"])
        q = Tissue(t1_s=p["t1"], t2_s=p["t2"], adc_mm2_per_s=p["adc"], b1=p["b1"], m0=p["m0"])
        return simulate(theta, q), theta.scan_time_s, theta.readout_sd(p["noise"])

    p = {
        "b": [100.0, 900.0], "te": 0.08, "tr": 2.0, "averages": [1.0, 2.5], "noise": 0.1,
        "t1": 1.0, "t2": 0.07, "adc": 9e-4, "b1": 0.9, "m0": 0.7,
    }  # fmt: skip
    check_gradient(f, jax.tree.map(jnp.asarray, p))


def test_attenuation_slope_is_minus_b():
    theta = diffusion_weighted([0.0, 800.0], te_s=0.08)

    def log_signal(adc):
        return jnp.log(simulate(theta, Tissue(t1_s=1.0, t2_s=0.08, adc_mm2_per_s=adc)).real)

    np.testing.assert_allclose(jax.jacfwd(log_signal)(1e-3), [0, -800], atol=1e-9)


@pytest.mark.parametrize(
    ("call", "cause"),
    [
        ({"b_s_per_mm2": [0.0, 1.0], "te_s": 0.08}, "ms/µm²"),
        ({"b_s_per_mm2": [0.0, 1000.0], "te_s": 80.0}, "milliseconds"),
        ({"b_s_per_mm2": [0.0, -5.0], "te_s": 0.08}, "sign"),
        ({"b_s_per_mm2": [0.0, 1000.0], "te_s": 0.08, "tr_s": 0.05}, "tr_s - te_s"),
        ({"b_s_per_mm2": [0.0, 1000.0], "te_s": 0.08, "averages": [1.0]}, "for each"),
        ({"b_s_per_mm2": [0.0, 1000.0], "te_s": 0.08, "averages": 0.0}, "averages"),
    ],
)
def test_impossible_acquisitions_are_refused(call, cause):
    with pytest.raises(InputError, match=cause):
        diffusion_weighted(**call)
