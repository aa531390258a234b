"""Exchanging pools: equilibrium, limits, the closed form of two pools, and Z spectra."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import integrate

import mrphys as mr
from mrphys import Pool, SemiSolid
from mrphys.errors import InputError
from mrphys.exchange import generator, propagate, steady
from mrphys.sequence import cest_saturation
from tests.laws import check_gradient

AMIDE = Pool(fraction=0.01, exchange_rate_hz=30.0, shift_hz=447.0, t1_s=0.9, t2_s=0.03)
SOLID = SemiSolid(fraction=0.12, exchange_rate_hz=25.0, t1_s=0.8)
WATER = tuple(jnp.asarray(v) for v in (1.0, 1.2, 0.07, 0.0))


def matrix(pools=(AMIDE,), solid=None, b1=0.0, offset=0.0, water=WATER):
    return generator(*water, pools, solid, jnp.asarray(b1), jnp.asarray(offset))


def test_equilibrium_stays():
    a, b = matrix(solid=SOLID)
    rest = jnp.array([0, 0, 1.0, 0, 0, 0.01, 0.12])
    np.testing.assert_allclose(a @ rest + b, 0, atol=1e-12)
    np.testing.assert_allclose(steady(a, b), rest, atol=1e-12)


def test_exchange_alone_moves_but_keeps_magnetisation():
    """Without relaxation and field the sum over pools of each component stays."""
    lasting = tuple(jnp.asarray(v) for v in (1.0, 1e9, 1e9, 0.0))
    pool = Pool(fraction=0.3, exchange_rate_hz=40.0, t1_s=20.0, t2_s=20.0)
    a, _ = matrix((pool,), water=lasting)
    a = a + jnp.diag(jnp.array([0, 0, 0, 1, 1, 1.0]) / 20)  # the pool's relaxation taken out
    m = jnp.array([0.2, -0.4, 0.5, 0.1, 0.3, -0.2])
    after = propagate(a, jnp.zeros(6), m, jnp.asarray(0.02)).reshape(2, 3)
    np.testing.assert_allclose(after.sum(axis=0), m.reshape(2, 3).sum(axis=0), atol=1e-9)
    # z relaxes towards its share with the sum of both rates
    share = 0.3 * np.exp(-40 * 1.3 * 0.02)
    start = 0.5 - 0.3 / 1.3
    assert float(after[0, 2]) == pytest.approx(0.3 / 1.3 + start * share / 0.3, abs=1e-6)


def test_without_exchange_a_pool_is_as_if_not_there():
    apart = Pool(fraction=0.2, exchange_rate_hz=0.0, shift_hz=100.0)
    alone = mr.Tissue(t1_s=1.2, t2_s=0.07, b0_hz=11.0)
    both = mr.Tissue(t1_s=1.2, t2_s=0.07, b0_hz=11.0, pools=(apart,))
    theta = cest_saturation(np.linspace(-300, 300, 7), 25.0, 0.3, pulses=3, gap_s=0.02)
    np.testing.assert_allclose(mr.simulate(theta, both), mr.simulate(theta, alone), atol=1e-9)


def test_one_pool_is_the_bloch_engine():
    samples = 2000
    pulse = mr.bloch.Waveform(0.05 / samples, np.full(samples, 40.0 + 0j))
    q = mr.Tissue(t1_s=0.5, t2_s=0.05, b0_hz=np.array([0.0, 60.0]))
    expected = mr.bloch.bloch(pulse, q)[:, 2]
    for b0, mz in zip((0.0, 60.0), expected, strict=True):
        still = mr.Tissue(t1_s=0.5, t2_s=0.05, b0_hz=b0)
        found = mr.simulate(cest_saturation([0.0], 40.0, 0.05), still)
        assert complex(found[0]) == pytest.approx(1j * float(mz), abs=1e-5)


def test_two_pools_of_magnetisation_transfer_in_closed_form():
    """Henkelman et al. 1993: water's steady state beside a saturated semi-solid pool."""
    b1, offset = 150.0, 2000.0
    a, b = matrix((), SOLID, b1, offset)
    found = float(steady(a, b)[2])
    t1, t2 = 1.2, 0.07
    fraction, k, r1s = 0.12, 25.0, 1 / 0.8
    w1, wo = 2 * np.pi * b1, 2 * np.pi * offset
    rfa = w1**2 * (1 / t2) / (wo**2 + 1 / t2**2)
    rfb = float(np.pi * w1**2 * SOLID.absorption_s(jnp.asarray(offset)))
    r1 = 1 / t1
    upper = r1 * (r1s + k + rfb) + fraction * k * r1s
    lower = (r1 + rfa + fraction * k) * (r1s + k + rfb) - fraction * k * k
    assert found == pytest.approx(upper / lower, rel=1e-9)


def test_long_saturation_arrives_at_the_steady_state():
    a, b = matrix((AMIDE,), SOLID, 50.0, 447.0)
    q = mr.Tissue(t1_s=1.2, t2_s=0.07, pools=(AMIDE,), semisolid=SOLID)
    z = mr.simulate(cest_saturation([447.0], 50.0, 30.0), q)
    assert float(z[0].imag) == pytest.approx(float(steady(a, b)[2]), rel=1e-8)


def test_a_z_spectrum_dips_at_the_pools_shift():
    offsets = np.linspace(-800, 800, 33)
    q = mr.Tissue(t1_s=1.2, t2_s=0.07, pools=(AMIDE,))
    z = np.asarray(mr.simulate(cest_saturation(offsets, 30.0, 2.0), q)).imag
    asymmetry = z[::-1] - z
    assert offsets[asymmetry.argmax()] == pytest.approx(447, abs=50)
    assert asymmetry.max() > 0.1
    bare = mr.simulate(cest_saturation(offsets, 30.0, 2.0), mr.Tissue(t1_s=1.2, t2_s=0.07))
    np.testing.assert_allclose(bare, bare[::-1], atol=1e-9)


@pytest.mark.parametrize(
    "lineshape",
    ["gaussian", "lorentzian", pytest.param("super_lorentzian", marks=pytest.mark.long)],
)
def test_lineshapes_are_even_and_of_one_area(lineshape):
    solid = SemiSolid(fraction=0.1, exchange_rate_hz=20.0, lineshape=lineshape)
    offsets = np.linspace(-2e6, 2e6, 400001)
    g = np.asarray(solid.absorption_s(jnp.asarray(offsets)))
    np.testing.assert_allclose(g, g[::-1], rtol=1e-9)
    area = 2 * np.pi * integrate.trapezoid(g, offsets)
    lost = 0.04 if lineshape == "super_lorentzian" else 0.0  # to the parabola at the middle
    assert area == pytest.approx(1.0 - lost, abs=0.01)


def test_derivatives_also_without_field_and_exchange():
    def spectrum(p):
        pool = Pool(p["fraction"], p["rate"], p["shift"], p["pool_t1"], p["pool_t2"])
        solid = SemiSolid(p["solid"], p["solid_rate"])
        q = mr.Tissue(t1_s=p["t1"], t2_s=p["t2"], b0_hz=p["b0"], pools=(pool,), semisolid=solid)
        theta = cest_saturation(p["offsets"], p["b1"], 0.2, pulses=2, gap_s=0.01)
        return mr.simulate(theta, q)

    p = {
        "fraction": 0.02, "rate": 40.0, "shift": 300.0, "pool_t1": 0.8, "pool_t2": 0.02,
        "solid": 0.1, "solid_rate": 20.0, "t1": 1.0, "t2": 0.06, "b0": 4.0, "b1": 20.0,
        "offsets": np.array([150.0, 300.0]),
    }  # fmt: skip
    check_gradient(spectrum, jax.tree.map(jnp.asarray, p), rtol=1e-5)
    still = {**p, "b1": 0.0, "rate": 1e-3}
    jax.tree.map(
        lambda g: np.testing.assert_array_equal(np.isfinite(g), True),
        jax.grad(lambda p: jnp.sum(spectrum(p).imag))(jax.tree.map(jnp.asarray, still)),
    )


@pytest.mark.parametrize(
    ("build", "found"),
    [
        (lambda: Pool(0.0, 10.0), "sum to nothing"),
        (lambda: Pool(0.1, -10.0), "exchange_rate_hz"),
        (lambda: SemiSolid(0.1, 10.0, lineshape="box"), "one of gaussian"),
        (lambda: cest_saturation([0.0], 10.0, 1.0, pulses=0), "1 or more"),
        (
            lambda: mr.simulate(
                mr.sequence.diffusion_weighted([0.0], 0.05),
                mr.Tissue(t1_s=1.0, t2_s=0.1, pools=(AMIDE,)),
            ),
            "made of pulses",
        ),
    ],
)
def test_one_clear_error_each(build, found):
    with pytest.raises(InputError, match=found):
        build()
