"""Trains of any repetition times on resonance, against the general engine."""

import jax.numpy as jnp
import numpy as np
import pytest

import mrphys as mr
from mrphys.errors import InputError
from tests.laws import check_gradient

FLIPS = np.linspace(0.2, 1.2, 8)
TR = 0.01 + 0.004 * np.cos(np.arange(8)) ** 2
Q = mr.Tissue(t1_s=[0.5, 1.2], t2_s=[0.05, 0.1], b1=[0.9, 1.1], adc_mm2_per_s=1e-3)


def train(tr, on_resonance, moment=300.0):
    return mr.sequence.fingerprinting_fisp(
        FLIPS, tr, 0.003, on_resonance=on_resonance, moment_rad_per_mm=moment
    )


@pytest.mark.core
@pytest.mark.parametrize("moment", [None, 300.0])
def test_is_the_general_engine(rtol, moment):
    expected = mr.simulate(train(TR, False, moment), Q)
    assert float(jnp.abs(expected).max()) > 0.1
    np.testing.assert_allclose(
        mr.simulate(train(TR, True, moment), Q), expected, atol=rtol(1e-14, 1e-6)
    )


@pytest.mark.parametrize("te", [0.003, np.linspace(0.002, 0.004, 8)])
def test_diffusion_acts_while_the_gradient_does(te):
    """One repetition time, off resonance: the fast path beside the general one."""
    q = mr.Tissue(t1_s=1.0, t2_s=0.1, adc_mm2_per_s=1e-3, b0_hz=8.0)
    fast, general = (
        mr.simulate(
            mr.sequence.fingerprinting_fisp(FLIPS, 0.012, te, phase, moment_rad_per_mm=300.0), q
        )
        for phase in (None, np.zeros(8))
    )
    np.testing.assert_allclose(fast, general, atol=1e-14)


def test_gradient_in_repetition_times():
    check_gradient(lambda tr: mr.simulate(train(tr, True), Q), TR, directions=3, rtol=1e-6)


def test_off_resonance_is_refused():
    q = mr.Tissue(t1_s=1.0, t2_s=0.1, b0_hz=5.0)
    with pytest.raises(InputError, match="on resonance"):
        mr.simulate(train(TR, True), q)
    assert np.all(np.isfinite(mr.simulate(train(TR, False), q)))
