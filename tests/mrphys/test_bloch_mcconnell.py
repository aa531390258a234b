"""Pools under sampled pulses against the equation integrated, separate tissues, Z spectra and
extended phase graphs."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.linalg import expm

import mrphys as mr
from mrphys.bloch import bloch
from mrphys.errors import InputError
from mrphys.exchange import Pool, SemiSolid, exponential
from mrphys.sequence import cest_saturation
from mrphys.waveform import Waveform
from tests.laws import check_gradient

FAT = Pool(fraction=0.3, exchange_rate_hz=0.0, shift_hz=-440.0, t1_s=0.3, t2_s=0.05)
AGENT = Pool(fraction=0.2, exchange_rate_hz=60.0, shift_hz=150.0, t1_s=0.8, t2_s=0.03)
BOUND = SemiSolid(fraction=0.12, exchange_rate_hz=30.0, t1_s=0.9, t2_s=1e-5)
RNG = np.random.default_rng(0)
SAMPLES = 6
B1 = (RNG.normal(size=SAMPLES) + 1j * RNG.normal(size=SAMPLES)) * 150 * (np.arange(SAMPLES) != 2)
GRADIENT = RNG.normal(size=(SAMPLES, 3)) * 30
PLACE = RNG.normal(size=(2, 3)) * 3
B0 = np.array([-20.0, 35.0])


@pytest.mark.core
@pytest.mark.parametrize("n", [3, 8])
def test_exponentials_of_larger_matrices(n, rtol):
    """Whatever their size: the largest of a batch says how often all are squared."""
    a = np.random.default_rng(n).normal(size=(n, n, 3)) - 3 * np.eye(n)[..., None]
    for scale in (1e-3, 1.0, 30.0):
        found = np.asarray(exponential(jnp.asarray(scale * a)))
        for i in range(3):
            expected = expm(scale * a[..., i])
            size = np.abs(expected).max()
            error = np.abs(found[..., i] - expected).max() / max(size, 1.0)
            assert error < rtol(1e-13, 1e-5) * max(1, 10 * scale)


def test_the_equation_integrated():
    q = mr.Tissue(t1_s=1.1, t2_s=0.07, b0_hz=B0, b1=0.9, m0=0.8, pools=(AGENT,), semisolid=BOUND)
    dt = np.array([1.0, 2.0, 3.0, 1.0, 0.5, 2.0]) * 1e-3
    found = bloch(Waveform(dt, B1, GRADIENT), q, PLACE, pools=True)
    for v in range(2):
        m = np.array([0, 0, 0.8, 0, 0, 0.16, 0.096])
        for i in range(SAMPLES):
            b = 2 * np.pi * 0.9 * np.array([B1[i].real, B1[i].imag])
            offset = B0[v] + GRADIENT[i] @ PLACE[v]
            rate = np.pi * (b @ b) * float(BOUND.absorption_s(jnp.asarray(offset)))

            def slope(_, m, b=b, offset=offset, rate=rate):
                water, agent, bound = m[:3], m[3:6], m[6]
                to_agent, to_bound = 60 * (0.2 * water - agent), 30 * (0.12 * water[2] - bound)
                z = 2 * np.pi * offset
                change = np.cross(water, [*b, z]) - water / [0.07, 0.07, 1.1] - to_agent
                change += [0, 0, 0.8 / 1.1 - to_bound]
                other = np.cross(agent, [*b, z + 2 * np.pi * 150]) - agent / [0.03, 0.03, 0.8]
                other += to_agent
                other[2] += 0.16 / 0.8
                return [*change, *other, to_bound - rate * bound + (0.096 - bound) / 0.9]

            m = solve_ivp(slope, (0, dt[i]), m, rtol=1e-9, atol=1e-11).y[:, -1]
        np.testing.assert_allclose(found[v], m, atol=2e-8)


@pytest.mark.core
def test_samples_alike_or_without_a_field_are_as_any_other(rtol):
    b1 = np.repeat([0, 200 + 30j, 0, 90j], 3)
    gradient = np.repeat([[20.0, 0, 0], [0, 0, 0]], 6, axis=0)
    q = mr.Tissue(t1_s=1.1, t2_s=0.07, b0_hz=B0, pools=(AGENT,), semisolid=BOUND)
    call = partial(bloch, q=q, position_mm=PLACE, record="all", pools=True)
    waveform = Waveform(1e-3, b1, gradient)
    np.testing.assert_allclose(call(waveform), jax.jit(call)(waveform), atol=rtol(1e-12, 2e-6))
    first, second = (Waveform(1e-3, b1[i : i + 6], gradient[i : i + 6]) for i in (0, 6))
    middle = bloch(first, q, PLACE, pools=True)
    after = bloch(second, q, PLACE, start=middle, pools=True)
    np.testing.assert_allclose(after, call(waveform)[:, -1], atol=rtol(1e-12, 2e-6))


def test_a_pool_that_does_not_exchange_is_a_tissue_of_its_own():
    """Chemical shift: fat beside water is the sum of both scanned apart."""
    both = mr.Tissue(t1_s=1.1, t2_s=0.07, b0_hz=B0, m0=2.0, pools=(FAT,))
    water = mr.Tissue(t1_s=1.1, t2_s=0.07, b0_hz=B0, m0=2.0)
    fat = mr.Tissue(t1_s=0.3, t2_s=0.05, b0_hz=B0 - 440.0, m0=0.6)
    waveform = Waveform(2e-5, np.repeat(B1, 16), np.repeat(GRADIENT, 16, axis=0))
    start = np.array([[0.0, 0.3, 1.0], [0.5, 0.0, 0.2]])
    found = bloch(waveform, both, PLACE, start=start, record="all")
    parts = [
        bloch(waveform, q, PLACE, start=share * start, record="all")
        for q, share in ((water, 1 / 1.3), (fat, 0.3 / 1.3))
    ]
    np.testing.assert_allclose(found, parts[0] + parts[1], atol=3e-6)


def test_a_carrier_off_resonance():
    """As its samples turned one by one, and for pools as the saturation of a Z spectrum."""
    n, f = 4000, 300.0
    q = mr.Tissue(t1_s=0.5, t2_s=0.02, b0_hz=B0)
    turned = 80 * np.exp(-2j * np.pi * f * (np.arange(n) + 0.5) * 1e-5)
    carried = Waveform(1e-5, np.full(n, 80.0 + 0j), frequency_hz=f)
    for record in ("end", "all"):
        found, expected = (
            bloch(waveform, q, record=record) for waveform in (carried, Waveform(1e-5, turned))
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)
    q = mr.Tissue(t1_s=1.2, t2_s=0.07, b0_hz=9.0, pools=(AGENT,), semisolid=BOUND)
    long = Waveform(0.1, np.full(5, 70.0 + 0j), frequency_hz=150.0)
    expected = mr.simulate(cest_saturation([150.0], 70.0, 0.5), q).imag
    np.testing.assert_allclose(bloch(long, q, pools=True)[0, 2], expected[0], atol=1e-9)


def test_derivatives_in_everything_also_without_field_and_exchange():
    """The second voxel sees no field, is on resonance and hardly exchanges."""

    def end(p):
        agent = Pool(p["fraction"], p["rate"], p["shift"], p["pool_t1"], p["pool_t2"])
        bound = SemiSolid(p["bound"], p["bound_rate"], lineshape="gaussian")
        q = mr.Tissue(
            t1_s=p["t1"], t2_s=p["t2"], b0_hz=p["b0"], b1=p["b1"], pools=(agent,), semisolid=bound
        )
        waveform = Waveform(p["dt"], p["re"] + 1j * p["im"], p["gradient"])
        return bloch(waveform, q, p["place"], start=p["start"])

    p = {
        "fraction": 0.2, "rate": np.array([40.0, 1e-3]), "shift": 120.0, "pool_t1": 0.8,
        "pool_t2": 0.03, "bound": 0.1, "bound_rate": 20.0, "t1": 1.0, "t2": 0.06,
        "b0": np.array([35.0, 0.0]), "b1": np.array([0.9, 0.0]), "dt": 1e-3,
        "re": B1.real[1:4], "im": B1.imag[1:4], "gradient": GRADIENT[1:4] * [[1], [0], [1]],
        "place": PLACE * [[1], [0]], "start": np.array([[0.1, 0.3, 0.9], [0.0, 0.2, 0.5]]),
    }  # fmt: skip
    check_gradient(end, p, scale=scaled(p), rtol=1e-5, directions=3)


def scaled(p):
    """Sizes over which things vary, also where they are zero."""
    sizes = {"b0": 30.0, "b1": 1.0, "re": 30.0, "im": 30.0, "gradient": 30.0, "start": 1.0}
    sizes |= {"place": 1.0, "rate": 1e-3}
    return {name: 0 * np.asarray(v) + sizes.get(name, np.abs(v)) for name, v in p.items()}


def test_the_shape_of_a_start():
    q = mr.Tissue(t1_s=1.0, t2_s=0.1, pools=(AGENT,), semisolid=BOUND)
    with pytest.raises(InputError, match=r"shape \(1, 7\)"):
        bloch(Waveform(1e-3, np.zeros(2, complex)), q, start=np.zeros((1, 4)))
